//! A target for tests of this room.

use crate::engine::{Birth, NetId, TagSpace};
use crate::wire::{Addr, IDENTIFY_LEN, Identify, Mac};

/// What the discovery finds out about a target at 1.0 behind a MAC that ends with 0.
pub(super) fn birth(net: NetId, mtu: usize) -> Birth {
    let identify = Identify { sectors: 8, lba48: true, ..Identify::default() };
    let mut ident = Box::new([0; IDENTIFY_LEN]);
    identify.emit(&mut ident);
    Birth {
        addr: Addr::new(1, 0),
        net,
        mtu,
        mac: mac(0),
        buffers: 16,
        fw: 0,
        advertised: 2,
        config: Vec::new(),
        ident,
        identify,
        seed: 1,
        space: TagSpace::new(0),
    }
}

/// A MAC that ends with that byte.
pub(super) fn mac(last: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, last])
}
