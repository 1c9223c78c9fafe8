//! The `aoefs-target` command: exports a file or a block device as an ATA-over-Ethernet target.
//!
//! One thread for each interface (`export::server`), all with one processor (`target`) under a lock; one thread that
//! watches the interfaces; one thread that writes the log. The main thread waits for signals, and for nothing else: the
//! work that a signal asks for is done on a thread of its own, because the storage may hang. A start that fails ends
//! with one line and exit code 1; once it serves, only a signal ends it, and then written data is flushed first.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::{ArgAction, Parser};

use aoefs::cli::{self, values};
use aoefs::daemon::errand::{Asked, Errand};
use aoefs::daemon::logging;
use aoefs::daemon::panics;
use aoefs::daemon::seccomp;
use aoefs::daemon::signals::{Signals, Wish};
use aoefs::export::Export;
use aoefs::export::server::Server;
use aoefs::link::Link;
use aoefs::link::packet::{PacketLink, Role};
use aoefs::link::watch::LinkWatch;
use aoefs::target::{FileImage, Image, LoggingImage, Mark, Open, TargetConfig, write_record};
use aoefs::wire::{Addr, CONFIG_MAX, Mac, SECTOR, Text};

/// Exports a file or a block device as an ATA-over-Ethernet target.
///
/// SIGTERM and SIGINT flush what was written and end it, the second one without waiting for the flush; SIGHUP looks at
/// the size of FILE again.
#[derive(Parser)]
#[command(name = "aoefs-target", version, max_term_width = 100)]
pub(crate) struct Cli {
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

    /// Frames that initiators may have outstanding [default: 128]
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
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "info",
        _ => "debug",
    };
    panics::install();
    logging::install_as("aoefs-target", level);
    let code = run(&cli).unwrap_or_else(|why| {
        logging::last_words(&why);
        ExitCode::FAILURE
    });
    logging::flush();
    code
}

/// --help and --version are printed; a wrong command line is one line, as that of aoefs is.
fn explain(error: &clap::Error) -> ExitCode {
    match cli::explain(error, "aoefs-target") {
        Ok(text) => {
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            let _ = writeln!(io::stderr(), "aoefs-target: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// The exit code when data of initiators may be lost: EX_IOERR of sysexits(3).
const LOST: u8 = 74;

/// It is decided how the process ends, by the thread that flushed or by a second signal. The later one waits for ever,
/// or the exit code could be of the one and the last line of the other.
static DECIDED: AtomicBool = AtomicBool::new(false);

/// Decides how the process ends. Returns once in the life of the process.
fn decide() {
    while DECIDED.swap(true, Ordering::SeqCst) {
        thread::park();
    }
}

fn run(cli: &Cli) -> Result<ExitCode, String> {
    let how = Open { read_only: cli.read_only, sync: cli.sync, size: cli.size, share: cli.force_share };
    // The links first: a file that --size creates should not be left behind by a misspelt interface.
    let links = open_links(&cli.interfaces)?;
    let image = FileImage::open(&cli.file, &how).map_err(|e| e.to_string())?;
    let serial = match &cli.serial {
        Some(serial) => serial.clone(),
        None => serial_of(cli, &image).map_err(|e| format!("{}: {e}", cli.file.display()))?,
    };
    let bytes = image.sectors() * SECTOR as u64;
    let image: Box<dyn Image> = match &cli.write_log {
        Some(path) => Box::new(LoggingImage::new(image, write_log(path)?)),
        None => Box::new(image),
    };
    // Nothing is wrong any more that keeps it from serving.
    for name in links.iter().filter(|link| !link.is_up()).map(|link| link.name()) {
        log::warn!("{name} is down or has no carrier; it serves once that changes: ip link set {name} up");
    }
    // After all calls that may wait for storage, so that a signal ends these; before any thread starts, so that all
    // threads leave the signals to this one.
    let signals = Signals::block().map_err(|e| format!("cannot block signals: {e}"))?;
    // Everything is open.
    match seccomp::confine() {
        Ok(said) => log::debug!("{said}"),
        Err(said) => log::warn!("{said}"),
    }
    let no_thread = |e: io::Error| format!("cannot start a thread: {e}");
    logging::start().map_err(no_thread)?;
    let export = Export::new(config(cli, &serial), image);
    let servers = links
        .into_iter()
        .map(|link| Server::start(link, Arc::<Export>::clone(&export)))
        .collect::<io::Result<Vec<_>>>()
        .map_err(no_thread)?;
    let servers = Arc::new(servers);
    watch_links(Arc::clone(&servers));

    logging::print(format!("READY {} {} {bytes} {serial}\n", cli.addr, cli.interfaces).as_bytes());
    serve_signals(&signals, &export, &servers, &cli.file)
}

/// Serves signals until one ends the program.
fn serve_signals(
    signals: &Signals,
    export: &Arc<Export>,
    servers: &Arc<Vec<Server>>,
    file: &Path,
) -> Result<ExitCode, String> {
    let (own, theirs) = (Arc::clone(export), Arc::clone(servers));
    let look = Errand::new("size", move || rescan(&own, &theirs));
    let mut stopping = false;
    loop {
        match signals.next(None) {
            Ok(None) => {}
            Ok(Some(Wish::Reload)) => match look.run() {
                Ok(Asked::Begun) => {}
                Ok(Asked::Later) => log::warn!("still looking at the size; once more after that"),
                Err(e) => log::error!("cannot look at the size: no thread: {e}"),
            },
            Ok(Some(Wish::Stop)) if stopping => {
                decide();
                logging::last_words(&format!(
                    "{}: ended by a second signal before the flush had; what was written last may be lost",
                    file.display()
                ));
                return Ok(LOST.into());
            }
            Ok(Some(Wish::StopWhenUnused)) if stopping => {}
            Ok(Some(Wish::Stop | Wish::StopWhenUnused)) => {
                log::info!("stopping: flushing");
                stopping = true;
                let (export, servers, file) = (Arc::clone(export), Arc::clone(servers), file.to_owned());
                let end = move || end(&export, &servers, &file);
                thread::Builder::new().name("flush".into()).spawn(end).map_err(|e| {
                    format!("cannot flush: no thread: {e}; what was written last may be lost")
                })?;
            }
            Err(e) => return Err(format!("cannot wait for signals: {e}")),
        }
    }
}

/// Flushes, and ends the process.
fn end(export: &Export, servers: &[Server], file: &Path) {
    // Kept until the process ends: nothing is written after the flush.
    let mut target = export.lock();
    let counters = target.counters();
    log::info!("{counters:?}, {} replies lost", servers.iter().map(Server::lost).sum::<u64>());
    let flushed = (target.lost(), target.flush());
    decide();
    let code = match flushed {
        (_, Ok(())) => 0,
        (before, Err(_)) => {
            let which = if before { "a flush failed before" } else { "the last flush failed" };
            logging::last_words(&format!("{}: {which}; what was written may be lost", file.display()));
            LOST
        }
    };
    logging::flush();
    std::process::exit(code.into());
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

/// The interfaces, each once, although one may be named twice: two servers on one interface would answer everything
/// twice.
fn open_links(names: &str) -> Result<Vec<Arc<dyn Link>>, String> {
    let mut links: Vec<Arc<dyn Link>> = Vec::new();
    for name in names.split(',') {
        let link = open_link(name)?;
        match links.iter().find(|other| other.index() == link.index()) {
            Some(other) if *other.name() == *name => log::warn!("{name}: named twice, served once"),
            Some(other) => log::warn!("{name}: is {}, named twice, served once", other.name()),
            None => links.push(link),
        }
    }
    Ok(links)
}

fn open_link(name: &str) -> Result<Arc<dyn Link>, String> {
    let link = PacketLink::open(name, Role::Target).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{name}: raw Ethernet needs CAP_NET_RAW; run as root, or setcap cap_net_raw,cap_net_admin+ep this program")
        }
        _ if e.raw_os_error() == Some(libc::ENODEV) => format!("there is no interface {name}; see: ip link"),
        io::ErrorKind::Unsupported => format!("{name} is no Ethernet interface, and AoE needs one; see: ip link"),
        _ => format!("cannot use interface {name}: {e}; see: ip link show {name}"),
    })?;
    Ok(Arc::new(link))
}

/// The serial number: the address, which people recognise, and as much of the disk's identity as fits.
fn serial_of(cli: &Cli, image: &FileImage) -> io::Result<String> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let identity = image.identity()?;
    if !identity.is_sure() {
        log::warn!(
            "{}: nothing names this disk but its place and its size: another one there would pass for it; give each a \
             --serial of its own",
            cli.file.display()
        );
    }
    let mut serial = format!("{}-{:016x}", cli.addr, identity.number(host.trim_end()));
    serial.truncate(20);
    Ok(serial)
}

fn write_log(path: &Path) -> Result<impl FnMut(Mark<'_>) + Send + use<>, String> {
    // Before it is opened, since opening a FIFO would wait for a reader.
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        return Err(format!("{}: the write log must be a regular file; name another one", path.display()));
    }
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
                aoefs::bug::here("links");
                for server in servers.iter() {
                    if event.index == server.link().index() || server.link().index() == 0 {
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
    aoefs::bug::here("size");
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

/// The size of a file that is created. The file may end in a part of a sector, which is not exported.
fn size(text: &str) -> Result<u64, String> {
    values::bytes(text)
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
        for text in ["", "K", "511", "0", "-1K", "1X", "1KB", "1.5G", "99999999999T", "8388608T"] {
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
