//! An image in a file or on a block device.
//!
//! Plain pread and pwrite: the page cache is the target's cache. A flush is fdatasync, and `sync` opens with O_DSYNC so
//! that every write is durable before it is answered. TRIM punches a hole; where the file system cannot do that, zeros
//! are written, since IDENTIFY promises zeros after it. The size is the file's, rounded down to whole sectors, and
//! changes only by [`Image::rescan`]. If the file is cut short meanwhile, that is an error that stays: bytes behind the
//! smallest end that was seen can be neither read nor written, even if the file grows again, since their data is gone;
//! and a flush fails, since it may have been promised. That a failed flush makes all later ones
//! fail is the processor's rule.
//!
//! The file is locked (flock) while it is exported: exclusively for writing, shared for a read-only export. Two targets
//! that write one file, each believing that it is alone, would destroy it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, FlockArg, fallocate};
use nix::sys::stat::fstat;
use nix::sys::uio::{preadv, pwritev};

use super::identity::Identity;
use super::image::{Cause, Fault, Image, read_each, write_each};
use crate::wire::{SECTOR, Sector};

/// Zeros that a discard writes where holes cannot be punched: so many that most of the time is spent on copying.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// How to open an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open {
    /// Refuse writes.
    pub read_only: bool,
    /// Answer a write only when it is durable (O_DSYNC).
    pub sync: bool,
    /// Create the file, sparse, with this many bytes if it is not there; if it is, its size must be this.
    pub size: Option<u64>,
    /// Export the file even though another target has it locked.
    pub share: bool,
}

/// A file or a block device as an image.
pub struct FileImage {
    file: Held,
    sectors: u64,
    read_only: bool,
    /// Holes can be punched; false from the first refusal on.
    holes: bool,
    /// A regular file, which can be cut short while it is open.
    regular: bool,
    /// The smallest size in bytes that it was seen to have, if that is less than it should be.
    cut: Option<u64>,
}

enum Held {
    Locked(Flock<File>),
    Shared(File),
}

/// Why a file cannot be exported. It displays as one line that says what to do.
#[derive(Debug)]
pub enum OpenError {
    /// Not there, and no size was given to create it with.
    Missing(PathBuf),
    /// Neither a regular file nor a block device.
    Kind(PathBuf),
    /// Less than one sector.
    Empty(PathBuf),
    /// It has another size than the caller asked for: found, asked.
    Size(PathBuf, u64, u64),
    /// Another target has it.
    Locked(PathBuf),
    /// The system said no: the action, and why.
    System(PathBuf, &'static str, io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Missing(path) => {
                write!(f, "{}: no such file; --size BYTES creates it", path.display())
            }
            OpenError::Kind(path) => {
                write!(f, "{}: neither a regular file nor a block device; name one of these", path.display())
            }
            OpenError::Empty(path) => {
                write!(
                    f,
                    "{}: smaller than one sector of 512 bytes; truncate -s SIZE makes it larger",
                    path.display()
                )
            }
            OpenError::Size(path, found, asked) => write!(
                f,
                "{}: has {found} bytes, not the {asked} of --size; leave --size out to export it as it is",
                path.display()
            ),
            OpenError::Locked(path) => write!(
                f,
                "{}: another target exports it (locked); stop that one, or say --force-share",
                path.display()
            ),
            OpenError::System(path, action, e) => {
                write!(f, "{}: cannot {action}: {e}", path.display())?;
                match e.kind() {
                    io::ErrorKind::PermissionDenied => write!(f, "; run as its owner, or export it with -r"),
                    io::ErrorKind::ReadOnlyFilesystem => write!(f, "; export it with -r"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl FileImage {
    /// Opens, and if asked creates, the image at `path`, and locks it.
    pub fn open(path: &Path, how: &Open) -> Result<FileImage, OpenError> {
        let system = |action| move |e: io::Error| OpenError::System(path.to_owned(), action, e);
        let mut options = OpenOptions::new();
        options.read(true).write(!how.read_only);
        if how.sync && !how.read_only {
            options.custom_flags(libc::O_DSYNC);
        }
        // Before it is opened: opening a FIFO, say, would wait for a writer.
        let is_disk = |kind: std::fs::FileType| kind.is_file() || kind.is_block_device();
        if std::fs::metadata(path).is_ok_and(|meta| !is_disk(meta.file_type())) {
            return Err(OpenError::Kind(path.to_owned()));
        }
        let file = match (options.open(path), how.size) {
            (Ok(file), _) => file,
            (Err(e), Some(size)) if e.kind() == io::ErrorKind::NotFound && !how.read_only => {
                let file = options.create_new(true).mode(0o640).open(path).map_err(system("create"))?;
                file.set_len(size).map_err(system("set the size"))?;
                file
            }
            (Err(e), None) if e.kind() == io::ErrorKind::NotFound => {
                return Err(OpenError::Missing(path.to_owned()));
            }
            (Err(e), _) => return Err(system("open")(e)),
        };
        let kind = file.metadata().map_err(system("look at"))?.file_type();
        if !is_disk(kind) {
            return Err(OpenError::Kind(path.to_owned()));
        }
        let bytes = size_of(&file).map_err(system("find the size"))?;
        match how.size {
            Some(asked) if asked != bytes => return Err(OpenError::Size(path.to_owned(), bytes, asked)),
            _ if bytes < SECTOR as u64 => return Err(OpenError::Empty(path.to_owned())),
            _ => {}
        }
        let lock = if how.read_only { FlockArg::LockSharedNonblock } else { FlockArg::LockExclusiveNonblock };
        let file = match Flock::lock(file, lock) {
            Ok(locked) => Held::Locked(locked),
            Err((file, Errno::EWOULDBLOCK)) if how.share => Held::Shared(file),
            Err((_, Errno::EWOULDBLOCK)) => return Err(OpenError::Locked(path.to_owned())),
            // A file system without locks (some network ones) is no reason to refuse service.
            Err((file, _)) => Held::Shared(file),
        };
        Ok(FileImage {
            file,
            sectors: bytes / SECTOR as u64,
            read_only: how.read_only,
            holes: true,
            regular: kind.is_file(),
            cut: None,
        })
    }

    /// The identity of this disk: it stays with the file; another file under the same name has another one.
    pub fn identity(&self) -> io::Result<Identity> {
        Identity::of_file(self.file(), self.sectors)
    }

    fn file(&self) -> &File {
        match &self.file {
            Held::Locked(file) => file,
            Held::Shared(file) => file,
        }
    }

    fn write_all(&self, mut offset: u64, data: &[u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < data.len() {
            match self.file().write_at(&data[done..], offset) {
                Ok(0) => return Err(Fault::from_io(&io::ErrorKind::WriteZero.into(), done)),
                Ok(n) => (done, offset) = (done + n, offset + n as u64),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.complain("write", offset, &e, done)),
            }
        }
        Ok(())
    }

    /// Whether these bytes are there. A read would find an end, but a write would make the file whole again, with zeros
    /// where data was.
    fn intact(&mut self, offset: u64, len: u64) -> Result<(), Fault> {
        if !self.regular {
            return Ok(());
        }
        let whole = self.sectors * SECTOR as u64;
        let size =
            fstat(self.file()).map_err(|e| self.complain("look", offset, &e.into(), 0))?.st_size as u64;
        if size < self.cut.unwrap_or(whole) {
            if self.cut.is_none() {
                log::error!(
                    "image: cut short to {size} of {whole} bytes while it is exported; what lies behind fails from \
                     here on, and every flush; SIGHUP takes the smaller size over"
                );
            }
            self.cut = Some(size);
        }
        match self.cut {
            Some(cut) if offset + len > cut => {
                Err(Fault { cause: Cause::Missing, done: cut.saturating_sub(offset) / SECTOR as u64 })
            }
            _ => Ok(()),
        }
    }

    fn complain(&self, action: &str, offset: u64, e: &io::Error, done: usize) -> Fault {
        log::warn!("image: {action} at byte {offset}: {e}");
        Fault::from_io(e, done)
    }
}

/// The size of a file or a block device; only seeking tells both.
fn size_of(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

impl Image for FileImage {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&mut self, at: Sector, into: &mut [u8]) -> Result<(), Fault> {
        let mut offset = at.0 * SECTOR as u64;
        self.intact(offset, into.len() as u64)?;
        let mut done = 0;
        while done < into.len() {
            match self.file().read_at(&mut into[done..], offset) {
                // The file is shorter than it was.
                Ok(0) => return Err(Fault { cause: Cause::Missing, done: (done / SECTOR) as u64 }),
                Ok(n) => (done, offset) = (done + n, offset + n as u64),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.complain("read", offset, &e, done)),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, at: Sector, data: &[u8]) -> Result<(), Fault> {
        let offset = at.0 * SECTOR as u64;
        // All or nothing: nothing was written before the fault.
        self.intact(offset, data.len() as u64).map_err(|fault| fault.cause.at_once())?;
        self.write_all(offset, data)
    }

    fn read_run(&mut self, at: Sector, into: &mut [IoSliceMut<'_>]) -> Result<(), Fault> {
        let bytes: usize = into.iter().map(|part| part.len()).sum();
        self.intact(at.0 * SECTOR as u64, bytes as u64)?;
        match preadv(self.file(), into, (at.0 * SECTOR as u64) as libc::off_t) {
            Ok(n) if n == bytes => Ok(()),
            // Cut short, interrupted or failed: reading one by one finds out where.
            _ => read_each(self, at, into),
        }
    }

    fn write_run(&mut self, at: Sector, data: &[IoSlice<'_>]) -> Result<(), Fault> {
        let bytes: usize = data.iter().map(|part| part.len()).sum();
        self.intact(at.0 * SECTOR as u64, bytes as u64).map_err(|fault| fault.cause.at_once())?;
        match pwritev(self.file(), data, (at.0 * SECTOR as u64) as libc::off_t) {
            Ok(n) if n == bytes => Ok(()),
            _ => write_each(self, at, data),
        }
    }

    fn flush(&mut self) -> Result<(), Fault> {
        if self.read_only {
            return Ok(());
        }
        // Data that was written behind the new end of a file that was cut short cannot be made durable.
        self.intact(0, self.sectors * SECTOR as u64).map_err(|_| Cause::Medium.at_once())?;
        self.file().sync_data().map_err(|e| {
            log::warn!("image: fdatasync: {e}");
            // Whatever the reason, data that was taken is not safe; the answer must not look like "no such command".
            Cause::Medium.at_once()
        })
    }

    fn trim(&mut self, at: Sector, count: u64) -> Result<(), Fault> {
        let (offset, len) = (at.0 * SECTOR as u64, count * SECTOR as u64);
        self.intact(offset, len).map_err(|fault| fault.cause.at_once())?;
        if self.holes {
            let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            match fallocate(self.file(), mode, offset as libc::off_t, len as libc::off_t) {
                Ok(()) => return Ok(()),
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => self.holes = false,
                // A block device punches only whole sectors of its own.
                Err(Errno::EINVAL) => {}
                Err(e) => return Err(self.complain("punch a hole", offset, &e.into(), 0)),
            }
        }
        let mut done = 0;
        while done < len {
            let now = (len - done).min(ZEROS.len() as u64) as usize;
            self.write_all(offset + done, &ZEROS[..now])?;
            done += now as u64;
        }
        Ok(())
    }

    fn rescan(&mut self) -> io::Result<u64> {
        let bytes = size_of(self.file())?;
        if let Some(cut) = self.cut.filter(|cut| bytes > *cut) {
            return Err(io::Error::other(format!(
                "it was cut short to {cut} bytes and has grown since; what was behind is lost; start again to export it"
            )));
        }
        self.cut = None;
        self.sectors = bytes / SECTOR as u64;
        Ok(self.sectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn open(path: &Path, how: Open) -> Result<FileImage, String> {
        FileImage::open(path, &how).map_err(|e| e.to_string())
    }

    #[test]
    fn creates_only_when_a_size_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let refused = open(&path, Open::default()).err().unwrap();
        assert!(refused.ends_with("no such file; --size BYTES creates it"), "{refused}");
        assert!(!path.exists());
        let image = open(&path, Open { size: Some(1_000_000), ..Open::default() }).unwrap();
        assert_eq!(image.sectors(), 1953);
        assert_eq!(std::fs::metadata(&path).unwrap().blocks(), 0);
        drop(image);
        assert!(
            open(&path, Open { size: Some(4096), ..Open::default() })
                .err()
                .unwrap()
                .contains("has 1000000 bytes")
        );
        assert!(
            open(dir.path(), Open { read_only: true, ..Open::default() }).err().unwrap().contains("neither")
        );
        std::fs::write(&path, [0; 511]).unwrap();
        assert!(open(&path, Open::default()).err().unwrap().contains("smaller than one sector"));
    }

    #[test]
    fn one_writer_or_many_readers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let first = open(&path, Open { size: Some(4096), ..Open::default() }).unwrap();
        assert!(open(&path, Open::default()).err().unwrap().contains("--force-share"));
        assert!(open(&path, Open { read_only: true, ..Open::default() }).is_err());
        assert!(open(&path, Open { share: true, ..Open::default() }).is_ok());
        drop(first);
        let _reader = open(&path, Open { read_only: true, ..Open::default() }).unwrap();
        let _another = open(&path, Open { read_only: true, ..Open::default() }).unwrap();
        assert!(open(&path, Open::default()).is_err());
    }

    #[test]
    fn discards_read_as_zeros_with_and_without_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![0xff; 300 * SECTOR]).unwrap();
        let mut image = open(&path, Open::default()).unwrap();
        image.trim(Sector(10), 5).unwrap();
        image.holes = false;
        image.trim(Sector(100), 150).unwrap();
        image.flush().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for (sector, data) in bytes.chunks(SECTOR).enumerate() {
            let zero = (10..15).contains(&sector) || (100..250).contains(&sector);
            assert!(data.iter().all(|b| *b == if zero { 0 } else { 0xff }), "sector {sector}");
        }
        assert_eq!(bytes.len(), 300 * SECTOR);
    }

    fn resize(path: &Path, bytes: u64) {
        OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
    }

    #[test]
    fn a_file_cut_short_is_missing_sectors_and_a_rescan_sees_the_size() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let mut image = open(&path, Open { size: Some(8192), ..Open::default() }).unwrap();
        image.write_at(Sector(0), &[3; 4096]).unwrap();
        resize(&path, 1024);
        let fault = image.read_at(Sector(1), &mut [0; 2048]).unwrap_err();
        assert_eq!(fault, Fault { cause: Cause::Missing, done: 1 });
        assert_eq!(image.rescan().unwrap(), 2);
        image.write_at(Sector(0), &[4; 1024]).unwrap();
        image.flush().unwrap();
    }

    #[test]
    fn a_file_cut_short_stays_an_error_and_no_write_makes_it_whole() {
        type Work = fn(&mut FileImage) -> Result<(), Fault>;
        let missing = Err(Cause::Missing.at_once());
        let works: [Work; 5] = [
            |image| image.write_at(Sector(4), &[5; 512]),
            |image| image.write_run(Sector(3), &[IoSlice::new(&[5; 512]), IoSlice::new(&[5; 512])]),
            |image| image.trim(Sector(4), 1),
            |image| image.read_at(Sector(4), &mut [0; 512]),
            |image| image.read_run(Sector(4), &mut [IoSliceMut::new(&mut [0; 512])]),
        ];
        for (number, work) in works.iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("disk");
            let mut image = open(&path, Open { size: Some(8192), ..Open::default() }).unwrap();
            image.holes = number % 2 == 0;
            image.write_at(Sector(0), &[3; 8192]).unwrap();
            resize(&path, 2000);
            for _ in 0..2 {
                assert_eq!(work(&mut image), missing, "{number}");
                assert_eq!(std::fs::metadata(&path).unwrap().len(), 2000, "{number}");
            }
            assert_eq!(image.flush(), Err(Cause::Medium.at_once()), "{number}");
            // What is still there works on.
            image.write_at(Sector(1), &[9; 1024]).unwrap();
            image.read_at(Sector(0), &mut [0; 1536]).unwrap();
            // It is made as large as it was, with zeros in the place of the data.
            resize(&path, 8192);
            assert_eq!(work(&mut image), missing, "{number}");
            assert_eq!(image.flush(), Err(Cause::Medium.at_once()), "{number}");
            assert!(image.rescan().unwrap_err().to_string().contains("start again"));
            assert_eq!(work(&mut image), missing, "{number}");
        }
    }

    #[test]
    fn what_is_no_disk_is_refused_without_waiting_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (done, finished) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for read_only in [true, false] {
                let _ = done.send(open(&path, Open { read_only, ..Open::default() }).err());
            }
        });
        for _ in 0..2 {
            let refused = finished.recv_timeout(std::time::Duration::from_secs(10)).unwrap().unwrap();
            assert!(refused.contains("neither a regular file nor a block device"), "{refused}");
        }
    }

    #[test]
    fn a_file_that_took_anothers_name_has_another_identity() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let how = Open { size: Some(4096), ..Open::default() };
        let identity = || open(&path, how).unwrap().identity().unwrap();
        let first = identity();
        assert_eq!(identity(), first);
        std::fs::rename(&path, dir.path().join("old")).unwrap();
        assert_ne!(identity(), first);
    }
}
