//! The machine's block devices as sysfs shows them, for every backend. Starts no process.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    libc,
    sys::stat::{major, minor},
};

use super::{BackendError, ParseError};
pub(super) use crate::host::fresh::field;
use crate::{
    host::{
        Host,
        files::Doing as _,
        mountinfo::{self, Mount},
    },
    model::{Bytes, mirror::MirrorState},
};

const CLASS: &str = "/sys/class/block";

/// The kernel's name of a device node: by its number, because `/dev/mapper` names are others; the file's name where the node is gone.
pub(super) fn kernel_name(host: &Host, source: &Path) -> String {
    let by_number = || {
        let meta = fs::metadata(host.path(source)).ok().filter(|m| m.file_type().is_block_device())?;
        let link = format!("/sys/dev/block/{}:{}", major(meta.rdev()), minor(meta.rdev()));
        fs::read_link(host.path(link)).ok()
    };
    let path = by_number().unwrap_or_else(|| source.to_owned());
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The device node of a kernel's name, in which the kernel writes a slash as an exclamation mark (cciss!c0d0).
pub(super) fn node_of(name: &str) -> PathBuf {
    Path::new("/dev").join(name.replace('!', "/"))
}

/// What sysfs says of a device's size.
struct Size(Option<Bytes>);

/// The size of a block device, by the kernel's name of it; nothing where it is gone. Read once for all who ask at a glance.
pub(super) fn size_of(host: &Host, name: &str) -> Result<Option<Bytes>, BackendError> {
    let read = || -> Result<Size, BackendError> {
        let size_file = Path::new(CLASS).join(name).join("size");
        let text = host.read_optional(&size_file).doing("reading", &size_file)?;
        let sectors = text.map(|text| parse_number("size", &text)).transpose()?;
        Ok(Size(sectors.map(|sectors| Bytes(sectors.saturating_mul(512)))))
    };
    Ok(host.once(name, read)?.0)
}

/// The names in a directory, sorted.
pub(super) fn names(host: &Host, dir: impl AsRef<Path>) -> Result<Vec<String>, BackendError> {
    list(host, dir.as_ref(), |_| true)
}

/// The names of the directories in a directory, sorted.
pub(super) fn directories(host: &Host, dir: impl AsRef<Path>) -> Result<Vec<String>, BackendError> {
    list(host, dir.as_ref(), |entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
}

fn list(
    host: &Host,
    dir: &Path,
    wanted: impl Fn(&fs::DirEntry) -> bool,
) -> Result<Vec<String>, BackendError> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(host.path(dir))? {
            let entry = entry?;
            if !wanted(&entry) {
                continue;
            }
            let name = entry.file_name();
            let name = name.into_string().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            names.push(name);
        }
        names.sort();
        Ok(names)
    };
    Ok(list().doing("listing", dir)?)
}

/// How often what goes away between its listing and its reading is listed anew.
const AGAIN: usize = 4;

/// What `look` sees, once nothing goes away meanwhile: a disk that is pulled does, and the target of a replace that ends.
pub(super) fn steady<T>(mut look: impl FnMut() -> Result<T, BackendError>) -> Result<T, BackendError> {
    let went = |e: &BackendError| match e {
        BackendError::File(e) => matches!(e.source.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)),
        _ => false,
    };
    for _ in 0..AGAIN {
        match look() {
            Err(e) if went(&e) => {}
            seen => return seen,
        }
    }
    look()
}

/// A plain number.
pub(super) fn parse_number(what: &'static str, text: &str) -> Result<u64, ParseError> {
    text.trim().parse().map_err(|_| ParseError::new(what, text))
}

/// The kernel's names of the block devices that may hold a member, and their sizes: nothing lies on them but what `own` says is the
/// mirror's.
pub(super) fn candidate_names(
    host: &Host,
    own: fn(&str) -> bool,
) -> Result<Vec<(String, Bytes)>, BackendError> {
    steady(|| candidates_listed(host, own))
}

fn candidates_listed(host: &Host, own: fn(&str) -> bool) -> Result<Vec<(String, Bytes)>, BackendError> {
    let mut out = Vec::new();
    for name in names(host, CLASS)? {
        // Drives with removable media answer slowly or not at all, and hold no mirrors.
        if ["fd", "sr", "ram", "zram"].iter().any(|kind| {
            name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        }) {
            continue;
        }
        // A loop device without a file has no size, as has a card reader without a card: most of them are such.
        let Some(size) = size_of(host, &name)?.filter(|size| size.0 > 0) else { continue };
        let holders = match names(host, Path::new(CLASS).join(&name).join("holders")) {
            Err(BackendError::File(e)) if e.source.kind() == io::ErrorKind::NotFound => Vec::new(),
            holders => holders?,
        };
        if holders.iter().all(|holder| own(holder)) {
            out.push((name, size));
        }
    }
    Ok(out)
}

/// A block device and what its superblock, of one kind, says.
#[derive(Debug)]
pub(super) struct Seen<S> {
    pub(super) path: PathBuf,
    pub(super) size: Option<Bytes>,
    pub(super) superblock: io::Result<Option<S>>,
}

/// Looks at a block device by the kernel's name of it: once for all who ask at a glance.
pub(super) fn look_at<S: Send + Sync + 'static>(
    host: &Host,
    name: &str,
    read: fn(&Path) -> io::Result<Option<S>>,
) -> Result<Arc<Seen<S>>, BackendError> {
    host.once(name, || {
        let path = node_of(name);
        let size = size_of(host, name)?;
        let superblock = match size {
            None => Err(io::Error::other("its block device is gone")),
            Some(Bytes(0)) => Err(io::Error::other("its block device has size 0")),
            Some(_) => read(&host.path(&path)),
        };
        Ok(Seen { path, size, superblock })
    })
}

/// The block devices that may hold a member, and their sizes.
pub(super) fn block_devices(
    host: &Host,
    own: fn(&str) -> bool,
) -> Result<Vec<(PathBuf, Bytes)>, BackendError> {
    Ok(candidate_names(host, own)?.into_iter().map(|(name, size)| (node_of(&name), size)).collect())
}

/// What is used of the filesystem that is mounted there, and what is free.
pub(super) fn space(mountpoint: &Path) -> io::Result<(Bytes, Bytes)> {
    // XFS that has shut itself down still tells its space, and nothing else.
    fs::metadata(mountpoint)?;
    let found = nix::sys::statvfs::statvfs(mountpoint)?;
    let bytes = |blocks: u64| Bytes(blocks.saturating_mul(found.fragment_size()));
    Ok((bytes(found.blocks().saturating_sub(found.blocks_free())), bytes(found.blocks_available())))
}

/// The space of the mirror's filesystem, as it was asked for: one that answers with an I/O error takes no writes any more, whatever its
/// mount says.
pub(super) fn see_space(state: &mut MirrorState, space: io::Result<(Bytes, Bytes)>) {
    match space {
        Ok((used, free)) => (state.used, state.free) = (used, Some(free)),
        Err(e) if e.raw_os_error() == Some(libc::EIO) => {
            (state.read_only, state.forced_read_only) = (true, true);
        }
        Err(_) => {}
    }
}

/// Where the mirror is mounted, and whether that is at its mount point; `is_ours` knows it by a mount.
pub(super) fn see_mounts(
    state: &mut MirrorState,
    mounts: &[Mount],
    mountpoint: &Path,
    is_ours: impl Fn(&Mount) -> bool,
) {
    let elsewhere = mounts.iter().filter(|m| m.mountpoint != mountpoint && is_ours(m));
    state.also_mounted = elsewhere.map(|m| m.mountpoint.clone()).collect();
    // Mounts stack: the last one at a place is the one that paths lead to.
    let Some(mount) = mountinfo::topmost_at(mounts, mountpoint) else { return };
    if is_ours(mount) {
        see_mount(state, mount);
    } else {
        state.instead = Some(format!("{} from {}", mount.fstype, mount.source.display()));
    }
}

/// How the mirror is mounted at its mount point.
pub(super) fn see_mount(state: &mut MirrorState, mount: &Mount) {
    let has = |list: &[String], option: &str| list.iter().any(|o| o == option);
    state.mounted = true;
    // ext4 keeps the mount writeable after its journal was given up (since Linux 6.15) or it was shut down.
    let stopped = ["emergency_ro", "shutdown"].iter().any(|option| has(&mount.super_options, option));
    let frozen = stopped || has(&mount.super_options, "ro");
    state.read_only = has(&mount.options, "ro") || frozen;
    state.forced_read_only = frozen && has(&mount.options, "rw");
    state.mount_options = mount.options.iter().chain(&mount.super_options).cloned().collect();
}

/// A UUID as it is written, in lower case.
pub(super) fn format_uuid(bytes: &[u8; 16]) -> String {
    let value = u128::from_be_bytes(*bytes);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        value >> 96,
        (value >> 80) & 0xffff,
        (value >> 64) & 0xffff,
        (value >> 48) & 0xffff,
        value & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_that_only_gives_errors_is_read_only() {
        let seen = |space: io::Result<(Bytes, Bytes)>| {
            let mut state = MirrorState::unseen("x", Path::new("/srv"));
            see_space(&mut state, space);
            (state.read_only, state.forced_read_only, state.used, state.free)
        };
        let failed = |errno| Err(io::Error::from_raw_os_error(errno));
        assert_eq!(seen(Ok((Bytes(1), Bytes(2)))), (false, false, Bytes(1), Some(Bytes(2))));
        assert_eq!(seen(failed(libc::EIO)), (true, true, Bytes(0), None));
        assert_eq!(seen(failed(libc::EACCES)), (false, false, Bytes(0), None));
        assert!(space(Path::new("/")).is_ok_and(|(used, _)| used > Bytes(0)));
        assert_eq!(space(Path::new("/nowhere")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_goes_away_meanwhile_is_listed_anew() {
        fn gone(errno: i32) -> Result<usize, BackendError> {
            Ok(Err(io::Error::from_raw_os_error(errno)).doing("reading", "missing")?)
        }
        for errno in [libc::ENOENT, libc::ENODEV] {
            let mut times = 0;
            let seen = steady(|| {
                times += 1;
                if times < 3 { gone(errno) } else { Ok(times) }
            });
            assert_eq!(seen.unwrap(), 3);
        }
        let mut times = 0;
        let never = steady(|| {
            times += 1;
            gone(libc::ENOENT)
        });
        assert!(never.is_err() && times > 1);
        let mut times = 0;
        let other = steady(|| {
            times += 1;
            gone(libc::EIO)
        });
        assert!(other.is_err() && times == 1);
    }
}
