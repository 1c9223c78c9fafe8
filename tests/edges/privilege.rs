//! What the process asks for itself and gives up, each tried in a process of its own: memory limits and the OOM score
//! are a process's.

use std::fs;
use std::process::Command;
use std::thread;

use aoefs::daemon::privilege;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Runs `body` in a new process: this test again, alone, named with its module.
fn in_process(test: &str, body: impl FnOnce()) {
    const CHILD: &str = "AOEFS_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn locked_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Threads with stacks and buffers as the daemon's: none may fail to start.
fn start_threads() {
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let thread = thread::Builder::new().spawn(move || {
                let buffer = vec![i as u8; 1 << 20];
                vec![0u8; 16 << 20].len() + buffer.len()
            });
            thread.expect("a thread starts")
        })
        .collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 17 << 20));
}

#[test]
fn locked_memory_survives_the_drop() {
    in_process("privilege::locked_memory_survives_the_drop", || {
        let said = privilege::lock_memory();
        let locked = locked_kib();
        assert_eq!(said.is_ok(), locked > 0, "{said:?}");
        privilege::drop_privileges().ok();
        start_threads();
        // Touched pages count, not the 8 x 18 MiB that were mapped meanwhile.
        assert!(locked_kib() < locked + (64 << 10), "{} of {locked}", locked_kib());
    });
}

#[test]
fn a_memory_limit_does_not_stop_later_threads() {
    in_process("privilege::a_memory_limit_does_not_stop_later_threads", || {
        privilege::drop_all_privileges().ok();
        let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        let limit = (8 << 20).min(hard);
        setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit).unwrap();
        let said = privilege::lock_memory();
        match &said {
            Ok(words) => assert!(words.contains("RLIMIT_MEMLOCK"), "{words}"),
            Err(words) => assert!(words.contains("not locked"), "{words}"),
        }
        start_threads();
    });
}

#[test]
fn the_oom_score_is_set_or_the_reason_is_told() {
    in_process("privilege::the_oom_score_is_set_or_the_reason_is_told", || {
        let said = privilege::oom_score_adj(-900);
        let score = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(said.is_ok(), score.trim() == "-900", "{said:?} {score}");
    });
}
