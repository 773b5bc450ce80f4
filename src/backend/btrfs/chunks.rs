//! The chunk tree: what lies on which member. `btrfs inspect-internal dump-tree -t chunk` reads it from a single device, mounted or
//! not; what it prints is made by `kernel-shared/print-tree.c` of btrfs-progs.

use std::path::Path;

use super::{BackendError, ParseError};
use crate::{
    backend::{Layout, Piece},
    exec::Cmd,
    host::Host,
    model::Bytes,
};

pub(super) fn read(host: &Host, device: &Path) -> Result<Layout, BackendError> {
    let cmd = Cmd::probe("btrfs").args(["inspect-internal", "dump-tree", "-t", "chunk"]).arg(device);
    Ok(parse(&host.runner().run(&cmd)?.text())?)
}

/// How many members of a chunk may be gone (kernel: `btrfs_raid_array`, `tolerated_failures`).
fn survives(kind: &str) -> Result<usize, ParseError> {
    let words: Vec<&str> = kind.split('|').collect();
    if !words.iter().any(|w| matches!(*w, "DATA" | "METADATA" | "SYSTEM")) {
        return Err(ParseError::new("a chunk's type", kind));
    }
    let mut level = words.iter().filter(|w| !matches!(**w, "DATA" | "METADATA" | "SYSTEM"));
    match (level.next().copied(), level.next()) {
        (None | Some("single" | "DUP" | "RAID0"), None) => Ok(0),
        (Some("RAID1" | "RAID10" | "RAID5"), None) => Ok(1),
        (Some("RAID1C3" | "RAID6"), None) => Ok(2),
        (Some("RAID1C4"), None) => Ok(3),
        _ => Err(ParseError::new("a chunk's type", kind)),
    }
}

/// The number after a word: `devid 2`.
fn after(line: &str, word: &str) -> Result<u64, ParseError> {
    let mut words = line.split_whitespace().skip_while(|w| *w != word).skip(1);
    words
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| ParseError::new("btrfs inspect-internal dump-tree", line))
}

/// Reads the dump. Lines of other items, and fields that are not needed, are passed over; a chunk that is not whole is an error.
pub(super) fn parse(text: &str) -> Result<Layout, ParseError> {
    let bad = |what: &str| ParseError::new("btrfs inspect-internal dump-tree", what);
    let mut layout = Layout::default();
    let mut chunk: Option<Chunk> = None;
    let mut start = None;
    for line in text.lines().map(str::trim) {
        if line.starts_with("item ") {
            layout.pieces.extend(chunk.take().map(Chunk::whole).transpose()?);
            let key = line.split_once(" CHUNK_ITEM ").and_then(|(_, rest)| rest.split_once(')'));
            start = key.map(|(place, _)| place.parse().map_err(|_| bad(line))).transpose()?;
        }
        if line.starts_with("devid ") {
            layout.members.push((after(line, "devid")?, Bytes(after(line, "total_bytes")?)));
        } else if line.starts_with("length ") {
            let kind = line.split_whitespace().last().unwrap_or_default();
            chunk = Some(Chunk {
                start: start.ok_or_else(|| bad(line))?,
                kind: kind.to_owned(),
                length: after(line, "length")?,
                stripes: 0,
                sub: 0,
                places: vec![],
            });
        } else if line.starts_with("num_stripes ") {
            let chunk = chunk.as_mut().ok_or_else(|| bad(line))?;
            (chunk.stripes, chunk.sub) = (after(line, "num_stripes")?, after(line, "sub_stripes")?);
        } else if line.starts_with("stripe ") {
            let chunk = chunk.as_mut().ok_or_else(|| bad(line))?;
            chunk.places.push((after(line, "devid")?, after(line, "offset")?));
        }
    }
    layout.pieces.extend(chunk.take().map(Chunk::whole).transpose()?);
    if layout.members.is_empty() || layout.pieces.is_empty() {
        return Err(bad("no member or no chunk is in it"));
    }
    Ok(layout)
}

struct Chunk {
    start: u64,
    kind: String,
    length: u64,
    stripes: u64,
    sub: u64,
    places: Vec<(u64, u64)>,
}

impl Chunk {
    fn whole(self) -> Result<Piece, ParseError> {
        if self.places.len() as u64 != self.stripes || self.stripes == 0 {
            return Err(ParseError::new(
                "a chunk",
                format!("{} of {} stripes", self.places.len(), self.stripes),
            ));
        }
        let parts = if self.kind.contains("RAID10") {
            self.stripes / self.sub.max(1)
        } else if self.kind.contains("RAID0") {
            self.stripes
        } else {
            1
        };
        Ok(Piece {
            start: self.start,
            survives: survives(&self.kind)?,
            parts: parts.max(1),
            length: Bytes(self.length / parts.max(1)),
            kind: self.kind,
            places: self.places,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::fuzz::fuzzed!(fuzz_dump_tree, text [
        include_bytes!("../../../tests/fixtures/btrfs/6.2/missing-single-dump-tree-chunk.txt"),
        b"\titem 2 key (FIRST_CHUNK_TREE CHUNK_ITEM 22020096) itemoff 15993 itemsize 112\n\t\tlength 8388608 owner 2 stripe_len 65536 \
          type SYSTEM|RAID10\n\t\tnum_stripes 2 sub_stripes 2\n\t\t\tstripe 0 devid 2 offset 1048576\n\t\t\tstripe 1 devid 1 offset \
          22020096\n\titem 0 key (DEV_ITEMS DEV_ITEM 1) itemoff 16185 itemsize 98\n\t\tdevid 1 total_bytes 536870912 bytes_used 1\n",
    ], |text| {
        if let Ok(layout) = parse(text) {
            let whole = |piece: &Piece| !piece.places.is_empty() && piece.parts > 0;
            for (id, _) in &layout.members {
                let (all, half) = (layout.stored_on(*id), layout.stored_below(*id, 1 << 30));
                assert!(half <= all, "{layout:?}");
                let _ = (layout.size_of(*id), layout.lost_without(&[*id]).count());
            }
            for piece in &layout.pieces {
                piece.places_of(piece.start);
            }
            assert!(!layout.members.is_empty() && layout.pieces.iter().all(whole), "{layout:?}");
        }
    });
}
