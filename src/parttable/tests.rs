//! Sound tables, every way to spoil one, and what must hold of any.

use proptest::prelude::*;

use super::samples::{Disk, Gpt, GptSlot, LINUX, MbrSlot, mbr, record, seal};
use super::*;

const SECTORS: u64 = 10_000;

/// What is spoiled: a word for it, where it is in the header, with what, and the reason given.
type Case<'a> = (&'a str, usize, &'a [u8], &'a str);

/// Two partitions, the second in slot 4.
fn gpt() -> Gpt {
    Gpt::new(SECTORS, &[(0, 2048, 4095, "boot"), (3, 4096, SECTORS - 34, "Daten für\u{1b}[31m \u{202e}rot")])
}

const GPT_FOUND: [(u32, u64, u64); 2] = [(1, 2048, 4096), (4, 4096, SECTORS - 33)];

/// An extended partition from 1000 to 9000, with a chain of (record, [entries]).
fn chain(records: &[(u64, &[MbrSlot])]) -> Disk {
    let mut disk = mbr(SECTORS, &[(0x83, 100, 900), (0x0f, 1000, 8000), (0x82, 9000, 1000)]);
    for (at, slots) in records {
        *disk.at(*at) = record(slots);
    }
    disk
}

const PRIMARIES: [(u32, u64, u64); 2] = [(1, 100, 1000), (3, 9000, SECTORS)];

#[test]
fn a_gpt_takes_one_read() {
    let disk = gpt().write();
    assert_eq!(disk.found(), GPT_FOUND);
    let (verdict, reads) = disk.scan_counted();
    assert_eq!(reads, 1);
    let Verdict::Found(entries) = verdict else { unreachable!() };
    assert_eq!(entries[0].kind, Kind::Gpt(LINUX));
    assert_eq!(
        entries[0].to_string(),
        "p1: sectors 2048 to 4096, type 0FC63DAF-8483-4772-8E79-3D69D8477DE4, boot"
    );
    assert_eq!(entries[1].label, "Daten für_[31m _rot");
    assert_eq!(entries[1].name(), "p4");
}

#[test]
fn an_mbr_is_numbered_as_linux_does() {
    assert_eq!(chain(&[]).found(), PRIMARIES);
    let disk = mbr(SECTORS, &[(0, 0, 0), (0x83, 1, 5), (0, 0, 0), (0x83, 6, 9994)]);
    assert_eq!(disk.found(), [(2, 1, 6), (4, 6, SECTORS)]);
    let Verdict::Found(entries) = disk.scan() else { unreachable!() };
    assert_eq!(entries[0].to_string(), "p2: sectors 1 to 6, type 0x83");
}

#[test]
fn logical_partitions_count_from_5() {
    // Links count from the extended partition, partitions from their record; the chain may lead backwards.
    let disk = chain(&[
        (1000, &[(0x83, 63, 100), (0x05, 2000, 500)]),
        (3000, &[(0x83, 63, 400), (0x85, 1000, 500)]),
        (2000, &[(0x07, 1, 2)]),
    ]);
    let logical = [(5, 1063, 1163), (6, 3063, 3463), (7, 2001, 2003)];
    assert_eq!(disk.found(), [&PRIMARIES[..1], &PRIMARIES[1..], &logical].concat());
    assert_eq!(disk.scan_counted().1, 4);
}

#[test]
fn an_extended_partition_may_have_records_without_partitions() {
    let disk = chain(&[(1000, &[(0, 0, 0), (0x05, 2000, 500)]), (3000, &[(0x83, 63, 400)])]);
    assert_eq!(disk.found(), [PRIMARIES[0], PRIMARIES[1], (5, 3063, 3463)]);
    assert_eq!(chain(&[(1000, &[])]).found(), PRIMARIES);
}

#[test]
fn garbage_in_the_last_two_entries_of_a_record_is_passed_over() {
    let disk = chain(&[(1000, &[(0x83, 63, 100), (0, 0, 0), (0xff, u32::MAX, u32::MAX), (0x83, 500, 10)])]);
    assert_eq!(disk.found(), [PRIMARIES[0], PRIMARIES[1], (5, 1063, 1163), (6, 1500, 1510)]);
}

#[test]
fn nothing_is_nothing() {
    for sectors in [0, 1, 2, 33, 34, 35, SECTORS, u64::MAX] {
        assert_eq!(Disk::new(sectors).scan(), Verdict::Nothing, "{sectors}");
    }
    assert_eq!(mbr(SECTORS, &[]).scan(), Verdict::Nothing);
    assert_eq!(mbr(SECTORS, &[(0x05, 100, 100)]).scan(), Verdict::Nothing);
    assert_eq!(Gpt::new(SECTORS, &[]).write().scan(), Verdict::Nothing);
    // A GPT whose MBR was overwritten is a disk that was put to another use.
    let mut disk = gpt().write();
    disk.written.remove(&0);
    assert_eq!(disk.scan(), Verdict::Nothing);
}

#[test]
fn the_boot_sector_of_a_volume_is_no_table() {
    for (at, name) in [(3, "NTFS    "), (3, "EXFAT   "), (54, "FAT12   "), (54, "FAT16   "), (82, "FAT32   ")]
    {
        let mut disk = mbr(SECTORS, &[(0x83, 100, 100)]);
        disk.at(0)[at..at + 8].copy_from_slice(name.as_bytes());
        assert_eq!(disk.scan(), Verdict::Nothing, "{name}");
    }
    let mut disk = mbr(SECTORS, &[(0x83, 100, 100), (0x83, 300, 100)]);
    disk.at(0)[446 + 16] = b'x';
    assert_eq!(disk.scan(), Verdict::Nothing);
    disk.at(0)[446 + 16] = 0x80;
    assert_eq!(disk.found().len(), 2);
}

/// A GPT made where a volume was: the rest of its first sector stays, and the protective entry may stand anywhere and
/// bear any mark.
#[test]
fn a_gpt_behind_the_boot_sector_of_a_volume_is_found() {
    for (at, name) in [(3, "NTFS    "), (3, "EXFAT   "), (54, "FAT16   "), (82, "FAT32   ")] {
        let mut disk = gpt().write();
        disk.at(0)[at..at + 8].copy_from_slice(name.as_bytes());
        assert_eq!(disk.found(), GPT_FOUND, "{name}");
    }
    let mut disk = gpt().write();
    for mark in [0x80, 0x01, 0xff] {
        disk.at(0)[446] = mark;
        assert_eq!(disk.found(), GPT_FOUND, "{mark}");
    }
    let entry: Vec<u8> = disk.at(0)[446..462].to_vec();
    for place in 1..4 {
        let mut disk = gpt().write();
        disk.at(0)[446..510].fill(0);
        disk.at(0)[446 + 16 * place..][..16].copy_from_slice(&entry);
        assert_eq!(disk.found(), GPT_FOUND, "entry {place}");
    }
}

#[test]
fn two_extended_partitions_count_on() {
    let mut disk = mbr(SECTORS, &[(0x05, 1000, 1000), (0x83, 100, 100), (0x0f, 3000, 1000), (0x85, 5000, 9)]);
    *disk.at(1000) = record(&[(0x83, 1, 10), (0x05, 500, 100)]);
    *disk.at(1500) = record(&[(0x83, 2, 20)]);
    *disk.at(3000) = record(&[(0x83, 3, 30)]);
    assert_eq!(disk.found(), [(2, 100, 200), (5, 1001, 1011), (6, 1502, 1522), (7, 3003, 3033)]);
}

#[test]
fn the_backup_stands_in_for_a_broken_primary() {
    let spoil: [fn(&mut Disk); 5] = [
        |disk| disk.at(1).fill(0),
        |disk| disk.at(1)[40] ^= 1,
        |disk| disk.at(2)[32] ^= 1,
        |disk| disk.at(33)[511] ^= 1,
        // A copy of the backup in the primary's place.
        |disk| *disk.at(1) = disk.written[&(SECTORS - 1)],
    ];
    for (n, spoil) in spoil.iter().enumerate() {
        let mut disk = gpt().write();
        spoil(&mut disk);
        assert_eq!(disk.found(), GPT_FOUND, "{n}");
        assert_eq!(disk.scan_counted().1, 2, "{n}");
        disk.at(SECTORS - 1)[60] ^= 1;
        let reason = disk.refused();
        assert!(
            reason.contains("primary: ") && reason.ends_with("backup: the header's checksum is wrong"),
            "{reason}"
        );
    }
}

#[test]
fn a_sound_header_says_where_the_backup_is() {
    // A disk that grew: its end is not where the table was written for.
    let mut disk = gpt().write();
    disk.sectors *= 2;
    assert_eq!(disk.found(), GPT_FOUND);
    disk.at(2)[32] ^= 1;
    assert_eq!(disk.found(), GPT_FOUND);
    disk.at(1)[40] ^= 1;
    assert!(disk.refused().ends_with("backup: sector 19999 is no header"), "{}", disk.refused());
}

#[test]
fn arrays_may_be_large_and_elsewhere() {
    let mut gpt = Gpt::new(SECTORS, &[(0, 6000, 6001, "a"), (8191, 6002, 6003, "b")]);
    (gpt.count, gpt.usable, gpt.arrays) = (8192, (5000, 7000), (100, 7500));
    let mut disk = gpt.write();
    assert_eq!(disk.found(), [(1, 6000, 6002), (8192, 6002, 6004)]);
    assert_eq!(disk.scan_counted().1, 2);
    disk.at(150)[0] ^= 1;
    assert_eq!(disk.found(), [(1, 6000, 6002), (8192, 6002, 6004)]);
    // The most that a scan may do: both arrays, both of 1 MiB, neither beside its header.
    assert_eq!(disk.scan_counted().1, 4);
    (gpt.count, gpt.size) = (256, 4096);
    gpt.entries.pop();
    assert_eq!(gpt.write().found(), [(1, 6000, 6002)]);
}

#[test]
fn a_small_gpt_fills_its_disk() {
    let mut gpt = Gpt::new(7, &[(0, 3, 3, "only")]);
    (gpt.count, gpt.usable, gpt.arrays) = (4, (3, 4), (2, 5));
    assert_eq!(gpt.write().found(), [(1, 3, 4)]);
    let mut disk = gpt.write();
    disk.at(1)[0] = 0;
    assert_eq!(disk.found(), [(1, 3, 4)]);
}

#[test]
fn a_hybrid_mbr_gives_way_to_the_gpt() {
    let mut disk = gpt().write();
    *disk.at(0) = record(&[(0x83, 2048, 2048), (0xee, 1, 2047)]);
    assert_eq!(disk.found(), GPT_FOUND);
    *disk.at(0) = record(&[(0xee, 2, 2047)]);
    assert_eq!(disk.refused(), "the protective entry begins at sector 2, not 1");
}

#[test]
fn hostile_gpt_headers_are_refused() {
    let max = u64::MAX.to_le_bytes();
    let cases: [Case<'_>; 22] = [
        ("length 0", 12, &[0; 4], "the header says that it has 0 bytes"),
        ("length 513", 12, &[1, 2, 0, 0], "the header says that it has 513 bytes"),
        ("length 2^32-1", 12, &[0xff; 4], "the header says that it has 4294967295 bytes"),
        ("own place", 24, &[77, 0, 0, 0, 0, 0, 0, 0], "the header at sector 1 says that it is at 77"),
        (
            "alternate itself",
            32,
            &[1, 0, 0, 0, 0, 0, 0, 0],
            "the other header is said to be at sector 1 of 10000",
        ),
        ("alternate 0", 32, &[0; 8], "the other header is said to be at sector 0 of 10000"),
        (
            "alternate beyond",
            32,
            &SECTORS.to_le_bytes(),
            "the other header is said to be at sector 10000 of 10000",
        ),
        (
            "alternate 2^64-1",
            32,
            &max,
            "the other header is said to be at sector 18446744073709551615 of 10000",
        ),
        ("usable 2^64-1", 48, &max, "sectors 34 to 18446744073709551615 of 10000 are said to be usable"),
        ("usable beyond", 48, &SECTORS.to_le_bytes(), "sectors 34 to 10000 of 10000 are said to be usable"),
        ("usable reversed", 40, &max, "sectors 18446744073709551615 to 9966 of 10000 are said to be usable"),
        (
            "usable has header",
            40,
            &[1, 0, 0, 0, 0, 0, 0, 0],
            "the usable sectors 1 to 9966 are said to hold the table itself",
        ),
        (
            "usable has array",
            40,
            &[33, 0, 0, 0, 0, 0, 0, 0],
            "the usable sectors 33 to 9966 are said to hold the table itself",
        ),
        ("array 0", 72, &[0; 8], "the entries are said to be at sectors 0 to 32 of 10000"),
        (
            "array over itself",
            72,
            &[1, 0, 0, 0, 0, 0, 0, 0],
            "the entries are said to be at sectors 1 to 33 of 10000",
        ),
        (
            "array 2^64-1",
            72,
            &max,
            "the entries are said to be at sectors 18446744073709551615 to 18446744073709551615 of 10000",
        ),
        (
            "array beyond",
            72,
            &(SECTORS - 31).to_le_bytes(),
            "the entries are said to be at sectors 9969 to 10001 of 10000",
        ),
        ("no entries", 80, &[0; 4], "0 entries of 128 bytes"),
        ("2^32-1 entries", 80, &[0xff; 4], "4294967295 entries of 128 bytes"),
        ("entries of 0", 84, &[0; 4], "entries of 0 bytes"),
        ("entries of 384", 84, &[0x80, 1, 0, 0], "entries of 384 bytes"),
        ("entries of 2^31", 84, &[0, 0, 0, 0x80], "entries of 2147483648 bytes"),
    ];
    for (what, at, value, why) in cases {
        let reason = gpt().spoiled(1, at, value).refused();
        let neither =
            format!("a protective MBR but no sound GPT; primary: {why}; backup: sector 9999 is no header");
        assert_eq!(reason, neither, "{what}");
    }
    // The backup is judged as strictly, and must know where the primary was.
    for (at, value, why) in [
        (24, 1u64, "the header at sector 9999 says that it is at 1"),
        (32, 5, "the other header is said to be at sector 5 of 10000"),
        (48, 9_999, "the usable sectors 34 to 9999 are said to hold the table itself"),
        (72, 9_980, "the entries are said to be at sectors 9980 to 10012 of 10000"),
    ] {
        let reason = gpt().spoiled(SECTORS - 1, at, &value.to_le_bytes()).refused();
        assert!(reason.ends_with(&format!("primary: sector 1 is no header; backup: {why}")), "{reason}");
    }
    // Where the end of an array would be beyond 64 bits, on a disk that has that many sectors.
    let mut disk = gpt().spoiled(1, 72, &max);
    disk.sectors = u64::MAX;
    assert!(
        disk.refused().contains("primary: the entries are said to be at sectors 18446744073709551615 to")
    );
    // 2^32 bytes of entries, in numbers that overflow 32 bits.
    let mut gpt = gpt();
    (gpt.count, gpt.size) = (1 << 20, 4096);
    assert!(gpt.write().refused().contains("primary: 1048576 entries of 4096 bytes;"));
}

#[test]
fn hostile_gpt_entries_are_refused_without_asking_the_backup() {
    let max = u64::MAX;
    let cases: [(&[GptSlot], &str); 10] = [
        (&[(0, 200, 100, "")], "p1 begins at sector 200 and ends at 100"),
        (&[(0, max, 0, "")], "p1 begins at sector 18446744073709551615 and ends at 0"),
        (&[(0, 0, 100, "")], "p1, sectors 0 to 100, is not within the usable ones, 34 to 9966"),
        (&[(0, 33, 100, "")], "p1, sectors 33 to 100, is not within the usable ones, 34 to 9966"),
        (&[(0, 100, 9967, "")], "p1, sectors 100 to 9967, is not within the usable ones, 34 to 9966"),
        (
            &[(5, 100, max, "")],
            "p6, sectors 100 to 18446744073709551615, is not within the usable ones, 34 to 9966",
        ),
        (
            &[(0, max, max, "")],
            "p1, sectors 18446744073709551615 to 18446744073709551615, is not within the usable ones, 34 to 9966",
        ),
        (&[(0, 100, 200, ""), (1, 200, 300, "")], "p1 and p2 overlap at sector 200"),
        (&[(0, 100, 200, ""), (7, 100, 200, "")], "p1 and p8 overlap at sector 100"),
        (&[(0, 150, 160, ""), (1, 100, 900, ""), (2, 170, 171, "")], "p2 and p1 overlap at sector 150"),
    ];
    for (entries, why) in cases {
        let disk = Gpt::new(SECTORS, entries).write();
        assert_eq!(disk.refused(), why);
        assert_eq!(disk.scan_counted().1, 1);
    }
    let mut gpt = Gpt::new(SECTORS, &[]);
    (gpt.count, gpt.usable.0) = (1025, 300);
    gpt.usable.1 = 9700;
    gpt.arrays.1 = SECTORS - 290;
    gpt.entries = (0..1025).map(|n| (n, 500 + u64::from(n), 500 + u64::from(n), "")).collect();
    assert_eq!(gpt.write().refused(), "1025 partitions; at most 1024 are taken");
    gpt.entries.pop();
    assert_eq!(gpt.write().found().len(), 1024);
}

#[test]
fn a_protective_mbr_alone_is_refused() {
    for sectors in [1, 2, 3, SECTORS, 1 << 48, u64::MAX] {
        let disk = mbr(sectors, &[(0xee, 1, u32::MAX)]);
        assert!(disk.refused().starts_with("a protective MBR"), "{sectors}");
        assert!(disk.scan_counted().1 <= 2);
    }
}

#[test]
fn a_truncated_disk_is_refused() {
    let mut disk = gpt().write();
    disk.sectors -= 1;
    disk.written.remove(&(SECTORS - 1));
    assert!(disk.refused().contains("the other header is said to be at sector 9999 of 9999"));
}

#[test]
fn hostile_mbrs_are_refused() {
    const MAX: u32 = u32::MAX;
    let cases: [(&[MbrSlot], &str); 8] = [
        (&[(0x83, 0, 100)], "p1 begins at sector 0, which holds the table"),
        (&[(0x83, 100, MAX)], "p1 ends at sector 4294967395, beyond the disk of 10000"),
        (&[(0x83, MAX, MAX)], "p1 ends at sector 8589934590, beyond the disk of 10000"),
        (&[(0, 0, 0), (0x83, 9_999, 2)], "p2 ends at sector 10001, beyond the disk of 10000"),
        (&[(0x83, 100, 100), (0x83, 199, 100)], "p1 and p2 overlap at sector 199"),
        (&[(0x83, 100, 100), (0x83, 100, 100)], "p1 and p2 overlap at sector 100"),
        (&[(0x83, 100, 100), (0x05, 150, 100)], "p1 and p2 overlap at sector 150"),
        (&[(0x0f, 9_000, 2_000)], "p1 ends at sector 11000, beyond the disk of 10000"),
    ];
    for (slots, why) in cases {
        assert_eq!(mbr(SECTORS, slots).refused(), why);
    }
}

#[test]
fn hostile_chains_are_refused() {
    const MAX: u32 = u32::MAX;
    const OUT: &str = "the chain of logical partitions";
    type Records = &'static [(u64, &'static [MbrSlot])];
    let cases: [(Records, String); 9] = [
        (&[(1000, &[(0x83, 1, 5), (0x05, 0, 9)])], format!("{OUT} comes back to sector 1000")),
        (
            &[(1000, &[(0x83, 1, 5), (0x05, 100, 9)]), (1100, &[(0x83, 1, 5), (0x05, 100, 9)])],
            format!("{OUT} comes back to sector 1100"),
        ),
        (
            &[(1000, &[(0x05, 100, 9)]), (1100, &[(0x05, 200, 9)]), (1200, &[(0x05, 100, 9)])],
            format!("{OUT} comes back to sector 1100"),
        ),
        (&[(1000, &[(0x05, 8000, 9)])], format!("{OUT} leads to sector 9000, beyond the extended partition")),
        (
            &[(1000, &[(0x05, MAX, MAX)])],
            format!("{OUT} leads to sector 4294968295, beyond the extended partition"),
        ),
        (&[(1000, &[(0x05, 100, 9)])], format!("{OUT} leads to sector 1100, which is no record")),
        (
            &[(1000, &[(0x83, 63, 8000)])],
            "p5, sectors 1063 to 9063, reaches beyond the extended partition".to_owned(),
        ),
        (&[(1000, &[(0x83, 0, 100)])], "p5 and the table overlap at sector 1000".to_owned()),
        (
            &[(1000, &[(0x83, 63, 200), (0x05, 100, 9)]), (1100, &[(0x83, 500, 9)])],
            "p5 and the table overlap at sector 1100".to_owned(),
        ),
    ];
    for (records, why) in cases {
        let reason = chain(records).refused();
        // Which of two that begin together is named first is of no interest.
        assert!(reason == why || reason == why.replace("p5 and the table", "the table and p5"), "{reason}");
    }
    let overlap =
        chain(&[(1000, &[(0x83, 63, 500), (0x05, 1000, 9)]), (2000, &[(0x83, 1, 5), (0x83, 3, 9)])]);
    assert_eq!(overlap.refused(), "p6 and p7 overlap at sector 2003");
}

#[test]
fn a_long_chain_ends() {
    let long = |records: u32| {
        let mut disk = mbr(SECTORS, &[(0x05, 1000, 9000)]);
        for n in 0..records {
            let link = if n + 1 < records { (0x05, (n + 1) * 10, 10) } else { (0, 0, 0) };
            *disk.at(1000 + u64::from(n) * 10) = record(&[(0x83, 1, 9), link]);
        }
        disk
    };
    let (verdict, reads) = long(128).scan_counted();
    assert_eq!(reads, READS_MAX);
    assert!(
        matches!(verdict, Verdict::Found(entries) if entries.len() == 128 && entries[127].name() == "p132")
    );
    assert_eq!(long(129).refused(), "the chain of logical partitions has more than 128 records");
    assert_eq!(long(129).scan_counted().1, READS_MAX);
}

#[test]
fn only_what_was_wanted_is_taken() {
    for bytes in [0, 511, 33 * 512, 34 * 512 - 1, 34 * 512 + 1, 35 * 512] {
        let mut scan = Scan::new(SECTORS);
        scan.feed(&vec![0; bytes]);
        let reason = format!("{bytes} bytes came for the 34 sectors at 0");
        assert_eq!(scan.want(), Want::End(&Verdict::Refused(reason)));
        let end = format!("{:?}", scan.want());
        scan.feed(&vec![0; 34 * 512]);
        assert_eq!(format!("{:?}", scan.want()), end, "the end is the end");
    }
}

/// Partitions that neither overlap nor leave the usable sectors of 10 000, in any slots.
fn layouts() -> impl Strategy<Value = Vec<GptSlot>> {
    let pieces = prop::collection::vec((1u64..200, 0u64..100), 1..12);
    let slots = prop::sample::subsequence((0u32..128).collect::<Vec<_>>(), 12).prop_shuffle();
    (pieces, slots).prop_map(|(pieces, slots)| {
        let mut at = 34;
        let mut entries = Vec::new();
        for ((size, gap), slot) in pieces.into_iter().zip(slots) {
            entries.push((slot, at + gap, at + gap + size - 1, "x"));
            at += gap + size;
        }
        entries
    })
}

fn expected(entries: &[(u32, u64, u64, &str)]) -> Vec<(u32, u64, u64)> {
    let mut list: Vec<_> = entries.iter().map(|(slot, start, end, _)| (slot + 1, *start, end + 1)).collect();
    list.sort_unstable();
    list
}

/// What holds of every end, whatever the disk.
fn promises(verdict: &Verdict, sectors: u64) {
    match verdict {
        Verdict::Nothing => {}
        Verdict::Refused(reason) => {
            assert!(!reason.is_empty() && reason.len() < 300 && !reason.contains(char::is_control));
        }
        Verdict::Found(entries) => {
            assert!((1..=ENTRIES_MAX).contains(&entries.len()));
            assert!(entries.windows(2).all(|pair| pair[0].number < pair[1].number));
            for (n, e) in entries.iter().enumerate() {
                assert!(0 < e.start.0 && e.start < e.end && e.end.0 <= sectors, "{e}");
                assert!(entries[..n].iter().all(|o| o.end <= e.start || e.end <= o.start), "{e}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_gpt_is_found_as_it_was_written(entries in layouts()) {
        prop_assert_eq!(Gpt::new(SECTORS, &entries).write().found(), expected(&entries));
    }

    /// A bit that flips anywhere in the primary table makes no difference, or is not covered by a checksum.
    #[test]
    fn one_wrong_bit_in_the_primary_is_made_good(
        entries in layouts(), sector in 1u64..34, byte in 0..SECTOR, bit in 0u8..8,
    ) {
        let mut disk = Gpt::new(SECTORS, &entries).write();
        disk.at(sector)[byte] ^= 1u8 << bit;
        prop_assert_eq!(disk.found(), expected(&entries));
    }

    /// Any numbers in a header with the right checksum, any bytes in the array.
    #[test]
    fn any_header_keeps_the_promises(
        entries in layouts(),
        spoiled in prop::collection::vec((8usize..92, any::<u8>()), 1..6),
        bytes in prop::collection::vec((0usize..512, any::<u8>()), 0..4),
        sectors in prop::sample::select(vec![SECTORS, SECTORS * 2, SECTORS - 1, 40, u64::MAX]),
    ) {
        let mut disk = Gpt::new(SECTORS, &entries).write();
        disk.sectors = sectors;
        for (at, value) in bytes {
            disk.at(2)[at] = value;
        }
        let crc = crc32fast::hash(&disk.read(2, 32));
        disk.at(1)[88..92].copy_from_slice(&crc.to_le_bytes());
        for (at, value) in spoiled {
            disk.at(1)[at] = value;
        }
        seal(disk.at(1));
        promises(&disk.scan(), sectors);
    }

    /// Small numbers, so that records meet each other, partitions and themselves.
    #[test]
    fn any_chain_keeps_the_promises(
        records in prop::collection::vec(prop::collection::vec((
            prop::sample::select(vec![0x83u8, 0x05, 0x0f, 0]), 0u32..12, 0u32..8), 4), 12),
        sectors in 1u64..14,
    ) {
        let mut disk = Disk::new(sectors);
        for (at, slots) in (0..sectors).zip(&records) {
            *disk.at(at) = record(slots);
        }
        promises(&disk.scan(), sectors);
    }

    #[test]
    fn a_chain_is_found_as_it_was_written(sizes in prop::collection::vec((1u32..60, 0u32..9), 1..20)) {
        let mut disk = mbr(SECTORS, &[(0x05, 1000, 9000)]);
        let (mut at, mut expected) = (0, Vec::new());
        for (n, (size, gap)) in sizes.iter().enumerate() {
            let start = 1000 + u64::from(at);
            let next = at + 1 + gap + size;
            let link = if n + 1 < sizes.len() { (0x05, next, 1) } else { (0, 0, 0) };
            *disk.at(start) = record(&[(0x83, 1 + gap, *size), link]);
            let first = start + 1 + u64::from(*gap);
            expected.push((n as u32 + 5, first, first + u64::from(*size)));
            at = next;
        }
        prop_assert_eq!(disk.found(), expected);
    }
}
