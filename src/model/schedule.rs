//! When a job runs: five-field crontab text (crontab(5)), behind a type of our own because the `cron` crate reads it otherwise.
//! There the first field is seconds, Sunday is 1 rather than 0, and a day of month and a weekday must both match rather than either.

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp,
    tz::{AmbiguousOffset, TimeZone},
};
use serde::{Deserialize, Serialize};

use super::Zone;

const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// A crontab expression that has been understood.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    fields: [String; 5],
    inner: cron::Schedule,
}

/// Why an expression is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a schedule: {why}")]
pub struct ScheduleError {
    text: String,
    why: String,
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let error = |why: &str| ScheduleError { text: text.to_owned(), why: why.to_owned() };
        let fields: Vec<&str> = text.split_whitespace().collect();
        let Ok([minute, hour, day, month, weekday]) = <[&str; 5]>::try_from(fields) else {
            return Err(error("it needs five fields: minute, hour, day of month, month, weekday"));
        };
        if day != "*" && weekday != "*" {
            return Err(error(
                "cron runs it when either the day of month or the weekday matches, which is hardly meant: leave one `*`",
            ));
        }
        let weekday = name_days(weekday)
            .ok_or_else(|| error("a weekday is 0 to 7 or Sun to Sat, singly, in lists or in ranges"))?;
        let fields = [minute, hour, day, month, &weekday].map(str::to_owned);
        let inner = cron::Schedule::from_str(&format!("0 {}", fields.join(" ")))
            .map_err(|e| error(&e.to_string()))?;
        Ok(Self { text: text.to_owned(), fields, inner })
    }
}

/// Numbers become names, which mean the same to everybody. Ranges are written out, since `5-7` crosses the week's end.
fn name_days(field: &str) -> Option<String> {
    let number = |text: &str| -> Option<usize> {
        match text.parse::<usize>() {
            Ok(n @ 0..=7) => Some(n),
            Ok(_) => None,
            Err(_) => DAYS.iter().position(|day| day.eq_ignore_ascii_case(text)),
        }
    };
    if field == "*" {
        return Some(field.to_owned());
    }
    let mut names = Vec::new();
    for part in field.split(',') {
        let (from, to) = match part.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(part)?, number(part)?),
        };
        if from > to {
            return None;
        }
        names.extend((from..=to).filter_map(|n| DAYS.get(n % 7)).copied());
    }
    Some(names.join(","))
}

impl Schedule {
    /// The expression as it was written, for a crontab.
    pub fn as_crontab(&self) -> &str {
        &self.text
    }

    /// The next `count` runs after `now`, in local time. One that a change of the clocks leaves out is skipped that day; one that comes
    /// twice is its first.
    pub fn next(&self, now: Timestamp, count: usize, zone: &Zone) -> Vec<jiff::Zoned> {
        // What the clock on the wall shows, which is all that the expression speaks of, is counted as if it were UTC.
        let shown = now.to_zoned(zone.rule().clone()).datetime();
        let start = shown.to_zoned(TimeZone::UTC).ok().map(|shown| shown.timestamp().as_second());
        let Some(start) = start.and_then(|start| chrono::DateTime::from_timestamp(start, 0)) else {
            return Vec::new();
        };
        let run = |run: chrono::DateTime<chrono::Utc>| {
            let shown = Timestamp::from_second(run.timestamp()).ok()?.to_zoned(TimeZone::UTC).datetime();
            let run = zone.rule().to_ambiguous_zoned(shown);
            if matches!(run.offset(), AmbiguousOffset::Gap { .. }) { None } else { run.earlier().ok() }
        };
        self.inner.after(&start).filter_map(run).filter(|run| run.timestamp() > now).take(count).collect()
    }

    /// The same as a calendar event of systemd (systemd.time(7)).
    pub fn to_oncalendar(&self) -> String {
        let [minute, hour, day, month, weekday] = &self.fields;
        let part = |field: &str| field.replace('-', "..").replace("*/", "0/");
        // Days and months begin at 1.
        let from_one = |field: &str| field.replace('-', "..").replace("*/", "1/");
        let date = format!("*-{}-{} {}:{}:00", from_one(month), from_one(day), part(hour), part(minute));
        if weekday == "*" { date } else { format!("{weekday} {date}") }
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedule({:?})", self.text)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Serialize for Schedule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weekdays(text: &str) -> Vec<jiff::civil::Weekday> {
        let schedule: Schedule = text.parse().unwrap();
        let mut days: Vec<_> = schedule
            .next(Timestamp::UNIX_EPOCH, 7, &Zone::default())
            .iter()
            .map(jiff::Zoned::weekday)
            .collect();
        days.dedup();
        days
    }

    #[test]
    fn a_weekday_is_what_crontab_means_by_it() {
        use jiff::civil::Weekday::{Friday, Monday, Saturday, Sunday};
        for (text, days) in [
            ("0 0 * * 0", vec![Sunday]),
            ("0 0 * * 7", vec![Sunday]),
            ("0 0 * * sun", vec![Sunday]),
            ("0 0 * * 1", vec![Monday]),
            ("0 0 * * 5", vec![Friday]),
            ("0 0 * * 5-7", vec![Friday, Saturday, Sunday, Friday, Saturday, Sunday, Friday]),
        ] {
            assert_eq!(weekdays(text), days, "{text}");
        }
    }

    #[test]
    fn local_time_is_what_counts() {
        let zone = Zone::of_tzif(b"TZif2\nCET-1CEST,M3.5.0,M10.5.0/3\n").unwrap();
        for (text, now, runs) in [
            ("0 3 * * *", "2026-01-31T12:00:00Z", ["2026-02-01T02:00:00Z", "2026-02-02T02:00:00Z"]),
            ("0 3 * * *", "2026-07-31T01:00:00Z", ["2026-08-01T01:00:00Z", "2026-08-02T01:00:00Z"]),
            // On the 29th of March half past two does not come; on the 25th of October it comes twice.
            ("30 2 * * *", "2026-03-28T00:00:00Z", ["2026-03-28T01:30:00Z", "2026-03-30T00:30:00Z"]),
            ("30 2 * * *", "2026-10-24T12:00:00Z", ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]),
            ("30 2 * * *", "2026-10-25T00:45:00Z", ["2026-10-26T01:30:00Z", "2026-10-27T01:30:00Z"]),
        ] {
            let next = text.parse::<Schedule>().unwrap().next(now.parse().unwrap(), 2, &zone);
            let next: Vec<_> = next.iter().map(|run| run.timestamp().to_string()).collect();
            assert_eq!(next, runs, "{text} after {now}");
        }
    }

    #[test]
    fn systemd_is_told_the_same() {
        for (text, calendar) in [
            ("*/15 * * * *", "*-*-* *:0/15:00"),
            ("0 0 * * *", "*-*-* 0:0:00"),
            ("0 0 * * 0", "Sun *-*-* 0:0:00"),
            ("30 3 1-7 * *", "*-*-1..7 3:30:00"),
            ("5 4 * */2 1,3", "Mon,Wed *-1/2-* 4:5:00"),
        ] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_oncalendar(), calendar, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for text in [
            "",
            "* * * *",
            "0 0 1 * 0",
            "61 0 * * *",
            "0 0 * * 8",
            "0 0 * * fri-mon",
            "@daily",
            "0 0 0 * * *",
            "0 0 * * */2",
        ] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    crate::fuzz::fuzzed!(fuzz_schedule, text [b"*/15 * * * *", b"30 3 * * 1-5", b"0 0 1,15 * *", b"5 4 * * sun"], |text| {
        if let Ok(schedule) = text.parse::<Schedule>() {
            schedule.to_oncalendar();
            assert!(!schedule.next(Timestamp::UNIX_EPOCH, 1, &Zone::default()).is_empty(), "{text} never comes");
        }
    });
}
