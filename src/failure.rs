//! One line for the person at the terminal: what is wrong, why, and what to do about it, with the exit code that
//! goes with it. Whatever a file name or a kernel puts into the text, it stays one line.

use std::fmt;

/// Why the command ends without having done its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// The command line is wrong: exit code 2.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { code: 2, text: one_line(&text.into()) }
    }

    /// The command line is right, and the start failed: exit code 1.
    pub fn start(text: impl Into<String>) -> Self {
        Self { code: 1, text: one_line(&text.into()) }
    }

    /// A failure that another process has sent, with its exit code.
    pub fn with_code(code: u8, text: &str) -> Self {
        Self { code, text: one_line(text) }
    }

    /// The exit code: 1 for a start that failed, 2 for wrong usage.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Makes control characters visible: a mount point may have a line feed, or an escape sequence, in its name.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_whatever_is_in_it() {
        let failure = Failure::start("/mnt/a\nb\x1b[31m does not exist\n");
        assert_eq!(failure.to_string(), "/mnt/a\\nb\\u{1b}[31m does not exist");
        assert_eq!(failure.code(), 1);
        assert_eq!(Failure::usage("x").code(), 2);
    }
}
