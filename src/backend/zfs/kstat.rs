//! `/proc/spl/kstat/zfs/POOL/state`: one word, given at once also where the pool is suspended and every command of it waits for ever
//! (OpenZFS: `spa_state_data` in `module/zfs/spa_stats.c`, `spa_state_to_name` in `module/zfs/spa_misc.c`).

use crate::backend::ParseError;

/// The state of an imported pool: `ONLINE`, `DEGRADED`, `SUSPENDED`, ...
///
/// # Errors
/// It is no such word.
pub fn parse_state(text: &str) -> Result<String, ParseError> {
    let word = text.trim_end_matches('\n');
    let known = !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    if known { Ok(word.to_owned()) } else { Err(ParseError::new("the state of a pool", text)) }
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
