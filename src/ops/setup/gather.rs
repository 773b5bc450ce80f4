//! What the machine says before `setup` decides.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{NodeChoice, Request, SchedulerChoice};
use crate::{
    backend,
    config::{self, Config},
    host::{
        Host,
        copy::{self, Survey},
        files, fstab, inventory, mountinfo, schedule,
    },
    model::{DevNo, Inventory, Scheduler, refusal::Claimed},
    node::{self, Layout, Running},
    ops::Trouble,
    plan::{JOURNAL_DIR, Journal, journals, steps::Action},
};

/// What the machine says.
#[derive(Debug)]
pub struct Facts {
    /// When it was asked.
    pub now: Timestamp,
    /// Whether raidguard may change the machine.
    pub root: bool,
    /// The block devices.
    pub inventory: Inventory,
    /// Each device named, found or the reason why not.
    pub devices: Vec<Result<DevNo, String>>,
    /// The declared members.
    pub declared: Vec<Claimed>,
    /// Tools that are needed and absent.
    pub missing_tools: Vec<&'static str>,
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
    /// The mounts.
    pub mounts: Vec<mountinfo::Mount>,
    /// What `/etc/fstab` says against the line to be added, if anything.
    pub fstab_conflict: Option<String>,
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
    pub user: Option<Option<(u32, u32)>>,
    /// This program.
    pub binary: PathBuf,
    /// A new UUID for the filesystem.
    pub uuid: String,
}

fn trouble<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: &str) -> impl FnOnce(E) -> Trouble {
    let what = format!("{what}, so nothing was changed");
    move |e| Trouble::failed(what, e)
}

/// Asks the machine all that [`super::decide`] needs. Changes nothing.
///
/// # Errors
/// Something could not be told. Unknown means refuse.
pub fn gather(host: &Host, request: &Request) -> Result<Facts, Trouble> {
    let backend = backend::of(request.backend);
    let root = nix::unistd::geteuid().is_root();
    if !root {
        return Err(Trouble::refused(
            "raidguard changes disks, mounts and system files, and is not root",
            "sudo raidguard setup ...",
        ));
    }
    let missing_tools: Vec<_> = backend
        .tools()
        .iter()
        .copied()
        .chain(["lsblk", "blkid", "wipefs", "mount", "umount", "chattr", "lsattr"])
        .filter(|tool| !host.runner().has(tool))
        .collect();
    if !missing_tools.is_empty() {
        return Err(Trouble::refused(
            format!("not installed: {}", missing_tools.join(", ")),
            "apt-get install btrfs-progs util-linux mount fdisk e2fsprogs",
        ));
    }
    let directory = fs::canonicalize(&request.directory).map_err(|e| {
        Trouble::refused(
            format!("{} cannot be read: {e}", request.directory.display()),
            "name the node's directory with --lightning-dir",
        )
    })?;
    let meta = fs::metadata(&directory).map_err(trouble("the node's directory cannot be read"))?;
    if !meta.is_dir() {
        return Err(Trouble::refused(
            format!("{} is not a directory", directory.display()),
            "name the node's directory with --lightning-dir",
        ));
    }
    let layout = node::read_layout(&directory).map_err(trouble("the node's directory cannot be read"))?;
    let unit = match &request.node {
        NodeChoice::Unit(unit) => Some(unit.as_str()),
        _ => None,
    };
    let running = node::find_running(host, &directory, unit)
        .map_err(trouble("it cannot be told whether a node is running"))?;
    let survey = copy::survey(&directory).map_err(trouble("the node's directory cannot be read whole"))?;
    let inventory = inventory::gather(host).map_err(trouble("the block devices cannot be read"))?;
    let devices: Vec<_> = request
        .devices
        .iter()
        .map(|path| inventory::resolve(host, path).map_err(|e| e.to_string()))
        .collect();
    let uuid = random_uuid().map_err(trouble("no random numbers can be had"))?;
    let mounts = mountinfo::read(host).map_err(trouble("the mounts cannot be read"))?;
    let entry = fstab::btrfs_entry(&uuid, &request.mountpoint);
    Ok(Facts {
        now: host.now(),
        root,
        devices,
        declared: crate::ops::mirrors::claimed(host)?,
        missing_tools,
        unsupported: backend.supported(host, request.level).err().map(|e| e.to_string()),
        owner: (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        layout,
        survey,
        running,
        fstab_conflict: fstab::conflict(host, &entry).map_err(trouble("/etc/fstab cannot be read"))?,
        config: config::load(host).map_err(trouble("the declaration cannot be read"))?,
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
            .map(find_user)
            .transpose()
            .map_err(trouble("the users cannot be read"))?,
        binary: std::env::current_exe().map_err(trouble("raidguard's own path cannot be read"))?,
        directory,
        inventory,
        mounts,
        uuid,
    })
}

fn find_user(name: &str) -> nix::Result<Option<(u32, u32)>> {
    Ok(nix::unistd::User::from_name(name)?.map(|u| (u.uid.as_raw(), u.gid.as_raw())))
}

/// A version 4 UUID (RFC 9562) from the kernel.
fn random_uuid() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/uuid").map(|text| text.trim().to_owned())
}

/// Operations that have not ended.
pub(in crate::ops) fn unfinished(host: &Host) -> Result<Vec<(String, String)>, Trouble> {
    let mut found = Vec::new();
    for path in journals(&host.path(JOURNAL_DIR)).map_err(trouble("the journals cannot be read"))? {
        match Journal::read::<Action>(&path) {
            Ok((plan, state, _)) if state.ended.is_none() => found.push((plan.verb, plan.mirror)),
            Ok(_) | Err(crate::plan::JournalError::Empty { .. }) => {}
            Err(e) => return Err(trouble("a journal cannot be read")(e)),
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
