//! The declared mirrors, and what they look like now.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Trouble, observe::Asking};
use crate::{
    config::{Config, Mirror},
    health,
    host::{
        Host, declaration,
        state::{State, StateError},
    },
    model::{Observed, Record, Seen, Verdict, observed::causes},
};

/// All that is declared.
///
/// # Errors
/// The declaration cannot be read.
pub(super) fn declaration(host: &Host) -> Result<Config, Trouble> {
    declaration::load(host).map_err(|e| Trouble::failed("the declaration cannot be read", e))
}

/// Every declared mirror.
///
/// # Errors
/// As [`declaration`].
pub(super) fn declared(host: &Host) -> Result<Vec<Mirror>, Trouble> {
    Ok(declaration(host)?.mirror)
}

/// The mirror named, or the only one.
///
/// # Errors
/// There is none of that name, or a name is needed.
pub(super) fn named(host: &Host, name: Option<&str>) -> Result<Mirror, Trouble> {
    let mut mirrors = declared(host)?;
    let names = mirrors.iter().map(|m| m.name.clone()).collect::<Vec<_>>().join(", ");
    match name {
        _ if mirrors.is_empty() => Err(Trouble::refused(
            "no mirror is declared in /etc/raidguard/raidguard.toml",
            "raidguard setup makes one",
        )),
        Some(name) => mirrors
            .into_iter()
            .find(|m| m.name == name)
            .ok_or_else(|| Trouble::Usage(format!("no mirror `{name}` is declared; there is: {names}"))),
        None if mirrors.len() > 1 => Err(Trouble::Usage(format!("name one of the mirrors: {names}"))),
        None => mirrors.pop().ok_or_else(|| Trouble::Usage("no mirror is declared".to_owned())),
    }
}

/// A mirror with what is seen of it and what that means.
#[derive(Debug)]
pub(super) struct Judged {
    /// When the look began.
    pub(super) at: Timestamp,
    /// What should be.
    pub(super) mirror: Mirror,
    /// What is.
    pub(super) observed: Observed,
    /// What was.
    pub(super) record: Seen<Record>,
    /// What that means.
    pub(super) verdict: Verdict,
}

/// raidguard's own record, open where there is one.
pub(super) type Recorded = Result<Option<State>, StateError>;

/// What the record says of a mirror.
pub(super) fn recorded(state: &Recorded, mirror: &str) -> Seen<Record> {
    match state {
        Ok(None) => Seen::Read(Record::default()),
        Ok(Some(state)) => Seen::of(state.record(mirror)),
        Err(e) => Seen::Failed(causes(e)),
    }
}

/// Looks at every mirror and judges it; with the record, open. What cannot be read becomes a finding.
pub(super) fn judge_all(host: &Host, mirrors: Vec<Mirror>) -> (Vec<Judged>, Recorded) {
    let at = host.now();
    let mirrors: Arc<[Mirror]> = mirrors.into();
    let asking = Asking::begin(host, &mirrors);
    // Meanwhile.
    let state = State::open_existing(host);
    let records: Vec<_> = mirrors.iter().map(|mirror| recorded(&state, &mirror.name)).collect();
    let judged = mirrors.iter().cloned().zip(asking.answers()).zip(records);
    let judge = |((mirror, observed), record): ((Mirror, Observed), Seen<Record>)| {
        let verdict = health::judge(&mirror, &observed, &record, at);
        Judged { at, mirror, observed, record, verdict }
    };
    (judged.map(judge).collect(), state)
}
