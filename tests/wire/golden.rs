//! Golden frames: what vblade 25 sent as target 3.7 over MTU 1500, each with its exact meaning.
//!
//! Every frame parses to the meaning and is emitted from it byte for byte, into a buffer of dirt. Every prefix and
//! every single-bit flip of it is parsed or refused, without a panic and without breaking what `fuzz/src/lib.rs`
//! checks.

use aoefs::wire::*;

use crate::fuzz;

const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 1]);
const TARGET: Mac = Mac([2, 0, 0, 0, 0, 2]);
const TAG: Tag = Tag(0x8000_0001);

/// What follows the header.
enum Body {
    /// An ATA argument and what follows it: data, or the rest of the padding.
    Ata(Ata, Vec<u8>),
    Config(Config<'static>),
    Mask(Mask, Vec<Directive>),
    Reserve(Reserve, Vec<Mac>),
    Bytes(Vec<u8>),
}

struct Golden {
    name: &'static str,
    frame: Vec<u8>,
    header: Header,
    body: Body,
}

/// `text` is the frame behind its Ethernet header, `tail` what the text leaves out.
fn golden(name: &'static str, length: usize, text: &str, tail: &[u8], header: Header, body: Body) -> Golden {
    let mut frame = [header.dst.0, header.src.0].concat();
    frame.extend([0x88, 0xa2]);
    frame.extend(hex(text));
    frame.extend(tail);
    assert_eq!(frame.len(), length, "{name}");
    Golden { name, frame, header, body }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split([' ', '|']).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn reply(command: Command) -> Header {
    Header {
        dst: CLIENT,
        src: TARGET,
        version: 1,
        response: true,
        error: None,
        addr: Addr::new(3, 7),
        command,
        tag: TAG,
    }
}

fn refused(command: Command, refusal: Refusal) -> Header {
    Header { error: Some(refusal), ..reply(command) }
}

fn config(verb: Verb, version: u8, string: &'static [u8]) -> Body {
    Body::Config(Config { buffers: 16, firmware: 0x4019, sectors: 2, version, verb, string })
}

fn ata(aflags: u8, feature: u8, count: u8, command: u8, lba: [u8; 6], data: &[u8]) -> Body {
    Body::Ata(Ata { aflags, feature, count, command, lba }, data.to_vec())
}

/// The words of vblade's IDENTIFY; text as it lies on the wire, swapped in its words.
fn identify_data() -> Vec<u8> {
    let mut data = vec![0; 512];
    for (byte, text) in
        [(20, ".3:7ohts            "), (46, "2V 5    "), (54, "oCardiE htrerDvi ebvaled                ")]
    {
        data[byte..byte + text.len()].copy_from_slice(text.as_bytes());
    }
    for (word, value) in [
        (47, 0x8000u16),
        (49, 0x0200),
        (50, 0x4000),
        (60, 0x0800),
        (83, 0x5400),
        (84, 0x4000),
        (86, 0x1400),
        (87, 0x4000),
        (93, 0x400b),
        (100, 0x0800),
    ] {
        data[2 * word..2 * word + 2].copy_from_slice(&value.to_le_bytes());
    }
    data
}

fn frames() -> Vec<Golden> {
    use Command as C;
    let sector: Vec<u8> = (0..512).map(|at| (at * 7 + at / 256) as u8).collect();
    let written: Vec<u8> = (1..=24).collect();
    let pad = [0; 24];
    vec![
        golden(
            "announce",
            32,
            "08 00 0003 07 01 00000000 | 0010 4019 02 10 0000",
            &[],
            Header { dst: Mac::BROADCAST, version: 0, tag: Tag::UNSOLICITED, ..reply(C::Config) },
            config(Verb::Read, 1, b""),
        ),
        golden(
            "query reply",
            32,
            "18 00 0003 07 01 80000001 | 0010 4019 02 10 0000",
            &[],
            reply(C::Config),
            config(Verb::Read, 1, b""),
        ),
        golden(
            "set \"hello\" ok",
            37,
            "18 00 0003 07 01 80000001 | 0010 4019 02 13 0005 68656c6c6f",
            &[],
            reply(C::Config),
            config(Verb::Set, 1, b"hello"),
        ),
        golden(
            "set \"world\" refused",
            37,
            "1c 04 0003 07 01 80000001 | 0010 4019 02 13 0005 68656c6c6f",
            &[],
            refused(C::Config, Refusal::ConfigPresent),
            config(Verb::Set, 1, b"hello"),
        ),
        golden(
            "identify ok",
            548,
            "18 00 0003 07 00 80000001 | 40 00 00 40 000000000000 0000",
            &identify_data(),
            reply(C::Ata),
            ata(AFLAG_EXT, 0, 0, status::DRDY, [0; 6], &identify_data()),
        ),
        golden(
            "identify scnt 0",
            60,
            "1c 02 0003 07 00 80000001 | 40 00 00 ec 000000000000 0000",
            &pad,
            refused(C::Ata, Refusal::BadArgument),
            ata(AFLAG_EXT, 0, 0, cmd::IDENTIFY, [0; 6], &pad),
        ),
        golden(
            "read 1 sector ok",
            548,
            "18 00 0003 07 00 80000001 | 40 00 00 40 000000000000 0000",
            &sector,
            reply(C::Ata),
            ata(AFLAG_EXT, 0, 0, status::DRDY, [0; 6], &sector),
        ),
        golden(
            "read 3 (max 2)",
            60,
            "1c 02 0003 07 00 80000001 | 40 00 03 24 000000000000 0000",
            &pad,
            refused(C::Ata, Refusal::BadArgument),
            ata(AFLAG_EXT, 0, 3, cmd::READ_EXT, [0; 6], &pad),
        ),
        golden(
            "read past end",
            36,
            "18 00 0003 07 00 80000001 | 40 10 02 41 ff0700000000 0000",
            &[],
            reply(C::Ata),
            ata(AFLAG_EXT, error::IDNF, 2, status::DRDY | status::ERR, [0xff, 7, 0, 0, 0, 0], &[]),
        ),
        golden(
            "write ok",
            60,
            "18 00 0003 07 00 80000001 | 41 00 00 40 000000000000 0000",
            &written,
            reply(C::Ata),
            ata(AFLAG_EXT | AFLAG_WRITE, 0, 0, status::DRDY, [0; 6], &written),
        ),
        golden(
            "flush E7 scnt 0",
            60,
            "18 00 0003 07 00 80000001 | 40 00 00 00 000000000000 0000",
            &pad,
            reply(C::Ata),
            ata(AFLAG_EXT, 0, 0, 0, [0; 6], &pad),
        ),
        golden(
            "flush EXT EA",
            60,
            "18 00 0003 07 00 80000001 | 40 04 00 41 000000000000 0000",
            &pad,
            reply(C::Ata),
            ata(AFLAG_EXT, error::ABRT, 0, status::DRDY | status::ERR, [0; 6], &pad),
        ),
        golden(
            "check power E5",
            60,
            "18 00 0003 07 00 80000001 | 40 00 ff 40 000000000000 0000",
            &pad,
            reply(C::Ata),
            ata(AFLAG_EXT, 0, 0xff, status::DRDY, [0; 6], &pad),
        ),
        golden(
            "reserved by other",
            60,
            "1c 06 0003 07 00 80000001 | 40 00 01 24 000000000000 0000",
            &pad,
            refused(C::Ata, Refusal::Reserved),
            ata(AFLAG_EXT, 0, 1, cmd::READ_EXT, [0; 6], &pad),
        ),
        golden(
            "reserve set 1 mac",
            32,
            "18 00 0003 07 03 80000001 | 01 01 020000000077",
            &[],
            reply(C::Reserve),
            Body::Reserve(Reserve { verb: ReserveVerb::Set }, vec![Mac([2, 0, 0, 0, 0, 0x77])]),
        ),
        golden(
            "mask read (empty)",
            28,
            "18 00 0003 07 02 80000001 | 00 00 00 00",
            &[],
            reply(C::Mask),
            Body::Mask(Mask { verb: MaskVerb::Read, error: MaskError::None, directives: 0 }, vec![]),
        ),
        golden(
            "mask bad directive",
            28,
            "18 00 0003 07 02 80000001 | 00 01 02 01",
            &[],
            reply(C::Mask),
            Body::Mask(Mask { verb: MaskVerb::Edit, error: MaskError::BadDirective, directives: 1 }, vec![]),
        ),
        golden(
            "vendor f0",
            60,
            "1c 01 0003 07 f0 80000001",
            &[0; 36],
            refused(C::Other(0xf0), Refusal::UnknownCommand),
            Body::Bytes(vec![0; 36]),
        ),
    ]
}

#[test]
fn deconstruct() {
    for Golden { name, frame, header, body } in frames() {
        let (parsed, rest) = Header::parse(&frame).unwrap();
        assert_eq!(parsed, header, "{name}");
        match body {
            Body::Ata(ata, data) => assert_eq!(Ata::parse(rest), Ok((ata, &data[..])), "{name}"),
            Body::Config(config) => assert_eq!(Config::parse(rest), Ok(config), "{name}"),
            Body::Mask(mask, list) => {
                let (parsed, directives) = Mask::parse(rest).unwrap();
                assert_eq!((parsed, directives.collect::<Vec<_>>()), (mask, list), "{name}");
            }
            Body::Reserve(reserve, list) => {
                let (parsed, macs) = Reserve::parse(rest).unwrap();
                assert_eq!((parsed, macs.collect::<Vec<_>>()), (reserve, list), "{name}");
            }
            Body::Bytes(bytes) => assert_eq!(rest, bytes, "{name}"),
        }
    }
}

#[test]
fn construct() {
    for Golden { name, frame, header, body } in frames() {
        let mut out = vec![0xa5; frame.len()];
        header.emit(&mut out);
        let rest = &mut out[HEADER_LEN..];
        let length = match body {
            Body::Ata(ata, data) => {
                ata.emit(rest);
                rest[ATA_LEN..].copy_from_slice(&data);
                ATA_LEN + data.len()
            }
            Body::Config(config) => {
                config.emit(rest);
                config.len()
            }
            Body::Mask(mask, list) => mask.emit(list, rest),
            Body::Reserve(reserve, list) => reserve.emit(&list, rest),
            Body::Bytes(bytes) => {
                rest.copy_from_slice(&bytes);
                bytes.len()
            }
        };
        assert_eq!(HEADER_LEN + length, frame.len(), "{name}");
        assert_eq!(out, frame, "{name}");
    }
}

#[test]
fn what_the_frames_mean_to_an_initiator() {
    for Golden { name, header, body, .. } in frames() {
        let Body::Ata(ata, data) = body else { continue };
        if header.error.is_some() {
            continue;
        }
        assert_eq!(ata.failed(), matches!(name, "read past end" | "flush EXT EA"), "{name}");
        if name == "read past end" {
            assert_eq!(ata.sector48(), Sector(0x7ff));
        }
        if name == "identify ok" {
            let id = Identify::parse(&data).unwrap();
            assert_eq!(id.serial.as_str(), "3.7:host");
            assert_eq!(id.firmware.as_str(), "V25");
            assert_eq!(id.model.as_str(), "Coraid EtherDrive vblade");
            assert_eq!((id.sectors, id.lba48, id.flush), (0x800, true, FlushKind::Flush));
        }
    }
}

#[test]
fn every_prefix_is_parsed_or_refused() {
    for Golden { frame, .. } in frames() {
        for length in 0..frame.len() {
            fuzz::frame(&frame[..length]);
        }
    }
}

#[test]
fn every_flipped_bit_is_parsed_or_refused() {
    let mut flips = 0;
    for Golden { mut frame, .. } in frames() {
        for at in 0..frame.len() {
            for bit in 0..8 {
                frame[at] ^= 1 << bit;
                fuzz::frame(&frame);
                frame[at] ^= 1 << bit;
                flips += 1;
            }
        }
    }
    assert!(flips > 10_000, "only {flips} flips");
}
