//! Registers: every sector is one, and a reader may see only its last acknowledged value or one that is being written.
//!
//! A sector holds (register, writer's count, check sum over all of it). Writers each own a share of the registers and
//! note before and after a write how far they are; readers note it before and after a read: the count read must lie
//! between the last one acknowledged before the read began and the last one begun before the read ended. A torn
//! sector fails its check sum, another sector's data its register number. Files with concurrent readers must be
//! O_DIRECT: a page cache itself shows torn sectors.

use crate::bed::Rng;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

const SECTOR: usize = 512;

/// What to do, on how many registers, for how long.
pub struct Plan {
    /// Registers lie `stride` bytes apart, from `start` on.
    pub registers: u64,
    pub start: u64,
    pub stride: u64,
    pub writers: usize,
    pub readers: usize,
    pub time: Duration,
    pub seed: u64,
    /// An I/O error is taken as "unknown whether written" instead of failing the run.
    pub errors_allowed: bool,
}

/// What was done.
#[derive(Debug, Default, Clone, Copy)]
pub struct Done {
    pub writes: u64,
    pub reads: u64,
    pub errors: u64,
}

/// How far one register is. Written by its owner, read by all.
#[derive(Default)]
struct Register {
    begun: AtomicU64,
    acknowledged: AtomicU64,
}

/// Runs the plan; `open` gives each thread a file of its own (buffered, O_DIRECT, another name of the disk).
/// Every register is written once before the clock starts.
pub fn run(plan: &Plan, open: impl Fn(usize) -> io::Result<File>) -> Result<Done, String> {
    let registers: Vec<Register> = (0..plan.registers).map(|_| Register::default()).collect();
    let stop = AtomicBool::new(false);
    let world = World { plan, registers: &registers, stop: &stop };
    let files: Vec<File> = (0..plan.writers + plan.readers)
        .map(|who| open(who).map_err(|error| format!("open: {error}")))
        .collect::<Result<_, _>>()?;
    for register in 0..plan.registers {
        world.write(&files[0], register, 1)?;
    }
    let end = Instant::now() + plan.time;
    std::thread::scope(|scope| {
        let threads: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(who, file)| {
                let world = &world;
                scope.spawn(move || {
                    let result = world.work(file, who, end);
                    if result.is_err() {
                        world.stop.store(true, SeqCst);
                    }
                    result
                })
            })
            .collect();
        let mut total = Done::default();
        for thread in threads {
            let done = thread.join().unwrap()?;
            total.writes += done.writes;
            total.reads += done.reads;
            total.errors += done.errors;
        }
        // At rest every register holds its last value, or one whose write was never acknowledged.
        (0..plan.registers).try_for_each(|register| world.read(&files[0], register))?;
        Ok(total)
    })
}

struct World<'a> {
    plan: &'a Plan,
    registers: &'a [Register],
    stop: &'a AtomicBool,
}

impl World<'_> {
    fn work(&self, file: &File, who: usize, end: Instant) -> Result<Done, String> {
        let plan = self.plan;
        let mut rng = Rng::new(plan.seed ^ (who as u64) << 40);
        let mut done = Done::default();
        while Instant::now() < end && !self.stop.load(SeqCst) {
            let any = rng.below(plan.registers);
            let outcome = if who < plan.writers {
                // The registers with this remainder are this writer's own.
                let own = any - any % plan.writers as u64 + who as u64;
                if own >= plan.registers {
                    continue;
                }
                done.writes += 1;
                let count = self.registers[own as usize].begun.load(SeqCst) + 1;
                self.write(file, own, count)
            } else {
                done.reads += 1;
                self.read(file, any)
            };
            match outcome {
                Err(why) if plan.errors_allowed && why.starts_with("error: ") => done.errors += 1,
                other => other?,
            }
        }
        Ok(done)
    }

    fn write(&self, file: &File, register: u64, count: u64) -> Result<(), String> {
        let state = &self.registers[register as usize];
        state.begun.store(count, SeqCst);
        let block = Block::new(register, count);
        file.write_all_at(&block.0, self.place(register))
            .map_err(|error| format!("error: writing register {register}: {error}"))?;
        state.acknowledged.store(count, SeqCst);
        Ok(())
    }

    fn read(&self, file: &File, register: u64) -> Result<(), String> {
        let state = &self.registers[register as usize];
        let least = state.acknowledged.load(SeqCst);
        let mut block = Box::new(Block([0; SECTOR]));
        file.read_exact_at(&mut block.0, self.place(register))
            .map_err(|error| format!("error: reading register {register}: {error}"))?;
        let most = state.begun.load(SeqCst);
        let at = format!("register {register} (seed {})", self.plan.seed);
        let (number, count) =
            block.contents().ok_or_else(|| format!("{at}: torn, or bytes that nobody wrote"))?;
        if number != register {
            return Err(format!("{at}: holds register {number}"));
        }
        if count < least || count > most {
            return Err(format!("{at}: value {count}, but {least} was acknowledged and {most} begun"));
        }
        Ok(())
    }

    fn place(&self, register: u64) -> u64 {
        self.plan.start + register * self.plan.stride
    }
}

/// The bytes of a register, aligned for O_DIRECT.
#[repr(C, align(512))]
struct Block([u8; SECTOR]);

impl Block {
    fn new(register: u64, count: u64) -> Box<Self> {
        let mut block = Box::new(Self([0; SECTOR]));
        Rng::new(register << 32 ^ count).fill(&mut block.0[24..]);
        block.0[..8].copy_from_slice(&register.to_le_bytes());
        block.0[8..16].copy_from_slice(&count.to_le_bytes());
        let sum = sum(&block.0);
        block.0[16..24].copy_from_slice(&sum.to_le_bytes());
        block
    }

    fn contents(&self) -> Option<(u64, u64)> {
        let word = |at: usize| u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap());
        (word(16) == sum(&self.0)).then(|| (word(0), word(8)))
    }
}

/// FNV-1a over everything but the sum itself.
fn sum(block: &[u8; SECTOR]) -> u64 {
    let rest = block[..16].iter().chain(&block[24..]);
    rest.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
