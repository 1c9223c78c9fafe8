//! The `raw` file against a target: SCSI and ATA commands, SMART, and what they do to the others.

use std::sync::Arc;

use aoefs::fs::errno::Errno;
use aoefs::wire::{Addr, Identify};

use super::host::{Host, SECTORS};

/// An open `raw`.
struct Raw<'a> {
    host: &'a Host,
    fh: u64,
}

impl<'a> Raw<'a> {
    fn new(host: &'a Host) -> Raw<'a> {
        Raw { host, fh: host.open("1.0/raw") }
    }

    fn write(&self, bytes: &[u8]) -> Result<u32, Errno> {
        // Offsets are ignored.
        self.host.write_at(self.fh, 12345, bytes)
    }

    fn read(&self, len: usize) -> Result<Vec<u8>, Errno> {
        self.host.read_at(self.fh, 1 << 40, len)
    }

    fn scsi(&self, cdb: &[u8], len: usize) -> (Vec<u8>, String) {
        assert_eq!(self.write(cdb), Ok(cdb.len() as u32), "{cdb:02x?}");
        let data = if len > 0 { self.read(len).unwrap() } else { Vec::new() };
        (data, String::from_utf8(self.read(16).unwrap()).unwrap())
    }

    fn scsi_out(&self, cdb: &[u8], data: &[u8]) -> (Result<u32, Errno>, String) {
        assert_eq!(self.write(cdb), Ok(cdb.len() as u32), "{cdb:02x?}");
        let wrote = self.write(data);
        (wrote, String::from_utf8(self.read(16).unwrap()).unwrap())
    }

    /// A command, its data if it has some, and its status.
    fn ata(&self, protocol: u8, command: u8, set: &[(usize, u8)], len: usize) -> (Vec<u8>, Vec<u8>) {
        let fis = fis(protocol, command, set);
        assert_eq!(self.write(&fis), Ok(18), "{fis:02x?}");
        let data = if len > 0 { self.read(len).unwrap() } else { Vec::new() };
        (data, self.read(18).unwrap())
    }

    fn end(self) {
        self.host.core.release(self.fh);
    }
}

fn fis(protocol: u8, command: u8, set: &[(usize, u8)]) -> Vec<u8> {
    let mut out = vec![0; 18];
    out[..5].copy_from_slice(&[0xff, protocol, 0x27, 0x80, command]);
    for (at, byte) in set {
        out[2 + at] = *byte;
    }
    out
}

const SMART: [(usize, u8); 2] = [(5, 0x4f), (6, 0xc2)];

#[test]
fn one_at_a_time_and_only_while_it_is_up() {
    let host = Host::new();
    let raw = Raw::new(&host);
    assert_eq!(host.try_open("1.0/raw", libc::O_RDONLY), Err(Errno::EBUSY));
    raw.end();
    Raw::new(&host).end();
    host.echo("1.0/ctl", "deadline 1").unwrap();
    host.silence(true);
    let fh = host.open("1.0/data");
    assert_eq!(host.read_at(fh, 0, 1), Err(Errno::EIO));
    assert_eq!(host.try_open("1.0/raw", libc::O_RDWR), Err(Errno::ENXIO));
    host.silence(false);
    host.eventually(|| host.try_open("1.0/raw", libc::O_RDWR).map(|fh| host.core.release(fh)).is_ok());
    host.core.release(fh);
    host.end();
}

#[test]
fn scsi_describes_reads_and_writes_the_disk() {
    let host = Host::new();
    let raw = Raw::new(&host);
    assert_eq!(raw.scsi(&[0; 6], 0), (vec![], "0\n".into()));
    let (inquiry, status) = raw.scsi(&[0x12, 0, 0, 0, 36, 0], 255);
    assert_eq!((inquiry.len(), status.as_str()), (36, "0\n"));
    assert_eq!(&inquiry[8..28], b"ATA     aoefs target");
    let (capacity, _) = raw.scsi(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8);
    assert_eq!(capacity, [0, 0, 0x1f, 0xff, 0, 0, 2, 0]);
    let data = host.open("1.0/data");
    let bytes: Vec<u8> = (0..2048 * 512).map(|n| (n / 7 % 251) as u8).collect();
    // WRITE(10), forced to the medium, as large as a transfer gets; READ(16) brings it back, and data has it.
    let (wrote, status) = raw.scsi_out(&[0x2a, 8, 0, 0, 0, 3, 0, 8, 0, 0], &bytes);
    assert_eq!((wrote, status.as_str()), (Ok(1 << 20), "0\n"));
    assert!(host.target.processor.lock().counters().flushes > 0);
    let (back, status) = raw.scsi(&[0x88, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 8, 0, 0, 0], 1 << 20);
    assert!(back == bytes && status == "0\n");
    assert!(host.read_at(data, 3 * 512, 1 << 20).unwrap() == bytes);
    assert_eq!(raw.scsi(&[0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0).1, "0\n");
    // The last sector, and one too many.
    let last = (SECTORS - 1).to_be_bytes();
    let mut cdb = [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
    cdb[2..10].copy_from_slice(&last);
    assert_eq!(raw.scsi(&cdb, 512), (vec![0; 512], "0\n".into()));
    cdb[13] = 2;
    assert_eq!(raw.scsi(&cdb, 1024), (vec![], "2\n".into()));
    let (sense, _) = raw.scsi(&[3, 0, 0, 0, 18, 0], 18);
    assert_eq!((sense[2], sense[12], sense[13]), (5, 0x21, 0));
    // MODE SENSE: what almost everybody has, and we do not.
    assert_eq!(raw.scsi(&[0x1a, 0, 0x3f, 0, 192, 0], 192), (vec![], "2\n".into()));
    let (sense, _) = raw.scsi(&[3, 0, 0, 0, 18, 0], 18);
    assert_eq!((sense[2], sense[12], sense[13]), (5, 0x20, 0));
    host.core.release(data);
    raw.end();
    host.end();
}

#[test]
fn ata_identifies_the_disk_and_tells_its_health() {
    let host = Host::new();
    let raw = Raw::new(&host);
    let (ident, status) = raw.ata(0x25, 0xec, &[], 512);
    assert_eq!(status[..5], [0, 0, 0x34, 0, 0x40]);
    assert_eq!(Identify::parse(&ident).unwrap().serial.as_str(), "one");
    // SMART RETURN STATUS: healthy. CHECK POWER MODE: active.
    let (_, status) = raw.ata(0x20, 0xb0, &[&[(3, 0xda)], &SMART[..]].concat(), 0);
    assert_eq!((status[0], status[7], status[8]), (0, 0x4f, 0xc2));
    let (_, status) = raw.ata(0x20, 0xe5, &[(12, 1)], 0);
    assert_eq!((status[0], status[14]), (0, 0xff));
    // SMART READ DATA: the sum of all bytes is zero, and attribute 241 counts what was written.
    let data = host.open("1.0/data");
    assert_eq!(host.write_at(data, 0, &[1; 4096]), Ok(4096));
    let (table, status) = raw.ata(0x25, 0xb0, &[&[(3, 0xd0)], &SMART[..]].concat(), 512);
    assert_eq!(status[0], 0);
    assert_eq!(table.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    let written = table[2..362].chunks(12).find(|entry| entry[0] == 241).unwrap();
    assert_eq!(written[5..11], [8, 0, 0, 0, 0, 0]);
    // SMART off: READ DATA is aborted, nothing comes back, and the status says so. On again.
    assert_eq!(raw.ata(0, 0xb0, &[&[(3, 0xd9)], &SMART[..]].concat(), 0).1[0], 0);
    let (table, status) = raw.ata(0x25, 0xb0, &[&[(3, 0xd0)], &SMART[..]].concat(), 512);
    assert_eq!((table.len(), &status[..6]), (0, &[2, 0, 0x34, 0, 0x41, 4][..]));
    assert_eq!(raw.ata(0, 0xb0, &[&[(3, 0xd8)], &SMART[..]].concat(), 0).1[0], 0);
    // The write cache off, and flushes.
    assert_eq!(raw.ata(0, 0xef, &[(3, 0x82)], 0).1[0], 0);
    let (ident, _) = raw.ata(5, 0xec, &[], 512);
    assert!(!Identify::parse(&ident).unwrap().write_cache);
    assert_eq!(raw.ata(0, 0xea, &[], 0).1[0], 0);
    // No such command.
    assert_eq!(raw.ata(0, 0x8e, &[], 0).1[..6], [2, 0, 0x34, 0, 0x41, 4]);
    host.core.release(data);
    raw.end();
    host.end();
}

#[test]
fn ata_moves_sectors_in_one_frame_and_in_many() {
    let host = Host::new();
    let raw = Raw::new(&host);
    let data = host.open("1.0/data");
    for (write, read, sectors) in [(0x35, 0x25, 3u8), (0x34, 0x24, 16), (0x35, 0x24, 17), (0xca, 0xc8, 200)] {
        let bytes: Vec<u8> = (0..usize::from(sectors) * 512).map(|n| (n % 253) as u8 ^ sectors).collect();
        let at = [(4, 9), (7, 0x40), (12, sectors)];
        assert_eq!(raw.write(&fis(2, write, &at)), Ok(18));
        assert_eq!(raw.write(&bytes), Ok(bytes.len() as u32));
        assert_eq!(raw.read(18).unwrap()[..5], [0, 0, 0x34, 0, 0x40]);
        assert!(host.read_at(data, 9 * 512, bytes.len()).unwrap() == bytes);
        let (back, status) = raw.ata(1, read, &at, bytes.len());
        assert!(back == bytes && status[0] == 0, "{sectors}");
    }
    // TRIM of sector 9: 512 bytes of ranges.
    let mut ranges = vec![0; 512];
    ranges[..8].copy_from_slice(&(9u64 | 1 << 48).to_le_bytes());
    assert_eq!(raw.write(&fis(2, 0x06, &[(3, 1), (12, 1)])), Ok(18));
    assert_eq!(raw.write(&ranges), Ok(512));
    assert_eq!(raw.read(18).unwrap()[0], 0);
    assert_eq!(host.read_at(data, 9 * 512, 512).unwrap(), [0; 512]);
    // Beyond the end: the target's own registers for a frame, ours for more.
    for sectors in [1, 100] {
        let (back, status) = raw.ata(1, 0x24, &[(5, 0x20), (12, sectors)], usize::from(sectors) * 512);
        assert_eq!((back.len(), &status[..6]), (0, &[2, 0, 0x34, 0, 0x41, 0x10][..]));
    }
    host.core.release(data);
    raw.end();
    host.end();
}

/// What a raw command changes, no name has cached any more when its write returns.
#[test]
fn changes_below_drop_what_is_cached() {
    let host = Host::new();
    host.echo("1.0/ctl", "part boot 8 16").unwrap();
    let (data, boot) = (host.open("1.0/data"), host.open("1.0/boot"));
    let (d, b) = (host.ino("1.0/data").unwrap(), host.ino("1.0/boot").unwrap());
    let page_in = || {
        host.page_in(data, 0, 8192).unwrap();
        host.page_in(boot, 0, 4096).unwrap();
    };
    page_in();
    let raw = Raw::new(&host);
    let told = || host.told();
    told();
    raw.scsi_out(&[0x2a, 0, 0, 0, 0, 7, 0, 0, 2, 0], &[1; 1024]).0.unwrap();
    let pages =
        |told: Vec<super::host::Dropped>| told.into_iter().filter(|t| t.1.is_some()).collect::<Vec<_>>();
    assert_eq!(pages(told()), [(d, Some((0, 8192))), (b, Some((0, 4096)))]);
    page_in();
    assert_eq!(raw.write(&fis(2, 0x34, &[(4, 2), (12, 1)])), Ok(18));
    raw.write(&[2; 512]).unwrap();
    assert_eq!(pages(told()), [(d, Some((0, 4096)))]);
    raw.read(18).unwrap();
    // Looking changes nothing; what nobody knows may have changed everything.
    raw.ata(1, 0xec, &[], 512);
    assert_eq!(pages(told()), []);
    raw.ata(0, 0x8e, &[], 0);
    assert_eq!(pages(told()).len(), 2);
    raw.end();
    host.core.release(boot);
    host.core.release(data);
    host.end();
}

#[test]
fn read_only_mounts_look_and_do_not_touch() {
    let host = Host::with(|settings| settings.read_only = true);
    let raw = Raw::new(&host);
    assert_eq!(raw.ata(0x25, 0xec, &[], 512).1[0], 0);
    let (wrote, status) = raw.scsi_out(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0], &[1; 512]);
    assert_eq!((wrote, status.as_str()), (Err(Errno::EIO), "2\n"));
    assert_eq!(raw.write(&fis(2, 0x34, &[(12, 1)])), Ok(18));
    assert_eq!(raw.write(&[1; 512]), Err(Errno::EIO));
    assert_eq!(raw.read(18).unwrap()[..6], [2, 0, 0x34, 0, 0x41, 4]);
    assert_eq!(host.target.processor.lock().counters().sectors_written, 0);
    raw.end();
    host.end();
}

#[test]
fn another_disk_is_stale_and_a_reserved_one_busy() {
    let host = Host::new();
    let raw = Raw::new(&host);
    let other = host.beside();
    other.echo("1.0/reserve", "take").unwrap();
    assert_eq!(raw.write(&fis(0, 0xe7, &[])), Err(Errno::EBUSY));
    assert_eq!(raw.write(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Ok(10));
    assert_eq!(raw.read(512), Err(Errno::EBUSY));
    // RESERVATION CONFLICT.
    assert_eq!(raw.read(16).unwrap(), b"24\n");
    other.echo("1.0/reserve", "release").unwrap();
    host.swap("two", SECTORS);
    host.eventually(|| {
        host.runtime.inspect(&host.runtime.unit(Addr::new(1, 0)).unwrap(), |d| d.generation() == 2)
    });
    assert_eq!(raw.write(&fis(0, 0xe7, &[])), Err(Errno::ESTALE));
    assert_eq!(raw.write(&[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), Ok(10));
    assert_eq!(raw.read(512), Err(Errno::ESTALE));
    assert_eq!(raw.read(16).unwrap(), b"2\n");
    raw.end();
    let raw = Raw::new(&host);
    assert_eq!(raw.ata(0, 0xe7, &[], 0).1[0], 0);
    raw.end();
    other.end();
    host.end();
}

/// A command is on its way: a program that comes in between is told so, and the command ends as it should.
#[test]
fn what_comes_in_between_is_busy() {
    let host = Host::new();
    host.echo("1.0/ctl", "deadline 2").unwrap();
    let raw = Raw::new(&host);
    host.silence(true);
    let (core, fh) = (host.core.clone(), raw.fh);
    let (tx, rx) = std::sync::mpsc::channel();
    core.write(fh, 0, &fis(0, 0xb0, &[&[(3, 0xda)], &SMART[..]].concat()), false, move |done| {
        tx.send(done).unwrap();
    });
    assert_eq!(raw.read(18), Err(Errno::EBUSY));
    assert_eq!(raw.write(&[0; 6]), Err(Errno::EBUSY));
    host.silence(false);
    assert_eq!(rx.recv().unwrap(), Ok(18));
    assert_eq!(raw.read(18).unwrap()[0], 0);
    // It is closed while a command is on its way, and opened by the next.
    host.silence(true);
    let (tx, rx) = std::sync::mpsc::channel();
    core.write(fh, 0, &fis(0, 0xe5, &[]), false, move |done| tx.send(done).unwrap());
    raw.end();
    let raw = Raw::new(&host);
    host.silence(false);
    assert_eq!(rx.recv().unwrap(), Ok(18));
    assert_eq!(raw.read(18).unwrap(), b"", "its own conversation");
    raw.end();
    drop(core);
    // The thread that gave the answer lets go of it a moment later.
    host.eventually(|| Arc::strong_count(&host.core) == 1);
    host.end();
}

/// What others have written may be lost with a flush that somebody made through `raw`: their next fsync says so, once.
#[test]
fn sync_errors_of_raw_flushes_reach_open_files() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    assert_eq!(host.sync(fh), Ok(()));
    let raw = Raw::new(&host);
    let failing = |on| host.target.unflushed.store(on, std::sync::atomic::Ordering::SeqCst);
    failing(true);
    assert_ne!(raw.ata(0, 0xe7, &[], 0).1[0], 0);
    failing(false);
    assert_eq!((host.sync(fh), host.sync(fh)), (Err(Errno::EIO), Ok(())));
    assert_eq!(raw.ata(0, 0xe7, &[], 0).1[0], 0);
    assert_eq!(host.sync(fh), Ok(()));
    raw.end();
    host.core.release(fh);
    host.end();
}
