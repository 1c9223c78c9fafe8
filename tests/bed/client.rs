//! An initiator by hand: one request, one answer, no retransmission. For looking at targets, and for making frames to
//! forge with.

use super::raw::Port;
use aoefs::wire::{
    Addr, Ata, CONFIG_LEN, Command, Config, DATA_OFFSET, HEADER_LEN, Header, MIN_FRAME, Mac, SECTOR, Sector,
    Tag, Verb,
};
use std::time::Duration;

/// Asks one target.
pub struct Client {
    pub port: Port,
    pub addr: Addr,
    /// How long an answer may take.
    pub patience: Duration,
    next: u32,
}

/// An answer: its header, and what follows the 24 bytes of it.
pub struct Answer {
    pub header: Header,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn ata(&self) -> (Ata, &[u8]) {
        Ata::parse(&self.body).expect("an ATA answer")
    }

    pub fn config(&self) -> Config<'_> {
        Config::parse(&self.body).expect("a config answer")
    }
}

/// A frame from its parts, padded to the least that Ethernet carries.
pub fn frame(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; HEADER_LEN];
    header.emit(&mut frame);
    frame.extend_from_slice(body);
    frame.resize(frame.len().max(MIN_FRAME), 0);
    frame
}

/// An ATA argument and its data.
pub fn ata_body(ata: &Ata, data: &[u8]) -> Vec<u8> {
    let mut body = vec![0; DATA_OFFSET - HEADER_LEN];
    ata.emit(&mut body);
    body.extend_from_slice(data);
    body
}

pub fn config_body(config: &Config<'_>) -> Vec<u8> {
    let mut body = vec![0; CONFIG_LEN + config.string.len()];
    config.emit(&mut body);
    body
}

impl Client {
    pub fn new(port: Port, addr: Addr) -> Self {
        Self { port, addr, patience: Duration::from_secs(2), next: 1 }
    }

    /// The header of the next request, to everybody.
    pub fn header(&mut self, command: Command) -> Header {
        self.next += 1;
        Header {
            dst: Mac::BROADCAST,
            src: Mac(self.port.mac()),
            version: 1,
            response: false,
            error: None,
            addr: self.addr,
            command,
            tag: Tag(Tag::OURS | self.next),
        }
    }

    /// Sends a request and returns the answer to it; None when there is none.
    pub fn ask(&mut self, command: Command, body: &[u8]) -> Option<Answer> {
        let header = self.header(command);
        self.port.send(&frame(&header, body));
        self.port.recv_until(self.patience, |frame| {
            let (got, body) = Header::parse(frame).ok()?;
            let ours = got.response && got.tag == header.tag && got.command == command;
            ours.then(|| Answer { header: got, body: body.to_vec() })
        })
    }

    #[track_caller]
    pub fn ata(&mut self, ata: &Ata, data: &[u8]) -> Answer {
        self.ask(Command::Ata, &ata_body(ata, data)).expect("an answer to an ATA command")
    }

    #[track_caller]
    pub fn read(&mut self, at: u64, sectors: u8) -> Vec<u8> {
        let answer = self.ata(&Ata::read(Sector(at), sectors, true), &[]);
        let (ata, data) = answer.ata();
        assert!(!ata.failed() && answer.header.error.is_none(), "reading {at}+{sectors}: {ata:?}");
        data[..usize::from(sectors) * SECTOR].to_vec()
    }

    #[track_caller]
    pub fn write(&mut self, at: u64, data: &[u8]) {
        let answer = self.ata(&Ata::write(Sector(at), (data.len() / SECTOR) as u8, true), data);
        assert!(
            !answer.ata().0.failed() && answer.header.error.is_none(),
            "writing {at}: {:?}",
            answer.ata().0
        );
    }

    pub fn config(&mut self, verb: Verb, string: &[u8]) -> Option<Answer> {
        self.ask(Command::Config, &config_body(&Config::request(verb, string)))
    }
}
