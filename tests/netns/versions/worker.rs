//! A worker: it writes versions of its own units, each time by another way and through another name.

use super::board::Head;
use super::judge::Kind;
use super::plan::{self, HALVES, UNIT};
use super::queues::{DEPTH, Item, Queue};
use super::reader::Reader;
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
const REOPEN: u64 = 1000;
const PAGE: u64 = 4096;
/// One of so many writes is watched: its bytes are cached before, and looked at after it.
const WATCHED: u64 = 4;
/// By which calls: what goes through the kernel's cache.
const CACHED: [Call; 3] = [Call::Sendfile, Call::Splice, Call::PrivateMapping];
/// Failed writes that are kept in mind.
const DOUBTS: usize = 64;

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
    /// It has the seat, and looks at what the worker has just done.
    reader: Reader,
    buffer: Aligned,
    /// Versions that are begun and neither acknowledged nor known to have failed.
    pending: Vec<Job>,
    /// What failed, to be looked at once the target answers again.
    doubts: Vec<Range<u64>>,
    /// Not every target trims.
    trims: bool,
}

/// Works until enough is done.
pub fn work(seat: Seat) -> io::Result<()> {
    let (reader, buffer) = (Reader::new(seat)?, Aligned::new(DEPTH * ROOM));
    let mut worker = Worker { reader, buffer, pending: Vec::new(), doubts: Vec::new(), trims: true };
    let goal = worker.reader.seat.board.get(Head::Goal);
    while !worker.reader.seat.stopped() {
        if worker.reader.seat.board.get(Head::Begun) >= goal {
            worker.reader.seat.board.set(Head::Stop, 1);
        }
        worker.operation();
    }
    Ok(())
}

/// Versions of some units that are about to be written.
#[derive(Clone)]
struct Job {
    run: Range<u64>,
    version: u64,
}

/// A write that is watched: through which name, by which call.
struct Watch {
    call: Call,
    view: usize,
    run: Range<u64>,
}

impl Job {
    fn bytes(&self) -> usize {
        (self.run.end - self.run.start) as usize * UNIT
    }
}

impl Worker {
    fn operation(&mut self) {
        if self.reader.seat.rng.below(REOPEN) == 0 {
            self.reader.seat.forget_files();
        }
        let view = self.reader.seat.rng.below(self.reader.seat.views.len() as u64) as usize;
        let ways: &[Call] = if self.reader.seat.views[view].sort == Sort::Loop { &BLOCKS } else { &FILE };
        let call = ways[self.reader.seat.rng.below(ways.len() as u64) as usize];
        if let Err(error) = self.by(call, view) {
            self.settle();
            self.reader.seat.failed(call, view, &error);
        }
        self.look_at_doubts();
        if self.reader.seat.rng.below(64) == 0
            && let Err(error) = self.sync(view)
        {
            self.reader.seat.failed(Call::Fsync, view, &error);
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
        let watch = self.watch(&run);
        self.alone(call, view, &run)?;
        self.check(watch);
        Ok(())
    }

    /// One run, by a call of its own.
    fn alone(&mut self, call: Call, view: usize, run: &Range<u64>) -> io::Result<()> {
        match call {
            Call::DirectWrite => self.write(view, run, libc::O_DIRECT),
            Call::TwoHalves => self.two_halves(run),
            Call::ZeroRange => self.zero(view, run.clone(), libc::FALLOC_FL_ZERO_RANGE),
            Call::PunchHole if self.trims => {
                self.zero(view, run.clone(), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE)
            }
            // Seldom, for it opens the name: see `others::PAUSE`.
            Call::Truncate if self.reader.seat.rng.below(4) == 0 => self.truncate(view, run),
            Call::SpliceWrite => self.splice(view, run.clone()),
            Call::SharedMapping => self.map(view, run.clone()),
            _ => self.write(view, run, 0),
        }
    }

    /// The names that stay and show all of a run.
    fn names_of(&self, run: &Range<u64>) -> Vec<usize> {
        let views = &self.reader.seat.views;
        (0..views.len())
            .filter(|view| {
                let (units, sort) = (views[*view].units(), views[*view].sort);
                sort == Sort::File && units.start <= run.start && run.end <= units.end
            })
            .collect()
    }

    /// Before some of the writes: the kernel is made to cache what will be written, under any name.
    fn watch(&mut self, run: &Range<u64>) -> Option<Watch> {
        let names = self.names_of(run);
        // Where calls fail, the ones that fail and are done are rare: every one is watched.
        let chosen = self.reader.seat.board.tolerant() || self.reader.seat.rng.below(WATCHED) == 0;
        if names.is_empty() || run.is_empty() || !chosen {
            return None;
        }
        let view = names[self.reader.seat.rng.below(names.len() as u64) as usize];
        let call = CACHED[self.reader.seat.rng.below(CACHED.len() as u64) as usize];
        self.reader.read(call, view, run.start, run.end - run.start);
        Some(Watch { call, view, run: run.clone() })
    }

    /// After it: what was cached is gone.
    fn check(&mut self, watch: Option<Watch>) {
        if let Some(Watch { call, view, run }) = watch {
            self.reader.read(call, view, run.start, run.end - run.start);
        }
    }

    /// A call has failed: nobody knows what became of what it had begun.
    fn settle(&mut self) {
        for job in std::mem::take(&mut self.pending) {
            for unit in job.run.clone() {
                self.reader.seat.board.settled(unit).store(job.version, SeqCst);
            }
            if self.doubts.len() < DOUBTS {
                self.doubts.push(job.run);
            }
        }
    }

    /// All names show the same of what failed, once the disk says what that is.
    fn look_at_doubts(&mut self) {
        let Some(run) = self.doubts.last().cloned() else { return };
        let (names, len) = (self.names_of(&run), run.end - run.start);
        let Some(name) = names.first() else {
            self.doubts.pop();
            return;
        };
        if self.reader.read(Call::DirectRead, *name, run.start, len) > 0 {
            for name in names {
                self.reader.read(Call::Sendfile, name, run.start, len);
            }
            self.doubts.pop();
        }
    }

    /// Some units of ours in a name: often one, often as many as there are in a row.
    fn pick(&mut self, view: usize, most: u64) -> Range<u64> {
        let (me, whole) = (self.reader.seat.number, self.reader.seat.views[view].sort == Sort::Loop);
        let from = self.reader.seat.place(view);
        let run =
            self.reader.seat.board.plan().run(me, from, &self.reader.seat.views[view].units(), most, whole);
        let (step, steps) =
            if whole { (HALVES, (run.end - run.start) / HALVES) } else { (1, run.end - run.start) };
        if steps < 2 || self.reader.seat.rng.below(2) == 0 {
            return run;
        }
        let skip = self.reader.seat.rng.below(steps);
        let take = 1 + self.reader.seat.rng.below(steps - skip);
        run.start + skip * step..run.start + (skip + take) * step
    }

    /// A new version of these units is begun.
    fn begin(&mut self, run: Range<u64>, zeros: bool) -> Job {
        let version = self.reader.seat.board.versions(self.reader.seat.number).fetch_add(1, SeqCst) + 1;
        let job = Job { run, version };
        self.begin_at(&job, zeros);
        job
    }

    /// The same with a version that is there already. This is what counts as an operation.
    fn begin_at(&mut self, job: &Job, zeros: bool) {
        if !job.run.is_empty() {
            self.reader.seat.board.add(Head::Begun, 1);
        }
        self.pending.push(job.clone());
        for unit in job.run.clone() {
            if zeros {
                self.reader.seat.board.zeroed(unit).store(job.version, SeqCst);
            }
            self.reader.seat.board.begun(unit).store(job.version, SeqCst);
        }
    }

    /// All of it was acknowledged.
    fn acknowledge(&mut self, job: &Job) {
        self.pending.retain(|other| other.run != job.run);
        for unit in job.run.clone() {
            self.reader.seat.board.settled(unit).store(job.version, SeqCst);
            self.reader.seat.board.acknowledged(unit).store(job.version, SeqCst);
        }
        self.reader.seat.leave();
    }

    /// The bytes of a job in a place of the buffer.
    fn fill(&mut self, job: &Job, twin: u64, slot: usize) -> &[u8] {
        let bytes = &mut self.buffer.bytes()[slot * ROOM..slot * ROOM + job.bytes()];
        plan::fill(bytes, job.run.start, twin, job.version);
        bytes
    }

    fn write(&mut self, view: usize, run: &Range<u64>, flags: i32) -> io::Result<()> {
        let direct = flags & libc::O_DIRECT != 0;
        let file = self.reader.seat.file(view, flags)?;
        let job = self.begin(run.clone(), false);
        let offset = self.reader.seat.views[view].offset(run.start);
        self.reader.seat.enter(if direct { Call::DirectWrite } else { Call::Write });
        file.write_all_at(self.fill(&job, run.start, 0), offset)?;
        self.acknowledge(&job);
        Ok(())
    }

    /// Each unit by itself, each through another name that shows it.
    fn two_halves(&mut self, run: &Range<u64>) -> io::Result<()> {
        let names = self.names_of(run);
        for (n, unit) in run.clone().take(4).enumerate().filter(|_| !names.is_empty()) {
            let flags = if self.reader.seat.rng.below(2) == 0 { 0 } else { libc::O_DIRECT };
            self.write(names[n % names.len()], &(unit..unit + 1), flags)?;
        }
        Ok(())
    }

    /// Many at once, on one descriptor.
    fn batch(&mut self, call: Call, view: usize) -> io::Result<()> {
        let blocks = self.reader.seat.views[view].sort == Sort::Loop;
        let flags = if blocks || self.reader.seat.rng.below(4) > 0 { libc::O_DIRECT } else { 0 };
        let file = self.reader.seat.file(view, flags)?;
        let (mut jobs, mut watch): (Vec<Job>, _) = (Vec::new(), None);
        for _ in 0..1 + self.reader.seat.rng.below(DEPTH as u64) {
            let run = self.pick(view, MOST);
            // One unit is written once at a time, or nobody could say which version is the later one.
            let apart = jobs.iter().all(|job| job.run.end <= run.start || run.end <= job.run.start);
            if !run.is_empty() && apart {
                if jobs.is_empty() {
                    watch = self.watch(&run);
                }
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
                offset: self.reader.seat.views[view].offset(job.run.start),
                at: base.wrapping_add(slot * ROOM),
                len: job.bytes(),
                write: true,
            })
            .collect();
        self.reader.seat.enter(call);
        let results = match (&mut self.reader.uring, call) {
            (Some(uring), Call::UringWrite) => uring.run(&items)?,
            _ => self.reader.aio.run(&items)?,
        };
        let mut outcome = Ok(());
        for (job, result) in jobs.iter().zip(results) {
            match usize::try_from(result) {
                Ok(written) if written == job.bytes() => self.acknowledge(job),
                Ok(_) => outcome = Err(io::ErrorKind::WriteZero.into()),
                Err(_) => outcome = Err(io::Error::from_raw_os_error(-result as i32)),
            }
        }
        outcome.map(|()| self.check(watch))
    }

    fn zero(&mut self, view: usize, run: Range<u64>, mode: i32) -> io::Result<()> {
        let (offset, blocks) =
            (self.reader.seat.views[view].offset(run.start), self.reader.seat.views[view].sort == Sort::Loop);
        let file = self.reader.seat.file(view, if blocks { libc::O_DIRECT } else { 0 })?;
        let job = self.begin(run, true);
        let len = job.bytes() as u64;
        self.reader.seat.enter(if mode == libc::FALLOC_FL_ZERO_RANGE {
            Call::ZeroRange
        } else {
            Call::PunchHole
        });
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
                self.pending.clear();
                self.reader.seat.leave();
                Ok(())
            }
            other => other.map(|()| self.acknowledge(&job)),
        }
    }

    /// One run of ours through this name becomes the copy of another, through any name.
    fn copy(&mut self, view: usize) -> io::Result<()> {
        let files: Vec<usize> = (0..self.reader.seat.views.len())
            .filter(|other| self.reader.seat.views[*other].sort == Sort::File)
            .collect();
        if files.is_empty() {
            return Ok(());
        }
        let from = files[self.reader.seat.rng.below(files.len() as u64) as usize];
        let (source, target) = (self.pick(from, MOST), self.pick(view, MOST));
        let len = (source.end - source.start).min(target.end - target.start);
        let (source, target) = (source.start..source.start + len, target.start..target.start + len);
        if len == 0 || source.start < target.end && target.start < source.end {
            return Ok(());
        }
        let (reader, writer) = (self.reader.seat.file(from, 0)?, self.reader.seat.file(view, 0)?);
        // First a new version that may be in both places, so that the versions of the target only grow as well.
        let job = self.begin(source.clone(), false);
        let offset = self.reader.seat.views[from].offset(source.start);
        self.reader.seat.enter(Call::Write);
        reader.write_all_at(self.fill(&job, target.start, 0), offset)?;
        self.acknowledge(&job);
        let there = self.reader.seat.views[view].offset(target.start);
        let watch = self.watch(&target);
        let copy = Job { run: target, version: job.version };
        self.begin_at(&copy, false);
        self.reader.seat.enter(Call::CopyFileRange);
        ways::copy((&reader, offset), (&writer, there), copy.bytes() as u64)?;
        self.acknowledge(&copy);
        self.reader.seat.board.add(Head::Copies, 1);
        self.check(watch);
        Ok(())
    }

    /// Through a descriptor of its own: truncated to where the run begins, what is skipped from there on is zeros.
    fn truncate(&mut self, view: usize, run: &Range<u64>) -> io::Result<()> {
        let file = self.reader.seat.open(view, 0)?;
        let (start, end) =
            (self.reader.seat.views[view].offset(run.start), self.reader.seat.views[view].offset(run.end));
        let skipped = self.reader.seat.rng.below(run.end - run.start + 1);
        let zeros = self.begin(run.start..run.start + skipped, true);
        let rest = self.begin(run.start + skipped..run.end, false);
        self.reader.seat.enter(Call::Truncate);
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
        let file = self.reader.seat.file(view, 0)?;
        let job = self.begin(run, false);
        let (offset, len) = (self.reader.seat.views[view].offset(job.run.start), job.bytes());
        self.fill(&job, job.run.start, 0);
        self.reader.pipe.to.write_all(&self.buffer.bytes()[..len])?;
        self.reader.seat.enter(Call::SpliceWrite);
        let spliced = ways::splice_in(&self.reader.pipe, &file, offset, len);
        if spliced.is_err() {
            self.reader.pipe = Pipe::new()?;
        }
        spliced.map(|()| self.acknowledge(&job))
    }

    /// A shared mapping is refused, with ENODEV. Where it is not, that is counted, and used.
    fn map(&mut self, view: usize, run: Range<u64>) -> io::Result<()> {
        use std::io::Write;
        let file = self.reader.seat.file(view, 0)?;
        let (start, end) =
            (self.reader.seat.views[view].offset(run.start), self.reader.seat.views[view].offset(run.end));
        let base = start / PAGE * PAGE;
        self.reader.seat.enter(Call::SharedMapping);
        let lasts = self.reader.seat.views[view].sort == Sort::File && !self.reader.seat.board.tolerant();
        let mapping = match shared(&self.reader.seat, view, &file, base, (end - base) as usize)? {
            Some(mapping) if lasts => mapping,
            _ => return Ok(()),
        };
        let job = self.begin(run, false);
        let len = job.bytes();
        self.fill(&job, job.run.start, 0);
        self.reader.pipe.to.write_all(&self.buffer.bytes()[..len])?;
        let taken = mapping.take((start - base) as usize, &self.reader.pipe, len);
        if taken.is_err() {
            self.reader.pipe = Pipe::new()?;
        }
        taken.map(|()| self.acknowledge(&job))
    }

    fn sync(&mut self, view: usize) -> io::Result<()> {
        let blocks = self.reader.seat.views[view].sort == Sort::Loop;
        let file = self.reader.seat.file(view, if blocks { libc::O_DIRECT } else { 0 })?;
        self.reader.seat.enter(Call::Fsync);
        file.sync_all()?;
        self.reader.seat.leave();
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
