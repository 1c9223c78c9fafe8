//! A worker: it writes versions of its own units, each time by another way and through another name.

use super::board::Head;
use super::judge::Kind;
use super::plan::{self, HALVES, UNIT};
use super::queues::{Aio, DEPTH, Item, Queue, Uring};
use super::seat::{Call, Seat, Sort};
use super::ways::{self, Mapping, Pipe};
use crate::tools::fsx::Aligned;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;

/// Units that one call writes at most; a run has no more in any zone.
const MOST: u64 = 32;
/// Bytes of the buffer that belong to one call of a batch.
const ROOM: usize = MOST as usize * UNIT;
/// Operations after which everything is closed, on the average.
const REOPEN: u64 = 200;
const PAGE: u64 = 4096;

/// Ways through a name that stays, each as often as it stands here.
const FILE: [Call; 16] = [
    Call::Write,
    Call::Write,
    Call::Write,
    Call::DirectWrite,
    Call::DirectWrite,
    Call::TwoHalves,
    Call::AioWrite,
    Call::AioWrite,
    Call::UringWrite,
    Call::UringWrite,
    Call::ZeroRange,
    Call::PunchHole,
    Call::CopyFileRange,
    Call::Truncate,
    Call::SpliceWrite,
    Call::SharedMapping,
];
/// Ways through a block device.
const BLOCKS: [Call; 4] = [Call::DirectWrite, Call::AioWrite, Call::UringWrite, Call::ZeroRange];

/// A worker with what it keeps from one operation to the next.
struct Worker {
    seat: Seat,
    buffer: Aligned,
    pipe: Pipe,
    aio: Aio,
    uring: Option<Uring>,
    /// Not every target trims.
    trims: bool,
}

/// Works until enough is done.
pub fn work(seat: Seat) -> io::Result<()> {
    let uring = Uring::new().map_err(|error| println!("without io_uring: {error}")).ok();
    let (pipe, aio) = (Pipe::new()?, Aio::new()?);
    let mut worker = Worker { seat, buffer: Aligned::new(DEPTH * ROOM), pipe, aio, uring, trims: true };
    let goal = worker.seat.board.get(Head::Goal);
    while !worker.seat.stopped() {
        if worker.seat.board.head(Head::Begun).fetch_add(1, SeqCst) >= goal {
            worker.seat.board.set(Head::Stop, 1);
            break;
        }
        worker.operation();
    }
    Ok(())
}

/// Versions of some units that are about to be written.
struct Job {
    run: Range<u64>,
    version: u64,
}

impl Job {
    fn bytes(&self) -> usize {
        (self.run.end - self.run.start) as usize * UNIT
    }
}

impl Worker {
    fn operation(&mut self) {
        if self.seat.rng.below(REOPEN) == 0 {
            self.seat.forget_files();
        }
        let view = self.seat.rng.below(self.seat.views.len() as u64) as usize;
        let ways: &[Call] = if self.seat.views[view].sort == Sort::Loop { &BLOCKS } else { &FILE };
        let call = ways[self.seat.rng.below(ways.len() as u64) as usize];
        if let Err(error) = self.by(call, view) {
            self.seat.failed(call, view, &error);
        }
        if self.seat.rng.below(64) == 0
            && let Err(error) = self.sync(view)
        {
            self.seat.failed(Call::Fsync, view, &error);
        }
    }

    fn by(&mut self, call: Call, view: usize) -> io::Result<()> {
        match call {
            Call::AioWrite | Call::UringWrite => return self.batch(call, view),
            Call::CopyFileRange => return self.copy(view),
            _ => {}
        }
        let run = self.pick(view, MOST);
        if run.is_empty() {
            return Ok(());
        }
        match call {
            Call::DirectWrite => self.write(view, &run, libc::O_DIRECT),
            Call::TwoHalves => self.two_halves(&run),
            Call::ZeroRange => self.zero(view, run, libc::FALLOC_FL_ZERO_RANGE),
            Call::PunchHole if self.trims => {
                self.zero(view, run, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE)
            }
            Call::Truncate => self.truncate(view, &run),
            Call::SpliceWrite => self.splice(view, run),
            Call::SharedMapping => self.map(view, run),
            _ => self.write(view, &run, 0),
        }
    }

    /// Some units of ours in a name: often one, often as many as there are in a row.
    fn pick(&mut self, view: usize, most: u64) -> Range<u64> {
        let (me, whole) = (self.seat.number, self.seat.views[view].sort == Sort::Loop);
        let from = self.seat.place(view);
        let run = self.seat.board.plan().run(me, from, &self.seat.views[view].units(), most, whole);
        let (step, steps) =
            if whole { (HALVES, (run.end - run.start) / HALVES) } else { (1, run.end - run.start) };
        if steps < 2 || self.seat.rng.below(2) == 0 {
            return run;
        }
        let skip = self.seat.rng.below(steps);
        let take = 1 + self.seat.rng.below(steps - skip);
        run.start + skip * step..run.start + (skip + take) * step
    }

    /// A new version of these units is begun.
    fn begin(&mut self, run: Range<u64>, zeros: bool) -> Job {
        let version = self.seat.board.versions(self.seat.number).fetch_add(1, SeqCst) + 1;
        let job = Job { run, version };
        self.begin_at(&job, zeros);
        job
    }

    fn begin_at(&self, job: &Job, zeros: bool) {
        for unit in job.run.clone() {
            if zeros {
                self.seat.board.zeroed(unit).store(job.version, SeqCst);
            }
            self.seat.board.begun(unit).store(job.version, SeqCst);
        }
    }

    /// All of it was acknowledged.
    fn acknowledge(&self, job: &Job) {
        for unit in job.run.clone() {
            self.seat.board.acknowledged(unit).store(job.version, SeqCst);
        }
        self.seat.leave();
    }

    /// The bytes of a job in a place of the buffer.
    fn fill(&mut self, job: &Job, twin: u64, slot: usize) -> &[u8] {
        let bytes = &mut self.buffer.bytes()[slot * ROOM..slot * ROOM + job.bytes()];
        plan::fill(bytes, job.run.start, twin, job.version);
        bytes
    }

    fn write(&mut self, view: usize, run: &Range<u64>, flags: i32) -> io::Result<()> {
        let direct = flags & libc::O_DIRECT != 0;
        let file = self.seat.file(view, flags)?;
        let job = self.begin(run.clone(), false);
        let offset = self.seat.views[view].offset(run.start);
        self.seat.enter(if direct { Call::DirectWrite } else { Call::Write });
        file.write_all_at(self.fill(&job, run.start, 0), offset)?;
        self.acknowledge(&job);
        Ok(())
    }

    /// Each unit by itself, each through another name that shows it.
    fn two_halves(&mut self, run: &Range<u64>) -> io::Result<()> {
        let names: Vec<usize> = (0..self.seat.views.len())
            .filter(|view| {
                let (units, sort) = (self.seat.views[*view].units(), self.seat.views[*view].sort);
                sort == Sort::File && units.start <= run.start && run.end <= units.end
            })
            .collect();
        for (n, unit) in run.clone().take(4).enumerate().filter(|_| !names.is_empty()) {
            let flags = if self.seat.rng.below(2) == 0 { 0 } else { libc::O_DIRECT };
            self.write(names[n % names.len()], &(unit..unit + 1), flags)?;
        }
        Ok(())
    }

    /// Many at once, on one descriptor.
    fn batch(&mut self, call: Call, view: usize) -> io::Result<()> {
        let blocks = self.seat.views[view].sort == Sort::Loop;
        let flags = if blocks || self.seat.rng.below(4) > 0 { libc::O_DIRECT } else { 0 };
        let file = self.seat.file(view, flags)?;
        let mut jobs: Vec<Job> = Vec::new();
        for _ in 0..1 + self.seat.rng.below(8) {
            let run = self.pick(view, MOST);
            // One unit is written once at a time, or nobody could say which version is the later one.
            let apart = jobs.iter().all(|job| job.run.end <= run.start || run.end <= job.run.start);
            if !run.is_empty() && apart {
                let job = self.begin(run, false);
                self.fill(&job, job.run.start, jobs.len());
                jobs.push(job);
            }
        }
        let base = self.buffer.bytes().as_mut_ptr();
        let items: Vec<Item> = jobs
            .iter()
            .enumerate()
            .map(|(slot, job)| Item {
                fd: file.as_raw_fd(),
                offset: self.seat.views[view].offset(job.run.start),
                at: base.wrapping_add(slot * ROOM),
                len: job.bytes(),
                write: true,
            })
            .collect();
        self.seat.enter(call);
        let results = match (&mut self.uring, call) {
            (Some(uring), Call::UringWrite) => uring.run(&items)?,
            _ => self.aio.run(&items)?,
        };
        let mut outcome = Ok(());
        for (job, result) in jobs.iter().zip(results) {
            match usize::try_from(result) {
                Ok(written) if written == job.bytes() => self.acknowledge(job),
                Ok(_) => outcome = Err(io::ErrorKind::WriteZero.into()),
                Err(_) => outcome = Err(io::Error::from_raw_os_error(-result as i32)),
            }
        }
        outcome
    }

    fn zero(&mut self, view: usize, run: Range<u64>, mode: i32) -> io::Result<()> {
        let (offset, blocks) =
            (self.seat.views[view].offset(run.start), self.seat.views[view].sort == Sort::Loop);
        let file = self.seat.file(view, if blocks { libc::O_DIRECT } else { 0 })?;
        let job = self.begin(run, true);
        let len = job.bytes() as u64;
        self.seat.enter(if mode == libc::FALLOC_FL_ZERO_RANGE { Call::ZeroRange } else { Call::PunchHole });
        let zeroed = if blocks {
            ways::zero_blocks(&file, offset, len)
        } else {
            ways::fallocate(&file, mode, offset, len)
        };
        match zeroed {
            Err(error)
                if error.raw_os_error() == Some(libc::EOPNOTSUPP) && mode != libc::FALLOC_FL_ZERO_RANGE =>
            {
                self.trims = false;
                self.seat.leave();
                Ok(())
            }
            other => other.map(|()| self.acknowledge(&job)),
        }
    }

    /// One run of ours through this name becomes the copy of another, through any name.
    fn copy(&mut self, view: usize) -> io::Result<()> {
        let files: Vec<usize> =
            (0..self.seat.views.len()).filter(|other| self.seat.views[*other].sort == Sort::File).collect();
        if files.is_empty() {
            return Ok(());
        }
        let from = files[self.seat.rng.below(files.len() as u64) as usize];
        let (source, target) = (self.pick(from, MOST), self.pick(view, MOST));
        let len = (source.end - source.start).min(target.end - target.start);
        let (source, target) = (source.start..source.start + len, target.start..target.start + len);
        if len == 0 || source.start < target.end && target.start < source.end {
            return Ok(());
        }
        let (reader, writer) = (self.seat.file(from, 0)?, self.seat.file(view, 0)?);
        // First a new version that may be in both places, so that the versions of the target only grow as well.
        let job = self.begin(source.clone(), false);
        let offset = self.seat.views[from].offset(source.start);
        self.seat.enter(Call::Write);
        reader.write_all_at(self.fill(&job, target.start, 0), offset)?;
        self.acknowledge(&job);
        let there = self.seat.views[view].offset(target.start);
        let copy = Job { run: target, version: job.version };
        self.begin_at(&copy, false);
        self.seat.enter(Call::CopyFileRange);
        ways::copy((&reader, offset), (&writer, there), copy.bytes() as u64)?;
        self.acknowledge(&copy);
        self.seat.board.add(Head::Copies, 1);
        Ok(())
    }

    /// Through a descriptor of its own: truncated to where the run begins, what is skipped from there on is zeros.
    fn truncate(&mut self, view: usize, run: &Range<u64>) -> io::Result<()> {
        let file = self.seat.open(view, 0)?;
        let (start, end) = (self.seat.views[view].offset(run.start), self.seat.views[view].offset(run.end));
        let skipped = self.seat.rng.below(run.end - run.start + 1);
        let zeros = self.begin(run.start..run.start + skipped, true);
        let rest = self.begin(run.start + skipped..run.end, false);
        self.seat.enter(Call::Truncate);
        file.set_len(start)?;
        if rest.run.is_empty() {
            file.set_len(end)?;
        } else {
            file.write_all_at(self.fill(&rest, rest.run.start, 0), start + zeros.bytes() as u64)?;
        }
        self.acknowledge(&zeros);
        self.acknowledge(&rest);
        Ok(())
    }

    fn splice(&mut self, view: usize, run: Range<u64>) -> io::Result<()> {
        use std::io::Write;
        let file = self.seat.file(view, 0)?;
        let job = self.begin(run, false);
        let (offset, len) = (self.seat.views[view].offset(job.run.start), job.bytes());
        self.fill(&job, job.run.start, 0);
        self.pipe.to.write_all(&self.buffer.bytes()[..len])?;
        self.seat.enter(Call::SpliceWrite);
        let spliced = ways::splice_in(&self.pipe, &file, offset, len);
        if spliced.is_err() {
            self.pipe = Pipe::new()?;
        }
        spliced.map(|()| self.acknowledge(&job))
    }

    /// A shared mapping is refused, with ENODEV. Where it is not, that is counted, and used.
    fn map(&mut self, view: usize, run: Range<u64>) -> io::Result<()> {
        use std::io::Write;
        let file = self.seat.file(view, 0)?;
        let (start, end) = (self.seat.views[view].offset(run.start), self.seat.views[view].offset(run.end));
        let base = start / PAGE * PAGE;
        self.seat.enter(Call::SharedMapping);
        let lasts = self.seat.views[view].sort == Sort::File && !self.seat.board.tolerant();
        let mapping = match shared(&self.seat, view, &file, base, (end - base) as usize)? {
            Some(mapping) if lasts => mapping,
            _ => return Ok(()),
        };
        let job = self.begin(run, false);
        let len = job.bytes();
        self.fill(&job, job.run.start, 0);
        self.pipe.to.write_all(&self.buffer.bytes()[..len])?;
        let taken = mapping.take((start - base) as usize, &self.pipe, len);
        if taken.is_err() {
            self.pipe = Pipe::new()?;
        }
        taken.map(|()| self.acknowledge(&job))
    }

    fn sync(&mut self, view: usize) -> io::Result<()> {
        let blocks = self.seat.views[view].sort == Sort::Loop;
        let file = self.seat.file(view, if blocks { libc::O_DIRECT } else { 0 })?;
        self.seat.enter(Call::Fsync);
        file.sync_all()?;
        self.seat.leave();
        Ok(())
    }
}

/// Asks for a shared mapping of a name, and counts what comes of it.
pub fn shared(seat: &Seat, view: usize, file: &File, at: u64, len: usize) -> io::Result<Option<Mapping>> {
    match Mapping::new(file, libc::MAP_SHARED, at, len) {
        Ok(mapping) => {
            seat.wrong(
                Kind::Mapped,
                &format!("a shared mapping of {} is not refused", seat.views[view].name()),
            );
            Ok(Some(mapping))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {
            seat.board.add(Head::Refused, 1);
            seat.leave();
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
