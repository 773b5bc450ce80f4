//! `hsm_secret`: what kind it is, by its length and form alone (Core Lightning: common/hsm_secret.c). What it holds is never shown.

use std::{
    fs::OpenOptions,
    io::{self, Read as _},
    path::Path,
};

use serde::Serialize;

use crate::host::files;

/// The kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretKind {
    /// 32 bytes, as they are.
    Plain,
    /// 73 bytes, encrypted with a password that must be known.
    Encrypted,
    /// Twelve words (since v25.12).
    Mnemonic,
    /// Twelve words and a passphrase that must be known.
    MnemonicWithPassphrase,
}

impl SecretKind {
    /// It in words.
    pub fn says(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Encrypted => "encrypted: it needs its password",
            Self::Mnemonic => "a mnemonic",
            Self::MnemonicWithPassphrase => "a mnemonic with a passphrase: it needs that too",
        }
    }
}

/// The longest that is read: more is no secret.
const LONGEST: u64 = 4096;
const PLAIN: usize = 32;
const ENCRYPTED: usize = 73;

/// Which kind a secret of this content is; why it is none.
///
/// # Errors
/// It is none that is known.
pub fn kind_of(bytes: &[u8]) -> Result<SecretKind, String> {
    if bytes.iter().all(|b| *b == 0) {
        return Err(format!("its {} bytes are all zero", bytes.len()));
    }
    match (bytes.len(), bytes.split_at_checked(PLAIN)) {
        (PLAIN, _) => Ok(SecretKind::Plain),
        (ENCRYPTED, _) => Ok(SecretKind::Encrypted),
        (_, Some((seed, words))) if is_words(words) => Ok(if seed.iter().all(|b| *b == 0) {
            SecretKind::Mnemonic
        } else {
            SecretKind::MnemonicWithPassphrase
        }),
        (length, _) => Err(format!("{length} bytes, which no kind of hsm_secret has")),
    }
}

fn is_words(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let mut words = text.trim_end_matches(['\n', '\0']).split(' ').filter(|word| !word.is_empty()).peekable();
    words.peek().is_some() && words.all(|word| word.bytes().all(|b| b.is_ascii_lowercase()))
}

/// Reads the kind of the secret at `path`; the inner error is why it is none.
///
/// # Errors
/// It cannot be read.
pub fn read_kind(path: &Path) -> io::Result<Result<SecretKind, String>> {
    let mut bytes = Vec::new();
    files::open_regular(path, OpenOptions::new().read(true))?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(kind_of(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_known_and_nothing_else() {
        let words =
            b"abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        let with = |seed: u8| [&[seed; 32][..], words].concat();
        assert_eq!(kind_of(&[7; 32]), Ok(SecretKind::Plain));
        assert_eq!(kind_of(&[7; 73]), Ok(SecretKind::Encrypted));
        assert_eq!(kind_of(&with(0)), Ok(SecretKind::Mnemonic));
        assert_eq!(kind_of(&with(9)), Ok(SecretKind::MnemonicWithPassphrase));
        for bad in [&[][..], &[7; 31], &[0; 32], &[0; 73], &[7; 40]] {
            assert!(kind_of(bad).is_err(), "{bad:?}");
        }
        let error = kind_of(&[0xee; 50]).unwrap_err();
        assert!(!error.contains("ee") && !error.contains("238"), "what it holds is never shown: {error}");
    }

    crate::fuzz::fuzzed!(fuzz_secret, bytes [
        &[7; 32],
        &[7; 73],
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0abandon abandon abandon about",
    ], |bytes| {
        let expected = match bytes {
            [] => Err(()),
            all if all.iter().all(|b| *b == 0) => Err(()),
            all if all.len() == PLAIN => Ok(SecretKind::Plain),
            all if all.len() == ENCRYPTED => Ok(SecretKind::Encrypted),
            all if all.len() > PLAIN && is_words(&all[PLAIN..]) => Ok(if all[..PLAIN] == [0; PLAIN] {
                SecretKind::Mnemonic
            } else {
                SecretKind::MnemonicWithPassphrase
            }),
            _ => Err(()),
        };
        assert_eq!(kind_of(bytes).map_err(drop), expected);
    });
}
