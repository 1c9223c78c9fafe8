//! The `aoefs` command: the order of its start. Each step needs the results of the steps before it, and only the last
//! one starts threads: forks and signal masks come first.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use aoefs::app::backend::Backend;
use aoefs::app::configfile::{self, ConfigFile};
use aoefs::app::foresee;
use aoefs::app::serve::{Stage, serve};
use aoefs::cli::{self, Action, Config, MountOptions, Network, Options};
use aoefs::command;
use aoefs::daemon::background::{self, Ready, Side, report};
use aoefs::daemon::logging;
use aoefs::daemon::panics;
use aoefs::daemon::privilege;
use aoefs::daemon::signals::Signals;
use aoefs::daemon::unmounter::Unmounter;
use aoefs::engine::DEADLINE;
use aoefs::failure::Failure;
use aoefs::fs::session::REPLIES;
use aoefs::mount::{self, MountError, MountSpec, Place, timeout};
use aoefs::runtime::events::EVENTS;
use aoefs::scrape::Scrape;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(Action::Print(text)) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Action::CheckConfig(config)) => check_config(&config),
        Ok(Action::Mount(options)) => start(*options),
        Ok(Action::Run(task)) => match command::run(&task) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(failure) => report(&failure),
        },
        Err(failure) => report(&failure),
    }
}

/// Errors that can be found without forking are found in front of the terminal; the others by the daemon.
fn start(mut options: Options) -> ExitCode {
    logging::install(options.verbosity, REPLIES, EVENTS);
    panics::install();
    let ready_to_fork = || {
        let config = configfile::read(&options.config)?;
        let place = Place::resolve(&options.mountpoint).map_err(|error| match meant(&error) {
            Some(name) => Failure::start(format!("{error}; or did you mean: aoefs {name}?")),
            None => refused(error),
        })?;
        let signals = Signals::block()
            .map_err(|error| Failure::start(format!("cannot receive signals: {error}; try again")))?;
        Ok((config, place, signals))
    };
    let (config, place, signals) = match ready_to_fork() {
        Ok(made) => made,
        Err(failure) => return report(&failure),
    };
    for complaint in config.complaints() {
        log::warn!("{complaint}; the other lines apply");
    }
    if !place.is_empty() {
        log::warn!(
            "{}: is not empty; what is in it is hidden while aoefs is mounted",
            place.path().display()
        );
    }
    clamp_deadline(&mut options.mount, timeout::longest_deadline());
    let mut ready = match options.foreground {
        true => Ready::foreground(),
        false => match background::detach(&signals) {
            Ok(Side::Daemon(ready)) => ready,
            Ok(Side::Parent(code)) => return code,
            Err(failure) => return report(&failure),
        },
    };
    match run(options, config, place, signals, &mut ready) {
        Ok(()) => {
            logging::flush();
            ExitCode::SUCCESS
        }
        Err(failure) => ready.failed(&failure),
    }
}

/// From the fork of the unmounter to the end. Whatever happens, nothing of ours is mounted afterwards.
fn run(
    options: Options,
    config: ConfigFile,
    place: Place,
    signals: Signals,
    ready: &mut Ready,
) -> Result<(), Failure> {
    std::env::set_current_dir("/")
        .map_err(|error| Failure::start(format!("cannot go to /: {error}; check its permissions")))?;
    let unmounter = Unmounter::start(&place)
        .map_err(|error| Failure::start(format!("cannot fork: {error}; see ulimit -u")))?;
    let unmounter = Arc::new(unmounter);
    let backend = Backend::open(&options)?;
    let scrape = options.metrics_listen.map(listen).transpose()?;
    let dead = place.clear().map_err(refused)?;
    if dead > 0 {
        log::info!("{}: detached the mount of an aoefs that is gone", place.path().display());
    }
    let spec = MountSpec {
        source: options.network.source(),
        allow_other: options.mount.allow_other,
        noexec: options.mount.noexec,
        ..MountSpec::default()
    };
    let mounted = mount::mount(&place, &spec).map_err(refused)?;
    let mount = mounted.mount.clone();
    prepare_process(&options.network);
    let served = match unmounter.mounted(&mount) {
        Ok(()) => {
            let unmounter = unmounter.clone();
            serve(Stage { options, config, backend, mounted, unmounter, signals, scrape }, ready)
        }
        Err(error) => Err(Failure::start(format!("the unmounter is gone: {error}; start again"))),
    };
    // Nothing is left to do here, unless the unmounter was killed. What one that hangs waits for would be waited for
    // here, too.
    if unmounter.finish()
        && let Err(error) = mount.detach()
    {
        log::warn!("{}: cannot detach the mount: {error}", mount.point().display());
    }
    served
}

/// Takes the address of --metrics-listen. After the unmounter was forked, which must not hold it.
fn listen(address: SocketAddr) -> Result<Scrape, Failure> {
    let scrape = Scrape::bind(address).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::AddrInUse => "another program has it; choose another port",
            ErrorKind::AddrNotAvailable => "no interface here has it; see: ip address",
            ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE; choose another port",
            _ => "under systemd see RestrictAddressFamilies=",
        };
        Failure::start(format!("--metrics-listen {address}: {error}; {hint}"))
    })?;
    // A port that the kernel chose is known to nobody else.
    if let Ok(chosen) = scrape.address()
        && address.port() == 0
    {
        log::info!("metrics: http://{chosen}/metrics");
    }
    Ok(scrape)
}

/// Sets properties of the process before the first thread; threads inherit them. Under memory pressure a file system on
/// a loop device waits for this process, so it must not wait for a file system or a page, and must not be killed.
fn prepare_process(network: &Network) {
    let demo = matches!(network, Network::Demo(_) | Network::DemoImage(_));
    // The demo is for users without privileges: they need no warning.
    let level = if demo { log::Level::Debug } else { log::Level::Warn };
    for (done, level) in [
        (privilege::io_flusher(), level),
        (privilege::lock_memory(), level),
        (privilege::oom_score_adj(OOM_SCORE), log::Level::Debug),
        (privilege::raise_open_files(), log::Level::Debug),
    ] {
        match done {
            Ok(what) => log::debug!("{what}"),
            Err(what) => log::log!(level, "{what}"),
        }
    }
}

/// The score of contrib/systemd/aoefs.service, too: killed after everything else, but not never.
const OOM_SCORE: i32 = -900;

/// The kernel may be told to give up a file system that is slow to answer, and a request of ours may be that slow.
fn clamp_deadline(options: &mut MountOptions, longest: Option<Duration>) {
    let Some(longest) = longest else { return };
    let wanted = options.deadline.unwrap_or(DEADLINE);
    if wanted > longest {
        log::warn!(
            "the sysctls fs.fuse.*_request_timeout end a mount that is slow to answer: deadline {} s instead of {} s, and nofail cannot hold longer",
            longest.as_secs(),
            wanted.as_secs()
        );
        options.deadline = Some(longest);
    }
}

/// The command that was probably meant, where there is no mount point of that name.
fn meant(error: &MountError) -> Option<&'static str> {
    let MountError::Missing(path) = error else { return None };
    // Typed as one word: anything else is a path.
    let here = std::env::current_dir().ok()?;
    (path.parent()? == here).then(|| cli::meant(path.file_name()?))?
}

fn refused(error: MountError) -> Failure {
    Failure::start(error.to_string())
}

/// `--check-config`: one line on stdout if all is well, else one on stderr for each line that is not. A start does
/// without the file if nobody named it; whoever has it checked wants to know that it is not there.
fn check_config(config: &Config) -> ExitCode {
    let file = match configfile::read(&Config { named: true, ..config.clone() }) {
        Ok(file) => file,
        Err(failure) => return report(&failure),
    };
    let found = [file.complaints().to_vec(), foresee::failures(&file)].concat();
    if found.is_empty() {
        let _ = writeln!(std::io::stdout(), "{}", file.summary());
        return ExitCode::SUCCESS;
    }
    for complaint in found {
        report(&Failure::start(complaint));
    }
    ExitCode::FAILURE
}
