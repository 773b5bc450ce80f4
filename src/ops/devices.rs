//! `devices`: every block device, usable or refused, and why.

use serde::Serialize;

use super::{Exit, Trouble, refusal};
use crate::{
    host::{Host, inventory},
    model::{Device, Inventory},
    ui::{self, Console},
};

/// A device and what stands against it.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// The device.
    #[serde(flatten)]
    pub device: Device,
    /// How deep it stands in the tree.
    pub depth: usize,
    /// Why it is refused, a sentence each; none where it is usable.
    pub refused: Vec<String>,
}

/// Runs `devices`.
///
/// # Errors
/// The devices cannot be read.
pub fn devices(host: &Host, json: bool, console: &Console) -> Result<Exit, Trouble> {
    let inventory =
        inventory::gather(host).map_err(|e| Trouble::failed("the block devices cannot be read", e))?;
    let declared = super::mirrors::declared(host)?;
    let judged: Vec<Judged> = inventory
        .devices
        .iter()
        .map(|device| Judged {
            device: device.clone(),
            depth: depth(&inventory, device),
            refused: refusal::judge_device(&inventory, device, &declared, false)
                .iter()
                .map(ToString::to_string)
                .collect(),
        })
        .collect();
    console.data(if json { ui::json("devices", &judged) } else { ui::devices(&judged) });
    Ok(Exit::Done)
}

fn depth(inventory: &Inventory, device: &Device) -> usize {
    let parent = device.parents.first().and_then(|p| inventory.devices.iter().find(|d| d.kname == *p));
    parent.map_or(0, |p| 1 + depth(inventory, p))
}
