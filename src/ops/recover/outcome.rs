//! What came out, judged: each database and secret on the copy, then all of it together.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rusqlite::Connection;

use crate::{
    backend::rescue::Freshness,
    model::{
        Record,
        observed::{DatabaseVersion, causes},
    },
    node::{
        Place,
        database::{self, Journal},
        secret,
    },
    ui::{AgainstLedger, DatabaseReport, LedgerReport, NetworkReport, RecoveryReport, SecretReport},
};

const DATABASE: &str = "lightningd.sqlite3";
/// Of a symlink: what it leads to here is not what it led to there.
const NO_FILE: &str = "and no file came out by this name";

/// What is seen of a database on a copy of it.
#[derive(Debug)]
struct Judged {
    version: Result<DatabaseVersion, String>,
    /// Without the rollback journal, where there is one and it is sound.
    without: Option<DatabaseVersion>,
}

/// Judges every network's directory below `files`. `scratch` is a directory that is made and removed. `opened` is given each database
/// before it is checked; `go_on` is asked before each.
pub(super) fn networks(
    files: &Path,
    places: &[Place],
    record: Option<&Record>,
    scratch: &Path,
    opened: &dyn Fn(&Connection),
    go_on: &dyn Fn() -> bool,
) -> Vec<NetworkReport> {
    let mut all: Vec<NetworkReport> = places
        .iter()
        .take_while(|_| go_on())
        .map(|place| {
            let dir = files.join(&place.directory);
            let database = dir.join(DATABASE);
            let judged =
                database.symlink_metadata().is_ok().then(|| judge(&database, scratch, opened, go_on));
            let network =
                place.directory.strip_prefix(&place.base).unwrap_or(Path::new("")).to_string_lossy();
            NetworkReport {
                directory: place.directory.clone(),
                base: place.base.clone(),
                database: judged.map(|judged| database_report(judged, record, &network)),
                secret: secret_report(&dir.join("hsm_secret")),
                emergency_recover: dir
                    .join("emergency.recover")
                    .symlink_metadata()
                    .is_ok_and(|meta| meta.is_file()),
            }
        })
        .collect();
    mark_superseded(&mut all);
    all
}

fn judge(database: &Path, scratch: &Path, opened: &dyn Fn(&Connection), go_on: &dyn Fn() -> bool) -> Judged {
    if let Some(linked) = database::linked(database) {
        return Judged { version: Err(format!("{linked}, {NO_FILE}")), without: None };
    }
    match database::has_journal(database) {
        None => Judged {
            version: database::judge_in_place(database, opened).map_err(|e| causes(&e)),
            without: None,
        },
        Some(journal) => Judged {
            version: database::judge_on_scratch(database, scratch, false, opened).map_err(|e| causes(&e)),
            without: (journal == Journal::Rollback && go_on())
                .then(|| database::judge_on_scratch(database, scratch, true, opened).ok())
                .flatten(),
        },
    }
}

fn database_report(judged: Judged, record: Option<&Record>, network: &str) -> DatabaseReport {
    let (version, fault) = match judged.version {
        Ok(version) => (version, None),
        Err(why) => (DatabaseVersion::default(), Some(why)),
    };
    // Only a journal that takes something back is worth a word.
    let newer = |without: &DatabaseVersion| fault.is_some() || without.data_version > version.data_version;
    let without = judged.without.filter(newer).and_then(|without| without.data_version);
    let known = record.and_then(|record| record.ledger.get(network));
    let against = match (known, version.data_version) {
        (Some(known), _) if matches!((&known.node_id, &version.node_id), (Some(a), Some(b)) if a != b) => {
            AgainstLedger::OtherNode
        }
        (Some(known), Some(version)) if version < known.data_version => AgainstLedger::Older,
        (Some(_), Some(_)) => AgainstLedger::NotOlder,
        _ => AgainstLedger::Unknown,
    };
    DatabaseReport {
        fault,
        data_version: version.data_version,
        schema_version: version.schema_version,
        node_id: version.node_id,
        without_journal: without,
        ledger: known.map(|known| LedgerReport { data_version: known.data_version, at: known.at }),
        against_ledger: against,
        superseded: false,
    }
}

/// Of several copies of one node's database only the newest is not superseded.
fn mark_superseded(networks: &mut [NetworkReport]) {
    let seen: Vec<(Option<String>, Option<i64>)> = networks
        .iter()
        .map(|n| n.database.as_ref().map_or((None, None), |d| (d.node_id.clone(), d.data_version)))
        .collect();
    for network in networks {
        let Some(database) = &mut network.database else { continue };
        let newer = |(id, version): &(Option<String>, Option<i64>)| {
            id.is_some() && *id == database.node_id && *version > database.data_version
        };
        database.superseded = seen.iter().any(newer);
    }
}

fn secret_report(path: &Path) -> Option<SecretReport> {
    let meta = fs::symlink_metadata(path).ok()?;
    let mode = meta.mode() & 0o7777;
    if let Ok(to) = fs::read_link(path) {
        let fault = Some(format!("it is a symlink to {}, {NO_FILE}", to.display()));
        return Some(SecretReport { kind: None, size: meta.len(), mode: format!("{mode:04o}"), fault });
    }
    let (kind, mut fault) = match secret::read_kind(path) {
        Ok(Ok(kind)) => (Some(kind), None),
        Ok(Err(why)) => (None, Some(why)),
        Err(e) => (None, Some(e.to_string())),
    };
    if fault.is_none() && mode & 0o077 != 0 {
        fault = Some(format!("others may read it (mode {mode:o}): chmod 400"));
    }
    Some(SecretReport { kind, size: meta.len(), mode: format!("{mode:04o}"), fault })
}

/// Sets how new all of it is, what speaks against it, and what to do next; pure. `base` is how new the way made it.
pub(super) fn conclude(report: &mut RecoveryReport, base: Freshness, mut doubts: Vec<String>) {
    let mut freshness = base;
    let mut worse = |to: Freshness| freshness = freshness.max(to);
    for network in &report.networks {
        let name = network.directory.display();
        let unread = unread(report, network);
        let lost = unread.is_some();
        if let Some((to, doubt)) = unread {
            worse(to);
            doubts.push(doubt);
        }
        let Some(database) = &network.database else {
            if !lost && (network.secret.is_some() || network.emergency_recover) {
                doubts.push(format!("{name} has no database"));
            }
            continue;
        };
        if database.superseded {
            continue;
        }
        if let Some(fault) = &database.fault {
            worse(Freshness::Unproven);
            doubts.push(format!("the database of {name} is not sound: {fault}"));
        }
        if let Some(without) = database.without_journal {
            worse(Freshness::Unproven);
            let with = database.data_version.map_or_else(|| "nothing sound".to_owned(), |v| v.to_string());
            doubts.push(format!(
                "the database of {name} has a rollback journal beside it: with it data_version is {with}, without it {without}. \
                 If that commit had ended, SQLite takes it back when the database is opened with the journal: the files lie as they were found"
            ));
        }
        match (database.against_ledger, &database.ledger, database.data_version) {
            (AgainstLedger::Older, Some(ledger), Some(version)) => {
                worse(Freshness::Old);
                doubts.push(format!(
                    "the database of {name} is OLDER than what was seen here: data_version {version}, and {} on {}",
                    ledger.data_version,
                    ledger.at.strftime("%F %T UTC")
                ));
            }
            (AgainstLedger::OtherNode, ..) => {
                worse(Freshness::Unproven);
                doubts.push(format!(
                    "the database of {name} is of another node than the one seen on this machine"
                ));
            }
            _ => {}
        }
        match &network.secret {
            None => doubts.push(format!("{name} has no hsm_secret: without it the database is of no use")),
            Some(SecretReport { kind: None, fault: Some(fault), .. }) => {
                doubts.push(format!("the hsm_secret of {name} is none: {fault}"));
            }
            Some(_) => {}
        }
    }
    for survivor in &report.survivors {
        if survivor.unchanged == Some(false) {
            doubts.push(
                survivor
                    .proof
                    .clone()
                    .unwrap_or_else(|| format!("{} is not proven unchanged", survivor.device.display())),
            );
        }
    }
    let used = || report.survivors.iter().filter(|survivor| survivor.used);
    for survivor in used() {
        // Where another has it all, or all of the same share, that one is read.
        let same = used().filter(|other| other.share == survivor.share);
        let Some(why) = survivor.lacks.as_deref().filter(|_| same.clone().all(|s| s.lacks.is_some())) else {
            continue;
        };
        worse(Freshness::Unproven);
        doubts.push(format!("{}: {why}", survivor.device.display()));
    }
    report.freshness = freshness;
    report.doubts = doubts;
    report.next = next(report);
}

/// What could not be read of a network's database, and how new the database can be called then.
fn unread(report: &RecoveryReport, network: &NetworkReport) -> Option<(Freshness, String)> {
    // What lacks the log lacks what was committed last. Without its journal, what was begun is in it as if it had ended.
    let parts = [
        ("-wal", Freshness::Old, "what was committed last may have been in it alone"),
        ("-journal", Freshness::Unproven, "what was not committed may be left in the database without it"),
        ("", Freshness::Unproven, "the database itself is not among the files"),
    ];
    parts.into_iter().find_map(|(end, freshness, says)| {
        let file = network.directory.join(format!("{DATABASE}{end}"));
        if report.files.iter().any(|out| out.path == file) {
            return None;
        }
        // Nobody knows what was in a directory that was not read to its end.
        let lost = report.unreadable.iter().find(|lost| file.starts_with(&lost.path))?;
        let doubt = if lost.path == file {
            format!("{} could not be read: {says}", file.display())
        } else {
            let dir = if lost.path.as_os_str().is_empty() { Path::new("/") } else { &lost.path };
            format!(
                "{} could not be read to its end, so nobody knows whether {} was there: {says}",
                dir.display(),
                file.display()
            )
        };
        Some((freshness, doubt))
    })
}

fn has_secret(network: &NetworkReport) -> bool {
    network.secret.as_ref().is_some_and(|secret| secret.kind.is_some())
}

fn is_sound(network: &NetworkReport) -> bool {
    network.database.as_ref().is_some_and(|database| database.fault.is_none())
}

fn next(report: &RecoveryReport) -> Vec<String> {
    let files = report.to.join(super::target::FILES);
    let live = || report.networks.iter().filter(|n| n.database.as_ref().is_none_or(|d| !d.superseded));
    // Whoever starts a node in a directory may start it for any network there.
    let is_whole = |n: &NetworkReport| is_sound(n) && has_secret(n);
    let network = live().find(|one| live().filter(|n| n.base == one.base).all(is_whole));
    let journal =
        report.networks.iter().any(|n| n.database.as_ref().is_some_and(|d| d.without_journal.is_some()));
    let mut next = Vec::new();
    match (report.freshness, network) {
        (_, None) if report.networks.is_empty() => {
            next.push("no node was found among the files; they are what the mirror held".to_owned());
        }
        (Freshness::Newest, Some(network)) => next.extend(start(report, &files.join(&network.base))),
        (freshness, _) => {
            if freshness == Freshness::Newest {
                next.push(
                    "do NOT start a node from these files as they are: something of it is missing".to_owned(),
                );
            } else {
                next.push("do NOT start a node from these files: a peer may take everything if a channel's state is old".to_owned());
            }
            if journal {
                next.push(
                    "to keep the newer state, work on a copy: move lightningd.sqlite3-journal out of the copy's directory, and see that \
                     SQLite finds it sound (PRAGMA integrity_check) and that its data_version is the higher one, before anything opens it"
                        .to_owned(),
                );
            }
            let sound = live().any(is_sound);
            if freshness != Freshness::Newest || !sound {
                next.push("look for a newer state first: the other members of the mirror, also damaged ones, one at a time with --from".to_owned());
            }
            if freshness == Freshness::Old || !sound {
                let secret = if live().any(has_secret) {
                    "this hsm_secret"
                } else {
                    "the node's hsm_secret, from a copy of it"
                };
                next.push(format!(
                    "if there is none: set up a new node with {secret} and a copy of emergency.recover, and run lightning-cli \
                     emergencyrecover: the peers are asked to close the channels"
                ));
            }
        }
    }
    for network in live().filter(|n| n.database.is_some() && !has_secret(n)) {
        next.push(format!(
            "do NOT start a node in a copy of {} before its own hsm_secret is there: it would make a new one, which has none of the funds. \
             Look for it on the other members of the mirror (--from), then for a copy or the words of it elsewhere",
            files.join(&network.directory).display()
        ));
    }
    if !report.unreadable.is_empty() {
        next.push(
            "what could not be read may be on another member: read that one with --from too".to_owned(),
        );
    }
    next
}

/// How the node gets from the files at `base` to where its funds are safe.
fn start(report: &RecoveryReport, base: &Path) -> [String; 6] {
    [
        "see that the old node cannot start any more: never run two nodes on copies of one database".to_owned(),
        format!(
            "keep a copy of {} on another disk, and never start a node from that copy",
            report.to.display()
        ),
        format!(
            "copy {} to a healthy disk (cp -a), give it to the node's user, and start the node there: lightningd --lightning-dir=COPY",
            base.display()
        ),
        "close all channels (lightning-cli close ID, for each of lightning-cli listpeerchannels) and wait until all are closed on the chain".to_owned(),
        "sweep the funds to cold storage: lightning-cli withdraw ADDRESS all".to_owned(),
        "set up a new node on a new mirror: raidguard setup".to_owned(),
    ]
}

/// Where something of the mirror lies among what came out.
pub(super) fn inside(kind: &str, path: &Path) -> PathBuf {
    Path::new(kind).join(path)
}
