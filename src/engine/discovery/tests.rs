use super::*;
use crate::wire::ATA_LEN;

fn announced(addr: Addr) -> Header {
    let (dst, src) = (Mac::BROADCAST, Mac([2, 0, 0, 0, 0, 9]));
    let command = Command::Config;
    Header { dst, src, version: 1, response: true, error: None, addr, command, tag: Tag::UNSOLICITED }
}

/// A host announces more addresses than there may be, again and again, and answers nothing.
#[test]
fn what_waits_is_bounded_and_asked_by_turns() {
    let mut discovery = Discovery::new(TagSpace::new(0), 0);
    let config = Config { buffers: 1, sectors: 2, ..Config::request(Verb::Read, &[]) };
    let (mut now, mut frames, mut asked) = (Time(0), Vec::new(), 0);
    for round in 0..40u32 {
        for n in 0..6000u32 {
            let addr = Addr::new((n / 200) as u16, (n % 200) as u8);
            discovery.heard(now, NetId(n as u16 % 2), 1500, &announced(addr), &config, &mut frames);
            now.0 += 1000;
            if discovery.next_deadline().is_some_and(|at| at <= now) {
                discovery.sweep(now, &mut frames);
                assert!(discovery.next_deadline().is_none_or(|at| at > now), "a deadline that has passed");
            }
            asked += frames.drain(..).count();
        }
        let waiting: usize = discovery.turns.values().map(|turns| turns.announced.waiting.len()).sum();
        let asking = discovery.turns.values().map(|turns| turns.asking().count()).max().unwrap_or(0);
        assert!(
            discovery.candidates() <= ANNOUNCED_MAX && waiting <= ANNOUNCED_MAX,
            "round {round}: {waiting}"
        );
        assert!(asking <= ASKING_MAX, "round {round}: {asking}");
    }
    // Two netlinks, 48 at a time, five attempts in 7.75 s each: about 62 a second.
    let seconds = now.0 / 1_000_000;
    assert!((40..100).contains(&(asked as u64 / seconds)), "{asked} questions in {seconds} s");
    // And when they are gone for a minute, nothing is left.
    for _ in 0..300 {
        now.0 += 500_000;
        discovery.sweep(now, &mut frames);
    }
    assert_eq!((discovery.candidates(), discovery.next_deadline()), (0, None));
}

/// What leaves depends on what happened, and not on how a table happens to be laid out in memory: a run of a
/// simulator can be replayed.
#[test]
fn netlinks_are_asked_in_their_order() {
    let mut discovery = Discovery::new(TagSpace::new(0), 0);
    let config = Config { buffers: 1, sectors: 2, ..Config::request(Verb::Read, &[]) };
    let mut frames = Vec::new();
    for net in (0..12).rev() {
        let header = announced(Addr::new(net, 0));
        discovery.heard(Time(0), NetId(net), 1500, &header, &config, &mut frames);
    }
    frames.clear();
    discovery.sweep(Time(0) + ASK_AGAIN, &mut frames);
    let asked: Vec<u16> = frames.iter().map(|frame| frame.net.0).collect();
    assert_eq!(asked, (0..12).collect::<Vec<u16>>());
}

const NET: NetId = NetId(0);
const REAL: Mac = Mac([2, 0, 0, 0, 0, 1]);
const FORGED: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// A segment with one initiator; time passes in steps of 10 ms.
struct Bed {
    discovery: Discovery,
    now: Time,
    /// Frames that have left and that the test has not looked at.
    out: Vec<Transmit>,
}

impl Bed {
    fn new() -> Bed {
        Bed { discovery: Discovery::new(TagSpace::new(0), 0), now: Time(1), out: Vec::new() }
    }

    fn config(&mut self, addr: Addr, src: Mac, tag: Tag) {
        let config = Config { buffers: 1, sectors: 2, ..Config::request(Verb::Read, &[]) };
        let header = Header { src, tag, ..announced(addr) };
        self.discovery.heard(self.now, NET, 1500, &header, &config, &mut self.out);
    }

    /// The tag of a query to all.
    fn query(&mut self) -> Tag {
        self.discovery.query(self.now, NET, Addr::ALL, &mut self.out);
        self.out.pop().unwrap().tag
    }

    /// Lets time pass, while this MAC answers what it is asked. The first target that was found, and when.
    fn pass(&mut self, millis: u64, answers: Mac) -> Option<(Found, u64)> {
        for passed in (0..millis).step_by(10) {
            while !self.out.is_empty() {
                let frame = self.out.remove(0);
                match frame.command {
                    _ if frame.dst != answers => {}
                    Command::Config => self.config(frame.addr, answers, frame.tag),
                    _ => {
                        if let Some(found) = self.identify(frame.addr, answers, frame.tag) {
                            return Some((found, passed));
                        }
                    }
                }
            }
            self.now.0 += 10_000;
            self.discovery.sweep(self.now, &mut self.out);
        }
        None
    }

    fn identify(&mut self, addr: Addr, src: Mac, tag: Tag) -> Option<Found> {
        let mut body = vec![0; ATA_LEN + IDENTIFY_LEN];
        // It is ready.
        body[3] = 0x40;
        let disk = Identify { sectors: 32768, lba48: true, ..Identify::default() };
        disk.emit(body[ATA_LEN..].as_mut_array().unwrap());
        let header = Header { src, tag, command: Command::Ata, ..announced(addr) };
        self.discovery.identified(self.now, &header, &body, 0, &mut self.out)
    }
}

/// A forged or old announcement, of a MAC that is silent, does not keep a target away that answers a query.
#[test]
fn an_answer_beats_an_announcement() {
    for later in [0, 2000, 20_000] {
        let mut bed = Bed::new();
        let addr = Addr::new(1, 0);
        bed.config(addr, FORGED, Tag::UNSOLICITED);
        assert!(bed.pass(later, REAL).is_none());
        let tag = bed.query();
        bed.config(addr, REAL, tag);
        let (found, after) = bed.pass(1000, REAL).expect("found");
        assert!(found.birth.mac == REAL && after <= 20, "{later}: after {after} ms");
        assert_eq!(bed.discovery.candidates(), 0);
    }
}

/// Nor does an announcement once it was asked in vain, nor an answer of a MAC that then says nothing.
#[test]
fn a_silent_mac_keeps_no_other_away() {
    let addr = Addr::new(1, 0);
    let mut bed = Bed::new();
    bed.config(addr, FORGED, Tag::UNSOLICITED);
    assert!(bed.pass(9000, REAL).is_none());
    bed.config(addr, REAL, Tag::UNSOLICITED);
    assert!(bed.pass(1000, REAL).is_some(), "an announcement after one that was asked in vain");

    let mut bed = Bed::new();
    let tag = bed.query();
    bed.config(addr, FORGED, tag);
    bed.config(addr, REAL, tag);
    let (found, after) = bed.pass(60_000, REAL).expect("asked in its turn");
    assert!(found.birth.mac == REAL && after < 8000, "after {after} ms");
}

/// More addresses are announced than are kept, and none of them answers: a target that answers a query is found at
/// once all the same.
#[test]
fn announcements_leave_room_for_answers() {
    let mut bed = Bed::new();
    for n in 0..2 * ANNOUNCED_MAX as u32 {
        bed.config(Addr::new(100 + (n / 200) as u16, (n % 200) as u8), FORGED, Tag::UNSOLICITED);
    }
    assert_eq!(bed.discovery.candidates(), ANNOUNCED_MAX);
    assert_eq!(bed.discovery.refused, ANNOUNCED_MAX as u64);
    let tag = bed.query();
    for slot in 0..100 {
        bed.config(Addr::new(1, slot), REAL, tag);
    }
    for slot in 0..100 {
        let (_, after) = bed.pass(1000, REAL).unwrap_or_else(|| panic!("{slot} others were found"));
        assert!(after <= 20, "after {after} ms");
    }
    assert_eq!(bed.discovery.announced, bed.discovery.candidates());
}

/// Answers fill the table, too, and what is forgotten makes room.
#[test]
fn answers_are_bounded() {
    let mut bed = Bed::new();
    let tag = bed.query();
    for n in 0..CANDIDATES_MAX as u32 + 100 {
        bed.config(Addr::new((n / 200) as u16, (n % 200) as u8), FORGED, tag);
    }
    assert_eq!((bed.discovery.candidates(), bed.discovery.refused), (CANDIDATES_MAX, 100));
    assert!(bed.pass(62_000, REAL).is_none());
    assert_eq!((bed.discovery.candidates(), bed.discovery.announced), (0, 0));
}
