//! What other systems leave on a disk, written byte by byte: for kinds whose own tools need a kernel driver or are rarely installed.

/// The superblock of an md member, metadata 1.2 (linux/raid/md_p.h, `struct mdp_superblock_1`): it stands at byte 4096.
pub(crate) fn md_member(size: u64) -> Vec<u8> {
    let mut block = vec![0u8; 256 + 2 * 128];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    let sectors = size / 512 - 2048;
    put(0, &0xa92b_4efcu32.to_le_bytes());
    put(4, &1u32.to_le_bytes());
    put(16, &[0x3a; 16]);
    put(32, b"other:0");
    put(72, &1u32.to_le_bytes());
    put(80, &sectors.to_le_bytes());
    put(92, &2u32.to_le_bytes());
    put(128, &2048u64.to_le_bytes());
    put(136, &sectors.to_le_bytes());
    put(144, &8u64.to_le_bytes());
    put(168, &[0x5a; 16]);
    put(200, &18u64.to_le_bytes());
    put(208, &u64::MAX.to_le_bytes());
    put(220, &128u32.to_le_bytes());
    for slot in 0..128u16 {
        let role = if slot < 2 { slot } else { 0xffff };
        put(256 + 2 * usize::from(slot), &role.to_le_bytes());
    }
    let words = block.chunks(4).map(|c| u64::from(u32::from_le_bytes(c.try_into().unwrap())));
    let sum: u64 = words.sum();
    let folded = u32::try_from(((sum & 0xffff_ffff) + (sum >> 32)) & 0xffff_ffff).unwrap();
    block[216..220].copy_from_slice(&folded.to_le_bytes());
    block
}

/// A pair of an nvlist in XDR (OpenZFS: `nvs_xdr` in module/nvpair/nvpair.c; RFC 4506).
fn nvpair(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    let padded = |bytes: &[u8]| {
        let mut out = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        out.extend(bytes);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    };
    let value = if kind == 9 { padded(value) } else { value.to_vec() };
    let rest =
        [padded(name.as_bytes()), kind.to_be_bytes().to_vec(), 1u32.to_be_bytes().to_vec(), value].concat();
    let size = u32::try_from(rest.len() + 8).unwrap().to_be_bytes();
    [&size[..], &size, &rest].concat()
}

/// The labels of a ZFS member (sys/vdev_impl.h, sys/uberblock_impl.h), and where each of the four stands: its description, which newer
/// tools look for, and its uberblocks, which older ones do.
pub(crate) fn zfs_labels(size: u64) -> Vec<(u64, Vec<u8>)> {
    let mut label = vec![0u8; 256 << 10];
    let number = |name: &str, value: u64| nvpair(name, 8, &value.to_be_bytes());
    let pairs = [
        number("version", 5000),
        nvpair("name", 9, b"tank"),
        number("state", 0),
        number("txg", 4),
        number("pool_guid", 1_111_111),
        number("top_guid", 222_222),
        number("guid", 222_222),
        number("vdev_children", 1),
    ];
    let list = [vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], pairs.concat(), vec![0; 8]].concat();
    label[16 << 10..(16 << 10) + list.len()].copy_from_slice(&list);
    for slot in 0..32u64 {
        let at = (128 << 10) + usize::try_from(slot).unwrap() * 4096;
        for (index, word) in [0x00ba_b10c, 5000, 4 + slot, 1_111_111, 1_700_000_000 + slot].iter().enumerate()
        {
            label[at + 8 * index..at + 8 * index + 8].copy_from_slice(&u64::to_le_bytes(*word));
        }
    }
    let whole = size & !((256 << 10) - 1);
    [0, 256 << 10, whole - (512 << 10), whole - (256 << 10)].map(|start| (start, label.clone())).into()
}

/// The volume descriptors of an ISO 9660 image (ECMA-119, 8.4): they stand at byte 32768.
pub(crate) fn iso_image() -> Vec<u8> {
    let mut descriptors = vec![0u8; 4096];
    descriptors[..7].copy_from_slice(b"\x01CD001\x01");
    descriptors[40..72].copy_from_slice(b"INSTALLER                       ");
    descriptors[2048..2055].copy_from_slice(b"\xffCD001\x01");
    descriptors
}
