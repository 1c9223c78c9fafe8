//! What drives the engine: threads, locks, sockets, the clock.

pub mod clock;
pub mod events;
pub mod interface;
pub mod link;
pub mod loopback;
pub mod packet;
pub mod privilege;
pub mod serve;
pub mod watch;
