//! The names that one part of the engine has for what another part keeps, and the identity of a disk. Nothing here
//! knows of the rest of the engine: a file that only passes a name on need not know what it stands for.

use std::fmt;

use crate::wire::{Identify, Text};

/// Which netlink; not used again before 65,535 others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NetId(pub u16);

/// A path's place in its device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PathId(pub(super) u8);

/// A frame's place in its flight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FrameId(pub(super) u32);

/// A request's place in its device.
pub type ReqId = usize;

/// A reader that may be read ahead of: one open file. The number never belongs to another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stream(pub u64);

/// The identity of a disk: its serial number, its model and its size. Firmware may change under a disk that stays
/// the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Serial number.
    pub serial: Text<20>,
    /// Model.
    pub model: Text<40>,
    /// Sectors.
    pub sectors: u64,
}

impl Identity {
    /// Is it the same serial number and model, and more sectors?
    pub fn may_have_grown_to(&self, who: &Identity) -> bool {
        (who.serial, who.model) == (self.serial, self.model) && who.sectors > self.sectors
    }
}

impl From<&Identify> for Identity {
    fn from(identify: &Identify) -> Identity {
        Identity { serial: identify.serial, model: identify.model, sectors: identify.sectors }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {} / {} sectors", self.model, self.serial, self.sectors)
    }
}
