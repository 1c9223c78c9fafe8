//! What depends on the image behind the processor: what it can do, and what goes wrong in it.

use super::*;
use crate::target::{Cause, LoggingImage, Mark};
use crate::wire::{smart, trim_ranges};

#[test]
fn identify_says_what_works() {
    let mut bed = Bed::new();
    let identify = bed.identify();
    assert_eq!((identify.serial.as_str(), identify.model.as_str()), ("3.7:host", "aoefs target"));
    assert!(
        identify.lba48 && identify.trim && identify.trim_zeroes && identify.smart && identify.write_cache
    );
    assert_eq!((identify.flush, identify.max_trim_blocks), (crate::wire::FlushKind::FlushExt, 8));
    bed.ata(Ata::write_cache(false), &[]);
    assert!(!bed.identify().write_cache);

    let mut huge = Bed::over(MemoryImage::new(1 << 40));
    assert_eq!(huge.identify().sectors, 1 << 40);
    let (_, registers, _) = huge.ata(Ata::read(Sector((1 << 40) - 1), 1, true), &[]);
    assert!(!registers.failed());
}

#[test]
fn a_read_only_export_takes_nothing() {
    let mut bed = Bed::over(MemoryImage::new(8).into_read_only());
    let identify = bed.identify();
    assert!(!identify.trim && !identify.trim_zeroes);
    for (ata, data) in
        [(Ata::write(Sector(0), 1, true), 512), (Ata::write(Sector(0), 1, false), 512), (Ata::trim(1), 512)]
    {
        let (refusal, registers, _) = bed.ata(ata, &vec![0; data]);
        assert_eq!((refusal, registers.command, registers.feature), (None, 0x41, 0x04));
    }
    assert!(!bed.ata(Ata::flush(true), &[]).1.failed());
}

#[test]
fn trim_reads_zeros_and_is_all_or_nothing() {
    let mut bed = Bed::over(MemoryImage::from_bytes(&[0xff; 4096]));
    let mut list = [0; SECTOR];
    list[..8].copy_from_slice(&[2, 0, 0, 0, 0, 0, 3, 0]);
    list[8..16].copy_from_slice(&[7, 0, 0, 0, 0, 0, 2, 0]);
    assert_eq!(trim_ranges(&list).count(), 2);
    assert_eq!(bed.ata(Ata::trim(1), &list).1.feature, 0x10);
    assert_eq!(bed.target.counters().sectors_trimmed, 0);
    list[14] = 1;
    assert!(!bed.ata(Ata::trim(1), &list).1.failed());
    let mut back = [0; 4096];
    bed.target.image_mut().read_at(Sector(0), &mut back).unwrap();
    for (sector, data) in back.chunks(SECTOR).enumerate() {
        assert!(data.iter().all(|byte| (*byte == 0) == [2, 3, 4, 7].contains(&sector)), "{sector}");
    }
}

#[test]
fn smart_counts_what_happened() {
    let mut bed = Bed::new();
    bed.ata(Ata::write(Sector(0), 2, true), &[1; 1024]);
    let (_, registers, data) = bed.ata(Ata::smart(smart::READ_DATA, 0), &[]);
    assert!(!registers.failed() && data.len() == 512);
    assert_eq!(data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    let written = data[2..].chunks(12).find(|entry| entry[0] == 241).unwrap();
    assert_eq!(written[5], 2);
}

/// An image that fails as it is told.
struct Bad {
    fault: Option<Fault>,
}

impl Image for Bad {
    fn sectors(&self) -> u64 {
        1 << 30
    }
    fn read_at(&mut self, _: Sector, _: &mut [u8]) -> Result<(), Fault> {
        self.fault.map_or(Ok(()), Err)
    }
    fn write_at(&mut self, _: Sector, _: &[u8]) -> Result<(), Fault> {
        self.fault.map_or(Ok(()), Err)
    }
    fn flush(&mut self) -> Result<(), Fault> {
        self.fault.map_or(Ok(()), Err)
    }
    fn trim(&mut self, _: Sector, _: u64) -> Result<(), Fault> {
        self.fault.map_or(Ok(()), Err)
    }
}

#[test]
fn faults_of_the_image_become_registers() {
    let mut bed = Bed::over(Bad { fault: None });
    let fault = |cause, done| Some(Fault { cause, done });
    let read = Ata::read(Sector(0xff_ffff), 2, true);
    let read28 = Ata::read(Sector(0xff_ffff), 2, false);
    let write = Ata::write(Sector(0xff_ffff), 2, true);
    let next = [0, 0, 0, 1, 0, 0];
    for (request, fault, status, error, count, lba) in [
        (read, fault(Cause::Medium, 0), 0x41, 0x40, 2, read.lba),
        (read, fault(Cause::Medium, 1), 0x41, 0x40, 1, next),
        (read28, fault(Cause::Medium, 1), 0x41, 0x40, 1, [0, 0, 0, 0xe1, 0, 0]),
        (read, fault(Cause::Missing, 0), 0x41, 0x10, 2, read.lba),
        (read, fault(Cause::Refused, 0), 0x41, 0x04, 2, read.lba),
        (write, fault(Cause::Medium, 1), 0x61, 0x40, 1, next),
        (write, fault(Cause::Refused, 1), 0x41, 0x04, 1, next),
        // A flush that failed is never an abort, which would mean "no such command".
        (Ata::flush(true), fault(Cause::Refused, 0), 0x61, 0x40, 0, [0; 6]),
        (Ata::flush(false), fault(Cause::Medium, 0), 0x61, 0x40, 0, Ata::flush(false).lba),
        (Ata::write_cache(false), fault(Cause::Medium, 0), 0x61, 0x40, 0, Ata::flush(false).lba),
    ] {
        bed.target.image_mut().fault = fault;
        let (refusal, got, data) = bed.ata(request, &[0; 1024]);
        assert_eq!(refusal, None);
        assert_eq!(
            (got.command, got.feature, got.count, got.lba),
            (status, error, count, lba),
            "{request:?}"
        );
        assert!(data.iter().all(|byte| *byte == 0));
    }
    let mut list = [0; SECTOR];
    list[6] = 1;
    assert_eq!(bed.ata(Ata::trim(1), &list).1.feature, 0x40);
    assert_eq!(bed.target.counters().failed_reads, 5);
    (0..50).for_each(|_| drop(bed.ata(read, &[])));
    assert_eq!(bed.ata(Ata::smart(smart::STATUS, 0), &[]).1.lba[1..3], smart::FAILING);
}

#[test]
fn with_the_cache_off_every_change_is_flushed() {
    let marks = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let seen = marks.clone();
    let image = LoggingImage::new(MemoryImage::new(8), move |mark| {
        seen.lock().unwrap().push(match mark {
            Mark::Write { .. } => 'w',
            Mark::Trim { .. } => 't',
            Mark::Flush => 'f',
        });
    });
    let mut bed = Bed::over(image);
    let mut list = [0; SECTOR];
    list[6] = 1;
    let round = |bed: &mut Bed<_>| {
        bed.ata(Ata::write(Sector(0), 1, true), &[1; SECTOR]);
        bed.ata(Ata::trim(1), &list);
    };
    round(&mut bed);
    bed.ata(Ata::write_cache(false), &[]);
    round(&mut bed);
    bed.ata(Ata::write_cache(true), &[]);
    round(&mut bed);
    bed.ata(Ata::flush(false), &[]);
    assert_eq!(*marks.lock().unwrap(), "wtfwftfwtf");
}

#[test]
fn without_a_cache_there_is_none_to_turn_on() {
    let config = TargetConfig { write_cache: false, ..TargetConfig::new(Addr::new(3, 7), "x") };
    let mut bed = Bed { target: Processor::new(config, MemoryImage::new(8)), ..Bed::new() };
    assert!(!bed.identify().write_cache);
    assert!(bed.ata(Ata::write_cache(true), &[]).1.failed());
    assert!(!bed.ata(Ata::write_cache(false), &[]).1.failed());
}
