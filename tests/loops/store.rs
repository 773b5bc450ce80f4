//! Images on a small XFS of their own. A clone of one is one instant of the disk, as a power cut leaves it.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::mount::{MntFlags, umount2};

use crate::sandbox::{Loop, Sandbox};

pub(crate) struct Store {
    dir: PathBuf,
    _device: Loop,
}

impl Store {
    pub(crate) fn new(s: &Sandbox) -> Self {
        let device = s.disk("store.image", 16 << 30);
        let dir = s.scratch().join("store");
        fs::create_dir(&dir).unwrap();
        // Where a rescue keeps what its overlay takes.
        fs::create_dir_all("/var/tmp").unwrap();
        s.tool("mkfs.xfs", &["-q", "-m", "reflink=1", device.name()]);
        s.tool("mount", &[device.name(), dir.to_str().unwrap()]);
        Self { dir, _device: device }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A new image, all holes.
    pub(crate) fn image(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        fs::File::create_new(&path).unwrap().set_len(size).unwrap();
        path
    }

    /// The kernel writes out what the source has in the page cache and holds its writers off while it clones.
    pub(crate) fn clone_of(&self, image: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        let clone = fs::File::create(&path).unwrap();
        rustix::fs::ioctl_ficlone(&clone, fs::File::open(image).unwrap()).unwrap();
        path
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let listed =
            Command::new("losetup").args(["--noheadings", "--output", "NAME,BACK-FILE"]).output().unwrap();
        let ours = |line: &str| {
            let (name, file) = line.split_once(' ')?;
            Path::new(file.trim()).starts_with(&self.dir).then(|| name.to_owned())
        };
        for device in String::from_utf8_lossy(&listed.stdout).lines().filter_map(ours) {
            let _ = Command::new("losetup").args(["--detach", &device]).status();
        }
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
    }
}

/// A hash of all bytes of an image. Zeros and holes are the same.
pub(crate) fn hash(image: &Path) -> blake3::Hash {
    let file = fs::File::open(image).unwrap();
    let size = file.metadata().unwrap().len();
    let mut hasher = blake3::Hasher::new();
    let mut bytes = vec![0; 1 << 16];
    let mut at = 0;
    while let Ok(data) = nix::unistd::lseek(&file, at, nix::unistd::Whence::SeekData) {
        let start = data.unsigned_abs() >> 16 << 16;
        let length = usize::try_from((size - start).min(1 << 16)).unwrap();
        file.read_exact_at(&mut bytes[..length], start).unwrap();
        if bytes[..length].iter().any(|b| *b != 0) {
            hasher.update(&start.to_le_bytes());
            hasher.update(&bytes[..length]);
        }
        at = i64::try_from(start).unwrap() + (1 << 16);
    }
    hasher.finalize()
}
