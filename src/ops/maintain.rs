//! `scrub` and `balance`: what the schedule runs.

use super::{Exit, Trouble, mirrors, trouble::need_root};
use crate::{
    backend::{self, BalanceEnd, ScrubEnd},
    exec::Flow,
    host::{Host, awake, lock, state::State},
    model::{mirror::MirrorState, observed::causes, record::Mismatches},
    plan::{Watch as _, Work},
    ui::{self, Console},
};

fn observed(host: &Host, mirror: &crate::config::Mirror) -> Result<MirrorState, Trouble> {
    let state = backend::of(mirror.backend)
        .observe(host, &mirror.uuid, &mirror.mountpoint)
        .map_err(|e| Trouble::failed("the mirror could not be looked at", e))?;
    if state.mounted {
        Ok(state)
    } else {
        Err(Trouble::refused(
            format!("the mirror `{}` is not mounted at {}", mirror.name, mirror.mountpoint.display()),
            format!("mount {}", mirror.mountpoint.display()),
        ))
    }
}

fn flow(host: &Host) -> Flow {
    if host.interrupt().is_raised() { Flow::Stop } else { Flow::Continue }
}

/// Remembers that a job began, and how it ended. A record that cannot be written is said; the job matters more.
fn recorded<T>(
    host: &Host,
    mirror: &str,
    job: &str,
    console: &mut Console,
    run: impl FnOnce(&mut Console) -> (Option<String>, T),
) -> T {
    let began = host.now();
    let kept = State::open(host).and_then(|state| state.job_began(mirror, job, began));
    let (failed, value) = run(console);
    let ended = kept.and_then(|()| State::open(host)?.job_ended(mirror, job, (began, host.now()), failed));
    if let Err(e) = ended {
        console.warn(format_args!("this run could not be remembered: {}", causes(&e)));
    }
    value
}

/// Says once who is waited for.
fn waiting(host: &Host, console: &mut Console, holder: &str) -> Flow {
    console.waiting_for(holder);
    flow(host)
}

/// Runs `scrub`.
///
/// # Errors
/// It could not be run to its end.
pub fn scrub(host: &Host, name: Option<&str>, json: bool, console: &mut Console) -> Result<Exit, Trouble> {
    need_root("scrub")?;
    let mirror = mirrors::named(host, name)?;
    let _lock = lock::take_after(host, &mirror.name, "scrub", "balance", &mut |holder| {
        waiting(host, console, holder)
    })?;
    let state = observed(host, &mirror)?;
    let backend = backend::of(mirror.backend);
    let title = format!("scrub {}", mirror.name);
    console.plan(std::slice::from_ref(&title), false);
    console.begin(0, &title);
    let _awake = awake::hold(host, &title);
    let report = recorded(host, &mirror.name, "scrub", console, |console| {
        let report = backend.scrub(host, &mirror.mountpoint, &state, &mut |progress| {
            if let (Some(done), Some(total)) = (progress.bytes_scrubbed, progress.bytes_total) {
                console.work(Work { done, total });
            }
            flow(host)
        });
        let failed = match &report {
            // What it found is judged by what it found.
            Ok(report) if report.end == ScrubEnd::Finished => None,
            Ok(report) => Some(ui::maintain::scrub(&mirror.name, report).trim().to_owned()),
            Err(e) => Some(causes(e)),
        };
        (failed, report)
    });
    console.clear();
    let report = report.map_err(|e| Trouble::failed("the scrub could not be run", e))?;
    if let Some(sectors) = report.mismatched() {
        let found = Mismatches { sectors, at: host.now() };
        if let Err(e) = State::open(host).and_then(|state| state.keep_mismatches(&mirror.name, found)) {
            console.warn(format_args!("what was found could not be remembered: {}", causes(&e)));
        }
    }
    console.data(if json { ui::json("scrub", &report)? } else { ui::maintain::scrub(&mirror.name, &report) });
    Ok(if report.is_good() { Exit::Done } else { Exit::Failed })
}

/// Runs `balance`.
///
/// # Errors
/// It could not be run to its end.
pub fn balance(host: &Host, name: Option<&str>, json: bool, console: &mut Console) -> Result<Exit, Trouble> {
    need_root("balance")?;
    let mirror = mirrors::named(host, name)?;
    let _lock = lock::take_after(host, &mirror.name, "balance", "scrub", &mut |holder| {
        waiting(host, console, holder)
    })?;
    let state = observed(host, &mirror)?;
    let backend = backend::of(mirror.backend);
    let _awake = awake::hold(host, &format!("balance {}", mirror.name));
    let report = recorded(host, &mirror.name, "balance", console, |_| {
        let report = backend.balance(host, &mirror.mountpoint, &state, &mut |&()| flow(host));
        let failed = match &report {
            Ok(report) if matches!(report.end, BalanceEnd::Done | BalanceEnd::AlreadyRunning) => None,
            Ok(report) => Some(ui::maintain::balance(&mirror.name, report).trim().to_owned()),
            Err(e) => Some(causes(e)),
        };
        (failed, report)
    });
    let report = report.map_err(|e| Trouble::failed("the balance could not be run", e))?;
    console.data(if json {
        ui::json("balance", &report)?
    } else {
        ui::maintain::balance(&mirror.name, &report)
    });
    match report.end {
        BalanceEnd::Done | BalanceEnd::AlreadyRunning => Ok(Exit::Done),
        _ => Ok(Exit::Failed),
    }
}
