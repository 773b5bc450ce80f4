//! The mirror itself: members, layout, scrubs, space.

use super::Entry;
use crate::model::Source::{Clones, Disks, Scrubs, Storage};

pub(super) const CODES: &[Entry] = &[
    Entry {
        code: "MIR-ABSENT",
        source: Storage,
        title: "the mirror is nowhere on this machine",
        meaning: "No block device holds a member of the declared filesystem. The disks are unplugged, dead, or have been erased.",
        remedy: "Do not start the node. Check cables and power, then look at `raidguard devices`.",
    },
    Entry {
        code: "MIR-MISSING",
        source: Storage,
        title: "a member is missing",
        meaning: "A declared member is gone, so there are fewer copies of the data than there should be. Once as many members are gone \
                  as the level survives, one more failure loses data.",
        remedy: "Plug the member in again, then `raidguard repair NAME`. If it is dead, give its place to another disk: \
                 `raidguard replace NAME --new NEW-DEVICE`.",
    },
    Entry {
        code: "MIR-PULLED",
        source: Storage,
        title: "a member was pulled, and the kernel still counts it",
        meaning: "The member's block device is gone from under the running mirror. The kernel says nothing until something is written, so \
                  its own state looks healthy; but what is written from now on exists once only.",
        remedy: "Plug it in again, then `raidguard repair NAME`, which takes it in again (a running mirror does not by itself). If it is \
                 dead: `raidguard replace NAME --new NEW-DEVICE`.",
    },
    Entry {
        code: "MIR-SUPERBLOCK",
        source: Storage,
        title: "a member's superblock is damaged",
        meaning: "The block by which the kernel knows the member has a wrong checksum. A mounted mirror works with what the kernel has in \
                  memory, and the next commit writes the block anew. But until then a mount that begins with this member is refused, and \
                  a thaw after a freeze, as some backup programs ask for, makes the mirror read-only.",
        remedy: "While it is mounted: `raidguard repair NAME`, which has it written anew. If it comes again, exchange the member: \
                 `raidguard replace NAME --old DEVID --new NEW-DEVICE`. Where the mount is refused, do not have the block made from another \
                 copy: those know nothing of the last fsync. Let another member go ahead: `btrfs device scan --forget DEVICE && mount -o \
                 degraded OTHER-MEMBER MOUNTPOINT && touch MOUNTPOINT && umount MOUNTPOINT && btrfs device scan DEVICE && mount MOUNTPOINT \
                 && touch MOUNTPOINT && btrfs filesystem sync MOUNTPOINT`, then `raidguard repair NAME`.",
    },
    Entry {
        code: "MIR-WRITE-ERRORS",
        source: Storage,
        title: "writes to a member have failed",
        meaning: "The kernel has counted failed writes since the counters were last acknowledged. What was to be written there may be missing \
                  on this member until a scrub has mended it from the other copy: until then losing the other loses it, so it is critical \
                  where no further member could be lost. A scrub alone does not end this, since more may have failed after it: \
                  acknowledge the counters when it has ended well.",
        remedy: "Look at the cable and at `smartctl -a DEVICE`, run `raidguard scrub NAME`, then `raidguard check --acknowledge`. If the \
                 counters grow again, exchange the member: `raidguard replace NAME --old DEVID --new NEW-DEVICE`.",
    },
    Entry {
        code: "MIR-READ-ERRORS",
        source: Storage,
        title: "reads from a member have failed",
        meaning: "The kernel has counted failed reads since the counters were last acknowledged. It took the other copy each time, but \
                  the member may be about to fail.",
        remedy: "Look at the cable and at `smartctl -a DEVICE`, run `raidguard scrub NAME`, then `raidguard check --acknowledge`. If the \
                 counters grow again, exchange the member: `raidguard replace NAME --old DEVID --new NEW-DEVICE`.",
    },
    Entry {
        code: "MIR-FLUSH-ERRORS",
        source: Storage,
        title: "a member did not empty its cache when told to",
        meaning: "A commit is only safe once the disk's cache is on the medium. A member that fails here may lose what it said it had.",
        remedy: "Look at the cable and the power of DEVICE, run `raidguard scrub NAME`, then `raidguard check --acknowledge`.",
    },
    Entry {
        code: "MIR-CORRUPTION",
        source: Storage,
        title: "a member returned data with a wrong checksum",
        meaning: "What was read is not what was written. It was mended from another copy where there was one; the member, its cable or \
                  the memory is not to be trusted.",
        remedy: "Run `raidguard scrub NAME`, which mends all that can be mended and counts what cannot, then `raidguard check --acknowledge`.",
    },
    Entry {
        code: "MIR-GENERATION",
        source: Storage,
        title: "a member holds metadata older than it should be",
        meaning: "Writes that the member said it had made did not arrive. This happens when a member was away for a while, or when a disk \
                  lies about its cache.",
        remedy: "Run `raidguard scrub NAME`, then `raidguard check --acknowledge`. If it comes back, exchange the member: `raidguard replace \
                 NAME --old DEVID --new NEW-DEVICE`.",
    },
    Entry {
        code: "MIR-PROFILE",
        source: Storage,
        title: "the mirror is not at the declared level",
        meaning: "All or part of it is stored in another way. To btrfs this happens when a mirror was written to while a member was missing: \
                  what was written then may exist once only, even with every member back. To a pool of ZFS it happens when a device was \
                  added that should have been attached.",
        remedy: "With every member present: `raidguard repair NAME`, which stores it as LEVEL again.",
    },
    Entry {
        code: "MIR-READONLY",
        source: Storage,
        title: "the mirror cannot be written to",
        meaning: "The filesystem is read-only. The kernel makes it so by itself when going on would harm it; the node cannot save its state.",
        remedy: "Stop the node, read the reason with `dmesg`, then `umount MOUNTPOINT`, `mount MOUNTPOINT`, `raidguard scrub NAME`.",
    },
    Entry {
        code: "MIR-DEGRADED-OPTION",
        source: Storage,
        title: "the mirror is mounted with `degraded`",
        meaning: "With this option the filesystem mounts with a member missing and nobody notices; what is written then exists once only.",
        remedy: "Remove `degraded` from /etc/fstab, and when every member is present: `raidguard repair NAME`.",
    },
    Entry {
        code: "MIR-FOREIGN",
        source: Storage,
        title: "a member is not a declared one",
        meaning: "The filesystem has a member that was not declared. It is part of the mirror all the same: without it data may be lost.",
        remedy: "If the mirror was changed on purpose, write the member into /etc/raidguard/raidguard.toml; `raidguard status --json` \
                 shows its number, UUID and size.",
    },
    Entry {
        code: "MIR-CLONE",
        source: Clones,
        title: "two devices say that they are the same member",
        meaning: "One is a copy of the other, made by dd or a snapshot below the filesystem. Either one may be taken, and then old is mixed \
                  with new.",
        remedy: "Unplug the copy now, without mounting anything; then `raidguard scrub NAME`.",
    },
    Entry {
        code: "MIR-LEFTOVER",
        source: Clones,
        title: "a device says that it is being made a member, and it is not",
        meaning: "It was away or failed when an exchange was given up, so what it says of itself could not be erased. While it is attached \
                  the kernel refuses to mount the mirror: after the next boot it would not be there.",
        remedy: "Where `raidguard replace` was interrupted, run the same command again. Otherwise erase it, when it is sure that it is this \
                 one: `wipefs --all --types btrfs DEVICE`, then `btrfs device scan --forget DEVICE`.",
    },
    Entry {
        code: "MIR-STALE",
        source: Storage,
        title: "a member holds older data than another",
        meaning: "A member was away while the mirror was written to, so part of its content is old. Until a scrub has mended it, reads may \
                  meet old blocks, and the newest data exists on the other member only.",
        remedy: "Do not start the node yet, and mount nothing. `raidguard repair NAME` brings the member up to date where it was only away; \
                 where both were written to apart, it shows both and merges nothing.",
    },
    Entry {
        code: "MIR-AWAY",
        source: Storage,
        title: "a member was away while the mirror was written to",
        meaning: "It is back, and nothing on the devices tells any more what it lacks: the kernel counts no failed write to a device that it \
                  does not have. Until a scrub has written that anew from the other member, it is there only.",
        remedy: "`raidguard scrub NAME` writes what the member lacks. Until it has ended take no other member away.",
    },
    Entry {
        code: "MIR-REPLACING",
        source: Storage,
        title: "the mirror's members are being changed",
        meaning: "A device is being added, removed or replaced. Redundancy is whole again when this is done.",
        remedy: "Wait; see `btrfs replace status MOUNTPOINT`. Where `raidguard replace` was interrupted, the same command goes on.",
    },
    Entry {
        code: "MIR-INACTIVE",
        source: Storage,
        title: "the mirror is not started",
        meaning: "Members of it are there, but the kernel does not serve it: an array is not started, a pool not imported. It waits for a member that did not come, or its members do not \
                  belong together any more.",
        remedy: "Look at the cables and at `raidguard devices`, then `raidguard repair NAME`, which starts it where that is safe.",
    },
    Entry {
        code: "MIR-REBUILDING",
        source: Storage,
        title: "a member is being filled",
        meaning: "A member takes its place in the mirror again, or a new one does. Until it holds everything the data exist on the others only.",
        remedy: "Wait; `raidguard status NAME` shows how far it is.",
    },
    Entry {
        code: "MIR-RESYNC",
        source: Storage,
        title: "the members are being made equal",
        meaning: "The array is new, or the machine went down while it was written to. What is written meanwhile goes to every member, but \
                  redundancy is only full when this is done.",
        remedy: "Wait; `raidguard status NAME` shows how far it is.",
    },
    Entry {
        code: "MIR-READ-AUTO",
        source: Storage,
        title: "the array has not been written to since it was started",
        meaning: "md starts an array so, and begins with what it has to mend at the first write. It is no fault.",
        remedy: "Nothing; mounting it ends this.",
    },
    Entry {
        code: "MIR-NO-BITMAP",
        source: Storage,
        title: "the array keeps no bitmap",
        meaning: "Without a bitmap of what is being written all of the array is compared after each crash, and a member that was away for a \
                  moment has to be filled from its beginning.",
        remedy: "`mdadm --grow --bitmap=internal` with the array's device adds one.",
    },
    Entry {
        code: "MIR-BAD-BLOCKS",
        source: Storage,
        title: "a member lacks sectors",
        meaning: "Sectors of this member could not be written, or could not be read any more even after they were written anew. md keeps a \
                  list of them and reads them from the other members; a scrub passes them over. What is there exists on the others only.",
        remedy: "Exchange the member: `raidguard replace NAME --old DEVID --new NEW-DEVICE`. It serves until the other one is filled.",
    },
    Entry {
        code: "MIR-MISMATCH",
        source: Storage,
        title: "members of the array differ",
        meaning: "When they were last compared, members held different data in more places than writes under way would explain. md has no \
                  checksums: nobody can tell from the array which of them is right.",
        remedy: "`raidguard check --deep` looks at the databases; `raidguard scrub NAME` compares again. If the number stays and the databases \
                 are sound: `raidguard check --acknowledge`. Do not run md's own `repair`, which takes one of them unseen.",
    },
    Entry {
        code: "MIR-SPLIT",
        source: Clones,
        title: "halves of the mirror were each written to alone",
        meaning: "Each half went on without the other, so both hold something that the other lacks. Nobody can merge them, and starting the \
                  node on the older one would be a start from old state.",
        remedy: "Do not start the node. `raidguard repair NAME` shows both halves and how to choose.",
    },
    Entry {
        code: "MIR-SAME-DISK",
        source: Disks,
        title: "two members lie on one disk or behind one bridge",
        meaning: "When that disk or bridge fails, both copies are gone at once: this is no redundancy.",
        remedy: "Move one member to a disk of its own: `raidguard replace NAME --old DEVID --new NEW-DEVICE`.",
    },
    Entry {
        code: "MIR-SAME-HUB",
        source: Disks,
        title: "two members hang on one USB hub",
        meaning: "When the hub or its power fails, both members drop off at the same moment. Nothing is lost by that alone, but the node \
                  stops, and it is the moment when halves part.",
        remedy: "Plug one of them into another port of the machine, if it has one that is not behind the same hub.",
    },
    Entry {
        code: "SCR-NEVER",
        source: Scrubs,
        title: "the mirror was never scrubbed to its end",
        meaning: "Nobody has ever read every copy of everything, so nobody knows whether the second copies are good.",
        remedy: "`raidguard scrub NAME`",
    },
    Entry {
        code: "SCR-OVERDUE",
        source: Scrubs,
        title: "the last whole scrub is too long ago",
        meaning: "Copies rot unread. Without a scrub this is noticed only when the other copy has gone too.",
        remedy: "`raidguard scrub NAME`; if the schedule should have done it: `raidguard schedule show`.",
    },
    Entry {
        code: "SCR-ABORTED",
        source: Scrubs,
        title: "the last scrub did not read everything",
        meaning: "It was cancelled, interrupted, or could not go on. What it did not reach is unknown.",
        remedy: "`raidguard scrub NAME`",
    },
    Entry {
        code: "SCR-CORRECTED",
        source: Scrubs,
        title: "the last scrub mended errors",
        meaning: "Blocks of one copy were wrong and were written anew from the other. Nothing is lost; the cause is still there.",
        remedy: "Look at the member whose counters grew (`btrfs device stats MOUNTPOINT`) and its cable. When that is settled: `raidguard \
                 check --acknowledge`.",
    },
    Entry {
        code: "SCR-UNMENDED",
        source: Scrubs,
        title: "the last scrub could not mend one of the members",
        meaning: "Blocks of one member could not be read. Nothing is lost: the same scrub has read their other copies, and they are good. Of \
                  a member with read errors the kernel also counts empty space here (seen with Linux 6.12).",
        remedy: "`raidguard scrub NAME` once more, when its cable and power are good. Where that does not mend it, exchange it: \
                 `raidguard replace NAME --old DEVID --new NEW-DEVICE`.",
    },
    Entry {
        code: "SCR-UNCORRECTABLE",
        source: Scrubs,
        title: "the last scrub found errors that it could not mend",
        meaning: "Every copy of some blocks is wrong: part of the data is lost on this mirror.",
        remedy: "Stop the node. `raidguard repair NAME` names the files that are damaged; look at the database with `raidguard check --deep`.",
    },
    Entry {
        code: "SCR-RUNNING",
        source: Scrubs,
        title: "a scrub is running",
        meaning: "Every copy is being read; the mirror can be used meanwhile, a little slower.",
        remedy: "Nothing; `btrfs scrub status MOUNTPOINT` shows how far it is.",
    },
    Entry {
        code: "SPC-FREE",
        source: Storage,
        title: "the mirror is nearly full",
        meaning: "Core Lightning ends when its database cannot grow: every database error is fatal to it by design.",
        remedy: "Make room: `du -x -h --max-depth=2 MOUNTPOINT | sort -h | tail`, then `raidguard balance NAME`.",
    },
    Entry {
        code: "SPC-UNALLOCATED",
        source: Storage,
        title: "a member has hardly any unallocated space",
        meaning: "btrfs takes space in chunks. When no new chunk fits on enough members, it reports a full disk although files would fit, \
                  and since Linux 6.7 it does not begin to exchange a member.",
        remedy: "`raidguard balance NAME`; if that finds nothing to give back, make room or use larger members.",
    },
    Entry {
        code: "SPC-METADATA",
        source: Storage,
        title: "metadata is nearly full and cannot grow",
        meaning: "When metadata finds no room, the kernel makes the filesystem read-only, and the node ends.",
        remedy: "`btrfs balance start -dusage=50 MOUNTPOINT` gives data chunks back to it.",
    },
];
