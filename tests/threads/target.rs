//! The target behind real threads: `Export` served on the links that connect in one process.
//!
//! What must hold: every request that arrives is answered once, whatever the other link does meanwhile; two hosts on
//! two links see one disk; a wire that loses, repeats and delays frames never makes a write land elsewhere.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use aoefs::export::Export;
use aoefs::export::server::Server;
use aoefs::link::loopback::{LoopbackLink, pair};

use crate::seeded;
use aoefs::link::{Batch, Link, OutFrame, Received};
use aoefs::target::{Image, MemoryImage, TargetConfig};
use aoefs::wire::{
    ATA_LEN, Addr, Ata, Command, Config, ETHERNET, HEADER_LEN, Header, MIN_FRAME, Mac, SECTOR, Sector, Tag,
    Verb,
};

const SECTORS: u64 = 4096;
const OWN: Addr = Addr::new(5, 1);

/// A host that asks, and waits for the answer. A thread listens for it, because a link's receive has no time limit.
struct Host {
    link: Arc<LoopbackLink>,
    arrived: Receiver<Vec<u8>>,
    target: Mac,
    tag: u32,
}

impl Host {
    fn new(link: Arc<LoopbackLink>, target: Mac) -> Host {
        let (to, arrived) = channel();
        let from = link.clone();
        thread::spawn(move || {
            let mut batch = Batch::new(from.mtu() + ETHERNET);
            while let Ok(Received::Frames) = from.recv(&mut batch) {
                batch.frames().for_each(|frame| drop(to.send(frame.to_vec())));
            }
        });
        Host { link, arrived, target, tag: Tag::OURS }
    }

    fn frame(&mut self, command: Command, body: &[u8]) -> Vec<u8> {
        self.tag += 1;
        let header = Header {
            dst: self.target,
            src: self.link.mac(),
            version: 1,
            response: false,
            error: None,
            addr: OWN,
            command,
            tag: Tag(self.tag),
        };
        let mut frame = vec![0; HEADER_LEN];
        header.emit(&mut frame);
        frame.extend_from_slice(body);
        frame.resize(frame.len().max(MIN_FRAME), 0);
        frame
    }

    /// Sends until an answer with the tag comes.
    fn ask(&mut self, command: Command, body: &[u8]) -> Vec<u8> {
        let frame = self.frame(command, body);
        let tag = Tag(self.tag);
        for _ in 0..100 {
            self.link.send(&[OutFrame { head: &frame, body: &[] }]);
            while let Ok(frame) = self.arrived.recv_timeout(Duration::from_millis(50)) {
                if is_answer(&frame, tag) {
                    return frame;
                }
            }
        }
        panic!("no answer to {command:?}");
    }

    fn ata(&mut self, ata: Ata, data: &[u8]) -> (Ata, Vec<u8>) {
        let mut body = vec![0; ATA_LEN];
        ata.emit(&mut body);
        body.extend_from_slice(data);
        let answer = self.ask(Command::Ata, &body);
        let (header, body) = Header::parse(&answer).unwrap();
        assert_eq!((header.error, header.addr), (None, OWN));
        let (registers, data) = Ata::parse(body).unwrap();
        (registers, data.to_vec())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.link.wake();
    }
}

fn is_answer(frame: &[u8], tag: Tag) -> bool {
    Header::parse(frame).is_ok_and(|(header, _)| header.response && header.tag == tag)
}

fn target() -> Arc<Export> {
    Export::new(TargetConfig::new(OWN, "threads"), Box::new(MemoryImage::new(SECTORS)))
}

#[test]
fn two_links_see_one_disk() {
    let export = target();
    let mut hosts = Vec::new();
    let mut servers = Vec::new();
    for (name, mtu) in [("a", 1500), ("b", 9000)] {
        let (ours, theirs) = pair(name, name, mtu);
        hosts.push(Host::new(ours, theirs.mac()));
        servers.push(Server::start(theirs, export.clone()).unwrap());
    }
    for n in 0..50u8 {
        let at = Sector(u64::from(n) * 3);
        let [a, b] = &mut hosts[..] else { unreachable!() };
        let (from, to) = if n % 2 == 0 { (a, b) } else { (b, a) };
        let (done, _) = from.ata(Ata::write(at, 2, true), &[n; 2 * SECTOR]);
        assert!(!done.failed());
        let (done, data) = to.ata(Ata::read(at, 2, true), &[]);
        assert!(!done.failed() && data[..2 * SECTOR].iter().all(|byte| *byte == n));
    }
    drop(servers);
    assert_eq!(export.lock().counters().sectors_written, 100);
}

#[test]
fn a_bad_wire_never_moves_a_write() {
    let export = target();
    let (ours, theirs) = pair("host", "target", 1500);
    ours.set_hook(Some(seeded(11, 100_000, 100_000, 100_000, Duration::from_millis(5))));
    theirs.set_hook(Some(seeded(12, 100_000, 100_000, 100_000, Duration::from_millis(5))));
    let server = Server::start(theirs.clone(), export.clone()).unwrap();
    let mut host = Host::new(ours, theirs.mac());
    for n in 0..100u8 {
        let (done, _) = host.ata(Ata::write(Sector(u64::from(n) * 2), 1, n % 2 == 0), &[n + 1; SECTOR]);
        assert!(!done.failed());
    }
    drop(server);
    let mut disk = vec![0xee; 200 * SECTOR];
    export.lock().image_mut().read_at(Sector(0), &mut disk).unwrap();
    for (sector, data) in disk.chunks(SECTOR).enumerate() {
        let expected = if sector % 2 == 0 { sector as u8 / 2 + 1 } else { 0 };
        assert!(data.iter().all(|byte| *byte == expected), "sector {sector}");
    }
}

#[test]
fn a_burst_is_answered_in_order() {
    let (ours, theirs) = pair("host", "target", 1500);
    let server = Server::start(theirs.clone(), target()).unwrap();
    let mut host = Host::new(ours.clone(), theirs.mac());
    let query = Config::request(Verb::Read, &[]);
    let mut body = vec![0; query.len()];
    query.emit(&mut body);
    let first = host.tag + 1;
    let frames: Vec<Vec<u8>> = (0..200).map(|_| host.frame(Command::Config, &body)).collect();
    let out: Vec<OutFrame<'_>> = frames.iter().map(|frame| OutFrame { head: frame, body: &[] }).collect();
    assert_eq!(ours.send(&out).0, 200);
    let mut tags = Vec::new();
    while tags.len() < 200 {
        let frame = host.arrived.recv_timeout(Duration::from_secs(5)).unwrap();
        let tag = Header::parse(&frame).unwrap().0.tag;
        // The announcement of the start may be among them.
        tags.extend((tag != Tag::UNSOLICITED).then_some(tag.0));
    }
    assert_eq!(tags, (first..first + 200).collect::<Vec<_>>());
    assert_eq!(server.lost(), 0);
}
