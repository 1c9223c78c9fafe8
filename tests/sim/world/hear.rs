//! What the world does with a frame that reaches the initiator, and with what the engine answers.

use super::*;
use crate::target::Flushing;
use crate::unit::Announced;

/// Announcements that are believed at once, if no more came within the span, in µs; after them, one in each part of
/// the span.
const ALARMS: usize = 8;
/// See [`ALARMS`].
const ALARM_SPAN: u64 = 8_000_000;

impl World {
    /// A query to all over one netlink, as at bind and at rediscovery.
    pub fn query(&mut self, n: usize) {
        let mut frames = std::mem::take(&mut self.sink.frames);
        let id = self.nets[n].id;
        self.discovery.query(self.now, id, Addr::ALL, &mut frames);
        self.send(None, &mut frames);
        self.sink.frames = frames;
    }

    /// A frame from somewhere else arrives.
    pub fn forge(&mut self, net: usize, frame: Vec<u8>) {
        let now = self.now.0;
        self.at(now, Happening::Forged { net, frame });
    }

    pub(super) fn hear(&mut self, n: usize, frame: &[u8]) {
        let net = &self.nets[n];
        let (id, mtu) = (net.id, net.mtu);
        // What the socket's filter does, and the network card.
        if !net.up || net.gone || frame.len() > mtu + 14 {
            return;
        }
        let Ok((header, body)) = Header::parse(frame) else { return };
        let ours = header.tag == Tag::UNSOLICITED || header.tag.is_ours();
        if !header.response || !ours || (header.dst != net.mac && header.dst != Mac::BROADCAST) {
            return;
        }
        self.figures.answers += 1;
        self.note(|| {
            format!(
                "  <- {} {id:?} {} {:?} {:08x} err {:?} {} bytes",
                header.addr,
                header.src,
                header.command,
                header.tag.0,
                header.error,
                frame.len()
            )
        });
        match self.units.iter().position(|u| u.device.addr() == header.addr) {
            Some(u) => self.hear_unit(u, id, mtu, &header, body),
            None => self.hear_stranger(id, mtu, &header, body),
        }
    }

    pub(super) fn hear_unit(&mut self, u: usize, net: NetId, mtu: usize, header: &Header, body: &[u8]) {
        let now = self.now;
        self.awake(u);
        let config =
            (header.command == Command::Config && header.error.is_none()).then(|| Config::parse(body));
        if header.tag == Tag::UNSOLICITED {
            if let Some(Ok(config)) = config
                && header.is_announcement()
            {
                self.believe(u, net, header.src);
                self.units[u].device.announced(now, net, header.src, mtu, config.sectors, &mut self.sink);
                self.after(u);
            } else if header.command == Command::Config {
                self.units[u].device.overheard(now, net, header.src, &mut self.sink);
                self.after(u);
            }
        } else if self.discovery.solicited(now, net, header.tag) {
            if let Some(Ok(config)) = config {
                self.units[u].device.solicited(now, net, header.src, mtu, &config, &mut self.sink);
                self.after(u);
            }
        } else {
            let before = self.proven(u, net, header.src);
            let verdict = self.units[u].device.receive(now, net, header, body, &mut self.sink);
            self.units[u].device.judge(now, net, &mut self.sink);
            if verdict == Verdict::Taken {
                self.units[u].returned(now, header.tag);
            }
            if verdict == Verdict::Taken && (before || self.proven(u, net, header.src)) {
                self.units[u].hears(now, header.tag);
            }
            self.after(u);
        }
    }

    /// Is this a path that has shown its disk?
    pub(super) fn proven(&self, u: usize, net: NetId, mac: Mac) -> bool {
        let trusted =
            |p: &aoefs::engine::PathStatus| p.net == net && p.mac == mac && p.trust != Trust::Proving;
        self.units[u].device.paths().iter().any(trusted)
    }

    /// Notes an announcement that the engine has to believe.
    pub(super) fn believe(&mut self, u: usize, net: NetId, mac: Mac) {
        let (now, tick) = (self.now.0, self.tick);
        let known = self.proven(u, net, mac);
        let unit = &mut self.units[u];
        unit.alarms.retain(|at| now - at < ALARM_SPAN);
        if known {
            // None is forgotten: one that comes too fast is believed when the next one may be.
            let wait = if unit.alarms.len() < ALARMS { 0 } else { ALARM_SPAN / ALARMS as u64 };
            unit.announced.push(Announced { at: now, tick, counts_from: now + wait });
        }
        unit.alarms.push(now);
    }

    pub(super) fn hear_stranger(&mut self, net: NetId, mtu: usize, header: &Header, body: &[u8]) {
        let now = self.now;
        let mut frames = std::mem::take(&mut self.sink.frames);
        let mut found = None;
        match header.command {
            Command::Config if header.error.is_none() => {
                if let Ok(config) = Config::parse(body) {
                    self.discovery.heard(now, net, mtu, header, &config, &mut frames);
                }
            }
            Command::Ata => {
                let seed = self.rng.next() as u32;
                found = self.discovery.identified(now, header, body, seed, &mut frames);
            }
            _ => {}
        }
        self.send(None, &mut frames);
        self.sink.frames = frames;
        if let Some(found) = found {
            self.appear(found);
        }
    }

    pub(super) fn appear(&mut self, found: Found) {
        let Birth { addr, .. } = found.birth;
        let u = self.units.len();
        self.note(|| format!("u{u} appears: {addr} {:?}", found.birth.mac));
        let identify = found.birth.identify;
        let disk = self.disk_with(identify.serial.as_str(), identify.sectors);
        let Some(disk) = disk else {
            return self.violate(|| format!("{addr} appeared with a serial that nobody has"));
        };
        let device = Device::new(found.birth, self.now);
        self.units.push(Unit::new(device, disk, self.now));
        self.units[u].quarantines = self.quarantines;
        self.units[u].device.set_slept(self.slept);
        self.units[u].device.set_quarantines(self.quarantines);
        for (net, mac, mtu, sectors) in found.more {
            self.units[u].device.answered_at(self.now, net, mac, mtu, sectors, &mut self.sink);
        }
        self.after(u);
    }

    pub(super) fn answered(&mut self, u: usize, seq: u32, outcome: Outcome) {
        self.note(|| format!("u{u} #{seq} {}", brief(&outcome)));
        let Some(p) = self.judge.pending.remove(&seq) else {
            return self.violate(|| format!("ONCE: #{seq} answered twice"));
        };
        self.units[u].ended();
        self.units[u].word_ended(seq, &outcome);
        let injected = self.injected(u, &p);
        let unit = &self.units[u];
        let circumstances = Circumstances {
            now: self.now,
            generation: unit.device.generation(),
            failio: unit.failio,
            can_trim: unit.device.can_trim(),
            garbled: self.garbled,
            injected,
        };
        if let Err(problem) = self.judge.verdict(seq, &p, &outcome, &circumstances) {
            self.violate(|| problem);
        }
        let size = match &outcome {
            Ok(Output::Data(data)) => data.len(),
            Ok(Output::Written(n)) => *n,
            _ => 0,
        };
        self.done.push((seq, outcome.as_ref().map(|_| size).map_err(|e| *e)));
        let earlier = self.judge.earlier_write(u, seq);
        let flushes = self.targets.iter().any(|t| t.look().id == p.disk && t.flushes());
        let fraud = |t: &Target| t.look().id == p.disk && t.flushing == Flushing::Fraud;
        let fraud = self.targets.iter().any(fraud);
        let old = self.tick_before(AGE);
        let since = if p.ahead { p.tick.min(old) } else { p.tick };
        let tick = self.tick;
        let disk = self.disk(p.disk);
        let mut problem = None;
        match (p.kind, &outcome) {
            (Kind::Read, Ok(Output::Data(data))) => {
                problem = disk.check_read(seq, p.start, data, p.tick, since).err()
            }
            (Kind::RawRead, Ok(Output::Ata { ata, data })) if !ata.failed() => {
                let len = (p.end - p.start) as usize;
                // Nobody caches what a raw command reads: it waits for no write.
                problem = disk.check_read(0, p.start, data.get(..len).unwrap_or(&[]), p.tick, p.tick).err();
            }
            (Kind::Write | Kind::Trim, Ok(_)) => disk.acknowledged(seq, false, tick),
            (Kind::RawWrite, Ok(Output::Ata { ata, .. })) if !ata.failed() => {
                disk.acknowledged(seq, true, tick)
            }
            (Kind::Flush, Ok(_)) if fraud => {
                problem = Some("SYNC: flush acknowledged by a disk that aborts each".into());
            }
            (Kind::Flush, Ok(_)) if flushes && earlier.is_some() => {
                problem = Some(format!("SYNC: flush acknowledged before write #{earlier:?}"));
            }
            (Kind::Flush, Ok(_)) if flushes && disk.last_flush <= p.tick => {
                problem = Some(format!(
                    "SYNC: flush #{seq} acknowledged, last flush of disk {} was earlier",
                    p.disk
                ));
            }
            _ => {}
        }
        if matches!(p.kind, Kind::Read | Kind::RawRead) {
            disk.reader_ends(old);
        }
        if matches!(p.kind, Kind::Write | Kind::RawWrite) {
            self.units[u].forget_buffers(p.start / SECTOR as u64, p.end.div_ceil(SECTOR as u64));
        }
        let disk = self.disk(p.disk);
        let problem = problem.map(|what| format!("#{seq} {what}")).or_else(|| disk.problem.take());
        if let Some(problem) = problem {
            self.violate(|| problem);
        }
    }

    /// The target announces itself on every wire.
    pub fn announce(&mut self, t: usize) {
        for w in 0..self.wires.len() {
            if self.wires[w].target == t {
                let mac = self.targets[t].macs[self.wires[w].port];
                if let Some(frame) = self.targets[t].announcement(mac) {
                    self.answer(w, frame);
                }
            }
        }
    }

    /// The tick that it was so long ago.
    fn tick_before(&self, ago: Duration) -> u64 {
        let then = self.now.0.saturating_sub(ago.as_micros() as u64);
        let later = self.ticks.partition_point(|(at, _)| *at < then);
        self.ticks.get(later).map_or(self.tick, |(_, tick)| *tick).saturating_sub(1)
    }

    pub(super) fn note_tick(&mut self) {
        if self.ticks.back().is_none_or(|(at, _)| *at < self.now.0) {
            self.ticks.push_back((self.now.0, self.tick));
        }
        while self.ticks.front().is_some_and(|(at, _)| at + HISTORY < self.now.0) {
            self.ticks.pop_front();
        }
    }

    /// Was a fault injected at these bytes of a unit's targets since `tick`?
    pub(super) fn injected(&mut self, u: usize, p: &Pending) -> bool {
        let whole = matches!(p.kind, Kind::Flush | Kind::Raw);
        let (first, last) = (p.start / SECTOR as u64, p.end.div_ceil(SECTOR as u64));
        let hits = |f: &(u64, u64, u64)| f.0 >= p.tick && (whole || (f.1 < last && first < f.2));
        let disk = self.disk(p.disk);
        // A disk that shrank has sectors that are not there.
        if disk.resized || disk.failed.iter().any(hits) {
            return true;
        }
        let addr = self.units[u].device.addr();
        let fraud = |t: &Target| t.addr == addr && t.flushing == Flushing::Fraud;
        if p.kind == Kind::Flush && self.targets.iter().any(fraud) {
            return true;
        }
        self.targets.iter().filter(|t| t.addr == addr).any(|t| t.refused.iter().any(hits))
    }
}
