//! btrfs: checksums, so that it knows which copy is the right one.

mod balance;
mod chunks;
mod level;
mod observe;
mod replace;
mod rescue;
mod scrub;
mod space;
mod superblock;
mod sysfs;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};

use self::superblock::Superblock;
use super::{
    Backend, BackendError, BalanceReport, Exchange, ExchangeEnd, ExchangeProgress, Layout, LevelEnd, Made,
    Members, MirrorSpec, ParseError, ScrubProgress, ScrubReport, Watcher,
};
use crate::{
    exec::Cmd,
    host::{Host, files::Doing as _, fstab},
    model::{
        Filesystem, FilesystemKind, Level,
        mirror::MirrorState,
        observed::{Claim, ScrubRecord},
    },
};

/// A subvolume's top directory has this inode number (kernel: `BTRFS_FIRST_FREE_OBJECTID`).
const SUBVOLUME_INODE: u64 = 256;

/// Mirrors of btrfs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Btrfs;

fn snapshot(container: &Path, to: &Path) -> Cmd {
    Cmd::change("btrfs").args(["subvolume", "snapshot"]).arg(container).arg(to)
}

impl Backend for Btrfs {
    fn tools(&self) -> &[&'static str] {
        &["btrfs", "mkfs.btrfs", "wipefs", "mount", "umount"]
    }

    fn tools_to_make(&self, _: Option<FilesystemKind>) -> Vec<&'static str> {
        Vec::new()
    }

    fn packages(&self) -> &'static str {
        "btrfs-progs"
    }

    fn supported(&self, host: &Host, level: Level) -> Result<(), BackendError> {
        let known = || -> Result<bool, BackendError> {
            let list = "/proc/filesystems";
            let text = host.read(list).doing("reading", list)?;
            Ok(text.lines().any(|line| line.split_whitespace().last() == Some("btrfs")))
        };
        if !known()? {
            let loaded = host.runner().run(&Cmd::change("modprobe").arg("btrfs"));
            if !known()? {
                let why = loaded.err().map_or_else(String::new, |e| format!(" ({e})"));
                return Err(BackendError::Unsupported {
                    what: "btrfs".to_owned(),
                    why: format!("the kernel has no btrfs, as built in or as a module{why}"),
                });
            }
        }
        let feature = "/sys/fs/btrfs/features/raid1c34";
        let many = matches!(level, Level::Raid1c3 | Level::Raid1c4);
        if many && !host.path(feature).try_exists().doing("looking for", feature)? {
            return Err(BackendError::Unsupported {
                what: format!("level {level}"),
                why: "the kernel is older than 5.5".to_owned(),
            });
        }
        Ok(())
    }

    fn create_commands(&self, spec: &MirrorSpec) -> Vec<Cmd> {
        let level = spec.level.as_str();
        // Both profiles are named, because mkfs's defaults have changed; no -f, so that mkfs refuses what is left on a device.
        let cmd = Cmd::destroy("mkfs.btrfs").args(["-q", "-d", level, "-m", level]);
        vec![cmd.args(["-L", &spec.name, "-U", &spec.uuid]).args(&spec.devices)]
    }

    fn made(&self, host: &Host, spec: &MirrorSpec) -> Result<Made, BackendError> {
        let (mut ours, mut lacking, mut devids) = (0, Vec::new(), BTreeSet::new());
        for device in &spec.devices {
            let found = Superblock::read(&host.path(device)).doing("reading the superblock of", device)?;
            match found.filter(|sb| sb.fsid == spec.uuid) {
                None => lacking.push(format!("{} does not belong to it", device.display())),
                Some(sb) => {
                    // Nobody but mkfs knows an unfinished superblock: where there are only such, nothing was made.
                    ours += usize::from(sb.finished);
                    devids.insert(sb.devid);
                    if !sb.finished {
                        lacking.push(format!("mkfs did not finish on {}", device.display()));
                    } else if sb.num_devices != spec.devices.len() as u64 {
                        let count = sb.num_devices;
                        lacking.push(format!("{} says that it has {count} members", device.display()));
                    }
                }
            }
        }
        Ok(if ours == 0 {
            Made::No
        } else if !lacking.is_empty() {
            Made::Partial(lacking.join("; "))
        } else if devids.len() != spec.devices.len() {
            Made::Partial("two devices say that they are the same member".to_owned())
        } else {
            Made::Complete
        })
    }

    fn unmaking(&self, spec: &MirrorSpec) -> Vec<Cmd> {
        let wipe = |device| Cmd::destroy("wipefs").args(["--all", "--types", "btrfs"]).arg(device);
        spec.devices.iter().map(wipe).collect()
    }

    fn fstab_entry(&self, spec: &MirrorSpec) -> Option<fstab::Entry> {
        Some(fstab::btrfs_entry(&spec.uuid, &spec.mountpoint))
    }

    fn container_word(&self) -> &'static str {
        "subvolume"
    }

    fn has_snapshots(&self) -> bool {
        true
    }

    fn container_commands(&self, path: &Path) -> Vec<Cmd> {
        vec![Cmd::change("btrfs").args(["subvolume", "create"]).arg(path)]
    }

    fn container_delete_commands(&self, path: &Path) -> Vec<Cmd> {
        vec![Cmd::destroy("btrfs").args(["subvolume", "delete", "--commit-after"]).arg(path)]
    }

    fn is_container(&self, host: &Host, path: &Path) -> Result<bool, BackendError> {
        let real = host.path(path);
        let meta = match fs::symlink_metadata(&real) {
            Ok(meta) => meta,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(false);
            }
            Err(e) => return Err(e).doing("reading", path).map_err(Into::into),
        };
        if !meta.is_dir() || meta.ino() != SUBVOLUME_INODE {
            return Ok(false);
        }
        let on = statfs(&real).map_err(io::Error::from).doing("asking for the filesystem of", path)?;
        Ok(on.filesystem_type() == BTRFS_SUPER_MAGIC)
    }

    fn observe(&self, host: &Host, uuid: &str, mountpoint: &Path) -> Result<MirrorState, BackendError> {
        observe::observe(host, uuid, mountpoint)
    }

    fn uuid_at(&self, host: &Host, mountpoint: &Path) -> Result<Option<String>, BackendError> {
        observe::uuid_at(host, mountpoint)
    }

    fn filesystem(&self, _: &Host, _: &MirrorState) -> Result<Option<Filesystem>, BackendError> {
        Ok(None)
    }

    fn claims(&self, host: &Host) -> Result<BTreeMap<String, Vec<Claim>>, BackendError> {
        observe::claims(host)
    }

    fn other_half(&self, host: &Host, device: &Path) -> Result<Option<PathBuf>, BackendError> {
        rescue::halves::other_half(host, device)
    }

    fn scrub_record(&self, host: &Host, uuid: &str) -> Result<Option<ScrubRecord>, BackendError> {
        scrub::record(host, uuid)
    }

    fn rescue(&self) -> &dyn super::rescue::Rescue {
        self
    }

    fn take_snapshot(
        &self,
        host: &Host,
        mountpoint: &Path,
        data: &Path,
        to: &Path,
    ) -> Result<PathBuf, BackendError> {
        for container in data.ancestors().take_while(|at| at.starts_with(mountpoint)) {
            if self.is_container(host, container)? {
                host.runner().run(&snapshot(container, to))?;
                return Ok(to.join(data.strip_prefix(container).unwrap_or(Path::new(""))));
            }
        }
        Err(BackendError::State(format!("{} is not on the mirror", data.display())))
    }

    fn drop_snapshot(&self, host: &Host, _: &Path, to: &Path) -> Result<(), BackendError> {
        if self.is_container(host, to)? {
            for cmd in self.container_delete_commands(to) {
                host.runner().run(&cmd)?;
            }
        }
        Ok(())
    }

    fn balance(
        &self,
        host: &Host,
        mountpoint: &Path,
        state: &MirrorState,
        watch: &mut Watcher<'_, ()>,
    ) -> Result<BalanceReport, BackendError> {
        balance::balance(host, mountpoint, state, watch)
    }

    fn scrub_command(&self, spec: &MirrorSpec) -> Cmd {
        scrub::command(&spec.mountpoint)
    }

    fn scrub(
        &self,
        host: &Host,
        mountpoint: &Path,
        state: &MirrorState,
        watch: &mut Watcher<'_, ScrubProgress>,
    ) -> Result<ScrubReport, BackendError> {
        scrub::scrub(host, mountpoint, state, watch)
    }
}

impl Members for Btrfs {
    fn layout(&self, host: &Host, device: &Path) -> Result<Layout, BackendError> {
        chunks::read(host, device)
    }

    fn is_assembled_when_made(&self) -> bool {
        false
    }

    fn degrades_a_mount(&self) -> bool {
        true
    }

    fn assembling(&self, _: &MirrorSpec, devices: &[PathBuf]) -> Vec<Cmd> {
        if devices.is_empty() {
            return Vec::new();
        }
        vec![Cmd::change("btrfs").args(["device", "scan"]).args(devices)]
    }

    fn exchange_command(&self, _: &MirrorSpec, exchange: &Exchange, at: &Path) -> Cmd {
        replace::command(exchange, at)
    }

    fn is_exchanged(&self, host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
        replace::is_exchanged(host, exchange)
    }

    fn exchange(
        &self,
        host: &Host,
        exchange: &Exchange,
        at: &Path,
        watch: &mut Watcher<'_, ExchangeProgress>,
    ) -> Result<ExchangeEnd, BackendError> {
        replace::exchange(host, exchange, at, watch)
    }

    fn return_commands(&self, _: &MirrorSpec, _: &Exchange) -> Vec<Cmd> {
        Vec::new()
    }

    fn take_back(
        &self,
        _: &Host,
        _: &Exchange,
        _: &mut Watcher<'_, ExchangeProgress>,
    ) -> Result<ExchangeEnd, BackendError> {
        Err(BackendError::State("a running btrfs takes no member back: it must be mounted anew".to_owned()))
    }

    fn give_up_exchange(
        &self,
        host: &Host,
        exchange: &Exchange,
        at: Option<&Path>,
    ) -> Result<(), BackendError> {
        replace::give_up(host, exchange, at)
    }

    fn exchange_is_tight(&self, state: &MirrorState, level: Level) -> Option<String> {
        space::too_tight_to_exchange(state, level)
    }

    fn retire_commands(&self, host: &Host, exchange: &Exchange, old: &Path) -> Vec<Cmd> {
        replace::retire(host, exchange, old)
    }

    fn grow_commands(&self, exchange: &Exchange, at: &Path) -> Vec<Cmd> {
        let size = format!("{}:max", exchange.id);
        let filesystem = |verb| Cmd::change("btrfs").args(["filesystem", verb]);
        vec![filesystem("resize").arg(size).arg(at), filesystem("sync").arg(at)]
    }

    fn is_grown(&self, host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
        replace::is_grown(host, exchange)
    }

    fn restore_level_command(&self, level: Level, at: &Path) -> Option<Cmd> {
        Some(level::command(level, at))
    }

    fn restore_level(
        &self,
        host: &Host,
        state: &MirrorState,
        level: Level,
        at: &Path,
        watch: &mut Watcher<'_, ()>,
    ) -> Result<LevelEnd, BackendError> {
        level::restore(host, state, level, at, watch)
    }
}
