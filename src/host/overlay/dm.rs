//! The overlay by device-mapper: a `snapshot` target that keeps nothing when it ends (Documentation/admin-guide/device-mapper/
//! snapshot.rst), its changes in a loop device over a sparse scratch file.

use std::path::{Path, PathBuf};

use super::{
    Broken, OverlayError, Striped, TRIES, block,
    block::Survivor,
    build::Build,
    record::{Keeper, Object},
};
use crate::{exec::Cmd, host::Host};

/// In sectors of 512 bytes: 4 KiB, the block that filesystems write.
const CHUNK: u64 = 8;
/// More than this no log replay writes; a full store ends the overlay.
const STORE: u64 = 16 << 30;

/// Builds it above every survivor; the devices, in their order.
pub(super) fn build(build: &mut Build<'_>, survivors: &[Survivor]) -> Result<Vec<PathBuf>, OverlayError> {
    let mut devices = Vec::new();
    let share = build.room / (survivors.len().max(1) as u64);
    for (number, survivor) in survivors.iter().enumerate() {
        let store = build.file(&format!("{number}.cow"))?;
        let size = share.min(STORE).min(survivor.size) / 4096 * 4096;
        build.allocate(&store, size)?;
        build.note(Object::Loop { backing: store.clone() })?;
        build.go_on()?;
        let cow = block::attach(build.host, &store)?;
        let cow = block::attribute(build.host, &block::kname_of(&cow), "dev")?
            .ok_or_else(|| OverlayError::Device { device: cow, why: "it is gone".to_owned() })?;
        let name = name(&build.keeper.id, number);
        build.note(Object::Snapshot { name: name.clone() })?;
        build.go_on()?;
        let table = format!("0 {} snapshot {} {cow} N {CHUNK}", survivor.size / 512, survivor.number);
        build.host.runner().run(&Cmd::change("dmsetup").args(["create", &name, "--table", &table]))?;
        devices.push(path(&name));
    }
    Ok(devices)
}

/// Puts together what the devices hold by turns (Documentation/admin-guide/device-mapper/striped.rst).
pub(super) fn join(
    host: &Host,
    keeper: &mut Keeper,
    devices: &[PathBuf],
    striped: &Striped,
    free: &dyn Fn(),
) -> Result<PathBuf, OverlayError> {
    let runner = host.runner();
    if !runner.has("dmsetup") {
        return Err(OverlayError::NoJoin("dmsetup is not installed (Debian: dmsetup)".to_owned()));
    }
    // Where it is a module that is not loaded.
    if runner.has("modprobe") {
        let _ = runner.run(&Cmd::change("modprobe").args(["--quiet", "dm-mod"]));
    }
    match runner.run(&Cmd::probe("dmsetup").arg("targets")) {
        Ok(output) if has(&output.text(), "striped") => {}
        Ok(_) => return Err(OverlayError::NoJoin("the kernel lacks the target `striped`".to_owned())),
        Err(_) => return Err(OverlayError::NoJoin("the kernel has no device-mapper".to_owned())),
    }
    let mut table =
        format!("0 {} striped {} {}", striped.length / 512, striped.parts.len(), striped.chunk / 512);
    for (number, start) in &striped.parts {
        let device =
            devices.get(*number).ok_or_else(|| OverlayError::NoJoin("a part of it is missing".to_owned()))?;
        table = format!("{table} {} {}", device.display(), start / 512);
    }
    let name = format!("raidguard-{}-joined", keeper.id);
    keeper.note(host, Object::Joined { name: name.clone() })?;
    let cmd = Cmd::change("dmsetup").args(["create", &name, "--table", &table]);
    let mut tries = 1;
    loop {
        free();
        match runner.run(&cmd) {
            Ok(_) => return Ok(path(&name)),
            // udev may have made an array of them meanwhile.
            Err(e) if tries < TRIES => {
                tracing::debug!("{e}");
                tries += 1;
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// Where a device of this name is found.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new("/dev/mapper").join(name)
}

/// Is there a device of this name?
pub(super) fn exists(host: &Host, name: &str) -> Result<bool, OverlayError> {
    Ok(block::with_attribute(host, "dm/name")?.iter().any(|(_, found)| found == name))
}

/// What the device above a rescue's n-th survivor is called.
pub(super) fn name(id: &str, number: usize) -> String {
    format!("raidguard-{id}-{number}")
}

/// What the kernel says of a snapshot. `None`: it is sound.
///
/// # Errors
/// It cannot be asked.
pub(super) fn status(host: &Host, name: &str) -> Result<Option<Broken>, OverlayError> {
    let output = host.runner().run(&Cmd::probe("dmsetup").args(["status", name]))?;
    Ok(parse_status(&output.text()))
}

/// The line is `START LENGTH snapshot ALLOCATED/TOTAL METADATA`, or a word in place of the numbers: `Invalid`, `Overflow`, `Merge
/// failed`, `Unknown` (kernel: `snapshot_status` in drivers/md/dm-snap.c). What is not understood is not sound.
fn parse_status(text: &str) -> Option<Broken> {
    let mut words = text.split_whitespace().skip(2);
    let (target, rest) = (words.next(), words.collect::<Vec<_>>());
    let sound = |used: &str| {
        let (used, all) = used.split_once('/')?;
        let (used, all) = (used.parse::<u64>().ok()?, all.parse::<u64>().ok()?);
        (used < all).then_some(())
    };
    match (target, &rest[..]) {
        (Some("snapshot"), [used, _]) if sound(used).is_some() => None,
        (Some("snapshot"), [used, _]) if used.contains('/') => {
            Some(Broken::Snapshot("it is full".to_owned()))
        }
        _ => Some(Broken::Snapshot(format!("device-mapper says `{}`", text.trim()))),
    }
}

/// Has the kernel the target? `dmsetup targets` lists what is loaded, one `NAME vVERSION` a line (dmsetup(8)).
pub(super) fn has(targets: &str, target: &str) -> bool {
    targets.lines().any(|line| line.split_whitespace().next() == Some(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_snapshot_with_room_is_sound() {
        assert_eq!(parse_status("0 2097152 snapshot 16/409600 0\n"), None);
        for broken in [
            "0 2097152 snapshot 409600/409600 0",
            "0 2097152 snapshot Invalid",
            "0 2097152 snapshot Overflow",
            "0 2097152 snapshot Merge failed",
            "0 2097152 snapshot Unknown",
            "0 2097152 snapshot 16/4x 0",
            "0 2097152 linear 7:0 0",
            "",
        ] {
            assert!(parse_status(broken).is_some(), "{broken}");
        }
    }

    #[test]
    fn snapshot_is_not_snapshot_origin() {
        let has_snapshot = |targets| has(targets, "snapshot");
        assert!(has_snapshot("snapshot-merge   v1.5.0\nsnapshot-origin  v1.9.0\nsnapshot         v1.16.0\n"));
        assert!(!has_snapshot("snapshot-origin  v1.9.0\nlinear           v1.4.0\n"));
    }

    crate::fuzz::fuzzed!(fuzz_dm_status, text [b"0 2097152 snapshot 16/409600 0\n", b"0 2097152 snapshot Merge failed\n"], |text| {
        if parse_status(text).is_none() {
            let words: Vec<_> = text.split_whitespace().collect();
            assert!(words.len() == 5 && words[2] == "snapshot" && words[3].contains('/'), "{text}");
        }
        has(text, "striped");
    });
}
