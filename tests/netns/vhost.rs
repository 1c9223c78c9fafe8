//! Disks for virtual machines from the real daemon: beside the files of the same mount, after a restart, and at its
//! end.

use crate::bed::mount::{Mount, errno};

use crate::bed::relay::{Faults, Relay, Way};
use crate::bed::{Bed, Ns, until};
use nix::sys::signal::Signal;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

pub mod foreign;
pub mod hostile;
pub mod silent;

#[path = "../vhost/front.rs"]
#[allow(dead_code, reason = "the bed `vhost` uses all of it")]
mod front;

#[path = "../vhost/machine.rs"]
#[allow(dead_code, reason = "the bed `vhost` uses all of it")]
mod machine;

use front::Front;
use machine::{Habit, Machine, Versions};

crate::tests![
    integrity_v1_guest_file_and_page_cache,
    return_v8_sockets_after_a_restart,
    clean_v5_ends_of_a_mount,
    integrity_v16_a_machine_over_a_bad_wire(120, beside),
];

const SOON: Duration = Duration::from_secs(5);

#[track_caller]
fn demo(bed: &mut Bed, options: &[&str]) -> Mount {
    let ns = bed.ini.clone();
    let options: Vec<&str> = ["--demo=4M"].iter().chain(options).copied().collect();
    let mount = bed.mount_in(&ns, &options);
    mount.wait_for("1.0", SOON);
    mount
}

/// The first page of a file as the kernel has it in its page cache. A mapping that is made anew would have it read
/// anew.
struct Page(*mut libc::c_void);

impl Page {
    fn map(file: &File) -> Self {
        let (length, private) = (4096, libc::MAP_PRIVATE);
        // SAFETY: a new mapping, which nobody else knows.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, private, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self(at)
    }

    fn bytes(&self) -> Vec<u8> {
        // SAFETY: the mapping has so many bytes, and nothing but the kernel changes them.
        (0..4096).map(|n| unsafe { self.0.cast::<u8>().add(n).read_volatile() }).collect()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it was mapped like this, and nobody has a pointer into it.
        unsafe { libc::munmap(self.0, 4096) };
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

fn integrity_v1_guest_file_and_page_cache() {
    let mut bed = Bed::with_fuse(&[]);
    let socket = bed.dir().join("disk.sock");
    let mount = demo(&mut bed, &[]);
    let unit = mount.unit("1.0");
    unit.ctl_ok(&format!("vhost {}", socket.display()));
    let meta = std::fs::symlink_metadata(&socket).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o660, nix::unistd::geteuid().as_raw()));
    // The name in the tree leads there, for as long as there is a socket.
    let link = unit.file("vhost");
    assert_eq!(std::fs::read_link(&link).unwrap(), socket);
    assert_eq!(std::fs::symlink_metadata(&link).unwrap().len(), socket.as_os_str().len() as u64);
    assert!(std::fs::read_dir(unit.path()).unwrap().any(|entry| entry.unwrap().path() == link));
    assert_eq!(errno(unit.ctl("part vhost 0 8")), libc::EEXIST);
    let file = unit.open("data");
    let mut front = Front::connect(&link, 2);
    let page = Page::map(&file);
    let mut bad = 0;
    for round in 1..=50u8 {
        let (from_file, from_guest) = (vec![round; 4096], vec![!round; 4096]);
        file.write_all_at(&from_file, 0).unwrap();
        bad += usize::from(page.bytes() != from_file);
        bad += usize::from(front.read(0, 0, 4096).unwrap() != from_file);
        assert_eq!(front.write(1, 0, &from_guest), 0);
        let mut read = vec![0; 4096];
        file.read_exact_at(&mut read, 0).unwrap();
        bad += usize::from(read != from_guest) + usize::from(page.bytes() != from_guest);
    }
    assert_eq!(bad, 0, "of 200 looks");
    assert_eq!(front.flush(0), 0);
    assert!(
        unit.read("ctl").ends_with(&format!("vhost {} data 1\n", socket.display())),
        "{}",
        unit.read("ctl")
    );
    assert!(unit.line("nopen") == "2", "the file and the front end");
    // The mount itself is no place for a socket, and its thread does not wait for itself.
    assert_ne!(errno(unit.ctl(&format!("vhost {}", unit.file("sock").display()))), libc::ETIMEDOUT);
    drop((front, page, file));
    unit.ctl_ok(&format!("unvhost {}", socket.display()));
    assert!(!socket.exists());
    assert_eq!(errno(std::fs::symlink_metadata(&link)), libc::ENOENT);
    mount.stop();
}

fn return_v8_sockets_after_a_restart() {
    let mut bed = Bed::with_fuse(&[]);
    let (config, socket) = (bed.dir().join("aoefs.conf"), bed.dir().join("boot.sock"));
    let lines = format!("1.0 part boot 0 64\n1.0 vhost {} boot\n", socket.display());
    std::fs::write(&config, lines).unwrap();
    let mount = demo(&mut bed, &["--config", config.to_str().unwrap()]);
    until("the socket of the configuration file", SOON, || is_socket(&socket));
    assert_eq!(Front::connect(&socket, 1).capacity(), 64);
    // A line that is run again changes nothing.
    mount.daemon.signal(Signal::SIGHUP);
    until("all was read", SOON, || mount.read("log").contains("configuration read again"));
    assert!(!mount.read("log").contains("File exists"), "{}", mount.read("log"));
    mount.daemon.kill9();
    until("the mount is gone", SOON, || !mount.mounted());
    assert!(is_socket(&socket), "nobody was there to take it away");
    let mount = demo(&mut bed, &["--config", config.to_str().unwrap()]);
    until("it is served again", SOON, || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    until("the last one has gone", SOON, || mount.read("1.0/ctl").ends_with(" boot 0\n"));
    let mut front = Front::connect(&socket, 1);
    assert_eq!(front.write(0, 0, &[7; 512]), 0);
    assert_eq!(front.read(0, 0, 512).unwrap(), [7; 512]);
    drop(front);
    mount.stop();
    assert!(!socket.exists());
}

fn clean_v5_ends_of_a_mount() {
    let mut bed = Bed::with_fuse(&[]);
    let socket = bed.dir().join("disk.sock");
    for end in ["umount", "SIGTERM", "SIGTERM twice, while a program has a file open"] {
        let mount = demo(&mut bed, &[]);
        mount.unit("1.0").ctl_ok(&format!("vhost {}", socket.display()));
        let mut front = Front::connect(&socket, 1);
        assert_eq!(front.write(0, 0, &[7; 512]), 0);
        let mut stays = None;
        // A machine that is connected does not keep the mount.
        match end {
            "umount" => {
                crate::bed::proc::ok(SOON, &["umount", mount.path().to_str().unwrap()]);
            }
            "SIGTERM" => mount.daemon.signal(Signal::SIGTERM),
            _ => {
                stays = Some(mount.unit("1.0").open("data"));
                mount.daemon.signal(Signal::SIGTERM);
                until("it waits for the program", SOON, || mount.daemon.said().contains("in use by"));
                mount.daemon.signal(Signal::SIGTERM);
            }
        }
        assert_eq!(mount.daemon.ended(SOON), 0, "{end}: {}", mount.daemon.said());
        assert!(!socket.exists() && !mount.mounted(), "{end}");
        drop((front, stays));
    }
}

/// A machine writes versions and reads them back while frames are lost, its connection is cut, its target and its
/// daemon are killed and started again: each request comes back once and well, and the target has the last version of
/// each block.
fn integrity_v16_a_machine_over_a_bad_wire() {
    const BLOCKS: usize = 256;
    const ROUND: usize = 150;
    for (seed, habit) in [(161, Habit::Area), (162, Habit::UsedRing)] {
        let mut bed = Bed::with_fuse(&[]);
        let wire = Ns::new();
        bed.ini.veth("v0", &wire, "m0", 9000);
        wire.veth("m1", &bed.tgt, "v1", 9000);
        let relay = Relay::between(&wire, "m0", "m1", seed);
        let image = bed.image_of("disk", BLOCKS * machine::DATA, 0);
        let target = bed.aoefs_target("1.0", "v1", &image);
        let (config, socket) = (bed.dir().join("aoefs.conf"), bed.dir().join("disk.sock"));
        std::fs::write(&config, format!("1.0 vhost {}\n", socket.display())).unwrap();
        let options = ["--config", config.to_str().unwrap()];
        let mount = bed.mount(&options);
        mount.wait_for("1.0", SOON);
        until("the socket is there", SOON, || is_socket(&socket));
        let (mut machine, mut versions) = (Machine::new(habit), Versions::new(BLOCKS));
        machine.connect(&socket).unwrap();
        versions.work(&mut machine, ROUND);
        relay.set_both(&Faults { drop: 0.03, ..Faults::default() });
        for _ in 0..3 {
            versions.work(&mut machine, ROUND);
            machine.connect(&socket).unwrap();
        }
        target.kill9();
        std::thread::sleep(Duration::from_millis(300));
        bed.aoefs_target("1.0", "v1", &image);
        versions.work(&mut machine, ROUND);
        assert!(machine.count() > 0, "nothing was under way");
        mount.daemon.kill9();
        until("the mount is gone", SOON, || !mount.mounted());
        let mount = bed.mount(&options);
        until("it is served again", SOON, || machine.connect(&socket).is_ok());
        versions.work(&mut machine, ROUND);
        let lost = relay.counts(Way::Out).dropped + relay.counts(Way::Back).dropped;
        assert!(lost > 5, "{lost}");
        relay.heal();
        let ended = machine.all_ended();
        versions.take(&machine, ended);
        assert_eq!(versions.ended, 6 * ROUND);
        let log = mount.read("log");
        assert!(!log.contains("is stopped") && !log.contains("let go of"), "{log}");
        let metrics = mount.read("metrics");
        let of = format!("{{target=\"1.0\",disk=\"data\",socket=\"{}\"}}", socket.display());
        assert!(metrics.contains(&format!("\naoefs_export_clients{of} 1\n")), "{metrics}");
        assert!(metrics.contains(&format!("\naoefs_export_errors_total{of} 0\n")), "{metrics}");
        machine.stop_queue();
        drop(machine);
        mount.stop();
        assert!(std::fs::read(&image).unwrap()[..BLOCKS * machine::DATA] == versions.disk(), "{habit:?}");
        print!("[{} requests, {lost} frames lost] ", versions.ended);
        drop(relay);
    }
}
