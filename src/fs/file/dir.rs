//! Directories: a list that stays the same until it is read from its beginning again.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Reader, Verbs};
use crate::fs::answer::DataAnswer;
use crate::fs::context::Context;
use crate::fs::errno::Errno;
use crate::fs::snapshot;
use crate::fs::tree::{Entry, Node};

/// An open directory.
pub struct OpenDir {
    context: Arc<Context>,
    node: Node,
    /// As it was listed at its beginning.
    list: Mutex<Arc<[Entry]>>,
}

impl OpenDir {
    /// Opens the directory that the node is.
    pub fn open(context: &Arc<Context>, node: Node) -> Result<Arc<Self>, Errno> {
        let list = Mutex::new(list(context, &node)?);
        Ok(Arc::new(Self { context: context.clone(), node, list }))
    }

    /// The entries from `offset` on, each with the offset that follows it. `add` says whether there was no more room.
    pub fn read_dir(&self, offset: u64, mut add: impl FnMut(&Entry, u64) -> bool) -> Result<(), Errno> {
        if offset == 0 {
            let list = list(&self.context, &self.node)?;
            *self.list.lock() = list;
        }
        let list = self.list.lock().clone();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(list.len());
        for (n, entry) in list.iter().enumerate().skip(from) {
            if add(entry, n as u64 + 1) {
                break;
            }
        }
        Ok(())
    }
}

fn list(context: &Context, node: &Node) -> Result<Arc<[Entry]>, Errno> {
    let tree = &context.tree;
    let list = match node {
        Node::Root => {
            let units = context.runtime.units();
            tree.list_root(units.iter().map(|unit| (unit.id, unit.addr.to_string())))
        }
        Node::Unit(id) => {
            context.refresh(&context.unit(*id)?);
            tree.list_unit(*id, context.vhost_link(*id).is_some())
        }
        Node::Devlinks(id) => {
            tree.list_devlinks(*id, snapshot::devlinks(&context.runtime, &*context.unit(*id)?))
        }
        _ => return Err(Errno::ENOTDIR),
    };
    Ok(list.into())
}

impl Verbs for OpenDir {
    fn read(self: &Arc<Self>, _: u64, _: usize, _: Reader, answer: impl DataAnswer) {
        answer(Err(Errno::EISDIR));
    }
}
