//! Open files: opening finds out once which kind a file is, and each verb is a method of that kind.
//!
//! A kind is a struct with [`Verbs`] in a file of its own; the trait has what most files do. To add a file: give it
//! a row in `tree/node.rs`, write its kind (or, for a text that is only read, its content in `page.rs`), and the
//! compiler asks for its line in [`OpenFile::open`].

use std::sync::Arc;

use fuser::{FopenFlags, PollEvents, PollNotifier};

use super::answer::{Answer, DataAnswer};
use super::context::Context;
use super::errno::Errno;
use super::tree::{Node, TopFile, UnitFile, WRITE};

pub mod config;
pub mod ctl;
mod dir;
pub mod disk;
mod list;
mod log;
mod page;
mod raw;
mod script;

pub use config::OpenConfig;
pub use ctl::OpenCtl;
pub use dir::OpenDir;
pub use disk::OpenDisk;
pub use list::OpenList;
pub use log::OpenLog;
pub use page::OpenPage;
pub use raw::OpenRaw;

use list::List;
use page::Content;

/// How a file was opened.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mode {
    /// It may be written to.
    pub write: bool,
    /// O_NONBLOCK: fail rather than wait for a target that is away.
    pub nonblock: bool,
    /// O_DIRECT.
    pub direct: bool,
    /// O_DSYNC or O_SYNC: what changes bytes is answered after a flush.
    pub durable: bool,
}

impl Mode {
    /// From the flags of open(2).
    pub fn new(flags: i32) -> Self {
        Self {
            write: flags & libc::O_ACCMODE != libc::O_RDONLY,
            nonblock: flags & libc::O_NONBLOCK != 0,
            direct: flags & libc::O_DIRECT != 0,
            durable: flags & libc::O_DSYNC != 0,
        }
    }
}

/// Where the bytes of a read go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reader {
    /// To a program that called read(2): the kernel keeps nothing of them.
    Program,
    /// To the kernel's page cache: for sendfile, splice and mappings.
    PageCache,
}

/// The calls of programs on an open file. An answer is given exactly once, now or later, on any thread.
pub trait Verbs: Sized {
    /// How the kernel is to treat it.
    fn flags(&self) -> FopenFlags {
        FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_NOFLUSH
    }

    /// read(2): all of what was asked for, unless the file ends before.
    fn read(self: &Arc<Self>, offset: u64, len: usize, reader: Reader, answer: impl DataAnswer);

    /// write(2): all of it, unless the disk ends before. `durable`: answered after a flush, as O_DSYNC has it.
    fn write(self: &Arc<Self>, _offset: u64, _data: &[u8], _durable: bool, answer: impl Answer<u32>) {
        answer(Err(Errno::EBADF));
    }

    /// fsync(2) and fdatasync(2).
    fn sync(self: &Arc<Self>, answer: impl Answer<()>) {
        answer(Ok(()));
    }

    /// ftruncate(2), or the O_TRUNC of the open.
    fn truncate(self: &Arc<Self>, _size: u64, answer: impl Answer<()>) {
        answer(Ok(()));
    }

    /// fallocate(2).
    fn allocate(self: &Arc<Self>, _offset: u64, _len: u64, _mode: i32, answer: impl Answer<()>) {
        answer(Err(Errno::EOPNOTSUPP));
    }

    /// What poll(2) reports now. With `schedule`, `notifier` is to be called when there is more.
    fn poll(&self, _notifier: PollNotifier, _schedule: bool) -> PollEvents {
        READABLE | PollEvents::POLLOUT | PollEvents::POLLWRNORM
    }

    /// The last close(2). The kernel has waited for the requests of this open file.
    fn close(self: &Arc<Self>) {}
}

/// The events of poll(2) for a file that has something to read.
const READABLE: PollEvents = PollEvents::POLLIN.union(PollEvents::POLLRDNORM);

/// An open file or directory, by its kind.
#[derive(Clone)]
pub enum OpenFile {
    /// `data` or a partition.
    Disk(Arc<OpenDisk>),
    /// `config`.
    Config(Arc<OpenConfig>),
    /// `mask` or `reserve`.
    List(Arc<OpenList>),
    /// `raw`.
    Raw(Arc<OpenRaw>),
    /// The top `ctl`, or a target's.
    Ctl(Arc<OpenCtl>),
    /// A text that is only read: `ident`, `stats`, `devlink/N`, `metrics`.
    Page(Arc<OpenPage>),
    /// `log`.
    Log(Arc<OpenLog>),
    /// A directory.
    Dir(Arc<OpenDir>),
}

/// Calls a verb of an open file: `verb!(file.sync(answer))`.
macro_rules! verb {
    ($file:ident . $verb:ident ( $($argument:expr),* )) => {
        match &$file {
            OpenFile::Disk(file) => file.$verb($($argument),*),
            OpenFile::Config(file) => file.$verb($($argument),*),
            OpenFile::List(file) => file.$verb($($argument),*),
            OpenFile::Raw(file) => file.$verb($($argument),*),
            OpenFile::Ctl(file) => file.$verb($($argument),*),
            OpenFile::Page(file) => file.$verb($($argument),*),
            OpenFile::Log(file) => file.$verb($($argument),*),
            OpenFile::Dir(file) => file.$verb($($argument),*),
        }
    };
}
pub(super) use verb;

impl OpenFile {
    /// Opens the file that a node is, under the number `fh`: ENXIO if that needs a target that is up. Directories are
    /// opened by [`OpenDir::open`].
    pub fn open(context: &Arc<Context>, node: &Node, fh: u64, mode: Mode) -> Result<Self, Errno> {
        // The kernel lets root open for writing a file whose mode forbids it to everybody.
        if mode.write && node.default_mode().is_some_and(|mode| mode & WRITE == 0) {
            return Err(Errno::EPERM);
        }
        let unit = || context.unit_of(node);
        let page = |content| Self::Page(OpenPage::open(context, content));
        Ok(match node {
            Node::Root | Node::Unit(_) | Node::Devlinks(_) => return Err(Errno::EISDIR),
            // The kernel follows it.
            Node::Vhost(_) => return Err(Errno::ELOOP),
            Node::Disk(disk) => Self::Disk(OpenDisk::open(context, disk, fh, mode)?),
            Node::Devlink(_, n) => page(Content::Devlink(unit()?, *n)),
            Node::Top(file) => match file {
                TopFile::Ctl => Self::Ctl(OpenCtl::open(context, None)),
                TopFile::Log => Self::Log(OpenLog::open(context, fh)),
                TopFile::Metrics => page(Content::Metrics),
            },
            Node::File(_, file) => match file {
                UnitFile::Ctl => Self::Ctl(OpenCtl::open(context, Some(unit()?))),
                UnitFile::Config => Self::Config(OpenConfig::open(context, unit()?, fh)?),
                UnitFile::Ident => page(Content::ident(context, unit()?)?),
                UnitFile::Raw => Self::Raw(OpenRaw::open(context, unit()?, mode)?),
                UnitFile::Mask => Self::List(OpenList::open(context, unit()?, List::Mask)),
                UnitFile::Reserve => Self::List(OpenList::open(context, unit()?, List::Reserve)),
                UnitFile::Stats => page(Content::Stats(unit()?)),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags() {
        let mode = Mode::new(libc::O_WRONLY | libc::O_DIRECT);
        assert_eq!(mode, Mode { write: true, direct: true, ..Mode::default() });
        assert_eq!(Mode::new(libc::O_RDONLY | libc::O_NONBLOCK), Mode { nonblock: true, ..Mode::default() });
        assert!(Mode::new(libc::O_RDWR).write && !Mode::new(libc::O_RDWR).durable);
        assert!([libc::O_SYNC, libc::O_DSYNC].iter().all(|flag| Mode::new(*flag).durable));
    }
}
