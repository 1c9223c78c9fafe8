//! What the operator sees and sets.

use std::time::Duration;

use super::{Device, State};
use crate::engine::Error;
use crate::engine::disk::Extent;
use crate::engine::event::Reason;
use crate::engine::ids::Identity;
use crate::engine::limits::{DEADLINE, FRAMES_MAX};
use crate::engine::partition::{PartError, PartId, Partition, Refusal, Scanned};
use crate::engine::request::Handle;
use crate::engine::status::{PathStatus, Status};
use crate::wire::{Addr, IDENTIFY_LEN, Identify, SECTOR};

impl<R> Device<R> {
    /// shelf.slot.
    pub fn addr(&self) -> Addr {
        self.addr
    }

    /// Does the target answer?
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Are requests of open files sent to it? Not while it is down, unless it only lacks an interface: then they
    /// wait for one.
    pub fn takes_io(&self) -> bool {
        matches!(self.state, State::Up | State::Down(Reason::Unreached))
    }

    /// Rises with every new disk at this address.
    pub fn generation(&self) -> u32 {
        self.disk.generation()
    }

    /// Which disk it is.
    pub fn identity(&self) -> Identity {
        self.disk.identity()
    }

    /// What IDENTIFY said.
    pub fn info(&self) -> &Identify {
        self.disk.info()
    }

    /// The 512 bytes of IDENTIFY.
    pub fn ident(&self) -> &[u8; IDENTIFY_LEN] {
        self.disk.ident()
    }

    /// The config string as last heard.
    pub fn config(&self) -> &[u8] {
        self.disk.config()
    }

    /// Bytes of the disk, as shown.
    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    /// Does TRIM work, with zeros afterwards?
    pub fn can_trim(&self) -> bool {
        self.disk.can_trim()
    }

    /// Requests that are not answered yet. Fetches of what is read ahead are no requests.
    pub fn requests(&self) -> usize {
        self.reqs.iter().filter(|(_, r)| !r.is_ahead()).count()
    }

    /// Frames that are not settled, control frames included.
    pub fn frames(&self) -> usize {
        self.flight.len()
    }

    /// Ranges locked or waited for, quarantines aside.
    pub fn locked(&self) -> usize {
        self.locks.held()
    }

    /// Partitions in order of declaration.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.disk.partitions.iter()
    }

    /// The partition with this id, if it is still declared.
    pub fn partition(&self, id: PartId) -> Option<&Partition> {
        self.disk.partitions.get(id)
    }

    /// Declares sectors `[start, end)` of the disk, as it is shown, under a name.
    pub fn add_partition(&mut self, name: &str, start: u64, end: u64) -> Result<PartId, PartError> {
        let sectors = self.size() / SECTOR as u64;
        self.disk.partitions.add(name, start, end, sectors)
    }

    /// Makes the partitions that came from the disk's table what the table says now: one that is gone goes, one with
    /// another range is another partition, a new one comes. It is done in full or not at all: a partition that is in
    /// use and would go refuses it, and so does a name that the operator has declared for another range.
    pub fn follow_table(
        &mut self,
        table: &[Scanned],
        in_use: impl Fn(PartId) -> bool,
    ) -> Result<(), Refusal> {
        let sectors = self.size() / SECTOR as u64;
        self.disk.partitions.follow(table, sectors, in_use)
    }

    /// Another partition that has sectors of this one.
    pub fn overlapping(&self, name: &str) -> Option<&Partition> {
        self.disk.partitions.overlapping(name)
    }

    /// Drops a partition; its handles become stale.
    pub fn delete_partition(&mut self, name: &str) -> Result<Partition, PartError> {
        self.disk.partitions.delete(name)
    }

    /// A handle on the disk or a partition as it is now.
    pub fn handle(&self, part: Option<PartId>) -> Handle {
        Handle { generation: self.disk.generation(), part }
    }

    /// The bytes that a handle leads to. An error if it is older than the disk or the partition.
    pub fn extent(&self, handle: Handle) -> Result<Extent, Error> {
        self.disk.extent(handle)
    }

    /// A data or partition file is opened. It is refused while the target is down.
    pub fn open(&mut self) -> Result<(), Error> {
        if self.state != State::Up {
            return Err(Error::Down);
        }
        self.nopen += 1;
        Ok(())
    }

    /// It is closed.
    pub fn close(&mut self) {
        debug_assert!(self.nopen > 0);
        self.nopen = self.nopen.saturating_sub(1);
    }

    /// Open data and partition files.
    pub fn opened(&self) -> u32 {
        self.nopen
    }

    /// Never fail I/O for lost contact?
    pub fn set_nofail(&mut self, on: bool) {
        self.settings.nofail = on;
        // Requests that were submitted under the other rule have their deadlines looked at again.
        self.timer = crate::engine::time::Time::default();
    }

    /// See `set_nofail`.
    pub fn nofail(&self) -> bool {
        self.settings.nofail
    }

    /// How long one request may take. See `set_deadline`.
    pub fn deadline(&self) -> Duration {
        self.settings.deadline
    }

    /// Are files that are opened from now on not to be cached? The engine does not look at it: it is kept here for
    /// the file system, as long as the target is known.
    pub fn set_uncached(&mut self, on: bool) {
        self.settings.uncached = Some(on);
    }

    /// See `set_uncached`; none if it was never said.
    pub fn uncached(&self) -> Option<bool> {
        self.settings.uncached
    }

    /// Allow frames above 1 KiB of data?
    pub fn set_jumbo(&mut self, on: bool) {
        self.settings.jumbo = on;
    }

    /// See `set_jumbo`.
    pub fn jumbo(&self) -> bool {
        self.settings.jumbo
    }

    /// How long one request may take; none is the default. Holds for requests under way, too.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.settings.deadline = deadline.unwrap_or(DEADLINE);
        self.timer = crate::engine::time::Time::default();
    }

    /// Caps the frame by an MTU in Linux's sense; none is automatic.
    pub fn set_mtu(&mut self, mtu: Option<usize>) {
        self.settings.mtu = mtu;
    }

    /// Caps the sectors a frame; none is automatic.
    pub fn set_maxbno(&mut self, sectors: Option<u8>) {
        self.settings.maxbno = sectors;
    }

    /// Caps the frames outstanding; none is automatic.
    pub fn set_maxout(&mut self, frames: Option<u32>) {
        self.settings.maxout = frames;
    }

    /// How many ranges may be in quarantine, unless all that is in flight fails at once: 4096 unless said otherwise.
    /// Where there are so many, a write that was lost is not sent again before one of them ends.
    pub fn set_quarantines(&mut self, ranges: usize) {
        self.locks.set_quarantines_max(ranges.max(1));
    }

    /// Shows a smaller size, in bytes; none is the real one.
    pub fn set_size(&mut self, bytes: Option<u64>) -> Result<(), Error> {
        self.disk.show(bytes)
    }

    /// Everything that status pages show.
    pub fn status(&self) -> Status {
        let paths = || self.paths.iter().map(|(_, p)| p);
        let sectors = paths().filter(|p| p.usable()).map(|p| p.sectors(&self.settings)).min();
        let sectors = sectors.or_else(|| paths().map(|p| p.sectors(&self.settings)).min()).unwrap_or(0);
        let mtu = paths().map(|p| p.mtu).min().unwrap_or(0);
        let window: u32 = paths().filter(|p| p.usable()).map(|p| p.window.size()).sum();
        let info = self.disk.info();
        Status {
            up: self.is_up(),
            nopen: self.nopen,
            nout: self.paths.inflight(),
            nmaxout: window.min(self.limit()),
            nframes: self.disk.buffers().clamp(1, FRAMES_MAX),
            maxbcnt: usize::from(sectors) * SECTOR,
            maxmtu: self.settings.mtu(mtu),
            fw: self.disk.firmware(),
            model: info.model,
            serial: info.serial,
            firmware: info.firmware,
            lba48: info.lba48,
            smart: info.smart,
            trim: self.can_trim(),
            flush: self.disk.flushing.kind(),
            jumbo: self.settings.jumbo,
            nofail: self.settings.nofail,
            uncached: self.settings.uncached,
            deadline: self.settings.deadline,
            sectors: info.sectors,
            size: self.size(),
            mtu_cap: self.settings.mtu,
            maxbno: self.settings.maxbno,
            maxout: self.settings.maxout,
            requests: self.requests(),
            quarantined: self.locks.quarantined(),
            confirming: !self.doubt.confirmed(),
            generation: self.disk.generation(),
            stats: self.stats,
        }
    }

    /// The paths, in a stable order.
    pub fn paths(&self) -> Vec<PathStatus> {
        self.paths
            .iter()
            .map(|(_, p)| PathStatus {
                net: p.net,
                mac: p.mac,
                trust: p.trust,
                up: p.up,
                rtt: p.rtt.smoothed(),
                deviation: p.rtt.deviation(),
                timeout: p.rtt.timeout(),
                window: p.window.size(),
                inflight: p.window.inflight(),
                sectors: p.sectors(&self.settings),
                advertised: p.advertised,
                probed: p.probed,
                mtu: p.mtu,
                stats: p.stats,
            })
            .collect()
    }
}
