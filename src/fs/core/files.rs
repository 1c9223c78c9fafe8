//! Opening, reading, writing and closing, whatever the file.

use std::sync::Arc;

use fuser::{FopenFlags, PollEvents, PollNotifier};

use super::command::Language;
use super::{Core, Reader, Write};
use crate::bug;
use crate::engine::{Device, Stream};
use crate::fs::errno::{self, Errno};
use crate::fs::handles::{DiskHandle, Handle, LogReader, Mode, Page, What};
use crate::fs::metrics::Snapshot;
use crate::fs::stats::StatsPage;
use crate::fs::tree::{Node, TopFile, UnitFile};
use crate::runtime::{Done, Unit};

/// Up to so many targets the metrics are rendered in a few milliseconds, sooner than a thread is worth its start.
const AT_ONCE: usize = 64;

/// What open(2) got.
#[derive(Debug)]
pub struct Opened {
    /// The handle's number.
    pub fh: u64,
    /// How the kernel is to treat it.
    pub flags: FopenFlags,
}

impl Core {
    /// Opens a file now: ENXIO if that needs a target that is up.
    pub fn open(&self, ino: u64, pid: u32, flags: i32) -> Result<Opened, Errno> {
        let mode = Mode::new(flags);
        let node = self.node(ino)?;
        let text = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH;
        let (what, flags) = match &node {
            Node::Root | Node::Unit(_) | Node::Devlinks(_) => return Err(Errno::EISDIR),
            // Root may open what nobody can write.
            Node::Top(TopFile::Log | TopFile::Metrics)
            | Node::Devlink(..)
            | Node::File(_, UnitFile::Ident | UnitFile::Stats)
                if mode.write =>
            {
                return Err(Errno::EPERM);
            }
            Node::Top(TopFile::Metrics) => (What::Metrics(Page::default()), text),
            Node::Top(TopFile::Log) => (What::Log(LogReader::default().into()), text),
            Node::Top(TopFile::Ctl) => (What::Top(Page::default()), text),
            Node::File(_, UnitFile::Raw) => (self.open_raw(self.unit_of(&node)?)?, text),
            Node::File(_, UnitFile::Ctl | UnitFile::Stats | UnitFile::Mask | UnitFile::Reserve)
            | Node::Devlink(..) => (What::Page(self.unit_of(&node)?, Page::default()), text),
            Node::File(_, UnitFile::Config | UnitFile::Ident) => {
                let unit = self.unit_of(&node)?;
                if !self.runtime.look(&unit, |device| device.is_up()) {
                    return Err(Errno::ENXIO);
                }
                (What::Page(unit, Page::default()), text)
            }
            Node::Disk(disk) => {
                if mode.write {
                    self.writable(disk)?;
                }
                if disk.is_stale() {
                    return Err(Errno::ESTALE);
                }
                let unit = self.unit_of(&node)?;
                let own = |device: &mut Device<Done>| device.open().map(|()| device.uncached());
                let own = self.runtime.with_device(&unit, |device, _, _| own(device)).map_err(errno::of)?;
                let uncached = own.unwrap_or(self.settings.uncached);
                // Where anything can be written, no name of a disk is in the kernel's page cache: names could not be kept the
                // same from outside. Parallel: writers do not take turns at the inode's lock, for the engine has locks.
                let flags = match uncached || !self.settings.read_only {
                    true => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
                    false => FopenFlags::empty(),
                };
                (What::Disk(DiskHandle::new(unit, disk.clone(), uncached)), flags)
            }
        };
        Ok(Opened { fh: self.handles.open(ino, pid, mode, what).fh, flags })
    }

    /// Closes a handle. The kernel has waited for its requests.
    pub fn release(self: &Arc<Self>, fh: u64) {
        self.pollers.lock().remove(&fh);
        let Some(handle) = self.handles.close(fh) else { return };
        match &handle.what {
            What::Disk(open) => self.runtime.with_device(&open.unit, |device, now, sink| {
                device.close();
                device.close_stream(Stream(fh), now, sink);
            }),
            What::Page(unit, _) => self.settle_config(unit, fh),
            What::Raw(open) => self.close_raw(open),
            What::Top(_) | What::Metrics(_) | What::Log(_) | What::Dir(_) => {}
        }
    }

    /// Reads: all of what was asked for, unless the file ends before.
    pub fn read(
        self: &Arc<Self>,
        fh: u64,
        offset: u64,
        size: usize,
        reader: Reader,
        answer: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        let Some(handle) = self.handles.get(fh) else { return answer(Err(Errno::EBADF)) };
        match &handle.what {
            What::Disk(open) => self.read_disk(&handle, open, (offset, size), reader, answer),
            What::Raw(open) => self.read_raw(&handle, open, size, answer),
            What::Log(reader) => {
                let mut reader = reader.lock();
                let bytes = self.runtime.log().read_at(&mut reader.cursor, offset, size);
                reader.next = offset + bytes.len() as u64;
                drop(reader);
                answer(Ok(&bytes));
            }
            What::Top(page) => {
                let render = || self.kept.keep(page, self.top_page().to_string().into_bytes());
                let text = page.kept(offset).unwrap_or_else(render);
                answer(Ok(slice(&text, offset, size)));
            }
            What::Metrics(page) => match page.kept(offset) {
                Some(text) => answer(Ok(slice(&text, offset, size))),
                None => self.read_metrics(&handle, (offset, size), answer),
            },
            What::Page(unit, page) => {
                if let Some(text) = page.kept(offset) {
                    return answer(Ok(slice(&text, offset, size)));
                }
                let node = self.node(handle.ino);
                match node {
                    Ok(Node::File(_, UnitFile::Config)) => {
                        return self.read_config(&handle, unit, (offset, size), answer);
                    }
                    Ok(Node::File(_, UnitFile::Mask | UnitFile::Reserve)) => {
                        return self.read_list(&handle, unit, (offset, size), answer);
                    }
                    _ => {}
                }
                match node.and_then(|node| self.render(&node, unit)) {
                    Ok(text) => answer(Ok(slice(&self.kept.keep(page, text), offset, size))),
                    Err(errno) => answer(Err(errno)),
                }
            }
            What::Dir(_) => answer(Err(Errno::EISDIR)),
        }
    }

    /// Renders the metrics. What thousands of targets take, in time, must not keep the kernel's requests waiting.
    fn read_metrics(
        self: &Arc<Self>,
        handle: &Arc<Handle>,
        (offset, size): (u64, usize),
        answer: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        let (core, handle) = (self.clone(), handle.clone());
        let work = move || {
            bug::here("metrics");
            let What::Metrics(page) = &handle.what else { return };
            let text = Snapshot::take(&core.runtime, core.open_handles()).render();
            answer(Ok(slice(&core.kept.keep(page, text.into_bytes()), offset, size)));
        };
        if self.runtime.units().len() <= AT_ONCE {
            return work();
        }
        // An answer that is dropped says EIO by itself.
        self.renderer.run(work);
    }

    /// A page that is made of what is known here.
    fn render(&self, node: &Node, unit: &Unit) -> Result<Vec<u8>, Errno> {
        match node {
            Node::File(_, UnitFile::Ctl) => {
                Ok(format!("{}{}", self.unit_page(unit), self.export_lines(unit)).into_bytes())
            }
            Node::File(_, UnitFile::Stats) => {
                Ok(StatsPage::take(&self.runtime, unit).to_string().into_bytes())
            }
            Node::File(_, UnitFile::Ident) => Ok(self.runtime.look(unit, |device| device.ident().to_vec())),
            Node::Devlink(_, n) => {
                self.devlink_page(unit, *n).map(|page| page.to_string().into_bytes()).ok_or(Errno::ESTALE)
            }
            _ => Err(Errno::EBADF),
        }
    }

    /// Writes: all of it, unless the disk ends before. `durable`: answered after a flush, as O_DSYNC has it.
    pub fn write(
        self: &Arc<Self>,
        fh: u64,
        offset: u64,
        data: &[u8],
        durable: bool,
        answer: impl FnOnce(Result<u32, Errno>) + Send + 'static,
    ) {
        let Some(handle) = self.handles.get(fh) else { return answer(Err(Errno::EBADF)) };
        match &handle.what {
            What::Disk(_) => {
                let write = Write { offset, data: self.write_buf(offset, data) };
                match durable {
                    true => self.write_durably(&handle, write, answer),
                    false => self.write_disk(&handle, write, answer),
                }
            }
            What::Raw(open) => self.write_raw(&handle, open, data, answer),
            What::Top(_) => self.run_commands(Language::Top, data, answer),
            What::Page(unit, _) => match self.node(handle.ino) {
                Ok(Node::File(_, UnitFile::Ctl)) => {
                    self.run_commands(Language::Unit(unit.clone()), data, answer);
                }
                Ok(Node::File(_, UnitFile::Mask)) => {
                    self.run_commands(Language::Mask(unit.clone()), data, answer);
                }
                Ok(Node::File(_, UnitFile::Reserve)) => {
                    self.run_commands(Language::Reserve(unit.clone()), data, answer);
                }
                Ok(Node::File(_, UnitFile::Config)) => self.write_config(unit, offset, data, answer),
                _ => answer(Err(Errno::EBADF)),
            },
            What::Metrics(_) | What::Log(_) | What::Dir(_) => answer(Err(Errno::EBADF)),
        }
    }

    /// fsync(2) and fdatasync(2). Only a disk has anything to sync.
    pub fn sync(self: &Arc<Self>, fh: u64, answer: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        let Some(handle) = self.handles.get(fh) else { return answer(Err(Errno::EBADF)) };
        match &handle.what {
            What::Disk(_) => self.sync_disk(&handle, answer),
            _ => answer(Ok(())),
        }
    }

    /// What poll(2) may expect of a handle. Who waits for the log is told when there is more.
    pub fn poll(&self, fh: u64, notifier: PollNotifier, schedule: bool) -> Result<PollEvents, Errno> {
        let handle = self.handles.get(fh).ok_or(Errno::EBADF)?;
        let readable = PollEvents::POLLIN | PollEvents::POLLRDNORM;
        let What::Log(reader) = &handle.what else {
            return Ok(readable | PollEvents::POLLOUT | PollEvents::POLLWRNORM);
        };
        // Enrolled before looking: what is logged in between wakes it.
        if schedule {
            self.pollers.lock().insert(fh, notifier);
        }
        let reader = reader.lock();
        let more = self.runtime.log().has_news(&reader.cursor, reader.next);
        Ok(if more { readable } else { PollEvents::empty() })
    }
}

/// The part of a page that a read asks for.
pub(super) fn slice(text: &[u8], offset: u64, size: usize) -> &[u8] {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    &text[from..from.saturating_add(size).min(text.len())]
}
