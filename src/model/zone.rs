//! Local time, as far as it is needed to tell when a job runs next: the rule that stands at the end of the machine's time zone file
//! (TZif, RFC 9636 section 3.3; POSIX.1-2017 section 8.3 calls the same text `TZ`).

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How local time goes from now on: `CET-1CEST,M3.5.0,M10.5.0/3`. By default it is UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    text: String,
    rule: TimeZone,
}

impl Zone {
    /// The rule at the end of a time zone file. Nothing where there is none, or none that is understood.
    pub fn of_tzif(file: &[u8]) -> Option<Self> {
        if !file.starts_with(b"TZif") {
            return None;
        }
        // The last line, between two line ends.
        let line = file.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
        Self::of_rule(std::str::from_utf8(line).ok()?)
    }

    fn of_rule(text: &str) -> Option<Self> {
        Some(Self { text: text.to_owned(), rule: TimeZone::posix(text).ok()? })
    }

    /// What turns a time of the clock on the wall into an instant, and back.
    pub fn rule(&self) -> &TimeZone {
        &self.rule
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self { text: "UTC0".to_owned(), rule: TimeZone::UTC }
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == Self::default().text {
            return Ok(Self::default());
        }
        Self::of_rule(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no rule of local time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_the_last_line_of_the_file() {
        for text in ["CET-1CEST,M3.5.0,M10.5.0/3", "<+01>-1", "EST5EDT,M3.2.0,M11.1.0", "UTC0"] {
            let file = format!("TZif2 whatever \n comes between\n{text}\n");
            assert_eq!(Zone::of_tzif(file.as_bytes()).unwrap().text, text);
        }
        for none in ["", "TZif", "TZif\n", "TZif2\n\n", "TZif2\nCET", "TZif2\nnever\n", "CET-1\n"] {
            assert_eq!(Zone::of_tzif(none.as_bytes()), None, "{none:?}");
        }
    }

    #[test]
    fn it_is_kept_as_its_text() {
        let zone = Zone::of_tzif(b"TZif2\nCET-1CEST,M3.5.0,M10.5.0/3\n").unwrap();
        let kept = serde_json::to_string(&zone).unwrap();
        assert_eq!(kept, "\"CET-1CEST,M3.5.0,M10.5.0/3\"");
        assert_eq!(serde_json::from_str::<Zone>(&kept).unwrap(), zone);
        assert_eq!(serde_json::from_str::<Zone>("\"UTC0\"").unwrap(), Zone::default());
        assert!(serde_json::from_str::<Zone>("\"\"").is_err());
    }

    crate::fuzz::fuzzed!(fuzz_zone, bytes [b"TZif2\0\0\n<+01>-1\n", b"TZif3\nCET-1CEST,M3.5.0,M10.5.0/3\n"], |file| {
        if let Some(zone) = Zone::of_tzif(file) {
            assert!(file.starts_with(b"TZif") && !zone.text.is_empty());
        }
    });
}
