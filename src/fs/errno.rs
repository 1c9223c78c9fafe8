//! What an error is called outside: the one place that turns a reason into an errno (design.md §4).

/// A number of errno.h, as FUSE carries it.
pub use fuser::Errno;
