//! `guard`: may the node start? Asked by the node's unit before each start, so it is quick, and says why not.

use std::{collections::BTreeMap, fs::File, io, time::Duration};

use jiff::Timestamp;

use super::{
    Blocker, Exit, Trouble, mirrors,
    observe::observe_for_start,
    trouble::{need_root, unchanged},
};
use crate::{
    config::Mirror,
    exec::Cmd,
    health::{self, guard},
    host::{Host, state::State},
    model::{
        BackendKind, Finding, Record,
        observed::{DatabaseFacts, DatabaseState, causes},
        record::{Fault, LedgerEntry, Override},
    },
    ui::Console,
};

/// Runs `guard`. Done: the node may start.
///
/// # Errors
/// Refused, with every reason and what mends it.
pub fn guard(
    host: &Host,
    name: Option<&str>,
    reason: Option<&str>,
    console: &Console,
) -> Result<Exit, Trouble> {
    need_root("guard")?;
    let mirror = mirrors::named(host, name).map_err(refused)?;
    if mirror.node.is_none() {
        return Err(Trouble::refused(
            format!("no node is declared on the mirror `{}`", mirror.name),
            "there is nothing to guard: take the line out of the unit",
        ));
    }
    if reason.is_none() && is_kept_from_devices(host, &mirror) {
        return outside(host, &mirror.name, console);
    }
    let record = mirrors::recorded(&State::open_existing(host), &mirror.name);
    let observed = observe_for_start(host, &mirror, record.get().unwrap_or(&Record::default()));
    // What an earlier look at the databases found is older than what is found now.
    let mut known = record.clone();
    if let Some(known) = known.get_mut() {
        known.databases = None;
    }
    let verdict = health::judge(&mirror, &observed, &known, host.now());
    if let Some(why) = record.failure() {
        console.warn(format_args!(
            "raidguard's own record cannot be read, so an older database would not be noticed: {why}"
        ));
    }
    let against = guard::against(&verdict);
    let allowed = record.get().and_then(|r| r.overridden.as_ref());
    match (against.is_empty(), reason) {
        (true, _) => {
            let found = observed.databases.get().into_iter().flatten();
            // A node that starts without a member writes what that one lacks.
            let nothing = Record::default();
            let known = record.get().unwrap_or(&nothing);
            let away = observed.storage.get().map(|s| health::away(&mirror, s, known, host.now()));
            let away = away.filter(|away| *away != known.away);
            remember(host, &mirror, found, away.as_ref(), allowed.is_some(), console);
            Ok(Exit::Done)
        }
        (false, Some(reason)) => allow(host, &mirror, &against, reason, console),
        (false, None) if guard::is_allowed(&against, allowed) => {
            let reason = allowed.map_or("", |o| o.reason.as_str());
            console.warn(format_args!("{} all the same, as allowed: {reason}", says(&against)));
            Ok(Exit::Done)
        }
        (false, None) => Err(Trouble::Refused(
            against
                .iter()
                .map(|f| {
                    let seen = if f.evidence.is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", f.evidence.join("; "))
                    };
                    Blocker::new(format!("{}: {}{seen}", f.code, f.says), f.remedy.clone())
                })
                .chain([Blocker::new(
                    "the node may not start",
                    format!(
                        "if you know better: raidguard guard {} --override REASON, then start it",
                        mirror.name
                    ),
                )])
                .collect(),
        )),
    }
}

/// Set where the guard was asked outside of the node's unit.
const OUTSIDE: &str = "RAIDGUARD_GUARDS_OUTSIDE";
/// What ZFS is asked through.
const ASKED: &str = "/dev/zfs";
/// How long that may take: longer than everything that it waits for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Is this a unit that may not open the devices by which ZFS is asked? `PrivateDevices=` and `DeviceAllow=` are rules of the unit's control
/// group, which hold for a command with full privileges too (systemd.exec(5)). What other mirrors are the kernel tells without.
fn is_kept_from_devices(host: &Host, mirror: &Mirror) -> bool {
    let denied = || File::open(host.path(ASKED)).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied);
    mirror.backend == BackendKind::Zfs && std::env::var_os(OUTSIDE).is_none() && denied()
}

/// Asks again in a unit of its own. What it says is said here, where the operator looks for it: among what the node's unit said.
fn outside(host: &Host, name: &str, console: &Console) -> Result<Exit, Trouble> {
    let failed = |e| Trouble::failed("the guard could not be asked outside of the node's unit", e);
    let program = std::env::current_exe().map_err(unchanged("raidguard's own path cannot be read"))?;
    let asked = Cmd::probe("systemd-run")
        .args(["--quiet", "--wait", "--pipe", "--collect", &format!("--setenv={OUTSIDE}=1"), "--"])
        .arg(program)
        .args(["guard", name])
        .accept(&[0, 3])
        .timeout(PATIENCE);
    let answer = host.runner().run(&asked).map_err(failed)?;
    let said = String::from_utf8_lossy(&answer.stderr);
    if !said.trim().is_empty() {
        console.say(said.trim_end());
    }
    Ok(if answer.code == 0 { Exit::Done } else { Exit::Refused })
}

/// A declaration that cannot be read is a reason not to start, like any other.
fn refused(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Failed { what, source, .. } => {
            let why = source.map_or_else(String::new, |e| format!(": {}", causes(e.as_ref())));
            Trouble::refused(format!("{what}{why}"), "mend /etc/raidguard/raidguard.toml; it names the line")
        }
        other => other,
    }
}

fn says(against: &[&Finding]) -> String {
    against.iter().map(|f| f.says.as_str()).collect::<Vec<_>>().join("; ")
}

/// What was seen is the newest now. A record that cannot be written is said, and keeps no node down.
fn remember<'d>(
    host: &Host,
    mirror: &Mirror,
    found: impl Iterator<Item = &'d DatabaseFacts>,
    away: Option<&BTreeMap<String, Timestamp>>,
    allowed: bool,
    console: &Console,
) {
    let newest = found.filter_map(|facts| match &facts.state {
        DatabaseState::Sound(version) => {
            let entry = LedgerEntry {
                node_id: version.node_id.clone(),
                data_version: version.data_version?,
                at: host.now(),
            };
            Some((facts.network.as_str(), entry))
        }
        _ => None,
    });
    let kept = State::open(host).and_then(|state| {
        for (network, entry) in newest {
            state.raise_ledger(&mirror.name, network, &entry)?;
        }
        if let Some(away) = away {
            state.keep_away(&mirror.name, away)?;
        }
        // What was allowed is not there any more.
        if allowed { state.forget(&mirror.name, "overridden") } else { Ok(()) }
    });
    if let Err(e) = kept {
        console.warn(format_args!("what was seen could not be remembered: {}", causes(&e)));
    }
}

fn allow(
    host: &Host,
    mirror: &Mirror,
    against: &[&Finding],
    reason: &str,
    console: &Console,
) -> Result<Exit, Trouble> {
    if reason.trim().is_empty() {
        return Err(Trouble::Usage("an override needs a reason".to_owned()));
    }
    let faults = against.iter().map(|f| Fault { code: f.code.clone(), about: f.about.clone() }).collect();
    let allowed = Override { at: host.now(), reason: reason.trim().to_owned(), faults };
    State::open(host)
        .and_then(|state| state.durably(|| state.put(&mirror.name, "overridden", &allowed)))
        .map_err(|e| {
            Trouble::failed("the override could not be recorded, so the guard would not know of it", e)
        })?;
    console.warn(format_args!("allowed until the guard passes by itself: {}", says(against)));
    console.say("The node may start now. `raidguard status` shows that this was allowed.");
    Ok(Exit::Done)
}
