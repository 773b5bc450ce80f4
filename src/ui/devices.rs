//! The tree of block devices.

use std::{fmt::Write as _, path::PathBuf};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::model::{
    Bytes, Device,
    inventory::{Content, Signature},
    lossy,
};

const QUIET: Style = Style::new().dimmed();
/// How many reasons people are shown; programs get all.
const REASONS: usize = 3;

/// A device as people and programs are told of it.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceReport {
    /// Its path.
    #[serde(serialize_with = "lossy::path")]
    pub path: PathBuf,
    /// lsblk's type.
    pub kind: String,
    /// Its size in bytes.
    pub size: Bytes,
    /// The model.
    pub model: Option<String>,
    /// The serial number.
    pub serial: Option<String>,
    /// The World Wide Name.
    pub wwn: Option<String>,
    /// A partition's own UUID.
    pub partuuid: Option<String>,
    /// How it is attached.
    pub transport: Option<String>,
    /// The USB device that it hangs on.
    pub usb: Option<UsbReport>,
    /// Whether it turns.
    pub rotational: Option<bool>,
    /// Whether the kernel refuses writes.
    pub read_only: bool,
    /// The kernel's names of the devices it lies on.
    pub parents: Vec<String>,
    /// What uses it.
    pub uses: Vec<String>,
    /// What it holds.
    pub content: ContentReport,
    /// Nothing stands against it.
    pub usable: bool,
    /// What does.
    pub refused: Vec<Reason>,
    /// How deep it stands in the tree.
    #[serde(skip)]
    pub depth: usize,
}

/// A USB device.
#[derive(Debug, Clone, Serialize)]
pub struct UsbReport {
    /// Its place in the tree of buses, as sysfs names it.
    pub device: String,
    /// Its link's speed in Mbit/s.
    pub speed: u32,
}

/// What a device holds.
#[derive(Debug, Clone, Serialize)]
pub struct ContentReport {
    /// `empty`, `known` or `unknown`.
    pub state: &'static str,
    /// What is known.
    pub signatures: Vec<Signature>,
    /// Why it is unknown.
    pub why: Option<String>,
}

/// A reason against a device.
#[derive(Debug, Clone, Serialize)]
pub struct Reason {
    /// The reason, to be read after the device's name.
    pub why: String,
    /// What clears it.
    pub clears_with: String,
}

impl DeviceReport {
    /// What is told of a device that stands at `depth` in the tree.
    pub fn new(device: &Device, depth: usize, refused: Vec<Reason>) -> Self {
        let (state, signatures, why) = match &device.content {
            Content::Empty => ("empty", Vec::new(), None),
            Content::Known(signatures) => ("known", signatures.clone(), None),
            Content::Unknown(why) => ("unknown", Vec::new(), Some(why.clone())),
        };
        Self {
            path: device.path.clone(),
            kind: device.kind.clone(),
            size: device.size,
            model: device.model.clone(),
            serial: device.serial.clone(),
            wwn: device.wwn.clone(),
            partuuid: device.partuuid.clone(),
            transport: device.transport.clone(),
            usb: device.usb.clone().map(|(device, speed)| UsbReport { device, speed }),
            rotational: device.rotational,
            read_only: device.read_only,
            parents: device.parents.clone(),
            uses: device.uses.iter().map(ToString::to_string).collect(),
            content: ContentReport { state, signatures, why },
            usable: refused.is_empty(),
            refused,
            depth,
        }
    }

    fn holds(&self) -> String {
        match self.content.state {
            "known" => format!("holds {}", Content::Known(self.content.signatures.clone())),
            "unknown" => "content unknown".to_owned(),
            _ => "empty".to_owned(),
        }
    }
}

/// Renders the tree.
pub fn devices(devices: &[DeviceReport]) -> String {
    if devices.is_empty() {
        return "No block devices are seen.\n".to_owned();
    }
    let mut out = String::new();
    let name =
        |d: &DeviceReport| format!("{}{}", "  ".repeat(d.depth), super::printable(&d.path.to_string_lossy()));
    let width = devices.iter().map(|d| name(d).chars().count()).max().unwrap_or_default();
    for device in devices {
        let serial = device.serial.as_ref().map(|s| format!("serial {s}"));
        let facts = [device.model.clone(), serial, device.transport.clone(), Some(device.holds())];
        let facts: Vec<String> = facts.into_iter().flatten().map(|fact| super::printable(&fact)).collect();
        let _ = writeln!(out, "{:<width$}  {:>9}  {}", name(device), device.size, facts.join(", "));
        let indent = "  ".repeat(device.depth + 2);
        if device.usable {
            let good = AnsiColor::Green.on_default();
            let _ = writeln!(out, "{indent}{good}usable{good:#}");
        }
        for reason in device.refused.iter().take(REASONS) {
            let _ = writeln!(out, "{indent}{QUIET}refused: it {}{QUIET:#}", super::printable(&reason.why));
        }
        if let Some(more) = device.refused.len().checked_sub(REASONS).filter(|more| *more > 0) {
            let _ = writeln!(out, "{indent}{QUIET}and {more} more{QUIET:#}");
        }
    }
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::DevNo;

    pub(in crate::ui) fn sample() -> Device {
        Device {
            path: "/dev/sdb1".into(),
            kname: "sdb1".into(),
            kind: "part".into(),
            dev: DevNo { major: 8, minor: 17 },
            size: Bytes::gib(32),
            read_only: false,
            rotational: Some(true),
            transport: Some("usb".into()),
            model: Some("Example Stick".into()),
            serial: Some("E1234".into()),
            wwn: Some("0x5000".into()),
            partuuid: Some("aa-bb".into()),
            parents: vec!["sdb".into()],
            uses: vec![crate::model::inventory::Use::Mounted("/mnt".into())],
            content: Content::Known(vec![Signature {
                kind: "ext4".into(),
                label: Some("old\u{1b}[2J".into()),
                uuid: Some("cc-dd".into()),
            }]),
            usb: Some(("2-1".into(), 5000)),
        }
    }

    fn reason(why: &str) -> Reason {
        Reason { why: why.into(), clears_with: "name another device".into() }
    }

    #[test]
    fn a_tree_with_reasons() {
        let mut disk = sample();
        disk.path = "/dev/sdb".into();
        disk.content = Content::Empty;
        let mut lost = sample();
        lost.content = Content::Unknown("a very long reason".into());
        let shown = devices(&[
            DeviceReport::new(&disk, 0, Vec::new()),
            DeviceReport::new(&sample(), 1, vec![reason("is mounted at /mnt")]),
            DeviceReport::new(&lost, 1, vec![reason("a"), reason("b"), reason("c"), reason("d")]),
        ]);
        insta::assert_snapshot!(anstream::adapter::strip_str(&shown), @r"
        /dev/sdb        32 GiB  Example Stick, serial E1234, usb, empty
            usable
          /dev/sdb1     32 GiB  Example Stick, serial E1234, usb, holds ext4 `old\u{1b}[2J`
              refused: it is mounted at /mnt
          /dev/sdb1     32 GiB  Example Stick, serial E1234, usb, content unknown
              refused: it a
              refused: it b
              refused: it c
              and 1 more
        ");
        assert_eq!(devices(&[]), "No block devices are seen.\n");
    }
}
