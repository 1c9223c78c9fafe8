use super::*;
use crate::allowance::{BURST, GATHER};
use log::Level;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn all(log: &EventLog) -> String {
    String::from_utf8(log.read_at(&mut Cursor::default(), 0, usize::MAX)).unwrap()
}

/// Every line is admitted: one second lies between each two.
fn fill(log: &EventLog, start: Instant, numbers: std::ops::Range<u64>) {
    for n in numbers {
        log.log_at(start + Duration::from_secs(n), Level::Info, "test", None, &format_args!("line {n}"));
    }
}

#[test]
fn a_line_has_time_target_and_words() {
    let log = EventLog::default();
    log.log("up", Some("7.254".parse().unwrap()), "up on eth1");
    log.log("bind", None, format_args!("bound {}", "eth1"));
    let text = all(&log);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.splitn(3, ' ').collect()).collect();
    assert_eq!(lines[0][1..], ["7.254", "up on eth1"]);
    assert_eq!(lines[1][1..], ["-", "bound eth1"]);
    let stamp: jiff::Timestamp = lines[0][0].parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(stamp).as_secs() < 5);
    assert_eq!(lines[0][0].len(), "2026-11-20T06:53:00.123Z".len());
    assert_eq!(log.total(), text.len() as u64);
}

#[test]
fn words_cannot_forge_a_line_or_be_endless() {
    let log = EventLog::default();
    log.log("x", None, "a\nb\tc\x1b[2Jd\u{7f}e\u{85}f");
    let text = all(&log);
    assert_eq!(text.lines().count(), 1);
    assert!(text.trim_end().ends_with("a b c\u{fffd}[2Jd\u{fffd}e\u{fffd}f"), "{text}");
    log.log("x", None, "ü".repeat(100_000));
    let text = all(&log);
    let longest = text.lines().last().unwrap();
    assert!(longest.len() < LONGEST && longest.len() > LONGEST - 4);
    assert!(text.ends_with('\n'));
}

#[test]
fn the_ring_is_bounded_and_drops_whole_lines() {
    let log = EventLog::new(1000);
    fill(&log, Instant::now(), 0..500);
    let text = all(&log);
    assert!(text.len() <= 1000 && text.len() > 900);
    assert!(text.lines().all(|line| line.split(' ').count() == 4), "{text}");
    assert!(text.ends_with("- line 499\n"));
    assert_eq!(log.pushed_out() + text.lines().count() as u64, 500);
    assert!(log.state.lock().ring.capacity() < 2000);
}

#[test]
fn a_reader_below_the_oldest_byte_is_moved_once() {
    let log = EventLog::new(1000);
    let start = Instant::now();
    fill(&log, start, 0..500);
    let mut cursor = Cursor::default();
    let mut offset = 0;
    let mut text = Vec::new();
    // In pieces, as cat would.
    loop {
        let piece = log.read_at(&mut cursor, offset, 100);
        if piece.is_empty() {
            break;
        }
        offset += piece.len() as u64;
        text.extend(piece);
    }
    assert_eq!(String::from_utf8(text).unwrap(), all(&log));
    assert!(!log.has_news(&cursor, offset));
    fill(&log, start, 500..501);
    assert!(log.has_news(&cursor, offset));
    let piece = String::from_utf8(log.read_at(&mut cursor, offset, 1000)).unwrap();
    assert!(piece.ends_with("line 500\n") && piece.lines().count() == 1);
}

#[test]
fn a_reader_in_sequence_that_was_overtaken_goes_on() {
    let log = EventLog::new(1000);
    let start = Instant::now();
    fill(&log, start, 0..10);
    let mut cursor = Cursor::default();
    let offset = log.read_at(&mut cursor, 0, 1000).len() as u64;
    fill(&log, start, 10..200);
    let piece = log.read_at(&mut cursor, offset, 10_000);
    assert_eq!(String::from_utf8(piece.clone()).unwrap(), all(&log));
    // Going back is not going on: what is gone is gone.
    assert!(log.read_at(&mut cursor, 5, 100).is_empty());
    assert!(log.read_at(&mut cursor, offset + piece.len() as u64, 100).is_empty());
}

#[test]
fn a_reader_that_starts_near_the_end_sees_true_offsets() {
    let log = EventLog::new(1000);
    fill(&log, Instant::now(), 0..500);
    let total = log.total();
    let tail = log.read_at(&mut Cursor::default(), total - 20, 100);
    assert!(all(&log).as_bytes().ends_with(&tail) && tail.len() == 20);
    assert!(log.read_at(&mut Cursor::default(), total, 100).is_empty());
    assert!(log.read_at(&mut Cursor::default(), u64::MAX, 100).is_empty());
}

#[test]
fn one_kind_cannot_flood_and_the_rest_is_summed_up() {
    let log = EventLog::default();
    let start = Instant::now();
    for _ in 0..10_000 {
        log.log_at(start, Level::Info, "forged", None, &"forged frame");
    }
    log.log_at(start, Level::Info, "up", None, &"up");
    let text = all(&log);
    assert_eq!(text.lines().filter(|line| line.ends_with("forged frame")).count(), BURST as usize);
    assert_eq!(text.lines().filter(|line| line.ends_with(" up")).count(), 1);
    let left_out = 10_000 - u64::from(BURST);
    assert_eq!(log.suppressed(), left_out);
    log.log_at(start + GATHER, Level::Info, "up", None, &"still up");
    let text = all(&log);
    let summary = format!("suppressed {left_out} lines of kind forged");
    assert_eq!(text.lines().filter(|line| line.ends_with(&summary)).count(), 1, "{text}");
    // The allowance comes back.
    log.log_at(start + Duration::from_secs(60), Level::Info, "forged", None, &"forged again");
    assert!(all(&log).ends_with("forged again\n"));
    assert_eq!(log.suppressed(), left_out);
}

#[test]
fn whoever_looks_makes_the_summary_appear() {
    let log = EventLog::default();
    let long_ago = Instant::now().checked_sub(GATHER * 2).unwrap();
    for _ in 0..=BURST as usize {
        log.log_at(long_ago, Level::Info, "k", None, &"x");
    }
    assert!(all(&log).contains("suppressed 1 lines of kind k"));
}

#[test]
fn news_run_with_nothing_locked() {
    let log = Arc::new(EventLog::default());
    let calls = Arc::new(AtomicUsize::new(0));
    for _ in 0..2 {
        let (weak, calls) = (Arc::downgrade(&log), calls.clone());
        log.on_news(Arc::new(move || {
            // Would hang if the log were locked.
            assert!(weak.upgrade().unwrap().total() > 0);
            calls.fetch_add(1, Ordering::Relaxed);
        }));
    }
    log.log("x", None, "one");
    log.log("x", None, "two");
    assert_eq!(calls.load(Ordering::Relaxed), 4);
}

#[test]
fn many_threads_log_whole_lines() {
    let log = Arc::new(EventLog::new(1 << 20));
    let threads: Vec<_> = (0..4u64)
        .map(|t| {
            let log = log.clone();
            std::thread::spawn(move || fill(&log, Instant::now(), t * 1000..t * 1000 + 300))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let text = all(&log);
    assert!(text.lines().all(|line| line.contains(" - line ") || line.contains(" - suppressed ")));
    assert_eq!(text.len() as u64, log.total());
}
