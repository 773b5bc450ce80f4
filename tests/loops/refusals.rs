//! Devices that must not be touched, and are not.

use std::{
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use raidguard::host::zfs::{Labels, clear_commands};

use crate::{
    SETUP, craft, sandbox,
    sandbox::{Sandbox, isolated, note},
};

const GIB: u64 = 1 << 30;

/// Runs `setup` on wrong devices, and counts how often it was refused as it must be.
struct Cases<'a> {
    s: &'a Sandbox,
    tried: usize,
}

impl Cases<'_> {
    /// `setup` with these devices must be refused, name the blocker, and leave every device as it is.
    #[track_caller]
    fn pair(&mut self, hdd: &str, usb: &str, words: &[&str]) {
        self.case(&[&["--hdd", hdd, "--usb", usb], &SETUP[..]].concat(), words);
    }

    /// The second device holds something, or is in use, or is not fit.
    #[track_caller]
    fn second(&mut self, words: &[&str]) {
        let s = self.s;
        self.pair(s.one(), s.two(), words);
    }

    #[track_caller]
    fn case(&mut self, args: &[&str], words: &[&str]) {
        let before = (self.s.devices(), self.s.tree_of("/home"));
        let ran = self.s.run(&[&["setup"], args].concat());
        assert!(matches!(ran.code, 2 | 3), "{args:?} ended with {}: {}", ran.code, ran.stderr);
        for word in words {
            assert!(ran.stderr.contains(word), "{args:?}: no `{word}` in {}", ran.stderr);
        }
        let told_twice = ran.stderr.lines().any(|l| ran.stderr.matches(l).count() > 1 && l.contains("/dev/"));
        assert!(!told_twice, "{args:?}: the same thing is said twice: {}", ran.stderr);
        assert!((self.s.devices(), self.s.tree_of("/home")) == before, "{args:?}: something was changed");
        self.tried += 1;
    }
}

#[test]
fn wrong_devices_are_refused_and_left_as_they_are() {
    isolated("refusals::wrong_devices_are_refused_and_left_as_they_are", |s| {
        let mut cases = Cases { s, tried: 0 };
        names(&mut cases);
        sizes(&mut cases);
        contents(&mut cases);
        uses(&mut cases);
        partitions(&mut cases);
        loops(&mut cases);
        system(&mut cases);
        declared(&mut cases);
        note(format!("{} wrong devices were refused, each left as it was", cases.tried));
        assert_eq!(cases.tried, 56);
    });
}

/// Names that are no device, and two names of one device.
fn names(cases: &mut Cases<'_>) {
    let s = cases.s;
    cases.pair(s.one(), s.one(), &["same device"]);
    std::os::unix::fs::symlink(s.one(), "/home/link").unwrap();
    cases.pair(s.one(), "/home/link", &["same device"]);
    let (major, minor) = number(s.one());
    s.tool("mknod", &["/home/block", "b", &major, &minor]);
    cases.pair(s.one(), "/home/block", &["same device"]);
    s.tool("mknod", &["/home/unknown", "b", "7", "1048575"]);
    cases.pair(s.one(), "/home/unknown", &["not among the devices"]);
    s.tool("mkfifo", &["/home/fifo"]);
    for name in ["/dev/null", "/etc/fstab", "/home", "/home/fifo"] {
        cases.pair(s.one(), name, &[name, "not a block device"]);
    }
    cases.pair(s.one(), "/dev/no-such-device", &["/dev/no-such-device cannot be read"]);
    let three = [&["--hdd", s.one(), "--usb", s.two(), "--level", "raid1c3"], &SETUP[..]].concat();
    cases.case(&three, &["raid1c3 needs 3 devices"]);
}

fn number(device: &str) -> (String, String) {
    let number = fs::metadata(device).unwrap().rdev();
    (nix::sys::stat::major(number).to_string(), nix::sys::stat::minor(number).to_string())
}

fn sizes(cases: &mut Cases<'_>) {
    let s = cases.s;
    let small = s.disk("small", 1000 << 20);
    cases.pair(s.one(), small.name(), &["too small"]);
    drop(small);
    // A gibibyte is enough for a mirror, and not for these files.
    let least = s.disk("least", GIB);
    let big = tempfile::tempdir().unwrap();
    let file = fs::File::create(big.path().join("big")).unwrap();
    nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, 600 << 20).unwrap();
    drop(file);
    let dir = big.path().to_str().unwrap();
    let args = ["--hdd", s.one(), "--usb", least.name(), "--lightning-dir", dir];
    let args = [&args, &["--no-node", "--scheduler", "cron", "--yes"][..]].concat();
    cases.case(&args, &["the smallest member would hold 1 GiB", "too little for the node's files"]);
}

/// What a device may hold; also that without `--wipe` nothing is ever erased.
fn contents(cases: &mut Cases<'_>) {
    let s = cases.s;
    for (tool, args, word) in [
        ("mkfs.ext4", vec!["-q", "-F"], "ext4"),
        ("mkfs.xfs", vec!["-q", "-f"], "xfs"),
        ("mkfs.vfat", vec!["-I"], "vfat"),
        ("mkfs.btrfs", vec!["-q", "-f"], "btrfs"),
        ("mkswap", vec!["-q"], "swap"),
    ] {
        s.tool(tool, &[&args[..], &[s.two()]].concat());
        cases.second(&["is not empty", word]);
        s.wipe();
    }
    for label in ["gpt", "dos"] {
        s.tool_with("sfdisk", &["-q", s.two()], &format!("label: {label}\n"));
        cases.second(&["is not empty", label]);
        s.wipe();
    }
    fs::write("/run/key", "a key").unwrap();
    let light = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--batch-mode"];
    s.tool("cryptsetup", &[&["luksFormat", "--type", "luks2"], &light[..], &[s.two(), "/run/key"]].concat());
    cases.second(&["is not empty", "crypto_LUKS"]);
    s.wipe();
    s.write(0, b"LUKS\xba\xbe\x00\x01");
    cases.second(&["is not empty", "crypto_LUKS"]);
    s.wipe();
    let only = format!(
        "devices {{ use_devicesfile=0 filter=[\"a|^{}$|\", \"r|.*|\"] }} activation {{ udev_sync=0 udev_rules=0 }}",
        s.two()
    );
    s.tool("pvcreate", &["-q", "-ff", "-y", "--config", &only, s.two()]);
    cases.second(&["is not empty", "LVM2_member"]);
    s.wipe();
    s.write(4096, &craft::md_member(2 * GIB));
    cases.second(&["is not empty", "linux_raid_member"]);
    s.wipe();
    for (at, label) in craft::zfs_labels(2 * GIB) {
        s.write(at, &label);
    }
    cases.second(&["is not empty", "zfs_member"]);
    zfs_labels(cases);
    s.write(32768, &craft::iso_image());
    cases.second(&["is not empty", "iso9660"]);
    s.wipe();
    // An ext4 superblock behind an XFS one: both are whole, and blkid alone says neither.
    let donor = s.disk("donor", 2 * GIB);
    s.tool("mkfs.ext4", &["-q", "-F", donor.name()]);
    let mut superblock = [0; 1024];
    fs::File::open(donor.name()).unwrap().read_exact_at(&mut superblock, 1024).unwrap();
    s.tool("mkfs.xfs", &["-q", "-f", s.two()]);
    s.write(1024, &superblock);
    cases.second(&["is not empty", "xfs", "ext4"]);
    s.wipe();
}

/// Labels of ZFS that wipefs has taken for gone, and what clears them.
fn zfs_labels(cases: &mut Cases<'_>) {
    let s = cases.s;
    let labels = || Labels::read(Path::new(s.two())).unwrap();
    s.wipe();
    // A description without uberblocks is what older versions of wipefs leave.
    for line in include_str!("../fixtures/zfs/label/mirror-two.txt").lines() {
        let (at, hex) = line.split_once(' ').unwrap();
        let Ok(at) = at.parse::<u64>() else { continue };
        let byte = |n: usize| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
        if at < 128 << 10 {
            s.write(at, &(0..hex.len() / 2).map(byte).collect::<Vec<_>>());
        }
    }
    cases.second(&["is not empty", "zfs_member `ztest`"]);
    s.write(512 << 10, b"what lies between");
    for cmd in clear_commands(Path::new(s.two()), 2 * GIB) {
        let line = cmd.line();
        let words: Vec<_> = line.split(' ').collect();
        s.tool(words[0], &words[1..]);
    }
    assert!(!labels().hold_something());
    let mut between = [0; 17];
    fs::File::open(s.two()).unwrap().read_exact_at(&mut between, 512 << 10).unwrap();
    assert_eq!(&between, b"what lies between");
    for (at, label) in craft::zfs_labels(2 * GIB) {
        let mut now = vec![1; label.len()];
        fs::File::open(s.two()).unwrap().read_exact_at(&mut now, at).unwrap();
        assert!(now.iter().all(|byte| *byte == 0), "the label at {at}");
    }
    s.wipe();
}

/// Devices in use: no flag overlooks that.
fn uses(cases: &mut Cases<'_>) {
    let s = cases.s;
    let wipe = [&["--hdd", s.one(), "--usb", s.two(), "--wipe", "--allow-same-disk"], &SETUP[..]].concat();
    s.tool("mkfs.ext4", &["-q", "-F", s.two()]);
    fs::create_dir("/home/mnt").unwrap();
    s.tool("mount", &["-o", "ro,noload", s.two(), "/home/mnt"]);
    cases.second(&["mounted at /home/mnt"]);
    cases.case(&wipe, &["mounted at /home/mnt"]);
    s.tool("umount", &["/home/mnt"]);
    s.wipe();
    s.tool("mkfs.btrfs", &["-q", "-f", s.two()]);
    s.tool("mount", &["-o", "ro", s.two(), "/home/mnt"]);
    cases.case(&wipe, &["mounted at /home/mnt"]);
    s.tool("umount", &["/home/mnt"]);
    s.wipe();
    // Only one member of a btrfs is a mount's source.
    let fellow = s.disk("fellow", 2 * GIB);
    s.tool("mkfs.btrfs", &["-q", "-f", "-d", "raid1", "-m", "raid1", fellow.name(), s.two()]);
    s.tool("btrfs", &["device", "scan", fellow.name(), s.two()]);
    s.tool("mount", &["-o", "ro", fellow.name(), "/home/mnt"]);
    cases.case(&wipe, &[s.two(), "mounted at /home/mnt"]);
    s.tool("umount", &["/home/mnt"]);
    s.tool("btrfs", &["device", "scan", "--forget", fellow.name(), s.two()]);
    s.wipe();
    s.tool("mkswap", &["-q", s.two()]);
    s.tool("swapon", &[s.two()]);
    cases.case(&wipe, &["swap in use"]);
    s.tool("swapoff", &[s.two()]);
    s.wipe();
    let claimed = fs::OpenOptions::new().read(true).custom_flags(nix::libc::O_EXCL).open(s.two()).unwrap();
    cases.second(&["in use by the kernel"]);
    drop(claimed);
    s.tool("blockdev", &["--setro", s.two()]);
    cases.second(&["read-only"]);
    cases.case(&wipe, &["read-only"]);
    s.tool("blockdev", &["--setrw", s.two()]);
}

/// Partitions, their disk, and each other.
fn partitions(cases: &mut Cases<'_>) {
    let s = cases.s;
    let disk = s.disk("parted", 4 * GIB);
    s.tool_with("sfdisk", &["-q", disk.name()], "label: gpt\nsize=1200M\nsize=1200M\n");
    // A kernel may lack the parser of this table, and takes the partitions all the same.
    s.tool("partx", &["--update", disk.name()]);
    let (first, second) = (disk.part(1), disk.part(2));
    let with = |a: &str, b: &str, more: &[&str]| -> Vec<String> {
        [&["--hdd", a, "--usb", b], &SETUP[..], more].concat().into_iter().map(str::to_owned).collect()
    };
    let mut case = |a: &str, b: &str, more: &[&str], words: &[&str]| {
        let args = with(a, b, more);
        cases.case(&args.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    case(&first, &second, &[], &["on the same disk", "--allow-same-disk"]);
    let args = with(&first, &second, &["--allow-same-disk", "--dry-run"]);
    let allowed = s.run(&[&["setup"], &args.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    assert_eq!(allowed.code, 0, "{}", allowed.stderr);
    // A disk and its own partition are no two devices, whatever is allowed.
    let all = ["--wipe", "--allow-same-disk"];
    case(disk.name(), &first, &all, &["lies on", "named as well"]);
    case(&first, disk.name(), &all, &["lies on", "named as well"]);
    case(s.one(), disk.name(), &[], &["is not empty", "gpt"]);
    s.tool("mkfs.ext4", &["-q", "-F", &first]);
    s.tool("mount", &["-o", "ro,noload", &first, "/home/mnt"]);
    case(s.one(), disk.name(), &all, &["has a part in use", &first, "/home/mnt"]);
    case(s.one(), &first, &all, &["mounted at /home/mnt"]);
    // The partition beside it is free, and its use hurts nobody.
    let args = with(s.one(), &second, &["--dry-run"]);
    let beside = s.run(&[&["setup"], &args.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    assert_eq!(beside.code, 0, "{}", beside.stderr);
    s.tool("umount", &["/home/mnt"]);
    s.tool("mkswap", &["-q", &first]);
    s.tool("swapon", &[&first]);
    case(s.one(), disk.name(), &all, &["has a part in use", &first, "swap in use"]);
    s.tool("swapoff", &[&first]);
    let held = s.loop_over(&first);
    case(s.one(), disk.name(), &all, &["has a part in use", &first, "held by"]);
    drop(held);
    let held = s.loop_over(disk.name());
    case(s.one(), &second, &all, &["lies on", disk.name(), "held by"]);
    drop(held);
    s.tool("blockdev", &["--setro", &second]);
    case(s.one(), &second, &all, &["read-only"]);
    s.tool("blockdev", &["--setrw", &second]);
}

/// Loop devices over the same bytes.
fn loops(cases: &mut Cases<'_>) {
    let s = cases.s;
    let all = ["--wipe", "--allow-same-disk"];
    let pair = |a: &str, b: &str| -> Vec<String> {
        [&["--hdd", a, "--usb", b], &SETUP[..], &all].concat().into_iter().map(str::to_owned).collect()
    };
    let mut case = |a: &str, b: &str, words: &[&str]| {
        let args = pair(a, b);
        cases.case(&args.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    let above = s.loop_over(s.two());
    case(s.one(), s.two(), &["held by"]);
    case(s.two(), above.name(), &["lies on", "named as well"]);
    s.tool("mkfs.ext4", &["-q", "-F", s.two()]);
    s.tool("mount", &["-o", "ro,noload", s.two(), "/home/mnt"]);
    case(s.one(), above.name(), &["lies on", s.two(), "mounted at /home/mnt"]);
    s.tool("umount", &["/home/mnt"]);
    drop(above);
    let twin = std::mem::ManuallyDrop::new(s.attach_again(s.image()));
    case(s.two(), twin.name(), &["same file"]);
    case(s.one(), twin.name(), &["same file", s.two()]);
    s.tool("mount", &["-o", "ro,noload", s.two(), "/home/mnt"]);
    case(s.one(), twin.name(), &["same file", s.two()]);
    s.tool("umount", &["/home/mnt"]);
    s.tool("losetup", &["--detach", twin.name()]);
    s.wipe();
}

/// What the system itself stands on.
fn system(cases: &mut Cases<'_>) {
    let s = cases.s;
    let wipe = [&["--hdd", s.one(), "--usb", s.two(), "--wipe"], &SETUP[..]].concat();
    s.tool("mkfs.ext4", &["-q", "-F", s.two()]);
    s.tool("mount", &["-o", "ro,noload", s.two(), "/var"]);
    cases.case(&wipe, &["holds the running system (/var)"]);
    s.tool("umount", &["/var"]);
    s.wipe();
    // The machine's own disk, where `/` stands on one: only ever named to a run that must refuse.
    let root = s.tool("findmnt", &["--noheadings", "--nofsroot", "--output", "SOURCE", "/"]);
    if let Some(root) = Some(root.trim()).filter(|r| Path::new(r).is_absolute()) {
        // It may be closed to reading; a run that must refuse and only plans is all that it is named to.
        let begin = || {
            let mut bytes = vec![0; 1 << 20];
            fs::File::open(root)
                .and_then(|f| f.read_exact_at(&mut bytes, 0))
                .ok()
                .map(|()| blake3::hash(&bytes))
        };
        let before = begin();
        let args = ["setup", "--hdd", root, "--usb", s.two(), "--wipe", "--dry-run"];
        let ran = s.run(&[&args, &SETUP[..]].concat());
        assert_eq!(ran.code, 3, "{}", ran.stderr);
        assert!(ran.stderr.contains("holds the running system (/)"), "{}", ran.stderr);
        assert_eq!(begin(), before);
        note(format!("the machine's own {root} was refused as well"));
    }
}

/// Members of a mirror that is declared, mounted or not.
fn declared(cases: &mut Cases<'_>) {
    let s = cases.s;
    let made = s.run(&[&["setup", "--hdd", s.one(), "--usb", s.two()], &SETUP[..]].concat());
    assert_eq!(made.code, 0, "{}", made.stderr);
    let other = PathBuf::from("/home/other");
    fs::create_dir(&other).unwrap();
    let third = s.disk("third", 2 * GIB);
    let request = |a: &'static str| {
        let mut args =
            vec!["--name", a, "--lightning-dir", "/home/other", "--no-node", "--scheduler", "none"];
        args.extend(["--yes", "--wipe"]);
        args
    };
    let again = [&["--hdd", s.one(), "--usb", s.two()], &request("other")[..]].concat();
    // Read-only, so that the filesystem writes nothing of its own between two looks.
    s.tool("mount", &["-o", "remount,ro", "/srv/lightning"]);
    cases.case(&again, &["mounted at /srv/lightning", "member of a declared mirror"]);
    s.tool("umount", &["/srv/lightning"]);
    cases.case(&again, &["member of a declared mirror"]);
    let one = [&["--hdd", third.name(), "--usb", s.two()], &request("other")[..]].concat();
    cases.case(&one, &["member of a declared mirror"]);
    let free = s.disk("free", 2 * GIB);
    let name = [&["--hdd", third.name(), "--usb", free.name()], &request("lightning")[..]].concat();
    cases.case(&name, &["a mirror `lightning` is declared already"]);
    s.reset();
}

#[test]
fn devices_of_unlike_size_are_taken_with_a_warning() {
    isolated("refusals::devices_of_unlike_size_are_taken_with_a_warning", |s| {
        let large = s.disk("large", 3 * GIB);
        let before = (s.tree(), s.tree_of("/etc"), s.devices());
        let args = ["setup", "--hdd", s.one(), "--usb", large.name(), "--dry-run"];
        let dry = s.run(&[&args, &SETUP[..]].concat());
        assert_eq!(dry.code, 0, "{}", dry.stderr);
        assert!(dry.stderr.contains("the sizes differ"), "{}", dry.stderr);
        assert!(dry.stderr.contains("the smallest counts"), "{}", dry.stderr);
        assert!((s.tree(), s.tree_of("/etc"), s.devices()) == before);
        let alike =
            s.run(&[&["setup", "--hdd", s.one(), "--usb", s.two(), "--dry-run"], &SETUP[..]].concat());
        assert_eq!(alike.code, 0, "{}", alike.stderr);
        assert!(!alike.stderr.contains("the sizes differ"), "{}", alike.stderr);
        assert!(sandbox::plain(&alike.stdout).contains("mkfs.btrfs"), "{}", alike.stdout);
    });
}
