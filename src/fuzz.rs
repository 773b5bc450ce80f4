//! Parsers are given what real tools, files and devices say, taken apart and put together again. `scripts/fuzz` runs each a million times.

use proptest::prelude::*;

/// One change: what is done, where, how far, and with which byte.
type Change = (u8, prop::sample::Index, u8, u8);

/// Pieces that parsers stumble over.
const PIECES: [&[u8]; 20] = [
    b"\n",
    b"\0",
    b"\xff",
    b"-1",
    b"18446744073709551616",
    b"9223372036854775807",
    b"1e999",
    b"null",
    b"{",
    b"}",
    b"[",
    b"\"",
    b":",
    b"|",
    b"\\",
    b"=",
    b" ",
    b"\xef\xbf\xbd",
    b"%",
    b"\\777",
];

fn apply(bytes: &mut Vec<u8>, (what, place, length, byte): Change) {
    let at = place.index(bytes.len() + 1);
    let end = (at + usize::from(length)).min(bytes.len());
    match what % 7 {
        0 => bytes.truncate(at),
        1 => drop(bytes.drain(at..end)),
        2 => bytes[at..end].iter_mut().take(1).for_each(|b| *b = byte),
        3 => bytes[at..end].iter_mut().take(1).for_each(|b| *b ^= 1 << (byte % 8)),
        4 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        5 => drop(bytes.splice(at..at, PIECES[usize::from(byte) % PIECES.len()].iter().copied())),
        _ => drop(bytes.splice(at..end, PIECES[usize::from(byte) % PIECES.len()].iter().copied())),
    }
}

/// One of the samples with a few changes; or bytes that are nothing at all.
pub(crate) fn mutated(samples: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec(any::<Change>(), 0..6);
    prop_oneof![
        15 => (prop::sample::select(samples), changes).prop_map(|(sample, changes)| {
            let mut bytes = sample.to_vec();
            for change in changes {
                apply(&mut bytes, change);
            }
            bytes
        }),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// As [`mutated`], as text.
pub(crate) fn mutated_text(samples: &'static [&'static [u8]]) -> impl Strategy<Value = String> {
    mutated(samples).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// A test that gives a parser such text (or bytes) and holds it to what it says; it must not panic. The names begin with `fuzz_`.
macro_rules! fuzzed {
    ($name:ident, text [$($sample:expr),+ $(,)?], |$text:ident| $body:expr) => {
        proptest::proptest! {
            #[test]
            fn $name($text in crate::fuzz::mutated_text(&[$($sample),+])) {
                let $text: &str = &$text;
                $body
            }
        }
    };
    ($name:ident, bytes [$($sample:expr),+ $(,)?], |$bytes:ident| $body:expr) => {
        proptest::proptest! {
            #[test]
            fn $name($bytes in crate::fuzz::mutated(&[$($sample),+])) {
                let $bytes: &[u8] = &$bytes;
                $body
            }
        }
    };
}
pub(crate) use fuzzed;
