//! `partscan`: from the table on the disk to files, by hand and by itself.

use std::time::{Duration, Instant};

use aoefs::fs::errno::Errno;

use crate::host::Host;

/// A disk with an MBR of two partitions, the second of which is `second`.
pub fn write_table(host: &Host, (start, count): (u32, u32)) {
    write_record(host, 0, &[(0x83, 8, 100), (0x83, start, count)]);
}

/// The partitions of the target: what its directory lists after `data`.
fn parts(host: &Host) -> Vec<String> {
    host.names("1.0").into_iter().skip_while(|name| name != "data").skip(1).collect()
}

#[test]
fn partscan_declares_the_whole_table_or_nothing() {
    let host = Host::new();
    assert_eq!(host.echo("1.0/ctl", "partscan"), Err(Errno::ENOENT));
    assert!(host.log().contains("ctl line 1: partscan: no partition table"), "{}", host.log());
    write_table(&host, (50, 100));
    assert_eq!(host.echo("1.0/ctl", "partscan"), Err(Errno::EINVAL));
    assert!(host.log().contains("p1 and p2 overlap"), "{}", host.log());
    write_table(&host, (200, 56));
    host.echo("1.0/ctl", "part p2 0 1").unwrap();
    assert_eq!(host.echo("1.0/ctl", "partscan"), Err(Errno::EEXIST));
    assert_eq!(parts(&host), ["p2"], "p1 was taken back");
    assert!(
        host.log().contains("partscan: p2: part has given it another range; delpart p2 first"),
        "{}",
        host.log()
    );
    assert_eq!(host.echo("1.0/ctl", "delpart p2\npartscan\npartscan\n# twice is done"), Ok(44));
    assert_eq!((host.size("1.0/p1"), host.size("1.0/p2")), (100 * 512, 56 * 512));
    assert!(host.log().contains("1.0 partscan: p1 p2"));
    host.silence(true);
    host.echo("1.0/ctl", "deadline 1").unwrap();
    assert_eq!(host.echo("1.0/ctl", "partscan"), Err(Errno::EIO));
    host.end();
}

/// What is gone from the table goes, what moved is another partition; a file that is open on one of those refuses it
/// all.
#[test]
fn partscan_again_follows_the_table() {
    let host = Host::new();
    host.echo("1.0/ctl", "part mine 1000 2000").unwrap();
    write_record(&host, 0, &[(0x83, 8, 100), (0x83, 200, 56), (0x83, 300, 10)]);
    host.echo("1.0/ctl", "partscan").unwrap();
    let (stays, moves) = (host.open("1.0/p1"), host.open("1.0/p2"));
    write_record(&host, 0, &[(0x83, 8, 100), (0x83, 250, 56), (0, 0, 0), (0x83, 400, 5)]);
    assert_eq!(host.echo("1.0/ctl", "partscan"), Err(Errno::EBUSY));
    assert!(host.log().contains("partscan: p2: "), "{}", host.log());
    assert_eq!(parts(&host), ["mine", "p1", "p2", "p3"]);
    assert_eq!(host.write_at(moves, 0, &[7; 512]), Ok(512), "still the old range");
    host.core.release(moves);
    host.echo("1.0/ctl", "partscan").unwrap();
    assert_eq!(parts(&host), ["mine", "p1", "p2", "p4"]);
    let moved = host.open("1.0/p2");
    assert_eq!(host.write_at(moved, 0, &[8; 512]), Ok(512));
    let disk = host.disk();
    assert_eq!((disk[200 * 512], disk[250 * 512]), (7, 8));
    assert_eq!(host.write_at(stays, 0, &[9; 512]), Ok(512), "what stays is not touched");
    host.core.release(moved);
    host.core.release(stays);
    // A table that is empty has no partitions, and none are left over.
    write_record(&host, 0, &[]);
    assert_eq!(host.echo("1.0/ctl", "partscan"), Err(Errno::ENOENT));
    assert_eq!(parts(&host), ["mine"]);
    host.end();
}

#[test]
fn what_is_open_is_dropped_by_force_only() {
    let host = Host::new();
    host.echo("1.0/ctl", "part a 0 8").unwrap();
    let fh = host.open("1.0/a");
    assert_eq!(host.echo("1.0/ctl", "delpart a"), Err(Errno::EBUSY));
    assert_eq!(host.write_at(fh, 0, &[1; 512]), Ok(512));
    host.echo("1.0/ctl", "delpart -f a").unwrap();
    assert_eq!(host.write_at(fh, 0, &[1; 512]), Err(Errno::ESTALE));
    host.core.release(fh);
    assert_eq!(host.echo("1.0/ctl", "delpart -f a"), Err(Errno::ENOENT));
    host.echo("1.0/ctl", "part a 0 8\ndelpart a").unwrap();
    host.end();
}

#[test]
fn overlaps_are_said_and_options_are_no_names() {
    let host = Host::new();
    host.echo("1.0/ctl", "part a 0 8\npart b 8 16").unwrap();
    assert!(!host.log().contains("overlaps"), "{}", host.log());
    host.echo("1.0/ctl", "part c 7 9").unwrap();
    assert!(host.log().contains("1.0 part c overlaps a, sectors 0 to 8"), "{}", host.log());
    assert_eq!(host.echo("1.0/ctl", "part -rf 0 8"), Err(Errno::EINVAL));
    assert_eq!(host.echo("1.0/ctl", "delpart -rf"), Err(Errno::EINVAL));
    host.end();
}

/// Writes a boot record with these entries (type, start, size) to a sector.
fn write_record(host: &Host, at: u64, slots: &[(u8, u32, u32)]) {
    let mut sector = vec![0; 512];
    for (n, (kind, start, count)) in slots.iter().enumerate() {
        let at = 446 + n * 16;
        sector[at + 4] = *kind;
        sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&count.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let fh = host.open("1.0/data");
    assert_eq!(host.write_at(fh, at * 512, &sector), Ok(512));
    host.core.release(fh);
}

#[test]
fn partscan_follows_a_chain_of_records() {
    const LOGICAL: u32 = 100;
    let host = Host::new();
    write_record(&host, 0, &[(0x83, 8, 92), (0x05, 100, 8000)]);
    for n in 0..LOGICAL {
        let link = if n + 1 < LOGICAL { (0x05, (n + 1) * 10, 10) } else { (0, 0, 0) };
        write_record(&host, u64::from(100 + n * 10), &[(0x83, 1, n % 9 + 1), link]);
    }
    host.echo("1.0/ctl", "partscan").unwrap();
    assert_eq!(parts(&host).len(), 1 + LOGICAL as usize);
    assert_eq!((host.size("1.0/p5"), host.size("1.0/p104")), (512, 512));
    assert_eq!(host.size("1.0/p7"), 3 * 512);
    // The container keeps its number and has no file.
    assert_eq!(host.ino("1.0/p2"), Err(Errno::ENOENT));
    host.end();
}

#[test]
fn partscan_asks_the_end_of_the_disk_for_the_backup() {
    let host = Host::new();
    write_record(&host, 0, &[(0xee, 1, u32::MAX)]);
    assert_eq!(host.echo("1.0/ctl", "partscan"), Err(Errno::EINVAL));
    let why = "no sound GPT; primary: sector 1 is no header; backup: sector 8191 is no header";
    assert!(host.log().contains(why), "{}", host.log());
    host.end();
}

#[test]
fn partscan_takes_ten_seconds_at_most() {
    let host = Host::new();
    write_table(&host, (200, 56));
    host.echo("1.0/ctl", "nofail on").unwrap();
    host.silence(true);
    let start = Instant::now();
    assert_eq!(host.echo("1.0/ctl", "partscan"), Err(Errno::ETIMEDOUT));
    assert!((Duration::from_secs(10)..Duration::from_secs(15)).contains(&start.elapsed()));
    assert!(host.log().contains("partscan: no answer within 10 s"), "{}", host.log());
    // The read is answered in the end; nobody wants what it says any more.
    host.silence(false);
    let fh = host.open("1.0/data");
    assert_eq!(host.read_at(fh, 0, 1).unwrap().len(), 1);
    host.core.release(fh);
    assert_eq!(host.ino("1.0/p1"), Err(Errno::ENOENT));
    host.echo("1.0/ctl", "partscan").unwrap();
    assert!(host.ino("1.0/p1").is_ok());
    host.end();
}

#[test]
fn partitions_of_a_disk_that_appears() {
    let host = Host::with(|settings| settings.partscan = true);
    write_table(&host, (200, 56));
    host.echo("ctl", "remove 1.0\ndiscover").unwrap();
    host.eventually(|| host.ino("1.0/p2").is_ok());
    host.eventually(|| parts(&host) == ["p1", "p2"]);
    host.end();
}
