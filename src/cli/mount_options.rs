//! The words of -o, as one table: the parser, the help and the manual page read the same rows.

use std::time::Duration;

use nix::unistd::{Group, User};

use super::DAY;
use crate::failure::Failure;
use crate::near::hint;
use crate::wire::Addr;

/// The values of the mount options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Other users may use the mount.
    pub allow_other: bool,
    /// Data and partitions are read-only; ctl stays writable.
    pub read_only: bool,
    /// Nothing may be executed from the mount.
    pub noexec: bool,
    /// Owner of the files; the user who mounted, if None.
    pub uid: Option<u32>,
    /// Their group.
    pub gid: Option<u32>,
    /// No page cache for data and partitions.
    pub direct_io: bool,
    /// The default of every target's deadline; the engine's own, if None.
    pub deadline: Option<Duration>,
    /// How long a busy mount is kept after SIGTERM.
    pub stop: Duration,
    /// KiB to read ahead: by the engine, or by the kernel where the mount is read-only. Their own figures, if None.
    pub readahead_kib: Option<u32>,
    /// How many targets may be known at once; the runtime's own figure, if None.
    pub max_targets: Option<usize>,
    /// Declare the partitions of the table on every disk that appears.
    pub partscan: bool,
}

/// KiB that the kernel reads ahead unless told otherwise (measured in benches/compare/README.md): of more, the first
/// bytes have left the processor's caches before they are copied.
const KERNEL_READAHEAD_KIB: u32 = 512;

/// The most KiB to read ahead: 1 GiB.
const READAHEAD_KIB_MAX: u64 = 1 << 20;

/// How long a busy mount is kept after SIGTERM: seconds. Long enough for a script that unmounts the file systems on
/// top.
const STOP: u64 = 10;

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            allow_other: false,
            read_only: false,
            noexec: false,
            uid: None,
            gid: None,
            direct_io: false,
            deadline: None,
            stop: Duration::from_secs(STOP),
            readahead_kib: None,
            max_targets: None,
            partscan: false,
        }
    }
}

impl MountOptions {
    /// How far the engine reads ahead of each reader, in bytes.
    pub fn read_ahead(&self) -> u64 {
        self.readahead_kib.map_or(crate::engine::WINDOW, |kib| u64::from(kib) << 10)
    }

    /// How far the kernel reads ahead, in KiB.
    pub fn kernel_read_ahead(&self) -> u32 {
        self.readahead_kib.unwrap_or(KERNEL_READAHEAD_KIB)
    }
}

/// One word of -o.
pub struct MountOption {
    /// Before the equals sign.
    pub name: &'static str,
    /// The value in the usage line; empty for a switch.
    pub value: &'static str,
    /// One line; empty for words that change nothing.
    pub help: &'static str,
    set: Set,
}

impl MountOption {
    /// `deadline=SECS`
    pub fn usage(&self) -> String {
        match self.value {
            "" => self.name.into(),
            value => format!("{}={value}", self.name),
        }
    }
}

enum Set {
    Ignore,
    Switch(fn(&mut MountOptions)),
    Number(u64, u64, fn(&mut MountOptions, u64)),
    User,
    Group,
}

/// All words, in the order of the manual. `x-*`, `X-*` and `comment=` are ignored as well.
pub const TABLE: [MountOption; 50] = [
    switch("allow_other", "let other users in, as far as the modes of the files allow", |o| {
        o.allow_other = true
    }),
    switch("ro", "data and partitions are read-only (EROFS); ctl stays writable", |o| o.read_only = true),
    MountOption { name: "uid", value: "USER", help: "owner of the files [who mounts]", set: Set::User },
    MountOption { name: "gid", value: "GROUP", help: "group of the files [who mounts]", set: Set::Group },
    switch("direct_io", "nothing is read ahead nor cached: for disks that several hosts use", |o| {
        o.direct_io = true
    }),
    number("deadline", "SECS", "how long one request may take [180]", 1, DAY, |o, n| {
        o.deadline = Some(Duration::from_secs(n));
    }),
    number("stop", "SECS", "how long SIGTERM waits for users of the mount [10]", 0, DAY, |o, n| {
        o.stop = Duration::from_secs(n);
    }),
    number(
        "readahead",
        "KIB",
        "how far is read ahead; 0: nothing is [1024]",
        0,
        READAHEAD_KIB_MAX,
        |o, n| {
            o.readahead_kib = Some(n as u32);
        },
    ),
    number(
        "max_targets",
        "N",
        "how many targets may be known at once [4096]",
        1,
        Addr::COUNT as u64,
        |o, n| {
            o.max_targets = Some(n as usize);
        },
    ),
    switch("partscan", "read the partition table of every target that appears", |o| o.partscan = true),
    switch("noexec", "nothing on the mount may be executed", |o| o.noexec = true),
    ignored("rw"),
    ignored("defaults"),
    ignored("_netdev"),
    ignored("auto"),
    ignored("noauto"),
    ignored("user"),
    ignored("users"),
    ignored("nouser"),
    ignored("owner"),
    ignored("group"),
    ignored("nofail"),
    ignored("dev"),
    ignored("nodev"),
    ignored("suid"),
    ignored("nosuid"),
    ignored("exec"),
    ignored("async"),
    ignored("atime"),
    ignored("noatime"),
    ignored("nodiratime"),
    ignored("relatime"),
    ignored("norelatime"),
    ignored("strictatime"),
    ignored("nostrictatime"),
    ignored("diratime"),
    ignored("lazytime"),
    ignored("nolazytime"),
    ignored("sync"),
    ignored("dirsync"),
    ignored("iversion"),
    ignored("noiversion"),
    ignored("mand"),
    ignored("nomand"),
    ignored("silent"),
    ignored("loud"),
    ignored("default_permissions"),
    ignored("_rnetdev"),
    ignored("fsname"),
    ignored("subtype"),
];

const fn switch(name: &'static str, help: &'static str, set: fn(&mut MountOptions)) -> MountOption {
    MountOption { name, value: "", help, set: Set::Switch(set) }
}

const fn number(
    name: &'static str,
    value: &'static str,
    help: &'static str,
    low: u64,
    high: u64,
    set: fn(&mut MountOptions, u64),
) -> MountOption {
    MountOption { name, value, help, set: Set::Number(low, high, set) }
}

const fn ignored(name: &'static str) -> MountOption {
    MountOption { name, value: "", help: "", set: Set::Ignore }
}

/// Reads the words of all -o together. If a word comes twice, the last one counts.
pub fn parse(lists: Vec<&String>) -> Result<MountOptions, Failure> {
    let mut options = MountOptions::default();
    for word in lists.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        if name.starts_with("x-") || name.starts_with("X-") || name == "comment" {
            continue;
        }
        if name == "remount" {
            return Err(Failure::usage(
                "the options of a mount that stands cannot be changed; unmount it and mount it again",
            ));
        }
        let Some(option) = TABLE.iter().find(|option| option.name == name) else {
            let known = TABLE.iter().map(|option| option.name);
            let hint = hint(name, known, "see: aoefs --help");
            return Err(Failure::usage(format!("unknown mount option \"{word}\"{hint}")));
        };
        apply(option, value, &mut options)?;
    }
    Ok(options)
}

fn apply(option: &MountOption, value: Option<&str>, options: &mut MountOptions) -> Result<(), Failure> {
    let needs = || Failure::usage(format!("-o {} needs a value; say: -o {}", option.name, option.usage()));
    let no_such = |what: &str, name: &str| {
        Failure::usage(format!(
            "-o {}: there is no {what} \"{name}\"; give a number, or a name that exists",
            option.name
        ))
    };
    match option.set {
        // mount(8) gives `user` a value when a user mounts.
        Set::Ignore => {}
        Set::Switch(_) if value.is_some() => {
            return Err(Failure::usage(format!("-o {0} takes no value; say: -o {0}", option.name)));
        }
        Set::Switch(set) => set(options),
        Set::Number(low, high, set) => {
            let text = value.ok_or_else(needs)?;
            let number = text.parse().ok().filter(|number| (low..=high).contains(number));
            let number = number.ok_or_else(|| {
                Failure::usage(format!(
                    "-o {}: \"{text}\" is not a number from {low} to {high}; say: -o {}",
                    option.name,
                    option.usage()
                ))
            })?;
            set(options, number);
        }
        Set::User => {
            let name = value.ok_or_else(needs)?;
            let by_name = || User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
            let uid = name.parse().ok().filter(|&uid| uid != u32::MAX).or_else(by_name);
            options.uid = Some(uid.ok_or_else(|| no_such("user", name))?);
        }
        Set::Group => {
            let name = value.ok_or_else(needs)?;
            let by_name = || Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
            let gid = name.parse().ok().filter(|&gid| gid != u32::MAX).or_else(by_name);
            options.gid = Some(gid.ok_or_else(|| no_such("group", name))?);
        }
    }
    Ok(())
}
