//! Lines on their way to syslog. Its socket takes a handful at once (ten, where nobody has raised
//! net.unix.max_dgram_qlen), and one failure of a disk is more. What it does not take waits here.
//!
//! Promises: nothing here waits for syslog, which may write to a disk that waits for us; lines leave in the order in
//! which they came; those that find no room are counted, and the count is a line.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Lines that may wait: some 100 KiB.
const WAITING_MAX: usize = 1024;

/// See the module.
#[derive(Default)]
pub struct Syslog {
    socket: Option<UnixDatagram>,
    waiting: VecDeque<String>,
    left_out: u64,
}

impl Syslog {
    /// Takes one more line, and sends what can be sent to the socket at `path`. `note` makes a line of the number of
    /// those that found no room. False: some still wait.
    pub fn say(&mut self, path: &Path, line: String, note: impl Fn(u64) -> String) -> bool {
        if self.left_out == 0 && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(line);
        } else {
            self.left_out += 1;
        }
        self.send(path, note)
    }

    /// Sends what waits, as far as it is taken. False: some still wait.
    pub fn send(&mut self, path: &Path, note: impl Fn(u64) -> String) -> bool {
        loop {
            if self.left_out > 0 && self.waiting.is_empty() {
                self.waiting.push_back(note(std::mem::take(&mut self.left_out)));
            }
            let Some(line) = self.waiting.pop_front() else { return true };
            if self.send_one(path, &line) == Err(ErrorKind::WouldBlock) {
                self.waiting.push_front(line);
                return false;
            }
        }
    }

    /// After a restart of syslog the second try finds it. Where there is none, the line is lost.
    fn send_one(&mut self, path: &Path, line: &str) -> Result<(), ErrorKind> {
        let mut ended = Ok(());
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = connect(path).ok();
            }
            let Some(socket) = &self.socket else { return Err(ErrorKind::NotFound) };
            ended = socket.send(line.as_bytes()).map(drop).map_err(|error| error.kind());
            if matches!(ended, Ok(()) | Err(ErrorKind::WouldBlock)) {
                break;
            }
            self.socket = None;
        }
        ended
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(lines: u64) -> String {
        format!("{lines} left out")
    }

    fn heard(reader: &UnixDatagram) -> Vec<String> {
        let mut text = [0; 64];
        let next =
            || reader.recv(&mut text).ok().map(|len| String::from_utf8_lossy(&text[..len]).into_owned());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_syslog_does_not_take_at_once_comes_later_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut syslog = Syslog::default();
        assert!(syslog.say(&path, "nobody is there".into(), note));
        let reader = UnixDatagram::bind(&path).unwrap();
        reader.set_nonblocking(true).unwrap();
        let more = 50_u64;
        let lines = WAITING_MAX as u64 + more;
        // Until it is full, whatever the system lets it hold.
        let mut first = 0;
        while syslog.say(&path, format!("first {first}"), note) {
            first += 1;
        }
        for n in 1..lines {
            assert!(!syslog.say(&path, format!("line {n}"), note));
        }
        let mut got = heard(&reader);
        while !syslog.send(&path, note) {
            got.extend(heard(&reader));
        }
        got.extend(heard(&reader));
        let mut want: Vec<String> = (0..=first).map(|n| format!("first {n}")).collect();
        want.extend((1..WAITING_MAX).map(|n| format!("line {n}")));
        want.push(note(more));
        assert_eq!(got, want);
        // It is started again.
        drop(reader);
        std::fs::remove_file(&path).unwrap();
        let reader = UnixDatagram::bind(&path).unwrap();
        reader.set_nonblocking(true).unwrap();
        assert!(syslog.say(&path, "again".into(), note));
        assert_eq!(heard(&reader), ["again"]);
    }
}
