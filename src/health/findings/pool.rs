//! What only a pool of ZFS has.

use super::Entry;
use crate::model::Source::{Mount, Storage};

pub(super) const CODES: &[Entry] = &[
    Entry {
        code: "MIR-SUSPENDED",
        source: Storage,
        title: "the pool has stopped",
        meaning: "Too many of the pool's members are gone or have failed, so ZFS takes no more writes. Whoever writes, and many a command of \
                  ZFS, waits until the members are back, and cannot be killed meanwhile. What was acknowledged before is on the members.",
        remedy: "Plug the members in again, all of them, then `zpool clear POOL`; what was waiting goes on. When it serves again: `raidguard \
                 scrub NAME`. If they do not come back, restart the machine without starting the node, then `raidguard recover --degraded`.",
    },
    Entry {
        code: "MIR-VDEV",
        source: Storage,
        title: "a vdev beside the members is less redundant than the mirror",
        meaning: "A log, a special or a dedup vdev holds what is nowhere else. With a special or dedup vdev the whole pool is lost; without \
                  its log a machine that went down starts from a state that is older than what was acknowledged. The members alone then do \
                  not give back the newest state.",
        remedy: "`zpool status POOL` shows it. A log is taken out by `zpool remove POOL VDEV`, a special or dedup vdev only from a pool without \
                 raidz; or it gets a mirror: `zpool attach POOL DEVICE NEW-DEVICE`.",
    },
    Entry {
        code: "MIR-DOUBTED",
        source: Storage,
        title: "ZFS does not trust a device of the pool",
        meaning: "It serves, but too much of what it returned was wrong or late, or ZFS has another reason that nothing else tells.",
        remedy: "`zpool status POOL` names the reason. Look at the cable and at `smartctl -a DEVICE`, run `raidguard scrub NAME`, then `zpool \
                 clear POOL`. If it comes again, exchange the member: `raidguard replace NAME --old DEVID --new NEW-DEVICE`.",
    },
    Entry {
        code: "MIR-DAMAGED",
        source: Storage,
        title: "data are damaged in every copy",
        meaning: "Checksums tell that no copy of some blocks is right: part of the data is lost on this mirror. It is known until the files are \
                  gone or written anew, and a scrub has ended after that.",
        remedy: "Stop the node. `zpool status -v POOL` names the files; look at the database with `raidguard check --deep`. When they are put \
                 right: `raidguard scrub NAME`.",
    },
    Entry {
        code: "MIR-CHECKPOINT",
        source: Storage,
        title: "the pool has a checkpoint",
        meaning: "What is deleted stays in use, members cannot be exchanged for good, and somebody may take the whole pool back to the state of \
                  the checkpoint: a node that goes on from there goes on from old state.",
        remedy: "When it is not needed any more: `zpool checkpoint -d POOL`.",
    },
    Entry {
        code: "SPC-POOL",
        source: Storage,
        title: "the pool is nearly full",
        meaning: "From 80 % on ZFS gets slower, since free space lies scattered; a little before the end it takes no more writes, and Core \
                  Lightning ends when its database cannot grow.",
        remedy: "Make room: `du -x -h --max-depth=2 MOUNTPOINT | sort -h | tail`; `zfs list -t snapshot -r POOL` shows snapshots, which keep \
                 what was deleted.",
    },
    Entry {
        code: "MNT-BOOT",
        source: Mount,
        title: "no boot would bring the pool back",
        meaning: "A pool has no line in fstab: systemd's units of ZFS import what /etc/zfs/zpool.cache names, and mount it. Without them the \
                  mirror is not there after the next start of the machine, and neither is the node's data.",
        remedy: "`systemctl enable zfs-import-cache.service zfs-import.target zfs-mount.service zfs.target`, and `zpool set \
                 cachefile=/etc/zfs/zpool.cache POOL`, which has the pool named there.",
    },
];
