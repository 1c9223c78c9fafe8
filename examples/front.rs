//! A front end of vhost-user-blk in the place of a guest: one queue, one thread, as many requests under way as asked.
//! Its driver is the crate virtio-driver, which knows nothing of aoefs, so that any back end can be measured with it
//! (`benches/compare`). It sleeps until the back end rings, as a guest does until its interrupt.
//!
//! `front SOCKET BYTES DEPTH SECONDS read|write [rand]` prints requests a second, MB/s, and the mean latency in µs.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::libc::iovec;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use virtio_driver::{
    EventFd, VhostUser, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags,
};
use vm_memory::{FileOffset, MmapRegion};

/// Entries of the queue: what QEMU gives a guest.
const ENTRIES: u16 = 128;
/// The part of the disk that is used, in bytes.
const SPAN: u64 = 1 << 30;
/// A piece of data has at most so many bytes, as the back end of aoefs asks for and a guest's memory would have it.
const PIECE: usize = 64 << 10;
/// Milliseconds without an answer after which the back end counts as dead.
const SILENCE: u16 = 20_000;

struct Job {
    bytes: usize,
    depth: usize,
    seconds: f64,
    write: bool,
    random: bool,
}

fn parse(args: &[String]) -> Option<(String, Job)> {
    let job = Job {
        bytes: args.get(1)?.parse().ok().filter(|n| *n > 0)?,
        depth: args.get(2)?.parse().ok().filter(|n| *n > 0)?,
        seconds: args.get(3)?.parse().ok()?,
        write: args.get(4)? == "write",
        random: args.get(5).is_some_and(|word| word == "rand"),
    };
    Some((args.first()?.clone(), job))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((socket, job)) = parse(&args) else {
        eprintln!("usage: front SOCKET BYTES DEPTH SECONDS read|write [rand]");
        return ExitCode::from(2);
    };
    match run(&socket, &job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("front: {socket}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits until the back end rings.
fn await_ring(bell: &EventFd) -> io::Result<()> {
    // The back end may have made it one that does not block, or may be gone: both share it.
    let mut waits = [PollFd::new(bell.as_fd(), PollFlags::POLLIN)];
    match poll(&mut waits, PollTimeout::from(SILENCE))? {
        0 => Err(io::Error::new(ErrorKind::TimedOut, "no answer")),
        _ => match bell.read() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            read => read.map(drop),
        },
    }
}

fn run(socket: &str, job: &Job) -> io::Result<()> {
    let features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
    let transport = VhostUser::new(socket, features.bits() | VirtioBlkFeatureFlags::all().bits())?;
    let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
    let mut queues = VirtioBlkQueue::setup_queues(&mut *transport, 1, ENTRIES)?;
    let queue = &mut queues[0];
    let file = File::from(memfd_create("data", MFdFlags::MFD_CLOEXEC)?);
    let size = job.bytes * job.depth;
    file.set_len(size as u64)?;
    let fd = file.as_raw_fd();
    let memory = MmapRegion::<()>::from_file(FileOffset::new(file, 0), size).map_err(io::Error::other)?;
    // SAFETY: the mapping has so many bytes, and nobody else has it yet. A guest's pages were all used before.
    unsafe { memory.as_ptr().write_bytes(0xa5, size) };
    transport.map_mem_region(memory.as_ptr().addr(), size, fd, 0)?;
    let (kick, bell) = (transport.get_submission_notifier(0), transport.get_completion_fd(0));

    let capacity: u64 = transport.get_config()?.capacity.into();
    let places = SPAN.min(capacity * 512) / job.bytes as u64;
    let (mut place, mut random) = (0u64, 0x9e37_79b9_7f4a_7c15u64);
    let mut begin = |queue: &mut VirtioBlkQueue<'_, (usize, Instant)>, slot: usize, now: Instant| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        place += 1;
        let at = if job.random { random } else { place } % places * job.bytes as u64;
        let start = memory.as_ptr().wrapping_add(slot * job.bytes);
        let piece = |from: usize| iovec {
            iov_base: start.wrapping_add(from).cast(),
            iov_len: PIECE.min(job.bytes - from),
        };
        let pieces: Vec<iovec> = (0..job.bytes).step_by(PIECE).map(piece).collect();
        let (pieces, count) = (pieces.as_ptr(), pieces.len());
        // SAFETY: each slot is a part of the mapping of its own, and a slot is used again only when it was answered.
        unsafe {
            match job.write {
                true => queue.writev(at, pieces, count, (slot, now)),
                false => queue.readv(at, pieces, count, (slot, now)),
            }
        }
    };

    let start = Instant::now();
    let end = start + Duration::from_secs_f64(job.seconds);
    (0..job.depth).try_for_each(|slot| begin(queue, slot, start))?;
    kick.notify()?;
    let (mut free, mut done, mut waited) = (Vec::new(), 0u64, Duration::ZERO);
    // What is under way at the end is awaited: a back end may not bear a front end that goes before.
    while free.len() < job.depth {
        // As Linux does it: the interrupt is off while answers are taken, and on again before the last look.
        queue.set_used_notif_enabled(true);
        if !queue.completions().has_next() {
            await_ring(&bell)?;
        }
        queue.set_used_notif_enabled(false);
        let now = Instant::now();
        for answer in queue.completions() {
            if answer.ret != 0 {
                return Err(io::Error::from_raw_os_error(-answer.ret));
            }
            let (slot, since) = answer.context;
            done += 1;
            waited += now - since;
            free.push(slot);
        }
        if now >= end {
            continue;
        }
        free.drain(..).try_for_each(|slot| begin(queue, slot, now))?;
        if queue.avail_notif_needed() {
            kick.notify()?;
        }
    }
    let took = start.elapsed().as_secs_f64();
    let bytes = done as f64 * job.bytes as f64;
    let mean = waited.as_secs_f64() * 1e6 / done.max(1) as f64;
    println!("{:.0} IOPS {:.1} MB/s {mean:.1} us", done as f64 / took, bytes / took / 1e6);
    Ok(())
}
