//! Raw AoE frames against one target, as fast as it answers: no file system, no retransmission, no integrity. It
//! measures what a machine and a target can do, for `benches/compare`.
//!
//! `blast IF MAC SHELF.SLOT SECTORS WINDOW SECONDS read|write [rand]`

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aoefs::link::packet::{PacketLink, Role};
use aoefs::link::{BATCH, Batch, Link, OutFrame};
use aoefs::wire::{
    Addr, Ata, Command, DATA_OFFSET, ETHERNET, HEADER_LEN, Header, MIN_FRAME, Mac, SECTOR, Sector, Tag,
};

/// Silence after which the outstanding frames count as lost.
const LOST: Duration = Duration::from_millis(200);
/// The part of the disk that is used, in bytes.
const SPAN: u64 = 1 << 30;

struct Job {
    dst: Mac,
    addr: Addr,
    sectors: u8,
    window: usize,
    seconds: f64,
    write: bool,
    random: bool,
}

fn parse(args: &[String]) -> Option<(String, Job)> {
    let job = Job {
        dst: args.get(1)?.parse().ok()?,
        addr: args.get(2)?.parse().ok()?,
        sectors: args.get(3)?.parse().ok().filter(|n| *n > 0)?,
        window: args.get(4)?.parse().ok().filter(|n| *n > 0)?,
        seconds: args.get(5)?.parse().ok()?,
        write: args.get(6)? == "write",
        random: args.get(7).is_some_and(|a| a == "rand"),
    };
    Some((args.first()?.clone(), job))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, job)) = parse(&args) else {
        eprintln!("usage: blast IF MAC SHELF.SLOT SECTORS WINDOW SECONDS read|write [rand]");
        return ExitCode::from(2);
    };
    match PacketLink::open(&name, Role::Initiator) {
        Ok(link) => {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                // Wakes the receiver where answers are lost.
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::thread::sleep(LOST / 2);
                        link.wake();
                    }
                });
                run(&link, &job);
                over.store(true, Ordering::Relaxed);
            });
        }
        Err(error) => {
            eprintln!("blast: {name}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The header and argument of the next frame.
fn head(job: &Job, src: Mac, tag: u32, at: u64, out: &mut [u8; MIN_FRAME]) -> usize {
    let header = Header {
        dst: job.dst,
        src,
        version: 1,
        response: false,
        error: None,
        addr: job.addr,
        command: Command::Ata,
        tag: Tag(tag | Tag::OURS),
    };
    out.fill(0);
    header.emit(&mut out[..HEADER_LEN]);
    let ata = if job.write {
        Ata::write(Sector(at), job.sectors, true)
    } else {
        Ata::read(Sector(at), job.sectors, true)
    };
    ata.emit(&mut out[HEADER_LEN..DATA_OFFSET]);
    if job.write { DATA_OFFSET } else { MIN_FRAME }
}

fn run(link: &PacketLink, job: &Job) {
    let data = vec![0xa5; if job.write { usize::from(job.sectors) * SECTOR } else { 0 }];
    let sectors = u64::from(job.sectors);
    let places = SPAN / SECTOR as u64 / sectors;
    let mut batch = Batch::new(link.mtu() + ETHERNET);
    let mut heads = [[0; MIN_FRAME]; BATCH];
    let (mut tag, mut place, mut outstanding, mut done, mut lost) = (0u32, 0u64, 0usize, 0u64, 0u64);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(job.seconds);
    let mut last = start;
    while Instant::now() < end {
        while outstanding < job.window {
            let n = (job.window - outstanding).min(BATCH);
            let mut lens = [0; BATCH];
            for (head_bytes, len) in heads.iter_mut().zip(&mut lens).take(n) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let at = if job.random { random % places } else { place % places };
                *len = head(job, link.mac(), tag, at * sectors, head_bytes);
                tag = tag.wrapping_add(1);
                place += 1;
            }
            let mut out = [OutFrame { head: &[], body: &[] }; BATCH];
            for i in 0..n {
                out[i] = OutFrame { head: &heads[i][..lens[i]], body: &data };
            }
            let (sent, _) = link.send(&out[..n]);
            outstanding += sent;
            if sent < n {
                break;
            }
        }
        let answered = link.recv(&mut batch).map_or(0, |_| batch.len());
        done += answered as u64;
        outstanding -= answered.min(outstanding);
        let now = Instant::now();
        if answered > 0 {
            last = now;
        } else if now - last > LOST {
            lost += outstanding as u64;
            outstanding = 0;
            last = now;
        }
    }
    let took = start.elapsed().as_secs_f64();
    let bytes = done as f64 * sectors as f64 * SECTOR as f64;
    println!("{:.0} IOPS {:.1} MB/s lost {lost}", done as f64 / took, bytes / took / 1e6);
}
