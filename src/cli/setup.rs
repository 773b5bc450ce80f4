//! `raidguard setup`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::model::Bytes;

const HELP: &str = "\
Shows the plan, with all that would be erased, and asks for a typed `yes`. The node is stopped, its directory is copied, read back and \
compared, and a symlink takes the directory's place; then the node is started on the mirror. Until then --rollback puts everything \
back; afterwards `raidguard release` takes the node off again.

Examples:
  # which devices are there, and which can serve
  raidguard devices
  # the plan and its exact commands; nothing is changed
  raidguard setup --hdd /dev/sdb --usb /dev/sdc --dry-run
  # asks before anything is erased
  raidguard setup --hdd /dev/sdb --usb /dev/sdc
  # the kernel's software RAID in the place of btrfs
  raidguard setup --hdd /dev/sdb --usb /dev/sdc --backend mdadm
  # new partitions in the free space of both disks
  raidguard setup --hdd /dev/sda --usb /dev/sdb --size 64G
  # after an interruption: go on, or put everything back
  raidguard setup --resume
  raidguard setup --rollback";

/// What `setup` was asked for.
#[derive(Debug, Args)]
#[command(
    after_help = HELP,
    override_usage = "raidguard setup --hdd DEV --usb DEV [OPTIONS]\n       raidguard setup --resume | --rollback"
)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct SetupArgs {
    /// The disk or partition inside the machine
    #[arg(long, value_name = "DEV", required_unless_present_any = ["resume", "rollback"])]
    pub hdd: Option<PathBuf>,
    /// The USB disk, or its partition
    #[arg(long, value_name = "DEV", required_unless_present_any = ["resume", "rollback"])]
    pub usb: Option<PathBuf>,
    /// A further device, for levels that need more than two
    #[arg(long = "device", value_name = "DEV")]
    pub devices: Vec<PathBuf>,
    /// What holds the mirror
    #[arg(long, value_enum, default_value_t = BackendArg::Btrfs)]
    pub backend: BackendArg,
    /// The filesystem on a mirror of mdadm [default: xfs]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub filesystem: Option<FilesystemArg>,
    /// How many copies: raid1 two (mdadm: one on each of two to four devices), raid1c3 three, raid1c4 four; raid10 two, striped over four
    /// devices (btrfs: at least four). Of zfs: mirror has one on each of two to four devices, raidz1 (from three) and raidz2 (from four)
    /// parity for one and two [default: raid1, of zfs mirror]
    #[arg(long, value_enum)]
    pub level: Option<LevelArg>,
    /// The mirror's name
    #[arg(long, default_value = "lightning")]
    pub name: String,
    /// Where to mount it [default: /srv/NAME]
    #[arg(long, value_name = "DIR")]
    pub mountpoint: Option<PathBuf>,
    /// The node's directory [default: ~/.lightning]
    #[arg(long, value_name = "DIR", env = "LIGHTNINGDIR", hide_env_values = true)]
    pub lightning_dir: Option<PathBuf>,
    /// Give the copy to this user and its group, instead of keeping each file's owner
    #[arg(long)]
    pub user: Option<String>,
    /// The node's systemd unit, where it is not lightningd.service or clightning.service
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["node_stop", "node_start", "no_node"])]
    pub node_unit: Option<String>,
    /// The command that stops the node, where no unit does (split at blanks, quotes respected, no shell). It is run as root and without
    /// HOME, so name the user and the directory: runuser -u bitcoin -- lightning-cli --lightning-dir=/home/bitcoin/.lightning stop
    #[arg(long, value_name = "CMD", requires = "node_start", conflicts_with = "no_node")]
    pub node_stop: Option<String>,
    /// The command that starts the node, and returns: runuser -u bitcoin -- lightningd --lightning-dir=/home/bitcoin/.lightning --daemon
    #[arg(long, value_name = "CMD", requires = "node_stop", conflicts_with = "no_node")]
    pub node_start: Option<String>,
    /// How long the node may take to stop
    #[arg(long, value_name = "SECONDS", default_value_t = crate::node::PATIENCE, conflicts_with = "no_node")]
    pub node_timeout: u64,
    /// No node is to be stopped or started; refused all the same when one is found running
    #[arg(long)]
    pub no_node: bool,
    /// What runs the regular jobs
    #[arg(long, value_enum, default_value_t = SchedulerArg::Auto)]
    pub scheduler: SchedulerArg,
    /// Make a new GPT partition of this size on each disk named, in its free space, and use that: 64G, 512GiB
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Bytes>,
    /// What becomes of the original directory after the node runs on the mirror
    #[arg(long, value_enum, default_value_t = OriginalArg::Keep)]
    pub original: OriginalArg,
    /// Erase what is found on the devices
    #[arg(long)]
    pub wipe: bool,
    /// Take two members on one disk or bridge, which is no redundancy
    #[arg(long)]
    pub allow_same_disk: bool,
    /// Print the plan and the exact commands, and change nothing
    #[arg(long, conflicts_with_all = ["resume", "rollback"])]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Go on with a setup that was interrupted
    #[arg(long, conflicts_with = "rollback")]
    pub resume: bool,
    /// Put back what an interrupted setup changed
    #[arg(long)]
    pub rollback: bool,
}

/// Backends that this version can set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackendArg {
    /// A filesystem with checksums that mirrors by itself
    Btrfs,
    /// The kernel's software RAID (md), with XFS or ext4 on it
    Mdadm,
    /// A pool, which is a filesystem with checksums and mirrors by itself
    Zfs,
}

/// Filesystems on a mirror that is none itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FilesystemArg {
    /// Copies a file by sharing its blocks: the databases are checked at little cost
    Xfs,
    /// The most widely used one
    Ext4,
}

/// Levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LevelArg {
    /// Two copies
    Raid1,
    /// Two copies, striped
    Raid10,
    /// Three copies
    Raid1c3,
    /// Four copies
    Raid1c4,
    /// ZFS: a copy on every device
    Mirror,
    /// ZFS: parity for the loss of one device
    Raidz1,
    /// ZFS: parity for the loss of two devices
    Raidz2,
}

/// Schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchedulerArg {
    /// systemd where it runs, else cron
    Auto,
    /// /etc/cron.d/raidguard
    Cron,
    /// systemd timers
    Systemd,
    /// No jobs: somebody else sees to it
    None,
}

/// The original's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OriginalArg {
    /// Kept beside, readable by root only, with a note never to start a node from it
    Keep,
    /// Removed
    Remove,
}
