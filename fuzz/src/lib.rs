//! What a fuzzer may find wrong, one function a parser: each takes any bytes and panics if the parser breaks a promise.
//!
//! The promises: no panic; nothing read beyond the bytes given; what was parsed, once emitted, is the same bytes again with
//! reserved fields zeroed, whatever the buffer held before. The targets in `fuzz_targets/` call these functions, and so do
//! the ordinary tests (`tests/fuzz_corpus.rs`, `tests/wire_golden.rs`), which include this file by its path.

use aoefs::fs::ctl::{CtlError, lines, parse_config, parse_mask, parse_reserve, parse_top, parse_unit};
use aoefs::target::{Answer, MemoryImage, Processor, TargetConfig};
use aoefs::wire::{
    ATA_LEN, Addr, Ata, CONFIG_LEN, CONFIG_MAX, Command, Config, DIRECTIVE_LEN, HEADER_LEN, Header,
    IDENTIFY_LEN, Identify, MASK_LEN, MIN_FRAME, Mac, Mask, MaskError, RESERVE_LEN, Reserve, TRIM_ENTRY_LEN,
    Tag, trim_ranges,
};

/// One function of this file.
pub type Entry = fn(&[u8]);

/// Every target by the name of its binary and of its corpus folder.
pub const TARGETS: [(&str, Entry); 11] = [
    ("header", header),
    ("ata", ata),
    ("config", config),
    ("mask", mask),
    ("reserve", reserve),
    ("identify", identify),
    ("trim", trim),
    ("units", units),
    ("frame", frame),
    ("ctl", ctl),
    ("target", target),
];

/// What a buffer holds before something is emitted into it.
const DIRT: u8 = 0xa5;

/// A whole frame: its header, then its argument as the header says.
pub fn frame(data: &[u8]) {
    header(data);
    let Ok((header, body)) = Header::parse(data) else { return };
    match header.command {
        Command::Ata => {
            ata(body);
            if let Ok((_, data)) = Ata::parse(body) {
                identify(data);
            }
        }
        Command::Config => config(body),
        Command::Mask => mask(body),
        Command::Reserve => reserve(body),
        Command::Other(_) => {}
    }
}

/// The 24 bytes before the argument.
pub fn header(data: &[u8]) {
    let Ok((header, body)) = Header::parse(data) else { return };
    assert_eq!(body, &data[HEADER_LEN..]);
    let mut out = [DIRT; HEADER_LEN];
    header.emit(&mut out);
    let mut canonical = [0; HEADER_LEN];
    canonical.copy_from_slice(&data[..HEADER_LEN]);
    canonical[14] &= !0x03;
    if header.error.is_none() {
        canonical[15] = 0;
    }
    assert_eq!(out, canonical);
}

/// The argument of an ATA command.
pub fn ata(body: &[u8]) {
    let Ok((ata, data)) = Ata::parse(body) else { return };
    assert_eq!(data, &body[ATA_LEN..]);
    let mut out = [DIRT; ATA_LEN];
    ata.emit(&mut out);
    assert_eq!(out[..10], body[..10]);
    assert_eq!(out[10..], [0, 0]);
    assert!(ata.sector28().0 < 1 << 28 && ata.sector48().0 < 1 << 48);
    assert_eq!(ata.failed(), body[3] & 0xa9 != 0);
}

/// The argument of a config command.
pub fn config(body: &[u8]) {
    let overlong = Config::overlong(body);
    let Ok(config) = Config::parse(body) else {
        assert!(!overlong);
        return;
    };
    let claimed = usize::from(u16::from_be_bytes([body[6], body[7]]));
    assert_eq!(overlong, claimed != config.string.len());
    assert!(config.string.len() <= CONFIG_MAX && body[CONFIG_LEN..].starts_with(config.string));
    let mut out = [DIRT; CONFIG_LEN + CONFIG_MAX];
    config.emit(&mut out);
    assert_eq!(out[..6], body[..6]);
    assert!(out[config.len()..].iter().all(|byte| *byte == DIRT));
    assert_eq!(Config::parse(&out[..config.len()]), Ok(config));
    assert_ne!(config.max_sectors(), 0);
}

/// The argument of a mask command.
pub fn mask(body: &[u8]) {
    let Ok((mask, list)) = Mask::parse(body) else { return };
    let listed = if mask.error == MaskError::None { usize::from(mask.directives) } else { 0 };
    assert_eq!(list.len(), listed);
    assert_eq!(list.clone().count(), listed);
    let mut out = [DIRT; MASK_LEN + 255 * DIRECTIVE_LEN];
    let length = mask.emit(list, &mut out);
    let mut canonical = [0; MASK_LEN + 255 * DIRECTIVE_LEN];
    canonical[..length].copy_from_slice(&body[..length]);
    canonical[0] = 0;
    canonical[MASK_LEN..length].iter_mut().step_by(DIRECTIVE_LEN).for_each(|reserved| *reserved = 0);
    assert_eq!(out[..length], canonical[..length]);
    assert!(out[length..].iter().all(|byte| *byte == DIRT));
}

/// The argument of a reserve command.
pub fn reserve(body: &[u8]) {
    let Ok((reserve, macs)) = Reserve::parse(body) else { return };
    let macs: Vec<Mac> = macs.collect();
    assert_eq!(macs.len(), usize::from(body[1]));
    let mut out = [DIRT; RESERVE_LEN + 255 * 6];
    let length = reserve.emit(&macs, &mut out);
    assert_eq!(out[..length], body[..length]);
    assert!(out[length..].iter().all(|byte| *byte == DIRT));
}

/// What a disk says about itself.
pub fn identify(data: &[u8]) {
    let Ok(id) = Identify::parse(data) else { return };
    assert!(id.sectors > 0 && id.sectors <= if id.lba48 { 1 << 48 } else { 1 << 28 });
    for text in [id.serial.as_str(), id.model.as_str(), id.firmware.as_str()] {
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        assert_eq!(text.trim(), text);
    }
    let mut out = [DIRT; IDENTIFY_LEN];
    id.emit(&mut out);
    assert_eq!(Identify::parse(&out), Ok(id));
}

/// The payload of a TRIM.
pub fn trim(data: &[u8]) {
    let entries = data.chunks_exact(TRIM_ENTRY_LEN);
    let used = entries.filter(|entry| entry[6..] != [0, 0]).count();
    assert_eq!(trim_ranges(data).count(), used);
    assert!(trim_ranges(data).all(|range| range.count > 0 && range.at.0 < 1 << 48));
}

/// Addresses as people type them.
pub fn units(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(addr) = text.parse::<Addr>() {
        assert_eq!(addr.to_string().parse(), Ok(addr));
    }
    if let Ok(mac) = text.parse::<Mac>() {
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }
}

/// What is written to a ctl, mask or reserve file, or stands in the configuration file.
pub fn ctl(data: &[u8]) {
    for line in lines(data) {
        let errors = [
            parse_top(line).err(),
            parse_unit(line).err(),
            parse_mask(line).err(),
            parse_reserve(line).err(),
        ];
        errors.iter().flatten().for_each(goes_on_one_line);
        let indented = [b" \t", line].concat();
        assert_eq!(parse_top(&indented), parse_top(line));
        assert_eq!(parse_unit(&indented), parse_unit(line));
    }
    let (good, bad) = parse_config(data);
    bad.iter().for_each(|(_, error)| goes_on_one_line(error));
    let most = lines(data).count();
    assert!(good.len() + bad.len() <= most);
    assert!(
        good.iter()
            .map(|(number, _)| number)
            .chain(bad.iter().map(|(number, _)| number))
            .all(|n| (1..=most).contains(n))
    );
}

/// Otherwise whoever writes a file writes lines of the log.
fn goes_on_one_line(error: &CtlError) {
    assert!(!error.words.contains(char::is_control), "{:?}", error.words);
}

/// Where the target is, and who asks it.
const TARGET: (Mac, Addr) = (Mac([2, 0, 0, 0, 0, 2]), Addr::new(3, 7));
const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 1]);
const MTU: usize = 1500;

/// Requests to one target, one after the other. Each begins with its command, the length of its argument (two bytes,
/// big-endian; what is not there is not sent) and the last byte of its sender's MAC; what the header would need to be
/// heard at all is put in here.
pub fn target(mut data: &[u8]) {
    let (mac, addr) = TARGET;
    let mut target = Processor::new(TargetConfig::new(addr, "fuzz"), MemoryImage::new(64));
    let mut tag = Tag(Tag::OURS);
    while let Some(([command, high, low, sender], rest)) = data.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (body, rest) = rest.split_at(length);
        data = rest;
        tag.0 += 1;
        let mut src = CLIENT;
        src.0[5] = *sender;
        let ask = Header {
            dst: mac,
            src,
            version: 1,
            response: false,
            error: None,
            addr,
            command: (*command).into(),
            tag,
        };
        let mut request = vec![DIRT; HEADER_LEN];
        ask.emit(&mut request);
        request.extend(body);
        let mut reply = [DIRT; MTU + 14];
        let Answer::Reply(length) = target.handle(&request, mac, MTU, &mut reply) else { continue };
        assert!((MIN_FRAME..=reply.len()).contains(&length), "{length} bytes");
        frame(&reply[..length]);
        let Ok((header, _)) = Header::parse(&reply[..length]) else { panic!("a reply has no header") };
        assert_eq!(header, Header { dst: src, src: mac, response: true, error: header.error, ..ask });
    }
}
