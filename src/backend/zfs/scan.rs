//! What `zpool status` says of a scan (`print_scan_scrub_resilver_status` and `print_rebuild_status_impl` in `cmd/zpool/zpool_main.c`), in
//! the locale C and in UTC.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use crate::{
    backend::ParseError,
    model::{
        Bytes,
        zfs::{ZfsScan, ZfsScanKind, ZfsScanState},
    },
};

fn bad(what: impl AsRef<str>) -> ParseError {
    ParseError::new("a scan of a pool", what)
}

/// What a section `scan:` tells of.
pub(super) enum Told {
    Nothing,
    Rebuild { runs: bool },
    Scan(ZfsScan),
}

/// What `scan:` says, a line each.
///
/// # Errors
/// It is not of that form.
pub(super) fn parse_scan(lines: &[&str]) -> Result<Told, ParseError> {
    let lines: Vec<&str> = lines.iter().map(|line| line.trim()).collect();
    let first = lines.first().copied().unwrap_or_default();
    if first == "none requested" {
        return Ok(Told::Nothing);
    }
    if first.starts_with("resilvered (") || first.starts_with("resilver (") {
        return Ok(Told::Rebuild { runs: first.contains(") in progress since ") });
    }
    let scan = |kind, state, started, ended| ZfsScan {
        kind,
        state,
        started,
        ended,
        done: None,
        total: None,
        repaired: Bytes(0),
        errors: None,
    };
    let finished = [("scrub repaired ", ZfsScanKind::Scrub), ("resilvered ", ZfsScanKind::Resilver)];
    for (begins, kind) in finished {
        let Some(rest) = first.strip_prefix(begins) else { continue };
        let fields = || {
            let (amount, rest) = rest.split_once(" in ")?;
            let (_, rest) = rest.split_once(" with ")?;
            let (errors, when) = rest.split_once(" errors on ")?;
            Some((amount, errors, when))
        };
        let (amount, errors, when) = fields().ok_or_else(|| bad(first))?;
        return Ok(Told::Scan(ZfsScan {
            repaired: parse_amount(amount)?,
            errors: Some(errors.parse().map_err(|_| bad(first))?),
            ..scan(kind, ZfsScanState::Finished, None, Some(parse_time(when)?))
        }));
    }
    for (begins, kind) in [("scrub ", ZfsScanKind::Scrub), ("resilver ", ZfsScanKind::Resilver)] {
        let Some(rest) = first.strip_prefix(begins) else { continue };
        if let Some(when) = rest.strip_prefix("canceled on ") {
            return Ok(Told::Scan(scan(kind, ZfsScanState::Canceled, None, Some(parse_time(when)?))));
        }
        let (state, started) = if let Some(when) = rest.strip_prefix("in progress since ") {
            (ZfsScanState::Running, when)
        } else if rest.starts_with("paused since ") {
            let started = lines.iter().find_map(|line| line.strip_prefix("scrub started on "));
            (ZfsScanState::Paused, started.ok_or_else(|| bad(first))?)
        } else {
            break;
        };
        // `..., 10G total`; from 2.2 on `5G / 10G scanned, ...`.
        let total = lines.iter().find_map(|line| match line.strip_suffix(" total") {
            Some(rest) => Some(rest.rsplit_once(' ')?.1),
            None => line.split_once(" / ")?.1.split_once(" scanned").map(|(total, _)| total),
        });
        let total = total.ok_or_else(|| bad("a scan without a total"))?;
        let progress = lines.iter().find_map(|line| {
            let (amount, rest) =
                line.split_once(" repaired, ").or_else(|| line.split_once(" resilvered, "))?;
            Some((amount, rest.split_once("% done")?.0))
        });
        let (amount, percent) = progress.ok_or_else(|| bad("a scan without progress"))?;
        return Ok(Told::Scan(ZfsScan {
            done: Some(parse_percent(percent)?),
            total: Some(parse_amount(total)?),
            repaired: parse_amount(amount)?,
            ..scan(kind, state, Some(parse_time(started)?), None)
        }));
    }
    Err(bad(first))
}

/// `12.34`, in hundredths; what is nothing of nothing is printed as no number.
fn parse_percent(text: &str) -> Result<u64, ParseError> {
    if matches!(text, "nan" | "-nan" | "inf") {
        return Ok(0);
    }
    let (whole, part) = text.split_once('.').ok_or_else(|| bad(text))?;
    let digits = |text: &str| {
        let number = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok());
        number.flatten().ok_or_else(|| bad(text))
    };
    if part.len() != 2 {
        return Err(bad(text));
    }
    let hundredths = digits(whole)?.checked_mul(100).and_then(|n| n.checked_add(digits(part).ok()?));
    Ok(hundredths.ok_or_else(|| bad(text))?.min(10_000))
}

/// `0B`, `1.50K`, `12G`: rounded, in powers of 1024 (`zfs_nicebytes`).
fn parse_amount(text: &str) -> Result<Bytes, ParseError> {
    let unit = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(|| bad(text))?;
    let (number, unit) = text.split_at_checked(unit).ok_or_else(|| bad(text))?;
    let shift =
        ["B", "K", "M", "G", "T", "P", "E"].iter().position(|u| *u == unit).ok_or_else(|| bad(text))?;
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = u128::from(whole.parse::<u64>().map_err(|_| bad(text))?);
    let scale =
        10_u128.checked_pow(u32::try_from(part.len()).map_err(|_| bad(text))?).ok_or_else(|| bad(text))?;
    let part = if part.is_empty() { 0 } else { u128::from(part.parse::<u64>().map_err(|_| bad(text))?) };
    let scaled = digits.checked_mul(scale).and_then(|n| n.checked_add(part)).ok_or_else(|| bad(text))?;
    let bytes = scaled.checked_mul(1_u128 << (10 * shift)).ok_or_else(|| bad(text))? / scale;
    u64::try_from(bytes).map(Bytes).map_err(|_| bad(text))
}

/// As ctime(3) writes it, in UTC: `Thu Nov 26 14:48:02 2026`.
fn parse_time(text: &str) -> Result<Timestamp, ParseError> {
    // The day of the month is filled up with a blank.
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let time = DateTime::strptime("%a %b %d %H:%M:%S %Y", words.join(" ")).map_err(|_| bad(text))?;
    time.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|_| bad(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(lines: &[&str]) -> Result<Told, ParseError> {
        parse_scan(lines)
    }

    #[test]
    fn scans_that_run_wait_or_were_given_up() {
        let told = |lines: &[&str]| match scan(lines).unwrap() {
            Told::Scan(scan) => scan,
            Told::Nothing | Told::Rebuild { .. } => panic!("{lines:?}"),
        };
        let runs = told(&[
            "scrub in progress since Thu Nov 26 14:48:02 2026",
            "\t5.00G scanned at 1.25G/s, 2.50G issued at 640M/s, 10.0G total",
            "\t0B repaired, 25.00% done, 00:00:12 to go",
        ]);
        assert_eq!(
            (runs.state, runs.done, runs.total),
            (ZfsScanState::Running, Some(2500), Some(Bytes(10 << 30)))
        );
        let waits = told(&[
            "scrub paused since Thu Nov 26 14:50:02 2026",
            "\tscrub started on Thu Nov 26 14:48:02 2026",
            "\t5.00G scanned, 2.50G issued, 10G total",
            "\t0B repaired, 25.00% done",
        ]);
        assert_eq!((waits.state, waits.started), (ZfsScanState::Paused, runs.started));
        let resilver = told(&[
            "resilver in progress since Thu Nov 26 14:48:02 2026",
            "\t5M scanned at 1M/s, 0B issued at 0B/s, 10M total",
            "\t1.50M resilvered, 0.00% done, no estimated completion time",
        ]);
        assert_eq!((resilver.kind, resilver.repaired), (ZfsScanKind::Resilver, Bytes(1_572_864)));
        let gone = told(&["resilver canceled on Thu Nov 26 14:48:02 2026"]);
        assert_eq!((gone.kind, gone.state), (ZfsScanKind::Resilver, ZfsScanState::Canceled));
        assert!(matches!(scan(&["none requested"]), Ok(Told::Nothing)));
        let rebuilds = ["resilver (mirror-0) in progress since Thu Nov 26 14:48:02 2026"];
        assert!(matches!(scan(&rebuilds), Ok(Told::Rebuild { runs: true })));
        for bad in
            ["", "scrub", "scrub repaired 1K", "scrub in progress since Thu Nov 26 14:48:02 2026", "other"]
        {
            assert!(scan(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn amounts_times_and_counts() {
        assert_eq!(parse_amount("0B"), Ok(Bytes(0)));
        assert_eq!(parse_amount("1023B"), Ok(Bytes(1023)));
        assert_eq!(parse_amount("2.25T"), Ok(Bytes(9 << 38)));
        for bad in ["", "B", "1", "1.5", "1X", "-1K", "99999999999E", "1.2.3K"] {
            assert!(parse_amount(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_percent("100.00"), Ok(10_000));
        assert!(
            parse_percent("+1.00").is_err() && parse_percent("1").is_err() && parse_percent("1.5").is_err()
        );
        assert!(parse_time("Thu Nov 31 14:48:02 2026").is_err());
    }

    crate::fuzz::fuzzed!(fuzz_zpool_scan, text [
        b"scrub repaired 1.50K in 00:00:07 with 0 errors on Thu Nov  5 14:48:02 2026",
        b"scrub paused since Thu Nov 26 14:50:02 2026\n\tscrub started on Thu Nov 26 14:48:02 2026\n\t5.00G scanned, 2.50G issued, 10G total\n\t0B repaired, 25.00% done",
        b"resilver (mirror-0) in progress since Thu Nov 26 14:48:02 2026",
    ], |text| {
        let lines: Vec<&str> = text.lines().collect();
        if let Ok(Told::Scan(scan)) = parse_scan(&lines) {
            assert!(scan.done.is_none_or(|done| done <= 10_000));
            assert_eq!(scan.done.is_some(), matches!(scan.state, ZfsScanState::Running | ZfsScanState::Paused));
        }
    });
}
