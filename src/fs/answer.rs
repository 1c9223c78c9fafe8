//! What is called with the end of an operation: exactly once, now or later, on any thread, with nothing locked.
//!
//! These are names for closures, so that a verb fits on one line; every closure with the right argument is one.

use super::errno::Errno;

/// Takes a result.
pub trait Answer<T, E = Errno>: FnOnce(Result<T, E>) + Send + 'static {}

impl<T, E, F: FnOnce(Result<T, E>) + Send + 'static> Answer<T, E> for F {}

/// Takes bytes that were read.
pub trait DataAnswer: FnOnce(Result<&[u8], Errno>) + Send + 'static {}

impl<F: FnOnce(Result<&[u8], Errno>) + Send + 'static> DataAnswer for F {}
