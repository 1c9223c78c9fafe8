//! A target that says nothing: what the requests of a guest wait for, with and without `nofail`, beside those of a
//! file.

use super::front::Front;
use crate::bed::mount::errno;
use crate::bed::stage::One;
use crate::bed::{LATE, MIB, until};
use crate::tools::fsx::Aligned;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

crate::tests![
    deadline_v30_a_guest_of_a_dead_target_gets_an_error(beside),
    deadline_v30_nofail_keeps_a_guest_waiting(beside),
];

const SECOND: Duration = Duration::from_secs(1);
/// What a target that is back may take to be found, and for what waits to be sent again.
const BACK: Duration = Duration::from_secs(20);
/// Bytes of each request.
const LEN: usize = 8192;
/// Where the guest reads, where it writes, and where the file does.
const READS: u64 = 0;
const WRITES: u64 = 128 << 10;
const FILE_READS: u64 = 256 << 10;
const FILE_WRITES: u64 = 384 << 10;
/// Reads and writes each, and a flush beside them.
const EACH: usize = 5;
const ALL: usize = 2 * EACH + 1;

/// A guest and a file at a target.
struct Guest {
    one: One,
    front: Front,
    file: File,
    socket: PathBuf,
    /// The disk as it should be.
    disk: Vec<u8>,
}

impl Guest {
    fn new() -> Self {
        let one = One::new(&[], MIB);
        let socket = one.bed.dir().join("disk.sock");
        one.unit.ctl_ok("deadline 2");
        one.unit.ctl_ok(&format!("vhost {}", socket.display()));
        let front = Front::connect(&socket, 2);
        let (file, disk) = (one.unit.open_with("data", libc::O_DIRECT), one.disk());
        Self { one, front, file, socket, disk }
    }

    /// Puts reads, writes of that byte, and a flush into both queues. The disk has these bytes once they are done.
    fn begin(&mut self, byte: u8) {
        for n in 0..EACH {
            let (at, place) = ((n * LEN) as u64, n * 2 * LEN);
            let data = self.front.data();
            data[place..place + LEN].fill(0xdd);
            data[place + LEN..place + 2 * LEN].fill(byte ^ n as u8);
            self.front.put_read(n % 2, READS + at, place, LEN, n);
            self.front.put_write(n % 2, WRITES + at, place + LEN, LEN, EACH + n);
            self.disk[(WRITES + at) as usize..][..LEN].fill(byte ^ n as u8);
        }
        self.front.put_flush(1, 2 * EACH);
        (0..2).for_each(|queue| self.front.kick(queue));
    }

    /// What has come back, and when.
    fn ended(&mut self, since: Instant) -> Vec<(usize, i32, Duration)> {
        let ended: Vec<_> = (0..2).flat_map(|queue| self.front.ended(queue)).collect();
        ended.into_iter().map(|(number, result)| (number, result, since.elapsed())).collect()
    }

    /// Waits for all requests, and gives their results by their numbers.
    #[track_caller]
    fn results(&mut self, since: Instant, limit: Duration) -> Vec<(usize, i32, Duration)> {
        let mut found = Vec::new();
        until("all requests of the guest are answered", limit, || {
            found.extend(self.ended(since));
            found.len() == ALL
        });
        found.sort_unstable();
        assert!(found.iter().map(|(number, ..)| *number).eq(0..ALL), "each of them once: {found:?}");
        found
    }

    /// The reads that were put in brought what the disk has.
    #[track_caller]
    fn reads_are_right(&mut self) {
        for n in 0..EACH {
            let got = self.front.data()[n * 2 * LEN..][..LEN].to_vec();
            assert!(got == self.disk[READS as usize + n * LEN..][..LEN], "read {n} has other bytes");
        }
    }

    /// Guest, file and target have the same disk.
    #[track_caller]
    fn is_right(&mut self) {
        let mut bytes = Aligned::new(MIB);
        self.file.read_exact_at(bytes.bytes(), 0).unwrap();
        assert!(bytes.bytes() == self.disk, "the file has other bytes");
        assert!(self.front.read(0, 0, MIB).unwrap() == self.disk, "the guest reads other bytes");
        assert!(self.one.disk() == self.disk, "the target has other bytes");
    }

    /// A number of the metrics that the socket has.
    #[track_caller]
    fn metric(&self, name: &str) -> u64 {
        let of = format!("{name}{{target=\"1.0\",disk=\"data\",socket=\"{}\"}} ", self.socket.display());
        let text = self.one.mount.read("metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(&of));
        value.unwrap_or_else(|| panic!("no {of} in {text}")).parse().unwrap()
    }

    /// The end of a machine that was never let go of.
    fn done(self) {
        assert_eq!(self.metric("aoefs_export_connections_total"), 1, "it has connected again");
        let log = self.one.mount.read("log");
        assert!(!log.contains("is stopped") && !log.contains("let go of"), "{log}");
        drop((self.front, self.file));
        self.one.done();
    }
}

/// The errors come by the deadline and not before it, as a file's do, and the same connection serves once the target
/// is back.
fn deadline_v30_a_guest_of_a_dead_target_gets_an_error() {
    let mut guest = Guest::new();
    guest.begin(0x10);
    let since = Instant::now();
    assert!(guest.results(since, BACK).iter().all(|(_, result, _)| *result == 0));
    guest.is_right();
    guest.one.vblade.kill9();
    let before = guest.disk.clone();
    let file = guest.file.try_clone().unwrap();
    let since = Instant::now();
    guest.begin(0x20);
    // What fails may have been done or not. Here it was not: nobody was there to do it.
    guest.disk = before;
    let (found, of_file) = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let error = errno(file.read_at(Aligned::new(LEN).bytes(), FILE_READS));
            (error, since.elapsed())
        });
        let found = guest.results(since, 2 * SECOND + 2 * LATE);
        (found, reader.join().unwrap())
    });
    // The crate says EIO for the status IOERR, and something else for any other.
    assert!(found.iter().all(|(_, result, _)| *result == -libc::EIO), "{found:?}");
    assert_eq!(of_file.0, libc::EIO);
    let mut took: Vec<Duration> = found.iter().map(|(.., took)| *took).chain([of_file.1]).collect();
    took.sort_unstable();
    let (first, last) = (took[0], took[ALL]);
    assert!(first >= 2 * SECOND && last <= 2 * SECOND + LATE, "{first:?} to {last:?}");
    assert_eq!(guest.metric("aoefs_export_errors_total"), ALL as u64);
    until("the target is down", SECOND, || guest.one.unit.state() == "down");
    // A target that is known to be down makes no difference.
    let since = Instant::now();
    guest.begin(0x30);
    guest.disk = guest.one.disk();
    let again = guest.results(since, 2 * SECOND + LATE);
    assert!(again.iter().all(|(_, result, _)| *result == -libc::EIO), "{again:?}");
    guest.one.revive();
    guest.one.mount.wait_for("1.0", BACK);
    let since = Instant::now();
    guest.begin(0x40);
    let found = guest.results(since, BACK);
    assert!(found.iter().all(|(_, result, _)| *result == 0), "{found:?}");
    guest.reads_are_right();
    guest.is_right();
    print!("[errors after {first:.2?} to {last:.2?} for a deadline of 2 s] ");
    guest.done();
}

/// Nothing is answered for three times the deadline, to guest and file alike; then the target is back, and all of it
/// is done, with the right bytes and no error. At last `failio` ends what would wait for ever.
fn deadline_v30_nofail_keeps_a_guest_waiting() {
    let mut guest = Guest::new();
    guest.one.unit.ctl_ok("nofail on");
    guest.one.vblade.kill9();
    let (reader, writer) = (guest.file.try_clone().unwrap(), guest.file.try_clone().unwrap());
    let back = AtomicBool::new(false);
    let since = Instant::now();
    guest.begin(0x50);
    guest.disk[FILE_WRITES as usize..][..LEN].fill(0x77);
    let expected = guest.disk[FILE_READS as usize..][..LEN].to_vec();
    let (found, of_files) = std::thread::scope(|scope| {
        let back = &back;
        let reads = scope.spawn(move || {
            let mut bytes = Aligned::new(LEN);
            reader.read_exact_at(bytes.bytes(), FILE_READS).expect("nofail, but a read of the file failed");
            assert!(back.load(Ordering::SeqCst), "a dead target has answered");
            assert!(bytes.bytes() == expected, "the file has other bytes");
            since.elapsed()
        });
        let writes = scope.spawn(move || {
            let mut bytes = Aligned::new(LEN);
            bytes.bytes().fill(0x77);
            writer.write_all_at(bytes.bytes(), FILE_WRITES).expect("nofail, but a write of the file failed");
            since.elapsed()
        });
        while since.elapsed() < 6 * SECOND {
            let ended = guest.ended(since);
            assert!(ended.is_empty(), "nofail, but these were answered: {ended:?}");
            assert!(!reads.is_finished() && !writes.is_finished(), "nofail, but a file's request has ended");
            std::thread::sleep(SECOND / 20);
        }
        assert_eq!(guest.one.unit.line("requests"), (ALL + 2).to_string(), "{}", guest.one.unit.read("ctl"));
        back.store(true, Ordering::SeqCst);
        guest.one.revive();
        let found = guest.results(since, BACK);
        (found, [reads.join().unwrap(), writes.join().unwrap()])
    });
    assert!(found.iter().all(|(_, result, _)| *result == 0), "{found:?}");
    let last = found.iter().map(|(.., took)| *took).chain(of_files).max().unwrap();
    guest.reads_are_right();
    guest.is_right();
    assert_eq!(guest.metric("aoefs_export_errors_total"), 0);
    let stats = guest.one.unit.read("stats");
    assert!(stats.contains("\ndeadlines passed: 0\n"), "{stats}");
    // The operator's word is stronger.
    guest.one.vblade.kill9();
    let before = guest.disk.clone();
    guest.begin(0x60);
    guest.disk = before;
    std::thread::sleep(SECOND / 2);
    let since = Instant::now();
    assert!(guest.ended(since).is_empty());
    guest.one.unit.ctl_ok("failio");
    let found = guest.results(since, SECOND);
    assert!(found.iter().all(|(_, result, _)| *result == -libc::EIO), "{found:?}");
    guest.one.revive();
    guest.one.mount.wait_for("1.0", BACK);
    guest.is_right();
    print!("[answered {:.2?} after the target was back, 6 s after they were asked] ", last - 6 * SECOND);
    guest.done();
}
