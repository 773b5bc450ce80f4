//! The filesystem on an array, seen on a member: it begins where the member's data do, whichever member that is.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::superblock::Superblock;
use crate::{
    backend::{
        MirrorSpec,
        blocks::{field, format_uuid},
    },
    exec::Cmd,
    host::fresh::Fresh,
    model::{Filesystem, FilesystemKind},
};

/// How long a label may be (mkfs.xfs(8), mke2fs(8)).
const LABEL: [(FilesystemKind, usize); 2] = [(FilesystemKind::Xfs, 12), (FilesystemKind::Ext4, 16)];

/// The whole filesystem that begins with these bytes: its kind and UUID. One that mkfs has not ended is none.
pub(super) fn parse(start: &[u8]) -> Option<Filesystem> {
    // XFS (kernel: `struct xfs_dsb`): magic, UUID, and whether mkfs is still at work.
    if field::<4>(start, 0)? == *b"XFSB" && start.get(126) == Some(&0) {
        return Some(Filesystem { kind: FilesystemKind::Xfs, uuid: format_uuid(&field::<16>(start, 32)?) });
    }
    // ext4 (kernel: `struct ext4_super_block`, from byte 1024 on). mke2fs writes it last.
    if field::<2>(start, 1024 + 56)? == [0x53, 0xef] {
        return Some(Filesystem {
            kind: FilesystemKind::Ext4,
            uuid: format_uuid(&field::<16>(start, 1024 + 104)?),
        });
    }
    None
}

/// What lies on a member.
pub(super) fn on(device: &Path, sb: &Superblock) -> io::Result<Option<Filesystem>> {
    Ok(Fresh::open(device)?.block(sb.data_offset)?.and_then(|start| parse(&start)))
}

/// The first block of a device from here on, where a whole filesystem begins with it.
pub(super) fn begins(device: &Path, at: u64) -> Option<Vec<u8>> {
    let start = Fresh::open(device).and_then(|device| device.block(at)).ok()??;
    parse(&start).map(|_| start.to_vec())
}

/// The smallest piece in which it is written, in bytes: the kernel mounts it on no device of larger sectors.
pub(super) fn smallest_write(start: &[u8]) -> Option<u64> {
    match parse(start)?.kind {
        // `sb_sectsize`, which mkfs takes from the physical sectors of what it is made on (kernel: `xfs_setsize_buftarg`).
        FilesystemKind::Xfs => Some(u16::from_be_bytes(field(start, 102)?).into()),
        // `s_log_block_size`.
        FilesystemKind::Ext4 => 1024_u64.checked_shl(u32::from_le_bytes(field(start, 1024 + 24)?)),
    }
}

/// Makes it.
pub(super) fn make(spec: &MirrorSpec, on: &Filesystem, array: PathBuf) -> Cmd {
    let room = LABEL.iter().find(|(kind, _)| *kind == on.kind).map_or(0, |(_, room)| *room);
    let label: &[&str] = if spec.name.len() <= room { &["-L", &spec.name] } else { &[] };
    let cmd = match on.kind {
        // Forced: deep in members that were erased there may be left what an array held that began at the same place.
        FilesystemKind::Xfs => {
            Cmd::destroy("mkfs.xfs").args(["-q", "-f", "-m", &format!("uuid={}", on.uuid)]).args(label)
        }
        FilesystemKind::Ext4 => Cmd::destroy("mkfs.ext4").args(["-q", "-F", "-U", &on.uuid]).args(label),
    };
    cmd.arg(array)
}

/// The tool that makes it.
pub(super) const fn tool(kind: FilesystemKind) -> &'static str {
    match kind {
        FilesystemKind::Xfs => "mkfs.xfs",
        FilesystemKind::Ext4 => "mkfs.ext4",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_filesystems_are_known_and_others_are_not() {
        assert_eq!(parse(&[0; 4096]), None);
        assert_eq!(parse(b"XFSB"), None, "cut short");
        let mut xfs = vec![0; 4096];
        xfs[..4].copy_from_slice(b"XFSB");
        xfs[32..48].copy_from_slice(&0x1f62_4a50_0f62_4fea_8ae9_9164_7e74_e09e_u128.to_be_bytes());
        let found = parse(&xfs).unwrap();
        assert_eq!(
            (found.kind, found.uuid.as_str()),
            (FilesystemKind::Xfs, "1f624a50-0f62-4fea-8ae9-91647e74e09e")
        );
        xfs[102..104].copy_from_slice(&512_u16.to_be_bytes());
        assert_eq!(smallest_write(&xfs), Some(512));
        xfs[126] = 1;
        assert_eq!(parse(&xfs), None, "mkfs has not ended");
        let mut ext4 = vec![0; 4096];
        ext4[1080..1082].copy_from_slice(&[0x53, 0xef]);
        ext4[1128..1144].fill(0xab);
        let found = parse(&ext4).unwrap();
        assert_eq!(
            (found.kind, found.uuid.as_str()),
            (FilesystemKind::Ext4, "abababab-abab-abab-abab-abababababab")
        );
        assert_eq!(smallest_write(&ext4), Some(1024));
        ext4[1048] = 2;
        assert_eq!(smallest_write(&ext4), Some(4096));
    }
}
