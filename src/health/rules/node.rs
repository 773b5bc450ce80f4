//! The node's directory, its secret, its databases, and who works on them.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::{
    config::Node,
    health::case::Case,
    model::{
        NodeKind, Record, Severity, Source,
        observed::{DatabaseFacts, DatabaseState, DatabaseVersion, NetworkFacts, NodeFacts, Standing},
        quote::shell_quote,
    },
};

/// How long an original may be kept before it is more danger than help.
const KEEP_ORIGINAL: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The least that a secret is (Core Lightning: common/hsm_secret.c).
const SECRET_SIZE: u64 = 32;

pub(in crate::health) fn judge(case: &mut Case<'_>) {
    let Some(node) = case.declared.node.as_ref() else { return };
    if let Some(facts) = case.observed.node.get() {
        directory(case, node, facts);
        for network in &facts.networks {
            files(case, node, network);
        }
        lost(case, node, facts);
        originals(case, facts);
    }
    for process in case.observed.processes.get().into_iter().flatten() {
        let says = format!("{} (pid {}) works off the mirror", process.name, process.pid);
        let evidence = vec![process.holds.display().to_string()];
        case.add("NODE-STRAY", Severity::Critical, format!("pid {}", process.pid), says, evidence);
    }
    let users = case.observed.users.get().cloned().unwrap_or_default();
    if !users.is_empty() {
        let says = format!("another node works on {}", node.data.display());
        case.add("NODE-RUNNING", Severity::Critical, "", says, users);
    }
    databases(case);
    if let Some(allowed) = &case.record.overridden {
        let codes = allowed.faults.iter().map(|f| f.code.as_str()).collect::<Vec<_>>().join(", ");
        let says = format!("the node was started against the guard: {}", allowed.reason);
        let evidence = vec![format!("{:.0}: {codes}", allowed.at)];
        case.add("NODE-OVERRIDDEN", Severity::Warning, "", says, evidence);
    }
}

fn directory(case: &mut Case<'_>, node: &Node, facts: &NodeFacts) {
    let at = node.directory.display();
    let found = match &facts.directory {
        Standing::Symlink(to) if *to == node.data => None,
        // By a relative link, through other links, or because the node itself is told the place on the mirror.
        Standing::Symlink(_) | Standing::Directory if facts.leads_there => None,
        Standing::Symlink(to) => Some(format!("it leads to {}", to.display())),
        Standing::Directory => Some("it is a directory of its own".to_owned()),
        Standing::Other => Some("it is neither a directory nor a symlink".to_owned()),
        Standing::Nothing => Some("there is nothing".to_owned()),
    };
    if let Some(found) = found {
        let says = format!("{at} does not lead to {}", node.data.display());
        case.add("DIR-LINK", Severity::Critical, "", says, vec![found]);
    }
    let mounted = case.state().is_none_or(|state| state.mounted);
    if !facts.on_mirror && mounted {
        let says = format!("{} is no directory of the mirror", node.data.display());
        case.add("DIR-DATA", Severity::Critical, "", says, Vec::new());
    }
    let Some(data) = &facts.data else { return };
    let database = facts.networks.iter().find_map(|n| n.database.as_ref());
    let owner = facts.user.or(database.map(|d| d.uid));
    if let Some(owner) = owner.filter(|owner| *owner != data.uid) {
        let evidence = vec![format!("it belongs to uid {}, the node is uid {owner}", data.uid)];
        let says = format!("{} does not belong to the node's user", node.data.display());
        case.add("DIR-OWNER", Severity::Warning, "", says, evidence);
    }
    if data.mode & 0o007 != 0 {
        let says = format!("{} is open to everybody", node.data.display());
        case.add("DIR-MODE", Severity::Warning, "", says, vec![format!("its mode is {:04o}", data.mode)]);
    }
    if !facts.nocow.is_empty() {
        let says = format!("files in {} have no checksums", node.data.display());
        case.add("DIR-NOCOW", Severity::Warning, "", says, facts.nocow.clone());
    }
}

fn files(case: &mut Case<'_>, node: &Node, network: &NetworkFacts) {
    let below = |file: &str| node.data.join(&network.name).join(file);
    let Some(database) = &network.database else { return };
    let path = below("lightningd.sqlite3");
    let fault = if database.size == 0 { Some("it is empty".to_owned()) } else { network.fault.clone() };
    if let Some(fault) = fault {
        let says = format!("{} is no whole database", path.display());
        case.add("NODE-DATABASE", Severity::Critical, &network.name, says, vec![fault]);
        case.read_from(Source::Node);
    }
    let secret = below("hsm_secret");
    match &network.secret {
        None => {
            let says = format!("{} is missing", secret.display());
            case.add("NODE-SECRET", Severity::Critical, &network.name, says, Vec::new());
        }
        Some(found) => {
            if found.size < SECRET_SIZE {
                let says = format!("{} is cut short", secret.display());
                let evidence = vec![format!("it has {} bytes, a secret at least {SECRET_SIZE}", found.size)];
                case.add("NODE-SECRET", Severity::Critical, &network.name, says, evidence);
            }
            if found.mode & 0o077 != 0 {
                let says = format!("{} can be read by others", secret.display());
                let evidence = vec![format!("its mode is {:04o}", found.mode)];
                let words = [("SECRET", quoted(&secret))];
                case.add_with("NODE-SECRET-MODE", Severity::Warning, &network.name, says, evidence, &words);
            }
        }
    }
}

fn quoted(path: &Path) -> String {
    shell_quote(path.as_os_str()).into_owned()
}

/// A database that was there before, or that a Core Lightning node must have.
fn lost(case: &mut Case<'_>, node: &Node, facts: &NodeFacts) {
    if !facts.on_mirror {
        return;
    }
    let there = |name: &str| facts.networks.iter().any(|n| n.name == name && n.database.is_some());
    let mut known: Vec<_> = case.record.ledger.keys().cloned().collect();
    if known.is_empty()
        && node.kind == NodeKind::CoreLightning
        && !facts.networks.iter().any(|n| n.database.is_some())
    {
        known.push("*".to_owned());
    }
    for name in known.into_iter().filter(|name| !there(name)) {
        let place = node.data.join(&name).join("lightningd.sqlite3");
        let says = format!("{} is missing", place.display());
        case.add("NODE-DATABASE-MISSING", Severity::Critical, name, says, Vec::new());
    }
}

fn originals(case: &mut Case<'_>, facts: &NodeFacts) {
    for original in &facts.originals {
        if original.since.is_none_or(|since| since + KEEP_ORIGINAL < case.now) {
            let says = format!("{} is old state, and still there", original.path.display());
            let words = [("ORIGINAL", quoted(&original.path))];
            let about = original.path.display().to_string();
            case.add_with("DIR-ORIGINAL", Severity::Warning, about, says, Vec::new(), &words);
        }
    }
}

/// The databases as they were found now, else as they were found last.
fn databases(case: &mut Case<'_>) {
    let record = case.record;
    let now = case.observed.databases.get().map(|found| (None, found));
    let before = || record.databases.as_ref().map(|(at, found)| (Some(*at), found));
    let Some((at, found)) = now.or_else(before) else { return };
    for DatabaseFacts { network, state } in found {
        let name =
            if network.is_empty() { "the database".to_owned() } else { format!("the database of {network}") };
        let mut evidence: Vec<String> = at.iter().map(|at| format!("looked at {at:.0}")).collect();
        match state {
            DatabaseState::Faulty(why) => {
                evidence.insert(0, why.clone());
                case.add(
                    "NODE-DATABASE",
                    Severity::Critical,
                    network,
                    format!("{name} is damaged"),
                    evidence,
                );
            }
            // The directory itself says that.
            DatabaseState::Missing => {}
            // A start that has seen it since knows better than the last look.
            DatabaseState::Sound(_) if at.is_some_and(|at| seen_after(case.record, network, at)) => {}
            DatabaseState::Sound(version) => ledger(case, network, &name, version, evidence),
        }
    }
}

fn seen_after(record: &Record, network: &str, at: Timestamp) -> bool {
    record.ledger.get(network).is_some_and(|known| known.at > at)
}

fn ledger(
    case: &mut Case<'_>,
    network: &str,
    name: &str,
    version: &DatabaseVersion,
    mut evidence: Vec<String>,
) {
    let Some(known) = case.record.ledger.get(network) else { return };
    if let (Some(now), Some(before)) = (&version.node_id, &known.node_id) {
        if now != before {
            evidence.insert(0, format!("its key is {now}, before it was {before}"));
            case.add(
                "NODE-IDENTITY",
                Severity::Critical,
                network,
                format!("{name} belongs to another node"),
                evidence,
            );
            return;
        }
    }
    if let Some(now) = version.data_version.filter(|now| *now < known.data_version) {
        let newest = known.data_version;
        evidence.insert(0, format!("its data_version is {now}; {newest} was seen {:.0}", known.at));
        let says = format!("{name} is {} commits older than it was", newest - now);
        case.add("NODE-OLDER", Severity::Critical, network, says, evidence);
    }
}
