//! The databases, looked at on a snapshot: SQLite recovers and checks them there. Where the node works, nothing is opened.

use std::{ffi::OsStr, fs, path::Path, time::Duration};

use crate::{
    backend,
    config::{Mirror, Node},
    host::{
        Host,
        files::{Doing as _, FileError},
        lock::{self, LockError},
    },
    model::{
        Record, Seen,
        observed::{DatabaseFacts, DatabaseState, DatabaseVersion, causes},
    },
    node::{
        self, database,
        within::{judge_within, limit_for},
    },
};

/// Why the databases could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum DeepError {
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("no snapshot could be made or deleted")]
    Backend(#[from] backend::BackendError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the database of `{0}` could not be looked at")]
    Database(String, #[source] database::DatabaseError),
}

/// What SQLite says of each database of the mirror's node. Skipped where there is no node, or none of Core Lightning's.
pub(super) fn databases(host: &Host, mirror: &Mirror, record: &Record) -> Seen<Vec<DatabaseFacts>> {
    match &mirror.node {
        None => Seen::Skipped,
        Some(node) => Seen::of(look(host, mirror, node, record)),
    }
}

fn look(host: &Host, mirror: &Mirror, node: &Node, record: &Record) -> Result<Vec<DatabaseFacts>, DeepError> {
    let _lock = lock::take(host, &format!("{}.deep", mirror.name), "check --deep")?;
    let backend = backend::of(mirror.backend);
    let snapshot = mirror.mountpoint.join(".raidguard-deep");
    if !backend.has_snapshots() {
        return judge(&node.data, record, &|database| node::instant::judge(host, database, &snapshot));
    }
    // What a killed run left.
    backend.drop_snapshot(host, &mirror.mountpoint, &snapshot)?;
    let data = backend.take_snapshot(host, &mirror.mountpoint, &node.data, &snapshot)?;
    let found = judge(&data, record, &|database| {
        judge_within(database, limit_for(database::scratch_size(database)), host.interrupt())
    });
    backend.drop_snapshot(host, &mirror.mountpoint, &snapshot)?;
    found
}

/// Where the guard copies a database with its journal to, with its process's number behind it.
const GUARDS: &str = ".raidguard-guard-";

/// How new each database is. Only before the node starts: nobody may write to them meanwhile.
pub(super) fn versions(
    host: &Host,
    mirror: &Mirror,
    record: &Record,
) -> Result<Vec<DatabaseFacts>, DeepError> {
    let Some(node) = &mirror.node else { return Ok(Vec::new()) };
    clear_killed(host, &mirror.mountpoint)?;
    let scratch = mirror.mountpoint.join(format!("{GUARDS}{}", std::process::id()));
    judge(&node.data, record, &|database| database::version_of_unused(database, &scratch))
}

/// Removes the copies of guards that were killed, or whose time was up.
fn clear_killed(host: &Host, mountpoint: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(mountpoint).doing("listing", mountpoint)? {
        let path = entry.doing("listing", mountpoint)?.path();
        let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        let number = name.strip_prefix(GUARDS).and_then(|number| number.parse::<u32>().ok());
        if number.is_some_and(|number| !host.path(format!("/proc/{number}")).exists()) {
            fs::remove_dir_all(&path).doing("removing", &path)?;
        }
    }
    Ok(())
}

/// How long reading these may take before a start: where a journal has to be copied along, that depends on the size. It ends before
/// systemd's own limit does (systemd-system.conf(5), `DefaultTimeoutStartSec=`, 90 s).
pub(super) fn patience(mirror: &Mirror, least: Duration) -> Result<Duration, DeepError> {
    /// What a slow disk reads and writes of one file in a second.
    const SLOWEST: u64 = 20 << 20;
    const MOST: Duration = Duration::from_secs(75);
    let Some(node) = &mirror.node else { return Ok(least) };
    let databases = node::read_layout(&node.data)?.databases;
    let size: u64 = databases.iter().map(|relative| database::scratch_size(&node.data.join(relative))).sum();
    Ok((least + Duration::from_secs(size / SLOWEST)).min(MOST))
}

/// Looks at every database below `data` with `look`; one that the record knows and that is not there is missing.
fn judge(
    data: &Path,
    record: &Record,
    look: &dyn Fn(&Path) -> Result<DatabaseVersion, database::DatabaseError>,
) -> Result<Vec<DatabaseFacts>, DeepError> {
    let layout = node::read_layout(data)?;
    let mut found = Vec::new();
    for relative in layout.databases {
        let network = relative.parent().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        let state = match look(&data.join(&relative)) {
            Ok(version) => DatabaseState::Sound(version),
            Err(e) if e.is_fault() => DatabaseState::Faulty(causes(&e)),
            Err(e) => return Err(DeepError::Database(network, e)),
        };
        found.push(DatabaseFacts { network, state });
    }
    for network in record.ledger.keys() {
        if !found.iter().any(|f| f.network == *network) {
            found.push(DatabaseFacts { network: network.clone(), state: DatabaseState::Missing });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::exec::ScriptedRunner;

    #[test]
    fn only_what_a_guard_left_that_is_no_more_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), jiff::Timestamp::UNIX_EPOCH);
        let at = |name: &str| dir.path().join("mirror").join(name);
        fs::create_dir_all(dir.path().join("proc/7")).unwrap();
        for name in [".raidguard-guard-7", ".raidguard-guard-8", ".raidguard-guard-x", "lightning"] {
            fs::create_dir_all(at(name).join("bitcoin")).unwrap();
        }
        clear_killed(&host, &dir.path().join("mirror")).unwrap();
        assert!(!at(".raidguard-guard-8").exists());
        for name in [".raidguard-guard-7", ".raidguard-guard-x", "lightning"] {
            assert!(at(name).exists(), "{name}");
        }
    }
}
