//! The part of `aoefs-top` that needs no terminal: it makes a report out of the text of `metrics`.
//!
//! Text (`text`) becomes a sample (`model`), two samples become a report (`report`), a report becomes a table for a
//! person (`table`, `units`) or one JSON document. Nothing here reads a file or a clock, and no input is trusted: lines
//! that make no sense and families that are not known are skipped, and no control character gets through.

pub mod fit;
pub mod model;
pub mod report;
pub mod table;
pub mod text;
pub mod units;

pub use model::{NotAoefs, Sample};
pub use report::Report;
pub use table::{Column, Sort};

/// Text from a file, safe for a terminal: characters that could move the cursor or change colours become blanks.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The last `count` whole lines of a log.
pub fn last_lines(log: &str, count: usize) -> Vec<String> {
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    let mut lines: Vec<String> = whole.lines().rev().take(count).map(plain).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests;
