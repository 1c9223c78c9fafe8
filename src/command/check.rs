//! `aoefs check`: what is wrong with interfaces, paths and targets, and what to do about it, on one screen. What
//! aoe-sancheck(8) tests and a doctor would ask.

use std::collections::BTreeMap;

use super::facts::{self, Facts, Interface, Path, Place, Target};
use super::mounts::Mount;
use super::print;
use crate::cli::Via;
use crate::failure::Failure;

/// More copies than one frame in so many point to loss on the way.
const RESENT_ONE_IN: u64 = 100;
/// So few frames are too few to judge by.
const FRAMES_MIN: u64 = 1000;
/// A target that holds fewer frames than this is slow by itself: two writes of 1 MiB with jumbo frames fill it.
const BUFFERS_MIN: u64 = 16;
/// An interface below this MTU carries less than a page in a frame.
const JUMBO: usize = 4132;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Nothing to do.
    Fine,
    /// It works, and could be better.
    Note,
    /// It is wrong.
    Wrong,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Fine => "ok   ",
            Level::Note => "note ",
            Level::Wrong => "WRONG",
        }
    }
}

/// One line: about what, how it is, what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    level: Level,
    what: String,
    is: String,
    advice: String,
}

/// Checks. False if something is wrong.
pub fn run(via: &Via) -> Result<bool, Failure> {
    let (facts, again) = match via {
        Via::Mount(point) => {
            let mount = Mount::one(point.as_deref())?;
            (facts::of_mount(&mount)?, Again::Mount(mount.point.display().to_string()))
        }
        Via::Interfaces(names) => (facts::of_interfaces(names)?, Again::Interfaces),
    };
    let findings = judge(&facts, &again);
    print(&screen(&findings))?;
    Ok(findings.iter().all(|finding| finding.level != Level::Wrong))
}

/// What was checked, for the commands that are recommended.
enum Again {
    Mount(String),
    Interfaces,
}

fn screen(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { level, what, is, advice } in findings {
        let line = format!("{} {what:<width$}  {is}", level.word());
        text += &line.replace(char::is_control, " ");
        text.push('\n');
        if !advice.is_empty() {
            text += &format!("{}-> {advice}\n", " ".repeat(8 + width));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    match (count(Level::Wrong), count(Level::Note)) {
        (0, 0) => text + "nothing is wrong\n",
        (0, notes) => text + &format!("nothing is wrong, {notes} to note\n"),
        (wrong, _) => text + &format!("{wrong} wrong\n"),
    }
}

fn judge(facts: &Facts, again: &Again) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.interfaces.is_empty() {
        let advice = match again {
            Again::Mount(point) => format!("ip link shows what there is; then: aoefs ctl {point} bind IF"),
            Again::Interfaces => "name one with -i; ip link shows what there is".into(),
        };
        findings.push(wrong("interfaces", "none is in use", advice));
    }
    findings.extend(facts.interfaces.iter().flat_map(|interface| of_interface(interface, again)));
    if facts.targets.is_empty() {
        findings.push(wrong(
            "targets",
            "none answers",
            "is one running, on this segment, and does it serve these interfaces? AoE is not routed".into(),
        ));
    }
    findings.extend(facts.targets.iter().flat_map(|target| of_target(target, again)));
    findings
}

fn wrong(what: &str, is: &str, advice: String) -> Finding {
    Finding { level: Level::Wrong, what: what.into(), is: is.into(), advice }
}

fn note(what: &str, is: &str, advice: String) -> Finding {
    Finding { level: Level::Note, ..wrong(what, is, advice) }
}

fn of_interface(interface: &Interface, again: &Again) -> Vec<Finding> {
    let Interface { name, mtu, place, .. } = interface;
    if *place == Place::BuiltIn {
        let is = format!("built in, no network; MTU {mtu}");
        return vec![Finding { level: Level::Fine, what: name.clone(), is, advice: String::new() }];
    }
    let mut findings = Vec::new();
    let there = if *place == Place::Elsewhere { "in its network namespace: " } else { "" };
    if !interface.up {
        let advice =
            format!("raise it with: {there}ip link set {name} up; if it is up already, look at the cable");
        findings.push(wrong(name, "is down, or has no carrier", advice));
    }
    if interface.port {
        let advice = match again {
            Again::Mount(point) => {
                format!("aoefs ctl {point} bind BRIDGE; then: aoefs ctl {point} unbind {name}")
            }
            Again::Interfaces => "use the bridge or bond instead; ip link show names it".into(),
        };
        findings.push(wrong(name, "is a port of a bridge or a bond, which gets its frames", advice));
    }
    if let Some(drops @ 1..) = interface.drops {
        let is = format!("{drops} frames were lost here for want of receive buffer");
        let advice = "sysctl -w net.core.rmem_max=33554432 and mount again, or start aoefs as root".into();
        findings.push(wrong(name, &is, advice));
    }
    if let Some(lost @ 1..) = interface.lost_jumbo {
        let is = format!("{lost} large frames were lost on the way");
        findings.push(note(
            name,
            &is,
            "if it goes on, a switch or a target has a smaller MTU: see the paths".into(),
        ));
    }
    if *mtu < JUMBO {
        let is = format!("MTU {mtu} carries little data in a frame");
        let advice =
            format!("if targets and switches can: {there}ip link set {name} mtu 9000, there as well");
        findings.push(note(name, &is, advice));
    }
    if interface.pause.is_some_and(|pause| !pause.obeys) {
        let advice = format!("if the switch has it, too: ethtool -A {name} rx on tx on");
        findings.push(note(name, "flow control is off: bursts may be lost in the switch", advice));
    }
    if interface.up && !interface.port {
        let flow = match interface.pause {
            Some(pause) if pause.obeys => ", flow control on",
            Some(_) => "",
            None if *place == Place::Elsewhere => {
                ", flow control unknown (it is in another network namespace)"
            }
            None => ", flow control unknown (its driver does not say)",
        };
        let drops = interface.drops.map(|drops| format!(", {drops} frames dropped")).unwrap_or_default();
        let is = format!("up, MTU {mtu}{drops}{flow}");
        findings.insert(0, Finding { level: Level::Fine, what: name.clone(), is, advice: String::new() });
    }
    findings
}

fn of_target(target: &Target, again: &Again) -> Vec<Finding> {
    let Target { addr, .. } = target;
    let mut findings = Vec::new();
    if !target.up {
        let advice = match again {
            Again::Mount(point) => format!("start it again; or give up: aoefs ctl {point} remove -f {addr}"),
            Again::Interfaces => "start it again".into(),
        };
        return vec![wrong(addr, "is down", advice)];
    }
    findings.extend(rivals(target));
    findings.extend(target.paths.iter().filter_map(|path| of_path(addr, path)));
    if let Some((sent, resent)) = target.sent
        && sent >= FRAMES_MIN
        && resent * RESENT_ONE_IN > sent
    {
        let is = format!("{resent} of {sent} frames were sent again");
        let advice = "frames are lost: look at cables, at the switch's counters, and at flow control";
        findings.push(wrong(addr, &is, advice.into()));
    }
    if target.buffers < BUFFERS_MIN {
        let is = format!("holds only {} frames, which bounds its speed", target.buffers);
        findings.push(note(addr, &is, "start it with more: aoefs-target --buffers, or vblade -b".into()));
    }
    if findings.is_empty() {
        let is = format!("up, {}, holds {} frames", ways(&target.paths), target.buffers);
        findings.push(Finding { level: Level::Fine, what: addr.clone(), is, advice: String::new() });
    }
    findings
}

/// `8192 bytes a frame proven via eth1 and eth2`.
fn ways(paths: &[Path]) -> String {
    let mut nets: Vec<&str> = paths.iter().map(|path| path.net.as_str()).collect();
    nets.dedup();
    match paths.iter().filter_map(|path| path.proven).min() {
        Some(least) => format!("{least} bytes a frame proven via {}", nets.join(" and ")),
        None => "no path".into(),
    }
}

/// Two disks at one address: whoever writes may hit either.
fn rivals(target: &Target) -> Option<Finding> {
    let mut disks: BTreeMap<&str, &str> = BTreeMap::new();
    for path in &target.paths {
        if let Some(serial) = path.serial.as_deref() {
            disks.entry(serial).or_insert(&path.mac);
        }
    }
    let strangers = target.paths.iter().find(|path| path.state == "proving");
    if disks.len() < 2 && strangers.is_none() {
        return None;
    }
    let is = match strangers {
        Some(path) => format!("{} answers at this address, and has not shown the same disk", path.mac),
        None => {
            let disks: Vec<String> =
                disks.iter().map(|(serial, mac)| format!("{} at {mac}", serial.trim())).collect();
            format!("different disks answer at this address: {}", disks.join(", "))
        }
    };
    Some(wrong(&target.addr, &is, "give one of them another address; do not write to either before".into()))
}

fn of_path(addr: &str, path: &Path) -> Option<Finding> {
    let Path { net, mac, ours, .. } = path;
    match path.state.as_str() {
        // See `rivals`.
        "proving" => return None,
        "tainted" => {
            let is = format!("{mac} via {net} is silent while others answer");
            return Some(wrong(addr, &is, "look at that cable, port and interface".into()));
        }
        _ => {}
    }
    let most = path.theirs.map_or(*ours, |theirs| theirs.min(*ours));
    match (path.proven, path.theirs) {
        (None, _) => {
            let is = format!("{mac} via {net} answers queries, and no read of a sector");
            Some(wrong(
                addr,
                &is,
                "look at the target's own log: does it serve this host? (mask, reserve)".into(),
            ))
        }
        (Some(proven), _) if proven * 2 <= most => {
            let room =
                if path.theirs.is_some() { "both ends allow".into() } else { format!("{net} has room for") };
            let is = format!("{mac} via {net}: {proven} bytes of data pass in a frame, and {room} {most}");
            let ends = format!(
                "a switch on the way, or the target, has a smaller MTU: raise it, or lower that of {net}"
            );
            Some(wrong(addr, &is, ends))
        }
        (_, Some(theirs)) if theirs * 2 <= *ours => {
            let is = format!(
                "{mac} via {net}: the target takes {theirs} bytes of data in a frame, {net} has room for {ours}"
            );
            Some(note(addr, &is, "raise the MTU of the target's interface, and start it again".into()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::interface::Pause;

    fn eth1() -> Interface {
        let pause = Some(Pause { obeys: true, sends: true });
        Interface {
            name: "eth1".into(),
            up: true,
            mtu: 9000,
            drops: Some(0),
            lost_jumbo: Some(0),
            pause,
            ..Interface::default()
        }
    }

    fn good() -> Target {
        let path = Path {
            net: "eth1".into(),
            mac: "52:54:00:65:43:21".into(),
            state: "active".into(),
            ours: 8192,
            theirs: Some(8192),
            proven: Some(8192),
            serial: Some("one".into()),
        };
        Target { addr: "1.0".into(), up: true, buffers: 16, sent: Some((10_000, 3)), paths: vec![path] }
    }

    fn judged(change: impl FnOnce(&mut Interface, &mut Target)) -> String {
        let (mut interface, mut target) = (eth1(), good());
        change(&mut interface, &mut target);
        let facts = Facts { interfaces: vec![interface], targets: vec![target] };
        screen(&judge(&facts, &Again::Mount("/m".into())))
    }

    #[test]
    fn nothing_is_wrong_with_a_good_network() {
        let want = "ok    eth1  up, MTU 9000, 0 frames dropped, flow control on\n\
                    ok    1.0   up, 8192 bytes a frame proven via eth1, holds 16 frames\n\
                    nothing is wrong\n";
        assert_eq!(judged(|_, _| ()), want);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        type Change = fn(&mut Interface, &mut Target);
        let cases: [(Change, &str, &str); 10] = [
            (|i, _| i.up = false, "WRONG eth1  is down", "ip link set eth1 up"),
            (|i, _| i.port = true, "WRONG eth1  is a port of a bridge", "aoefs ctl /m bind BRIDGE"),
            (|i, _| i.drops = Some(7), "WRONG eth1  7 frames were lost", "net.core.rmem_max"),
            (|_, t| t.up = false, "WRONG 1.0   is down", "aoefs ctl /m remove -f 1.0"),
            (
                |_, t| t.sent = Some((10_000, 101)),
                "WRONG 1.0   101 of 10000 frames were sent again",
                "cables",
            ),
            (
                |_, t| t.paths[0].proven = Some(1024),
                "1024 bytes of data pass in a frame, and both ends allow 8192",
                "smaller MTU",
            ),
            (|_, t| t.paths[0].proven = None, "answers queries, and no read", "mask, reserve"),
            (|_, t| t.paths[0].state = "tainted".into(), "is silent while others answer", "cable"),
            (|_, t| t.paths[0].state = "proving".into(), "has not shown the same disk", "another address"),
            (
                |_, t| {
                    let other = Path { serial: Some("two".into()), mac: "b".into(), ..t.paths[0].clone() };
                    t.paths.push(other);
                },
                "different disks answer at this address: one at 52:54:00:65:43:21, two at b",
                "another address",
            ),
        ];
        for (change, is, advice) in cases {
            let text = judged(change);
            assert!(
                text.contains(is) && text.contains(advice) && text.ends_with("1 wrong\n"),
                "{is}: {text}"
            );
        }
    }

    #[test]
    fn what_could_be_better_is_a_note() {
        type Change = fn(&mut Interface, &mut Target);
        let cases: [(Change, &str, &str); 5] = [
            (|i, _| i.mtu = 1500, "note  eth1  MTU 1500", "mtu 9000"),
            (|i, _| i.lost_jumbo = Some(2), "note  eth1  2 large frames", "smaller MTU"),
            (
                |i, _| i.pause = Some(Pause { obeys: false, sends: false }),
                "flow control is off",
                "ethtool -A eth1",
            ),
            (|_, t| t.buffers = 2, "note  1.0   holds only 2 frames", "vblade -b"),
            (
                |_, t| (t.paths[0].theirs, t.paths[0].proven) = (Some(1024), Some(1024)),
                "the target takes 1024 bytes of data in a frame, eth1 has room for 8192",
                "raise the MTU",
            ),
        ];
        for (change, is, advice) in cases {
            let text = judged(change);
            assert!(
                text.contains(is) && text.contains(advice) && text.ends_with("1 to note\n"),
                "{is}: {text}"
            );
        }
        let empty = screen(&judge(&Facts::default(), &Again::Interfaces));
        assert!(
            empty.contains("interfaces  none is in use") && empty.contains("targets     none answers"),
            "{empty}"
        );
    }
}
