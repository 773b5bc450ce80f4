//! The regular jobs, the disks, the channels, and what could not be read.

use super::Entry;
use crate::model::Source::{Channels, Disks, Jobs, Record, Smart, Storage};

pub(super) const CODES: &[Entry] = &[
    Entry {
        code: "SCH-MISSING",
        source: Jobs,
        title: "the regular jobs are not installed",
        meaning: "Without them nobody looks at the mirror, and nothing is scrubbed.",
        remedy: "`raidguard schedule install`",
    },
    Entry {
        code: "SCH-ALTERED",
        source: Jobs,
        title: "the regular jobs are not as declared",
        meaning: "Their files are not those that raidguard writes for this declaration: another time, another command, another version.",
        remedy: "`raidguard schedule install` writes them anew; the times are in /etc/raidguard/raidguard.toml.",
    },
    Entry {
        code: "SCH-DOUBLE",
        source: Jobs,
        title: "jobs are there that should not be",
        meaning: "Files of the other scheduler, or of a mirror that is no longer declared, would run jobs twice or in vain.",
        remedy: "`raidguard schedule install` takes them away.",
    },
    Entry {
        code: "SCH-IDLE",
        source: Jobs,
        title: "nothing runs the regular jobs",
        meaning: "The files are there, but cron does not run, or a timer is not enabled.",
        remedy: "`systemctl enable --now cron`, or `raidguard schedule install` for timers.",
    },
    Entry {
        code: "SCH-OVERDUE",
        source: Record,
        title: "a regular job did not run when it should have",
        meaning: "The machine was off, the scheduler is stuck, or the job died. A check that you run yourself is no run of the job: \
                  it would hide that nothing else runs.",
        remedy: "`raidguard schedule show`, then run it by hand: `raidguard JOB`.",
    },
    Entry {
        code: "SCH-FAILED",
        source: Record,
        title: "the last run of a regular job failed",
        meaning: "What it should have looked after is not looked after.",
        remedy: "Run it by hand and read what it says: `raidguard JOB`.",
    },
    Entry {
        code: "SCH-DROPIN",
        source: Jobs,
        title: "the node's unit is not tied to the mirror",
        meaning: "Without the drop-in the node is started also when the mirror is not mounted, and without the guard.",
        remedy: "Write it anew: `raidguard schedule install`.",
    },
    Entry {
        code: "SCH-UDEV",
        source: Jobs,
        title: "nothing keeps halves of the mirror apart at a boot",
        meaning: "Where two halves were each written to alone and both are there when the machine starts, the kernel puts them together before \
                  anybody can look: udev can have md add one to the other and copy over what only one of them has, and btrfs and ZFS \
                  take the one with the higher commit, whatever the other has. The node would start on what comes of it. A rule of udev \
                  keeps them apart, of ZFS a drop-in of the unit that imports pools.",
        remedy: "`raidguard schedule install` writes the rule, and the initramfs anew.",
    },
    Entry {
        code: "SCH-DISTRIBUTION",
        source: Jobs,
        title: "the distribution has a job for the same",
        meaning: "Another job scrubs or balances the same filesystem. That does no harm, but it is work done twice.",
        remedy: "Turn one of them off.",
    },
    Entry {
        code: "DEV-FAILING",
        source: Smart,
        title: "a disk says that it is failing",
        meaning: "The disk's own judgement (SMART) is that it may fail at any time.",
        remedy: "Exchange it now, while the other copy is good: `raidguard replace NAME --old DEVID --new NEW-DEVICE`.",
    },
    Entry {
        code: "DEV-SECTORS",
        source: Smart,
        title: "a disk has bad sectors",
        meaning: "Sectors were moved elsewhere, wait for that, or cannot be read, more than were acknowledged. A few may be harmless; a \
                  growing number is not.",
        remedy: "`raidguard scrub NAME`, then `smartctl -a /dev/DISK`. If the number stays: `raidguard check --acknowledge`.",
    },
    Entry {
        code: "DEV-TEMPERATURE",
        source: Smart,
        title: "a disk is too hot",
        meaning: "Disks that run hot die early, and sticks slow down or drop off the bus.",
        remedy: "Give it air. `smartctl -A /dev/DISK` shows the temperature.",
    },
    Entry {
        code: "DEV-WEAR",
        source: Smart,
        title: "a disk is nearly worn out",
        meaning: "Flash cells stand a limited number of writes, and most of this disk's are used up.",
        remedy: "Plan to exchange it: `raidguard replace NAME --old DEVID --new NEW-DEVICE`.",
    },
    Entry {
        code: "DEV-NO-SMARTCTL",
        source: Smart,
        title: "the disks' health cannot be asked",
        meaning: "smartctl is not installed, so a disk that foretells its end is not heard.",
        remedy: "`apt install smartmontools`",
    },
    Entry {
        code: "DEV-NO-SMART",
        source: Smart,
        title: "a disk does not speak of its health",
        meaning: "Many sticks and some USB bridges do not pass such questions on. Its end will come without notice.",
        remedy: "Nothing, for this disk; a scrub is the only way to know.",
    },
    Entry {
        code: "DEV-USB-SLOW",
        source: Disks,
        title: "a member hangs on a slow USB link",
        meaning: "Each commit waits for the slower member.",
        remedy: "Use a USB 3 port and cable.",
    },
    Entry {
        code: "DEV-ERC",
        source: Smart,
        title: "a disk tries longer than the kernel waits",
        meaning: "A turning disk without error recovery control may try to read one sector for minutes. The kernel gives up earlier, resets \
                  the disk, and the member may drop out although it is not dead.",
        remedy: "`smartctl -l scterc,70,70 /dev/DISK` at each start, or, where the disk does not know that: `echo 180 > \
                 /sys/block/DISK/device/timeout`.",
    },
    Entry {
        code: "NTF-FAILED",
        source: Channels,
        title: "a message could not be delivered",
        meaning: "You may not hear of the next fault. Messages by webhook wait and are sent again.",
        remedy: "`raidguard notify --test` tries every channel and says what fails.",
    },
    Entry {
        code: "NTF-SECRETS",
        source: Channels,
        title: "the file of secrets is not safe or not readable",
        meaning: "It holds addresses that whoever knows them can write to; while it is open to others, it is not used.",
        remedy: "`chown root: /etc/raidguard/secrets.toml`, `chmod 0600 /etc/raidguard/secrets.toml`",
    },
    Entry {
        code: "OBS-FAILED",
        source: Storage,
        title: "something could not be read",
        meaning: "raidguard does not know whether all is well, so it does not say so. What was wrong when it could last be read still counts.",
        remedy: "Run `raidguard check` as root. If it fails again, keep its output: it names what could not be read.",
    },
];
