//! Since when what is known: the open findings, and each change of the verdict.

use jiff::Timestamp;
use rusqlite::params;

use super::{State, StateError, value_of};
use crate::model::{
    finding::{Finding, Severity, Verdict},
    record::{Change, Fault, Mismatches, Record},
};

/// How many changes are kept of a mirror.
const KEPT: u32 = 1000;

impl State {
    /// Remembers a verdict: the findings with the time since when each is known, and a line of history where they are others than
    /// before.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_verdict(
        &self,
        mirror: &str,
        before: &Record,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Result<(), StateError> {
        let faults = |findings: &[Finding]| -> Vec<Fault> {
            let faults = findings.iter().filter(|f| f.severity > Severity::Ok);
            faults.map(|f| Fault { code: f.code.clone(), about: f.about.clone() }).collect()
        };
        let (old, new) = (faults(&before.open), faults(&verdict.findings));
        let level = before.verdict.map(|(level, _)| level);
        self.together(|| {
            if before.first_seen.is_none() {
                self.put(mirror, "first-seen", &now)?;
            }
            self.put(mirror, "open", &verdict.findings)?;
            if level != Some(verdict.level) {
                self.put(mirror, "verdict", &(verdict.level, now))?;
            }
            if level != Some(verdict.level) || old != new {
                self.remember(mirror, now, verdict.level, &new)?;
            }
            Ok(())
        })
    }

    /// Remembers where the members of an array were found to differ.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_mismatches(&self, mirror: &str, found: Mismatches) -> Result<(), StateError> {
        self.put(mirror, "mismatches", &found)
    }

    fn remember(
        &self,
        mirror: &str,
        now: Timestamp,
        verdict: Severity,
        faults: &[Fault],
    ) -> Result<(), StateError> {
        self.db.execute(
            "INSERT INTO history VALUES (?1, ?2, ?3, ?4)",
            params![mirror, now.as_second(), text(&verdict)?, text(&faults)?],
        )?;
        self.db.execute(
            "DELETE FROM history WHERE mirror = ?1 AND rowid NOT IN
             (SELECT rowid FROM history WHERE mirror = ?1 ORDER BY rowid DESC LIMIT ?2)",
            params![mirror, KEPT],
        )?;
        Ok(())
    }

    /// The newest changes of a mirror, the last first.
    ///
    /// # Errors
    /// It cannot be read, or is not of the known form.
    pub fn history(&self, mirror: &str, count: u32) -> Result<Vec<Change>, StateError> {
        let sql = "SELECT at, verdict, findings FROM history WHERE mirror = ?1 ORDER BY rowid DESC LIMIT ?2";
        let mut statement = self.db.prepare(sql)?;
        let rows = statement.query_map(params![mirror, count], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })?;
        rows.map(|row| {
            let (at, verdict, faults) = row?;
            Ok(Change {
                at: Timestamp::from_second(at).unwrap_or_default(),
                verdict: value_of("history", &verdict)?,
                faults: value_of("history", &faults)?,
            })
        })
        .collect()
    }
}

fn text<T: serde::Serialize>(value: &T) -> Result<String, StateError> {
    serde_json::to_string(value).map_err(|source| StateError::Value { name: "history".to_owned(), source })
}
