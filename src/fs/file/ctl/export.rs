//! `vhost` and `unvhost`: sockets at which virtual machines get a disk.
//!
//! A socket is made and taken away by threads of its own, since a file system that is none of ours may take its time.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::fs::context::{Context, Pending, note_left};
use crate::fs::ctl::{CtlError, UnitCommand};
use crate::fs::errno::{self, Errno};
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
            let line = format!("{}: {words}", self.path.display());
            context.runtime.log().log("vhost", Some(self.unit.addr), line);
        }
    }
}

/// An answer that becomes ETIMEDOUT where a file system takes too long.
fn pending(context: &Context, ended: Ended) -> Arc<Pending<(), CtlError>> {
    Pending::new(&context.runtime, Some(PATIENCE), ended, CtlError::from(Errno::ETIMEDOUT))
}

/// Why there is no socket, in the words of whoever refused it.
fn refused(path: &Path, error: &std::io::Error) -> CtlError {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_i32);
    let path = path.display();
    let words = match errno {
        Errno::ENOENT => format!("no directory for {path}; make it first"),
        Errno::EEXIST => {
            format!("{path} is there already, and no socket that nobody listens at; remove it first")
        }
        Errno::EPERM => {
            let ways = "mount with -o gid=GROUP, a group that aoefs and the machine's user are in";
            format!("aoefs may not give the socket to the owner of the mount: {ways}")
        }
        errno => format!("{path}: {}", errno::words(errno)),
    };
    CtlError::new(errno, words)
}

/// `vhost PATH NAME`.
pub fn begin(context: &Arc<Context>, unit: &Arc<Unit>, path: &Path, name: String, ended: Ended) {
    if !context.has_disk(unit.id, &name) {
        let words = format!("there is no partition {name}; cat ctl shows what there is");
        return ended(Err(CtlError::new(Errno::ENOENT, words)));
    }
    let Some(ticket) = context.exports.reserve((unit.id, name.clone()), path) else {
        let words = format!("{} is a socket of vhost already; unvhost it first", path.display());
        return ended(Err(CtlError::new(Errno::EEXIST, words)));
    };
    let owner = Owner { uid: context.settings.uid, gid: context.settings.gid };
    let source = Named { context: Arc::downgrade(context), unit: unit.clone(), name, path: path.to_owned() };
    let pending = pending(context, ended);
    let (context, unit, place) = (context.clone(), unit.clone(), path.to_owned());
    Export::start(path, owner, Arc::new(source), move |started| {
        let export = match started {
            Ok(export) => export,
            Err(error) => {
                context.exports.cancel(ticket);
                return pending.give(Err(refused(&place, &error)));
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
        let words = format!("{} is no socket of this target's; cat ctl shows them", path.display());
        return ended(Err(CtlError::new(Errno::ENOENT, words)));
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
