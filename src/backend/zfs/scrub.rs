//! The scrub of a pool: every copy is read and compared with its checksum, what is wrong is written anew from what is right
//! (zpool-scrub(8)).

use std::{path::Path, thread, time::Duration};

use super::observe;
use crate::{
    backend::{
        BackendError, ScrubCounts, ScrubEnd, ScrubProgress, ScrubReport, ScrubStatus, Watcher,
        report::duration,
    },
    exec::{Cmd, Flow},
    host::Host,
    model::{
        Bytes,
        mirror::MirrorState,
        zfs::{ZfsScan, ZfsScanKind, ZfsScanState, ZfsState},
    },
};

/// How often the pool is asked how far it is.
const TICK: Duration = Duration::from_secs(1);

pub(super) fn command(pool: &str) -> Cmd {
    Cmd::change("zpool").args(["scrub", "--", pool])
}

fn paused(scan: Option<&ZfsScan>) -> bool {
    scan.is_some_and(|scan| scan.kind == ZfsScanKind::Scrub && scan.state == ZfsScanState::Paused)
}

fn running(pool: &ZfsState) -> bool {
    pool.rebuilding || pool.scan.as_ref().is_some_and(|scan| scan.state == ZfsScanState::Running)
}

/// How many errors of each kind its members count.
fn counted(state: &MirrorState) -> (u64, u64) {
    let errors = state.members.iter().filter_map(|member| member.errors);
    errors.fold((0, 0), |(read, checksum), e| (read + e.read, checksum + e.corruption))
}

/// Begins a scrub, or takes up one that was paused, and waits for its end, or until `watch` says stop: it is then paused.
pub(super) fn scrub(
    host: &Host,
    mountpoint: &Path,
    state: &MirrorState,
    watch: &mut Watcher<'_, ScrubProgress>,
) -> Result<ScrubReport, BackendError> {
    let pool = state.zfs.as_ref().map(|pool| pool.name.clone()).ok_or_else(|| not_imported(state))?;
    let cmd = command(&pool);
    let report = |end, status| ScrubReport { command: cmd.line(), end, compared: false, status };
    let before = look(host, mountpoint, state)?;
    let began = before.zfs.as_ref();
    if began.is_some_and(running) {
        return Ok(report(ScrubEnd::AlreadyRunning, None));
    }
    let taken_up = paused(began.and_then(|pool| pool.scan.as_ref()));
    let started = host.now();
    host.runner().run(&cmd)?;
    let mut stopped = false;
    let (after, scan) = loop {
        let now = look(host, mountpoint, state)?;
        let scan = now.zfs.as_ref().and_then(|pool| pool.scan.clone());
        let Some(scan) = scan.filter(|scan| scan.kind == ZfsScanKind::Scrub) else {
            // A resilver has taken its place: the kernel does so when a member comes.
            return Ok(report(ScrubEnd::Aborted, None));
        };
        if scan.state != ZfsScanState::Running {
            break (now, scan);
        }
        let done = scan.done.zip(scan.total);
        let progress = ScrubProgress {
            bytes_scrubbed: done.map(|(done, total)| {
                Bytes(u64::try_from(u128::from(total.0) * u128::from(done) / 10_000).unwrap_or(u64::MAX))
            }),
            bytes_total: scan.total,
        };
        if watch(&progress) == Flow::Stop {
            stopped = true;
            host.runner().run(&Cmd::change("zpool").args(["scrub", "-p", "--", &pool]))?;
        }
        thread::sleep(TICK);
    };
    // A member that is gone is not read, and what is on it is not known: the kernel calls such a scrub finished.
    let whole = after.members.iter().all(|member| !member.missing && !member.pulled);
    let end = match scan.state {
        ZfsScanState::Finished if whole => ScrubEnd::Finished,
        ZfsScanState::Paused if stopped => ScrubEnd::Stopped,
        _ => ScrubEnd::Aborted,
    };
    let ((read, checksum), (read_before, checksum_before)) = (counted(&after), counted(&before));
    let fresh = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
    let checksum = fresh(checksum, checksum_before);
    let damaged =
        scan.errors.unwrap_or_default().max(after.zfs.as_ref().and_then(|p| p.damaged).unwrap_or(0));
    let counts = ScrubCounts {
        read: fresh(read, read_before),
        checksum,
        // ZFS counts what it mended in bytes; how many blocks these were is what its checksums said.
        corrected: if scan.repaired.0 == 0 { 0 } else { checksum.max(1) },
        uncorrectable: damaged,
        ..ScrubCounts::default()
    };
    let seconds = host.now().duration_since(if taken_up { scan.started.unwrap_or(started) } else { started });
    let status = ScrubStatus {
        uuid: state.uuid.clone(),
        started: scan.started.unwrap_or(started).to_string(),
        status: if end == ScrubEnd::Finished { "finished" } else { "aborted" }.to_owned(),
        duration: duration(seconds.as_secs().max(0)),
        bytes_scrubbed: scan.total.unwrap_or_default(),
        counts,
    };
    Ok(report(end, Some(status)))
}

fn look(host: &Host, mountpoint: &Path, state: &MirrorState) -> Result<MirrorState, BackendError> {
    let now = observe::observe(host, &state.uuid, mountpoint)?;
    match &now.zfs {
        None => Err(not_imported(state)),
        Some(pool) if pool.is_suspended() => Err(BackendError::State(format!(
            "the pool {} has stopped, since its members are gone",
            pool.name
        ))),
        Some(_) => Ok(now),
    }
}

fn not_imported(state: &MirrorState) -> BackendError {
    let at = state.mountpoint.as_deref().unwrap_or(Path::new("/"));
    BackendError::State(format!("the pool of the mirror at {} is not imported", at.display()))
}
