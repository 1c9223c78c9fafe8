//! The thread of an export: one front end after the other.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use parking_lot::{Condvar, Mutex};
use vhost::vhost_user::{BackendReqHandler, Error};

use super::device::{BELL, Device, KICKS, MESSAGES};
use super::inbox::Orders;
use super::socket::{self, Name, Owner, Socket};
use super::tally::Tally;
use super::under_way::UnderWay;
use super::{Counts, END, QUEUES_MAX, Source};
use crate::bug;

/// Events that are taken at once: one for each thing that there is to wait for.
const EVENTS: usize = QUEUES_MAX + KICKS as usize;

/// How long the thread rests when no front end can be taken for want of descriptors, in milliseconds.
const REST: u16 = 1000;

/// What others may do to the thread.
struct Shared {
    orders: Arc<Orders>,
    /// The front end that is served. Under this lock one is taken and let go of: after the end was asked for none is
    /// taken any more.
    connection: Mutex<Option<UnixStream>>,
    /// There is one. Who asks does not wait for the lock.
    connected: AtomicBool,
    tally: Arc<Tally>,
    under_way: Arc<UnderWay>,
    over: Mutex<bool>,
    ended: Condvar,
}

/// See the module. What is not ended with [`end`] serves until the process ends.
pub struct Export {
    name: Name,
    shared: Arc<Shared>,
}

impl Export {
    /// Makes the socket and serves it, on a thread that this starts; `ready` is called there, or here if there is no
    /// thread. Making a socket may take as long as the file system that it is in.
    pub fn start(
        path: &Path,
        owner: Owner,
        source: Arc<dyn Source>,
        ready: impl FnOnce(io::Result<Arc<Export>>) + Send + 'static,
    ) {
        let path: PathBuf = path.to_owned();
        let ready = Arc::new(Mutex::new(Some(ready)));
        let own = ready.clone();
        let say = move |made| {
            let ready = own.lock().take();
            if let Some(ready) = ready {
                ready(made);
            }
        };
        let body = move || match Self::make(&path, owner) {
            Ok((export, socket)) => {
                let shared = export.shared.clone();
                say(Ok(Arc::new(export)));
                serve(&shared, &socket, &source);
                *shared.over.lock() = true;
                shared.ended.notify_all();
            }
            Err(error) => say(Err(error)),
        };
        if let Err(error) = std::thread::Builder::new().name("vhost".into()).spawn(body) {
            let ready = ready.lock().take();
            if let Some(ready) = ready {
                ready(Err(error));
            }
        }
    }

    fn make(path: &Path, owner: Owner) -> io::Result<(Self, Socket)> {
        let orders = Orders::new()?;
        let socket = socket::make(path, owner)?;
        let shared = Shared {
            under_way: UnderWay::new(orders.bell.clone()),
            orders,
            connection: Mutex::new(None),
            connected: AtomicBool::new(false),
            tally: Arc::default(),
            over: Mutex::new(false),
            ended: Condvar::new(),
        };
        Ok((Self { name: socket.name.clone(), shared: Arc::new(shared) }, socket))
    }

    /// Front ends that are connected.
    pub fn clients(&self) -> usize {
        usize::from(self.shared.connected.load(Ordering::Acquire))
    }

    /// What its front ends have asked for.
    pub fn counts(&self) -> Counts {
        self.shared.tally.counts()
    }

    /// The disk may have another size.
    pub fn resized(&self) {
        self.shared.orders.resized();
    }

    /// The front end is let go of, and none is taken any more.
    fn stop(&self) {
        let connection = self.shared.connection.lock();
        self.shared.orders.stop();
        if let Some(connection) = connection.as_ref() {
            // It fails where the front end was faster.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Whether the thread has ended by then.
    fn is_over(&self, by: Instant) -> bool {
        let mut over = self.shared.over.lock();
        while !*over && !self.shared.ended.wait_until(&mut over, by).timed_out() {}
        *over
    }
}

/// Ends exports: their sockets are gone and their front ends are let go of when `then` is called. It learns how many
/// threads did not end within [`END`]; those wait for something that a front end holds, and nobody waits for them.
pub fn end(exports: Vec<Arc<Export>>, then: impl FnOnce(usize) + Send + 'static) {
    if exports.is_empty() {
        return then(0);
    }
    let work = Arc::new(Mutex::new(Some((exports, then))));
    let own = work.clone();
    let body = move || {
        let Some((exports, then)) = own.lock().take() else { return };
        exports.iter().for_each(|export| export.stop());
        // Removing a name may take as long as the file system that it is in.
        exports.iter().for_each(|export| export.name.remove());
        let by = Instant::now() + END;
        then(exports.iter().filter(|export| !export.is_over(by)).count());
    };
    let body = Arc::new(body);
    let other = body.clone();
    if std::thread::Builder::new().name("vhost-end".into()).spawn(move || other()).is_err() {
        body();
    }
}

/// Takes front ends until the end is asked for.
fn serve(shared: &Arc<Shared>, socket: &Socket, source: &Arc<dyn Source>) {
    while !shared.orders.is_stopping() {
        let readable = |what| PollFd::new(what, PollFlags::POLLIN);
        let mut waits = [readable(shared.orders.bell.as_fd()), readable(socket.listener.as_fd())];
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => shared.orders.bell.heard(),
            Err(error) => return source.say(&format!("cannot wait for front ends: {error}")),
        }
        match socket.listener.accept() {
            Ok((connection, _)) => {
                if let Err(error) = serve_one(shared, connection, source) {
                    source.say(&format!("the front end is let go of: {error}"));
                }
                // It is closed with nothing locked: descriptors that the front end has sent and nobody has read are
                // closed with it, and that may take long.
                let last = shared.connection.lock().take();
                shared.connected.store(false, Ordering::Release);
                drop(last);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                source.say(&format!("cannot take a front end: {error}"));
                // A descriptor may be free again then.
                let _ = poll(&mut waits[..1], PollTimeout::from(REST));
            }
        }
    }
}

/// Serves one front end until it goes, or is let go of. Errors are words for the log.
fn serve_one(shared: &Arc<Shared>, connection: UnixStream, source: &Arc<dyn Source>) -> Result<(), String> {
    fn why(what: &'static str) -> impl Fn(&dyn std::fmt::Display) -> String {
        move |error| format!("{what}: {error}")
    }
    let cannot = why("cannot serve it");
    let copy = || connection.try_clone().map_err(|error| cannot(&error));
    {
        let mut served = shared.connection.lock();
        if shared.orders.is_stopping() {
            return Ok(());
        }
        *served = Some(copy()?);
        shared.connected.store(true, Ordering::Release);
        shared.tally.connected();
    }
    connection.set_nonblocking(false).map_err(|error| cannot(&error))?;
    let disk = source.open()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|error| cannot(&error))?;
    let readable = |what| EpollEvent::new(EpollFlags::EPOLLIN, what);
    epoll.add(shared.orders.bell.as_fd(), readable(BELL)).map_err(|error| cannot(&error))?;
    epoll.add(connection.as_fd(), readable(MESSAGES)).map_err(|error| cannot(&error))?;
    let (orders, tally, under_way) = (shared.orders.clone(), shared.tally.clone(), shared.under_way.clone());
    let device = Device::new(source.clone(), disk, orders, tally, under_way, epoll, copy()?);
    #[allow(clippy::arc_with_non_send_sync, reason = "the crate wants both; the memory stays on this thread")]
    let device = Arc::new(StdMutex::new(device.map_err(|error| cannot(&error))?));
    let mut messages = BackendReqHandler::from_stream(connection, device.clone());
    loop {
        match turn(shared, &device, &mut messages) {
            Ok(()) if shared.orders.is_stopping() => return Ok(()),
            Ok(()) => {}
            // It has gone, or was sent away.
            Err(Error::Disconnected) => return Ok(()),
            Err(_) if shared.orders.is_stopping() => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Waits for something to do, and does it.
fn turn(
    shared: &Shared,
    device: &StdMutex<Device>,
    messages: &mut BackendReqHandler<StdMutex<Device>>,
) -> Result<(), Error> {
    // Nobody else locks it: a panic ends the process.
    let lock = || device.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut events = [EpollEvent::empty(); EVENTS];
    let count = {
        let mut device = lock();
        device.work();
        has_its_memory(&device)?;
        let patience = device.rest();
        // The thread does not sleep where that was the last that it found.
        has_its_memory(&device)?;
        match patience.map(|patience| device.epoll().wait(&mut events, patience)) {
            None | Some(Err(Errno::EINTR)) => 0,
            Some(Ok(count)) => {
                device.looked();
                count
            }
            Some(Err(error)) => return Err(Error::ReqHandlerError(error.into())),
        }
    };
    bug::here("vhost");
    for event in &events[..count] {
        match event.data() {
            BELL => {
                shared.orders.bell.heard();
                lock().look_again();
            }
            MESSAGES => {
                lock().look_for_channel();
                messages.handle_request()?;
            }
            // A queue has something: all of them are looked at.
            _ => {}
        }
    }
    Ok(())
}

/// Who takes memory back that it has shared is let go of.
fn has_its_memory(device: &Device) -> Result<(), Error> {
    match device.has_lost_memory() {
        true => Err(Error::ReqHandlerError(io::Error::other("it has taken back memory that it shared"))),
        false => Ok(()),
    }
}
