//! `btrfs replace` (btrfs-replace(8)): the kernel copies a member to another device while the filesystem is in use.
//!
//! The work is the kernel's. On Linux 6.18 it goes on when `btrfs` is killed, and the killed process waits in the kernel for its end;
//! newer kernels cancel it then. An unmount suspends it, a power cut leaves it to the next mount, which goes on by itself where it
//! knows the new device.

use std::{path::Path, thread, time::Duration};

use super::{BackendError, ParseError, chunks, observe, superblock::Superblock, sysfs::SysFs};
use crate::{
    backend::{Exchange, ExchangeEnd, ExchangeProgress, Layout, Watcher, blocks},
    exec::{Cmd, Flow},
    host::{Host, files::Doing as _},
    model::{Bytes, observed::causes},
};

/// What the kernel calls it in `exclusive_operation`.
pub(super) const OPERATION: &str = "device replace";
/// The number that a member has while it is being filled (kernel: `BTRFS_DEV_REPLACE_DEVID`).
pub(super) const FILLING: u64 = 0;

/// What `btrfs replace status -1` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) state: State,
    /// Writes to the new device that failed.
    pub(super) write_errors: u64,
    /// Blocks that could not be read from any copy.
    pub(super) unreadable: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Never,
    /// How far it has gone over the old member, in thousandths.
    Running(u64),
    Finished,
    Canceled,
    Suspended,
}

pub(super) fn command(exchange: &Exchange, at: &Path) -> Cmd {
    // By number: a missing member has no path, and `missing` is no word of this command.
    let cmd = Cmd::destroy("btrfs").args(["replace", "start", "-B"]);
    let cmd = if exchange.avoid_old { cmd.arg("-r") } else { cmd };
    cmd.arg(exchange.id.to_string()).arg(&exchange.new).arg(at).without_limit()
}

/// Reads `btrfs replace status -1` (btrfs-progs: `cmds/replace.c`, `print_replace_status`).
pub(super) fn parse_status(text: &str) -> Result<Status, ParseError> {
    let bad = || ParseError::new("btrfs replace status", text);
    let line = text.trim();
    if line == "Never started" {
        return Ok(Status { state: State::Never, write_errors: 0, unreadable: 0 });
    }
    let mut parts = line.split(", ").map(str::trim);
    let first = parts.next().ok_or_else(bad)?;
    let state = if let Some(percent) = first.strip_suffix("% done") {
        State::Running(parse_permille(percent).ok_or_else(bad)?)
    } else if first.starts_with("Started on ") {
        let second = parts.next().ok_or_else(bad)?;
        match second.split(" on ").next() {
            Some("finished") => State::Finished,
            Some("canceled") => State::Canceled,
            Some("suspended") => State::Suspended,
            _ => return Err(bad()),
        }
    } else {
        return Err(bad());
    };
    let mut count = |what: &str| {
        parts.next().and_then(|p| p.strip_suffix(what)).and_then(|n| n.trim().parse().ok()).ok_or_else(bad)
    };
    Ok(Status { state, write_errors: count("write errs")?, unreadable: count("uncorr. read errs")? })
}

fn parse_permille(percent: &str) -> Option<u64> {
    let (whole, tenth) = percent.split_once('.')?;
    let value = whole.parse::<u64>().ok()?.checked_mul(10)?.checked_add(tenth.parse().ok()?)?;
    (tenth.len() == 1 && value <= 1000).then_some(value)
}

fn status(host: &Host, at: &Path) -> Result<Status, BackendError> {
    let output = host.runner().run(&Cmd::probe("btrfs").args(["replace", "status", "-1"]).arg(at))?;
    Ok(parse_status(&output.text())?)
}

fn is_running(host: &Host, uuid: &str) -> Result<bool, BackendError> {
    let operation = SysFs::find(host, uuid)?.map(|dir| dir.exclusive_operation()).transpose()?.flatten();
    Ok(operation.as_deref() == Some(OPERATION))
}

fn superblock(host: &Host, exchange: &Exchange) -> Result<Option<Superblock>, BackendError> {
    let path = &exchange.new;
    let found = Superblock::read(&host.path(path)).doing("reading the superblock of", path)?;
    Ok(found.filter(|sb| sb.fsid == exchange.uuid && sb.finished))
}

/// The kernel gives the new device the old one's number when it is done.
pub(super) fn is_exchanged(host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
    let unread = match superblock(host, exchange) {
        Ok(found) => return Ok(found.is_some_and(|sb| sb.devid == exchange.id)),
        Err(e) => e,
    };
    // One that fails, or is gone, cannot say it itself. The kernel lists it while it is filled, and from when it is a member.
    let Some(dir) = SysFs::find(host, &exchange.uuid)? else { return Err(unread) };
    let is_listed = dir.devices()?.contains(&blocks::kernel_name(host, &exchange.new));
    Ok(is_listed && dir.exclusive_operation()?.as_deref() != Some(OPERATION))
}

/// Why the new device cannot be filled, where it cannot. The kernel would go on to the end without it, call it the member, and erase the
/// superblock of the old one.
fn fails(host: &Host, exchange: &Exchange) -> Option<String> {
    let size = blocks::size_of(host, &blocks::kernel_name(host, &exchange.new)).ok()?;
    if size.is_none_or(|size| size.0 == 0) {
        return Some("it is gone".to_owned());
    }
    let members = SysFs::find(host, &exchange.uuid).ok()??.members().ok()?;
    let errors = members.iter().find(|m| m.replace_target)?.errors?;
    let failed = errors.write.saturating_add(errors.flush);
    (failed > 0).then(|| format!("{failed} writes to it failed"))
}

fn failed(exchange: &Exchange, why: String) -> BackendError {
    BackendError::NewDevice { device: exchange.new.clone(), why }
}

pub(super) fn is_grown(host: &Host, exchange: &Exchange) -> Result<bool, BackendError> {
    let size = blocks::size_of(host, &blocks::kernel_name(host, &exchange.new))?;
    // The kernel rounds down to whole sectors of its own.
    Ok(superblock(host, exchange)?
        .is_some_and(|sb| size.is_some_and(|size| sb.total >= size.0 / 4096 * 4096)))
}

/// A superblock that an exchange which did not end has left on the new device. On one that fails it stays, and a check finds it there.
fn wipe_remains(host: &Host, exchange: &Exchange) {
    let wipe = || -> Result<(), BackendError> {
        if superblock(host, exchange)?.is_some_and(|sb| sb.devid == FILLING) {
            let cmd = Cmd::destroy("wipefs").args(["--all", "--types", "btrfs"]).arg(&exchange.new);
            host.runner().run(&cmd)?;
        }
        Ok(())
    };
    if let Err(e) = wipe() {
        let new = exchange.new.display();
        tracing::warn!(
            "{new} may say of itself that it is being filled; it could not be erased: {}",
            causes(&e)
        );
    }
}

/// The old member's superblock, where the kernel has left it: a signal that ends `btrfs` keeps it from reading what it would erase.
pub(super) fn retire(host: &Host, exchange: &Exchange, old: &Path) -> Vec<Cmd> {
    if *old == *exchange.new {
        return Vec::new();
    }
    // A member that was exchanged because it fails, or is gone, may have nothing more to say.
    let Ok(Some(sb)) = Superblock::read(&host.path(old)) else { return Vec::new() };
    let ours = sb.fsid == exchange.uuid && sb.devid == exchange.id;
    let wipe = Cmd::destroy("wipefs").args(["--all", "--types", "btrfs"]).arg(old);
    if ours { vec![wipe] } else { Vec::new() }
}

/// How far it is, in what is stored on the old member: the kernel counts its way over the whole device, empty space included.
struct Meter {
    layout: Layout,
    id: u64,
    /// What was there when this run began to look: a rate is made of the rest.
    before: Option<Bytes>,
}

impl Meter {
    fn of(host: &Host, exchange: &Exchange, device: Option<&Path>) -> Self {
        let read = device.and_then(|device| chunks::read(host, device).ok());
        Self { layout: read.unwrap_or_default(), id: exchange.id, before: None }
    }

    fn progress(&mut self, permille: Option<u64>) -> ExchangeProgress {
        let total = self.layout.stored_on(self.id);
        let size = self.layout.size_of(self.id).unwrap_or_default();
        let copied =
            permille.map(|p| self.layout.stored_below(self.id, size.0 / 1000 * p + size.0 % 1000 * p / 1000));
        if self.before.is_none() {
            self.before = copied;
        }
        let before = self.before.unwrap_or_default();
        let rest = |b: Bytes| Bytes(b.0.saturating_sub(before.0));
        ExchangeProgress { copied: copied.map(rest).filter(|_| total.0 > 0), total: rest(total) }
    }
}

/// Looks about every two seconds.
const LOOK: u32 = 8;
const TICK: Duration = Duration::from_millis(250);

pub(super) fn exchange(
    host: &Host,
    exchange: &Exchange,
    at: &Path,
    watch: &mut Watcher<'_, ExchangeProgress>,
) -> Result<ExchangeEnd, BackendError> {
    let state = observe::observe(host, &exchange.uuid, at)?;
    let mut there =
        state.members.iter().filter(|m| !m.missing && !m.replace_target && m.devid != exchange.id);
    let mut meter = Meter::of(host, exchange, there.find_map(|m| m.path.as_deref()));
    if is_running(host, &exchange.uuid)? {
        // That of an interrupted run.
        if follow(host, exchange, at, &mut meter, watch)? == Flow::Stop {
            return Ok(ExchangeEnd::Stopped);
        }
    } else if status(host, at)?.state == State::Suspended {
        // The new device was not known at the mount: it is begun anew.
        cancel(host, exchange, at)?;
    }
    if !is_exchanged(host, exchange)? {
        wipe_remains(host, exchange);
        if start(host, exchange, at, &mut meter, watch)? == Flow::Stop {
            return Ok(ExchangeEnd::Stopped);
        }
    }
    let end = status(host, at)?;
    if end.state != State::Finished {
        return Err(ParseError::new("the end of btrfs replace", format!("{:?}", end.state)).into());
    }
    // The kernel says that it has finished before it lets other work begin.
    while is_running(host, &exchange.uuid)? {
        if watch(&meter.progress(Some(1000))) == Flow::Stop {
            return Ok(ExchangeEnd::Stopped);
        }
        thread::sleep(TICK);
    }
    Ok(ExchangeEnd::Done { unreadable: end.unreadable })
}

/// Waits for work that the kernel does without a process of ours.
fn follow(
    host: &Host,
    exchange: &Exchange,
    at: &Path,
    meter: &mut Meter,
    watch: &mut Watcher<'_, ExchangeProgress>,
) -> Result<Flow, BackendError> {
    let mut ticks = 0_u32;
    while is_running(host, &exchange.uuid)? {
        let permille = if ticks % LOOK == 0 { permille(host, at) } else { None };
        ticks = ticks.wrapping_add(1);
        let failing = fails(host, exchange);
        if failing.is_some() || watch(&meter.progress(permille)) == Flow::Stop {
            cancel(host, exchange, at)?;
            return match failing {
                _ if is_exchanged(host, exchange)? => Ok(Flow::Continue),
                Some(why) => Err(failed(exchange, why)),
                None => Ok(Flow::Stop),
            };
        }
        thread::sleep(TICK);
    }
    Ok(Flow::Continue)
}

/// Progress is a courtesy: what cannot be read is left out.
fn permille(host: &Host, at: &Path) -> Option<u64> {
    match status(host, at).ok()?.state {
        State::Running(permille) => Some(permille),
        _ => None,
    }
}

fn start(
    host: &Host,
    exchange: &Exchange,
    at: &Path,
    meter: &mut Meter,
    watch: &mut Watcher<'_, ExchangeProgress>,
) -> Result<Flow, BackendError> {
    let (mut ticks, mut stopping, mut failing) = (0_u32, false, None);
    let mut tick = || {
        let permille = if ticks % LOOK == 1 { permille(host, at) } else { None };
        ticks = ticks.wrapping_add(1);
        if stopping {
            return Flow::Continue;
        }
        failing = fails(host, exchange);
        if failing.is_none() && watch(&meter.progress(permille)) == Flow::Continue {
            return Flow::Continue;
        }
        stopping = true;
        // The command then ends by itself; a signal is for the case that it cannot be told to.
        match host.runner().run(&cancel_command(at)) {
            Ok(_) => Flow::Continue,
            Err(_) => Flow::Stop,
        }
    };
    let ended = host.runner().run_watched(&command(exchange, at), &mut tick);
    if stopping && !is_exchanged(host, exchange)? {
        sync(host, at)?;
        wipe_remains(host, exchange);
        return failing.map_or(Ok(Flow::Stop), |why| Err(failed(exchange, why)));
    }
    match ended {
        Ok(_) => Ok(Flow::Continue),
        Err(_) if stopping => Ok(Flow::Continue),
        Err(e) => {
            // What is left of it must not be on the disk.
            sync(host, at)?;
            wipe_remains(host, exchange);
            Err(e.into())
        }
    }
}

fn cancel_command(at: &Path) -> Cmd {
    // 2: nothing runs.
    Cmd::change("btrfs").args(["replace", "cancel"]).arg(at).accept(&[0, 2])
}

/// A cancelled exchange is on the disk only when something commits.
fn sync(host: &Host, at: &Path) -> Result<(), BackendError> {
    host.runner().run(&Cmd::change("btrfs").args(["filesystem", "sync"]).arg(at))?;
    Ok(())
}

fn cancel(host: &Host, exchange: &Exchange, at: &Path) -> Result<(), BackendError> {
    host.runner().run(&cancel_command(at))?;
    while is_running(host, &exchange.uuid)? {
        thread::sleep(TICK);
    }
    sync(host, at)?;
    wipe_remains(host, exchange);
    Ok(())
}

pub(super) fn give_up(host: &Host, exchange: &Exchange, at: Option<&Path>) -> Result<(), BackendError> {
    let Some(at) = at else { return Ok(()) };
    if is_running(host, &exchange.uuid)? || status(host, at)?.state == State::Suspended {
        return cancel(host, exchange, at);
    }
    // A device that is gone has nothing on it that could be wiped.
    if host.path(&exchange.new).exists() {
        wipe_remains(host, exchange);
    }
    Ok(())
}
