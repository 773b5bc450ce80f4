//! Levels of redundancy.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// How much of a mirror may be lost, and how that is kept (mkfs.btrfs(8), PROFILES; md(4); zpoolconcepts(7), Virtual Devices).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Two copies on two members.
    #[default]
    Raid1,
    /// Two copies, striped over half of the members.
    Raid10,
    /// Three copies on three members.
    Raid1c3,
    /// Four copies on four members.
    Raid1c4,
    /// ZFS: a copy on every member.
    Mirror,
    /// ZFS: parity for the loss of one member.
    Raidz1,
    /// ZFS: parity for the loss of two members.
    Raidz2,
}

/// A word that is no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a level; choose raid1, raid10, raid1c3 or raid1c4, of zfs mirror, raidz1 or raidz2")]
pub struct LevelError(String);

impl Level {
    /// Every level, the simplest first.
    pub const ALL: [Self; 7] =
        [Self::Raid1, Self::Raid10, Self::Raid1c3, Self::Raid1c4, Self::Mirror, Self::Raidz1, Self::Raidz2];

    /// The fewest members it is made of. mkfs would make a raid10 of two since Linux 5.15, which is a raid1 by another name.
    pub const fn min_members(self) -> usize {
        match self {
            Self::Raid1 | Self::Mirror => 2,
            Self::Raid1c3 | Self::Raidz1 => 3,
            Self::Raid10 | Self::Raid1c4 | Self::Raidz2 => 4,
        }
    }

    /// How many members may fail, whichever they are, where it has as few as it can have.
    pub const fn survives(self) -> usize {
        match self {
            Self::Raid1 | Self::Raid10 | Self::Mirror | Self::Raidz1 => 1,
            Self::Raid1c3 | Self::Raidz2 => 2,
            Self::Raid1c4 => 3,
        }
    }

    /// How many times each block is stored, by itself or as what it can be computed from.
    pub const fn copies(self) -> usize {
        self.survives() + 1
    }

    /// The word that names it, as the kernel, mkfs.btrfs and zpool write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raid1 => "raid1",
            Self::Raid10 => "raid10",
            Self::Raid1c3 => "raid1c3",
            Self::Raid1c4 => "raid1c4",
            Self::Mirror => "mirror",
            Self::Raidz1 => "raidz1",
            Self::Raidz2 => "raidz2",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, LevelError> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == text);
        found.ok_or_else(|| LevelError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_reads_back_and_can_lose_what_it_says() {
        for (level, text, members, copies, survives) in [
            (Level::Raid1, "raid1", 2, 2, 1),
            (Level::Raid10, "raid10", 4, 2, 1),
            (Level::Raid1c3, "raid1c3", 3, 3, 2),
            (Level::Raid1c4, "raid1c4", 4, 4, 3),
            (Level::Mirror, "mirror", 2, 2, 1),
            (Level::Raidz1, "raidz1", 3, 2, 1),
            (Level::Raidz2, "raidz2", 4, 3, 2),
        ] {
            assert_eq!(text.parse(), Ok(level));
            assert_eq!(level.to_string(), text);
            assert_eq!(serde_json::to_string(&level).unwrap(), format!("\"{text}\""));
            assert_eq!((level.min_members(), level.copies(), level.survives()), (members, copies, survives));
        }
        assert!("RAID1".parse::<Level>().is_err());
        assert!("raid5".parse::<Level>().is_err());
    }
}
