//! Every fault that raidguard can name. Codes are stable: people look them up, scripts rely on them. `explain`, `check` and
//! `docs/findings.md` all read this one table.

mod elsewhere;
mod mirror;
mod place;
mod pool;
mod upkeep;

use crate::model::{BackendKind, Source};

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

impl Entry {
    /// What to do where the mirror is of this kind.
    pub fn remedy_for(&self, kind: BackendKind) -> &'static str {
        let own = self.remedies().find(|(own, _)| own.contains(&kind));
        own.map_or(self.remedy, |(_, remedy)| remedy)
    }

    /// What to do instead where the mirror is of one of these kinds.
    pub fn remedies(&self) -> impl Iterator<Item = (&'static [BackendKind], &'static str)> {
        let own = elsewhere::REMEDIES.iter().filter(|(code, ..)| *code == self.code);
        own.map(|(_, kinds, remedy)| (*kinds, *remedy))
    }

    /// The same as paragraphs, each begun with the kinds: `With mdadm: ...`, between these marks.
    pub fn elsewhere(&self, mark: &str) -> String {
        let names =
            |kinds: &[BackendKind]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
        let paragraph = |(kinds, remedy)| format!("\n\n{mark}With {}:{mark} {remedy}", names(kinds));
        self.remedies().map(paragraph).collect()
    }
}

/// Every code, by area.
pub fn codes() -> impl Iterator<Item = &'static Entry> {
    [mirror::CODES, pool::CODES, place::CODES, upkeep::CODES].into_iter().flatten()
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
        for (code, kinds, remedy) in elsewhere::REMEDIES {
            let entry = find(code).unwrap_or_else(|| panic!("{code}"));
            assert!(!kinds.is_empty() && *remedy != entry.remedy && !remedy.contains("  "), "{code}");
            for kind in *kinds {
                let own = entry.remedies().filter(|(own, _)| own.contains(kind));
                assert_eq!(own.count(), 1, "{code} {kind}");
            }
        }
        assert_eq!(find("mir-missing").map(|c| c.code), Some("MIR-MISSING"));
        assert_eq!(find("MIR"), None);
    }

    /// Words of one kind of mirror that are of no use with another.
    const STRANGE: [(BackendKind, &[&str]); 2] = [
        (BackendKind::Zfs, &["btrfs", "mdadm", "`mount MOUNTPOINT`", "balance", "UUID=", "chattr"]),
        (BackendKind::Mdadm, &["btrfs", "zpool", "zfs", "balance"]),
    ];

    #[test]
    fn what_mends_a_mirror_of_one_kind_is_no_command_of_another() {
        let foreign: Vec<String> = codes()
            .flat_map(|entry| STRANGE.map(|(kind, words)| (entry, kind, words)))
            // What only a pool has is no finding of another.
            .filter(|(entry, kind, _)| {
                *kind == BackendKind::Zfs || pool::CODES.iter().all(|own| own.code != entry.code)
            })
            .filter(|(entry, kind, words)| words.iter().any(|word| entry.remedy_for(*kind).contains(word)))
            .map(|(entry, kind, _)| format!("{} {kind}", entry.code))
            .collect();
        // None of these is found of such a mirror: what it is about there is none there.
        insta::assert_snapshot!(foreign.join("\n"), @r"
        MIR-SUPERBLOCK mdadm
        MIR-LEFTOVER zfs
        MIR-LEFTOVER mdadm
        MIR-REPLACING mdadm
        MIR-NO-BITMAP zfs
        SPC-UNALLOCATED zfs
        SPC-UNALLOCATED mdadm
        SPC-METADATA zfs
        SPC-METADATA mdadm
        MNT-FSTAB zfs
        MNT-FSTAB-DEVICE zfs
        DIR-NOCOW zfs
        ");
    }
}
