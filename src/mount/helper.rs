//! Mounting without privilege: the protocol of libfuse's setuid helper. It is started with a socket, its number in
//! `_FUSE_COMMFD`, opens `/dev/fuse`, mounts, and sends the descriptor back over the socket.

use std::ffi::OsString;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

use super::error::MountError;
use super::{MountSpec, Unmount};

/// Where the helper may be if it is not in PATH, as in a service with a small environment.
const USUAL: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// `$FUSERMOUNT_PATH`, or the first fusermount3 or fusermount of PATH.
pub fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FUSERMOUNT_PATH") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    ["fusermount3", "fusermount"].iter().find_map(|name| {
        std::env::split_paths(&path)
            .chain(USUAL.iter().map(PathBuf::from))
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(name))
            .find(|file| is_executable(file))
    })
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Mounts through the helper; the descriptor is the one that it opened.
pub fn mount(point: &Path, spec: &MountSpec) -> Result<OwnedFd, MountError> {
    let program = find().ok_or_else(|| MountError::NoHelper(point.into()))?;
    let failed = |error| MountError::HelperFailed(program.clone(), error);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    // The socket is the helper's standard input: nothing of ours has to lose its close-on-exec flag for it.
    let mut command = Command::new(&program);
    command.arg("-o").arg(options(spec)).arg("--").arg(point).env("_FUSE_COMMFD", "0");
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(failed)?;
    // The command holds the helper's end of the socket: while it lives, there is no end of file if the helper fails.
    drop(command);
    let device = receive(&ours);
    drop(ours);
    let output = child.wait_with_output().map_err(failed)?;
    match device {
        Ok(Some(device)) if output.status.success() => Ok(device),
        Ok(_) => Err(MountError::Helper(point.into(), reason(&output.stderr))),
        Err(error) => Err(failed(error)),
    }
}

/// Asks the helper to unmount. It checks that the mount is this user's.
pub fn unmount(point: &Path, lazy: bool) -> io::Result<Unmount> {
    let program = find().ok_or(Errno::EPERM)?;
    let mut command = Command::new(&program);
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(point).stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(Unmount::Done);
    }
    let reason = reason(&output.stderr);
    if reason.contains("busy") {
        return Ok(Unmount::Busy(point.into()));
    }
    Err(io::Error::other(reason))
}

/// Becomes the helper, which detaches the mount: for the last act of a process. It needs no new process, and so works
/// where the limit of processes is reached. Returns only if it fails.
pub fn become_detacher(point: &Path) -> io::Error {
    match find() {
        Some(program) => Command::new(program).args(["-u", "-z", "--"]).arg(point).exec(),
        None => Errno::EPERM.into(),
    }
}

/// The value of the helper's -o. A comma separates options, so a comma inside of a value is escaped.
fn options(spec: &MountSpec) -> OsString {
    let mut text = format!(
        "nosuid,nodev,default_permissions,subtype=aoefs,max_read={},fsname={}",
        spec.max_read,
        escape(&spec.source)
    );
    if spec.allow_other {
        text.push_str(",allow_other");
    }
    if spec.noexec {
        text.push_str(",noexec");
    }
    text.into()
}

fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, ',' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The descriptor that comes with one byte; None if the helper closed its end without sending one.
fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0u8];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            other => break other?,
        }
    };
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(&fd) = fds.first()
        {
            // SAFETY: the kernel has just put this descriptor into our table, for us alone.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(None)
}

/// The first line that the helper wrote, without its name.
fn reason(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it gave no reason");
    match line.split_once(": ") {
        Some((program, reason)) if program.contains("fusermount") => reason.into(),
        _ => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_become_options() {
        let spec = MountSpec {
            source: "eth0,ro\\".into(),
            allow_other: true,
            noexec: false,
            ..MountSpec::default()
        };
        let text = options(&spec).into_string().unwrap();
        assert_eq!(
            text,
            format!(
                "nosuid,nodev,default_permissions,subtype=aoefs,max_read={},fsname=eth0\\,ro\\\\,allow_other",
                spec.max_read
            )
        );
    }

    #[test]
    fn reasons_lose_the_name_of_the_program() {
        assert_eq!(
            reason(b"fusermount3: mount failed: Operation not permitted\n"),
            "mount failed: Operation not permitted"
        );
        assert_eq!(
            reason(b"/bin/fusermount3: entry for /x not found in /etc/mtab\nmore"),
            "entry for /x not found in /etc/mtab"
        );
        assert_eq!(reason(b"\n"), "it gave no reason");
        assert_eq!(reason(b"odd: thing"), "odd: thing");
    }

    #[test]
    fn an_end_of_file_is_no_descriptor() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(receive(&ours).unwrap().is_none());
    }
}
