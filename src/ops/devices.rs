//! `devices`: every block device, usable or refused, and why.

use super::{Exit, Trouble, refusal};
use crate::{
    host::{Host, inventory},
    model::{Device, Inventory},
    ui::{self, Console, DeviceReport, Reason},
};

/// Runs `devices`.
///
/// # Errors
/// The devices cannot be read.
pub fn devices(host: &Host, json: bool, console: &Console) -> Result<Exit, Trouble> {
    let inventory =
        inventory::gather(host).map_err(|e| Trouble::failed("the block devices cannot be read", e))?;
    let declared = super::mirrors::declared(host)?;
    let reports: Vec<DeviceReport> = inventory
        .devices
        .iter()
        .map(|device| {
            let refused = refusal::judge_device(&inventory, device, &declared, false);
            let reasons = refused.iter().map(|r| {
                // A reason is told with the device that it is about.
                let why = if r.device == device.path { r.why.to_string() } else { r.to_string() };
                Reason { why, clears_with: r.clears_with() }
            });
            DeviceReport::new(device, depth(&inventory, device), reasons.collect())
        })
        .collect();
    console.data(if json { ui::json("devices", &reports)? } else { ui::devices(&reports) });
    Ok(Exit::Done)
}

fn depth(inventory: &Inventory, device: &Device) -> usize {
    let parent = device.parents.first().and_then(|p| inventory.devices.iter().find(|d| d.kname == *p));
    parent.map_or(0, |p| 1 + depth(inventory, p))
}
