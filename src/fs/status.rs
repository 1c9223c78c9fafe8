//! The status pages: the top `ctl`, a target's `ctl` and `devlink/N` (docs/design.md#text-files).
//!
//! The order of the lines is a contract: devaoe's lines in devaoe's order, then devsd's, then those that are new.

use std::fmt::{self, Display, Formatter, Write};
use std::sync::atomic::Ordering;

use super::snapshot::{Target, net_name, nets, word};
use crate::engine::{PLAIN, Partition, PathStatus, Status, Trust};
use crate::runtime::{NetlinkStatus, Runtime, Switches, Unit};
use crate::wire::{FlushKind, SECTOR};

/// The text of the top `ctl`.
pub fn top(runtime: &Runtime) -> String {
    let units = runtime.units();
    let targets = units.iter().map(|unit| Target::take(runtime, unit));
    // Writing to a string does not fail.
    top_page(&runtime.switches, &runtime.netlinks(), targets, runtime.candidates()).unwrap_or_default()
}

/// The targets come one by one, since the numbers of thousands take megabytes.
fn top_page(
    switches: &Switches,
    netlinks: &[NetlinkStatus],
    targets: impl Iterator<Item = Target>,
    candidates: usize,
) -> Result<String, fmt::Error> {
    let mut page = String::new();
    let switches = [
        ("debug", &switches.debug),
        ("autodiscover", &switches.autodiscover),
        ("rediscover", &switches.rediscover),
    ];
    for (name, switch) in switches {
        writeln!(page, "{name}: {}", u8::from(switch.load(Ordering::Relaxed)))?;
    }
    for net in netlinks {
        let i = net.id.0;
        writeln!(page, "if{i} path: {}", net.name)?;
        writeln!(page, "if{i} ea: {}", net.mac)?;
        writeln!(page, "if{i} flag:{}", net_flags(Some(net)))?;
        writeln!(page, "if{i} lostjumbo: {}", net.lost_jumbo)?;
        writeln!(page, "if{i} datamtu: {}", net.mtu)?;
    }
    for target in targets {
        writeln!(page, "{}", TargetLine { target, netlinks })?;
    }
    writeln!(page, "candidates: {candidates}")?;
    for net in netlinks {
        writeln!(page, "if{} drops: {}", net.id.0, net.drops)?;
    }
    Ok(page)
}

/// A target as `aoe-stat` would show it.
struct TargetLine<'a> {
    target: Target,
    netlinks: &'a [NetlinkStatus],
}

impl Display for TargetLine<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Target { addr, status, paths } = &self.target;
        // Decimal gigabytes, cut after the third digit: integers only, so that it is exact at any size.
        let megabytes = status.size / 1_000_000;
        let names: Vec<String> = nets(paths).into_iter().map(|id| net_name(self.netlinks, id)).collect();
        let names = if names.is_empty() { "-".to_owned() } else { names.join(",") };
        write!(f, "{addr} {}.{:03}GB {names} ", megabytes / 1000, megabytes % 1000)?;
        write!(f, "{} {}", status.maxbcnt, state(status.up))
    }
}

/// The text of a target's `ctl`. `uncached`: what the mount says where the target's own switch was never set.
pub fn unit(runtime: &Runtime, unit: &Unit, uncached: bool) -> String {
    let page = runtime.inspect(unit, |device| UnitPage {
        status: device.status(),
        parts: device.partitions().cloned().collect(),
        uncached,
    });
    page.to_string()
}

struct UnitPage {
    status: Status,
    /// In order of declaration.
    parts: Vec<Partition>,
    uncached: bool,
}

impl UnitPage {
    /// What the disk can do, then what the target is set to.
    fn flags(&self) -> Flags<8> {
        let Self { status, uncached, .. } = self;
        Flags([
            (status.lba48, "llba"),
            (status.smart, "smart"),
            (status.flush != FlushKind::None, "flush"),
            (status.trim, "trim"),
            (status.up, "up"),
            (status.jumbo && status.maxbcnt > usize::from(PLAIN) * SECTOR, "jumbo"),
            (status.nofail, "nofail"),
            (status.uncached.unwrap_or(*uncached), "direct_io"),
        ])
    }
}

impl Display for UnitPage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let status = &self.status;
        let [model, serial, firmware] =
            [status.model.to_string(), status.serial.to_string(), status.firmware.to_string()].map(plain);
        writeln!(f, "state: {}", state(status.up))?;
        writeln!(f, "nopen: {}", status.nopen)?;
        writeln!(f, "nout: {}", status.nout)?;
        writeln!(f, "nmaxout: {}", status.nmaxout)?;
        writeln!(f, "nframes: {}", status.nframes)?;
        writeln!(f, "maxbcnt: {} [maxmtu {}]", status.maxbcnt, status.maxmtu)?;
        writeln!(f, "fw: {:04x}", status.fw)?;
        writeln!(f, "model: {model}")?;
        writeln!(f, "serial: {serial}")?;
        writeln!(f, "firmware: {firmware}")?;
        writeln!(f, "flag:{}", self.flags())?;
        writeln!(f, "inquiry {model} {firmware}")?;
        writeln!(f, "geometry {} {SECTOR}", status.sectors)?;
        writeln!(f, "part data 0 {}", status.size / SECTOR as u64)?;
        for part in &self.parts {
            writeln!(f, "part {} {} {}", part.name, part.start, part.end)?;
        }
        let flush = match status.flush {
            FlushKind::None => "none",
            FlushKind::Flush => "yes",
            FlushKind::FlushExt => "ext",
        };
        writeln!(f, "flush: {flush}")?;
        writeln!(f, "deadline: {}", status.deadline.as_secs())?;
        writeln!(f, "mtu: {}", Cap(status.mtu_cap))?;
        writeln!(f, "maxbno: {}", Cap(status.maxbno))?;
        writeln!(f, "maxout: {}", Cap(status.maxout))?;
        writeln!(f, "requests: {}", status.requests)
    }
}

/// The text of `devlink/n`, the target through one netlink, if the target still has so many.
pub fn devlink(runtime: &Runtime, unit: &Unit, n: u8) -> Option<String> {
    let Target { status, mut paths, .. } = Target::take(runtime, unit);
    let id = *nets(&paths).get(usize::from(n))?;
    let netlink = runtime.netlinks().into_iter().find(|net| net.id == id);
    paths.retain(|path| path.net == id);
    Some(DevlinkPage { netlink, up: status.up, jumbo: status.jumbo, paths }.to_string())
}

struct DevlinkPage {
    /// None: it was unbound a moment ago.
    netlink: Option<NetlinkStatus>,
    /// The target is up, by any path.
    up: bool,
    /// The target may have frames of more than [`PLAIN`] sectors.
    jumbo: bool,
    /// The target's addresses behind the netlink.
    paths: Vec<PathStatus>,
}

impl Display for DevlinkPage {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { paths, .. } = self;
        let sum = |field: fn(&PathStatus) -> u64| paths.iter().map(field).sum::<u64>();
        let bytes = |path: &PathStatus| usize::from(path.sectors) * SECTOR;
        let measured: Vec<u128> = paths.iter().filter_map(|p| Some(p.rtt?.as_micros())).collect();
        let average = measured.iter().sum::<u128>() / (measured.len() as u128).max(1);
        let up = self.up && paths.iter().any(|path| path.up && path.trust == Trust::Active);
        let jumbo = self.jumbo && paths.iter().any(|path| path.sectors > PLAIN);
        for path in paths {
            writeln!(f, "addr: {}", path.mac)?;
        }
        writeln!(f, "npkt: {}", sum(|p| p.stats.sent))?;
        writeln!(f, "resent: {}", sum(|p| p.stats.resent))?;
        writeln!(f, "flag:{}", Flags([(up, "up"), (jumbo, "jumbo")]))?;
        writeln!(f, "rttavg: {average}")?;
        writeln!(f, "mintimer: {}", paths.iter().map(|p| p.timeout.as_micros()).min().unwrap_or(0))?;
        writeln!(f, "datamtu: {}", paths.iter().map(bytes).max().unwrap_or(0))?;
        let net = self.netlink.as_ref();
        writeln!(f, "nl path: {}", net.map_or("", |net| &net.name))?;
        writeln!(f, "nl ea: {}", net.map(|net| net.mac).unwrap_or_default())?;
        writeln!(f, "nl flag:{}", net_flags(net))?;
        writeln!(f, "nl lostjumbo: {}", net.map_or(0, |net| net.lost_jumbo))?;
        writeln!(f, "nl datamtu: {}", net.map_or(0, |net| net.mtu))?;
        paths.iter().try_for_each(|path| path_lines(f, path))
    }
}

fn path_lines(f: &mut Formatter<'_>, path: &PathStatus) -> fmt::Result {
    let (mac, stats) = (path.mac, &path.stats);
    write!(f, "path: {mac} {}", word(path.trust))?;
    match path.rtt {
        Some(rtt) => write!(f, " rtt {} rttvar {}", rtt.as_micros(), path.deviation.as_micros())?,
        None => f.write_str(" rtt - rttvar -")?,
    }
    write!(f, " rto {} window {} out {}", path.timeout.as_micros(), path.window, path.inflight)?;
    write!(f, " sectors {} sent {} resent {}", path.sectors, stats.sent, stats.resent)?;
    writeln!(f, " late {} bytes {}", stats.late, stats.bytes)?;
    match path.probed {
        Some(sectors) => writeln!(f, "probed: {mac} {}", usize::from(sectors) * SECTOR),
        None => writeln!(f, "probed: {mac} -"),
    }
}

fn state(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

/// A text that the target sent, as one line.
fn plain(text: String) -> String {
    text.replace(char::is_control, " ")
}

/// Names of the flags that are set, each after a blank, as they follow a key.
struct Flags<const N: usize>([(bool, &'static str); N]);

impl<const N: usize> Display for Flags<N> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().filter(|(set, _)| *set).try_for_each(|(_, name)| write!(f, " {name}"))
    }
}

fn net_flags(net: Option<&NetlinkStatus>) -> Flags<2> {
    Flags([(net.is_some_and(|net| net.up), "up"), (net.is_some_and(|net| net.port), "port")])
}

/// A cap that an operator may have set.
struct Cap<T>(Option<T>);

impl<T: Display> Display for Cap<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(n) => n.fmt(f),
            None => f.write_str("auto"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::{NetId, PartId};
    use crate::fs::metrics::tests::{busy, netlink};
    use crate::wire::{Addr, Text};

    /// The lines of docs/design.md#text-files, and what follows them.
    #[test]
    fn a_units_ctl() {
        let boot =
            Partition { id: PartId(0), name: "boot".into(), start: 2048, end: 1_050_624, scanned: false };
        let mut page = UnitPage { status: busy().status, parts: vec![boot], uncached: false };
        page.status.model = Text::new("Coraid EtherDrive vblade");
        page.status.flush = FlushKind::Flush;
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
requests: 2
";
        assert_eq!(page.to_string(), format!("{design}{below}"));
        page.uncached = true;
        page.status.up = false;
        page.status.flush = FlushKind::None;
        page.status.model = Text::new("two\nlines");
        (page.status.mtu_cap, page.status.maxout) = (Some(1500), Some(4));
        let text = page.to_string();
        assert!(
            text.starts_with("state: down\n") && text.contains("\nflag: llba jumbo direct_io\n"),
            "{text}"
        );
        assert!(
            text.ends_with("mtu: 1500\nmaxbno: auto\nmaxout: 4\nrequests: 2\n")
                && text.contains("model: two lines\n")
                && text.contains("flush: none\n"),
            "{text}"
        );
    }

    #[test]
    fn the_top_ctl() {
        let switches = Switches { autodiscover: true.into(), rediscover: true.into(), debug: false.into() };
        let want = "\
debug: 0
autodiscover: 1
rediscover: 1
if3 path: eth1
if3 ea: 52:54:00:12:34:56
if3 flag: up
if3 lostjumbo: 1
if3 datamtu: 9000
1.0 1.073GB eth1 8192 up
candidates: 7
if3 drops: 4
";
        assert_eq!(top_page(&switches, &[netlink()], [busy()].into_iter(), 7).as_deref(), Ok(want));
    }

    #[test]
    fn targets_as_aoe_stat_shows_them() {
        let other = NetlinkStatus { id: NetId(1), name: "eth0".into(), ..netlink() };
        let netlinks = [other, netlink()];
        let line = |bytes, ids: &[u16], up| {
            let mut target = Target { addr: Addr::new(7, 254), ..busy() };
            (target.status.size, target.status.maxbcnt, target.status.up) = (bytes, 1024, up);
            let path = target.paths[0].clone();
            target.paths = ids.iter().map(|id| PathStatus { net: NetId(*id), ..path.clone() }).collect();
            TargetLine { target, netlinks: &netlinks }.to_string()
        };
        assert_eq!(line(21_474_836_480 * 512, &[3, 1, 3], true), "7.254 10995.116GB eth0,eth1 1024 up");
        assert_eq!(line(0, &[], false), "7.254 0.000GB - 1024 down");
        assert_eq!(line(u64::MAX, &[9], true), "7.254 18446744073.709GB if9 1024 up");
        assert_eq!(line(999_999, &[3], true), "7.254 0.000GB eth1 1024 up");
    }

    #[test]
    fn a_devlink() {
        let Target { mut paths, .. } = busy();
        paths[0].probed = Some(16);
        paths[1].timeout = Duration::from_millis(500);
        (paths[1].window, paths[1].inflight, paths[1].sectors) = (0, 0, 0);
        let netlink = NetlinkStatus { port: true, lost_jumbo: 2, ..netlink() };
        let mut page = DevlinkPage { netlink: Some(netlink), up: true, jumbo: true, paths };
        let want = "\
addr: 52:54:00:65:43:21
addr: 52:54:00:65:43:22
npkt: 4711
resent: 12
flag: up jumbo
rttavg: 210
mintimer: 20210
datamtu: 8192
nl path: eth1
nl ea: 52:54:00:12:34:56
nl flag: up port
nl lostjumbo: 2
nl datamtu: 9000
path: 52:54:00:65:43:21 active rtt 210 rttvar 30 rto 20210 window 16 out 3 sectors 16 sent 4711 resent 12 late 5 bytes 65536
probed: 52:54:00:65:43:21 8192
path: 52:54:00:65:43:22 proving rtt - rttvar - rto 500000 window 0 out 0 sectors 0 sent 0 resent 0 late 0 bytes 0
probed: 52:54:00:65:43:22 -
";
        assert_eq!(page.to_string(), want);
        page.paths[0].trust = Trust::Tainted;
        page.paths[0].sectors = 2;
        let text = page.to_string();
        assert!(text.contains("\nflag:\n") && text.contains("path: 52:54:00:65:43:21 tainted rtt"), "{text}");
        (page.netlink, page.paths) = (None, Vec::new());
        let gone = "\
npkt: 0
resent: 0
flag:
rttavg: 0
mintimer: 0
datamtu: 0
nl path: \n\
nl ea: 00:00:00:00:00:00
nl flag:
nl lostjumbo: 0
nl datamtu: 0
";
        assert_eq!(page.to_string(), gone);
    }
}
