//! `/proc/spl/kstat/zfs/POOL/state`: one word, given at once also where the pool is suspended and every command of it waits for ever
//! (OpenZFS: `spa_state_data` in `module/zfs/spa_stats.c`, `spa_state_to_name` in `module/zfs/spa_misc.c`).

use std::{io, path::Path};

use crate::host::{
    Host,
    files::{Doing as _, FileError},
};

/// Where the kernel has a directory for each pool that is imported.
pub const POOLS: &str = "/proc/spl/kstat/zfs";

/// What the kernel calls a pool that waits for its devices to work again.
pub const SUSPENDED: &str = "SUSPENDED";

/// What the kernel says of a pool: `ONLINE`, `DEGRADED`, `SUSPENDED`, ...; nothing where none of this name is imported.
///
/// # Errors
/// It cannot be read, or is no such word.
pub fn state(host: &Host, name: &str) -> Result<Option<String>, FileError> {
    let file = Path::new(POOLS).join(name).join("state");
    let text = host.read_optional(&file).doing("reading", &file)?;
    text.map(|text| parse_state(&text)).transpose().doing("reading", &file)
}

/// The state that such a file holds.
///
/// # Errors
/// It is no such word.
pub fn parse_state(text: &str) -> io::Result<String> {
    let word = text.trim_end_matches('\n');
    let known = !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    if known {
        Ok(word.to_owned())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("it is no state of a pool: {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_states_of_a_pool() {
        assert_eq!(parse_state("ONLINE\n").unwrap(), "ONLINE");
        assert_eq!(parse_state("SUSPENDED\n").unwrap(), "SUSPENDED");
        for bad in ["", "\n", "online\n", "ONLINE DEGRADED\n", "ONLINE\nONLINE\n", "-1"] {
            assert!(parse_state(bad).is_err(), "{bad:?}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_zfs_kstat, text [b"ONLINE\n", b"SUSPENDED\n"], |text| {
        if let Ok(word) = parse_state(text) {
            assert!(text.starts_with(&word));
        }
    });
}
