//! Targets whose frames are not what one expects: a test for each such row of the table of quirks (CATALOGUE.md,
//! section K).
//!
//! Promises: each test makes a scripted target misbehave in the way of its row, sees it do so, and uses the mounted
//! files meanwhile.

use crate::bed::client::{config_body, frame};
use crate::bed::fake::{self, Act, Fake, Request};
use crate::bed::mount::{Mount, Unit, errno};
use crate::bed::raw::Port;
use crate::bed::{Bed, MIB, until};
use crate::tools::fsx::Aligned;
use aoefs::target::{MemoryImage, TargetConfig};
use aoefs::wire::ata::cmd;
use aoefs::wire::{Addr, Command, Config, DATA_OFFSET, Header, MIN_FRAME, Mac, Tag, Verb};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

crate::tests![
    quirk_answers_shorter_than_60_bytes,
    quirk_version_0_in_answers_and_announcements,
    quirk_success_without_drdy,
    quirk_errors_without_drdy,
    quirk_error_flag_with_code_0,
    quirk_aoe_error_2_to_commands_without_a_count,
    quirk_no_answer_to_check_power_with_a_count,
    quirk_no_answer_to_mask_and_reserve(120, beside),
    quirk_frames_below_60_bytes_are_dropped,
    quirk_frames_above_the_mtu_are_dropped(120),
    quirk_no_sectors_advertised,
    quirk_wrong_lba_registers,
    quirk_lba_above_2_31,
    quirk_stale_bytes_behind_the_config_string,
    quirk_size_that_is_no_whole_cylinder,
];

pub const SECOND: Duration = Duration::from_secs(1);
pub const DISK: usize = 4 * MIB;

/// One scripted target and one mount that sees it as 1.0.
pub struct Stage {
    pub bed: Bed,
    pub fake: Fake,
    pub mount: Mount,
    pub unit: Unit,
}

impl Stage {
    pub fn new() -> Self {
        Self::with(9000, fake::config("1.0", "quirk"), MemoryImage::new((DISK / 512) as u64), |_| Act::Reply)
    }

    /// Misbehaves from its first frame on.
    pub fn from_the_start(script: impl FnMut(&Request) -> Act + Send + 'static) -> Self {
        Self::with(9000, fake::config("1.0", "quirk"), MemoryImage::new((DISK / 512) as u64), script)
    }

    pub fn with(
        mtu: usize,
        config: TargetConfig,
        image: MemoryImage,
        script: impl FnMut(&Request) -> Act + Send + 'static,
    ) -> Self {
        let mut bed = Bed::cable(&[], mtu);
        let fake = Fake::start_on(&bed.tgt, "v1", config, image);
        fake.script(script);
        let mount = bed.mount(&[]);
        let unit = mount.wait_for("1.0", 3 * SECOND);
        Self { bed, fake, mount, unit }
    }

    pub fn direct(&self) -> std::fs::File {
        self.unit.open_with("data", libc::O_DIRECT)
    }

    /// Writes through the cache, past it, and across sectors, syncs and reads back; the target must have the same
    /// bytes.
    #[track_caller]
    pub fn works(&self, seed: u8) {
        let file = self.unit.open("data");
        let pattern: Vec<u8> = (0..300_000usize).map(|n| (n / 7) as u8 ^ seed).collect();
        file.write_all_at(&pattern, 1000).unwrap();
        file.sync_all().unwrap();
        drop(file);
        let file = self.direct();
        let mut block = Aligned::new(300 << 10);
        file.read_exact_at(block.bytes(), 0).unwrap();
        assert!(block.bytes()[1000..301_000] == pattern, "other bytes came back");
        block.bytes().fill(seed);
        file.write_all_at(block.bytes(), MIB as u64).unwrap();
        let content = self.fake.content();
        assert!(content[1000..301_000] == pattern, "the target has other bytes");
        assert!(content[MIB..MIB + (300 << 10)].iter().all(|byte| *byte == seed));
        assert_eq!(self.unit.state(), "up");
    }

    /// How many of the target's requests so far were such.
    pub fn seen(&self, which: impl Fn(&Request) -> bool) -> usize {
        self.fake.log().iter().filter(|request| which(request)).count()
    }

    #[track_caller]
    pub fn done(self) {
        self.mount.stop();
        drop((self.fake, self.bed));
    }
}

/// A counter that a script moves and the test reads.
pub fn counter() -> (Arc<AtomicU32>, Arc<AtomicU32>) {
    let counter = Arc::new(AtomicU32::new(0));
    (counter.clone(), counter)
}

/// Row: replies < 60 bytes (26/28/32/36) — vblade, kvblade — length checks per sub-header only.
fn quirk_answers_shorter_than_60_bytes() {
    let (runts, seen) = counter();
    let stage = Stage::from_the_start(move |request| {
        let command = request.header.command;
        let runts = runts.clone();
        Act::edit(move |frame| {
            // What carries information, and not a byte of padding.
            let len = match command {
                Command::Config => 32 + usize::from(u16::from_be_bytes([frame[30], frame[31]])),
                Command::Mask => 28 + 8 * usize::from(frame[27]),
                Command::Reserve => 26 + 6 * usize::from(frame[25]),
                _ if frame.len() > MIN_FRAME => frame.len(),
                _ => DATA_OFFSET,
            };
            frame.truncate(len);
            runts.fetch_add(u32::from(len < MIN_FRAME), SeqCst);
        })
    });
    stage.works(1);
    std::fs::write(stage.unit.file("config"), "short").unwrap();
    assert_eq!(stage.unit.read("config"), "short");
    assert_eq!(stage.unit.read("mask"), "");
    assert_eq!(stage.unit.read("reserve"), "");
    write(&stage.unit, "reserve", "take").unwrap();
    assert_eq!(stage.unit.read("reserve").lines().count(), 1);
    write(&stage.unit, "mask", "add 02:00:00:00:00:77").unwrap();
    assert_eq!(stage.unit.read("mask").lines().count(), 2);
    // An ATA error of 36 bytes.
    stage.fake.script(|request| {
        if !request.is_io() {
            return Act::Reply;
        }
        Act::edit(|frame| {
            (frame[25], frame[27]) = (0x10, 0x41);
            frame.truncate(DATA_OFFSET);
        })
    });
    assert_eq!(errno(stage.direct().read_at(Aligned::new(512).bytes(), 0)), libc::EIO);
    assert!(seen.load(SeqCst) > 50, "{} runts", seen.load(SeqCst));
    stage.fake.behave();
    stage.done();
}

/// One write of a line to one of its files.
fn write(unit: &Unit, name: &str, line: &str) -> std::io::Result<()> {
    std::fs::File::options().write(true).open(unit.file(name))?.write_all(format!("{line}\n").as_bytes())
}

/// Row: version nibble 0 in announcements / echoed — vblade, P9V — ignore version.
fn quirk_version_0_in_answers_and_announcements() {
    for version in [0u8, 2, 15] {
        let stage = Stage::from_the_start(move |_| {
            Act::edit(move |frame| {
                frame[14] = frame[14] & 0x0f | version << 4;
                if frame[19] == 1 {
                    frame[29] = frame[29] & 0x0f | version << 4;
                }
            })
        });
        stage.works(version);
        // "I may have restarted" is believed from such a frame: limits and identity are asked for.
        stage.fake.forget_log();
        let config =
            Config { buffers: 16, firmware: 0x4019, sectors: 16, version, verb: Verb::Read, string: b"" };
        let port = Port::open(&stage.bed.tgt, "v1");
        let header = Header {
            dst: Mac::BROADCAST,
            src: Mac(port.mac()),
            version,
            response: true,
            error: None,
            addr: "1.0".parse::<Addr>().unwrap(),
            command: Command::Config,
            tag: Tag::UNSOLICITED,
        };
        port.send(&frame(&header, &config_body(&config))[..32]);
        until("it asks who is there", SECOND, || {
            stage.seen(|request| request.is(cmd::IDENTIFY)) == 1
                && stage.seen(|request| request.header.command == Command::Config) == 1
        });
        stage.works(version ^ 0xff);
        stage.done();
    }
}

/// Row: status without DRDY on success — vblade E7 (0x00) — test 0xA9 only.
fn quirk_success_without_drdy() {
    // FLUSH CACHE, not EXT, is what vblade says it has.
    let stage = Stage::from_the_start(|request| {
        if request.is(cmd::IDENTIFY) {
            Act::identity(|words| [83, 86].into_iter().for_each(|n| words[n] &= !(1 << 13)))
        } else if request.is(cmd::FLUSH) || request.is_io() {
            Act::edit(|frame| frame[27] = 0)
        } else {
            Act::Reply
        }
    });
    stage.works(3);
    assert!(stage.unit.read("ctl").contains("flush: yes"), "{}", stage.unit.read("ctl"));
    assert_eq!((stage.seen(|r| r.is(cmd::FLUSH)), stage.seen(|r| r.is(cmd::FLUSH_EXT))), (1, 0));
    stage.done();
}

/// Row: status without DRDY on error (0x01, 0x21) — kvblade, mdlayher — test 0xA9.
fn quirk_errors_without_drdy() {
    let stage = Stage::new();
    let file = stage.direct();
    let mut block = Aligned::new(4096);
    // Each bit of the mask alone is a failure, and what is not in it is none.
    for (status, error) in [(0x01, 0x04), (0x21, 0x44), (0x20, 0x04), (0x08, 0x04), (0x80, 0x04)] {
        stage.fake.script(
            move |request| {
                if request.is_io() { Act::ata_error(status, error) } else { Act::Reply }
            },
        );
        let start = Instant::now();
        assert_eq!(errno(file.read_at(block.bytes(), 0)), libc::EIO, "read, status {status:02x}");
        assert_eq!(errno(file.write_at(block.bytes(), 0)), libc::EIO, "write, status {status:02x}");
        assert!(start.elapsed() < SECOND, "status {status:02x}: {:?}", start.elapsed());
        assert_eq!(stage.unit.state(), "up");
    }
    stage.fake.script(
        |request| {
            if request.is_io() { Act::edit(|frame| frame[27] = 0x56) } else { Act::Reply }
        },
    );
    file.read_exact_at(block.bytes(), 0).unwrap();
    drop(file);
    stage.fake.behave();
    stage.works(4);
    stage.done();
}

/// Row: error code 0 with E — qaoed — generic EIO.
fn quirk_error_flag_with_code_0() {
    let stage = Stage::new();
    let file = stage.direct();
    let mut block = Aligned::new(4096);
    for code in [0, 77, 255] {
        // The registers say ABRT, too; and the frame may end behind the header.
        for len in [MIN_FRAME, 24] {
            stage.fake.script(move |request| {
                if !request.is_io() {
                    return Act::Reply;
                }
                Act::edit(move |frame| {
                    (frame[14], frame[15]) = (frame[14] | 4, code);
                    (frame[25], frame[27]) = (0x04, 0x41);
                    frame.truncate(len);
                })
            });
            let start = Instant::now();
            assert_eq!(errno(file.read_at(block.bytes(), 0)), libc::EIO, "code {code}");
            assert_eq!(errno(file.write_at(block.bytes(), 0)), libc::EIO, "code {code}");
            assert!(start.elapsed() < SECOND, "code {code}: {:?}", start.elapsed());
            assert_eq!(stage.unit.state(), "up");
        }
    }
    drop(file);
    stage.fake.behave();
    stage.works(5);
    stage.done();
}

/// Row: E/2 to scnt-0 commands — P9V — "unsupported".
fn quirk_aoe_error_2_to_commands_without_a_count() {
    let (refused, seen) = counter();
    let stage = Stage::from_the_start(move |request| {
        if request.ata.is_some_and(|ata| ata.count == 0) {
            refused.fetch_add(1, SeqCst);
            Act::refuse(2)
        } else {
            Act::Reply
        }
    });
    // The flush is what has no count: fsync succeeds as for a target that has none, and says so.
    stage.works(6);
    assert!(stage.unit.read("ctl").contains("flush: none"), "{}", stage.unit.read("ctl"));
    assert!(stage.mount.read("log").contains("flush"), "{}", stage.mount.read("log"));
    let asked = seen.load(SeqCst);
    assert_eq!(asked, 2, "FLUSH CACHE EXT, then FLUSH CACHE");
    stage.works(7);
    assert_eq!(seen.load(SeqCst), asked, "it is not asked again");
    stage.done();
}

/// A register FIS behind 0xff and a protocol byte, as the raw file takes it.
fn fis(protocol: u8, command: u8, count: u8) -> [u8; 18] {
    let mut out = [0; 18];
    out[..5].copy_from_slice(&[0xff, protocol, 0x27, 0x80, command]);
    out[14] = count;
    out
}

/// Row: no reply to E5 with scnt != 0 — vblade — scnt 0.
fn quirk_no_answer_to_check_power_with_a_count() {
    let stage = Stage::new();
    stage.fake.script(|request| {
        let counted = request.ata.is_some_and(|ata| ata.count != 0);
        if request.is(cmd::CHECK_POWER) && counted { Act::Drop } else { Act::Reply }
    });
    stage.unit.ctl_ok("deadline 1");
    let raw = stage.unit.open("raw");
    let mut status = [0; 18];
    assert_eq!((&raw).write(&fis(1 << 5 | 1 << 2, cmd::CHECK_POWER, 0)).unwrap(), 18);
    assert_eq!(raw.read_at(&mut status, 0).unwrap(), 18);
    assert_eq!((status[0], status[2 + 12]), (0, 0xff), "active: {status:02x?}");
    // A command that insists on a count is answered, too: the count does not go out.
    assert_eq!((&raw).write(&fis(1 << 5 | 1 << 2, cmd::CHECK_POWER, 1)).unwrap(), 18);
    assert_eq!(raw.read_at(&mut status, 0).unwrap(), 18);
    assert_eq!((status[0], status[2 + 12]), (0, 0xff), "active: {status:02x?}");
    drop(raw);
    assert_eq!(stage.seen(|r| r.is(cmd::CHECK_POWER) && r.ata.unwrap().count == 0), 2);
    assert_eq!(stage.seen(|r| r.is(cmd::CHECK_POWER)), 2);
    stage.works(8);
    stage.done();
}

/// Row: no reply at all to mask/reserve/vendor — kvblade, P9V, qaoed — timeout => EOPNOTSUPP, do not mark device dead.
/// (Vendor commands: aoefs has none.)
fn quirk_no_answer_to_mask_and_reserve() {
    let stage = Stage::new();
    stage.fake.script(|request| match request.header.command {
        Command::Mask | Command::Reserve => Act::Drop,
        _ => Act::Reply,
    });
    for (name, line) in [("mask", "add 02:00:00:00:00:77"), ("reserve", "take")] {
        for n in 0..2 {
            std::thread::scope(|scope| {
                let asker = scope.spawn(|| {
                    let start = Instant::now();
                    let said = match n {
                        0 => errno(std::fs::read(stage.unit.file(name))),
                        _ => errno(write(&stage.unit, name, line)),
                    };
                    (said, start.elapsed())
                });
                // Meanwhile the disk works, and that is how it is known to be there.
                stage.works(9 + n);
                let (said, took) = asker.join().unwrap();
                assert_eq!(said, libc::EOPNOTSUPP, "{name}");
                assert!(took >= 2 * SECOND && took < Duration::from_millis(2750), "{name}: {took:?}");
            });
        }
        // An idle target, of which nothing was heard meanwhile, is asked whether it is there.
        std::thread::sleep(SECOND);
        assert_eq!(errno(write(&stage.unit, name, line)), libc::EOPNOTSUPP, "{name}, idle");
        assert_eq!(stage.unit.state(), "up");
    }
    assert!(stage.seen(|request| request.header.command == Command::Mask) > 2);
    assert_eq!(stage.seen(|r| matches!(r.header.command, Command::Other(_))), 0);
    stage.done();
}

/// Row: drops frames < 60 / < 36 — P9V / kvblade — pad.
fn quirk_frames_below_60_bytes_are_dropped() {
    let stage = Stage::from_the_start(|request| if request.len < MIN_FRAME { Act::Drop } else { Act::Reply });
    stage.works(11);
    for name in ["config", "mask", "reserve"] {
        std::fs::read(stage.unit.file(name)).unwrap();
    }
    write(&stage.unit, "reserve", "take").unwrap();
    write(&stage.unit, "mask", "add 02:00:00:00:00:77").unwrap();
    std::fs::write(stage.unit.file("config"), "x").unwrap();
    stage.unit.ctl_ok("probe\nidentify\nflush");
    let raw = stage.unit.open("raw");
    (&raw).write_all(&[0; 6]).unwrap();
    assert!(raw.read_at(&mut [0; 16], 0).unwrap() > 0);
    drop(raw);
    assert_eq!(stage.seen(|request| request.len < MIN_FRAME), 0, "a runt was sent");
    // And what pads is zeros, not memory.
    for request in stage.fake.log() {
        let end = match (request.header.command, &request.ata) {
            (Command::Ata, Some(ata)) if ata.aflags & 1 == 0 => DATA_OFFSET,
            (Command::Config, _) => {
                32 + usize::from(u16::from_be_bytes([request.head[30], request.head[31]]))
            }
            (Command::Mask, _) => 28 + 8 * usize::from(request.head[27]),
            (Command::Reserve, _) => 26 + 6 * usize::from(request.head[25]),
            _ => continue,
        };
        let padding = &request.head[end.min(MIN_FRAME)..MIN_FRAME];
        assert!(padding.iter().all(|byte| *byte == 0), "{:?} {:02x?}", request.header, request.head);
    }
    stage.done();
}

/// Row: drops frames > MTU incl. header — kvblade — conservative formula. It advertises more than fits, as P9V does.
fn quirk_frames_above_the_mtu_are_dropped() {
    // At 4118 the exact formula says 8 sectors, and the frame would be 4132 bytes long.
    for (mtu, most) in [(1500usize, 2u8), (4118, 7), (4132, 8), (9000, 16)] {
        let script = move |request: &Request| {
            if request.len > mtu {
                return Act::Drop;
            }
            match request.header.command {
                Command::Config => Act::edit(|frame| frame[28] = 255),
                _ => Act::Reply,
            }
        };
        let image = MemoryImage::new((DISK / 512) as u64);
        let stage = Stage::with(mtu, fake::config("1.0", "quirk"), image, script);
        stage.works(12);
        let log = stage.fake.log();
        let largest = log.iter().filter(|r| r.is_io()).filter_map(|r| r.ata).map(|ata| ata.count).max();
        assert_eq!(largest, Some(most), "MTU {mtu}");
        let longest = log.iter().map(|request| request.len).max().unwrap();
        assert!(longest <= mtu, "{longest} bytes at MTU {mtu}");
        stage.done();
    }
}

/// Row: scnt 0 advertised — old Coraid — use 2.
fn quirk_no_sectors_advertised() {
    let stage = Stage::from_the_start(|request| {
        let too_many = request.is_io() && request.ata.is_some_and(|ata| ata.count > 2);
        match request.header.command {
            Command::Config => Act::edit(|frame| frame[28] = 0),
            _ if too_many => Act::refuse(2),
            _ => Act::Reply,
        }
    });
    stage.works(13);
    let counts = |count: u8| stage.seen(|r| r.is_io() && r.ata.is_some_and(|ata| ata.count == count));
    assert!(counts(2) > 100, "{} frames of two sectors", counts(2));
    assert_eq!(stage.seen(|r| r.is_io() && r.ata.is_some_and(|ata| ata.count > 2)), 0);
    assert!(stage.unit.line("maxbcnt").starts_with("1024 "), "{}", stage.unit.line("maxbcnt"));
    stage.done();
}

/// Row: wrong LBA registers in replies — P9V (writes bytes 5,6), others leave unchanged — never use reply LBA.
fn quirk_wrong_lba_registers() {
    let stage = Stage::new();
    let mut n = 0u8;
    stage.fake.script(move |request| {
        n = n.wrapping_add(1);
        let noise = [n, !n, 0xff, n.rotate_left(3), 0xa5, 0x5a];
        if !request.is_io() {
            return Act::Reply;
        }
        // The count register, too: mdlayher leaves 0xff there.
        Act::edit(move |frame| {
            frame[28..34].copy_from_slice(&noise);
            frame[26] = noise[0];
        })
    });
    stage.works(14);
    // An error is the request's, not that of the sector which the registers name.
    stage.fake.script(|request| {
        if !request.sectors().contains(&100) || !request.is_io() {
            return Act::Reply;
        }
        Act::edit(|frame| {
            (frame[25], frame[27]) = (0x40, 0x41);
            frame[28..34].fill(0);
            frame.truncate(MIN_FRAME);
        })
    });
    let file = stage.direct();
    let mut block = Aligned::new(8192);
    assert_eq!(errno(file.read_at(block.bytes(), 96 * 512)), libc::EIO);
    file.read_exact_at(block.bytes(), 0).unwrap();
    let log = stage.mount.read("log");
    assert!(log.contains("sector 96") && !log.contains("sector 0:"), "{log}");
    stage.fake.behave();
    drop(file);
    stage.done();
}

/// Row: LBA >= 2^31 broken (`uint8 << (i*8)` in int) — ggaoed — > 1 TiB exports suspect. What is asked for is right,
/// what it cannot do is an error, and the rest of the disk works.
fn quirk_lba_above_2_31() {
    const LIMIT: u64 = 1 << 31;
    let sectors = (1 << 32) + 4096;
    let image = MemoryImage::new(sectors);
    let stage = Stage::with(9000, fake::config("1.0", "huge"), image, |_| Act::Reply);
    assert_eq!(stage.unit.size("data"), sectors * 512);
    let file = stage.direct();
    let mut block = Aligned::new(8192);
    // Across the limit, just below 2 TiB, beyond it, and the last sectors.
    let places = [LIMIT - 8, (1 << 32) - 8, sectors - 16];
    for (n, at) in places.into_iter().enumerate() {
        block.bytes().fill(n as u8 + 1);
        file.write_all_at(block.bytes(), at * 512).unwrap();
        for sector in at..at + 16 {
            assert!(stage.fake.sector(sector) == [n as u8 + 1; 512], "sector {sector}");
        }
    }
    assert!(stage.fake.sector(0) == [0; 512], "it was written at the start");
    for (n, at) in places.into_iter().enumerate() {
        file.read_exact_at(block.bytes(), at * 512).unwrap();
        assert!(block.bytes().iter().all(|byte| *byte == n as u8 + 1), "at sector {at}");
    }
    // A target that computes such addresses wrongly finds no sector there.
    stage.fake.script(|request| {
        if request.is_io() && request.sectors().end & LIMIT != 0 {
            Act::ata_error(0x41, 0x10)
        } else {
            Act::Reply
        }
    });
    assert_eq!(errno(file.read_at(block.bytes(), (LIMIT + 8) * 512)), libc::EIO);
    assert_eq!(errno(file.write_at(block.bytes(), (LIMIT + 8) * 512)), libc::EIO);
    file.write_all_at(block.bytes(), 0).unwrap();
    file.read_exact_at(block.bytes(), (LIMIT - 32) * 512).unwrap();
    assert_eq!(stage.unit.state(), "up");
    stage.fake.behave();
    drop(file);
    stage.done();
}

/// Row: stale bytes in config string — vblade — send exact length.
fn quirk_stale_bytes_behind_the_config_string() {
    let stage = Stage::new();
    // Behind the string of its answers stand bytes of another frame.
    stage.fake.script(|request| {
        if request.header.command != Command::Config {
            return Act::Reply;
        }
        Act::edit(|frame| {
            let len = usize::from(u16::from_be_bytes([frame[30], frame[31]]));
            frame.truncate(32 + len);
            frame.extend_from_slice(&[0xee; 700]);
        })
    });
    for text in ["", "x", "exactly 28 bytes in a frame.", "one more than 28 bytes in it."] {
        std::fs::write(stage.unit.file("config"), text).unwrap();
        stage.unit.ctl_ok("config force ");
        if !text.is_empty() {
            stage.unit.ctl_ok(&format!("config set {text}"));
        }
        assert_eq!(stage.unit.read("config"), text);
        assert_eq!(stage.unit.size("config"), text.len() as u64);
    }
    let mut sent = 0;
    for request in stage.fake.log().iter().filter(|request| request.header.command == Command::Config) {
        let len = usize::from(u16::from_be_bytes([request.head[30], request.head[31]]));
        assert_eq!(request.len, MIN_FRAME.max(32 + len), "claims {len} bytes");
        sent += usize::from(len > 0);
    }
    assert!(sent >= 6, "{sent} strings");
    // A string that claims to be longer than the frame ends where the frame does.
    stage.fake.script(|request| {
        if request.header.command != Command::Config {
            return Act::Reply;
        }
        Act::edit(|frame| {
            frame.truncate(32);
            frame.extend_from_slice(b"four");
            frame[30..32].copy_from_slice(&40u16.to_be_bytes());
        })
    });
    assert_eq!(stage.unit.read("config"), "four");
    stage.fake.behave();
    stage.done();
}

/// Row: CHS-truncated size — WinAoE initiators — irrelevant to us: the whole disk is shown, and its last sector works.
fn quirk_size_that_is_no_whole_cylinder() {
    let sectors = 255 * 63 + 1;
    let image = MemoryImage::new(sectors);
    let stage = Stage::with(9000, fake::config("1.0", "odd"), image, |_| Act::Reply);
    assert_eq!(stage.unit.size("data"), sectors * 512);
    let file = stage.direct();
    let mut block = Aligned::new(512);
    block.bytes().fill(0x77);
    file.write_all_at(block.bytes(), (sectors - 1) * 512).unwrap();
    assert!(stage.fake.sector(sectors - 1) == [0x77; 512]);
    drop(file);
    stage.done();
}
