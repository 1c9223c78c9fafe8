//! Many frames at once: reads, and writes, of consecutive sectors that arrive one after the other go to the image as
//! one.
//!
//! An initiator cuts a large request into frames, so most frames arrive like that. A batch changes the number of calls
//! to the image, never an answer: frames are answered in the order of their arrival, and a run that the image does not
//! take as a whole is done frame by frame.

use std::io::{IoSlice, IoSliceMut};
use std::mem;

use super::ata::bytes;
use super::image::{Fault, Image};
use super::processor::{Answer, Processor};
use crate::wire::{
    ATA_LEN, Ata, Command, DATA_OFFSET, Header, Mac, Sector, VERSION, cmd, sectors_per_frame, status,
};

/// The most frames that one call to the image covers: as many as a batch of a link has.
pub const RUN_MAX: usize = 64;

/// Room for a reply, and the length of the reply in it; 0 if there is none.
pub type Slot<'a> = (&'a mut [u8], usize);

/// A read or a write that has passed all checks.
#[derive(Clone, Copy)]
pub(super) struct Plain {
    header: Header,
    registers: Ata,
    at: Sector,
    write: bool,
    /// Bytes of data.
    len: usize,
}

impl Plain {
    /// Whether `next` goes on where this one ends.
    fn continues_in(&self, next: &Plain) -> bool {
        self.write == next.write && self.at + u64::from(self.registers.count) == next.at
    }
}

impl<I: Image> Processor<I> {
    /// Answers `frames`, which came in on an interface with this MAC and MTU, each into the slot of its number; exactly
    /// as [`Processor::handle`] would, one after the other.
    pub fn handle_batch(&mut self, frames: &[&[u8]], mac: Mac, mtu: usize, replies: &mut [Slot<'_>]) {
        let mut run = mem::take(&mut self.run);
        let (mut frames, mut replies) = (frames, replies);
        while let (Some(first), Some(_)) = (frames.first(), replies.first()) {
            run.clear();
            for (frame, slot) in frames.iter().zip(&*replies).take(RUN_MAX) {
                match self.plain(frame, mac, mtu, slot.0.len()) {
                    Some(next) if run.last().is_none_or(|last| last.continues_in(&next)) => run.push(next),
                    _ => break,
                }
            }
            let count = run.len().max(1);
            let (now, later) = mem::take(&mut replies).split_at_mut(count);
            if count == 1 {
                self.handle_one(first, mac, mtu, &mut now[0]);
            } else if self.transfer(&run, frames, now).is_ok() {
                for (plain, slot) in run.iter().zip(now) {
                    self.confirm(plain, mac, mtu, slot);
                }
            } else {
                for (frame, slot) in frames.iter().zip(now) {
                    self.handle_one(frame, mac, mtu, slot);
                }
            }
            (frames, replies) = (&frames[count..], later);
        }
        self.run = run;
    }

    fn handle_one(&mut self, frame: &[u8], mac: Mac, mtu: usize, slot: &mut Slot<'_>) {
        slot.1 = match self.handle(frame, mac, mtu, slot.0) {
            Answer::Reply(len) => len,
            Answer::Silence(_) => 0,
        };
    }

    /// The frame as a read or a write, if its sectors exist, its host is allowed to, and its slot is large enough.
    fn plain(&self, frame: &[u8], mac: Mac, mtu: usize, room: usize) -> Option<Plain> {
        let (header, body) = self.admit(frame, mac).ok()?;
        let may = self.holders.admits(header.src) && !header.addr.is_wildcard();
        if header.command != Command::Ata || header.version != VERSION || !may {
            return None;
        }
        let (registers, data) = Ata::parse(body).ok()?;
        let (at, write) = match registers.command {
            cmd::READ | cmd::READ_EXT => (registers.address(), false),
            cmd::WRITE | cmd::WRITE_EXT => (registers.address(), true),
            _ => return None,
        };
        let len = bytes(registers.count, sectors_per_frame(mtu))?;
        let carried =
            if write { data.len() >= len && !self.image.read_only() } else { room >= DATA_OFFSET + len };
        (carried && self.has(at, registers.count.into())).then_some(Plain {
            header,
            registers,
            at,
            write,
            len,
        })
    }

    /// Moves the data of a run between the frames, or the slots, and the image.
    fn transfer(&mut self, run: &[Plain], frames: &[&[u8]], replies: &mut [Slot<'_>]) -> Result<(), Fault> {
        let at = run[0].at;
        if run[0].write {
            let mut data = [IoSlice::new(&[]); RUN_MAX];
            for ((data, frame), plain) in data.iter_mut().zip(frames).zip(run) {
                *data = IoSlice::new(&frame[DATA_OFFSET..][..plain.len]);
            }
            self.image.write_run(at, &data[..run.len()])?;
            self.settle()
        } else {
            let mut into = std::array::from_fn::<_, RUN_MAX, _>(|_| IoSliceMut::new(&mut []));
            for ((into, slot), plain) in into.iter_mut().zip(replies).zip(run) {
                *into = IoSliceMut::new(&mut slot.0[DATA_OFFSET..][..plain.len]);
            }
            self.image.read_run(at, &mut into[..run.len()])
        }
    }

    /// The reply to one frame of a run that was done; the data of a read are in the slot already.
    fn confirm(&mut self, plain: &Plain, mac: Mac, mtu: usize, slot: &mut Slot<'_>) {
        slot.1 = 0;
        let Some(mut out) = self.reply_to(&plain.header, mac, mtu, slot.0) else { return };
        let done = Ata { feature: 0, count: 0, command: status::DRDY, ..plain.registers };
        done.emit(out.body());
        let data = if plain.write { 0 } else { plain.len };
        slot.1 = out.finish(None, ATA_LEN + data);
        let sectors = u64::from(plain.registers.count);
        self.counters.answered += 1;
        *if plain.write { &mut self.counters.sectors_written } else { &mut self.counters.sectors_read } +=
            sectors;
    }
}
