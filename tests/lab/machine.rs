//! The virtual machine: started, stopped, its power cut, started again on the same disks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde_json::json;

use crate::{
    disks::Disk,
    ready::{self, succeed},
    talk::{PATIENCE, Talk},
};

/// Time in the guest goes by what it has done, a nanosecond for each instruction, not by how busy this machine is: a disk that fstab
/// has systemd wait half a minute for, or a question that a check gives eight seconds, is not late because of the emulation. While the
/// guest waits, its time is ours.
const TIME: &str = "shift=0,sleep=on";
/// Two, each emulated by a thread of its own, make QEMU 7.2 run now and then an int3 that the kernel's patching of its own text has
/// already taken back on the other, and the guest's kernel dies of it (seen in 2 boots of 30 on a busy machine).
const PROCESSORS: &str = "1";

/// One without AVX and XSAVE: with all that QEMU 7.2 can emulate (`max`), one boot of some forty has nonsense in a register or in the
/// kernel's memory, and dies of it then or later.
const PROCESSOR: &str = "Westmere,rdrand=on";

/// How much memory it has, in MiB. Whoever measures has disks in it.
fn memory() -> String {
    std::env::var("RAIDGUARD_LAB_MEMORY").unwrap_or_else(|_| "768".to_owned())
}

/// All devices but the disks. A machine that was saved can only be resumed by one that has the same.
const DEVICES: [&str; 26] = [
    "-machine",
    "q35",
    "-accel",
    "tcg,thread=single",
    "-icount",
    TIME,
    "-cpu",
    PROCESSOR,
    "-smp",
    PROCESSORS,
    "-rtc",
    "base=utc",
    "-device",
    "virtio-blk-pci,drive=root,serial=root",
    "-device",
    "virtio-serial-pci",
    "-device",
    "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
    "-device",
    "virtserialport,chardev=committed,name=lab.committed",
    "-device",
    "virtio-scsi-pci,id=scsi",
    "-device",
    "qemu-xhci,id=usb,p2=8,p3=8",
    "-serial",
    "chardev:console",
];

const KERNEL: &str = "root=/dev/vda rw console=ttyS0 quiet loglevel=4 mitigations=off nowatchdog random.trust_cpu=on \
    cryptomgr.notests 8250.nr_uarts=1 panic=-1";

pub(crate) struct Machine {
    dir: tempfile::TempDir,
    name: String,
    pub(crate) disks: Vec<Disk>,
    running: Option<Running>,
}

struct Running {
    qemu: Child,
    monitor: Talk,
    agent: Talk,
}

impl Machine {
    fn new(name: &str, backing: &Path, format: &str) -> Self {
        let machine = Self::nowhere(name);
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(backing);
        succeed(create.arg(machine.path("root.qcow2")));
        machine
    }

    fn nowhere(name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("raidguard-lab-").tempdir().unwrap();
        Self { dir, name: name.to_owned(), disks: Vec::new(), running: None }
    }

    /// A machine right after its boot, with the programs installed, and no disk but its own.
    pub(crate) fn fresh(name: &str) -> Self {
        let booted = Self::booted_once();
        let mut machine = Self::resumed(name, &booted, &[]);
        machine.install();
        machine
    }

    /// Where the machine that has just booted is kept.
    pub(crate) fn booted_once() -> PathBuf {
        ready::kept(ready::image(), "booted", &key(), |place| {
            for again in (0..3).rev() {
                let mut machine = Self::new("booted", &ready::image().join("root.img"), "raw");
                machine.start(None);
                machine.booted();
                machine.keep(place);
                if Self::lives(place) {
                    return;
                }
                assert!(again > 0, "none of three boots lived on");
                println!("note: what was kept of a boot died when it went on: it is booted once more");
            }
        })
    }

    /// Whether what was kept of a boot goes on: a register of nonsense may lie in its memory, and every case would die of it.
    fn lives(place: &Path) -> bool {
        let tried = std::panic::catch_unwind(|| {
            let mut machine = Self::resumed("booted", place, &[]);
            machine.install();
            machine.ok("find / -xdev -type f -size -64k -exec cat {} + >/dev/null; udevadm trigger --settle");
        });
        tried.is_ok()
    }

    /// What was kept, going on from there in a copy of its own, with everything that is written to `logged` kept in order. It believes
    /// that no time has passed.
    pub(crate) fn resumed(name: &str, kept: &Path, logged: &[&str]) -> Self {
        let mut machine = Self::nowhere(name);
        machine.disks = Disk::kept(kept, machine.dir.path());
        let images = machine.disks.iter().map(|d| d.serial.clone());
        for file in images.chain(["root.qcow2", "committed"].map(str::to_owned)) {
            copy(&kept.join(&file), &machine.path(&file));
        }
        logged.iter().for_each(|serial| machine.log_writes(serial));
        machine.start(Some(&kept.join("state")));
        machine
    }

    /// Ends it and leaves it in `place`, to be resumed: its memory, its root disk, its other disks.
    pub(crate) fn keep(mut self, place: &Path) {
        let state = place.join("state");
        let running = self.running.as_mut().unwrap();
        running.monitor.ask("migrate", json!({"uri": format!("exec:cat > '{}'", state.display())}));
        running.monitor.wait_until("query-migrate", |answer| answer["status"] == "completed");
        running.monitor.ask("quit", json!({}));
        self.ended();
        let images = self.disks.iter().map(|d| d.serial.clone());
        for file in images.chain(["root.qcow2", "committed"].map(str::to_owned)) {
            copy(&self.path(&file), &place.join(&file));
        }
        Disk::keep(&self.disks, place);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Boots it, or resumes it. QEMU 7.2 lets a guest's kernel die in one boot of some forty, of nonsense in a register, before anything
    /// of ours has run: such a boot is tried again. Who dies of what is on its disks dies each time.
    fn start(&mut self, resumed: Option<&Path>) {
        for again in (0..3).rev() {
            let seen = self.console_since(0).len();
            if self.try_to_start(resumed) {
                return;
            }
            self.running = None;
            let console = self.console_since(seen);
            let died = console.lines().find(|line| line.contains("Kernel panic"));
            assert!(again > 0 && resumed.is_none() && died.is_some(), "QEMU has ended");
            println!(
                "note: {}: its kernel died in the boot, which is tried again: {}",
                self.name,
                died.unwrap()
            );
        }
    }

    /// False: it has ended before its agent answered.
    fn try_to_start(&mut self, resumed: Option<&Path>) -> bool {
        assert!(self.running.is_none(), "it runs");
        let image = ready::image();
        let (monitor, agent) = (self.path("monitor"), self.path("agent"));
        for socket in [&monitor, &agent] {
            let _ = fs::remove_file(socket);
        }
        let path = |name: &str| self.path(name).display().to_string();
        // It ends with the thread that started it, however that ends.
        let mut cmd = Command::new("setpriv");
        cmd.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64", "-nodefaults", "-no-user-config"]);
        cmd.args(["-display", "none", "-S"]).args(DEVICES).args(["-m", &memory()]);
        cmd.arg("-kernel").arg(image.join("kernel")).arg("-initrd").arg(image.join("initrd"));
        cmd.args(["-append", KERNEL, "-no-reboot"]);
        cmd.arg("-blockdev")
            .arg(format!("driver=file,node-name=file,filename={},cache.no-flush=on", path("root.qcow2")));
        cmd.args(["-blockdev", "driver=qcow2,node-name=root,file=file"]);
        cmd.arg("-chardev").arg(format!("file,id=console,path={},append=on", path("console")));
        cmd.arg("-chardev").arg(format!("file,id=committed,path={},append=on", path("committed")));
        cmd.arg("-chardev").arg(format!("socket,id=agent,path={},server=on,wait=off", path("agent")));
        cmd.arg("-qmp").arg(format!("unix:{},server=on,wait=off", path("monitor")));
        // Those that are there when the power comes on.
        for disk in self.disks.iter().filter(|d| d.attached) {
            for node in disk.nodes() {
                cmd.arg("-blockdev").arg(node.to_string());
            }
            cmd.arg("-device").arg(disk.hardware().to_string());
        }
        if let Some(state) = resumed {
            cmd.arg("-incoming").arg(format!("exec:cat '{}'", state.display()));
        }
        let log = fs::File::create(self.path("qemu.log")).unwrap();
        let mut qemu = cmd.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut alive = || qemu.try_wait().unwrap().is_none();
        let mut monitor = Talk::connect(&monitor, &mut alive);
        let agent = Talk::connect(&agent, &mut alive);
        monitor.ask("qmp_capabilities", json!({}));
        if resumed.is_some() {
            monitor.wait_until("query-migrate", |answer| answer["status"] == "completed");
        }
        self.running = Some(Running { qemu, monitor, agent });
        self.monitor().ask("cont", json!({}));
        self.synchronise()
    }

    pub(crate) fn monitor(&mut self) -> &mut Talk {
        &mut self.running.as_mut().unwrap().monitor
    }

    pub(crate) fn agent(&mut self) -> &mut Talk {
        &mut self.running.as_mut().unwrap().agent
    }

    /// Waits until the agent answers, and for nothing older than that. False: QEMU has ended.
    fn synchronise(&mut self) -> bool {
        let began = Instant::now();
        for id in 1.. {
            assert!(began.elapsed() < PATIENCE, "the agent does not answer");
            let running = self.running.as_mut().unwrap();
            if running.qemu.try_wait().unwrap().is_some() {
                return false;
            }
            running.agent.send("guest-sync", json!({"id": id}));
            for _ in 0..4 {
                if running.agent.receive().is_some_and(|m| m["return"] == id) {
                    return true;
                }
            }
        }
        unreachable!("it counts on")
    }

    /// Waits until systemd has nothing left to start; how it calls that.
    pub(crate) fn booted(&mut self) -> String {
        self.sh("systemctl is-system-running --wait").stdout.trim().to_owned()
    }

    /// Cuts the power.
    pub(crate) fn cut(&mut self) {
        let mut running = self.running.take().unwrap();
        running.qemu.kill().unwrap();
        running.qemu.wait().unwrap();
    }

    /// Runs `look` while nothing in the machine goes on, and nothing that it has begun is brought to an end: an instant, as a power cut
    /// would leave it.
    pub(crate) fn at_an_instant<T>(&self, look: impl FnOnce(&Self) -> T) -> T {
        let qemu = Pid::from_raw(self.running.as_ref().unwrap().qemu.id().try_into().unwrap());
        kill(qemu, Signal::SIGSTOP).unwrap();
        // When this returns, every thread of it has stopped.
        let stopped = waitpid(qemu, Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
        let seen = look(self);
        kill(qemu, Signal::SIGCONT).unwrap();
        seen
    }

    /// Boots after a cut, or after it was shut down, and waits for the end of the boot.
    pub(crate) fn boot(&mut self) -> String {
        let began = Instant::now();
        self.start(None);
        let state = self.booted();
        self.copies_at_once();
        println!("note: {}: booted in {} s", self.name, began.elapsed().as_secs());
        state
    }

    /// Has md not wait for the node: while something else is written it copies no faster than this, by default 1 MiB a second.
    pub(crate) fn copies_at_once(&mut self) {
        self.ok("limit=/proc/sys/dev/raid/speed_limit_min; [ ! -e $limit ] || echo 500000 >$limit");
    }

    /// Shuts down as an operator does, and boots again.
    pub(crate) fn reboot(&mut self) -> String {
        self.agent().send("guest-shutdown", json!({"mode": "powerdown"}));
        self.ended();
        self.boot()
    }

    fn ended(&mut self) {
        let mut running = self.running.take().unwrap();
        let began = Instant::now();
        while running.qemu.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.qemu.kill();
            let _ = running.qemu.wait();
        }
        if thread::panicking() {
            let keep = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab").join(&self.name);
            let _ = fs::create_dir_all(&keep);
            for name in ["console", "qemu.log"] {
                let _ = fs::copy(self.path(name), keep.join(name));
            }
            let console = fs::read(self.path("console")).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let lines: Vec<_> = console.lines().collect();
            eprintln!("the end of its console, the whole is in {}:", keep.display());
            lines.iter().skip(lines.len().saturating_sub(40)).for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// Copies a file with its holes.
pub(crate) fn copy(from: &Path, to: &Path) {
    succeed(Command::new("cp").args(["--sparse=always", "--"]).args([from, to]));
}

/// By what a saved machine must be made anew.
fn key() -> String {
    let version = Command::new("qemu-system-x86_64").arg("--version").output().unwrap().stdout;
    let mut hash = blake3::Hasher::new();
    hash.update(&version).update(KERNEL.as_bytes()).update(memory().as_bytes());
    for word in DEVICES {
        hash.update(word.as_bytes()).update(b"\0");
    }
    hash.finalize().to_hex()[..16].to_owned()
}
