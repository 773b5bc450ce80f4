//! What mends a fault of a mirror of one kind where that is not what helps with the others.

use crate::model::BackendKind::{self, Mdadm, Zfs};

/// The code, the kinds, and what to do with them.
pub(super) const REMEDIES: &[(&str, &[BackendKind], &str)] = &[
    (
        "MIR-SUPERBLOCK",
        &[Zfs],
        "ZFS writes four labels, of which one is enough, and writes all of them anew at an import: with the node stopped, `zpool export POOL` \
         and `zpool import -d /dev/disk/by-partuuid POOL`. If it comes again, exchange the member: `raidguard replace NAME --old DEVID --new \
         NEW-DEVICE`.",
    ),
    (
        "MIR-PROFILE",
        &[Mdadm],
        "`mdadm --detail` with the array's device shows its level. If it was changed on purpose, write it into /etc/raidguard/raidguard.toml; \
         otherwise make a new mirror on other devices with `raidguard setup`, after `raidguard release NAME`.",
    ),
    (
        "MIR-PROFILE",
        &[Zfs],
        "`zpool status POOL` shows the vdevs. One that was added by mistake (`zpool add`) can be taken out again where all of them are mirrors \
         or single devices: `zpool remove POOL VDEV`. A single device is made a mirror by `zpool attach`. A raidz stays as it is: make a new \
         mirror on other devices with `raidguard setup`, after `raidguard release NAME`.",
    ),
    (
        "MIR-READONLY",
        &[Zfs],
        "Stop the node and read the reason with `dmesg` and `zpool status POOL`. Then `zpool export POOL`, `zpool import -d \
         /dev/disk/by-partuuid POOL`, `raidguard scrub NAME`. Where the pool can be written to: `zfs set readonly=off POOL`.",
    ),
    (
        "MIR-STALE",
        &[Zfs],
        "Do not start the node yet, and import nothing: ZFS takes the newer state without a word, and what only the other one holds is lost. \
         `raidguard repair NAME` brings the member up to date where it was only away; where both were written to apart, it shows both and \
         merges nothing.",
    ),
    (
        "MIR-FOREIGN",
        &[Mdadm],
        "Where it serves in the place of a declared member: `raidguard repair NAME` declares it. Where the array was given further members on \
         purpose, write them into /etc/raidguard/raidguard.toml; `raidguard status NAME --json` shows their numbers, UUIDs and sizes.",
    ),
    ("MIR-CLONE", &[Zfs], "Unplug the copy now, without importing anything; then `raidguard scrub NAME`."),
    (
        "MIR-REPLACING",
        &[Zfs],
        "Wait; `raidguard status NAME` shows how far it is. Where `raidguard replace` was interrupted, the same command goes on. Where a spare \
         stands in: `raidguard replace NAME --new NEW-DEVICE`.",
    ),
    ("SCR-RUNNING", &[Mdadm, Zfs], "Nothing; `raidguard status NAME` shows how far it is."),
    ("SCR-ABORTED", &[Zfs], "`raidguard scrub NAME`; one that is paused goes on where it was."),
    (
        "SCR-CORRECTED",
        &[Mdadm],
        "Look at the members and their cables. When that is settled: `raidguard check --acknowledge`.",
    ),
    (
        "SCR-CORRECTED",
        &[Zfs],
        "Look at the member whose counters grew (`zpool status POOL`) and its cable. When that is settled: `raidguard check --acknowledge`.",
    ),
    ("SPC-FREE", &[Mdadm, Zfs], "Make room: `du -x -h --max-depth=2 MOUNTPOINT | sort -h | tail`."),
    (
        "MNT-FSTAB",
        &[Mdadm],
        "Add this line to /etc/fstab, with the filesystem's own type: `UUID=FSUUID MOUNTPOINT xfs \
         defaults,nofail,x-systemd.device-timeout=90s 0 0`.",
    ),
    (
        "MNT-ABSENT",
        &[Zfs],
        "Do not start the node. Where the pool is imported (`zpool list POOL`): `zfs mount -a`, and read what it says; where it is not: \
         `raidguard repair NAME`.",
    ),
    ("MNT-OTHER", &[Zfs], "Stop the node, `umount MOUNTPOINT`, `zfs mount -a`."),
    (
        "MNT-FSTAB-OTHER",
        &[Zfs],
        "Remove the line for MOUNTPOINT from /etc/fstab: ZFS mounts the pool there by its own property, and no line is right beside it.",
    ),
    ("SCH-UDEV", &[Zfs], "`raidguard schedule install` writes the drop-in of zfs-import-cache.service."),
    (
        "SCH-DISTRIBUTION",
        &[Zfs],
        "Turn one of them off: `zfs set org.debian:periodic-scrub=disable POOL` keeps Debian's monthly job from this pool, `systemctl disable` \
         with the timer's name a timer.",
    ),
];
