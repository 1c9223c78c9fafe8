//! The command processor: one request frame in, at most one reply frame out.
//!
//! Promises, whatever the frame holds: it never panics, never allocates, and never answers a response, a frame for
//! another address or a host that is masked; a reply has the request's tag, goes to the request's source, carries its
//! own address, is padded with zeros to 60 bytes and never exceeds the MTU. It keeps the config string, the mask and
//! the reservation in memory; the image keeps the sectors.
//!
//! Where the protocol leaves a choice: only version 1 is answered (others get AoE error 5); a request to a wildcard
//! address may ask (config, IDENTIFY, reading the lists) but not change or move data, because every target on the
//! segment would obey at once; a sector count of 0 or above the advertised limit is a bad argument. A config string
//! that is set or forced through a wildcard address is ignored: it would give every target the same.
//!
//! Once the image has failed to make something durable, no flush succeeds any more ([`Processor::lost`]).

use super::access::{LIST_MAX, MacList};
use super::batch::{Plain, RUN_MAX};
use super::image::{Cause, Fault, Image};
use super::smart::Health;
use crate::wire::{
    Addr, Ata, BUFFERS_MAX, CONFIG_LEN, CONFIG_MAX, Command, Config, DATA_OFFSET, DIRECTIVE_LEN, Directive,
    ETHERNET, HEADER_LEN, Header, MASK_LEN, MIN_FRAME, Mac, Mask, MaskError, MaskOp, MaskVerb, RESERVE_LEN,
    Refusal, Reserve, ReserveVerb, Tag, Text, VERSION, Verb, cmd, sectors_per_frame,
};

/// The version number that config replies carry. Not one of vblade's (0x40xx), which initiators know quirks of.
const FIRMWARE: u16 = 0x0a01;

/// The properties of a target.
#[derive(Clone, Debug)]
pub struct TargetConfig {
    /// Its address; no wildcard.
    pub addr: Addr,
    /// Frames it can queue, as config replies say.
    pub buffers: u16,
    /// Its version number, as config replies say.
    pub firmware: u16,
    /// IDENTIFY: the serial number. Initiators tell disks apart by it.
    pub serial: Text<20>,
    /// IDENTIFY: the model.
    pub model: Text<40>,
    /// IDENTIFY: the firmware revision.
    pub revision: Text<8>,
    /// Whether a write may be answered before it is durable. False if the image is opened so that every write is.
    pub write_cache: bool,
    /// The config string at the start; at most [`CONFIG_MAX`] bytes count.
    pub string: Vec<u8>,
    /// The mask list at the start: only these hosts are answered, if it names any.
    pub mask: Vec<Mac>,
}

impl TargetConfig {
    /// A target at `addr` with a serial number and default everything else.
    pub fn new(addr: Addr, serial: &str) -> TargetConfig {
        TargetConfig {
            addr,
            buffers: BUFFERS_MAX,
            firmware: FIRMWARE,
            serial: Text::new(serial),
            model: Text::new("aoefs target"),
            revision: Text::new(env!("CARGO_PKG_VERSION")),
            write_cache: true,
            string: Vec::new(),
            mask: Vec::new(),
        }
    }
}

/// The answer to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The reply is in the buffer and has this length.
    Reply(usize),
    /// Nothing is sent, for this reason.
    Silence(Silence),
}

/// Why a frame is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// No AoE frame, or shorter than its command's argument.
    Malformed,
    /// A response of another target, or on a loopback interface our own.
    Response,
    /// For another address or another station.
    Foreign,
    /// From a host that the mask list does not name.
    Masked,
    /// The config string is not the one that was asked for.
    Mismatch,
    /// It would set the config string of every target at once.
    Wildcard,
    /// The interface is too small for any reply.
    NoRoom,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were answered.
    pub answered: u64,
    /// Of these, the ones that the AoE layer refused.
    pub refused: u64,
    /// Of these, ATA commands that failed.
    pub failed: u64,
    /// Frames dropped because they were malformed.
    pub malformed: u64,
    /// Frames dropped because their sender is masked.
    pub masked: u64,
    /// Sectors read by initiators.
    pub sectors_read: u64,
    /// Sectors written by initiators.
    pub sectors_written: u64,
    /// Sectors discarded by initiators.
    pub sectors_trimmed: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Reads that the image failed.
    pub failed_reads: u64,
    /// Writes, discards and flushes that the image failed.
    pub failed_writes: u64,
}

/// A target: its state, and the image behind it.
pub struct Processor<I> {
    pub(super) config: TargetConfig,
    pub(super) image: I,
    pub(super) counters: Counters,
    /// Whether the volatile write cache is on: if not, each write is flushed before it is answered.
    pub(super) cache_on: bool,
    pub(super) smart_on: bool,
    lost: bool,
    string: Vec<u8>,
    mask: MacList,
    pub(super) holders: MacList,
    /// The run that is being put together, kept for its room.
    pub(super) run: Vec<Plain>,
}

/// A reply in the making.
pub(super) struct Out<'a> {
    frame: &'a mut [u8],
    header: Header,
}

impl<I: Image> Processor<I> {
    /// A target with the sectors of `image`.
    pub fn new(config: TargetConfig, image: I) -> Processor<I> {
        let mut string = Vec::with_capacity(CONFIG_MAX);
        string.extend(config.string.iter().take(CONFIG_MAX));
        let mut mask = MacList::new();
        for mac in &config.mask {
            // More than the list holds cannot be asked for on a command line.
            let _ = mask.add(*mac, LIST_MAX);
        }
        let cache_on = config.write_cache;
        Processor {
            config,
            image,
            counters: Counters::default(),
            cache_on,
            smart_on: true,
            lost: false,
            string,
            mask,
            holders: MacList::new(),
            run: Vec::with_capacity(RUN_MAX),
        }
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The target's address.
    pub fn addr(&self) -> Addr {
        self.config.addr
    }

    /// The config string.
    pub fn string(&self) -> &[u8] {
        &self.string
    }

    /// The image.
    pub fn image(&self) -> &I {
        &self.image
    }

    /// The image, to look at or to change behind the initiators' backs.
    pub fn image_mut(&mut self) -> &mut I {
        &mut self.image
    }

    /// Ends the target; the image is not flushed.
    pub fn into_image(self) -> I {
        self.image
    }

    /// Makes everything that was written durable, as a flush or a shutdown should.
    ///
    /// Once that failed it fails for ever: Linux says only once that data could not be written back, drops them, and
    /// the next fdatasync succeeds. A flush that is repeated because its answer was lost would then succeed, and so
    /// would the flush of the next initiator.
    pub fn flush(&mut self) -> Result<(), Fault> {
        if !self.lost {
            let Err(fault) = self.image.flush() else { return Ok(()) };
            self.lost = true;
            log::error!(
                "data that was written may be lost ({:?}): from here on every flush fails, until the target is started \
                 again",
                fault.cause
            );
        }
        Err(Cause::Medium.at_once())
    }

    /// Whether a flush has failed, so that data that was written may be lost.
    pub fn lost(&self) -> bool {
        self.lost
    }

    /// Answers `frame`, which came in on an interface with this MAC and MTU, into `reply`.
    ///
    /// `reply` needs room for the MTU and the Ethernet header; a reply that does not fit is not sent.
    pub fn handle(&mut self, frame: &[u8], mac: Mac, mtu: usize, reply: &mut [u8]) -> Answer {
        let answer = self.answer(frame, mac, mtu, reply);
        match answer {
            Answer::Reply(_) => self.counters.answered += 1,
            Answer::Silence(Silence::Malformed) => self.counters.malformed += 1,
            Answer::Silence(Silence::Masked) => self.counters.masked += 1,
            Answer::Silence(_) => {}
        }
        answer
    }

    fn answer(&mut self, frame: &[u8], mac: Mac, mtu: usize, reply: &mut [u8]) -> Answer {
        let (header, body) = match self.admit(frame, mac) {
            Ok(admitted) => admitted,
            Err(silence) => return Answer::Silence(silence),
        };
        let Some(mut out) = self.reply_to(&header, mac, mtu, reply) else {
            return Answer::Silence(Silence::NoRoom);
        };
        let end = if header.version == VERSION {
            match header.command {
                Command::Ata => self.ata(&header, body, mtu, &mut out),
                Command::Config => self.query(&header, body, mtu, &mut out),
                Command::Mask => self.edit_mask(&header, body, &mut out),
                Command::Reserve => self.reserve(&header, body, &mut out),
                Command::Other(_) => Ok((Some(Refusal::UnknownCommand), 0)),
            }
        } else {
            Ok((Some(Refusal::BadVersion), 0))
        };
        match end {
            Ok((refusal, len)) => {
                self.counters.refused += u64::from(refusal.is_some());
                Answer::Reply(out.finish(refusal, len))
            }
            Err(silence) => Answer::Silence(silence),
        }
    }

    /// Whether a frame is a request that concerns this target.
    pub(super) fn admit<'a>(&self, frame: &'a [u8], mac: Mac) -> Result<(Header, &'a [u8]), Silence> {
        let (header, body) = Header::parse(frame).map_err(|_| Silence::Malformed)?;
        if header.response {
            return Err(Silence::Response);
        }
        // A promiscuous interface also sees frames for other stations.
        if !header.addr.matches(self.config.addr) || (header.dst != mac && !is_group(header.dst)) {
            return Err(Silence::Foreign);
        }
        // A forged request must not make the target send to a group address.
        if is_group(header.src) {
            return Err(Silence::Malformed);
        }
        if !self.mask.admits(header.src) {
            return Err(Silence::Masked);
        }
        Ok((header, body))
    }

    /// The `nth` frame that tells the network about this target, on an interface with this MAC and MTU; `None` when
    /// there are no more. One broadcast, or, with a mask list, one frame to each host on it: the others need not know.
    pub fn announcement(&self, nth: usize, mac: Mac, mtu: usize, frame: &mut [u8]) -> Option<usize> {
        let dst = match self.mask.as_slice() {
            [] if nth == 0 => Mac::BROADCAST,
            list => *list.get(nth)?,
        };
        let ask = Header {
            dst: mac,
            src: dst,
            version: VERSION,
            response: false,
            error: None,
            addr: self.config.addr,
            command: Command::Config,
            tag: Tag::UNSOLICITED,
        };
        let mut out = self.reply_to(&ask, mac, mtu, frame)?;
        if dst != Mac::BROADCAST {
            // It must differ from an answer: see `Header::is_announcement`.
            out.header.version = 0;
        }
        let len = self.put_config(Verb::Read, mtu, &mut out);
        Some(out.finish(None, len))
    }

    pub(super) fn reply_to<'a>(
        &self,
        ask: &Header,
        mac: Mac,
        mtu: usize,
        frame: &'a mut [u8],
    ) -> Option<Out<'a>> {
        let room = frame.len().min(mtu.saturating_add(ETHERNET));
        let frame = frame.get_mut(..room).filter(|frame| frame.len() >= MIN_FRAME)?;
        let header = Header {
            dst: ask.src,
            src: mac,
            version: VERSION,
            response: true,
            error: None,
            addr: self.config.addr,
            command: ask.command,
            tag: ask.tag,
        };
        Some(Out { frame, header })
    }

    fn ata(&mut self, ask: &Header, body: &[u8], mtu: usize, out: &mut Out<'_>) -> End {
        let (mut registers, data) = Ata::parse(body).map_err(|_| Silence::Malformed)?;
        let identify = registers.command == cmd::IDENTIFY;
        let (argument, into) = out.body().split_at_mut(DATA_OFFSET - HEADER_LEN);
        let done = if ask.addr.is_wildcard() && !identify {
            Err(Refusal::BadArgument)
        } else if !identify && !self.holders.admits(ask.src) {
            Err(Refusal::Reserved)
        } else {
            self.execute(&mut registers, data, sectors_per_frame(mtu), into)
        };
        registers.emit(argument);
        Ok(match done {
            Ok(len) => (None, argument.len() + len),
            Err(refusal) => (Some(refusal), argument.len()),
        })
    }

    fn query(&mut self, header: &Header, body: &[u8], mtu: usize, out: &mut Out<'_>) -> End {
        let ask = Config::parse(body).map_err(|_| Silence::Malformed)?;
        if header.addr.is_wildcard() && matches!(ask.verb, Verb::Set | Verb::Force) {
            return Err(Silence::Wildcard);
        }
        let overlong = Config::overlong(body);
        let refusal = match ask.verb {
            Verb::Read => None,
            Verb::Test | Verb::Prefix => {
                let fits = if ask.verb == Verb::Test {
                    self.string == ask.string
                } else {
                    self.string.starts_with(ask.string)
                };
                if overlong || !fits {
                    return Err(Silence::Mismatch);
                }
                None
            }
            Verb::Set | Verb::Force if overlong => Some(Refusal::BadArgument),
            Verb::Set if !self.string.is_empty() && self.string != ask.string => Some(Refusal::ConfigPresent),
            Verb::Set | Verb::Force => {
                self.string.clear();
                self.string.extend_from_slice(ask.string);
                None
            }
            Verb::Other(_) => Some(Refusal::BadArgument),
        };
        Ok((refusal, self.put_config(ask.verb, mtu, out)))
    }

    fn put_config(&self, verb: Verb, mtu: usize, out: &mut Out<'_>) -> usize {
        let body = out.body();
        // An MTU below 1042 cannot carry the longest string; the start of it is better than nothing.
        let fits = self.string.len().min(body.len() - CONFIG_LEN);
        let config = Config {
            buffers: self.config.buffers,
            firmware: self.config.firmware,
            sectors: sectors_per_frame(mtu),
            version: VERSION,
            verb,
            string: &self.string[..fits],
        };
        config.emit(body);
        config.len()
    }

    fn edit_mask(&mut self, ask: &Header, body: &[u8], out: &mut Out<'_>) -> End {
        // The list must fit into a reply, or it could not be read back.
        let limit = (out.body().len() - MASK_LEN) / DIRECTIVE_LEN;
        let (verb, end) = match Mask::parse(body) {
            Err(_) if body.len() < MASK_LEN => return Err(Silence::Malformed),
            Err(_) => (MaskVerb::Edit, Err(Refusal::BadArgument)),
            Ok((mask, directives)) => match mask.verb {
                MaskVerb::Read => (mask.verb, Ok(None)),
                MaskVerb::Edit if !ask.addr.is_wildcard() => {
                    let failed = directives
                        .enumerate()
                        .find_map(|(at, item)| Some((at as u8, self.direct(item, limit).err()?)));
                    (mask.verb, Ok(failed))
                }
                MaskVerb::Edit | MaskVerb::Other(_) => (mask.verb, Err(Refusal::BadArgument)),
            },
        };
        let (error, directives, list) = match end {
            Ok(None) => {
                let list = &self.mask.as_slice()[..self.mask.len().min(limit)];
                (MaskError::None, list.len() as u8, list)
            }
            Ok(Some((at, error))) => (error, at, &[][..]),
            Err(_) => (MaskError::None, 0, &[][..]),
        };
        let list = list.iter().map(|mac| Directive { op: MaskOp::Skip, mac: *mac });
        let len = Mask { verb, error, directives }.emit(list, out.body());
        Ok((end.err(), len))
    }

    fn direct(&mut self, directive: Directive, limit: usize) -> Result<(), MaskError> {
        match directive.op {
            MaskOp::Skip => Ok(()),
            MaskOp::Add => self.mask.add(directive.mac, limit).map_err(|_| MaskError::Full),
            MaskOp::Delete => {
                self.mask.remove(directive.mac);
                Ok(())
            }
            MaskOp::Other(_) => Err(MaskError::BadDirective),
        }
    }

    fn reserve(&mut self, ask: &Header, body: &[u8], out: &mut Out<'_>) -> End {
        let limit = (out.body().len() - RESERVE_LEN) / Mac::LEN;
        let (verb, refusal) = match Reserve::parse(body) {
            Err(_) if body.len() < RESERVE_LEN => return Err(Silence::Malformed),
            Err(_) => (ReserveVerb::from(body[0]), Some(Refusal::BadArgument)),
            Ok((reserve, macs)) => {
                let refusal = match reserve.verb {
                    ReserveVerb::Read => None,
                    _ if ask.addr.is_wildcard() => Some(Refusal::BadArgument),
                    ReserveVerb::Set if !self.holders.admits(ask.src) => Some(Refusal::Reserved),
                    ReserveVerb::Set | ReserveVerb::Force => {
                        self.holders.clear();
                        for mac in macs {
                            // The count is one byte, and so is the limit.
                            let _ = self.holders.add(mac, LIST_MAX);
                        }
                        None
                    }
                    ReserveVerb::Other(_) => Some(Refusal::BadArgument),
                };
                (reserve.verb, refusal)
            }
        };
        let list = &self.holders.as_slice()[..self.holders.len().min(limit)];
        Ok((refusal, Reserve { verb }.emit(list, out.body())))
    }

    pub(super) fn health(&self) -> Health {
        Health {
            failed_reads: self.counters.failed_reads,
            failed_writes: self.counters.failed_writes,
            sectors_read: self.counters.sectors_read,
            sectors_written: self.counters.sectors_written,
        }
    }
}

/// How a request ends: with a reply, refused or not, whose body has so many bytes, or with silence.
type End = Result<(Option<Refusal>, usize), Silence>;

impl Out<'_> {
    /// The bytes behind the header; at least 36.
    pub(super) fn body(&mut self) -> &mut [u8] {
        &mut self.frame[HEADER_LEN..]
    }

    /// Completes the frame, whose body has `len` bytes, and tells its length.
    pub(super) fn finish(mut self, error: Option<Refusal>, len: usize) -> usize {
        self.header.error = error;
        self.header.emit(self.frame);
        let end = HEADER_LEN + len;
        if end < MIN_FRAME {
            self.frame[end..MIN_FRAME].fill(0);
        }
        end.max(MIN_FRAME)
    }
}

fn is_group(mac: Mac) -> bool {
    mac.0[0] & 1 == 1
}

#[cfg(test)]
mod tests;
