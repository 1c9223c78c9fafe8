//! The `mask` and `reserve` files: reading asks the target, and each line written asks it, too.

use std::sync::Arc;

use super::Core;
use super::files::slice;
use crate::engine::{Error, Io, Outcome, Output, Reservation};
use crate::fs::ctl::{CtlError, MaskEdit, ReserveEdit};
use crate::fs::errno::{self, Errno};
use crate::fs::handles::{Handle, What};
use crate::fs::lists;
use crate::fs::tree::{Node, UnitFile};
use crate::runtime::Unit;
use crate::wire::Mac;

impl Core {
    /// The addresses by which this machine reaches a target: what a list must name so as not to shut it out.
    fn own_macs(&self, unit: &Unit) -> Vec<Mac> {
        let paths = self.runtime.look(unit, |device| device.paths());
        let nets = self.runtime.netlinks();
        let mut macs: Vec<Mac> =
            nets.iter().filter(|n| paths.iter().any(|p| p.net == n.id)).map(|n| n.mac).collect();
        macs.dedup();
        macs
    }

    fn ask_list(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        io: Io,
        answer: impl FnOnce(Result<Output, Error>) + Send + 'static,
    ) {
        self.submit(unit, self.whole(unit), false, io, answer);
    }

    /// Reads a list: the target is asked at the beginning of the file.
    pub(super) fn read_list(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        unit: &Arc<Unit>,
        (offset, size): (u64, usize),
        answer: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        let io = match self.node(handle.ino) {
            Ok(Node::File(_, UnitFile::Mask)) => Io::Mask(Vec::new()),
            _ => Io::Reserve(Reservation::Read),
        };
        let (core, handle) = (self.clone(), handle.clone());
        self.ask_list(unit, io, move |outcome| {
            let What::Page(_, page) = &handle.what else { return };
            match outcome {
                Ok(Output::Macs(list)) => {
                    let text = core.kept.keep(page, lists::page(&list).into_bytes());
                    answer(Ok(slice(&text, offset, size)));
                }
                Ok(_) => answer(Err(Errno::EIO)),
                Err(error) => answer(Err(errno::of(error))),
            }
        });
    }

    /// One line of `mask`: reads the list, and changes it if it is not as it should be.
    pub(super) fn edit_mask(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        edit: MaskEdit,
        answer: impl FnOnce(Result<(), CtlError>) + Send + 'static,
    ) {
        let (core, own) = (self.clone(), unit.clone());
        self.ask_list(unit, Io::Mask(Vec::new()), move |outcome| {
            let firmware = core.runtime.look(&own, |device| device.status().fw);
            let planned =
                macs(outcome).and_then(|list| lists::plan_mask(edit, &core.own_macs(&own), &list, firmware));
            let directives = match planned {
                Ok(directives) if directives.is_empty() => return answer(Ok(())),
                Ok(directives) => directives,
                Err(error) => return answer(Err(error)),
            };
            let io = Io::Mask(directives.clone());
            core.ask_list(&own, io, move |outcome| {
                answer(match outcome {
                    Ok(Output::MaskRefused { error, index }) => {
                        Err(lists::mask_refused(error, directives.get(usize::from(index))))
                    }
                    outcome => macs(outcome).and_then(|list| lists::check_mask(&directives, &list)),
                });
            });
        });
    }

    /// One line of `reserve`.
    pub(super) fn edit_reserve(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        edit: ReserveEdit,
        answer: impl FnOnce(Result<(), CtlError>) + Send + 'static,
    ) {
        match lists::plan_reserve(edit, &self.own_macs(unit)) {
            Ok(what) => {
                self.ask_list(unit, Io::Reserve(what), move |outcome| answer(macs(outcome).map(|_| ())));
            }
            Err(error) => answer(Err(error)),
        }
    }
}

fn macs(outcome: Outcome) -> Result<Vec<Mac>, CtlError> {
    match outcome {
        Ok(Output::Macs(list)) => Ok(list),
        Ok(_) => Err(Errno::EIO.into()),
        Err(error) => Err(errno::of(error).into()),
    }
}
