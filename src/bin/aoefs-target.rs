//! The `aoefs-target` command: exports a file or a block device as an ATA-over-Ethernet target.
//!
//! One thread an interface (`runtime::serve`), all before one processor (`target`) under a lock; one thread that watches
//! the interfaces; this one waits for signals. What cannot start says so in one line and exits with 1; once it serves,
//! nothing but a signal ends it, and then what was written is flushed first.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use clap::{ArgAction, Parser};
use nix::sys::signal::{SigSet, Signal};

use aoefs::daemon::export::Export;
use aoefs::runtime::link::Link;
use aoefs::runtime::packet::{PacketLink, Role};
use aoefs::runtime::serve::Server;
use aoefs::runtime::watch::LinkWatch;
use aoefs::target::{FileImage, Image, LoggingImage, Mark, Open, TargetConfig, write_record};
use aoefs::wire::{Addr, CONFIG_MAX, Mac, SECTOR, Text};

/// Exports a file or a block device as an ATA-over-Ethernet target.
///
/// SIGTERM and SIGINT flush what was written and end it; SIGHUP looks at the size of FILE again.
#[derive(Parser)]
#[command(name = "aoefs-target", version, max_term_width = 100)]
struct Cli {
    /// Address of the target, for example 1.0
    #[arg(value_name = "SHELF.SLOT", value_parser = address)]
    addr: Addr,

    /// Interface to serve on; several separated by commas
    #[arg(value_name = "INTERFACE")]
    interfaces: String,

    /// File or block device to export
    file: PathBuf,

    /// Refuse writes
    #[arg(short, long)]
    read_only: bool,

    /// Answer a write only when it is durable (O_DSYNC), and report no write cache
    #[arg(short, long)]
    sync: bool,

    /// Frames that initiators may have outstanding
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    buffers: Option<u16>,

    /// Answer only these hosts
    #[arg(short, long, value_name = "MAC,...", value_delimiter = ',', value_parser = mac)]
    mask: Vec<Mac>,

    /// Config string at the start
    #[arg(long, value_name = "STRING", default_value = "", hide_default_value = true, value_parser = config_string)]
    config: String,

    /// Serial number, at most 20 characters [default: from the address, the host and the file's identity]
    #[arg(long, value_name = "TEXT", value_parser = text::<20>)]
    serial: Option<String>,

    /// Model, at most 40 characters
    #[arg(long, value_name = "TEXT", value_parser = text::<40>)]
    model: Option<String>,

    /// Create FILE, sparse, if it does not exist; K, M, G and T count in powers of 1024
    #[arg(long, value_name = "BYTES", value_parser = size)]
    size: Option<u64>,

    /// Export FILE even though another target has it locked
    #[arg(long)]
    force_share: bool,

    /// Append every write, discard and flush to this file, in their order (for crash tests)
    #[arg(long, value_name = "LOG")]
    write_log: Option<PathBuf>,

    /// Say more; twice: still more
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,

    /// Say only what failed
    #[arg(short, long, conflicts_with = "verbose")]
    quiet: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("aoefs-target: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<(), String> {
    // Before any thread, so that all of them leave the signals to this one.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    signals.thread_block().map_err(|e| format!("cannot block signals: {e}"))?;

    let how = Open { read_only: cli.read_only, sync: cli.sync, size: cli.size, share: cli.force_share };
    // The links first: a file that --size creates should not be left behind by a misspelt interface.
    let links = cli.interfaces.split(',').map(open_link).collect::<Result<Vec<_>, _>>()?;
    let image = FileImage::open(&cli.file, &how).map_err(|e| e.to_string())?;
    let serial = match &cli.serial {
        Some(serial) => serial.clone(),
        None => serial_of(cli.addr, &image).map_err(|e| format!("{}: {e}", cli.file.display()))?,
    };
    let bytes = image.sectors() * SECTOR as u64;
    let image: Box<dyn Image> = match &cli.write_log {
        Some(path) => Box::new(LoggingImage::new(image, write_log(path)?)),
        None => Box::new(image),
    };
    let export = Export::new(config(cli, &serial), image);
    let servers = links
        .into_iter()
        .map(|link| Server::start(link, Arc::<Export>::clone(&export)))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    let servers = Arc::new(servers);
    watch_links(Arc::clone(&servers));

    // Nobody may be reading; that is no reason to stop.
    let _ = writeln!(io::stdout(), "READY {} {} {bytes} {serial}", cli.addr, cli.interfaces);
    loop {
        match signals.wait() {
            Ok(Signal::SIGHUP) => rescan(&export, &servers),
            Ok(signal) => {
                log::info!("{signal}: flushing");
                break;
            }
            Err(e) => return Err(format!("cannot wait for signals: {e}")),
        }
    }
    let mut target = export.lock();
    let counters = target.counters();
    log::info!("{counters:?}, {} replies lost", servers.iter().map(Server::lost).sum::<u64>());
    // The lock is kept until the process ends: nothing is written after the flush.
    target.flush().map_err(|_| {
        format!("{}: the last flush failed; what was written last may be lost", cli.file.display())
    })
}

fn config(cli: &Cli, serial: &str) -> TargetConfig {
    let mut config = TargetConfig::new(cli.addr, serial);
    config.write_cache = !cli.sync;
    config.buffers = cli.buffers.unwrap_or(config.buffers);
    config.string = cli.config.clone().into_bytes();
    config.mask = cli.mask.clone();
    if let Some(model) = &cli.model {
        config.model = Text::new(model);
    }
    config
}

fn open_link(name: &str) -> Result<Arc<dyn Link>, String> {
    let link = PacketLink::open(name, Role::Target).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{name}: cannot open a packet socket: {e}; run as root, or setcap cap_net_raw,cap_net_admin+ep this program")
        }
        _ if e.raw_os_error() == Some(libc::ENODEV) => format!("{name}: no such interface; `ip link` lists what there is"),
        io::ErrorKind::Unsupported => format!("{e}; name one that is"),
        _ => format!("{name}: cannot use it: {e}"),
    })?;
    Ok(Arc::new(link))
}

/// The address, so that people recognise it, and as much of the disk's identity as fits.
fn serial_of(addr: Addr, image: &FileImage) -> io::Result<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let identity = image.fingerprint(host.trim_end())?;
    let mut serial = format!("{addr}-{identity:016x}");
    serial.truncate(20);
    Ok(serial)
}

fn write_log(path: &PathBuf) -> Result<impl FnMut(Mark<'_>) + Send + use<>, String> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| format!("{}: cannot open the write log: {e}", path.display()))?;
    let mut out = BufWriter::new(file);
    Ok(move |mark: Mark<'_>| {
        // A record of a flush must be in the file before the flush is answered: a cut may come at any time.
        let done = write_record(&mut out, mark)
            .and_then(|()| if mark == Mark::Flush { out.flush() } else { Ok(()) });
        if let Err(e) = done {
            log::error!("write log: {e}; it is incomplete from here on");
        }
    })
}

/// Tells the servers when the kernel says that an interface changed. Without it they still notice, but later.
fn watch_links(servers: Arc<Vec<Server>>) {
    let watch = move || -> io::Result<()> {
        let watch = LinkWatch::open()?;
        loop {
            for event in watch.wait()? {
                for server in servers.iter() {
                    if event.name == server.link().name() || event.index == server.link().index() {
                        server.link_changed();
                    }
                }
            }
        }
    };
    let complain = |e: &dyn Display| log::warn!("cannot watch the interfaces: {e}; changes are noticed late");
    let started = thread::Builder::new().name("links".into()).spawn(move || {
        if let Err(e) = watch() {
            complain(&e);
        }
    });
    if let Err(e) = started {
        complain(&e);
    }
}

fn rescan(export: &Export, servers: &[Server]) {
    let mut target = export.lock();
    let before = target.image().sectors();
    match target.image_mut().rescan() {
        Ok(now) if now == before => {}
        Ok(now) => {
            log::warn!("size changed from {before} to {now} sectors");
            drop(target);
            servers.iter().for_each(Server::announce);
        }
        Err(e) => log::error!("cannot find the size: {e}"),
    }
}

fn address(text: &str) -> Result<Addr, String> {
    match text.parse::<Addr>() {
        Ok(addr) if addr.is_wildcard() => {
            Err("65535 and 255 mean every target; give it an address of its own".into())
        }
        Ok(addr) => Ok(addr),
        Err(_) => Err("not an address: shelf 0..65534, a dot, slot 0..254, as in 1.0".into()),
    }
}

fn mac(text: &str) -> Result<Mac, String> {
    text.parse::<Mac>()
        .ok()
        .filter(|mac| mac.is_unicast())
        .ok_or_else(|| "not a MAC address of one host, as in 52:54:00:12:34:56".into())
}

fn config_string(string: &str) -> Result<String, String> {
    if string.len() > CONFIG_MAX {
        Err(format!("longer than {CONFIG_MAX} bytes"))
    } else {
        Ok(string.to_owned())
    }
}

/// Text as IDENTIFY can carry it.
fn text<const N: usize>(text: &str) -> Result<String, String> {
    if Text::<N>::new(text).as_str() == text {
        Ok(text.to_owned())
    } else {
        Err(format!("not plain ASCII of at most {N} characters without blanks at the ends"))
    }
}

/// A number of bytes, with a letter for a power of 1024.
fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes() {
        [digits @ .., letter @ (b'K' | b'M' | b'G' | b'T')] => {
            (digits, 10 * (1 + "KMGT".bytes().position(|l| l == *letter).unwrap_or(0)))
        }
        digits => (digits, 0),
    };
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse::<u64>().ok())
        .and_then(|number| number.checked_mul(1 << shift))
        .filter(|bytes| *bytes >= SECTOR as u64 && *bytes <= i64::MAX as u64)
        .ok_or_else(|| "not a size of at least 512 bytes, as in 64M or 1G".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn options_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_manual_knows_every_option() {
        let manual = include_str!("../../man/aoefs-target.8");
        for option in Cli::command().get_arguments().filter_map(|argument| argument.get_long()) {
            let described =
                manual.lines().any(|line| line.starts_with(".It Fl") && line.contains(&format!("-{option}")));
            assert!(described, "--{option}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("512", 512), ("1K", 1024), ("64M", 64 << 20), ("3G", 3 << 30), ("2T", 2 << 40)]
        {
            assert_eq!(size(text), Ok(bytes));
        }
        for text in ["", "K", "511", "0", "-1K", "1k", "1KB", "1.5G", "99999999999T", "8388608T"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn arguments() {
        let parse = |words: &str| Cli::try_parse_from(words.split(' '));
        let cli = parse("aoefs-target -r -b 7 -m 02:00:00:00:00:01,020000000002 0x1.07 a,b f")
            .unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((cli.addr, cli.buffers, cli.mask.len()), (Addr::new(1, 7), Some(7), 2));
        assert_eq!(cli.interfaces, "a,b");
        for bad in [
            "aoefs-target 1.0 eth0",
            "aoefs-target 1 0 eth0 f",
            "aoefs-target 1 eth0 f",
            "aoefs-target 65535.0 eth0 f",
            "aoefs-target 1.255 eth0 f",
            "aoefs-target -b 0 1.0 eth0 f",
            "aoefs-target -m ff:ff:ff:ff:ff:ff 1.0 eth0 f",
            "aoefs-target --serial 123456789012345678901 1.0 eth0 f",
            "aoefs-target -q -v 1.0 eth0 f",
        ] {
            assert_eq!(parse(bad).err().map(|e| e.exit_code()), Some(2), "{bad}");
        }
    }
}
