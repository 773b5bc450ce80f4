//! An empty qcow2 file, version 3, as QEMU's docs/interop/qcow2.txt has it: written here, so that a rescue system needs no qemu-img.

/// log2 of the cluster size: 64 KiB, QEMU's own default.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// How much of the device one entry of the first-level table covers: a cluster of 8-byte entries, each for a cluster.
const PER_ENTRY: u64 = CLUSTER / 8 * CLUSTER;

/// The file's first bytes, and how long it is in all; the rest are zeros. `size`: the device's, in bytes.
pub(super) fn empty(size: u64) -> (Vec<u8>, u64) {
    let entries = size.div_ceil(PER_ENTRY);
    // The header, the table of reference counts, its first block, the first-level table.
    let clusters = 3 + (entries * 8).div_ceil(CLUSTER);
    let mut header = Vec::with_capacity(104);
    header.extend(b"QFI\xfb");
    header.extend(3_u32.to_be_bytes());
    // No name of a backing file: the daemon is told its node.
    header.extend([0; 12]);
    header.extend(CLUSTER_BITS.to_be_bytes());
    header.extend(size.to_be_bytes());
    header.extend([0; 4]);
    header.extend(u32::try_from(entries).unwrap_or(u32::MAX).to_be_bytes());
    header.extend((3 * CLUSTER).to_be_bytes());
    header.extend(CLUSTER.to_be_bytes());
    header.extend(1_u32.to_be_bytes());
    // No snapshots, no features.
    header.extend([0; 12 + 24]);
    // Reference counts of 1 << 4 bits.
    header.extend(4_u32.to_be_bytes());
    header.extend(104_u32.to_be_bytes());

    let mut bytes = header;
    bytes.resize(at(CLUSTER), 0);
    bytes.extend((2 * CLUSTER).to_be_bytes());
    bytes.resize(at(2 * CLUSTER), 0);
    (0..clusters).for_each(|_| bytes.extend(1_u16.to_be_bytes()));
    (bytes, clusters * CLUSTER)
}

/// Three clusters at most.
fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8], at: usize) -> u64 {
        u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn the_fields_are_where_the_format_wants_them() {
        for (size, entries, clusters) in [(1 << 30, 2, 4), ((1 << 30) + 512, 3, 4), (18 << 40, 36864, 8)] {
            let (bytes, length) = empty(size);
            assert_eq!(length, clusters * CLUSTER);
            assert_eq!(&bytes[..8], b"QFI\xfb\0\0\0\x03");
            assert_eq!((number(&bytes, 8), number(&bytes, 24)), (0, size));
            assert_eq!(u64::from(u32::from_be_bytes(bytes[36..40].try_into().unwrap())), entries);
            assert_eq!((number(&bytes, 40), number(&bytes, 48)), (3 * CLUSTER, CLUSTER));
            assert_eq!(bytes[56..60], [0, 0, 0, 1]);
            assert!(bytes[60..96].iter().all(|b| *b == 0), "no snapshot, no feature");
            assert_eq!(bytes[96..104], [0, 0, 0, 4, 0, 0, 0, 104]);
            assert_eq!(number(&bytes, at(CLUSTER)), 2 * CLUSTER);
            assert_eq!(bytes.len() as u64, 2 * CLUSTER + 2 * clusters);
        }
    }
}
