//! What a device holds: `wipefs --no-act` and `blkid -p` together, and ZFS's labels.

use std::{io, path::Path};

use serde::Deserialize;

use crate::{
    exec::{Cmd, CmdError},
    host::{
        Host,
        zfs::{Labels, PoolState},
    },
    model::inventory::{Content, Signature, ZFS_MEMBER},
};

/// Reads `wipefs --no-act --json`: nothing at all, or a list of signatures.
pub(super) fn parse_wipefs(text: &str) -> Result<Vec<Signature>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Found {
        signatures: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(rename = "type")]
        kind: String,
        label: Option<String>,
        uuid: Option<String>,
    }
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let found: Found = serde_json::from_str(text)?;
    let mut signatures: Vec<Signature> = found
        .signatures
        .into_iter()
        .map(|s| Signature { kind: s.kind, label: s.label, uuid: s.uuid })
        .collect();
    // A ZFS label or a GPT stands in several places, and a GPT brings a protective MBR.
    signatures.dedup();
    if signatures.iter().any(|s| s.kind == "gpt") {
        signatures.retain(|s| s.kind != "PMBR");
    }
    Ok(signatures)
}

/// What `blkid -p -o export` printed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Blkid {
    /// The content: the first of TYPE and PTTYPE.
    pub(super) signature: Option<Signature>,
    /// It spoke of a content, but not of its kind.
    pub(super) untyped: bool,
    /// The partition's own UUID, from the table that it is in.
    pub(super) partuuid: Option<String>,
}

/// Reads `blkid -p -o export`: `NAME=value` lines. `PART_ENTRY_*` tell of the table that a partition is in, not of what it holds.
pub(super) fn parse_blkid(text: &str) -> Blkid {
    let value =
        |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
    let kind = value("TYPE").or_else(|| value("PTTYPE"));
    let of_the_device = |line: &&str| {
        !line.trim().is_empty() && !line.starts_with("DEVNAME=") && !line.starts_with("PART_ENTRY_")
    };
    Blkid {
        untyped: kind.is_none() && text.lines().any(|line| of_the_device(&line)),
        signature: kind.map(|kind| Signature { kind, label: value("LABEL"), uuid: value("UUID") }),
        partuuid: value("PART_ENTRY_UUID"),
    }
}

/// What is left of ZFS, in the words of blkid, which needs four labels, or all but one of the uberblocks, to believe it. Of a device
/// that is gone there is nothing.
fn zfs(labels: io::Result<Labels>) -> io::Result<Option<Signature>> {
    let labels = match labels {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        labels => labels?,
    };
    let label = labels.newest();
    let aux = |state| match state {
        PoolState::Spare => Some("a spare".to_owned()),
        PoolState::Cache => Some("a cache".to_owned()),
        _ => None,
    };
    Ok(labels.hold_something().then(|| Signature {
        kind: ZFS_MEMBER.to_owned(),
        label: label.and_then(|label| label.pool.clone().or_else(|| aux(label.state))),
        uuid: label.and_then(|label| label.pool_guid).map(|guid| guid.to_string()),
    }))
}

/// What a device holds, with what is left of ZFS where no other probe has told of it.
fn with_zfs(content: Content, labels: io::Result<Labels>) -> Content {
    match (content, zfs(labels)) {
        (Content::Unknown(why), _) => Content::Unknown(why),
        (_, Err(e)) => Content::Unknown(format!("whether there are labels of ZFS cannot be read: {e}")),
        (content, Ok(None)) => content,
        (content, Ok(Some(_))) if content.has_zfs() => content,
        (Content::Empty, Ok(Some(found))) => Content::Known(vec![found]),
        (Content::Known(mut signatures), Ok(Some(found))) => {
            signatures.push(found);
            Content::Known(signatures)
        }
    }
}

/// What a device holds, by independent probes, and a partition's own UUID.
pub(super) fn content(host: &Host, path: &Path) -> (Content, Option<String>) {
    let unknown = |e: &dyn std::fmt::Display| (Content::Unknown(e.to_string()), None);
    let wipefs = Cmd::probe("wipefs").args(["--no-act", "--noheadings", "--json"]).arg(path);
    let signatures = match host.runner().run(&wipefs) {
        Ok(output) => match parse_wipefs(&output.text()) {
            Ok(signatures) => signatures,
            Err(e) => return unknown(&e),
        },
        Err(e) => return unknown(&e),
    };
    let (found, code) = match blkid(host, path, &[]) {
        Ok(found) => found,
        Err(e) => return unknown(&e),
    };
    let content = match found.signature {
        _ if !signatures.is_empty() => Content::Known(signatures),
        _ if code == CONFLICT => Content::Unknown("contents that stand in each other's way".to_owned()),
        Some(signature) => Content::Known(vec![signature]),
        None if found.untyped => Content::Unknown("blkid found something without a type".to_owned()),
        None => Content::Empty,
    };
    (with_zfs(content, Labels::read(&host.path(path))), found.partuuid)
}

/// blkid's exit code for contents that stand in each other's way; 0 is something found, 2 nothing (blkid(8)).
const CONFLICT: i32 = 8;

pub(super) fn blkid(host: &Host, path: &Path, area: &[String]) -> Result<(Blkid, i32), CmdError> {
    let cmd = Cmd::probe("blkid").args(["-p", "-o", "export"]).args(area).arg(path).accept(&[0, 2, CONFLICT]);
    let output = host.runner().run(&cmd)?;
    Ok((parse_blkid(&output.text()), output.code))
}

/// What is left in one area of a device, in bytes: free space may hold what was deleted from the table only.
pub(crate) fn content_at(host: &Host, path: &Path, offset: u64, size: u64) -> Content {
    let area = ["-O".to_owned(), offset.to_string(), "-S".to_owned(), size.to_string()];
    let content = match blkid(host, path, &area) {
        Err(e) => Content::Unknown(e.to_string()),
        Ok((_, CONFLICT)) => Content::Unknown("contents that stand in each other's way".to_owned()),
        Ok((Blkid { signature: Some(signature), .. }, _)) => Content::Known(vec![signature]),
        Ok((found, _)) if found.untyped => {
            Content::Unknown("blkid found something without a type".to_owned())
        }
        Ok(_) => Content::Empty,
    };
    with_zfs(content, Labels::within(&host.path(path), offset, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_zfs_are_found_where_other_tools_are_silent() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("device");
        let of = |text: &str, content| {
            crate::host::zfs::tests::write_recorded(text, &device);
            with_zfs(content, Labels::read(&device)).to_string()
        };
        let member = include_str!("../../../tests/fixtures/zfs/label/mirror-one.txt");
        let last = include_str!("../../../tests/fixtures/zfs/label/detached.txt");
        let ext4 = || Content::Known(vec![Signature { kind: "ext4".into(), label: None, uuid: None }]);
        assert_eq!(of(member, Content::Empty), "zfs_member `ztest`");
        assert_eq!(of(member, ext4()), "ext4, zfs_member `ztest`");
        assert_eq!(
            of(last, Content::Empty),
            "zfs_member `ztest`",
            "it was detached, which no pool would tell"
        );
        let spare = include_str!("../../../tests/fixtures/zfs/label/spare.txt");
        assert_eq!(of(spare, Content::Empty), "zfs_member `a spare`");
        assert_eq!(of("size 4194304", Content::Empty), "empty");
        let known = Content::Known(vec![Signature { kind: ZFS_MEMBER.into(), label: None, uuid: None }]);
        assert_eq!(of(member, known), "zfs_member", "said once");
        let pool = with_zfs(Content::Empty, Labels::read(&device));
        assert!(pool.has_zfs());
        let unknown = Content::Unknown("x".into());
        assert_eq!(of(member, unknown.clone()), unknown.to_string());
        let broken = with_zfs(Content::Empty, Err(io::Error::other("torn")));
        assert!(matches!(broken, Content::Unknown(why) if why.ends_with("torn")));
        let gone = Labels::read(&dir.path().join("none"));
        assert_eq!(with_zfs(Content::Empty, gone), Content::Empty);
    }

    crate::fuzz::fuzzed!(fuzz_wipefs, text [
        include_bytes!("../../../tests/fixtures/wipefs/2.41.5/ambivalent.json"),
        include_bytes!("../../../tests/fixtures/wipefs/2.38.1/gpt.json"),
        include_bytes!("../../../tests/fixtures/wipefs/2.41.5/zfs.json"),
    ], |text| {
        if let Ok(found) = parse_wipefs(text) {
            assert!(!found.is_empty() || !text.contains("\"type\""), "a signature was left out");
        }
    });

    crate::fuzz::fuzzed!(fuzz_blkid, text [
        include_bytes!("../../../tests/fixtures/blkid/2.41.5/btrfs-raid1-member1.txt"),
        include_bytes!("../../../tests/fixtures/blkid/2.41.5/gpt-partition-ext4.txt"),
        include_bytes!("../../../tests/fixtures/blkid/2.41.5/ambivalent.txt"),
    ], |text| {
        parse_blkid(text);
    });
}
