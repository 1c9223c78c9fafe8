//! A small fsx: random operations on files that show the same bytes, each compared with a model in memory.
//!
//! Promises: a wrong byte is found by the read that sees it or at the latest by the comparison at the end, and the
//! message has the seed, the number of the operation and the place.

use crate::bed::Rng;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// The largest single operation: more than one FUSE request (1 MiB) now and then.
const LEN_MAX: u64 = 1_200_000;

/// One name of the disk: the file, and which bytes of the model it shows.
pub struct View {
    pub file: File,
    pub start: u64,
    pub len: u64,
}

/// Which operations beyond read, write and fsync the files take.
#[derive(Clone, Copy, Default)]
pub struct Also {
    /// O_DIRECT needs buffers, offsets and lengths that are multiples of this; 1 = none.
    pub align: u64,
    /// mmap the file shared, and change it there.
    pub mmap: bool,
    /// fallocate(ZERO_RANGE).
    pub zero: bool,
}

/// `ops` random operations over the views of one disk whose content is `model` now. Only bytes in `range` are
/// written: several runs may share a disk. Returns the first difference.
pub fn run(
    views: &[View],
    model: &mut [u8],
    range: std::ops::Range<u64>,
    ops: u64,
    seed: u64,
    also: Also,
) -> Result<(), String> {
    let align = also.align.max(1);
    let mut rng = Rng::new(seed);
    for op in 0..ops {
        let view = &views[rng.below(views.len() as u64) as usize];
        let (low, high) = (range.start.max(view.start), range.end.min(view.start + view.len));
        let (at, len) = pick(&mut rng, low, high, align);
        let (from, to) = (at as usize, (at + len) as usize);
        let offset = at - view.start;
        let trouble =
            |what: &str, error: std::io::Error| format!("op {op} of seed {seed}: {what} {at}+{len}: {error}");
        match rng.below(20) {
            0..9 => {
                let mut got = Aligned::new(len as usize);
                view.file.read_exact_at(got.bytes(), offset).map_err(|error| trouble("read", error))?;
                same(got.bytes(), &model[from..to], at)
                    .map_err(|why| format!("op {op} of seed {seed}: read {why}"))?;
            }
            9..17 => {
                let mut data = Aligned::new(len as usize);
                rng.fill(data.bytes());
                view.file.write_all_at(data.bytes(), offset).map_err(|error| trouble("write", error))?;
                model[from..to].copy_from_slice(data.bytes());
            }
            17 => view.file.sync_data().map_err(|error| trouble("fsync", error))?,
            18 if also.zero => {
                zero(&view.file, offset, len).map_err(|error| trouble("zero range", error))?;
                model[from..to].fill(0);
            }
            _ if also.mmap => {
                let byte = rng.next() as u8;
                map(&view.file, offset, &mut model[from..to], byte)
                    .map_err(|why| format!("op {op} of seed {seed}: mmap at {at}: {why}"))?;
            }
            _ => {}
        }
    }
    for view in views {
        let mut got = Aligned::new(LEN_MAX as usize / 4096 * 4096);
        let mut at = 0;
        while at < view.len {
            let n = (view.len - at).min(got.bytes().len() as u64) as usize;
            let piece = &mut got.bytes()[..n];
            view.file
                .read_exact_at(piece, at)
                .map_err(|error| format!("seed {seed}: reading at the end: {error}"))?;
            let (from, disk) = ((view.start + at) as usize, view.start + at);
            let (own_from, own_to) = (range.start.max(disk), range.end.min(disk + n as u64));
            if own_from < own_to {
                let (a, b) = ((own_from - disk) as usize, (own_to - disk) as usize);
                same(&piece[a..b], &model[from + a..from + b], own_from)
                    .map_err(|why| format!("seed {seed}, at the end: {why}"))?;
            }
            at += n as u64;
        }
    }
    Ok(())
}

/// A range inside [low, high): mostly short, now and then long, often at an edge.
fn pick(rng: &mut Rng, low: u64, high: u64, align: u64) -> (u64, u64) {
    let max = match rng.below(10) {
        0..6 => 5000,
        6..9 => 200_000,
        _ => LEN_MAX,
    };
    let at = match rng.below(10) {
        0 => low,
        1 => high - align.max(rng.below(2000).min(high - low)),
        _ => low + rng.below(high - low),
    } / align
        * align;
    let at = at.max(low);
    let len = (1 + rng.below(max)).next_multiple_of(align).min((high - at) / align * align);
    (at, len)
}

fn same(got: &[u8], want: &[u8], at: u64) -> Result<(), String> {
    let Some(n) = got.iter().zip(want).position(|(a, b)| a != b) else { return Ok(()) };
    let wrong = got.iter().zip(want).filter(|(a, b)| a != b).count();
    Err(format!(
        "byte {} is {:#04x}, not {:#04x}; {wrong} of {} are wrong",
        at + n as u64,
        got[n],
        want[n],
        got.len()
    ))
}

fn zero(file: &File, offset: u64, len: u64) -> std::io::Result<()> {
    // SAFETY: a plain system call on an open descriptor; no memory is involved.
    let result = unsafe {
        libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_ZERO_RANGE, offset.cast_signed(), len.cast_signed())
    };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Maps the pages around the range, compares it, sets every 97th byte, and writes back.
fn map(file: &File, offset: u64, model: &mut [u8], byte: u8) -> Result<(), String> {
    const PAGE: u64 = 4096;
    let skip = (offset % PAGE) as usize;
    let len = skip + model.len();
    let error = || std::io::Error::last_os_error().to_string();
    let start = (offset - offset % PAGE).cast_signed();
    // SAFETY: a new mapping where the kernel likes it, of a file that is as long as the range; checked for failure
    // below.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            start,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(error());
    }
    // SAFETY: the mapping is `len` bytes long, nobody else has it, and it is unmapped only after the last use of the
    // slice.
    let bytes = &mut unsafe { std::slice::from_raw_parts_mut(address.cast::<u8>(), len) }[skip..];
    let compared = same(bytes, model, offset);
    for place in (0..model.len()).step_by(97) {
        bytes[place] = byte;
        model[place] = byte;
    }
    // SAFETY: the mapping made above, whole.
    let synced = unsafe { libc::msync(address, len, libc::MS_SYNC) };
    let synced = if synced == 0 { Ok(()) } else { Err(error()) };
    // SAFETY: the mapping made above, whole, not used any more.
    unsafe { libc::munmap(address, len) };
    compared.and(synced)
}

/// Bytes that begin at a multiple of 4096, as O_DIRECT wants them.
pub struct Aligned {
    store: Vec<u8>,
    skip: usize,
    len: usize,
}

impl Aligned {
    pub fn new(len: usize) -> Self {
        let store = vec![0; len + 4096];
        let skip = store.as_ptr().align_offset(4096);
        Self { store, skip, len }
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        &mut self.store[self.skip..self.skip + self.len]
    }
}
