//! Messages that wait to be delivered: one row for each channel, taken away once the channel has taken it. In each channel the oldest goes
//! first, and none overtakes another.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension as _, params};

use super::{State, StateError, value_of};
use crate::model::{event::Event, record::ChannelFailure};

/// How many messages wait for a channel at most; then the oldest goes.
const KEPT: u32 = 1000;
/// The longest time between two attempts.
const LONGEST: SignedDuration = SignedDuration::from_hours(6);

/// A message that waits for a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its place: a later message's is greater.
    pub place: String,
    /// The channel.
    pub channel: String,
    /// The message.
    pub event: Event,
    /// How often it was tried in vain.
    pub attempts: u32,
}

/// How long after so many attempts in vain the next one is made.
fn backoff(attempts: u32) -> SignedDuration {
    let minutes = 1_i64 << attempts.saturating_sub(1).min(16);
    SignedDuration::from_mins(minutes).min(LONGEST)
}

fn failure_of(channel: &str) -> String {
    format!("channel/{channel}")
}

impl State {
    /// Queues a message for each of these channels. All that waits for them is due then: what is new must not wait behind what failed.
    /// Part of a transaction of the caller's.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn queue(&self, event: &Event, channels: &[&str], now: Timestamp) -> Result<(), StateError> {
        let text = serde_json::to_string(event)
            .map_err(|source| StateError::Value { name: "outbox".to_owned(), source })?;
        let last: Option<String> = self.db.query_row("SELECT max(id) FROM outbox", [], |row| row.get(0))?;
        let last = last.and_then(|id| u64::from_str_radix(&id, 16).ok()).unwrap_or(0);
        let place = format!("{:016x}", last + 1);
        for channel in channels {
            self.db.execute(
                "INSERT INTO outbox VALUES (?1, ?2, ?3, 0, ?4)",
                params![place, channel, text, now.as_second()],
            )?;
            self.db.execute(
                "UPDATE outbox SET next = ?2 WHERE channel = ?1",
                params![channel, now.as_second()],
            )?;
            self.db.execute(
                "DELETE FROM outbox WHERE channel = ?1 AND id NOT IN
                 (SELECT id FROM outbox WHERE channel = ?1 ORDER BY id DESC LIMIT ?2)",
                params![channel, KEPT],
            )?;
        }
        Ok(())
    }

    /// The oldest message that waits for a channel, if it is to be tried now.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn due(&self, channel: &str, now: Timestamp) -> Result<Option<Waiting>, StateError> {
        let sql = "SELECT id, event, attempts, next FROM outbox WHERE channel = ?1 ORDER BY id LIMIT 1";
        let oldest = self.db.query_row(sql, [channel], |row| {
            Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get::<_, i64>(3)?))
        });
        let Some((place, event, attempts, next)) = oldest.optional()? else { return Ok(None) };
        // Nothing waits longer than that: where it seems so, the clock was set back.
        let left = next.saturating_sub(now.as_second());
        if left > 0 && left <= LONGEST.as_secs() {
            return Ok(None);
        }
        let event = value_of("outbox", &event)?;
        Ok(Some(Waiting { place, channel: channel.to_owned(), event, attempts }))
    }

    /// A message was taken: it is never sent again, and its channel works.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn delivered(&self, message: &Waiting) -> Result<(), StateError> {
        let Waiting { place, channel, .. } = message;
        self.durably(|| {
            self.db.execute("DELETE FROM outbox WHERE id = ?1 AND channel = ?2", [place, channel])?;
            self.forget("", &failure_of(channel))
        })
    }

    /// A message was not taken: it is tried again later.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn not_delivered(&self, message: &Waiting, error: &str, now: Timestamp) -> Result<(), StateError> {
        let attempts = message.attempts.saturating_add(1);
        let next = now.as_second().saturating_add(backoff(attempts).as_secs());
        self.together(|| {
            self.db.execute(
                "UPDATE outbox SET attempts = ?3, next = ?4 WHERE id = ?1 AND channel = ?2",
                params![message.place, message.channel, attempts, next],
            )?;
            self.note_failure(&message.channel, error, now)
        })
    }

    /// A channel that has no messages to keep failed, or works.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn channel_said(&self, channel: &str, error: Option<&str>, now: Timestamp) -> Result<(), StateError> {
        match error {
            Some(error) => self.together(|| self.note_failure(channel, error, now)),
            None => self.forget("", &failure_of(channel)),
        }
    }

    fn note_failure(&self, channel: &str, error: &str, now: Timestamp) -> Result<(), StateError> {
        let name = failure_of(channel);
        let before: Option<ChannelFailure> = self.get("", &name)?;
        let sql = "SELECT count(*) FROM outbox WHERE channel = ?1";
        let waiting: i64 = self.db.query_row(sql, [channel], |row| row.get(0))?;
        let failure = ChannelFailure {
            channel: channel.to_owned(),
            error: error.to_owned(),
            since: before.map_or(now, |before| before.since),
            waiting: u64::try_from(waiting).unwrap_or_default(),
        };
        self.put("", &name, &failure)
    }

    /// Drops what waits for channels that are no longer, and what was said of them.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_channels(&self, known: &[&str]) -> Result<(), StateError> {
        let waiting: Vec<String> = {
            let mut statement = self.db.prepare("SELECT DISTINCT channel FROM outbox")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        let failing = self.channel_failures()?.into_iter().map(|failure| failure.channel);
        for gone in waiting.into_iter().chain(failing).filter(|name| !known.contains(&name.as_str())) {
            self.together(|| {
                self.db.execute("DELETE FROM outbox WHERE channel = ?1", [&gone])?;
                self.forget("", &failure_of(&gone))
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        exec::ScriptedRunner,
        host::Host,
        model::{EventKind, Severity},
    };
    use std::sync::Arc;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn event(id: &str) -> Event {
        Event {
            id: id.to_string(),
            kind: EventKind::Change,
            host: "host".into(),
            mirror: "m".into(),
            at: at(0),
            verdict: Severity::Critical,
            before: Severity::Ok,
            findings: Vec::new(),
            cleared: Vec::new(),
        }
    }

    fn state(dir: &tempfile::TempDir) -> State {
        State::open(&Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), at(0))).unwrap()
    }

    fn due(state: &State, channel: &str, seconds: i64) -> Option<String> {
        state.due(channel, at(seconds)).unwrap().map(|waiting| waiting.event.id)
    }

    #[test]
    fn each_channel_has_its_own_order_and_what_was_taken_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir);
        // Ids say nothing of the order, and the clock may run backwards.
        for (id, second) in [("f", 5), ("a", 3), ("c", 9)] {
            state.durably(|| state.queue(&event(id), &["mail", "webhook"], at(second))).unwrap();
        }
        for id in ["f", "a", "c"] {
            let message = state.due("mail", at(10)).unwrap().unwrap();
            assert_eq!(message.event.id, id);
            // Killed between delivery and deletion: another process finds the same message.
            let again = self::state(&dir).due("mail", at(10)).unwrap().unwrap();
            assert_eq!(again, message);
            state.delivered(&message).unwrap();
        }
        assert_eq!(due(&self::state(&dir), "mail", 99), None);
        assert_eq!(due(&state, "webhook", 10).as_deref(), Some("f"));
    }

    #[test]
    fn nothing_overtakes_what_failed_and_it_is_tried_at_growing_intervals_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir);
        state.durably(|| state.queue(&event("1"), &["webhook"], at(0))).unwrap();
        let (mut now, mut waits) = (0, Vec::new());
        for _ in 0..40 {
            let message = state.due("webhook", at(now)).unwrap().unwrap();
            state.not_delivered(&message, "why", at(now)).unwrap();
            let wait =
                (1..1000).find(|minutes| due(&state, "webhook", now + minutes * 60).is_some()).unwrap();
            assert_eq!(due(&state, "webhook", now + wait * 60 - 1), None);
            waits.push(wait);
            now += wait * 60;
        }
        assert_eq!(waits[..11], [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360]);
        assert!(waits[11..].iter().all(|wait| *wait == 360));
        let message = state.due("webhook", at(now)).unwrap().unwrap();
        state.not_delivered(&message, "why", at(now)).unwrap();
        assert_eq!(due(&state, "webhook", now - 100_000).as_deref(), Some("1"), "the clock was set back");
        // What is new makes the channel due; the old one still goes first.
        state.durably(|| state.queue(&event("2"), &["webhook"], at(now + 1))).unwrap();
        assert_eq!(due(&state, "webhook", now + 1).as_deref(), Some("1"));
    }

    #[test]
    fn a_failure_is_known_since_the_first_and_until_something_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir);
        for id in ["1", "2"] {
            state.durably(|| state.queue(&event(id), &["webhook", "mail"], at(0))).unwrap();
        }
        for (error, second) in [("first", 0), ("second", 60)] {
            let message = state.due("webhook", at(second)).unwrap().unwrap();
            state.not_delivered(&message, error, at(second)).unwrap();
        }
        state.channel_said("heartbeat", Some("down"), at(7)).unwrap();
        let said = |channel: &str, error: &str, since, waiting| ChannelFailure {
            channel: channel.into(),
            error: error.into(),
            since: at(since),
            waiting,
        };
        let webhook = said("webhook", "second", 0, 2);
        assert_eq!(state.channel_failures().unwrap(), [said("heartbeat", "down", 7, 0), webhook.clone()]);
        state.channel_said("heartbeat", None, at(8)).unwrap();
        assert_eq!(state.channel_failures().unwrap(), [webhook]);
        state.delivered(&state.due("webhook", at(600)).unwrap().unwrap()).unwrap();
        assert_eq!(state.channel_failures().unwrap(), []);
        assert_eq!(due(&state, "webhook", 600).as_deref(), Some("2"));
    }

    #[test]
    fn a_thousand_are_kept_and_a_channel_that_is_gone_takes_its_own_along() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir);
        state
            .together(|| {
                (0..1003).try_for_each(|id| state.queue(&event(&id.to_string()), &["webhook"], at(0)))
            })
            .unwrap();
        state.durably(|| state.queue(&event("m"), &["mail"], at(0))).unwrap();
        assert_eq!(due(&state, "webhook", 0).as_deref(), Some("3"));
        assert_eq!(due(&state, "mail", 0).as_deref(), Some("m"));
        state.not_delivered(&state.due("webhook", at(0)).unwrap().unwrap(), "why", at(0)).unwrap();
        assert_eq!(state.channel_failures().unwrap()[0].waiting, 1000);
        state.keep_channels(&["mail", "heartbeat"]).unwrap();
        assert_eq!((due(&state, "webhook", 9999), state.channel_failures().unwrap()), (None, Vec::new()));
        assert_eq!(due(&state, "mail", 0).as_deref(), Some("m"));
    }
}
