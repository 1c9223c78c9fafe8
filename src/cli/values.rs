//! Values of the command line that clap does not know: sizes, interfaces, targets.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::failure::Failure;
use crate::wire::{Addr, SECTOR, SECTORS_48};

/// The longest name of an interface, in bytes: a zero follows it.
const INTERFACE_NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// The bytes that 48 bits of sector number can address.
const DISK_MAX: u64 = SECTORS_48 * SECTOR as u64;

/// The size of the demo's disk: whole sectors, and at least one.
pub fn disk_size(text: &str) -> Result<u64, Failure> {
    let bad = |why: &str| Failure::usage(format!("--demo: size \"{text}\" {why}; try --demo=64M"));
    let bytes = bytes(text).ok_or_else(|| bad("is not a number of bytes, or with K, M, G or T"))?;
    match bytes {
        0 => Err(bad("is no disk")),
        _ if bytes % SECTOR as u64 != 0 => Err(bad("is not a multiple of 512 bytes")),
        _ if bytes > DISK_MAX => Err(bad("is more than AoE can address")),
        _ => Ok(bytes),
    }
}

/// A number of bytes: `4096`, `64M`, `1G`, also with iB or B behind. The letters are powers of 1024.
pub fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "m" | "MiB" => 20,
        "G" | "g" | "GiB" => 30,
        "T" | "t" | "TiB" => 40,
        _ => return None,
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Where to listen: `9417`, `127.0.0.1:9417`, `[::1]:9417`. A port alone is one of the loopback address, which other
/// machines do not reach. Names of hosts are not looked up.
pub fn listen_address(text: &str) -> Result<SocketAddr, Failure> {
    let port = || text.strip_prefix(':').unwrap_or(text).parse::<u16>().ok();
    let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
    text.parse().ok().or_else(|| port().map(loopback)).ok_or_else(|| {
        Failure::usage(format!(
            "--metrics-listen: \"{text}\" is not an address and a port; try --metrics-listen 127.0.0.1:9417"
        ))
    })
}

/// Names of interfaces out of words that may be comma lists, each once; no name for `none`. Whether they exist is found
/// out when they are used.
pub fn interfaces(words: &[&str]) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = Vec::new();
    for name in words.iter().flat_map(|word| word.split(',')) {
        let odd = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.len() > INTERFACE_NAME_MAX || name.contains(odd) || name.starts_with('.') {
            return Err(Failure::usage(format!("\"{name}\" is not the name of an interface; see: ip link")));
        }
        if !names.iter().any(|known| known == name) {
            names.push(name.into());
        }
    }
    if names.iter().any(|name| name == "none") {
        if names.len() > 1 {
            return Err(Failure::usage(
                "-i none together with other interfaces; leave none out, or name nothing else",
            ));
        }
        names.clear();
    }
    Ok(names)
}

/// Targets out of words that may be comma lists, each once.
pub fn targets(words: Vec<&String>) -> Result<Vec<Addr>, Failure> {
    let mut targets: Vec<Addr> = Vec::new();
    for word in words.iter().flat_map(|word| word.split(',')) {
        let target = word.parse::<Addr>().ok().filter(|target| !target.is_wildcard());
        let target = target.ok_or_else(|| {
            Failure::usage(format!("--wait: \"{word}\" is not a target; say SHELF.SLOT, as in --wait 1.0"))
        })?;
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    Ok(targets)
}
