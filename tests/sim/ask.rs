//! What is asked of the engine, and what the judge is told about it beforehand.

use std::time::Duration;

use super::disk::{Fill, pattern};
use super::judge::{Expect, Kind, Pending};
use super::world::World;
use aoefs::engine::{Error, Handle, Io, Request, Stream, WriteBuf};
use aoefs::wire::{Ata, SECTOR, Sector, Verb};

const S: u64 = SECTOR as u64;

/// One request, in bytes of the handle's file.
#[derive(Clone, Debug)]
pub enum Ask {
    Read { offset: u64, len: usize },
    Write { offset: u64, len: usize },
    Zero { offset: u64, len: usize },
    Trim { offset: u64, len: u64 },
    Flush,
    RawRead { at: u64, count: u8 },
    RawWrite { at: u64, count: u8 },
    Smart,
    Config { verb: Verb, string: Vec<u8> },
    Mask,
    Reserve,
}

impl World {
    /// Submits through a fresh handle on the whole disk.
    pub fn ask(&mut self, u: usize, ask: Ask) -> u32 {
        let handle = self.units[u].device.handle(None);
        self.submit(u, handle, false, ask)
    }

    pub fn submit(&mut self, u: usize, handle: Handle, nonblock: bool, ask: Ask) -> u32 {
        self.submit_for(None, u, handle, nonblock, ask)
    }

    /// A read of the whole disk by a reader that is read ahead of.
    pub fn stream(&mut self, stream: u64, offset: u64, len: usize) -> u32 {
        let handle = self.units[0].device.handle(None);
        self.submit_for(Some(Stream(stream)), 0, handle, false, Ask::Read { offset, len })
    }

    /// The same as `submit`, for a reader that is read ahead of.
    pub fn submit_for(
        &mut self,
        stream: Option<Stream>,
        u: usize,
        handle: Handle,
        nonblock: bool,
        ask: Ask,
    ) -> u32 {
        self.tick += 1;
        self.judge.submitted += 1;
        let seq = self.judge.number();
        let mut p = self.pending(u, handle, nonblock, &ask);
        p.ahead = stream.is_some();
        let (disk, base) = (p.disk, p.start);
        let works = p.expect == Expect::Work;
        let mut data = Vec::new();
        match p.kind {
            Kind::Read | Kind::RawRead if works => self.disk(disk).reader_begins(),
            Kind::Read | Kind::RawRead => p.kind = Kind::Raw,
            Kind::Write | Kind::Trim | Kind::RawWrite if works => {
                let zero = matches!(ask, Ask::Trim { .. } | Ask::Zero { .. });
                let fill = if zero { Fill::Zeros } else { Fill::Pattern };
                self.disk(disk).announce_write(seq, p.start, p.end, fill);
            }
            _ => {}
        }
        if let Ask::Write { len, .. } = ask {
            data.resize(len, 0);
            pattern(seq, base, &mut data);
        }
        if let Ask::RawWrite { count, .. } = ask {
            data.resize(usize::from(count) * SECTOR, 0);
            pattern(seq, base, &mut data);
        }
        self.note(|| format!("u{u} #{seq} {ask:?} {}..{} {:?}", p.start, p.end, p.expect));
        if let Ask::Config { verb: Verb::Set | Verb::Force, string } = &ask {
            self.units[u].strings.insert(seq, string.clone());
        }
        self.judge.pending.insert(seq, p);
        let io = self.io(ask, data);
        let request = Request { io, handle, nonblock, stream, reply: seq };
        self.with_device(u, |device, now, sink| device.submit(now, request, sink));
        seq
    }

    fn io(&self, ask: Ask, data: Vec<u8>) -> Io {
        match ask {
            Ask::Read { offset, len } => Io::Read { offset, len },
            Ask::Write { offset, .. } => {
                Io::Write { offset, data: WriteBuf::copy_from(&self.pool, offset, &data) }
            }
            Ask::Zero { offset, len } => Io::Write { offset, data: WriteBuf::zeros(&self.pool, offset, len) },
            Ask::Trim { offset, len } => Io::Trim { offset, len },
            Ask::Flush => Io::Flush,
            Ask::RawRead { at, count } => {
                Io::Ata { ata: Ata::read(Sector(at), count, true), data, expect: usize::from(count) * SECTOR }
            }
            Ask::RawWrite { at, count } => {
                Io::Ata { ata: Ata::write(Sector(at), count, true), data, expect: 0 }
            }
            Ask::Smart => Io::Ata { ata: Ata::smart(aoefs::wire::smart::STATUS, 0), data, expect: 0 },
            Ask::Config { verb, string } => Io::Config { verb, string },
            Ask::Mask => Io::Mask(Vec::new()),
            Ask::Reserve => Io::Reserve(aoefs::engine::Reservation::Read),
        }
    }

    /// What the judge will expect.
    fn pending(&self, u: usize, handle: Handle, nonblock: bool, ask: &Ask) -> Pending {
        let unit = &self.units[u];
        let device = &unit.device;
        let word = matches!(ask, Ask::Config { .. } | Ask::Mask | Ask::Reserve);
        let (kind, offset, len) = match *ask {
            Ask::Read { offset, len } => (Kind::Read, offset, len as u64),
            Ask::Write { offset, len } | Ask::Zero { offset, len } => (Kind::Write, offset, len as u64),
            Ask::Trim { offset, len } => (Kind::Trim, offset, len),
            Ask::Flush => (Kind::Flush, 0, 0),
            Ask::RawRead { at, count } => (Kind::RawRead, at * S, u64::from(count) * S),
            Ask::RawWrite { at, count } => (Kind::RawWrite, at * S, u64::from(count) * S),
            Ask::Smart => (Kind::Raw, 0, 0),
            Ask::Config { .. } | Ask::Mask | Ask::Reserve => (Kind::Word, 0, 0),
        };
        let raw = kind.is_raw();
        let stale = handle.generation != device.generation();
        let part = handle.part.map(|id| device.partition(id));
        let down = !device.takes_io() && (nonblock || !unit.nofail);
        let (from, to) = match part {
            Some(Some(p)) if !raw => (p.start * S, p.end * S),
            _ => (0, device.size()),
        };
        let size = to - from;
        let mut end = offset + len;
        let mut expect = Expect::Work;
        if word {
        } else if stale || part == Some(None) {
            expect = Expect::Error(Error::Stale);
        } else if down {
            expect = Expect::Error(Error::Io);
        } else {
            match kind {
                Kind::Read => {
                    end = end.min(size).max(offset);
                    if offset >= size || len == 0 {
                        expect = Expect::Nothing;
                    }
                }
                Kind::Write if offset >= size => expect = Expect::Error(Error::NoSpace),
                Kind::Write => end = end.min(size),
                Kind::Trim if offset % S != 0 || len % S != 0 => expect = Expect::Error(Error::Invalid),
                Kind::Trim if end > size => expect = Expect::Error(Error::NoSpace),
                Kind::Trim if !device.can_trim() => expect = Expect::Error(Error::NotSupported),
                Kind::Trim if len == 0 => expect = Expect::Nothing,
                _ => {}
            }
        }
        let patience = if word {
            Some(Duration::from_secs(2))
        } else {
            (!unit.nofail || nonblock || kind.is_raw()).then_some(unit.deadline)
        };
        Pending {
            unit: u,
            kind,
            start: from + offset,
            end: from + end,
            handle,
            disk: unit.disk.0,
            submitted: self.now,
            tick: self.tick,
            nonblock,
            ahead: false,
            due: patience.map(|d| self.now + d),
            expect,
            promised: None,
        }
    }
}
