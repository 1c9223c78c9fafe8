//! Answers to the commands that are not ATA: config, mask, reserve. And which hosts hold a target that is reserved.

use std::time::Duration;

use super::receive::Arrival;
use super::{Device, Sink};
use crate::engine::event::Event;
use crate::engine::flight::Work;
use crate::engine::ids::{NetId, PathId};
use crate::engine::request::{Error, Job, Output, Reservation};
use crate::engine::time::Time;
use crate::wire::{Command, Config, Header, Mac, Mask, MaskError, MaskVerb, Refusal, Reserve, Sector, Verb};

/// How often at most the target is asked which hosts hold it, however many requests it refuses.
const HOLDERS_EVERY: Duration = Duration::from_secs(1);

impl<R> Device<R> {
    pub(super) fn receive_command(
        &mut self,
        arrival: Arrival,
        net: NetId,
        header: &Header,
        body: &[u8],
        sink: &mut Sink<R>,
    ) -> bool {
        let Arrival { now, id, attempt, work } = arrival;
        match work {
            Work::Query { path } => {
                let (Command::Config, None, Ok(config)) = (header.command, header.error, Config::parse(body))
                else {
                    return false;
                };
                self.account(arrival, sink);
                self.flight.settle(id, Some(attempt.tag), None, now);
                self.take_limits(path, &config);
                return true;
            }
            Work::Holders { .. } => {
                let (Command::Reserve, None, Ok((_, macs))) =
                    (header.command, header.error, Reserve::parse(body))
                else {
                    return false;
                };
                self.account(arrival, sink);
                self.flight.settle(id, Some(attempt.tag), None, now);
                sink.events.push(Event::Reserved(macs.collect()));
                return true;
            }
            _ => {}
        }
        let Some(req_id) = work.request() else { return false };
        let job = &self.reqs[req_id].job;
        let answer = match job {
            Job::Config { verb, .. } => config_answer(header, body, *verb),
            Job::Mask(_) => mask_answer(header, body),
            Job::Reserve(what) => reserve_answer(header, body, what),
            _ => None,
        };
        let Some(outcome) = answer else { return false };
        match (job, &outcome) {
            (Job::Mask(_), Ok(_)) => self.disk.lists.mask = true,
            (Job::Reserve(_), Ok(_) | Err(Error::Busy)) => self.disk.lists.reserve = true,
            _ => {}
        }
        if let (Job::Reserve(_), Err(Error::Busy), Ok((_, macs))) = (job, &outcome, Reserve::parse(body)) {
            sink.events.push(Event::Reserved(macs.collect()));
        }
        self.account(arrival, sink);
        self.settle(id, Some(attempt.tag), now);
        if let Ok(Output::Config(string)) = &outcome {
            self.disk.set_string(string);
            if let (Ok(config), Some(path)) = (Config::parse(body), self.paths.find(net, header.src)) {
                self.take_limits(path, &config);
            }
        }
        self.end(req_id, outcome, now, sink);
        true
    }

    /// The target says that another host holds it. The log is to say which.
    pub(super) fn ask_holders(&mut self, path: Option<PathId>, now: Time, sink: &mut Sink<R>) {
        let Some(path) = path.filter(|id| self.paths.get(*id).is_some_and(|p| p.up)) else { return };
        if now >= self.holders_at {
            self.holders_at = now + HOLDERS_EVERY;
            let id = self.flight.create(Work::Holders { path }, Sector(0), 0);
            self.launch(id, path, now, sink);
        }
    }
}

fn config_answer(header: &Header, body: &[u8], verb: Verb) -> Option<Result<Output, Error>> {
    if header.command != Command::Config {
        return None;
    }
    match header.error {
        Some(Refusal::ConfigPresent) => Some(Err(Error::Exists)),
        Some(Refusal::BadArgument) => Some(Err(Error::Invalid)),
        Some(Refusal::UnknownCommand) => Some(Err(Error::NotSupported)),
        Some(_) => Some(Err(Error::Io)),
        None => {
            let config = Config::parse(body).ok()?;
            // kvblade answers every verb as if it were a read.
            (config.verb == verb || config.verb == Verb::Read)
                .then(|| Ok(Output::Config(config.string.to_vec())))
        }
    }
}

fn mask_answer(header: &Header, body: &[u8]) -> Option<Result<Output, Error>> {
    if header.command != Command::Mask {
        return None;
    }
    match header.error {
        Some(Refusal::BadArgument) => return Some(Err(Error::Invalid)),
        Some(_) => return Some(Err(Error::NotSupported)),
        None => {}
    }
    let (mask, list) = Mask::parse(body).ok()?;
    if !matches!(mask.verb, MaskVerb::Read | MaskVerb::Edit) {
        return None;
    }
    Some(Ok(match mask.error {
        MaskError::None => Output::Macs(list.map(|d| d.mac).collect()),
        error => Output::MaskRefused { error, index: mask.directives },
    }))
}

fn reserve_answer(header: &Header, body: &[u8], what: &Reservation) -> Option<Result<Output, Error>> {
    if header.command != Command::Reserve {
        return None;
    }
    match header.error {
        Some(Refusal::Reserved) => {
            let Ok((_, macs)) = Reserve::parse(body) else { return Some(Err(Error::Busy)) };
            let held: Vec<Mac> = macs.collect();
            // An earlier attempt reserved it and its answer was lost; this host itself is not on the list that was
            // asked for.
            let done = matches!(what, Reservation::Set(wanted) if !wanted.is_empty() && *wanted == held);
            Some(if done { Ok(Output::Macs(held)) } else { Err(Error::Busy) })
        }
        Some(Refusal::BadArgument) => Some(Err(Error::Invalid)),
        Some(_) => Some(Err(Error::NotSupported)),
        None => {
            let (_, macs) = Reserve::parse(body).ok()?;
            Some(Ok(Output::Macs(macs.collect())))
        }
    }
}
