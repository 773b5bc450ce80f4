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
    /// Its device number.
    pub dev: DevNo,
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
