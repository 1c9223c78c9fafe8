//! The one place that turns a reason into an errno (docs/design.md#errors).

use crate::engine::{Error, PartError};
use crate::runtime::RuntimeError;

/// A number of errno.h, as FUSE carries it.
pub use fuser::Errno;

/// What the C library calls a number.
pub fn words(errno: Errno) -> String {
    nix::errno::Errno::from_raw(errno.into()).desc().to_owned()
}

/// For requests that ended with this error.
impl From<Error> for Errno {
    fn from(error: Error) -> Errno {
        match error {
            Error::Io => Errno::EIO,
            Error::Stale => Errno::ESTALE,
            // Only opens end so; I/O on a file that is open already fails as I/O.
            Error::Down => Errno::ENXIO,
            Error::NoSpace => Errno::ENOSPC,
            Error::NotSupported => Errno::EOPNOTSUPP,
            Error::Busy => Errno::EBUSY,
            Error::Exists => Errno::EEXIST,
            Error::Timeout => Errno::ETIMEDOUT,
            Error::Invalid => Errno::EINVAL,
        }
    }
}

/// For `part` and `delpart`.
impl From<PartError> for Errno {
    fn from(error: PartError) -> Errno {
        match error {
            PartError::Range => Errno::EINVAL,
            PartError::Exists => Errno::EEXIST,
            PartError::Missing => Errno::ENOENT,
            PartError::TooMany => Errno::ENOSPC,
            PartError::Busy => Errno::EBUSY,
        }
    }
}

/// For the commands of the top ctl.
impl From<RuntimeError> for Errno {
    fn from(error: RuntimeError) -> Errno {
        match error {
            RuntimeError::NoDevice => Errno::ENODEV,
            RuntimeError::Exists => Errno::EEXIST,
            RuntimeError::NotFound => Errno::ENOENT,
            RuntimeError::Busy => Errno::EBUSY,
            RuntimeError::Permission => Errno::EPERM,
            RuntimeError::Failed => Errno::EIO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of docs/design.md#errors, by number: a wrong number under a right name would not show otherwise.
    #[test]
    fn every_reason_has_its_number() {
        for (error, number) in [
            (Error::Io, libc::EIO),
            (Error::Stale, libc::ESTALE),
            (Error::Down, libc::ENXIO),
            (Error::NoSpace, libc::ENOSPC),
            (Error::NotSupported, libc::EOPNOTSUPP),
            (Error::Busy, libc::EBUSY),
            (Error::Exists, libc::EEXIST),
            (Error::Timeout, libc::ETIMEDOUT),
            (Error::Invalid, libc::EINVAL),
        ] {
            assert_eq!(i32::from(Errno::from(error)), number, "{error:?}");
        }
        for (error, number) in [
            (PartError::Range, libc::EINVAL),
            (PartError::Exists, libc::EEXIST),
            (PartError::Missing, libc::ENOENT),
            (PartError::TooMany, libc::ENOSPC),
            (PartError::Busy, libc::EBUSY),
        ] {
            assert_eq!(i32::from(Errno::from(error)), number, "{error:?}");
        }
        for (error, number) in [
            (RuntimeError::NoDevice, libc::ENODEV),
            (RuntimeError::Exists, libc::EEXIST),
            (RuntimeError::NotFound, libc::ENOENT),
            (RuntimeError::Busy, libc::EBUSY),
            (RuntimeError::Permission, libc::EPERM),
            (RuntimeError::Failed, libc::EIO),
        ] {
            assert_eq!(i32::from(Errno::from(error)), number, "{error:?}");
        }
    }
}
