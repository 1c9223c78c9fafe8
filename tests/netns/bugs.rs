//! A bug on any thread: the process says so and ends, and nobody is left behind. A debug build panics where the
//! environment asks for it.

use crate::bed::mount::{AOEFS, is_mounted};
use crate::bed::sweep::{self, Mess};
use crate::bed::{Bed, proc, until};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

crate::tests![alive_no_panic_goes_on_serving(120)];

const SOON: Duration = Duration::from_secs(5);
/// EX_SOFTWARE.
const CODE: i32 = 70;

/// What makes a thread come by its place. It may fail: the daemon ends meanwhile.
type Stir = fn(&Path, u32);

fn write(file: &Path, line: &str) {
    let _ = std::fs::write(file, line);
}

fn read(mount: &Path, _: u32) {
    let _ = File::open(mount.join("1.0/data")).and_then(|mut file| file.read(&mut [0; 4096]));
}

/// Every kind of thread: its place, and whether it is there on this machine.
fn kinds() -> Vec<(&'static str, Stir)> {
    let mut kinds: Vec<(&str, Stir)> = vec![
        ("request", read),
        ("answer", read),
        ("reader", |mount, _| write(&mount.join("ctl"), "discover\n")),
        ("sweeper", |mount, _| write(&mount.join("1.0/ctl"), "config test nobody has this\n")),
        ("notifier", |mount, _| write(&mount.join("1.0/ctl"), "setsize 4096\n")),
        ("pages", |mount, _| {
            write(&mount.join("1.0/ctl"), "part a 0 8\n");
            write(&mount.join("1.0/ctl"), "delpart a\n");
        }),
        ("metrics", |mount, _| drop(std::fs::read(mount.join("metrics")))),
        ("signals", |_, pid| proc::signal(pid, Signal::SIGHUP)),
        ("reload", |_, pid| proc::signal(pid, Signal::SIGHUP)),
        ("watcher", |_, _| ()),
        ("scrape", |_, pid| {
            let ask =
                "ip link set lo up; printf 'GET /metrics HTTP/1.1\\r\\n\\r\\n' >/dev/tcp/127.0.0.1/9417";
            proc::run(SOON, &["nsenter", "-t", &pid.to_string(), "-n", "bash", "-c", ask]);
        }),
    ];
    // Where there are more, nobody stands in for a netlink's thread.
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() <= 2) {
        kinds.push(("deputy", read));
    }
    kinds
}

fn alive_no_panic_goes_on_serving() {
    if !cfg!(debug_assertions) {
        crate::bed::skip("a release build has no bugs to ask for");
    }
    let mut bed = Bed::cable(&[], 1500);
    let ns = bed.ini.clone();
    for (place, stir) in kinds() {
        let dir = bed.dir().join(place);
        let mount = dir.join("m");
        std::fs::create_dir_all(&mount).unwrap();
        sweep::register(Mess::Mount(mount.clone()));
        let trigger = dir.join("now");
        let env = format!("AOEFS_PANIC={place}@{}", trigger.display());
        let mut argv = vec!["env", &env, AOEFS, "-f", "-c", "/dev/null"];
        // Interfaces are watched where there can be some.
        let network: &[&str] = if place == "watcher" { &["-i", "v0"] } else { &["--demo=1M"] };
        argv.extend(network);
        if place == "scrape" {
            argv.extend(["--metrics-listen", "0.0.0.0:9417"]);
        }
        argv.push(mount.to_str().unwrap());
        let daemon = bed.spawn(&ns, &argv);
        until("the mount answers", SOON, || {
            let there = if place == "watcher" { "ctl" } else { "1.0/data" };
            is_mounted(&mount) && std::fs::metadata(mount.join(there)).is_ok()
        });
        let name = if place == "watcher" { "ctl" } else { "1.0/data" };
        let mut user = File::open(mount.join(name)).unwrap();
        File::create(&trigger).unwrap();
        if place == "watcher" {
            ns.ip("link set v0 down");
        }
        stir(&mount, daemon.pid());
        assert_eq!(daemon.ended(SOON), CODE, "{place}: {}", daemon.said());
        let said = daemon.said();
        let line = said
            .lines()
            .find(|line| line.contains("bug: thread "))
            .unwrap_or_else(|| panic!("{place}: {said}"));
        assert!(line.contains(" panicked at src/") && line.ends_with("please report this line"), "{line}");
        until("the mount is gone", SOON, || !is_mounted(&mount));
        let errno = user.read(&mut [0; 512]).unwrap_err().raw_os_error();
        assert!([libc::ENOTCONN, libc::ECONNABORTED].map(Some).contains(&errno), "{place}: {errno:?}");
    }
}
