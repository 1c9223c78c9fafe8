//! One process of a run: its place on the board, the names that it may use, and how it tells what it found.

use super::board::{Board, Head};
use super::judge::{KINDS, Kind};
use super::plan::HALVES;
use crate::bed::Rng;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

/// Violations of each kind that one process tells in words; the others are counted.
const TOLD: u64 = 4;
/// Where most accesses go, in sectors: few enough that processes meet, at a place that all names show.
const HOT: Range<u64> = 320..640;

/// What kind of name it is, and so what may be expected of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sort {
    /// `data`, or a partition that stays.
    File,
    /// A partition that goes and comes back while it is used. What the kernel has cached of it is nobody's concern.
    Fleeting,
    /// A loop device. It has a page cache of its own, of blocks; so only O_DIRECT is used on it.
    Loop,
}

/// One name: where it is, and which sectors of the disk it shows.
#[derive(Clone, Debug)]
pub struct View {
    pub path: PathBuf,
    pub start: u64,
    pub end: u64,
    pub sort: Sort,
}

impl View {
    pub fn new(path: PathBuf, sectors: Range<u64>, sort: Sort) -> Self {
        Self { path, start: sectors.start, end: sectors.end, sort }
    }

    /// As one word of a command line.
    pub fn word(&self) -> String {
        format!("{}:{}:{:?}:{}", self.start, self.end, self.sort, self.path.display())
    }

    pub fn parse(word: &str) -> Option<Self> {
        let mut parts = word.splitn(4, ':');
        let start = parts.next()?.parse().ok()?;
        let end = parts.next()?.parse().ok()?;
        let sort = match parts.next()? {
            "File" => Sort::File,
            "Fleeting" => Sort::Fleeting,
            "Loop" => Sort::Loop,
            _ => return None,
        };
        Some(Self { path: parts.next()?.into(), start, end, sort })
    }

    /// The units of the disk that it shows.
    pub const fn units(&self) -> Range<u64> {
        self.start * HALVES..self.end * HALVES
    }

    /// Where a unit of the disk is in it, in bytes.
    pub const fn offset(&self, unit: u64) -> u64 {
        (unit - self.start * HALVES) * super::plan::UNIT as u64
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// What a process is doing, as its number on the board.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Call {
    Nothing,
    Open,
    Write,
    DirectWrite,
    TwoHalves,
    AioWrite,
    UringWrite,
    ZeroRange,
    PunchHole,
    CopyFileRange,
    Truncate,
    SpliceWrite,
    SharedMapping,
    Fsync,
    Read,
    DirectRead,
    AioRead,
    UringRead,
    Sendfile,
    SendfileSocket,
    Splice,
    PrivateMapping,
    Bystander,
    Partition,
    Fail,
    Sabotage,
    Sleep,
}

/// All of them, in the order of their numbers.
pub const CALLS: [Call; 27] = [
    Call::Nothing,
    Call::Open,
    Call::Write,
    Call::DirectWrite,
    Call::TwoHalves,
    Call::AioWrite,
    Call::UringWrite,
    Call::ZeroRange,
    Call::PunchHole,
    Call::CopyFileRange,
    Call::Truncate,
    Call::SpliceWrite,
    Call::SharedMapping,
    Call::Fsync,
    Call::Read,
    Call::DirectRead,
    Call::AioRead,
    Call::UringRead,
    Call::Sendfile,
    Call::SendfileSocket,
    Call::Splice,
    Call::PrivateMapping,
    Call::Bystander,
    Call::Partition,
    Call::Fail,
    Call::Sabotage,
    Call::Sleep,
];

/// A process at its place.
pub struct Seat {
    pub board: Board,
    pub number: u64,
    pub views: Vec<View>,
    pub rng: Rng,
    files: HashMap<(usize, i32), Rc<File>>,
    told: RefCell<[u64; KINDS.len()]>,
}

impl Seat {
    pub fn new(board: &Path, number: u64, views: Vec<View>) -> io::Result<Self> {
        let board = Board::open(board)?;
        let seed = board.plan().seed ^ number.wrapping_mul(0x5851_f42d_4c95_7f2d);
        Ok(Self {
            board,
            number,
            views,
            rng: Rng::new(seed),
            files: HashMap::new(),
            told: RefCell::default(),
        })
    }

    /// Before a call that may not come back.
    pub fn enter(&self, call: Call) {
        self.board.doing(self.number).store(call as u64, SeqCst);
    }

    /// After it.
    pub fn leave(&self) {
        self.board.progress(self.number).fetch_add(1, SeqCst);
    }

    pub fn stopped(&self) -> bool {
        self.board.stopped()
    }

    /// A descriptor of a name with these flags, kept for the next time.
    pub fn file(&mut self, view: usize, flags: i32) -> io::Result<Rc<File>> {
        if let Some(file) = self.files.get(&(view, flags)) {
            return Ok(file.clone());
        }
        let file = Rc::new(self.open(view, flags)?);
        self.files.insert((view, flags), file.clone());
        Ok(file)
    }

    /// A descriptor of its own.
    pub fn open(&self, view: usize, flags: i32) -> io::Result<File> {
        self.enter(Call::Open);
        let file = File::options().read(true).write(true).custom_flags(flags).open(&self.views[view].path);
        self.leave();
        file
    }

    /// Everything that is open is closed.
    pub fn forget_files(&mut self) {
        self.files.clear();
    }

    /// A place in the units of a name, mostly where everybody else is.
    pub fn place(&mut self, view: usize) -> u64 {
        let all = self.views[view].units();
        let hot = all.start.max(HOT.start * HALVES)..all.end.min(HOT.end * HALVES);
        let range = if self.rng.below(4) > 0 && !hot.is_empty() { hot } else { all };
        range.start + self.rng.below(range.end - range.start)
    }

    /// Counts a violation, and tells the first ones.
    pub fn wrong(&self, kind: Kind, what: &str) {
        self.board.violations(kind).fetch_add(1, SeqCst);
        let told = &mut self.told.borrow_mut()[kind as usize];
        *told += 1;
        if *told <= TOLD {
            println!("violation: {kind:?}: {what}");
        }
    }

    /// A call failed. Where it may, both versions are possible from now on; where it may not, that is a violation.
    pub fn failed(&mut self, call: Call, view: usize, error: &io::Error) {
        self.leave();
        let gone = matches!(error.raw_os_error(), Some(libc::ESTALE | libc::ENOENT));
        if self.board.tolerant() || self.views[view].sort == Sort::Fleeting && gone {
            self.board.add(Head::Errors, 1);
            // Without a pause a process would use up all its operations while nothing works.
            std::thread::sleep(std::time::Duration::from_millis(2));
        } else {
            self.wrong(Kind::Failed, &format!("{call:?} of {}: {error}", self.views[view].name()));
        }
        // What is opened anew makes the kernel forget all that it has cached of the name, so nothing is that need not
        // be.
        let dead = [libc::ESTALE, libc::ENOTCONN, libc::ENODEV, libc::ECONNABORTED];
        if error.raw_os_error().is_some_and(|errno| dead.contains(&errno)) {
            self.files.retain(|(of, _), _| *of != view);
        }
    }
}
