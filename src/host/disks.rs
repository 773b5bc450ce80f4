//! The disks below a member and how they are attached, from sysfs (Documentation/ABI/stable/sysfs-block), without a process.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Host,
    files::{Doing as _, FileError},
    inventory,
};
use crate::model::observed::DiskFacts;

/// How deep devices may lie on each other: beyond that there is a circle.
const DEPTH: usize = 8;

/// How the member's disk is attached.
///
/// # Errors
/// sysfs could not be read.
pub fn attachment(host: &Host, devid: u64, member: &Path) -> Result<DiskFacts, FileError> {
    let kname = kernel_name(host, member)?;
    let mut disks = Vec::new();
    below(host, &kname, DEPTH, &mut disks)?;
    disks.sort();
    disks.dedup();
    let number = |file: &str| -> Result<Option<u64>, FileError> {
        let Some(disk) = disks.first() else { return Ok(None) };
        let path = format!("/sys/class/block/{disk}/{file}");
        let text = host.read_optional(&path).doing("reading", &path)?;
        Ok(text.and_then(|t| t.trim().parse().ok()))
    };
    let rotational = number("queue/rotational")?.map(|turns| turns == 1);
    let timeout = number("device/timeout")?;
    let usb = disks.iter().find_map(|disk| inventory::usb(host, disk));
    Ok(DiskFacts { devid, disks, usb, rotational, timeout })
}

/// Whether smartctl can be asked of such a disk at all: others (loop devices, virtual disks) have no health to speak of.
pub fn speaks_of_health(disk: &str) -> bool {
    ["sd", "hd", "nvme"].iter().any(|kind| disk.starts_with(kind))
}

/// The kernel's name of a device node: `/dev/mapper/x` is `dm-0`.
fn kernel_name(host: &Host, device: &Path) -> Result<String, FileError> {
    let real = fs::canonicalize(host.path(device)).doing("resolving", device)?;
    Ok(real.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

fn below(host: &Host, kname: &str, depth: usize, out: &mut Vec<String>) -> Result<(), FileError> {
    let class = PathBuf::from("/sys/class/block").join(kname);
    let real = host.path(&class);
    if depth == 0 {
        return Err(io::Error::from_raw_os_error(nix::libc::ELOOP)).doing("following", class);
    }
    if real.join("partition").exists() {
        let device = fs::canonicalize(&real).doing("resolving", &class)?;
        if let Some(disk) = device.parent().and_then(Path::file_name) {
            return below(host, &disk.to_string_lossy(), depth - 1, out);
        }
    }
    let backing = host.read_optional(class.join("loop/backing_file")).ok().flatten();
    // The name may be that of another mount namespace, and of no device here.
    if let Some(device) = backing.as_deref().map(str::trim_end).filter(|f| f.starts_with("/dev/")) {
        if let Ok(under) = kernel_name(host, Path::new(device)) {
            return below(host, &under, depth - 1, out);
        }
    }
    let slaves = match fs::read_dir(real.join("slaves")) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>().doing("reading", &class)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e).doing("reading", &class),
    };
    if slaves.is_empty() {
        out.push(kname.to_owned());
    }
    for slave in slaves {
        below(host, &slave.file_name().to_string_lossy(), depth - 1, out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ScriptedRunner;
    use std::os::unix::fs::symlink;

    /// A tree with `sdb1` on a USB disk, `dm-0` on it, and `loop0` on that.
    fn captured(dir: &Path) -> Host {
        let usb = dir.join("sys/devices/usb2/2-1/2-1.4");
        let disk = usb.join("block/sdb");
        fs::create_dir_all(disk.join("sdb1")).unwrap();
        fs::create_dir_all(disk.join("queue")).unwrap();
        fs::create_dir_all(disk.join("device")).unwrap();
        fs::create_dir_all(dir.join("dev")).unwrap();
        for (file, text) in [("speed", "480\n"), ("bDeviceClass", "00\n")] {
            fs::write(usb.join(file), text).unwrap();
        }
        fs::write(disk.join("queue/rotational"), "1\n").unwrap();
        fs::write(disk.join("device/timeout"), "30\n").unwrap();
        fs::write(disk.join("sdb1/partition"), "1\n").unwrap();
        let class = dir.join("sys/class/block");
        for sub in ["dm-0/slaves/sdb1", "loop0/loop", "loop1/loop"] {
            fs::create_dir_all(class.join(sub)).unwrap();
        }
        symlink(&disk, class.join("sdb")).unwrap();
        symlink(disk.join("sdb1"), class.join("sdb1")).unwrap();
        fs::write(class.join("loop0/loop/backing_file"), "/dev/dm-0\n").unwrap();
        fs::write(class.join("loop1/loop/backing_file"), "/home/a file\n").unwrap();
        for node in ["sdb1", "dm-0", "loop0", "loop1"] {
            fs::write(dir.join("dev").join(node), "").unwrap();
        }
        Host::captured(dir, std::sync::Arc::new(ScriptedRunner::new()), jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn what_lies_on_a_usb_disk_leads_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let host = captured(&fs::canonicalize(dir.path()).unwrap());
        for member in ["/dev/sdb1", "/dev/dm-0", "/dev/loop0"] {
            let facts = attachment(&host, 1, Path::new(member)).unwrap();
            assert_eq!((facts.disks, facts.timeout), (vec!["sdb".to_owned()], Some(30)), "{member}");
            assert_eq!((facts.rotational, facts.usb), (Some(true), Some(("2-1.4".to_owned(), 480))));
        }
        let file = attachment(&host, 1, Path::new("/dev/loop1")).unwrap();
        assert_eq!((file.disks, file.usb), (vec!["loop1".to_owned()], None));
        assert!(attachment(&host, 1, Path::new("/dev/gone")).is_err());
    }

    #[test]
    fn a_circle_ends() {
        let dir = tempfile::tempdir().unwrap();
        let host = captured(&fs::canonicalize(dir.path()).unwrap());
        fs::write(dir.path().join("sys/class/block/loop1/loop/backing_file"), "/dev/loop1\n").unwrap();
        assert!(attachment(&host, 1, Path::new("/dev/loop1")).is_err());
    }
}
