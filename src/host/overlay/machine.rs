//! A machine made of files, for tests: its commands change sysfs and `/proc` as the real ones would, and any of them can fail.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crate::{
    exec::{Cmd, CmdError, Failure, Flow, Held, Output, Reply, Runner, ScriptedRunner, Signal},
    host::Host,
};

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It does nothing.
    Before,
    /// It does its work and still fails.
    After,
    /// So does every later one: raidguard is killed there.
    Killed,
}

#[derive(Debug, Default)]
struct Inner {
    calls: Vec<String>,
    fault: Option<(usize, Fault)>,
    killed: bool,
    /// Loop devices that somebody has open.
    busy: bool,
    /// What `dmsetup status` says.
    status: String,
    absent: Vec<&'static str>,
}

#[derive(Debug, Clone)]
pub(super) struct Machine {
    root: PathBuf,
    inner: Arc<Mutex<Inner>>,
}

/// The disks' size, in bytes.
pub(super) const SIZE: u64 = 8 << 20;

impl Machine {
    /// Two disks, `sdb` and `sdc`, and the second is read-only by itself.
    pub(super) fn new(root: &Path) -> Self {
        let root = fs::canonicalize(root).unwrap();
        for dir in [
            "dev/mapper",
            "proc/thread-self",
            "proc/77",
            "proc/spl/kstat/zfs",
            "var/tmp",
            "run/raidguard/rescue",
            "sys/class/bdi",
        ] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for file in ["dev/fuse", "dev/loop-control", "proc/thread-self/mountinfo"] {
            fs::write(root.join(file), "").unwrap();
        }
        fs::write(root.join("proc/77/cmdline"), "qemu-storage-daemon\0--pidfile\0/run/another.pid\0")
            .unwrap();
        let machine = Self { root, inner: Arc::default() };
        for (kname, number, ro) in [("sdb", "8:16", "0\n"), ("sdc", "8:32", "1\n")] {
            machine.device(kname, number, ro);
            machine.resize(kname, SIZE);
        }
        machine
    }

    pub(super) fn host(&self) -> Host {
        Host::captured(&self.root, Arc::new(self.clone()), jiff::Timestamp::UNIX_EPOCH)
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn device(&self, kname: &str, number: &str, ro: &str) {
        let class = self.root.join("sys/class/block").join(kname);
        fs::create_dir_all(&class).unwrap();
        let stat = " 116 0 5360 69 56 1204 9968 177 0 152 311 1 0 2097152 0 14 64\n";
        let seq = format!("{}\n", kname.bytes().map(u32::from).sum::<u32>());
        for (file, text) in [("dev", number), ("ro", ro), ("stat", stat), ("diskseq", &seq)] {
            fs::write(class.join(file), text).unwrap();
        }
    }

    /// Another disk of that name and size, all zeros.
    pub(super) fn resize(&self, kname: &str, size: u64) {
        fs::File::create(self.root.join("dev").join(kname)).unwrap().set_len(size).unwrap();
    }

    pub(super) fn fail(&self, at: usize, fault: Fault) {
        let mut inner = self.inner.lock().unwrap();
        inner.fault = Some((inner.calls.len() + at, fault));
    }

    pub(super) fn mend(&self) {
        let mut inner = self.inner.lock().unwrap();
        (inner.fault, inner.killed, inner.busy) = (None, false, false);
    }

    pub(super) fn is_struck(&self) -> bool {
        let inner = self.inner.lock().unwrap();
        inner.fault.is_some_and(|(at, _)| inner.calls.len() > at)
    }

    pub(super) fn keep_loops_busy(&self) {
        self.inner.lock().unwrap().busy = true;
    }

    pub(super) fn say_of_snapshots(&self, status: &str) {
        status.clone_into(&mut self.inner.lock().unwrap().status);
    }

    pub(super) fn without(&self, tool: &'static str) {
        self.inner.lock().unwrap().absent.push(tool);
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.inner.lock().unwrap().calls.clone()
    }

    pub(super) fn set_read_only(&self, kname: &str, ro: &str) {
        fs::write(self.root.join(format!("sys/class/block/{kname}/ro")), format!("{ro}\n")).unwrap();
    }

    pub(super) fn set_stat(&self, kname: &str, stat: &str) {
        fs::write(self.root.join(format!("sys/class/block/{kname}/stat")), stat).unwrap();
    }

    /// One more write, of no sectors.
    fn count_a_flush(&self, kname: &str) {
        let stat = fs::read_to_string(self.path(&format!("sys/class/block/{kname}/stat"))).unwrap();
        let mut fields: Vec<u64> = stat.split_whitespace().map(|field| field.parse().unwrap()).collect();
        fields[4] += 1;
        let stat: Vec<String> = fields.iter().map(u64::to_string).collect();
        self.set_stat(kname, &format!(" {}\n", stat.join(" ")));
    }

    /// Everything there is but counters, to be compared.
    pub(super) fn picture(&self) -> Vec<(PathBuf, String)> {
        fn visit(dir: &Path, out: &mut Vec<(PathBuf, String)>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with("stat") {
                    continue;
                }
                let text = if path.is_dir() || path.metadata().unwrap().len() > 65536 {
                    String::new()
                } else {
                    fs::read_to_string(&path).unwrap()
                };
                out.push((path.clone(), text));
                if path.is_dir() {
                    visit(&path, out);
                }
            }
        }
        let mut out = Vec::new();
        visit(&self.root, &mut out);
        out.sort();
        out
    }

    /// The kernel has a pool of this name, in this state.
    pub(super) fn import(&self, name: &str, state: &str) {
        let dir = self.path("proc/spl/kstat/zfs").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("state"), format!("{state}\n")).unwrap();
    }

    /// Counts the call, and says how it fails.
    fn begin(&self, line: &str) -> Option<Fault> {
        let mut inner = self.inner.lock().unwrap();
        let number = inner.calls.len();
        inner.calls.push(line.to_owned());
        match inner.fault {
            _ if inner.killed => Some(Fault::Before),
            Some((at, Fault::Killed)) if at == number => {
                inner.killed = true;
                Some(Fault::After)
            }
            Some((at, fault)) if at == number => Some(fault),
            _ => None,
        }
    }

    fn act(&self, line: &str) -> Reply {
        let words: Vec<&str> = line.split(' ').collect();
        let last = words[words.len() - 1];
        let kname = |device: &str| device.trim_start_matches("/dev/").to_owned();
        match (words[0], words.get(1).copied().unwrap_or_default()) {
            ("blockdev", "--getsize64") => {
                let meta = fs::metadata(self.root.join(last.trim_start_matches('/'))).unwrap();
                Reply::ok(format!("{}\n", meta.len()))
            }
            ("blockdev", how) => {
                self.set_read_only(&kname(last), if how == "--setro" { "1" } else { "0" });
                Reply::ok("")
            }
            ("losetup", "--find") => {
                let number = (0..9).find(|n| !self.path(&format!("dev/loop{n}")).exists()).unwrap();
                // The first keeps the flag of an earlier use.
                let used_before =
                    number == 0 && !self.calls().iter().any(|c| c == "blockdev --setrw /dev/loop0");
                self.device(
                    &format!("loop{number}"),
                    &format!("7:{number}"),
                    if used_before { "1\n" } else { "0\n" },
                );
                if line.contains("--direct-io") && last.starts_with("/dev/sd") {
                    self.count_a_flush(&kname(last));
                }
                let class = self.path(&format!("sys/class/block/loop{number}/loop"));
                fs::create_dir_all(&class).unwrap();
                fs::write(class.join("backing_file"), format!("{last}\n")).unwrap();
                fs::write(self.path(&format!("dev/loop{number}")), "").unwrap();
                Reply::ok(format!("/dev/loop{number}\n"))
            }
            ("losetup", "--detach") => {
                if !self.inner.lock().unwrap().busy {
                    fs::remove_dir_all(self.path(&format!("sys/class/block/{}", kname(last)))).unwrap();
                    fs::remove_file(self.path(&format!("dev/{}", kname(last)))).unwrap();
                }
                Reply::ok("")
            }
            ("qemu-storage-daemon", _) => self.daemon(line),
            ("umount", "--lazy") => {
                self.unmount(last);
                Reply::ok("")
            }
            ("modprobe", _) | ("losetup", "--direct-io=on") => Reply::ok(""),
            ("dmsetup", "targets") => {
                Reply::ok("snapshot         v1.16.0\nstriped          v1.6.0\nlinear           v1.4.0\n")
            }
            ("dmsetup", "create") => {
                let number =
                    (0..9).find(|n| !self.path(&format!("sys/class/block/dm-{n}")).exists()).unwrap();
                self.device(&format!("dm-{number}"), &format!("252:{number}"), "0\n");
                let class = self.path(&format!("sys/class/block/dm-{number}/dm"));
                fs::create_dir_all(&class).unwrap();
                fs::write(class.join("name"), format!("{}\n", words[2])).unwrap();
                Reply::ok("")
            }
            ("dmsetup", "remove") => {
                let named = |n: &usize| {
                    let name = self.path(&format!("sys/class/block/dm-{n}/dm/name"));
                    fs::read_to_string(name).is_ok_and(|name| name.trim() == last)
                };
                let number = (0..9).find(named).unwrap();
                fs::remove_dir_all(self.path(&format!("sys/class/block/dm-{number}"))).unwrap();
                Reply::ok("")
            }
            ("zpool", "export") => {
                fs::remove_dir_all(self.path("proc/spl/kstat/zfs").join(last)).unwrap();
                Reply::ok("")
            }
            ("dmsetup", "status") => Reply::ok(self.inner.lock().unwrap().status.clone()),
            other => panic!("nobody runs {other:?}"),
        }
    }

    fn daemon(&self, line: &str) -> Reply {
        let pidfile = line.split_once("--pidfile ").and_then(|(_, rest)| rest.split(' ').next()).unwrap();
        fs::create_dir_all(self.path("proc/4242")).unwrap();
        let arguments = format!("/usr/bin/qemu-storage-daemon\0--daemonize\0--pidfile\0{pidfile}\0");
        fs::write(self.path("proc/4242/cmdline"), arguments).unwrap();
        let mut mounts = fs::read_to_string(self.path("proc/thread-self/mountinfo")).unwrap();
        for (number, rest) in line.split("\"mountpoint\":\"").skip(1).enumerate() {
            let at = rest.split('"').next().unwrap();
            assert!(self.path(at.trim_start_matches('/')).is_file(), "{at} must be there");
            let line = format!("63 43 0:{number} / {at} rw - fuse /dev/fuse rw\n");
            mounts.push_str(&line);
            fs::create_dir_all(self.path(&format!("sys/class/bdi/0:{number}"))).unwrap();
            fs::write(self.path(&format!("sys/class/bdi/0:{number}/read_ahead_kb")), "128\n").unwrap();
        }
        fs::write(self.path("proc/thread-self/mountinfo"), mounts).unwrap();
        Reply::ok("")
    }

    /// The daemon ends; whether its exports go with it is up to how.
    pub(super) fn end_daemon(&self, tidily: bool) {
        fs::remove_dir_all(self.path("proc/4242")).unwrap();
        let mounts = fs::read_to_string(self.path("proc/thread-self/mountinfo")).unwrap();
        for mount in mounts.lines().filter(|_| tidily) {
            self.unmount(mount.split(' ').nth(4).unwrap());
        }
    }

    fn unmount(&self, at: &str) {
        let file = self.path("proc/thread-self/mountinfo");
        let mounts = fs::read_to_string(&file).unwrap();
        let (gone, kept): (Vec<&str>, Vec<&str>) =
            mounts.lines().partition(|l| l.split(' ').nth(4) == Some(at));
        let device = gone[0].split(' ').nth(2).unwrap();
        fs::remove_dir_all(self.path("sys/class/bdi").join(device)).unwrap();
        fs::write(file, kept.iter().map(|l| format!("{l}\n")).collect::<String>()).unwrap();
    }
}

impl Runner for Machine {
    fn run_watched(&self, cmd: &Cmd, tick: &mut dyn FnMut() -> Flow) -> Result<Output, CmdError> {
        let line = cmd.line();
        let fault = self.begin(&line);
        let reply = match fault {
            Some(Fault::Before) => Reply::fail(1, "injected failure"),
            _ => self.act(&line),
        };
        let reply = if fault.is_some() { Reply::fail(1, "injected failure") } else { reply };
        ScriptedRunner::new().on("", reply).run_watched(cmd, tick)
    }

    fn hold(&self, _: &Cmd) -> Result<Held, CmdError> {
        Ok(Held::default())
    }

    fn signal(&self, pid: i32, signal: Signal) -> io::Result<()> {
        let fault = self.begin(&format!("kill {signal} {pid}"));
        assert_eq!(pid, 4242, "nobody else's daemon");
        if fault != Some(Fault::Before) {
            self.end_daemon(signal == Signal::SIGTERM);
        }
        fault.map_or(Ok(()), |_| Err(io::Error::from_raw_os_error(nix::libc::EPERM)))
    }

    fn has(&self, tool: &str) -> bool {
        !self.inner.lock().unwrap().absent.contains(&tool)
    }
}

/// So that the type is used: a failure that the script makes.
#[test]
fn a_fault_is_told_as_the_exit_code_it_would_have() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(dir.path());
    machine.fail(0, Fault::After);
    let error = machine.run(&Cmd::change("blockdev").args(["--setro", "/dev/sdb"])).unwrap_err();
    assert_eq!(error.failure, Failure::Code(1));
    assert_eq!(fs::read_to_string(machine.path("sys/class/block/sdb/ro")).unwrap(), "1\n");
}
