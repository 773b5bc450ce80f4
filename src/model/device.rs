//! Block devices as the machine shows them.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Bytes;

/// A device number, `major:minor`: what makes two paths the same device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DevNo {
    /// The driver's number.
    pub major: u32,
    /// The device's number within the driver.
    pub minor: u32,
}

impl fmt::Display for DevNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// What makes a device this device and no other: compared again right before anything on it is erased, because `/dev/sdX` names
/// move and USB bridges share serial numbers (no single field is enough).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The path by which it was named.
    pub path: PathBuf,
    /// Its device number; unknown of a partition that is still to be made.
    pub dev: Option<DevNo>,
    /// Its size in bytes.
    pub size: Bytes,
    /// The disk's model, where it has one.
    pub model: Option<String>,
    /// The disk's serial number, where it has one.
    pub serial: Option<String>,
    /// The disk's World Wide Name, where it has one.
    pub wwn: Option<String>,
    /// The partition's GPT UUID, for a partition.
    pub partuuid: Option<String>,
}

impl Identity {
    /// Is anything known of it that another one of its model has not?
    pub fn is_numbered(&self) -> bool {
        self.serial.is_some() || self.wwn.is_some()
    }

    /// Is it the same, whatever it is called and numbered?
    pub fn is_same(&self, other: &Self) -> bool {
        Self { dev: None, ..self.clone() }.difference(other).is_none()
    }

    /// How `other` differs, in words; `None` when it is the same device.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let of = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let differs = |what: &str, was: String, is: String| {
            (was != is).then(|| format!("its {what} is {is}, not {was}"))
        };
        let number = |dev: Option<DevNo>| dev.map_or_else(|| "none".to_owned(), |d| d.to_string());
        let of_number = self.dev.and_then(|_| differs("number", number(self.dev), number(other.dev)));
        of_number
            .or_else(|| differs("size", self.size.0.to_string(), other.size.0.to_string()))
            .or_else(|| differs("model", of(&self.model), of(&other.model)))
            .or_else(|| differs("serial number", of(&self.serial), of(&other.serial)))
            .or_else(|| differs("World Wide Name", of(&self.wwn), of(&other.wwn)))
            .or_else(|| differs("partition UUID", of(&self.partuuid), of(&other.partuuid)))
    }
}
