//! The rule of udev that keeps halves of a mirror apart which were each written to alone.
//!
//! md: two of udev's workers that give md a member each at the same moment, as at a boot, have one run the half that came first, and the
//! other one added to what runs: mdadm looks whether an array runs before it adds to it, and runs it after it has let go of its lock
//! (mdadm's `Incremental.c`). The kernel then copies over the half that lost, or only what one bitmap says. By itself mdadm would leave
//! the second alone.
//!
//! ZFS: a boot imports a pool from whichever of its devices are there, takes the state of the one with the highest transaction group, and
//! forgets without a word what only another one has. That is nothing of udev's: a drop-in of the unit that imports asks before.
//!
//! btrfs: what udev tells the kernel of it mounts together, and takes the half with the lower number for a member that lags.

use std::path::{Path, PathBuf};

use minijinja::context;
use serde::{Deserialize, Serialize};

use super::{Act, Rendered, ScheduleError, dropin::quoted as unit_quoted, fill};
use crate::{
    config::Mirror,
    host::{Host, files::Doing as _},
    model::BackendKind,
};

const RULES: &str = "/etc/udev/rules.d";
const IMPORTS: &str = "/etc/systemd/system/zfs-import-cache.service.d";
/// What lies there is assembled and mounted by the initramfs, which cannot wait for the machine's own udev.
pub const EARLY: [&str; 2] = ["/", "/usr"];

/// What is there while the halves of a pool are apart: then none is imported.
pub fn apart_flag(mirror: &str) -> PathBuf {
    Path::new(crate::host::lock::RUN_DIR).join("apart").join(mirror)
}

/// Has the kernel forget a device that it does not use. udev looks for no program in a path.
const FORGETS: &str = ", RUN+=\"/usr/bin/env btrfs device scan --forget $devnode\"";

/// What a rule is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What holds the mirror. Rules of before any other had one are md's.
    #[serde(default = "md")]
    pub backend: BackendKind,
    /// The mirror's name.
    pub mirror: String,
    /// Its UUID: the array's, or the filesystem's.
    pub uuid: String,
    /// The raidguard that is asked.
    pub binary: PathBuf,
}

const fn md() -> BackendKind {
    BackendKind::Mdadm
}

/// Does udev run here? By the socket on which it is spoken to (udev's `udev-ctrl.c`).
pub fn has_udev(host: &Host) -> bool {
    host.path("/run/udev/control").exists()
}

impl Rule {
    /// The rule that a mirror should have; nothing where it is needed before the machine's own udev runs.
    pub fn of(mirror: &Mirror, binary: &Path) -> Option<Self> {
        Self::for_mirror(mirror.backend, &mirror.name, &mirror.uuid, &mirror.mountpoint, binary)
    }

    /// The same of a mirror that is not declared yet.
    pub fn for_mirror(
        backend: BackendKind,
        mirror: &str,
        uuid: &str,
        mountpoint: &Path,
        binary: &Path,
    ) -> Option<Self> {
        let late = !EARLY.iter().any(|place| mountpoint == Path::new(place));
        late.then(|| Self {
            backend,
            mirror: mirror.to_owned(),
            uuid: uuid.to_owned(),
            binary: binary.to_owned(),
        })
    }

    /// Its file: read before those that give the kernel a member (`64-md-raid-assembly.rules`, `64-btrfs.rules`), both of which pass over
    /// what is not ready, and after those that say what is on a device (`60-persistent-storage.rules`). initramfs-tools takes it along.
    ///
    /// Of ZFS nothing of udev's decides. There it is a drop-in of the unit that imports pools at a boot.
    pub fn path(&self) -> PathBuf {
        match self.backend {
            BackendKind::Zfs => Path::new(IMPORTS).join(format!("raidguard-{}.conf", self.mirror)),
            BackendKind::Btrfs | BackendKind::Mdadm => {
                Path::new(RULES).join(format!("62-raidguard-{}.rules", self.mirror))
            }
        }
    }

    /// What keeps the halves apart by it.
    pub const fn keeper(&self) -> &'static str {
        match self.backend {
            BackendKind::Zfs => "the import at a boot",
            BackendKind::Btrfs | BackendKind::Mdadm => "udev",
        }
    }

    /// Whether an initramfs has a copy of it.
    pub fn is_in_initramfs(&self) -> bool {
        self.backend != BackendKind::Zfs
    }

    /// Its path and text.
    ///
    /// # Errors
    /// The template is faulty, or the program's path cannot be written in a rule.
    pub fn rendered(&self) -> Result<Rendered, ScheduleError> {
        let binary = || quoted(&self.binary).ok_or_else(|| ScheduleError::Unwritable(self.binary.clone()));
        let (mirror, uuid, md) = (&self.mirror, &self.uuid, self.backend == BackendKind::Mdadm);
        let (kind, waits, forgets) = match self.backend {
            BackendKind::Zfs => {
                let binary = unit_quoted(&self.binary.to_string_lossy()).replace('$', "$$");
                let flag = apart_flag(mirror);
                let context = context! { mirror, binary, flag };
                let text = fill(include_str!("../../../templates/import.conf"), context)?;
                return Ok(Rendered { path: self.path(), text });
            }
            BackendKind::Mdadm => ("linux_raid_member", "", ""),
            BackendKind::Btrfs => ("btrfs", ", ENV{ID_BTRFS_READY}=\"0\"", FORGETS),
        };
        let context = context! { mirror, uuid, binary => binary()?, md, kind, waits, forgets };
        let text = fill(include_str!("../../../templates/udev.rules"), context)?;
        Ok(Rendered { path: self.path(), text })
    }

    /// Is it there, as it would be written?
    ///
    /// # Errors
    /// It cannot be read, or not be rendered.
    pub fn is_there(&self, host: &Host) -> Result<bool, ScheduleError> {
        let file = self.rendered()?;
        match host.read_optional(&file.path) {
            Ok(text) => Ok(text.as_deref() == Some(&file.text)),
            Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Ok(false),
            Err(e) => Err(e).doing("reading", &file.path).map_err(ScheduleError::File),
        }
    }

    /// Writes it. udev sees by itself that it is there.
    ///
    /// # Errors
    /// It cannot be written, or not be rendered.
    pub fn write(&self, host: &Host) -> Result<(), ScheduleError> {
        Act::Write(self.rendered()?).apply(host)
    }

    /// Takes it away.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, host: &Host) -> Result<(), ScheduleError> {
        Act::Remove(self.path()).apply(host)
    }
}

/// A path as a rule names it: with blanks in quotes, what udev would fill in doubled (udev(7)). Nothing where it has what ends a value.
fn quoted(path: &Path) -> Option<String> {
    let plain = path.to_str()?.replace('%', "%%").replace('$', "$$");
    if plain.contains(|c: char| "\"'\\".contains(c) || c.is_control()) {
        None
    } else if plain.contains(char::is_whitespace) {
        Some(format!("'{plain}'"))
    } else {
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc};

    use super::*;
    use crate::{exec::ScriptedRunner, health::samples, host::schedule::facts};

    fn array() -> Mirror {
        let mut mirror = samples::healthy().0;
        (mirror.backend, mirror.schedule, mirror.node) = (BackendKind::Mdadm, None, None);
        mirror
    }

    #[test]
    fn what_the_machine_starts_from_has_no_rule() {
        let (binary, btrfs) = (Path::new("/usr/local/sbin/raidguard"), samples::healthy().0);
        for mirror in [array(), btrfs] {
            for (place, expected) in
                [("/srv/lightning", true), ("/", false), ("/usr", false), ("/usr/lightning", true)]
            {
                let there = Mirror { mountpoint: place.into(), ..mirror.clone() };
                assert_eq!(Rule::of(&there, binary).is_some(), expected, "{place}");
            }
        }
    }

    /// Of a mirror with this UUID, held by this.
    fn text(backend: BackendKind) -> String {
        let (uuid, binary) = ("3aaa0122-294f-5372-918d-05fe88b0b1b5", Path::new("/usr/local/sbin/raidguard"));
        let rule = Rule::for_mirror(backend, "lightning", uuid, Path::new("/srv/lightning"), binary).unwrap();
        let Rendered { path, text } = rule.rendered().unwrap();
        let place = match backend {
            BackendKind::Zfs => "/etc/systemd/system/zfs-import-cache.service.d/raidguard-lightning.conf",
            BackendKind::Btrfs | BackendKind::Mdadm => "/etc/udev/rules.d/62-raidguard-lightning.rules",
        };
        assert_eq!(path, Path::new(place));
        text
    }

    #[test]
    fn the_rule_of_an_array_is_asked_before_md_is_given_a_member() {
        insta::assert_snapshot!(text(BackendKind::Mdadm), @r#"
        # Written by raidguard: of halves of the array lightning that were each written to alone, md takes none into an array with the other.
        SUBSYSTEM!="block", GOTO="raidguard_lightning_end"
        ENV{ID_FS_TYPE}!="linux_raid_member", GOTO="raidguard_lightning_end"
        ENV{ID_FS_UUID}!="3aaa0122-294f-5372-918d-05fe88b0b1b5", GOTO="raidguard_lightning_end"
        # What was kept back may have become a member since: md is told when it goes.
        ACTION=="remove", ENV{SYSTEMD_READY}="", GOTO="raidguard_lightning_end"
        # An initramfs has no raidguard, and no need of this array: its members wait for the machine's own udev.
        TEST=="/scripts/init-top", ENV{SYSTEMD_READY}="0", GOTO="raidguard_lightning_end"
        TEST=="/etc/initrd-release", ENV{SYSTEMD_READY}="0", GOTO="raidguard_lightning_end"
        # A raidguard that is not there, or fails, keeps nothing back.
        PROGRAM=="/usr/local/sbin/raidguard apart $devnode", RESULT=="apart", ENV{SYSTEMD_READY}="0"
        LABEL="raidguard_lightning_end"
        "#);
    }

    #[test]
    fn no_pool_is_imported_before_it_was_asked() {
        insta::assert_snapshot!(text(BackendKind::Zfs), @r"
        # Written by raidguard: where halves of the pool lightning were each written to alone, no pool is imported. ZFS would take the newer half, and forget
        # without a word what only the other one has. See `raidguard check`.
        [Service]
        # A raidguard that is not there, or fails, keeps nothing back.
        ExecStartPre=-/usr/local/sbin/raidguard apart --pool lightning
        ExecStartPre=/usr/bin/test ! -e /run/raidguard/apart/lightning
        ");
    }

    #[test]
    fn the_rule_of_a_btrfs_is_asked_before_the_kernel_is_told_of_a_member() {
        insta::assert_snapshot!(text(BackendKind::Btrfs), @r#"
        # Written by raidguard: of halves of the mirror lightning that were each written to alone, the kernel mounts none together with the other.
        SUBSYSTEM!="block", GOTO="raidguard_lightning_end"
        ENV{ID_FS_TYPE}!="btrfs", GOTO="raidguard_lightning_end"
        ENV{ID_FS_UUID}!="3aaa0122-294f-5372-918d-05fe88b0b1b5", GOTO="raidguard_lightning_end"
        ACTION=="remove", GOTO="raidguard_lightning_end"
        # What is kept back waits: udev looks at it again when another member is ready (64-btrfs.rules). An initramfs may have told the kernel of it.
        # An initramfs has no raidguard, and no need of this mirror: its members wait for the machine's own udev.
        TEST=="/scripts/init-top", ENV{SYSTEMD_READY}="0", ENV{ID_BTRFS_READY}="0", GOTO="raidguard_lightning_end"
        TEST=="/etc/initrd-release", ENV{SYSTEMD_READY}="0", ENV{ID_BTRFS_READY}="0", GOTO="raidguard_lightning_end"
        # A raidguard that is not there, or fails, keeps nothing back.
        PROGRAM=="/usr/local/sbin/raidguard apart $devnode", RESULT=="apart", ENV{SYSTEMD_READY}="0", ENV{ID_BTRFS_READY}="0", RUN+="/usr/bin/env btrfs device scan --forget $devnode"
        LABEL="raidguard_lightning_end"
        "#);
    }

    #[test]
    fn the_program_is_named_as_udev_reads_it() {
        for (path, expected) in [
            ("/usr/local/sbin/raidguard", Some("/usr/local/sbin/raidguard")),
            ("/opt/my tools/raidguard", Some("'/opt/my tools/raidguard'")),
            ("/opt/100%/$x/raidguard", Some("/opt/100%%/$$x/raidguard")),
            ("/opt/a\"b/raidguard", None),
            ("/opt/a'b/raidguard", None),
            ("/opt/a\nb/raidguard", None),
        ] {
            assert_eq!(quoted(Path::new(path)).as_deref(), expected, "{path:?}");
        }
    }

    #[test]
    fn what_became_of_it_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), samples::now());
        let (array, program) = (array(), dir.path().join("opt/my tools/raidguard"));
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let rule = Rule::of(&array, Path::new("/opt/my tools/raidguard")).unwrap();
        let seen = || facts(&host, std::slice::from_ref(&array), &array, true).unwrap().rule;
        let at = rule.path().display().to_string();
        assert_eq!(seen(), Some(format!("{at} is missing")));
        let unwanted = facts(&host, std::slice::from_ref(&array), &array, false).unwrap().rule;
        assert_eq!(unwanted, None, "no udev runs");
        rule.write(&host).unwrap();
        assert!(rule.is_there(&host).unwrap());
        assert_eq!(seen(), None);
        fs::remove_file(&program).unwrap();
        assert_eq!(seen(), Some(format!("{at} asks /opt/my tools/raidguard, which is no program")));
        fs::write(host.path(rule.path()), "# mine\n").unwrap();
        assert!(!rule.is_there(&host).unwrap());
        assert_eq!(seen(), Some(format!("{at} is not as raidguard writes it")));
        rule.remove(&host).unwrap();
        assert!(!rule.is_there(&host).unwrap());
    }
}
