//! Disks for virtual machines: `data` or a partition behind a socket, for vhost-user-blk.
//!
//! A front end that is connected is an open file: its requests take the same ways as those of a program, so that it
//! sees the same bytes, the same errors and the same deadlines, and whatever the kernel has cached of what it changes
//! goes before it is answered.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::pending::Pending;
use super::{Core, Write};
use crate::engine::{Error, Io, Output, Pool};
use crate::fs::ctl::{CtlError, UnitCommand};
use crate::fs::errno::{self, Errno};
use crate::fs::handles::Handle;
use crate::fs::tree::{Changes, DATA};
use crate::runtime::{Unit, UnitId};
use crate::vhost::socket::Owner;
use crate::vhost::{Ask, Disk, Done, END, Export, Exports, Facts, Failed, Source, server};

/// How long a front end waits for its disk to be opened: what an open of a file may take, with slack.
const OPENING: Duration = Duration::from_secs(2);

/// How long a word waits for the file system that its socket is in.
const PATIENCE: Duration = Duration::from_secs(2);

/// The sockets, each with the target and the name of the disk behind it.
pub(super) type Sockets = Exports<(UnitId, String)>;

/// A disk by its name. Each front end gets the one that has it when it connects.
struct Named {
    core: Weak<Core>,
    unit: Arc<Unit>,
    name: String,
    path: PathBuf,
}

impl Source for Named {
    fn open(&self) -> Result<Box<dyn Disk>, String> {
        let core = self.core.upgrade().ok_or("the mount is gone")?;
        let disks = core.tree.disks(self.unit.id);
        let disk = disks.iter().find(|disk| disk.name == self.name).ok_or("the disk is gone")?;
        let flags = if core.settings.read_only { libc::O_RDONLY } else { libc::O_RDWR };
        let (tell, told) = mpsc::channel();
        let own = core.clone();
        // The thread's number: no other thread will ever open a file under it.
        core.open_when_up(disk.ino, std::process::id(), flags, move |opened| {
            if let Err(mpsc::SendError(Ok(late))) = tell.send(opened) {
                own.release(late.fh);
            }
        });
        let opened = told.recv_timeout(OPENING).unwrap_or(Err(Errno::ETIMEDOUT));
        let opened = opened.map_err(|errno| format!("cannot open the disk: {}", errno::words(errno)))?;
        let handle = core.handles.get(opened.fh).ok_or("the disk is closed")?;
        if let Some(open) = handle.disk() {
            open.used();
        }
        Ok(Box::new(Opened { core, handle }))
    }

    fn say(&self, words: &str) {
        if let Some(core) = self.core.upgrade() {
            let line = format_args!("{}: {words}", self.path.display());
            core.runtime.log().log("vhost", Some(self.unit.addr), line);
        }
    }
}

/// A disk that a front end has open.
struct Opened {
    core: Arc<Core>,
    handle: Arc<Handle>,
}

/// What a guest is told of an error.
fn failed(errno: Errno) -> Failed {
    if errno == Errno::EOPNOTSUPP { Failed::Unsupported } else { Failed::Io }
}

impl Opened {
    /// The times that the kernel knows of the file are old ones: it did not see who wrote.
    fn tell_times(&self) {
        self.core.waker.attributes(self.handle.ino);
    }
}

impl Disk for Opened {
    fn facts(&self) -> Facts {
        let read_only = self.core.settings.read_only;
        let Some(open) = self.handle.disk() else {
            return Facts { size: 0, read_only, physical_log2: 0, discard: false, id: String::new() };
        };
        let name = &open.disk.name;
        self.core.runtime.look(&open.unit, |device| Facts {
            size: open.disk.size(),
            read_only,
            physical_log2: device.info().physical_log2,
            discard: device.can_trim(),
            // Two partitions of one target must not look like one disk.
            id: match name == DATA {
                true => device.status().serial.to_string(),
                false => format!("{}-{name}", open.unit.addr),
            },
        })
    }

    fn pool(&self) -> &Pool {
        &self.core.pool
    }

    fn submit(&self, ask: Ask, done: Done) {
        let Some(open) = self.handle.disk() else { return done(Err(Failed::Io)) };
        let nothing = |done: Done| move |ended: Result<(), Errno>| done(ended.map(|()| None).map_err(failed));
        let (core, handle) = (&self.core, &self.handle);
        match ask {
            Ask::Read { offset, len } => {
                let io = Io::Read { offset, len };
                core.submit(&open.unit, open.disk.place, false, io, move |outcome| {
                    done(match outcome {
                        Ok(Output::Data(data)) => Ok(Some(data)),
                        Err(Error::NotSupported) => Err(Failed::Unsupported),
                        Ok(_) | Err(_) => Err(Failed::Io),
                    });
                });
            }
            Ask::Write { offset, data, durable } => {
                let len = data.len();
                // The disk may have become smaller: what does not fit is cut off.
                let written = move |written: Result<u32, Errno>| {
                    done(match written {
                        Ok(written) if written as usize == len => Ok(None),
                        Ok(_) => Err(Failed::Io),
                        Err(errno) => Err(failed(errno)),
                    });
                };
                let write = Write { offset, data };
                match durable {
                    true => core.write_durably(handle, write, written),
                    false => core.write_disk(handle, write, written),
                }
            }
            Ask::Flush => {
                self.tell_times();
                core.sync_disk(handle, nothing(done));
            }
            Ask::Discard { offset, len } => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                core.fallocate(handle.fh, offset, len, mode, nothing(done));
            }
            Ask::Zero { offset, len } => {
                let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
                core.fallocate(handle.fh, offset, len, mode, nothing(done));
            }
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.core.release(self.handle.fh);
        self.tell_times();
    }
}

impl Core {
    fn has_disk(&self, unit: UnitId, name: &str) -> bool {
        self.tree.disks(unit).iter().any(|disk| disk.name == name)
    }

    /// `vhost PATH NAME`.
    pub(super) fn export(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        path: PathBuf,
        name: String,
        answer: impl FnOnce(Result<(), CtlError>) + Send + 'static,
    ) {
        if !self.has_disk(unit.id, &name) {
            return answer(Err(Errno::ENOENT.into()));
        }
        let Some(ticket) = self.exports.reserve((unit.id, name.clone()), &path) else {
            return answer(Err(Errno::EEXIST.into()));
        };
        let owner = Owner { uid: self.settings.uid, gid: self.settings.gid };
        let core = Arc::downgrade(self);
        let source = Arc::new(Named { core, unit: unit.clone(), name: name.clone(), path: path.clone() });
        let pending = Pending::new(&self.runtime, Some(PATIENCE), answer, CtlError::from(Errno::ETIMEDOUT));
        let (core, own) = (self.clone(), unit.clone());
        Export::start(&path, owner, source, move |started| {
            let export = match started {
                Ok(export) => export,
                Err(error) => {
                    core.exports.cancel(ticket);
                    return pending.give(Err(refused(&error)));
                }
            };
            // The disk may have gone meanwhile, or whoever asked was told that it takes too long.
            if !pending.is_over() && core.exports.fill(ticket, export.clone()) {
                core.settle(&own);
                return pending.give(Ok(()));
            }
            core.exports.cancel(ticket);
            server::end(vec![export], move |_| pending.give(Err(Errno::ENOENT.into())));
        });
    }

    /// `unvhost PATH`.
    pub(super) fn unexport(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        path: PathBuf,
        answer: impl FnOnce(Result<(), CtlError>) + Send + 'static,
    ) {
        let taken = self.exports.take(|(id, _), at| *id == unit.id && at == path);
        if taken.is_empty() {
            return answer(Err(Errno::ENOENT.into()));
        }
        let pending = Pending::new(&self.runtime, Some(PATIENCE), answer, CtlError::from(Errno::ETIMEDOUT));
        server::end(taken, move |left| {
            say_left(left);
            pending.give(Ok(()));
        });
    }

    /// Whether a `vhost` has nothing left to do: that of a configuration file is run each time the target comes up.
    pub(super) fn is_exported(&self, unit: &Unit, command: &UnitCommand) -> bool {
        let UnitCommand::Vhost { path, name } = command else { return false };
        self.exports.has(&(unit.id, name.clone()), path)
    }

    /// The sockets of a target as its `ctl` shows them.
    pub(super) fn export_lines(&self, unit: &Unit) -> String {
        let mut lines = String::new();
        for ((_, name), path, clients) in self.exports.look(|(id, _)| *id == unit.id) {
            // A String takes everything.
            let _ = writeln!(lines, "vhost {} {name} {clients}", path.display());
        }
        lines
    }

    /// The disks of a target are other ones: front ends learn their sizes, and sockets go with their names.
    pub(super) fn settle_exports(&self, unit: &Unit, changes: &Changes) {
        for disk in &changes.resized {
            self.exports.resized(|(id, name)| *id == unit.id && *name == disk.name);
        }
        if !changes.gone.is_empty() {
            self.settle(unit);
        }
    }

    /// Ends the sockets whose disks have gone.
    fn settle(&self, unit: &Unit) {
        let gone = self.exports.take(|(id, name), _| *id == unit.id && !self.has_disk(*id, name));
        server::end(gone, say_left);
    }

    /// Ends all sockets, and waits for it as long as that may take.
    pub(super) fn close_exports(&self) {
        let (tell, told) = mpsc::channel();
        server::end(self.exports.close(), move |left| {
            say_left(left);
            // Nobody may listen any more.
            let _ = tell.send(());
        });
        let _ = told.recv_timeout(2 * END);
    }
}

fn say_left(left: usize) {
    if left > 0 {
        log::warn!("{left} threads wait for something that the front end of a virtual machine holds");
    }
}

/// Why there is no socket, in the words of whoever refused it.
fn refused(error: &std::io::Error) -> CtlError {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_i32);
    CtlError::from(errno)
}
