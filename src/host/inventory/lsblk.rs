//! `lsblk --json` (lsblk(8)).

use serde::{Deserialize, Deserializer};

use super::InventoryError;
use crate::{
    exec::Cmd,
    host::Host,
    model::{
        Bytes, DevNo,
        inventory::{Content, Device, Inventory},
    },
};

/// NAME is there for lsblk alone: without it the answer is flat, and what lies on what is lost.
pub(super) const COLUMNS: &str = "NAME,KNAME,PATH,MAJ:MIN,TYPE,SIZE,RO,ROTA,TRAN,MODEL,SERIAL,WWN,PARTUUID";

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

/// All block devices, without what uses them and what they hold.
pub(super) fn list_devices(host: &Host) -> Result<Inventory, InventoryError> {
    let lsblk = Cmd::probe("lsblk").args(["--json", "--bytes", "--output", COLUMNS]);
    let text = host.runner().run(&lsblk).map_err(InventoryError::Tool)?;
    let mut inventory = parse_lsblk(&text.text())?;
    inventory.devices.retain(|d| d.size.0 > 0 && d.kind != "rom");
    Ok(inventory)
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::fuzz::fuzzed!(fuzz_lsblk, text [
        include_bytes!("../../../tests/fixtures/lsblk/2.41.5/gpt-partition-mounted.json"),
        include_bytes!("../../../tests/fixtures/lsblk/2.38.1/loop-mounted.json"),
        include_bytes!("../../../tests/fixtures/lsblk/synthetic-all-strings.json"),
        include_bytes!("../../../tests/fixtures/lsblk/synthetic-md-raid1-under-two-disks.json"),
    ], |text| {
        let _ = parse_lsblk(text);
    });
}
