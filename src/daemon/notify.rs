//! Tells systemd that the daemon is ready, how it is, and that it stops: a datagram of a few lines, sent without
//! waiting. Without `NOTIFY_SOCKET` nothing happens.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::failure::one_line;

/// A daemon that stops says why it takes so long, and nothing else.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// The mount answers. `systemctl status` shows `status`.
pub fn ready(status: &str) {
    send_state(&format!("READY=1\nMAINPID={}\nSTATUS={status}\n", std::process::id()));
}

/// The daemon stops.
pub fn stopping() {
    STOPPING.store(true, Ordering::Relaxed);
    send_state("STOPPING=1\n");
}

/// What `systemctl status` shows from now on, unless the daemon stops.
pub fn status(line: &str) {
    if !STOPPING.load(Ordering::Relaxed) {
        send_state(&format!("STATUS={}\n", one_line(line)));
    }
}

/// What `systemctl status` shows of a daemon that stops.
pub fn stopping_status(line: &str) {
    send_state(&format!("STATUS={}\n", one_line(line)));
}

/// Whether a service manager wants to hear of the daemon.
pub fn is_listened_to() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

fn send_state(text: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET")
        && let Err(error) = send(&socket, text.as_bytes())
    {
        log::debug!("NOTIFY_SOCKET {}: {error}", socket.display());
    }
}

fn send(socket: &OsStr, text: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(text, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("aoefs-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&abstract_name).unwrap();
        let mut text = [0; 16];
        send(path.as_os_str(), b"READY=1\n").unwrap();
        assert_eq!(by_path.recv(&mut text).unwrap(), 8);
        send(OsStr::new(&format!("@{name}")), b"STOPPING=1\n").unwrap();
        assert_eq!(by_name.recv(&mut text).unwrap(), 11);
        assert_eq!(&text[..11], b"STOPPING=1\n");
    }
}
