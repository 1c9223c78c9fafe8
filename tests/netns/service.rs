//! Under a service manager, which is played by this test: what the journal and the status line say, an interface that
//! comes after the start, and the signal to stop that is sent more than once.

use crate::bed::fake::{self, Fake};
use crate::bed::mount::{AOEFS, is_mounted, try_open};
use crate::bed::sweep::{self, Mess};
use crate::bed::{Bed, MIB, until};
use nix::sys::signal::Signal;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

crate::tests![
    service_an_interface_comes_late_and_the_journal_has_each_event_once(beside),
    service_a_stop_that_is_repeated_ends_no_file_that_is_open(beside),
];

const SOON: Duration = Duration::from_secs(10);

/// A service: its standard error is what systemd calls the journal's stream.
struct Service {
    daemon: std::sync::Arc<crate::bed::Daemon>,
    point: PathBuf,
    manager: UnixDatagram,
}

impl Service {
    fn start(bed: &mut Bed, options: &[&str]) -> Service {
        let point = bed.dir().join("aoe");
        std::fs::create_dir(&point).unwrap();
        sweep::register(Mess::Mount(point.clone()));
        let notify = bed.dir().join("notify");
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_nonblocking(true).unwrap();
        let line = format!(
            "NOTIFY_SOCKET={} JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$@\"",
            notify.display()
        );
        let mut argv = vec!["sh", "-c", &line, "sh", AOEFS, "-f"];
        argv.extend(options);
        argv.push(point.to_str().unwrap());
        let ns = bed.ini.clone();
        let daemon = bed.spawn(&ns, &argv);
        until("the mount answers", SOON, || is_mounted(&point) && point.join("ctl").exists());
        Service { daemon, point, manager }
    }

    /// Waits for a status line with these words.
    #[track_caller]
    fn status(&self, words: &str) {
        let mut text = [0; 512];
        until(words, SOON, || {
            let Ok(length) = self.manager.recv(&mut text) else { return false };
            String::from_utf8_lossy(&text[..length])
                .lines()
                .any(|line| line.starts_with("STATUS=") && line.contains(words))
        });
    }

    fn count(&self, line: &str) -> usize {
        self.daemon.said().lines().filter(|said| said.starts_with(line)).count()
    }

    #[track_caller]
    fn says_once(&self, line: &str) {
        until(line, SOON, || self.count(line) > 0);
        assert_eq!(self.count(line), 1, "{line}:\n{}", self.daemon.said());
    }
}

fn service_an_interface_comes_late_and_the_journal_has_each_event_once() {
    let mut bed = Bed::with_fuse(&[]);
    let service = Service::start(&mut bed, &["-i", "v0"]);
    service.status("waiting for v0");
    service.says_once("<4>waiting for v0: there is no such interface yet");
    service.daemon.signal(Signal::SIGHUP);
    service.says_once("<6>configuration read again");
    for came in 1..=2 {
        bed.ini.veth("v0", &bed.tgt.clone(), "v1", 1500);
        let target = Fake::start(&bed.tgt, "v1", fake::config("1.0", "disk"), &vec![7; MIB]);
        service.status("bound v0; targets 1.0");
        assert_eq!(service.count("<6>bound v0 ("), 1);
        assert_eq!(service.count("<6>1.0 found: "), 1);
        std::fs::write(service.point.join("1.0/ctl"), "deadline 1").unwrap();
        let disk = try_open(&service.point.join("1.0/data"), libc::O_RDONLY).unwrap();
        drop(target);
        disk.read_exact_at(&mut [0; 512], 0).unwrap_err();
        service.status("bound v0; down: 1.0");
        assert_eq!(service.count("<4>1.0 down: "), came, "{}", service.daemon.said());
        assert_eq!(service.count("<4>1.0 read failed at sector 0: deadline passed"), came);
        assert_eq!(service.count("<6>1.0 up"), came - 1);
        drop(disk);
        bed.ini.ip("link del v0");
        until("it is seen to go", SOON, || service.count("<4>v0 is down") >= came);
    }
    service.daemon.signal(Signal::SIGTERM);
    assert_eq!(service.daemon.ended(SOON), 0, "{}", service.daemon.said());
    // The lines of the log carry a level and no time of their own.
    let said = service.daemon.said();
    let odd = |line: &&str| !(line.starts_with("<4>") || line.starts_with("<6>"));
    let odd: Vec<&str> = said.lines().filter(odd).collect();
    assert_eq!(odd.len(), 1, "{odd:?}");
    assert!(odd[0].contains("waiting for v0 (no such interface yet; see: ip link)"), "{odd:?}");
}

/// systemd sends its signal to stop again when the time to stop is over, and SIGTERM twice would fail all that waits.
fn service_a_stop_that_is_repeated_ends_no_file_that_is_open() {
    let mut bed = Bed::cable(&[], 1500);
    let _target = Fake::start(&bed.tgt, "v1", fake::config("1.0", "disk"), &vec![7; MIB]);
    let service = Service::start(&mut bed, &["-i", "v0", "-o", "stop=1", "--wait", "1.0"]);
    service.status("targets 1.0");
    let disk = File::open(service.point.join("1.0/data")).unwrap();
    for _ in 0..3 {
        service.daemon.signal(Signal::SIGUSR1);
        std::thread::sleep(Duration::from_millis(100));
    }
    service.status("stopping: it is in use by ");
    service.status("detached, serving until the last close");
    service.daemon.signal(Signal::SIGUSR1);
    let mut sector = [0; 512];
    disk.read_exact_at(&mut sector, 4096).unwrap();
    assert_eq!(sector, [7; 512]);
    assert!(service.daemon.alive() && !is_mounted(&service.point));
    drop(disk);
    assert_eq!(service.daemon.ended(SOON), 0, "{}", service.daemon.said());
}
