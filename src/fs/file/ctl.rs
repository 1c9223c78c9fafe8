//! The files `ctl`, the top one and a target's: reading shows the status, writing runs commands. Who has it open for
//! both can read why a write was refused, until the next write.

use std::sync::Arc;

use parking_lot::Mutex;

use super::script::{self, Commands, NOTHING, Progress};
use super::{Reader, Verbs};
use crate::fs::answer::{Answer, DataAnswer};
use crate::fs::context::Context;
use crate::fs::ctl::{self, CtlError};
use crate::fs::kept::{KeptText, slice};
use crate::fs::status;
use crate::runtime::Unit;
use crate::wire::Addr;

mod ask;
mod export;
mod partscan;
pub mod top;
pub mod unit;

pub use partscan::scan_unasked;

/// An open `ctl`.
pub struct OpenCtl {
    context: Arc<Context>,
    /// None: it is the top one.
    unit: Option<Arc<Unit>>,
    text: KeptText,
    /// Why the last write through this open file was refused; none if it was not.
    refusal: Mutex<Option<String>>,
}

impl OpenCtl {
    /// Opens a target's, or the top one.
    pub fn open(context: &Arc<Context>, unit: Option<Arc<Unit>>) -> Arc<Self> {
        Arc::new(Self {
            context: context.clone(),
            unit,
            text: KeptText::default(),
            refusal: Mutex::default(),
        })
    }

    fn render(&self) -> String {
        if let Some(refusal) = self.refusal.lock().as_deref() {
            return format!("error: {}\n", refusal.replace(char::is_control, " "));
        }
        match &self.unit {
            None => status::top(&self.context.runtime),
            Some(unit) => {
                let status = status::unit(&self.context.runtime, unit, self.context.settings.uncached);
                status + &self.context.export_lines(unit)
            }
        }
    }
}

impl Commands for OpenCtl {
    fn context(&self) -> &Context {
        &self.context
    }

    fn named(&self) -> (&'static str, Option<Addr>) {
        ("ctl", self.unit.as_ref().map(|unit| unit.addr))
    }

    fn run(self: &Arc<Self>, line: &[u8]) -> Result<Progress, CtlError> {
        Ok(match &self.unit {
            None => ctl::parse_top(line)?
                .map_or(NOTHING, |command| Progress::Done(top::run(&self.context, &command))),
            Some(unit) => {
                ctl::parse_unit(line)?.map_or(NOTHING, |command| unit::run(&self.context, unit, command))
            }
        })
    }

    fn settle(&self) {
        if let Some(unit) = &self.unit {
            self.context.refresh(unit);
        }
    }

    fn refused(&self, words: &str) {
        *self.refusal.lock() = Some(words.to_owned());
    }
}

impl Verbs for OpenCtl {
    fn read(self: &Arc<Self>, offset: u64, len: usize, _: Reader, answer: impl DataAnswer) {
        let render = || self.context.texts.keep(&self.text, self.render().into_bytes());
        let text = self.text.kept(offset).unwrap_or_else(render);
        answer(Ok(slice(&text, offset, len)));
    }

    fn write(self: &Arc<Self>, _: u64, data: &[u8], _: bool, answer: impl Answer<u32>) {
        *self.refusal.lock() = None;
        script::run(self, data, answer);
    }
}
