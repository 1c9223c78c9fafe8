//! A station on a segment that asks targets and hears their answers, without a mount: one interface, one question at a
//! time. It chooses tags that no aoefs on the same interface takes for its own.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::link::claim::Claim;
use crate::link::packet::{PacketLink, Role};
use crate::link::{Batch, LARGEST_FRAME, Link, OutFrame, is_gone, is_link_down};
use crate::wire::{
    ATA_LEN, Addr, Ata, Command, Config, ETHERNET, HEADER_LEN, Header, IDENTIFY_LEN, Identify, MIN_FRAME,
    Mac, Malformed, Tag, VERSION, Verb,
};

/// How long an answer is waited for in all. A target answers within milliseconds; a busy one may need this.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// A question without an answer is asked again after this time, and after twice that, and so on.
const FIRST_PATIENCE: Duration = Duration::from_millis(200);

/// An answer.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub body: Vec<u8>,
    /// When it was received.
    pub at: Instant,
}

impl Heard {
    /// What it says as the answer to a config query.
    pub fn config(&self) -> Result<Config<'_>, Malformed> {
        Config::parse(&self.body)
    }
}

/// See the module.
pub struct Station {
    link: Arc<dyn Link>,
    claim: Claim,
    counter: u32,
    batch: Batch,
    heard: VecDeque<Heard>,
    /// Never readable: waiting for frames wants something to wait for beside them.
    quiet: PipeReader,
    _open: PipeWriter,
}

impl Station {
    /// Opens an interface. It has to be up.
    pub fn open(name: &str) -> Result<Station, Failure> {
        let link = PacketLink::open(name, Role::Initiator).map_err(|error| refused(name, &error))?;
        if !link.is_up() {
            return Err(down(name));
        }
        Station::over(Arc::new(link))
    }

    /// A station on a link that is open.
    pub fn over(link: Arc<dyn Link>) -> Result<Station, Failure> {
        let (quiet, open) = io::pipe()
            .map_err(|error| Failure::start(format!("cannot make a pipe: {error}; see ulimit -n")))?;
        let mut seed = [0; 8];
        // Without random numbers the tags can be guessed, which matters to a daemon and hardly here.
        let _ = getrandom::fill(&mut seed);
        let [a, b] =
            [0, 4].map(|at| u32::from_ne_bytes([seed[at], seed[at + 1], seed[at + 2], seed[at + 3]]));
        let batch = Batch::new((link.mtu() + ETHERNET).min(LARGEST_FRAME));
        Ok(Station {
            link,
            claim: Claim::any(a),
            counter: b,
            batch,
            heard: VecDeque::new(),
            quiet,
            _open: open,
        })
    }

    /// The interface's name.
    pub fn name(&self) -> Arc<str> {
        self.link.name()
    }

    /// The interface's MTU.
    pub fn mtu(&self) -> usize {
        self.link.mtu()
    }

    /// Sends a config question.
    pub fn ask_config(&mut self, to: Mac, addr: Addr, verb: Verb, string: &[u8]) -> Result<Tag, Failure> {
        let config = Config::request(verb, string);
        self.ask(to, addr, Command::Config, config.len(), |out| config.emit(out))
    }

    /// Sends an ATA command that carries no data to the target.
    pub fn ask_ata(&mut self, to: Mac, addr: Addr, ata: &Ata) -> Result<Tag, Failure> {
        self.ask(to, addr, Command::Ata, ATA_LEN, |out| ata.emit(out))
    }

    fn ask(
        &mut self,
        to: Mac,
        addr: Addr,
        command: Command,
        len: usize,
        emit: impl FnOnce(&mut [u8]),
    ) -> Result<Tag, Failure> {
        self.counter = self.counter.wrapping_add(1);
        let tag = Tag::of(self.claim.space(), self.counter);
        let (src, version) = (self.link.mac(), VERSION);
        let header = Header { dst: to, src, version, response: false, error: None, addr, command, tag };
        let mut frame = vec![0; (HEADER_LEN + len).max(MIN_FRAME)];
        header.emit(&mut frame);
        emit(&mut frame[HEADER_LEN..]);
        match self.link.send(&[OutFrame { head: &frame, body: &[] }]) {
            // A frame that the queue does not take is lost, as on a wire.
            (_, Some(error)) if is_link_down(&error) || is_gone(&error) => Err(self.lost(&error)),
            _ => Ok(tag),
        }
    }

    /// The next answer to any question of this station.
    pub fn next(&mut self, until: Instant) -> Result<Option<Heard>, Failure> {
        loop {
            if let Some(heard) = self.heard.pop_front() {
                return Ok(Some(heard));
            }
            self.link.recv_now(&mut self.batch).map_err(|error| self.lost(&error))?;
            let (at, space) = (Instant::now(), self.claim.space());
            let parsed = self.batch.frames().filter_map(|frame| Header::parse(frame).ok());
            self.heard.extend(
                parsed
                    .filter(|(header, _)| header.response && header.tag.space() == Some(space))
                    .map(|(header, body)| Heard { header, body: body.to_vec(), at }),
            );
            if self.heard.is_empty() {
                if at >= until {
                    return Ok(None);
                }
                self.link.wait_beside(self.quiet.as_fd(), until - at);
            }
        }
    }

    /// Asks until an answer from that address comes, or the patience is over. `ask` sends the question.
    pub fn answer(
        &mut self,
        patience: Duration,
        addr: Addr,
        mut ask: impl FnMut(&mut Station) -> Result<Tag, Failure>,
    ) -> Result<Option<Heard>, Failure> {
        let end = Instant::now() + patience;
        let mut tags = Vec::new();
        let mut wait = FIRST_PATIENCE;
        while Instant::now() < end {
            tags.push(ask(self)?);
            let until = (Instant::now() + wait).min(end);
            while let Some(heard) = self.next(until)? {
                if heard.header.addr == addr && tags.contains(&heard.header.tag) {
                    return Ok(Some(heard));
                }
            }
            wait *= 2;
        }
        Ok(None)
    }

    /// Everybody who answers a config query within the time.
    pub fn everybody(&mut self, time: Duration) -> Result<Vec<Heard>, Failure> {
        let mut found: Vec<Heard> = Vec::new();
        let end = Instant::now() + time;
        // Asked twice: one of the frames may be lost.
        for until in [Instant::now() + time / 2, end] {
            self.ask_config(Mac::BROADCAST, Addr::ALL, Verb::Read, &[])?;
            while let Some(heard) = self.next(until)? {
                let key = |heard: &Heard| (heard.header.addr, heard.header.src);
                let fits = heard.header.command == Command::Config && heard.config().is_ok();
                if fits && !found.iter().any(|known| key(known) == key(&heard)) {
                    found.push(heard);
                }
            }
        }
        found.sort_by_key(|heard| (heard.header.addr, heard.header.src.0));
        Ok(found)
    }

    /// The disk that answers at an address with that MAC; none if there is no usable answer.
    pub fn identify(&mut self, to: Mac, addr: Addr) -> Result<Option<Identify>, Failure> {
        let heard = self.answer(PATIENCE, addr, |station| station.ask_ata(to, addr, &Ata::identify()))?;
        let data = heard.as_ref().and_then(|heard| Ata::parse(&heard.body).ok()).map(|(_, data)| data);
        Ok(data.and_then(|data| data.get(..IDENTIFY_LEN)).and_then(|data| Identify::parse(data).ok()))
    }

    fn lost(&self, error: &io::Error) -> Failure {
        match is_link_down(error) {
            true => down(&self.name()),
            false => refused(&self.name(), error),
        }
    }
}

/// Opens several interfaces.
pub fn open_all(names: &[String]) -> Result<Vec<Station>, Failure> {
    names.iter().map(|name| Station::open(name)).collect()
}

/// The first answer of a target to a config query, and the number of the station that it came to.
pub fn locate(stations: &mut [Station], addr: Addr) -> Result<(usize, Heard), Failure> {
    let share = PATIENCE / stations.len().max(1) as u32;
    for (n, station) in stations.iter_mut().enumerate() {
        let ask = |station: &mut Station| station.ask_config(Mac::BROADCAST, addr, Verb::Read, &[]);
        if let Some(heard) = station.answer(share, addr, ask)? {
            return Ok((n, heard));
        }
    }
    let names: Vec<String> = stations.iter().map(|station| station.name().to_string()).collect();
    let names = names.join(",");
    Err(Failure::start(format!(
        "no answer from {addr} on {names} within {} s; is it running, and on this segment? who is: aoefs discover -i {names}",
        PATIENCE.as_secs()
    )))
}

/// An interface that is down, with what raises it.
fn down(name: &str) -> Failure {
    Failure::start(format!(
        "{name} is down or has no carrier; raise it with: ip link set {name} up, or look at its cable"
    ))
}

/// Why an interface cannot be used, and what to do.
pub fn refused(name: &str, error: &io::Error) -> Failure {
    Failure::start(match (error.raw_os_error(), error.kind()) {
        (Some(libc::ENODEV | libc::ENXIO), _) => format!("there is no interface {name}; see: ip link"),
        (_, io::ErrorKind::Unsupported) => {
            format!("{name} is no Ethernet interface, and AoE needs one; see: ip link")
        }
        (_, io::ErrorKind::PermissionDenied) => {
            "raw Ethernet needs CAP_NET_RAW; run as root, or use the mount of a running aoefs instead of -i"
                .into()
        }
        _ => format!("cannot use interface {name}: {error}; see: ip link show {name}"),
    })
}
