//! `zpool list -Hpo` with named properties (zpool-list(8), zpoolprops(7)): a line a pool, a tab between two, exact, and the same in every
//! version.

use crate::{
    backend::ParseError,
    model::{Bytes, zfs::ZfsSpace},
};

/// What is asked for, in this order.
pub const COLUMNS: &str = "name,guid,size,allocated,free,readonly,health";

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its number.
    pub guid: u64,
    /// Its space, which one that cannot be opened does not tell.
    pub space: Option<ZfsSpace>,
    /// Whether it was imported without being written to.
    pub read_only: bool,
    /// `ONLINE`, `DEGRADED`, `SUSPENDED`, ...
    pub health: String,
}

/// The pools that are listed.
///
/// # Errors
/// A line is not of that form.
pub fn parse(text: &str) -> Result<Vec<Listed>, ParseError> {
    text.lines().map(line).collect()
}

fn line(line: &str) -> Result<Listed, ParseError> {
    let bad = || ParseError::new("zpool list", line);
    let words: Vec<&str> = line.split('\t').collect();
    let [name, guid, size, allocated, free, read_only, health] = words[..] else { return Err(bad()) };
    let number = |text: &str| text.parse::<u64>().map_err(|_| bad());
    let space = match (size, allocated, free) {
        ("-", "-", "-") => None,
        _ => Some(ZfsSpace {
            size: Bytes(number(size)?),
            allocated: Bytes(number(allocated)?),
            free: Bytes(number(free)?),
        }),
    };
    if name.is_empty() || health.is_empty() || !health.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(bad());
    }
    Ok(Listed {
        name: name.to_owned(),
        guid: number(guid)?,
        space,
        read_only: match read_only {
            "on" => true,
            "off" => false,
            // Of one that cannot be opened it is not known.
            "-" if health != "ONLINE" => false,
            _ => return Err(bad()),
        },
        health: health.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "tank\t10972298985683485842\t1006632960\t142336\t1006490624\toff\tONLINE\nold\t5\t-\t-\t-\t-\tFAULTED\n";

    #[test]
    fn pools_and_their_space() {
        let pools = parse(TWO).unwrap();
        let space =
            ZfsSpace { size: Bytes(1_006_632_960), allocated: Bytes(142_336), free: Bytes(1_006_490_624) };
        assert_eq!(
            (pools[0].guid, pools[0].space, pools[0].read_only),
            (10_972_298_985_683_485_842, Some(space), false)
        );
        assert_eq!(
            (pools[1].name.as_str(), pools[1].space, pools[1].health.as_str()),
            ("old", None, "FAULTED")
        );
        assert_eq!(parse("").unwrap(), []);
        for bad in [
            "\n",
            "tank\n",
            "tank\t1\t2\t3\t4\toff\n",
            "tank\t-\t2\t3\t4\toff\tONLINE\n",
            "tank\t1\t2G\t3\t4\toff\tONLINE\n",
            "tank\t1\t2\t-\t4\toff\tONLINE\n",
            "tank\t1\t2\t3\t4\tmaybe\tONLINE\n",
            "tank\t1\t2\t3\t4\t-\tONLINE\n",
            "tank\t1\t2\t3\t4\toff\t\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    const SAMPLE: &[u8] = TWO.as_bytes();

    crate::fuzz::fuzzed!(fuzz_zpool_list, text[SAMPLE], |text| {
        if let Ok(pools) = parse(text) {
            assert_eq!(pools.len(), text.lines().count());
        }
    });
}
