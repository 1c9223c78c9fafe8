//! What the operator has set for one target. It stays as long as the target is known, whatever disk answers there.

use std::time::Duration;

use super::limits::{DEADLINE, FRAMES_MAX, PLAIN};
use crate::wire::{most_sectors, sectors_per_frame, whole_blocks};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// I/O never fails because the target does not answer.
    pub nofail: bool,
    /// Files that are opened from now on are not cached; none if it was never said.
    pub uncached: Option<bool>,
    /// Frames may carry more than [`PLAIN`] sectors.
    pub jumbo: bool,
    /// How long one request may take.
    pub deadline: Duration,
    /// Caps the frame by an MTU in Linux's sense.
    pub mtu: Option<usize>,
    /// Caps the sectors in a frame.
    pub maxbno: Option<u8>,
    /// Caps the frames outstanding.
    pub maxout: Option<u32>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            nofail: false,
            uncached: None,
            jumbo: true,
            deadline: DEADLINE,
            mtu: None,
            maxbno: None,
            maxout: None,
        }
    }
}

impl Settings {
    /// The MTU that counts on a netlink of MTU `mtu`, in Linux's sense.
    pub fn mtu(&self, mtu: usize) -> usize {
        self.mtu.map_or(mtu, |cap| cap.min(mtu))
    }

    /// Sectors in the largest frame over a netlink of MTU `mtu` to a target that advertises `advertised` sectors.
    pub fn sectors(&self, mtu: usize, advertised: u8) -> u8 {
        let mut n = sectors_per_frame(self.mtu(mtu)).min(whole_blocks(most_sectors(advertised)));
        if let Some(cap) = self.maxbno {
            n = n.min(cap);
        }
        if !self.jumbo {
            n = n.min(PLAIN);
        }
        n.max(1)
    }

    /// Frames that may be outstanding at a target with so many buffers, over all paths.
    pub fn frames(&self, buffers: u32) -> u32 {
        let buffers = buffers.clamp(1, FRAMES_MAX);
        self.maxout.map_or(buffers, |n| n.clamp(1, buffers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cap_makes_frames_smaller_and_none_makes_them_larger() {
        let auto = Settings::default();
        assert_eq!(auto.sectors(9000, 16), 16);
        assert_eq!(auto.sectors(9000, 0), PLAIN, "an old target");
        assert_eq!(auto.sectors(1500, 16), PLAIN);
        for (capped, sectors) in [
            (Settings { mtu: Some(1500), ..auto }, PLAIN),
            (Settings { mtu: Some(20_000), ..auto }, 16),
            (Settings { maxbno: Some(8), ..auto }, 8),
            (Settings { maxbno: Some(0), ..auto }, 1),
            (Settings { maxbno: Some(200), ..auto }, 16),
            (Settings { jumbo: false, ..auto }, PLAIN),
            (Settings { jumbo: false, maxbno: Some(1), ..auto }, 1),
        ] {
            assert_eq!(capped.sectors(9000, 16), sectors, "{capped:?}");
        }
    }

    #[test]
    fn frames_outstanding_stay_within_the_buffers_and_are_at_least_one() {
        let auto = Settings::default();
        assert_eq!([0, 1, 16, 1000].map(|buffers| auto.frames(buffers)), [1, 1, 16, FRAMES_MAX]);
        let capped = |maxout| Settings { maxout: Some(maxout), ..auto };
        assert_eq!([0, 4, 1000].map(|maxout| capped(maxout).frames(16)), [1, 4, 16]);
    }
}
