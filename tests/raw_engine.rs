//! Raw ATA commands, masks and reservations in the engine: a device, a clock that is a number, and answers by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helper fails the test")]

use std::time::Duration;

use aoefs::engine::{
    Birth, Cause, Device, Error, Event, HEAD_MAX, Io, NetId, Op, Outcome, Output, Pool, REQUESTS_MAX,
    Request, Reservation, Sink, TagSpace, Time, Transmit, WriteBuf,
};
use aoefs::wire::{
    Addr, Ata, Command, DATA_OFFSET, Directive, HEADER_LEN, Header, Identify, Mac, Mask, MaskError, MaskOp,
    MaskVerb, Refusal, Reserve, ReserveVerb, Sector, Tag, Text, Verb, ata::cmd, fill_trim, smart,
};

const ADDR: Addr = Addr::new(1, 0);
const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 9]);
const SECTORS: u64 = 1000;

fn ident() -> (Identify, [u8; 512]) {
    let mut raw = [0; 512];
    let identify = Identify {
        serial: Text::new("raw"),
        model: Text::new("model"),
        firmware: Text::new("1"),
        sectors: SECTORS,
        lba48: true,
        flush: aoefs::wire::FlushKind::FlushExt,
        trim: true,
        trim_zeroes: true,
        max_trim_blocks: 8,
        smart: true,
        write_cache: true,
        physical_log2: 0,
        rotation: 1,
    };
    identify.emit(&mut raw);
    (Identify::parse(&raw).unwrap(), raw)
}

struct Rig {
    device: Device<u32>,
    sink: Sink<u32>,
    now: Time,
    asked: u32,
}

impl Rig {
    /// A target on a wire of this MTU.
    fn new(mtu: usize) -> Rig {
        Rig::sharing(mtu, Pool::default())
    }

    /// The same, one of several that share a pool.
    fn sharing(mtu: usize, pool: Pool) -> Rig {
        let (identify, raw) = ident();
        let birth = Birth {
            addr: ADDR,
            net: NetId(0),
            mtu,
            mac: THEIRS,
            buffers: 16,
            fw: 1,
            advertised: 16,
            config: Vec::new(),
            ident: Box::new(raw),
            identify,
            space: TagSpace::new(0),
            seed: 7,
        };
        let now = Time(1_000_000);
        Rig { device: Device::new(birth, now), sink: Sink::new(pool), now, asked: 0 }
    }

    fn submit(&mut self, io: Io) -> u32 {
        self.asked += 1;
        let request = Request {
            io,
            handle: self.device.handle(None),
            nonblock: false,
            stream: None,
            reply: self.asked,
        };
        self.device.submit(self.now, request, &mut self.sink);
        self.device.work(self.now, &mut self.sink);
        self.asked
    }

    fn sent(&mut self) -> Vec<Transmit> {
        std::mem::take(&mut self.sink.frames)
    }

    /// The one frame that left.
    fn one(&mut self) -> Transmit {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.pop().unwrap()
    }

    fn reply(&mut self, to: Tag, command: Command, error: Option<Refusal>, body: &[u8]) {
        let header = Header {
            dst: OURS,
            src: THEIRS,
            version: 1,
            response: true,
            error,
            addr: ADDR,
            command,
            tag: to,
        };
        self.device.receive(self.now, NetId(0), &header, body, &mut self.sink);
        self.device.judge(self.now, NetId(0), &mut self.sink);
        self.device.work(self.now, &mut self.sink);
    }

    /// A disk answers with these registers and this data.
    fn answer(&mut self, frame: &Transmit, status: u8, data: &[u8]) {
        let mut body = vec![0; 12];
        Ata { command: status, count: 0, ..frame.ata.unwrap() }.emit(&mut body);
        body.extend_from_slice(data);
        self.reply(frame.tag, Command::Ata, None, &body);
    }

    /// Time passes; whatever comes due is done, and every IDENTIFY is answered if the target is there.
    fn pass(&mut self, time: Duration, there: bool) -> Vec<Transmit> {
        let end = self.now + time;
        let mut others = Vec::new();
        loop {
            for frame in self.sent() {
                match frame.ata {
                    Some(ata) if ata == Ata::identify() && there => self.answer(&frame, 0x40, &ident().1),
                    Some(ata) if ata == Ata::identify() => {}
                    _ => others.push(frame),
                }
            }
            let next = self.device.next_deadline().filter(|due| *due <= end);
            let Some(due) = next else { break };
            self.now = self.now.max(due);
            self.device.sweep(self.now, &mut self.sink);
            self.device.work(self.now, &mut self.sink);
        }
        self.now = end;
        others
    }

    fn outcome(&mut self, of: u32) -> Option<Outcome> {
        let at = self.sink.done.iter().position(|(id, _)| *id == of)?;
        Some(self.sink.done.swap_remove(at).1)
    }

    fn ata(&mut self, of: u32) -> (Ata, Vec<u8>) {
        match self.outcome(of) {
            Some(Ok(Output::Ata { ata, data })) => (ata, data),
            other => panic!("{other:?}"),
        }
    }

    fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.sink.events)
    }

    /// Nothing is left.
    fn end(mut self) {
        self.pass(Duration::from_secs(20), true);
        assert_eq!((self.device.requests(), self.device.frames(), self.device.locked()), (0, 0, 0));
        assert!(self.device.is_up() && self.sink.done.is_empty());
    }
}

fn raw(ata: Ata, data: Vec<u8>, expect: usize) -> Io {
    Io::Ata { ata, data, expect }
}

#[test]
fn the_answer_brings_its_registers_and_exactly_its_data() {
    let mut rig = Rig::new(1500);
    let id = rig.submit(raw(Ata::smart(smart::READ_DATA, 0), Vec::new(), 512));
    let frame = rig.one();
    assert_eq!(frame.ata, Some(Ata::smart(smart::READ_DATA, 0)));
    // Longer by padding, as some switches and targets have it.
    rig.answer(&frame, 0x50, &[7; 540]);
    let (ata, data) = rig.ata(id);
    assert_eq!((ata.command, data), (0x50, vec![7; 512]));
    // What fails brings its registers and no data.
    let id = rig.submit(raw(Ata::smart(smart::READ_DATA, 0), Vec::new(), 512));
    let frame = rig.one();
    rig.answer(&frame, 0x41, &[0; 24]);
    let (ata, data) = rig.ata(id);
    assert_eq!((ata.command, data.len()), (0x41, 0));
    rig.end();
}

#[test]
fn the_write_flag_follows_the_data() {
    let mut rig = Rig::new(9000);
    let lying = Ata { aflags: 0x41, ..Ata::check_power() };
    let id = rig.submit(raw(lying, Vec::new(), 0));
    let frame = rig.one();
    assert_eq!(frame.ata.unwrap().aflags, 0x40);
    rig.answer(&frame, 0x40, &[]);
    rig.ata(id);
    let id = rig.submit(raw(Ata { aflags: 0x40, ..Ata::trim(2) }, vec![1; 1024], 0));
    let frame = rig.one();
    assert_eq!((frame.ata.unwrap().aflags, frame.payload().len()), (0x41, 1024));
    let mut head = [0; HEAD_MAX];
    assert_eq!(frame.head(OURS, &mut head), DATA_OFFSET);
    assert_eq!(head[HEADER_LEN], 0x41);
    rig.answer(&frame, 0x40, &[]);
    rig.ata(id);
    rig.end();
}

#[test]
fn what_does_not_fit_into_a_frame_is_invalid() {
    let mut rig = Rig::new(1500);
    for io in [
        raw(Ata::read(Sector(0), 3, true), Vec::new(), 1536),
        raw(Ata::write(Sector(0), 3, true), vec![0; 1536], 0),
        raw(Ata::read(Sector(0), 1, true), Vec::new(), 1 << 20),
        raw(Ata::read(Sector(0), 1, true), vec![0; 512], 512),
    ] {
        let id = rig.submit(io);
        assert!(matches!(rig.outcome(id), Some(Err(Error::Invalid))));
    }
    let id = rig.submit(raw(Ata::read(Sector(0), 2, true), Vec::new(), 1024));
    let frame = rig.one();
    // It fits no more when its turn comes to be sent again.
    rig.device.net_changed(rig.now, NetId(0), true, 600, &mut rig.sink);
    rig.answer(&frame, 0x40, &[1; 512]);
    assert!(rig.outcome(id).is_none());
    rig.pass(Duration::from_secs(5), true);
    assert!(matches!(rig.outcome(id), Some(Err(Error::Invalid))));
    rig.end();
}

#[test]
fn an_answer_without_its_data_counts_as_lost_three_times() {
    let mut rig = Rig::new(9000);
    let id = rig.submit(raw(Ata::check_power(), Vec::new(), 512));
    for round in 0..3 {
        assert!(rig.outcome(id).is_none(), "round {round}");
        let frame = match round {
            0 => rig.one(),
            _ => rig.pass(Duration::from_secs(8), true).pop().unwrap(),
        };
        rig.answer(&frame, 0x40, &[0; 24]);
    }
    assert!(matches!(rig.outcome(id), Some(Err(Error::Io))));
    assert!(rig.events().iter().any(|e| e.to_string().contains("answered without its data")));
    rig.end();
}

#[test]
fn once_only_what_may_be_repeated_is() {
    for (ata, repeated) in [
        (Ata::check_power(), true),
        (Ata::smart(smart::STATUS, 0), true),
        (Ata::smart(smart::OFFLINE_IMMEDIATE, 1), false),
        // SECURITY UNLOCK counts attempts.
        (Ata { command: 0xf2, ..Ata::check_power() }, false),
    ] {
        let mut rig = Rig::new(9000);
        rig.device.set_deadline(Some(Duration::from_secs(10)));
        let id = rig.submit(raw(ata, Vec::new(), 0));
        let first = rig.one();
        let again = rig.pass(Duration::from_secs(9), true);
        assert_eq!(!again.is_empty(), repeated, "{ata:?}");
        assert!(rig.outcome(id).is_none());
        // A late answer is as good as any.
        rig.answer(&first, 0x40, &[]);
        rig.pass(Duration::from_millis(100), true);
        rig.ata(id);
        rig.end();
    }
}

#[test]
fn deadline_of_a_raw_command_does_not_take_the_target_down() {
    for nofail in [false, true] {
        let mut rig = Rig::new(9000);
        rig.device.set_deadline(Some(Duration::from_secs(3)));
        rig.device.set_nofail(nofail);
        let id = rig.submit(raw(Ata { command: 0x8e, ..Ata::check_power() }, Vec::new(), 0));
        rig.pass(Duration::from_millis(200), true);
        // It answers everything else.
        let read = rig.submit(Io::Read { offset: 0, len: 512 });
        let frame = rig.one();
        rig.answer(&frame, 0x40, &[0; 512]);
        assert!(matches!(rig.outcome(read), Some(Ok(Output::Data(_)))));
        rig.pass(Duration::from_secs(3), true);
        assert!(matches!(rig.outcome(id), Some(Err(Error::Io))));
        assert!(rig.device.is_up());
        rig.end();
    }
    // One that answers nothing is down.
    let mut rig = Rig::new(9000);
    rig.device.set_deadline(Some(Duration::from_secs(3)));
    let id = rig.submit(raw(Ata::smart(smart::STATUS, 0), Vec::new(), 0));
    rig.pass(Duration::from_secs(4), false);
    assert!(matches!(rig.outcome(id), Some(Err(Error::Io))));
    assert!(!rig.device.is_up());
}

#[test]
fn a_raw_write_excludes_what_overlaps_and_nothing_else() {
    let mut rig = Rig::new(9000);
    let write = |at: u64| Io::Write { offset: at * 512, data: WriteBuf::zeros(&Pool::default(), 0, 512) };
    let raw_write = rig.submit(raw(Ata::write(Sector(10), 2, true), vec![1; 1024], 0));
    let frame = rig.one();
    let same = rig.submit(write(11));
    assert!(rig.sent().is_empty(), "it waits for the raw write");
    let other = rig.submit(write(12));
    let free = rig.one();
    rig.answer(&free, 0x40, &[]);
    assert!(rig.outcome(other).is_some());
    rig.answer(&frame, 0x40, &[]);
    rig.ata(raw_write);
    let waited = rig.one();
    rig.answer(&waited, 0x40, &[]);
    assert!(rig.outcome(same).is_some());
    // Nobody knows what this one does: everything waits.
    let unknown = rig.submit(raw(Ata { command: 0x8e, ..Ata::check_power() }, Vec::new(), 0));
    let frame = rig.one();
    let waits = rig.submit(write(500));
    assert!(rig.sent().is_empty());
    // And this one changes nothing.
    let status = rig.submit(raw(Ata::smart(smart::STATUS, 0), Vec::new(), 0));
    let free = rig.one();
    rig.answer(&free, 0x40, &[]);
    rig.ata(status);
    rig.answer(&frame, 0x40, &[]);
    rig.ata(unknown);
    let waited = rig.one();
    rig.answer(&waited, 0x40, &[]);
    assert!(rig.outcome(waits).is_some());
    rig.end();
}

/// A look that was sent twice keeps nobody waiting; a write that was, does.
#[test]
fn only_copies_that_can_do_harm_are_in_quarantine() {
    for (ata, data, held) in [
        (Ata::smart(smart::STATUS, 0), Vec::new(), 0),
        (Ata::write(Sector(3), 1, true), vec![0; 512], 1),
        (Ata { command: 0x8e, ..Ata::check_power() }, Vec::new(), 0),
    ] {
        let mut rig = Rig::new(9000);
        let id = rig.submit(raw(ata, data, 0));
        let first = rig.one();
        rig.pass(Duration::from_secs(2), true);
        rig.answer(&first, 0x40, &[]);
        rig.pass(Duration::from_micros(1), true);
        rig.ata(id);
        assert_eq!(rig.device.status().quarantined, held, "{ata:?}");
        rig.end();
    }
}

/// `setsize` bounds what goes out in one frame as it does the rest: as a disk of that size would answer, and nothing
/// is sent.
#[test]
fn a_raw_command_beyond_the_size_that_is_shown_is_not_sent() {
    let mut rig = Rig::new(9000);
    let mut trim = [0; 512];
    fill_trim(Sector(90), 11, &mut trim);
    let beyond = || {
        [
            (Ata::read(Sector(99), 2, true), Vec::new(), 1024),
            (Ata::write(Sector(100), 1, true), vec![0; 512], 0),
            (Ata { command: cmd::READ_VERIFY_EXT, ..Ata::read(Sector(99), 2, true) }, Vec::new(), 0),
            (Ata::trim(1), trim.to_vec(), 0),
        ]
    };
    rig.device.set_size(Some(100 * 512)).unwrap();
    for (ata, data, expect) in beyond() {
        let id = rig.submit(raw(ata, data, expect));
        assert!(rig.sent().is_empty(), "{ata:?}");
        let (said, data) = rig.ata(id);
        assert_eq!((said.command, said.feature, data.len()), (0x41, 0x10, 0), "{ata:?}");
    }
    let id = rig.submit(raw(Ata::write(Sector(99), 1, true), vec![0; 512], 0));
    let frame = rig.one();
    rig.answer(&frame, 0x40, &[]);
    rig.ata(id);
    rig.device.set_size(None).unwrap();
    for (ata, data, expect) in beyond() {
        let id = rig.submit(raw(ata, data, expect));
        let frame = rig.one();
        rig.answer(&frame, 0x40, &vec![0; expect]);
        rig.ata(id);
    }
    rig.end();
}

/// A late copy of a command must not undo a newer one: config, mask and reservation list are held apart as sectors are.
#[test]
fn a_newer_command_waits_for_late_copies_of_an_older_one() {
    let config = |n: u8| Io::Config { verb: Verb::Force, string: vec![n; 4] };
    let mask = |n: u8| Io::Mask(vec![Directive { op: MaskOp::Add, mac: Mac([2, 0, 0, 0, 0, n]) }]);
    let reserve = |n: u8| Io::Reserve(Reservation::Force(vec![Mac([2, 0, 0, 0, 0, n])]));
    let changes: [(&str, &dyn Fn(u8) -> Io); 3] =
        [("config", &config), ("mask", &mask), ("reserve", &reserve)];
    for (name, change) in changes {
        for late in [true, false] {
            let mut rig = Rig::new(9000);
            let answer = |rig: &mut Rig, to: &Transmit| {
                // As it was asked, but for the error code, which is 0.
                let body = to.payload().to_vec();
                rig.reply(to.tag, to.command, None, &body);
            };
            let first = rig.submit(change(1));
            let copy = rig.one();
            let again = rig.pass(Duration::from_millis(700), true);
            let second = again.last().expect("it is sent again");
            answer(&mut rig, second);
            assert!(matches!(rig.outcome(first), Some(Ok(_))), "{name}");
            let next = rig.submit(change(2));
            // What is only read, and what changes something else, does not wait; nor does a flush.
            let flush = rig.submit(Io::Flush);
            let frame = rig.one();
            rig.answer(&frame, 0x40, &[]);
            assert!(rig.outcome(flush).is_some(), "{name}");
            assert!(rig.pass(Duration::from_millis(900), true).is_empty(), "{name}: a copy is on its way");
            if late {
                for old in std::iter::once(&copy).chain(&again[..again.len() - 1]) {
                    answer(&mut rig, old);
                }
            } else {
                rig.pass(Duration::from_millis(200), true).into_iter().for_each(|f| rig.sink.frames.push(f));
            }
            let frame = rig.one();
            answer(&mut rig, &frame);
            assert!(matches!(rig.outcome(next), Some(Ok(_))), "{name}");
            rig.end();
        }
    }
}

#[test]
fn refusals_have_their_reasons() {
    for (refusal, error) in [
        (Refusal::UnknownCommand, Error::NotSupported),
        (Refusal::BadArgument, Error::Invalid),
        (Refusal::Unavailable, Error::Io),
        (Refusal::Reserved, Error::Busy),
    ] {
        let mut rig = Rig::new(9000);
        let id = rig.submit(raw(Ata::check_power(), Vec::new(), 0));
        let frame = rig.one();
        rig.reply(frame.tag, Command::Ata, Some(refusal), &[0; 36]);
        assert!(matches!(rig.outcome(id), Some(Err(e)) if e == error), "{refusal:?}");
        if refusal == Refusal::Reserved {
            let asks = rig.one();
            assert_eq!(asks.command, Command::Reserve);
            let mut body = [0; 36];
            Reserve { verb: ReserveVerb::Read }.emit(&[THEIRS], &mut body);
            rig.events();
            rig.reply(asks.tag, Command::Reserve, None, &body);
            assert_eq!(rig.events(), [Event::Reserved(vec![THEIRS])]);
            // However many are refused, it is asked once a second.
            for _ in 0..5 {
                let id = rig.submit(raw(Ata::check_power(), Vec::new(), 0));
                let frame = rig.one();
                rig.reply(frame.tag, Command::Ata, Some(refusal), &[0; 36]);
                assert!(rig.outcome(id).is_some() && rig.sent().is_empty());
            }
        }
        rig.end();
    }
}

#[test]
fn lists_that_a_target_does_not_know_and_a_target_that_is_away() {
    for io in [|| Io::Mask(Vec::new()), || Io::Reserve(Reservation::Read)] {
        let mut rig = Rig::new(9000);
        let id = rig.submit(io());
        let asked = rig.pass(Duration::from_millis(1990), true);
        assert!(!asked.is_empty() && rig.outcome(id).is_none());
        rig.pass(Duration::from_millis(20), true);
        assert!(matches!(rig.outcome(id), Some(Err(Error::NotSupported))));
        assert!(rig.device.is_up());
        rig.end();
        let mut rig = Rig::new(9000);
        let id = rig.submit(io());
        rig.pass(Duration::from_millis(2010), false);
        assert!(matches!(rig.outcome(id), Some(Err(Error::Timeout))));
    }
}

/// A target that has told of a list knows it: its answer was lost, or it is slow.
#[test]
fn a_list_that_a_target_knows_is_not_one_that_it_does_not_know() {
    let (mut mask, mut reserve) = ([0; 60], [0; 60]);
    Mask { verb: MaskVerb::Read, error: MaskError::None, directives: 0 }.emit([], &mut mask);
    Reserve { verb: ReserveVerb::Read }.emit(&[], &mut reserve);
    for (io, body) in [(|| Io::Mask(Vec::new())) as fn() -> Io, || Io::Reserve(Reservation::Read)]
        .into_iter()
        .zip([mask, reserve])
    {
        let mut rig = Rig::new(9000);
        let id = rig.submit(io());
        let frame = rig.one();
        rig.reply(frame.tag, frame.command, None, &body);
        assert!(matches!(rig.outcome(id), Some(Ok(Output::Macs(_)))));
        let id = rig.submit(io());
        rig.pass(Duration::from_millis(2010), true);
        assert!(matches!(rig.outcome(id), Some(Err(Error::Timeout))));
        rig.end();
    }
}

#[test]
fn answers_about_lists() {
    let mut rig = Rig::new(9000);
    let mut body = [0; 60];
    let ask = |rig: &mut Rig, io, error, body: &[u8]| {
        let id = rig.submit(io);
        let frame = rig.one();
        rig.reply(frame.tag, frame.command, error, body);
        rig.outcome(id).unwrap()
    };
    Mask { verb: MaskVerb::Edit, error: MaskError::Full, directives: 1 }.emit([], &mut body);
    let full = ask(&mut rig, Io::Mask(Vec::new()), None, &body);
    assert!(matches!(full, Ok(Output::MaskRefused { error: MaskError::Full, index: 1 })));
    let unknown = ask(&mut rig, Io::Mask(Vec::new()), Some(Refusal::UnknownCommand), &[0; 36]);
    assert!(matches!(unknown, Err(Error::NotSupported)));
    let bad = ask(&mut rig, Io::Reserve(Reservation::Read), Some(Refusal::BadArgument), &[0; 36]);
    assert!(matches!(bad, Err(Error::Invalid)));
    // Held by somebody else: busy, and the log says by whom. Held as we wished: an earlier copy of ours did that.
    let len = Reserve { verb: ReserveVerb::Set }.emit(&[THEIRS], &mut body);
    rig.events();
    let set = |mac| Io::Reserve(Reservation::Set(vec![mac]));
    assert!(matches!(ask(&mut rig, set(OURS), Some(Refusal::Reserved), &body[..len]), Err(Error::Busy)));
    assert_eq!(rig.events(), [Event::Reserved(vec![THEIRS])]);
    let done = ask(&mut rig, set(THEIRS), Some(Refusal::Reserved), &body[..len]);
    assert!(matches!(done, Ok(Output::Macs(list)) if list == [THEIRS]));
    rig.end();
}

/// A target that is away under nofail: requests wait for it for ever, and must not take everything.
fn away(pool: Pool) -> Rig {
    let mut rig = Rig::sharing(9000, pool);
    rig.device.set_nofail(true);
    rig
}

fn write(rig: &Rig, len: usize) -> Io {
    Io::Write { offset: 0, data: WriteBuf::copy_from(&rig.sink.pool, 0, &vec![7; len]) }
}

#[test]
fn one_request_more_than_a_target_may_have_fails_at_once() {
    let mut rig = away(Pool::default());
    for _ in 0..REQUESTS_MAX {
        let id = rig.submit(Io::Read { offset: 0, len: 512 });
        assert!(rig.sink.done.is_empty(), "{id}");
    }
    rig.events();
    let id = rig.submit(Io::Read { offset: 1024, len: 512 });
    assert!(matches!(rig.outcome(id), Some(Err(Error::Io))));
    let why = Event::Failed { op: Op::Read, at: Some(Sector(2)), cause: Cause::Crowded };
    assert_eq!(rig.events(), std::slice::from_ref(&why));
    assert_eq!(why.to_string(), "read failed at sector 2: 16384 requests wait for this target already");
    assert_eq!(rig.device.requests(), REQUESTS_MAX);
    rig.device.fail_all(rig.now, &mut rig.sink);
    assert_eq!(rig.sink.done.len(), REQUESTS_MAX);
}

#[test]
fn writes_that_wait_hold_a_bounded_amount_of_memory() {
    const LEN: usize = 500 * 512;
    let pool = Pool::with_writes(8 * LEN);
    let mut rigs = [(); 3].map(|()| away(pool.clone()));
    // Half of it for one target; two of them take all of it.
    for (rig, most) in rigs.iter_mut().zip([4, 4, 0]) {
        for n in 0..6 {
            let id = rig.submit(write(rig, LEN));
            let outcome = rig.outcome(id);
            assert_eq!(outcome.is_none(), n < most, "write {n}: {outcome:?}");
            assert!(matches!(outcome, None | Some(Err(Error::Io))), "{outcome:?}");
        }
        let refused = Event::Failed { op: Op::Write, at: Some(Sector(0)), cause: Cause::Memory };
        let count = rig.events().iter().filter(|event| **event == refused).count();
        assert_eq!(count, 6 - most);
        let id = rig.submit(Io::Read { offset: 0, len: 512 });
        assert!(rig.outcome(id).is_none(), "what holds no such memory is taken");
    }
    assert_eq!(pool.writes(), 8 * LEN);
    // What one target gives back, another may take.
    let [first, _, third] = &mut rigs;
    first.device.fail_all(first.now, &mut first.sink);
    assert_eq!(pool.writes(), 4 * LEN);
    let id = third.submit(write(third, LEN));
    assert!(third.outcome(id).is_none());
    drop(rigs);
    assert_eq!(pool.writes(), 0);
}
