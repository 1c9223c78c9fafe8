use std::time::Duration;

use super::*;
use crate::engine::ids::PathId;
use crate::engine::request::{Io, Request};
use crate::engine::{Pool, WriteBuf};
use crate::wire::{Ata, Command, Header, Refusal, SECTOR, Sector, Tag, Text};

const NET: NetId = NetId(0);
const START: Time = Time(1_000_000);

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn ident() -> [u8; IDENTIFY_LEN] {
    let mut raw = [0; IDENTIFY_LEN];
    let (serial, model) = (Text::new("serial"), Text::new("model"));
    Identify { serial, model, sectors: 1000, lba48: true, ..Identify::default() }.emit(&mut raw);
    raw
}

/// A device, a clock that is a number, and answers by hand. The target is known by the MAC 0.
struct Rig {
    device: Device<u32>,
    sink: Sink<u32>,
    now: Time,
}

impl Rig {
    fn new() -> Rig {
        let birth = Birth {
            addr: Addr::new(1, 0),
            net: NET,
            mtu: 9000,
            mac: mac(0),
            buffers: 16,
            fw: 1,
            advertised: 16,
            config: Vec::new(),
            ident: Box::new(ident()),
            identify: Identify::parse(&ident()).unwrap(),
            space: TagSpace::new(0),
            seed: 7,
        };
        Rig { device: Device::new(birth, START), sink: Sink::new(Pool::default()), now: START }
    }

    fn submit(&mut self, io: Io) {
        let handle = self.device.handle(None);
        let request = Request { io, handle, nonblock: false, stream: None, reply: 0 };
        self.device.submit(self.now, request, &mut self.sink);
        self.device.work(self.now, &mut self.sink);
    }

    fn write(&mut self, sector: u64) {
        let offset = sector * SECTOR as u64;
        let data = WriteBuf::zeros(&self.sink.pool, offset, SECTOR);
        self.submit(Io::Write { offset, data });
    }

    fn reply(&mut self, from: u8, tag: Tag, error: Option<Refusal>, body: &[u8]) {
        let header = Header {
            dst: mac(99),
            src: mac(from),
            version: 1,
            response: true,
            error,
            addr: Addr::new(1, 0),
            command: Command::Ata,
            tag,
        };
        self.device.receive(self.now, NET, &header, body, &mut self.sink);
        self.device.judge(self.now, NET, &mut self.sink);
        self.device.work(self.now, &mut self.sink);
    }

    fn succeed(&mut self, frame: &Transmit) {
        let mut body = vec![0; 12];
        let ata = frame.ata.unwrap();
        Ata { command: 0x40, count: 0, ..ata }.emit(&mut body);
        if ata == Ata::identify() {
            body.extend_from_slice(&ident());
        }
        self.reply(frame.dst.0[5], frame.tag, None, &body);
    }

    fn sweep(&mut self) {
        self.device.sweep(self.now, &mut self.sink);
        self.device.work(self.now, &mut self.sink);
    }

    /// What has left, IDENTIFYs aside: these are answered at once.
    fn sent(&mut self) -> Vec<Transmit> {
        let mut others = Vec::new();
        while !self.sink.frames.is_empty() {
            for frame in std::mem::take(&mut self.sink.frames) {
                match frame.ata {
                    Some(ata) if ata == Ata::identify() => self.succeed(&frame),
                    _ => others.push(frame),
                }
            }
        }
        others
    }

    /// Lets time pass, at most until `end`, until something leaves.
    fn next_sent(&mut self, end: Time) -> Vec<Transmit> {
        loop {
            let sent = self.sent();
            let Some(due) = self.device.next_deadline().filter(|due| sent.is_empty() && *due <= end) else {
                return sent;
            };
            self.now = self.now.max(due);
            self.sweep();
        }
    }

    /// A write that is answered at once, after the disk has shown who it is if it is in doubt.
    fn write_answered(&mut self) {
        self.write(0);
        for frame in self.sent().iter().filter(|frame| frame.ata.is_some()) {
            self.succeed(frame);
        }
        assert!(self.device.doubt.confirmed());
    }

    /// A write whose first attempt is lost. The answer to the second one leaves its sector in quarantine.
    fn write_with_loss(&mut self, sector: u64) {
        self.write(sector);
        assert_eq!(self.sent().len(), 1);
        let again = self.next_sent(self.now + Duration::from_secs(1));
        assert_eq!(again.len(), 1, "{again:?}");
        self.succeed(&again[0]);
    }
}

#[test]
fn a_write_waits_for_its_own_quarantine_and_not_for_the_last_one() {
    let mut rig = Rig::new();
    rig.write(100);
    let first = rig.sent();
    rig.succeed(&first[0]);
    rig.write_with_loss(0);
    let over = rig.now + Duration::from_secs(1);
    rig.now = rig.now + Duration::from_millis(500);
    rig.write_with_loss(8);
    assert_eq!(rig.device.status().quarantined, 2);
    // Nothing waits for either quarantine: it is enough to look when both are over.
    rig.sweep();
    assert!(rig.device.next_deadline().unwrap() > over + Duration::from_millis(400));
    rig.write(0);
    assert!(rig.sent().is_empty(), "an attempt of the first write may still arrive");
    assert_eq!(rig.next_sent(over + Duration::from_secs(5)).len(), 1);
    let late = rig.now - over;
    assert!(late < Duration::from_millis(20), "{late:?} after the end of its quarantine");
}

#[test]
fn of_many_announcements_the_last_one_is_believed_within_a_second() {
    let mut rig = Rig::new();
    for _ in 0..20 {
        rig.device.announced(rig.now, NET, mac(0), 9000, 16, &mut rig.sink);
        rig.write_answered();
        rig.now = rig.now + Duration::from_millis(1);
    }
    let before = rig.device.stats.confirmations;
    // There is never a silence.
    for _ in 0..20 {
        rig.now = rig.now + Duration::from_millis(50);
        rig.sweep();
        rig.write_answered();
    }
    assert_eq!(rig.device.stats.confirmations, before + 1);
}

#[test]
fn a_command_does_not_leave_over_a_path_that_is_taken_away() {
    let mut rig = Rig::new();
    rig.submit(Io::Config { verb: crate::wire::Verb::Read, string: Vec::new() });
    assert_eq!(rig.sent().len(), 1);
    rig.device.net_removed(rig.now, NET, &mut rig.sink);
    rig.device.work(rig.now, &mut rig.sink);
    assert!(rig.sink.frames.is_empty(), "{:?}", rig.sink.frames);
}

/// A target with two paths, the second one silent since [`START`]. Larger frames are to be tried on it at `climb_at`.
fn with_a_silent_path(climb_at: Time) -> Rig {
    let mut rig = Rig::new();
    rig.device.answered_at(START, NET, mac(1), 9000, 16, &mut rig.sink);
    rig.sent();
    let second = rig.device.paths.get_mut(PathId(1)).unwrap();
    assert_eq!(second.trust, Trust::Active);
    second.ladder.refused(16, START);
    second.ladder.climb_at = climb_at;
    second.taint(START);
    rig.device.timer = START;
    rig.sweep();
    rig
}

#[test]
fn larger_frames_are_tried_in_time_on_a_path_that_was_silent() {
    let climb_at = START + Duration::from_millis(1200);
    let mut rig = with_a_silent_path(climb_at);
    let probe = rig.next_sent(climb_at);
    assert_eq!((probe.len(), probe[0].dst), (1, mac(1)));
    // An answer, but one that says nothing about the size. Nothing else is due.
    rig.device.timer = Time::NEVER;
    rig.reply(1, probe[0].tag, Some(Refusal::BadArgument), &[]);
    assert_eq!(rig.device.paths.get(PathId(1)).unwrap().trust, Trust::Active);
    assert!(rig.device.next_deadline().unwrap() <= climb_at, "{:?}", rig.device.next_deadline());
}

#[test]
fn larger_frames_are_tried_in_time_on_a_path_that_was_silent_and_must_prove_itself() {
    let climb_at = START + Duration::from_millis(300);
    let mut rig = with_a_silent_path(climb_at);
    rig.device.paths.restart();
    rig.device.timer = Time::NEVER;
    rig.device.announced(START, NET, mac(1), 9000, 16, &mut rig.sink);
    assert_eq!(rig.device.paths.get(PathId(1)).unwrap().trust, Trust::Proving);
    assert!(rig.device.next_deadline().unwrap() <= climb_at, "{:?}", rig.device.next_deadline());
}

#[test]
fn the_frame_that_is_the_oldest_after_another_has_ended_is_sent_again_in_time() {
    let mut rig = Rig::new();
    rig.device.paths.get_mut(PathId(0)).unwrap().rtt.sample(START, Duration::from_millis(1));
    for offset in [0, 4096] {
        rig.submit(Io::Read { offset, len: SECTOR });
    }
    let [older, younger] = [0, 8].map(|at| {
        let mut frames = rig.device.flight.iter();
        frames.find(|(_, f)| f.at == Sector(at)).map(|(id, _)| id).unwrap()
    });
    // The timer of the older one has expired once: it is not sent again before it expires a second time.
    rig.device.flight.get_mut(older).unwrap().expiries = 1;
    rig.device.timer = START;
    rig.sweep();
    assert_eq!(rig.device.tail(PathId(0)), None);
    rig.device.abandon(0, rig.now);
    let (frame, due) = rig.device.tail(PathId(0)).unwrap();
    assert_eq!(frame, younger);
    assert!(rig.device.next_deadline().unwrap() <= due, "{:?}, {due:?}", rig.device.next_deadline());
}
