//! Where the mirror is mounted, and the node that lives on it.

use super::Entry;
use crate::model::Source::{Databases, Mount, Node, Processes, Record, Storage};

pub(super) const CODES: &[Entry] = &[
    Entry {
        code: "MNT-ABSENT",
        source: Storage,
        title: "the mirror is not mounted",
        meaning: "Every path below the mount point leads elsewhere: a node that is started now does not find its data.",
        remedy: "Do not start the node. `mount MOUNTPOINT`, and read what it says.",
    },
    Entry {
        code: "MNT-OTHER",
        source: Storage,
        title: "another filesystem is at the mount point",
        meaning: "What is seen at the mount point is not the mirror. A node that runs there writes to the wrong place.",
        remedy: "Stop the node, `umount MOUNTPOINT`, `mount MOUNTPOINT`.",
    },
    Entry {
        code: "MNT-FSTAB",
        source: Mount,
        title: "fstab does not mount the mirror",
        meaning: "After the next start of the machine the mirror is not there, and neither is the node's data.",
        remedy: "Add this line to /etc/fstab: `UUID=FSUUID MOUNTPOINT btrfs defaults,autodefrag,nofail,x-systemd.device-timeout=30s 0 0`.",
    },
    Entry {
        code: "MNT-FSTAB-DEVICE",
        source: Mount,
        title: "fstab names the mirror by a device",
        meaning: "Device names change from one start to the next, and a mirror named by one member is not mounted when that one is missing.",
        remedy: "In /etc/fstab, write `UUID=FSUUID` in place of the device.",
    },
    Entry {
        code: "MNT-FSTAB-DEGRADED",
        source: Mount,
        title: "fstab mounts the mirror with `degraded`",
        meaning: "With this option a machine starts with a member missing and nobody notices; each half may then be written to alone.",
        remedy: "Remove `degraded` from the mirror's line in /etc/fstab.",
    },
    Entry {
        code: "MNT-FSTAB-OTHER",
        source: Mount,
        title: "fstab says something else about the mirror or its place",
        meaning: "A line of fstab mounts another filesystem at the mount point, or the mirror elsewhere: which one wins is decided at the next \
                  start.",
        remedy: "Keep one line in /etc/fstab for MOUNTPOINT, with `UUID=FSUUID`.",
    },
    Entry {
        code: "MNT-HIDDEN",
        source: Mount,
        title: "files lie hidden below the mount point",
        meaning: "Something wrote to the mount point while the mirror was not mounted there, perhaps the node. Those files are covered now, \
                  and may be newer than what is on the mirror.",
        remedy: "Look at them: `mkdir /tmp/below && mount --bind PARENT /tmp/below && ls -la /tmp/below/`. If a node's database is among them, \
                 do not start the node before you know which is the newer.",
    },
    Entry {
        code: "DIR-LINK",
        source: Node,
        title: "the node's directory does not lead to the mirror",
        meaning: "The path by which the node knows its directory is no symlink to the declared place: a node that is started now uses \
                  other files, or makes new ones.",
        remedy: "Do not start the node. If nothing of worth stands at DIRECTORY: `ln -sfnT DATA DIRECTORY`.",
    },
    Entry {
        code: "DIR-DATA",
        source: Node,
        title: "the node's data are not on the mirror",
        meaning: "The declared place is no directory of the mirror's filesystem, so what is in it exists once only.",
        remedy: "Do not start the node. Look at DATA and at what is mounted: `findmnt --target DATA`.",
    },
    Entry {
        code: "DIR-NOCOW",
        source: Node,
        title: "files without checksums",
        meaning: "Files with the attribute C have no checksums: btrfs cannot tell which copy is right, and mends nothing in them.",
        remedy: "With the node stopped: `cp --reflink=never --preserve=all FILE FILE.new && chattr -C FILE.new && mv FILE.new FILE`; also \
                 `chattr -C` on the directories.",
    },
    Entry {
        code: "DIR-OWNER",
        source: Node,
        title: "the node's directory belongs to somebody else",
        meaning: "The node cannot use a directory that is not its own, and another user may change what is in it.",
        remedy: "`chown -R USER: DATA`, with the node's user.",
    },
    Entry {
        code: "DIR-MODE",
        source: Node,
        title: "everybody can look into the node's directory",
        meaning: "The directory holds the secret of the wallet; lightningd makes it for its owner alone.",
        remedy: "`chmod o-rwx DATA`",
    },
    Entry {
        code: "DIR-ORIGINAL",
        source: Node,
        title: "the original from before the move is still there",
        meaning: "It is old state. A node that is ever started from it may lose everything in its channels to its peers.",
        remedy: "When the node has run well from the mirror: `rm -r ORIGINAL`.",
    },
    Entry {
        code: "NODE-STRAY",
        source: Processes,
        title: "a process works on the node's files off the mirror",
        meaning: "It writes where no mirror is: below the mount point, to the original, or to a directory that took the symlink's place.",
        remedy: "Stop that node now, and do not start another before you know which database is the newest: `raidguard check --deep`.",
    },
    Entry {
        code: "NODE-RUNNING",
        source: Processes,
        title: "another node already works on the node's files",
        meaning: "Two nodes on one database destroy it: nothing but the database itself tells the second of the first. Another one holds a \
                  database or the secret, is called lightningd, has the pid file's lock or answers on the socket; who reads the log, or has a \
                  shell in the directory, is none. Of a node other than Core Lightning's whoever uses the directory counts. Only the guard \
                  looks for this.",
        remedy: "Stop the other one first, and wait until it has ended.",
    },
    Entry {
        code: "NODE-DATABASE",
        source: Databases,
        title: "the database is damaged",
        meaning: "SQLite finds faults in it, or it is cut short. lightningd ends on the first database error.",
        remedy: "Stop the node and keep every file as it is. Run `raidguard scrub NAME`, then `raidguard check --deep`.",
    },
    Entry {
        code: "NODE-DATABASE-MISSING",
        source: Node,
        title: "the database is missing",
        meaning: "A node that is started now makes an empty database with the right secret: it then knows none of its channels.",
        remedy: "Do not start the node. Look for the database: `find / -xdev -name 'lightningd.sqlite3*'`.",
    },
    Entry {
        code: "NODE-SECRET",
        source: Node,
        title: "the secret is missing or cut short",
        meaning: "Without hsm_secret the money on the chain and in the channels cannot be spent. lightningd makes a new one where it finds \
                  none, and that one fits nothing.",
        remedy: "Do not start the node. Put the secret back from its backup, mode 0400, owned by the node's user.",
    },
    Entry {
        code: "NODE-SECRET-MODE",
        source: Node,
        title: "the secret can be read by others",
        meaning: "Whoever can read hsm_secret can spend everything.",
        remedy: "`chmod 0400 SECRET`",
    },
    Entry {
        code: "NODE-OLDER",
        source: Databases,
        title: "the database is older than one that was there before",
        meaning: "A node that goes on from old state may broadcast revoked commitments, and its peers may then take everything.",
        remedy: "Stop the node, and do not start it. Find the newest database. If this one is meant to be the newest: `raidguard check \
                 --deep --acknowledge`.",
    },
    Entry {
        code: "NODE-IDENTITY",
        source: Databases,
        title: "the database belongs to another node",
        meaning: "Its public key is not the one that was there before.",
        remedy: "Stop the node. If the change is meant: `raidguard check --deep --acknowledge`.",
    },
    Entry {
        code: "NODE-OVERRIDDEN",
        source: Record,
        title: "the node was started against the guard",
        meaning: "Somebody allowed a start that the guard would have refused.",
        remedy: "`raidguard guard NAME` says whether the reason is gone; then this goes too.",
    },
];
