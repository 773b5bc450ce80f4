//! Sizes: bytes inside, binary units at the edge.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// Why a size could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a size; write a number with an optional unit, such as 30G, 512MiB or 32010928128")]
pub struct SizeError {
    text: String,
}

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Bytes {
    /// `n` binary gigabytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// `n` binary megabytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, unit) = UNITS.iter().find(|(_, unit)| self.0 >= *unit).copied().unwrap_or(("B", 1));
        // One decimal from integers: a size is never rounded up to something that is not there.
        let tenths = u128::from(self.0) * 10 / u128::from(unit);
        let text = match (name, tenths % 10) {
            ("B", _) | (_, 0) => format!("{} {name}", tenths / 10),
            (_, rest) => format!("{}.{rest} {name}", tenths / 10),
        };
        f.pad(&text)
    }
}

impl FromStr for Bytes {
    type Err = SizeError;

    /// Reads `30G`, `30GiB`, `512 MiB`, `1048576`. Units are binary, as in `lvcreate` and `truncate`; the decimal `GB` is
    /// refused, because a partition that is 7 % smaller than meant is found out too late.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError { text: text.to_owned() };
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| error())?;
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            _ => return Err(error()),
        };
        number.checked_mul(factor).map(Self).ok_or_else(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_one_decimal_and_never_rounds_up() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (32_010_928_128, "29.8 GiB"),
            (2 << 30, "2 GiB"),
            ((2 << 30) - 1, "1.9 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn reads_binary_units_only() {
        for (text, bytes) in
            [("30G", 30 << 30), ("30 GiB", 30 << 30), ("512m", 512 << 20), ("7", 7), ("1T", 1 << 40)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)));
        }
        for text in ["", "G", "30GB", "-1", "1.5G", "30 G B", "99999999999T"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_size, text [b"32G", b"1.5 TiB", b"1048576", b"100 MB"], |text| {
        let _ = text.parse::<Bytes>();
    });
}
