//! The rule of udev that keeps halves of an array apart which were each written to alone. Two of udev's workers that give md a member each
//! at the same moment, as at a boot, have one run the half that came first, and the other one added to what runs: mdadm looks whether
//! an array runs before it adds to it, and runs it after it has let go of its lock (mdadm's `Incremental.c`). The kernel then copies
//! over the half that lost, or only what one bitmap says. By itself mdadm would leave the second alone.

use std::path::{Path, PathBuf};

use minijinja::context;
use serde::{Deserialize, Serialize};

use super::{Act, Rendered, ScheduleError, fill};
use crate::{
    config::Mirror,
    host::{Host, files::Doing as _},
    model::BackendKind,
};

const RULES: &str = "/etc/udev/rules.d";
/// What lies there has its array assembled by the initramfs, which cannot wait for the machine's own udev.
const EARLY: [&str; 2] = ["/", "/usr"];

/// What a rule is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The mirror's name.
    pub mirror: String,
    /// The array's UUID.
    pub uuid: String,
    /// The raidguard that is asked.
    pub binary: PathBuf,
}

impl Rule {
    /// The rule that a mirror should have; nothing where it is none of md, or one that is needed before the machine's own udev runs.
    pub fn of(mirror: &Mirror, binary: &Path) -> Option<Self> {
        Self::for_array(mirror.backend, &mirror.name, &mirror.uuid, &mirror.mountpoint, binary)
    }

    /// The same of a mirror that is not declared yet.
    pub fn for_array(
        backend: BackendKind,
        mirror: &str,
        uuid: &str,
        mountpoint: &Path,
        binary: &Path,
    ) -> Option<Self> {
        let late = !EARLY.iter().any(|place| mountpoint == Path::new(place));
        (backend == BackendKind::Mdadm && late).then(|| Self {
            mirror: mirror.to_owned(),
            uuid: uuid.to_owned(),
            binary: binary.to_owned(),
        })
    }

    /// Its file: read before md's own (`64-md-raid-assembly.rules`) and after those that say what is on a device
    /// (`60-persistent-storage.rules`). initramfs-tools takes it along.
    pub fn path(&self) -> PathBuf {
        Path::new(RULES).join(format!("62-raidguard-{}.rules", self.mirror))
    }

    /// Its path and text.
    ///
    /// # Errors
    /// The template is faulty, or the program's path cannot be written in a rule.
    pub fn rendered(&self) -> Result<Rendered, ScheduleError> {
        let binary = quoted(&self.binary).ok_or_else(|| ScheduleError::Unwritable(self.binary.clone()))?;
        let (mirror, uuid) = (&self.mirror, &self.uuid);
        let text = fill(include_str!("../../../templates/udev.rules"), context! { mirror, uuid, binary })?;
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
    fn an_array_has_a_rule_and_nothing_else_has() {
        let array = array();
        let binary = Path::new("/usr/local/sbin/raidguard");
        assert_eq!(Rule::of(&samples::healthy().0, binary), None);
        for (place, expected) in
            [("/srv/lightning", true), ("/", false), ("/usr", false), ("/usr/lightning", true)]
        {
            let there = Mirror { mountpoint: place.into(), ..array.clone() };
            assert_eq!(Rule::of(&there, binary).is_some(), expected, "{place}");
        }
        let rule = Rule::of(&array, binary).unwrap();
        let Rendered { path, text } = rule.rendered().unwrap();
        assert_eq!(path, Path::new("/etc/udev/rules.d/62-raidguard-lightning.rules"));
        let asks = "PROGRAM==\"/usr/local/sbin/raidguard apart $devnode\", RESULT==\"apart\", ENV{SYSTEMD_READY}=\"0\"\n";
        assert!(text.contains(asks), "{text}");
        assert!(text.contains(&format!("ENV{{ID_FS_UUID}}!=\"{}\", GOTO", array.uuid)), "{text}");
        let (to, at) = ("GOTO=\"raidguard_lightning_end\"\n", "LABEL=\"raidguard_lightning_end\"\n");
        assert!(text.ends_with(at) && text.matches(to).count() == text.lines().count() - 6, "{text}");
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
        let seen = || facts(&host, std::slice::from_ref(&array), &array).unwrap().rule;
        let at = rule.path().display().to_string();
        assert_eq!(seen(), Some(format!("{at} is missing")));
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
