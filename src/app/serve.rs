//! From a mount that stands to its end.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use crate::app::backend::Backend;
use crate::app::configfile::{self, ConfigFile};
use crate::bug;
use crate::cli::Options;
use crate::daemon::background::Ready;
use crate::daemon::errand::{Asked, Errand};
use crate::daemon::logging;
use crate::daemon::notify;
use crate::daemon::privilege;
use crate::daemon::seccomp;
use crate::daemon::signals::Signals;
use crate::daemon::stop::{self, Service};
use crate::daemon::unmounter::Unmounter;
use crate::export::Export;
use crate::export::server::Server;
use crate::failure::Failure;
use crate::fs::core::{Core, Lines, Settings, WAITING_MAX};
use crate::fs::ctl::UnitCommand;
use crate::fs::metrics::Format;
use crate::fs::session::FuseSession;
use crate::link::loopback;
use crate::mount::Mounted;
use crate::runtime::{By, NetlinkStatus, Runtime, TARGETS_MAX, Unit, clock};
use crate::scrape::{Kind, Pages, Scrape};
use crate::target::TargetConfig;
use crate::wire::Addr;

/// The address of the built-in target.
const DEMO: Addr = Addr::new(1, 0);
/// The MTU of the wire in memory that leads to it: jumbo frames, as on a storage network.
const DEMO_MTU: usize = 9000;
/// How long the first discovery has before the mount is said to be ready.
const FIRST_DISCOVERY: Duration = Duration::from_millis(500);
/// The service manager is told of changes at most so often.
const STATUS_EVERY: Duration = Duration::from_millis(250);
/// How many targets a line names.
const NAMED_MAX: usize = 8;
/// How often it is checked whether the awaited targets are up.
const CHECK_EVERY: Duration = Duration::from_millis(10);

/// All that the start has made. No thread runs yet, and no privilege is dropped.
#[derive(Debug)]
pub struct Stage {
    /// The command line; `mount.deadline` is short enough for this kernel.
    pub options: Options,
    /// The configuration file; its wrong lines have been reported.
    pub config: ConfigFile,
    /// Opened interfaces, or the demo's disk.
    pub backend: Backend,
    /// The mount, and the descriptor for `Session::from_fd`.
    pub mounted: Mounted,
    /// Knows the mount already.
    pub unmounter: Arc<Unmounter>,
    /// Blocked; for `daemon::stop::spawn`.
    pub signals: Signals,
    /// Where Prometheus is to be answered.
    pub scrape: Option<Scrape>,
}

/// Serves until the mount is gone. An error before `ready` becomes the one line on stderr, and whatever is mounted is
/// unmounted by the caller.
pub fn serve(stage: Stage, ready: &mut Ready) -> Result<(), Failure> {
    let Stage { options, config, backend, mounted, unmounter, signals, scrape } = stage;
    let runtime = Runtime::new(options.mount.max_targets.unwrap_or(TARGETS_MAX));
    let startup = Arc::new(Startup::new(&options, config));
    let settings = Settings {
        uid: options.mount.uid.unwrap_or_else(|| nix::unistd::getuid().as_raw()),
        gid: options.mount.gid.unwrap_or_else(|| nix::unistd::getgid().as_raw()),
        born: clock::wall(),
        read_only: options.mount.read_only,
        uncached: options.mount.direct_io,
        partscan: options.mount.partscan,
        waiting_max: WAITING_MAX,
        read_ahead: options.mount.read_ahead(),
    };
    let core = Core::new(runtime.clone(), settings, startup.clone());
    let cannot =
        |what: &'static str| move |error| Failure::start(format!("cannot {what}: {error}; try again"));
    let session = FuseSession::open(&core, mounted.device).map_err(cannot("talk to the kernel's FUSE"))?;
    if let Some(group) = options.mount.gid {
        // It matters for sockets of `vhost` alone, whose refusal says what to do.
        let (Ok(words) | Err(words)) = privilege::join(group);
        log::debug!("{words}");
    }
    // Capabilities belong to threads: they are dropped before there is a second thread, and after INIT. If
    // CAP_SYS_ADMIN were missing at INIT, the kernel would allow no more requests in the background than
    // `max_user_bgreq`, which the users of one target could fill.
    note(match backend {
        Backend::Links { .. } => privilege::drop_privileges(),
        Backend::Demo(_) => privilege::drop_all_privileges(),
    });
    // A filter of system calls, too, belongs to a thread and to those that it starts.
    note(seccomp::confine());
    logging::start()
        .map_err(|error| Failure::start(format!("cannot start a thread: {error}; see ulimit -u")))?;
    if let Err(error) = mounted.mount.set_read_ahead(options.mount.kernel_read_ahead()) {
        // The demo is for users without privileges: they need no warning.
        let level = if matches!(backend, Backend::Demo(_)) { log::Level::Debug } else { log::Level::Warn };
        log::log!(level, "the kernel's read-ahead stays small: {error}; buffered reads will be slow");
    }
    let reader = Arc::new(Reader { runtime: runtime.clone(), core: core.clone(), startup });
    let service = Arc::new(Attendant::new(reader.clone()));
    stop::spawn(signals, unmounter, options.mount.stop, service.clone()).map_err(cannot("start a thread"))?;
    let target = attach_backend(&runtime, backend).map_err(cannot("start a thread"))?;
    reader.run_top();
    if let Some(scrape) = scrape {
        scrape.start(pages(&core)).map_err(cannot("start a thread"))?;
    }
    // The kernel's requests are answered from here on, also while targets are awaited.
    let serving = thread::Builder::new().name("session".into()).spawn(move || session.run());
    let serving = serving.map_err(cannot("start a thread"))?;
    let foreground = options.foreground;
    let point = mounted.mount.point().display().to_string();
    follow_status(&runtime, point.clone());
    let there = await_targets(&runtime, &options, &|| serving.is_finished());
    let result = match there {
        Ok(()) => {
            ready.ready(&summary(&runtime, &point));
            ended(serving)
        }
        // In the foreground no process waits to hear that the start went well: a mount that was unmounted has ended
        // well.
        Err(_) if serving.is_finished() && foreground => ended(serving),
        Err(failure) if serving.is_finished() => ended(serving).and(Err(failure)),
        Err(failure) => {
            // The caller unmounts; that ends the session, and the process with it.
            Err(failure)
        }
    };
    core.close();
    runtime.stop();
    // The demo's thread may wait for its file, perhaps for ever. The end of the process takes it along.
    std::mem::forget(target);
    result
}

/// The pages for Prometheus. The thread that asks for them must not keep the mount in memory.
fn pages(core: &Arc<Core>) -> Pages {
    let core = Arc::downgrade(core);
    Arc::new(move |kind| {
        bug::here("scrape");
        let format = match kind {
            Kind::Text => Format::Prometheus,
            Kind::OpenMetrics => Format::OpenMetrics,
        };
        Some(core.upgrade()?.metrics(format))
    })
}

fn note(done: Result<String, String>) {
    match done {
        Ok(words) => log::debug!("{words}"),
        Err(words) => log::warn!("{words}"),
    }
}

fn ended(serving: thread::JoinHandle<std::io::Result<()>>) -> Result<(), Failure> {
    match serving.join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::start(format!("the kernel ended the mount: {error}"))),
        Err(_) => Err(Failure::start("a bug ended the session; please report it with the log")),
    }
}

/// Gives the runtime its back end. The demo's target is served until the returned server is dropped, which waits for
/// its thread.
fn attach_backend(runtime: &Arc<Runtime>, backend: Backend) -> std::io::Result<Option<Server>> {
    match backend {
        Backend::Links { links, late, follow } => {
            for link in links {
                // A name given twice is bound once.
                let _ = runtime.attach(Arc::new(link));
            }
            // Interfaces that come up later are bound by the watcher.
            runtime.start(true, follow)?;
            for name in late {
                // It may have come meanwhile; what is wrong with it then is in the log.
                let _ = runtime.bind_when_there(&name, By::CommandLine);
            }
            Ok(None)
        }
        Backend::Demo(image) => {
            runtime.start(false, false)?;
            let (near, far) = loopback::pair("demo", "target", DEMO_MTU);
            let export = Export::new(TargetConfig::new(DEMO, "demo"), image);
            let server = Server::start(far, export)?;
            let _ = runtime.attach(near);
            Ok(Some(server))
        }
    }
}

/// Waits for the targets of --wait, or until the first discovery has had its time.
fn await_targets(runtime: &Runtime, options: &Options, over: &dyn Fn() -> bool) -> Result<(), Failure> {
    let start = Instant::now();
    let up = |addr: &Addr| runtime.unit(*addr).is_some_and(|unit| runtime.inspect(&unit, |d| d.is_up()));
    loop {
        let missing: Vec<String> = options.wait.iter().filter(|a| !up(a)).map(Addr::to_string).collect();
        if over() {
            return Err(Failure::start("unmounted before it was ready"));
        }
        let patience = if options.wait.is_empty() { FIRST_DISCOVERY } else { options.wait_timeout };
        let done =
            if options.wait.is_empty() { !discovery_goes_on(runtime, start) } else { missing.is_empty() };
        if done {
            return Ok(());
        }
        if start.elapsed() >= patience {
            if options.wait.is_empty() {
                return Ok(());
            }
            let late = match runtime.awaited() {
                names if names.is_empty() => String::new(),
                names => format!(", and there is no interface {} yet", names.join(", ")),
            };
            return Err(Failure::start(format!(
                "{} did not answer within {} s{late}; check the cable, the target and -i, or wait longer with --wait-timeout",
                missing.join(", "),
                options.wait_timeout.as_secs()
            )));
        }
        thread::sleep(CHECK_EVERY);
    }
}

/// Whether the first discovery may still find targets. None was named: the demo's is enough, a network has half a
/// second.
fn discovery_goes_on(runtime: &Runtime, start: Instant) -> bool {
    let demo = runtime.netlinks().iter().all(|n| n.name == "demo") && runtime.unit(DEMO).is_some();
    let none = runtime.netlinks().is_empty();
    !(demo || none) && start.elapsed() < FIRST_DISCOVERY
}

/// The one line that says how the start went.
fn summary(runtime: &Runtime, point: &str) -> String {
    let name = |net: NetlinkStatus| match (net.up, net.port) {
        (_, true) => format!("{} (a port: bind its bridge or bond)", net.name),
        (true, false) => net.name,
        (false, false) => format!("{0} (down; raise it with: ip link set {0} up)", net.name),
    };
    let names: Vec<String> = runtime.netlinks().into_iter().map(name).collect();
    let late = runtime.awaited();
    let mut parts = Vec::new();
    match (names.is_empty(), late.is_empty()) {
        (true, true) => parts.push("bound to nothing".to_owned()),
        (true, false) => {}
        (false, _) => parts.push(format!("bound {}", names.join(", "))),
    }
    if !late.is_empty() {
        parts.push(format!("waiting for {} (no such interface yet; see: ip link)", late.join(", ")));
    }
    let (up, down): (Vec<_>, Vec<_>) =
        runtime.units().into_iter().partition(|unit| runtime.inspect(unit, |device| device.is_up()));
    match (up.is_empty(), down.is_empty()) {
        (true, true) => parts.push(format!("no target has answered yet; see {point}/ctl")),
        (true, false) => {}
        (false, _) => parts.push(format!("targets {}", some_of(&up))),
    }
    if !down.is_empty() {
        parts.push(format!("down: {}", some_of(&down)));
    }
    format!("{point}: {}", parts.join("; "))
}

/// Tells the service manager, if there is one, the summary, and again whenever it has changed. What changes it is in
/// the log, too.
fn follow_status(runtime: &Arc<Runtime>, point: String) {
    if !notify::is_listened_to() {
        return;
    }
    let mut told = summary(runtime, &point);
    notify::status(&told);
    let (news, to_tell) = crossbeam_channel::bounded(1);
    // One that is in the channel stands for all that follow until it is taken out.
    runtime.log().on_news(Arc::new(move || {
        let _ = news.try_send(());
    }));
    let weak = Arc::downgrade(runtime);
    let follow = move || {
        while to_tell.recv().is_ok() {
            thread::sleep(STATUS_EVERY);
            let Some(runtime) = weak.upgrade() else { return };
            let now = summary(&runtime, &point);
            if now != told {
                notify::status(&now);
                told = now;
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("status".into()).spawn(follow) {
        log::warn!("systemctl status will not follow the targets: no thread: {error}");
    }
}

/// The first addresses of a list, and how many more there are.
fn some_of(units: &[Arc<Unit>]) -> String {
    let first: Vec<String> = units.iter().take(NAMED_MAX).map(|unit| unit.addr.to_string()).collect();
    match units.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// The lines of the configuration file for targets, and the options of the command line for all of them.
struct Startup {
    options: Options,
    config: RwLock<Arc<ConfigFile>>,
}

impl Startup {
    fn new(options: &Options, config: ConfigFile) -> Startup {
        Startup { options: options.clone(), config: RwLock::new(Arc::new(config)) }
    }

    fn file(&self) -> Arc<ConfigFile> {
        self.config.read().clone()
    }
}

impl Lines for Arc<Startup> {
    fn before_visible(&self, addr: Addr) -> Vec<(String, UnitCommand)> {
        let file = self.file();
        let deadline =
            self.options.mount.deadline.map(|d| ("-o deadline".to_owned(), UnitCommand::Deadline(Some(d))));
        let lines = file.before_visible(addr).map(|line| (file.origin(line.number), line.command.clone()));
        deadline.into_iter().chain(lines).collect()
    }

    fn once_up(&self, addr: Addr) -> Vec<(String, UnitCommand)> {
        let file = self.file();
        file.once_up(addr).map(|line| (file.origin(line.number), line.command.clone())).collect()
    }
}

/// Reads the configuration file and runs its lines.
struct Reader {
    runtime: Arc<Runtime>,
    core: Arc<Core>,
    startup: Arc<Startup>,
}

impl Reader {
    /// Runs the lines of the file that are for the top ctl.
    fn run_top(&self) {
        let file = self.startup.file();
        self.runtime.forget_wanted();
        for line in file.top() {
            if let Err(error) = self.core.run_top_line(&line.command) {
                self.say(&format!("{}: {error}", file.origin(line.number)));
            }
        }
    }

    fn read_again(&self) {
        bug::here("reload");
        match configfile::read(&self.startup.options.config) {
            Ok(file) => {
                for complaint in file.complaints() {
                    self.say(&format!("{complaint}; the other lines apply"));
                }
                *self.startup.config.write() = Arc::new(file);
                self.run_top();
                self.core.apply_lines();
                self.runtime.log().log("daemon", None, "configuration read again");
            }
            Err(failure) => self.say(&failure.to_string()),
        }
    }

    fn say(&self, line: &str) {
        self.runtime.log().warn("daemon", None, line);
    }
}

/// Does what signals ask for.
struct Attendant {
    reader: Arc<Reader>,
    /// Reading the file may wait for ever, which the thread that serves signals must not.
    reload: Errand,
}

impl Attendant {
    fn new(reader: Arc<Reader>) -> Attendant {
        let own = reader.clone();
        Attendant { reader, reload: Errand::new("reload", move || own.read_again()) }
    }
}

impl Service for Attendant {
    fn reload(&self) {
        bug::here("signals");
        match self.reload.run() {
            Ok(Asked::Begun) => {}
            Ok(Asked::Later) => {
                self.say("the configuration is still being read; it will be read once more after that")
            }
            Err(error) => self.say(&format!("cannot read the configuration: no thread: {error}")),
        }
    }

    fn say(&self, line: &str) {
        self.reader.say(line);
    }

    fn abandon(&self) {
        // Before requests fail: a virtual machine has those that were not answered done again by the next daemon.
        self.reader.core.close_exports();
        self.reader.runtime.abandon();
    }
}
