//! A pool made, put in reach again, and taken away.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::observe::{is_of, of_setup};
use crate::{
    backend::{BackendError, Made, MirrorSpec, ParseError, blocks},
    exec::Cmd,
    host::{
        Host,
        files::Doing as _,
        zfs::{self, Label, Labels, kstat},
    },
    model::Bytes,
};

/// Where systemd's units and Debian's scripts find which pools to import at a boot (zpoolprops(7), `cachefile`).
const CACHE: &str = "/etc/zfs/zpool.cache";
/// What has every version since 2.1 open the pool, a rescue system's too (zpool-features(7), Compatibility feature sets).
const FEATURES: &str = "openzfs-2.1-linux";
/// SQLite writes pages of 4 KiB, of which some lie together: a record that is not much larger is rewritten at little cost and still
/// worth compressing.
const RECORD: &str = "16K";
/// Devices that differ by more are not taken without force (`ZPOOL_FUZZ` in `cmd/zpool/zpool_vdev.c`).
const EVEN: u64 = 16 << 20;
/// Where devices are looked for: under names that stay. The partitions' own names are all the same, those would be found first.
const STABLE: [&str; 2] = ["/dev/disk/by-partuuid", "/dev/disk/by-id"];

/// A UUID as the comment of a pool has it, which may have 32 characters (`ZPROP_MAX_COMMENT`).
pub(super) fn comment(uuid: &str) -> String {
    uuid.chars().filter(|c| *c != '-').collect()
}

/// Makes the pool, its filesystem not mounted yet.
pub(super) fn create(spec: &MirrorSpec) -> Vec<Cmd> {
    let (ashift, paths) = match &spec.pool {
        Some(pool) => (pool.ashift, &pool.paths),
        None => (super::fit::COMMON, &spec.devices),
    };
    let mut cmd = Cmd::destroy("zpool").arg("create");
    if spec.pool.as_ref().is_some_and(|pool| pool.uneven) {
        cmd = cmd.arg("-f");
    }
    let pool = [
        format!("ashift={ashift}"),
        "autotrim=on".to_owned(),
        format!("cachefile={CACHE}"),
        format!("compatibility={FEATURES}"),
        format!("comment={}", comment(&spec.uuid)),
    ];
    let files = [
        "canmount=off".to_owned(),
        format!("recordsize={RECORD}"),
        "compression=lz4".to_owned(),
        "atime=off".to_owned(),
        "xattr=sa".to_owned(),
        "acltype=posix".to_owned(),
        // Debian's monthly scrub, beside which ours would run.
        "org.debian:periodic-scrub=disable".to_owned(),
    ];
    for property in pool {
        cmd = cmd.args(["-o", &property]);
    }
    for property in files {
        cmd = cmd.args(["-O", &property]);
    }
    vec![cmd.arg("-m").arg(&spec.mountpoint).args([&spec.name, spec.level.as_str()]).args(paths)]
}

/// Are devices of these sizes taken for one pool only by force?
pub fn are_uneven(sizes: &[Bytes]) -> bool {
    let most = sizes.iter().map(|size| size.0).max().unwrap_or_default();
    sizes.iter().any(|size| most - size.0 > EVEN)
}

/// The labels of a device; nothing where it is not there, as one that is still to be made.
fn labels(host: &Host, device: &Path) -> Result<Option<Labels>, BackendError> {
    match Labels::of_member(&host.path(device)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        labels => Ok(labels.doing("reading the labels of", device)?),
    }
}

/// Is the device one of this very making, or was it becoming one?
fn is_ours(label: &Label, spec: &MirrorSpec) -> bool {
    is_of(label, &spec.uuid)
        || of_setup(label, &spec.uuid)
        || (label.txg == 0 && label.pool.as_ref() == Some(&spec.name))
}

pub(super) fn made(host: &Host, spec: &MirrorSpec) -> Result<Made, BackendError> {
    let (mut ours, mut whole, mut lacking) = (0_usize, false, Vec::new());
    for device in &spec.devices {
        let labels = labels(host, device)?;
        let label = labels.as_ref().and_then(Labels::newest).filter(|label| is_ours(label, spec));
        let Some(label) = label else {
            lacking.push(format!("{} does not belong to it", device.display()));
            continue;
        };
        ours += 1;
        let members = label.tree.as_ref().map_or(0, |tree| tree.leaves().len());
        // The first transaction group is written when all of its devices have their labels.
        if label.txg == 0 {
            lacking.push(format!("{} was only being made one of it", device.display()));
        } else if members != spec.devices.len() {
            lacking.push(format!("{} says that it has {members} members", device.display()));
        } else {
            whole = true;
        }
    }
    Ok(if ours == 0 {
        Made::No
    } else if whole {
        // One that does not say so now was lost since, which is no reason to make it anew.
        Made::Complete
    } else {
        Made::Partial(lacking.join("; "))
    })
}

pub(super) fn unmaking(spec: &MirrorSpec) -> Vec<Cmd> {
    vec![destroy(&spec.name)]
}

fn destroy(name: &str) -> Cmd {
    Cmd::destroy("zpool").args(["destroy", "-f", "--", name])
}

/// What takes it away: the pool where it is imported, then what its devices still say, since a pool that was destroyed can be imported
/// again.
pub(super) fn unmake(host: &Host, spec: &MirrorSpec) -> Result<Vec<Cmd>, BackendError> {
    let mut cmds = Vec::new();
    if let Some((name, _)) = imported(host, &spec.uuid)? {
        cmds.push(destroy(&name));
    }
    for device in &spec.devices {
        let labels = labels(host, device)?;
        if labels.as_ref().and_then(Labels::newest).is_some_and(|label| is_ours(label, spec)) {
            let size = blocks::size_of(host, &blocks::kernel_name(host, device))?.unwrap_or_default();
            cmds.extend(zfs::clear_commands(device, size.0));
        }
    }
    Ok(cmds)
}

/// The name and number of the pool with this UUID, if it is imported here.
pub(super) fn imported(host: &Host, uuid: &str) -> Result<Option<(String, String)>, BackendError> {
    let Some((name, guid)) = super::observe::named(host, uuid)? else { return Ok(None) };
    if kstat::state(host, &name)?.is_none() {
        return Ok(None);
    }
    // Another pool may have the name.
    let said = host.runner().run(&Cmd::probe("zpool").args(["get", "-Hpo", "value", "guid", "--", &name]))?;
    Ok((said.text().trim() == guid).then_some((name, guid)))
}

/// Imports it without mounting what it holds.
fn import(what: &str, from: &[PathBuf]) -> Cmd {
    let cmd = Cmd::change("zpool").args(["import", "-N", "-o", &format!("cachefile={CACHE}")]);
    from.iter().fold(cmd, |cmd, dir| cmd.arg("-d").arg(dir)).args(["--", what])
}

pub(super) fn assembling(spec: &MirrorSpec) -> Vec<Cmd> {
    // A pool that is declared is known by its number, one that is to be made by its name alone.
    let what = if spec.pool.is_some() { &spec.name } else { &spec.uuid };
    vec![import(what, &STABLE.map(PathBuf::from))]
}

/// Imports it, where it is not imported: by its number, since several may have its name.
pub(super) fn assemble(host: &Host, spec: &MirrorSpec) -> Result<Vec<Cmd>, BackendError> {
    assemble_by_number(host, &spec.uuid)
}

/// As [`assemble`], of the pool with this UUID.
pub(super) fn assemble_by_number(host: &Host, uuid: &str) -> Result<Vec<Cmd>, BackendError> {
    if imported(host, uuid)?.is_some() {
        return Ok(Vec::new());
    }
    let Some((_, guid)) = super::observe::named(host, uuid)? else {
        return Err(BackendError::State(format!("no device says that it is of the pool {uuid}")));
    };
    let there = STABLE.map(PathBuf::from).into_iter().filter(|dir| host.path(dir).is_dir());
    Ok(vec![import(&guid, &there.collect::<Vec<_>>())])
}

fn mount(dataset: &str) -> Vec<Cmd> {
    vec![
        Cmd::change("zfs").args(["set", "canmount=on", dataset]),
        Cmd::change("zfs").args(["mount", dataset]),
    ]
}

pub(super) fn mounting(spec: &MirrorSpec) -> Vec<Cmd> {
    mount(spec.pool_name())
}

/// Mounts the dataset of the pool that belongs at the mirror's place.
pub(super) fn mount_in_place(host: &Host, spec: &MirrorSpec) -> Result<Vec<Cmd>, BackendError> {
    let Some((name, _)) = imported(host, &spec.uuid)? else {
        return Err(BackendError::State(format!("the pool `{}` is not imported", spec.pool_name())));
    };
    Ok(mount(&dataset_at(host, &name, &spec.mountpoint)?))
}

/// The dataset of a pool that is to be mounted at this place.
pub(super) fn dataset_at(host: &Host, pool: &str, mountpoint: &Path) -> Result<String, BackendError> {
    let cmd = Cmd::probe("zfs").args(["list", "-Hpo", "mountpoint,name", "-t", "filesystem", "-r", "--"]);
    let output = host.runner().run(&cmd.arg(pool))?;
    dataset_of(&output.text(), mountpoint)?.ok_or_else(|| {
        BackendError::State(format!("no dataset of the pool {pool} belongs at {}", mountpoint.display()))
    })
}

/// Reads `zfs list -Hpo mountpoint,name`: a line a dataset, a tab between the two.
fn dataset_of(text: &str, mountpoint: &Path) -> Result<Option<String>, ParseError> {
    let mut found = None;
    for line in text.lines() {
        // A mount point may have a tab in it, a name never.
        let (at, name) = line.rsplit_once('\t').ok_or_else(|| ParseError::new("zfs list", line))?;
        if found.is_none() && Path::new(at) == mountpoint {
            found = Some(name.to_owned());
        }
    }
    Ok(found)
}

/// What there is by this name.
pub(super) fn name_conflict(host: &Host, spec: &MirrorSpec) -> Result<Option<String>, BackendError> {
    let name = &spec.name;
    Ok(if let Some(why) = no_name(name) {
        Some(why)
    } else if kstat::state(host, name)?.is_some() {
        Some(format!("a pool `{name}` is imported already"))
    } else {
        None
    })
}

/// Why ZFS takes no pool of this name, of those that a mirror may have (`pool_namecheck` in `module/zcommon/zfs_namecheck.c`).
fn no_name(name: &str) -> Option<String> {
    let reserved = ["mirror", "raidz", "draid", "spare", "log"];
    let disk = name.strip_prefix('c').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
        Some(format!("a pool's name begins with a letter, `{name}` does not"))
    } else if disk || reserved.iter().any(|word| name.starts_with(word)) {
        Some(format!("`{name}` is a name that ZFS keeps for itself"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::PoolSpec,
        model::{BackendKind, Level},
    };

    fn spec() -> MirrorSpec {
        MirrorSpec {
            backend: BackendKind::Zfs,
            name: "lightning".into(),
            pool_name: None,
            level: Level::Mirror,
            uuid: "1f624a50-0f62-4fea-8ae9-91647e74e09e".into(),
            filesystem: None,
            pool: Some(PoolSpec {
                ashift: 12,
                uneven: false,
                paths: ["/dev/disk/by-partuuid/one", "/dev/disk/by-partuuid/two"].map(PathBuf::from).into(),
            }),
            devices: ["/dev/sdb1", "/dev/sdc1"].map(PathBuf::from).into(),
            mountpoint: "/srv/lightning".into(),
        }
    }

    #[test]
    fn a_pool_is_made_by_one_command() {
        insta::assert_snapshot!(create(&spec()).iter().map(Cmd::line).collect::<Vec<_>>().join("\n"), @"zpool create -o ashift=12 -o autotrim=on -o cachefile=/etc/zfs/zpool.cache -o compatibility=openzfs-2.1-linux -o comment=1f624a500f624fea8ae991647e74e09e -O canmount=off -O recordsize=16K -O compression=lz4 -O atime=off -O xattr=sa -O acltype=posix -O org.debian:periodic-scrub=disable -m /srv/lightning lightning mirror /dev/disk/by-partuuid/one /dev/disk/by-partuuid/two");
        assert_eq!(comment(&spec().uuid).len(), 32);
    }

    #[test]
    fn devices_of_different_sizes_need_force() {
        assert!(!are_uneven(&[Bytes::gib(1), Bytes(Bytes::gib(1).0 + EVEN)]));
        assert!(are_uneven(&[Bytes::gib(1), Bytes(Bytes::gib(1).0 + EVEN + 1)]));
        assert!(!are_uneven(&[]));
    }

    #[test]
    fn names_that_zfs_does_not_take() {
        for good in ["lightning", "carol", "c-3", "pool9"] {
            assert_eq!(no_name(good), None, "{good}");
        }
        for bad in ["mirror-x", "raidz", "draid2", "spares", "logbook", "c0t0", "9lives"] {
            assert!(no_name(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn the_dataset_that_belongs_at_a_place() {
        let text = "none\ttank\n/srv/lightning\ttank/node\n/srv/lightning/x\ttank/node/x\n";
        assert_eq!(dataset_of(text, Path::new("/srv/lightning")).unwrap().as_deref(), Some("tank/node"));
        assert_eq!(dataset_of(text, Path::new("/srv")).unwrap(), None);
        assert!(dataset_of("tank", Path::new("/srv")).is_err());
    }
}
