//! What a fuzzer may find wrong, one function a parser: each takes any bytes and panics if the parser breaks a promise.
//!
//! The promises: no panic; nothing read beyond the bytes given; what was parsed, once emitted, is the same bytes
//! again with reserved fields zeroed, whatever the buffer held before. The targets in `fuzz_targets/` call these
//! functions, and so do the ordinary tests (`tests/wire`), which include this file by its path.

use aoefs::engine::Pool;
use aoefs::fs::ctl::{
    CtlError, check_part_name, lines, parse_config, parse_mask, parse_reserve, parse_top, parse_unit,
};
use aoefs::parttable::{ENTRIES_MAX, READ_SECTORS_MAX, READS_MAX, SECTORS_MAX, Scan, Verdict, Want};
use aoefs::target::{Answer, MemoryImage, Processor, TargetConfig};
use aoefs::vhost::chain::{Table, parts};
use aoefs::vhost::config::BYTES_MAX;
use aoefs::vhost::request::{About, Plan};
use aoefs::vhost::{self, Ask, Facts};
use aoefs::wire::{
    ATA_LEN, Addr, Ata, CONFIG_LEN, CONFIG_MAX, Command, Config, DIRECTIVE_LEN, ETHERNET, HEADER_LEN, Header,
    IDENTIFY_LEN, Identify, MASK_LEN, MIN_FRAME, Mac, Mask, MaskError, RESERVE_LEN, Reserve, SECTOR,
    TRIM_ENTRY_LEN, Tag, trim_ranges,
};

use std::sync::OnceLock;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap, Permissions};

/// One function of this file.
pub type Entry = fn(&[u8]);

/// Every target by the name of its binary and of its corpus folder.
pub const TARGETS: [(&str, Entry); 13] = [
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
    ("parttable", parttable),
    ("target", target),
    ("vhost", vhost),
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
    assert_ne!(aoefs::wire::most_sectors(config.sectors), 0);
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
    let mut out = [DIRT; RESERVE_LEN + 255 * Mac::LEN];
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

/// Otherwise a user who writes a file writes lines of the log.
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
        let mut reply = [DIRT; MTU + ETHERNET];
        let Answer::Reply(length) = target.handle(&request, mac, MTU, &mut reply) else { continue };
        assert!((MIN_FRAME..=reply.len()).contains(&length), "{length} bytes");
        frame(&reply[..length]);
        let Ok((header, _)) = Header::parse(&reply[..length]) else { panic!("a reply has no header") };
        assert_eq!(header, Header { dst: src, src: mac, response: true, error: header.error, ..ask });
    }
}

/// A disk with a partition table: a byte whose lowest bit says whether a GPT's checksums are made right, the disk's
/// sectors (eight bytes, little-endian), then up to five sectors, which the disk repeats to its end. So a disk of 5,
/// 10, 15 … sectors ends with the last two, where a GPT has its backup, and a link anywhere leads to a record.
pub fn parttable(data: &[u8]) {
    /// As many as the smallest GPT needs: MBR, header, array, array, header.
    const IMAGE: usize = 5;
    let Some(([flags, rest @ ..], data)) = data.split_first_chunk::<9>() else { return };
    let disk = u64::from_le_bytes(*rest);
    let mut image = [[0; SECTOR]; IMAGE];
    for (sector, bytes) in image.iter_mut().zip(data.chunks(SECTOR)) {
        sector[..bytes.len()].copy_from_slice(bytes);
    }
    if flags & 1 != 0 {
        seal(&mut image);
    }
    let read = |at: u64, count: u64| -> Vec<u8> {
        (at..at + count).flat_map(|sector| image[(sector % IMAGE as u64) as usize]).collect()
    };
    let mut scan = Scan::new(disk);
    let (mut reads, mut sectors) = (0, 0);
    let verdict = loop {
        match scan.want() {
            Want::End(verdict) => break verdict.clone(),
            Want::Read { at, count } => {
                assert!((1..=READ_SECTORS_MAX).contains(&count), "{count}");
                assert!(at.0 < disk && count <= disk - at.0, "{at} and {count} of {disk}");
                (reads, sectors) = (reads + 1, sectors + count);
                assert!(reads <= READS_MAX && sectors <= SECTORS_MAX, "{reads} reads, {sectors} sectors");
                scan.feed(&read(at.0, count));
            }
        }
    };
    match verdict {
        Verdict::Nothing => {}
        Verdict::Refused(reason) => {
            assert!((1..300).contains(&reason.len()) && !reason.contains(char::is_control), "{reason:?}");
        }
        Verdict::Found(mut entries) => {
            assert!((1..=ENTRIES_MAX).contains(&entries.len()));
            assert!(entries.windows(2).all(|pair| pair[0].number < pair[1].number));
            for entry in &entries {
                assert_eq!(check_part_name(&entry.name()), Ok(()));
                assert!(!entry.to_string().contains(char::is_control), "{entry}");
            }
            entries.sort_by_key(|entry| entry.start);
            assert!(entries.iter().all(|entry| entry.start.0 > 0 && entry.start < entry.end));
            assert!(entries.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(entries.last().is_none_or(|entry| entry.end.0 <= disk));
        }
    }
}

/// Makes the checksums right that stand in the way of a mutation, as far as the image goes.
fn seal<const N: usize>(image: &mut [[u8; SECTOR]; N]) {
    for n in 0..N {
        if !image[n].starts_with(b"EFI PART") {
            continue;
        }
        let number =
            |at: usize| image[n][at..at + 4].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
        let (array, bytes) = (number(72) % N, number(80).saturating_mul(number(84)).min(4 * SECTOR));
        let length = number(12).min(SECTOR);
        let repeated: Vec<u8> = image.iter().cycle().skip(array).take(4).flatten().copied().collect();
        let header = &mut image[n];
        header[88..92].copy_from_slice(&crc32fast::hash(&repeated[..bytes]).to_le_bytes());
        header[16..20].fill(0);
        let crc = crc32fast::hash(&header[..length]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A request of a guest: how many descriptors its table has and the head, a byte each, then the guest's memory from its
/// first byte on, which is the table's, too.
#[allow(clippy::expect_used, reason = "a failed step of a test ends the test")]
pub fn vhost(data: &[u8]) {
    /// Bytes of the guest's memory.
    const MEMORY: usize = 16 << 10;
    const DISK: u64 = 64 << 10;
    let Some(([entries, head], bytes)) = data.split_first_chunk() else { return };
    // Made once: that takes longer than all the rest.
    static ONCE: OnceLock<(GuestMemoryMmap, Pool)> = OnceLock::new();
    let (memory, pool) = ONCE.get_or_init(|| {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]);
        (memory.expect("16 KiB of memory"), Pool::default())
    });
    let mut content = [0; MEMORY];
    let given = bytes.len().min(MEMORY);
    content[..given].copy_from_slice(&bytes[..given]);
    memory.write_slice(&content, GuestAddress(0)).expect("it fits");
    let table = Table { at: GuestAddress(0), entries: (*entries).into() };
    let Ok(parts) = parts(memory, table, (*head).into()) else { return };
    assert!(parts.status.0 < MEMORY as u64);
    assert!(parts.given.count() + parts.wanted.count() <= vhost::ENTRIES_MAX.into());
    let id = "a name of twenty bytes and more".into();
    let facts = Facts { size: DISK, read_only: false, physical_log2: 0, discard: true, id };
    let within = |offset: u64, len: u64| {
        let whole = offset.is_multiple_of(SECTOR as u64) && len.is_multiple_of(SECTOR as u64);
        assert!(whole && len > 0 && offset < DISK && len <= DISK - offset, "{offset} {len}");
    };
    match (About { memory, facts: &facts, pool, durable: false }).plan(&parts) {
        Ok(Plan::Ask(Ask::Read { offset, len })) => {
            within(offset, len as u64);
            assert!(len as u64 == parts.wanted.len() && parts.wanted.are_in(memory, Permissions::Write));
            assert_eq!(parts.wanted.write(memory, &vec![DIRT; len]), Ok(len as u32));
        }
        Ok(Plan::Ask(Ask::Write { offset, data, .. })) => {
            within(offset, data.len() as u64);
            assert!(data.len() as u64 <= BYTES_MAX);
            let mut given = vec![DIRT; data.len()];
            parts.given.read(memory, 16, &mut given).expect("it was there");
            assert_eq!(data.bytes(), given);
        }
        Ok(Plan::Ask(Ask::Discard { offset, len, .. } | Ask::Zero { offset, len, .. })) => {
            within(offset, len)
        }
        Ok(Plan::Ask(Ask::Flush) | Plan::Tell(_)) | Err(_) => {}
    }
}
