//! The others: bystanders who open, truncate and write nothing; who makes and deletes partitions; and those who do
//! wrong on
//! purpose, so that a run can show that it would notice.

use super::judge::Kind;
use super::plan::{self, HALVES, UNIT};
use super::seat::{Call, Seat, Sort};
use super::worker::shared;
use crate::tools::fsx::Aligned;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// The longest pause of a bystander, in microseconds. With every open(2) the kernel forgets what it has cached of a
/// name, and so what
/// may be wrong with it.
const PAUSE: u64 = 40_000;

/// Opens, truncates, synchronizes, closes. Nothing of it may change a byte or a size.
pub fn stand_by(mut seat: Seat) -> io::Result<()> {
    while !seat.stopped() {
        let view = seat.rng.below(seat.views.len() as u64) as usize;
        if seat.views[view].sort != Sort::Loop
            && let Err(error) = look(&mut seat, view)
        {
            seat.failed(Call::Bystander, view, &error);
        }
        std::thread::sleep(Duration::from_micros(seat.rng.below(PAUSE)));
    }
    Ok(())
}

fn look(seat: &mut Seat, view: usize) -> io::Result<()> {
    let bytes = (seat.views[view].end - seat.views[view].start) * HALVES * UNIT as u64;
    let flags = if seat.rng.below(2) == 0 { libc::O_TRUNC } else { 0 };
    let file = seat.open(view, flags)?;
    seat.enter(Call::Bystander);
    match seat.rng.below(8) {
        // From high to low: a truncation upwards would owe zeros.
        0 | 1 if flags == 0 => {
            let high = seat.rng.below(bytes + 1);
            file.set_len(high)?;
            file.set_len(seat.rng.below(high + 1))?;
        }
        2 => file.sync_all()?,
        3 => drop(shared(seat, view, &file, 0, bytes as usize)?),
        4 => advise(&file, libc::POSIX_FADV_DONTNEED),
        5 => advise(&file, libc::POSIX_FADV_WILLNEED),
        6 => super::ways::fallocate(&file, 0, 0, bytes)?,
        _ => {}
    }
    let size = file.metadata()?.len();
    if size != bytes {
        seat.wrong(Kind::Short, &format!("{} has {size} bytes, not {bytes}", seat.views[view].name()));
    }
    drop(file);
    seat.leave();
    Ok(())
}

/// Advice about the first MiB, where most is done. It cannot fail in a way that matters.
fn advise(file: &File, advice: i32) {
    // SAFETY: a plain system call on an open descriptor; no memory is involved.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 1 << 20, advice) };
}

/// Deletes the fleeting partitions and makes them again, one after the other.
pub fn partition(mut seat: Seat) -> io::Result<()> {
    let fleeting: Vec<usize> =
        (0..seat.views.len()).filter(|view| seat.views[*view].sort == Sort::Fleeting).collect();
    let mut there = vec![true; fleeting.len()];
    while !seat.stopped() && !fleeting.is_empty() {
        let which = seat.rng.below(fleeting.len() as u64) as usize;
        let view = fleeting[which];
        if let Err(error) = change(&seat, view, there[which]) {
            seat.failed(Call::Partition, view, &error);
        } else {
            there[which] = !there[which];
        }
        std::thread::sleep(Duration::from_millis(2 + seat.rng.below(30)));
    }
    Ok(())
}

fn change(seat: &Seat, view: usize, delete: bool) -> io::Result<()> {
    let (view, name) = (&seat.views[view], seat.views[view].name());
    let ctl = view.path.with_file_name("ctl");
    let say = |line: &str| File::options().write(true).open(&ctl)?.write_all(line.as_bytes());
    seat.enter(Call::Partition);
    let done = if delete {
        // One that is open may have to be told twice.
        say(&format!("delpart {name}\n")).or_else(|_| say(&format!("delpart -f {name}\n")))
    } else {
        say(&format!("part {name} {} {}\n", view.start, view.end))
    };
    seat.leave();
    done
}

/// Tells the target's ctl to fail all that is outstanding, again and again.
pub fn fail(mut seat: Seat) -> io::Result<()> {
    let ctl = seat.views[0].path.with_file_name("ctl");
    while !seat.stopped() {
        seat.enter(Call::Fail);
        File::options().write(true).open(&ctl)?.write_all(b"failio\n")?;
        seat.leave();
        std::thread::sleep(Duration::from_millis(5 + seat.rng.below(100)));
    }
    Ok(())
}

/// What is done wrong on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wrong {
    /// Writes back what a page was a moment ago: an old version comes back.
    Undo,
    /// Writes zeros.
    Clear,
    /// Flips a bit.
    Tear,
    /// Writes a unit to another place.
    Swap,
    /// Writes a version that its owner has not begun.
    Ahead,
}

/// Does one thing wrong, again and again, through the first name.
pub fn spoil(mut seat: Seat, wrong: Wrong) -> io::Result<()> {
    let mut page = Aligned::new(4096);
    while !seat.stopped() {
        let file = seat.file(0, libc::O_DIRECT)?;
        let unit = seat.place(0) / 16 * 16;
        let offset = seat.views[0].offset(unit);
        seat.enter(Call::Sabotage);
        let bytes = page.bytes();
        file.read_exact_at(bytes, offset)?;
        match wrong {
            Wrong::Undo => std::thread::sleep(Duration::from_millis(3)),
            Wrong::Clear => bytes.fill(0),
            Wrong::Tear => bytes.iter_mut().step_by(UNIT).for_each(|byte| *byte ^= 1),
            Wrong::Swap => bytes.rotate_left(UNIT),
            Wrong::Ahead => {
                let begun = seat.board.begun(unit).load(SeqCst);
                plan::fill(&mut bytes[..UNIT], unit, unit, begun + 1_000_000);
            }
        }
        file.write_all_at(bytes, offset)?;
        seat.leave();
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Does not come back, and does not end when it is told to.
pub fn sleep(seat: &Seat) {
    seat.enter(Call::Sleep);
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
