//! Round trips: whatever a structure of `wire` can say survives being emitted into dirt and parsed again.

use aoefs::wire::*;
use proptest::array::uniform6;
use proptest::collection::vec;
use proptest::prelude::*;

const DIRT: u8 = 0xa5;

fn mac() -> impl Strategy<Value = Mac> {
    uniform6(any::<u8>()).prop_map(Mac)
}

fn addr() -> impl Strategy<Value = Addr> {
    (any::<u16>(), any::<u8>()).prop_map(|(shelf, slot)| Addr::new(shelf, slot))
}

fn header() -> impl Strategy<Value = Header> {
    let error = proptest::option::of(any::<u8>().prop_map(Refusal::from));
    let command = any::<u8>().prop_map(Command::from);
    (mac(), mac(), 0u8..16, any::<bool>(), error, addr(), command, any::<u32>().prop_map(Tag)).prop_map(
        |(dst, src, version, response, error, addr, command, tag)| Header {
            dst,
            src,
            version,
            response,
            error,
            addr,
            command,
            tag,
        },
    )
}

fn text<const N: usize>() -> impl Strategy<Value = Text<N>> {
    "\\PC{0,48}".prop_map(|text| Text::new(&text))
}

prop_compose! {
    fn identify()(
        lba48 in any::<bool>(), size in 0u64..1 << 48, flush in 0usize..3, trim in any::<bool>(), zeroes in any::<bool>(),
        smart in any::<bool>(), write_cache in any::<bool>(), physical_log2 in 0u8..16,
        // All ones in a word is "not reported", so no disk can mean it.
        blocks in 0..u16::MAX, rotation in 0..u16::MAX,
        serial in text(), model in text(), firmware in text(),
    ) -> Identify {
        Identify {
            serial, model, firmware, lba48,
            sectors: if lba48 { size } else { size >> 20 } + 1,
            flush: [FlushKind::None, FlushKind::Flush, FlushKind::FlushExt][flush],
            trim,
            trim_zeroes: trim && zeroes,
            max_trim_blocks: if trim { blocks } else { 0 },
            smart, write_cache, physical_log2, rotation,
        }
    }
}

proptest! {
    #[test]
    fn headers(header in header(), body in vec(any::<u8>(), 0..64)) {
        let mut frame = vec![DIRT; HEADER_LEN];
        header.emit(&mut frame);
        frame.extend(&body);
        prop_assert_eq!(Header::parse(&frame), Ok((header, &body[..])));
    }

    #[test]
    fn ata(
        aflags in any::<u8>(), feature in any::<u8>(), count in any::<u8>(), command in any::<u8>(),
        lba in uniform6(any::<u8>()), data in vec(any::<u8>(), 0..64),
    ) {
        let ata = Ata { aflags, feature, count, command, lba };
        let mut body = vec![DIRT; ATA_LEN];
        ata.emit(&mut body);
        body.extend(&data);
        prop_assert_eq!(Ata::parse(&body), Ok((ata, &data[..])));
    }

    #[test]
    fn sectors(at in 0u64..1 << 48, count in any::<u8>()) {
        prop_assert_eq!(Ata::read(Sector(at), count, true).sector48(), Sector(at));
        prop_assert_eq!(Ata::write(Sector(at), count, true).sector48(), Sector(at));
        let low = Sector(at & 0x0fff_ffff);
        prop_assert_eq!(Ata::read(low, count, false).sector28(), low);
        prop_assert_eq!(Ata::write(low, count, false).sector28(), low);
    }

    #[test]
    fn configs(
        buffers in any::<u16>(), firmware in any::<u16>(), sectors in any::<u8>(), version in 0u8..16, verb in 0u8..16,
        string in vec(any::<u8>(), 0..=CONFIG_MAX), padding in 0usize..64,
    ) {
        let config = Config { buffers, firmware, sectors, version, verb: Verb::from(verb), string: &string };
        let mut body = vec![DIRT; config.len() + padding];
        config.emit(&mut body);
        prop_assert_eq!(Config::parse(&body), Ok(config));
        prop_assert!(!Config::overlong(&body));
    }

    #[test]
    fn masks(verb in any::<u8>(), error in any::<u8>(), list in vec((any::<u8>(), mac()), 0..=255), padding in 0usize..64) {
        let list: Vec<Directive> = list.into_iter().map(|(op, mac)| Directive { op: MaskOp::from(op), mac }).collect();
        let mask = Mask { verb: verb.into(), error: error.into(), directives: list.len() as u8 };
        let mut body = vec![DIRT; MASK_LEN + list.len() * DIRECTIVE_LEN + padding];
        let length = mask.emit(list.iter().copied(), &mut body);
        prop_assert!(body[length..].iter().all(|byte| *byte == DIRT));
        let (parsed, directives) = Mask::parse(&body).unwrap();
        prop_assert_eq!(parsed, mask);
        let expected = if mask.error == MaskError::None { list } else { vec![] };
        prop_assert!(directives.eq(expected));
    }

    #[test]
    fn reservations(verb in any::<u8>(), list in vec(mac(), 0..=255), padding in 0usize..64) {
        let reserve = Reserve { verb: verb.into() };
        let mut body = vec![DIRT; RESERVE_LEN + list.len() * 6 + padding];
        let length = reserve.emit(&list, &mut body);
        prop_assert!(body[length..].iter().all(|byte| *byte == DIRT));
        let (parsed, macs) = Reserve::parse(&body).unwrap();
        prop_assert_eq!(parsed, reserve);
        prop_assert!(macs.eq(list));
    }

    #[test]
    fn identities(id in identify()) {
        let mut data = [DIRT; IDENTIFY_LEN];
        id.emit(&mut data);
        prop_assert_eq!(Identify::parse(&data), Ok(id));
    }

    #[test]
    fn trims(at in 0u64..1 << 47, count in 0u64..1 << 24, blocks in 0usize..4) {
        let mut data = vec![DIRT; blocks * SECTOR];
        let done = fill_trim(Sector(at), count, &mut data);
        prop_assert_eq!(done, count.min(blocks as u64 * TRIM_BLOCK_SECTORS));
        let mut next = at;
        for range in trim_ranges(&data) {
            prop_assert_eq!(range.at, Sector(next));
            next += u64::from(range.count);
        }
        prop_assert_eq!(next, at + done);
    }

    #[test]
    fn addresses(addr in addr(), mac in mac()) {
        prop_assert_eq!(addr.to_string().parse(), Ok(addr));
        prop_assert_eq!(mac.to_string().parse(), Ok(mac));
        prop_assert_eq!(mac.to_string().replace(':', "").parse(), Ok(mac));
    }
}
