//! A small mirror whose members are cut off, and what a rescue from them must not leave behind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, umount2};

use crate::{
    sandbox::{Loop, Ran, Sandbox},
    store::Store,
};

pub(crate) const SIZE: u64 = 256 << 20;

/// Mounted, with a node's directory in a subvolume, as `setup` lays it out. It is declared nowhere.
pub(crate) struct Mirror {
    images: Vec<PathBuf>,
    devices: Vec<Loop>,
    mount: PathBuf,
    mounted: bool,
}

impl Mirror {
    pub(crate) fn new(s: &Sandbox, store: &Store, level: &str, members: &[&str]) -> Self {
        let images: Vec<_> = members.iter().map(|name| store.image(name, SIZE)).collect();
        let devices: Vec<_> = images.iter().map(|image| s.attach_again(image)).collect();
        let names: Vec<_> = devices.iter().map(Loop::name).collect();
        s.tool("mkfs.btrfs", &[&["-q", "-d", level, "-m", level], &names[..]].concat());
        let mount = store.path("mirror");
        fs::create_dir_all(&mount).unwrap();
        s.tool("mount", &["-t", "btrfs", "-o", "autodefrag", names[0], mount.to_str().unwrap()]);
        s.tool("btrfs", &["subvolume", "create", mount.join("lightning").to_str().unwrap()]);
        let mirror = Self { images, devices, mount, mounted: true };
        fs::create_dir(mirror.node()).unwrap();
        fs::write(mirror.node().join("hsm_secret"), [7; 32]).unwrap();
        fs::write(mirror.node().join("emergency.recover"), [9; 300]).unwrap();
        fs::write(mirror.mount.join("lightning/config"), "network=bitcoin\n").unwrap();
        mirror.commit();
        mirror
    }

    /// The directory that the node works in.
    pub(crate) fn node(&self) -> PathBuf {
        self.mount.join("lightning/bitcoin")
    }

    /// The filesystem's own transaction, rather than its log alone.
    pub(crate) fn commit(&self) {
        nix::unistd::syncfs(fs::File::open(&self.mount).unwrap()).unwrap();
    }

    pub(crate) fn images(&self) -> &[PathBuf] {
        &self.images
    }

    /// In order, so that all there is has been written out.
    pub(crate) fn unmount(&mut self) {
        umount2(&self.mount, MntFlags::empty()).unwrap();
        self.mounted = false;
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2(&self.mount, MntFlags::empty());
        }
        self.devices.clear();
        forget();
    }
}

/// The kernel keeps no device in mind that nothing has mounted: the next of the same filesystem is another.
pub(crate) fn forget() {
    let _ = std::process::Command::new("btrfs").args(["device", "scan", "--forget"]).output();
}

/// What a run may leave behind on the machine.
pub(crate) struct Traces(BTreeSet<String>);

impl Traces {
    pub(crate) fn of(s: &Sandbox) -> Self {
        let loops = s.tool("losetup", &["--noheadings", "--output", "NAME,BACK-FILE,RO"]);
        let mut all: BTreeSet<String> = loops.lines().map(str::to_owned).collect();
        all.extend(s.mounts().lines().map(|line| line.split(' ').skip(2).collect::<Vec<_>>().join(" ")));
        all.extend(daemons().into_iter().map(|pid| format!("qemu-storage-daemon {pid}")));
        for dir in ["/run/raidguard", "/var/tmp"] {
            names(Path::new(dir), &mut all);
        }
        // The directories themselves stay, and lock files that nobody holds.
        all.retain(|name| name != "/run/raidguard/rescue" && !name.ends_with(".lock"));
        Self(all)
    }

    /// All is as it was.
    #[track_caller]
    pub(crate) fn are_all(&self, s: &Sandbox) {
        let now = Self::of(s).0;
        assert!(now == self.0, "left: {:?}, gone: {:?}", &now - &self.0, &self.0 - &now);
    }
}

fn names(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap()) {
        let path = entry.path();
        if path.is_dir() {
            names(&path, found);
        }
        found.insert(path.display().to_string());
    }
}

/// The `qemu-storage-daemon`s of this machine's namespace.
pub(crate) fn daemons() -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse().ok());
    let same = |link: &str| fs::read_link(link).ok();
    all.filter(|pid: &i32| {
        // proc_pid_comm(5): the name is cut to 15 bytes.
        fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim() == "qemu-storage-da"
            && same(&format!("/proc/{pid}/ns/mnt")) == same("/proc/thread-self/ns/mnt")
    })
    .collect()
}

/// Wherever a file of this name lies below `dir`; what a rescue has not finished is not there.
pub(crate) fn find(dir: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().map(|e| e.unwrap()) {
        if entry.file_name() == ".raidguard-incomplete" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(find(&entry.path(), name));
        } else if entry.file_name() == name {
            found.push(entry.path());
        }
    }
    found
}

/// Runs `recover` without asking.
pub(crate) fn recover(s: &Sandbox, from: &[&str], to: &str, more: &[&str]) -> Ran {
    let from = from.iter().flat_map(|device| ["--from", device]);
    let args: Vec<_> = ["recover", "--degraded", "--to", to, "--yes"].into_iter().chain(from).collect();
    s.run(&[&args[..], more].concat())
}
