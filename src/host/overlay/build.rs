//! What every kind of overlay is built with: the record, scratch space, and the operator's wish to stop.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::statvfs;

use super::{
    OverlayError, Work,
    record::{Keeper, Object},
};
use crate::{
    exec::Flow,
    host::{Host, files::Doing as _},
};

/// What the kinds build with.
pub(super) struct Build<'a> {
    pub(super) host: &'a Host,
    pub(super) keeper: &'a mut Keeper,
    pub(super) scratch: PathBuf,
    /// Bytes that may be used.
    pub(super) room: u64,
    pub(super) watch: &'a mut dyn FnMut(Work) -> Flow,
}

impl Build<'_> {
    pub(super) fn note(&mut self, object: Object) -> Result<(), OverlayError> {
        self.keeper.note(self.host, object)
    }

    /// The path of a scratch file that is made next.
    pub(super) fn file(&mut self, name: &str) -> Result<PathBuf, OverlayError> {
        let path = self.scratch.join(name);
        self.note(Object::File { path: path.clone() })?;
        Ok(path)
    }

    /// Makes a sparse file.
    pub(super) fn allocate(&self, path: &Path, size: u64) -> Result<(), OverlayError> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(self.host.path(path));
        Ok(file.and_then(|file| file.set_len(size)).doing("creating", path)?)
    }

    pub(super) fn go_on(&mut self) -> Result<(), OverlayError> {
        self.tell(Work::Making)
    }

    pub(super) fn tell(&mut self, work: Work) -> Result<(), OverlayError> {
        let flow = (self.watch)(work);
        if flow == Flow::Stop || self.host.interrupt().is_raised() {
            Err(OverlayError::Stopped)
        } else {
            Ok(())
        }
    }

    pub(super) fn no_room(&self, needed: u64) -> OverlayError {
        OverlayError::NoRoom { scratch: self.scratch.clone(), needed, room: self.room }
    }
}

/// Refuses a device that the kernel has claimed: mounted, swap, below md or device-mapper.
pub(super) fn unused(host: &Host, device: &Path) -> Result<(), OverlayError> {
    let exclusive = OpenOptions::new().read(true).custom_flags(nix::libc::O_EXCL).open(host.path(device));
    match exclusive {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(OverlayError::Device {
            device: device.to_owned(),
            why: "it is in use; a rescue is for what nothing uses".to_owned(),
        }),
        Err(e) => Err(e).doing("opening", device).map_err(Into::into),
    }
}

/// A directory's path without symlinks, as the machine knows it: so the kernel names files in it.
pub(super) fn canonical(host: &Host, dir: &Path) -> Result<PathBuf, OverlayError> {
    let root = fs::canonicalize(host.path("/")).doing("resolving", "/")?;
    let real = fs::canonicalize(host.path(dir)).doing("resolving", dir)?;
    let refuse = |why: &str| OverlayError::Scratch { path: dir.to_owned(), why: why.to_owned() };
    if !real.is_dir() {
        return Err(refuse("it is not a directory"));
    }
    let path = Path::new("/").join(real.strip_prefix(root).unwrap_or(&real));
    if path.to_str().is_none_or(|text| text.contains('\n')) {
        return Err(refuse("its name is not plain text"));
    }
    Ok(path)
}

/// Bytes that may still be written to the filesystem of a directory.
pub(super) fn free(host: &Host, dir: &Path) -> Result<u64, OverlayError> {
    let path = host.path(dir);
    let stat = statvfs(&path).map_err(io::Error::from).doing("asking for free space at", &path)?;
    Ok(stat.blocks_available() * stat.fragment_size())
}
