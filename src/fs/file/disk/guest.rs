//! A disk that a virtual machine has open: the requests of its queues are handled as a program's reads and writes are.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::{OpenDisk, Write};
use crate::engine::{Error, Io, Output, Pool};
use crate::fs::context::Context;
use crate::fs::errno::{self, Errno};
use crate::fs::file::{Mode, Verbs};
use crate::fs::tree::DATA;
use crate::runtime::{Beside, FoundBeside, Unit};
use crate::vhost::origin::Origin;
use crate::vhost::{Ask, Disk, Done, Facts, Failed, Rest, Share};

/// How often a target that is down is looked at while a front end waits for its disk, and how far these looks are
/// apart: as long as an open waits.
const LOOKS: u32 = 18;
const APART: Duration = Duration::from_millis(50);

/// Reading ahead tells open files apart by a number. All guests have this one: a guest reads ahead itself.
const NO_STREAM: u64 = u64::MAX;

/// See the module.
pub struct GuestDisk {
    file: Arc<OpenDisk>,
    beside: Beside,
}

impl GuestDisk {
    /// Opens the disk of that name. Where the target is down it is asked, and this waits as an open(2) does. Errors are
    /// words for the log.
    pub fn open(context: &Arc<Context>, unit: &Arc<Unit>, name: &str) -> Result<Self, String> {
        let mode = Mode { write: !context.settings.read_only, direct: true, ..Mode::default() };
        let open = || {
            let disks = context.tree.disks(unit.id);
            let disk = disks.iter().find(|disk| disk.name == name).ok_or(Errno::ENOENT)?;
            OpenDisk::open(context, disk, NO_STREAM, mode)
        };
        let mut opened = open();
        if opened.as_ref().is_err_and(|errno| *errno == Errno::ENXIO) {
            let runtime = &context.runtime;
            let waits = runtime.with_device(unit, |device, now, sink| device.await_return(now, sink));
            opened = open();
            for _ in (0..LOOKS).take_while(|_| waits) {
                if opened.is_ok() {
                    break;
                }
                thread::sleep(APART);
                opened = open();
            }
            if waits {
                runtime.with_device(unit, |device, _, _| device.opening_over());
            }
        }
        let file = opened.map_err(|errno| format!("cannot open the disk: {}", errno::words(errno)))?;
        file.used();
        context.open_files.fetch_add(1, Ordering::Relaxed);
        Ok(Self { file, beside: Beside::default() })
    }

    /// The times that the kernel knows of the file are old ones: it did not see who wrote.
    fn tell_times(&self) {
        self.file.context.waker.attributes(self.file.disk.ino);
    }
}

/// What a guest is told of an error.
fn failed(errno: Errno) -> Failed {
    if errno == Errno::EOPNOTSUPP { Failed::Unsupported } else { Failed::Io }
}

/// The end of a request that brings nothing.
fn nothing(done: Done) -> impl FnOnce(Result<(), Errno>) + Send + 'static {
    move |ended| done(ended.map(|()| None).map_err(failed))
}

/// The same, after a flush if it is to be durable.
fn flushed(
    file: &Arc<OpenDisk>,
    durable: bool,
    done: Done,
) -> impl FnOnce(Result<(), Errno>) + Send + 'static {
    let file = file.clone();
    move |ended: Result<(), Errno>| match ended {
        Ok(()) if durable => file.sync(nothing(done)),
        other => nothing(done)(other),
    }
}

impl Disk for GuestDisk {
    fn facts(&self) -> Facts {
        let OpenDisk { context, unit, disk, .. } = &*self.file;
        context.runtime.inspect(unit, |device| Facts {
            size: disk.size(),
            read_only: context.settings.read_only,
            physical_log2: device.info().physical_log2,
            discard: device.can_trim(),
            // Two partitions of one target must not look like one disk.
            id: match disk.name == DATA {
                true => device.status().serial.to_string(),
                false => format!("{}-{}", unit.addr, disk.name),
            },
        })
    }

    fn origin(&self) -> Option<Origin> {
        let OpenDisk { context, unit, disk, .. } = &*self.file;
        context.runtime.inspect(unit, |device| {
            let start = device.extent(disk.place).ok()?.start;
            Some(Origin { disk: device.identity(), start })
        })
    }

    fn pool(&self) -> &Pool {
        &self.file.context.pool
    }

    fn share(&self) -> Share {
        let context = &self.file.context;
        Share::of_one(&context.pool, context.exports.count())
    }

    fn submit(&self, ask: Ask, done: Done) {
        let file = &self.file;
        match ask {
            Ask::Read { offset, len } => {
                let io = Io::Read { offset, len };
                file.context.submit(&file.unit, file.disk.place, false, io, move |outcome| {
                    done(match outcome {
                        Ok(Output::Data(data)) => Ok(Some(data)),
                        Err(Error::NotSupported) => Err(Failed::Unsupported),
                        Ok(_) | Err(_) => Err(Failed::Io),
                    });
                });
            }
            Ask::Write { offset, data, durable } => {
                let len = data.len();
                file.put(Write { offset, data }, durable, move |written| {
                    done(match written {
                        Ok(written) if written as usize == len => Ok(None),
                        // The disk has become smaller, and the rest was cut off.
                        Ok(_) => Err(Failed::Io),
                        Err(errno) => Err(failed(errno)),
                    });
                });
            }
            Ask::Flush => {
                self.tell_times();
                file.sync(nothing(done));
            }
            Ask::Discard { offset, len, durable } => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                file.allocate(offset, len, mode, flushed(file, durable, done));
            }
            Ask::Zero { offset, len, durable } => {
                let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
                file.allocate(offset, len, mode, flushed(file, durable, done));
            }
        }
    }

    fn submit_all(&self, asks: &mut Vec<(Ask, Done)>) {
        self.file.context.runtime.together(|| asks.drain(..).for_each(|(ask, done)| self.submit(ask, done)));
    }

    fn rest(&self, readable: BorrowedFd<'_>, busy: bool, look: &mut dyn FnMut(bool) -> bool) -> Rest {
        match self.file.context.runtime.receive_beside(&self.beside, readable, busy, look) {
            FoundBeside::Work => Rest::Work,
            FoundBeside::Readable => Rest::Readable,
            FoundBeside::Nothing => Rest::Nothing,
        }
    }

    fn forget(&self) {
        self.file.end_zeros();
    }
}

impl Drop for GuestDisk {
    fn drop(&mut self) {
        self.forget();
        self.file.close();
        self.file.context.open_files.fetch_sub(1, Ordering::Relaxed);
        self.tell_times();
    }
}
