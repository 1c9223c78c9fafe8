//! Limits that more than one file of this room keeps to. What only one file needs stands there.

/// Bytes that one request of the kernel moves at most: what its default page limit allows, and one request of a loop
/// device. What is done in pieces is done in pieces of this size, since each takes one request's worth of lock and
/// memory.
pub const REQUEST_MAX: usize = 1 << 20;
