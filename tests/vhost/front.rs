//! A front end: the driver of the crate virtio-driver, with memory that it shares, and calls that wait for their
//! answers.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::AsRawFd;
use virtio_driver::{
    VhostUser, VirtioBlkConfig, VirtioBlkFeatureFlags, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags,
};
use vm_memory::{FileOffset, MmapRegion};

/// Requests must not hang: everything here ends within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of memory that are shared for data.
const MEMORY: usize = 4 << 20;

/// Entries of a queue.
const ENTRIES: u16 = 128;

pub struct Front {
    // In this order they are dropped: queues lie in the transport's memory.
    queues: Vec<VirtioBlkQueue<'static, usize>>,
    transport: Box<VirtioBlkTransport>,
    memory: MmapRegion,
    file: File,
}

impl Front {
    #[track_caller]
    pub fn connect(path: &Path, queues: usize) -> Self {
        Self::connect_without(path, queues, VirtioBlkFeatureFlags::empty())
    }

    /// One that does not know of these features.
    #[track_caller]
    pub fn connect_without(path: &Path, queues: usize, unknown: VirtioBlkFeatureFlags) -> Self {
        let features = VirtioFeatureFlags::VERSION_1
            | VirtioFeatureFlags::RING_EVENT_IDX
            | VirtioFeatureFlags::RING_INDIRECT_DESC;
        let blk = VirtioBlkFeatureFlags::all() - unknown;
        let transport = VhostUser::new(path.to_str().unwrap(), features.bits() | blk.bits()).unwrap();
        let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
        let queues = VirtioBlkQueue::setup_queues(&mut *transport, queues, ENTRIES).unwrap();
        let file = File::from(memfd_create("data", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len(MEMORY as u64).unwrap();
        let fd = file.as_raw_fd();
        let memory = MmapRegion::from_file(FileOffset::new(file.try_clone().unwrap(), 0), MEMORY).unwrap();
        transport.map_mem_region(memory.as_ptr().addr(), MEMORY, fd, 0).unwrap();
        Self { queues, transport, memory, file }
    }

    /// The configuration space.
    pub fn space(&self) -> VirtioBlkConfig {
        self.transport.get_config().unwrap()
    }

    pub fn capacity(&self) -> u64 {
        let capacity = self.space().capacity;
        capacity.into()
    }

    /// Whether it has that feature together with the device.
    pub fn has(&self, feature: VirtioBlkFeatureFlags) -> bool {
        self.transport.get_features() & feature.bits() != 0
    }

    pub fn read_only(&self) -> bool {
        self.has(VirtioBlkFeatureFlags::RO)
    }

    /// The memory that the back end reads and writes.
    pub fn data(&mut self) -> &mut [u8] {
        // SAFETY: the mapping lives as long as this, and no request is under way whose bytes are looked at.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), MEMORY) }
    }

    /// Makes the file of the shared memory empty. Nothing here may touch the memory after that.
    pub fn take_memory_back(&self) {
        self.file.set_len(0).unwrap();
    }

    pub fn kick(&self, queue: usize) {
        self.transport.get_submission_notifier(queue).notify().unwrap();
    }

    /// The results of so many requests, in the order of their answers.
    fn results(&mut self, queue: usize, count: usize) -> Vec<(usize, i32)> {
        let start = Instant::now();
        let mut found = Vec::new();
        while found.len() < count {
            assert!(start.elapsed() < PATIENCE, "queue {queue} was never answered");
            found.extend(self.ended(queue));
            std::thread::sleep(Duration::from_micros(50));
        }
        found
    }

    /// 0, or an errno below it.
    fn result(&mut self, queue: usize) -> i32 {
        self.kick(queue);
        self.results(queue, 1)[0].1
    }

    /// What has come back since this was asked last: the number that each request was put in with, and 0 or an errno
    /// below it.
    pub fn ended(&mut self, queue: usize) -> Vec<(usize, i32)> {
        self.queues[queue].completions().map(|done| (done.context, done.ret)).collect()
    }

    /// Puts a read in. Its bytes come to that place of the shared memory.
    pub fn put_read(&mut self, queue: usize, offset: u64, place: usize, len: usize, number: usize) {
        let at = self.data()[place..place + len].as_mut_ptr();
        // SAFETY: the memory is as long as that, and whoever calls this leaves it alone until the answer.
        unsafe { self.queues[queue].read_raw(offset, at, len, number) }.unwrap();
    }

    /// Puts a write of the bytes at that place in.
    pub fn put_write(&mut self, queue: usize, offset: u64, place: usize, len: usize, number: usize) {
        let at = self.data()[place..place + len].as_ptr();
        // SAFETY: the memory is as long as that, and whoever calls this leaves it alone until the answer.
        unsafe { self.queues[queue].write_raw(offset, at, len, number) }.unwrap();
    }

    pub fn put_flush(&mut self, queue: usize, number: usize) {
        self.queues[queue].flush(number).unwrap();
    }

    pub fn begin_read(&mut self, queue: usize, offset: u64, len: usize) {
        self.put_read(queue, offset, 0, len, 0);
        self.kick(queue);
    }

    pub fn begin_write(&mut self, queue: usize, offset: u64, len: usize) {
        self.put_write(queue, offset, 0, len, 0);
        self.kick(queue);
    }

    pub fn write(&mut self, queue: usize, offset: u64, bytes: &[u8]) -> i32 {
        self.data()[..bytes.len()].copy_from_slice(bytes);
        self.begin_write(queue, offset, bytes.len());
        self.results(queue, 1)[0].1
    }

    /// The bytes, or an errno.
    pub fn read(&mut self, queue: usize, offset: u64, len: usize) -> Result<Vec<u8>, i32> {
        self.data()[..len].fill(0xdd);
        self.begin_read(queue, offset, len);
        match self.results(queue, 1)[0].1 {
            0 => Ok(self.data()[..len].to_vec()),
            error => Err(-error),
        }
    }

    pub fn flush(&mut self, queue: usize) -> i32 {
        self.put_flush(queue, 0);
        self.result(queue)
    }

    pub fn discard(&mut self, queue: usize, offset: u64, len: u64) -> i32 {
        self.queues[queue].discard(offset, len, 0).unwrap();
        self.result(queue)
    }

    pub fn begin_zero(&mut self, queue: usize, offset: u64, len: u64) {
        self.queues[queue].write_zeroes(offset, len, false, 0).unwrap();
        self.kick(queue);
    }

    pub fn zero(&mut self, queue: usize, offset: u64, len: u64, unmap: bool) -> i32 {
        self.queues[queue].write_zeroes(offset, len, unmap, 0).unwrap();
        self.result(queue)
    }

    /// Writes what `what` says of each, over all queues, as many at a time as these hold.
    pub fn many(&mut self, list: &[u64], what: impl Fn(u64) -> (u64, Vec<u8>)) {
        /// Requests of three descriptors each.
        const AT_ONCE: usize = 40;
        let queues = self.queues.len();
        for batch in list.chunks(AT_ONCE * queues) {
            for (queue, share) in batch.chunks(AT_ONCE).enumerate() {
                for (n, item) in share.iter().enumerate() {
                    let (offset, bytes) = what(*item);
                    let place = (queue * AT_ONCE + n) * bytes.len();
                    self.data()[place..place + bytes.len()].copy_from_slice(&bytes);
                    self.put_write(queue, offset, place, bytes.len(), n);
                }
                self.kick(queue);
            }
            for (queue, share) in batch.chunks(AT_ONCE).enumerate() {
                let mut found = self.results(queue, share.len());
                found.sort_unstable();
                let want: Vec<(usize, i32)> = (0..share.len()).map(|n| (n, 0)).collect();
                assert_eq!(found, want);
            }
        }
    }
}
