//! A write to a file that takes commands: its lines run in order.
//!
//! A line that has to ask the target takes the rest of the write along in its request, and the script goes on where the
//! answer arrives, so that no thread waits. The first line that fails ends the write with its errno, and the log says
//! which line it was and why.

use std::sync::Arc;

use crate::fs::answer::Answer;
use crate::fs::context::Context;
use crate::fs::ctl::{CtlError, lines, shown};
use crate::fs::errno::Errno;
use crate::wire::Addr;

/// Lines that one write may have: more than any target has partitions, and less than a handler may take time for. A
/// write is at most 1 MiB, which would be 170,000 lines.
const LINES_MAX: usize = 4096;

/// A file that takes commands.
pub trait Commands: Send + Sync + Sized + 'static {
    /// Its mount.
    fn context(&self) -> &Context;

    /// Its name and its target, for the log.
    fn named(&self) -> (&'static str, Option<Addr>);

    /// Runs one line as far as it goes without an answer of the target. An error means that the line is no command; a
    /// command that failed is a [`Progress::Done`].
    fn run(self: &Arc<Self>, line: &[u8]) -> Result<Progress, CtlError>;

    /// Makes visible what the lines so far have changed. Called before any line is reported as done.
    fn settle(&self) {}

    /// A write is refused, in these words. Called before the write is answered.
    fn refused(&self, _words: &str) {}
}

/// How far a command got at once.
pub enum Progress {
    /// It is done, or it failed.
    Done(Result<(), CtlError>),
    /// It asks the target.
    Ask(Question),
}

/// Asks the target, and gives the end of the command to its argument.
pub type Question = Box<dyn FnOnce(Ended) + Send>;

/// Takes the end of a command.
pub type Ended = Box<dyn FnOnce(Result<(), CtlError>) + Send>;

/// A line without a command.
pub const NOTHING: Progress = Progress::Done(Ok(()));

struct Script<F> {
    file: Arc<F>,
    /// The lines that are still to be run.
    lines: std::vec::IntoIter<Vec<u8>>,
    /// Lines begun, for the log.
    begun: usize,
    /// Lines of the write.
    count: usize,
    /// Bytes of the write.
    len: usize,
    answer: Box<dyn Answer<u32>>,
}

/// Runs what was written to the file.
pub fn run<F: Commands>(file: &Arc<F>, text: &[u8], answer: impl Answer<u32>) {
    let count = lines(text).count();
    let all: Vec<Vec<u8>> = lines(text).take(LINES_MAX).map(<[u8]>::to_vec).collect();
    let lines = all.into_iter();
    let (file, len) = (file.clone(), text.len());
    let script = Script { file, lines, begun: 0, count, len, answer: Box::new(answer) };
    if count > LINES_MAX {
        let words = format!("more than {LINES_MAX} lines in one write");
        return script.refuse(&CtlError::new(Errno::ENOSPC, words));
    }
    script.run();
}

impl<F: Commands> Script<F> {
    /// Runs lines until one of them has to wait, or fails, or none is left.
    fn run(mut self) {
        while let Some(line) = self.lines.next() {
            self.begun += 1;
            match self.file.run(&line) {
                Ok(Progress::Done(Ok(()))) => {}
                Ok(Progress::Done(Err(error))) => return self.fail(&line, error),
                Ok(Progress::Ask(question)) => return self.ask(line, question),
                Err(error) => return self.refuse(&error),
            }
        }
        self.file.settle();
        (self.answer)(Ok(self.len as u32));
    }

    fn ask(self, line: Vec<u8>, question: Question) {
        self.file.settle();
        question(Box::new(move |ended| match ended {
            Ok(()) => self.run(),
            Err(error) => self.fail(&line, error),
        }));
    }

    /// The line is no command.
    fn refuse(self, error: &CtlError) {
        self.end(error, &error.words);
    }

    /// The command did not succeed.
    fn fail(self, line: &[u8], error: CtlError) {
        self.end(&error, &format!("{}: {error}", shown(String::from_utf8_lossy(line).trim())));
    }

    fn end(self, error: &CtlError, words: &str) {
        self.file.settle();
        let (file, addr) = self.file.named();
        let log = self.file.context().runtime.log();
        log.log(file, addr, format_args!("{file} line {}: {words}", self.begun));
        match self.count {
            1 => self.file.refused(words),
            _ => self.file.refused(&format!("line {}: {words}", self.begun)),
        }
        (self.answer)(Err(error.errno));
    }
}
