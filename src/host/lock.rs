//! One verb at a time changes a mirror.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{
    Host, dying,
    files::{self, Doing as _, FileError},
};
use crate::exec::Flow;

/// Where locks and other things that a reboot may forget live.
pub const RUN_DIR: &str = "/run/raidguard";

/// Held while it lives. The kernel releases it with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("`{holder}` is at work on the mirror `{mirror}`")]
    Held {
        /// The mirror.
        mirror: String,
        /// Who: verb and pid, as it wrote them.
        holder: String,
    },
    /// A file operation failed.
    #[error("the lock cannot be taken")]
    File(#[source] FileError),
}

impl From<FileError> for LockError {
    fn from(e: FileError) -> Self {
        Self::File(e)
    }
}

/// Takes the lock of `mirror` for `verb`. A holder that was killed, and is not gone yet, is waited for.
///
/// # Errors
/// It is held (by whom is said), or the lock file cannot be made.
pub fn take(host: &Host, mirror: &str, verb: &str) -> Result<Lock, LockError> {
    let began = Instant::now();
    loop {
        match take_now(host, mirror, verb) {
            Err(LockError::Held { holder, .. })
                if pid_of(&holder).is_some_and(|pid| dying::wait_for(host, pid, began)) => {}
            taken => return taken,
        }
    }
}

/// The number in what a holder wrote of itself.
fn pid_of(holder: &str) -> Option<u32> {
    holder.rsplit_once("(pid ")?.1.strip_suffix(')')?.parse().ok()
}

fn take_now(host: &Host, mirror: &str, verb: &str) -> Result<Lock, LockError> {
    let dir = host.path(RUN_DIR);
    files::create_dirs(&dir, 0o700)?;
    let path: PathBuf = dir.join(format!("{mirror}.lock"));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .doing("opening", &path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            let told = format!("raidguard {verb} (pid {})\n", std::process::id());
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(told.as_bytes()))
                .doing("writing", &path)?;
            Ok(Lock { _file: file })
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).doing("reading", &path)?;
            Err(LockError::Held { mirror: mirror.to_owned(), holder: holder.trim().to_owned() })
        }
        Err((_, e)) => Err(io::Error::from(e)).doing("locking", &path).map_err(LockError::from),
    }
}

/// As [`take`], but waits for as long as `other` holds it. The schedule's own jobs may fall on the same minute, and neither may be
/// left out for it. `waiting` is told who is waited for, about once a second, and says whether to go on.
///
/// # Errors
/// As [`take`]; that it is held also when `waiting` says stop.
pub fn take_after(
    host: &Host,
    mirror: &str,
    verb: &str,
    other: &str,
    waiting: &mut dyn FnMut(&str) -> Flow,
) -> Result<Lock, LockError> {
    loop {
        match take(host, mirror, verb) {
            Err(LockError::Held { holder, mirror }) if holder.starts_with(&format!("raidguard {other} ")) => {
                if waiting(&holder) == Flow::Stop {
                    return Err(LockError::Held { mirror, holder });
                }
                thread::sleep(Duration::from_secs(1));
            }
            taken => return taken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ScriptedRunner;
    use std::sync::Arc;

    #[test]
    fn the_second_is_refused_and_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), jiff::Timestamp::UNIX_EPOCH);
        let first = take(&host, "lightning", "setup").unwrap();
        let error = take(&host, "lightning", "release").unwrap_err().to_string();
        assert!(error.contains("raidguard setup (pid "), "{error}");
        take(&host, "other", "setup").unwrap();
        drop(first);
        take(&host, "lightning", "release").unwrap();
    }

    #[test]
    fn one_that_was_killed_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), jiff::Timestamp::UNIX_EPOCH);
        let first = take(&host, "lightning", "setup").unwrap();
        dying::tests::dies(dir.path(), std::process::id());
        thread::scope(|scope| {
            let second = scope.spawn(|| take(&host, "lightning", "release").map(drop));
            thread::sleep(Duration::from_millis(300));
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
    }

    #[test]
    fn jobs_of_the_schedule_wait_for_each_other_and_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::captured(dir.path(), Arc::new(ScriptedRunner::new()), jiff::Timestamp::UNIX_EPOCH);
        let mut first = Some(take(&host, "lightning", "balance").unwrap());
        let mut told = Vec::new();
        let mut ends = |holder: &str| {
            told.push(holder.to_owned());
            first = None;
            Flow::Continue
        };
        let scrub = take_after(&host, "lightning", "scrub", "balance", &mut ends).unwrap();
        assert!(matches!(&told[..], [one] if one.starts_with("raidguard balance (pid ")), "{told:?}");
        let mut never = |_: &str| -> Flow { panic!("it waits for somebody else") };
        assert!(take_after(&host, "lightning", "release", "balance", &mut never).is_err());
        let mut stop = |_: &str| Flow::Stop;
        assert!(take_after(&host, "lightning", "balance", "scrub", &mut stop).is_err());
        drop(scrub);
    }
}
