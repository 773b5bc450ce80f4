//! `raidguard adopt`.

use std::path::PathBuf;

use clap::Args;

use super::SchedulerArg;

const HELP: &str = "\
The mirror is looked at and declared in /etc/raidguard/raidguard.toml, and its jobs are installed. Nothing on it is changed, and the \
node goes on running; its unit is told not to start without the mirror.

Examples:
  raidguard adopt /srv/lightning --dry-run
  raidguard adopt /mnt/raid --lightning-dir /home/bitcoin/.lightning
  raidguard adopt /mnt/raid --no-node --scheduler none";

/// What `adopt` was asked for.
#[derive(Debug, Args)]
#[command(
    after_help = HELP,
    override_usage = "raidguard adopt MOUNTPOINT [OPTIONS]\n       raidguard adopt --resume | --rollback"
)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct AdoptArgs {
    /// Where the mirror is mounted
    #[arg(required_unless_present_any = ["resume", "rollback"])]
    pub mountpoint: Option<PathBuf>,
    /// What it is to be called
    #[arg(long, default_value = "lightning")]
    pub name: String,
    /// The node's directory, which leads to the mirror [default: ~/.lightning, if it does]
    #[arg(long, value_name = "DIR", env = "LIGHTNINGDIR", hide_env_values = true)]
    pub lightning_dir: Option<PathBuf>,
    /// The node's systemd unit, where it is not the one that runs it now
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["node_stop", "node_start", "no_node"])]
    pub node_unit: Option<String>,
    /// The command that stops the node, where no unit does (split at blanks, quotes respected, no shell). It is run as root and without
    /// HOME, so name the user and the directory: runuser -u bitcoin -- lightning-cli --lightning-dir=/home/bitcoin/.lightning stop
    #[arg(long, value_name = "CMD", requires = "node_start", conflicts_with = "no_node")]
    pub node_stop: Option<String>,
    /// The command that starts the node, and returns: runuser -u bitcoin -- lightningd --lightning-dir=/home/bitcoin/.lightning --daemon
    #[arg(long, value_name = "CMD", requires = "node_stop", conflicts_with = "no_node")]
    pub node_start: Option<String>,
    /// No node lives on it
    #[arg(long)]
    pub no_node: bool,
    /// What runs the regular jobs
    #[arg(long, value_enum, default_value_t = SchedulerArg::Auto)]
    pub scheduler: SchedulerArg,
    /// Print the plan and the exact commands, and change nothing
    #[arg(long, conflicts_with_all = ["resume", "rollback"])]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Go on with an adoption that was interrupted
    #[arg(long, conflicts_with = "rollback")]
    pub resume: bool,
    /// Put back what an interrupted adoption changed
    #[arg(long)]
    pub rollback: bool,
}
