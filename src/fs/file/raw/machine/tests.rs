use proptest::prelude::*;

use super::*;
use crate::wire::{AFLAG_EXT, Ata, FlushKind, Text};

const SECTORS: u64 = 1 << 33;

fn unit() -> Facts {
    let identify = Identify {
        serial: Text::new("S123"),
        model: Text::new("a model with a long name indeed"),
        firmware: Text::new("FW-12345"),
        sectors: SECTORS,
        lba48: true,
        flush: FlushKind::FlushExt,
        trim: true,
        trim_zeroes: true,
        max_trim_blocks: 8,
        smart: true,
        write_cache: true,
        physical_log2: 3,
        rotation: 1,
    };
    Facts { identify, sectors: SECTORS, frame: 16, up: true, read_only: false }
}

struct Bed {
    raw: Raw,
    unit: Facts,
}

impl Bed {
    fn new() -> Bed {
        Bed { raw: Raw::new(Pool::default()), unit: unit() }
    }

    fn write(&mut self, bytes: &[u8]) -> Step {
        self.raw.write(&self.unit, bytes)
    }

    fn command(&mut self, bytes: &[u8]) {
        assert!(matches!(self.write(bytes), Step::Wrote(n) if n == bytes.len()), "{bytes:02x?}");
    }

    fn get(&mut self, len: usize) -> Vec<u8> {
        match self.raw.read(len) {
            Step::Read(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn status(&mut self) -> String {
        String::from_utf8(self.get(16)).unwrap()
    }

    /// Sense key, code and qualifier.
    fn sense(&mut self) -> [u8; 3] {
        self.command(&[3, 0, 0, 0, 18, 0]);
        let sense = self.get(18);
        assert_eq!((sense.len(), sense[0], sense[7]), (18, 0x70, 10));
        assert_eq!(self.status(), "0\n");
        [sense[2], sense[12], sense[13]]
    }

    /// The usual end of every test: whatever happened, a command is taken after two calls at most.
    fn works(&mut self) {
        let refused = |bed: &mut Bed| matches!(bed.write(&[0; 6]), Step::Error(_));
        if refused(self) && refused(self) {
            self.command(&[0; 6]);
        }
        assert_eq!(self.status(), "0\n");
        assert_eq!(self.get(100), b"", "the end of the file");
    }
}

fn data(bytes: usize) -> Outcome {
    let pool = Pool::default();
    let mut buf = pool.take(bytes);
    buf.fill(7);
    Ok(Output::Data(crate::engine::Data::from(buf)))
}

fn error(step: &Step) -> Error {
    match step {
        Step::Error(error) => *error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_that_are_answered_here() {
    let inquiry = [&[0, 0, 5, 2, 31, 0, 0, 2][..], b"ATA     a model with a l2345"].concat();
    let mut name = b"ATA     a model with a long name indeed".to_vec();
    name.resize(48, b' ');
    name.extend(b"S123                ");
    let page83 = [&[0, 0x83, 0, 72, 2, 1, 0, 68][..], &name].concat();
    let page80 = [&[0, 0x80, 0, 20][..], b"S123                "].concat();
    let mut capacity = vec![0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0, 0, 3, 0xc0];
    capacity.resize(32, 0);
    let table: [(&str, &[u8], &[u8]); 12] = [
        ("test unit ready", &[0; 6], b""),
        ("start/stop", &[0x1b, 0, 0, 0, 1, 0], b""),
        ("request sense", &[3, 0, 0, 0, 18, 0], &[0x70, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("request sense, short", &[3, 0, 0, 0, 4, 0], &[0x70, 0, 0, 0]),
        ("inquiry", &[0x12, 0, 0, 0, 255, 0], &inquiry),
        ("inquiry, short", &[0x12, 0, 0, 0, 5, 0], &inquiry[..5]),
        ("pages", &[0x12, 1, 0, 0, 255, 0], &[0, 0, 0, 3, 0, 0x80, 0x83]),
        ("serial", &[0x12, 1, 0x80, 0, 255, 0], &page80),
        ("identification", &[0x12, 1, 0x83, 1, 0, 0], &page83),
        ("read capacity 10", &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]),
        ("read capacity 16", &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0], &capacity),
        ("read 10 of nothing", &[0x28, 0, 0, 0, 0, 0, 0, 0, 0, 0], b""),
    ];
    for (name, cdb, answer) in table {
        let mut bed = Bed::new();
        bed.command(cdb);
        if !answer.is_empty() {
            assert_eq!(bed.get(1024), answer, "{name}");
        }
        assert_eq!(bed.status(), "0\n", "{name}");
        bed.works();
    }
    let mut bed = Bed::new();
    bed.unit.sectors = 77;
    bed.command(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bed.get(8), [0, 0, 0, 76, 0, 0, 2, 0]);
}

#[test]
fn commands_that_are_refused() {
    const NONE: Phase = Phase::None;
    const IN: Phase = Phase::In(0);
    const OUT: Phase = Phase::Out(None);
    let last = [0x88, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    let table: [(&str, &[u8], Phase, [u8; 3]); 19] = [
        ("another unit", &[0, 0x20, 0, 0, 0, 0], NONE, [5, 0x25, 0]),
        ("another unit's sectors", &[0x28, 0x40, 0, 0, 0, 0, 0, 0, 1, 0], IN, [5, 0x25, 0]),
        ("unknown", &[0xc1, 0, 0, 0, 0, 0], NONE, [5, 0x20, 0]),
        ("mode sense 6", &[0x1a, 0, 0x3f, 0, 255, 0], IN, [5, 0x20, 0]),
        ("mode sense 10", &[0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 8, 0], IN, [5, 0x20, 0]),
        ("report luns", &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], IN, [5, 0x20, 0]),
        ("report luns, no room", &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], NONE, [5, 0x20, 0]),
        ("mode select", &[0x15, 0x10, 0, 0, 24, 0], OUT, [5, 0x20, 0]),
        ("unmap", &[0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], OUT, [5, 0x20, 0]),
        ("write same", &[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], OUT, [5, 0x20, 0]),
        ("format", &[0x04, 0, 0, 0, 0, 0], NONE, [5, 0x20, 0]),
        ("get lba status", &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0], IN, [5, 0x20, 0]),
        ("inquiry, page without evpd", &[0x12, 0, 0x80, 0, 255, 0], IN, [5, 0x24, 0]),
        ("inquiry, other page", &[0x12, 1, 0xb0, 0, 255, 0], IN, [5, 0x24, 0]),
        ("read capacity 10, partial", &[0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0], IN, [5, 0x24, 0]),
        ("read beyond the end", &last, IN, [5, 0x21, 0]),
        (
            "write beyond the end",
            &[0x8a, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2, 0, 0],
            OUT,
            [5, 0x21, 0],
        ),
        (
            "read far beyond",
            &[0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1, 0, 0],
            IN,
            [5, 0x21, 0],
        ),
        ("a group without a length", &[0x7f, 0, 0, 0, 0, 0, 0, 24], NONE, [5, 0x20, 0]),
    ];
    for (name, cdb, phase, sense) in table {
        let mut bed = Bed::new();
        bed.command(cdb);
        match phase {
            Phase::None => {}
            Phase::In(_) => assert_eq!(bed.get(4096), b"", "{name}"),
            // Nothing was written: that is an error for the writer, too.
            Phase::Out(_) => assert_eq!(error(&bed.write(&[1; 24])), Error::Io, "{name}"),
        }
        assert_eq!(bed.status(), "2\n", "{name}");
        // Kept until it is read, and not longer.
        bed.command(&[0; 6]);
        assert_eq!(bed.status(), "0\n");
        assert_eq!(bed.sense(), sense, "{name}");
        assert_eq!(bed.sense(), [0, 0, 0]);
        bed.works();
    }
    let mut bed = Bed::new();
    bed.unit.up = false;
    bed.command(&[0; 6]);
    assert_eq!(bed.status(), "2\n");
    assert_eq!(bed.sense(), [2, 4, 0]);
    bed.unit.read_only = true;
    bed.command(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(error(&bed.write(&[0; 512])), Error::Io);
    assert_eq!(bed.status(), "2\n");
    assert_eq!(bed.sense(), [7, 0x27, 0]);
    // Another unit than 0 has no identity, and says so without an error.
    bed.command(&[0x12, 0x20, 0, 0, 36, 0]);
    assert_eq!(bed.get(36)[0], 0x7f);
    assert_eq!(bed.status(), "0\n");
}

#[test]
fn reads_and_writes_of_every_size_become_the_engines() {
    // Command, first sector, sectors, through.
    let table: [(&[u8], u64, usize, bool); 9] = [
        (&[0x08, 0x1f, 0xff, 0xff, 1, 0], 0x1f_ffff, 1, false),
        (&[0x08, 0, 0, 9, 0, 0], 9, 256, false),
        (&[0x0a, 0, 0, 9, 2, 0], 9, 2, false),
        (&[0x28, 0, 0xff, 0xff, 0xff, 0xff, 0, 8, 0, 0], 0xffff_ffff, 2048, false),
        (&[0x2a, 0x08, 0, 0, 1, 0, 0, 0, 3, 0], 256, 3, true),
        (&[0xa8, 0, 0, 0, 0, 5, 0, 0, 0, 7, 0, 0], 5, 7, false),
        (&[0xaa, 0x10, 0, 0, 0, 5, 0, 0, 8, 0, 0, 0], 5, 2048, false),
        (&[0x88, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0], 0x1_ffff_ffff, 1, false),
        (&[0x8a, 0x0a, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 1 << 32, 1, true),
    ];
    for (cdb, at, sectors, through) in table {
        let mut bed = Bed::new();
        let bytes = sectors * 512;
        bed.command(cdb);
        if cdb[0] & 15 == 8 {
            let Step::Submit { io: Io::Read { offset, len }, changes } = bed.raw.read(bytes) else {
                panic!()
            };
            assert_eq!((offset, len, changes), (at * 512, bytes, 0..0));
            assert_eq!(error(&bed.raw.read(1)), Error::Busy);
            assert_eq!(error(&bed.write(&[0; 6])), Error::Busy);
            let Step::Read(got) = bed.raw.answered(data(bytes)) else { panic!() };
            assert_eq!(got, vec![7; bytes]);
        } else {
            let Step::Submit { io: Io::Write { offset, data }, changes } = bed.write(&vec![5; bytes]) else {
                panic!()
            };
            assert_eq!((offset, data.len(), changes), (at * 512, bytes, at * 512..at * 512 + bytes as u64));
            let mut step = bed.raw.answered(Ok(Output::Written(bytes)));
            if through {
                assert!(matches!(step, Step::Submit { io: Io::Flush, .. }));
                step = bed.raw.answered(Ok(Output::Done));
            }
            assert!(matches!(step, Step::Wrote(n) if n == bytes));
        }
        assert_eq!(bed.status(), "0\n", "{cdb:02x?}");
        bed.works();
    }
    for cdb in [&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0x91, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    {
        let mut bed = Bed::new();
        assert!(matches!(bed.write(cdb), Step::Submit { io: Io::Flush, .. }));
        assert!(matches!(bed.raw.answered(Ok(Output::Done)), Step::Wrote(n) if n == cdb.len()));
        assert_eq!(bed.status(), "0\n");
    }
}

#[test]
fn what_fails_on_the_way_is_an_error_and_a_status() {
    for (why, status, sense) in [
        (Error::Io, "2\n", [3, 0x11, 0]),
        (Error::Stale, "2\n", [6, 0x28, 0]),
        (Error::Busy, "24\n", [0, 0, 0]),
        (Error::Down, "2\n", [2, 4, 0]),
        (Error::Invalid, "2\n", [4, 0x44, 0]),
    ] {
        let mut bed = Bed::new();
        bed.command(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert!(matches!(bed.raw.read(512), Step::Submit { .. }));
        assert_eq!(error(&bed.raw.answered(Err(why))), why);
        assert_eq!(bed.status(), status);
        assert_eq!(bed.sense(), sense);
        bed.works();
    }
    // Without data there is no status to come back for, but the sense is kept.
    let mut bed = Bed::new();
    assert!(matches!(bed.write(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Step::Submit { .. }));
    assert_eq!(error(&bed.raw.answered(Err(Error::Io))), Error::Io);
    assert_eq!(bed.get(10), b"");
    assert_eq!(bed.sense(), [3, 0x0c, 0]);
    // A disk that has become smaller.
    bed.command(&[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
    assert!(matches!(bed.raw.read(1024), Step::Submit { .. }));
    assert_eq!(error(&bed.raw.answered(data(512))), Error::Io);
    bed.works();
}

#[test]
fn wrong_lengths_and_turns_reset() {
    let read = [0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    let write = [0x2a, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    let mut bed = Bed::new();
    for bytes in [
        &[][..],
        &[0],
        &[0; 5],
        &[0; 17],
        &read[..9],
        &[0x88; 15],
        &[0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0xff; 17],
    ] {
        assert_eq!(error(&bed.write(bytes)), Error::Invalid, "{bytes:02x?}");
    }
    // More than one transfer moves.
    assert_eq!(error(&bed.write(&[0x28, 0, 0, 0, 0, 0, 0, 8, 1, 0])), Error::Invalid);
    bed.command(&read);
    assert_eq!(error(&bed.raw.read(1023)), Error::Invalid);
    bed.works();
    bed.command(&read);
    assert_eq!(error(&bed.write(&[0; 1024])), Error::Invalid);
    bed.works();
    for len in [1023, 1025] {
        bed.command(&write);
        assert_eq!(error(&bed.write(&vec![0; len])), Error::Invalid);
        bed.works();
    }
    bed.command(&write);
    assert_eq!(error(&bed.raw.read(1024)), Error::Invalid);
    bed.works();
    // A status that nobody read, as devsd has it.
    bed.command(&[0; 6]);
    assert_eq!(error(&bed.write(&[0; 6])), Error::Invalid);
    bed.works();
    assert_eq!(error(&bed.raw.answered(Ok(Output::Done))), Error::Invalid);
    bed.works();
}

#[test]
fn the_largest_transfer_may_come_in_two_pieces() {
    let mut bed = Bed::new();
    let first = (1 << 20) - 48;
    bed.command(&[0x28, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
    assert!(matches!(bed.raw.read(first), Step::Submit { io: Io::Read { len: 0x10_0000, .. }, .. }));
    let Step::Read(got) = bed.raw.answered(data(1 << 20)) else { panic!() };
    assert_eq!(got.len(), first);
    assert_eq!(bed.get(48).len(), 48);
    assert_eq!(bed.status(), "0\n");
    bed.command(&[0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
    bed.command(&vec![1; first]);
    let Step::Submit { io: Io::Write { data: whole, .. }, .. } = bed.write(&[2; 48]) else { panic!() };
    assert_eq!(whole.len(), 1 << 20);
    assert!(matches!(bed.raw.answered(Ok(Output::Written(1 << 20))), Step::Wrote(48)));
    assert_eq!(bed.status(), "0\n");
    // But not in three, and not a small one.
    bed.command(&[0x2a, 0, 0, 0, 0, 0, 0, 8, 0, 0]);
    bed.command(&vec![1; first]);
    assert_eq!(error(&bed.write(&[2; 47])), Error::Invalid);
    bed.works();
}

/// The bytes of an ATA command.
fn fis(protocol: u8, command: u8, set: &[(usize, u8)]) -> Vec<u8> {
    let mut out = vec![0; 18];
    out[..5].copy_from_slice(&[0xff, protocol, 0x27, 0x80, command]);
    for (at, byte) in set {
        out[2 + at] = *byte;
    }
    out
}

const EXT: u8 = AFLAG_EXT;

#[test]
fn ata_commands_have_their_registers() {
    let lba = &[(4, 1), (5, 2), (6, 3), (7, 0x44), (8, 4), (9, 5), (10, 6), (12, 8)];
    let short = &[(4, 1), (5, 2), (6, 3), (7, 0x44), (12, 8)];
    let smart = |feature, count| vec![(3, feature), (5, 0x4f), (6, 0xc2), (12, count)];
    // Protocol, command, registers; AFlags, feature, count, command, LBA on the wire; bytes expected and sent.
    type Row<'a> = (&'a str, u8, u8, &'a [(usize, u8)], [u8; 4], [u8; 6], usize, usize);
    let (data, status, log, test) = (smart(0xd0, 0), smart(0xda, 0), smart(0xd6, 2), smart(0xd4, 0));
    let table: [Row<'_>; 19] = [
        ("identify", 0x25, 0xec, &[], [0, 0, 1, 0xec], [0, 0, 0, 0xa0, 0, 0], 512, 0),
        ("identify, count", 0x05, 0xec, &[(12, 1)], [0, 0, 1, 0xec], [0, 0, 0, 0xa0, 0, 0], 512, 0),
        ("smart data", 0x25, 0xb0, &data, [0, 0xd0, 1, 0xb0], [0, 0x4f, 0xc2, 0xa0, 0, 0], 512, 0),
        ("smart status", 0x20, 0xb0, &status, [0, 0xda, 0, 0xb0], [0, 0x4f, 0xc2, 0xa0, 0, 0], 0, 0),
        ("smart test", 0x20, 0xb0, &test, [0, 0xd4, 0, 0xb0], [0, 0x4f, 0xc2, 0xa0, 0, 0], 0, 0),
        ("smart log", 0x26, 0xb0, &log, [0, 0xd6, 2, 0xb0], [0, 0x4f, 0xc2, 0xa0, 0, 0], 0, 1024),
        ("set features", 0, 0xef, &[(3, 3), (12, 0x46)], [0, 3, 0x46, 0xef], [0, 0, 0, 0xa0, 0, 0], 0, 0),
        ("check power", 0, 0xe5, &[(12, 1)], [0, 0, 0, 0xe5], [0, 0, 0, 0xa0, 0, 0], 0, 0),
        ("flush", 0, 0xe7, &[], [0, 0, 0, 0xe7], [0, 0, 0, 0xa0, 0, 0], 0, 0),
        ("flush ext", 0, 0xea, &[], [EXT, 0, 0, 0xea], [0; 6], 0, 0),
        ("trim", 0x0a, 0x06, &[(3, 1), (12, 1)], [EXT, 1, 1, 0x06], [0; 6], 0, 512),
        ("read pio", 0x05, 0x24, lba, [EXT, 0, 8, 0x24], [1, 2, 3, 4, 5, 6], 4096, 0),
        ("read dma", 0x09, 0x25, lba, [EXT, 0, 8, 0x24], [1, 2, 3, 4, 5, 6], 4096, 0),
        ("read dma 28", 0x29, 0xc8, short, [0, 0, 8, 0x20], [1, 2, 3, 0xe4, 0, 0], 4096, 0),
        ("write pio 28", 0x26, 0x30, short, [0, 0, 8, 0x30], [1, 2, 3, 0xe4, 0, 0], 0, 4096),
        ("write dma", 0x0a, 0x35, lba, [EXT, 0, 8, 0x34], [1, 2, 3, 4, 5, 6], 0, 4096),
        ("device 1", 0x05, 0x24, &[(7, 0x50), (12, 1)], [EXT | 0x10, 0, 1, 0x24], [0; 6], 512, 0),
        ("unknown, 48 bits", 0, 0x8e, &[(8, 9)], [EXT, 0, 0, 0x8e], [0, 0, 0, 9, 0, 0], 0, 0),
        ("unknown, 28 bits", 0x20, 0x8e, &[(4, 9)], [0, 0, 0, 0x8e], [9, 0, 0, 0xa0, 0, 0], 0, 0),
    ];
    for (name, protocol, command, set, wire, lba, expected, sent) in table {
        let mut bed = Bed::new();
        let bytes = fis(protocol, command, set);
        let step = if expected + sent == 0 {
            bed.write(&bytes)
        } else {
            bed.command(&bytes);
            if sent > 0 { bed.write(&vec![9; sent]) } else { bed.raw.read(expected) }
        };
        let Step::Submit { io: Io::Ata { ata, data, expect }, .. } = step else { panic!("{name}: {step:?}") };
        let [aflags, feature, count, command] = wire;
        assert_eq!(ata, Ata { aflags, feature, count, command, lba }, "{name}");
        assert_eq!((expect, data.len()), (expected, sent), "{name}");
        let ata = Ata { command: 0x50, count: 0xaa, ..ata };
        let done = bed.raw.answered(Ok(Output::Ata { ata, data: vec![3; expected] }));
        match done {
            Step::Read(got) => assert_eq!(got, vec![3; expected], "{name}"),
            Step::Wrote(n) => assert_eq!(n, if sent > 0 { sent } else { 18 }, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        let status = bed.get(100);
        assert_eq!(status[..5], [0, 0, 0x34, 0, 0x50], "{name}");
        let ext = aflags & EXT != 0;
        let device = if ext { bytes[2 + 7] } else { lba[3] };
        let high = if ext { [lba[3], lba[4], lba[5]] } else { [0; 3] };
        assert_eq!(status[6..9], lba[..3], "{name}");
        assert_eq!(status[9], device, "{name}");
        assert_eq!(status[10..13], high, "{name}");
        assert_eq!(status[13..], [0, 0xaa, 0, 0, 0], "{name}");
        bed.works();
    }
}

#[test]
fn ata_transfers_above_a_frame_become_the_engines() {
    let mut bed = Bed::new();
    // 256 sectors: what a count of 0 means in 28 bits.
    bed.command(&fis(0x25, 0xc8, &[(4, 16), (7, 0x40)]));
    assert!(matches!(
        bed.raw.read(1 << 17),
        Step::Submit { io: Io::Read { offset: 8192, len: 0x2_0000 }, changes: Range { start: 0, end: 0 } }
    ));
    assert!(matches!(bed.raw.answered(data(1 << 17)), Step::Read(got) if got.len() == 1 << 17));
    let status = bed.get(18);
    assert_eq!(status[..5], [0, 0, 0x34, 0, 0x40]);
    assert_eq!((status[6], status[9]), (16, 0x40));
    // Forced to the medium, and so never alone in its frame.
    bed.command(&fis(0x0a, 0x3d, &[(12, 1)]));
    assert!(matches!(bed.write(&[1; 512]), Step::Submit { io: Io::Write { offset: 0, .. }, .. }));
    assert!(matches!(bed.raw.answered(Ok(Output::Written(512))), Step::Submit { io: Io::Flush, .. }));
    assert!(matches!(bed.raw.answered(Err(Error::Io)), Step::Error(Error::Io)));
    assert_eq!(bed.get(18), [&[0xff][..], &[0; 17]].concat());
    // Beyond the end.
    bed.unit.sectors = 100;
    bed.command(&fis(0x06, 0x34, &[(4, 90), (12, 17)]));
    assert_eq!(error(&bed.write(&[1; 17 * 512])), Error::Io);
    assert_eq!(bed.get(18)[..5], [2, 0, 0x34, 0, 0x41]);
    bed.command(&fis(0x05, 0x24, &[(4, 90), (12, 17)]));
    assert_eq!(bed.get(17 * 512), b"");
    assert_eq!(bed.get(18)[..6], [2, 0, 0x34, 0, 0x41, 0x10]);
    bed.works();
}

#[test]
fn ata_failures_and_what_aoe_cannot_carry() {
    let mut bed = Bed::new();
    bed.command(&fis(0x25, 0xec, &[]));
    assert!(matches!(bed.raw.read(512), Step::Submit { .. }));
    let ata = Ata { command: 0x41, feature: 4, ..Ata::default() };
    assert!(
        matches!(bed.raw.answered(Ok(Output::Ata { ata, data: Vec::new() })), Step::Read(got) if got.is_empty())
    );
    assert_eq!(bed.get(18)[..6], [2, 0, 0x34, 0, 0x41, 4]);
    assert!(matches!(bed.write(&fis(0, 0xe5, &[])), Step::Submit { .. }));
    assert!(matches!(bed.raw.answered(Ok(Output::Ata { ata, data: Vec::new() })), Step::Wrote(18)));
    assert_eq!(bed.get(18)[0], 2);
    assert!(matches!(bed.write(&fis(0, 0xe5, &[])), Step::Submit { .. }));
    assert_eq!(error(&bed.raw.answered(Err(Error::NotSupported))), Error::NotSupported);
    bed.works();
    for (why, bytes) in [
        ("both ways", fis(3, 0xec, &[])),
        ("queued", fis(0x0d, 0xec, &[])),
        ("reserved", fis(0x85, 0xec, &[])),
        ("not a register FIS", fis(5, 0xec, &[(0, 0x34)])),
        ("a reset", fis(5, 0xec, &[(1, 0)])),
        ("feature 15:8", fis(5, 0x2f, &[(11, 1)])),
        ("count 15:8", fis(5, 0x2f, &[(13, 1)])),
        ("count 15:8 in 28 bits", fis(0x25, 0xc8, &[(13, 1)])),
        ("LBA above 28 bits", fis(0x20, 0xe7, &[(8, 1)])),
        ("a read that writes", fis(6, 0x24, &[(12, 1)])),
        ("a write that reads", fis(5, 0x34, &[(12, 1)])),
        ("a read without data", fis(0, 0x24, &[(12, 1)])),
        ("65536 sectors", fis(5, 0x24, &[])),
        ("2049 sectors", fis(5, 0x24, &[(12, 1), (13, 8)])),
        ("short", fis(5, 0xec, &[])[..17].to_vec()),
        ("long", [fis(5, 0xec, &[]), vec![0]].concat()),
    ] {
        assert_eq!(error(&bed.write(&bytes)), Error::Invalid, "{why}");
        bed.works();
    }
    bed.unit.read_only = true;
    for bytes in [fis(6, 0x34, &[(12, 1)]), fis(0x0a, 0x06, &[(3, 1), (12, 1)])] {
        bed.command(&bytes);
        assert_eq!(error(&bed.write(&[0; 512])), Error::Io);
        assert_eq!(bed.get(18)[..6], [2, 0, 0x34, 0, 0x41, 4]);
    }
    // SANITIZE: nobody knows what it does, so it is taken for a write.
    bed.command(&fis(0, 0xb4, &[]));
    assert_eq!(bed.get(18)[0], 2);
    bed.works();
}

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<u8>),
    Command(u8, Vec<u8>),
    Fis(u8, u8, Vec<u8>),
    Transfer(usize),
    Read(usize),
    Answer(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = |range| proptest::collection::vec(any::<u8>(), range);
    prop_oneof![
        bytes(0..40).prop_map(Op::Write),
        (any::<u8>(), bytes(15..16)).prop_map(|(code, rest)| Op::Command(code, rest)),
        (any::<u8>(), any::<u8>(), bytes(16..17)).prop_map(|(p, c, rest)| Op::Fis(p & 0x2f, c, rest)),
        prop_oneof![0usize..3000, Just(1 << 20), Just(131_072)].prop_map(Op::Transfer),
        prop_oneof![0usize..3000, Just(1 << 20), Just(131_072)].prop_map(Op::Read),
        any::<u8>().prop_map(Op::Answer),
    ]
}

proptest! {
    /// Whatever is written, read and answered: no panic, and not later than the third, a command works.
    #[test]
    fn nothing_wedges_it(ops in proptest::collection::vec(op(), 1..60), sectors in any::<u64>(), frame in any::<u8>()) {
        let mut bed = Bed::new();
        bed.unit.sectors = sectors >> 16;
        bed.unit.frame = frame;
        let mut pending: Option<Io> = None;
        let answer = |bed: &mut Bed, how: u8, pending: &mut Option<Io>| {
            let Some(io) = pending.take() else { return };
            let outcome = match (how % 4, io) {
                (0, _) => Err([Error::Io, Error::Busy, Error::Stale, Error::Timeout][usize::from(how / 4) % 4]),
                (1, _) => Ok(Output::Done),
                (2, Io::Read { len, .. }) => data(len / 2),
                (_, Io::Read { len, .. }) => data(len),
                (_, Io::Write { data, .. }) => Ok(Output::Written(data.len())),
                (k, Io::Ata { ata, expect, .. }) => {
                    let status = if k == 2 { 0x41 } else { 0x50 };
                    Ok(Output::Ata { ata: Ata { command: status, ..ata }, data: vec![0; expect] })
                }
                (_, _) => Ok(Output::Done),
            };
            if let Step::Submit { io, .. } = bed.raw.answered(outcome) {
                *pending = Some(io);
            }
        };
        for op in ops {
            let busy = pending.is_some();
            let step = match op {
                Op::Write(bytes) => bed.write(&bytes),
                Op::Command(code, rest) => {
                    let len = super::scsi::least(code);
                    bed.write(&[&[code], &rest[..len - 1]].concat())
                }
                Op::Fis(protocol, command, mut rest) => {
                    rest[..3].copy_from_slice(&[0x27, 0x80, command]);
                    bed.write(&[&[0xff, protocol], &rest[..]].concat())
                }
                Op::Transfer(len) => bed.write(&vec![1; len]),
                Op::Read(len) => bed.raw.read(len),
                Op::Answer(how) => {
                    answer(&mut bed, how, &mut pending);
                    continue;
                }
            };
            match step {
                Step::Submit { io, changes } => {
                    prop_assert!(!busy && changes.start <= changes.end);
                    if let Io::Write { data, .. } = &io { prop_assert!(data.len() <= REQUEST_MAX); }
                    if let Io::Ata { data, expect, .. } = &io { prop_assert!(data.len().max(*expect) <= REQUEST_MAX); }
                    pending = Some(io);
                }
                Step::Error(error) => prop_assert_eq!(busy, error == Error::Busy),
                Step::Wrote(_) | Step::Read(_) => prop_assert!(!busy),
            }
        }
        while pending.is_some() {
            answer(&mut bed, 3, &mut pending);
        }
        bed.unit.up = true;
        bed.works();
    }
}
