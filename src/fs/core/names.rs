//! Lookup, listing, stat, chmod, rmdir.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::FileAttr;

use super::Core;
use crate::fs::answer::Answer;
use crate::fs::errno::Errno;
use crate::fs::file::{OpenDir, OpenFile, Verbs, config, disk, verb};
use crate::fs::handles::Ambiguous;
use crate::fs::snapshot;
use crate::fs::tree::{DEVLINK, Entry, Node, TopFile, UnitFile, VHOST};
use crate::runtime::Unit;
use crate::wire::{Addr, IDENTIFY_LEN};

/// How long the kernel may believe the attributes of a disk: it is told of every change.
const DISK_TTL: Duration = Duration::from_secs(3600);

/// An inode that a lookup or a stat has found.
#[derive(Debug)]
pub struct Found {
    /// Its attributes.
    pub attr: FileAttr,
    /// How long the kernel may believe the attributes. It may never believe a name.
    pub ttl: Duration,
}

impl Core {
    /// The node of an inode number.
    pub(super) fn node(&self, ino: u64) -> Result<Node, Errno> {
        self.context.tree.node(ino).ok_or(Errno::ESTALE)
    }

    fn found(&self, node: &Node) -> Result<Found, Errno> {
        let size = match node {
            Node::Top(TopFile::Log) => self.context.runtime.log().total(),
            Node::File(unit, UnitFile::Config) => config::size(&self.context, &*self.context.unit(*unit)?),
            Node::File(_, UnitFile::Ident) => IDENTIFY_LEN as u64,
            Node::Vhost(unit) => {
                self.context.vhost_link(*unit).map_or(0, |path| path.as_os_str().len() as u64)
            }
            _ => 0,
        };
        // A disk that is open has attributes also after its target was removed.
        if let (Some(unit), false) = (node.unit(), matches!(node, Node::Disk(_))) {
            self.context.unit(unit)?;
        }
        let ttl = if matches!(node, Node::Disk(_)) { DISK_TTL } else { Duration::ZERO };
        Ok(Found { attr: self.context.tree.attr(node, size), ttl })
    }

    /// Finds a name in a directory. The kernel knows the inode from now on.
    pub fn look_up(&self, parent: u64, name: &OsStr) -> Result<Found, Errno> {
        let name = name.to_str().ok_or(Errno::ENOENT)?;
        let node = match self.node(parent)? {
            Node::Root => match TopFile::named(name) {
                Some(file) => Node::Top(file),
                None => Node::Unit(self.unit_named(name).ok_or(Errno::ENOENT)?.id),
            },
            Node::Unit(id) => self.look_up_in_unit(&self.context.unit(id)?, name)?,
            Node::Devlinks(id) => {
                let count = snapshot::devlinks(&self.context.runtime, &*self.context.unit(id)?);
                let n = name.parse::<u8>().ok().filter(|n| n.to_string() == name && *n < count);
                Node::Devlink(id, n.ok_or(Errno::ENOENT)?)
            }
            _ => return Err(Errno::ENOTDIR),
        };
        self.found(&node)
    }

    /// The target whose directory has that name: only one spelling of an address is a name.
    fn unit_named(&self, name: &str) -> Option<Arc<Unit>> {
        let addr: Addr = name.parse().ok()?;
        (addr.to_string() == name).then(|| self.context.runtime.unit(addr)).flatten()
    }

    fn look_up_in_unit(&self, unit: &Arc<Unit>, name: &str) -> Result<Node, Errno> {
        if let Some(file) = UnitFile::named(name) {
            return Ok(Node::File(unit.id, file));
        }
        if name == DEVLINK {
            return Ok(Node::Devlinks(unit.id));
        }
        if name == VHOST {
            return self.context.vhost_link(unit.id).map(|_| Node::Vhost(unit.id)).ok_or(Errno::ENOENT);
        }
        self.context.refresh(unit);
        self.context.tree.look_up(unit.id, name).map(Node::Disk).ok_or(Errno::ENOENT)
    }

    /// readlink(2). Only the link `vhost` is one.
    pub fn read_link(&self, ino: u64) -> Result<PathBuf, Errno> {
        match self.node(ino)? {
            Node::Vhost(unit) => self.context.vhost_link(unit).ok_or(Errno::ENOENT),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The kernel drops that many lookups of an inode.
    pub fn forget(&self, ino: u64, lookups: u64) {
        if let Some(disk) = self.context.tree.forget(ino, lookups) {
            self.context.pages.forget_inode(disk.unit, ino);
        }
    }

    /// The attributes of an inode, as stat(2) shows them.
    pub fn stat(&self, ino: u64) -> Result<Found, Errno> {
        let node = self.node(ino)?;
        if let Node::Disk(disk) = &node
            && !disk.is_stale()
            && let Some(unit) = self.context.runtime.unit_by_id(disk.unit)
        {
            self.context.refresh(&unit);
        }
        self.found(&node)
    }

    /// Opens a directory.
    pub fn open_dir(&self, ino: u64) -> Result<u64, Errno> {
        let (fh, dir) = (self.handles.draw(), OpenDir::open(&self.context, self.node(ino)?)?);
        // No truncation belongs to a directory, so the thread does not matter.
        self.add(fh, ino, 0, false, OpenFile::Dir(dir));
        Ok(fh)
    }

    /// The entries of an open directory from `offset` on, each with the offset that follows it. `add` says whether
    /// there was no more room.
    pub fn read_dir(&self, fh: u64, offset: u64, add: impl FnMut(&Entry, u64) -> bool) -> Result<(), Errno> {
        match self.handles.get(fh) {
            Some(OpenFile::Dir(dir)) => dir.read_dir(offset, add),
            Some(_) => Err(Errno::ENOTDIR),
            None => Err(Errno::EBADF),
        }
    }

    /// chmod, chown and utimes of a file.
    pub fn set_meta(
        &self,
        ino: u64,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        mtime: Option<SystemTime>,
    ) -> Result<(), Errno> {
        let node = self.node(ino)?;
        if (mode.is_some() || uid.is_some() || gid.is_some())
            && !self.context.tree.set_meta(&node, mode, uid, gid)
        {
            return Err(match &node {
                Node::Disk(disk) if disk.is_stale() => Errno::ESTALE,
                Node::Root | Node::Unit(_) | Node::Devlinks(_) | Node::Vhost(_) => Errno::EPERM,
                _ => Errno::ENOSPC,
            });
        }
        if let (Node::Disk(disk), Some(at)) = (&node, mtime) {
            disk.set_mtime(at);
        }
        Ok(())
    }

    /// truncate(2), ftruncate(2), and the second half of an open with O_TRUNC.
    pub fn set_size(&self, ino: u64, fh: Option<u64>, pid: u32, size: u64, answer: impl Answer<()>) {
        let node = match self.node(ino) {
            Ok(node) => node,
            Err(errno) => return answer(Err(errno)),
        };
        // By name, or the O_TRUNC of an open, which the kernel reports without the open file. With FUSE_ATOMIC_O_TRUNC
        // it would say so in the open, but take the file for empty until it asks for the size again: a loop device
        // that reads meanwhile would get nothing.
        let unused = |file: &OpenFile| matches!(file, OpenFile::Disk(disk) if disk.is_unused());
        // A disk that was read or written was opened before. Its thread may have ended, and have left its number to
        // another program, which truncates by name.
        let used = |file: &OpenFile| matches!(file, OpenFile::Disk(disk) if !disk.is_unused());
        let file = match fh {
            Some(fh) => self.handles.get(fh),
            None if size == 0 => match self.handles.newest_writer(ino, pid, unused) {
                Ok(file) => file.filter(|file| !used(file)),
                // The wrong one would fill a stranger's disk with zeros.
                Err(Ambiguous) => return answer(Err(Errno::EBUSY)),
            },
            None => None,
        };
        match (node, file) {
            (Node::Root | Node::Unit(_) | Node::Devlinks(_), _) => answer(Err(Errno::EISDIR)),
            (Node::Devlink(..) | Node::Vhost(_), _) => answer(Err(Errno::EPERM)),
            (_, Some(file)) => verb!(file.truncate(size, answer)),
            (Node::Disk(disk), None) => answer(disk::check_size(&self.context, &disk, size)),
            (node @ Node::File(_, UnitFile::Config), None) => match self.context.unit_of(&node) {
                Ok(unit) => config::truncate(&self.context, &unit, size, answer),
                Err(errno) => answer(Err(errno)),
            },
            // What a shell's `>` does to a ctl file means nothing.
            (Node::Top(_) | Node::File(..), None) => answer(Ok(())),
        }
    }

    /// `rmdir` of a target's directory is the command `remove`; no other directory can be removed.
    pub fn remove_dir(&self, parent: u64, name: &OsStr) -> Result<(), Errno> {
        let name = name.to_str().ok_or(Errno::ENOENT)?;
        match self.node(parent)? {
            Node::Root if TopFile::named(name).is_some() => Err(Errno::ENOTDIR),
            Node::Root => {
                let unit = self.unit_named(name).ok_or(Errno::ENOENT)?;
                self.context.runtime.remove(unit.addr, false).map_err(Errno::from)
            }
            Node::Unit(_) if name == DEVLINK => Err(Errno::EPERM),
            Node::Unit(_) | Node::Devlinks(_) => Err(Errno::ENOTDIR),
            _ => Err(Errno::ENOENT),
        }
    }
}
