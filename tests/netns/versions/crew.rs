//! The crew of a run, from outside: starts the processes, watches that each gets on, and counts what they found.
//!
//! Promise: a run ends, whatever hangs. A process without progress for longer than the crew's patience is reported
//! with what it was
//! doing and where it is in the kernel; then the mounts are aborted and everybody is killed. Nothing here touches a
//! mount meanwhile.

use super::board::{Board, Head};
use super::judge::{Bounds, KINDS};
use super::plan::{HALVES, Plan};
use super::seat::{CALLS, Call, View};
use crate::bed::{Bed, Daemon};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// How long a process may take for one call, unless the test says otherwise: five times what the longest of them
/// takes here with
/// targets that are restarted, and with other work on the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often the crew is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Violations that are printed.
const SHOWN: usize = 12;

struct Member {
    seat: u64,
    role: String,
    daemon: Arc<Daemon>,
    progress: u64,
    since: Instant,
    done: bool,
}

/// The processes of a run and their board.
pub struct Crew {
    pub board: Board,
    path: PathBuf,
    members: Vec<Member>,
    /// To be aborted if somebody hangs.
    mounts: Vec<PathBuf>,
    pub patience: Duration,
    pub report: Report,
}

/// What the runs of a crew came to, as far as the board does not know it.
#[derive(Debug, Default)]
pub struct Report {
    /// Operations of workers: each piece of a batch is one.
    pub operations: u64,
    /// Processes that did not come back from a call.
    pub hung: Vec<String>,
    /// Processes that ended otherwise than with success.
    pub fallen: Vec<String>,
    /// What the processes said: the first violations of each.
    pub told: Vec<String>,
    pub took: Duration,
}

impl Crew {
    /// Nobody yet, and a new board.
    pub fn new(bed: &Bed, plan: Plan, mounts: &[&Path]) -> Self {
        let path = (0..).map(|n| bed.images().join(format!("board{n}"))).find(|path| !path.exists()).unwrap();
        let board = Board::create(&path, plan).unwrap();
        let mounts = mounts.iter().map(|path| path.to_path_buf()).collect();
        Self { board, path, members: Vec::new(), mounts, patience: PATIENCE, report: Report::default() }
    }

    /// Starts processes of one role. Workers come first: the seat of a worker is its number as an owner.
    pub fn start(&mut self, bed: &Bed, role: &str, count: u64, views: &[View]) {
        let me = std::env::current_exe().unwrap();
        let workers = self.board.plan().workers;
        for n in 0..count {
            let others = self.members.iter().filter(|member| member.role != "worker").count() as u64;
            let seat = if role == "worker" { n } else { workers + others };
            let words: Vec<String> = views.iter().map(View::word).collect();
            let seat_word = seat.to_string();
            let mut argv =
                vec![me.to_str().unwrap(), "--versions", role, &seat_word, self.path.to_str().unwrap()];
            argv.extend(words.iter().map(String::as_str));
            let progress = self.board.progress(seat).load(SeqCst);
            // Not the bed's: what it says is in the report, and need not be printed after a failure as well.
            let daemon = Daemon::spawn(bed.dir(), role, &argv);
            let (role, since) = (role.to_string(), Instant::now());
            self.members.push(Member { seat, role, daemon, progress, since, done: false });
        }
    }

    /// The usual crew: all workers, three readers, one bystander.
    pub fn usual(&mut self, bed: &Bed, operations: u64, views: &[View]) {
        self.board.set(Head::Stop, 0);
        self.board.set(Head::Begun, 0);
        self.board.set(Head::Goal, operations);
        self.start(bed, "worker", self.board.plan().workers, views);
        self.start(bed, "reader", 3, views);
        self.start(bed, "bystander", 1, views);
    }

    /// Waits until the work is done and everybody has ended, or until somebody hangs. With a limit the work ends
    /// then, done or not.
    /// `during` is called all the time: it makes faults. Returns whether all is well so far but for violations.
    pub fn run(&mut self, limit: Option<Duration>, mut during: impl FnMut(&Board)) -> bool {
        let start = Instant::now();
        while self.members.iter().any(|member| !member.done) {
            during(&self.board);
            if limit.is_some_and(|limit| start.elapsed() > limit) {
                self.board.set(Head::Stop, 1);
            }
            self.look();
            if !self.report.hung.is_empty() {
                self.abort();
                break;
            }
            std::thread::sleep(LOOK);
        }
        self.report.took += start.elapsed();
        self.report.operations += self.board.head(Head::Begun).swap(0, SeqCst);
        for member in self.members.drain(..) {
            let said = member.daemon.said();
            let lines = said.lines().map(|line| format!("{} {}: {line}", member.role, member.seat));
            self.report.told.extend(lines);
        }
        self.report.hung.is_empty() && self.report.fallen.is_empty()
    }

    fn look(&mut self) {
        for member in self.members.iter_mut().filter(|member| !member.done) {
            if !member.daemon.alive() {
                member.done = true;
                let code = member.daemon.ended(Duration::from_secs(1));
                if code != 0 {
                    self.report.fallen.push(format!("{} {} ended with {code}", member.role, member.seat));
                    self.board.set(Head::Stop, 1);
                }
                continue;
            }
            let progress = self.board.progress(member.seat).load(SeqCst);
            if progress != member.progress {
                (member.progress, member.since) = (progress, Instant::now());
            } else if member.since.elapsed() > self.patience {
                let doing = self.board.doing(member.seat).load(SeqCst) as usize;
                let stack = std::fs::read_to_string(format!("/proc/{}/stack", member.daemon.pid()))
                    .unwrap_or_default();
                let places: Vec<&str> =
                    stack.split_whitespace().filter(|word| word.contains('+')).take(6).collect();
                self.report.hung.push(format!(
                    "{} {} in {:?} for {:.1} s: {}",
                    member.role,
                    member.seat,
                    CALLS.get(doing).unwrap_or(&Call::Nothing),
                    member.since.elapsed().as_secs_f64(),
                    places.join(" ")
                ));
            }
        }
    }

    /// Nobody is waited for any more: requests fail, processes die.
    fn abort(&self) {
        self.board.set(Head::Stop, 1);
        for mount in &self.mounts {
            let _ = umount2(mount.as_path(), MntFlags::MNT_FORCE);
        }
        self.members.iter().for_each(|member| member.daemon.signal(Signal::SIGKILL));
    }

    /// At rest: every name once more, by every way. Only where all was well so far.
    pub fn look_again(&mut self, bed: &Bed, views: &[View]) {
        if self.report.hung.is_empty() {
            self.board.set(Head::Stop, 0);
            self.start(bed, "last", 1, views);
            self.run(None, |_| {});
        }
    }

    /// Judges the whole disk, as it is in a file that nobody writes to any more.
    pub fn judge_image(&mut self, image: &Path) {
        let disk = std::fs::read(image).unwrap();
        let mut bounds = Bounds::default();
        bounds.note(&self.board, 0, self.board.plan().units());
        let (board, told) = (&self.board, &mut self.report.told);
        let judged = bounds.judge(board, &disk, |kind, what| {
            board.violations(kind).fetch_add(1, SeqCst);
            told.push(format!("violation: {kind:?}: on the target's disk: {what}"));
        });
        assert_eq!(judged, self.board.plan().units(), "the image is as long as the disk");
        self.board.add(Head::Judged, judged);
    }

    /// Violations of all kinds, in the order of `KINDS`.
    pub fn violations(&self) -> [u64; KINDS.len()] {
        KINDS.map(|kind| self.board.violations(kind).load(SeqCst))
    }

    /// One line, and the first violations in words.
    pub fn print(&self) {
        let (report, get) = (&self.report, |which| self.board.get(which));
        let violations = self.violations();
        let kinds: Vec<String> = KINDS
            .iter()
            .zip(violations)
            .filter(|(_, count)| *count > 0)
            .map(|(kind, count)| format!("{kind:?} {count}"))
            .collect();
        print!(
            "[seed {}: {} operations, {} copies, {} reads, {} sectors judged, {} calls failed, {} mappings \
             refused, {} violations{}{}, {} hung, {:.1} s] ",
            get(Head::Seed),
            report.operations,
            get(Head::Copies),
            get(Head::Reads),
            get(Head::Judged) / HALVES,
            get(Head::Errors),
            get(Head::Refused),
            violations.iter().sum::<u64>(),
            if kinds.is_empty() { "" } else { ": " },
            kinds.join(", "),
            report.hung.len(),
            report.took.as_secs_f64()
        );
        // Of the mappings one is as good as all.
        let telling = |line: &&String| !line.contains(": Mapped: ");
        let mapped = report.told.iter().find(|line| !telling(line));
        let words = report.told.iter().filter(telling).take(SHOWN).chain(mapped);
        let words = words.chain(&report.hung).chain(&report.fallen);
        words.for_each(|line| print!("\n    {line}"));
    }

    /// Nothing was wrong, and nobody hung or fell. Prints what was done.
    #[track_caller]
    pub fn clean(&self) {
        self.print();
        assert!(self.report.hung.is_empty(), "hung: {:#?}", self.report.hung);
        assert!(self.report.fallen.is_empty(), "fallen: {:#?}", self.report.fallen);
        assert_eq!(self.violations().iter().sum::<u64>(), 0, "violations");
    }
}
