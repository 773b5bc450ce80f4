//! Block devices: lsblk's JSON, completed by `wipefs -n`, `blkid -p`, sysfs and the kernel's own word on what is busy.
//!
//! lsblk knows contents only from udev: where there is none, every FSTYPE is null, which does not mean empty. And neither of the
//! two probes is enough alone: blkid 2.41 is silent about two filesystems that stand in each other's way, wipefs shows them.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer};

use super::{Host, files::FileError, mountinfo};
use crate::{
    exec::{Cmd, CmdError},
    model::{
        Bytes, DevNo, Identity,
        inventory::{Content, Device, Inventory, Signature, Use},
    },
};

/// NAME is there for lsblk alone: without it the answer is flat, and what lies on what is lost.
const COLUMNS: &str = "NAME,KNAME,PATH,MAJ:MIN,TYPE,SIZE,RO,ROTA,TRAN,MODEL,SERIAL,WWN,PARTUUID";

/// Why the devices could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// A tool failed.
    #[error("the devices cannot be listed")]
    Tool(#[source] CmdError),
    /// lsblk's answer is not of a known form.
    #[error("lsblk's answer cannot be understood")]
    Form(#[source] serde_json::Error),
    /// A device number is not of the form `8:1`.
    #[error("lsblk's device number `{0}` cannot be understood")]
    Number(String),
    /// The mounts cannot be read.
    #[error("the mounts cannot be read")]
    Mounts(#[source] mountinfo::MountinfoError),
    /// The swaps cannot be read.
    #[error("the swaps cannot be read")]
    Swaps(#[source] FileError),
}

/// One row of lsblk. Old versions write every value as a string, newer ones numbers and booleans.
#[derive(Debug, Deserialize)]
struct Row {
    kname: String,
    path: Option<String>,
    #[serde(rename = "maj:min")]
    number: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(deserialize_with = "number")]
    size: u64,
    #[serde(deserialize_with = "flag")]
    ro: Option<bool>,
    #[serde(default, deserialize_with = "flag")]
    rota: Option<bool>,
    tran: Option<String>,
    model: Option<String>,
    serial: Option<String>,
    wwn: Option<String>,
    partuuid: Option<String>,
    #[serde(default)]
    children: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Lsblk {
    blockdevices: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Loose {
    Flag(bool),
    Number(u64),
    Text(String),
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match Loose::deserialize(deserializer)? {
        Loose::Number(n) => Ok(n),
        Loose::Text(text) => text.trim().parse().map_err(serde::de::Error::custom),
        Loose::Flag(_) => Err(serde::de::Error::custom("a number was expected")),
    }
}

fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    match Option::<Loose>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Loose::Flag(flag)) => Ok(Some(flag)),
        Some(Loose::Number(n)) if n <= 1 => Ok(Some(n == 1)),
        Some(Loose::Text(text)) if text.trim() == "0" => Ok(Some(false)),
        Some(Loose::Text(text)) if text.trim() == "1" => Ok(Some(true)),
        Some(_) => Err(serde::de::Error::custom("0 or 1 was expected")),
    }
}

/// Reads lsblk's JSON. Uses and contents are not in it.
///
/// # Errors
/// It is not of a known form.
pub fn parse_lsblk(text: &str) -> Result<Inventory, InventoryError> {
    fn take(row: Row, parent: Option<&Device>, out: &mut Vec<Device>) -> Result<(), InventoryError> {
        // A device on two others is shown below each of them.
        if let Some(known) = out.iter_mut().find(|d| d.kname == row.kname) {
            known.parents.extend(parent.map(|p| p.kname.clone()));
            return Ok(());
        }
        let bad = || InventoryError::Number(row.number.clone());
        let (major, minor) = row.number.trim().split_once(':').ok_or_else(bad)?;
        let dev =
            DevNo { major: major.parse().map_err(|_| bad())?, minor: minor.parse().map_err(|_| bad())? };
        let said = |text: Option<String>| text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        // lsblk shows these for whole disks only, and a partition is known by its disk.
        let disk = parent.filter(|_| row.kind == "part");
        let own = |text, of: fn(&Device) -> &Option<String>| {
            said(text).or_else(|| disk.and_then(|d| of(d).clone()))
        };
        let device = Device {
            path: row.path.unwrap_or_else(|| format!("/dev/{}", row.kname)).into(),
            kname: row.kname,
            kind: row.kind,
            dev,
            size: Bytes(row.size),
            // A device whose write switch is unknown is treated as closed.
            read_only: row.ro.unwrap_or(true),
            rotational: row.rota,
            transport: own(row.tran, |d| &d.transport),
            model: own(row.model, |d| &d.model),
            serial: own(row.serial, |d| &d.serial),
            wwn: own(row.wwn, |d| &d.wwn),
            partuuid: said(row.partuuid),
            parents: parent.map(|p| p.kname.clone()).into_iter().collect(),
            uses: Vec::new(),
            content: Content::Unknown("not looked at".to_owned()),
            usb: None,
        };
        out.push(device.clone());
        row.children.into_iter().try_for_each(|child| take(child, Some(&device), out))
    }
    let rows: Lsblk = serde_json::from_str(text).map_err(InventoryError::Form)?;
    let mut devices = Vec::new();
    rows.blockdevices.into_iter().try_for_each(|row| take(row, None, &mut devices))?;
    Ok(Inventory { devices })
}

/// Reads `wipefs --no-act --json`: nothing at all, or a list of signatures.
fn parse_wipefs(text: &str) -> Result<Vec<Signature>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Found {
        signatures: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(rename = "type")]
        kind: String,
        label: Option<String>,
        uuid: Option<String>,
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let found: Found = serde_json::from_str(text)?;
    let mut signatures: Vec<Signature> = found
        .signatures
        .into_iter()
        .map(|s| Signature { kind: s.kind, label: s.label, uuid: s.uuid })
        .collect();
    // A ZFS label or a GPT stands in several places, and a GPT brings a protective MBR.
    signatures.dedup();
    if signatures.iter().any(|s| s.kind == "gpt") {
        signatures.retain(|s| s.kind != "PMBR");
    }
    Ok(signatures)
}

/// What `blkid -p -o export` printed.
#[derive(Debug, PartialEq, Eq)]
struct Blkid {
    /// The content: the first of TYPE and PTTYPE.
    signature: Option<Signature>,
    /// It spoke of a content, but not of its kind.
    untyped: bool,
    /// The partition's own UUID, from the table that it is in.
    partuuid: Option<String>,
}

/// Reads `blkid -p -o export`: `NAME=value` lines. `PART_ENTRY_*` tell of the table that a partition is in, not of what it holds.
fn parse_blkid(text: &str) -> Blkid {
    let value =
        |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
    let kind = value("TYPE").or_else(|| value("PTTYPE"));
    let of_the_device = |line: &&str| {
        !line.trim().is_empty() && !line.starts_with("DEVNAME=") && !line.starts_with("PART_ENTRY_")
    };
    Blkid {
        untyped: kind.is_none() && text.lines().any(|line| of_the_device(&line)),
        signature: kind.map(|kind| Signature { kind, label: value("LABEL"), uuid: value("UUID") }),
        partuuid: value("PART_ENTRY_UUID"),
    }
}

/// What a device holds, by two independent probes, and a partition's own UUID.
fn content(host: &Host, path: &Path) -> (Content, Option<String>) {
    let unknown = |e: &dyn std::fmt::Display| (Content::Unknown(e.to_string()), None);
    let wipefs = Cmd::probe("wipefs").args(["--no-act", "--noheadings", "--json"]).arg(path);
    let signatures = match host.runner().run(&wipefs) {
        Ok(output) => match parse_wipefs(&output.text()) {
            Ok(signatures) => signatures,
            Err(e) => return unknown(&e),
        },
        Err(e) => return unknown(&e),
    };
    let (found, code) = match blkid(host, path, &[]) {
        Ok(found) => found,
        Err(e) => return unknown(&e),
    };
    let content = match found.signature {
        _ if !signatures.is_empty() => Content::Known(signatures),
        _ if code == CONFLICT => Content::Unknown("contents that stand in each other's way".to_owned()),
        Some(signature) => Content::Known(vec![signature]),
        None if found.untyped => Content::Unknown("blkid found something without a type".to_owned()),
        None => Content::Empty,
    };
    (content, found.partuuid)
}

/// blkid's exit code for contents that stand in each other's way; 0 is something found, 2 nothing (blkid(8)).
const CONFLICT: i32 = 8;

fn blkid(host: &Host, path: &Path, area: &[String]) -> Result<(Blkid, i32), CmdError> {
    let cmd = Cmd::probe("blkid").args(["-p", "-o", "export"]).args(area).arg(path).accept(&[0, 2, CONFLICT]);
    let output = host.runner().run(&cmd)?;
    Ok((parse_blkid(&output.text()), output.code))
}

/// What is left in one area of a device, in bytes: free space may hold what was deleted from the table only.
pub(super) fn content_at(host: &Host, path: &Path, offset: u64, size: u64) -> Content {
    let area = ["-O".to_owned(), offset.to_string(), "-S".to_owned(), size.to_string()];
    match blkid(host, path, &area) {
        Err(e) => Content::Unknown(e.to_string()),
        Ok((_, CONFLICT)) => Content::Unknown("contents that stand in each other's way".to_owned()),
        Ok((Blkid { signature: Some(signature), .. }, _)) => Content::Known(vec![signature]),
        Ok((found, _)) if found.untyped => {
            Content::Unknown("blkid found something without a type".to_owned())
        }
        Ok(_) => Content::Empty,
    }
}

/// All block devices, without what uses them and what they hold.
fn list_devices(host: &Host) -> Result<Inventory, InventoryError> {
    let lsblk = Cmd::probe("lsblk").args(["--json", "--bytes", "--output", COLUMNS]);
    let text = host.runner().run(&lsblk).map_err(InventoryError::Tool)?;
    let mut inventory = parse_lsblk(&text.text())?;
    inventory.devices.retain(|d| d.size.0 > 0 && d.kind != "rom");
    Ok(inventory)
}

/// The device that is at this path now; `None` where there is none.
///
/// # Errors
/// The machine cannot be asked.
pub fn identify(host: &Host, path: &Path) -> Result<Option<Identity>, InventoryError> {
    let inventory = list_devices(host)?;
    let Some(mut device) = inventory.by_path(path).map(Device::identity) else { return Ok(None) };
    if device.partuuid.is_none() {
        device.partuuid = blkid(host, path, &[]).map_err(InventoryError::Tool)?.0.partuuid;
    }
    Ok(Some(device))
}

/// All block devices, each with what uses it and what it holds.
///
/// # Errors
/// The machine cannot be asked. A single device that cannot be probed is no error: its content is then unknown, which refuses it.
pub fn gather(host: &Host) -> Result<Inventory, InventoryError> {
    let mut inventory = list_devices(host)?;
    let mounts = mountinfo::read(host).map_err(InventoryError::Mounts)?;
    let swaps = mountinfo::swaps(host).map_err(InventoryError::Swaps)?;
    let backings = backings(host);
    lay_loops(&mut inventory, &backings);
    for device in &mut inventory.devices {
        device.uses = uses(host, device, &mounts, &swaps, &backings);
        device.usb = usb(host, &device.kname);
        let (content, partuuid) = content(host, &device.path);
        device.content = content;
        device.partuuid = device.partuuid.take().or(partuuid);
    }
    Ok(inventory)
}

/// Each loop device in use, by its kernel name, with the file or the block device that it shows.
fn backings(host: &Host) -> Vec<(String, PathBuf)> {
    let shown = list(host, "/sys/class/block").into_iter().filter_map(|kname| {
        let text =
            host.read_optional(format!("/sys/class/block/{kname}/loop/backing_file")).ok().flatten()?;
        Some((kname, PathBuf::from(text.trim_end_matches('\n'))))
    });
    shown.collect()
}

/// A loop device that shows a block device lies on it; lsblk does not say so.
fn lay_loops(inventory: &mut Inventory, backings: &[(String, PathBuf)]) {
    for (kname, backing) in backings {
        let Some(base) = inventory.by_path(backing) else { continue };
        // The path may be that of another mount namespace: never a circle.
        let circle = inventory.above(base).iter().any(|d| d.kname == *kname);
        let base = base.kname.clone();
        if let Some(device) = inventory.devices.iter_mut().find(|d| d.kname == *kname && !circle) {
            device.parents.push(base);
        }
    }
}

fn uses(
    host: &Host,
    device: &Device,
    mounts: &[mountinfo::Mount],
    swaps: &[PathBuf],
    backings: &[(String, PathBuf)],
) -> Vec<Use> {
    let mut uses = Vec::new();
    // A btrfs has an anonymous number, and only one of its members is the source: sysfs knows the others.
    let fellows = fellows(host, &device.kname);
    for mount in mounts {
        let own = mount.dev == device.dev || mount.source == device.path;
        let fellow =
            || mount.source.file_name().is_some_and(|name| fellows.iter().any(|f| name == f.as_str()));
        if own || fellow() {
            uses.push(Use::Mounted(mount.mountpoint.clone()));
        }
    }
    if swaps.contains(&device.path) {
        uses.push(Use::Swap);
    }
    let class = format!("/sys/class/block/{}", device.kname);
    uses.extend(list(host, &format!("{class}/holders")).into_iter().map(Use::Held));
    let own = backings.iter().find(|(kname, _)| *kname == device.kname).map(|(_, backing)| backing);
    for (kname, backing) in backings.iter().filter(|(kname, _)| *kname != device.kname) {
        // A loop device that was made of a block device holds it without being a holder.
        if *backing == device.path {
            uses.push(Use::Held(kname.clone()));
        } else if own == Some(backing) {
            uses.push(Use::SameFile(Path::new("/dev").join(kname)));
        }
    }
    if uses.is_empty() && is_busy(host, &device.path) {
        uses.push(Use::Busy);
    }
    uses
}

/// The kernel names of all members of the mounted btrfs that this device is a member of, without itself.
fn fellows(host: &Host, kname: &str) -> Vec<String> {
    let filesystems = list(host, "/sys/fs/btrfs");
    let members = filesystems.iter().map(|uuid| list(host, &format!("/sys/fs/btrfs/{uuid}/devices")));
    members.filter(|m| m.iter().any(|name| name == kname)).flatten().filter(|name| name != kname).collect()
}

/// An exclusive open fails on whatever the kernel has claimed: also for a ZFS pool, of which nothing else tells.
fn is_busy(host: &Host, path: &Path) -> bool {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_EXCL | nix::libc::O_CLOEXEC)
        .open(host.path(path));
    opened.is_err_and(|e| e.kind() == io::ErrorKind::ResourceBusy)
}

fn list(host: &Host, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(host.path(dir)).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// The USB device above a block device, by its place in sysfs, and its link's speed.
fn usb(host: &Host, kname: &str) -> Option<(String, u32)> {
    let real = fs::canonicalize(host.path(format!("/sys/class/block/{kname}"))).ok()?;
    real.ancestors().find_map(|at| {
        let speed = fs::read_to_string(at.join("speed")).ok()?;
        at.join("bDeviceClass").exists().then_some(())?;
        Some((at.file_name()?.to_string_lossy().into_owned(), speed.trim().parse().ok()?))
    })
}

/// Why a name is no device.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, String),
    /// It is something else.
    #[error("{0} is not a block device")]
    NotBlock(String),
}

/// The number of the device that a path names, symlinks of `/dev/disk` followed.
///
/// # Errors
/// There is nothing of that name, or it is no block device.
pub fn resolve(host: &Host, path: &Path) -> Result<DevNo, ResolveError> {
    let shown = path.display().to_string();
    let meta =
        fs::metadata(host.path(path)).map_err(|e| ResolveError::Unreadable(shown.clone(), e.to_string()))?;
    if !meta.file_type().is_block_device() {
        return Err(ResolveError::NotBlock(shown));
    }
    let number = |n: u64| u32::try_from(n).map_err(|_| ResolveError::NotBlock(shown.clone()));
    let rdev = meta.rdev();
    Ok(DevNo { major: number(nix::sys::stat::major(rdev))?, minor: number(nix::sys::stat::minor(rdev))? })
}

#[cfg(test)]
mod tests;
