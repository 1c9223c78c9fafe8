//! The files `mask` and `reserve`: reading asks the target for its list, and each line written asks it to change the
//! list.

use std::sync::Arc;

use super::script::{self, Commands, Ended, NOTHING, Progress};
use super::{Reader, Verbs};
use crate::engine::{Error, Io, Outcome, Output, Reservation};
use crate::fs::answer::{Answer, DataAnswer};
use crate::fs::context::Context;
use crate::fs::ctl::{CtlError, MaskEdit, ReserveEdit, parse_mask, parse_reserve};
use crate::fs::errno::Errno;
use crate::fs::kept::{KeptText, slice};
use crate::runtime::Unit;
use crate::wire::{Addr, Mac};

mod plan;

/// Which of a target's lists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum List {
    /// The addresses that it answers.
    Mask,
    /// The addresses that it is reserved for.
    Reserve,
}

/// An open `mask` or `reserve`.
pub struct OpenList {
    context: Arc<Context>,
    unit: Arc<Unit>,
    list: List,
    text: KeptText,
}

impl OpenList {
    /// Opens a list.
    pub fn open(context: &Arc<Context>, unit: Arc<Unit>, list: List) -> Arc<Self> {
        Arc::new(Self { context: context.clone(), unit, list, text: KeptText::default() })
    }

    /// The addresses by which this machine reaches the target. A list that does not name them shuts this machine out.
    fn own_macs(&self) -> Vec<Mac> {
        let paths = self.context.runtime.inspect(&self.unit, |device| device.paths());
        let nets = self.context.runtime.netlinks();
        let mut macs: Vec<Mac> =
            nets.iter().filter(|n| paths.iter().any(|p| p.net == n.id)).map(|n| n.mac).collect();
        macs.dedup();
        macs
    }

    fn ask(&self, io: Io, answer: impl Answer<Output, Error>) {
        self.context.submit(&self.unit, self.context.whole(&self.unit), false, io, answer);
    }

    /// One line of `mask`: reads the list, and changes it if it is not as it should be.
    fn edit_mask(self: &Arc<Self>, edit: MaskEdit, ended: Ended) {
        let file = self.clone();
        self.ask(Io::Mask(Vec::new()), move |outcome| {
            let firmware = file.context.runtime.inspect(&file.unit, |device| device.status().fw);
            let planned =
                macs(outcome).and_then(|list| plan::plan_mask(edit, &file.own_macs(), &list, firmware));
            let directives = match planned {
                Ok(directives) if directives.is_empty() => return ended(Ok(())),
                Ok(directives) => directives,
                Err(error) => return ended(Err(error)),
            };
            file.ask(Io::Mask(directives.clone()), move |outcome| {
                ended(match outcome {
                    Ok(Output::MaskRefused { error, index }) => {
                        Err(plan::mask_refused(error, directives.get(usize::from(index))))
                    }
                    outcome => macs(outcome).and_then(|list| plan::check_mask(&directives, &list)),
                });
            });
        });
    }

    /// One line of `reserve`.
    fn edit_reserve(&self, edit: ReserveEdit, ended: Ended) {
        match plan::plan_reserve(edit, &self.own_macs()) {
            Ok(what) => self.ask(Io::Reserve(what), move |outcome| ended(macs(outcome).map(|_| ()))),
            Err(error) => ended(Err(error)),
        }
    }
}

fn macs(outcome: Outcome) -> Result<Vec<Mac>, CtlError> {
    match outcome {
        Ok(Output::Macs(list)) => Ok(list),
        Ok(_) => Err(Errno::EIO.into()),
        Err(error) => Err(Errno::from(error).into()),
    }
}

impl Commands for OpenList {
    fn context(&self) -> &Context {
        &self.context
    }

    fn named(&self) -> (&'static str, Option<Addr>) {
        let name = match self.list {
            List::Mask => "mask",
            List::Reserve => "reserve",
        };
        (name, Some(self.unit.addr))
    }

    fn run(self: &Arc<Self>, line: &[u8]) -> Result<Progress, CtlError> {
        let file = self.clone();
        Ok(match self.list {
            List::Mask => parse_mask(line)?
                .map_or(NOTHING, |edit| Progress::Ask(Box::new(move |ended| file.edit_mask(edit, ended)))),
            List::Reserve => parse_reserve(line)?
                .map_or(NOTHING, |edit| Progress::Ask(Box::new(move |ended| file.edit_reserve(edit, ended)))),
        })
    }
}

impl Verbs for OpenList {
    fn read(self: &Arc<Self>, offset: u64, len: usize, _: Reader, answer: impl DataAnswer) {
        if let Some(text) = self.text.kept(offset) {
            return answer(Ok(slice(&text, offset, len)));
        }
        let io = match self.list {
            List::Mask => Io::Mask(Vec::new()),
            List::Reserve => Io::Reserve(Reservation::Read),
        };
        let file = self.clone();
        self.ask(io, move |outcome| match macs(outcome) {
            Ok(list) => {
                let text = file.context.texts.keep(&file.text, plan::page(&list).into_bytes());
                answer(Ok(slice(&text, offset, len)));
            }
            Err(error) => answer(Err(error.errno)),
        });
    }

    fn write(self: &Arc<Self>, _: u64, data: &[u8], _: bool, answer: impl Answer<u32>) {
        script::run(self, data, answer);
    }
}
