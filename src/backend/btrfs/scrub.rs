//! Scrub: read every copy, compare checksums, mend from the other copy (btrfs-scrub(8)).

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use jiff::Timestamp;

use super::{BackendError, ParseError, observe, sysfs::SysFs};
use crate::{
    backend::{
        ScrubCounts, ScrubEnd, ScrubProgress, ScrubReport, ScrubStatus, Watcher, blocks::parse_number,
    },
    exec::{Cmd, CmdError, Flow},
    host::{Host, files::Doing as _},
    model::{Bytes, mirror::MirrorState, observed::ScrubRecord},
};

/// The documented command: it waits, with the idle I/O class.
pub(super) fn command(mountpoint: &Path) -> Cmd {
    // 3: uncorrectable errors were found, which is a result.
    let cmd = Cmd::change("btrfs").args(["scrub", "start", "-B", "-c", "2", "-n", "4"]).arg(mountpoint);
    cmd.accept(&[0, 3]).without_limit()
}

/// Scrubs to the end, or until `watch` says stop.
pub(super) fn scrub(
    host: &Host,
    mountpoint: &Path,
    state: &MirrorState,
    watch: &mut Watcher<'_, ScrubProgress>,
) -> Result<ScrubReport, BackendError> {
    let cmd = command(mountpoint);
    let line = cmd.line();
    let total = total(state);
    let (mut ticks, mut stopping) = (0_u32, false);
    let mut tick = || {
        let mut progress = ScrubProgress { bytes_scrubbed: None, bytes_total: total };
        // btrfs writes the file anew every five seconds, so it may be caught half-written: progress is a courtesy.
        if ticks % 8 == 0 {
            let record = record(host, &state.uuid).ok().flatten();
            progress.bytes_scrubbed = record.filter(|r| r.ended.is_none()).map(|r| r.scrubbed);
        }
        ticks = ticks.wrapping_add(1);
        if stopping || watch(&progress) == Flow::Continue {
            return Flow::Continue;
        }
        stopping = true;
        // The scrub then ends by itself; a signal is for the case that it cannot be told to.
        match host.runner().run(&Cmd::change("btrfs").args(["scrub", "cancel"]).arg(mountpoint)) {
            Ok(_) => Flow::Continue,
            Err(_) => Flow::Stop,
        }
    };
    let ended = host.runner().run_watched(&cmd, &mut tick);
    match ended {
        Ok(_) => {}
        Err(e) if already_running(&e) => {
            return Ok(ScrubReport {
                command: line,
                end: ScrubEnd::AlreadyRunning,
                compared: false,
                status: None,
            });
        }
        Err(_) if stopping => {}
        Err(e) => return Err(e.into()),
    }
    let output = host.runner().run(&Cmd::probe("btrfs").args(["scrub", "status", "-R"]).arg(mountpoint))?;
    let status = parse_status(&output.text())?;
    let end = match status.as_ref().map(|s| s.status.as_str()) {
        // The kernel comes to the end also without a member that was pulled, and calls mended what it has read from another.
        Some("finished") if is_whole(host, mountpoint, state)? => ScrubEnd::Finished,
        _ if stopping => ScrubEnd::Stopped,
        _ => ScrubEnd::Aborted,
    };
    Ok(ScrubReport { command: line, end, compared: false, status })
}

fn is_whole(host: &Host, mountpoint: &Path, state: &MirrorState) -> Result<bool, BackendError> {
    // Where it was unmounted meanwhile there is nothing to look at, and the kernel has said how far it came.
    Ok(SysFs::find(host, &state.uuid)?.is_none()
        || observe::observe(host, &state.uuid, mountpoint)?.members.iter().all(|m| !m.missing))
}

fn already_running(error: &CmdError) -> bool {
    error.code() == Some(1) && error.said.as_ref().is_some_and(|said| said.contains("already running"))
}

/// What there is to read: every copy of everything.
fn total(state: &MirrorState) -> Option<Bytes> {
    let each = state.profiles.iter().map(|p| p.copies().map(|c| p.used.0.saturating_mul(c.copies)));
    each.sum::<Option<u64>>().filter(|sum| *sum > 0).map(Bytes)
}

/// Reads `btrfs scrub status -R`. `None` where no scrub was ever started.
pub(super) fn parse_status(text: &str) -> Result<Option<ScrubStatus>, ParseError> {
    let bad = |what: &str| ParseError::new("btrfs scrub status", what);
    let mut uuid = None;
    let mut fields = BTreeMap::new();
    let mut never = false;
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if line == "no stats available" {
            never = true;
        } else {
            let (name, value) = line.split_once(':').ok_or_else(|| bad(line))?;
            let value = value.trim();
            if name == "UUID" {
                uuid = Some(value.to_owned());
            } else {
                fields.insert(name, value);
            }
        }
    }
    let uuid = uuid.ok_or_else(|| bad("no UUID"))?;
    if never {
        return Ok(None);
    }
    let get = |name: &str| fields.get(name).copied().ok_or_else(|| bad(&format!("no `{name}`")));
    let number = |name: &'static str| parse_number(name, get(name)?);
    let scrubbed = number("data_bytes_scrubbed")?.checked_add(number("tree_bytes_scrubbed")?);
    let status = get("Status")?;
    if !["finished", "aborted", "running", "interrupted"].contains(&status) {
        return Err(bad(status));
    }
    let started = match fields.get("Scrub started") {
        Some(text) => *text,
        None => get("Scrub resumed")?,
    };
    Ok(Some(ScrubStatus {
        uuid,
        started: started.to_owned(),
        status: status.to_owned(),
        duration: get("Duration")?.to_owned(),
        bytes_scrubbed: Bytes(scrubbed.ok_or_else(|| bad("the bytes scrubbed overflow"))?),
        counts: ScrubCounts {
            read: number("read_errors")?,
            checksum: number("csum_errors")?,
            verify: number("verify_errors")?,
            superblock: number("super_errors")?,
            memory: number("malloc_errors")?,
            corrected: number("corrected_errors")?,
            uncorrectable: number("uncorrectable_errors")?,
            unverified: number("unverified_errors")?,
            mismatched: 0,
        },
    }))
}

/// btrfs writes its record anew about every five seconds while a scrub runs: one that is older than this, in seconds, and says that it
/// runs, was interrupted.
const SILENT: i64 = 60;

/// Where btrfs keeps what a scrub found.
fn record_path(uuid: &str) -> String {
    format!("/var/lib/btrfs/scrub.status.{uuid}")
}

/// What btrfs's own record says of the last scrub.
pub(super) fn record(host: &Host, uuid: &str) -> Result<Option<ScrubRecord>, BackendError> {
    let path = record_path(uuid);
    let Some(text) = host.read_optional(&path).doing("reading", &path)? else { return Ok(None) };
    let written = fs::metadata(host.path(&path)).doing("reading", &path)?.mtime();
    let written =
        Timestamp::from_second(written).map_err(|_| ParseError::new("the scrub status file's time", ""))?;
    Ok(parse_record(&text, written, host.now())?)
}

/// Reads `/var/lib/btrfs/scrub.status.UUID` (btrfs-progs: `cmds/scrub.c`, `scrub_read_file`): a line a member, its fields parted by bars.
/// `written` is when the file was.
pub(super) fn parse_record(
    text: &str,
    written: Timestamp,
    now: Timestamp,
) -> Result<Option<ScrubRecord>, ParseError> {
    let bad = |what: &str| ParseError::new("the scrub status file", what);
    let mut lines = text.lines();
    if lines.next() != Some("scrub status:1") {
        return Err(bad("its first line is another"));
    }
    let mut whole: Option<ScrubRecord> = None;
    for line in lines.filter(|l| !l.is_empty()) {
        let one = parse_line(line, written, now)?;
        whole = Some(match whole {
            None => one,
            Some(sum) => ScrubRecord {
                started: sum.started.min(one.started),
                // It runs while one member's part does.
                ended: sum.ended.and_then(|end| one.ended.map(|other| end.max(other))),
                finished: sum.finished && one.finished,
                cancelled: sum.cancelled || one.cancelled,
                scrubbed: Bytes(sum.scrubbed.0.saturating_add(one.scrubbed.0)),
                corrected: sum.corrected.saturating_add(one.corrected),
                uncorrectable: sum.uncorrectable.saturating_add(one.uncorrectable),
                unmended_on: match (sum.unmended_on, one.unmended_on) {
                    (Some(some), Some(more)) => Some(some.into_iter().chain(more).collect()),
                    (some, more) => some.or(more),
                },
            },
        });
    }
    Ok(whole)
}

fn parse_line(line: &str, written: Timestamp, now: Timestamp) -> Result<ScrubRecord, ParseError> {
    let bad = |what: &str| ParseError::new("the scrub status file", what);
    let mut fields = BTreeMap::new();
    let devid = line.split('|').next().and_then(|of| of.rsplit_once(':')?.1.parse::<u64>().ok());
    let devid = devid.ok_or_else(|| bad(line))?;
    for field in line.split('|').skip(1) {
        let (name, value) = field.split_once(':').ok_or_else(|| bad(field))?;
        fields.insert(name, value.parse::<u64>().map_err(|_| bad(field))?);
    }
    let get = |name: &str| fields.get(name).copied().ok_or_else(|| bad(&format!("no `{name}` in {line}")));
    let time = |seconds: u64| {
        let seconds = i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
        seconds.ok_or_else(|| bad("a time that cannot be"))
    };
    let (finished, cancelled) = (get("finished")? == 1, get("canceled")? == 1);
    let (began, took) = (get("t_resumed")?.max(get("t_start")?), get("duration")?);
    let ended = if finished || cancelled {
        Some(time(began.checked_add(took).ok_or_else(|| bad("a time that cannot be"))?)?)
    } else if now.as_second().saturating_sub(written.as_second()) > SILENT {
        Some(written)
    } else {
        None
    };
    let uncorrectable = get("uncorrectable_errors")?;
    Ok(ScrubRecord {
        started: time(get("t_start")?)?,
        ended,
        finished: finished && !cancelled,
        cancelled,
        scrubbed: Bytes(get("data_bytes_scrubbed")?.saturating_add(get("tree_bytes_scrubbed")?)),
        corrected: get("corrected_errors")?,
        uncorrectable,
        unmended_on: (uncorrectable > 0).then(|| vec![devid]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::fuzz::fuzzed!(fuzz_scrub_status, text [
        include_bytes!("../../../tests/fixtures/btrfs/6.14/corrected-scrub-status-raw.txt"),
        include_bytes!("../../../tests/fixtures/btrfs/6.2/cancelled-scrub-status-raw.txt"),
    ], |text| {
        if let Ok(None) = parse_status(text) {
            assert!(text.contains("no stats available"));
        }
    });

    crate::fuzz::fuzzed!(fuzz_scrub_record, text [
        include_bytes!("../../../tests/fixtures/btrfs/6.14/corrected-scrub-status-file.txt"),
        include_bytes!("../../../tests/fixtures/btrfs/6.14/cancelled-scrub-status-file.txt"),
    ], |text| {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        if let Ok(Some(found)) = parse_record(text, at(1_800_000_000), at(1_800_001_000)) {
            assert!(!(found.finished && found.cancelled) && found.ended.is_some(), "{found:?}");
        }
    });
}
