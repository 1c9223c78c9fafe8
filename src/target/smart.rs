//! SMART as a disk reports it, from the counts of this target: sectors that were moved, and calls that failed.
//!
//! A target in software has no spindle and no wear, so the attributes are few. Two of them can get worse: reads that
//! failed and writes that failed. When either has used up its allowance, RETURN STATUS says that the disk is failing.

use crate::wire::smart::{FAILING, SIGNATURE};

/// Bytes of READ DATA and of READ THRESHOLDS.
pub(super) const SMART_LEN: usize = 512;

/// The numbers that the attributes come from.
#[derive(Clone, Copy, Default)]
pub(super) struct Health {
    pub(super) failed_reads: u64,
    pub(super) failed_writes: u64,
    pub(super) sectors_read: u64,
    pub(super) sectors_written: u64,
}

/// A normalised value starts here and falls by one per failure.
const BEST: u8 = 100;

/// A pre-failure attribute at or below this means that the disk is failing. Fifty failures are no accident.
const THRESHOLD: u8 = 50;

/// The attribute warns of failure, and is kept up to date while the disk works.
const PREFAIL: u16 = 0b11;
/// The attribute only counts.
const COUNT: u16 = 0b10;

struct Attribute {
    id: u8,
    flags: u16,
    value: u8,
    threshold: u8,
    raw: u64,
}

impl Health {
    fn attributes(&self) -> [Attribute; 6] {
        let left = |failures: u64| BEST - u8::try_from(failures).unwrap_or(u8::MAX).min(BEST - 1);
        let warns = |id, failures| Attribute {
            id,
            flags: PREFAIL,
            value: left(failures),
            threshold: THRESHOLD,
            raw: failures,
        };
        let counts = |id, raw| Attribute { id, flags: COUNT, value: BEST, threshold: 0, raw };
        [
            warns(1, self.failed_reads),       // Raw_Read_Error_Rate
            counts(12, 1),                     // Power_Cycle_Count: of this process
            counts(187, self.failed_reads),    // Reported_Uncorrect
            warns(200, self.failed_writes),    // Write_Error_Rate
            counts(241, self.sectors_written), // Total_LBAs_Written
            counts(242, self.sectors_read),    // Total_LBAs_Read
        ]
    }

    /// The LBA bytes 1 and 2 of RETURN STATUS.
    pub(super) fn verdict(&self) -> [u8; 2] {
        let failing = self.attributes().iter().any(|a| a.flags == PREFAIL && a.value <= a.threshold);
        if failing { FAILING } else { SIGNATURE }
    }

    /// Fills in READ DATA.
    pub(super) fn data(&self, out: &mut [u8; SMART_LEN]) {
        out.fill(0);
        out[field::REVISION].copy_from_slice(&0x10u16.to_le_bytes());
        for (attribute, entry) in
            self.attributes().iter().zip(out[field::TABLE].chunks_exact_mut(field::ENTRY))
        {
            entry[0] = attribute.id;
            entry[1..3].copy_from_slice(&attribute.flags.to_le_bytes());
            entry[3] = attribute.value;
            entry[4] = attribute.value;
            entry[5..11].copy_from_slice(&attribute.raw.to_le_bytes()[..6]);
        }
        // Attributes are saved before sleep and by AUTOSAVE; no off-line collection, no self-test.
        out[field::CAPABILITY].copy_from_slice(&0b11u16.to_le_bytes());
        seal(out);
    }

    /// Fills in READ THRESHOLDS.
    pub(super) fn thresholds(&self, out: &mut [u8; SMART_LEN]) {
        out.fill(0);
        out[field::REVISION].copy_from_slice(&0x10u16.to_le_bytes());
        for (attribute, entry) in
            self.attributes().iter().zip(out[field::TABLE].chunks_exact_mut(field::ENTRY))
        {
            entry[0] = attribute.id;
            entry[1] = attribute.threshold;
        }
        seal(out);
    }
}

/// The last byte makes the sum of all 512 zero.
fn seal(out: &mut [u8; SMART_LEN]) {
    out[field::CHECKSUM] = 0;
    let sum = out.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    out[field::CHECKSUM] = sum.wrapping_neg();
}

mod field {
    use std::ops::Range;

    pub(super) const REVISION: Range<usize> = 0..2;
    pub(super) const TABLE: Range<usize> = 2..362;
    pub(super) const ENTRY: usize = 12;
    pub(super) const CAPABILITY: Range<usize> = 368..370;
    pub(super) const CHECKSUM: usize = 511;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_sum_to_zero_and_name_the_same_attributes() {
        let health = Health { failed_reads: 3, failed_writes: 0, sectors_read: 1 << 40, sectors_written: 77 };
        let (mut data, mut thresholds) = ([0xa5; SMART_LEN], [0xa5; SMART_LEN]);
        health.data(&mut data);
        health.thresholds(&mut thresholds);
        for table in [&data, &thresholds] {
            assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        }
        let ids = |table: &[u8; SMART_LEN]| table[2..362].chunks(12).map(|e| e[0]).collect::<Vec<_>>();
        assert_eq!(ids(&data), ids(&thresholds));
        assert_eq!(&data[2..14], &[1, 3, 0, 97, 97, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&data[2 + 5 * 12..2 + 6 * 12], &[242, 2, 0, 100, 100, 0, 0, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn fifty_failures_of_a_kind_are_too_many() {
        let with = |failed_reads, failed_writes| {
            Health { failed_reads, failed_writes, ..Health::default() }.verdict()
        };
        assert_eq!([with(0, 0), with(49, 49)], [SIGNATURE; 2]);
        assert_eq!([with(50, 0), with(0, 50), with(u64::MAX, 0)], [FAILING; 3]);
    }
}
