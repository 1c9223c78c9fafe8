//! A front end whose descriptors take long to close.

use std::io::{IoSlice, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt, sockopt};

use super::socket::Owner;
use super::*;

/// How long its descriptor takes to close.
const LINGER: Duration = Duration::from_secs(3);

/// A disk that cannot be opened, once that is asked for.
struct Late(Mutex<mpsc::Receiver<()>>);

impl Source for Late {
    fn open(&self) -> Result<Box<dyn Disk>, String> {
        let _ = self.0.lock().recv();
        Err("it is not there".into())
    }
    fn say(&self, _: &str) {}
}

/// A connection whose last close waits for a peer that does not read.
fn slow_to_close() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut slow = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    slow.set_nonblocking(true).unwrap();
    while slow.write(&[0; 1 << 16]).is_ok() {}
    slow.set_nonblocking(false).unwrap();
    let linger = libc::linger { l_onoff: 1, l_linger: LINGER.as_secs() as i32 };
    setsockopt(&slow, sockopt::Linger, &linger).unwrap();
    (slow, peer)
}

#[test]
fn a_connection_that_takes_long_to_close_holds_up_nobody_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let (open, wait) = mpsc::channel();
    let (started, export) = mpsc::channel();
    let owner = Owner { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
    Export::start(&path, owner, Arc::new(Late(Mutex::new(wait))), move |made| started.send(made).unwrap());
    let export = export.recv().unwrap().unwrap();
    let front = UnixStream::connect(&path).unwrap();
    let (slow, _peer) = slow_to_close();
    let fds = [slow.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(front.as_raw_fd(), &[IoSlice::new(&[0])], &message, MsgFlags::empty(), None).unwrap();
    drop(slow);
    while export.clients() == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    open.send(()).unwrap();
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    while start.elapsed() < LINGER / 2 {
        let asked = Instant::now();
        export.clients();
        longest = longest.max(asked.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    assert!(longest < LINGER / 4, "{longest:?}");
    assert_eq!(export.clients(), 0);
}
