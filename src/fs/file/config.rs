//! The `config` file: a target's config string as bytes of a file.
//!
//! A write replaces the string from its offset on, by one force-set. Truncation alone sends nothing yet: a shell's `>`
//! truncates and then writes, and the two must not be two changes. The truncated string is remembered for the
//! handle, shown to readers, and sent with the handle's next write or, if none came, when it is closed. A write that
//! is refused takes the truncation back.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Core;
use super::files::slice;
use crate::engine::{Io, Output};
use crate::fs::errno::{self, Errno};
use crate::fs::handles::{Handle, Page, What};
use crate::fs::tree::Node;
use crate::runtime::{Unit, UnitId};
use crate::wire::{CONFIG_MAX, Verb};

struct Truncated {
    /// What the file is now.
    string: Vec<u8>,
    /// The handle that will send it.
    fh: u64,
}

/// The truncations that were not sent yet, by target.
#[derive(Default)]
pub(super) struct Truncations(Mutex<HashMap<UnitId, Truncated>>);

impl Truncations {
    fn string(&self, unit: UnitId) -> Option<Vec<u8>> {
        self.0.lock().get(&unit).map(|truncated| truncated.string.clone())
    }

    /// What is left for `fh` to send.
    fn of(&self, unit: UnitId, fh: u64) -> Option<Vec<u8>> {
        self.0
            .lock()
            .get(&unit)
            .filter(|truncated| truncated.fh == fh)
            .map(|truncated| truncated.string.clone())
    }

    /// The target is known no more, or has the string, or refused it.
    pub(super) fn forget(&self, unit: UnitId) {
        self.0.lock().remove(&unit);
    }
}

impl Core {
    /// The file's size.
    pub(super) fn config_len(&self, unit: &Unit) -> u64 {
        let truncated = self.configs.0.lock().get(&unit.id).map(|truncated| truncated.string.len());
        truncated.unwrap_or_else(|| self.last_config(unit).len()) as u64
    }

    fn last_config(&self, unit: &Unit) -> Vec<u8> {
        self.runtime.look(unit, |device| device.config().to_vec())
    }

    fn ask_config(
        &self,
        unit: &Arc<Unit>,
        verb: Verb,
        string: Vec<u8>,
        answer: impl FnOnce(Result<Vec<u8>, Errno>) + Send + 'static,
    ) {
        self.submit(
            unit,
            self.whole(unit),
            false,
            Io::Config { verb, string },
            move |outcome| match outcome {
                Ok(Output::Config(string)) => answer(Ok(string)),
                Ok(_) => answer(Ok(Vec::new())),
                Err(error) => answer(Err(errno::of(error))),
            },
        );
    }

    /// Asks the target; if it does not say, what it said last has to do.
    pub(super) fn read_config(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        unit: &Arc<Unit>,
        range: (u64, usize),
        answer: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        let show = move |core: &Self, page: &Page, string: Vec<u8>| {
            answer(Ok(slice(&core.kept.keep(page, string), range.0, range.1)));
        };
        let What::Page(_, page) = &handle.what else { return };
        if let Some(string) = self.configs.string(unit.id) {
            return show(self, page, string);
        }
        let (core, own, handle) = (self.clone(), unit.clone(), handle.clone());
        self.ask_config(unit, Verb::Read, Vec::new(), move |said| {
            let What::Page(_, page) = &handle.what else { return };
            show(&core, page, said.unwrap_or_else(|_| core.last_config(&own)));
        });
    }

    pub(super) fn write_config(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        offset: u64,
        data: &[u8],
        answer: impl FnOnce(Result<u32, Errno>) + Send + 'static,
    ) {
        let len = data.len();
        let Some(at) = usize::try_from(offset).ok().filter(|at| at.saturating_add(len) <= CONFIG_MAX) else {
            self.configs.forget(unit.id);
            return answer(Err(Errno::EFBIG));
        };
        let data = data.to_vec();
        let (core, own) = (self.clone(), unit.clone());
        let send = move |mut string: Vec<u8>| {
            string.resize(at, 0);
            string.extend_from_slice(&data);
            let after = core.clone();
            let id = own.id;
            core.ask_config(&own, Verb::Force, string, move |set| {
                after.configs.forget(id);
                answer(set.map(|_| len as u32));
            });
        };
        match self.configs.string(unit.id) {
            Some(string) => send(string),
            None if at == 0 => send(Vec::new()),
            None => {
                let (core, own) = (self.clone(), unit.clone());
                self.ask_config(unit, Verb::Read, Vec::new(), move |said| {
                    send(said.unwrap_or_else(|_| core.last_config(&own)));
                });
            }
        }
    }

    pub(super) fn truncate_config(
        self: &Arc<Self>,
        node: &Node,
        handle: Option<Arc<Handle>>,
        size: u64,
        answer: impl FnOnce(Result<(), Errno>) + Send + 'static,
    ) {
        let unit = match self.unit_of(node) {
            Ok(unit) => unit,
            Err(errno) => return answer(Err(errno)),
        };
        let Some(size) = usize::try_from(size).ok().filter(|size| *size <= CONFIG_MAX) else {
            return answer(Err(Errno::EFBIG));
        };
        let mut string = self.configs.string(unit.id).unwrap_or_else(|| self.last_config(&unit));
        string.resize(size, 0);
        match handle {
            Some(handle) => {
                self.configs.0.lock().insert(unit.id, Truncated { string, fh: handle.fh });
                answer(Ok(()));
            }
            // Nobody will close it: truncate(2) by name.
            None => self.ask_config(&unit, Verb::Force, string, move |set| answer(set.map(|_| ()))),
        }
    }

    /// A handle is closed: what it truncated and never wrote is sent now.
    pub(super) fn settle_config(self: &Arc<Self>, unit: &Arc<Unit>, fh: u64) {
        let Some(string) = self.configs.of(unit.id, fh) else { return };
        let (core, own) = (self.clone(), unit.clone());
        self.ask_config(unit, Verb::Force, string, move |set| {
            if core.configs.of(own.id, fh).is_some() {
                core.configs.forget(own.id);
            }
            if let Err(errno) = set {
                let why = errno::words(errno);
                core.runtime.log().log("config", Some(own.addr), format_args!("truncation of config: {why}"));
            }
        });
    }
}
