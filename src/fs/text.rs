//! The status pages: plain snapshots in, text out (docs/design.md#text-files).
//!
//! A page is made of a snapshot that was taken under the target's lock and is rendered after it was let go. The
//! order of the lines is a contract: devaoe's lines in devaoe's order, then devsd's, and whatever is new below.

use std::fmt::{self, Write};

use crate::wire::{Addr, Mac, SECTOR};

/// A partition as `ctl` shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PartLine {
    /// Its file's name.
    pub name: String,
    /// First sector.
    pub start: u64,
    /// One past the last sector.
    pub end: u64,
}

/// How a target flushes its cache.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FlushLine {
    /// It has no such command, or aborts it.
    #[default]
    None,
    /// FLUSH CACHE.
    Yes,
    /// FLUSH CACHE EXT.
    Ext,
}

/// A cap that an operator may have set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Cap(pub Option<u64>);

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(n) => write!(f, "{n}"),
            None => f.write_str("auto"),
        }
    }
}

/// What a target's `ctl` shows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UnitPage {
    /// `up`, `down` or a word for what lies between.
    pub state: &'static str,
    /// Open handles of data and partitions.
    pub nopen: u64,
    /// Frames outstanding.
    pub nout: u64,
    /// Frames that may be outstanding now.
    pub nmaxout: u64,
    /// Frames that the target says it can hold.
    pub nframes: u64,
    /// Bytes of data in a frame.
    pub maxbcnt: u64,
    /// The MTU that this comes from.
    pub maxmtu: u64,
    /// Firmware version of the AoE side.
    pub fw: u16,
    /// From IDENTIFY.
    pub model: String,
    /// From IDENTIFY.
    pub serial: String,
    /// From IDENTIFY.
    pub firmware: String,
    /// The flags that are set, in the order of [`UnitPage::FLAGS`].
    pub flags: Vec<&'static str>,
    /// Sectors of the disk.
    pub sectors: u64,
    /// Sectors that `data` shows: fewer after `setsize`.
    pub shown: u64,
    /// The partitions in order of declaration.
    pub parts: Vec<PartLine>,
    /// How it flushes.
    pub flush: FlushLine,
    /// Seconds that a request may take.
    pub deadline: u64,
    /// Caps: MTU, sectors a frame, frames outstanding.
    pub caps: [Cap; 3],
    /// Requests that are not answered yet.
    pub requests: u64,
}

impl UnitPage {
    /// Every flag in the order in which they are shown: what the disk can do, then what the target is set to.
    pub const FLAGS: [&'static str; 8] =
        ["llba", "smart", "flush", "trim", "up", "jumbo", "nofail", "direct_io"];
}

/// Text of a target's making: one line, whatever it sent.
struct Plain<'a>(&'a str);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| f.write_char(if c.is_control() { ' ' } else { c }))
    }
}

/// A list of flags, each after a blank, as they follow a key.
struct Flags<'a>(&'a [&'a str]);

impl fmt::Display for Flags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|flag| write!(f, " {flag}"))
    }
}

impl fmt::Display for UnitPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "state: {}", self.state)?;
        writeln!(f, "nopen: {}", self.nopen)?;
        writeln!(f, "nout: {}", self.nout)?;
        writeln!(f, "nmaxout: {}", self.nmaxout)?;
        writeln!(f, "nframes: {}", self.nframes)?;
        writeln!(f, "maxbcnt: {} [maxmtu {}]", self.maxbcnt, self.maxmtu)?;
        writeln!(f, "fw: {:04x}", self.fw)?;
        writeln!(f, "model: {}", Plain(&self.model))?;
        writeln!(f, "serial: {}", Plain(&self.serial))?;
        writeln!(f, "firmware: {}", Plain(&self.firmware))?;
        writeln!(f, "flag:{}", Flags(&self.flags))?;
        writeln!(f, "inquiry {} {}", Plain(&self.model), Plain(&self.firmware))?;
        writeln!(f, "geometry {} {SECTOR}", self.sectors)?;
        writeln!(f, "part data 0 {}", self.shown)?;
        for part in &self.parts {
            writeln!(f, "part {} {} {}", part.name, part.start, part.end)?;
        }
        let flush = match self.flush {
            FlushLine::None => "none",
            FlushLine::Yes => "yes",
            FlushLine::Ext => "ext",
        };
        writeln!(f, "flush: {flush}")?;
        writeln!(f, "deadline: {}", self.deadline)?;
        let [mtu, maxbno, maxout] = self.caps;
        writeln!(f, "mtu: {mtu}")?;
        writeln!(f, "maxbno: {maxbno}")?;
        writeln!(f, "maxout: {maxout}")?;
        writeln!(f, "requests: {}", self.requests)
    }
}

/// A netlink as the top `ctl` shows it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NetLine {
    /// Its number; it keeps it while others come and go.
    pub index: u16,
    /// The interface.
    pub name: String,
    /// Its address.
    pub mac: Mac,
    /// Is it up?
    pub up: bool,
    /// Do its frames belong to a bridge or a bond?
    pub port: bool,
    /// Large frames lost.
    pub lostjumbo: u64,
    /// Its MTU, in Linux's sense.
    pub mtu: u64,
    /// Frames lost here for want of receive buffer.
    pub drops: u64,
}

impl NetLine {
    fn flags(&self) -> &'static str {
        match (self.up, self.port) {
            (true, false) => " up",
            (true, true) => " up port",
            (false, true) => " port",
            (false, false) => "",
        }
    }
}

/// A target as `aoe-stat` would show it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TargetLine {
    /// Shelf and slot.
    pub addr: Addr,
    /// Size in bytes.
    pub bytes: u64,
    /// The interfaces that reach it.
    pub interfaces: Vec<String>,
    /// Bytes of data in a frame.
    pub payload: u64,
    /// Its state, in one word.
    pub state: &'static str,
}

impl fmt::Display for TargetLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Decimal gigabytes, cut after the third digit: integers only, so that it is exact at any size.
        let megabytes = self.bytes / 1_000_000;
        write!(f, "{} {}.{:03}GB ", self.addr, megabytes / 1000, megabytes % 1000)?;
        match self.interfaces.as_slice() {
            [] => f.write_char('-')?,
            names => f.write_str(&names.join(","))?,
        }
        write!(f, " {} {}", self.payload, self.state)
    }
}

/// What the top `ctl` shows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TopPage {
    /// The switches.
    pub debug: bool,
    /// Query at bind.
    pub autodiscover: bool,
    /// Query every 30 s.
    pub rediscover: bool,
    /// The netlinks by number.
    pub nets: Vec<NetLine>,
    /// The targets by address.
    pub targets: Vec<TargetLine>,
    /// Addresses that announced themselves and have not answered IDENTIFY yet.
    pub candidates: u64,
}

impl fmt::Display for TopPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "debug: {}", u8::from(self.debug))?;
        writeln!(f, "autodiscover: {}", u8::from(self.autodiscover))?;
        writeln!(f, "rediscover: {}", u8::from(self.rediscover))?;
        for net in &self.nets {
            let i = net.index;
            writeln!(f, "if{i} path: {}", net.name)?;
            writeln!(f, "if{i} ea: {}", net.mac)?;
            writeln!(f, "if{i} flag:{}", net.flags())?;
            writeln!(f, "if{i} lostjumbo: {}", net.lostjumbo)?;
            writeln!(f, "if{i} datamtu: {}", net.mtu)?;
        }
        for target in &self.targets {
            writeln!(f, "{target}")?;
        }
        writeln!(f, "candidates: {}", self.candidates)?;
        for net in &self.nets {
            writeln!(f, "if{} drops: {}", net.index, net.drops)?;
        }
        Ok(())
    }
}

/// One of the target's addresses behind one netlink.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PathLine {
    /// The target's address.
    pub mac: Mac,
    /// `active`, `proving` or `tainted`.
    pub state: &'static str,
    /// Smoothed round-trip time and its deviation in µs; none before the first sample.
    pub rtt: Option<(u64, u64)>,
    /// When an unanswered frame is sent again, in µs.
    pub rto: u64,
    /// Frames that may be outstanding.
    pub window: u64,
    /// Frames that are.
    pub out: u64,
    /// Sectors in a frame.
    pub sectors: u64,
    /// Frames sent, copies counted.
    pub sent: u64,
    /// Copies sent because an earlier one was lost or late.
    pub resent: u64,
    /// Answers to copies that had been given up.
    pub late: u64,
    /// Bytes of data moved.
    pub bytes: u64,
    /// Sectors of the largest frame that a probe saw pass both ways; none before a probe was answered.
    pub probed: Option<u64>,
}

/// What `devlink/N` shows: the target through one netlink.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DevlinkPage {
    /// The netlink.
    pub net: NetLine,
    /// Is the target up through it?
    pub up: bool,
    /// May frames be larger than 1 KiB of data?
    pub jumbo: bool,
    /// The target's addresses behind it.
    pub paths: Vec<PathLine>,
}

impl fmt::Display for DevlinkPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |field: fn(&PathLine) -> u64| self.paths.iter().map(field).sum::<u64>();
        let measured: Vec<u64> = self.paths.iter().filter_map(|p| p.rtt).map(|(rtt, _)| rtt).collect();
        let average = measured.iter().sum::<u64>() / (measured.len() as u64).max(1);
        let rto = self.paths.iter().map(|p| p.rto).min().unwrap_or(0);
        let sectors = self.paths.iter().map(|p| p.sectors).max().unwrap_or(0);
        let flags: Vec<&str> = [(self.up, "up"), (self.jumbo, "jumbo")]
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, n)| *n)
            .collect();
        for path in &self.paths {
            writeln!(f, "addr: {}", path.mac)?;
        }
        writeln!(f, "npkt: {}", sum(|p| p.sent))?;
        writeln!(f, "resent: {}", sum(|p| p.resent))?;
        writeln!(f, "flag:{}", Flags(&flags))?;
        writeln!(f, "rttavg: {average}")?;
        writeln!(f, "mintimer: {rto}")?;
        writeln!(f, "datamtu: {}", sectors * SECTOR as u64)?;
        writeln!(f, "nl path: {}", self.net.name)?;
        writeln!(f, "nl ea: {}", self.net.mac)?;
        writeln!(f, "nl flag:{}", self.net.flags())?;
        writeln!(f, "nl lostjumbo: {}", self.net.lostjumbo)?;
        writeln!(f, "nl datamtu: {}", self.net.mtu)?;
        for path in &self.paths {
            writeln!(f, "{path}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PathLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = self.mac;
        write!(f, "path: {mac} {}", self.state)?;
        match self.rtt {
            Some((rtt, deviation)) => write!(f, " rtt {rtt} rttvar {deviation}")?,
            None => f.write_str(" rtt - rttvar -")?,
        }
        write!(f, " rto {} window {} out {}", self.rto, self.window, self.out)?;
        write!(f, " sectors {} sent {} resent {}", self.sectors, self.sent, self.resent)?;
        writeln!(f, " late {} bytes {}", self.late, self.bytes)?;
        match self.probed {
            Some(sectors) => write!(f, "probed: {mac} {}", sectors * SECTOR as u64),
            None => write!(f, "probed: {mac} -"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of docs/design.md#text-files, and what follows them.
    #[test]
    fn a_units_ctl() {
        let page = UnitPage {
            state: "up",
            nopen: 1,
            nout: 3,
            nmaxout: 16,
            nframes: 16,
            maxbcnt: 8192,
            maxmtu: 9000,
            fw: 0x4019,
            model: "Coraid EtherDrive vblade".into(),
            serial: "1.0:host".into(),
            firmware: "V25".into(),
            flags: vec!["llba", "flush", "up", "jumbo"],
            sectors: 2097152,
            shown: 2097152,
            parts: vec![PartLine { name: "boot".into(), start: 2048, end: 1050624 }],
            flush: FlushLine::Yes,
            deadline: 180,
            ..UnitPage::default()
        };
        let design = "\
state: up
nopen: 1
nout: 3
nmaxout: 16
nframes: 16
maxbcnt: 8192 [maxmtu 9000]
fw: 4019
model: Coraid EtherDrive vblade
serial: 1.0:host
firmware: V25
flag: llba flush up jumbo
inquiry Coraid EtherDrive vblade V25
geometry 2097152 512
part data 0 2097152
part boot 2048 1050624
";
        let below = "\
flush: yes
deadline: 180
mtu: auto
maxbno: auto
maxout: auto
requests: 0
";
        assert_eq!(page.to_string(), format!("{design}{below}"));
        let down = UnitPage {
            state: "down",
            model: "two\nlines".into(),
            caps: [Cap(Some(1500)), Cap(None), Cap(Some(4))],
            ..UnitPage::default()
        };
        let text = down.to_string();
        assert!(text.starts_with("state: down\n") && text.contains("\nflag:\n"), "{text}");
        assert!(
            text.ends_with("mtu: 1500\nmaxbno: auto\nmaxout: 4\nrequests: 0\n")
                && text.contains("model: two lines\n"),
            "{text}"
        );
    }

    #[test]
    fn the_top_ctl() {
        let page = TopPage {
            autodiscover: true,
            rediscover: true,
            nets: vec![NetLine {
                index: 0,
                name: "eth1".into(),
                mac: "52:54:00:12:34:56".parse().unwrap(),
                up: true,
                port: false,
                mtu: 9000,
                ..NetLine::default()
            }],
            targets: vec![TargetLine {
                addr: Addr::new(1, 0),
                bytes: 1 << 30,
                interfaces: vec!["eth1".into()],
                payload: 8192,
                state: "up",
            }],
            ..TopPage::default()
        };
        let want = "\
debug: 0
autodiscover: 1
rediscover: 1
if0 path: eth1
if0 ea: 52:54:00:12:34:56
if0 flag: up
if0 lostjumbo: 0
if0 datamtu: 9000
1.0 1.073GB eth1 8192 up
candidates: 0
if0 drops: 0
";
        assert_eq!(page.to_string(), want);
    }

    #[test]
    fn targets_as_aoe_stat_shows_them() {
        let line = |bytes, interfaces: &[&str], state| {
            TargetLine {
                addr: Addr::new(7, 254),
                bytes,
                interfaces: interfaces.iter().map(ToString::to_string).collect(),
                payload: 1024,
                state,
            }
            .to_string()
        };
        assert_eq!(
            line(21_474_836_480 * 512, &["eth0", "eth1"], "up"),
            "7.254 10995.116GB eth0,eth1 1024 up"
        );
        assert_eq!(line(0, &[], "down"), "7.254 0.000GB - 1024 down");
        assert_eq!(line(u64::MAX, &["v"], "up"), "7.254 18446744073.709GB v 1024 up");
        assert_eq!(line(999_999, &["v"], "up"), "7.254 0.000GB v 1024 up");
    }

    #[test]
    fn a_devlink() {
        let page = DevlinkPage {
            net: NetLine {
                name: "eth1".into(),
                mac: "52:54:00:12:34:56".parse().unwrap(),
                up: true,
                port: true,
                mtu: 9000,
                lostjumbo: 2,
                ..NetLine::default()
            },
            up: true,
            jumbo: true,
            paths: vec![
                PathLine {
                    mac: "52:54:00:65:43:21".parse().unwrap(),
                    state: "active",
                    rtt: Some((210, 30)),
                    rto: 20210,
                    window: 16,
                    out: 3,
                    sectors: 16,
                    sent: 4711,
                    resent: 1,
                    late: 1,
                    bytes: 65536,
                    probed: Some(16),
                },
                PathLine {
                    mac: "52:54:00:65:43:22".parse().unwrap(),
                    state: "proving",
                    rto: 500_000,
                    ..PathLine::default()
                },
            ],
        };
        let want = "\
addr: 52:54:00:65:43:21
addr: 52:54:00:65:43:22
npkt: 4711
resent: 1
flag: up jumbo
rttavg: 210
mintimer: 20210
datamtu: 8192
nl path: eth1
nl ea: 52:54:00:12:34:56
nl flag: up port
nl lostjumbo: 2
nl datamtu: 9000
path: 52:54:00:65:43:21 active rtt 210 rttvar 30 rto 20210 window 16 out 3 sectors 16 sent 4711 resent 1 late 1 bytes 65536
probed: 52:54:00:65:43:21 8192
path: 52:54:00:65:43:22 proving rtt - rttvar - rto 500000 window 0 out 0 sectors 0 sent 0 resent 0 late 0 bytes 0
probed: 52:54:00:65:43:22 -
";
        assert_eq!(page.to_string(), want);
        let gone = DevlinkPage::default().to_string();
        assert!(gone.starts_with("npkt: 0\nresent: 0\nflag:\nrttavg: 0\n"), "{gone}");
    }
}
