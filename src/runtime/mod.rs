//! The threads, locks, sockets and the clock that drive the engine.
//!
//! [`Runtime`] is the whole of it. Netlinks and devices live in tables under locks; one thread for each netlink
//! receives (or a deputy does in its place, or a machine's thread), the sweeper does what is due, the watcher follows
//! the interfaces. All calls into a device go through [`Runtime::with_device`], which carries out the effects after the
//! device's lock is released.
//!
//! Locks, in this order: netlinks, device table, one device. Those of the discovery, the timers and the log are leaves.
//! No lock is held across a send, a receive, a reply or a notification, but the sender's of an outbox across a send.

mod agenda;
mod beside;
mod bind;
pub mod clock;
mod deputy;
mod duty;
pub mod events;
mod linger;
mod memory;
mod netlink;
mod outbox;
#[cfg(test)]
mod sample;
mod sweeper;
mod table;
mod watcher;
mod wishes;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{cell::Cell, io};

use parking_lot::Mutex;

pub use beside::{Beside, Found as FoundBeside};
pub use deputy::Deputy;
pub use netlink::NetlinkStatus;
pub use sweeper::Alarm;
pub use table::{Unit, UnitId};
pub use wishes::By;

use self::clock::Clock;
use self::events::EventLog;
use self::netlink::Netlinks;
use self::sweeper::{Due, Timers};
use self::table::Units;
use self::wishes::Wishes;
use crate::engine::{Device, Discovery, Event, Found, NetId, Outcome, Pool, Sink, TagSpace, Time};
use crate::link::claim::Claim;
use crate::link::watch::LinkWatch;
use crate::wire::Addr;

/// The answer that travels with a request: called with the outcome, exactly once, with nothing locked.
pub type Done = Box<dyn FnOnce(Outcome) + Send>;

/// Targets known at once, unless told otherwise (docs/design.md#limits). However many targets are forged on a segment,
/// no more are kept.
pub const TARGETS_MAX: usize = 4096;

/// How often a query goes to every target, while `rediscover` is on.
const REDISCOVER: Duration = Duration::from_secs(30);
/// A change of a target's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// It is there now.
    Appeared,
    /// It was removed.
    Removed,
    /// It answers again.
    Up,
    /// It is down.
    Down,
    /// Another disk is behind its address.
    Replaced,
    /// The disk is larger.
    Resized,
}

/// Is told of changes of targets. Called with nothing locked.
pub trait Observer: Send + Sync {
    /// A target was found and is in no table yet: settings that it should have from the start are made here.
    fn prepare(&self, device: &mut Device<Done>);
    /// Its state has changed.
    fn changed(&self, unit: &Arc<Unit>, change: Change);
}

/// The three switches of the top ctl file.
#[derive(Debug)]
pub struct Switches {
    /// Query when a netlink is bound.
    pub autodiscover: AtomicBool,
    /// Query every 30 s.
    pub rediscover: AtomicBool,
    /// Chatty log.
    pub debug: AtomicBool,
}

/// Why a command of the top ctl file failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuntimeError {
    /// No such interface, or it is no Ethernet.
    NoDevice,
    /// It is bound already.
    Exists,
    /// It is not there.
    NotFound,
    /// It is in use.
    Busy,
    /// Not allowed.
    Permission,
    /// Everything else.
    Failed,
}

/// See the module.
pub struct Runtime {
    clock: Clock,
    log: EventLog,
    pool: Pool,
    nets: Netlinks,
    units: Units,
    discovery: Mutex<Discovery>,
    /// Holds our tags against other daemons on the same interfaces.
    _claim: Claim,
    timers: Timers,
    observer: OnceLock<Arc<dyn Observer>>,
    /// The switches.
    pub switches: Switches,
    targets_max: usize,
    /// Targets that were found and not taken, because the table is full.
    refused: AtomicU32,
    /// Bind interfaces that come up although they were not named.
    follow: AtomicBool,
    wishes: Mutex<Wishes>,
    stopping: AtomicBool,
    watch: OnceLock<Arc<LinkWatch>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

thread_local! {
    /// Each thread's sink, kept for its capacity.
    static SINK: Cell<Option<Sink<Done>>> = const { Cell::new(None) };
}

/// A random number, for first tags. The system's source never fails on a kernel that runs us.
fn seed() -> u32 {
    getrandom::u32().unwrap_or_else(|_| std::process::id().wrapping_mul(0x9e37_79b9))
}

impl Runtime {
    /// A runtime with no netlinks. Its threads start with [`Runtime::start`].
    pub fn new(targets_max: usize) -> Arc<Runtime> {
        let claim = Claim::any(seed());
        Arc::new(Runtime {
            clock: Clock::new(),
            log: EventLog::default(),
            pool: Pool::with_writes(memory::for_writes()),
            nets: Netlinks::default(),
            units: Units::default(),
            discovery: Mutex::new(Discovery::new(TagSpace::new(claim.space()), seed())),
            _claim: claim,
            timers: Timers::default(),
            observer: OnceLock::new(),
            switches: Switches {
                autodiscover: AtomicBool::new(true),
                rediscover: AtomicBool::new(true),
                debug: AtomicBool::new(false),
            },
            targets_max,
            refused: AtomicU32::new(0),
            follow: AtomicBool::new(false),
            wishes: Mutex::default(),
            stopping: AtomicBool::new(false),
            watch: OnceLock::new(),
            threads: Mutex::new(Vec::new()),
        })
    }

    /// Sets the observer that is told about targets; once, before the first netlink is attached.
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        // A second observer would be a mistake of the caller's; the first one stays.
        let _ = self.observer.set(observer);
    }

    /// Starts the sweeper, and the watcher unless there is no network to watch. With `follow`, interfaces that come up
    /// later are bound, too.
    pub fn start(self: &Arc<Self>, watch: bool, follow: bool) -> io::Result<()> {
        self.follow.store(follow, Ordering::Relaxed);
        let sweeper = self.clone();
        self.spawn("sweeper", move || sweeper.sweep_loop())?;
        self.timers.arm(self.clock.now() + REDISCOVER, Due::Rediscover);
        if watch {
            let watch = Arc::new(LinkWatch::open()?);
            let _ = self.watch.set(watch.clone());
            let watcher = self.clone();
            self.spawn("watcher", move || watcher.watch_loop(&watch))?;
        }
        Ok(())
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Fails all requests that are outstanding, nofail or not, and all that come later.
    pub fn abandon(&self) {
        for unit in self.units() {
            self.with_device(&unit, |device, now, sink| device.retire(now, sink));
        }
    }

    /// Ends every thread. Requests that are still outstanding fail.
    pub fn stop(&self) {
        if self.stopping.swap(true, Ordering::SeqCst) {
            return;
        }
        self.abandon();
        self.timers.stop();
        if let Some(watch) = self.watch.get() {
            watch.wake();
        }
        for net in self.nets.all() {
            net.stop();
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A thread that panicked has said so; the others must still be waited for.
            let _ = thread.join();
        }
    }

    /// Engine time.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// The log.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// The pool that buffers come from.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Every known target, in order of addresses.
    pub fn units(&self) -> Vec<Arc<Unit>> {
        self.units.all()
    }

    /// The target at this address.
    pub fn unit(&self, addr: Addr) -> Option<Arc<Unit>> {
        self.units.at(addr)
    }

    /// The target with this id, if it was not removed.
    pub fn unit_by_id(&self, id: UnitId) -> Option<Arc<Unit>> {
        self.units.get(id)
    }

    /// The netlinks, in order of binding.
    pub fn netlinks(&self) -> Vec<NetlinkStatus> {
        self.nets.all().iter().map(|n| n.status()).collect()
    }

    /// Addresses that announced themselves and are no targets (yet).
    pub fn candidates(&self) -> usize {
        self.discovery.lock().candidates()
    }

    /// Addresses that were not taken because a table was full.
    pub fn refused(&self) -> u64 {
        self.discovery.lock().refused + u64::from(self.refused.load(Ordering::Relaxed))
    }

    /// Calls into a device under its lock, and carries out what the engine wants done after releasing it.
    pub fn with_device<T>(
        &self,
        unit: &Arc<Unit>,
        f: impl FnOnce(&mut Device<Done>, Time, &mut Sink<Done>) -> T,
    ) -> T {
        let (now, slept) = self.clock.reading();
        self.with_sink(|sink| {
            let mut device = unit.device.lock();
            device.awake(slept, now, sink);
            let result = f(&mut device, now, sink);
            self.let_go(unit, device, now, slept, sink);
            self.carry_out(Some(unit), sink);
            result
        })
    }

    /// Reads from a device under its lock.
    pub fn inspect<T>(&self, unit: &Unit, f: impl FnOnce(&Device<Done>) -> T) -> T {
        f(&unit.device.lock())
    }

    /// Posts the frames that may leave, releases the lock, and arms the sweeper for the next deadline. `slept`: how
    /// long the machine had slept when the device was locked.
    fn let_go(
        &self,
        unit: &Arc<Unit>,
        mut device: parking_lot::MutexGuard<'_, Device<Done>>,
        now: Time,
        slept: u64,
        sink: &mut Sink<Done>,
    ) {
        device.work(now, sink);
        self.post(&mut sink.frames, slept);
        let due = device.next_deadline();
        drop(device);
        if let Some(due) = due {
            self.timers.arm_unit(unit, due);
        }
    }

    fn with_sink<T>(&self, f: impl FnOnce(&mut Sink<Done>) -> T) -> T {
        // A reply may submit the next request from inside: it finds the place empty and makes a sink of its own.
        let mut sink = SINK.take().unwrap_or_else(|| Sink::new(self.pool.clone()));
        let result = f(&mut sink);
        debug_assert!(sink.is_empty());
        SINK.set(Some(sink));
        result
    }

    /// Logs, sends and replies, with nothing locked.
    fn carry_out(&self, unit: Option<&Arc<Unit>>, sink: &mut Sink<Done>) {
        // Before the frames: their answer comes to another thread, which would be first to tell what it changes.
        for event in sink.events.drain(..) {
            self.report(unit, &event);
        }
        if !sink.frames.is_empty() {
            // The discovery's, which no order and no disk concerns.
            self.post(&mut sink.frames, self.clock.reading().1);
        }
        self.send_posted();
        for (reply, outcome) in sink.done.drain(..) {
            reply(outcome);
        }
    }

    /// Writes an event to the log, and tells the observer if the state of a target has changed.
    fn report(&self, unit: Option<&Arc<Unit>>, event: &Event) {
        if let Event::LostJumbo(net, _) = event
            && let Some(net) = self.nets.get(*net)
        {
            net.lost_jumbo.fetch_add(1, Ordering::Relaxed);
        }
        if event.is_chatty() && !self.switches.debug.load(Ordering::Relaxed) {
            return;
        }
        let addr = unit.map(|u| u.addr);
        match event.is_trouble() {
            true => self.log.warn(event.kind(), addr, event),
            false => self.log.log(event.kind(), addr, event),
        }
        let change = match event {
            Event::Up => Change::Up,
            Event::Down(_) => Change::Down,
            Event::Replaced { .. } => Change::Replaced,
            Event::Grown { .. } => Change::Resized,
            _ => return,
        };
        if let (Some(unit), Some(observer)) = (unit, self.observer.get()) {
            observer.changed(unit, change);
        }
    }

    /// Joins the threads that have ended.
    fn reap(&self) {
        let mut threads = self.threads.lock();
        let (ended, running) = threads.drain(..).partition(|t| t.is_finished());
        *threads = running;
        drop(threads);
        let ended: Vec<JoinHandle<()>> = ended;
        for thread in ended {
            let _ = thread.join();
        }
    }

    /// Sends a query over every netlink: to all targets, to those of one shelf, or to one.
    pub fn discover(&self, whom: Addr) {
        for net in self.nets.all() {
            self.query(net.id, whom);
        }
    }

    fn query(&self, net: NetId, whom: Addr) {
        let now = self.clock.now();
        self.with_sink(|sink| {
            self.discovery.lock().query(now, net, whom, &mut sink.frames);
            self.carry_out(None, sink);
        });
    }

    /// Forgets a target. Unless forced, only while nobody has its data open.
    pub fn remove(&self, addr: Addr, force: bool) -> Result<(), RuntimeError> {
        let unit = self.units.at(addr).ok_or(RuntimeError::NotFound)?;
        let busy = self.with_device(&unit, |device, now, sink| {
            let busy = device.opened() > 0 || device.requests() > 0;
            if force {
                device.fail_all(now, sink);
            }
            busy
        });
        if busy && !force {
            return Err(RuntimeError::Busy);
        }
        self.units.remove(&unit);
        // A thread that still holds it, or was about to send it a request, gets an error: the sweeper does not come
        // here.
        self.with_device(&unit, |device, now, sink| device.retire(now, sink));
        self.log.log("remove", Some(addr), "removed");
        if let Some(observer) = self.observer.get() {
            observer.changed(&unit, Change::Removed);
        }
        Ok(())
    }

    /// Forgets every target that is down and not in use, and says how many these were.
    pub fn remove_down(&self) -> usize {
        let down = |u: &Arc<Unit>| !self.inspect(u, |d| d.is_up());
        self.units().into_iter().filter(down).filter(|u| self.remove(u.addr, false).is_ok()).count()
    }

    /// Takes a candidate that has answered IDENTIFY into the table.
    fn adopt(&self, now: Time, found: Found) {
        let Found { birth, more } = found;
        let addr = birth.addr;
        if self.units.len() >= self.targets_max {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.log.warn(
                "refused",
                Some(addr),
                format_args!("not taken: {} targets are known", self.targets_max),
            );
            return;
        }
        let mut device = Device::new(birth, now);
        device.set_slept(self.clock.slept_before(now));
        if let Some(observer) = self.observer.get() {
            observer.prepare(&mut device);
        }
        let who = device.identity();
        let Some(unit) = self.units.add(addr, device) else { return };
        self.log.log("found", Some(addr), format_args!("found: {who}"));
        self.with_device(&unit, |device, now, sink| {
            for (net, mac, mtu, advertised) in more {
                device.answered_at(now, net, mac, mtu, advertised, sink);
            }
        });
        if let Some(observer) = self.observer.get() {
            observer.changed(&unit, Change::Appeared);
        }
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("targets", &self.units.len()).finish_non_exhaustive()
    }
}
