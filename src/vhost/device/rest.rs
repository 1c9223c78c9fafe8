//! What the thread does when it has nothing to do: it takes answers, and sleeps.

use std::os::fd::AsFd;

use nix::sys::epoll::EpollTimeout;

use super::Device;
use crate::vhost::Rest;

/// Turns after which descriptors are looked at, however much there is to do.
const TURNS: u32 = 64;

impl Device {
    /// Rests until there is something to do. How long the thread is then to wait for its descriptors: None if it is not
    /// even to look at them.
    pub fn rest(&mut self) -> Option<EpollTimeout> {
        let share = self.disk.share();
        let Self { disk, epoll, chains, rings, inbox, memory, under_way, .. } = self;
        let memory = memory.guest();
        let mut broken = None;
        let mut look = |sleeps: bool| {
            // While too much is under way nothing more is taken, and the guest need not ring.
            let room =
                if sleeps { under_way.has_room_now_or_rings(share) } else { under_way.has_room(share) };
            let live = rings.iter_mut().enumerate().filter(|(_, ring)| room && ring.is_live());
            let mut found = false;
            for (number, ring) in live {
                match if sleeps { ring.listen(&**memory) } else { ring.has_new(&**memory) } {
                    Ok(new) => found |= new,
                    Err(error) => {
                        broken = Some((number, error));
                        found = true;
                    }
                }
            }
            found || if sleeps { !inbox.may_sleep() } else { inbox.has_any() }
        };
        let rested = disk.rest(epoll.0.as_fd(), !chains.is_empty(), &mut look);
        let work = rested == Rest::Work || rested == Rest::Nothing && look(true);
        if let Some((number, error)) = broken {
            self.stop(number, error);
        }
        self.turns += 1;
        match work {
            true if self.turns < TURNS => None,
            true => Some(EpollTimeout::ZERO),
            false => Some(if rested == Rest::Readable { EpollTimeout::ZERO } else { EpollTimeout::NONE }),
        }
    }

    /// The descriptors were looked at.
    pub fn looked(&mut self) {
        self.turns = 0;
    }
}
