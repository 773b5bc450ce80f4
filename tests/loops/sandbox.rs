//! A machine of its own for one test: directories, two loop devices, a node.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::{
        fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use crate::programs::{build_standin, built};

const INNER: &str = "RAIDGUARD_TEST_SANDBOX";
pub(crate) const OWN: [&str; 5] = ["etc", "var", "home", "srv", "run"];

/// Runs `body` in a process and a mount namespace of its own.
pub(crate) fn isolated(name: &str, body: impl FnOnce(&Sandbox)) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests need root: they make loop devices and mount filesystems"
    );
    if std::env::var_os(INNER).is_some() {
        let sandbox = Sandbox::enter();
        body(&sandbox);
        return;
    }
    build_standin();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INNER, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        panic!("{name} failed in its sandbox:\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    // The inner harness's own lines are left out: a test would be counted twice.
    said.lines().filter_map(|l| l.split_once(NOTE)).for_each(|(_, note)| println!("{note}"));
}

const NOTE: &str = "note: ";

/// Says what a test did, for whoever reads the run.
pub(crate) fn note(text: impl std::fmt::Display) {
    println!("{NOTE}{text}");
}

pub(crate) struct Sandbox {
    scratch: PathBuf,
    loops: Vec<Loop>,
    cron: Child,
}

pub(crate) struct Loop {
    device: String,
    image: PathBuf,
}

impl Drop for Loop {
    fn drop(&mut self) {
        // The partitions of a loop device outlive it.
        let _ = Command::new("partx").args(["--delete", &self.device]).output();
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
        if self.image.starts_with(std::env::temp_dir()) {
            let _ = fs::remove_file(&self.image);
        }
    }
}

pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

fn attach(image: &Path) -> Loop {
    let output = Command::new("losetup").args(["--find", "--show"]).arg(image).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Loop { device: String::from_utf8(output.stdout).unwrap().trim().to_owned(), image: image.to_owned() }
}

impl Sandbox {
    fn enter() -> Self {
        let temporary = std::env::temp_dir();
        let hidden = OWN.iter().any(|name| temporary.starts_with(Path::new("/").join(name)));
        let place = if hidden { Path::new("/tmp") } else { &temporary };
        let scratch = tempfile::Builder::new().prefix("raidguard-test-").tempdir_in(place).unwrap().keep();
        // The checkout may lie below a directory that is replaced.
        fs::create_dir(scratch.join("bin")).unwrap();
        fs::copy(built("raidguard"), scratch.join("bin/raidguard")).unwrap();
        fs::copy(built("examples/standin-node"), scratch.join("bin/standin-node")).unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        // Something that is called cron: whether a scheduler runs is looked at.
        fs::copy("/bin/sleep", scratch.join("bin/cron")).unwrap();
        let cron = Command::new(scratch.join("bin/cron")).arg("1000000").spawn().unwrap();
        let mut sandbox = Self { scratch, loops: Vec::new(), cron };
        for name in ["one", "two"] {
            let image = sandbox.scratch.join(name);
            fs::File::create(&image).unwrap().set_len(2 << 30).unwrap();
            sandbox.loops.push(attach(&image));
        }
        sandbox.fill();
        sandbox
    }

    /// Fresh directories over the machine's own, and a node in them.
    fn fill(&self) {
        let etc: Vec<_> = ["passwd", "group", "nsswitch.conf"]
            .map(|n| (n, fs::read(Path::new("/etc").join(n)).ok()))
            .into();
        for name in OWN {
            mount(
                Some("tmpfs"),
                &Path::new("/").join(name),
                Some("tmpfs"),
                MsFlags::empty(),
                Some("mode=0755"),
            )
            .unwrap();
        }
        for (name, text) in etc {
            text.into_iter().for_each(|t| fs::write(Path::new("/etc").join(name), t).unwrap());
        }
        fs::write("/etc/fstab", b"# mine \xff\nproc\t/proc proc defaults 0 0\n").unwrap();
        fs::create_dir_all("/etc/cron.d").unwrap();
        fs::create_dir_all("/var/lib").unwrap();
        let net = Path::new("/home/bitcoin/.lightning/bitcoin");
        fs::create_dir_all(net).unwrap();
        let db = rusqlite::Connection::open(net.join("lightningd.sqlite3")).unwrap();
        db.execute_batch(
            "CREATE TABLE vars(name TEXT, intval INTEGER, blobval BLOB);
             INSERT INTO vars VALUES('data_version', 42, NULL), ('node_id', NULL, x'02ab');
             CREATE TABLE version(version INTEGER); INSERT INTO version VALUES(270); CREATE TABLE p(x BLOB);",
        )
        .unwrap();
        for _ in 0..50 {
            db.execute("INSERT INTO p VALUES(randomblob(9000))", []).unwrap();
        }
        drop(db);
        fs::set_permissions(net.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(net.join("hsm_secret"), [7; 32]).unwrap();
        fs::set_permissions(net.join("hsm_secret"), fs::Permissions::from_mode(0o400)).unwrap();
        fs::hard_link(net.join("hsm_secret"), net.join("same secret")).unwrap();
        fs::write(net.join("new\nline"), "odd").unwrap();
        fs::create_dir(net.join("empty")).unwrap();
        std::os::unix::fs::symlink("../nowhere", net.join("dangling")).unwrap();
        std::os::unix::fs::chown(net, Some(1000), Some(1000)).unwrap();
        xattr::set(net.join("hsm_secret"), "user.note", b"kept").unwrap();
        // An access control list (acl(5), kernel: struct posix_acl_xattr_entry): user 1001 may read.
        let entry = |tag: u16, perm: u16, id: u32| {
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let entries =
            [(1, 6, u32::MAX), (2, 4, 1001), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
        let acl: Vec<u8> = entries.into_iter().flat_map(|(tag, perm, id)| entry(tag, perm, id)).collect();
        fs::write(net.join("shared"), "read by another").unwrap();
        xattr::set(net.join("shared"), "system.posix_acl_access", &[&2_u32.to_le_bytes()[..], &acl].concat())
            .unwrap();
        let sparse = fs::File::create(net.join("mostly holes")).unwrap();
        sparse.write_all_at(b"an island", 6 << 20).unwrap();
        sparse.set_len(8 << 20).unwrap();
        UnixListener::bind(net.join("lightning-rpc")).map(drop).unwrap();
    }

    /// No mirror is mounted any more.
    pub(crate) fn reset_mounts(&self) {
        for line in self.mounts().lines().rev().filter(|l| l.contains(" /srv/")) {
            let place = line.split(' ').nth(4).unwrap();
            umount2(place, MntFlags::MNT_DETACH).unwrap();
        }
    }

    /// Everything as it was before the first run, the devices included.
    pub(crate) fn reset(&self) {
        self.reset_mounts();
        let _ = Command::new("chattr").args(["-i", "/srv/lightning"]).stderr(Stdio::null()).status();
        for name in OWN {
            umount2(&Path::new("/").join(name), MntFlags::MNT_DETACH).unwrap();
        }
        self.wipe();
        self.fill();
    }

    pub(crate) fn one(&self) -> &str {
        &self.loops[0].device
    }

    pub(crate) fn two(&self) -> &str {
        &self.loops[1].device
    }

    pub(crate) fn loop_over(&self, device: &str) -> Loop {
        attach(Path::new(device))
    }

    /// Empties both devices.
    pub(crate) fn wipe(&self) {
        for device in &self.loops {
            let image = fs::OpenOptions::new().write(true).open(&device.image).unwrap();
            let out = Command::new("wipefs").args(["-qaf", &device.device]).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            let _ = Command::new("blkdiscard").args(["-f", &device.device]).output();
            image.sync_all().unwrap();
        }
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let device = fs::OpenOptions::new().write(true).open(self.two()).unwrap();
        device.write_all_at(bytes, offset).unwrap();
        device.sync_all().unwrap();
    }

    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    pub(crate) fn images(&self) -> Vec<PathBuf> {
        self.loops.iter().map(|l| l.image.clone()).collect()
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.scratch.join("bin/raidguard")
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let output = Command::new(self.program()).args(args).stdin(Stdio::null()).output().unwrap();
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `check` finds nothing wrong.
    #[track_caller]
    pub(crate) fn check_is_ok(&self) {
        let ran = self.run(&["check"]);
        assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    }

    /// Waits for the children that the dead have left to this process, their reaper; not for what stays.
    pub(crate) fn reap(&self) {
        let me = std::process::id().to_string();
        let is_left = |pid: &i32| {
            // proc_pid_stat(5): the name, which may hold anything, ends with the last parenthesis.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
            parent == Some(&me) && u32::try_from(*pid).ok() != Some(self.cron.id())
        };
        let pids = || {
            let names =
                fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().into_string().ok());
            names.filter_map(|name| name.parse().ok())
        };
        while let Some(pid) = pids().find(is_left) {
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None);
        }
    }

    /// Runs it until SIGKILL at the `number`-th of these system calls. False: it ended before.
    pub(crate) fn run_killed(&self, calls: &str, number: usize, args: &[&str]) -> bool {
        !self.run_killed_by(calls, &[], &format!(":when={number}"), args).success()
    }

    /// Runs it until SIGKILL when it is about to rename what has this path. False: it ended before.
    pub(crate) fn run_killed_at_name(&self, path: &str, args: &[&str]) -> bool {
        self.run_killed_by("rename,renameat,renameat2", &["-P", path], "", args).code().is_none()
    }

    /// Runs it with SIGKILL at these system calls, of which `only` and `when` choose (strace(1)).
    fn run_killed_by(&self, calls: &str, only: &[&str], when: &str, args: &[&str]) -> ExitStatus {
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o", "/dev/null"]).args(only).args(["-e", &format!("trace={calls}")]);
        strace
            .args(["-e", &format!("inject={calls}:signal=SIGKILL{when}"), "--"])
            .arg(self.program())
            .args(args);
        strace.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::null()).status().unwrap()
    }

    pub(crate) fn tool(&self, tool: &str, args: &[&str]) -> String {
        self.tool_with(tool, args, "")
    }

    pub(crate) fn tool_with(&self, tool: &str, args: &[&str], stdin: &str) -> String {
        let mut child = Command::new(tool)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{tool}: {e}"));
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn mounts(&self) -> String {
        // The thread's: the process's first thread still sees the mounts of the machine.
        fs::read_to_string("/proc/thread-self/mountinfo").unwrap()
    }

    /// The node's directory, by its path: every name with all that belongs to it.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, String> {
        self.tree_of("/home/bitcoin/.lightning/")
    }

    pub(crate) fn tree_of(&self, dir: &str) -> BTreeMap<PathBuf, String> {
        fn visit(path: &Path, root: &Path, out: &mut BTreeMap<PathBuf, String>) {
            for entry in fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let content = if meta.is_file() {
                    blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string()
                } else if meta.is_symlink() {
                    format!("{:?}", fs::read_link(&path).unwrap())
                } else if meta.is_dir() {
                    visit(&path, root, out);
                    String::new()
                } else {
                    // Sockets are left behind on purpose.
                    continue;
                };
                let names = xattr::list(&path)
                    .into_iter()
                    .flatten()
                    .filter(|n| !n.as_encoded_bytes().starts_with(b"btrfs."));
                let mut attributes: Vec<_> =
                    names.map(|n| (n.clone(), xattr::get(&path, &n).unwrap())).collect();
                attributes.sort();
                let links = if meta.is_file() { meta.nlink() } else { 0 };
                let facts = format!(
                    "{content} {:o} {}:{} {}.{} {links} {attributes:?}",
                    meta.mode(),
                    meta.uid(),
                    meta.gid(),
                    meta.mtime(),
                    meta.mtime_nsec()
                );
                out.insert(path.strip_prefix(root).unwrap().to_owned(), facts);
            }
        }
        let mut out = BTreeMap::new();
        visit(Path::new(dir), Path::new(dir), &mut out);
        out
    }

    /// A hash of each device's allocated bytes.
    pub(crate) fn devices(&self) -> Vec<String> {
        let all = fs::read_dir(&self.scratch).unwrap().map(|e| e.unwrap().path());
        let images = all.filter(|path| path.is_file());
        // What mkfs left in the devices' own cache must not arrive between two looks.
        nix::unistd::sync();
        let mut hashes: Vec<String> = images
            .map(|image| {
                let mut hasher = blake3::Hasher::new();
                let file = fs::File::open(&image).unwrap();
                // By fixed blocks, zeros left out: how the image file happens to be laid out does not matter.
                let (block, size) = (1i64 << 16, i64::try_from(file.metadata().unwrap().len()).unwrap());
                let mut at = 0i64;
                let mut bytes = vec![0; 1 << 16];
                while let Ok(data) = nix::unistd::lseek(&file, at, nix::unistd::Whence::SeekData) {
                    at = data / block * block;
                    let length = usize::try_from(block.min(size - at)).unwrap();
                    file.read_exact_at(&mut bytes[..length], u64::try_from(at).unwrap()).unwrap();
                    if bytes[..length].iter().any(|b| *b != 0) {
                        hasher.update(&at.to_le_bytes());
                        hasher.update(&bytes[..length]);
                    }
                    at += block;
                }
                format!("{} {}", image.display(), hasher.finalize().to_hex())
            })
            .collect();
        hashes.sort();
        hashes
    }
}

impl Sandbox {
    /// A device of its own with a partition scan, for as long as the value lives.
    pub(crate) fn disk(&self, name: &str, size: u64) -> Loop {
        let image = self.scratch.join(name);
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        self.attach_again(&image)
    }

    /// One more device on an image that may have one already.
    pub(crate) fn attach_again(&self, image: &Path) -> Loop {
        let device = self.tool("losetup", &["--find", "--show", "--partscan", image.to_str().unwrap()]);
        Loop { device: device.trim().to_owned(), image: image.to_owned() }
    }

    /// The image of the second device.
    pub(crate) fn image(&self) -> &Path {
        &self.loops[1].image
    }
}

impl Loop {
    pub(crate) fn name(&self) -> &str {
        &self.device
    }

    /// The device of a partition.
    pub(crate) fn part(&self, number: u32) -> String {
        format!("{}p{number}", self.device)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.cron.kill();
        let _ = self.cron.wait();
        let _ = Command::new("umount").args(["-R", "-l", "/srv/lightning"]).stderr(Stdio::null()).status();
        self.loops.clear();
        // Those that were attached for one case.
        let listed =
            Command::new("losetup").args(["--noheadings", "--output", "NAME,BACK-FILE"]).output().unwrap();
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            if let Some((name, file)) = line
                .split_once(' ')
                .filter(|(_, f)| f.trim().starts_with(self.scratch.to_str().unwrap_or("?")))
            {
                let _ = (Command::new("losetup").args(["--detach", name]).status(), file);
            }
        }
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// A command without what differs from run to run.
pub(crate) fn plain(command: &str) -> String {
    let words = command.split(' ').map(|word| {
        let word = word.trim();
        match word.find("before-raidguard-") {
            Some(at) => {
                let (stem, rest) = word.split_at(at + "before-raidguard-".len());
                format!("{stem}DATE{}", rest.get(15..).unwrap_or_default())
            }
            None if word.len() == 36 && word.matches('-').count() == 4 => "UUID".to_owned(),
            None if word.starts_with("UUID=") => "UUID=".to_owned(),
            None => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}
