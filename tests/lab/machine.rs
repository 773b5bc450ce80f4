//! The virtual machine: started, stopped, its power cut, started again on the same disks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
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

/// All devices but the disks. A machine that was saved can only be resumed by one that has the same.
const DEVICES: [&str; 28] = [
    "-machine",
    "q35",
    "-accel",
    "tcg,thread=single",
    "-icount",
    TIME,
    "-cpu",
    "max,la57=off",
    "-smp",
    PROCESSORS,
    "-m",
    "768",
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
    "qemu-xhci,id=usb",
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
        let dir = tempfile::Builder::new().prefix("raidguard-lab-").tempdir().unwrap();
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(backing);
        succeed(create.arg(dir.path().join("root.qcow2")));
        Self { dir, name: name.to_owned(), disks: Vec::new(), running: None }
    }

    /// A machine right after its boot, with the programs installed, and no disk but its own.
    pub(crate) fn fresh(name: &str) -> Self {
        let booted = ready::booted(&key());
        let mut machine = Self::new(name, &booted.join("root.qcow2"), "qcow2");
        machine.start(Some(&booted.join("state")));
        machine.set_clock();
        machine.install();
        machine
    }

    /// Boots once and leaves what it has become in `place`.
    pub(crate) fn boot_to_keep(place: &Path) {
        let mut machine = Self::new("booted", &ready::image().join("root.img"), "raw");
        machine.start(None);
        machine.booted();
        machine.ok("sync");
        let state = machine.dir.path().join("state");
        let running = machine.running.as_mut().unwrap();
        running.monitor.ask("migrate", json!({"uri": format!("exec:cat > '{}'", state.display())}));
        running.monitor.wait_until("query-migrate", |answer| answer["status"] == "completed");
        running.monitor.ask("quit", json!({}));
        machine.ended();
        for name in ["root.qcow2", "state"] {
            fs::copy(machine.dir.path().join(name), place.join(name)).unwrap();
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&mut self, resumed: Option<&Path>) {
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
        cmd.args(["-display", "none", "-S"]).args(DEVICES);
        cmd.arg("-kernel").arg(image.join("kernel")).arg("-initrd").arg(image.join("initrd"));
        cmd.args(["-append", KERNEL, "-no-reboot"]);
        cmd.arg("-blockdev")
            .arg(format!("driver=file,node-name=file,filename={},cache.no-flush=on", path("root.qcow2")));
        cmd.args(["-blockdev", "driver=qcow2,node-name=root,file=file"]);
        cmd.arg("-chardev").arg(format!("file,id=console,path={},append=on", path("console")));
        cmd.arg("-chardev").arg(format!("file,id=committed,path={},append=on", path("committed")));
        cmd.arg("-chardev").arg(format!("socket,id=agent,path={},server=on,wait=off", path("agent")));
        cmd.arg("-qmp").arg(format!("unix:{},server=on,wait=off", path("monitor")));
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
        for at in 0..self.disks.len() {
            if self.disks[at].attached {
                self.plug(at);
            }
        }
        self.monitor().ask("cont", json!({}));
        self.synchronise();
    }

    pub(crate) fn monitor(&mut self) -> &mut Talk {
        &mut self.running.as_mut().unwrap().monitor
    }

    pub(crate) fn agent(&mut self) -> &mut Talk {
        &mut self.running.as_mut().unwrap().agent
    }

    /// Waits until the agent answers, and for nothing older than that.
    fn synchronise(&mut self) {
        let began = Instant::now();
        for id in 1.. {
            assert!(began.elapsed() < PATIENCE, "the agent does not answer");
            let running = self.running.as_mut().unwrap();
            assert!(running.qemu.try_wait().unwrap().is_none(), "QEMU has ended");
            running.agent.send("guest-sync", json!({"id": id}));
            for _ in 0..4 {
                if running.agent.receive().is_some_and(|m| m["return"] == id) {
                    return;
                }
            }
        }
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

    /// Boots after a cut, or after it was shut down, and waits for the end of the boot.
    pub(crate) fn boot(&mut self) -> String {
        let began = Instant::now();
        self.start(None);
        let state = self.booted();
        println!("note: {}: booted in {} s", self.name, began.elapsed().as_secs());
        state
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

/// By what a saved machine must be made anew.
fn key() -> String {
    let version = Command::new("qemu-system-x86_64").arg("--version").output().unwrap().stdout;
    let mut hash = blake3::Hasher::new();
    hash.update(&version).update(KERNEL.as_bytes());
    for word in DEVICES {
        hash.update(word.as_bytes()).update(b"\0");
    }
    hash.finalize().to_hex()[..16].to_owned()
}
