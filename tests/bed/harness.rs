//! The runner: one test after the other, each within its time, and a skip that is counted as a skip.
//!
//! Promises: the process ends even if a test hangs (its children are killed, its mounts detached, and the next test runs);
//! the last line has libtest's form; a skipped test says why and is never counted as passed.

use std::any::Any;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// One test: a function that panics when it fails, and the time it may take.
pub struct Test {
    pub name: &'static str,
    pub limit: Duration,
    pub run: fn(),
}

/// `tests![name, other(300), …]` declares `TESTS`; the number is the limit in seconds (default 60).
#[macro_export]
macro_rules! tests {
    (@limit) => { 60 };
    (@limit $secs:literal) => { $secs };
    ($($name:ident $(($secs:literal))?),* $(,)?) => {
        pub const TESTS: &[$crate::bed::harness::Test] = &[$($crate::bed::harness::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            limit: std::time::Duration::from_secs($crate::tests!(@limit $($secs)?)),
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

/// Runs what the command line selects and returns the exit code of the process.
pub fn main(groups: &[&[Test]]) -> ExitCode {
    let (mut words, mut skips, mut exact, mut list) = (Vec::new(), Vec::new(), false, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--exact" => exact = true,
            "--list" => list = true,
            "--skip" => skips.extend(args.next()),
            "--format" | "--color" | "--test-threads" => drop(args.next()),
            flag if flag.starts_with('-') => {} // --nocapture and the like: always so here
            word => words.push(word.to_string()),
        }
    }
    let fits = |name: &str, word: &String| if exact { name == word } else { name.contains(word.as_str()) };
    let all: Vec<&Test> = groups.iter().flat_map(|group| group.iter()).collect();
    let chosen: Vec<&Test> = all
        .iter()
        .copied()
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
    for test in &chosen {
        let name = short(test.name);
        print!("test {name} ... ");
        let _ = std::io::stdout().flush();
        let start = Instant::now();
        let verdict = run(test);
        super::sweep::all(); // what a test had made before it had a bed to clean up after it
        let took = start.elapsed().as_secs_f64();
        match verdict {
            Verdict::Passed => {
                passed += 1;
                println!("ok ({took:.1} s)");
            }
            Verdict::Failed(why) => {
                println!("FAILED ({took:.1} s)\n{why}");
                failed.push(name);
            }
            Verdict::Skipped(why) => {
                skipped += 1;
                println!("ignored\nskipped: {name}: {why}");
            }
        }
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
