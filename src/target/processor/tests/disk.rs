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

/// A disk whose write-back fails as Linux tells it: once, and then all seems well.
struct Once {
    disk: MemoryImage,
    error: Option<Cause>,
}

impl Image for Once {
    fn sectors(&self) -> u64 {
        self.disk.sectors()
    }
    fn read_at(&mut self, at: Sector, into: &mut [u8]) -> Result<(), Fault> {
        self.disk.read_at(at, into)
    }
    fn write_at(&mut self, at: Sector, data: &[u8]) -> Result<(), Fault> {
        self.disk.write_at(at, data)
    }
    fn flush(&mut self) -> Result<(), Fault> {
        self.error.take().map_or(Ok(()), |cause| Err(cause.at_once()))
    }
    fn trim(&mut self, at: Sector, count: u64) -> Result<(), Fault> {
        self.disk.trim(at, count)
    }
}

#[test]
fn after_a_failed_flush_every_flush_fails() {
    for cause in [Cause::Medium, Cause::Refused, Cause::Missing] {
        let mut bed = Bed::over(Once { disk: MemoryImage::new(8), error: None });
        let flush = |bed: &mut Bed<Once>| bed.ata(Ata::flush(true), &[]).1;
        bed.ata(Ata::write(Sector(0), 1, true), &[1; SECTOR]);
        assert!(!flush(&mut bed).failed() && !bed.target.lost());
        bed.target.image_mut().error = Some(cause);
        // The first answer may be lost on the wire: the same frame, sent again, must not be told that all is well.
        for _ in 0..3 {
            let registers = flush(&mut bed);
            assert_eq!((registers.command, registers.feature), (0x61, 0x40));
        }
        assert!(bed.ata(Ata::flush(false), &[]).1.failed());
        assert!(bed.ata(Ata::write_cache(false), &[]).1.failed());
        // What needs no promise works on.
        assert!(!bed.ata(Ata::write(Sector(0), 1, true), &[2; SECTOR]).1.failed());
        assert!(bed.target.lost() && bed.target.flush().is_err());
        assert_eq!(bed.target.counters().flushes, 1);
    }
}

#[test]
fn a_flush_that_fails_with_the_cache_off_fails_the_write_however_often_it_comes() {
    let mut bed = Bed::over(Once { disk: MemoryImage::new(8), error: None });
    assert!(!bed.ata(Ata::write_cache(false), &[]).1.failed());
    bed.target.image_mut().error = Some(Cause::Medium);
    for _ in 0..2 {
        assert!(bed.ata(Ata::write(Sector(0), 1, true), &[1; SECTOR]).1.failed());
    }
    assert!(bed.ata(Ata::flush(true), &[]).1.failed());
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

/// Says where it was called, and fails beyond a sector.
struct Traced {
    disk: MemoryImage,
    calls: String,
    bad: u64,
}

impl Image for Traced {
    fn sectors(&self) -> u64 {
        self.disk.sectors()
    }
    fn read_at(&mut self, at: Sector, into: &mut [u8]) -> Result<(), Fault> {
        if at + (into.len() / SECTOR) as u64 > Sector(self.bad) {
            return Err(Cause::Medium.at_once());
        }
        self.disk.read_at(at, into)
    }
    fn write_at(&mut self, at: Sector, data: &[u8]) -> Result<(), Fault> {
        if at + (data.len() / SECTOR) as u64 > Sector(self.bad) {
            return Err(Cause::Medium.at_once());
        }
        self.disk.write_at(at, data)
    }
    fn read_run(&mut self, at: Sector, into: &mut [std::io::IoSliceMut<'_>]) -> Result<(), Fault> {
        self.calls += &format!("r{at}*{} ", into.len());
        crate::target::image::read_each(self, at, into)
    }
    fn write_run(&mut self, at: Sector, data: &[std::io::IoSlice<'_>]) -> Result<(), Fault> {
        self.calls += &format!("w{at}*{} ", data.len());
        crate::target::image::write_each(self, at, data)
    }
    fn flush(&mut self) -> Result<(), Fault> {
        Ok(())
    }
    fn trim(&mut self, at: Sector, count: u64) -> Result<(), Fault> {
        self.disk.trim(at, count)
    }
}

fn traced(bad: u64) -> Bed<Traced> {
    Bed::over(Traced { disk: MemoryImage::new(64), calls: String::new(), bad })
}

/// The replies to a batch, in slots that are filled with rubbish before; empty where there is none.
fn send_batch(bed: &mut Bed<Traced>, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut rooms = vec![vec![0xa5; bed.mtu + ETHERNET]; frames.len()];
    let mut slots: Vec<crate::target::Slot<'_>> = rooms.iter_mut().map(|room| (&mut room[..], 77)).collect();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    bed.target.handle_batch(&frames, OWN, bed.mtu, &mut slots);
    slots.into_iter().map(|(room, len)| room[..len].to_vec()).collect()
}

fn ata_frame(bed: &Bed<Traced>, ata: Ata, fill: u8) -> Vec<u8> {
    let mut body =
        vec![fill; 12 + if ata.aflags & AFLAG_WRITE == 0 { 0 } else { usize::from(ata.count) * SECTOR }];
    ata.emit(&mut body);
    bed.frame(0, &body)
}

#[test]
fn neighbours_in_a_batch_are_one_call() {
    let mut bed = traced(64);
    let atas = [
        Ata::write(Sector(0), 2, true),
        Ata::write(Sector(2), 1, false),
        Ata::read(Sector(3), 1, true),
        Ata::read(Sector(1), 2, true),
        Ata::read(Sector(3), 2, true),
        Ata::read(Sector(5), 2, true),
        Ata::identify(),
        Ata::read(Sector(7), 1, true),
        Ata::read(Sector(63), 1, true),
        Ata::read(Sector(64), 1, true),
    ];
    let frames: Vec<_> = atas.iter().map(|ata| ata_frame(&bed, *ata, 3)).collect();
    let replies = send_batch(&mut bed, &frames);
    assert_eq!(bed.target.image().calls, "w0*2 r1*3 ");
    assert!(replies.iter().all(|reply| reply.len() >= MIN_FRAME));
    assert_eq!((bed.target.counters().answered, bed.target.counters().failed), (10, 1));
}

proptest! {
    #[test]
    fn a_batch_is_answered_as_its_frames_would_be(
        asks in proptest::collection::vec((0u8..8, 0u64..66, 0u8..4, any::<u8>()), 1..40),
        bad in 20u64..70,
        reserved in any::<bool>(),
    ) {
        let (mut single, mut many) = (traced(bad), traced(bad));
        for bed in [&mut single, &mut many] {
            if reserved {
                bed.from = OTHER;
                bed.ask(3, &hex("01_01_020000000077")).unwrap();
                bed.from = HOST;
            }
        }
        let mut next = 0;
        let frames: Vec<Vec<u8>> = asks.iter().map(|&(what, at, count, fill)| {
            // Most continue where the last one ended.
            let at = Sector(if what < 5 { next % 66 } else { at });
            next = at.0 + u64::from(count);
            match what {
                0 | 5 => ata_frame(&single, Ata::write(at, count, fill & 1 == 0), fill),
                1..=4 => ata_frame(&single, Ata::read(at, count, true), fill),
                6 => ata_frame(&single, Ata::flush(true), fill),
                _ => vec![fill; 60],
            }
        }).collect();
        let one_by_one: Vec<_> = frames.iter().map(|frame| single.send(frame).unwrap_or_default()).collect();
        let at_once = send_batch(&mut many, &frames);
        prop_assert_eq!(at_once, one_by_one);
        prop_assert_eq!(single.target.counters(), many.target.counters());
        let [mut a, mut b] = [[0u8; 64 * SECTOR]; 2];
        single.target.image_mut().disk.read_at(Sector(0), &mut a).unwrap();
        many.target.image_mut().disk.read_at(Sector(0), &mut b).unwrap();
        prop_assert!(a == b);
    }
}
