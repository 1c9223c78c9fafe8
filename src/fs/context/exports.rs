//! The sockets for virtual machines: what becomes of them when the disks behind them change.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::mpsc;

use super::Context;
use crate::fs::tree::{DATA, Differences};
use crate::runtime::{Unit, UnitId};
use crate::vhost::exports::Seen;
use crate::vhost::{Counts, END, Exports, server};
use crate::wire::Addr;

/// The sockets, each with the target and the name of the disk behind it.
pub type Sockets = Exports<(UnitId, String)>;

/// A socket as the page `metrics` shows it.
#[derive(Clone, Debug)]
pub struct ExportStatus {
    /// The target.
    pub addr: Addr,
    /// `data` or a partition.
    pub disk: String,
    /// The socket.
    pub path: String,
    /// Front ends that are connected.
    pub clients: usize,
    /// What they have asked for.
    pub counts: Counts,
}

impl Context {
    /// Whether a target has a disk of that name.
    pub fn has_disk(&self, unit: UnitId, name: &str) -> bool {
        self.tree.disks(unit).iter().any(|disk| disk.name == name)
    }

    /// The sockets of a target as its `ctl` shows them.
    pub fn export_lines(&self, unit: &Unit) -> String {
        let mut lines = String::new();
        for Seen { key: (_, name), path, clients, .. } in self.exports.look(|(id, _)| *id == unit.id) {
            // Writing to a string does not fail.
            let _ = writeln!(lines, "vhost {} {name} {clients}", path.display());
        }
        lines
    }

    /// All sockets, for the page `metrics`. Those of a target that is gone are about to go.
    pub fn export_status(&self) -> Vec<ExportStatus> {
        let status = |seen: Seen<(UnitId, String)>| {
            let Seen { key: (unit, disk), path, clients, counts } = seen;
            let addr = self.runtime.unit_by_id(unit)?.addr;
            Some(ExportStatus { addr, disk, path: path.display().to_string(), clients, counts })
        };
        self.exports.look(|_| true).into_iter().filter_map(status).collect()
    }

    /// Where the link `vhost` of a target leads: to the oldest socket for its `data`.
    pub fn vhost_link(&self, unit: UnitId) -> Option<PathBuf> {
        let sockets = self.exports.look(|(id, name)| *id == unit && name == DATA);
        sockets.into_iter().next().map(|seen| seen.path)
    }

    /// The disks of a target are other ones: front ends learn their sizes, and sockets go with their names.
    pub(super) fn settle_exports(&self, unit: &Unit, changes: &Differences) {
        for disk in &changes.resized {
            self.exports.resized(|(id, name)| *id == unit.id && *name == disk.name);
        }
        if !changes.gone.is_empty() {
            self.end_lost_exports(unit);
        }
    }

    /// Ends the sockets of a target whose disks have gone.
    pub fn end_lost_exports(&self, unit: &Unit) {
        let lost = self.exports.take(|(id, name), _| *id == unit.id && !self.has_disk(*id, name));
        server::end(lost, note_left);
    }

    /// Ends all sockets, and waits for it as long as that may take.
    pub fn close_exports(&self) {
        let (tell, told) = mpsc::channel();
        server::end(self.exports.close(), move |left| {
            note_left(left);
            // By then nobody may listen any more.
            let _ = tell.send(());
        });
        let _ = told.recv_timeout(2 * END);
    }
}

/// So many threads did not end in time.
pub fn note_left(left: usize) {
    if left > 0 {
        log::warn!("{left} threads wait for something that the front end of a virtual machine holds");
    }
}
