use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

fn pages(page: &'static str) -> Pages {
    Arc::new(move |kind| Some(format!("{kind:?} {page}")))
}

fn served(pages: Pages) -> SocketAddr {
    let scrape = Scrape::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = scrape.address().unwrap();
    scrape.start(pages).unwrap();
    address
}

fn connected(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = connected(address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// As Prometheus 2.42 asks.
const PROMETHEUS: &str = "GET /metrics HTTP/1.1\r\nHost: a:9417\r\nUser-Agent: Prometheus/2.42.0\r\n\
    Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
    text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\nAccept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n";

const PLAIN: &str = "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";

#[test]
fn both_formats() {
    let address = served(pages("page"));
    assert_eq!(
        ask(address, PROMETHEUS),
        "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: 16\r\nConnection: close\r\n\r\nOpenMetrics page"
    );
    assert_eq!(
        ask(address, PLAIN),
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: 9\r\nConnection: close\r\n\r\nText page"
    );
    let head = ask(address, &PLAIN.replace("GET", "HEAD"));
    assert!(head.contains("Content-Length: 9\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn what_a_client_accepts() {
    for (accept, kind) in [
        ("", Kind::Text),
        ("*/*", Kind::Text),
        ("text/plain", Kind::Text),
        ("application/openmetrics-text", Kind::OpenMetrics),
        ("application/openmetrics-text; version=1.0.0; q=0.5, text/plain; q=0.4", Kind::OpenMetrics),
        ("application/openmetrics-text; version=1.0.0; q=0.5, text/plain", Kind::Text),
        ("application/openmetrics-text; version=2.0.0", Kind::Text),
        ("application/openmetrics-text; q=0", Kind::Text),
        ("application/openmetrics-text; q=x", Kind::Text),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,*/*;q=0.1",
            Kind::OpenMetrics,
        ),
    ] {
        assert_eq!(Kind::accepted(accept), kind, "{accept}");
    }
}

#[test]
fn everything_else_is_refused() {
    let address = served(pages("page"));
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n", "x".repeat(HEAD_MAX));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(HEADERS_MAX + 1));
    for (request, status) in [
        ("GET / HTTP/1.0\r\n\r\n", "200 OK"),
        ("GET /metrics?x=y HTTP/1.1\r\n\r\n", "200 OK"),
        ("GET /etc/passwd HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed"),
        ("\x16\x03\x01\x02\r\n\r\n", "400 Bad Request"),
        ("hello\r\n\r\n", "400 Bad Request"),
        (&long, "431 Request Header Fields Too Large"),
        (&many, "431 Request Header Fields Too Large"),
    ] {
        // More than what was read may be on its way when the connection ends, which resets it.
        let mut stream = connected(address);
        let _ = stream.write_all(request.as_bytes());
        let mut text = [0; 256];
        let len = stream.read(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text[..len]);
        assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {text}");
    }
}

/// A request that comes in pieces is one; somebody who goes in the middle of it harms nobody.
#[test]
fn pieces() {
    let address = served(pages("page"));
    let mut stream = connected(address);
    for piece in [&PLAIN[..5], &PLAIN[5..30], &PLAIN[30..]] {
        stream.write_all(piece.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    drop(connected(address));
    connected(address).write_all(b"GET /met").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.ends_with("Text page"), "{text}");
}

/// Silent clients, however many, and clients that do not read what they asked for.
#[test]
fn nobody_holds_up_another_one() {
    let large: &'static str = Box::leak("x".repeat(32 << 20).into_boxed_str());
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = served(Arc::new(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Some(large.to_owned())
    }));
    let silent: Vec<TcpStream> = (0..50).map(|_| connected(address)).collect();
    let start = Instant::now();
    assert_eq!(ask(address, PLAIN).len() - large.len(), ask(address, &PLAIN.replace("GET", "HEAD")).len());
    // One that waited for a silent one would wait for all of its time.
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    // All places but one are taken by those who do not read; the last one is for everybody else.
    let deaf: Vec<TcpStream> = (0..VISITORS - 1).map(|_| connected(address)).collect();
    for mut stream in &deaf {
        stream.write_all(PLAIN.as_bytes()).unwrap();
    }
    while asked.load(Ordering::Relaxed) < 2 + deaf.len() {
        assert!(start.elapsed() < LIMIT);
        thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    assert!(ask(address, PLAIN).len() > large.len());
    assert!(start.elapsed() < PATIENCE / 2, "{:?}", start.elapsed());
    drop((silent, deaf));
}

/// More clients than there are places, all of which have asked before anybody is accepted.
#[test]
fn whoever_asks_is_answered() {
    let scrape = Scrape::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = scrape.address().unwrap();
    let mut clients: Vec<TcpStream> = (0..4 * VISITORS).map(|_| connected(address)).collect();
    clients.iter_mut().for_each(|client| client.write_all(PLAIN.as_bytes()).unwrap());
    scrape.start(pages("page")).unwrap();
    for mut client in clients {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("Text page"), "{text}");
    }
}

#[test]
fn a_mount_that_is_gone() {
    assert!(ask(served(Arc::new(|_| None)), PLAIN).starts_with("HTTP/1.1 503 "));
}

/// A time that is over ends a connection, and the place is free.
#[test]
fn patience_ends() {
    let scrape = Scrape::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = scrape.address().unwrap();
    let mut desk = Desk { listener: scrape.0, pages: pages("page"), visitors: Vec::new(), rests: None };
    let mut stream = connected(address);
    desk.turn();
    assert_eq!(desk.visitors.len(), 1);
    desk.visitors[0].until = Instant::now();
    desk.turn();
    assert_eq!(desk.visitors.len(), 0);
    assert_eq!(stream.read(&mut [0; 9]).unwrap(), 0);
    // A listener that rests accepts nobody before its time.
    desk.rests = Some(Instant::now() + Duration::from_millis(50));
    let _waits = connected(address);
    let start = Instant::now();
    while desk.visitors.is_empty() {
        desk.turn();
        assert!(start.elapsed() < LIMIT);
    }
    assert!(start.elapsed() >= Duration::from_millis(50));
}

proptest! {
    /// Whatever comes, it is an answer or a wish for more, and a head that is too long is no wish for more.
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), accept in "[ -~]{0,60}") {
        let pages = pages("page");
        let _ = answer(&bytes, &pages);
        let text = answer(format!("GET /metrics HTTP/1.1\r\nAccept: {accept}\r\n\r\n").as_bytes(), &pages);
        prop_assert!(text.is_some_and(|text| text.starts_with(b"HTTP/1.1 200 OK\r\n")));
        let long = vec![b'a'; HEAD_MAX];
        prop_assert!(answer(&long, &pages).is_some());
    }
}
