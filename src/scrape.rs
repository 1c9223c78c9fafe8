//! The metrics over HTTP, for Prometheus: `--metrics-listen`.
//!
//! One thread serves a few connections with poll(2). Promises: no client holds up another one or the daemon, since
//! nothing here blocks; a client has a limited time and a limited length for its question, and the oldest question that
//! is late gives way when all places are taken; a page is made on this thread and on none that serves the file system.
//! The crate httparse reads the head of a request. A server of its own, as tiny_http is one, has a thread for each
//! client and lets each be silent for ever.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Connections at a time. Prometheus and somebody with curl need two; each can hold a page, which has tens of megabytes
/// with thousands of targets.
const VISITORS: usize = 4;
/// How long one connection may take, the page included.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a question may be unfinished before another client can have its place. It leaves a client together with the
/// end of the handshake, whatever the distance, so this is for clients that get no processor.
const GRACE: Duration = Duration::from_millis(100);
/// Bytes of a request's head. Prometheus sends 300.
const HEAD_MAX: usize = 8 << 10;
/// Header lines of a request.
const HEADERS_MAX: usize = 64;
/// How long the listener rests if the system has no descriptor for another connection.
const REST: Duration = Duration::from_secs(1);

/// The formats that a client can ask for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Prometheus' text format.
    Text,
    /// OpenMetrics.
    OpenMetrics,
}

impl Kind {
    fn content_type(self) -> &'static str {
        match self {
            Kind::Text => "text/plain; version=0.0.4; charset=utf-8",
            Kind::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What the value of a header `Accept` prefers; text where it says nothing of either.
    fn accepted(accept: &str) -> Kind {
        let mut wanted = [0.0, 0.0];
        for entry in accept.split(',') {
            let mut parts = entry.split(';').map(str::trim);
            let place = match parts.next() {
                Some("application/openmetrics-text") => 1,
                Some("text/plain" | "text/*" | "*/*") => 0,
                _ => continue,
            };
            let mut weight = 1.0;
            let mut known = true;
            for parameter in parts {
                match parameter.split_once('=') {
                    Some(("q", q)) => weight = q.parse::<f64>().unwrap_or(0.0),
                    Some(("version", version)) => known = place == 0 || version == "1.0.0",
                    _ => {}
                }
            }
            if known {
                wanted[place] = f64::max(wanted[place], weight);
            }
        }
        if wanted[1] > 0.0 && wanted[1] >= wanted[0] { Kind::OpenMetrics } else { Kind::Text }
    }
}

/// Makes a page; none if there is none any more.
pub type Pages = Arc<dyn Fn(Kind) -> Option<String> + Send + Sync>;

/// An address at which nobody is answered yet.
#[derive(Debug)]
pub struct Scrape(TcpListener);

impl Scrape {
    /// Takes the address, so that an error is known before the mount stands.
    pub fn bind(address: SocketAddr) -> io::Result<Scrape> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Scrape(listener))
    }

    /// The address, with the port that the kernel chose for port 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers from now on, on a thread of its own, until the process ends.
    pub fn start(self, pages: Pages) -> io::Result<()> {
        let serve = move || {
            let mut desk = Desk { listener: self.0, pages, visitors: Vec::new(), rests: None };
            loop {
                desk.turn();
            }
        };
        thread::Builder::new().name("scrape".into()).spawn(serve).map(drop)
    }
}

/// One connection.
struct Visitor {
    stream: TcpStream,
    /// Its question is late from then on.
    late: Instant,
    until: Instant,
    /// What has come of its request.
    head: Vec<u8>,
    /// Its answer, once that is known, and how much of it is sent.
    answer: Option<(Vec<u8>, usize)>,
}

struct Desk {
    listener: TcpListener,
    pages: Pages,
    /// In the order in which they came.
    visitors: Vec<Visitor>,
    /// No connection is accepted before.
    rests: Option<Instant>,
}

impl Desk {
    /// Waits for something to do, and does it.
    fn turn(&mut self) {
        let ready = self.wait();
        // What was late when it was looked at; making the pages may take long.
        let now = Instant::now();
        self.rests = self.rests.filter(|until| *until > now);
        let pages = &self.pages;
        let mut ready = ready.into_iter();
        let knocked = ready.next().unwrap_or(false);
        self.visitors.retain_mut(|visitor| {
            let may_go_on = !ready.next().unwrap_or(false) || visitor.step(pages).is_ok_and(|over| !over);
            may_go_on && visitor.until > now
        });
        if knocked {
            self.accept(now);
        }
    }

    /// Sleeps until a descriptor is ready or somebody's time is over. Says who is ready, the listener first.
    fn wait(&self) -> Vec<bool> {
        let now = Instant::now();
        let listens =
            if self.rests.is_none() && self.has_room(now) { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(self.listener.as_fd(), listens)];
        for visitor in &self.visitors {
            let waits_for = if visitor.answer.is_some() { PollFlags::POLLOUT } else { PollFlags::POLLIN };
            fds.push(PollFd::new(visitor.stream.as_fd(), waits_for));
        }
        let late = self.visitors.iter().map(|visitor| visitor.late).filter(|late| *late > now);
        let next = self.visitors.iter().map(|visitor| visitor.until).chain(late).chain(self.rests).min();
        let timeout = match next.map(|next| next.saturating_duration_since(now)) {
            // One more, so that the time is over when the sleep is.
            Some(time) => PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        match poll(&mut fds, timeout) {
            Ok(_) => fds.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Whoever has been late for the longest time.
    fn oldest_late(&self, now: Instant) -> Option<usize> {
        self.visitors.iter().position(|visitor| visitor.answer.is_none() && visitor.late <= now)
    }

    /// A place is free, or somebody has one whose question is late.
    fn has_room(&self, now: Instant) -> bool {
        self.visitors.len() < VISITORS || self.oldest_late(now).is_some()
    }

    fn accept(&mut self, now: Instant) {
        while self.has_room(now) {
            match self.listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    if self.visitors.len() >= VISITORS
                        && let Some(oldest) = self.oldest_late(now)
                    {
                        self.visitors.remove(oldest);
                    }
                    self.visitors.push(Visitor {
                        stream,
                        late: now + GRACE,
                        until: now + PATIENCE,
                        head: Vec::new(),
                        answer: None,
                    });
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // It went away before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    log::warn!("--metrics-listen: cannot accept a connection: {error}");
                    self.rests = Some(now + REST);
                    return;
                }
            }
        }
    }
}

impl Visitor {
    /// Goes on as far as it can without waiting. True: it is done.
    fn step(&mut self, pages: &Pages) -> io::Result<bool> {
        while self.answer.is_none() {
            let mut piece = [0; 1024];
            let len = match self.stream.read(&mut piece) {
                Ok(0) => return Ok(true),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.head.extend_from_slice(&piece[..len]);
            self.answer = answer(&self.head, pages).map(|text| (text, 0));
        }
        let Some((text, sent)) = &mut self.answer else { return Ok(false) };
        while *sent < text.len() {
            match self.stream.write(&text[*sent..]) {
                Ok(0) => return Ok(true),
                Ok(len) => *sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.stream.shutdown(Shutdown::Write)?;
        Ok(true)
    }
}

/// The whole answer to a request, once its head is there or is seen to be wrong.
fn answer(head: &[u8], pages: &Pages) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) if head.len() < HEAD_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(reply("431 Request Header Fields Too Large", "", "the request is too long\n", true));
        }
        Err(_) => return Some(reply("400 Bad Request", "", "this is not HTTP/1.1\n", true)),
        Ok(httparse::Status::Complete(_)) => {}
    }
    let method = request.method.unwrap_or_default();
    let with_body = method != "HEAD";
    if !matches!(method, "GET" | "HEAD") {
        return Some(reply("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "only GET and HEAD\n", true));
    }
    let path = request.path.unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    Some(match path {
        "/metrics" => {
            let accepts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("accept"));
            let accepts: Vec<&str> =
                accepts.filter_map(|header| std::str::from_utf8(header.value).ok()).collect();
            let kind = Kind::accepted(&accepts.join(","));
            match pages(kind) {
                Some(page) => {
                    reply("200 OK", &format!("Content-Type: {}\r\n", kind.content_type()), &page, with_body)
                }
                None => reply("503 Service Unavailable", "", "the mount is gone\n", with_body),
            }
        }
        "/" => {
            reply("200 OK", "Content-Type: text/plain\r\n", "aoefs: the metrics are at /metrics\n", with_body)
        }
        _ => reply("404 Not Found", "", "the metrics are at /metrics\n", with_body),
    })
}

fn reply(status: &str, headers: &str, body: &str, with_body: bool) -> Vec<u8> {
    let length = body.len();
    let body = if with_body { body } else { "" };
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

#[cfg(test)]
mod tests;
