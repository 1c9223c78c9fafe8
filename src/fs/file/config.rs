//! The file `config`: a target's config string as bytes of a file.
//!
//! A write replaces the string from its offset on, by one force-set. Truncation alone sends nothing yet: a shell's `>`
//! truncates and then writes, and the two must not be two changes. The truncated string is remembered for the open
//! file, shown to readers, and sent with the file's next write or, if none came, when it is closed. A write that is
//! refused takes the truncation back.

use std::sync::Arc;

use super::{Reader, Verbs};
use crate::engine::{Io, Output};
use crate::fs::answer::{Answer, DataAnswer};
use crate::fs::context::Context;
use crate::fs::errno::{self, Errno};
use crate::fs::kept::{KeptText, slice};
use crate::runtime::Unit;
use crate::wire::{CONFIG_MAX, Verb};

/// An open `config`.
pub struct OpenConfig {
    context: Arc<Context>,
    unit: Arc<Unit>,
    fh: u64,
    text: KeptText,
}

/// The file's size in bytes.
pub fn size(context: &Context, unit: &Unit) -> u64 {
    context.truncated.len(unit.id).unwrap_or_else(|| last_string(context, unit).len()) as u64
}

/// truncate(2) by name: there is no open file that a close could follow, so the string is sent at once.
pub fn truncate(context: &Context, unit: &Arc<Unit>, size: u64, answer: impl Answer<()>) {
    match cut(context, unit, size) {
        Ok(string) => ask(context, unit, Verb::Force, string, move |set| answer(set.map(|_| ()))),
        Err(errno) => answer(Err(errno)),
    }
}

/// The string as a truncation to `size` bytes leaves it.
fn cut(context: &Context, unit: &Unit, size: u64) -> Result<Vec<u8>, Errno> {
    let size = usize::try_from(size).ok().filter(|size| *size <= CONFIG_MAX).ok_or(Errno::EFBIG)?;
    let mut string = context.truncated.string(unit.id).unwrap_or_else(|| last_string(context, unit));
    string.resize(size, 0);
    Ok(string)
}

/// The string as the target said it last.
fn last_string(context: &Context, unit: &Unit) -> Vec<u8> {
    context.runtime.inspect(unit, |device| device.config().to_vec())
}

fn ask(
    context: &Context,
    unit: &Arc<Unit>,
    verb: Verb,
    string: Vec<u8>,
    answer: impl FnOnce(Result<Vec<u8>, Errno>) + Send + 'static,
) {
    let io = Io::Config { verb, string };
    context.submit(unit, context.whole(unit), false, io, move |outcome| match outcome {
        Ok(Output::Config(string)) => answer(Ok(string)),
        Ok(_) => answer(Ok(Vec::new())),
        Err(error) => answer(Err(Errno::from(error))),
    });
}

impl OpenConfig {
    /// Opens it under that number: ENXIO while the target is down.
    pub fn open(context: &Arc<Context>, unit: Arc<Unit>, fh: u64) -> Result<Arc<Self>, Errno> {
        match context.runtime.inspect(&unit, |device| device.is_up()) {
            true => Ok(Arc::new(Self { context: context.clone(), unit, fh, text: KeptText::default() })),
            false => Err(Errno::ENXIO),
        }
    }

    /// Asks the target for its string; if it does not answer, the last one that it sent has to do.
    fn string(self: &Arc<Self>, then: impl FnOnce(Vec<u8>) + Send + 'static) {
        let file = self.clone();
        ask(&self.context, &self.unit, Verb::Read, Vec::new(), move |said| {
            then(said.unwrap_or_else(|_| last_string(&file.context, &file.unit)));
        });
    }

    fn show(&self, string: Vec<u8>, offset: u64, len: usize, answer: impl FnOnce(Result<&[u8], Errno>)) {
        answer(Ok(slice(&self.context.texts.keep(&self.text, string), offset, len)));
    }
}

impl Verbs for OpenConfig {
    fn read(self: &Arc<Self>, offset: u64, len: usize, _: Reader, answer: impl DataAnswer) {
        if let Some(text) = self.text.kept(offset) {
            return answer(Ok(slice(&text, offset, len)));
        }
        if let Some(string) = self.context.truncated.string(self.unit.id) {
            return self.show(string, offset, len, answer);
        }
        let file = self.clone();
        self.string(move |string| file.show(string, offset, len, answer));
    }

    fn write(self: &Arc<Self>, offset: u64, data: &[u8], _: bool, answer: impl Answer<u32>) {
        let truncated = &self.context.truncated;
        let len = data.len();
        let Some(at) = usize::try_from(offset).ok().filter(|at| at.saturating_add(len) <= CONFIG_MAX) else {
            truncated.forget(self.unit.id);
            return answer(Err(Errno::EFBIG));
        };
        let (file, data) = (self.clone(), data.to_vec());
        let send = move |mut string: Vec<u8>| {
            string.resize(at, 0);
            string.extend_from_slice(&data);
            let own = file.clone();
            ask(&file.context, &file.unit, Verb::Force, string, move |set| {
                own.context.truncated.forget(own.unit.id);
                answer(set.map(|_| len as u32));
            });
        };
        match truncated.string(self.unit.id) {
            Some(string) => send(string),
            None if at == 0 => send(Vec::new()),
            None => self.string(send),
        }
    }

    fn truncate(self: &Arc<Self>, size: u64, answer: impl Answer<()>) {
        let unit = &self.unit;
        let cut = self.context.unit(unit.id).and_then(|_| cut(&self.context, unit, size));
        answer(cut.map(|string| self.context.truncated.remember(unit.id, string, self.fh)));
    }

    /// A truncation through this open file that no write followed is sent now.
    fn close(self: &Arc<Self>) {
        let Some(string) = self.context.truncated.unsent(self.unit.id, self.fh) else { return };
        let file = self.clone();
        ask(&self.context, &self.unit, Verb::Force, string, move |set| {
            let (context, unit) = (&file.context, &file.unit);
            if context.truncated.unsent(unit.id, file.fh).is_some() {
                context.truncated.forget(unit.id);
            }
            if let Err(errno) = set {
                let why = errno::words(errno);
                context.runtime.log().warn(
                    "config",
                    Some(unit.addr),
                    format_args!("truncation of config: {why}"),
                );
            }
        });
    }
}
