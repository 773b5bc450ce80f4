//! Where a drill takes place: throw-away disks, and a mount namespace with directories of its own over those of the machine.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::record::{Keeper, Record};
use crate::{
    exec::{Cmd, CmdError},
    host::{
        Host,
        files::{Doing as _, FileError},
        mountinfo::{self, MountinfoError},
        overlay::{self, OverlayError},
    },
    model::Bytes,
};

/// The size of a disk; its file takes what is written.
pub(super) const DISK: Bytes = Bytes::gib(2);
/// How long the kernel may take to let go of a loop device.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// After this long whatever goes by itself has gone.
const SETTLED: Duration = Duration::from_secs(2);

/// What the machine has of these is needed in there too: users' names, and what the loader and the clock read.
const KEPT: [&str; 6] = ["passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf", "localtime"];
/// Directories of the machine that are covered by memory, and by directories on the scratch disk.
const IN_MEMORY: [&str; 3] = ["etc", "run", "srv"];
const ON_DISK: [&str; 3] = ["home", "mnt", "var"];

/// Why the stage could not be set or struck.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    #[error(transparent)]
    Cmd(#[from] CmdError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Mounts(#[from] MountinfoError),
    #[error("{} is still in use", .0.display())]
    InUse(PathBuf),
    #[error("the disk was written to while it was copied, again and again")]
    Restless,
}

/// A throw-away disk.
#[derive(Debug)]
pub(super) struct Disk {
    image: PathBuf,
    /// Its device node.
    pub(super) device: PathBuf,
    /// As long as it is open the device stays; when it is closed the kernel detaches it by itself, also if we are killed.
    hold: File,
}

/// What there is in the private namespace. Everything here is done on its thread.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    host: &'a Host,
    keeper: &'a mut Keeper,
    /// The scratch directory, as it is seen here.
    place: PathBuf,
    /// The program that is called, as it is seen here.
    pub(super) program: PathBuf,
    /// The disks, in the order they were made. One that is gone leaves `None`.
    pub(super) disks: Vec<Option<Disk>>,
}

/// Makes the scratch directory, on the machine.
pub(super) fn make_scratch(scratch: &Path) -> Result<(), FileError> {
    let make =
        |path: &Path, mode| fs::DirBuilder::new().mode(mode).create(path).doing("creating directory", path);
    make(scratch, 0o700)?;
    for name in ON_DISK.into_iter().chain(["disks", "rescue"]) {
        make(&scratch.join(name), 0o755)?;
    }
    for name in ["var/lib", "var/log", "var/cache", "var/tmp"] {
        make(&scratch.join(name), 0o755)?;
    }
    Ok(())
}

/// Takes the scratch directory away. Whether it was there.
pub(super) fn remove_scratch(scratch: &Path) -> Result<bool, FileError> {
    match fs::remove_dir_all(scratch) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).doing("removing", scratch),
    }
}

impl<'a> Stage<'a> {
    /// Covers the machine's directories. To be called in the private namespace. `rescue`: the machine's directory of records of rescues,
    /// which stays seen, so that a later run of anything finds what a killed rescue left.
    pub(super) fn set(host: &'a Host, keeper: &'a mut Keeper, rescue: &Path) -> Result<Self, StageError> {
        let scratch = keeper.record.scratch.clone();
        let name = keeper.record.name().to_owned();
        let kept: Vec<_> =
            KEPT.into_iter().filter_map(|n| Some((n, fs::read(Path::new("/etc").join(n)).ok()?))).collect();
        let itself = fs::read("/proc/self/exe").doing("reading", "/proc/self/exe")?;
        // Without --no-mtab the first ones would leave a directory in the machine's own /run.
        let mount =
            |args: &[&Path]| host.runner().run(&Cmd::change("mount").arg("--no-mtab").args(args)).map(drop);
        let bind = |from: &Path, to: &Path| mount(&[Path::new("--bind"), from, to]);

        // What is needed is taken by the hand before it is covered.
        let hand = Path::new("/mnt");
        bind(&scratch, hand)?;
        bind(rescue, &hand.join("rescue"))?;
        for name in IN_MEMORY {
            let options = ["-t", "tmpfs", "-o", "mode=0755,size=512m", "tmpfs"].map(Path::new);
            mount(&[&options[..], &[&Path::new("/").join(name)]].concat())?;
        }
        let place = Path::new("/run").join(name);
        let make = |path: &Path| fs::create_dir_all(path).doing("creating directory", path);
        make(&place)?;
        mount(&[Path::new("--rbind"), hand, &place])?;
        host.runner().run(&Cmd::change("umount").args(["--no-mtab", "--recursive"]).arg(hand))?;
        make(rescue)?;
        bind(&place.join("rescue"), rescue)?;
        for name in ON_DISK {
            bind(&place.join(name), &Path::new("/").join(name))?;
        }

        let write = |path: &str, bytes: &[u8]| fs::write(path, bytes).doing("writing", path);
        for (name, bytes) in kept {
            write(&format!("/etc/{name}"), &bytes)?;
        }
        make(Path::new("/etc/cron.d"))?;
        write("/etc/fstab", b"proc /proc proc defaults 0 0\n")?;
        make(Path::new("/run/bin"))?;
        let program = PathBuf::from("/run/bin/raidguard");
        write("/run/bin/raidguard", &itself)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .doing("setting the mode of", &program)?;
        Ok(Self { host, keeper, place, program, disks: Vec::new() })
    }

    /// A new, empty disk.
    pub(super) fn add_disk(&mut self) -> Result<&Disk, StageError> {
        // A file's path says no more than its name once the mounts it was opened through are gone.
        let image = format!("{}-{}", self.keeper.record.name(), self.disks.len() + 1);
        let image = self.place.join("disks").join(image);
        File::create_new(&image).and_then(|file| file.set_len(DISK.0)).doing("creating", &image)?;
        let disk = self.attach(&image)?;
        self.disks.push(Some(disk));
        self.disks.last().and_then(Option::as_ref).ok_or(StageError::InUse(image))
    }

    fn attach(&mut self, image: &Path) -> Result<Disk, StageError> {
        let attach = Cmd::change("losetup").args(["--find", "--show"]).arg(image);
        let device = PathBuf::from(self.host.runner().run(&attach)?.text().trim());
        self.keeper.record.loops.extend(kname(&device));
        self.keeper.save()?;
        let hold = File::open(&device).doing("opening", &device)?;
        // While it is open this only has it detached when it is closed (losetup(8)).
        self.host.runner().run(&Cmd::change("losetup").arg("--detach").arg(&device))?;
        // The kernel keeps a loop device's read-only flag for its next user.
        self.host.runner().run(&Cmd::change("blockdev").arg("--setrw").arg(&device))?;
        Ok(Disk { image: image.to_owned(), device, hold })
    }

    /// The disk with this number, from 0, if it is still there.
    pub(super) fn disk(&self, number: usize) -> Option<&Disk> {
        self.disks.get(number).and_then(Option::as_ref)
    }

    /// Pulls a disk: from now on it has no bytes, and whoever writes to it is told so.
    pub(super) fn pull(&self, disk: &Disk) -> Result<(), StageError> {
        let image = fs::OpenOptions::new().write(true).open(&disk.image).doing("opening", &disk.image)?;
        let began = Instant::now();
        // A write that comes between the two makes the file, and so the device, longer again.
        while began.elapsed() < PATIENCE {
            image.set_len(0).doing("emptying", &disk.image)?;
            self.host.runner().run(&Cmd::change("losetup").arg("--set-capacity").arg(&disk.device))?;
            let size = format!("/sys/class/block/{}/size", kname(&disk.device).unwrap_or_default());
            if self.host.read(&size).doing("reading", &size)?.trim() == "0" {
                return Ok(());
            }
        }
        Err(StageError::InUse(disk.device.clone()))
    }

    /// Cuts the power: what is mounted at `mountpoint` goes, and every disk is then as it was at one instant before, with nothing that the
    /// kernel would have written on the way out. Nobody may write meanwhile. The disk `lost` does not come back.
    pub(super) fn cut_power(
        &mut self,
        mountpoint: &Path,
        members: usize,
        lost: usize,
    ) -> Result<(), StageError> {
        let left: Vec<usize> = (0..members).filter(|n| *n != lost && self.disk(*n).is_some()).collect();
        let images: Vec<PathBuf> = left.iter().filter_map(|n| Some(self.disk(*n)?.image.clone())).collect();
        let after = |image: &Path| image.with_extension("after");
        let mut instant = false;
        // The kernel commits by itself every half a minute; a copy across that would be of no instant.
        for _ in 0..5 {
            let before = images.iter().map(|image| superblock(image)).collect::<Result<Vec<_>, _>>()?;
            for image in &images {
                let copy = Cmd::change("cp")
                    .args(["--sparse=always", "--reflink=auto"])
                    .arg(image)
                    .arg(after(image));
                self.host.runner().run(&copy)?;
            }
            let now = images.iter().flat_map(|image| [superblock(image), superblock(&after(image))]);
            let now = now.collect::<Result<Vec<_>, _>>()?;
            if now.chunks(2).zip(&before).all(|(pair, was)| pair.iter().all(|is| is == was)) {
                instant = true;
                break;
            }
        }
        if !instant {
            return Err(StageError::Restless);
        }
        self.unmount(mountpoint)?;
        for number in 0..members {
            self.remove(number)?;
        }
        for (number, image) in left.into_iter().zip(images) {
            let copy = after(&image);
            fs::rename(&copy, &image).doing("renaming", &copy)?;
            let disk = self.attach(&image)?;
            if let Some(place) = self.disks.get_mut(number) {
                *place = Some(disk);
            }
        }
        Ok(())
    }

    /// Unmounts whatever is mounted there.
    pub(super) fn unmount(&self, mountpoint: &Path) -> Result<(), StageError> {
        let began = Instant::now();
        while is_mounted(mountpoint)? {
            match self.host.runner().run(&Cmd::change("umount").arg(mountpoint)) {
                // Somebody on the machine looks at every mount now and then.
                Err(_) if began.elapsed() < PATIENCE => thread::sleep(LOOK_AGAIN),
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// Takes a disk away that nothing uses.
    pub(super) fn remove(&mut self, number: usize) -> Result<(), StageError> {
        let Some(disk) = self.disks.get_mut(number).and_then(Option::take) else { return Ok(()) };
        let Disk { device, hold, .. } = disk;
        // btrfs remembers what it saw, and would take another disk that gets this name for this one. It may have seen nothing.
        let forget = Cmd::change("btrfs").args(["device", "scan", "--forget"]).arg(&device);
        self.host.runner().run(&forget.accept(&[0, 1]))?;
        self.host.runner().run(&Cmd::change("blockdev").arg("--setrw").arg(&device))?;
        drop(hold);
        let name = self.keeper.record.name().to_owned();
        let gone = || kname(&device).is_none_or(|kname| !is_over(self.host, &kname, &name));
        if wait(gone) { Ok(()) } else { Err(StageError::InUse(device)) }
    }

    /// A hash of a disk's content, holes left out.
    pub(super) fn hash(&self, number: usize) -> Result<String, StageError> {
        let Some(disk) = self.disk(number) else { return Ok(String::new()) };
        let mut hasher = blake3::Hasher::new();
        let image = &disk.image;
        let read = || -> io::Result<()> {
            use std::os::unix::fs::FileExt as _;
            let file = File::open(image)?;
            let mut block = vec![0; 1 << 20];
            let mut at = 0;
            while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
                // By fixed blocks: how the file happens to be laid out does not matter.
                at = data / block.len() as u64 * block.len() as u64;
                let length = file.read_at(&mut block, at)?;
                let bytes = block.get(..length).unwrap_or_default();
                if bytes.iter().any(|b| *b != 0) {
                    hasher.update(&at.to_le_bytes());
                    hasher.update(bytes);
                }
                at += block.len() as u64;
            }
            Ok(())
        };
        let mut read = read;
        read().doing("reading", image)?;
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Takes everything down: what is mounted, then the disks. The directories go with the namespace.
    pub(super) fn strike(&mut self, mountpoint: &Path) -> Result<(), StageError> {
        self.unmount(mountpoint)?;
        (0..self.disks.len()).try_for_each(|number| self.remove(number))
    }
}

/// The first superblock of a member, as its file has it now.
fn superblock(image: &Path) -> Result<Vec<u8>, FileError> {
    use std::os::unix::fs::FileExt as _;
    let mut block = vec![0; 4096];
    File::open(image).and_then(|file| file.read_exact_at(&mut block, 64 << 10)).doing("reading", image)?;
    Ok(block)
}

/// Whether something is mounted there, for this thread: the process's first one sees the machine's mounts.
pub(super) fn is_mounted(path: &Path) -> Result<bool, StageError> {
    let file = "/proc/thread-self/mountinfo";
    let mounts = mountinfo::parse(&fs::read(file).doing("reading", file)?)?;
    Ok(mountinfo::topmost_at(&mounts, path).is_some())
}

fn kname(device: &Path) -> Option<String> {
    Some(device.file_name()?.to_str()?.to_owned())
}

fn wait(mut ready: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if ready() {
            return true;
        }
        if began.elapsed() > PATIENCE {
            return false;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

fn backing(host: &Host, kname: &str) -> Option<String> {
    let file = format!("/sys/class/block/{kname}/loop/backing_file");
    fs::read(host.path(file)).ok().map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Whether a loop device shows a file of the drill whose scratch directory has this name.
fn is_over(host: &Host, kname: &str, name: &str) -> bool {
    backing(host, kname).is_some_and(|path| path.split('/').any(|part| part.starts_with(name)))
}

/// Clears what a killed drill left, and says what that was of a rescue in it. Its mounts go with it, and most of its devices; the kernel
/// takes a moment for both.
pub(super) fn clear(host: &Host, dead: &Record) -> Result<Vec<String>, ClearError> {
    let name = dead.name();
    let class = host.path("/sys/class/block");
    let left = || -> Vec<String> {
        let names = fs::read_dir(&class).into_iter().flatten().flatten();
        let names = names.filter_map(|e| e.file_name().into_string().ok());
        names.filter(|kname| is_over(host, kname, name)).collect()
    };
    let began = Instant::now();
    let mut said = Vec::new();
    loop {
        // A rescue in it is killed along with it, a moment later; until then it counts as alive.
        said.extend(overlay::clear_leftovers(host)?);
        let rescues = fs::read_dir(host.path(overlay::RESCUE_DIR)).map_or(0, Iterator::count);
        let left = left();
        match left.first() {
            None if rescues == 0 => break,
            // That one is somebody else's.
            None if began.elapsed() > PATIENCE => break,
            Some(kname) if began.elapsed() > PATIENCE => {
                return Err(StageError::InUse(Path::new("/dev").join(kname)).into());
            }
            _ => {}
        }
        // One that was attached a moment before the kill does not go by itself.
        if began.elapsed() > SETTLED {
            for kname in left {
                let detach = Cmd::change("losetup").arg("--detach").arg(Path::new("/dev").join(kname));
                host.runner().run(&detach).map_err(StageError::from)?;
            }
        }
        thread::sleep(LOOK_AGAIN);
    }
    for kname in &dead.loops {
        let read_only =
            host.read(format!("/sys/class/block/{kname}/ro")).is_ok_and(|text| text.trim() == "1");
        // One that shows another file meanwhile is somebody else's.
        if read_only && backing(host, kname).is_none() {
            let free = Cmd::change("blockdev").arg("--setrw").arg(Path::new("/dev").join(kname));
            host.runner().run(&free).map_err(StageError::from)?;
        }
    }
    remove_scratch(&dead.scratch).map_err(StageError::from)?;
    Ok(said)
}

/// Why something is left of a killed drill.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClearError {
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error("a layer over one of its disks is left")]
    Rescue(#[from] OverlayError),
}
