//! Replies byte for byte. The requests and the tables follow a conversation with Debian's vblade 25 on veth; where this
//! target answers otherwise, the row says why.

use super::*;
use crate::target::MemoryImage;
use crate::wire::{AFLAG_EXT, AFLAG_WRITE, Identify, SECTOR, Sector, status};
use proptest::prelude::*;

mod disk;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const HOST: Mac = Mac([2, 0, 0, 0, 0, 2]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 0x77]);
const SECTORS: u64 = 2048;

struct Bed<I = MemoryImage> {
    target: Processor<I>,
    from: Mac,
    to: Mac,
    addr: Addr,
    version: u8,
    mtu: usize,
}

impl Bed {
    fn new() -> Bed {
        Bed::over(MemoryImage::new(SECTORS))
    }
}

impl<I: Image> Bed<I> {
    fn over(image: I) -> Bed<I> {
        let config =
            TargetConfig { buffers: 16, firmware: 0x1234, ..TargetConfig::new(Addr::new(3, 7), "3.7:host") };
        Bed {
            target: Processor::new(config, image),
            from: HOST,
            to: OWN,
            addr: Addr::new(3, 7),
            version: 1,
            mtu: 1500,
        }
    }

    fn header(&self, command: u8) -> Header {
        Header {
            dst: self.to,
            src: self.from,
            version: self.version,
            response: false,
            error: None,
            addr: self.addr,
            command: command.into(),
            tag: Tag(0x8000_0001),
        }
    }

    fn frame(&self, command: u8, body: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; HEADER_LEN];
        self.header(command).emit(&mut frame);
        frame.extend_from_slice(body);
        frame
    }

    /// The reply to a frame; every promise that holds for any reply is checked here.
    fn send(&mut self, frame: &[u8]) -> Result<Vec<u8>, Silence> {
        let mut reply = vec![0xa5; self.mtu + ETHERNET];
        match self.target.handle(frame, OWN, self.mtu, &mut reply) {
            Answer::Silence(why) => Err(why),
            Answer::Reply(len) => {
                assert!(reply[len..].iter().all(|byte| *byte == 0xa5), "wrote behind its end");
                reply.truncate(len);
                assert!(len >= MIN_FRAME && len <= self.mtu + ETHERNET);
                let (head, _) = Header::parse(&reply).unwrap();
                assert_eq!((head.dst, head.src, head.version, head.response), (self.from, OWN, 1, true));
                assert_eq!((head.addr, head.tag), (Addr::new(3, 7), Tag(0x8000_0001)));
                Ok(reply)
            }
        }
    }

    fn ask(&mut self, command: u8, body: &[u8]) -> Result<Vec<u8>, Silence> {
        let frame = self.frame(command, body);
        self.send(&frame)
    }

    fn ata(&mut self, ata: Ata, data: &[u8]) -> (Option<Refusal>, Ata, Vec<u8>) {
        let mut body = vec![0; 12];
        ata.emit(&mut body);
        body.extend_from_slice(data);
        let reply = self.ask(0, &body).unwrap();
        let (head, body) = Header::parse(&reply).unwrap();
        let (registers, data) = Ata::parse(body).unwrap();
        (head.error, registers, data.to_vec())
    }

    fn identify(&mut self) -> Identify {
        let (refusal, registers, data) = self.ata(Ata::identify(), &[]);
        assert_eq!((refusal, registers.command), (None, status::DRDY));
        Identify::parse(&data).unwrap()
    }
}

/// A conversation: command, argument in hexadecimal, and the answer from the flags on (address and tag left out),
/// padding included only as far as it is given; the rest must be zeros. `-` is silence.
fn converse(bed: &mut Bed<impl Image>, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap();
        let (name, command, argument, expected) = (word(), hex(word())[0], hex(word()), word());
        let got = bed.ask(command, &argument);
        if expected == "-" {
            assert!(got.is_err(), "{name}: {got:02x?}");
            continue;
        }
        let got = got.unwrap_or_else(|why| panic!("{name}: {why:?}"));
        let (flags, body) = expected.split_once(':').unwrap();
        let (flags, body) = (hex(flags), hex(body));
        assert_eq!(got[14..16], flags, "{name}");
        assert_eq!(got[19], command, "{name}");
        assert_eq!(got[24..24 + body.len()], body, "{name}: {:02x?}", &got[24..]);
        assert!(got[24 + body.len()..].iter().all(|byte| *byte == 0), "{name}: not zeros behind: {got:02x?}");
    }
}

/// `_` is a blank for the eye, `xx*n` a byte so many times.
fn hex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in text.split('_').filter(|part| !part.is_empty()) {
        let (digits, times) = part.split_once('*').map_or((part, 1), |(d, n)| (d, n.parse().unwrap()));
        let unit: Vec<u8> = (0..digits.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
            .collect();
        (0..times).for_each(|_| bytes.extend_from_slice(&unit));
    }
    bytes
}

#[test]
fn config_verbs() {
    converse(
        &mut Bed::new(),
        "read            01 0000000000100000                 1800:0010_1234_02_10_0000
         test-empty      01 0000000000110000                 1800:0010_1234_02_11_0000
         test-x          01 000000000011000178               -
         prefix-empty    01 0000000000120000                 1800:0010_1234_02_12_0000
         set-hello       01 000000000013000568656c6c6f       1800:0010_1234_02_13_0005_68656c6c6f
         set-again       01 000000000013000568656c6c6f       1800:0010_1234_02_13_0005_68656c6c6f
         set-world       01 0000000000130005776f726c64       1c04:0010_1234_02_13_0005_68656c6c6f
         test-hello      01 000000000011000568656c6c6f       1800:0010_1234_02_11_0005_68656c6c6f
         test-hell       01 000000000011000468656c6c         -
         prefix-hel      01 000000000012000368656c           1800:0010_1234_02_12_0005_68656c6c6f
         prefix-hello!   01 000000000012000668656c6c6f21     -
         force-1024      01 0000000000140400_7a*1024         1800:0010_1234_02_14_0400_7a*1024
         force-back      01 000000000014000161               1800:0010_1234_02_14_0001_61
         # vblade drops this; ggaoed refuses it, and so do we: silence would be taken for a loss
         force-1025      01 0000000000140401_79*1025         1c02:0010_1234_02_14_0001_61
         over-claim      01 000000000014000a_626364          1c02:0010_1234_02_14_0001_61
         over-claim-test 01 000000000011000a_61              -
         verb-7          01 000000000017000171               1c02:0010_1234_02_17_0001_61
         unchanged       01 0000000000100000                 1800:0010_1234_02_10_0001_61
         force-empty     01 0000000000140000                 1800:0010_1234_02_14_0000
         short           01 00000000001000                   -",
    );
}

#[test]
fn ata_commands() {
    let mut bed = Bed::new();
    bed.target.image_mut().write_at(Sector(SECTORS - 1), &[0x4c; SECTOR]).unwrap();
    converse(
        &mut bed,
        "identify-0      00 00_00_00_ec_000000a00000_0000         1c02:00_00_00_ec_000000a00000
         identify-2      00 00_00_02_ec_000000a00000_0000         1c02:00_00_02_ec_000000a00000
         write28         00 01_00_01_30_000000e00000_0000_57*512  1800:01_00_00_40_000000e00000
         read28          00 00_00_01_20_000000e00000_0000         1800:00_00_00_40_000000e00000_0000_57*512
         write48         00 41_00_02_34_020000000000_0000_58*1024 1800:41_00_00_40_020000000000
         read48          00 40_00_02_24_010000000000_0000         1800:40_00_00_40_010000000000_0000_00*512_58*512
         async           00 43_00_01_34_000000000000_0000_41*512  1800:43_00_00_40
         # vblade writes too, and answers with the data; the W flag says how the request looks, not what it does
         write-no-w      00 40_00_01_34_000000000000_0000_4e*512  1800:40_00_00_40
         read-no-w       00 40_00_01_24_000000000000_0000         1800:40_00_00_40_000000000000_0000_4e*512
         # vblade says yes and does nothing
         read-0          00 40_00_00_24_000000000000_0000         1c02:40_00_00_24
         write-0         00 41_00_00_34_000000000000_0000         1c02:41_00_00_34
         read-3          00 40_00_03_24_000000000000_0000         1c02:40_00_03_24
         write-3         00 41_00_03_34_000000000000_0000_53*1400 1c02:41_00_03_34
         write-short     00 41_00_02_34_000000000000_0000_53*1023 1c02:41_00_02_34
         read-last       00 40_00_01_24_ff0700000000_0000         1800:40_00_00_40_ff0700000000_0000_4c*512
         read-past       00 40_00_01_24_000800000000_0000         1800:40_10_01_41_000800000000
         read-cross      00 40_00_02_24_ff0700000000_0000         1800:40_10_02_41_ff0700000000
         read-max        00 40_00_02_24_ffffffffffff_0000         1800:40_10_02_41_ffffffffffff
         read28-max      00 00_00_01_20_ffffffef0000_0000         1800:00_10_01_41_ffffffef0000
         write-past      00 41_00_01_34_000800000000_0000_53*512  1800:41_10_01_41_000800000000
         # vblade: status 0 (flush), abort (EXT), silence (power with a count)
         flush           00 00_00_00_e7_000000a00000_0000         1800:00_00_00_40_000000a00000
         flush-ext       00 40_00_00_ea_000000000000_0000         1800:40_00_00_40
         power           00 00_00_00_e5_000000a00000_0000         1800:00_00_ff_40_000000a00000
         power-1         00 00_00_01_e5_000000a00000_0000         1800:00_00_ff_40_000000a00000
         read-dma        00 00_00_01_c8_000000e00000_0000         1800:00_04_01_41_000000e00000
         write-dma       00 01_00_01_ca_000000e00000_0000_53*512  1800:01_04_01_41_000000e00000
         nop             00 00_00_00_00_000000000000_0000         1800:00_04_00_41
         unchanged       00 40_00_01_24_000000000000_0000         1800:40_00_00_40_000000000000_0000_4e*512
         smart-status    00 00_da_00_b0_004fc2a00000_0000         1800:00_00_00_40_004fc2a00000
         smart-no-key    00 00_da_00_b0_000000a00000_0000         1800:00_04_00_41_000000a00000
         smart-off       00 00_d9_00_b0_004fc2a00000_0000         1800:00_00_00_40_004fc2a00000
         smart-status    00 00_da_00_b0_004fc2a00000_0000         1800:00_04_00_41_004fc2a00000
         smart-on        00 00_d8_00_b0_004fc2a00000_0000         1800:00_00_00_40_004fc2a00000
         smart-log       00 00_d5_01_b0_004fc2a00000_0000         1800:00_04_01_41_004fc2a00000
         cache-off       00 00_82_00_ef_000000a00000_0000         1800:00_00_00_40_000000a00000
         cache-on        00 00_02_00_ef_000000a00000_0000         1800:00_00_00_40_000000a00000
         features-other  00 00_03_00_ef_000000a00000_0000         1800:00_04_00_41_000000a00000
         dsm-no-trim     00 41_00_01_06_000000000000_0000_00*512  1800:41_04_01_41
         trim-short      00 41_01_01_06_000000000000_0000_00*511  1c02:41_01_01_06
         trim-0          00 41_01_00_06_000000000000_0000         1c02:41_01_00_06
         trim-3          00 41_01_03_06_000000000000_0000_00*1400 1c02:41_01_03_06
         trim-nothing    00 41_01_01_06_000000000000_0000_00*512  1800:41_00_00_40
         short           00 00_00_00_e5_0000000000                -",
    );
    assert_eq!(bed.target.counters().sectors_written, 5);
}

#[test]
fn mask_and_reservation_lists() {
    converse(
        &mut Bed::new(),
        "read            02 00_00_00_00                           1800:00_00_00_00
         bad-directive   02 00_01_00_03_0000_020000000077_0009_020000000077_0001_020000000077  1800:00_01_02_01
         verb-5          02 00_05_00_00                           1c02:00_05_00_00
         # vblade reads what an earlier frame left behind
         over-claim      02 00_01_00_02_0001_020000000077         1c02:00_01_00_00
         still-empty     02 00_00_00_00                           1800:00_00_00_00
         add-us          02 00_01_00_01_0001_020000000002         1800:00_01_00_01_0000_020000000002
         add-other       02 00_01_00_01_0001_020000000077         1800:00_01_00_02_0000_020000000002_0000_020000000077
         read-adds-not   02 00_00_00_01_0001_020000000099         1800:00_00_00_02_0000_020000000002_0000_020000000077
         # vblade 25 overwrites another entry, and dies of a delete
         add-again       02 00_01_00_01_0001_020000000077         1800:00_01_00_02_0000_020000000002_0000_020000000077
         delete-absent   02 00_01_00_01_0002_020000000099         1800:00_01_00_02_0000_020000000002_0000_020000000077
         part-of-edit    02 00_01_00_02_0002_020000000077_0005_020000000077  1800:00_01_02_01
         is-applied      02 00_00_00_00                           1800:00_00_00_01_0000_020000000002
         short           02 00_00_00                              -
         r-read          03 00_00                                 1800:00_00
         r-set           03 01_01_020000000077                    1800:01_01_020000000077
         r-set-us        03 01_01_020000000002                    1c06:01_01_020000000077
         read            00 40_00_01_24_000000000000_0000         1c06:40_00_01_24
         flush           00 00_00_00_e7_000000a00000_0000         1c06:00_00_00_e7_000000a00000
         unknown         00 00_00_00_99_000000000000_0000         1c06:00_00_00_99
         config-is-free  01 0000000000140003726573                1800:0010_1234_02_14_0003_726573
         mask-is-free    02 00_00_00_00                           1800:00_00_00_01_0000_020000000002
         r-force         03 02_01_020000000002                    1800:02_01_020000000002
         r-set-two       03 01_02_020000000002_020000000077       1800:01_02_020000000002_020000000077
         r-verb          03 03_00                                 1c02:03_02_020000000002_020000000077
         r-over-claim    03 01_c8_020000000002                    1c02:01_02_020000000002_020000000077
         r-release       03 01_00                                 1800:01_00
         r-short         03 01                                    -",
    );
}

#[test]
fn unknown_commands_and_versions() {
    let mut bed = Bed::new();
    converse(&mut bed, "cmd-4 04 00 1c01:00\nvendor f0 0102 1c01:00");
    for version in [0, 2, 15] {
        bed.version = version;
        // vblade echoes any version
        converse(
            &mut bed,
            "read 01 0000000000100000 1c05:00\nwrite 00 41_00_01_34_000000000000_0000_53*512 1c05:00",
        );
    }
    assert_eq!(bed.target.counters().refused, 8);
    assert_eq!(bed.target.counters().sectors_written, 0);
}

#[test]
fn a_reservation_does_not_hide_the_identity() {
    let mut bed = Bed::new();
    bed.from = OTHER;
    bed.ask(3, &hex("01_01_020000000077")).unwrap();
    bed.from = HOST;
    assert_eq!(bed.identify().sectors, SECTORS);
}

#[test]
fn a_wildcard_may_ask_but_not_change() {
    let mut bed = Bed::new();
    for addr in [Addr::ALL, Addr::new(3, 255), Addr::new(65535, 7)] {
        bed.addr = addr;
        bed.to = Mac::BROADCAST;
        assert_eq!(bed.identify().sectors, SECTORS);
        converse(
            &mut bed,
            "read      01 0000000000100000                         1800:0010_1234_02_10_0000
             # every target at once would have the same string
             set       01 000000000013000568656c6c6f               -
             force     01 000000000014000161                       -
             over      01 0000000000140401_79*1025                 -
             mask      02 00_00_00_00                              1800:00
             reserve   03 00_00                                    1800:00
             power     00 00_00_00_e5_000000a00000_0000            1c02:00_00_00_e5_000000a00000
             sector    00 40_00_01_24_000000000000_0000            1c02:40_00_01_24
             write     00 41_00_01_34_000000000000_0000_53*512     1c02:41_00_01_34
             add       02 00_01_00_01_0001_020000000002            1c02:00_01_00_00
             take      03 01_01_020000000002                       1c02:01_00
             force     03 02_01_020000000002                       1c02:02_00",
        );
    }
    assert!(bed.target.mask.is_empty() && bed.target.holders.is_empty());
    assert!(bed.target.string().is_empty());
    assert_eq!(bed.ask(1, &hex("000000000014000161")), Err(Silence::Wildcard));
}

#[test]
fn silence_has_reasons() {
    let mut bed = Bed::new();
    let good = bed.frame(1, &hex("0000000000100000"));
    let broken = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        frame
    };
    for (frame, why) in [
        (good[..23].to_vec(), Silence::Malformed),
        (good[..31].to_vec(), Silence::Malformed),
        (broken(13, 0), Silence::Malformed),
        (broken(14, 0x18), Silence::Response),
        (broken(14, 0x1c), Silence::Response),
        (broken(17, 4), Silence::Foreign),
        (broken(18, 6), Silence::Foreign),
        (broken(5, 9), Silence::Foreign),
        (broken(6, 3), Silence::Malformed),
    ] {
        assert_eq!(bed.send(&frame), Err(why), "{frame:02x?}");
    }
    bed.to = Mac([1, 0x80, 0xc2, 0, 0, 0]);
    assert!(bed.ask(1, &hex("0000000000100000")).is_ok());
    let mut small = [0; 59];
    assert_eq!(bed.target.handle(&good, OWN, 1500, &mut small), Answer::Silence(Silence::NoRoom));
    bed.ask(2, &hex("00_01_00_01_0001_020000000077")).unwrap();
    assert_eq!(bed.ask(1, &hex("0000000000100000")), Err(Silence::Masked));
    assert_eq!(bed.target.counters().malformed, 4);
    assert_eq!(bed.target.counters().masked, 1);
}

#[test]
fn lists_end_where_a_reply_does() {
    let mut bed = Bed::new();
    let add = |bed: &mut Bed, from: u8, count: u8| {
        let mut body = vec![0, 1, 0, count];
        (0..count).for_each(|n| body.extend([0, 1, 2, 0, 0, 0, 0, n + from]));
        bed.ask(2, &body).unwrap()
    };
    // MTU 1500 carries 185 entries.
    assert_eq!(add(&mut bed, 1, 100)[24..28], [0, 1, 0, 100]);
    let full = add(&mut bed, 101, 100);
    assert_eq!(full[24..28], [0, 1, 3, 85]);
    bed.mtu = 9000;
    assert_eq!(add(&mut bed, 101, 154)[24..28], [0, 1, 0, 254]);
    assert_eq!(add(&mut bed, 0, 1)[24..28], [0, 1, 0, 255]);
    bed.mtu = 1500;
    let cut = bed.ask(2, &[0; 4]).unwrap();
    assert_eq!((cut[27], cut.len()), (185, 28 + 185 * 8));
}

#[test]
fn sectors_a_frame_follow_the_mtu() {
    let mut bed = Bed::new();
    for (mtu, sectors) in [(558, 1), (1500, 2), (4132, 8), (9000, 16), (65535, 127)] {
        bed.mtu = mtu;
        assert_eq!(bed.ask(1, &hex("0000000000100000")).unwrap()[28], sectors);
        let (refusal, _, data) = bed.ata(Ata::read(Sector(0), sectors, true), &[]);
        assert_eq!((refusal, data.len()), (None, usize::from(sectors) * SECTOR));
        let (refusal, ..) = bed.ata(Ata::read(Sector(0), sectors + 1, true), &[]);
        assert_eq!(refusal, Some(Refusal::BadArgument));
    }
    bed.mtu = 500;
    assert_eq!(bed.ata(Ata::identify(), &[]).0, Some(Refusal::BadArgument));
}

#[test]
fn announcements_go_to_everybody_or_to_the_masked() {
    let mut bed = Bed::new();
    bed.ask(1, &hex("0000000000140001_61")).unwrap();
    let mut frame = [0xa5; 1514];
    let len = bed.target.announcement(0, OWN, 1500, &mut frame).unwrap();
    let mut expected =
        hex("ffffffffffff_020000000001_88a2_18_00_0003_07_01_00000000_0010_1234_02_10_0001_61");
    expected.resize(MIN_FRAME, 0);
    assert_eq!(frame[..len], expected);
    assert_eq!(bed.target.announcement(1, OWN, 1500, &mut frame), None);

    let mask = vec![HOST, OTHER];
    let target =
        Processor::new(TargetConfig { mask, ..TargetConfig::new(Addr::new(3, 7), "") }, MemoryImage::new(8));
    for to in [HOST, OTHER] {
        let nth = usize::from(to == OTHER);
        let len = target.announcement(nth, OWN, 9000, &mut frame).unwrap();
        let header = Header::parse(&frame[..len]).unwrap().0;
        assert!(header.dst == to && header.is_announcement());
    }
    assert_eq!(target.announcement(2, OWN, 9000, &mut frame), None);
}

proptest! {
    #[test]
    fn reads_and_writes_match_a_vec(
        ops in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u64..130, 0u8..20, any::<u8>()), 1..80),
    ) {
        const SECTORS: u64 = 128;
        let mut bed = Bed::over(MemoryImage::new(SECTORS));
        bed.mtu = 9000;
        let mut model = vec![0u8; SECTORS as usize * SECTOR];
        for (write, lba48, at, count, fill) in ops {
            let len = usize::from(count) * SECTOR;
            let range = at as usize * SECTOR..at as usize * SECTOR + len;
            let data: Vec<u8> = (0..len).map(|i| fill.wrapping_add((i / SECTOR) as u8)).collect();
            let (refusal, registers, got) = if write {
                bed.ata(Ata::write(Sector(at), count, lba48), &data)
            } else {
                bed.ata(Ata::read(Sector(at), count, lba48), &[])
            };
            if count == 0 || count > 16 {
                prop_assert_eq!(refusal, Some(Refusal::BadArgument));
            } else if range.end > model.len() {
                prop_assert_eq!((refusal, registers.command, registers.feature, registers.count), (None, 0x41, 0x10, count));
            } else {
                prop_assert_eq!((refusal, registers.command, registers.count), (None, 0x40, 0));
                if write {
                    model[range].copy_from_slice(&data);
                } else {
                    prop_assert_eq!(&got[..], &model[range]);
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(
        command in 0u8..5, flags in prop_oneof![Just(0x10u8), any::<u8>()], body in proptest::collection::vec(any::<u8>(), 0..1500),
        mtu in prop_oneof![Just(1500usize), 0usize..700],
    ) {
        let mut bed = Bed::new();
        let mut frame = bed.frame(command, &body);
        frame[14] = flags;
        let mut reply = vec![0xa5; 1514];
        if let Answer::Reply(len) = bed.target.handle(&frame, OWN, mtu, &mut reply) {
            prop_assert!(len >= MIN_FRAME && len <= mtu + ETHERNET);
            prop_assert!(reply[len..].iter().all(|byte| *byte == 0xa5));
        }
    }
}

#[test]
fn every_ata_command_and_feature_is_survived() {
    let mut bed = Bed::new();
    for command in 0..=u8::MAX {
        for feature in 0..=u8::MAX {
            for count in [0, 1, 2, 255] {
                let ata = Ata {
                    aflags: AFLAG_EXT | AFLAG_WRITE,
                    feature,
                    count,
                    command,
                    lba: [0, 0x4f, 0xc2, 0, 0, 0],
                };
                bed.ata(ata, &[0xff; 1024]);
            }
        }
    }
}
