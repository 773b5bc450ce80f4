//! What was typed. The types here are the command line's contract; `run` turns each into a request and hands it to its verb.

mod adopt;
mod later;
mod man;
mod rescue;
mod run;
mod setup;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use adopt::AdoptArgs;
pub use later::Later;
pub use rescue::{DrillArgs, OverlayArg, RecoverArgs, RepairArgs, ReplaceArgs};
pub use run::run;
pub use setup::{LevelArg, OriginalArg, SchedulerArg, SetupArgs};

/// Keeps a Lightning node's channel database on a RAID-1 mirror, and keeps the mirror honest.
#[derive(Debug, Parser)]
#[command(
    name = "raidguard",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// Say more on standard error: -v every changing command, -vv also the probes
    #[arg(short, long, global = true, display_order = 900, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 refused and nothing changed, 4 done, redundancy not full.
`check` alone: 0 ok, 1 warning, 2 critical, 3 unknown.";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Every block device, usable or refused, and why
    #[command(after_help = "Examples:\n  raidguard devices\n  raidguard devices --json")]
    Devices(Later<JsonArgs>),
    /// Make a mirror of two or more devices and move the node's directory onto it
    Setup(Later<SetupArgs>),
    /// Take a mirror that is there already into care, changing nothing on it
    Adopt(Later<AdoptArgs>),
    /// The picture: mirror, members, data, space, jobs
    #[command(after_help = "Examples:\n  raidguard status\n  raidguard status --json")]
    Status(Later<JsonArgs>),
    /// Is the redundancy real? By the exit code too: 0 ok, 1 warning, 2 critical, 3 unknown
    #[command(
        after_help = "Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown.\n\nExamples:\n  raidguard check\n  raidguard check --deep\n  raidguard check --format json\n  raidguard check --format \
        prometheus \\\n      --output /var/lib/prometheus/node-exporter/raidguard.prom"
    )]
    Check(Later<CheckArgs>),
    /// What a finding means and how to mend it
    #[command(after_help = "Examples:\n  raidguard explain MIR-PULLED\n  raidguard explain")]
    Explain(Later<ExplainArgs>),
    /// Read every copy of everything and mend what rotted; the schedule runs it on Sundays
    #[command(after_help = "Examples:\n  raidguard scrub\n  raidguard scrub lightning")]
    Scrub(Later<MirrorArgs>),
    /// Give half-empty chunks back, so that space does not run out; the schedule runs it at midnight
    #[command(after_help = "Examples:\n  raidguard balance\n  raidguard balance lightning")]
    Balance(Later<MirrorArgs>),
    /// The regular jobs: check, balance, scrub
    #[command(after_help = "Examples:\n  raidguard schedule show\n  raidguard schedule install")]
    Schedule(Later<ScheduleArgs>),
    /// Get the node's files off what is left of a mirror; nothing is written to it
    Recover(Later<RecoverArgs>),
    /// Exchange a member, and prove afterwards that the redundancy is back
    Replace(Later<ReplaceArgs>),
    /// Bring back a member that was away, restore the level, mend what rotted
    Repair(Later<RepairArgs>),
    /// Rehearse the bad day, from setup to a new disk, on throw-away loop devices
    Drill(Later<DrillArgs>),
    /// May the node start? Exit code 0 yes, 3 no; what the node's unit asks before each start
    #[command(
        after_help = "Refuses when the mirror is not mounted, the directory is not on it, the database or the secret is missing, older than \
        it was or another node's, or when another node works on them. A missing member is no reason.\n\n\
        Exit codes: 0 the node may start; 3 it may not, and every reason is named; 1 that cannot be told, so it does not start; 2 \
        usage.\n\nExamples:\n  raidguard guard\n  \
        raidguard guard lightning --override \"restored on purpose\""
    )]
    Guard(Later<GuardArgs>),
    /// Were this half of a mirror and another each written to alone? What udev asks before the kernel gets it
    #[command(
        hide = true,
        after_help = "Says `apart` if so, and nothing else. The rule that asks is /etc/udev/rules.d/62-raidguard-NAME.rules. Of a pool of ZFS it is \
        asked before pools are imported, and what it says is in /run/raidguard/apart/NAME too.\n\n\
        Exit codes: 0 it is told; 1 it cannot be told, so the kernel gets the device; 2 usage.\n\nExample:\n  raidguard apart /dev/sdb"
    )]
    Apart(Later<ApartArgs>),
    /// Try every channel by which you are told
    #[command(
        after_help = "Channels are in [notify] of /etc/raidguard/raidguard.toml (mail, command, heartbeat_file) and in \
        /etc/raidguard/secrets.toml (webhook, webhook_token, heartbeat).\n\nExamples:\n  raidguard notify --test\n  raidguard notify \
        --test --json"
    )]
    Notify(Later<NotifyArgs>),
    /// Take the node off the mirror: newest data copied back and verified, everything setup added removed
    #[command(
        after_help = "The mirror itself is left as it is; what is on it is old state from then on.\n\nExamples:\n  \
        raidguard release --dry-run\n  raidguard release --yes\n  raidguard release --resume"
    )]
    Release(Later<ReleaseArgs>),
    /// Completions for a shell, on standard output
    #[command(
        after_help = "Example:\n  raidguard completions bash \\\n      > /usr/share/bash-completion/completions/raidguard"
    )]
    Completions(Later<CompletionsArgs>),
    /// The manual page, on standard output; or all of them, into a directory
    #[command(
        after_help = "Examples:\n  raidguard man | man -l -\n  raidguard man --dir /usr/local/share/man/man8"
    )]
    Man(Later<ManArgs>),
}

/// Output for programs.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON (schema 1) instead of text
    #[arg(long)]
    pub json: bool,
}

/// One of the declared mirrors.
#[derive(Debug, Args)]
pub struct MirrorArgs {
    /// The mirror's name; not needed where there is only one
    pub name: Option<String>,
    /// How to print the report
    #[command(flatten)]
    pub output: JsonArgs,
}

/// What to explain.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The finding's code; every code where none is given
    pub code: Option<String>,
}

/// Which node asks whether it may start.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// The mirror's name; not needed where there is only one
    pub name: Option<String>,
    /// Allow what stands against a start now; recorded, and shown by status until the guard passes by itself
    #[arg(long = "override", value_name = "REASON")]
    pub reason: Option<String>,
}

/// Which half is asked about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ApartArgs {
    /// The device that has come
    pub device: Option<PathBuf>,
    /// The declared mirror whose pool is to be imported
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
}

/// For whom completions are.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Where the manual pages go.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write one page a verb into this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// What to do with the channels.
#[derive(Debug, Args)]
pub struct NotifyArgs {
    /// Send a test message by each of them, now
    #[arg(long, required = true)]
    pub test: bool,
    /// How to print the answer
    #[command(flatten)]
    pub output: JsonArgs,
}

/// How `check` answers.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct CheckArgs {
    /// Who reads it
    #[arg(long, value_enum, default_value_t = CheckFormat::Human)]
    pub format: CheckFormat,
    /// Write the answer to this file, at once and whole, instead of standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Have SQLite check the databases too, on a snapshot; the running node does not notice
    #[arg(long)]
    pub deep: bool,
    /// Tell of changes by the channels of raidguard.toml; what the schedule does
    #[arg(long)]
    pub notify: bool,
    /// Afterwards run the jobs that were missed while the machine was off; what cron's check does
    #[arg(long)]
    pub catch_up: bool,
    /// Take what is counted now (errors, bad sectors, mended blocks; with --deep, the databases) as known
    #[arg(long)]
    pub acknowledge: bool,
    /// Write all that was seen to this file, as JSON: for a bug report
    #[arg(long, value_name = "FILE")]
    pub dump_observed: Option<PathBuf>,
}

/// Who reads what `check` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// A person
    Human,
    /// A program (schema 1)
    Json,
    /// Nagios and its kin: one line with performance data
    Nagios,
    /// Prometheus, by node_exporter's textfile collector
    Prometheus,
}

/// What to do with the regular jobs.
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// What to do with them
    #[command(subcommand)]
    pub action: ScheduleVerb,
}

/// The same, by its name.
#[derive(Debug, Subcommand)]
pub enum ScheduleVerb {
    /// Write the jobs for every declared mirror, by cron or systemd as it was declared
    #[command(after_help = "Example:\n  raidguard schedule install")]
    Install,
    /// The jobs and their next runs
    #[command(after_help = "Examples:\n  raidguard schedule show\n  raidguard schedule show --json")]
    Show(Later<JsonArgs>),
    /// Take the jobs away
    #[command(after_help = "Example:\n  raidguard schedule remove")]
    Remove,
}

/// How to take the node off the mirror.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ReleaseArgs {
    /// The mirror's name; not needed where there is only one
    pub name: Option<String>,
    /// Print the plan and the exact commands, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Go on with a release that was interrupted
    #[arg(long, conflicts_with_all = ["rollback", "dry_run"])]
    pub resume: bool,
    /// Put back what an interrupted release changed
    #[arg(long, conflicts_with = "dry_run")]
    pub rollback: bool,
}

/// Where a directory is not named, the one in `$LIGHTNINGDIR`, else `~/.lightning`.
fn default_directory() -> Option<PathBuf> {
    std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".lightning"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// With the flags of every verb.
    fn command() -> clap::Command {
        let mut command = Cli::command();
        command.build();
        command
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_says_what_it_is_for() {
        fn visit(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&command());
    }

    #[test]
    fn the_flags_of_other_verbs_are_not_described() {
        let verb =
            |command: clap::Command, name| command.find_subcommand(name).unwrap().get_arguments().count();
        assert_eq!(verb(Cli::command(), "setup"), 0);
        assert!(verb(command(), "setup") > 10);
    }
}
