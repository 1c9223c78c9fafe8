//! Tables as tools make them, tables as attackers make them.

use std::convert::Infallible;

use proptest::prelude::*;

use super::gpt::crc32;
use super::*;

type Outcome = Result<Vec<Entry>, Refused<Infallible>>;

fn run(disk: &[u8]) -> Outcome {
    scan((disk.len() / SECTOR) as u64, |offset, len| {
        assert!(len <= 1 << 20);
        Ok(disk[offset as usize..offset as usize + len].to_vec())
    })
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

fn mbr(disk: &mut [u8], sector: usize, slots: &[(u8, u32, u32)]) {
    let base = sector * SECTOR;
    for (n, (kind, start, count)) in slots.iter().enumerate() {
        let at = base + 446 + n * 16;
        disk[at + 4] = *kind;
        put(disk, at + 8, &start.to_le_bytes());
        put(disk, at + 12, &count.to_le_bytes());
    }
    put(disk, base + 510, &[0x55, 0xaa]);
}

const SECTORS: usize = 4096;

fn blank() -> Vec<u8> {
    vec![0; SECTORS * SECTOR]
}

/// Writes a GPT whose partitions are inclusive ranges, both copies, as sgdisk would.
fn gpt(disk: &mut [u8], parts: &[(usize, u64, u64)]) {
    let last = (disk.len() / SECTOR) as u64 - 1;
    mbr(disk, 0, &[(0xee, 1, last as u32)]);
    let mut array = vec![0; 128 * 128];
    for (slot, start, end) in parts {
        put(&mut array, slot * 128, &[7; 16]);
        put(&mut array, slot * 128 + 32, &start.to_le_bytes());
        put(&mut array, slot * 128 + 40, &end.to_le_bytes());
    }
    for (lba, array_lba, other) in [(1, 2, last), (last, last - 32, 1)] {
        put(disk, array_lba as usize * SECTOR, &array);
        header(disk, lba, other, array_lba, crc32(&array), last);
    }
}

fn header(disk: &mut [u8], lba: u64, other: u64, array: u64, array_crc: u32, last: u64) {
    let mut header = vec![0; 92];
    put(&mut header, 0, b"EFI PART");
    put(&mut header, 8, &0x1_0000u32.to_le_bytes());
    put(&mut header, 12, &92u32.to_le_bytes());
    put(&mut header, 24, &lba.to_le_bytes());
    put(&mut header, 32, &other.to_le_bytes());
    put(&mut header, 40, &34u64.to_le_bytes());
    put(&mut header, 48, &(last - 33).to_le_bytes());
    put(&mut header, 72, &array.to_le_bytes());
    put(&mut header, 80, &128u32.to_le_bytes());
    put(&mut header, 84, &128u32.to_le_bytes());
    put(&mut header, 88, &array_crc.to_le_bytes());
    seal(&mut header);
    put(disk, lba as usize * SECTOR, &header);
}

fn seal(header: &mut [u8]) {
    header[16..20].fill(0);
    let crc = crc32(header);
    put(header, 16, &crc.to_le_bytes());
}

fn entry(number: u32, start: u64, end: u64) -> Entry {
    Entry { number, start, end }
}

fn refused(outcome: Outcome, why: &str) {
    match outcome {
        Err(Refused::Bad(said)) => assert!(said.contains(why), "{said}"),
        other => panic!("{why}: {other:?}"),
    }
}

#[test]
fn crc_of_the_check_string() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

#[test]
fn nothing_found() {
    assert_eq!(scan(0, |_, _| Ok::<_, Infallible>(Vec::new())), Err(Refused::Nothing));
    assert_eq!(run(&blank()), Err(Refused::Nothing));
    let mut fat = blank();
    mbr(&mut fat, 0, &[(1, 1, 1)]);
    fat[446] = b'x';
    assert_eq!(run(&fat), Err(Refused::Nothing), "code where the boot flags should be");
    let mut empty = blank();
    mbr(&mut empty, 0, &[]);
    assert_eq!(run(&empty), Err(Refused::Nothing));
    let mut none = blank();
    gpt(&mut none, &[]);
    assert_eq!(run(&none), Err(Refused::Nothing));
}

#[test]
fn a_gpt_and_its_copy() {
    let mut disk = blank();
    gpt(&mut disk, &[(0, 40, 99), (4, 100, 100), (2, 2048, 4062)]);
    let want = vec![entry(1, 40, 100), entry(3, 2048, 4063), entry(5, 100, 101)];
    assert_eq!(run(&disk), Ok(want.clone()));
    // The primary header, then its entries, are broken: the copy counts.
    for at in [SECTOR + 17, 2 * SECTOR + 3] {
        let mut broken = disk.clone();
        broken[at] ^= 1;
        assert_eq!(run(&broken), Ok(want.clone()));
        broken[(SECTORS - 1) * SECTOR + 20] ^= 1;
        refused(run(&broken), "the copy at the end");
    }
}

#[test]
fn hostile_gpts() {
    for (parts, why) in [
        (vec![(0, 40, 99), (1, 99, 120)], "p1 and p2 overlap"),
        (vec![(0, 40, 4090)], "not where partitions can be"),
        (vec![(0, 33, 40)], "not where partitions can be"),
        (vec![(0, 50, 49)], "not where partitions can be"),
        (vec![(0, 50, u64::MAX)], "not where partitions can be"),
        (vec![(0, u64::MAX, 50)], "not where partitions can be"),
    ] {
        let mut disk = blank();
        gpt(&mut disk, &parts);
        refused(run(&disk), why);
    }
    for (at, bytes, why) in [
        (12, 0xffff_ffffu64.to_le_bytes(), "a header of"),
        (12, 91u64.to_le_bytes(), "a header of"),
        (24, 2u64.to_le_bytes(), "belongs elsewhere"),
        (48, u64::MAX.to_le_bytes(), "not on the disk"),
        (72, u64::MAX.to_le_bytes(), "not on the disk"),
        (72, (SECTORS as u64 - 1).to_le_bytes(), "not on the disk"),
        (80, [0xff; 8], "entries of"),
        (80, 0x0000_007f_0000_0080u64.to_le_bytes(), "entries of"),
        (80, 0x0000_0000_0000_0080u64.to_le_bytes(), "entries of"),
    ] {
        let mut disk = blank();
        gpt(&mut disk, &[(0, 40, 99)]);
        for lba in [1, SECTORS - 1] {
            let mut header = disk[lba * SECTOR..lba * SECTOR + 92].to_vec();
            put(&mut header, at, &bytes);
            seal(&mut header);
            put(&mut disk, lba * SECTOR, &header);
        }
        refused(run(&disk), why);
    }
}

#[test]
fn an_mbr_with_logical_partitions() {
    let mut disk = blank();
    mbr(&mut disk, 0, &[(0x83, 63, 100), (0, 0, 0), (0x0f, 200, 1000), (0x07, 2000, 96)]);
    mbr(&mut disk, 200, &[(0x83, 63, 37), (0x05, 300, 200)]);
    mbr(&mut disk, 500, &[(0x82, 1, 10), (0x05, 600, 100)]);
    mbr(&mut disk, 800, &[(0, 0, 0)]);
    let want = vec![entry(1, 63, 163), entry(4, 2000, 2096), entry(5, 263, 300), entry(6, 501, 511)];
    assert_eq!(run(&disk), Ok(want));
    let mut fresh = blank();
    mbr(&mut fresh, 0, &[(0x83, 1, 9), (0x05, 10, 10)]);
    assert_eq!(run(&fresh), Ok(vec![entry(1, 1, 10)]), "an extended partition without a chain");
}

#[test]
fn hostile_mbrs() {
    for (slots, why) in [
        (vec![(0x83, 1, 100), (0x83, 100, 100)], "overlap"),
        (vec![(0x83, 4000, 97)], "not on the disk"),
        (vec![(0x83, u32::MAX, u32::MAX)], "not on the disk"),
        (vec![(0x05, 10, 10), (0x0f, 30, 10)], "two extended"),
        (vec![(0x05, 5000, 10)], "not on the disk"),
    ] {
        let mut disk = blank();
        mbr(&mut disk, 0, &slots);
        refused(run(&disk), why);
    }
    for (chain, why) in [
        (vec![(0, 0, 0), (0x05, 0, 10)], "goes nowhere"),
        (vec![(0, 0, 0), (0x05, u32::MAX, 10)], "goes nowhere"),
        (vec![(0x83, 0, 10)], "not in the extended"),
        (vec![(0x83, 1, 900)], "not in the extended"),
    ] {
        let mut disk = blank();
        mbr(&mut disk, 0, &[(0x05, 100, 500)]);
        mbr(&mut disk, 100, &chain);
        refused(run(&disk), why);
    }
    let mut long = blank();
    mbr(&mut long, 0, &[(0x05, 1, 4000)]);
    for n in 0..2000 {
        mbr(&mut long, 1 + n, &[(0, 0, 0), (0x05, n as u32 + 1, 1)]);
    }
    refused(run(&long), "more than 128");
}

#[test]
fn a_disk_that_cannot_be_read() {
    assert_eq!(scan(100, |_, _| Err::<Vec<u8>, _>("dead")), Err(Refused::Read("dead")));
    let short = scan(100, |_, _| Ok::<_, Infallible>(vec![0; 100]));
    refused(short, "shorter");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// A good table with bytes changed: never a panic, and what is accepted lies on the disk without overlaps.
    #[test]
    fn changed_tables_are_refused_or_sound(
        kind in 0..2,
        changes in proptest::collection::vec((0usize..3 * 512, any::<u8>()), 0..8),
        sealed: bool,
    ) {
        let mut disk = blank();
        if kind == 0 {
            gpt(&mut disk, &[(0, 40, 99), (1, 100, 200)]);
        } else {
            mbr(&mut disk, 0, &[(0x83, 63, 100), (0x05, 200, 1000)]);
            mbr(&mut disk, 200, &[(0x83, 63, 37), (0x05, 300, 200)]);
        }
        for (at, byte) in changes {
            disk[at] = byte;
        }
        if sealed {
            let crc = crc32(&disk[2 * SECTOR..34 * SECTOR]);
            let mut header = disk[SECTOR..SECTOR + 92].to_vec();
            put(&mut header, 88, &crc.to_le_bytes());
            seal(&mut header);
            put(&mut disk, SECTOR, &header);
        }
        if let Ok(entries) = run(&disk) {
            let mut sorted = entries.clone();
            sorted.sort_by_key(|e| e.start);
            prop_assert!(sorted.iter().all(|e| e.start < e.end && e.end <= SECTORS as u64));
            prop_assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }

    #[test]
    fn random_disks_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let mut disk = bytes;
        disk.resize(4 * SECTOR, 0);
        put(&mut disk, 510, &[0x55, 0xaa]);
        for n in 0..4 {
            disk[446 + n * 16] &= 0x80;
        }
        let _ = run(&disk);
    }
}
