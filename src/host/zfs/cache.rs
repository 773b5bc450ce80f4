//! `/etc/zfs/zpool.cache`: the pools that a boot imports, a list of their descriptions packed as the machine has it in memory (OpenZFS:
//! `spa_write_cachefile` in `module/zfs/spa_config.c`, `nvs_native_nvlist` and `nvs_native_nvpair` in `module/nvpair/nvpair.c`).

use super::{Fault, nvlist::List};

/// Lists in lists: as in a label, and the pool's own around them.
const DEEPEST: u32 = 16;
/// `DATA_TYPE_UINT64`, `DATA_TYPE_NVLIST`, `DATA_TYPE_NVLIST_ARRAY`.
const NUMBER: u32 = 8;
const LIST: u32 = 19;
const LISTS: u32 = 20;
/// What of a pair stands before its name (`nvpair_t`).
const HEAD: usize = 16;
/// Four bytes of how it is packed, then `nvl_version` and `nvl_nvflag`.
const START: usize = 12;

const SHORT: Fault = Fault("it is cut short");

/// The name and number of each pool.
///
/// # Errors
/// It is not of that form.
pub fn pools(bytes: &[u8]) -> Result<Vec<(String, u64)>, Fault> {
    let no_number = Fault("a pool in it has no number");
    let (encoding, order) = (bytes.first(), bytes.get(1));
    if encoding == Some(&1) {
        let list = List::unpack(bytes)?;
        let number =
            |(name, pool): (&str, &List)| Ok((name.to_owned(), pool.number("pool_guid")?.ok_or(no_number)?));
        return list.inner().map(number).collect();
    }
    let little = match (encoding, order) {
        (Some(0), Some(1)) => true,
        (Some(0), Some(0)) => false,
        _ => return Err(Fault("it is packed in an unknown way")),
    };
    let mut reader = Reader { rest: bytes.get(START..).ok_or(SHORT)?, little };
    let mut found = Vec::new();
    while let Some(pair) = reader.pair()? {
        if pair.kind != LIST {
            return Err(Fault("what is no pool stands where one should"));
        }
        let guid = reader.number_in("pool_guid", 0)?.ok_or(no_number)?;
        found.push((pair.name, guid));
    }
    Ok(found)
}

struct Reader<'b> {
    rest: &'b [u8],
    little: bool,
}

/// A name and what it stands for; of a list what it holds comes after the pair.
struct Pair<'b> {
    name: String,
    kind: u32,
    count: u32,
    value: &'b [u8],
}

impl<'b> Reader<'b> {
    fn word(&self, bytes: &[u8], at: usize) -> Result<u32, Fault> {
        let bytes = bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).ok_or(SHORT)?;
        Ok(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// The next pair; nothing at the end of the list.
    fn pair(&mut self) -> Result<Option<Pair<'b>>, Fault> {
        let size = usize::try_from(self.word(self.rest, 0)?).map_err(|_| SHORT)?;
        let (whole, rest) = self.rest.split_at_checked(size.max(4)).ok_or(SHORT)?;
        self.rest = rest;
        if size == 0 {
            return Ok(None);
        }
        // Its length has half a word, and the other half is not used.
        let length = whole.get(4..6).and_then(|b| <[u8; 2]>::try_from(b).ok()).ok_or(SHORT)?;
        let length = if self.little { u16::from_le_bytes(length) } else { u16::from_be_bytes(length) };
        let end = HEAD + usize::from(length);
        let name = whole.get(HEAD..end).and_then(|name| name.strip_suffix(b"\0")).ok_or(SHORT)?;
        Ok(Some(Pair {
            name: String::from_utf8_lossy(name).into_owned(),
            count: self.word(whole, 8)?,
            kind: self.word(whole, 12)?,
            value: whole.get(end.next_multiple_of(8)..).unwrap_or_default(),
        }))
    }

    /// Reads a list to its end; the number of this name in it, if it has one.
    fn number_in(&mut self, name: &str, depth: u32) -> Result<Option<u64>, Fault> {
        if depth > DEEPEST {
            return Err(Fault("it is nested too deeply"));
        }
        let mut found = None;
        while let Some(pair) = self.pair()? {
            match pair.kind {
                NUMBER if pair.name == name => {
                    let bytes = pair.value.get(..8).and_then(|b| <[u8; 8]>::try_from(b).ok()).ok_or(SHORT)?;
                    found =
                        Some(if self.little { u64::from_le_bytes(bytes) } else { u64::from_be_bytes(bytes) });
                }
                LIST => drop(self.number_in(name, depth + 1)?),
                LISTS => {
                    for _ in 0..pair.count {
                        self.number_in(name, depth + 1)?;
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As OpenZFS 2.1.11 wrote it in user space, but for the paths of its files.
    const CACHE: &[u8] = include_bytes!("../../../tests/fixtures/zfs/cache/ztest.cache");

    #[test]
    fn the_pools_that_a_boot_imports() {
        assert_eq!(pools(CACHE).unwrap(), [("ztest".to_owned(), 10_972_298_985_683_485_842)]);
        // One that names none.
        assert_eq!(pools(&[0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap(), []);
        for bad in [&CACHE[..0], &CACHE[..11], &CACHE[..100], &CACHE[..1700], &[7, 1, 0, 0]] {
            assert!(pools(bad).is_err(), "{bad:?}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_zpool_cache, bytes[CACHE], |bytes| {
        if let Ok(pools) = pools(bytes) {
            assert!(pools.len() <= bytes.len());
        }
    });
}
