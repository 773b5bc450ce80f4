//! Which kind of overlay this machine can have.

use std::fs;

use super::{Choice, Kind, OverlayError, dm};
use crate::{exec::Cmd, host::Host};

/// The kind, and why it is this one.
pub(super) fn choose(host: &Host, choice: Choice) -> Result<(Kind, String), OverlayError> {
    let needed = |kind: Kind, found: Result<(), String>| match found {
        Ok(()) => Ok((kind, "it was asked for".to_owned())),
        Err(why) => Err(OverlayError::Unavailable { kind, why }),
    };
    match choice {
        Choice::Dm => needed(Kind::Dm, by_dm(host)),
        Choice::Fuse => needed(Kind::Fuse, by_fuse(host)),
        Choice::Image => needed(Kind::Image, by_image(host)),
        Choice::Auto => {
            let Err(no_dm) = by_dm(host) else {
                return Ok((Kind::Dm, "the kernel's device-mapper has snapshots".to_owned()));
            };
            let Err(no_fuse) = by_fuse(host) else {
                return Ok((Kind::Fuse, format!("no device-mapper snapshot: {no_dm}")));
            };
            let why = format!("no device-mapper snapshot: {no_dm}; no overlay by QEMU and FUSE: {no_fuse}");
            match by_image(host) {
                Ok(()) => Ok((Kind::Image, why)),
                Err(no_loop) => {
                    Err(OverlayError::Unavailable { kind: Kind::Image, why: format!("{no_loop}; {why}") })
                }
            }
        }
    }
}

fn by_dm(host: &Host) -> Result<(), String> {
    by_image(host)?;
    tools(host, &["dmsetup"], "dmsetup")?;
    // Where the target is a module that is not loaded; where there are no modules it says nothing.
    if host.runner().has("modprobe") {
        let _ = host.runner().run(&Cmd::change("modprobe").args(["--quiet", "dm-snapshot"]));
    }
    match host.runner().run(&Cmd::probe("dmsetup").arg("targets")) {
        Ok(output) if dm::has(&output.text(), "snapshot") => Ok(()),
        Ok(_) => Err("the kernel lacks the target `snapshot`".to_owned()),
        Err(_) => Err("the kernel has no device-mapper".to_owned()),
    }
}

fn by_fuse(host: &Host) -> Result<(), String> {
    by_image(host)?;
    tools(host, &["qemu-storage-daemon"], "qemu-utils; before Debian 13 qemu-system-common")?;
    present(host, "/dev/fuse", "the kernel has no FUSE")
}

fn by_image(host: &Host) -> Result<(), String> {
    tools(host, &["losetup", "blockdev"], "mount and util-linux")?;
    present(host, "/dev/loop-control", "the kernel has no loop devices")
}

fn tools(host: &Host, tools: &[&str], packages: &str) -> Result<(), String> {
    match tools.iter().find(|tool| !host.runner().has(tool)) {
        Some(tool) => Err(format!("{tool} is not installed (Debian: {packages})")),
        None => Ok(()),
    }
}

fn present(host: &Host, node: &str, otherwise: &str) -> Result<(), String> {
    match fs::metadata(host.path(node)) {
        Ok(_) => Ok(()),
        Err(e) => Err(format!("{otherwise} ({node}: {e})")),
    }
}
