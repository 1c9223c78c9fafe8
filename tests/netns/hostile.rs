//! Strangers on the wire: junk, forged targets, forged answers. Memory and log stay bounded, and I/O goes on with the
//! right bytes.

use crate::bed::client::{ata_body, config_body, frame};
use crate::bed::mount::{Mount, Unit};
use crate::bed::raw::Port;
use crate::bed::{Bed, MIB, Ns, Rng, proc};
use aoefs::wire::{
    Addr, Ata, Command, Config, Header, IDENTIFY_LEN, Identify, Mac, Refusal, Sector, Tag, Verb,
};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

crate::tests![
    alive_x1_junk_frames(120),
    bound_x4_forged_targets(180),
    integrity_s1_guessed_tags(120),
    integrity_s2_s4_forged_config_and_identify,
];

const SECOND: Duration = Duration::from_secs(1);
const DISK: usize = 8 * MIB;

/// Initiator, target and a stranger on one bridge.
struct Segment {
    bed: Bed,
    mount: Mount,
    unit: Unit,
    image: PathBuf,
    stranger: Port,
    /// MACs of the initiator and of the target.
    ini: Mac,
    tgt: Mac,
}

fn segment() -> Segment {
    let mut bed = Bed::with_fuse(&["vblade"]);
    let switch = Ns::new();
    let evil = Ns::new();
    for (ns, port, here) in [(&bed.ini, "p0", "v0"), (&bed.tgt, "p1", "v1"), (&evil, "p2", "v2")] {
        switch.veth(port, ns, here, 9000);
    }
    switch.bridge("br0", &["p0", "p1", "p2"]);
    // The stranger may use anybody's address, but the switch is not fooled by it: that would be another attack.
    switch.run(SECOND, &["bridge", "link", "set", "dev", "p2", "learning", "off"]);
    let image = bed.image("disk", DISK);
    bed.vblade("1.0", "v1", &image);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", 5 * SECOND);
    let macs = [(&bed.ini, "v0"), (&bed.tgt, "v1")].map(|(ns, port)| ns.mac(port).parse::<Mac>().unwrap());
    let stranger = Port::open(&evil, "v2");
    let [ini, tgt] = macs;
    Segment { bed, mount, unit, image, stranger, ini, tgt }
}

impl Segment {
    fn done(self) {
        self.mount.stop();
        drop(self.bed);
    }

    fn me(&self) -> Mac {
        Mac(self.stranger.mac())
    }

    /// Sends frames in batches of 64, as they are.
    fn flood(&self, frames: &[Vec<u8>]) {
        for batch in frames.chunks(64) {
            let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
            let _ = self.stranger.send_batch(&batch);
        }
    }

    /// Writes and reads the whole disk anew and compares at both ends.
    fn io_is_right(&self, seed: u64) {
        let mut content = vec![0; DISK];
        Rng::new(seed).fill(&mut content);
        let file = self.unit.open("data");
        file.write_all_at(&content, 0).unwrap();
        file.sync_all().unwrap();
        assert!(std::fs::read(&self.image).unwrap() == content, "the target has other bytes");
        drop(file);
        proc::sh(
            10 * SECOND,
            &format!(
                "dd if={} iflag=direct bs=1M status=none | cmp - {}",
                self.unit.data().display(),
                self.image.display()
            ),
        );
    }

    fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.mount.daemon.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn response(dst: Mac, src: Mac, addr: Addr, command: Command, tag: u32) -> Header {
    Header { dst, src, version: 1, response: true, error: None, addr, command, tag: Tag(tag) }
}

fn alive_x1_junk_frames() {
    let segment = segment();
    let mut rng = Rng::new(71);
    let own: Addr = "1.0".parse().unwrap();
    std::thread::scope(|scope| {
        let io = scope.spawn(|| (0..5).for_each(|n| segment.io_is_right(n)));
        let mut sent = 0;
        while !io.is_finished() {
            let junk: Vec<Vec<u8>> = (0..512)
                .map(|n| {
                    let tag = if n % 3 == 0 { 0 } else { Tag::OURS | rng.next() as u32 };
                    let command = Command::from(rng.below(6) as u8);
                    let mut bytes = vec![0; rng.below(600) as usize];
                    rng.fill(&mut bytes);
                    // A little of everything: other sources, its own MAC as the source, errors, runts, and requests.
                    let src = [segment.me(), segment.tgt, segment.ini][rng.below(3) as usize];
                    let mut header = response(segment.ini, src, own, command, tag);
                    header.response = n % 11 != 0;
                    header.version = rng.below(16) as u8;
                    header.error = (n % 7 == 0).then(|| Refusal::from(rng.next() as u8));
                    if n % 2 == 0 {
                        header.addr = Addr::new(rng.next() as u16, rng.next() as u8);
                    }
                    let mut junk = frame(&header, &bytes);
                    if n % 5 == 0 {
                        junk.truncate(14 + rng.below(50) as usize);
                    }
                    junk
                })
                .collect();
            segment.flood(&junk);
            sent += junk.len();
            std::thread::sleep(Duration::from_millis(10));
        }
        print!("[{sent} junk frames] ");
        io.join().unwrap();
    });
    assert!(segment.mount.daemon.alive());
    segment.mount.ctl("remove -a").unwrap();
    segment.done();
}

fn bound_x4_forged_targets() {
    let segment = segment();
    let before = segment.rss();
    let start = Instant::now();
    let mut worst = Duration::ZERO;
    // 65,536 announcements in 10 s, from as many addresses.
    for step in 0..256u32 {
        let config =
            Config { buffers: 16, firmware: 1, sectors: 2, version: 1, verb: Verb::Read, string: b"forged" };
        let frames: Vec<Vec<u8>> = (0..256)
            .map(|n| {
                let addr = Addr::new((step * 256 + n) as u16 % 0xfff0, (step % 250) as u8);
                frame(
                    &response(Mac::BROADCAST, segment.me(), addr, Command::Config, 0),
                    &config_body(&config),
                )
            })
            .collect();
        segment.flood(&frames);
        if step % 16 == 0 {
            let list = Instant::now();
            std::fs::read_dir(segment.mount.path()).unwrap().for_each(drop);
            segment.mount.read("ctl");
            worst = worst.max(list.elapsed());
        }
        let due = Duration::from_millis(39 * u64::from(step + 1));
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    let grown = segment.rss().saturating_sub(before);
    let listed = std::fs::read_dir(segment.mount.path()).unwrap().count();
    print!("[{grown} KiB more, ls and ctl at most {worst:.1?}, {listed} names] ");
    assert!(grown < 64 << 10, "{grown} KiB");
    // Nobody answered IDENTIFY: no directory. ctl, log, metrics and the one real target.
    assert_eq!(listed, 4);
    assert!(worst < Duration::from_millis(100), "{worst:?}");
    let log = segment.mount.read("log");
    assert!(log.lines().count() < 300, "{} lines in the log", log.lines().count());
    segment.io_is_right(72);
    segment.done();
}

fn integrity_s1_guessed_tags() {
    let segment = segment();
    let mut rng = Rng::new(81);
    let own: Addr = "1.0".parse().unwrap();
    // Perfect read answers full of 0x66, from a MAC that the target is not known by. Any that is taken shows in the
    // data.
    let lie =
        ata_body(&Ata { aflags: 0x40, feature: 0, count: 0, command: 0x40, lba: [0; 6] }, &[0x66; 8192]);
    std::thread::scope(|scope| {
        let io = scope.spawn(|| (0..5).for_each(|n| segment.io_is_right(90 + n)));
        let mut sent = 0;
        while !io.is_finished() || sent < 20_000 {
            let frames: Vec<Vec<u8>> = (0..64)
                .map(|_| {
                    let tag = Tag::OURS | rng.next() as u32;
                    frame(&response(segment.ini, segment.me(), own, Command::Ata, tag), &lie)
                })
                .collect();
            segment.flood(&frames);
            sent += frames.len();
        }
        print!("[{sent} forged answers] ");
        io.join().unwrap();
    });
    // AoE errors from a stranger do nothing either.
    let mut errors = Vec::new();
    for _ in 0..1000 {
        let mut header =
            response(segment.ini, segment.me(), own, Command::Ata, Tag::OURS | rng.next() as u32);
        header.error = Some(Refusal::Unavailable);
        errors.push(frame(&header, &lie[..12]));
    }
    segment.flood(&errors);
    segment.io_is_right(99);
    segment.done();
}

fn integrity_s2_s4_forged_config_and_identify() {
    let segment = segment();
    let own: Addr = "1.0".parse().unwrap();
    let before = segment.unit.read("ctl");
    let keys = ["nmaxout", "maxbcnt", "serial", "model", "geometry"];
    let kept = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| keys.iter().any(|key| line.starts_with(key) && *key != "nmaxout"))
            .map(ToString::to_string)
            .collect()
    };
    // A smaller limit, one buffer, another source: as an announcement, and as an answer to nothing.
    let config = Config { buffers: 1, firmware: 9, sectors: 1, version: 1, verb: Verb::Read, string: b"" };
    // An IDENTIFY of another disk, for nobody's request.
    let mut page = [0; IDENTIFY_LEN];
    let mut other = Identify::parse(&std::fs::read(segment.unit.file("ident")).unwrap()).unwrap();
    other.sectors = 77;
    other.emit(&mut page);
    let identify = ata_body(&Ata { aflags: 0, feature: 0, count: 0, command: 0x40, lba: [0; 6] }, &page);
    for tag in [0, 1, Tag::OURS | 5] {
        let frames = [
            frame(&response(segment.ini, segment.me(), own, Command::Config, tag), &config_body(&config)),
            frame(&response(Mac::BROADCAST, segment.me(), own, Command::Config, tag), &config_body(&config)),
            frame(&response(Mac::BROADCAST, segment.tgt, own, Command::Config, tag), &config_body(&config)),
            frame(&response(segment.ini, segment.tgt, own, Command::Ata, tag), &identify),
        ];
        (0..50).for_each(|_| segment.flood(&frames));
    }
    std::thread::sleep(SECOND);
    assert_eq!(
        kept(&before),
        kept(&segment.unit.read("ctl")),
        "a forged frame changed the limits or the identity"
    );
    segment.io_is_right(101);
    // The stranger got none of it.
    segment.stranger.drain();
    segment.io_is_right(102);
    let stolen = segment.stranger.recv_until(Duration::from_millis(200), |bytes| {
        let (header, body) = Header::parse(bytes).ok()?;
        let ata = Ata::parse(body).ok().map(|(ata, _)| ata)?;
        let io = ata == Ata::read(Sector(0), 1, true) || [0x20, 0x24, 0x30, 0x34].contains(&ata.command);
        (header.command == Command::Ata && header.dst == segment.me() && io).then_some(())
    });
    assert!(stolen.is_none(), "I/O went to a stranger");
    segment.done();
}
