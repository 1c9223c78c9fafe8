//! `aoefs-target` on real interfaces: what it serves, how it answers beside vblade, what it outlives, how it ends.

use crate::bed::raw::Port;
use crate::bed::{Bed, Daemon, Ns, proc, skip, until};
use aoefs::target::{Record, read_record};
use aoefs::wire::{
    ATA_LEN, Addr, Ata, Command, Config, Header, Identify, MIN_FRAME, Mac, Refusal, SECTOR, Sector, Tag,
    Verb, cmd,
};
use nix::sys::signal::Signal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

crate::tests![
    serves_a_file,
    agrees_with_vblade,
    outlives_its_link,
    outlives_its_interface(beside),
    follows_the_mtu,
    serves_two_interfaces,
    announces_to_masked_hosts_only,
    a_file_that_grows_is_announced,
    keeps_a_log_that_replays,
    cannot_start_says_why,
];

const SOON: Duration = Duration::from_secs(5);
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_aoefs-target");
const UNIT: Addr = Addr::new(3, 7);

/// A host with one port to the targets.
pub struct Host {
    pub port: Port,
    tag: u32,
}

impl Host {
    pub fn new(ns: &Ns, name: &str) -> Host {
        Host { port: Port::open(ns, name), tag: Tag::OURS }
    }

    pub fn send(&mut self, addr: Addr, command: Command, body: &[u8]) -> Tag {
        self.tag += 1;
        let header = Header {
            dst: Mac::BROADCAST,
            src: Mac(self.port.mac()),
            version: 1,
            response: false,
            error: None,
            addr,
            command,
            tag: Tag(self.tag),
        };
        let mut frame = vec![0; 24];
        header.emit(&mut frame);
        frame.extend_from_slice(body);
        frame.resize(frame.len().max(MIN_FRAME), 0);
        // Refused while the kernel still thinks that the other end is down.
        let _ = self.port.send_batch(&[&frame]);
        header.tag
    }

    /// The answer, if one comes.
    pub fn try_ask(&mut self, addr: Addr, command: Command, body: &[u8], limit: Duration) -> Option<Vec<u8>> {
        let tag = self.send(addr, command, body);
        self.port.recv_until(limit, |frame| {
            let (header, _) = Header::parse(frame).ok()?;
            (header.response && header.tag == tag).then(|| frame.to_vec())
        })
    }

    #[track_caller]
    pub fn ask(&mut self, command: Command, body: &[u8]) -> Vec<u8> {
        let until = Instant::now() + SOON;
        loop {
            let answer = self.try_ask(UNIT, command, body, Duration::from_millis(500));
            assert!(answer.is_some() || Instant::now() < until, "no answer to {command:?}");
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    #[track_caller]
    pub fn ata(&mut self, ata: Ata, data: &[u8]) -> (Ata, Vec<u8>) {
        let answer = self.ask(Command::Ata, &argument(ata, data));
        let (header, body) = Header::parse(&answer).unwrap();
        assert_eq!(header.error, None);
        let (registers, data) = Ata::parse(body).unwrap();
        (registers, data.to_vec())
    }

    #[track_caller]
    fn identify(&mut self) -> Identify {
        Identify::parse(&self.ata(Ata::identify(), &[]).1).unwrap()
    }

    /// The next announcement: its header, and what it says.
    #[track_caller]
    fn announced(&self, limit: Duration) -> (Header, u8) {
        let found = self.port.recv_until(limit, |frame| {
            let (header, body) = Header::parse(frame).ok()?;
            let config = Config::parse(body).ok()?;
            let announces =
                header.response && header.tag == Tag::UNSOLICITED && header.command == Command::Config;
            announces.then_some((header, config.sectors))
        });
        found.expect("an announcement")
    }
}

pub fn argument(ata: Ata, data: &[u8]) -> Vec<u8> {
    let mut body = vec![0; ATA_LEN];
    ata.emit(&mut body);
    body.extend_from_slice(data);
    body
}

pub fn query(verb: Verb, string: &[u8]) -> Vec<u8> {
    let config = Config::request(verb, string);
    let mut body = vec![0; config.len()];
    config.emit(&mut body);
    body
}

/// Starts one and waits until it is ready.
#[track_caller]
pub fn target(bed: &mut Bed, options: &[&str], ports: &str, image: &Path) -> Arc<Daemon> {
    let mut argv = vec![PROGRAM];
    argv.extend(options);
    argv.extend(["3.7", ports, image.to_str().unwrap()]);
    let tgt = bed.tgt.clone();
    let daemon = bed.spawn(&tgt, &argv);
    until("READY", SOON, || daemon.said().contains("READY 3.7 ") || !daemon.alive());
    assert!(daemon.alive(), "{}", daemon.said());
    daemon.assert_confined();
    daemon
}

/// Two hosts and a cable, without a mount.
pub fn cable(mtu: usize) -> Bed {
    let bed = Bed::new(&[]);
    bed.ini.veth("v0", &bed.tgt, "v1", mtu);
    bed
}

fn serves_a_file() {
    let mut bed = cable(9000);
    let mut host = Host::new(&bed.ini, "v0");
    let path = bed.image("disk", 1 << 20);
    let daemon = target(&mut bed, &["--config", "shelf of tests", "--serial", "S1"], "v1", &path);
    let (header, sectors) = host.announced(SOON);
    assert_eq!((header.dst, header.addr, header.version, sectors), (Mac::BROADCAST, UNIT, 1, 16));
    let identify = host.identify();
    assert_eq!((identify.serial.as_str(), identify.sectors), ("S1", 2048));
    let answer = host.ask(Command::Config, &query(Verb::Prefix, b"shelf"));
    assert_eq!(Config::parse(&answer[24..]).unwrap().string, b"shelf of tests");

    let disk = std::fs::read(&path).unwrap();
    for at in (0..2048).step_by(16) {
        let (done, data) = host.ata(Ata::read(Sector(at), 16, true), &[]);
        assert!(!done.failed() && data == disk[at as usize * SECTOR..][..16 * SECTOR], "sector {at}");
    }
    let (done, _) = host.ata(Ata::write(Sector(2047), 1, false), &[0x5a; SECTOR]);
    assert!(!done.failed());
    assert!(!host.ata(Ata::flush(true), &[]).0.failed());
    assert_eq!(std::fs::read(&path).unwrap()[2047 * SECTOR..], [0x5a; SECTOR]);

    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.ended(SOON), 0, "{}", daemon.said());
}

/// The same questions to both, where a host should not be able to tell them apart. What is compared is all that the
/// protocol defines of an answer: flags and error, and the argument; neither firmware, serial nor padding.
fn agrees_with_vblade() {
    if !proc::have("vblade") {
        skip("the program vblade is not installed");
    }
    let other = [2, 0, 0, 0, 0, 0x77];
    let (read, write) = (Ata::read(Sector(5), 2, true), Ata::write(Sector(5), 2, true));
    let past = Sector(2048);
    let reserve = |verb: u8, macs: &[u8]| [&[verb, (macs.len() / 6) as u8], macs].concat();
    let questions: Vec<(&str, Command, Vec<u8>)> = vec![
        ("read", Command::Config, query(Verb::Read, b"")),
        ("test", Command::Config, query(Verb::Test, b"")),
        ("test, other", Command::Config, query(Verb::Test, b"x")),
        ("set", Command::Config, query(Verb::Set, b"hello")),
        ("set again", Command::Config, query(Verb::Set, b"hello")),
        ("set another", Command::Config, query(Verb::Set, b"world")),
        ("prefix", Command::Config, query(Verb::Prefix, b"hel")),
        ("prefix, longer", Command::Config, query(Verb::Prefix, b"hellox")),
        ("force", Command::Config, query(Verb::Force, &[b'z'; 1024])),
        ("verb 7", Command::Config, query(Verb::Other(7), b"")),
        ("write", Command::Ata, argument(write, &[0x77; 2 * SECTOR])),
        ("read back", Command::Ata, argument(read, &[])),
        ("read 28", Command::Ata, argument(Ata::read(Sector(6), 1, false), &[])),
        ("read past the end", Command::Ata, argument(Ata::read(past, 1, true), &[])),
        ("write past the end", Command::Ata, argument(Ata::write(past, 1, true), &[1; SECTOR])),
        ("read across the end", Command::Ata, argument(Ata::read(Sector(2047), 2, true), &[])),
        ("read too much", Command::Ata, argument(Ata { count: 3, ..read }, &[])),
        ("write too little", Command::Ata, argument(write, &[1; 2 * SECTOR - 1])),
        ("identify 0", Command::Ata, argument(Ata { count: 0, ..Ata::identify() }, &[])),
        ("identify 2", Command::Ata, argument(Ata { count: 2, ..Ata::identify() }, &[])),
        ("power", Command::Ata, argument(Ata::check_power(), &[])),
        ("DMA", Command::Ata, argument(Ata { command: cmd::READ_DMA, ..read }, &[])),
        ("nothing", Command::Ata, argument(Ata { command: cmd::NOP, ..read }, &[])),
        ("runt", Command::Ata, vec![0; 36]),
        ("holders", Command::Reserve, reserve(0, &[])),
        ("reserve", Command::Reserve, reserve(1, &other)),
        ("reserve, held", Command::Reserve, reserve(1, &[2, 0, 0, 0, 0, 1])),
        ("read, held", Command::Ata, argument(read, &[])),
        ("flush, held", Command::Ata, argument(Ata::flush(false), &[])),
        ("set, held", Command::Config, query(Verb::Force, b"res")),
        ("mask", Command::Mask, vec![0; 4]),
        ("bad directive", Command::Mask, [&[0, 1, 0, 2, 0, 0], &other[..], &[0, 9], &other].concat()),
        ("mask verb", Command::Mask, vec![0, 5, 0, 0]),
        ("reserve verb", Command::Reserve, reserve(9, &[])),
        ("force reserve", Command::Reserve, reserve(2, &other)),
        ("release", Command::Reserve, reserve(2, &[])),
        ("unknown", Command::Other(4), vec![]),
        ("vendor", Command::Other(0xf0), vec![1, 2, 3]),
    ];
    let mut bed = cable(1500);
    let mut host = Host::new(&bed.ini, "v0");
    let converse = |host: &mut Host, addr: Addr| -> Vec<Option<Vec<u8>>> {
        let ask = |(_, command, body): &(_, Command, Vec<u8>)| {
            let limit = Duration::from_millis(300);
            let mut answer = host.try_ask(addr, *command, body, limit)?;
            if *command == Command::Config {
                answer[24..28].fill(0); // buffers and firmware
            }
            let data =
                if command == &Command::Ata && answer[27] == 0x40 && body[3] == 0x24 { 1024 } else { 0 };
            let argument = match command {
                Command::Ata => ATA_LEN + data,
                Command::Config => 8 + usize::from(u16::from_be_bytes([answer[30], answer[31]])),
                Command::Mask => 4,
                Command::Reserve => 2 + 6 * usize::from(answer[25]),
                Command::Other(_) => 0,
            };
            answer.truncate(24 + argument);
            Some(answer[14..16].iter().chain(&answer[19..20]).chain(&answer[24..]).copied().collect())
        };
        questions.iter().map(ask).collect()
    };
    let image = bed.image("theirs", 1 << 20);
    let vblade = bed.vblade("3.7", "v1", &image);
    host.announced(SOON);
    let theirs = converse(&mut host, UNIT);
    vblade.kill9();
    let image = bed.image("ours", 1 << 20);
    let _target = target(&mut bed, &[], "v1", &image);
    host.announced(SOON);
    let ours = converse(&mut host, UNIT);
    for (((name, ..), theirs), ours) in questions.iter().zip(theirs).zip(ours) {
        assert_eq!(ours, theirs, "{name}: left is ours, right is vblade's");
    }
}

fn outlives_its_link() {
    let mut bed = cable(1500);
    let mut host = Host::new(&bed.ini, "v0");
    let path = bed.image("disk", 1 << 20);
    let daemon = target(&mut bed, &[], "v1", &path);
    host.announced(SOON);
    for _ in 0..3 {
        bed.tgt.ip("link set v1 down");
        assert!(
            host.try_ask(UNIT, Command::Ata, &argument(Ata::identify(), &[]), Duration::from_millis(50))
                .is_none()
        );
        let up = Instant::now();
        bed.tgt.ip("link set v1 up");
        host.announced(SOON);
        assert!(up.elapsed() < Duration::from_secs(1), "announced after {:?}", up.elapsed());
        assert_eq!(host.identify().sectors, 2048);
    }
    assert!(daemon.alive());
}

fn outlives_its_interface() {
    let mut bed = cable(1500);
    let path = bed.image("disk", 1 << 20);
    let daemon = target(&mut bed, &[], "v1", &path);
    for mtu in [1500, 9000] {
        bed.tgt.ip("link del v1");
        std::thread::sleep(Duration::from_millis(100));
        bed.ini.veth("v0", &bed.tgt, "v1", mtu);
        let mut host = Host::new(&bed.ini, "v0");
        let ask = query(Verb::Read, b"");
        until("the target is there again", Duration::from_secs(2), || {
            host.try_ask(Addr::ALL, Command::Config, &ask, Duration::from_millis(50)).is_some()
        });
        host.port.drain();
        bed.tgt.ip("link set v1 down");
        bed.tgt.ip("link set v1 up");
        host.announced(SOON);
        assert_eq!(host.identify().sectors, 2048);
    }
    assert!(daemon.alive(), "{}", daemon.said());
}

fn follows_the_mtu() {
    let mut bed = cable(1500);
    let mut host = Host::new(&bed.ini, "v0");
    let path = bed.image("disk", 1 << 20);
    let _daemon = target(&mut bed, &[], "v1", &path);
    assert_eq!(host.announced(SOON).1, 2);
    bed.ini.ip("link set v0 mtu 9000");
    for (mtu, sectors) in [(9000, 16), (4132, 8), (1500, 2)] {
        bed.tgt.ip(&format!("link set v1 mtu {mtu}"));
        // The link watcher may announce once more what has been announced before.
        until("the new size is announced", SOON, || host.announced(SOON).1 == sectors);
        assert!(!host.ata(Ata::read(Sector(0), sectors, true), &[]).0.failed());
        let more = argument(Ata::read(Sector(0), sectors + 1, true), &[]);
        let refused = host.ask(Command::Ata, &more);
        assert_eq!(Header::parse(&refused).unwrap().0.error, Some(Refusal::BadArgument));
    }
}

fn serves_two_interfaces() {
    let mut bed = cable(1500);
    bed.ini.veth("w0", &bed.tgt, "w1", 9000);
    let mut hosts = [Host::new(&bed.ini, "v0"), Host::new(&bed.ini, "w0")];
    let path = bed.image("disk", 1 << 20);
    let daemon = target(&mut bed, &[], "v1,w1", &path);
    let [a, b] = &mut hosts;
    assert_eq!((a.announced(SOON).1, b.announced(SOON).1), (2, 16));
    assert!(!a.ata(Ata::write(Sector(9), 1, true), &[0x3c; SECTOR]).0.failed());
    assert_eq!(b.ata(Ata::read(Sector(9), 1, true), &[]).1, [0x3c; SECTOR]);
    // One of them going away does not disturb the other.
    bed.tgt.ip("link del v1");
    assert_eq!(b.identify().sectors, 2048);
    daemon.signal(Signal::SIGINT);
    assert_eq!(daemon.ended(SOON), 0);
}

fn announces_to_masked_hosts_only() {
    let mut bed = cable(1500);
    let mut host = Host::new(&bed.ini, "v0");
    let own = Mac(host.port.mac()).to_string();
    let path = bed.image("disk", 1 << 20);
    let daemon = target(&mut bed, &["-r", "-m", &format!("02:00:00:00:00:01,{own}")], "v1", &path);
    // The second of the two; the port also sees what is meant for others.
    assert_eq!(host.announced(SOON).0.dst, Mac([2, 0, 0, 0, 0, 1]));
    assert_eq!(host.announced(SOON).0.dst.to_string(), own);
    let (done, _) = host.ata(Ata::write(Sector(0), 1, true), &[0; SECTOR]);
    assert_eq!((done.command, done.feature), (0x41, 0x04));
    assert!(!host.identify().trim);
    daemon.kill9();
    target(&mut bed, &["-m", "02:00:00:00:00:01"], "v1", &path);
    assert!(
        host.try_ask(Addr::ALL, Command::Config, &query(Verb::Read, b""), Duration::from_millis(200))
            .is_none()
    );
}

fn a_file_that_grows_is_announced() {
    let mut bed = cable(1500);
    let mut host = Host::new(&bed.ini, "v0");
    let path = bed.image("disk", 1 << 20);
    let daemon = target(&mut bed, &[], "v1", &path);
    host.announced(SOON);
    std::fs::File::options().write(true).open(&path).unwrap().set_len(3 << 20).unwrap();
    assert_eq!(host.identify().sectors, 2048);
    daemon.signal(Signal::SIGHUP);
    host.announced(SOON);
    assert_eq!(host.identify().sectors, 3 * 2048);
}

fn keeps_a_log_that_replays() {
    let mut bed = cable(1500);
    let mut host = Host::new(&bed.ini, "v0");
    let path = bed.image_of("disk", 1 << 20, 0xff);
    let log = bed.dir().join("log");
    let daemon = target(&mut bed, &["--write-log", log.to_str().unwrap()], "v1", &path);
    for n in 0..100u64 {
        host.ata(Ata::write(Sector(n * 7 % 64), 2, true), &[n as u8; 2 * SECTOR]);
        if n % 10 == 9 {
            host.ata(Ata::flush(true), &[]);
        }
    }
    let mut list = [0; SECTOR];
    aoefs::wire::fill_trim(Sector(3), 20, &mut list);
    assert!(!host.ata(Ata::trim(1), &list).0.failed());
    assert!(!host.ata(Ata::flush(false), &[]).0.failed());
    // Killed, not stopped: a flush that was answered is in the log.
    daemon.kill9();
    let mut replayed = vec![0xff; 1 << 20];
    let (mut from, mut flushes) = (std::io::BufReader::new(std::fs::File::open(&log).unwrap()), 0);
    while let Some(record) = read_record(&mut from).unwrap() {
        let bytes = |at: Sector, len: usize| at.0 as usize * SECTOR..at.0 as usize * SECTOR + len;
        match record {
            Record::Write(at, data) => replayed[bytes(at, data.len())].copy_from_slice(&data),
            Record::Trim(at, count) => replayed[bytes(at, count as usize * SECTOR)].fill(0),
            Record::Flush => flushes += 1,
        }
    }
    assert_eq!(flushes, 11);
    assert!(std::fs::read(&path).unwrap() == replayed);
}

fn cannot_start_says_why() {
    let mut bed = cable(1500);
    let path = bed.image("disk", 1 << 20);
    let image = path.to_str().unwrap();
    let missing = bed.dir().join("missing");
    let missing = missing.to_str().unwrap();
    let _holder = target(&mut bed, &[], "v1", &path);
    // Opening it would wait for a process that opens the other end.
    let fifo = bed.dir().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let fifo = fifo.to_str().unwrap();
    for (words, code, says) in [
        (vec!["3.7", "nosuch", image], 1, "there is no interface nosuch; see: ip link"),
        (vec!["3.7", "lo", image], 1, "lo is no Ethernet interface, and AoE needs one; see: ip link"),
        (vec!["3.7", "v1", missing], 1, "no such file; --size BYTES creates it"),
        (vec!["3.7", "v1", "/dev/null"], 1, "neither a regular file nor a block device"),
        (vec!["-r", "3.7", "v1", fifo], 1, "neither a regular file nor a block device"),
        (vec!["3.7", "v1", fifo], 1, "neither a regular file nor a block device"),
        (vec!["--force-share", "--write-log", fifo, "3.7", "v1", image], 1, "must be a regular file"),
        (vec!["3.7", "v1", image], 1, "another target exports it (locked)"),
        (vec!["--size", "7M", "3.7", "v1", image], 1, "has 1048576 bytes, not the 7340032 of --size"),
        (vec!["3", "7", "v1", image], 2, "not an address: shelf 0..65534"),
        (vec!["3.255", "v1", image], 2, "give it an address of its own"),
    ] {
        let argv: Vec<&str> = [PROGRAM].into_iter().chain(words.iter().copied()).collect();
        let output = bed.tgt.run(SOON, &argv);
        assert_eq!(output.code, Some(code), "{words:?}: {}", output.stderr);
        assert!(output.stderr.contains(says), "{words:?}: {}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 1, "{words:?}: {}", output.stderr);
        assert_eq!(output.stdout, "");
    }
    assert!(!Path::new(missing).exists());
    let made = target(&mut bed, &["--size", "2M"], "v1", Path::new(missing));
    assert_eq!(std::fs::metadata(missing).unwrap().len(), 2 << 20);
    drop(made);
    target(&mut bed, &["--force-share"], "v1", &path);
}
