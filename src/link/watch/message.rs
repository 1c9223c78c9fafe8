//! rtnetlink messages: a request for all interfaces, and the answers.
//!
//! Promises: any bytes are read without a panic; a message that is not about an interface as a whole is `Other`.

use super::LinkEvent;
use crate::wire::Mac;

/// Headers and attributes are aligned to this many bytes.
const ALIGN: usize = 4;

/// Bytes of nlmsghdr, ifinfomsg and an attribute's header.
const HEADER: usize = 16;
const INFO: usize = 16;
const ATTRIBUTE: usize = 4;

/// The bits of an attribute's type that are the type.
const TYPE: u16 = 0x3fff;

/// Kinds of interface whose members' frames are not ours to touch.
const MASTERS: [&[u8]; 4] = [b"bridge", b"bond", b"team", b"openvswitch"];

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// An interface, as it is or as it was.
    Link(LinkEvent),
    /// The list of interfaces changed while it was dumped.
    Interrupted,
    /// The end of a dump.
    Done,
    /// A dump was refused.
    Failed,
    /// Something else.
    Other,
}

/// A request for all interfaces without their counters.
pub fn request(sequence: u32) -> [u8; HEADER + INFO + ATTRIBUTE + 4] {
    let mut out = [0; HEADER + INFO + ATTRIBUTE + 4];
    let len = out.len() as u32;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let parts: [&[u8]; 8] = [
        &len.to_ne_bytes(),
        &libc::RTM_GETLINK.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &sequence.to_ne_bytes(),
        // Our port, which the kernel knows, and an ifinfomsg of zeros: all families, all interfaces.
        &[0; 4 + INFO],
        &8u16.to_ne_bytes(),
        &libc::IFLA_EXT_MASK.to_ne_bytes(),
        &(libc::RTEXT_FILTER_SKIP_STATS as u32).to_ne_bytes(),
    ];
    for (to, from) in out.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    out
}

/// The messages of one datagram, each with its sequence number.
pub fn parse(datagram: &[u8]) -> Vec<(Message, u32)> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while let Some(len) = u32_at(rest, 0) {
        let len = len as usize;
        let Some(message) = rest.get(..len).filter(|message| message.len() >= HEADER) else { break };
        let (Some(kind), Some(flags), Some(sequence)) =
            (u16_at(message, 4), u16_at(message, 6), u32_at(message, 8))
        else {
            break;
        };
        if i32::from(flags) & libc::NLM_F_DUMP_INTR != 0 {
            messages.push((Message::Interrupted, sequence));
        }
        let body = message.get(HEADER..).unwrap_or_default();
        messages.push((one(kind, body), sequence));
        rest = rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
    }
    messages
}

fn one(kind: u16, body: &[u8]) -> Message {
    match kind {
        libc::RTM_NEWLINK => link(body, false).map_or(Message::Other, Message::Link),
        libc::RTM_DELLINK => link(body, true).map_or(Message::Other, Message::Link),
        kind if i32::from(kind) == libc::NLMSG_DONE => Message::Done,
        // An error of 0 is an acknowledgement.
        kind if i32::from(kind) == libc::NLMSG_ERROR && u32_at(body, 0) != Some(0) => Message::Failed,
        _ => Message::Other,
    }
}

fn link(body: &[u8], gone: bool) -> Option<LinkEvent> {
    // Other families report one aspect of an interface: AF_BRIDGE's DELLINK means that a port left its bridge.
    if i32::from(*body.first()?) != libc::AF_UNSPEC {
        return None;
    }
    let flags = u32_at(body, 8)? as i32;
    let mut link = LinkEvent {
        name: String::new(),
        index: u32_at(body, 4)?,
        up: !gone && flags & libc::IFF_UP != 0 && flags & libc::IFF_RUNNING != 0,
        mtu: 0,
        mac: Mac([0; 6]),
        gone,
        is_port: false,
        is_ethernet: u16_at(body, 2)? == libc::ARPHRD_ETHER && flags & libc::IFF_LOOPBACK == 0,
    };
    for (kind, value) in attributes(body.get(INFO..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = String::from_utf8_lossy(text(value)).into_owned(),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)? as usize,
            libc::IFLA_ADDRESS => link.mac = value.try_into().map_or(link.mac, Mac),
            libc::IFLA_LINKINFO => {
                link.is_port = attributes(value).any(|(kind, value)| {
                    kind == libc::IFLA_INFO_SLAVE_KIND && MASTERS.contains(&text(value))
                });
            }
            _ => {}
        }
    }
    // Events about wireless properties come as links without a name.
    (!link.name.is_empty()).then_some(link)
}

/// Types and values of the attributes that `bytes` consists of, up to the first that is cut.
fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & TYPE;
        let value = rest.get(ATTRIBUTE..len)?;
        rest = rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// A string without the zero that ends it.
fn text(value: &[u8]) -> &[u8] {
    value.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}
