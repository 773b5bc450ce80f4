//! The verbs of the bad day: `recover`, `replace`, `repair`, `drill`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::JsonArgs;

/// How to get the node's files off what is left.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is ever written to a survivor: it is set read-only, and a layer above it takes what a mount would write. The \
    files come to DIR/files, and what can be read of damaged ones to DIR/damaged. DIR/RECOVERY.md says what was found, how new it is, \
    and what to do next; DIR/SHA256SUMS has the hashes.\n\n\
    Exit codes: 0 the newest state came out whole; 4 files came out, and something speaks against starting a node from them \
    (RECOVERY.md says what); 1 failed, and no file is presented; 2 usage; 3 refused, and nothing was changed.\n\n\
    Examples:\n  \
    raidguard recover --degraded --to /root/rescued\n  \
    raidguard recover --degraded --from /dev/sdb --to /mnt/rescued --all\n  \
    raidguard recover --degraded --to /root/rescued --overlay image --yes"
)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct RecoverArgs {
    /// From a mirror that has lost members; said aloud, because a whole mirror needs no rescue
    #[arg(long, required = true)]
    pub degraded: bool,
    /// A survivor [default: every one that is found]; again for each of several
    #[arg(long, value_name = "DEV")]
    pub from: Vec<PathBuf>,
    /// The directory that the files are copied into; new or empty, and not on a survivor
    #[arg(long, value_name = "DIR")]
    pub to: PathBuf,
    /// Copy everything, not only what makes the node: databases with their journals, hsm_secret, emergency.recover, config
    #[arg(long)]
    pub all: bool,
    /// What takes the writes that a survivor must not get
    #[arg(long, value_enum, default_value_t = OverlayArg::Auto)]
    pub overlay: OverlayArg,
    /// Where that layer keeps what it took [default: /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
    /// Where nothing else opens it, take the state before the last fsync too: it may be old, and a node must not start from it
    #[arg(long)]
    pub allow_old: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// How to print the report
    #[command(flatten)]
    pub output: JsonArgs,
}

/// What lies above a survivor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OverlayArg {
    /// The first of these that this machine has
    Auto,
    /// A snapshot of the device-mapper
    Dm,
    /// qemu-storage-daemon with a qcow2 file, by FUSE
    Fuse,
    /// A copy of the survivor
    Image,
}

/// Which member goes, and which device comes.
#[derive(Debug, Args)]
#[command(
    after_help = "The node is stopped meanwhile, and started again, unless --online is given. A mirror that is not mounted because a member \
    is gone is mounted for it. Everything is copied to the new device; then every chunk is brought to the declared level, every copy is \
    read once, and the copies are counted: that is the proof. Interrupted? The same command again goes on from where it stopped.\n\n\
    Exit codes: 0 redundancy is whole; 4 the device is exchanged, and redundancy is not full (`raidguard check` says what is left to \
    do); 1 failed, and the same command goes on; 2 usage; 3 refused, and nothing was changed.\n\n\
    Examples:\n  \
    raidguard replace --new /dev/sdc --dry-run\n  \
    raidguard replace lightning --old missing --new /dev/sdc\n  \
    raidguard replace lightning --old /dev/sdb --new /dev/sdc --online"
)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ReplaceArgs {
    /// The mirror's name; not needed where there is only one
    pub name: Option<String>,
    /// The member that goes: a device, its number, or `missing` [default: the one that is missing]
    #[arg(long, value_name = "DEV|DEVID|missing")]
    pub old: Option<String>,
    /// The device that takes its place; what is on it is erased
    #[arg(long, value_name = "DEV")]
    pub new: PathBuf,
    /// Leave the node running meanwhile
    #[arg(long)]
    pub online: bool,
    /// Erase what is on the new device
    #[arg(long)]
    pub wipe: bool,
    /// Take a new device on the same physical disk or USB bridge as another member: no redundancy against its failure
    #[arg(long)]
    pub allow_same_disk: bool,
    /// Print the plan and the exact commands, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// What to put right.
#[derive(Debug, Args)]
#[command(
    after_help = "Brings back a member that was away, restores the declared level where something is kept at less, mends what rotted, and \
    names the files that cannot be mended. Where there is nothing to do it says so. Interrupted? The same command again goes on from \
    where it stopped.\n\n\
    Exit codes: 0 redundancy is whole; 4 it is not full (`raidguard check` says what is left to do); 1 failed, or files are damaged \
    beyond repair, and are named; 2 usage; 3 refused, and nothing was changed.\n\nExamples:\n  raidguard repair --dry-run\n  \
    raidguard repair lightning --yes\n  raidguard repair lightning --discard /dev/disk/by-id/usb-Example_E1234"
)]
pub struct RepairArgs {
    /// The mirror's name; not needed where there is only one
    pub name: Option<String>,
    /// Two halves that were each written alone: the device whose state is given up, which is then erased
    #[arg(long, value_name = "DEV")]
    pub discard: Option<PathBuf>,
    /// Print what would be done, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// How to print the report
    #[command(flatten)]
    pub output: JsonArgs,
}

/// How to rehearse.
#[derive(Debug, Args)]
#[command(
    after_help = "A node is made up and moved onto a mirror, a disk is pulled, the power fails, the files come out, and a new disk is put in. \
    Everything happens on loop devices over files that are thrown away; no mirror, node or file of this machine is touched. The mirror's \
    name, its level and the kind of node are those of /etc/raidguard/raidguard.toml, where there is one; an array of md or a pool of ZFS is rehearsed \
    with btrfs. What a drill that was killed has left, the next one clears.\n\n\
    Exit codes: 0 every step held; 1 one did not, or it was stopped; 2 usage; 3 refused, and nothing was changed.\n\nExamples:\n  raidguard drill\n  raidguard drill --step\n  raidguard drill --scratch /mnt/usb"
)]
pub struct DrillArgs {
    /// Wait for a key before each step
    #[arg(long)]
    pub step: bool,
    /// Where the throw-away disks are kept meanwhile; 4 GiB must be free there
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub scratch: PathBuf,
    /// How to print the scorecard
    #[command(flatten)]
    pub output: JsonArgs,
}
