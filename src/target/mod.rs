//! An AoE target: the other end of the wire.
//!
//! [`Processor`] turns one request frame into at most one reply frame. It has no clock, no socket, no thread and no
//! lock, and it allocates nothing per frame, so the demo, the simulator, the tests and `aoefs-target` all run the very
//! same code. Behind it is an [`Image`]: [`MemoryImage`], [`FileImage`], or a [`LoggingImage`] around either, which
//! reports every write and flush in the order in which they took effect (crash tests cut that log and replay it).
//!
//! The room `export` carries frames between a processor and a network.

mod access;
mod ata;
mod batch;
mod file;
mod identity;
mod image;
mod log;
mod memory;
mod processor;
mod smart;

pub use batch::{RUN_MAX, Slot};
pub use file::{FileImage, Open, OpenError};
pub use identity::Identity;
pub use image::{Cause, Fault, Image};
pub use log::{LoggingImage, Mark, Record, read_record, write_record};
pub use memory::MemoryImage;
pub use processor::{Answer, Counters, Processor, Silence, TargetConfig};
