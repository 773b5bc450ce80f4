//! The databases, looked at on a snapshot: SQLite recovers and checks them there. Where the node works, nothing is opened.

use std::path::Path;

use crate::{
    backend,
    config::{Mirror, Node},
    host::{
        Host,
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
    File(#[from] crate::host::files::FileError),
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

/// How new each database is, on copies that share its blocks. Only before the node starts: nobody may write to them meanwhile.
pub(super) fn versions(mirror: &Mirror, record: &Record) -> Result<Vec<DatabaseFacts>, DeepError> {
    let Some(node) = &mirror.node else { return Ok(Vec::new()) };
    let scratch = mirror.mountpoint.join(format!(".raidguard-guard-{}", std::process::id()));
    judge(&node.data, record, &|database| database::version_on_scratch(database, &scratch))
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
