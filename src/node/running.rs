//! Does anything use a directory? Asked in every way there is, because each alone can be wrong: a pid file goes stale, a lock file may
//! lie elsewhere, a plugin outlives its node.

use std::{
    collections::HashMap,
    fmt,
    fs::{self, File},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _, net::UnixStream},
    path::{Path, PathBuf},
};

use nix::{fcntl::FcntlArg, libc};

use super::{
    processes::{Enough, Link, Process, Share, each_process},
    read_layout,
};
use crate::{
    exec::Cmd,
    host::{Host, files::FileError},
    model::{NodeKind, node::Holder},
};

/// Units that distributions use for Core Lightning.
const UNITS: [&str; 2] = ["lightningd.service", "clightning.service"];

/// Who uses a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Running {
    /// Each process, once.
    pub holders: Vec<Holder>,
    /// An active unit that is known to run a node.
    pub unit: Option<String>,
    /// Why it cannot be told whether there are more.
    pub unknown: Option<String>,
}

impl Running {
    /// Is it sure that nothing uses it?
    pub fn is_quiet(&self) -> bool {
        self.holders.is_empty() && self.unknown.is_none()
    }
}

impl Running {
    /// Each user in words, and what cannot be told.
    pub fn users(&self) -> Vec<String> {
        self.holders.iter().map(ToString::to_string).chain(self.unknown.clone()).collect()
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = self.holders.iter().take(5).map(ToString::to_string).collect();
        if self.holders.len() > 5 {
            parts.push(format!("and {} more", self.holders.len() - 5));
        }
        parts.extend(self.unknown.clone());
        f.write_str(&parts.join(", "))
    }
}

/// Finds out who uses `dir`. The answer covers a node's base directory and what lies below it.
///
/// # Errors
/// `/proc` cannot be read.
pub fn find_running(host: &Host, dir: &Path, unit: Option<&str>) -> Result<Running, FileError> {
    let mut running = who(host, dir, false)?;
    if !running.is_quiet() || unit.is_some() {
        running.unit = active_unit(host, unit, &running.holders);
    }
    Ok(running)
}

/// Finds out whether a node works in `dir`: who holds its database or its secret, is called as the node is, has the pid file's lock or
/// answers on the socket. Whoever reads the log there, or stands in it, is none. Where no database tells that it is Core Lightning's,
/// nothing tells a node from others, and each of them counts.
///
/// # Errors
/// `/proc` cannot be read.
pub fn find_nodes(host: &Host, dir: &Path) -> Result<Running, FileError> {
    let known = read_layout(dir).is_ok_and(|layout| layout.kind == NodeKind::CoreLightning);
    who(host, dir, known)
}

fn who(host: &Host, dir: &Path, only_nodes: bool) -> Result<Running, FileError> {
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    let mut running = Running::default();
    processes(host, &Place::of(host, &dir, only_nodes), &mut running)?;
    for place in std::iter::once(dir.clone()).chain(subdirectories(&dir)) {
        locks_and_sockets(&place, &mut running);
    }
    Ok(running)
}

/// A directory as processes may hold it: by its path, or, where they see another tree of mounts (a container, a sandboxed unit),
/// by the files themselves.
struct Place {
    dir: PathBuf,
    dev: Option<u64>,
    /// Each file, and whether it is one that only a node works on.
    files: HashMap<(u64, u64), bool>,
    namespace: Option<PathBuf>,
    only_nodes: bool,
}

impl Place {
    fn of(host: &Host, dir: &Path, only_nodes: bool) -> Self {
        let mut files = HashMap::new();
        collect(dir, &mut files);
        Self {
            dir: dir.to_owned(),
            dev: fs::metadata(dir).ok().map(|m| m.dev()),
            files,
            namespace: fs::read_link(host.path("/proc/self/ns/mnt")).ok(),
            only_nodes,
        }
    }

    /// Is this a file of the directory? `same`: the process sees the mounts that we see.
    fn holds(&self, link: &Link<'_>, same: bool) -> bool {
        let named = link.path().starts_with(&self.dir);
        if named && same {
            return true;
        }
        link.file().is_some_and(|m| {
            self.files.contains_key(&(m.st_dev, m.st_ino))
                // One that was deleted while it was open is in no directory any more.
                || (named && m.st_nlink == 0 && Some(m.st_dev) == self.dev)
        })
    }

    /// Does a process that has this file of the directory count?
    fn counts(&self, process: &Process<'_>, link: &Link<'_>) -> bool {
        let known = || link.file().and_then(|m| self.files.get(&(m.st_dev, m.st_ino)).copied());
        !self.only_nodes
            || is_for_a_node(link.path())
            || known().unwrap_or_default()
            || process.name() == "lightningd"
    }
}

/// Is it a file that nobody but a node works on: a database, what SQLite keeps beside it, or the secret?
fn is_for_a_node(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let plain = [&b"-wal"[..], b"-journal", b"-shm"].into_iter().find_map(|end| name.strip_suffix(end));
    name == b"hsm_secret" || plain.unwrap_or(name).ends_with(b".sqlite3")
}

/// Every file and directory of a tree, by device and inode number. What cannot be read is left to the other questions.
fn collect(dir: &Path, out: &mut HashMap<(u64, u64), bool>) {
    out.extend(fs::symlink_metadata(dir).ok().map(|m| ((m.dev(), m.ino()), false)));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => collect(&entry.path(), out),
            Ok(meta) => {
                // It may have several names.
                *out.entry((meta.dev(), meta.ino())).or_default() |= is_for_a_node(&entry.path());
            }
            Err(_) => {}
        }
    }
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

fn processes(host: &Host, place: &Place, out: &mut Running) -> Result<(), FileError> {
    out.unknown = each_process(host, Share::ALL, |process| {
        let held = held(process, place)?;
        out.holders.extend(held.map(|holds| Holder { pid: process.pid, name: process.name(), holds }));
        Ok(())
    })?;
    Ok(())
}

/// The first file of the place that a process has as its working directory, its root or open.
fn held(process: &Process<'_>, place: &Place) -> io::Result<Option<PathBuf>> {
    let namespace = process.namespace();
    let same = namespace.is_none() || namespace == place.namespace;
    let mut found = None;
    process.each_held(|link| {
        if !place.holds(link, same) || !place.counts(process, link) {
            return Enough::Continue(());
        }
        found = Some(link.whole());
        Enough::Break(())
    })?;
    Ok(found)
}

/// lightningd holds a POSIX lock on its pid file and answers on its socket: seen also from another pid namespace.
fn locks_and_sockets(dir: &Path, out: &mut Running) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries.map(|e| e.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known = |out: &Running, pid: i32| out.holders.iter().any(|h| h.pid == pid);
        if name.starts_with("lightningd") && path.extension().is_some_and(|e| e == "pid") {
            if let Some(pid) = lock_holder(&path).filter(|pid| !known(out, *pid)) {
                out.holders.push(Holder {
                    pid,
                    name: "the holder of the lock".to_owned(),
                    holds: path.clone(),
                });
            }
        }
        // A socket without a listener refuses.
        if name == "lightning-rpc" && out.holders.is_empty() && UnixStream::connect(&path).is_ok() {
            out.holders.push(Holder { pid: 0, name: "somebody who answers".to_owned(), holds: path });
        }
    }
}

/// Does a node itself run there: does it hold its lock or answer on its socket? A plugin that outlived its node is none.
pub(super) fn is_alive(dir: &Path) -> bool {
    let mut found = Running::default();
    for place in std::iter::once(dir.to_owned()).chain(subdirectories(dir)) {
        locks_and_sockets(&place, &mut found);
    }
    !found.holders.is_empty()
}

fn lock_holder(path: &Path) -> Option<i32> {
    let file = File::open(path).ok()?;
    let mut lock = libc::flock { l_type: 1, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    nix::fcntl::fcntl(&file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    (lock.l_type != 2).then_some(lock.l_pid)
}

/// A unit that is known to run a node and is there, running or not.
pub fn known_unit(host: &Host) -> Option<&'static str> {
    let there = |unit: &str| {
        let cmd = Cmd::probe("systemctl").args(["show", "--property=LoadState", "--value", "--", unit]);
        host.runner().run(&cmd).is_ok_and(|said| said.text().trim() == "loaded")
    };
    UNITS.into_iter().find(|unit| host.path("/run/systemd/system").is_dir() && there(unit))
}

/// The unit that runs one of these processes: the one named, or one that is known to be a node's.
fn active_unit(host: &Host, named: Option<&str>, holders: &[Holder]) -> Option<String> {
    if !host.path("/run/systemd/system").is_dir() {
        return None;
    }
    let main = |unit: &str| -> Option<i32> {
        let cmd = Cmd::probe("systemctl").args(["show", "--property=MainPID", "--value", "--", unit]);
        host.runner().run(&cmd).ok()?.text().trim().parse().ok()
    };
    let units = named.into_iter().chain(UNITS);
    units
        .into_iter()
        .find(|unit| main(unit).is_some_and(|pid| pid > 0 && holders.iter().any(|h| h.pid == pid)))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::Interrupt;
    use std::os::unix::net::UnixListener;

    fn running(dir: &Path) -> Running {
        find_running(&Host::real(Interrupt::default()), dir, None).unwrap()
    }

    #[test]
    fn a_captured_process_is_found_by_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path().join("proc/42");
        fs::create_dir_all(proc.join("fd")).unwrap();
        fs::write(proc.join("comm"), "lightningd\n").unwrap();
        let node = dir.path().join("node");
        fs::create_dir(&node).unwrap();
        let node = fs::canonicalize(node).unwrap();
        let host = Host::captured(
            dir.path(),
            std::sync::Arc::new(crate::exec::ScriptedRunner::new()),
            jiff::Timestamp::UNIX_EPOCH,
        );
        let link = |name: &str, to: PathBuf| {
            let _ = fs::remove_file(proc.join(name));
            std::os::unix::fs::symlink(to, proc.join(name)).unwrap();
        };
        link("root", "/".into());
        link("cwd", "/".into());
        assert!(find_running(&host, &node, None).unwrap().is_quiet());
        link("cwd", node.join("bitcoin"));
        assert_eq!(find_running(&host, &node, None).unwrap().holders[0].pid, 42);
        link("cwd", node.with_file_name("node2"));
        assert!(find_running(&host, &node, None).unwrap().is_quiet(), "a name that only begins alike");
        link("fd/3", node.join("lightningd.sqlite3 (deleted)"));
        assert!(find_running(&host, &node, None).unwrap().to_string().starts_with("lightningd (pid 42"));
        // Its first thread has ended: another holds the file, and the process itself shows nothing any more.
        for gone in ["root", "cwd", "fd/3"] {
            fs::remove_file(proc.join(gone)).unwrap();
        }
        for thread in ["42", "43"] {
            fs::create_dir_all(proc.join("task").join(thread).join("fd")).unwrap();
        }
        for held in ["root", "cwd"] {
            link(&format!("task/43/{held}"), "/".into());
        }
        assert!(find_running(&host, &node, None).unwrap().is_quiet());
        link("task/43/fd/3", node.join("lightningd.sqlite3"));
        assert_eq!(find_running(&host, &node, None).unwrap().holders[0].pid, 42);
    }

    #[test]
    fn a_process_that_sees_other_mounts_is_judged_by_the_files_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, node) = (dir.path().join("proc"), dir.path().join("node"));
        fs::create_dir_all(proc.join("42/fd")).unwrap();
        fs::create_dir_all(proc.join("42/ns")).unwrap();
        fs::create_dir_all(proc.join("self/ns")).unwrap();
        fs::create_dir(&node).unwrap();
        fs::write(node.join("lightningd.sqlite3"), "").unwrap();
        let node = fs::canonicalize(node).unwrap();
        let host = Host::captured(
            dir.path(),
            std::sync::Arc::new(crate::exec::ScriptedRunner::new()),
            jiff::Timestamp::UNIX_EPOCH,
        );
        let link = |name: &str, to: &Path| {
            let _ = fs::remove_file(proc.join(name));
            std::os::unix::fs::symlink(to, proc.join(name)).unwrap();
        };
        link("42/root", Path::new("/"));
        link("42/ns/mnt", Path::new("mnt:[1]"));
        link("self/ns/mnt", Path::new("mnt:[2]"));
        link("42/cwd", &node.join("no file of this tree"));
        assert!(find_running(&host, &node, None).unwrap().is_quiet(), "an equal name elsewhere");
        link("self/ns/mnt", Path::new("mnt:[1]"));
        assert!(!find_running(&host, &node, None).unwrap().is_quiet());
        link("self/ns/mnt", Path::new("mnt:[2]"));
        // What a container calls /root/.lightning/... is the same file.
        let bound = dir.path().join("bound");
        fs::hard_link(node.join("lightningd.sqlite3"), &bound).unwrap();
        link("42/cwd", &bound);
        assert!(!find_running(&host, &node, None).unwrap().is_quiet());
        assert!(!find_nodes(&host, &node).unwrap().is_quiet(), "it is the database");
        fs::write(node.join("log"), "").unwrap();
        let log = dir.path().join("bound-log");
        fs::hard_link(node.join("log"), &log).unwrap();
        link("42/cwd", &log);
        assert!(!find_running(&host, &node, None).unwrap().is_quiet());
        assert!(find_nodes(&host, &node).unwrap().is_quiet());
    }

    #[test]
    fn a_live_socket_counts_and_a_stale_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lightning-rpc");
        let listener = UnixListener::bind(&socket).unwrap();
        let nodes = || find_nodes(&Host::real(Interrupt::default()), dir.path()).unwrap();
        assert!(!running(dir.path()).is_quiet() && !nodes().is_quiet());
        drop(listener);
        assert!(running(dir.path()).is_quiet() && nodes().is_quiet());
    }
}
