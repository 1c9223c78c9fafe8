//! One device whose target answers every frame at once and in order: the engine's share of a request, and nothing else.
//!
//! Per frame it does what the runtime does besides system calls: the head of the request is emitted, the header of
//! the answer parsed. The answer's own bytes are there already, as in a batch that was received.

use std::hint::black_box;

use aoefs::engine::{
    Birth, Device, HEAD_MAX, Io, NetId, Output, Pool, Request, Sink, Stream, TagSpace, Time, Transmit,
    WriteBuf,
};
use aoefs::wire::{
    ATA_LEN, Addr, Ata, Command, DATA_OFFSET, FlushKind, HEADER_LEN, Header, IDENTIFY_LEN, Identify,
    MIN_FRAME, Mac, SECTOR, Tag, Text,
};

const NET: NetId = NetId(0);
const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
const ADDR: Addr = Addr::new(1, 0);

/// See the module.
pub struct Drive {
    device: Device<()>,
    sink: Sink<()>,
    pool: Pool,
    now: Time,
    answer: Vec<u8>,
    head: [u8; HEAD_MAX],
    round: Vec<Transmit>,
    at: u64,
    /// Frames sent so far.
    pub frames: u64,
}

fn answer_to(tag: Tag, out: &mut [u8]) {
    let header = Header {
        dst: OWN,
        src: THEIRS,
        version: 1,
        response: true,
        error: None,
        addr: ADDR,
        command: Command::Ata,
        tag,
    };
    header.emit(out);
}

impl Drive {
    /// With frames of so many sectors: 2 as at MTU 1500, 16 as at 9000.
    pub fn new(sectors: u8) -> Drive {
        let identify = Identify {
            serial: Text::new("driven"),
            sectors: 1 << 24,
            lba48: true,
            flush: FlushKind::FlushExt,
            ..Identify::default()
        };
        let mut ident = Box::new([0; IDENTIFY_LEN]);
        identify.emit(&mut ident);
        let birth = Birth {
            addr: ADDR,
            net: NET,
            mtu: 9000,
            mac: THEIRS,
            buffers: 128,
            fw: 1,
            advertised: sectors,
            config: Vec::new(),
            ident,
            identify,
            seed: 1,
            space: TagSpace::new(1),
        };
        let pool = Pool::default();
        let mut answer = vec![0; DATA_OFFSET + usize::from(sectors) * SECTOR];
        Ata { command: 0x40, ..Ata::default() }.emit(&mut answer[HEADER_LEN..HEADER_LEN + ATA_LEN]);
        Drive {
            device: Device::new(birth, Time(1_000_000)),
            sink: Sink::new(pool.clone()),
            pool,
            now: Time(1_000_000),
            answer,
            head: [0; HEAD_MAX],
            round: Vec::new(),
            at: 0,
            frames: 0,
        }
    }

    /// One read, from submit to reply.
    pub fn read(&mut self, len: usize) {
        self.request(Io::Read { offset: 0, len }, None);
    }

    /// The next read of a reader that is read ahead of.
    pub fn read_on(&mut self, len: usize) {
        let offset = self.at;
        self.at = (self.at + len as u64) % (1 << 32);
        self.request(Io::Read { offset, len }, Some(Stream(1)));
    }

    /// One write, from the user's bytes to the reply.
    pub fn write(&mut self, bytes: &[u8]) {
        let data = WriteBuf::copy_from(&self.pool, 0, bytes);
        self.request(Io::Write { offset: 0, data }, None);
    }

    fn request(&mut self, io: Io, stream: Option<Stream>) {
        let Drive { device, sink, now, answer, head, frames, round, .. } = self;
        let handle = device.handle(None);
        device.submit(*now, Request { io, handle, nonblock: false, stream, reply: () }, sink);
        device.work(*now, sink);
        // First in, first out without a queue: each round takes what the one before has caused.
        std::mem::swap(round, &mut sink.frames);
        while !round.is_empty() {
            for frame in round.drain(..) {
                *frames += 1;
                black_box(frame.head(OWN, head));
                black_box(frame.payload());
                answer_to(frame.tag, answer);
                let writes = frame.ata.is_some_and(|ata| ata.aflags & 1 != 0);
                let bytes = if writes { &answer[..MIN_FRAME] } else { &answer[..] };
                drop(frame);
                now.0 += 1;
                if let Ok((header, body)) = Header::parse(black_box(bytes)) {
                    device.receive(*now, NET, &header, body, sink);
                    device.judge(*now, NET, sink);
                }
                device.work(*now, sink);
            }
            std::mem::swap(round, &mut sink.frames);
        }
        let ended = sink.done.drain(..).map(|(_, outcome)| match outcome {
            Ok(Output::Data(data)) => data.len(),
            Ok(Output::Written(len)) => len,
            _ => 0,
        });
        assert!(ended.sum::<usize>() > 0, "it was answered");
        sink.events.clear();
        // What is due meanwhile, as the sweeper would.
        now.0 += 50;
        device.sweep(*now, sink);
    }
}
