use super::*;

/// A disk as aoefs's own target describes one.
fn full() -> Identify {
    Identify {
        serial: Text::new("AOEFS-0001"),
        model: Text::new("aoefs image"),
        firmware: Text::new("0.1.0"),
        sectors: 1 << 33,
        lba48: true,
        flush: FlushKind::FlushExt,
        trim: true,
        trim_zeroes: true,
        max_trim_blocks: 8,
        smart: true,
        write_cache: true,
        physical_log2: 3,
        rotation: 1,
    }
}

/// What vblade 25 answers, word by word.
fn vblade(sectors: u64) -> [u8; IDENTIFY_LEN] {
    let mut data = [0; IDENTIFY_LEN];
    put_text(&mut data, field::SERIAL, "3.7:host");
    put_text(&mut data, field::FIRMWARE, "V25");
    put_text(&mut data, field::MODEL, "Coraid EtherDrive vblade");
    for (at, value) in
        [(47, 0x8000), (49, 0x0200), (50, 0x4000), (83, 0x5400), (84, 0x4000), (86, 0x1400), (87, 0x4000)]
    {
        put_word(&mut data, at, value);
    }
    put_word(&mut data, 93, 0x400b);
    put_number(&mut data, field::SECTORS_28, sectors.min(0x0fff_ffff));
    put_number(&mut data, field::SECTORS_48, sectors);
    data
}

#[test]
fn vblade_is_understood() {
    let id = Identify::parse(&vblade(2_097_152)).unwrap();
    assert_eq!(
        id,
        Identify {
            serial: Text::new("3.7:host"),
            model: Text::new("Coraid EtherDrive vblade"),
            firmware: Text::new("V25"),
            sectors: 2_097_152,
            lba48: true,
            flush: FlushKind::Flush,
            ..Identify::default()
        }
    );
    assert_eq!(id.sectors, 1 << 21);
}

#[test]
fn text_is_swapped_in_its_words() {
    let mut out = [0; IDENTIFY_LEN];
    full().emit(&mut out);
    assert_eq!(out[20..32], *b"OAFE-S0010  ");
    assert_eq!(out[54..66], *b"oafe smiga e");
}

#[test]
fn a_description_comes_back() {
    for id in [
        full(),
        Identify { lba48: false, sectors: 1 << 28, ..full() },
        Identify { sectors: 1 << 48, trim_zeroes: false, ..full() },
        Identify { sectors: 1, ..Identify { lba48: true, ..Identify::default() } },
    ] {
        let mut out = [0xa5; IDENTIFY_LEN];
        id.emit(&mut out);
        assert_eq!(Identify::parse(&out), Ok(id));
        assert_eq!(sum(&out), 0);
        assert_eq!(out[510], SIGNATURE);
    }
}

#[test]
fn a_checksum_must_hold_if_it_is_there() {
    let mut out = [0; IDENTIFY_LEN];
    full().emit(&mut out);
    out[20] ^= 1;
    assert_eq!(Identify::parse(&out), Err(Unusable::BadChecksum));
    out[510] = 0;
    assert!(Identify::parse(&out).is_ok());
}

#[test]
fn useless_disks_are_refused() {
    assert_eq!(Identify::parse(&vblade(1)[..511]), Err(Unusable::Short));
    assert_eq!(Identify::parse(&[0; IDENTIFY_LEN]), Err(Unusable::NoLba));
    assert_eq!(Identify::parse(&[0xff; IDENTIFY_LEN]), Err(Unusable::NoLba));
    assert_eq!(Identify::parse(&vblade(0)), Err(Unusable::Empty));
    assert_eq!(Identify::parse(&vblade((1 << 48) + 1)), Err(Unusable::TooLarge));
    assert!(Identify::parse(&vblade(1 << 48)).is_ok());
    let mut old = vblade(0);
    put_word(&mut old, field::SUPPORTED_2, 0);
    put_word(&mut old, field::ENABLED_2, 0);
    put_number(&mut old, field::SECTORS_28, (1 << 28) + 1);
    assert_eq!(Identify::parse(&old), Err(Unusable::TooLarge));
}

#[test]
fn qaoed_sets_one_bit_and_is_taken() {
    let mut data = [0; IDENTIFY_LEN];
    put_word(&mut data, field::SUPPORTED_2, bit::LBA48);
    put_number(&mut data, field::SECTORS_48, 77);
    let id = Identify::parse(&data).unwrap();
    assert_eq!((id.sectors, id.lba48), (77, true));
}

#[test]
fn text_is_cleaned() {
    assert_eq!(Text::<8>::new("  V0.2\n").as_str(), "V0.2");
    assert_eq!(Text::<8>::new("a\tb\x1b[0mé and more").as_str(), "a b [0m");
    assert_eq!(Text::<8>::new("a\tb\x1b[0mé and more"), Text::<8>::new("a b [0m"));
    assert_eq!(Text::<8>::new("\0\0").as_str(), "");
    assert_eq!(Text::<8>::new(""), Text::default());
    assert_eq!(format!("[{:>5}]", Text::<8>::new("V25")), "[  V25]");
}
