//! Telling the operator: what there is to tell is kept in the record with that it was told, then each channel is tried; and `notify`.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{Exit, Trouble, mirrors, mirrors::Judged};
use crate::{
    config::{Notify, SECRETS_PATH},
    health,
    host::{
        Host,
        files::{self, FileError},
        lock::{self, LockError},
        random_uuid,
        state::{State, StateError},
    },
    model::{Event, EventKind, Finding, Severity, Source, Verdict, observed::causes, record::Told},
    notify::{Channel, Channels, Heartbeat, Limits},
    ui::{self, Console, Tried},
};

/// What a message is about that is not about one mirror. None can have this name.
const DECLARATION: &str = "raidguard.toml";
/// Held by whoever delivers. No mirror can have this name.
const LOCK: &str = "_notify";

/// Why nothing was told.
#[derive(Debug, thiserror::Error)]
enum TellError {
    /// The record.
    #[error(transparent)]
    State(#[from] StateError),
    /// It could not even be opened.
    #[error("{0}")]
    Closed(String),
    /// The kernel's random numbers.
    #[error("no random numbers can be had")]
    Random(#[source] io::Error),
}

fn remind_after(notify: Option<&Notify>) -> Option<u32> {
    notify.map_or_else(|| Notify::default().remind_after(), Notify::remind_after)
}

/// Tells what is to be told, sends what waits, and gives the sign of life. What fails is said, and is a finding of the next check.
pub(super) fn tell(host: &Host, notify: Option<&Notify>, judged: &[Judged], console: &Console) {
    let channels = Channels::of(host, notify);
    let remind = remind_after(notify);
    for failure in tell_by(host, &channels, remind, judged, Limits::default()) {
        console.warn(failure);
    }
}

/// Tells that the declaration cannot be read, so that nobody looks after any mirror: by the channels that can still be made out. There
/// is no sign of life, because nothing was looked at, and no channel is forgotten that may be declared there.
pub(super) fn tell_unreadable(host: &Host, why: &str, console: &Console) {
    // What is wrong may be elsewhere in the file.
    let bytes = files::read_regular(&host.path(crate::config::PATH));
    let notify = bytes.ok().and_then(|bytes| crate::config::notify_of(&String::from_utf8_lossy(&bytes)));
    tell_blind(host, notify.as_ref(), unreadable(why), console);
}

/// Tells that a check has nothing to look at: somebody removed the declaration, or all mirrors from it, and left the jobs. No sign of
/// life either.
pub(super) fn tell_undeclared(host: &Host, notify: Option<&Notify>, console: &Console) {
    tell_blind(host, notify, undeclared(), console);
}

fn tell_blind(host: &Host, notify: Option<&Notify>, finding: Finding, console: &Console) {
    let channels = Channels::of(host, notify);
    let limits = Limits::default();
    let verdict = Verdict::of(vec![finding], None);
    let state = State::open(host);
    let news = News { name: DECLARATION, verdict: &verdict };
    let mut failures = tell_each(host, &state, &channels, remind_after(notify), &[news], limits);
    failures.extend(send(host, &state, &channels, limits));
    for failure in failures {
        console.warn(failure);
    }
}

fn unreadable(why: &str) -> Finding {
    Finding {
        code: "OBS-FAILED".to_owned(),
        severity: Severity::Unknown,
        about: "the declaration".to_owned(),
        says: format!("{} cannot be read, so no mirror was looked at", crate::config::PATH),
        evidence: vec![why.to_owned()],
        remedy: "mend the line that is named, then `raidguard check`".to_owned(),
        source: Source::Record,
        since: None,
    }
}

fn undeclared() -> Finding {
    Finding {
        says: format!("{} declares no mirror, so none was looked at", crate::config::PATH),
        evidence: Vec::new(),
        remedy:
            "`raidguard adopt MOUNTPOINT` for each mirror; where none is left: `raidguard schedule remove`"
                .to_owned(),
        ..unreadable("")
    }
}

/// What there may be to tell of a mirror, or of the declaration.
#[derive(Clone, Copy)]
struct News<'a> {
    name: &'a str,
    verdict: &'a Verdict,
}

/// As [`tell`]; returns what failed beyond a channel that did not take a message.
fn tell_by(
    host: &Host,
    channels: &Channels,
    remind: Option<u32>,
    judged: &[Judged],
    limits: Limits,
) -> Vec<String> {
    let state = State::open(host);
    // It was read.
    let well = Verdict::of(Vec::new(), None);
    let declaration = News { name: DECLARATION, verdict: &well };
    let each = judged.iter().map(|one| News { name: &one.mirror.name, verdict: &one.verdict });
    let news: Vec<_> = std::iter::once(declaration).chain(each).collect();
    let mut failures = tell_each(host, &state, channels, remind, &news, limits);
    let level = judged.iter().map(|one| one.verdict.level).max().unwrap_or(Severity::Unknown);
    if let Ok(Err(e)) = state.as_ref().map(|state| state.keep_channels(&channels.known())) {
        failures.push(format!("channels that are gone could not be forgotten: {}", causes(&e)));
    }
    failures.extend(send(host, &state, channels, limits));
    if let Some(heartbeat) = &channels.heartbeat {
        let error = heartbeat.beat(host, host.now(), level, limits).err().map(|e| causes(&e));
        let kept =
            state.as_ref().map(|state| state.channel_said(Heartbeat::NAME, error.as_deref(), host.now()));
        if let Ok(Err(e)) = kept {
            failures.push(format!("what the heartbeat said could not be kept: {}", causes(&e)));
        }
    }
    failures
}

fn tell_each(
    host: &Host,
    state: &Result<State, StateError>,
    channels: &Channels,
    remind: Option<u32>,
    news: &[News<'_>],
    limits: Limits,
) -> Vec<String> {
    let mut failures = Vec::new();
    for one in news {
        let queued = match state {
            Ok(state) => queue(host, state, *one, &channels.takers(), remind),
            Err(e) => Err(TellError::Closed(causes(e))),
        };
        if let Err(e) = queued {
            failures.push(format!("what is to be told of {} could not be kept: {}", one.name, causes(&e)));
            failures.extend(tell_straight(host, channels, *one, remind, limits));
        }
    }
    failures
}

/// Sends what waits, as far as the record can be used.
fn send(
    host: &Host,
    state: &Result<State, StateError>,
    channels: &Channels,
    limits: Limits,
) -> Option<String> {
    let sent = deliver(host, state.as_ref().ok()?, channels, limits);
    sent.err().map(|e| format!("messages that wait could not be sent: {}", causes(&e)))
}

/// Writes the message for every channel and that it was told, both or neither.
fn queue(
    host: &Host,
    state: &State,
    one: News<'_>,
    channels: &[&str],
    remind: Option<u32>,
) -> Result<(), TellError> {
    let (mirror, now) = (one.name, host.now());
    let id = random_uuid().map_err(TellError::Random)?;
    let told: Option<Told> = state.get(mirror, "told")?;
    if health::tell(told.as_ref(), one.verdict, now, remind).is_some() {
        state.durably(|| {
            // Another check may have told the same meanwhile.
            let told: Option<Told> = state.get(mirror, "told")?;
            let Some(kind) = health::tell(told.as_ref(), one.verdict, now, remind) else { return Ok(()) };
            let event = event(host, one, told.as_ref(), kind, id);
            state.queue(&event, channels, now)?;
            state.put(mirror, "told", &now_told(event, one.verdict))
        })?;
    }
    // What was told while the record could not be written counts no longer.
    let _ = files::remove(&straight_path(host, mirror));
    Ok(())
}

fn event(host: &Host, one: News<'_>, told: Option<&Told>, kind: EventKind, id: String) -> Event {
    let faults: Vec<Finding> = one.verdict.faults().cloned().collect();
    let gone = |before: &&Finding| !faults.iter().any(|now| now.is_same(before));
    Event {
        id,
        kind,
        host: host.name(),
        mirror: one.name.to_owned(),
        at: host.now(),
        verdict: one.verdict.level,
        before: told.map_or(Severity::Ok, |told| told.verdict),
        cleared: told.iter().flat_map(|told| &told.faults).filter(gone).cloned().collect(),
        findings: faults,
    }
}

fn now_told(event: Event, verdict: &Verdict) -> Told {
    let Event { kind, findings, at, .. } = event;
    Told { kind, verdict: verdict.level, may_fail: verdict.may_fail, faults: findings, at }
}

/// What was told last of a mirror while the record cannot be used: a file that the next start of the machine forgets.
fn straight_path(host: &Host, mirror: &str) -> std::path::PathBuf {
    host.path(lock::RUN_DIR).join(format!("{mirror}.told"))
}

fn told_straight(host: &Host, mirror: &str) -> Option<Told> {
    let text = std::fs::read_to_string(straight_path(host, mirror)).ok()?;
    serde_json::from_str(&text).ok()
}

/// A disk that is full or read-only must not keep the news from the operator: each channel is tried at once, without a queue.
fn tell_straight(
    host: &Host,
    channels: &Channels,
    one: News<'_>,
    remind: Option<u32>,
    limits: Limits,
) -> Vec<String> {
    let told = told_straight(host, one.name);
    let Some(kind) = health::tell(told.as_ref(), one.verdict, host.now(), remind) else { return Vec::new() };
    let id =
        random_uuid().unwrap_or_else(|_| format!("{}-{}", std::process::id(), host.now().as_nanosecond()));
    let event = event(host, one, told.as_ref(), kind, id);
    let send =
        |channel: &Channel| channel.send(host, &event, limits).map_err(|e| (channel.name(), causes(&e)));
    let failed: Vec<_> = channels.send.iter().filter_map(|channel| send(channel).err()).collect();
    if failed.len() < channels.send.len() || channels.send.is_empty() {
        let _ = keep_straight(host, &now_told(event, one.verdict), one.name);
    }
    failed.into_iter().map(|(name, why)| format!("{name} failed: {why}")).collect()
}

fn keep_straight(host: &Host, told: &Told, mirror: &str) -> Result<(), FileError> {
    files::create_dirs(&host.path(lock::RUN_DIR), 0o700)?;
    files::replace(&straight_path(host, mirror), serde_json::json!(told).to_string().as_bytes(), 0o600)
}

/// Sends what is due, the oldest first; each is taken out as soon as it was taken. Whoever comes second leaves it to the first.
fn deliver(host: &Host, state: &State, channels: &Channels, limits: Limits) -> Result<(), StateError> {
    let began = Instant::now();
    let left = || limits.all.saturating_sub(began.elapsed());
    loop {
        let lock = match lock::take(host, LOCK, "notify") {
            Err(LockError::Held { .. }) => return Ok(()),
            // Twice told is better than not at all.
            Err(LockError::File(_)) => None,
            Ok(lock) => Some(lock),
        };
        let sent = channels.send.iter().map(|channel| deliver_by(host, state, channel, limits, &left));
        // One channel's trouble is not the others'.
        let sent = sent.fold(Ok(()), Result::and);
        drop(lock);
        sent?;
        // Whoever found the lock held in the meantime relies on a last look after it was released.
        let mut due = channels.send.iter().map(|channel| state.due(channel.name(), host.now()));
        let more = due.try_fold(false, |more, due| due.map(|due| more || due.is_some()))?;
        if !more || stop(host, left()) {
            return Ok(());
        }
    }
}

fn stop(host: &Host, left: Duration) -> bool {
    left.is_zero() || host.interrupt().is_raised()
}

fn deliver_by(
    host: &Host,
    state: &State,
    channel: &Channel,
    limits: Limits,
    left: &dyn Fn() -> Duration,
) -> Result<(), StateError> {
    while let Some(message) = state.due(channel.name(), host.now())? {
        match channel.send(host, &message.event, limits) {
            Ok(()) => state.delivered(&message)?,
            Err(e) => return state.not_delivered(&message, &causes(&e), host.now()),
        }
        if stop(host, left()) {
            break;
        }
    }
    Ok(())
}

/// Runs `notify --test`: every channel at once, without a queue.
///
/// # Errors
/// The declaration cannot be read, or there is no channel.
pub fn test(host: &Host, json: bool, console: &Console) -> Result<Exit, Trouble> {
    let config = mirrors::declaration(host)?;
    let channels = Channels::of(host, config.notify.as_ref());
    let mirror = config.mirror.first().map(|m| m.name.clone()).unwrap_or_default();
    let tried = try_each(host, &channels, mirror, Limits::default())?;
    console.data(if json { ui::json("channels", &tried)? } else { ui::notify(&tried) });
    Ok(if tried.iter().all(|one| one.ok) { Exit::Done } else { Exit::Failed })
}

fn try_each(host: &Host, channels: &Channels, mirror: String, limits: Limits) -> Result<Vec<Tried>, Trouble> {
    let event = Event {
        id: random_uuid().map_err(|e| Trouble::failed("no random numbers can be had", e))?,
        kind: EventKind::Test,
        host: host.name(),
        mirror,
        at: host.now(),
        verdict: Severity::Ok,
        before: Severity::Ok,
        findings: Vec::new(),
        cleared: Vec::new(),
    };
    let tried = |channel, error: Option<String>| Tried { channel, ok: error.is_none(), error };
    let mut all: Vec<_> = channels
        .send
        .iter()
        .map(|channel| tried(channel.name(), channel.send(host, &event, limits).err().map(|e| causes(&e))))
        .collect();
    if let Some(heartbeat) = &channels.heartbeat {
        all.push(tried(Heartbeat::NAME, heartbeat.try_out(host, limits).err().map(|e| causes(&e))));
    }
    if let Some(why) = &channels.locked {
        all.push(tried("secrets", Some(why.clone())));
    }
    if all.is_empty() {
        return Err(Trouble::refused(
            "no channel is declared, and the machine has no sendmail",
            format!(
                "[notify] with mail, command or heartbeat_file in {}, or webhook or heartbeat in {SECRETS_PATH} (mode 0600)",
                crate::config::PATH
            ),
        ));
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
