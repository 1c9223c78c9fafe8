//! The initiator as pure state machines: `now` is an argument, effects come back in a sink that the caller owns.
//!
//! No clock, no socket, no thread, no lock. [`Device`] is one target: its paths, the frames in flight, the requests
//! that wait, which of them may write where, and whether the disk is still the disk. [`Discovery`] turns addresses
//! that answered a broadcast into devices.

mod ahead;
pub mod buffer;
mod device;
mod discovery;
mod disk;
mod doubt;
mod event;
mod flight;
mod flushing;
mod ids;
mod ladder;
mod lanes;
mod limits;
mod locks;
mod partition;
mod path;
mod paths;
mod request;
mod rtt;
mod settings;
mod stats;
mod status;
mod time;
mod transmit;
mod window;

pub use ahead::{AGE, WINDOW};
pub use buffer::{AHEAD_MAX, Buf, Data, Pool, WriteBuf};
pub use device::{Birth, Device, Sink, Verdict};
pub use discovery::{Discovery, Found};
pub use event::{Cause, Event, Reason};
pub use flight::TagSpace;
pub use ids::{Identity, NetId, Stream};
pub use limits::{DEADLINE, FRAMES_MAX, PLAIN, REQUESTS_MAX};
pub use partition::{PARTITIONS_MAX, PartError, PartId, Partition, Scanned};
pub use path::{PathStats, Trust};
pub use request::{Error, Handle, Io, Outcome, Output, Request, Reservation};
pub use stats::{BUCKETS, Histogram, Op, OpStats, Stats};
pub use status::{PathStatus, Status};
pub use time::Time;
pub use transmit::{HEAD_MAX, Payload, Transmit};
