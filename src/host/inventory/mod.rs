//! Block devices: lsblk's JSON, completed by `wipefs -n`, `blkid -p`, sysfs and the kernel's own word on what is busy.
//!
//! lsblk knows contents only from udev: where there is none, every FSTYPE is null, which does not mean empty. And neither of the
//! two probes is enough alone: blkid 2.41 is silent about two filesystems that stand in each other's way, wipefs shows them.

mod content;
mod lsblk;
mod uses;

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

pub(crate) use content::content_at;
pub use lsblk::parse_lsblk;
pub(super) use uses::usb;

use super::{Host, files::FileError, mountinfo};
use crate::{
    exec::CmdError,
    model::{DevNo, Device, Identity, Inventory},
};

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

/// The device that is at this path now; `None` where there is none.
///
/// # Errors
/// The machine cannot be asked.
pub fn identify(host: &Host, path: &Path) -> Result<Option<Identity>, InventoryError> {
    let inventory = lsblk::list_devices(host)?;
    let Some(mut device) = inventory.by_path(path).map(Device::identity) else { return Ok(None) };
    if device.partuuid.is_none() {
        device.partuuid = content::blkid(host, path, &[]).map_err(InventoryError::Tool)?.0.partuuid;
    }
    Ok(Some(device))
}

/// All block devices, without what uses them and what they hold: one look, where nothing is to be erased.
///
/// # Errors
/// The machine cannot be asked.
pub fn list(host: &Host) -> Result<Inventory, InventoryError> {
    let mut inventory = lsblk::list_devices(host)?;
    uses::lay_loops(&mut inventory, &uses::backings(host));
    Ok(inventory)
}

/// All block devices, each with what uses it and what it holds.
///
/// # Errors
/// The machine cannot be asked. A single device that cannot be probed is no error: its content is then unknown, which refuses it.
pub fn gather(host: &Host) -> Result<Inventory, InventoryError> {
    let mut inventory = lsblk::list_devices(host)?;
    let mounts = mountinfo::read(host).map_err(InventoryError::Mounts)?;
    let swaps = mountinfo::swaps(host).map_err(InventoryError::Swaps)?;
    let backings = uses::backings(host);
    uses::lay_loops(&mut inventory, &backings);
    for device in &mut inventory.devices {
        device.uses = uses::uses(host, device, &mounts, &swaps, &backings);
        device.usb = uses::usb(host, &device.kname);
        let (content, partuuid) = content::content(host, &device.path);
        device.content = content;
        device.partuuid = device.partuuid.take().or(partuuid);
    }
    Ok(inventory)
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
