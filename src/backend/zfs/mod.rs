//! ZFS, whose pool is both the mirror and the filesystem: checksums, so that it knows which copy is the right one.

mod back;
mod exchange;
pub mod fit;
mod jobs;
pub mod json;
pub mod list;
mod make;
mod members;
pub mod observe;
mod rescue;
mod scan;
mod scrub;
mod snapshot;
pub mod text;
mod told;
#[cfg(test)]
pub(crate) use told::as_mirror;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

pub use make::are_uneven;

use super::{Backend, BackendError, BalanceReport, Made, MirrorSpec, ScrubProgress, ScrubReport, Watcher};
use crate::{
    config::Mirror,
    exec::Cmd,
    host::{
        Host, fstab,
        zfs::{self, Vdev, boot},
    },
    model::{
        Filesystem, FilesystemKind, Identity, Level,
        mirror::MirrorState,
        observed::{Claim, ScrubRecord},
    },
};

/// The vdev at the top of a pool, as its devices describe it; nothing where none does.
///
/// # Errors
/// The devices could not be listed.
pub fn top(host: &Host, uuid: &str) -> Result<Option<Vdev>, BackendError> {
    Ok(observe::newest(host, uuid)?.and_then(|label| label.tree))
}

/// Mirrors of ZFS.
#[derive(Debug, Clone, Copy, Default)]
pub struct Zfs;

impl Backend for Zfs {
    fn tools(&self) -> &[&'static str] {
        &["zpool", "zfs", "umount"]
    }

    fn tools_to_make(&self, _: Option<FilesystemKind>) -> Vec<&'static str> {
        Vec::new()
    }

    fn packages(&self) -> &'static str {
        "zfsutils-linux"
    }

    fn supported(&self, host: &Host, _: Level) -> Result<(), BackendError> {
        let known = || host.path("/sys/module/zfs").is_dir();
        if known() {
            return Ok(());
        }
        let loaded = host.runner().run(&Cmd::change("modprobe").arg("zfs"));
        if known() {
            return Ok(());
        }
        let why = loaded.err().map_or_else(String::new, |e| format!(" ({e})"));
        Err(BackendError::Unsupported {
            what: "ZFS".to_owned(),
            why: format!(
                "the kernel has no module of it{why}. Debian builds one from its section contrib: \
                 apt-get install linux-headers-amd64 zfs-dkms zfsutils-linux; Ubuntu's kernels have it: \
                 apt-get install zfsutils-linux"
            ),
        })
    }

    fn create_commands(&self, spec: &MirrorSpec) -> Vec<Cmd> {
        make::create(spec)
    }

    fn made(&self, host: &Host, spec: &MirrorSpec) -> Result<Made, BackendError> {
        make::made(host, spec)
    }

    fn unmaking(&self, spec: &MirrorSpec) -> Vec<Cmd> {
        make::unmaking(spec)
    }

    fn unmake_commands(&self, host: &Host, spec: &MirrorSpec) -> Result<Vec<Cmd>, BackendError> {
        make::unmake(host, spec)
    }

    fn discarding(&self, _: &MirrorSpec, half: &Identity) -> Vec<Cmd> {
        zfs::clear_commands(&half.path, half.size.0)
    }

    fn discard_commands(
        &self,
        _: &Host,
        spec: &MirrorSpec,
        half: &Identity,
    ) -> Result<Vec<Cmd>, BackendError> {
        Ok(self.discarding(spec, half))
    }

    /// ZFS mounts by its own properties. A line beside them would be a second opinion about one place, and nothing that boots knows when a
    /// pool is imported.
    fn fstab_entry(&self, _: &MirrorSpec) -> Option<fstab::Entry> {
        None
    }

    fn mounting(&self, spec: &MirrorSpec) -> Vec<Cmd> {
        make::mounting(spec)
    }

    fn mount_in_place(&self, host: &Host, spec: &MirrorSpec) -> Result<Vec<Cmd>, BackendError> {
        make::mount_in_place(host, spec)
    }

    fn name_conflict(&self, host: &Host, spec: &MirrorSpec) -> Result<Option<String>, BackendError> {
        make::name_conflict(host, spec)
    }

    fn made_as(&self, host: &Host, uuid: &str) -> Result<String, BackendError> {
        observe::made_as(host, uuid)
    }

    fn has_snapshots(&self) -> bool {
        true
    }

    fn observe(&self, host: &Host, uuid: &str, mountpoint: &Path) -> Result<MirrorState, BackendError> {
        observe::observe(host, uuid, mountpoint)
    }

    fn has_stopped(&self, host: &Host, mountpoint: &Path) -> Result<bool, BackendError> {
        observe::has_stopped(host, mountpoint)
    }

    fn doubled(&self, host: &Host, mirror: &Mirror) -> Result<Vec<String>, BackendError> {
        jobs::doubled(host, &mirror.uuid, &mirror.name)
    }

    fn boot_faults(&self, host: &Host, uuid: &str) -> io::Result<Vec<String>> {
        boot::faults(host, uuid)
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
        rescue::other_half(host, device)
    }

    /// A resilver takes its place, so it is raidguard's own record that counts.
    fn scrub_record(&self, _: &Host, _: &str) -> Result<Option<ScrubRecord>, BackendError> {
        Ok(None)
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
        snapshot::take(host, mountpoint, data, to)
    }

    fn drop_snapshot(&self, host: &Host, mountpoint: &Path, to: &Path) -> Result<(), BackendError> {
        snapshot::delete(host, mountpoint, to)
    }

    fn balance(
        &self,
        _: &Host,
        _: &Path,
        _: &MirrorState,
        _: &mut Watcher<'_, ()>,
    ) -> Result<BalanceReport, BackendError> {
        Ok(BalanceReport::without_chunks("a pool of ZFS"))
    }

    fn scrub_command(&self, spec: &MirrorSpec) -> Cmd {
        scrub::command(spec.pool_name())
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
