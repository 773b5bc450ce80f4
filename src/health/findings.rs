//! Every fault that raidguard can name. Codes are stable: people look them up, scripts rely on them.

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The code.
    pub code: &'static str,
    /// It in a few words.
    pub title: &'static str,
    /// What it means for the node's data.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

/// Every code, by area.
pub const CODES: &[Entry] = &[
    Entry {
        code: "MIR-ABSENT",
        title: "the mirror is nowhere on this machine",
        meaning: "No block device holds a member of the declared filesystem. The disks are unplugged, dead, or have been erased.",
        remedy: "Do not start the node. Check cables and power, then run `raidguard devices`.",
    },
    Entry {
        code: "MIR-MISSING",
        title: "a member is missing",
        meaning: "A declared member is gone, so there are fewer copies of the data than there should be. Once as many members are gone \
                  as the level survives, one more failure loses data.",
        remedy: "Plug the member in again. If it is dead, give its place to another disk: `btrfs replace start DEVID NEW-DEVICE MOUNTPOINT`, \
                 then scrub and check.",
    },
    Entry {
        code: "MIR-ERRORS",
        title: "a member has counted errors",
        meaning: "The kernel has counted failed reads, writes or flushes, or wrong checksums or generations, since the counters were last \
                  reset. btrfs mends what it can from the other copy, but a member that counts errors may be about to fail.",
        remedy: "Run `raidguard scrub NAME`, look at the cable and at `smartctl -a DEV`, and exchange the member if the counters grow.",
    },
    Entry {
        code: "MIR-PROFILE",
        title: "chunks are not at the declared level",
        meaning: "Part of the filesystem is stored with another profile. This happens when a mirror was written to while a member was \
                  missing: what was written then may exist once only, even with every member back.",
        remedy: "With every member present: `btrfs balance start -dconvert=LEVEL,soft -mconvert=LEVEL,soft MOUNTPOINT`.",
    },
    Entry {
        code: "MIR-READONLY",
        title: "the mirror cannot be written to",
        meaning: "The filesystem is read-only. The kernel makes it so by itself when going on would harm it; the node cannot save its state.",
        remedy: "Stop the node, read the reason in `dmesg`, and scrub the mirror after it has been mounted anew.",
    },
    Entry {
        code: "MIR-DEGRADED-OPTION",
        title: "the mirror is mounted with `degraded`",
        meaning: "With this option the filesystem mounts with a member missing and nobody notices; what is written then exists once only.",
        remedy: "Remove `degraded` from fstab and mount the mirror anew when every member is present.",
    },
    Entry {
        code: "MIR-FOREIGN",
        title: "a member is not the declared one",
        meaning: "The filesystem has a member that was not declared, or two devices say that they are the same member. btrfs confuses \
                  clones of a member, and may then mix old with new.",
        remedy: "Unplug the clone. If the mirror was changed on purpose, declare the member in raidguard.toml.",
    },
    Entry {
        code: "MIR-STALE",
        title: "a member holds older data than another",
        meaning: "A member was away while the mirror was written to, so part of its content is old. Until a scrub has mended it, reads may \
                  meet old blocks, and the newest data exists on the other member only.",
        remedy: "Do not start the node yet. Mount the mirror with every member, run `raidguard scrub NAME`, and check the profiles. If both \
                 members were written to apart, do not mount them together: choose the one with the newest data.",
    },
    Entry {
        code: "MIR-REPLACING",
        title: "the mirror's members are being changed",
        meaning: "A device is being added, removed or replaced. Redundancy is whole again when this is done.",
        remedy: "Wait; see `btrfs replace status MOUNTPOINT`.",
    },
    Entry {
        code: "MNT-ABSENT",
        title: "the mirror is not mounted",
        meaning: "Every path below the mount point leads elsewhere: a node that is started now does not find its data.",
        remedy: "Do not start the node. Run `mount MOUNTPOINT` and read what it says.",
    },
    Entry {
        code: "MNT-OTHER",
        title: "another filesystem is at the mount point",
        meaning: "What is seen at the mount point is not the mirror. A node that runs there writes to the wrong place.",
        remedy: "Stop the node, unmount what is there, and run `mount MOUNTPOINT`.",
    },
    Entry {
        code: "OBS-FAILED",
        title: "something could not be read",
        meaning: "raidguard does not know whether all is well, so it does not say so.",
        remedy: "Run the check as root. If it fails again, keep its output: it names what could not be read.",
    },
];

/// Looks up a code, in either case.
pub fn find(code: &str) -> Option<&'static Entry> {
    CODES.iter().find(|known| known.code.eq_ignore_ascii_case(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_explained() {
        for (index, code) in CODES.iter().enumerate() {
            assert!(CODES.iter().skip(index + 1).all(|other| other.code != code.code), "{}", code.code);
            assert!(!code.title.is_empty() && !code.meaning.is_empty() && !code.remedy.is_empty());
            assert!(code.meaning.split_whitespace().count() > 5);
            assert!(!code.meaning.contains("  "), "{}", code.code);
        }
        assert_eq!(find("mir-missing").map(|c| c.code), Some("MIR-MISSING"));
        assert_eq!(find("MIR"), None);
    }
}
