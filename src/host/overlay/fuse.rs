//! The overlay without device-mapper: a qcow2 file above the survivor, which `qemu-storage-daemon` exports through FUSE as a file, and a
//! loop device over that.
//!
//! The daemon stays in the mount namespace of whoever opens the overlay and outlives it: a daemon that dies in the namespace that is the
//! last to hold a filesystem mounted from its own export waits in the kernel for itself, for ever.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    OverlayError, block,
    block::Survivor,
    build::Build,
    proof::{Counted, Look, count},
    qcow2,
    record::{Keeper, Object},
    undo,
};
use crate::{
    exec::{Cmd, log_change},
    host::{
        Host,
        files::Doing as _,
        mountinfo::{self, Mount},
    },
};

const DAEMON: &str = "qemu-storage-daemon";
/// How far ahead the kernel reads the exported file, in KiB: its own 128 leave the daemon idle between requests.
const READ_AHEAD: u32 = 4096;

/// Builds it above every survivor; the devices, in their order.
pub(super) fn build(build: &mut Build<'_>, survivors: &[Survivor]) -> Result<Vec<PathBuf>, OverlayError> {
    let host = build.host;
    let place = build.keeper.dir();
    let pidfile = place.join("daemon.pid");
    let mut daemon = Cmd::change(DAEMON).arg("--daemonize").arg("--pidfile").arg(&pidfile);
    let mut exports = Vec::new();
    for (number, survivor) in survivors.iter().enumerate() {
        let store = build.file(&format!("{number}.qcow2"))?;
        let (bytes, length) = qcow2::empty(survivor.size);
        build.allocate(&store, length)?;
        let file = OpenOptions::new().write(true).open(host.path(&store));
        file.and_then(|file| file.write_all_at(&bytes, 0)).doing("writing", &store)?;
        let export = place.join(number.to_string());
        File::create(host.path(&export)).doing("creating", &export)?;
        for node in nodes(number, survivor, &store) {
            daemon = daemon.arg("--blockdev").arg(node.to_string());
        }
        daemon = daemon.arg("--export").arg(exported(number, &export).to_string());
        exports.push(export);
    }
    build.note(Object::Daemon { pidfile: pidfile.clone(), exports: exports.clone() })?;
    build.go_on()?;
    host.runner().run(&daemon)?;
    if daemons(host, &pidfile)?.is_empty() {
        return Err(OverlayError::Broken(super::Broken::Daemon));
    }
    let mut devices = Vec::new();
    for export in exports {
        // A file that is opened takes the value over: it is set first.
        read_ahead(host, &export)?;
        build.note(Object::Loop { backing: export.clone() })?;
        build.go_on()?;
        devices.push(block::attach(host, &export)?);
    }
    Ok(devices)
}

/// Where nothing was written above the survivors since `before`, which has the counts of their `devices`: read-only loop devices over the
/// survivors themselves, which hold the same and are read with nothing between. Where they cannot be had, nothing is lost but speed.
pub(super) fn see_through(
    host: &Host,
    keeper: &mut Keeper,
    survivors: &mut [(Survivor, Look)],
    devices: &[PathBuf],
    before: &[Option<Counted>],
) -> Result<Option<Vec<PathBuf>>, OverlayError> {
    for (device, before) in devices.iter().zip(before) {
        if before.is_none() || count(host, &block::kname_of(device))? != *before {
            return Ok(None);
        }
    }
    let mut through = Vec::new();
    for (survivor, look) in survivors {
        let device = Path::new("/dev").join(&survivor.kname);
        // They are detached by what they lie over, and this one is somebody else's.
        if !block::loops_over(host, &device)?.is_empty() {
            return Ok(None);
        }
        let counted = count(host, &survivor.kname)?;
        keeper.note(host, Object::Loop { backing: device.clone() })?;
        let attached = block::attach(host, &device);
        let attached = attached.and_then(|over| block::only_read(host, &over).map(|()| over));
        look.excuse_flush(counted, count(host, &survivor.kname)?);
        match attached {
            Ok(over) => through.push(over),
            Err(e) => {
                tracing::debug!("{e}");
                undo::take_down_last(host, keeper)?;
                return Ok(None);
            }
        }
    }
    Ok(Some(through))
}

/// The block nodes over one survivor. The scratch file is thrown away: nothing of it has to reach the disk.
fn nodes(number: usize, survivor: &Survivor, store: &Path) -> [Value; 2] {
    let backing = format!("survivor{number}");
    [
        json!({
            "driver": "host_device", "node-name": backing, "filename": survivor.device,
            "read-only": true, "auto-read-only": false, "cache": {"direct": true},
        }),
        json!({
            "driver": "qcow2", "node-name": format!("overlay{number}"), "backing": backing,
            "cache": {"no-flush": true}, "file": {"driver": "file", "filename": store, "cache": {"no-flush": true}},
        }),
    ]
}

fn exported(number: usize, at: &Path) -> Value {
    json!({
        "type": "fuse", "id": format!("export{number}"), "node-name": format!("overlay{number}"),
        "mountpoint": at, "writable": true,
    })
}

/// Has the kernel read the exported file further ahead (Documentation/ABI/testing/sysfs-class-bdi). Only speed depends on it.
fn read_ahead(host: &Host, export: &Path) -> Result<(), OverlayError> {
    let mounts = mounts(host)?;
    let Some(mount) = mountinfo::topmost_at(&mounts, export) else {
        return Err(OverlayError::Broken(super::Broken::Daemon));
    };
    let file = format!("/sys/class/bdi/{}/read_ahead_kb", mount.dev);
    log_change(&format!("echo {READ_AHEAD} > {file}"));
    if let Err(e) = fs::write(host.path(&file), READ_AHEAD.to_string()) {
        tracing::warn!("{file} cannot be set: {e}");
    }
    Ok(())
}

/// The mounts of this thread's namespace: the process's first thread may see others.
pub(super) fn mounts(host: &Host) -> Result<Vec<Mount>, OverlayError> {
    let file = host.path("/proc/thread-self/mountinfo");
    let bytes = fs::read(&file).doing("reading", &file)?;
    Ok(mountinfo::parse(&bytes)?)
}

/// The daemons that were started with this pid file. Their arguments are asked, not the file: it may be old, or not yet written.
pub(super) fn daemons(host: &Host, pidfile: &Path) -> Result<Vec<i32>, OverlayError> {
    let proc = host.path("/proc");
    let mut found = Vec::new();
    for entry in fs::read_dir(&proc).doing("reading", &proc)? {
        let entry = entry.doing("reading", &proc)?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match fs::read(entry.path().join("cmdline")) {
            Ok(line) if is_daemon(&line, pidfile) => found.push(pid),
            Ok(_) => {}
            // It has ended meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(nix::libc::ESRCH) => {}
            Err(e) => return Err(e).doing("reading", entry.path().join("cmdline")).map_err(Into::into),
        }
    }
    Ok(found)
}

fn is_daemon(cmdline: &[u8], pidfile: &Path) -> bool {
    let mut args = cmdline.split(|b| *b == 0);
    let program = args.next().unwrap_or_default();
    program.ends_with(DAEMON.as_bytes())
        && args.skip_while(|arg| *arg != b"--pidfile").nth(1) == Some(pidfile.as_os_str().as_bytes())
}
