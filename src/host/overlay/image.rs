//! The overlay of last resort: the survivor's bytes in a sparse scratch file, and a loop device on that.

use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{OverlayError, Work, block, block::Survivor, build::Build, proof, record::Object};
use crate::host::{
    copy::{Memory, write_sparse},
    files::Doing as _,
};

/// Builds a copy of every survivor; the devices, in their order. `used` says which bytes of each matter; without it all do.
pub(super) fn build(
    build: &mut Build<'_>,
    survivors: &[Survivor],
    used: Option<&[Vec<Range<u64>>]>,
) -> Result<Vec<PathBuf>, OverlayError> {
    let parts: Vec<Vec<Range<u64>>> = survivors
        .iter()
        .enumerate()
        .map(|(n, s)| match used.and_then(|all| all.get(n)) {
            Some(ranges) => ranges.iter().map(|range| whole_blocks(range, s.size)).collect(),
            None => std::iter::once(0..s.size).collect(),
        })
        .collect();
    let total = parts.iter().flatten().map(|r| r.end.saturating_sub(r.start)).sum();
    if total > build.room {
        return Err(build.no_room(total));
    }
    let mut done = 0;
    let mut devices = Vec::new();
    for (number, (survivor, parts)) in survivors.iter().zip(&parts).enumerate() {
        let store = build.file(&format!("{number}.image"))?;
        build.allocate(&store, survivor.size)?;
        let image = build.host.path(&store);
        let image = OpenOptions::new().write(true).open(&image).doing("opening", &image)?;
        for part in parts {
            copy(build, &survivor.device, &image, &store, part, (&mut done, total))?;
        }
        build.note(Object::Loop { backing: store.clone() })?;
        build.go_on()?;
        devices.push(block::attach(build.host, &store)?);
    }
    Ok(devices)
}

/// Direct reads want whole blocks.
fn whole_blocks(range: &Range<u64>, size: u64) -> Range<u64> {
    (range.start / 4096 * 4096).min(size)..range.end.next_multiple_of(4096).min(size)
}

fn copy(
    build: &mut Build<'_>,
    device: &Path,
    image: &File,
    store: &Path,
    part: &Range<u64>,
    (done, total): (&mut u64, u64),
) -> Result<(), OverlayError> {
    let from = proof::open(&build.host.path(device)).doing("opening", device)?;
    let mut memory = Memory::new();
    let mut at = part.start;
    while at < part.end {
        let window = memory.part(part.end - at);
        let length = window.len() as u64;
        from.read_exact_at(window, at).map_err(|source| OverlayError::Unreadable {
            device: device.to_owned(),
            offset: at,
            source,
        })?;
        match write_sparse(image, at, window) {
            Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                return Err(build.no_room(total));
            }
            written => written.doing("writing", store)?,
        }
        at += length;
        *done += length;
        build.tell(Work::Copying { done: *done, total })?;
    }
    Ok(())
}
