//! What a file of a disk promises to programs: sizes, ends, truncation, fsync, mmap, fallocate, and an errno for each
//! refusal.

use crate::bed::mount::{errno, try_open};
use crate::bed::raw::Port;
use crate::bed::record::Recorder;
use crate::bed::stage::One;
use crate::bed::{MIB, proc};
use aoefs::wire::ata::cmd;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

crate::tests![
    files_have_the_modes_and_sizes_of_the_design,
    integrity_reads_and_writes_at_the_end,
    integrity_truncation_keeps_the_size_and_zeroes_what_is_skipped,
    sync_reaches_the_wire,
    integrity_mappings,
    sync_writes_reach_the_wire,
    fallocate_does_what_it_says_or_says_no,
    names_cannot_be_made_or_moved,
    integrity_direct_io_of_every_alignment,
];

const DISK: usize = 16 * MIB;
const STEP: Duration = Duration::from_secs(30);

fn one() -> One {
    One::new(&[], DISK)
}

fn files_have_the_modes_and_sizes_of_the_design() {
    let one = one();
    let root = one.mount.path();
    let mode = |name: &str| std::fs::metadata(root.join(name)).unwrap().mode();
    for (name, want) in [
        (".", 0o40755),
        ("ctl", 0o100_644),
        ("log", 0o100_444),
        ("1.0", 0o40755),
        ("1.0/ctl", 0o100_644),
        ("1.0/data", 0o100_640),
        ("1.0/config", 0o100_644),
        ("1.0/ident", 0o100_444),
        ("1.0/devlink/0", 0o100_444),
    ] {
        let got = std::fs::metadata(root.join(name)).map(|meta| meta.mode());
        assert_eq!(got.ok(), Some(want), "{name}: {want:o} wanted");
    }
    assert_eq!(mode("1.0/devlink"), 0o40755);
    let data = std::fs::metadata(one.unit.data()).unwrap();
    assert_eq!((data.len(), data.blocks(), data.blksize()), (DISK as u64, DISK as u64 / 512, 1 << 20));
    assert_eq!(one.unit.size("ident"), 512);
    assert_eq!(std::fs::read(one.unit.file("ident")).unwrap().len(), 512);
    let stat = nix::sys::statvfs::statvfs(root).unwrap();
    assert_eq!((stat.block_size(), stat.fragment_size()), (4096, 4096));
    assert_eq!((stat.blocks(), stat.blocks_free(), stat.name_max()), (0, 0, 255));
    // Two opens of one disk are one file to a program that compares inode numbers, two disks are not.
    let other = one.bed.image("other", MIB);
    let mut one = one;
    one.bed.vblade("1.1", "v1", &other);
    one.mount.wait_for("1.1", Duration::from_secs(2));
    let inode = |name: &str| std::fs::metadata(one.mount.path().join(name)).unwrap().ino();
    assert_eq!(inode("1.0/data"), inode("1.0/data"));
    assert_ne!(inode("1.0/data"), inode("1.1/data"));
    one.done();
}

fn integrity_reads_and_writes_at_the_end() {
    let one = one();
    let (file, len) = (one.unit.open("data"), DISK as u64);
    let disk = one.disk();
    let mut got = vec![0; 1000];
    assert_eq!(file.read_at(&mut got, len - 10).unwrap(), 10);
    assert!(got[..10] == disk[DISK - 10..]);
    assert_eq!(file.read_at(&mut got, len).unwrap(), 0);
    assert_eq!(file.read_at(&mut got, len + 12345).unwrap(), 0);
    assert_eq!(file.write_at(&[1; 1000], len - 10).unwrap(), 10);
    assert_eq!(errno(file.write_at(&[1; 1000], len)), libc::ENOSPC);
    assert_eq!(errno(file.write_at(&[1; 1], len + 4096)), libc::ENOSPC);
    assert_eq!(one.disk()[DISK - 10..], [1; 10]);
    let mut end = one.unit.open("data");
    assert_eq!(end.seek(SeekFrom::End(0)).unwrap(), len);
    // `cat >>` has nowhere to go.
    let append = try_open(&one.unit.data(), libc::O_APPEND).unwrap().write(b"x");
    assert_eq!(errno(append), libc::ENOSPC);
    drop((file, end));
    one.done();
}

fn integrity_truncation_keeps_the_size_and_zeroes_what_is_skipped() {
    let one = one();
    let file = one.unit.open("data");
    file.set_len(0).unwrap();
    file.set_len(1000).unwrap();
    file.set_len(DISK as u64).unwrap();
    assert_eq!(errno(file.set_len(DISK as u64 + 1)), libc::ENOSPC);
    drop(file);
    let before = one.disk();
    assert_eq!(one.unit.size("data"), DISK as u64);
    // O_TRUNC alone changes nothing; a write behind the mark makes zeros of what it skips.
    drop(try_open(&one.unit.data(), libc::O_TRUNC).unwrap());
    assert!(one.disk() == before, "O_TRUNC alone wrote something");
    let file = try_open(&one.unit.data(), libc::O_TRUNC).unwrap();
    file.write_all_at(b"abc", 10_001).unwrap();
    file.set_len(30_000).unwrap();
    file.sync_all().unwrap();
    drop(file);
    let mut want = before.clone();
    want[..30_000].fill(0);
    want[10_001..10_004].copy_from_slice(b"abc");
    let got = one.disk();
    assert!(got == want, "first difference at {:?}", got.iter().zip(&want).position(|(a, b)| a != b));
    assert!(std::fs::read(one.unit.data()).unwrap() == want, "a read without O_DIRECT shows something else");
    proc::sh(STEP, &format!("echo hello >{}", one.unit.data().display()));
    assert!(one.disk().starts_with(b"hello\n"));
    assert!(one.disk()[6..] == want[6..]);
    one.done();
}

fn sync_reaches_the_wire() {
    let one = one();
    let recorder = Recorder::start(Port::open(&one.bed.tgt, "v1"));
    let mut file = one.unit.open("data");
    for n in 0..3 {
        file.write_all_at(&[n; 100], 5000).unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
    }
    file.flush().unwrap();
    drop(file);
    let frames = recorder.stop();
    let flushes = frames.iter().filter(|frame| frame.is_request(cmd::FLUSH)).count();
    // vblade says in IDENTIFY that it has FLUSH CACHE and no FLUSH CACHE EXT.
    assert_eq!(flushes, 6, "FLUSH CACHE frames for 6 calls of fsync");
    assert_eq!(frames.iter().filter(|frame| frame.is_request(cmd::FLUSH_EXT)).count(), 0);
    one.done();
}

/// O_DSYNC and O_SYNC, buffered or not: each write is flushed before it is answered.
fn sync_writes_reach_the_wire() {
    let one = one();
    let recorder = Recorder::start(Port::open(&one.bed.tgt, "v1"));
    let mut writes = 0;
    for flags in [libc::O_DSYNC, libc::O_SYNC, libc::O_DSYNC | libc::O_DIRECT] {
        let file = one.unit.open_with("data", flags);
        let mut block = crate::tools::fsx::Aligned::new(4096);
        for n in 0..3 {
            block.bytes().fill(n);
            file.write_all_at(block.bytes(), u64::from(n) * 4096).unwrap();
            writes += 1;
        }
    }
    let frames = recorder.stop();
    assert_eq!(frames.iter().filter(|frame| frame.is_request(cmd::FLUSH)).count(), writes);
    one.done();
}

/// Shared mappings would hold changed pages in memory; private ones are pages of their own, and show what the disk
/// has when they are first touched. A mount that cannot write allows both.
fn integrity_mappings() {
    let one = one();
    let script = "import errno,mmap,sys
def refused(prot,flags):
    try: mmap.mmap(f.fileno(),1<<20,offset=1<<20,flags=flags,prot=prot)
    except OSError as e: return e.errno
f=open(sys.argv[1],'r+b',buffering=0)
read,both=mmap.PROT_READ,mmap.PROT_READ|mmap.PROT_WRITE
assert refused(both,mmap.MAP_SHARED)==errno.ENODEV
assert refused(read,mmap.MAP_SHARED)==errno.ENODEV
m=mmap.mmap(f.fileno(),1<<20,offset=1<<20,flags=mmap.MAP_PRIVATE,prot=both)
assert m[:4096]==open(sys.argv[2],'rb').read()[1<<20:(1<<20)+4096]
m[5000:5005]=b'hello'
f.seek((1<<20)+8192); f.write(b'x'*4096)
n=mmap.mmap(f.fileno(),1<<20,offset=1<<20,flags=mmap.MAP_PRIVATE,prot=both)
assert n[8192:8197]==b'xxxxx' and m[8192:8197]==b'xxxxx' and n[5000:5005]!=b'hello'";
    if !proc::have("python3") {
        crate::bed::skip("python3 is not installed");
    }
    let (data, image) = (one.unit.data(), one.image.clone());
    let before = one.disk();
    proc::ok(STEP, &["python3", "-c", script, data.to_str().unwrap(), image.to_str().unwrap()]);
    assert!(one.disk()[MIB + 8192..MIB + 8192 + 4096] == [b'x'; 4096]);
    assert!(one.disk()[MIB..MIB + 8192] == before[MIB..MIB + 8192], "a private change has left");
    one.done();
}

/// fallocate(2) with a mode: 0 or the errno.
fn fallocate(file: &File, mode: i32, at: u64, len: u64) -> i32 {
    // SAFETY: a plain system call on an open descriptor; no memory is involved.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), mode, at.cast_signed(), len.cast_signed()) };
    if result == 0 { 0 } else { std::io::Error::last_os_error().raw_os_error().unwrap() }
}

fn fallocate_does_what_it_says_or_says_no() {
    let one = one();
    let file = one.unit.open("data");
    let mut want = one.disk();
    assert_eq!(fallocate(&file, 0, 0, DISK as u64), 0);
    assert_eq!(fallocate(&file, 0, 0, DISK as u64 + 1), libc::ENOSPC);
    assert_eq!(fallocate(&file, libc::FALLOC_FL_ZERO_RANGE, 1001, 3 * MIB as u64), 0);
    want[1001..1001 + 3 * MIB].fill(0);
    assert_eq!(fallocate(&file, libc::FALLOC_FL_ZERO_RANGE, DISK as u64 - 100, 101), libc::ENOSPC);
    // vblade has no TRIM.
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    assert_eq!(fallocate(&file, punch, 0, 1 << 20), libc::EOPNOTSUPP);
    assert_eq!(fallocate(&file, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096), libc::EOPNOTSUPP);
    assert_eq!(fallocate(&file, libc::FALLOC_FL_INSERT_RANGE, 0, 4096), libc::EOPNOTSUPP);
    assert!(one.disk() == want);
    drop(file);
    one.done();
}

fn names_cannot_be_made_or_moved() {
    let one = one();
    let unit = one.unit.path().to_path_buf();
    let at = |name: &str| unit.join(name);
    assert_eq!(errno(File::create(at("new"))), libc::EPERM);
    assert_eq!(errno(std::fs::create_dir(at("dir"))), libc::EPERM);
    assert_eq!(errno(std::fs::remove_file(at("data"))), libc::EPERM);
    assert_eq!(errno(std::fs::rename(at("data"), at("other"))), libc::EPERM);
    assert_eq!(errno(std::fs::hard_link(at("data"), at("link"))), libc::EPERM);
    assert_eq!(errno(std::os::unix::fs::symlink("data", at("sym"))), libc::EPERM);
    assert_eq!(errno(std::fs::create_dir(one.mount.path().join("2.0"))), libc::EPERM);
    assert_eq!(errno(File::open(at("nothing"))), libc::ENOENT);
    assert!(std::fs::metadata(at("data")).unwrap().len() == DISK as u64);
    one.done();
}

fn integrity_direct_io_of_every_alignment() {
    let one = one();
    let mut model = one.disk();
    let file = one.unit.open_with("data", libc::O_DIRECT);
    let mut rng = crate::bed::Rng::new(41);
    let mut buffer = crate::tools::fsx::Aligned::new(2 * MIB);
    for (n, at, len) in (0..400).map(|n| {
        (n, rng.below((DISK - 2 * MIB) as u64), 1 + rng.below(if n % 7 == 0 { 2 << 20 } else { 20_000 }))
    }) {
        let piece = &mut buffer.bytes()[..len as usize];
        let range = at as usize..(at + len) as usize;
        if n % 2 == 0 {
            crate::bed::Rng::new(n).fill(piece);
            file.write_all_at(piece, at).unwrap();
            model[range].copy_from_slice(piece);
        } else {
            file.read_exact_at(piece, at).unwrap();
            assert!(*piece == model[range], "read {n} of {at}+{len}");
        }
    }
    assert!(one.disk() == model);
    let mut whole = Vec::new();
    one.unit.open("data").read_to_end(&mut whole).unwrap();
    assert!(whole == model, "a read without O_DIRECT shows something else");
    drop(file);
    one.done();
}
