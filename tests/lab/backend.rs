//! What the cases have to know of a backend: everything else they ask of each in the same words.

use crate::{machine::Machine, steps::MOUNT};

pub(crate) struct Backend {
    pub(crate) name: &'static str,
    /// The level, with a third member, the SCSI disk `extra`; nothing: what `setup` makes of two.
    pub(crate) level: Option<&'static str>,
    /// What the node's files lie on, as findmnt calls it.
    pub(crate) filesystem: &'static str,
    /// How large the disks are, in bytes. md copies and compares all of them, used or not, which takes minutes here: they are as small as
    /// raidguard takes them. A scrub of btrfs has those who write meanwhile begin new chunks, so there is room for some.
    pub(crate) size: u64,
    /// The finding of a member that was pulled while the mirror is mounted.
    pub(crate) pulled: &'static str,
    /// The same when the backend itself has noticed by then.
    pub(crate) noticed: &'static str,
    /// A boot without a member mounts the mirror all the same.
    pub(crate) boots_degraded: bool,
    /// The finding of a member that takes no more writes.
    pub(crate) takes_no_writes: &'static str,
    /// The finding of a member of which sectors cannot be read.
    pub(crate) unreadable: &'static str,
    /// What a check ends with then: whether another member has what this one lacks.
    pub(crate) unreadable_is: i64,
    /// Of a member of which sectors cannot be read, the scrub makes one that is as good as any.
    pub(crate) scrub_mends: bool,
    /// What keeps halves of it apart at a boot.
    pub(crate) rule: &'static str,
    /// Mounts it at its place, where starting the node does not.
    pub(crate) mount: &'static str,
    /// How many jobs the schedule has.
    pub(crate) jobs: usize,
    /// Mounts what this one member alone has, to be written to.
    pub(crate) mount_alone: fn(&mut Machine, device: &str),
    /// Has the kernel let go of the members, when nothing is mounted.
    pub(crate) let_go: fn(&mut Machine),
    /// Keeps udev from starting by itself, after a while, what a member is missing from.
    pub(crate) halt: fn(&mut Machine),
    /// Has what can be read from either of two members be read from this one, or again from any.
    pub(crate) read_from: fn(&mut Machine, Option<&str>),
    /// Has everything that was written be where it stays.
    pub(crate) sync: &'static str,
    /// Has what is written lie on the disks as it is.
    pub(crate) plain: fn(&mut Machine),
    /// Has the kernel take its time for what it copies, or no longer.
    pub(crate) fills_slowly: fn(&mut Machine, bool),
    /// Says whether a member is being filled.
    pub(crate) is_filling: &'static str,
    /// Waits until what the kernel does by itself to make the members equal has ended.
    pub(crate) settle: fn(&mut Machine),
}

/// The third member, where there is one.
pub(crate) const EXTRA: &str = "extra";

impl Backend {
    /// What it is called where each needs a name of its own.
    pub(crate) fn title(&self) -> &'static str {
        self.level.unwrap_or(self.name)
    }

    /// This member, and what it has everything together with.
    pub(crate) fn enough<T>(&self, member: T, extra: impl FnOnce() -> T) -> Vec<T> {
        let mut members = vec![member];
        members.extend(self.level.map(|_| extra()));
        members
    }
}

const SYNC: &str = "sync -f /srv/lightning";
const RULE: &str = "/etc/udev/rules.d/62-raidguard-lightning.rules";

pub(crate) const BTRFS: Backend = Backend {
    name: "btrfs",
    level: None,
    filesystem: "btrfs",
    size: 4 << 30,
    pulled: "MIR-PULLED",
    noticed: "MIR-PULLED",
    boots_degraded: false,
    takes_no_writes: "MIR-WRITE-ERRORS",
    unreadable: "MIR-READ-ERRORS",
    unreadable_is: 1,
    scrub_mends: true,
    rule: RULE,
    mount: "true",
    jobs: 4,
    mount_alone: |m, device| {
        m.ok(&format!("mount -o degraded {device} {MOUNT}"));
    },
    let_go: |m| {
        m.ok("btrfs device scan --forget");
    },
    halt: |_| {},
    // By the number of the process that reads; the scrub reads both.
    read_from: |_, _| {},
    sync: SYNC,
    plain: |_| {},
    // `working.rs` has what btrfs needs for that.
    fills_slowly: |_, _| {},
    is_filling: "grep -q 'device replace' /sys/fs/btrfs/*/exclusive_operation",
    settle: |_| {},
};

pub(crate) const MDADM: Backend = Backend {
    name: "mdadm",
    level: None,
    filesystem: "xfs",
    size: 1 << 30,
    // udev has taken it out of the array.
    pulled: "MIR-MISSING",
    noticed: "MIR-MISSING",
    boots_degraded: true,
    // The kernel gives it up.
    takes_no_writes: "MIR-MISSING",
    unreadable: "MIR-BAD-BLOCKS",
    unreadable_is: 2,
    scrub_mends: false,
    rule: RULE,
    mount: "true",
    jobs: 3,
    mount_alone: |m, device| {
        // udev may have put it into an array that it does not start.
        m.ok(&format!(
            "set -e; array=$(ls /sys/class/block/$(basename $(readlink -f {device}))/holders)
            if [ \"$array\" ]; then mdadm --run /dev/$array; else mdadm --assemble --run /dev/md/lightning {device}; fi
            udevadm settle; mount {MOUNT}"
        ));
    },
    let_go: |m| {
        m.ok("udevadm settle; systemctl stop 'mdadm-last-resort@*.timer'; mdadm --stop --scan");
        assert_eq!(m.ok("ls -d /sys/block/md* || true"), "", "an array is there");
    },
    halt: |m| {
        m.ok("systemctl stop 'mdadm-last-resort@*.timer'");
    },
    read_from: |m, device| {
        // Those that are written to mostly are read from only where no other can be.
        let device = device.unwrap_or_default();
        m.ok(&format!(
            "for member in /sys/block/md*/md/dev-*; do
                word=-writemostly
                if [ '{device}' ] && [ ${{member##*/dev-}} != \"$(basename \"$(readlink -f '{device}')\")\" ]; then word=writemostly; fi
                echo $word >$member/state
            done"
        ));
    },
    sync: SYNC,
    plain: |_| {},
    fills_slowly: crate::busy::slowly,
    is_filling: "grep -q recover /sys/block/md*/md/sync_action",
    settle: |m| {
        m.ok("until grep -q idle /sys/block/md*/md/sync_action; do sleep 0.5; done");
    },
};

pub(crate) const ZFS: Backend = Backend {
    name: "zfs",
    level: None,
    filesystem: "zfs",
    size: 2 << 30,
    // Of a partition ZFS learns that it is gone when it writes to it.
    pulled: "MIR-PULLED",
    noticed: "MIR-MISSING",
    boots_degraded: true,
    takes_no_writes: "MIR-WRITE-ERRORS",
    unreadable: "MIR-READ-ERRORS",
    unreadable_is: 1,
    scrub_mends: true,
    rule: "/etc/systemd/system/zfs-import-cache.service.d/raidguard-lightning.conf",
    mount: "zfs mount lightning",
    jobs: 3,
    mount_alone: |m, device| {
        m.ok(&format!("zpool import -d $(readlink -f {device}-part1) lightning"));
    },
    let_go: |m| {
        // As after a power cut, the next boot knows it.
        m.ok("cp /etc/zfs/zpool.cache /root/; zpool export -a; mv /root/zpool.cache /etc/zfs/; sync -f /etc/zfs");
    },
    halt: |_| {},
    // By which is less busy.
    read_from: |_, _| {},
    // What syncfs(2) sees to is in the intent log.
    sync: "zpool sync lightning",
    plain: |m| {
        m.ok("zfs set compression=off lightning");
    },
    fills_slowly: |m, slowly| {
        m.ok(&format!("echo {} >/sys/module/zfs/parameters/zfs_scan_suspend_progress", u8::from(slowly)));
    },
    is_filling: "zpool status lightning | grep -q 'resilver in progress'",
    settle: |m| {
        m.ok("zpool wait -t resilver,scrub lightning");
    },
};

/// Any two of three have everything.
pub(crate) const RAIDZ1: Backend = Backend { level: Some("raidz1"), ..ZFS };
