//! The source of the numbers: the files `metrics` and `log` of a mount point.
//!
//! Promises: an error is one sentence that says what to do; after an error the next reading starts afresh, so that no
//! rate is computed over a time without a mount; a log that was replaced or cut is read from its beginning.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use aoefs::top::{Report, Sample, last_lines};

/// More than this is no page of an aoefs: half a million lines of 4096 busy targets with two paths each are 41 MB.
const PAGE_MAX: u64 = 256 << 20;

/// Bytes of the log in one reading: more than the daemon keeps.
const LOG_PIECE: u64 = 256 << 10;

/// How often the log is read again when it grew meanwhile.
const TRIES: u32 = 4;

/// Lines of the log that are kept for the screen.
const LOG_LINES: usize = 200;

/// See the module.
pub struct Source {
    point: PathBuf,
    last: Option<(Instant, Sample)>,
    log: Log,
}

impl Source {
    /// The files below that directory. Nothing is opened yet.
    pub fn new(point: PathBuf) -> Source {
        let log = Log::new(point.join("log"));
        Source { point, last: None, log }
    }

    /// The mount point.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// Reads both files. Rates are those since the last reading.
    pub fn read(&mut self) -> Result<Report, String> {
        let now = Instant::now();
        let last = self.last.take();
        let page = self.page()?;
        let sample = Sample::parse(&page).map_err(|why| format!("{}: {why}", self.point.display()))?;
        let before = last.as_ref().map(|(then, sample)| (sample, now.duration_since(*then).as_secs_f64()));
        let mut report = Report::new(&sample, before);
        self.last = Some((now, sample));
        report.mountpoint = self.point.display().to_string();
        report.log = self.log.read();
        Ok(report)
    }

    fn page(&self) -> Result<String, String> {
        let mut bytes = Vec::new();
        let file = File::open(self.point.join("metrics")).map_err(|error| self.explain(&error))?;
        file.take(PAGE_MAX).read_to_end(&mut bytes).map_err(|error| self.explain(&error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn explain(&self, error: &io::Error) -> String {
        let point = self.point.display();
        match error.raw_os_error() {
            Some(libc::ENOENT) if !self.point.exists() => {
                format!("{point}: no such directory; name the mount point of an aoefs")
            }
            Some(libc::ENOENT) => format!("{point}: no aoefs is mounted here; mount one with: aoefs {point}"),
            Some(libc::ENOTDIR) => format!("{point}: not a directory; name the mount point of an aoefs"),
            Some(libc::ENOTCONN | libc::ECONNABORTED) => {
                format!(
                    "{point}: the aoefs that was mounted here has ended; start it again with: aoefs {point}"
                )
            }
            Some(libc::EACCES | libc::EPERM) => {
                format!("{point}: not yours to read; run as who mounted it, or mount with -o allow_other")
            }
            _ => format!("{point}/metrics: {error}"),
        }
    }
}

/// Follows the log, without holding it: an open file would keep the mount from being unmounted.
struct Log {
    path: PathBuf,
    /// Device and inode of the file that was read last.
    id: (u64, u64),
    /// Where it ended.
    offset: u64,
    /// The text after the last line end.
    rest: String,
    lines: VecDeque<String>,
}

impl Log {
    fn new(path: PathBuf) -> Log {
        Log { path, id: (0, 0), offset: 0, rest: String::new(), lines: VecDeque::new() }
    }

    /// The newest lines. A log that cannot be read has no new ones.
    fn read(&mut self) -> Vec<String> {
        // A line that comes while we read would make it unclear where we are.
        for _ in 0..TRIES {
            if !matches!(self.follow(), Ok(false)) {
                break;
            }
        }
        self.lines.iter().cloned().collect()
    }

    /// Takes the new lines; false if the log grew meanwhile. The size of the log is the number of bytes ever logged,
    /// but a read from before the oldest byte that is kept begins at that byte. So the end of a read is known only if
    /// the size was the same before and after.
    fn follow(&mut self) -> io::Result<bool> {
        let there = std::fs::metadata(&self.path)?;
        let (id, size) = ((there.dev(), there.ino()), there.len());
        if id != self.id || size < self.offset {
            *self = Log { id, ..Log::new(std::mem::take(&mut self.path)) };
        }
        if size == self.offset {
            return Ok(true);
        }
        let from = self.offset.max(size.saturating_sub(LOG_PIECE));
        let file = File::open(&self.path)?;
        let mut piece = Vec::new();
        let mut chunk = vec![0; LOG_PIECE as usize];
        loop {
            match file.read_at(&mut chunk, from + piece.len() as u64)? {
                0 => break,
                len => piece.extend_from_slice(&chunk[..len]),
            }
            if piece.len() as u64 >= LOG_PIECE {
                break;
            }
        }
        if file.metadata()?.len() != size {
            return Ok(false);
        }
        let piece = String::from_utf8_lossy(&piece);
        if from == self.offset {
            self.rest.push_str(&piece);
        } else {
            // In the middle of a line.
            self.rest = piece.split_once('\n').map_or_else(String::new, |(_, whole)| whole.to_owned());
        }
        self.offset = size;
        self.lines.extend(last_lines(&self.rest, LOG_LINES));
        let after = self.rest.rfind('\n').map_or(0, |end| end + 1);
        self.rest.drain(..after);
        let old = self.lines.len().saturating_sub(LOG_LINES);
        self.lines.drain(..old);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "aoefs_info{version=\"9\"} 1\naoefs_target_up{target=\"1.0\"} 1\n\
        aoefs_target_errors_total{target=\"1.0\",op=\"read\"} 5\n# EOF\n";

    fn mounted() -> (tempfile::TempDir, Source) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("metrics"), PAGE).unwrap();
        std::fs::write(dir.path().join("log"), "one\ntwo\nthr").unwrap();
        let source = Source::new(dir.path().into());
        (dir, source)
    }

    #[test]
    fn rates_need_two_readings_in_a_row() {
        let (dir, mut source) = mounted();
        assert_eq!(source.read().unwrap().interval_seconds, None);
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = source.read().unwrap();
        assert!(second.interval_seconds.unwrap() > 0.0 && second.totals.rates.is_some());
        std::fs::remove_file(dir.path().join("metrics")).unwrap();
        assert!(source.read().unwrap_err().contains("no aoefs is mounted here"));
        std::fs::write(dir.path().join("metrics"), PAGE).unwrap();
        assert_eq!(
            source.read().unwrap().interval_seconds,
            None,
            "what happened while it was away is not a rate"
        );
    }

    #[test]
    fn the_log_is_followed() {
        let (dir, mut source) = mounted();
        let path = dir.path().join("log");
        assert_eq!(source.read().unwrap().log, ["one", "two"]);
        let mut file = File::options().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"ee\nfour\n\x1b[2Jfive\n").unwrap();
        assert_eq!(source.read().unwrap().log, ["one", "two", "three", "four", " [2Jfive"]);
        assert_eq!(source.read().unwrap().log.len(), 5);
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(source.read().unwrap().log, ["new"], "cut");
        std::fs::write(dir.path().join("other"), "another\nfile\n").unwrap();
        std::fs::rename(dir.path().join("other"), &path).unwrap();
        assert_eq!(source.read().unwrap().log, ["another", "file"], "replaced");
        let many: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&path, many).unwrap();
        let lines = source.read().unwrap().log;
        assert_eq!((lines.len(), lines.last().unwrap().as_str()), (LOG_LINES, "line 999"));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(source.read().unwrap().log.len(), LOG_LINES, "what is known stays");
    }

    #[test]
    fn what_is_no_aoefs_is_said_in_one_line() {
        let (dir, mut source) = mounted();
        let said = |source: &mut Source| {
            let said = source.read().unwrap_err();
            assert!(!said.contains('\n'));
            said
        };
        std::fs::write(dir.path().join("metrics"), "node_load1 0.5\n# EOF\n").unwrap();
        assert!(said(&mut source).contains("not those of an aoefs"));
        std::fs::write(dir.path().join("metrics"), &PAGE[..40]).unwrap();
        assert!(said(&mut source).contains("end in the middle"));
        std::fs::write(dir.path().join("metrics"), [0xff, 0xfe, 0]).unwrap();
        assert!(said(&mut source).contains("not those of an aoefs"));
        assert!(
            said(&mut Source::new(dir.path().join("nowhere"))).contains("nowhere: no such directory; name ")
        );
        assert!(said(&mut Source::new(dir.path().join("log"))).contains("log: not a directory; name "));
    }
}
