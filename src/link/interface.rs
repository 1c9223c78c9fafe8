//! The properties of one interface, asked of the kernel through the socket that serves it.
//!
//! Every question is an ioctl(2) on a socket, and so is answered for the network namespace that the socket was made in.
//! /sys would answer for the namespace that it was mounted from, which may be another.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use socket2::{Domain, Socket, Type};

use crate::wire::Mac;

/// One interface at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Index in the kernel; a re-created interface has a new one.
    pub index: u32,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Largest payload after the Ethernet header.
    pub mtu: usize,
    /// Configured up and with a carrier.
    pub up: bool,
    /// Whether it speaks Ethernet (ARPHRD_ETHER).
    pub ethernet: bool,
    /// It is the loopback interface, which has an Ethernet header and no neighbours.
    pub loopback: bool,
}

/// The interface called `name`; ENODEV if there is none.
pub fn query(socket: BorrowedFd<'_>, name: &str) -> io::Result<Interface> {
    let mut request = request_for(name)?;
    ioctl(socket, libc::SIOCGIFINDEX, &mut request)?;
    // SAFETY: SIOCGIFINDEX succeeded, so the kernel wrote this member; any bit pattern is an integer.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    ioctl(socket, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: as above, for SIOCGIFMTU.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    ioctl(socket, libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: as above, for SIOCGIFFLAGS.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    ioctl(socket, libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: as above, for SIOCGIFHWADDR.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    Ok(Interface {
        index: u32::try_from(index).unwrap_or(0),
        mac: Mac(mac),
        mtu: usize::try_from(mtu).unwrap_or(0),
        up: flags & libc::IFF_UP != 0 && flags & libc::IFF_RUNNING != 0,
        ethernet: address.sa_family == libc::ARPHRD_ETHER,
        loopback: flags & libc::IFF_LOOPBACK != 0,
    })
}

/// The same without a socket at hand.
pub fn named(name: &str) -> io::Result<Interface> {
    query(Socket::new(Domain::UNIX, Type::DGRAM, None)?.as_fd(), name)
}

/// The name of the interface with that index; ENODEV or ENXIO if it is gone.
pub fn name_of(socket: BorrowedFd<'_>, index: u32) -> io::Result<String> {
    let mut request = request_for("?")?;
    request.ifr_ifru.ifru_ifindex = i32::try_from(index).map_err(|_| no_device())?;
    ioctl(socket, libc::SIOCGIFNAME, &mut request)?;
    let name: Vec<u8> = request.ifr_name.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8(name).map_err(|_| no_device())
}

/// The index of the interface of that name, which may be an alternative one; none if there is no such interface.
pub fn index_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the name is a string that ends with a zero and outlives the call, which only reads it.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// Whether a port obeys and sends the pause frames of Ethernet's flow control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// It stops sending when the other end says so.
    pub obeys: bool,
    /// It tells the other end to stop when its own buffers fill.
    pub sends: bool,
}

/// The flow control of the interface called `name`; an error where its driver does not say.
pub fn pause(name: &str) -> io::Result<Pause> {
    /// ETHTOOL_GPAUSEPARAM of linux/ethtool.h.
    const GET_PAUSE: u32 = 0x12;
    /// struct ethtool_pauseparam: the question, then three answers.
    #[repr(C)]
    struct Param {
        cmd: u32,
        autoneg: u32,
        rx: u32,
        tx: u32,
    }
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let mut param = Param { cmd: GET_PAUSE, autoneg: 0, rx: 0, tx: 0 };
    let mut request = request_for(name)?;
    request.ifr_ifru.ifru_data = (&raw mut param).cast();
    ioctl(socket.as_fd(), libc::SIOCETHTOOL, &mut request)?;
    Ok(Pause { obeys: param.rx != 0, sends: param.tx != 0 })
}

fn no_device() -> io::Error {
    io::Error::from_raw_os_error(libc::ENODEV)
}

fn request_for(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is a plain C structure for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero: the kernel reads the name as a string.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.bytes().any(|b| b == 0 || b == b'/') {
        return Err(no_device());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn ioctl(socket: BorrowedFd<'_>, what: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed and so open; `request` is a valid ifreq, which is what all of the calls made
    // in this file take and fill; where one holds a pointer, the caller has put a valid structure of its kind there.
    // C libraries do not agree on the type of the number.
    match unsafe { libc::ioctl(socket.as_raw_fd(), what as libc::Ioctl, request as *mut libc::ifreq) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn socket() -> socket2::Socket {
        socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::DGRAM, None).unwrap()
    }

    #[test]
    fn loopback_is_known_and_is_not_taken_for_ethernet() {
        let socket = socket();
        let lo = query(socket.as_fd(), "lo").unwrap();
        assert!(lo.loopback && !lo.ethernet && lo.index > 0);
        assert_eq!(name_of(socket.as_fd(), lo.index).unwrap(), "lo");
    }

    #[test]
    fn names_that_cannot_exist_are_no_device() {
        let socket = socket();
        for name in ["", "no-such-if", "a-name-that-is-too-long-for-linux", "a\0b", "../x"] {
            assert_eq!(
                query(socket.as_fd(), name).unwrap_err().raw_os_error(),
                Some(libc::ENODEV),
                "{name:?}"
            );
        }
        assert!(super::super::is_gone(&name_of(socket.as_fd(), i32::MAX as u32).unwrap_err()));
    }
}
