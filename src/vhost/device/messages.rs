//! The front end's messages.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;

use vhost::VhostUserMemoryRegionBase;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
    VhostUserLog, VhostUserMemoryRegion, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{
    Error, GpuBackend, Result, VhostUserBackendReqHandlerMut, VhostUserProtocolFeatures,
    VhostUserVirtioFeatures,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::{Device, unfit};
use crate::vhost::inflight::{self, Area, Record};
use crate::vhost::memory::REGIONS_MAX;
use crate::vhost::ring::Ring;
use crate::vhost::{QUEUES_MAX, config};

fn not_offered<T>() -> Result<T> {
    Err(Error::InvalidOperation("it was not offered"))
}

/// What is rung. A file that keeps what is written to it is none: it could be one of this mount, which then waits for
/// itself to end.
fn bell(file: Option<File>) -> Result<Option<File>> {
    let about = file.as_ref().map(File::metadata).transpose().map_err(Error::ReqHandlerError)?;
    match about.map(|about| about.file_type()) {
        Some(kind) if kind.is_file() || kind.is_dir() || kind.is_block_device() => {
            Err(Error::InvalidOperation("what is to be rung is a file"))
        }
        _ => Ok(file),
    }
}

impl VhostUserBackendReqHandlerMut for Device {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset()
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(config::features(&self.facts) | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !self.get_features()? != 0 {
            return Err(Error::FeatureMismatch);
        }
        self.features = features;
        let at_once = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        self.each_ring(|ring| {
            ring.set_event_idx(features & 1 << VIRTIO_RING_F_EVENT_IDX != 0);
            ring.enabled |= at_once;
        })
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _: Option<bool>,
    ) -> Result<Option<Vec<VhostUserMemoryRegionBase>>> {
        self.moved();
        self.memory.replace(regions, files).map_err(Error::ReqHandlerError)?;
        Ok(None)
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        self.ring(index)?.1.set_entries(num).map_err(unfit)
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _: VhostUserVringAddrFlags,
        descriptor: u64,
        used: u64,
        available: u64,
        _: u64,
    ) -> Result<()> {
        let guest = |user| self.memory.guest_address(user).ok_or(Error::InvalidParam);
        let (descriptor, available, used) = (guest(descriptor)?, guest(available)?, guest(used)?);
        let memory = self.memory.guest().clone();
        self.ring(index)?.1.set_tables(&*memory, descriptor, available, used).map_err(unfit)
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        self.ring(index)?.1.set_next(u16::try_from(base).map_err(|_| Error::InvalidParam)?);
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let number = self.ring(index)?.0;
        self.unwatch(number)?;
        // What is under way is answered before the front end is told that nothing is.
        self.drain(number)?;
        let ring = &mut self.rings[number];
        ring.end();
        (ring.kick, ring.call) = (None, None);
        Ok(VhostUserVringState::new(index, u32::from(ring.next())))
    }

    fn set_vring_kick(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let number = self.ring(index)?.0;
        self.unwatch(number)?;
        let (ring, area) = (&mut self.rings[number], self.area.as_ref());
        // Without one the queue would have to be looked at all the time.
        ring.kick = Some(file.ok_or(Error::InvalidOperation("a queue without a kick"))?);
        ring.start(|entries| Record::of(area?, number, entries));
        self.watch(number)
    }

    fn set_vring_call(&mut self, index: u8, file: Option<File>) -> Result<()> {
        let ring = self.ring(index)?.1;
        ring.call = bell(file)?;
        // A call that went to the descriptor before this one may not have come where it should.
        ring.greet();
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, file: Option<File>) -> Result<()> {
        self.ring(index)?.1.err = bell(file)?;
        Ok(())
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        Ok(VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, _: u64) -> Result<()> {
        Ok(())
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        Ok(QUEUES_MAX as u64)
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let (number, ring) = self.ring(index)?;
        ring.enabled = enable;
        self.watch(number)
    }

    fn get_config(&mut self, offset: u32, size: u32, _: VhostUserConfigFlags) -> Result<Vec<u8>> {
        self.facts = self.disk.facts();
        Ok(config::space(&self.facts, offset, size))
    }

    fn set_config(&mut self, _: u32, _: &[u8], _: VhostUserConfigFlags) -> Result<()> {
        // The only field that a guest may write is the cache mode, which is not offered.
        not_offered()
    }

    fn set_gpu_socket(&mut self, _: GpuBackend) -> Result<()> {
        not_offered()
    }

    fn get_shared_object(&mut self, _: VhostUserSharedMsg) -> Result<File> {
        not_offered()
    }

    fn get_inflight_fd(&mut self, wish: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        // Whoever starts anew where the disk has gone is let go of, and finds the one that is there now.
        let origin = self.disk.origin().ok_or(Error::InvalidOperation("another disk is here by now"))?;
        inflight::make(wish.num_queues, wish.queue_size, &origin).map_err(Error::ReqHandlerError)
    }

    /// Queues use it from their next start on. While one of them has another area, that one is watched.
    fn set_inflight_fd(&mut self, about: &VhostUserInflight, file: File) -> Result<()> {
        if self.rings.iter().any(Ring::has_record) {
            return Err(Error::InvalidOperation("queues that run have another area"));
        }
        let area = Area::map(about, file).map_err(Error::ReqHandlerError)?;
        let (before, now) = (area.origin(), self.disk.origin());
        let others = before.zip(now.as_ref()).filter(|(before, now)| !before.is_still(now));
        if let Some((before, now)) = others {
            let words = "its requests fail until its machine starts anew";
            self.source.say(&format!("the front end had another disk: {before}; now it is {now}; {words}"));
        }
        self.had_another = others.is_some();
        self.area = Some(area);
        Ok(())
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        Ok(REGIONS_MAX as u64)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _: Option<bool>,
    ) -> Result<Option<VhostUserMemoryRegionBase>> {
        self.moved();
        self.memory.add(region, file).map_err(Error::ReqHandlerError)?;
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        self.moved();
        self.memory.remove(region).map_err(Error::ReqHandlerError)
    }

    fn set_device_state_fd(
        &mut self,
        _: VhostTransferStateDirection,
        _: VhostTransferStatePhase,
        _: File,
    ) -> Result<Option<File>> {
        not_offered()
    }

    fn check_device_state(&mut self) -> Result<()> {
        not_offered()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        not_offered()
    }

    fn set_log_base(&mut self, _: &VhostUserLog, _: File) -> Result<()> {
        not_offered()
    }
}
