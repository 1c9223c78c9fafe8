//! The FUSE face: translation only.
