//! The disk behind one address: which one it is, what it can do, what of it is shown, and which generation it is. A
//! new disk at the address takes the place of the one that was there; handles of the earlier one are stale from then
//! on.

use super::flushing::Flushing;
use super::ids::Identity;
use super::partition::Partitions;
use super::request::{Error, Handle};
use crate::wire::{IDENTIFY_LEN, Identify, SECTOR};

/// Bytes `[start, end)` of the disk that a handle shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// The lists that a target has told of: it knows them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lists {
    /// The addresses that it answers.
    pub mask: bool,
    /// The addresses that it is reserved for.
    pub reserve: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Disk {
    generation: u32,
    identity: Identity,
    info: Identify,
    ident: Box<[u8; IDENTIFY_LEN]>,
    config: Vec<u8>,
    firmware: u16,
    buffers: u16,
    /// How its cache is flushed.
    pub flushing: Flushing,
    /// It refused TRIM although it promised it.
    trim_refused: bool,
    /// The lists that it has told of.
    pub lists: Lists,
    /// A smaller size that is shown, in bytes.
    shown: Option<u64>,
    /// Its partitions, in sectors of the whole disk.
    pub partitions: Partitions,
}

impl Disk {
    /// The first disk at an address, as IDENTIFY described it: parsed, and its bytes.
    pub fn new(info: Identify, ident: Box<[u8; IDENTIFY_LEN]>) -> Disk {
        Disk {
            generation: 1,
            identity: Identity::from(&info),
            flushing: Flushing::new(info.flush),
            info,
            ident,
            config: Vec::new(),
            firmware: 0,
            buffers: 1,
            trim_refused: false,
            lists: Lists::default(),
            shown: None,
            partitions: Partitions::default(),
        }
    }

    /// Rises with every new disk.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Which disk it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// What IDENTIFY said.
    pub fn info(&self) -> &Identify {
        &self.info
    }

    /// The 512 bytes of IDENTIFY.
    pub fn ident(&self) -> &[u8; IDENTIFY_LEN] {
        &self.ident
    }

    /// The config string as last heard.
    pub fn config(&self) -> &[u8] {
        &self.config
    }

    /// The version of the target's firmware, as its config reply says.
    pub fn firmware(&self) -> u16 {
        self.firmware
    }

    /// The frames that the target can queue, as its config reply says.
    pub fn buffers(&self) -> u32 {
        u32::from(self.buffers)
    }

    /// Takes over what a config reply says: buffers, version of the firmware, string.
    pub fn take_limits(&mut self, buffers: u16, firmware: u16, string: &[u8]) {
        (self.buffers, self.firmware) = (buffers, firmware);
        self.set_string(string);
    }

    /// The config string is this one now.
    pub fn set_string(&mut self, string: &[u8]) {
        self.config.clear();
        self.config.extend_from_slice(string);
    }

    /// Bytes that are shown.
    pub fn size(&self) -> u64 {
        self.shown.map_or(self.real_size(), |shown| shown.min(self.real_size()))
    }

    fn real_size(&self) -> u64 {
        self.identity.sectors * SECTOR as u64
    }

    /// Is a smaller size shown than the disk has, perhaps?
    pub fn is_shortened(&self) -> bool {
        self.shown.is_some()
    }

    /// Shows a smaller size, in bytes; none is the real one.
    pub fn show(&mut self, bytes: Option<u64>) -> Result<(), Error> {
        if bytes.is_some_and(|b| b % SECTOR as u64 != 0 || b > self.real_size()) {
            return Err(Error::Invalid);
        }
        self.shown = bytes;
        Ok(())
    }

    /// Does TRIM work, with zeros afterwards?
    pub fn can_trim(&self) -> bool {
        self.info.trim && self.info.trim_zeroes && !self.trim_refused
    }

    /// It refused TRIM.
    pub fn refused_trim(&mut self) {
        self.trim_refused = true;
    }

    /// A handle on all of the disk, or on a partition, as it is now.
    pub fn extent(&self, handle: Handle) -> Result<Extent, Error> {
        if handle.generation != self.generation {
            return Err(Error::Stale);
        }
        let sectors = SECTOR as u64;
        match handle.part {
            None => Ok(Extent { start: 0, end: self.size() }),
            Some(id) => {
                let p = self.partitions.get(id).ok_or(Error::Stale)?;
                Ok(Extent { start: p.start * sectors, end: p.end * sectors })
            }
        }
    }

    /// Is it the same serial number and model, and more sectors?
    pub fn may_have_grown_to(&self, who: &Identity) -> bool {
        self.identity.may_have_grown_to(who)
    }

    /// The same disk has answered IDENTIFY again; it may have grown. `again`: what was found out about its flush is
    /// found out again.
    pub fn recognise(&mut self, info: Identify, ident: &[u8], again: bool) {
        self.flushing.promise(info.flush, again);
        self.take_identify(info, ident);
    }

    /// Another disk has answered IDENTIFY.
    pub fn replace(&mut self, info: Identify, ident: &[u8]) {
        self.generation += 1;
        self.partitions.clear();
        self.shown = None;
        self.trim_refused = false;
        self.lists = Lists::default();
        self.flushing = Flushing::new(info.flush);
        self.take_identify(info, ident);
    }

    fn take_identify(&mut self, info: Identify, ident: &[u8]) {
        self.identity = Identity::from(&info);
        self.info = info;
        self.ident.copy_from_slice(ident);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FlushKind, Text};

    fn info(serial: &str, sectors: u64) -> Identify {
        let (serial, model) = (Text::new(serial), Text::new("disk"));
        Identify { serial, model, sectors, trim: true, trim_zeroes: true, ..Identify::default() }
    }

    fn disk() -> Disk {
        Disk::new(info("a", 100), Box::new([1; IDENTIFY_LEN]))
    }

    #[test]
    fn a_handle_reaches_its_own_disk_and_partition_only() {
        let mut disk = disk();
        let part = disk.partitions.add("p", 10, 20, 100).unwrap();
        let whole = Handle { generation: 1, part: None };
        let on_part = Handle { generation: 1, part: Some(part) };
        assert_eq!(disk.extent(whole), Ok(Extent { start: 0, end: 51_200 }));
        assert_eq!(disk.extent(on_part), Ok(Extent { start: 5120, end: 10_240 }));
        disk.partitions.delete("p").unwrap();
        assert_eq!(disk.extent(on_part), Err(Error::Stale));
        disk.replace(info("b", 50), &[2; IDENTIFY_LEN]);
        assert_eq!(disk.extent(whole), Err(Error::Stale));
        assert_eq!(disk.extent(Handle { generation: 3, part: None }), Err(Error::Stale));
        let now = Handle { generation: 2, part: None };
        assert_eq!(disk.extent(now), Ok(Extent { start: 0, end: 25_600 }));
    }

    #[test]
    fn a_size_that_is_shown_is_whole_sectors_of_those_that_there_are() {
        let mut disk = disk();
        assert_eq!(disk.show(Some(51_712)), Err(Error::Invalid));
        assert_eq!(disk.show(Some(1000)), Err(Error::Invalid));
        assert!(!disk.is_shortened());
        disk.show(Some(1024)).unwrap();
        assert_eq!((disk.size(), disk.is_shortened()), (1024, true));
        disk.recognise(info("a", 200), &[1; IDENTIFY_LEN], true);
        assert_eq!(disk.size(), 1024, "it is the same disk");
        disk.show(None).unwrap();
        assert_eq!(disk.size(), 102_400);
        disk.show(Some(102_400)).unwrap();
        disk.recognise(info("a", 3), &[1; IDENTIFY_LEN], true);
        assert_eq!(disk.size(), 1536, "never more than there are");
    }

    #[test]
    fn what_was_said_of_one_disk_is_not_said_of_the_next() {
        let mut disk = disk();
        disk.refused_trim();
        disk.show(Some(512)).unwrap();
        disk.partitions.add("p", 10, 20, 100).unwrap();
        disk.recognise(info("a", 100), &[3; IDENTIFY_LEN], true);
        assert!(!disk.can_trim(), "the same disk has refused it");
        assert_eq!((disk.generation(), disk.partitions.iter().count()), (1, 1));
        let another = Identify { flush: FlushKind::Flush, ..info("b", 100) };
        disk.replace(another, &[2; IDENTIFY_LEN]);
        assert!(disk.can_trim() && !disk.is_shortened());
        assert_eq!((disk.generation(), disk.partitions.iter().count()), (2, 0));
        assert_eq!((disk.flushing.kind(), disk.ident()), (FlushKind::Flush, &[2; IDENTIFY_LEN]));
        assert_eq!((disk.info(), disk.identity()), (&another, Identity::from(&another)));
    }

    #[test]
    fn a_larger_disk_has_the_same_serial_number_and_model() {
        let disk = disk();
        let is_larger = |serial, sectors| disk.may_have_grown_to(&Identity::from(&info(serial, sectors)));
        assert!(is_larger("a", 101));
        assert!(!is_larger("a", 100) && !is_larger("a", 99) && !is_larger("b", 101));
    }

    #[test]
    fn limits_and_string_are_those_of_the_last_config_reply() {
        let mut disk = disk();
        disk.take_limits(16, 7, b"shelf");
        assert_eq!((disk.buffers(), disk.firmware(), disk.config()), (16, 7, &b"shelf"[..]));
        disk.take_limits(3, 8, b"x");
        assert_eq!((disk.buffers(), disk.firmware(), disk.config()), (3, 8, &b"x"[..]));
        disk.set_string(b"");
        assert!(disk.config().is_empty());
    }
}
