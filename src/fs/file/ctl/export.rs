//! `vhost` and `unvhost`: sockets at which virtual machines get a disk.
//!
//! A socket is made and taken away by threads of its own, since a file system that is none of ours may take its time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::fs::context::{Context, Pending, note_left};
use crate::fs::ctl::{CtlError, UnitCommand};
use crate::fs::errno::Errno;
use crate::fs::file::disk::GuestDisk;
use crate::fs::file::script::Ended;
use crate::runtime::Unit;
use crate::vhost::socket::Owner;
use crate::vhost::{Disk, Export, Source, server};

/// How long a word waits for the file system that its socket is in.
const PATIENCE: Duration = Duration::from_secs(2);

/// A disk by its name. Each front end gets the disk that has the name when it connects.
struct Named {
    context: Weak<Context>,
    unit: Arc<Unit>,
    name: String,
    path: PathBuf,
}

impl Source for Named {
    fn open(&self) -> Result<Box<dyn Disk>, String> {
        let context = self.context.upgrade().ok_or("the mount is gone")?;
        GuestDisk::open(&context, &self.unit, &self.name).map(|disk| Box::new(disk) as Box<dyn Disk>)
    }

    fn say(&self, words: &str) {
        if let Some(context) = self.context.upgrade() {
            let line = format_args!("{}: {words}", self.path.display());
            context.runtime.log().log("vhost", Some(self.unit.addr), line);
        }
    }
}

/// An answer that becomes ETIMEDOUT where a file system takes too long.
fn pending(context: &Context, ended: Ended) -> Arc<Pending<(), CtlError>> {
    Pending::new(&context.runtime, Some(PATIENCE), ended, CtlError::from(Errno::ETIMEDOUT))
}

/// Why there is no socket, in the words of whoever refused it.
fn refused(error: &std::io::Error) -> CtlError {
    CtlError::from(error.raw_os_error().map_or(Errno::EIO, Errno::from_i32))
}

/// `vhost PATH NAME`.
pub fn begin(context: &Arc<Context>, unit: &Arc<Unit>, path: &Path, name: String, ended: Ended) {
    if !context.has_disk(unit.id, &name) {
        return ended(Err(Errno::ENOENT.into()));
    }
    let Some(ticket) = context.exports.reserve((unit.id, name.clone()), path) else {
        return ended(Err(Errno::EEXIST.into()));
    };
    let owner = Owner { uid: context.settings.uid, gid: context.settings.gid };
    let source = Named { context: Arc::downgrade(context), unit: unit.clone(), name, path: path.to_owned() };
    let pending = pending(context, ended);
    let (context, unit) = (context.clone(), unit.clone());
    Export::start(path, owner, Arc::new(source), move |started| {
        let export = match started {
            Ok(export) => export,
            Err(error) => {
                context.exports.cancel(ticket);
                return pending.give(Err(refused(&error)));
            }
        };
        // The mount may have ended meanwhile, or the word was answered with an error.
        if !pending.is_over() && context.exports.fill(ticket, export.clone()) {
            // What went before the socket was in the table did not find it there.
            context.end_lost_exports(&unit);
            return pending.give(Ok(()));
        }
        context.exports.cancel(ticket);
        server::end(vec![export], move |_| pending.give(Err(Errno::ENOENT.into())));
    });
}

/// `unvhost PATH`.
pub fn end(context: &Context, unit: &Unit, path: &Path, ended: Ended) {
    let taken = context.exports.take(|(id, _), at| *id == unit.id && at == path);
    if taken.is_empty() {
        return ended(Err(Errno::ENOENT.into()));
    }
    let pending = pending(context, ended);
    server::end(taken, move |left| {
        note_left(left);
        pending.give(Ok(()));
    });
}

/// Whether a `vhost` has nothing left to do: that of a configuration file is run each time the target comes up.
pub fn is_done(context: &Context, unit: &Unit, command: &UnitCommand) -> bool {
    let UnitCommand::Vhost { path, name } = command else { return false };
    context.exports.has(&(unit.id, name.clone()), path)
}
