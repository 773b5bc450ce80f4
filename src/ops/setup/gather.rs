//! What the machine says before `setup` decides.

use std::{
    error::Error as _,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    NodeChoice, Request, SchedulerChoice,
    pool::{self, PoolFacts},
};
use crate::{
    backend::{self, MirrorSpec},
    config::Config,
    host::{
        Host,
        accounts::{self, Account},
        copy::{self, Survey},
        declaration, files, fstab, inventory, mdadm_conf, mountinfo,
        partition::{self, Room},
        random_uuid,
        schedule::{self, Rule},
    },
    model::{BackendKind, Bytes, DevNo, Filesystem, Inventory, Scheduler},
    node::{self, Layout, Running},
    ops::{Blocker, Trouble, rule, trouble::unchanged},
    plan::{
        JOURNAL_DIR, Journal, journals,
        steps::{Action, Initramfs},
    },
};

/// What the machine says.
#[derive(Debug)]
pub struct Facts {
    /// When it was asked.
    pub now: Timestamp,
    /// The block devices.
    pub inventory: Inventory,
    /// Each device named, found or the reason why not.
    pub devices: Vec<Result<DevNo, String>>,
    /// Why the kernel cannot do it, if it cannot.
    pub unsupported: Option<String>,
    /// The node's directory with no symlink on the way.
    pub directory: PathBuf,
    /// What kind of directory it is.
    pub layout: Layout,
    /// Its mode, owner, group.
    pub owner: (u32, u32, u32),
    /// What would be copied.
    pub survey: Survey,
    /// Who uses it.
    pub running: Running,
    /// A node's unit that is there and runs nothing on it, where the operator named none.
    pub idle: Option<String>,
    /// The mounts.
    pub mounts: Vec<mountinfo::Mount>,
    /// What `/etc/fstab` says against the line to be added, if anything.
    pub fstab_conflict: Option<String>,
    /// What a pool is to be made with, for a mirror of ZFS.
    pub pool: Option<PoolFacts>,
    /// Where the array is to be made known, for a mirror of md.
    pub array: Option<ArrayFacts>,
    /// The rule by which udev will keep its halves apart, where one runs here.
    pub rule: Option<Rule>,
    /// What makes the initramfs.
    pub initramfs: Option<Initramfs>,
    /// The declared mirrors.
    pub config: Config,
    /// Journals of operations that have not ended: verb and mirror.
    pub unfinished: Vec<(String, String)>,
    /// The mount point's directories that do not exist, outermost first.
    pub missing_dirs: Vec<PathBuf>,
    /// Whether the mount point holds something.
    pub mountpoint_in_use: Option<String>,
    /// Whether the filesystem below the mount point knows the immutable flag.
    pub immutable: bool,
    /// systemd runs here.
    pub systemd: bool,
    /// What will run the jobs, or why nothing can.
    pub with: Result<Option<Scheduler>, String>,
    /// The user asked for: number and group, or `None` where there is no such user.
    #[allow(clippy::option_option, reason = "nobody asked for one, or there is none of that name")]
    pub user: Option<Option<Account>>,
    /// This program.
    pub binary: PathBuf,
    /// A new UUID for the mirror.
    pub uuid: String,
    /// The filesystem to be made on it, with a new UUID, where the mirror is none itself.
    pub filesystem: Option<Filesystem>,
    /// For each device named, a new UUID for a partition on it.
    pub uuids: Vec<String>,
    /// For each device named, the place for a new partition on it, where one was asked for.
    pub rooms: Vec<Result<Room, String>>,
}

/// Where an array is made known to what assembles it at boot.
#[derive(Debug)]
pub struct ArrayFacts {
    /// The line that says it.
    pub line: String,
    /// mdadm.conf.
    pub file: PathBuf,
    /// What that file says against the line, if anything.
    pub conflict: Option<String>,
}

fn array(host: &Host, spec: &MirrorSpec) -> Result<Option<ArrayFacts>, Trouble> {
    if spec.backend != BackendKind::Mdadm {
        return Ok(None);
    }
    let line = backend::mdadm::conf_line(&spec.name, &spec.uuid);
    Ok(Some(ArrayFacts {
        conflict: mdadm_conf::conflict(host, &line).map_err(unchanged("mdadm.conf cannot be read"))?,
        file: mdadm_conf::path(host),
        line,
    }))
}

/// Asks the machine all that [`super::decide`] needs. Changes nothing.
///
/// # Errors
/// Something could not be told. Unknown means refuse.
pub fn gather(host: &Host, request: &Request) -> Result<Facts, Trouble> {
    let backend = backend::of(request.backend);
    installed(host, request)?;
    let (directory, meta) = directory(request)?;
    let closed = closed(host, &directory, &request.mountpoint);
    if !closed.is_empty() {
        return Err(Trouble::Refused(closed));
    }
    let layout = node::read_layout(&directory).map_err(unchanged("the node's directory cannot be read"))?;
    let unit = match &request.node {
        NodeChoice::Unit(unit) => Some(unit.as_str()),
        _ => None,
    };
    let running = node::find_running(host, &directory, unit)
        .map_err(unchanged("it cannot be told whether a node is running"))?;
    let idle = idle(host, &request.node, &running);
    let survey = copy::survey(&directory).map_err(unchanged("the node's directory cannot be read whole"))?;
    let inventory = inventory::gather(host).map_err(unchanged("the block devices cannot be read"))?;
    let devices: Vec<_> = request
        .devices
        .iter()
        .map(|path| inventory::resolve(host, path).map_err(|e| e.to_string()))
        .collect();
    let uuid = random_uuid().map_err(unchanged("no random numbers can be had"))?;
    let uuids = devices.iter().map(|_| random_uuid()).collect::<Result<_, _>>();
    let uuids = uuids.map_err(unchanged("no random numbers can be had"))?;
    let rooms = rooms(host, request.size, &inventory, &devices);
    let mounts = mountinfo::read(host).map_err(unchanged("the mounts cannot be read"))?;
    let filesystem =
        request.filesystem.map(|kind| Ok::<_, io::Error>(Filesystem { kind, uuid: random_uuid()? }));
    let filesystem = filesystem.transpose().map_err(unchanged("no random numbers can be had"))?;
    let spec = MirrorSpec {
        backend: request.backend,
        name: request.name.clone(),
        pool_name: None,
        level: request.level,
        uuid: uuid.clone(),
        filesystem: filesystem.clone(),
        pool: None,
        devices: Vec::new(),
        mountpoint: request.mountpoint.clone(),
    };
    let entry = backend.fstab_entry(&spec);
    let pool = pool::gather(host, &spec, &inventory, &devices)?;
    let binary = std::env::current_exe().map_err(unchanged("raidguard's own path cannot be read"))?;
    let wanted =
        rule::is_wanted(host, spec.backend, &spec.uuid).map_err(unchanged("the mounts cannot be read"))?;
    Ok(Facts {
        array: array(host, &spec)?,
        rule: Rule::for_mirror(spec.backend, &spec.name, &spec.uuid, &spec.mountpoint, &binary)
            .filter(|_| wanted),
        initramfs: Initramfs::of(host),
        filesystem,
        now: host.now(),
        devices,
        unsupported: backend.supported(host, request.level).err().map(|e| e.to_string()),
        owner: (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        layout,
        survey,
        running,
        idle,
        pool,
        fstab_conflict: match &entry {
            Some(entry) => fstab::conflict(host, entry),
            None => fstab::line_at(host, &spec.mountpoint),
        }
        .map_err(unchanged("/etc/fstab cannot be read"))?,
        config: declaration::load(host).map_err(unchanged("the declaration cannot be read"))?,
        unfinished: unfinished(host)?,
        missing_dirs: missing_dirs(&request.mountpoint),
        mountpoint_in_use: in_use(&request.mountpoint, &mounts),
        immutable: knows_immutable(host, &request.mountpoint),
        systemd: schedule::is_systemd(host),
        with: match request.scheduler {
            SchedulerChoice::None => Ok(None),
            SchedulerChoice::With(with) => Ok(Some(with)),
            SchedulerChoice::Auto => schedule::detect(host).map(Some).map_err(|e| e.to_string()),
        },
        user: request
            .user
            .as_deref()
            .map(|name| accounts::find(host, name))
            .transpose()
            .map_err(unchanged("the users cannot be read"))?,
        binary,
        directory,
        inventory,
        mounts: mounts.to_vec(),
        uuid,
        uuids,
        rooms,
    })
}

/// A unit that could be that of a node which does not run now.
pub(in crate::ops) fn idle(host: &Host, choice: &NodeChoice, running: &Running) -> Option<String> {
    let asked = *choice == NodeChoice::Detect && running.is_quiet();
    asked.then(|| node::known_unit(host))?.map(str::to_owned)
}

/// The node's directory, and what it is.
fn directory(request: &Request) -> Result<(PathBuf, fs::Metadata), Trouble> {
    let other = |says: String| Trouble::refused(says, "name the node's directory with --lightning-dir");
    let directory = fs::canonicalize(&request.directory)
        .map_err(|e| other(format!("{} cannot be read: {e}", request.directory.display())))?;
    let meta = fs::metadata(&directory).map_err(unchanged("the node's directory cannot be read"))?;
    if !meta.is_dir() {
        return Err(other(format!("{} is not a directory", directory.display())));
    }
    Ok((directory, meta))
}

/// Are all tools there that the setup needs?
fn installed(host: &Host, request: &Request) -> Result<(), Trouble> {
    let backend = backend::of(request.backend);
    let mut missing_tools: Vec<_> = backend
        .tools()
        .iter()
        .copied()
        .chain(backend.tools_to_make(request.filesystem))
        .chain(["lsblk", "blkid", "wipefs", "blkdiscard", "mount", "umount", "chattr", "lsattr"])
        .chain(request.size.iter().flat_map(|_| ["sfdisk", "partx"]))
        .filter(|tool| !host.runner().has(tool))
        .collect();
    missing_tools.sort_unstable();
    missing_tools.dedup();
    if !missing_tools.is_empty() {
        return Err(Trouble::refused(
            format!("not installed: {}", missing_tools.join(", ")),
            format!("apt-get install {} util-linux mount fdisk e2fsprogs", backend.packages()),
        ));
    }
    Ok(())
}

/// The directories that will be written to and cannot be: known before anything is erased.
fn closed(host: &Host, directory: &Path, mountpoint: &Path) -> Vec<Blocker> {
    let above = mountpoint.ancestors().skip(1).find(|p| p.exists()).unwrap_or(mountpoint);
    let mut dirs = vec![Path::new("/etc"), files::parent(directory)];
    // A mount point that exists may be closed to writing, as it shall be.
    dirs.extend((!mountpoint.exists()).then_some(above));
    dirs.sort_unstable();
    dirs.dedup();
    let refused = |dir: &Path| {
        let e = nix::unistd::access(&host.path(dir), nix::unistd::AccessFlags::W_OK).err()?;
        Some(Blocker::new(
            format!("{} cannot be written to: {}", dir.display(), e.desc()),
            "remount its filesystem read-write; where that fails, see dmesg: the disk may be failing",
        ))
    };
    dirs.into_iter().filter_map(refused).collect()
}

/// The free space of each disk named.
fn rooms(
    host: &Host,
    size: Option<Bytes>,
    inventory: &Inventory,
    devices: &[Result<DevNo, String>],
) -> Vec<Result<Room, String>> {
    let Some(size) = size else { return Vec::new() };
    let room = |found: &Result<DevNo, String>| {
        let device = found.as_ref().map_err(Clone::clone)?;
        let device = inventory.by_dev(*device).ok_or("it is not among the devices that lsblk shows")?;
        partition::room(host, &device.path, device.size, size).map_err(|e| match e.source() {
            Some(source) => format!("{e}: {source}"),
            None => e.to_string(),
        })
    };
    devices.iter().map(room).collect()
}

/// Operations that have not ended.
pub(in crate::ops) fn unfinished(host: &Host) -> Result<Vec<(String, String)>, Trouble> {
    let mut found = Vec::new();
    for path in journals(&host.path(JOURNAL_DIR)).map_err(unchanged("the journals cannot be read"))? {
        match Journal::read::<Action>(&path) {
            Ok((plan, state, _)) if state.ended.is_none() => found.push((plan.verb, plan.mirror)),
            Ok(_) | Err(crate::plan::JournalError::Empty { .. }) => {}
            Err(e) => return Err(unchanged("a journal cannot be read")(e)),
        }
    }
    Ok(found)
}

fn missing_dirs(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<_> = path.ancestors().take_while(|p| !p.exists()).map(Path::to_owned).collect();
    missing.reverse();
    missing
}

fn in_use(path: &Path, mounts: &[mountinfo::Mount]) -> Option<String> {
    if let Some(mount) = mountinfo::topmost_at(mounts, path) {
        return Some(format!("{} is mounted there", mount.fstype));
    }
    match fs::read_dir(path) {
        Ok(mut entries) => {
            entries.next().map(|_| "it is not empty, and a mount would hide what is in it".to_owned())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => Some(e.to_string()),
    }
}

/// `lsattr` answers only where the filesystem has flags at all.
fn knows_immutable(host: &Host, path: &Path) -> bool {
    let existing = path.ancestors().find(|p| p.exists()).unwrap_or(files::parent(path));
    let cmd = crate::exec::Cmd::probe("lsattr").args(["-d", "--"]).arg(existing);
    host.runner().run(&cmd).is_ok()
}
