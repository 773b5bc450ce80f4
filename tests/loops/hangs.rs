//! Sources that never answer: each costs its time limit and no more, the rest is reported, and Ctrl-C ends a check at once.

use std::{
    fs,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    check::{faults, finds, set_up},
    sandbox::{Sandbox, isolated},
};

const MIRROR: &str = "/srv/lightning";
const DATA: &str = "/srv/lightning/lightning";
/// A source's limit, and what a slow machine needs for the rest.
const LIMIT: Duration = Duration::from_secs(10);
const SLACK: Duration = Duration::from_secs(20);

/// A filesystem whose program never answers (fuse(4)): it is this process, which does not even read the first request.
struct Dead {
    place: String,
    device: Option<fs::File>,
}

impl Dead {
    fn at(place: &str) -> Self {
        fs::create_dir_all(place).unwrap();
        let device = fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(Some("dead"), place, Some("fuse.dead"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { place: place.to_owned(), device: Some(device) }
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        // Without its program every request fails.
        drop(self.device.take());
        let _ = umount2(self.place.as_str(), MntFlags::MNT_DETACH);
    }
}

/// A check whose one source does not answer: what it finds, and that it took the limit once at most.
#[track_caller]
fn late(s: &Sandbox, args: &[&str]) -> (i32, Vec<String>) {
    let began = Instant::now();
    let (code, codes) = faults(s, args);
    let took = began.elapsed();
    assert!(took < LIMIT + SLACK, "{took:?}");
    (code, codes.into_iter().collect())
}

#[test]
fn a_hung_filesystem_costs_its_limit_and_the_rest_is_reported() {
    isolated("hangs::a_hung_filesystem_costs_its_limit_and_the_rest_is_reported", |s| {
        set_up(s);
        {
            // One that is nobody's business is not touched.
            let _stray = Dead::at("/mnt");
            let began = Instant::now();
            finds(s, &[], 0, &[]);
            assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
        }
        fs::remove_file("/etc/cron.d/raidguard").unwrap();
        {
            let _dead = Dead::at(&format!("{DATA}/testnet"));
            let (code, codes) = late(s, &[]);
            assert_eq!((code, codes), (3, ["OBS-FAILED", "SCH-MISSING"].map(String::from).to_vec()));
            let said = s.run(&["check"]).stdout;
            assert!(said.contains("the node's directory could not be read"), "{said}");
            assert!(said.contains("no answer within 10 s"), "{said}");
            // Nor is it waited for without an end by who looks deeper, or only shows.
            assert_eq!(late(s, &["--deep"]).0, 3);
            let began = Instant::now();
            assert_eq!(s.run(&["status"]).code, 0);
            assert_eq!(s.run(&["guard"]).code, 3);
            assert!(began.elapsed() < (LIMIT + SLACK) * 2, "{:?}", began.elapsed());
        }
        {
            let _dead = Dead::at(MIRROR);
            let (code, codes) = late(s, &[]);
            assert_eq!(code, 2);
            let found = |code: &str| codes.iter().any(|c| c == code);
            assert!(found("MNT-OTHER") && found("SCH-MISSING") && found("OBS-FAILED"), "{codes:?}");
        }
        assert_eq!(s.run(&["schedule", "install"]).code, 0);
        // That the job failed is known until it has not.
        finds(s, &["--deep"], 1, &["SCH-FAILED"]);
        finds(s, &["--deep"], 0, &[]);
    });
}

/// Members of a kind whose health is asked for: sysfs says that they lie on sdz.
fn on_a_disk(s: &Sandbox) {
    let sizes = [s.one(), s.two()].map(|device| {
        let name = device.rsplit('/').next().unwrap().to_owned();
        let size = fs::read(format!("/sys/class/block/{name}/size")).unwrap();
        (name, size)
    });
    s.tool("mount", &["-t", "tmpfs", "tmpfs", "/sys/class/block"]);
    for (name, size) in sizes {
        fs::create_dir_all(format!("/sys/class/block/{name}/slaves/sdz")).unwrap();
        fs::create_dir_all(format!("/sys/class/block/{name}/holders")).unwrap();
        fs::write(format!("/sys/class/block/{name}/size"), size).unwrap();
    }
    fs::create_dir_all("/sys/class/block/sdz").unwrap();
}

/// Puts this in the place of smartctl.
fn smartctl(s: &Sandbox, script: &str) {
    let fake = s.scratch().join("smartctl");
    fs::write(&fake, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&fake, fs::Permissions::from_mode(0o755)).unwrap();
    for place in ["/usr/sbin/smartctl", "/usr/local/sbin/smartctl"] {
        if place.starts_with("/usr/local") && !Path::new("/usr/sbin/smartctl").exists() {
            if !Path::new(place).exists() {
                s.tool("mount", &["-t", "tmpfs", "tmpfs", "/usr/local/sbin"]);
            }
            fs::copy(&fake, place).unwrap();
        } else if Path::new(place).exists() {
            s.tool("mount", &["--bind", fake.to_str().unwrap(), place]);
        }
    }
}

#[test]
fn a_smartctl_that_never_returns_or_says_nonsense_is_no_healthy_disk() {
    isolated("hangs::a_smartctl_that_never_returns_or_says_nonsense_is_no_healthy_disk", |s| {
        set_up(s);
        on_a_disk(s);
        // Both members on one disk is a fault of its own.
        for script in [
            "exit 0",
            "echo '{'; exit 0",
            "head -c 100000 /dev/urandom",
            "echo '{\"smartctl\":{\"exit_status\":2}}'",
        ] {
            smartctl(s, script);
            finds(s, &[], 2, &["MIR-SAME-DISK", "OBS-FAILED"]);
        }
        smartctl(s, "exec sleep 1000");
        let began = Instant::now();
        finds(s, &[], 2, &["MIR-SAME-DISK", "OBS-FAILED"]);
        assert!(began.elapsed() < LIMIT + SLACK, "{:?}", began.elapsed());
        let mut check = Command::new(s.program())
            .arg("check")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = check.id().to_string();
        let child = || {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            let of_threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let more = of_threads.map(|t| fs::read_to_string(t.path().join("children")).unwrap_or_default());
            more.chain([children])
                .flat_map(|c| c.split(' ').map(str::to_owned).collect::<Vec<_>>())
                .find(|c| !c.is_empty())
        };
        let mut tool = None;
        for _ in 0..100 {
            tool = child();
            if tool.is_some() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        let tool = tool.expect("smartctl was not begun");
        let began = Instant::now();
        kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(check.wait().unwrap().code(), Some(3), "no verdict was reached");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        for _ in 0..100 {
            let state = fs::read_to_string(format!("/proc/{tool}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("smartctl outlives the check");
    });
}
