//! Turns FUSE requests into calls of [`Core`], and answers into replies. Nothing is decided here but the answer to
//! requests that mean nothing on these files.
//!
//! No handler waits: a reply that has to wait travels with its request.
//!
//! **ENOSYS is a choice.** The kernel remembers it and does not ask again: extended attributes then are EOPNOTSUPP
//! without a question before every write, SEEK_HOLE finds no hole, and locks are kept by this machine's kernel. fsync
//! and fallocate must never say it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyBmap, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};

use super::answer::Answer;
use super::core::{At, Core, Opened, Reader};
use super::errno::Errno;
use super::limits::REQUEST_MAX;
use crate::bug;
use crate::runtime::Deputy;
use crate::runtime::clock::wall;

/// Requests that the kernel lets wait in the background: for all files of the mount together, so that those of a target
/// that is away must never use it up. What one target can have is bounded by the engine instead.
const MAX_BACKGROUND: u16 = u16::MAX;

/// Bytes of a block as statfs tells it: a loop device takes it for its granularity of discards.
const BLOCK: u32 = 4096;

/// Longest name in a directory, in bytes, as statfs tells it.
const NAME_MAX: u32 = 255;

/// Inode numbers are never used twice, so that all can be of one generation.
const GENERATION: Generation = Generation(0);

/// The file system as fuser wants it.
pub struct AoeFs {
    core: Arc<Core>,
    /// For a session with one thread: that thread receives answers between requests.
    deputy: Option<Deputy>,
}

impl AoeFs {
    /// Over that core. With a deputy, the session must have one thread.
    pub fn new(core: Arc<Core>, deputy: Option<Deputy>) -> Self {
        Self { core, deputy }
    }

    /// Every handler that may ask a target ends with this: answers are received until there is another request. The
    /// other handlers do without: while they run, answers may wait for 4 ms (`runtime/deputy.rs`).
    fn attend(&self) {
        bug::here("request");
        if let Some(deputy) = &self.deputy {
            self.core.attend(deputy);
        }
    }
}

fn empty(reply: ReplyEmpty) -> impl Answer<()> {
    move |done| match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn time(at: TimeOrNow) -> SystemTime {
    match at {
        TimeOrNow::SpecificTime(at) => at,
        TimeOrNow::Now => wall(),
    }
}

impl Filesystem for AoeFs {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = [
            // Large O_DIRECT calls in parallel, and errors of one part reach the caller: loop devices need it.
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_PARALLEL_DIROPS,
        ];
        for flag in wanted {
            if config.add_capabilities(flag).is_err() {
                log::info!("this kernel does not have {flag:?}");
            }
        }
        let set = config
            .set_max_write(REQUEST_MAX as u32)
            .is_ok_and(|_| config.set_max_background(MAX_BACKGROUND).is_ok())
            && config.set_congestion_threshold(MAX_BACKGROUND).is_ok();
        if set { Ok(()) } else { Err(io::Error::other("limits that no kernel takes")) }
    }

    fn destroy(&mut self) {
        self.core.close();
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.core.look_up(parent.0, name) {
            Ok(found) => reply.entry_with_ttls(&found.ttl, &Duration::ZERO, &found.attr, GENERATION),
            Err(errno) => reply.error(errno),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, nlookup: u64) {
        self.core.forget(ino.0, nlookup);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.core.stat(ino.0) {
            Ok(found) => reply.attr(&found.ttl, &found.attr),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let core = self.core.clone();
        let show = move |done: Result<(), Errno>| match done.and_then(|()| core.stat(ino.0)) {
            Ok(found) => reply.attr(&found.ttl, &found.attr),
            Err(errno) => reply.error(errno),
        };
        match (self.core.set_meta(ino.0, mode, uid, gid, mtime.map(time)), size) {
            (Ok(()), Some(size)) => self.core.set_size(ino.0, fh.map(|fh| fh.0), req.pid(), size, show),
            (done, _) => show(done),
        }
        self.attend();
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.core.read_link(ino.0) {
            Ok(path) => reply.data(path.as_os_str().as_bytes()),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EPERM);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply)(self.core.remove_dir(parent.0, name));
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EPERM);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let answer = |opened: Result<Opened, Errno>| match opened {
            Ok(opened) => reply.opened(FileHandle(opened.fh), opened.flags),
            Err(errno) => reply.error(errno),
        };
        self.core.open_when_up(ino.0, req.pid(), flags.0, answer);
        self.attend();
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // The kernel names an owner of locks (FUSE_READ_LOCKOWNER) for reads of programs only.
        let reader = if lock_owner.is_some() { Reader::Program } else { Reader::PageCache };
        self.core.read(fh.0, offset, size as usize, reader, |read| match read {
            Ok(data) => reply.data(data),
            Err(errno) => reply.error(errno),
        });
        self.attend();
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // For writes past the page cache the kernel leaves this to the file system. O_SYNC has this bit, and RWF_DSYNC
        // sets it for one write.
        let durable = flags.0 & libc::O_DSYNC != 0;
        self.core.write(fh.0, offset, data, durable, |written| match written {
            Ok(len) => reply.written(len),
            Err(errno) => reply.error(errno),
        });
        self.attend();
    }

    /// close(2) has nothing to wait for: every write was answered, and fsync is there to wait for the disk's cache.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.core.release(fh.0);
        reply.ok();
        self.attend();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, _: bool, reply: ReplyEmpty) {
        self.core.sync(fh.0, empty(reply));
        self.attend();
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.core.open_dir(ino.0) {
            Ok(fh) => reply.opened(FileHandle(fh), FopenFlags::empty()),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let add =
            |entry: &super::tree::Entry, next| reply.add(INodeNo(entry.ino), next, entry.kind, &entry.name);
        match self.core.read_dir(fh.0, offset, add) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.core.release(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // No blocks: so df has nothing to call full, and does not list the mount unless it is asked to.
        reply.statfs(0, 0, 0, 0, 0, BLOCK, NAME_MAX, BLOCK);
    }

    fn setxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: &[u8], _: i32, _: u32, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn removexattr(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    /// The kernel never asks: it decides by the modes (`default_permissions`).
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.error(Errno::EPERM);
    }

    fn getlk(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        _: i32,
        _: u32,
        reply: ReplyLock,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn setlk(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: LockOwner,
        _: u64,
        _: u64,
        _: i32,
        _: u32,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        ph: PollNotifier,
        events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let schedule = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY);
        match self.core.poll(fh.0, ph, schedule) {
            Ok(ready) => reply.poll(ready & events),
            Err(errno) => reply.error(errno),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.core.fallocate(fh.0, offset, length, mode, empty(reply));
        self.attend();
    }

    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = (At { fh: from.0, offset: from_offset }, At { fh: to.0, offset: to_offset });
        self.core.copy_range(from, to, len, |copied| match copied {
            Ok(len) => reply.written(len),
            Err(errno) => reply.error(errno),
        });
        self.attend();
    }
}
