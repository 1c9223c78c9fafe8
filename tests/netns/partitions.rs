//! Partitions: a window on the disk, byte for byte, that never lets anything through to its neighbours.

use crate::bed::fio::Fio;
use crate::bed::mount::{errno, try_open};
use crate::bed::stage::One;
use crate::bed::{MIB, proc};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::time::Duration;

crate::tests![
    partition_shows_its_sectors_byte_for_byte,
    partition_never_touches_a_neighbour(120),
    identity_deleted_partition_is_stale_to_who_has_it_open,
    partition_tables_are_refused_whole,
    integrity_partitions_and_data_show_one_disk,
];

const DISK: usize = 16 * MIB;
const STEP: Duration = Duration::from_secs(60);

fn one() -> One {
    One::new(&["fio"], DISK)
}

fn partition_shows_its_sectors_byte_for_byte() {
    let one = one();
    let disk = one.disk();
    for (name, start, end) in
        [("a", 0, 1), ("b", 1, 8), ("boot", 2048, 4097), ("odd.+-_", 4097, 4098), ("z", 30_000, 32_768)]
    {
        one.unit.ctl_ok(&format!("part {name} {start} {end}"));
        assert_eq!(one.unit.size(name), (end - start) * 512);
        let got = std::fs::read(one.unit.file(name)).unwrap();
        assert_eq!(got.len() as u64, (end - start) * 512);
        assert!(got == disk[start as usize * 512..end as usize * 512], "{name} does not show its sectors");
        let mut tail = Vec::new();
        let mut file = one.unit.open(name);
        file.seek(SeekFrom::Start((end - start) * 512 - 100)).unwrap();
        file.read_to_end(&mut tail).unwrap();
        assert!(tail == disk[end as usize * 512 - 100..end as usize * 512]);
        assert!(
            one.unit.read("ctl").contains(&format!("part {name} {start} {end}\n")),
            "{}",
            one.unit.read("ctl")
        );
    }
    // The same again is done; another range under the name is not.
    one.unit.ctl_ok("part boot 2048 4097");
    assert_eq!(errno(one.unit.ctl("part boot 2048 4098")), libc::EEXIST);
    one.done();
}

fn partition_never_touches_a_neighbour() {
    let one = one();
    let (start, end) = (4099usize, 20_003usize);
    one.unit.ctl_ok(&format!("part middle {start} {end}"));
    let before = one.disk();
    let len = ((end - start) * 512) as u64;
    let file = one.unit.open("middle");
    // Every byte and both edges, aligned and not.
    let all = one.bed.image("all", len as usize);
    proc::sh(STEP, &format!("cp {} {}", all.display(), one.unit.file("middle").display()));
    file.write_all_at(b"first", 0).unwrap();
    file.write_all_at(b"last", len - 4).unwrap();
    // Across the end: cut there. At and behind it: no space.
    assert_eq!(file.write_at(&[7; 1000], len - 10).unwrap(), 10);
    assert_eq!(errno(file.write_at(&[7; 10], len)), libc::ENOSPC);
    assert_eq!(errno(file.write_at(&[7; 10], len + 512)), libc::ENOSPC);
    assert_eq!(file.read_at(&mut [0; 10], len).unwrap(), 0);
    assert_eq!(errno(file.set_len(len + 1)), libc::ENOSPC);
    // The end moves with where `dd` seeks to: it must not get there either.
    let output = proc::run(
        STEP,
        &[
            "dd",
            "if=/dev/urandom",
            "bs=1M",
            "count=32",
            "status=none",
            &format!("of={}", one.unit.file("middle").display()),
        ],
    );
    assert!(!output.ok() && output.stderr.contains("No space left"), "{}", output.stderr);
    Fio::verify(&one.unit.file("middle"), 2, 3).run();
    let after = one.disk();
    assert!(before[..start * 512] == after[..start * 512], "the canary in front is dead");
    assert!(before[end * 512..] == after[end * 512..], "the canary behind is dead");
    assert!(before[start * 512..end * 512] != after[start * 512..end * 512]);
    drop(file);
    one.done();
}

fn identity_deleted_partition_is_stale_to_who_has_it_open() {
    let one = one();
    one.unit.ctl_ok("part swap 100 200");
    let mut old = one.unit.open("swap");
    let mut first = [0; 512];
    old.read_exact(&mut first).unwrap();
    one.unit.ctl_ok("delpart -f swap");
    assert!(!one.unit.file("swap").exists());
    let stale = |file: &File, when: &str| {
        let direct = [(0, "reading"), (50 * 512, "reading further")];
        for (at, what) in direct {
            assert_eq!(errno(file.read_at(&mut [0; 512], at)), libc::ESTALE, "{what} {when}");
        }
        assert_eq!(errno(file.write_at(&[1; 512], 0)), libc::ESTALE, "writing {when}");
        assert_eq!(errno(file.sync_all()), libc::ESTALE, "fsync {when}");
    };
    stale(&old, "after the delete");
    // The same name elsewhere: the old handle never reaches the new range.
    one.unit.ctl_ok("part swap 1000 1100");
    let before = one.disk();
    stale(&old, "after the name came back");
    assert!(before == one.disk());
    let new = one.unit.open("swap");
    new.write_all_at(b"new", 0).unwrap();
    new.sync_all().unwrap();
    assert_eq!(&one.disk()[1000 * 512..1000 * 512 + 3], b"new");
    drop((old, new));
    assert_eq!(errno(one.unit.ctl("delpart swap2")), libc::ENOENT);
    one.done();
}

fn partition_tables_are_refused_whole() {
    let one = one();
    let sectors = DISK / 512;
    let table = one.unit.read("ctl");
    for (line, want) in [
        ("part", libc::EINVAL),
        ("part x", libc::EINVAL),
        ("part x 0", libc::EINVAL),
        ("part x 5 5", libc::EINVAL),
        ("part x 6 5", libc::EINVAL),
        ("part x -1 5", libc::EINVAL),
        ("part x 0 99999999999999999999999", libc::EINVAL),
        (&format!("part x 0 {}", sectors + 1), libc::EINVAL),
        ("part a/b 0 1", libc::EINVAL),
        ("part . 0 1", libc::EINVAL),
        ("part .. 0 1", libc::EINVAL),
        ("part 1234567890123456789012345678 0 1", libc::EINVAL),
        ("part data 0 1", libc::EEXIST),
        ("part ctl 0 1", libc::EEXIST),
        ("delpart data", libc::ENOENT),
        ("delpart", libc::EINVAL),
        ("wibble", libc::EINVAL),
    ] {
        let log = one.mount.read("log").len();
        let got = errno(one.unit.ctl(line));
        let either =
            line == "delpart data" && [libc::EINVAL, libc::ENOENT, libc::EBUSY, libc::EPERM].contains(&got);
        assert!(got == want || either, "`{line}`: errno {got}, not {want}");
        assert!(one.mount.read("log").len() > log, "`{line}` left nothing in the log");
    }
    assert_eq!(one.unit.read("ctl"), table, "a refused line changed something");
    // Overlap is the owner's business, as it is with devsd.
    one.unit.ctl_ok("part low 0 1000");
    one.unit.ctl_ok("part over 0x1f4 01750"); // 500 and 1000, as strtoull base 0
    assert_eq!(one.unit.size("over"), 500 * 512);
    one.done();
}

fn integrity_partitions_and_data_show_one_disk() {
    let one = one();
    one.unit.ctl_ok("part low 0 3000");
    one.unit.ctl_ok("part high 2000 32768");
    let names = [("data", 0), ("low", 0), ("high", 2000 * 512)];
    let files = names.map(|(name, start)| (one.unit.open(name), start));
    // Every file has the page in the cache; whichever is written through, all others show it.
    for round in 0..30u64 {
        let at = 2000 * 512 + 1000 + round * 7;
        let (writer, base) = &files[round as usize % 3];
        let text = format!("round {round}");
        for (file, start) in &files {
            file.read_exact_at(&mut [0; 4096], at - start).unwrap();
        }
        writer.write_all_at(text.as_bytes(), at - base).unwrap();
        for (file, start) in &files {
            let mut got = vec![0; text.len()];
            file.read_exact_at(&mut got, at - start).unwrap();
            assert_eq!(String::from_utf8_lossy(&got), text);
        }
        assert_eq!(&one.disk()[at as usize..at as usize + text.len()], text.as_bytes());
    }
    // Text tools see it too.
    let mut file = try_open(&one.unit.file("low"), libc::O_APPEND).unwrap();
    file.write_all(b"x").map_or_else(|error| assert_eq!(error.raw_os_error(), Some(libc::ENOSPC)), |()| ());
    drop((file, files));
    one.done();
}
