//! Limits that more than one file of the engine keeps to. A limit that only one file needs stands there.

use std::time::Duration;

/// What one request may take unless the operator says otherwise: the kernel driver's aoe_deadsecs. A server
/// reboots within it, and a file system on top survives.
pub const DEADLINE: Duration = Duration::from_secs(180);
/// What a command that asks the target (config, mask, reserve) may take.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(2);
/// Without a valid frame from a target for this long its disk may have been exchanged: IDENTIFY goes before any
/// write. A machine needs longer than this to restart, and a busy target is never silent so long.
pub const SILENCE: Duration = Duration::from_secs(1);
/// While a request waits, a target that does not answer is asked this often: it is back within a second of its
/// return.
pub const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How often answers that came in doubt are asked for again. With more, a request to a target that takes seconds
/// for each answer would never end.
pub const REDO_MAX: u8 = 3;
/// Requests of one target that may wait at a time: some of the work looks at each of them, and each takes memory.
/// The users of a mount that works never have so many.
pub const REQUESTS_MAX: usize = 16_384;
/// Frames outstanding at most, over one path and over all, whatever the target advertises: the limit of devaoe and
/// of the kernel's driver (docs/design.md#paths-and-windows).
pub const FRAMES_MAX: u32 = crate::wire::BUFFERS_MAX as u32;
/// Netlinks × MACs that one target is known by.
pub const PATHS_MAX: usize = 36;
/// Sectors a frame that every Ethernet frame carries (1500 bytes), and that need no jumbo frames: 1 KiB.
pub const PLAIN: u8 = 2;
