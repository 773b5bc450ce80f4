//! Overlays over a real survivor: what a power cut left is read through them, written above them, and the survivor stays as it was.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use raidguard::{
    exec::{Flow, Interrupt},
    host::{
        Host,
        apart::apart,
        overlay::{self, Choice, Kind, Request},
    },
};

use crate::sandbox::{Loop, Sandbox, isolated, note};

/// Tells a test's own program to open an overlay over this device, mount it, say so, and wait to be killed.
const KILLED: &str = "RAIDGUARD_TEST_OVERLAY";
const SCRATCH: &str = "/var/tmp";
const SAID: &str = "committed to the log tree alone";

/// One half of a mirror, as a power cut leaves it right after an fsync.
fn half(sandbox: &Sandbox) -> Loop {
    let (one, two) = (sandbox.disk("first", 512 << 20), sandbox.disk("second", 512 << 20));
    sandbox.tool("mkfs.btrfs", &["-q", "-f", "-d", "raid1", "-m", "raid1", one.name(), two.name()]);
    fs::create_dir_all("/srv/mirror").unwrap();
    fs::create_dir_all(SCRATCH).unwrap();
    sandbox.tool("mount", &["-o", "commit=300", one.name(), "/srv/mirror"]);
    fs::write("/srv/mirror/before", vec![7; 8 << 20]).unwrap();
    sandbox.tool("btrfs", &["filesystem", "sync", "/srv/mirror"]);
    let mut file = fs::File::create("/srv/mirror/said").unwrap();
    file.write_all(SAID.as_bytes()).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let cut = sandbox.scratch().join("half");
    let image = sandbox.scratch().join("first");
    sandbox.tool("cp", &["--sparse=always", image.to_str().unwrap(), cut.to_str().unwrap()]);
    sandbox.tool("umount", &["/srv/mirror"]);
    sandbox.tool("btrfs", &["device", "scan", "--forget"]);
    sandbox.attach_again(&cut)
}

fn hash(half: &Loop) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(fs::File::open(half.name()).unwrap()).unwrap();
    hasher.finalize()
}

fn request<'a>(choice: Choice, survivors: &'a [PathBuf]) -> Request<'a> {
    Request { choice, survivors, scratch: Path::new(SCRATCH), limit: None, used: None }
}

fn is_read_only(half: &Loop) -> bool {
    let name = Path::new(half.name()).file_name().unwrap().to_str().unwrap();
    fs::read_to_string(format!("/sys/class/block/{name}/ro")).unwrap().trim() == "1"
}

/// Nothing of any overlay is left on the machine.
fn assert_gone(sandbox: &Sandbox, half: &Loop) {
    assert!(!is_read_only(half), "the survivor is still read-only");
    assert_eq!(fs::read_dir(SCRATCH).unwrap().count(), 0);
    assert_eq!(fs::read_dir(overlay::RESCUE_DIR).unwrap().count(), 0);
    let loops = sandbox.tool("losetup", &["--list", "--noheadings", "--output", "BACK-FILE"]);
    assert!(!loops.contains("/rescue"), "{loops}");
    assert!(!sandbox.mounts().contains("rescue"), "{}", sandbox.mounts());
    let commands =
        fs::read_dir("/proc").unwrap().filter_map(|e| fs::read(e.unwrap().path().join("cmdline")).ok());
    let daemon = b"qemu-storage-daemon";
    assert!(!commands.into_iter().any(|c| c.starts_with(daemon)), "a daemon is left");
}

fn survives(sandbox: &Sandbox, half: &Loop, choice: Choice, kind: Kind) {
    let host = Host::real(Interrupt::default());
    let survivors = [PathBuf::from(half.name())];
    let before = hash(half);
    let mut over = overlay::open(&host, &request(choice, &survivors), &mut |_| Flow::Continue).unwrap();
    assert_eq!(over.kind(), kind, "{}", over.why());
    assert!(is_read_only(half));
    // Nobody else may take the survivor meanwhile.
    let second = overlay::open(&host, &request(choice, &survivors), &mut |_| Flow::Continue).unwrap_err();
    assert!(second.to_string().contains("at work on"), "{second}");
    assert!(overlay::clear_leftovers(&host).unwrap().is_empty(), "a live run's objects are let alone");

    sandbox.tool("btrfs", &["device", "scan", "--forget", half.name()]);
    let device = over.devices()[0].to_str().unwrap().to_owned();
    let used = over.state().unwrap().used;
    let mounted = |how: &str, look: &(dyn Fn() + Sync)| {
        let inside = || {
            fs::create_dir_all("/run/seen").unwrap();
            let options = format!("{how},degraded,device={device}");
            sandbox.tool("mount", &["-t", "btrfs", "-o", &options, &device, "/run/seen"]);
            look();
            sandbox.tool("umount", &["/run/seen"]);
        };
        apart(inside).unwrap();
    };
    mounted("ro", &|| {
        assert_eq!(fs::read_to_string("/run/seen/said").unwrap(), SAID);
        assert_eq!(fs::read("/run/seen/before").unwrap(), vec![7; 8 << 20]);
    });
    mounted("rw", &|| fs::write("/run/seen/above", vec![9; 4 << 20]).unwrap());
    over.settle().unwrap();
    mounted("ro", &|| {
        assert_eq!(fs::read_to_string("/run/seen/said").unwrap(), SAID);
        assert_eq!(fs::read("/run/seen/above").unwrap(), vec![9; 4 << 20]);
    });
    let state = over.state().unwrap();
    assert_eq!(state.broken, None);
    assert!(state.used > used, "{state:?}");
    let proof = over.close(&|| {}).unwrap();
    assert!(proof.holds(), "{proof:?}");
    assert_gone(sandbox, half);
    assert_eq!(hash(half), before, "the survivor changed");
}

/// Nothing was written above it: it is read with nothing between, and what it is read through takes no write.
fn is_seen_through(sandbox: &Sandbox, half: &Loop) {
    let survivors = [PathBuf::from(half.name())];
    let request = request(Choice::Fuse, &survivors);
    let mut over =
        overlay::open(&Host::real(Interrupt::default()), &request, &mut |_| Flow::Continue).unwrap();
    let first = over.devices()[0].clone();
    over.settle().unwrap();
    let through = &over.devices()[0];
    assert_ne!(*through, first);
    let begins = |path: &Path| {
        let mut bytes = vec![0; 1 << 20];
        fs::File::open(path).unwrap().read_exact(&mut bytes).unwrap();
        bytes
    };
    assert_eq!(begins(through), begins(Path::new(half.name())));
    let device = fs::OpenOptions::new().write(true).open(through);
    let refused = device.and_then(|mut device| device.write_all(&[7; 4096]).and_then(|()| device.sync_all()));
    assert!(refused.is_err());
    assert_eq!(over.state().unwrap().broken, None);
    assert!(over.close(&|| {}).unwrap().holds());
    assert_gone(sandbox, half);
}

#[test]
fn a_survivor_is_read_and_written_above_and_never_changes() {
    isolated("overlay::a_survivor_is_read_and_written_above_and_never_changes", |sandbox| {
        let half = half(sandbox);
        for (choice, kind) in [(Choice::Fuse, Kind::Fuse), (Choice::Image, Kind::Image)] {
            survives(sandbox, &half, choice, kind);
        }
        is_seen_through(sandbox, &half);
    });
}

#[test]
fn what_a_killed_rescue_left_the_next_run_takes_down() {
    let host = || Host::real(Interrupt::default());
    if let Ok(told) = std::env::var(KILLED) {
        let (choice, device) = told.split_once(' ').unwrap();
        let choice = if choice == "fuse" { Choice::Fuse } else { Choice::Image };
        let survivors = [PathBuf::from(device)];
        let over = overlay::open(&host(), &request(choice, &survivors), &mut |_| Flow::Continue).unwrap();
        let device = over.devices()[0].to_str().unwrap();
        let _ = Command::new("btrfs").args(["device", "scan", "--forget"]).output();
        apart(|| {
            fs::create_dir_all("/run/seen").unwrap();
            let options = format!("ro,degraded,device={device}");
            let mut mount = Command::new("mount");
            assert!(
                mount.args(["-t", "btrfs", "-o", &options, device, "/run/seen"]).status().unwrap().success()
            );
            println!("open {device}");
            std::thread::sleep(std::time::Duration::from_secs(600));
        })
        .unwrap();
    }
    let name = "overlay::what_a_killed_rescue_left_the_next_run_takes_down";
    isolated(name, |sandbox| {
        let half = half(sandbox);
        let before = hash(&half);
        for choice in ["fuse", "image"] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([name, "--exact", "--nocapture", "--test-threads=1"])
                .env(KILLED, format!("{choice} {}", half.name()))
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            assert!(lines.any(|line| line.unwrap().contains("open /dev/loop")), "it opened nothing");
            assert!(overlay::clear_leftovers(&host()).unwrap().is_empty(), "it still lives");
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(is_read_only(&half));
            let cleared = overlay::clear_leftovers(&host()).unwrap();
            note(format!("{choice}: {}", cleared.join(", ")));
            assert!(cleared.iter().any(|c| c.contains("takes writes again")), "{cleared:?}");
            assert_gone(sandbox, &half);
            assert_eq!(hash(&half), before, "the survivor changed");
        }
    });
}
