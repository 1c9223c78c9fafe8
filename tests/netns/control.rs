//! `raw`, `mask` and `reserve` of a real mount: against our own target, against vblade, and against targets that do
//! not know them.

use crate::bed::fake::{self, Act, Fake};
use crate::bed::mount::{Mount, Unit, errno};
use crate::bed::{Bed, MIB, proc, until};
use aoefs::wire::Command;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

crate::tests![
    raw_moves_a_mebibyte_through_the_kernel,
    smart_script_tells_health,
    smart_script_says_why_not,
    lists_of_vblade,
    lists_that_nobody_answers(beside),
];

const UP: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(5);
const OTHER: &str = "02:00:00:00:00:77";

/// A mount that is through with its start: these tests are over faster than its first discovery.
#[track_caller]
fn mount(bed: &mut Bed) -> Mount {
    let mount = bed.mount(&["--wait", "1.0"]);
    until("it says that it is ready", SOON, || mount.daemon.said().contains(": bound v0"));
    mount
}

/// One write, as `echo` does it.
fn echo(unit: &Unit, file: &str, text: &str) -> std::io::Result<()> {
    File::options().write(true).open(unit.file(file))?.write_all(text.as_bytes())
}

fn status(raw: &mut File) -> String {
    let mut text = [0; 16];
    let len = raw.read(&mut text).unwrap();
    String::from_utf8(text[..len].to_vec()).unwrap()
}

fn raw_moves_a_mebibyte_through_the_kernel() {
    let mut bed = Bed::cable(&[], 9000);
    let image = bed.image("disk", 4 * MIB);
    bed.aoefs_target("1.0", "v1", &image);
    let mount = mount(&mut bed);
    let unit = mount.wait_for("1.0", UP);
    let mut raw = unit.open("raw");
    assert_eq!(errno(File::open(unit.file("raw"))), libc::EBUSY);
    let bytes: Vec<u8> = (0..MIB).map(|n| (n % 255) as u8).collect();
    // The buffer begins anywhere in a page, so that the kernel may send it in two pieces.
    for shift in [0, 1, 48, 4095] {
        let mut buffer = vec![0; 4096 + MIB];
        buffer[shift..shift + MIB].copy_from_slice(&bytes);
        raw.write_all(&[0x2a, 0, 0, 0, 0, 1, 0, 8, 0, 0]).unwrap();
        raw.write_all(&buffer[shift..shift + MIB]).unwrap();
        assert_eq!(status(&mut raw), "0\n", "{shift}");
        buffer.fill(0);
        raw.write_all(&[0x28, 0, 0, 0, 0, 1, 0, 8, 0, 0]).unwrap();
        raw.read_exact(&mut buffer[shift..shift + MIB]).unwrap();
        assert_eq!(status(&mut raw), "0\n", "{shift}");
        assert!(buffer[shift..shift + MIB] == bytes, "{shift}");
    }
    // What was written below is what data shows, also where it had it in its cache.
    let data = File::open(unit.data()).unwrap();
    let mut sector = [0; 512];
    data.read_exact_at(&mut sector, 512).unwrap();
    assert_eq!(sector, bytes[..512]);
    raw.write_all(&[0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0]).unwrap();
    raw.write_all(&[0xaa; 512]).unwrap();
    assert_eq!(status(&mut raw), "0\n");
    data.read_exact_at(&mut sector, 512).unwrap();
    assert_eq!(sector, [0xaa; 512]);
    assert_eq!(errno(raw.write_all(&[1, 2, 3])), libc::EINVAL);
    drop((raw, data));
    mount.stop();
    assert_eq!(std::fs::read(&image).unwrap()[512..1024], [0xaa; 512]);
}

fn smart(unit: &Path) -> proc::Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/aoe-smart");
    proc::run(SOON, &[Path::new("sh"), Path::new(script), unit])
}

fn smart_script_tells_health() {
    let mut bed = Bed::cable(&[], 1500);
    let image = bed.image("disk", MIB);
    bed.aoefs_target("1.0", "v1", &image);
    let mount = mount(&mut bed);
    let unit = mount.wait_for("1.0", UP);
    std::fs::write(unit.data(), [1; 4096]).unwrap();
    let told = smart(unit.path());
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{}", told.stdout);
    let line = |id: &str| {
        let mut lines = told.stdout.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
        lines.find(|words| words[0] == id).unwrap_or_else(|| panic!("no {id} in\n{}", told.stdout)).join(" ")
    };
    assert_eq!(line("health:"), "health: PASSED");
    assert_eq!(line("241"), "241 Total_LBAs_Written old-age 100 100 0 8");
    assert_eq!(line("200"), "200 Write_Error_Rate pre-fail 100 100 50 0");
    // By its file, and several.
    assert_eq!(smart(&unit.file("raw")).code, Some(0));
    let raw = unit.open("raw");
    let busy = smart(unit.path());
    assert!(busy.code == Some(1) && busy.stderr.contains("cannot open"), "{}", busy.stderr);
    drop(raw);
    // A disk that says that it is failing: the signature is turned around.
    bed.tgt.veth("v3", &bed.ini.clone(), "v2", 1500);
    let failing = Fake::start(&bed.tgt, "v3", fake::config("2.0", "failing"), &[0; 64 * 512]);
    failing.script(|request| match request.ata {
        Some(ata) if ata.command == 0xb0 && ata.feature == 0xda => Act::Edit(Box::new(|frame| {
            (frame[29], frame[30]) = (0xf4, 0x2c);
        })),
        _ => Act::Reply,
    });
    mount.ctl("bind v2").unwrap();
    let unit = mount.wait_for("2.0", UP);
    let told = smart(unit.path());
    assert_eq!(told.code, Some(3), "{}", told.stderr);
    assert!(told.stdout.contains("health: FAILING"));
    mount.stop();
}

/// vblade has no SMART.
fn smart_script_says_why_not() {
    let mut bed = Bed::cable(&["vblade"], 1500);
    let image = bed.image("disk", MIB);
    bed.vblade("1.0", "v1", &image);
    let mount = mount(&mut bed);
    let unit = mount.wait_for("1.0", UP);
    let told = smart(unit.path());
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("refused by the target (status 65, error 4)"), "{}", told.stderr);
    let told = smart(Path::new("/nowhere/1.0"));
    assert!(told.code == Some(1) && told.stderr.contains("there is no such file"), "{}", told.stderr);
    assert_eq!(
        proc::run(SOON, &["sh", concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/aoe-smart")]).code,
        Some(2)
    );
    // CHECK POWER MODE with a count kills vblade's answer; without one it answers.
    let mut raw = unit.open("raw");
    let mut command = [0; 18];
    command[..5].copy_from_slice(&[0xff, 0x20, 0x27, 0x80, 0xe5]);
    command[14] = 1;
    raw.write_all(&command).unwrap();
    let mut told = [0; 18];
    assert_eq!(raw.read(&mut told).unwrap(), 18);
    assert_eq!((told[0], told[14]), (0, 0xff));
    drop(raw);
    mount.stop();
}

fn lists_of_vblade() {
    let mut bed = Bed::cable(&["vblade"], 1500);
    let image = bed.image("disk", MIB);
    let vblade = bed.vblade("1.0", "v1", &image);
    let mount = mount(&mut bed);
    let unit = mount.wait_for("1.0", UP);
    let own = bed.ini.mac("v0");
    assert_eq!((unit.read("reserve"), unit.read("mask")), (String::new(), String::new()));
    echo(&unit, "reserve", "take\n").unwrap();
    assert_eq!(unit.read("reserve"), format!("{own}\n"));
    let mut data = unit.open("data");
    data.write_all(&[7; 4096]).unwrap();
    // Somebody else's: I/O is refused, and the log says whose it is.
    echo(&unit, "reserve", &format!("force {OTHER}")).unwrap();
    assert_eq!(errno(data.sync_all()), libc::EBUSY);
    assert_eq!(errno(echo(&unit, "reserve", "release")), libc::EBUSY);
    until("the log has it", SOON, || mount.read("log").contains(&format!("reserved for {OTHER}")));
    echo(&unit, "reserve", &format!("force {own}")).unwrap();
    echo(&unit, "reserve", "release").unwrap();
    assert_eq!(unit.read("reserve"), "");
    data.sync_all().unwrap();
    drop(data);
    // The mask: our own address comes first, by itself.
    echo(&unit, "mask", &format!("add {OTHER}")).unwrap();
    assert_eq!(unit.read("mask"), format!("{own}\n{OTHER}\n"));
    // This vblade dies of a deletion, and so it is not asked for one.
    assert_eq!(errno(echo(&unit, "mask", &format!("del {OTHER}"))), libc::EOPNOTSUPP);
    assert!(mount.read("log").contains("say del! to do it nevertheless"));
    assert!(vblade.alive());
    mount.stop();
}

/// kvblade and Plan 9's vblade say nothing to these commands; they answer everything else, and stay up.
fn lists_that_nobody_answers() {
    let mut bed = Bed::cable(&[], 1500);
    let fake = Fake::start(&bed.tgt, "v1", fake::config("1.0", "old"), &[0; 64 * 512]);
    fake.script(|request| match request.header.command {
        Command::Mask | Command::Reserve => Act::Drop,
        _ => Act::Reply,
    });
    let mount = mount(&mut bed);
    let unit = mount.wait_for("1.0", UP);
    for (file, line) in [("mask", format!("add {OTHER}")), ("reserve", "take".to_string())] {
        let start = Instant::now();
        assert_eq!(errno(std::fs::read(unit.file(file))), libc::EOPNOTSUPP, "{file}");
        assert_eq!(errno(echo(&unit, file, &line)), libc::EOPNOTSUPP, "{file}");
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(4) && took < Duration::from_secs(6), "{file}: {took:?}");
    }
    // Those that refuse them do it at once.
    fake.script(|request| match request.header.command {
        Command::Mask | Command::Reserve => Act::refuse(1),
        _ => Act::Reply,
    });
    assert_eq!(errno(std::fs::read(unit.file("mask"))), libc::EOPNOTSUPP);
    assert_eq!(errno(echo(&unit, "reserve", "take")), libc::EOPNOTSUPP);
    // While the target is away nobody knows.
    fake.die();
    assert_eq!(errno(std::fs::read(unit.file("mask"))), libc::ETIMEDOUT);
    fake.revive(true);
    assert_eq!(unit.state(), "up");
    mount.stop();
}
