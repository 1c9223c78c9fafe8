//! Under a service manager, which is played by this test: what the journal and the status line say, an interface that
//! comes after the start, the signal to stop that is sent more than once, and the restart after a crash.

use crate::bed::fake::{self, Fake};
use crate::bed::mount::{AOEFS, is_mounted, try_open};
use crate::bed::sweep::{self, Mess};
use crate::bed::{Bed, MIB, proc, until};
use crate::loops;
use nix::sys::signal::Signal;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

crate::tests![
    service_an_interface_comes_late_and_the_journal_has_each_event_once(beside),
    service_a_stop_that_is_repeated_ends_no_file_that_is_open(beside),
    service_a_killed_daemon_comes_back_with_loop_and_mount(60),
    service_a_loop_device_of_another_is_left_alone,
    service_a_file_system_of_a_dead_daemon_goes_whatever_its_directory_is_called,
    service_the_example_attaches_a_disk_once,
];

const SOON: Duration = Duration::from_secs(10);

/// The standard error of a service is the journal's stream, and systemd says so.
const JOURNAL: &str = "export JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2)";

/// A service: its standard error is what systemd calls the journal's stream.
struct Service {
    daemon: Arc<proc::Daemon>,
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
        let line = format!("{JOURNAL} NOTIFY_SOCKET={} && exec \"$@\"", notify.display());
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

/// The units of contrib as systemd runs them, but for the programs and directories, which are those of this test.
struct Units {
    /// What stands in the units, and what is run instead.
    names: Vec<(&'static str, String)>,
    dir: PathBuf,
}

const DAEMON: &str = include_str!("../../contrib/systemd/aoefs.service");
const LOOP: &str = include_str!("../../contrib/systemd/aoe-loop@.service");
const MOUNT: &str = include_str!("../../contrib/systemd/mnt-disk.mount");

/// The one value of a key in a unit.
fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let first = values.next().unwrap_or_else(|| panic!("the unit has no {key}"));
    assert_eq!(values.next(), None, "{key}");
    first
}

impl Units {
    /// For a partition `root` of the target 1.0.
    fn new(dir: &Path) -> Units {
        let name = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let names = vec![
            ("/usr/bin/aoefs", AOEFS.to_owned()),
            (
                "/usr/libexec/aoefs/aoe-loop",
                concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/aoe-loop").to_owned(),
            ),
            ("/mnt/aoe", name("aoe")),
            ("/run/aoe/1.0-data", name("run/1.0-root")),
            ("%i", "1.0-root".to_owned()),
            ("%I", "1.0/root".to_owned()),
            ("/mnt/disk", name("disk")),
        ];
        Units { names, dir: dir.to_path_buf() }
    }

    /// A value as a line of shell.
    fn line(&self, unit: &str, key: &str) -> String {
        let line = value(unit, key).to_owned();
        let line = self.names.iter().fold(line, |line, (from, to)| line.replace(from, to));
        // An at sign: the word after the program is the name that the process gets.
        let Some(named) = line.strip_prefix('@') else { return line };
        let (program, rest) = named.split_once(' ').unwrap();
        let (name, rest) = rest.split_once(' ').unwrap();
        format!("exec -a {name} {program} {rest}")
    }

    /// Runs what stands behind the key, for the daemon whose process this is.
    #[track_caller]
    fn run(&self, unit: &str, key: &str, pid: u32) {
        let run = self.dir.join("run");
        let own = format!("export AOE_LOOP_DIR={} AOE_LOOP_DAEMON={pid} MAINPID={pid}", run.display());
        proc::sh(SOON, &format!("{own}\n{}", self.line(unit, key)));
    }

    /// Starts the daemon and waits for its READY=1.
    #[track_caller]
    fn start(&self, bed: &mut Bed, options: &str) -> Arc<proc::Daemon> {
        self.run(DAEMON, "ExecStartPre", 0);
        let notify = self.dir.join("notify");
        let _ = std::fs::remove_file(&notify);
        let manager = UnixDatagram::bind(&notify).unwrap();
        manager.set_read_timeout(Some(SOON)).unwrap();
        let line = format!(
            "{JOURNAL} NOTIFY_SOCKET={} AOEFS_OPTIONS='{options}'\n{}",
            notify.display(),
            self.line(DAEMON, "ExecStart")
        );
        let ns = bed.ini.clone();
        let daemon = bed.spawn(&ns, &["bash", "-c", &line]);
        let mut text = [0; 512];
        loop {
            let length = manager.recv(&mut text).unwrap_or_else(|error| panic!("{error}: {}", daemon.said()));
            if String::from_utf8_lossy(&text[..length]).lines().any(|line| line == "READY=1") {
                return daemon;
            }
        }
    }

    /// Attaches the loop device, which the bed detaches if the units do not; then mounts what it prints.
    fn attach(&self, pid: u32) -> PathBuf {
        self.run(LOOP, "ExecStart", pid);
        let device = std::fs::read_link(self.line(MOUNT, "What")).unwrap();
        sweep::register(Mess::Loop(device.to_str().unwrap().to_owned()));
        device
    }

    fn mount(&self) -> PathBuf {
        let at = PathBuf::from(self.line(MOUNT, "Where"));
        loops::mount(Path::new(&self.line(MOUNT, "What")), &at);
        at
    }
}

fn attached(device: &Path) -> bool {
    let name = device.file_name().unwrap();
    Path::new("/sys/block").join(name).join("loop/backing_file").exists()
}

/// ext4 over a loop device on a partition, by the commands of the units: a reload closes nothing, and after kill -9 the
/// same commands bring all of it back, also while a program still has a file of the dead file system open.
fn service_a_killed_daemon_comes_back_with_loop_and_mount() {
    let mut bed = Bed::cable(&["losetup", "mount", "findmnt", "mkfs.ext4", "e2fsck"], 9000);
    let image = bed.image_of("disk", 64 * MIB, 0);
    let _target = bed.aoefs_target("1.0", "v1", &image);
    let units = Units::new(bed.dir());
    let conf = bed.dir().join("aoefs.conf");
    std::fs::write(&conf, "1.0 part root 2048 100352\n").unwrap();
    sweep::register(Mess::Mount(bed.dir().join("aoe")));
    let options = format!("-i v0 --wait 1.0 --config {}", conf.display());

    let first = units.start(&mut bed, &options);
    let old = units.attach(first.pid());
    proc::sh(SOON, &format!("mkfs.ext4 -q {}", old.display()));
    let at = units.mount();
    let mut bytes = vec![0; 3 * MIB];
    crate::bed::Rng::new(17).fill(&mut bytes);
    std::fs::write(at.join("kept"), &bytes).unwrap();
    let held = File::open(at.join("kept")).unwrap();
    held.sync_all().unwrap();

    let disk = File::open(bed.dir().join("aoe/1.0/data")).unwrap();
    units.run(DAEMON, "ExecReload", first.pid());
    until("it is reloaded", SOON, || first.said().contains("configuration read again"));
    disk.read_exact_at(&mut [0; 4096], 0).unwrap();
    drop(disk);
    nix::fcntl::posix_fadvise(&held, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    let mut read = vec![0; bytes.len()];
    held.read_exact_at(&mut read, 0).unwrap();
    assert!(read == bytes, "after a reload");

    // As systemd does it for Restart= and Requires=: first what comes after the daemon, then the loop unit's stop.
    assert_eq!(value(DAEMON, "Restart"), "on-failure");
    first.kill9();
    units.run(DAEMON, "ExecStopPost", 0);
    assert!(!is_mounted(&at), "a file system over a dead daemon is taken away");
    units.run(LOOP, "ExecStop", 0);
    let second = units.start(&mut bed, &options);
    let new = units.attach(second.pid());
    assert_ne!(new, old, "the old device is still open");
    units.mount();
    assert!(std::fs::read(at.join("kept")).unwrap() == bytes, "what was synced is there");
    std::fs::write(at.join("new"), "more").unwrap();
    drop(held);
    until("the old device goes with its last user", SOON, || !attached(&old));
    sweep::forget(&old);

    loops::unmount(&at);
    loops::fsck("ext4", &new);
    units.run(LOOP, "ExecStop", second.pid());
    assert!(!attached(&new));
    sweep::forget(&new);
    second.signal(value(DAEMON, "KillSignal").parse().unwrap());
    assert_eq!(second.ended(SOON), 0, "{}", second.said());
}

/// The kernel gives the number of a loop device to whoever asks next, if somebody has detached it by hand.
fn service_a_loop_device_of_another_is_left_alone() {
    let bed = Bed::new(&["losetup", "mount", "findmnt", "mkfs.ext4"]);
    let [ours, other] = ["ours", "other"].map(|name| bed.image_of(name, 16 * MIB, 0));
    proc::sh(SOON, &format!("mkfs.ext4 -q {}", other.display()));
    let units = Units::new(bed.dir());
    let script = units.line(LOOP, "ExecStart");
    let script = script.split(' ').next().unwrap();
    let run = bed.dir().join("run");
    // The daemon is a process that has ended by the time of `bury`.
    let daemon = proc::Daemon::spawn(bed.dir(), "daemon", &["sleep", "60"]);
    let own = format!("export AOE_LOOP_DIR={} AOE_LOOP_DAEMON={}", run.display(), daemon.pid());
    proc::sh(SOON, &format!("{own}; {script} attach 1.0-data {}", ours.display()));
    let device = std::fs::read_link(run.join("1.0-data")).unwrap();
    sweep::register(Mess::Loop(device.to_str().unwrap().to_owned()));
    proc::sh(SOON, &format!("losetup -d {0} && losetup {0} {1}", device.display(), other.display()));
    let at = bed.dir().join("disk");
    loops::mount(&device, &at);

    daemon.kill9();
    for words in ["bury", "detach 1.0-data"] {
        proc::sh(SOON, &format!("{own}; {script} {words}"));
        assert!(is_mounted(&at) && attached(&device), "{words}");
    }
    assert!(!run.join("1.0-data").exists() && !run.join(".1.0-data").exists());
    loops::unmount(&at);
}

/// findmnt writes a blank as \x20, and not every shell reads that.
fn service_a_file_system_of_a_dead_daemon_goes_whatever_its_directory_is_called() {
    let bed = Bed::new(&["losetup", "mount", "findmnt", "mkfs.ext4"]);
    let image = bed.image_of("image", 16 * MIB, 0);
    let units = Units::new(bed.dir());
    let script = units.line(LOOP, "ExecStart");
    let script = script.split(' ').next().unwrap();
    let daemon = proc::Daemon::spawn(bed.dir(), "daemon", &["sleep", "60"]);
    let own =
        format!("export AOE_LOOP_DIR={} AOE_LOOP_DAEMON={}", bed.dir().join("run").display(), daemon.pid());
    proc::sh(SOON, &format!("{own}; {script} attach 1.0-data {}", image.display()));
    let device = std::fs::read_link(bed.dir().join("run/1.0-data")).unwrap();
    sweep::register(Mess::Loop(device.to_str().unwrap().to_owned()));
    proc::sh(SOON, &format!("mkfs.ext4 -q {}", device.display()));
    // The mount table writes a blank as the escape does that stands here for it.
    let mounted = |name: &str| is_mounted(&bed.dir().join(name.replace(' ', "\\040")));
    let names = ["a disk", "plain", "a disk/inside"];
    for name in names {
        let at = bed.dir().join(name);
        sweep::register(Mess::Mount(at.clone()));
        proc::sh(SOON, &format!("mkdir -p '{0}' && mount {1} '{0}'", at.display(), device.display()));
        assert!(mounted(name), "{name}");
    }

    daemon.kill9();
    proc::sh(SOON, &format!("{own}; {script} bury"));
    for name in names {
        assert!(!mounted(name), "{name} stays");
    }
    assert!(!attached(&device));
    sweep::forget(&device);
}

/// Two loop devices over one disk would each write what they know of its file system.
fn service_the_example_attaches_a_disk_once() {
    let bed = Bed::new(&["losetup", "mount", "mkfs.ext4"]);
    let image = bed.image_of("image", 16 * MIB, 0);
    proc::sh(SOON, &format!("mkfs.ext4 -q {}", image.display()));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/examples/loop-mount.sh");
    let [first, second] = ["first", "second"].map(|name| {
        let at = bed.dir().join(name);
        std::fs::create_dir(&at).unwrap();
        sweep::register(Mess::Mount(at.clone()));
        at
    });
    let run = |word: &str, at: &Path| format!("{script} {word} {} {}", image.display(), at.display());
    proc::sh(SOON, &run("up", &first));
    let devices = || proc::sh(SOON, &format!("losetup --noheadings --output NAME -j {}", image.display()));
    let device = devices();
    sweep::register(Mess::Loop(device.trim().to_owned()));
    proc::sh(SOON, &format!("! {} 2>/dev/null", run("up", &second)));
    assert_eq!(devices(), device);
    assert!(!is_mounted(&second));
    proc::sh(SOON, &run("down", &first));
    assert!(!is_mounted(&first) && devices().is_empty());
    sweep::forget(Path::new(device.trim()));
}
