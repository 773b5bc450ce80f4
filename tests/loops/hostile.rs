//! The bad day goes wrong itself: what is named is nonsense, tools are not there, records have no room. Each time it is said why, and what
//! to do, and nothing is touched.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    halves::{Traces, find, forget, recover},
    recover::{TO, cut, finished},
    replace::{lose, refused},
    sandbox::isolated,
    store::Store,
    trouble::ended,
    writer::DATABASE,
};

/// A tool that is not there while this lives.
struct Without(PathBuf);

impl Without {
    fn tool(name: &str) -> Self {
        let places = ["/usr/sbin", "/usr/bin"].map(|dir| Path::new(dir).join(name));
        let place = places.iter().find(|place| place.exists()).unwrap_or_else(|| panic!("{name}"));
        let place = fs::canonicalize(place).unwrap();
        let none: Option<&str> = None;
        mount(Some("/dev/null"), &place, none, MsFlags::MS_BIND, none).unwrap();
        Self(place)
    }
}

impl Drop for Without {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_rescue_from_nonsense_or_to_nonsense() {
    isolated("hostile::a_rescue_from_nonsense_or_to_nonsense", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        let half = cut.attach(s, &store, 0);
        let (ext4, garbage) = (s.disk("ext4", 64 << 20), s.disk("garbage", 64 << 20));
        s.tool("mkfs.ext4", &["-q", ext4.name()]);
        let noise: Vec<u8> = (0_u32..4 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        fs::write(garbage.name(), noise).unwrap();
        fs::create_dir_all("/srv/full/dir").unwrap();
        fs::write("/srv/file", "x").unwrap();
        symlink("/srv/full", "/srv/link").unwrap();
        let traces = Traces::of(s);
        let nothing = |ran: &crate::sandbox::Ran, words: &[&str]| {
            ended(ran, 3, words);
            half.is_untouched(s);
            traces.are_all(s);
            assert!(!Path::new(TO).exists() && fs::read("/srv/file").unwrap() == b"x");
        };
        for (from, says) in [
            ("/srv/file", "/srv/file"),
            ("/srv/full", "/srv/full"),
            ("/dev/null", "/dev/null"),
            ("/dev/none", "/dev/none"),
            (ext4.name(), "holds no member of a mirror"),
            (garbage.name(), "holds no member of a mirror"),
        ] {
            nothing(&recover(s, &[from], TO, &[]), &[says]);
            // Beside a good one as well.
            nothing(&recover(s, &[half.name(), from], TO, &[]), &[says]);
        }
        for (to, says) in [
            ("/srv/file", "/srv/file"),
            ("/srv/file/below", "/srv/file/below"),
            ("/srv/full", "not empty"),
            ("/srv/link", "not empty"),
            ("/dev/null", "/dev/null"),
        ] {
            nothing(&recover(s, &[half.name()], to, &[]), &[says, "--to"]);
        }
        // One that turns out to take nothing.
        ended(&recover(s, &[half.name()], "/proc/rescued", &[]), 1, &["/proc/rescued cannot take the files"]);
        for scratch in ["/srv/none", "/srv/file", "/proc"] {
            nothing(&recover(s, &[half.name()], TO, &["--scratch", scratch]), &[scratch, "--scratch"]);
        }
        // The same one twice is one.
        let ran = recover(s, &[half.name(), half.name()], TO, &["--all"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        cut.is_whole(Path::new(TO));
        fs::remove_dir_all(TO).unwrap();

        // Two at a time.
        let first = Command::new(s.program())
            .args(["recover", "--degraded", "--all", "--yes", "--from", half.name(), "--to", TO])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(first.id().try_into().unwrap());
        while !Path::new(TO).exists() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        kill(pid, Signal::SIGSTOP).unwrap();
        let second = recover(s, &[half.name()], "/srv/other", &[]);
        kill(pid, Signal::SIGCONT).unwrap();
        ended(&second, 3, &[&format!("raidguard recover (pid {pid})"), "wait until it has ended"]);
        assert_eq!(finished(first).code, 0);
        cut.is_whole(Path::new(TO));
        half.is_untouched(s);
        traces.are_all(s);
    });
}

#[test]
fn a_rescue_without_its_tools() {
    isolated("hostile::a_rescue_without_its_tools", |s| {
        let store = Store::new(s);
        let cut = cut(s, &store, "raid1", &["one", "two"]);
        let half = cut.attach(s, &store, 0);
        let traces = Traces::of(s);
        for tool in ["losetup", "blockdev", "mount", "lsblk", "wipefs", "blkid"] {
            let without = Without::tool(tool);
            let ran = recover(s, &[half.name()], TO, &[]);
            drop(without);
            if ran.code == 0 {
                assert!(!["losetup", "blockdev", "mount"].contains(&tool), "without {tool}");
                cut.is_whole(Path::new(TO));
                fs::remove_dir_all(TO).unwrap();
            } else {
                assert!(ran.code == 1 || ran.code == 3, "without {tool}: {}", ran.stderr);
                ended(&ran, ran.code, &[tool, "not installed"]);
                assert_eq!(find(Path::new(TO), DATABASE), [] as [PathBuf; 0]);
            }
            assert!(!Path::new(TO).exists(), "without {tool}");
            // What could not be taken down without it is taken down by the next run.
            let ran = recover(s, &[half.name()], TO, &[]);
            assert_eq!(ran.code, 0, "after {tool}: {}", ran.stderr);
            fs::remove_dir_all(TO).unwrap();
            half.is_untouched(s);
            traces.are_all(s);
        }
    });
}

#[test]
fn an_exchange_and_a_repair_where_nothing_fits() {
    isolated("hostile::an_exchange_and_a_repair_where_nothing_fits", |s| {
        let repaired = |args: &[&str], words: &[&str]| {
            ended(&s.run(&[&["repair"], args, &["--yes"]].concat()), 3, words);
        };
        let new = s.disk("new", 2 << 30);
        // Nothing is declared yet.
        refused(s, &["--new", new.name()], &["no mirror is declared", "raidguard setup"]);
        repaired(&[], &["no mirror is declared"]);
        crate::check::set_up(s);
        for args in [&["replace", "other", "--new", new.name()][..], &["repair", "other"]] {
            let ran = s.run(args);
            assert_eq!(ran.code, 2, "{}", ran.stderr);
            assert!(
                ran.stderr.contains("no mirror `other` is declared; there is: lightning"),
                "{}",
                ran.stderr
            );
        }
        repaired(&["--discard", "/dev/none"], &["/dev/none"]);
        refused(s, &["--old", "2", "--new", "/dev/none"], &["/dev/none"]);
        let asked = s.run(&["replace", "--old", "2", "--new", new.name()]);
        ended(&asked, 3, &["no terminal", "--yes"]);
        // The record has no room.
        fs::create_dir_all("/var/lib/raidguard").unwrap();
        let (kind, flags) = (Some("tmpfs"), MsFlags::empty());
        mount(kind, "/var/lib/raidguard", kind, flags, Some("size=4k")).unwrap();
        fs::write("/var/lib/raidguard/full", [1; 4096]).unwrap();
        let ran = s.run(&["replace", "--old", "2", "--new", new.name(), "--yes"]);
        assert!(ran.code == 1 || ran.code == 3, "{}", ran.stderr);
        ended(&ran, ran.code, &["No space left on device"]);
        umount2("/var/lib/raidguard", MntFlags::empty()).unwrap();
        s.check_is_ok();
        // A tool is not there.
        for tool in ["btrfs", "lsblk"] {
            let without = Without::tool(tool);
            let ran = s.run(&["replace", "--old", "2", "--new", new.name(), "--yes"]);
            let repair = s.run(&["repair", "--yes"]);
            drop(without);
            ended(&ran, 3, &["not installed", tool]);
            ended(&repair, 3, &["not installed", tool]);
        }
        s.check_is_ok();
        // All of it is gone.
        lose(s, s.two());
        s.tool("losetup", &["--detach", s.one()]);
        forget();
        for ran in [s.run(&["replace", "--new", new.name(), "--yes"]), s.run(&["repair", "--yes"])] {
            ended(&ran, 3, &["no member of `lightning` is there", "raidguard devices"]);
        }
    });
}
