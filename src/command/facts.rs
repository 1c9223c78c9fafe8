//! What `aoefs check` judges: interfaces, targets and paths as they are, learnt from the files of a mount or, without
//! one, by asking over interfaces.

use std::iter;
use std::thread;
use std::time::{Duration, Instant};

use super::mounts::{Mount, value};
use super::station::{Heard, PATIENCE, Station, open_all};
use super::{ctl, mounts};
use crate::failure::Failure;
use crate::link::interface::{self, Pause};
use crate::link::watch::is_port;
use crate::wire::{Addr, Ata, Mac, SECTOR, Sector, below, most_sectors, sectors_per_frame};

/// How long the answers to `probe` are waited for: a lost frame of a size is asked for three times, half a second each.
const PROBES: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long everybody has to answer a query.
const QUERY: Duration = Duration::from_secs(1);

/// The name of the wire in memory that `--demo` uses.
const BUILT_IN: &str = "demo";

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub interfaces: Vec<Interface>,
    pub targets: Vec<Target>,
}

/// A local interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub up: bool,
    /// Its frames belong to a bridge or a bond.
    pub port: bool,
    pub mtu: usize,
    /// Frames lost for want of receive buffer; none where nobody counts.
    pub drops: Option<u64>,
    /// Large frames that were lost.
    pub lost_jumbo: Option<u64>,
    /// Its flow control; none where its driver does not say.
    pub pause: Option<Pause>,
    pub place: Place,
}

/// Where an interface is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    /// In the network namespace of this command.
    #[default]
    Here,
    /// In another one, that of the daemon.
    Elsewhere,
    /// A wire in memory, which has no link layer.
    BuiltIn,
}

/// A target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    pub addr: String,
    pub up: bool,
    /// Frames that it can hold.
    pub buffers: u64,
    /// Frames sent to it, and sent again; none where nobody counts.
    pub sent: Option<(u64, u64)>,
    pub paths: Vec<Path>,
}

/// A way to a target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path {
    pub net: String,
    pub mac: String,
    /// `active`, `proving` or `tainted`.
    pub state: String,
    /// Bytes of data that our MTU has room for.
    pub ours: usize,
    /// Bytes of data that the target says it takes; none where it was not asked.
    pub theirs: Option<usize>,
    /// Bytes of data that came through in one frame; none if no frame did.
    pub proven: Option<usize>,
    /// Serial number of the disk that answers by it; none where it was not asked.
    pub serial: Option<String>,
}

/// Bytes of data that a frame has room for.
fn room(mtu: usize) -> usize {
    usize::from(sectors_per_frame(mtu)) * SECTOR
}

/// Asks a mount, by its files.
pub fn of_mount(mount: &Mount) -> Result<Facts, Failure> {
    let top = mount.read("ctl")?;
    let interfaces: Vec<Interface> = (top.lines())
        .filter_map(|line| {
            line.split_once(" path: ").filter(|(key, _)| key.starts_with("if") && !key.contains(' '))
        })
        .map(|(key, name)| {
            let of = |what: &str| value(&top, &format!("{key} {what}")).unwrap_or_default();
            let flag = |flag: &str| of("flag").split(' ').any(|word| word == flag);
            let place = place(name, of("ea"));
            Interface {
                name: name.into(),
                up: flag("up"),
                port: flag("port"),
                mtu: of("datamtu").parse().unwrap_or(0),
                drops: of("drops").parse().ok(),
                lost_jumbo: of("lostjumbo").parse().ok(),
                pause: interface::pause(name).ok().filter(|_| place == Place::Here),
                place,
            }
        })
        .collect();
    let addrs = mount.targets()?;
    let up = |addr: &Addr| {
        mount.read(&format!("{addr}/ctl")).is_ok_and(|page| value(&page, "state") == Some("up"))
    };
    for addr in addrs.iter().filter(|addr| up(addr)) {
        ctl::write(mount, &format!("{addr}/ctl"), "probe")?;
    }
    let start = Instant::now();
    loop {
        let targets: Vec<Target> = addrs.iter().filter_map(|addr| of_target(mount, *addr).ok()).collect();
        let mut active =
            targets.iter().filter(|t| t.up).flat_map(|t| &t.paths).filter(|p| p.state == "active");
        if active.all(|path| path.proven.is_some_and(|proven| proven >= path.ours))
            || start.elapsed() >= PROBES
        {
            return Ok(Facts { interfaces, targets });
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Where the interface of that name and address is: two namespaces may each have an eth1.
fn place(name: &str, mac: &str) -> Place {
    match interface::named(name) {
        Ok(known) if known.mac.to_string() == mac => Place::Here,
        Err(_) if name == BUILT_IN => Place::BuiltIn,
        _ => Place::Elsewhere,
    }
}

fn of_target(mount: &Mount, addr: Addr) -> Result<Target, Failure> {
    let page = mount.read(&format!("{addr}/ctl"))?;
    let (mut paths, mut sent, mut resent) = (Vec::new(), 0, 0);
    let links = std::fs::read_dir(mount.path(&format!("{addr}/devlink"))).into_iter().flatten().flatten();
    for link in links {
        let name = link.file_name();
        // One that went a moment ago.
        let Ok(page) = mount.read(&format!("{addr}/devlink/{}", name.display())) else { continue };
        let number = |key| mounts::value(&page, key).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        sent += number("npkt");
        resent += number("resent");
        let mtu = number("nl datamtu") as usize;
        let net = value(&page, "nl path").unwrap_or_default();
        for line in page.lines().filter_map(|line| line.strip_prefix("path: ")) {
            let mut words = line.split(' ');
            let (mac, state) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            paths.push(Path {
                net: net.into(),
                mac: mac.into(),
                state: state.into(),
                ours: room(mtu),
                proven: probed(&page, mac).and_then(|n| n.parse().ok()),
                ..Path::default()
            });
        }
    }
    Ok(Target {
        addr: addr.to_string(),
        up: value(&page, "state") == Some("up"),
        buffers: value(&page, "nframes").and_then(|n| n.parse().ok()).unwrap_or(0),
        sent: Some((sent, resent)),
        paths,
    })
}

/// The figure behind `probed: MAC `.
fn probed<'a>(page: &'a str, mac: &str) -> Option<&'a str> {
    page.lines().find_map(|line| line.strip_prefix("probed: ")?.strip_prefix(mac)).map(str::trim)
}

/// Asks over interfaces. One that is down is a fact, too.
pub fn of_interfaces(names: &[String]) -> Result<Facts, Failure> {
    let mut facts = Facts::default();
    let (mut up, mut found) = (Vec::new(), Vec::new());
    for name in names {
        let known = interface::named(name).map_err(|error| super::station::refused(name, &error))?;
        facts.interfaces.push(Interface {
            name: name.clone(),
            up: known.up,
            port: is_port(known.index),
            mtu: known.mtu,
            pause: interface::pause(name).ok(),
            ..Interface::default()
        });
        if known.up {
            up.push(name.clone());
        }
    }
    let mut stations = open_all(&up)?;
    for (n, station) in stations.iter_mut().enumerate() {
        found.extend(station.everybody(QUERY)?.into_iter().map(|heard| (n, heard)));
    }
    for (n, heard) in &found {
        let addr = heard.header.addr.to_string();
        let path = path(&mut stations[*n], heard)?;
        let buffers = heard.config().map_or(0, |config| u64::from(config.buffers));
        match facts.targets.iter_mut().find(|target| target.addr == addr) {
            Some(target) => {
                target.buffers = target.buffers.min(buffers);
                target.paths.push(path);
            }
            None => facts.targets.push(Target { addr, up: true, buffers, sent: None, paths: vec![path] }),
        }
    }
    facts.targets.sort_by_key(|target| target.addr.parse::<Addr>().ok());
    Ok(facts)
}

fn path(station: &mut Station, heard: &Heard) -> Result<Path, Failure> {
    let (mac, addr) = (heard.header.src, heard.header.addr);
    let advertised = heard.config().map_or(0, |config| most_sectors(config.sectors));
    let disk = station.identify(mac, addr)?;
    let ours = sectors_per_frame(station.mtu());
    let mut proven = None;
    let most = Some(ours.min(advertised)).filter(|most| *most > 0);
    for sectors in iter::successors(most, |last| (*last > 1).then(|| below(*last))) {
        if reads(station, mac, addr, sectors, disk.is_some_and(|disk| disk.lba48))? {
            proven = Some(usize::from(sectors) * SECTOR);
            break;
        }
    }
    Ok(Path {
        net: station.name().to_string(),
        mac: mac.to_string(),
        state: "active".into(),
        ours: usize::from(ours) * SECTOR,
        theirs: Some(usize::from(advertised) * SECTOR),
        proven,
        serial: disk.map(|disk| disk.serial.to_string()),
    })
}

/// Whether a read of so many sectors in one frame comes back whole.
fn reads(station: &mut Station, mac: Mac, addr: Addr, sectors: u8, lba48: bool) -> Result<bool, Failure> {
    let ask = |station: &mut Station| station.ask_ata(mac, addr, &Ata::read(Sector(0), sectors, lba48));
    let heard = station.answer(PATIENCE / 2, addr, ask)?;
    let whole = |heard: Heard| {
        heard.header.error.is_none()
            && Ata::parse(&heard.body)
                .is_ok_and(|(ata, data)| !ata.failed() && data.len() >= usize::from(sectors) * SECTOR)
    };
    Ok(heard.is_some_and(whole))
}
