//! What `aoefs-top` knows, without a terminal: the text of `metrics` in, a report out.
//!
//! Text (`text`) becomes a sample (`model`), two samples become a report (`report`), a report becomes a table for a person
//! (`table`, `units`) or one JSON document. Nothing here reads a file or a clock, and nothing trusts what it is given: a line
//! that makes no sense is passed over, a family that is not known is somebody else's, and no control character gets through.

pub mod model;
pub mod report;
pub mod table;
pub mod text;
pub mod units;

pub use model::{NotAoefs, Sample};
pub use report::Report;
pub use table::{Column, Sort};

/// Text from a file, fit for a terminal: what could move the cursor or change colours is shown as a blank.
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
