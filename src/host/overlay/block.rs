//! A block device in sysfs (Documentation/ABI/stable/sysfs-block), and the loop devices.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::sys::stat::{major, minor};

use super::{OverlayError, record::Object};
use crate::{
    exec::Cmd,
    host::{Host, files::Doing as _},
};

/// A survivor as it was found.
#[derive(Debug, Clone)]
pub(super) struct Survivor {
    /// As it was named.
    pub(super) device: PathBuf,
    pub(super) kname: String,
    /// `major:minor`.
    pub(super) number: String,
    /// In bytes.
    pub(super) size: u64,
    pub(super) sequence: Option<u64>,
    pub(super) read_only: bool,
}

impl Survivor {
    /// Looks at a device.
    ///
    /// # Errors
    /// It is no block device, or the kernel does not know it by its name.
    pub(super) fn find(host: &Host, device: &Path) -> Result<Self, OverlayError> {
        let refuse = |why: &str| OverlayError::Device { device: device.to_owned(), why: why.to_owned() };
        if device.to_str().is_none() {
            return Err(refuse("its name is not text"));
        }
        let size = Cmd::probe("blockdev").arg("--getsize64").arg(device);
        let size =
            host.runner().run(&size)?.text().trim().parse().map_err(|_| refuse("its size cannot be told"))?;
        let real = fs::canonicalize(host.path(device)).doing("resolving", device)?;
        let kname = kname_of(&real);
        let number =
            attribute(host, &kname, "dev")?.ok_or_else(|| refuse("the kernel knows no such device"))?;
        let node = fs::metadata(&real).doing("reading", device)?;
        let rdev = format!("{}:{}", major(node.rdev()), minor(node.rdev()));
        if node.file_type().is_block_device() && rdev != number {
            return Err(refuse("its name is not the one that the kernel gave it"));
        }
        let read_only = is_read_only(host, &kname)?;
        let sequence = sequence(host, &kname)?;
        Ok(Self { device: device.to_owned(), kname, number, size, sequence, read_only })
    }

    pub(super) fn freeze(&self, host: &Host) -> Result<(), OverlayError> {
        host.runner().run(&Cmd::change("blockdev").arg("--setro").arg(&self.device))?;
        if is_read_only(host, &self.kname)? {
            return Ok(());
        }
        Err(OverlayError::Device {
            device: self.device.clone(),
            why: "it cannot be made read-only".to_owned(),
        })
    }

    pub(super) fn frozen(&self) -> Object {
        Object::Frozen {
            device: self.device.clone(),
            kname: self.kname.clone(),
            sequence: self.sequence,
            was_read_only: self.read_only,
        }
    }
}

fn path(kname: &str, file: &str) -> PathBuf {
    Path::new("/sys/class/block").join(kname).join(file)
}

/// A file of the device in sysfs, without the newline at its end.
pub(super) fn attribute(host: &Host, kname: &str, file: &str) -> Result<Option<String>, OverlayError> {
    let path = path(kname, file);
    let text = host.read_optional(&path).doing("reading", &path)?;
    Ok(text.map(|t| t.strip_suffix('\n').unwrap_or(&t).to_owned()))
}

/// Whether the kernel refuses writes to it. A device that is gone is an error.
pub(super) fn is_read_only(host: &Host, kname: &str) -> Result<bool, OverlayError> {
    let file = path(kname, "ro");
    match attribute(host, kname, "ro")?.as_deref() {
        Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(_) => {
            Err(io::Error::from(io::ErrorKind::InvalidData)).doing("reading", file).map_err(Into::into)
        }
        None => Err(io::Error::from(io::ErrorKind::NotFound)).doing("reading", file).map_err(Into::into),
    }
}

/// The disk's running number; a partition has its disk's. `None` before Linux 5.15.
pub(super) fn sequence(host: &Host, kname: &str) -> Result<Option<u64>, OverlayError> {
    let own = attribute(host, kname, "diskseq")?;
    let text = match own {
        Some(text) => Some(text),
        None => attribute(host, &disk_of(host, kname), "diskseq")?,
    };
    Ok(text.and_then(|t| t.parse().ok()))
}

/// The disk that a partition lies on; a disk is its own.
pub(super) fn disk_of(host: &Host, kname: &str) -> String {
    let class = host.path(path(kname, ""));
    let parent = class.join("partition").exists().then(|| fs::canonicalize(&class).ok()).flatten();
    let name = parent.as_deref().and_then(Path::parent).and_then(Path::file_name);
    name.map_or_else(|| kname.to_owned(), |n| n.to_string_lossy().into_owned())
}

/// The loop devices over a file, by their kernel names.
pub(super) fn loops_over(host: &Host, backing: &Path) -> Result<Vec<String>, OverlayError> {
    let gone = format!("{} (deleted)", backing.display());
    let over = |text: &str| Path::new(text) == backing || text == gone;
    Ok(with_attribute(host, "loop/backing_file")?
        .into_iter()
        .filter(|(_, f)| over(f))
        .map(|(k, _)| k)
        .collect())
}

/// Every block device that has this file in sysfs, with what is in it.
pub(super) fn with_attribute(host: &Host, file: &str) -> Result<Vec<(String, String)>, OverlayError> {
    let class = host.path("/sys/class/block");
    let mut found = Vec::new();
    for entry in fs::read_dir(&class).doing("reading", &class)? {
        let kname = entry.doing("reading", &class)?.file_name().to_string_lossy().into_owned();
        // A loop device is detached between the two looks: it has none then.
        if let Ok(Some(text)) = attribute(host, &kname, file) {
            found.push((kname, text));
        }
    }
    Ok(found)
}

/// Puts a loop device over a file. Buffered: with direct I/O several writes reach the file at once, and older QEMU (7.2) takes the next
/// request into the memory of the write that it waits for.
pub(super) fn attach(host: &Host, backing: &Path) -> Result<PathBuf, OverlayError> {
    let mut tries = 0;
    loop {
        let cmd = Cmd::change("losetup").args(["--find", "--show", "--direct-io=off"]).arg(backing);
        let device = PathBuf::from(host.runner().run(&cmd)?.text().trim());
        let kname = kname_of(&device);
        let refuse = |why: &str| OverlayError::Device { device: device.clone(), why: why.to_owned() };
        if !loops_over(host, backing)?.contains(&kname) {
            return Err(refuse("it is not the loop device that was just made"));
        }
        if !is_read_only(host, &kname)? {
            return Ok(device);
        }
        tries += 1;
        if tries > 3 {
            return Err(refuse("it stays read-only"));
        }
        // A loop device keeps the flag of an earlier use, and is then attached for reading alone.
        host.runner().run(&Cmd::change("blockdev").arg("--setrw").arg(&device))?;
        host.runner().run(&Cmd::change("losetup").arg("--detach").arg(&device))?;
    }
}

/// The kernel's name of a device, by that of its node.
pub(super) fn kname_of(device: &Path) -> String {
    device.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Makes a loop device one that is only read, past the cache of its file: several reads at once, each copied once less.
pub(super) fn only_read(host: &Host, device: &Path) -> Result<(), OverlayError> {
    // Read-only first: with direct I/O no write may come any more.
    host.runner().run(&Cmd::change("blockdev").arg("--setro").arg(device))?;
    host.runner().run(&Cmd::change("losetup").arg("--direct-io=on").arg(device))?;
    Ok(())
}
