//! All block devices of the machine at one moment.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Bytes, DevNo, Identity};

/// libblkid's word for a device of a ZFS pool.
pub const ZFS_MEMBER: &str = "zfs_member";

/// One thing that a device holds: a filesystem, a RAID superblock, a partition table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Its kind, in the words of libblkid: `ext4`, `linux_raid_member`, `gpt`.
    pub kind: String,
    /// Its label, where it has one.
    pub label: Option<String>,
    /// Its UUID, where it has one.
    pub uuid: Option<String>,
}

/// What a device holds. No answer is never taken for an empty device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// Nothing that any tool knows.
    Empty,
    /// These.
    Known(Vec<Signature>),
    /// It cannot be told, and why.
    Unknown(String),
}

/// One block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its path: `/dev/sdb1`.
    pub path: PathBuf,
    /// The kernel's name: `sdb1`.
    pub kname: String,
    /// lsblk's type: `disk`, `part`, `loop`, `crypt`, `lvm`, `raid1`, `rom`.
    pub kind: String,
    /// Its number.
    pub dev: DevNo,
    /// Its size.
    pub size: Bytes,
    /// Whether the kernel refuses writes.
    pub read_only: bool,
    /// Whether it turns; unknown where the kernel does not say.
    pub rotational: Option<bool>,
    /// How it is attached: `usb`, `sata`, `nvme`.
    pub transport: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The serial number.
    pub serial: Option<String>,
    /// The World Wide Name.
    pub wwn: Option<String>,
    /// A partition's GPT UUID.
    pub partuuid: Option<String>,
    /// Kernel names of the devices it lies on: a partition's disk.
    pub parents: Vec<String>,
    /// What uses it, in words: `mounted at /srv`, `swap`, `held by dm-0`.
    pub uses: Vec<Use>,
    /// What it holds.
    pub content: Content,
    /// The USB device it hangs on, as sysfs names it, and that link's speed in Mbit/s.
    pub usb: Option<(String, u32)>,
}

/// Something that uses a device now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// It is mounted, or is a member of a filesystem that is.
    Mounted(PathBuf),
    /// It is swap.
    Swap,
    /// Another block device lies on it.
    Held(String),
    /// Another loop device shows the same file.
    SameFile(PathBuf),
    /// The kernel says that it is busy, and nothing above explains it.
    Busy,
}

/// The devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// In the order lsblk shows them, parents before children.
    pub devices: Vec<Device>,
}

impl Content {
    /// Is it surely empty?
    pub fn is_empty(&self) -> bool {
        *self == Self::Empty
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Unknown(why) => write!(f, "unknown: {why}"),
            Self::Known(signatures) => {
                let text = |s: &Signature| match &s.label {
                    Some(label) => format!("{} `{label}`", s.kind),
                    None => s.kind.clone(),
                };
                f.write_str(&signatures.iter().map(text).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Content {
    /// Are there labels of ZFS?
    pub fn has_zfs(&self) -> bool {
        matches!(self, Self::Known(signatures) if signatures.iter().any(|s| s.kind == ZFS_MEMBER))
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted(at) => write!(f, "mounted at {}", at.display()),
            Self::Swap => f.write_str("swap in use"),
            Self::Held(by) => write!(f, "held by {by}"),
            Self::SameFile(other) => write!(f, "backed by the same file as {}", other.display()),
            Self::Busy => f.write_str("in use by the kernel"),
        }
    }
}

impl Device {
    /// What makes it this device.
    pub fn identity(&self) -> Identity {
        Identity {
            path: self.path.clone(),
            dev: Some(self.dev),
            size: self.size,
            model: self.model.clone(),
            serial: self.serial.clone(),
            wwn: self.wwn.clone(),
            partuuid: self.partuuid.clone(),
        }
    }
}

impl Inventory {
    /// The device at a path, as lsblk names it.
    pub fn by_path(&self, path: &Path) -> Option<&Device> {
        self.devices.iter().find(|d| d.path == path)
    }

    /// The only partition of a disk that is one of these members; nothing where none is, several are, or the disk is one itself. Who means a
    /// member may well name its disk.
    pub fn partition_among(&self, disk: &Path, members: &[PathBuf]) -> Option<&Device> {
        let device = self.by_path(disk).filter(|device| !members.contains(&device.path))?;
        let is_one = |part: &&Device| part.parents.contains(&device.kname) && members.contains(&part.path);
        let mut found = self.devices.iter().filter(is_one);
        found.next().filter(|_| found.next().is_none())
    }

    /// The device that was meant, where another one has its name now: known by its serial number or its World Wide Name, and alone in that.
    pub fn elsewhere(&self, planned: &Identity) -> Option<&Device> {
        let mut found =
            self.devices.iter().filter(|d| planned.is_numbered() && planned.is_same(&d.identity()));
        found.next().filter(|device| device.path != planned.path && found.next().is_none())
    }

    /// The device with a number.
    pub fn by_dev(&self, dev: DevNo) -> Option<&Device> {
        self.devices.iter().find(|d| d.dev == dev)
    }

    fn by_kname(&self, kname: &str) -> Option<&Device> {
        self.devices.iter().find(|d| d.kname == kname)
    }

    /// The devices that lie directly on this one.
    pub fn children<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = &'a Device> {
        self.devices.iter().filter(|d| d.parents.contains(&device.kname))
    }

    /// The device and all that lie on it.
    pub fn below<'a>(&'a self, device: &'a Device) -> Vec<&'a Device> {
        let mut all = vec![device];
        let mut at = 0;
        while let Some(current) = all.get(at).copied() {
            for child in self.children(current) {
                if !all.iter().any(|d| d.kname == child.kname) {
                    all.push(child);
                }
            }
            at += 1;
        }
        all
    }

    /// The device and all that it lies on.
    pub fn above<'a>(&'a self, device: &'a Device) -> Vec<&'a Device> {
        let mut all = vec![device];
        let mut at = 0;
        while let Some(current) = all.get(at).copied() {
            for parent in current.parents.iter().filter_map(|p| self.by_kname(p)) {
                if !all.iter().any(|d| d.kname == parent.kname) {
                    all.push(parent);
                }
            }
            at += 1;
        }
        all
    }

    /// The physical disks under a device; itself where it lies on nothing.
    pub fn disks_of<'a>(&'a self, device: &'a Device) -> Vec<&'a Device> {
        let lies_on_none = |d: &&Device| d.parents.iter().all(|p| self.by_kname(p).is_none());
        self.above(device).into_iter().filter(lies_on_none).collect()
    }
}

#[cfg(test)]
pub(crate) fn sample(kname: &str, minor: u32, parents: &[&str]) -> Device {
    Device {
        path: format!("/dev/{kname}").into(),
        kname: kname.into(),
        kind: if parents.is_empty() { "disk" } else { "part" }.into(),
        dev: DevNo { major: 8, minor },
        size: Bytes::gib(1),
        read_only: false,
        rotational: None,
        transport: None,
        model: None,
        serial: None,
        wwn: None,
        partuuid: None,
        parents: parents.iter().map(ToString::to_string).collect(),
        uses: Vec::new(),
        content: Content::Empty,
        usb: None,
    }
}

#[cfg(test)]
mod tests {
    use super::sample as device;
    use super::*;

    #[test]
    fn a_disk_that_a_boot_has_named_anew_is_found_by_its_serial_number() {
        let disk = |kname: &str, minor: u32, serial: Option<&str>| Device {
            serial: serial.map(str::to_owned),
            ..device(kname, minor, &[])
        };
        let planned = disk("sdb", 16, Some("two")).identity();
        let now = |disks: &[Device]| {
            let inventory = Inventory { devices: disks.to_vec() };
            inventory.elsewhere(&planned).map(|found| found.kname.clone())
        };
        let (other, two) = (disk("sdb", 16, Some("extra")), disk("sdc", 32, Some("two")));
        assert_eq!(now(&[other.clone(), two.clone()]).as_deref(), Some("sdc"));
        assert_eq!(now(&[other.clone(), two.clone(), disk("sdd", 48, Some("two"))]), None, "two of them");
        assert_eq!(now(&[disk("sdb", 16, Some("two"))]), None, "it has its name still");
        assert_eq!(now(&[disk("sdb", 16, Some("two")), two]), None, "so it has, beside another one");
        let nameless = disk("sdb", 16, None).identity();
        let inventory = Inventory { devices: vec![other, disk("sdc", 32, None)] };
        assert!(inventory.elsewhere(&nameless).is_none(), "nothing tells that it is the same");
    }

    #[test]
    fn a_disk_stands_for_the_only_member_on_it() {
        let devices =
            vec![device("sdb", 16, &[]), device("sdb1", 17, &["sdb"]), device("sdb2", 18, &["sdb"])];
        let inventory = Inventory { devices };
        let found = |disk: &str, members: &[&str]| {
            let members: Vec<_> = members.iter().map(PathBuf::from).collect();
            inventory.partition_among(Path::new(disk), &members).map(|part| part.path.clone())
        };
        assert_eq!(found("/dev/sdb", &["/dev/sdb2", "/dev/sdc1"]), Some("/dev/sdb2".into()));
        assert_eq!(found("/dev/sdb", &["/dev/sdb1", "/dev/sdb2"]), None, "one of two");
        assert_eq!(found("/dev/sdb", &["/dev/sdb", "/dev/sdb2"]), None, "it is one itself");
        assert_eq!(found("/dev/sdb1", &["/dev/sdb2"]), None);
        assert_eq!(found("/dev/sdz", &["/dev/sdb1"]), None);
    }
}
