//! The daemon under test: the product's mount, unmounter and signals around a file system with two files. `data` reads
//! as zeros; a read of `stuck` is answered when the daemon is told to give up.

use std::ffi::OsStr;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use aoefs::daemon::logging;
use aoefs::daemon::signals::Signals;
use aoefs::daemon::stop::{self, Service};
use aoefs::daemon::unmounter::Unmounter;
use aoefs::mount::{self, MountSpec, Place};
use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request, Session, SessionACL,
};

pub const SIZE: u64 = 1 << 20;

/// None once they have been given up.
type Stuck = Arc<Mutex<Option<Vec<ReplyData>>>>;

struct Small {
    stuck: Stuck,
}

fn attributes(ino: INodeNo) -> FileAttr {
    let (kind, perm, size) = match ino {
        INodeNo::ROOT => (FileType::Directory, 0o755, 0),
        _ => (FileType::RegularFile, 0o644, SIZE),
    };
    FileAttr {
        ino,
        size,
        blocks: size / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: nix::unistd::geteuid().as_raw(),
        gid: nix::unistd::getegid().as_raw(),
        rdev: 0,
        blksize: 512,
        flags: 0,
    }
}

impl Filesystem for Small {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let ino = match name.to_str() {
            Some("data") => 2,
            Some("stuck") => 3,
            _ => return reply.error(Errno::ENOENT),
        };
        reply.entry(&Duration::ZERO, &attributes(INodeNo(ino)), Generation(0));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &attributes(ino));
    }

    /// As the product opens files: without a FLUSH at close(2). The kernel closes the files of a killed daemon before
    /// it sends word of its death; a file of its own mount that needs a FLUSH then would wait for the dead daemon, and
    /// its unmounter for that word.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_NOFLUSH);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if ino == INodeNo(3) {
            match &mut *self.stuck.lock().unwrap() {
                Some(replies) => replies.push(reply),
                None => reply.error(Errno::EIO),
            }
        } else {
            let left = SIZE.saturating_sub(offset).min(size.into());
            reply.data(&vec![0; left as usize]);
        }
    }
}

struct Answers {
    stuck: Stuck,
}

impl Service for Answers {
    fn reload(&self) {
        say("reload");
    }

    fn say(&self, line: &str) {
        say(line);
    }

    fn abandon(&self) {
        let replies = self.stuck.lock().unwrap().take();
        replies.into_iter().flatten().for_each(|reply| reply.error(Errno::EIO));
        say("abandoned");
    }
}

fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().unwrap();
}

/// `--daemon DIR [STOP-SECONDS [SOURCE [GATE [hold]]]]`; with a gate that is not empty it looks at the mount point,
/// and mounts, when that file is there; with `hold` a thread of it reads `stuck` through its own mount.
pub fn main(args: &[String]) -> ExitCode {
    let dir = args.first().expect("a directory");
    logging::install_as("small", "warn");
    let stop = args.get(1).map_or(1, |secs| secs.parse().unwrap());
    let spec = MountSpec {
        source: args.get(2).cloned().unwrap_or_else(|| "test".into()),
        allow_other: false,
        ..MountSpec::default()
    };
    let signals = Signals::block().unwrap();
    let result = Place::resolve(dir.as_ref()).and_then(|place| {
        let unmounter = Unmounter::start(&place).unwrap();
        if let Some(gate) = args.get(3).filter(|gate| !gate.is_empty()) {
            say("waiting");
            while !std::path::Path::new(gate).exists() {
                std::hint::spin_loop();
            }
        }
        let cleared = place.clear()?;
        Ok((mount::mount(&place, &spec)?, unmounter, cleared))
    });
    let (mounted, unmounter, cleared) = match result {
        Ok(made) => made,
        Err(error) => {
            say(&format!("error {error}"));
            return ExitCode::FAILURE;
        }
    };
    unmounter.mounted(&mounted.mount).unwrap();
    let unmounter = Arc::new(unmounter);
    let stuck: Stuck = Arc::new(Mutex::new(Some(Vec::new())));
    let small = Small { stuck: stuck.clone() };
    let session = Session::from_fd(small, mounted.device, SessionACL::All, Config::default()).unwrap();
    let read_ahead = mounted.mount.set_read_ahead(2048).map_err(|error| error.kind());
    stop::spawn(signals, unmounter.clone(), Duration::from_secs(stop), Arc::new(Answers { stuck })).unwrap();
    let helper = mounted.mount.by_helper();
    say(&format!(
        "ready unmounter={} cleared={cleared} helper={helper} read_ahead={read_ahead:?}",
        unmounter.process()
    ));
    if args.get(4).is_some_and(|hold| hold == "hold") {
        let path = std::path::Path::new(dir).join("stuck");
        std::thread::spawn(move || std::fs::read(path));
    }
    match session.run() {
        // The mount ended while the device carried the last close's RELEASE to us: see `FuseSession::run`.
        Err(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {}
        result => result.unwrap(),
    }
    unmounter.finish();
    say("ended");
    ExitCode::SUCCESS
}
