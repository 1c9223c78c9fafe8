//! Nodes: the files and directories that there are, with their names, modes and inode numbers.

use std::borrow::Cow;
use std::sync::Arc;

use super::Disk;
use crate::runtime::UnitId;

/// The name of the whole disk.
pub const DATA: &str = "data";
/// The name of the directory of paths.
pub const DEVLINK: &str = "devlink";
/// The name of the symbolic link to a socket for virtual machines.
pub const VHOST: &str = "vhost";

/// Makes an enum of the files of a directory: a row has the file's description, its variant, its name and its mode.
macro_rules! files {
    ($(#[$about:meta])* $Dir:ident: $($(#[$file_about:meta])* $File:ident $name:literal $mode:literal)*) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $Dir {
            $($(#[$file_about])* $File,)*
        }

        impl $Dir {
            /// All of them in the order of a listing.
            pub const ALL: &[Self] = &[$(Self::$File),*];

            /// The file's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$File => $name,)* }
            }

            fn mode(self) -> u32 {
                match self { $(Self::$File => $mode,)* }
            }

            /// The file of that name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|file| file.name() == name)
            }
        }
    };
}

files! {
    /// Files of the top directory.
    TopFile:
    /// Settings, netlinks, targets; commands.
    Ctl "ctl" 0o644
    /// The last events.
    Log "log" 0o444
    /// Every counter.
    Metrics "metrics" 0o444
}

files! {
    /// Files of a target's directory that are no disks.
    UnitFile:
    /// State, limits, partitions; commands.
    Ctl "ctl" 0o644
    /// The target's config string.
    Config "config" 0o644
    /// IDENTIFY DEVICE.
    Ident "ident" 0o444
    /// ATA and SCSI commands, which can do anything to the disk.
    Raw "raw" 0o600
    /// The target's list of the addresses that it answers.
    Mask "mask" 0o644
    /// The target's list of the addresses that it is reserved for.
    Reserve "reserve" 0o644
    /// Counters.
    Stats "stats" 0o444
}

/// Whether every target's directory has a file of that name, or may get it: no partition may take it.
pub fn is_reserved(name: &str) -> bool {
    [DATA, DEVLINK, VHOST].contains(&name) || UnitFile::named(name).is_some()
}

/// A file or a directory: what an inode number stands for.
#[derive(Clone, Debug)]
pub enum Node {
    /// The mount point.
    Root,
    /// A file of the top directory.
    Top(TopFile),
    /// A target's directory.
    Unit(UnitId),
    /// A file of a target's directory.
    File(UnitId, UnitFile),
    /// A target's `devlink`.
    Devlinks(UnitId),
    /// A file of `devlink`.
    Devlink(UnitId, u8),
    /// A target's `vhost`, while there is a socket for its `data`.
    Vhost(UnitId),
    /// `data` or a partition.
    Disk(Arc<Disk>),
}

/// The root's number is FUSE's.
const ROOT: u64 = 1;
/// The top directory's files follow it.
const TOP: u64 = 2;
/// Each unit has so many numbers, from this multiple of its id on: its directory, its files, its devlinks.
const PER_UNIT: u64 = 256;
const FILES: u64 = 2;
const DEVLINKS: u64 = 1;
const VHOST_LINK: u64 = 127;
const DEVLINK_0: u64 = 128;

impl Node {
    /// Its inode number.
    pub fn ino(&self) -> u64 {
        let base = |unit: &UnitId| (u64::from(unit.0) + 1) * PER_UNIT;
        match self {
            Self::Root => ROOT,
            Self::Top(file) => TOP + *file as u64,
            Self::Unit(unit) => base(unit),
            Self::Devlinks(unit) => base(unit) + DEVLINKS,
            Self::Vhost(unit) => base(unit) + VHOST_LINK,
            Self::File(unit, file) => base(unit) + FILES + *file as u64,
            Self::Devlink(unit, n) => base(unit) + DEVLINK_0 + u64::from(*n),
            Self::Disk(disk) => disk.ino,
        }
    }

    /// The node of a computed number.
    pub(super) fn fixed(ino: u64) -> Option<Self> {
        if ino == ROOT {
            return Some(Self::Root);
        }
        if ino < PER_UNIT {
            return TopFile::ALL.iter().copied().map(Self::Top).find(|node| node.ino() == ino);
        }
        let unit = UnitId(u32::try_from(ino / PER_UNIT - 1).ok()?);
        match ino % PER_UNIT {
            0 => Some(Self::Unit(unit)),
            DEVLINKS => Some(Self::Devlinks(unit)),
            VHOST_LINK => Some(Self::Vhost(unit)),
            n if n >= DEVLINK_0 => Some(Self::Devlink(unit, (n - DEVLINK_0) as u8)),
            _ => UnitFile::ALL.iter().map(|file| Self::File(unit, *file)).find(|node| node.ino() == ino),
        }
    }

    /// The target that it belongs to.
    pub fn unit(&self) -> Option<UnitId> {
        match self {
            Self::Root | Self::Top(_) => None,
            Self::Unit(unit)
            | Self::File(unit, _)
            | Self::Devlinks(unit)
            | Self::Devlink(unit, _)
            | Self::Vhost(unit) => Some(*unit),
            Self::Disk(disk) => Some(disk.unit),
        }
    }

    /// The mode of a file before any chmod; none for directories and links.
    pub fn default_mode(&self) -> Option<u32> {
        match self {
            Self::Root | Self::Unit(_) | Self::Devlinks(_) | Self::Vhost(_) => None,
            Self::Top(file) => Some(file.mode()),
            Self::File(_, file) => Some(file.mode()),
            Self::Devlink(..) => Some(0o444),
            Self::Disk(_) => Some(0o640),
        }
    }

    /// The name under which a changed mode or owner is kept: that of a file within its target.
    pub(super) fn name(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Root | Self::Unit(_) | Self::Devlinks(_) | Self::Vhost(_) => None,
            Self::Top(file) => Some(file.name().into()),
            Self::File(_, file) => Some(file.name().into()),
            Self::Devlink(_, n) => Some(format!("{DEVLINK}/{n}").into()),
            Self::Disk(disk) => Some(disk.name.as_str().into()),
        }
    }
}
