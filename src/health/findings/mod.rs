//! Every fault that raidguard can name. Codes are stable: people look them up, scripts rely on them. `explain`, `check` and
//! `docs/findings.md` all read this one table.

mod mirror;
mod place;
mod upkeep;

use crate::model::Source;

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The code.
    pub code: &'static str,
    /// Where such a fault is read from.
    pub source: Source,
    /// It in a few words.
    pub title: &'static str,
    /// What it means for the node's data.
    pub meaning: &'static str,
    /// What to do. Words in capitals stand for this mirror's own.
    pub remedy: &'static str,
}

/// Every code, by area.
pub fn codes() -> impl Iterator<Item = &'static Entry> {
    [mirror::CODES, place::CODES, upkeep::CODES].into_iter().flatten()
}

/// Looks up a code, in either case.
pub fn find(code: &str) -> Option<&'static Entry> {
    codes().find(|known| known.code.eq_ignore_ascii_case(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_explained() {
        let all: Vec<_> = codes().collect();
        for (index, entry) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| other.code != entry.code), "{}", entry.code);
            assert!(!entry.title.is_empty() && !entry.remedy.is_empty(), "{}", entry.code);
            assert!(entry.meaning.split_whitespace().count() > 5, "{}", entry.code);
            assert!(!entry.meaning.contains("  ") && !entry.remedy.contains("  "), "{}", entry.code);
            assert!(entry.code.chars().all(|c| c.is_ascii_uppercase() || c == '-'), "{}", entry.code);
        }
        assert_eq!(find("mir-missing").map(|c| c.code), Some("MIR-MISSING"));
        assert_eq!(find("MIR"), None);
    }
}
