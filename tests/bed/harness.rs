//! The runner: each test within its time, and a skip that is counted as a skip.
//!
//! Promises: the process ends even if a test hangs (its children are killed, its mounts detached, and the next test
//! runs); the last line has libtest's form; a skipped test says why and is never counted as passed.
//!
//! Tests run one after the other, since they share what the machine has: two cores. Those that mostly wait say so,
//! and go first, a few side by side, each in a process of its own, whose namespaces, mounts and processes the others
//! do not see. Those that are for the night are in no other run than one with `--night`, which has no others.

use std::any::Any;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// One test: a function that panics when it fails, and the time it may take.
pub struct Test {
    pub name: &'static str,
    pub limit: Duration,
    pub when: When,
    pub run: fn(),
}

/// Beside what a test may run, and in which runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// While nothing else of the run does anything.
    Alone,
    /// Beside others of its kind: it spends its time waiting, and what it asserts has room for what these do.
    Beside,
    /// With `--night` only: it is long, or compares speeds.
    Night,
}

/// `tests![name, other(300), third(300, night), fourth(beside)]` declares `TESTS`; the number is the limit in seconds
/// (default 60).
#[macro_export]
macro_rules! tests {
    (@limit $secs:literal $($rest:tt)*) => { $secs };
    (@limit $($rest:tt)*) => { 60 };
    (@when $secs:literal, $word:ident) => { $crate::tests!(@when $word) };
    (@when night) => { $crate::bed::harness::When::Night };
    (@when beside) => { $crate::bed::harness::When::Beside };
    (@when $($secs:literal)?) => { $crate::bed::harness::When::Alone };
    ($($name:ident $(($($how:tt)*))?),* $(,)?) => {
        pub const TESTS: &[$crate::bed::harness::Test] = &[$($crate::bed::harness::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            limit: std::time::Duration::from_secs($crate::tests!(@limit $($($how)*)?)),
            when: $crate::tests!(@when $($($how)*)?),
            run: $name,
        }),*];
    };
}

/// What a skipped test unwinds with.
struct Skip(String);

/// Ends the running test as skipped. The reason is printed and the skip is counted.
pub fn skip(reason: &str) -> ! {
    // resume_unwind: no panic message, nothing has failed.
    resume_unwind(Box::new(Skip(reason.to_string())))
}

enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

/// After a test passed its limit its children are killed; this is how long it may take to notice.
const AFTER_KILL: Duration = Duration::from_secs(10);

/// As many tests that mostly wait run side by side; `--test-threads` changes it.
const SIDE_BY_SIDE: usize = 4;

/// The exit code of a process that ran one test and skipped it.
const SKIPPED: u8 = 77;

/// Runs what the command line selects and returns the exit code of the process.
pub fn main(groups: &[&[Test]]) -> ExitCode {
    let (mut words, mut skips, mut exact, mut list) = (Vec::new(), Vec::new(), false, false);
    let (mut night, mut side_by_side) = (false, SIDE_BY_SIDE);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--exact" => exact = true,
            "--list" => list = true,
            "--skip" => skips.extend(args.next()),
            "--night" => night = true,
            "--one" => return one(groups, &args.next().unwrap_or_default()),
            "--test-threads" => side_by_side = args.next().and_then(|n| n.parse().ok()).unwrap_or(1).max(1),
            "--format" | "--color" => drop(args.next()),
            flag if flag.starts_with('-') => {} // --nocapture and the like: always so here
            word => words.push(word.to_string()),
        }
    }
    let fits = |name: &str, word: &String| if exact { name == word } else { name.contains(word.as_str()) };
    let all: Vec<&Test> = groups.iter().flat_map(|group| group.iter()).collect();
    let chosen: Vec<&Test> = all
        .iter()
        .copied()
        .filter(|t| night == (t.when == When::Night))
        .filter(|t| words.is_empty() || words.iter().any(|w| fits(short(t.name), w)))
        .filter(|t| !skips.iter().any(|w| fits(short(t.name), w)))
        .collect();
    if list {
        chosen.iter().for_each(|t| println!("{}: test", short(t.name)));
        return ExitCode::SUCCESS;
    }
    super::sweep::leftovers();
    println!("\nrunning {} tests", chosen.len());
    let began = Instant::now();
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), 0);
    let mut count = |name: &'static str, verdict: &Verdict| match verdict {
        Verdict::Passed => passed += 1,
        Verdict::Failed(_) => failed.push(name),
        Verdict::Skipped(_) => skipped += 1,
    };
    let (mut beside, mut alone): (Vec<&Test>, Vec<&Test>) =
        chosen.iter().partition(|test| test.when == When::Beside);
    if beside.len() < 2 || side_by_side < 2 {
        alone.append(&mut beside);
    }
    // The longest first, as far as their limits say which these are: nothing waits for one that began last.
    beside.sort_by_key(|test| std::cmp::Reverse(test.limit));
    in_processes(&beside, side_by_side, &mut count);
    for test in alone {
        count(short(test.name), &told(test));
    }
    if !failed.is_empty() {
        println!("\nfailures:");
        failed.iter().for_each(|name| println!("    {name}"));
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {skipped} ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len(),
        all.len() - chosen.len(),
        began.elapsed().as_secs_f64(),
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a test here and says how it went.
fn told(test: &Test) -> Verdict {
    let name = short(test.name);
    print!("test {name} ... ");
    let _ = std::io::stdout().flush();
    let start = Instant::now();
    let verdict = run(test);
    super::sweep::all(); // what a test had made before it had a bed to clean up after it
    let took = start.elapsed().as_secs_f64();
    match &verdict {
        Verdict::Passed => println!("ok ({took:.1} s)"),
        Verdict::Failed(why) => println!("FAILED ({took:.1} s)\n{why}"),
        Verdict::Skipped(why) => println!("ignored\nskipped: {name}: {why}"),
    }
    verdict
}

/// `--one NAME`: a process that runs this test and nothing else.
fn one(groups: &[&[Test]], name: &str) -> ExitCode {
    let mut all = groups.iter().flat_map(|group| group.iter());
    match all.find(|test| short(test.name) == name).map(told) {
        Some(Verdict::Passed) => ExitCode::SUCCESS,
        Some(Verdict::Skipped(_)) => ExitCode::from(SKIPPED),
        Some(Verdict::Failed(_)) | None => ExitCode::FAILURE,
    }
}

/// Runs tests a few at a time, each in a process of its own, and prints what each said when it is over.
fn in_processes(tests: &[&Test], at_a_time: usize, count: &mut impl FnMut(&'static str, &Verdict)) {
    let left = Mutex::new(tests.iter());
    let (send, done) = channel();
    std::thread::scope(|scope| {
        for _ in 0..at_a_time {
            let (send, left) = (send.clone(), &left);
            scope.spawn(move || {
                loop {
                    let next = left.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                    let Some(test) = next else { break };
                    let _ = send.send((short(test.name), in_process(test)));
                }
            });
        }
        drop(send);
        for (name, (said, verdict)) in done {
            print!("{said}");
            count(name, &verdict);
        }
    });
}

/// Runs a test in a process of its own: what it said, and how it went. What the process wrote goes into a file, since
/// whatever it may leave behind would keep a pipe open.
fn in_process(test: &Test) -> (String, Verdict) {
    let name = short(test.name);
    let mut said = tempfile::tempfile().unwrap();
    let output = || Stdio::from(File::try_clone(&said).unwrap());
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command.args(["--one", name]).stdin(Stdio::null()).stdout(output()).stderr(output());
    let mut child = command.spawn().unwrap();
    let ended = |child: &mut std::process::Child, limit: Duration| {
        let end = Instant::now() + limit;
        loop {
            match child.try_wait() {
                Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
                Ok(status) => break status,
                Err(_) => break None,
            }
        }
    };
    // It ends its test at the limit itself, unless it cannot.
    let status = ended(&mut child, test.limit + 2 * AFTER_KILL);
    if status.is_none() {
        let _ = child.kill();
        ended(&mut child, AFTER_KILL);
        super::sweep::leftovers();
    }
    let mut text = String::new();
    said.rewind().unwrap();
    let _ = said.read_to_string(&mut text);
    let verdict = match status.and_then(|status| status.code()) {
        Some(0) => Verdict::Passed,
        Some(code) if code == i32::from(SKIPPED) => Verdict::Skipped(String::new()),
        Some(1) => Verdict::Failed(String::new()),
        _ => {
            text += &format!("FAILED\n{name}: its process did not end as it should: {status:?}\n");
            Verdict::Failed(String::new())
        }
    };
    (text, verdict)
}

/// `netns::io::name` as `io::name`: the crate's name says nothing.
fn short(name: &str) -> &str {
    name.split_once("::").map_or(name, |(_, rest)| rest)
}

fn run(test: &Test) -> Verdict {
    let (send, verdict) = channel();
    let body = test.run;
    std::thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(body));
        let _ = send.send(result.map_or_else(judge, |()| Verdict::Passed));
    });
    match verdict.recv_timeout(test.limit) {
        Ok(verdict) => verdict,
        Err(RecvTimeoutError::Disconnected) => Verdict::Failed("the test's thread vanished".into()),
        Err(RecvTimeoutError::Timeout) => {
            println!("\nlimit of {:?} passed: killing what the test started", test.limit);
            super::sweep::emergency();
            // The thread wakes with errors from everything it waited for, and cleans up as it unwinds.
            let ended = verdict.recv_timeout(AFTER_KILL).is_ok();
            let how = if ended { "" } else { "; its thread did not end even then" };
            Verdict::Failed(format!("took longer than its limit of {:?}{how}", test.limit))
        }
    }
}

fn judge(payload: Box<dyn Any + Send>) -> Verdict {
    match payload.downcast::<Skip>() {
        Ok(skip) => Verdict::Skipped(skip.0),
        Err(other) => Verdict::Failed(match (other.downcast_ref::<String>(), other.downcast_ref::<&str>()) {
            (Some(text), _) => text.clone(),
            (None, Some(text)) => (*text).to_string(),
            (None, None) => "panicked without a message".into(),
        }),
    }
}
