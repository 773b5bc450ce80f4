//! From the parsed command line to the verb.

use clap::CommandFactory as _;

use super::{
    AdoptArgs, CheckArgs, CheckFormat, Cli, DrillArgs, OverlayArg, RecoverArgs, RepairArgs, ReplaceArgs,
    ScheduleVerb, Verb, man,
    setup::{BackendArg, FilesystemArg, LevelArg, OriginalArg, SchedulerArg, SetupArgs},
};
use crate::{
    host::{Host, overlay::Choice},
    model::{BackendKind, FilesystemKind, Level, Scheduler, node::unit_name},
    node,
    ops::{
        self, Exit, Trouble,
        check::{Format, Options},
        execute::{Direction, take_up},
        setup::{Manner, NodeChoice, Request, SchedulerChoice},
    },
    ui::Console,
};

/// Runs a verb to its exit code.
///
/// # Errors
/// The verb was refused or failed; the caller says how.
pub fn run(verb: Verb, host: &Host, console: &mut Console) -> Result<u8, Trouble> {
    let exit = match verb {
        Verb::Devices(args) => ops::devices::devices(host, args.json, console)?,
        Verb::Setup(args) => setup(args.take(), host, console)?,
        Verb::Adopt(args) => adopt(args.take(), host, console)?,
        Verb::Status(args) => ops::status(host, args.json, console).map(|()| Exit::Done)?,
        Verb::Check(args) => return ops::check(host, &check(args.take()), console),
        Verb::Guard(args) => ops::guard(host, args.name.as_deref(), args.reason.as_deref(), console)?,
        Verb::Apart(args) => match (&args.device, &args.pool) {
            (Some(device), _) => ops::apart(host, device, console)?,
            (None, pool) => ops::pool_apart(host, pool.as_deref().unwrap_or_default(), console)?,
        },
        Verb::Explain(args) => ops::explain(args.code.as_deref(), console)?,
        Verb::Scrub(args) => ops::scrub(host, args.name.as_deref(), args.output.json, console)?,
        Verb::Balance(args) => ops::balance(host, args.name.as_deref(), args.output.json, console)?,
        Verb::Schedule(args) => match args.take().action {
            ScheduleVerb::Install => ops::schedule::install(host, console)?,
            ScheduleVerb::Show(args) => ops::schedule::show(host, args.json, console)?,
            ScheduleVerb::Remove => ops::schedule::remove(host, console)?,
        },
        Verb::Recover(args) => ops::recover::recover(host, &recover(args.take()), console)?,
        Verb::Replace(args) => {
            let manner = Manner { dry_run: args.dry_run, yes: args.yes };
            ops::replace::replace(host, &replace(args.take()), manner, console)?
        }
        Verb::Repair(args) => {
            let manner = Manner { dry_run: args.dry_run, yes: args.yes };
            let RepairArgs { name, discard, output, .. } = args.take();
            let request = ops::repair::Request { name, discard, json: output.json };
            ops::repair::repair(host, &request, manner, console)?
        }
        Verb::Drill(args) => {
            let DrillArgs { step, scratch, output } = args.take();
            let request = ops::drill::Request { step, scratch, json: output.json };
            ops::drill::drill(host, &request, console)?
        }
        Verb::Notify(args) => ops::notify_test(host, args.output.json, console)?,
        Verb::Release(args) => match (args.resume, args.rollback) {
            (true, _) => take_up(host, "release", Direction::Forward, console)?,
            (_, true) => take_up(host, "release", Direction::Back, console)?,
            _ => {
                let manner = Manner { dry_run: args.dry_run, yes: args.yes };
                ops::release::release(host, args.name.as_deref(), manner, console)?
            }
        },
        Verb::Completions(args) => {
            let mut out = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "raidguard", &mut out);
            console.data(String::from_utf8_lossy(&out));
            Exit::Done
        }
        Verb::Man(args) => man::man(args.dir.as_deref(), console)?,
    };
    Ok(exit as u8)
}

fn check(args: CheckArgs) -> Options {
    Options {
        format: match args.format {
            CheckFormat::Human => Format::Human,
            CheckFormat::Json => Format::Json,
            CheckFormat::Nagios => Format::Nagios,
            CheckFormat::Prometheus => Format::Prometheus,
        },
        output: args.output,
        deep: args.deep,
        notify: args.notify,
        catch_up: args.catch_up,
        acknowledge: args.acknowledge,
        dump: args.dump_observed,
    }
}

fn recover(args: RecoverArgs) -> ops::recover::Request {
    ops::recover::Request {
        from: args.from,
        to: args.to,
        all: args.all,
        overlay: match args.overlay {
            OverlayArg::Auto => Choice::Auto,
            OverlayArg::Dm => Choice::Dm,
            OverlayArg::Fuse => Choice::Fuse,
            OverlayArg::Image => Choice::Image,
        },
        scratch: args.scratch.unwrap_or_else(|| crate::host::overlay::SCRATCH.into()),
        allow_old: args.allow_old,
        yes: args.yes,
        json: args.output.json,
    }
}

fn replace(args: ReplaceArgs) -> ops::replace::Request {
    ops::replace::Request {
        name: args.name,
        old: args.old,
        new: args.new,
        online: args.online,
        wipe: args.wipe,
        allow_same_disk: args.allow_same_disk,
    }
}

fn adopt(args: AdoptArgs, host: &Host, console: &mut Console) -> Result<Exit, Trouble> {
    if args.resume {
        return take_up(host, "adopt", Direction::Forward, console);
    }
    if args.rollback {
        return take_up(host, "adopt", Direction::Back, console);
    }
    let typed = args.mountpoint.unwrap_or_default();
    // As the kernel names it, without symlinks and trailing slashes.
    let mountpoint = std::fs::canonicalize(&typed).map_err(|e| {
        Trouble::refused(format!("{} cannot be read: {e}", typed.display()), "name where it is mounted")
    })?;
    let request = ops::adopt::Request {
        mountpoint,
        name: args.name,
        directory: match args.lightning_dir {
            Some(dir) => Some((dir, true)),
            None => super::default_directory().map(|dir| (dir, false)),
        },
        node: node_choice(
            args.node_unit,
            args.node_stop.as_deref(),
            args.node_start.as_deref(),
            args.no_node,
        )?,
        scheduler: scheduler(args.scheduler),
    };
    ops::adopt::adopt(host, &request, Manner { dry_run: args.dry_run, yes: args.yes }, console)
}

fn node_choice(
    unit: Option<String>,
    stop: Option<&str>,
    start: Option<&str>,
    none: bool,
) -> Result<NodeChoice, Trouble> {
    let words = |text: &str| node::commands_of(text).map_err(Trouble::Usage);
    Ok(match (unit, stop, start) {
        (Some(unit), _, _) => NodeChoice::Unit(unit_name(&unit)),
        (None, Some(stop), Some(start)) => NodeChoice::Commands { stop: words(stop)?, start: words(start)? },
        _ if none => NodeChoice::None,
        _ => NodeChoice::Detect,
    })
}

fn scheduler(typed: SchedulerArg) -> SchedulerChoice {
    match typed {
        SchedulerArg::Auto => SchedulerChoice::Auto,
        SchedulerArg::Cron => SchedulerChoice::With(Scheduler::Cron),
        SchedulerArg::Systemd => SchedulerChoice::With(Scheduler::Systemd),
        SchedulerArg::None => SchedulerChoice::None,
    }
}

fn setup(args: SetupArgs, host: &Host, console: &mut Console) -> Result<Exit, Trouble> {
    if args.resume {
        return take_up(host, "setup", Direction::Forward, console);
    }
    if args.rollback {
        return take_up(host, "setup", Direction::Back, console);
    }
    let manner = Manner { dry_run: args.dry_run, yes: args.yes };
    ops::setup::setup(host, &request(args)?, manner, console)
}

fn request(args: SetupArgs) -> Result<Request, Trouble> {
    let devices: Vec<_> = args.hdd.into_iter().chain(args.usb).chain(args.devices).collect();
    let backend = match args.backend {
        BackendArg::Btrfs => BackendKind::Btrfs,
        BackendArg::Mdadm => BackendKind::Mdadm,
        BackendArg::Zfs => BackendKind::Zfs,
    };
    let level = match args.level {
        None => backend.level(),
        Some(LevelArg::Raid1) => Level::Raid1,
        Some(LevelArg::Raid10) => Level::Raid10,
        Some(LevelArg::Raid1c3) => Level::Raid1c3,
        Some(LevelArg::Raid1c4) => Level::Raid1c4,
        Some(LevelArg::Mirror) => Level::Mirror,
        Some(LevelArg::Raidz1) => Level::Raidz1,
        Some(LevelArg::Raidz2) => Level::Raidz2,
    };
    fits(backend, level, devices.len())?;
    let filesystem = match (backend, args.filesystem) {
        (BackendKind::Btrfs | BackendKind::Zfs, None) => None,
        (BackendKind::Btrfs | BackendKind::Zfs, Some(_)) => {
            return Err(Trouble::Usage(format!(
                "{backend} is a filesystem itself: --filesystem is for --backend mdadm"
            )));
        }
        (BackendKind::Mdadm, Some(FilesystemArg::Ext4)) => Some(FilesystemKind::Ext4),
        (BackendKind::Mdadm, Some(FilesystemArg::Xfs) | None) => Some(FilesystemKind::Xfs),
    };
    let node =
        node_choice(args.node_unit, args.node_stop.as_deref(), args.node_start.as_deref(), args.no_node)?;
    let directory = args
        .lightning_dir
        .or_else(super::default_directory)
        .ok_or_else(|| Trouble::Usage("name the node's directory with --lightning-dir".to_owned()))?;
    let mountpoint = args.mountpoint.unwrap_or_else(|| std::path::Path::new("/srv").join(&args.name));
    if !mountpoint.is_absolute() || mountpoint.parent().is_none() {
        return Err(Trouble::Usage(format!(
            "{} is no absolute path for a mount point",
            mountpoint.display()
        )));
    }
    Ok(Request {
        devices,
        backend,
        filesystem,
        level,
        name: args.name,
        mountpoint,
        directory,
        user: args.user,
        node,
        patience: args.node_timeout,
        scheduler: scheduler(args.scheduler),
        keep_original: args.original == OriginalArg::Keep,
        size: args.size,
        wipe: args.wipe,
        allow_same_disk: args.allow_same_disk,
    })
}

/// Can so many devices be made a mirror of this kind and level?
fn fits(backend: BackendKind, level: Level, count: usize) -> Result<(), Trouble> {
    if !backend.levels().contains(&level) {
        let known: Vec<_> = backend.levels().iter().map(|l| l.as_str()).collect();
        return Err(Trouble::Usage(format!(
            "{backend} has no level {level}; it has {}",
            known.join(" and ")
        )));
    }
    let members = backend.members(level);
    if count < *members.start() {
        return Err(Trouble::Usage(format!(
            "{level} needs {} devices and then survives the loss of {}; {count} were named (add more with --device)",
            members.start(),
            backend.survives(level, *members.start()),
        )));
    }
    if count > *members.end() {
        return Err(Trouble::Usage(format!(
            "{level} of {backend} is made of {} devices at most; {count} were named",
            members.end()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_named_as_systemctl_takes_it() {
        for (typed, unit) in [
            ("lightningd", "lightningd.service"),
            ("lightningd.service", "lightningd.service"),
            ("cln@main", "cln@main.service"),
            ("cln-25.09", "cln-25.09.service"),
            ("cln.target", "cln.target"),
        ] {
            let choice = node_choice(Some(typed.to_owned()), None, None, false).unwrap();
            assert_eq!(choice, NodeChoice::Unit(unit.to_owned()));
        }
    }
}
