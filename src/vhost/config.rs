//! What a guest is told of the disk and of this device: the features and the configuration space of virtio-blk.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::{Facts, QUEUES_MAX};
use crate::wire::SECTOR;

/// Pieces of data that a request may have: two less than the smallest queue that is usual has entries.
pub const PIECES_MAX: u32 = 126;

/// Bytes that a piece may have.
pub const PIECE_MAX: u32 = 64 << 10;

/// Bytes that a read or a write may have. A guest that keeps to the two above makes no larger one.
pub const BYTES_MAX: u64 = PIECES_MAX as u64 * PIECE_MAX as u64;

/// Sectors that one discard may have: 1 GiB.
pub const DISCARD_MAX: u32 = 2 << 20;

/// Sectors that one request for zeros may have: 256 MiB, since they may have to be written. It is fallocate's limit.
pub const ZERO_MAX: u32 = 512 << 10;

/// Bytes of the configuration space that have a meaning here.
const LEN: usize = 60;

/// The features that a disk is offered with, but for those of vhost-user.
pub fn features(facts: &Facts) -> u64 {
    let mut bits = vec![
        VIRTIO_F_VERSION_1,
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_BLK_F_SIZE_MAX,
        VIRTIO_BLK_F_SEG_MAX,
        VIRTIO_BLK_F_BLK_SIZE,
        VIRTIO_BLK_F_TOPOLOGY,
        VIRTIO_BLK_F_FLUSH,
        VIRTIO_BLK_F_MQ,
    ];
    if facts.read_only {
        bits.push(VIRTIO_BLK_F_RO);
    } else if facts.discard {
        bits.extend([VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]);
    }
    bits.into_iter().fold(0, |all, bit| all | 1 << bit)
}

/// The configuration space, as many bytes of it as are asked for. What lies behind its end is zeros.
pub fn space(facts: &Facts, offset: u32, len: u32) -> Vec<u8> {
    let mut all = [0; LEN];
    let mut put = |at: usize, bytes: &[u8]| all[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &(facts.size / SECTOR as u64).to_le_bytes());
    put(8, &PIECE_MAX.to_le_bytes());
    put(12, &PIECES_MAX.to_le_bytes());
    put(20, &(SECTOR as u32).to_le_bytes());
    // The topology: sectors in a physical one as a logarithm, then what a request should be a multiple of, in sectors.
    let physical_log2 = facts.physical_log2.min(15);
    put(24, &[physical_log2]);
    put(26, &(1u16 << physical_log2).to_le_bytes());
    put(34, &(QUEUES_MAX as u16).to_le_bytes());
    if facts.discard && !facts.read_only {
        put(36, &DISCARD_MAX.to_le_bytes());
        put(40, &1u32.to_le_bytes());
        put(44, &(1u32 << physical_log2).to_le_bytes());
        put(48, &ZERO_MAX.to_le_bytes());
        put(52, &1u32.to_le_bytes());
        put(56, &[1]);
    }
    let from = (offset as usize).min(LEN);
    let mut asked = all[from..(from + len as usize).min(LEN)].to_vec();
    asked.resize(len as usize, 0);
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts { size: 1 << 20, read_only: false, physical_log2: 3, discard: true, id: "disk".into() }
    }

    #[test]
    fn a_guest_reads_what_the_specification_says() {
        let all = space(&facts(), 0, 60);
        assert_eq!(all[0..8], 2048u64.to_le_bytes(), "capacity in sectors");
        assert_eq!(all[8..12], 65536u32.to_le_bytes(), "bytes of a piece");
        assert_eq!(all[12..16], 126u32.to_le_bytes(), "pieces");
        assert_eq!(all[20..24], 512u32.to_le_bytes());
        assert_eq!((all[24], &all[26..28]), (3, &[8, 0][..]), "physical sectors of 4 KiB");
        assert_eq!(all[34..36], [8, 0]);
        let number = |at| u32::from_le_bytes(all[at..at + 4].try_into().unwrap());
        let discards = [36, 40, 44].map(number);
        assert_eq!(
            discards,
            [1 << 21, 1, 8],
            "sectors and ranges of a discard, and what it should be aligned to"
        );
        assert_eq!([48, 52].map(number), [1 << 19, 1], "sectors and ranges of zeros");
        assert_eq!(all[56], 1, "zeros may be made by a discard");
        assert_eq!(space(&facts(), 4, 12), all[4..16]);
        assert_eq!(space(&facts(), 58, 100).len(), 100);
        assert!(space(&facts(), u32::MAX, 4).iter().all(|byte| *byte == 0));
    }

    /// A field of the space has a meaning only where its feature was offered.
    #[test]
    fn what_the_space_says_is_offered() {
        let always = [
            VIRTIO_F_VERSION_1,
            VIRTIO_RING_F_INDIRECT_DESC,
            VIRTIO_RING_F_EVENT_IDX,
            VIRTIO_BLK_F_SIZE_MAX,
            VIRTIO_BLK_F_SEG_MAX,
            VIRTIO_BLK_F_BLK_SIZE,
            VIRTIO_BLK_F_TOPOLOGY,
            VIRTIO_BLK_F_FLUSH,
            VIRTIO_BLK_F_MQ,
        ];
        let all = |bits: &[u32]| bits.iter().fold(0, |all, bit| all | 1 << bit);
        let discards = all(&[VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES]);
        assert_eq!(features(&facts()), all(&always) | discards);
        assert_eq!(features(&Facts { discard: false, ..facts() }), all(&always));
        let read_only = Facts { read_only: true, ..facts() };
        assert_eq!(features(&read_only), all(&always) | all(&[VIRTIO_BLK_F_RO]));
    }

    #[test]
    fn what_cannot_be_done_is_not_offered() {
        let has = |facts: &Facts, bit: u32| features(facts) & 1 << bit != 0;
        let mut facts = facts();
        assert!(has(&facts, VIRTIO_BLK_F_DISCARD) && !has(&facts, VIRTIO_BLK_F_RO));
        facts.read_only = true;
        assert!(!has(&facts, VIRTIO_BLK_F_DISCARD) && has(&facts, VIRTIO_BLK_F_RO));
        assert_eq!(space(&facts, 36, 20), [0; 20]);
        (facts.read_only, facts.discard) = (false, false);
        assert!(!has(&facts, VIRTIO_BLK_F_WRITE_ZEROES) && has(&facts, VIRTIO_BLK_F_FLUSH));
    }
}
