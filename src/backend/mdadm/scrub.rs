//! The check of an array (kernel: Documentation/admin-guide/md.rst, `sync_action`): every member is read, and where they differ that is
//! counted. md has no checksums, so it cannot tell which of two is right, and nothing is changed.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::Duration,
};

use super::sysfs::Array;
use crate::{
    backend::{
        BackendError, ScrubCounts, ScrubEnd, ScrubProgress, ScrubReport, ScrubStatus, Watcher,
        report::duration,
    },
    exec::{Cmd, Flow},
    host::Host,
    model::{Bytes, mirror::MirrorState},
};

const TICK: Duration = Duration::from_millis(250);
const LOG: &str = "/dev/kmsg";

pub(super) fn command(array: &Path) -> Cmd {
    Cmd::change("mdadm").args(["--misc", "--action=check"]).arg(array)
}

/// Runs the check until it has ended or `watch` says stop.
pub(super) fn scrub(
    host: &Host,
    state: &MirrorState,
    watch: &mut Watcher<'_, ScrubProgress>,
) -> Result<ScrubReport, BackendError> {
    let before = array(host, &state.uuid)?;
    let cmd = command(&before.state.device);
    let report = |end, status| ScrubReport { command: cmd.line(), end, compared: true, status };
    if before.state.action.is_some() {
        return Ok(report(ScrubEnd::AlreadyRunning, None));
    }
    if before.state.degraded != Some(0) {
        // With one member left there is nothing to compare, and the kernel would end at once as if all were well.
        return Ok(report(ScrubEnd::Aborted, None));
    }
    let began = host.now();
    let mut log = Log::open(host);
    host.runner().run(&cmd)?;
    let (mut stopped, mut total) = (false, None);
    let after = loop {
        let now = array(host, &state.uuid)?;
        if now.state.action.as_deref() != Some("check") {
            break now;
        }
        let members = now.devices.iter().filter(|d| d.serves()).count() as u64;
        let all = |bytes: Bytes| Bytes(bytes.0.saturating_mul(members));
        total = now.state.progress.map(|p| all(p.total)).or(total);
        let progress =
            ScrubProgress { bytes_scrubbed: now.state.progress.map(|p| all(p.done)), bytes_total: total };
        if !stopped && watch(&progress) == Flow::Stop {
            stopped = true;
            host.runner()
                .run(&Cmd::change("mdadm").args(["--misc", "--action=idle"]).arg(&now.state.device))?;
        }
        thread::sleep(TICK);
    };
    let interrupted = log.as_mut().is_some_and(|log| log.says_interrupted(&after.name));
    let end = if stopped {
        ScrubEnd::Stopped
    } else if interrupted || after.state.degraded != Some(0) || after.state.action.is_some() {
        ScrubEnd::Aborted
    } else {
        ScrubEnd::Finished
    };
    let errors = |array: &Array| array.devices.iter().map(|d| d.errors).fold(0, u64::saturating_add);
    let read = errors(&after).saturating_sub(errors(&before));
    let seconds = host.now().duration_since(began).as_secs().max(0);
    let counts = ScrubCounts {
        read,
        // What could not be read was written anew from another member.
        corrected: read,
        mismatched: after.state.mismatches.unwrap_or_default(),
        ..ScrubCounts::default()
    };
    let status = ScrubStatus {
        uuid: state.uuid.clone(),
        started: format!("{began:.0}"),
        status: if end == ScrubEnd::Finished { "finished" } else { "aborted" }.to_owned(),
        duration: duration(seconds),
        bytes_scrubbed: if end == ScrubEnd::Finished { total.unwrap_or_default() } else { Bytes(0) },
        counts,
    };
    Ok(report(end, Some(status)))
}

pub(super) fn array(host: &Host, uuid: &str) -> Result<Array, BackendError> {
    let found = Array::find(host, uuid)?.filter(|array| array.state.runs());
    found.ok_or_else(|| BackendError::State("the array does not run".to_owned()))
}

/// The kernel's log from now on: it alone says whether a check was ended before its end.
struct Log(File);

impl Log {
    fn open(host: &Host) -> Option<Self> {
        let mut file =
            OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(host.path(LOG)).ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        Some(Self(file))
    }

    fn says_interrupted(&mut self, array: &str) -> bool {
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => return false,
                Ok(length) => {
                    let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                    if is_interruption(&text, array) {
                        return true;
                    }
                }
                // Records that were lost in between.
                Err(e) if e.raw_os_error() == Some(nix::libc::EPIPE) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }
}

/// `md: md127: check interrupted.`, before Linux 6.10 with `data-check` (`md_do_sync` in `drivers/md/md.c`).
fn is_interruption(record: &str, array: &str) -> bool {
    ["check", "data-check"].iter().any(|word| record.contains(&format!("md: {array}: {word} interrupted")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_when_a_check_was_ended() {
        let record = |text: &str| format!("6,1234,567890,-;{text}\n SUBSYSTEM=block\n");
        for said in ["md: md127: check interrupted.", "md: md127: data-check interrupted."] {
            assert!(is_interruption(&record(said), "md127"), "{said}");
        }
        for other in [
            "md: md127: check done.",
            "md: md12: check interrupted.",
            "md: md127: resync interrupted.",
            "md: check of RAID array md127",
        ] {
            assert!(!is_interruption(&record(other), "md127"), "{other}");
        }
    }
}
