//! Which devices are refused, and why. Pure; the one place where this is decided.

use std::{fmt, path::PathBuf};

use serde::Serialize;

use crate::{
    config::{Member, Mirror},
    model::{
        Bytes,
        inventory::{Content, Device, Inventory, Use},
    },
};

/// Nothing below this is worth mirroring: btrfs wants 109 MiB for itself on each member and warns below 1 GiB.
const SMALLEST: Bytes = Bytes::gib(1);
/// Where the system itself lives.
const SYSTEM: [&str; 5] = ["/", "/boot", "/boot/efi", "/usr", "/var"];

/// One reason against a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The device.
    pub device: PathBuf,
    /// Why.
    pub why: Why,
}

/// The rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// It holds a part of the running system.
    System(PathBuf),
    /// It is in use: itself, or by the device named something that lies on it.
    InUse {
        /// The device in use, where it is not this one.
        part: Option<PathBuf>,
        /// How.
        by: Use,
    },
    /// What it lies on is in use by something else.
    BaseInUse {
        /// The device that it lies on.
        base: PathBuf,
        /// How.
        by: Use,
    },
    /// The kernel refuses writes to it.
    ReadOnly,
    /// It is too small.
    TooSmall(Bytes),
    /// It is no disk, partition or loop device.
    Kind(String),
    /// It is a member of a declared mirror.
    Declared,
    /// It holds something.
    Content(String),
    /// What it holds cannot be told.
    UnknownContent(String),
    /// A partition was asked for, and it is no whole disk.
    NoDisk(String),
    /// A partition was asked for, and it is neither empty nor has a GPT.
    NoGpt(String),
    /// It is the same device as another one named.
    Same(PathBuf),
    /// It lies on another one named.
    Within(PathBuf),
    /// It lies on the same physical disk as another one named.
    SameDisk(PathBuf),
    /// It hangs on the same USB device as another one named.
    SameBridge(PathBuf),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.device.display(), self.why)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(at) => write!(f, "holds the running system ({})", at.display()),
            Self::InUse { part: None, by } => write!(f, "is {by}"),
            Self::InUse { part: Some(part), by } => {
                write!(f, "has a part in use: {} is {by}", part.display())
            }
            Self::BaseInUse { base, by } => write!(f, "lies on {}, which is {by}", base.display()),
            Self::ReadOnly => f.write_str("is read-only"),
            Self::TooSmall(size) => write!(f, "is too small: {size}, and {SMALLEST} is the least"),
            Self::Kind(kind) => {
                write!(f, "is of the kind `{kind}`, which is no disk, partition or loop device")
            }
            Self::Declared => f.write_str("is a member of a declared mirror"),
            Self::Content(what) => write!(f, "is not empty: {what}"),
            Self::UnknownContent(why) => write!(f, "may hold something, it cannot be told: {why}"),
            Self::NoDisk(kind) => {
                write!(f, "is of the kind `{kind}`, and --size makes partitions on whole disks")
            }
            Self::NoGpt(what) => {
                write!(f, "holds {what}, and --size adds partitions to an empty disk or a GPT only")
            }
            Self::Same(other) => write!(f, "is the same device as {}", other.display()),
            Self::Within(other) => write!(f, "lies on {}, which is named as well", other.display()),
            Self::SameDisk(other) => {
                write!(f, "lies on the same disk as {}, which is no redundancy", other.display())
            }
            Self::SameBridge(other) => {
                write!(f, "hangs on the same USB bridge as {}, which is no redundancy", other.display())
            }
        }
    }
}

impl Refusal {
    /// What the operator can do.
    pub fn clears_with(&self) -> String {
        match &self.why {
            Why::System(_)
            | Why::Kind(_)
            | Why::NoDisk(_)
            | Why::NoGpt(_)
            | Why::Same(_)
            | Why::Within(_)
            | Why::TooSmall(_) => "name another device".to_owned(),
            Why::InUse { by: Use::Mounted(at), .. } | Why::BaseInUse { by: Use::Mounted(at), .. } => {
                format!("umount {}, if nothing needs it", at.display())
            }
            Why::InUse { by: Use::Swap, .. } | Why::BaseInUse { by: Use::Swap, .. } => {
                "swapoff it, if it is not needed".to_owned()
            }
            Why::InUse { by: Use::SameFile(other), .. } | Why::BaseInUse { by: Use::SameFile(other), .. } => {
                format!("losetup --detach {}, if nothing needs it", other.display())
            }
            Why::InUse { .. } | Why::BaseInUse { .. } => {
                "see with lsblk what uses it, and end that".to_owned()
            }
            Why::ReadOnly => "blockdev --setrw it, or move the switch on its side".to_owned(),
            Why::Declared => "take the node off that mirror first: raidguard release".to_owned(),
            Why::Content(_) => "give --wipe if nothing on it is needed".to_owned(),
            Why::UnknownContent(_) => {
                "look at it with wipefs and blkid -p, and erase it yourself if nothing is needed".to_owned()
            }
            Why::SameDisk(_) | Why::SameBridge(_) => {
                "name devices on two disks; --allow-same-disk overlooks it".to_owned()
            }
        }
    }
}

/// Judges one device. Several reasons may stand against it.
pub fn judge_device(inventory: &Inventory, device: &Device, declared: &[Mirror], wipe: bool) -> Vec<Refusal> {
    let mut found = Vec::new();
    let mut against = |why| found.push(Refusal { device: device.path.clone(), why });
    for part in inventory.below(device) {
        for by in &part.uses {
            match by {
                Use::Mounted(at) if SYSTEM.iter().any(|s| at == std::path::Path::new(s)) => {
                    against(Why::System(at.clone()))
                }
                _ => {
                    let other = (part.kname != device.kname).then(|| part.path.clone());
                    against(Why::InUse { part: other, by: by.clone() });
                }
            }
        }
    }
    bases_in_use(inventory, device).into_iter().for_each(&mut against);
    if !matches!(device.kind.as_str(), "disk" | "part" | "loop") {
        against(Why::Kind(device.kind.clone()));
    }
    if device.read_only {
        against(Why::ReadOnly);
    }
    if device.size < SMALLEST {
        against(Why::TooSmall(device.size));
    }
    let members = inventory.below(device);
    if declared.iter().any(|mirror| members.iter().any(|d| is_member(mirror, d))) {
        against(Why::Declared);
    }
    match &device.content {
        Content::Empty => {}
        Content::Known(_) if wipe => {}
        Content::Known(_) => against(Why::Content(device.content.to_string())),
        Content::Unknown(why) => against(Why::UnknownContent(why.clone())),
    }
    found
}

/// Judges a whole disk that is to get a new partition of `size`: it must be empty, or have a GPT, whose partitions may be in use.
pub fn judge_disk(inventory: &Inventory, disk: &Device, size: Bytes) -> Vec<Refusal> {
    let mut found = Vec::new();
    let mut against = |why| found.push(Refusal { device: disk.path.clone(), why });
    if !matches!(disk.kind.as_str(), "disk" | "loop") {
        against(Why::NoDisk(disk.kind.clone()));
    }
    if disk.read_only {
        against(Why::ReadOnly);
    }
    if size < SMALLEST {
        against(Why::TooSmall(size));
    }
    bases_in_use(inventory, disk).into_iter().for_each(&mut against);
    let partitioned = inventory.children(disk).any(|child| child.kind == "part");
    for by in &disk.uses {
        match by {
            // The kernel holds a disk whose partitions are in use.
            Use::Busy if partitioned => {}
            _ => against(Why::InUse { part: None, by: by.clone() }),
        }
    }
    match &disk.content {
        Content::Empty => {}
        Content::Known(signatures) if signatures.iter().all(|s| s.kind == "gpt") => {}
        Content::Known(_) => against(Why::NoGpt(disk.content.to_string())),
        Content::Unknown(why) => against(Why::UnknownContent(why.clone())),
    }
    found
}

/// What uses the devices that this one lies on, beside itself.
fn bases_in_use(inventory: &Inventory, device: &Device) -> Vec<Why> {
    let bases = inventory.above(device);
    let own = |kname: &str| bases.iter().any(|d| d.kname == kname);
    let mut found = Vec::new();
    for base in bases.iter().skip(1) {
        for by in &base.uses {
            // A disk is busy for its partitions too: that says nothing of this one.
            let elsewhere = match by {
                Use::Held(holder) => !own(holder),
                Use::Busy => false,
                Use::Mounted(_) | Use::Swap | Use::SameFile(_) => true,
            };
            if elsewhere {
                found.push(Why::BaseInUse { base: base.path.clone(), by: by.clone() });
            }
        }
    }
    found
}

/// By what lies on it, or, where nothing of that is left, by the disk.
fn is_member(mirror: &Mirror, device: &Device) -> bool {
    let signatures = match &device.content {
        Content::Known(signatures) => &signatures[..],
        Content::Empty | Content::Unknown(_) => &[],
    };
    let same = |m: &Member| {
        m.serial.is_some() && m.serial == device.serial && m.size == device.size && m.model == device.model
    };
    signatures.iter().any(|s| s.uuid.as_deref() == Some(&mirror.uuid)) || mirror.member.iter().any(same)
}

/// Judges the devices of one mirror together: what must not be, and what should be known.
pub fn judge_set(
    inventory: &Inventory,
    devices: &[&Device],
    allow_same_disk: bool,
) -> (Vec<Refusal>, Vec<String>) {
    let mut refusals = Vec::new();
    let mut warnings = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        for other in devices.iter().take(index) {
            let mut against = |why| refusals.push(Refusal { device: device.path.clone(), why });
            if device.dev == other.dev {
                against(Why::Same(other.path.clone()));
                continue;
            }
            let lies_on = |a: &Device, b: &Device| inventory.above(a).iter().any(|d| d.kname == b.kname);
            if lies_on(device, other) {
                against(Why::Within(other.path.clone()));
                continue;
            }
            if lies_on(other, device) {
                refusals.push(Refusal { device: other.path.clone(), why: Why::Within(device.path.clone()) });
                continue;
            }
            let disks = inventory.disks_of(other);
            let shared = inventory.disks_of(device).iter().any(|d| disks.iter().any(|o| o.kname == d.kname));
            let bridged = device.usb.is_some() && device.usb == other.usb;
            if shared && !allow_same_disk {
                against(Why::SameDisk(other.path.clone()));
            } else if bridged && !allow_same_disk {
                against(Why::SameBridge(other.path.clone()));
            }
            if device.serial.is_some() && device.serial == other.serial && !shared {
                warnings.push(format!(
                    "{} and {} show the same serial number: they are told apart by size and number only",
                    other.path.display(),
                    device.path.display()
                ));
            }
        }
        if device.serial.is_none() {
            warnings.push(format!(
                "{} shows no serial number: it is harder to know again",
                device.path.display()
            ));
        }
        if let Some((_, speed)) = device.usb.as_ref().filter(|(_, speed)| *speed < 5000) {
            warnings.push(format!("{} hangs on a slow USB link ({speed} Mbit/s)", device.path.display()));
        }
    }
    let sizes = || devices.iter().map(|d| d.size);
    if let (Some(least), Some(most)) = (sizes().min(), sizes().max()) {
        if u128::from(most.0) * 9 > u128::from(least.0) * 10 {
            warnings.push(format!("the sizes differ ({least} to {most}): the smallest counts"));
        }
    }
    let turns = |turning: bool| devices.iter().any(|d| d.rotational == Some(turning));
    if turns(true) && turns(false) {
        warnings.push("one member turns and another is flash: the slower one sets the pace".to_owned());
    }
    (refusals, warnings)
}

#[cfg(test)]
mod tests;
