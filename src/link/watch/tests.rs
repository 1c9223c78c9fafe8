use super::message::{Message, parse};
use super::*;
use proptest::prelude::*;

/// A message as the kernel would send it.
struct Made {
    kind: u16,
    flags: u16,
    family: u8,
    device: u16,
    state: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((4 + value.len() as u16).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

impl Made {
    fn eth0() -> Made {
        Made {
            kind: libc::RTM_NEWLINK,
            flags: 0,
            family: 0,
            device: libc::ARPHRD_ETHER,
            state: (libc::IFF_UP | libc::IFF_RUNNING) as u32,
            attributes: vec![
                (libc::IFLA_IFNAME, b"eth0\0".to_vec()),
                (libc::IFLA_MTU, 9000u32.to_ne_bytes().to_vec()),
                (libc::IFLA_ADDRESS, vec![2, 0, 0, 0, 0, 1]),
            ],
        }
    }

    fn slave_of(mut self, kind: &[u8]) -> Made {
        let nested =
            [attribute(libc::IFLA_INFO_KIND, b"veth\0"), attribute(libc::IFLA_INFO_SLAVE_KIND, kind)];
        // The flag that marks a nested attribute is no part of its type.
        self.attributes.push((libc::IFLA_LINKINFO | 0x8000, nested.concat()));
        self
    }

    fn bytes(&self, index: u32, sequence: u32) -> Vec<u8> {
        let mut body = vec![self.family, 0];
        body.extend(self.device.to_ne_bytes());
        body.extend(index.to_ne_bytes());
        body.extend(self.state.to_ne_bytes());
        body.extend([0; 4]);
        for (kind, value) in &self.attributes {
            body.extend(attribute(*kind, value));
        }
        framed(self.kind, self.flags, sequence, &body)
    }
}

fn framed(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend((16 + body.len() as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(flags.to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(body);
    out
}

fn done(sequence: u32) -> Vec<u8> {
    framed(libc::NLMSG_DONE as u16, 0, sequence, &[0; 4])
}

fn link_of(bytes: &[u8]) -> Option<LinkEvent> {
    match parse(bytes).into_iter().next_back()? {
        (Message::Link(link), _) => Some(link),
        _ => None,
    }
}

fn told(state: &mut State, bytes: &[u8]) -> Vec<(u32, bool)> {
    state.buffer[..bytes.len()].copy_from_slice(bytes);
    state.take(bytes.len());
    std::mem::take(&mut state.events).into_iter().map(|event| (event.index, event.gone)).collect()
}

#[test]
fn a_link_is_read_as_it_is() {
    let link = link_of(&Made::eth0().bytes(7, 0)).unwrap();
    assert_eq!((link.name.as_str(), link.index, link.mtu, link.mac.0), ("eth0", 7, 9000, [2, 0, 0, 0, 0, 1]));
    assert!(link.by_default() && !link.gone && !link.is_port);
}

#[test]
fn the_default_set_is_ethernet_up_and_nobodys_port() {
    let by_default = |made: Made| link_of(&made.bytes(7, 0)).unwrap().by_default();
    assert!(by_default(Made::eth0()));
    assert!(!by_default(Made { state: libc::IFF_UP as u32, ..Made::eth0() }), "no carrier");
    assert!(!by_default(Made { state: libc::IFF_RUNNING as u32, ..Made::eth0() }), "not up");
    assert!(!by_default(Made { device: 772, ..Made::eth0() }), "not Ethernet");
    assert!(!by_default(Made { state: Made::eth0().state | libc::IFF_LOOPBACK as u32, ..Made::eth0() }));
    assert!(!by_default(Made { kind: libc::RTM_DELLINK, ..Made::eth0() }));
    for master in [&b"bridge\0"[..], b"bond\0", b"team\0", b"openvswitch\0"] {
        assert!(!by_default(Made::eth0().slave_of(master)));
    }
    assert!(by_default(Made::eth0().slave_of(b"vrf\0")), "a VRF's member keeps its frames");
}

#[test]
fn messages_about_an_aspect_of_a_link_are_not_about_the_link() {
    let left_its_bridge =
        Made { kind: libc::RTM_DELLINK, family: libc::AF_BRIDGE as u8, ..Made::eth0() }.bytes(7, 0);
    assert_eq!(parse(&left_its_bridge), [(Message::Other, 0)]);
    let wireless = Made { attributes: vec![(11, vec![0; 20])], ..Made::eth0() }.bytes(7, 0);
    assert_eq!(parse(&wireless), [(Message::Other, 0)]);
}

#[test]
fn only_changes_are_told() {
    let mut state = State::new();
    let up = Made::eth0().bytes(7, 0);
    assert_eq!(told(&mut state, &up), [(7, false)]);
    assert!(told(&mut state, &up).is_empty());
    let down = Made { state: 0, ..Made::eth0() }.bytes(7, 0);
    assert_eq!(told(&mut state, &[&down[..], &up, &up].concat()), [(7, false), (7, false)]);
    let gone = Made { kind: libc::RTM_DELLINK, ..Made::eth0() }.bytes(7, 0);
    assert_eq!(told(&mut state, &gone), [(7, true)]);
    assert!(told(&mut state, &gone).is_empty(), "told twice");
}

#[test]
fn a_dump_finds_what_went_unnoticed() {
    let mut state = State::new();
    told(&mut state, &Made::eth0().bytes(7, 0));
    told(&mut state, &Made::eth0().bytes(8, 0));
    (state.sequence, state.dumping) = (5, true);
    // 6 was in the queue before the dump began and may have gone since; 9 has appeared while it ran.
    let before = Made::eth0().bytes(6, 0);
    let dump = [before, Made::eth0().bytes(8, 5), Made::eth0().bytes(9, 0), done(4), done(5)].concat();
    assert_eq!(told(&mut state, &dump), [(6, false), (9, false), (6, true), (7, true)]);
    assert!(!state.dumping);
}

#[test]
fn an_interrupted_dump_is_made_again_and_believed_in_nothing_missing() {
    let mut state = State::new();
    told(&mut state, &Made::eth0().bytes(7, 0));
    (state.sequence, state.dumping) = (5, true);
    let interrupted = Made { flags: libc::NLM_F_DUMP_INTR as u16, ..Made::eth0() };
    assert_eq!(told(&mut state, &[interrupted.bytes(8, 5), done(5)].concat()), [(8, false)]);
    assert!(state.again && !state.dumping);
    let refused = framed(libc::NLMSG_ERROR as u16, 0, 6, &(-libc::EBUSY).to_ne_bytes());
    (state.sequence, state.dumping, state.again) = (6, true, false);
    assert!(told(&mut state, &refused).is_empty());
    assert!(state.again && !state.dumping);
}

#[test]
fn this_machine_answers() {
    let watch = LinkWatch::open().unwrap();
    let links = watch.wait().unwrap();
    let lo = links.iter().find(|link| link.name == "lo").unwrap();
    assert!(lo.index > 0 && !lo.is_ethernet && !lo.by_default());
    watch.wake();
    assert!(watch.wait().unwrap().is_empty());
    assert!(ethernet_interfaces().unwrap().iter().all(LinkEvent::by_default));
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        parse(&bytes);
    }

    #[test]
    fn any_cut_and_any_flipped_bit_is_read(at in 0usize..2000, cut in 0usize..300) {
        let mut bytes = [Made::eth0().slave_of(b"bridge\0").bytes(7, 5), done(5)].concat();
        let bit = at % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes.truncate(cut);
        let mut state = State::new();
        told(&mut state, &bytes);
    }
}
