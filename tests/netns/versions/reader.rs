//! A reader: it reads by every way through every name, at random places and in sequence, and judges each unit that it
//! gets.

use super::board::Head;
use super::judge::{Bounds, Kind};
use super::plan::UNIT;
use super::queues::{Aio, Item, Queue, Uring};
use super::seat::{Call, Seat, Sort};
use super::ways::{self, Mapping, Pipe};
use crate::tools::fsx::Aligned;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Units that one read gets at most: 128 KiB.
const MOST: u64 = 512;
/// What a socket takes at once without a reader, in bytes.
const SOCKET: usize = 16 << 10;
/// Pieces of a read that asynchronous requests get at the same time.
const PIECES: usize = 4;
/// The longest pause between two sequences of reads, in microseconds.
const PAUSE: u64 = 8000;
/// Reads after which everything is closed, on the average.
const REOPEN: u64 = 400;
/// How often bytes are copied out of a mapping again that were torn: the page may go between two words of a copy, and
/// come back with the next version. What is torn for good stays so.
const AGAIN: usize = 8;

const FILE: [Call; 8] = [
    Call::Read,
    Call::DirectRead,
    Call::AioRead,
    Call::UringRead,
    Call::Sendfile,
    Call::SendfileSocket,
    Call::Splice,
    Call::PrivateMapping,
];
/// What does not go through the kernel's cache, on a mount that can write and on a block device with O_DIRECT.
const DIRECT: [Call; 3] = [Call::DirectRead, Call::AioRead, Call::UringRead];

/// A reader with what it keeps from one read to the next.
pub struct Reader {
    pub seat: Seat,
    buffer: Aligned,
    bounds: Bounds,
    pub pipe: Pipe,
    socket: (UnixStream, UnixStream),
    pub aio: Aio,
    pub uring: Option<Uring>,
    /// One of each name, if it was asked for.
    mappings: Vec<Option<Mapping>>,
}

impl Reader {
    pub fn new(seat: Seat) -> io::Result<Self> {
        let uring = Uring::new().map_err(|error| println!("without io_uring: {error}")).ok();
        Ok(Self {
            mappings: seat.views.iter().map(|_| None).collect(),
            buffer: Aligned::new(MOST as usize * UNIT),
            bounds: Bounds::default(),
            pipe: Pipe::new()?,
            socket: UnixStream::pair()?,
            aio: Aio::new()?,
            uring,
            seat,
        })
    }

    /// Reads units of a name by one way and judges them. Returns how many it judged.
    pub fn read(&mut self, call: Call, view: usize, first: u64, count: u64) -> u64 {
        let wanted = count as usize * UNIT;
        for again in 0..AGAIN {
            self.bounds.note(&self.seat.board, first, count);
            let offset = self.seat.views[view].offset(first);
            let got = match self.get(call, view, offset, wanted) {
                Ok(got) => got,
                Err(error) => {
                    self.seat.failed(call, view, &error);
                    return 0;
                }
            };
            self.seat.leave();
            let mut found = Vec::new();
            let bytes = &self.buffer.bytes()[..got];
            let judged = self.bounds.judge(&self.seat.board, bytes, |kind, what| found.push((kind, what)));
            let only_torn = found.iter().all(|(kind, _)| *kind == Kind::Torn);
            if call == Call::PrivateMapping && !found.is_empty() && only_torn && again + 1 < AGAIN {
                continue;
            }
            let name = self.seat.views[view].name();
            for (kind, what) in found {
                self.seat.wrong(kind, &format!("{call:?} of {name}, {offset}+{wanted}: {what}"));
            }
            if got < wanted && !self.seat.board.tolerant() {
                self.seat.wrong(
                    Kind::Short,
                    &format!("{call:?} of {name}, {offset}+{wanted}: {got} bytes, and no error"),
                );
            }
            self.seat.board.add(Head::Reads, 1);
            self.seat.board.add(Head::Judged, judged);
            return judged;
        }
        0
    }

    /// The bytes, into the buffer: how many there were.
    fn get(&mut self, call: Call, view: usize, offset: u64, len: usize) -> io::Result<usize> {
        let direct = DIRECT.contains(&call);
        let file = self.seat.file(view, if direct { libc::O_DIRECT } else { 0 })?;
        self.seat.enter(call);
        match call {
            Call::Read | Call::DirectRead => {
                let bytes = &mut self.buffer.bytes()[..len];
                file.read_at(bytes, offset)
            }
            Call::AioRead | Call::UringRead => {
                let piece = len.div_ceil(PIECES).next_multiple_of(2 * UNIT);
                let base = self.buffer.bytes().as_mut_ptr();
                let items: Vec<Item> = (0..len)
                    .step_by(piece)
                    .map(|from| Item {
                        fd: file.as_raw_fd(),
                        offset: offset + from as u64,
                        at: base.wrapping_add(from),
                        len: piece.min(len - from),
                        write: false,
                    })
                    .collect();
                let results = match (&mut self.uring, call) {
                    (Some(uring), Call::UringRead) => uring.run(&items)?,
                    _ => self.aio.run(&items)?,
                };
                let mut got = 0;
                for (item, result) in items.iter().zip(results) {
                    let Ok(read) = usize::try_from(result) else {
                        return Err(io::Error::from_raw_os_error(-result as i32));
                    };
                    got += read;
                    if read < item.len {
                        break;
                    }
                }
                Ok(got)
            }
            Call::PrivateMapping => {
                if self.mappings[view].is_none() {
                    let units = self.seat.views[view].units();
                    let whole = (units.end - units.start) as usize * UNIT;
                    self.mappings[view] = Some(Mapping::new(&file, libc::MAP_PRIVATE, 0, whole)?);
                }
                let given = self.mappings[view]
                    .as_ref()
                    .map_or(Ok(0), |mapping| mapping.give(offset as usize, &self.pipe, len))?;
                self.pipe.from.read_exact(&mut self.buffer.bytes()[..given])?;
                Ok(given)
            }
            _ => {
                let mut got = 0;
                while got < len {
                    let (at, left) = (offset + got as u64, len - got);
                    let moved = match call {
                        Call::Splice => ways::splice_out(&file, at, &self.pipe, left),
                        Call::SendfileSocket => ways::sendfile(&file, at, &self.socket.0, left.min(SOCKET)),
                        _ => ways::sendfile(&file, at, &self.pipe.to, left),
                    };
                    // What came before an error counts, as in read(2).
                    let moved = match moved {
                        Err(error) if got == 0 => return Err(error),
                        other => other.unwrap_or(0),
                    };
                    if moved == 0 {
                        break;
                    }
                    let room = &mut self.buffer.bytes()[got..got + moved];
                    match call {
                        Call::SendfileSocket => self.socket.1.read_exact(room)?,
                        _ => self.pipe.from.read_exact(room)?,
                    }
                    got += moved;
                }
                Ok(got)
            }
        }
    }
}

/// Reads until the end of the run.
pub fn read(seat: Seat) -> io::Result<()> {
    let mut reader = Reader::new(seat)?;
    while !reader.seat.stopped() {
        let seat = &mut reader.seat;
        let view = seat.rng.below(seat.views.len() as u64) as usize;
        let (units, sort) = (seat.views[view].units(), seat.views[view].sort);
        let ways: &[Call] = match sort {
            Sort::File => &FILE,
            Sort::Fleeting | Sort::Loop => &DIRECT,
        };
        let call = ways[seat.rng.below(ways.len() as u64) as usize];
        // From one sector to all that one read gets; block devices take whole sectors.
        let count = [2, 4, 10, 16, 34, 64, 256, MOST][seat.rng.below(8) as usize];
        let mut first = seat.place(view);
        if sort == Sort::Loop {
            first = first / 2 * 2;
        }
        // Half of them go on in sequence, through the same descriptor: what is fetched ahead is judged as well.
        let times = if seat.rng.below(2) == 0 { 1 } else { 2 + seat.rng.below(24) };
        for _ in 0..times {
            let now = count.min(units.end - first);
            if now == 0 || reader.seat.stopped() {
                break;
            }
            reader.read(call, view, first, now);
            first += now;
        }
        // Readers are not to take all of the processors: writes are what there is to see.
        std::thread::sleep(Duration::from_micros(reader.seat.rng.below(PAUSE)));
        if reader.seat.rng.below(REOPEN) == 0 {
            reader.seat.forget_files();
            reader.mappings.iter_mut().for_each(|mapping| *mapping = None);
        }
    }
    Ok(())
}

/// At rest: all of every name that stays, by every way that may hold old bytes.
pub fn last(seat: Seat) -> io::Result<()> {
    let mut reader = Reader::new(seat)?;
    for view in 0..reader.seat.views.len() {
        let (units, sort) = (reader.seat.views[view].units(), reader.seat.views[view].sort);
        let ways: &[Call] = match sort {
            Sort::File => &[Call::DirectRead, Call::Read, Call::Sendfile, Call::PrivateMapping],
            Sort::Fleeting => &[],
            Sort::Loop => &[Call::DirectRead],
        };
        for call in ways {
            for first in units.clone().step_by(MOST as usize) {
                reader.read(*call, view, first, MOST.min(units.end - first));
            }
        }
    }
    Ok(())
}
