//! The bed proves itself first: a fault that the relay does not make, or a process that outlives its test, would
//! prove nothing.

use crate::bed::client::{self, Client, ata_body};
use crate::bed::fake::{self, Act, Fake};
use crate::bed::raw::{Batch, Port, wait};
use crate::bed::relay::{Counts, Faults, Relay, Way};
use crate::bed::{Bed, MIB, Ns, proc, sweep, until};
use aoefs::wire::{Ata, Command, Header, Identify, Mac, Sector, Tag, Verb};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

crate::tests![
    commands_end_in_time,
    runner_counts_what_runs_side_by_side,
    runner_leaves_the_nights_tests_out,
    nothing_is_left_behind,
    vblade_answers_by_hand,
    relay_passes_everything_in_order,
    relay_faults_are_those_asked_for,
    relay_repeats_a_seed,
    relay_delays,
    relay_keeps_up_with_jumbo_frames,
    bridge_and_tap_carry_frames,
    scripted_target_follows_its_script,
    relay_is_a_program_too,
];

const SOON: Duration = Duration::from_secs(2);
/// For answers that must not come.
const BRIEFLY: Duration = Duration::from_millis(200);

fn commands_end_in_time() {
    let output = proc::run(Duration::from_millis(200), &["bash", "-c", "echo begun; sleep 20; echo done"]);
    assert!(output.timed_out && output.code.is_none());
    assert!(output.took < Duration::from_secs(2), "{:?}", output.took);
    let output = proc::run(SOON, &["bash", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (Some(3), "out\n", "err\n"));
}

/// With this in its environment, the program has the tests of `sample` and no others.
pub const SAMPLE: &str = "AOEFS_TEST_SAMPLE";

/// This program's exit code and what it printed, with the tests of `sample`.
fn sample(args: &[&str]) -> (Option<i32>, String) {
    let program = std::env::current_exe().unwrap();
    let setting = format!("{SAMPLE}=1");
    let argv = [&["env", &setting, program.to_str().unwrap()], args].concat();
    let output = proc::run(Duration::from_secs(20), &argv);
    (output.code, output.stdout)
}

fn runner_counts_what_runs_side_by_side() {
    let (code, said) = sample(&[]);
    assert_eq!(code, Some(1), "{said}");
    for line in [
        "test sample::passes ... [a figure] ok (",
        "test sample::fails ... ",
        "\nas it should\n",
        "skipped: sample::skips: no reason\n",
        "sample::dies: its process did not end as it should",
        "test sample::alone ... ok (",
        "\n    sample::fails\n",
        "\n    sample::dies\n",
        "test result: FAILED. 2 passed; 2 failed; 1 ignored; 0 measured; 1 filtered out",
    ] {
        assert!(said.contains(line), "{line:?} is not in:\n{said}");
    }
    // One after the other they go the same way, but for the one that ends the process.
    let (code, said) = sample(&["--test-threads", "1", "--skip", "dies"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 2 filtered out"),
        "{said}"
    );
}

fn runner_leaves_the_nights_tests_out() {
    let listed = |args: &[&str]| {
        let (code, said) = sample(&[args, &["--list"]].concat());
        assert_eq!(code, Some(0), "{said}");
        said.lines().map(|line| line.trim_end_matches(": test").to_owned()).collect::<Vec<_>>()
    };
    let ordinary = ["passes", "fails", "skips", "dies", "alone"].map(|name| format!("sample::{name}"));
    assert_eq!(listed(&[]), ordinary);
    assert_eq!(listed(&["--night"]), ["sample::later"]);
    assert_eq!(listed(&["later", "alone"]), ["sample::alone"]);
    assert_eq!(listed(&["--night", "later", "alone"]), ["sample::later"]);
}

fn nothing_is_left_behind() {
    let count = |what: &str| {
        let text = proc::sh(SOON, what);
        text.lines().filter(|line| line.contains(&format!("aoet-{}-", std::process::id()))).count()
    };
    let all = "ip netns list; cat /proc/self/mountinfo; ls /dev/shm /tmp; losetup -n -l -O NAME,BACK-FILE";
    let pid;
    {
        let mut bed = Bed::cable(&["vblade", "losetup"], 1500);
        let image = bed.image("disk", MIB);
        let vblade = bed.vblade("1.0", "v1", &image);
        pid = vblade.pid();
        let dev = proc::sh(SOON, &format!("losetup -f --show {}", image.display())).trim().to_string();
        sweep::register(sweep::Mess::Loop(dev));
        let point = bed.dir().join("mounted");
        std::fs::create_dir(&point).unwrap();
        sweep::register(sweep::Mess::Mount(point.clone()));
        proc::sh(SOON, &format!("mount -t tmpfs none {}", point.display()));
        assert!(count(all) >= 6);
    }
    assert_eq!(count(all), 0);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "vblade outlived its bed");
}

/// A config query for a target, with this tag.
fn frame(from: &Port, addr: &str, tag: u32) -> Vec<u8> {
    let header = Header {
        dst: Mac::BROADCAST,
        src: Mac(from.mac()),
        version: 1,
        response: false,
        error: None,
        addr: addr.parse().unwrap(),
        command: Command::Config,
        tag: Tag(tag),
    };
    client::frame(&header, &[])
}

fn vblade_answers_by_hand() {
    let mut bed = Bed::cable(&["vblade"], 1500);
    let port = Port::open(&bed.ini, "v0");
    let image = bed.image("disk", MIB);
    let disk = std::fs::read(&image).unwrap();
    let vblade = bed.vblade("7.254", "v1", &image);
    let announced = port.recv(SOON).expect("an announcement");
    assert_eq!((announced[14], &announced[16..24]), (8, &[0, 7, 254, 1, 0, 0, 0, 0][..]));
    let mut client = Client::new(port, "7.254".parse().unwrap());
    let answer = client.ata(&Ata::identify(), &[]);
    assert_eq!(Identify::parse(answer.ata().1).unwrap().sectors, (MIB / 512) as u64);
    assert_eq!(client.read(5, 2), disk[5 * 512..7 * 512]);
    client.write(9, &[7; 1024]);
    assert_eq!(std::fs::read(&image).unwrap()[9 * 512..11 * 512], [7; 1024]);
    assert_eq!(client.config(Verb::Force, b"hello").unwrap().config().string, b"hello");
    client.patience = BRIEFLY;
    assert!(client.config(Verb::Test, b"other").is_none());
    assert!(vblade.alive());
}

/// A host in the middle, the relay on it, and a port at either end.
fn relayed(mtu: usize, seed: u64) -> (Bed, Relay, Port, Port) {
    let bed = Bed::new(&[]);
    let wire = Ns::new();
    bed.ini.veth("v0", &wire, "m0", mtu);
    wire.veth("m1", &bed.tgt, "v1", mtu);
    let relay = Relay::between(&wire, "m0", "m1", seed);
    let (a, b) = (Port::open(&bed.ini, "v0"), Port::open(&bed.tgt, "v1"));
    (bed, relay, a, b)
}

/// Sends numbered frames and returns the numbers that arrived, in the order of arrival.
fn numbers(from: &Port, to: &Port, n: u32, len: usize) -> Vec<u32> {
    let frames: Vec<Vec<u8>> = (0..n)
        .map(|tag| {
            let mut frame = frame(from, "1.0", tag);
            frame.resize(len, 0x5a);
            frame
        })
        .collect();
    for batch in frames.chunks(32) {
        let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        assert_eq!(from.send_batch(&batch).unwrap(), batch.len());
    }
    let mut arrived = Vec::new();
    while let Some(frame) = to.recv(Duration::from_millis(150)) {
        if frame.len() >= 24 {
            arrived.push(u32::from_be_bytes(frame[20..24].try_into().unwrap()));
        }
    }
    arrived
}

fn relay_passes_everything_in_order() {
    let (_bed, relay, a, b) = relayed(1500, 1);
    assert_eq!(numbers(&a, &b, 5000, 1060), (0..5000).collect::<Vec<_>>());
    assert_eq!(numbers(&b, &a, 5000, 24), (0..5000).collect::<Vec<_>>());
    let both = [relay.counts(Way::Out), relay.counts(Way::Back)];
    assert_eq!(both.map(|c| (c.seen, c.passed, c.dropped)), [(5000, 5000, 0); 2]);
}

fn relay_faults_are_those_asked_for() {
    let (_bed, relay, a, b) = relayed(1500, 2);
    let near = |what: &str, got: u64, share: f64| {
        let want = share * 5000.0;
        assert!((got as f64 - want).abs() < want * 0.3 + 5.0, "{what}: {got} of 5000, {want} asked for");
    };
    let try_out = |faults: Faults| -> (Vec<u32>, Counts) {
        let before = relay.counts(Way::Out);
        relay.set(Way::Out, &faults);
        let arrived = numbers(&a, &b, 5000, 1060);
        relay.heal();
        let after = relay.counts(Way::Out);
        assert_eq!(after.seen - before.seen, 5000);
        (arrived, after)
    };
    let (arrived, _) = try_out(Faults { drop: 0.1, ..Faults::default() });
    near("drop", 5000 - arrived.len() as u64, 0.1);
    let (arrived, _) = try_out(Faults { duplicate: 0.2, ..Faults::default() });
    near("duplicate", arrived.len() as u64 - 5000, 0.2);
    let (arrived, _) = try_out(Faults { reorder: 0.1, depth: 3, ..Faults::default() });
    assert_eq!(arrived.len(), 5000);
    let late = arrived.windows(2).filter(|pair| pair[1] < pair[0]).count() as u64;
    near("reorder", late, 0.09);
    let (arrived, _) = try_out(Faults { blackhole: 1059, ..Faults::default() });
    assert_eq!(arrived.len(), 0);
    let (_, counts) = try_out(Faults { corrupt: 0.1, truncate: 0.1, pad: 0.1, ..Faults::default() });
    near("corrupt", counts.corrupted, 0.1);
    near("truncate", counts.truncated, 0.1);
    near("pad", counts.padded, 0.1);
    let (arrived, _) = try_out(Faults { cut: true, ..Faults::default() });
    assert_eq!(arrived.len(), 0);
    // The other direction never noticed.
    assert_eq!(numbers(&b, &a, 5000, 1060).len(), 5000);
    assert!(relay.command("out drop 0.5 delay 1").is_ok());
    assert!(relay.command("sideways drop 0.5").is_err());
    assert!(relay.command("out drop").is_err());
}

fn relay_repeats_a_seed() {
    let run = || {
        let (_bed, relay, a, b) = relayed(1500, 77);
        relay.set(Way::Out, &Faults { drop: 0.3, duplicate: 0.1, ..Faults::default() });
        numbers(&a, &b, 1000, 100)
    };
    let first = run();
    assert!(first.len() > 500);
    assert_eq!(first, run());
}

fn relay_delays() {
    let (_bed, relay, a, b) = relayed(1500, 3);
    let wait = Duration::from_millis(40);
    relay.set(Way::Out, &Faults { delay: wait, jitter: Duration::from_millis(10), ..Faults::default() });
    for tag in 0..10 {
        let start = Instant::now();
        a.send(&frame(&a, "1.0", tag));
        assert!(b.recv(SOON).is_some());
        let took = start.elapsed();
        assert!(took >= wait && took < wait * 3, "{took:?}");
    }
}

fn relay_keeps_up_with_jumbo_frames() {
    let (_bed, relay, a, b) = relayed(9000, 4);
    // 256 MiB as 8 KiB frames, at most 512 of them on the way: a window as an initiator keeps it.
    let mut jumbo = frame(&a, "1.0", 1);
    jumbo.resize(8228, 0x11);
    let batch: Vec<&[u8]> = vec![&jumbo; 32];
    let (total, mut sent, mut arrived) = (32_768u64, 0, 0);
    let mut slots = Batch::new();
    let start = Instant::now();
    while arrived < total {
        assert!(start.elapsed() < Duration::from_secs(30), "{arrived} of {total} arrived");
        while sent < total && sent - arrived < 512 {
            sent += a.send_batch(&batch).unwrap() as u64;
        }
        wait(&[b.as_fd()], Duration::from_millis(20));
        b.recv_batch(&mut slots);
        arrived += slots.frames().count() as u64;
    }
    let speed = (total * 8192) as f64 / 1e6 / start.elapsed().as_secs_f64();
    print!("[{speed:.0} MB/s through the relay] ");
    assert_eq!(relay.counts(Way::Out).refused, 0);
    assert!(speed > 200.0, "{speed} MB/s: the relay would be the bottleneck");
}

fn bridge_and_tap_carry_frames() {
    use std::io::{Read, Write};
    let bed = Bed::new(&[]);
    let switch = Ns::new();
    switch.veth("p0", &bed.ini, "v0", 1500);
    let tap = switch.tap("t0", 1500);
    switch.bridge("br0", &["p0", "t0"]);
    let port = Port::open(&bed.ini, "v0");
    let mut machine = std::fs::File::from(tap);
    let mut sent = frame(&port, "3.0", 9);
    sent[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    let found = until("a frame from the tap", Duration::from_secs(5), || {
        machine.write_all(&sent).unwrap();
        port.recv(Duration::from_millis(100)).is_some_and(|frame| frame == sent)
    });
    assert!(found < Duration::from_secs(5));
    port.send(&frame(&port, "4.0", 10));
    let mut got = [0; 2048];
    loop {
        let n = machine.read(&mut got).unwrap();
        if got[12..14] == [0x88, 0xa2] && got[16..18] == [0, 4] {
            assert_eq!(n, 60);
            break;
        }
    }
}

fn scripted_target_follows_its_script() {
    let bed = Bed::cable(&[], 9000);
    let port = Port::open(&bed.ini, "v0");
    let fake = Fake::start(&bed.tgt, "v1", fake::config("3.1", "serial-a"), &[0x11; 64 * 512]);
    assert!(port.recv(SOON).is_some(), "no announcement");
    let mut client = Client::new(port, "3.1".parse().unwrap());
    assert_eq!(client.read(63, 1), [0x11; 512]);
    let serial =
        |client: &mut Client| Identify::parse(client.ata(&Ata::identify(), &[]).ata().1).unwrap().serial;
    assert_eq!(serial(&mut client).as_str(), "serial-a");
    let read = ata_body(&Ata::read(Sector(0), 1, true), &[]);
    let write = ata_body(&Ata::write(Sector(1), 1, true), &[0x22; 512]);
    client.patience = BRIEFLY;
    // Executed, but the answer is lost; not executed at all.
    fake.script(|_| Act::DropReply);
    assert!(client.ask(Command::Ata, &write).is_none());
    assert_eq!(fake.content()[512..1024], [0x22; 512]);
    fake.script(|_| Act::Drop);
    assert!(client.ask(Command::Ata, &ata_body(&Ata::write(Sector(2), 1, true), &[0x33; 512])).is_none());
    assert_eq!(fake.content()[1024..1536], [0x11; 512]);
    fake.script(|_| Act::wrong_tag());
    assert!(client.ask(Command::Ata, &read).is_none());
    fake.script(|_| Act::wrong_size(-1));
    assert_eq!(client.ask(Command::Ata, &read).unwrap().ata().1.len(), 511);
    fake.script(|_| Act::refuse(6));
    assert_eq!(client.ask(Command::Ata, &read).unwrap().header.error, Some(aoefs::wire::Refusal::Reserved));
    fake.script(|_| Act::ata_error(0x41, 0x10));
    assert!(client.ask(Command::Ata, &read).unwrap().ata().0.failed());
    fake.script(|_| Act::Delay(Duration::from_millis(50)));
    let start = Instant::now();
    client.read(0, 1);
    assert!(start.elapsed() >= Duration::from_millis(50));
    fake.script(|_| Act::Answers(3));
    client.port.drain();
    client.read(0, 1);
    assert!((0..2).all(|_| client.port.recv(SOON).is_some()), "3 answers");
    fake.behave();
    let mut old = fake.swap(fake::config("3.1", "serial-b"), &[0x44; 32 * 512]);
    assert_eq!(fake::content(&mut old)[512..1024], [0x22; 512]);
    assert_eq!(serial(&mut client).as_str(), "serial-b");
    fake.die();
    assert!(client.ask(Command::Ata, &read).is_none());
    fake.revive(true);
    assert_eq!(client.read(0, 1), [0x44; 512]);
    assert!(fake.log().iter().filter(|request| request.is_io()).count() > 8);
}

fn relay_is_a_program_too() {
    let bed = Bed::new(&[]);
    let wire = Ns::new();
    bed.ini.veth("v0", &wire, "m0", 1500);
    wire.veth("m1", &bed.tgt, "v1", 1500);
    let me = std::env::current_exe().unwrap();
    let script = "(sleep 1; echo both drop 1; echo sideways; sleep 1; echo stats)";
    let line = format!("{script} | {} {} --relay m0 m1 7", wire.prefix().join(" "), me.display());
    let (a, b) = (Port::open(&bed.ini, "v0"), Port::open(&bed.tgt, "v1"));
    let said = std::thread::scope(|scope| {
        let program = scope.spawn(move || proc::sh(Duration::from_secs(10), &line));
        std::thread::sleep(Duration::from_millis(700));
        a.send(&frame(&a, "1.0", 1));
        assert!(b.recv(SOON).is_some());
        std::thread::sleep(Duration::from_millis(700));
        a.send(&frame(&a, "1.0", 2));
        assert!(b.recv(BRIEFLY).is_none());
        program.join().unwrap()
    });
    assert!(said.contains("seen: 2, passed: 1") && said.contains("sideways: one of"), "{said}");
}
