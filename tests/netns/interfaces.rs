//! Interfaces that come and go, and have other names than they had.

use crate::bed::fake::{self, Fake};
use crate::bed::mount::{Mount, errno};
use crate::bed::{Bed, MIB, until};
use std::fs::File;
use std::time::{Duration, Instant};

crate::tests![
    return_n8_interface_with_another_name(90, beside),
    return_n9_unbound_by_hand_until_it_is_bound(beside),
    return_n10_interface_that_the_file_binds_comes_later,
    return_n11_open_of_a_target_that_is_back(90, beside),
    interfaces_that_cannot_work_are_said,
];

const SECOND: Duration = Duration::from_secs(1);
/// For what must be done within a second.
const SLACK: Duration = Duration::from_secs(5);

fn target(bed: &Bed) -> Fake {
    Fake::start(&bed.tgt, "v1", fake::config("1.0", "disk"), &vec![7; MIB])
}

/// The interface is down for a while: how long after its return a read is answered.
fn flap(bed: &Bed, mount: &Mount, name: &str) -> Duration {
    bed.ini.ip(&format!("link set {name} down"));
    until("ctl shows that it is down", SLACK, || mount.read("ctl").contains("if0 flag:\n"));
    bed.ini.ip(&format!("link set {name} up"));
    let start = Instant::now();
    until("ctl shows that it is up", SLACK, || mount.read("ctl").contains("if0 flag: up\n"));
    read(mount);
    start.elapsed()
}

fn read(mount: &Mount) {
    use std::os::unix::fs::FileExt;
    mount.unit("1.0").open("data").read_exact_at(&mut [0; 512], 0).unwrap();
}

/// Bound by an alternative name, then renamed: what happens to it is seen all the same, and the name that is shown is
/// the one it has.
fn return_n8_interface_with_another_name() {
    let mut bed = Bed::cable(&[], 9000);
    bed.ini.ip("link property add dev v0 altname storagelan");
    let target = target(&bed);
    let ini = bed.ini.clone();
    let mount = bed.mount_in(&ini, &["-i", "storagelan", "--wait", "1.0", "-o", "direct_io"]);
    let shown = |name: &str| mount.read("ctl").contains(&format!("if0 path: {name}\n"));
    assert!(shown("v0"), "{}", mount.read("ctl"));
    assert_eq!(errno(mount.ctl("bind v0")), libc::EEXIST, "the same by another name");
    for name in ["v0", "lan0"] {
        if name != "v0" {
            bed.ini.ip("link set v0 down");
            bed.ini.ip(&format!("link set v0 name {name}"));
            bed.ini.ip(&format!("link set {name} up"));
            until("the name that is shown follows", SLACK, || shown(name));
        }
        let took = flap(&bed, &mount, name);
        print!("[{name}: read answered {took:.0?} after the interface came up] ");
        assert!(took < SLACK, "{took:?}");
        for mtu in [1400, 9000] {
            bed.ini.ip(&format!("link set {name} mtu {mtu}"));
            until("the MTU is seen", SLACK, || mount.read("ctl").contains(&format!("if0 datamtu: {mtu}\n")));
        }
    }
    // Another one under the old name is another one.
    let other = bed.tgt.clone();
    bed.ini.veth("v0", &other, "w1", 1500);
    std::thread::sleep(SECOND / 5);
    assert!(shown("lan0") && !mount.read("ctl").contains("if1 "), "{}", mount.read("ctl"));
    mount.ctl("unbind storagelan").unwrap();
    assert!(!mount.read("ctl").contains("if0 "), "{}", mount.read("ctl"));
    drop(target);
    mount.stop();
}

/// By default all interfaces are bound that come up; one that was unbound by hand is not. Its target is down.
fn return_n9_unbound_by_hand_until_it_is_bound() {
    let mut bed = Bed::cable(&[], 9000);
    let target = target(&bed);
    let ini = bed.ini.clone();
    let mount = bed.mount_in(&ini, &["--wait", "1.0"]);
    let unit = mount.wait_for("1.0", SLACK);
    mount.ctl("unbind v0").unwrap();
    assert_eq!(unit.state(), "down");
    assert_eq!(errno(File::open(unit.data())), libc::ENXIO);
    let bound = || mount.read("ctl").contains("path: v0\n");
    for words in ["link set v0 down", "link set v0 up", "link set v0 mtu 1500"] {
        bed.ini.ip(words);
    }
    std::thread::sleep(SECOND);
    assert!(!bound(), "{}", mount.read("ctl"));
    assert_eq!(errno(mount.ctl("bind nothing")), libc::ENODEV);
    mount.ctl("bind v0").unwrap();
    mount.wait_for("1.0", SLACK);
    read(&mount);
    drop(target);
    mount.stop();
}

/// `bind` in the configuration file, of an interface that comes after the start, goes, and comes again.
fn return_n10_interface_that_the_file_binds_comes_later() {
    let mut bed = Bed::with_fuse(&[]);
    let file = bed.dir().join("conf");
    std::fs::write(&file, "bind v0\n").unwrap();
    let ini = bed.ini.clone();
    let mount = bed.mount_in(&ini, &["-i", "none", "-c", file.to_str().unwrap()]);
    assert!(!mount.read("ctl").contains("if0 "));
    assert_eq!(errno(mount.ctl("bind v0")), libc::ENODEV, "by hand it must be there");
    mount.daemon.signal(nix::sys::signal::Signal::SIGHUP);
    until("the file is read again", SLACK, || mount.read("log").contains("configuration read again"));
    for round in 0..2 {
        bed.ini.veth("v0", &bed.tgt.clone(), "v1", 1500);
        let target = target(&bed);
        mount.wait_for("1.0", SLACK);
        read(&mount);
        drop(target);
        bed.ini.ip("link del v0");
        until("it is seen to go", SLACK, || mount.read("ctl").contains("if0 flag:\n"));
        print!("[round {round}] ");
    }
    mount.stop();
}

/// A target that is down and comes back without a word: the next open has it.
fn return_n11_open_of_a_target_that_is_back() {
    let mut bed = Bed::cable(&[], 9000);
    let target = target(&bed);
    let mount = bed.mount(&["--wait", "1.0"]);
    let unit = mount.wait_for("1.0", SLACK);
    target.die();
    unit.ctl("failio").unwrap();
    for file in ["data", "config", "ident", "raw"] {
        let start = Instant::now();
        assert_eq!(errno(File::open(unit.file(file))), libc::ENXIO, "{file}");
        let took = start.elapsed();
        assert!(took < SLACK, "{file}: {took:?}");
    }
    // `stat` and `ls` wait for nobody, also while an open does.
    std::thread::scope(|scope| {
        let path = unit.data();
        let open = scope.spawn(move || errno(File::open(&path)));
        let start = Instant::now();
        let mut rounds = 0;
        while !open.is_finished() {
            std::fs::metadata(unit.data()).unwrap();
            std::fs::read_dir(unit.path()).unwrap().count();
            rounds += 1;
        }
        assert_eq!(open.join().unwrap(), libc::ENXIO);
        assert!(rounds > 5, "{rounds} rounds in {:?}", start.elapsed());
    });
    std::thread::sleep(9 * SECOND);
    target.revive(false);
    let start = Instant::now();
    while let Err(error) = File::open(unit.data()) {
        assert!(start.elapsed() < SLACK, "{error}");
    }
    print!("[open {:.0?} after the return] ", start.elapsed());
    drop(target);
    mount.stop();
}

/// An interface that is down, or whose frames go to a bridge, is said where people look: at the start, in ctl and in
/// the log.
fn interfaces_that_cannot_work_are_said() {
    let mut bed = Bed::cable(&[], 1500);
    bed.ini.ip("link set v0 down");
    let down = bed.mount(&[]);
    until("it is ready", SLACK, || {
        down.daemon.said().contains(": bound v0 (down; raise it with: ip link set v0 up)")
    });
    assert!(
        down.read("log").contains("v0 is down; if it should not be: ip link set v0 up"),
        "{}",
        down.read("log")
    );
    assert!(down.read("ctl").contains("if0 flag:\n"), "{}", down.read("ctl"));
    down.stop();
    bed.ini.ip("link set v0 up");
    if !bed.ini.run(SLACK, &["ip", "link", "add", "br0", "type", "bridge"]).ok() {
        crate::bed::skip("this kernel has no bridges");
    }
    bed.ini.ip("link set v0 master br0");
    let port = bed.mount(&[]);
    until("it is ready", SLACK, || port.daemon.said().contains("bound v0 (a port: bind its bridge or bond)"));
    assert!(port.read("log").contains("v0 is a port of a bridge or a bond"), "{}", port.read("log"));
    assert!(port.read("ctl").contains("if0 flag: up port\n"), "{}", port.read("ctl"));
    bed.ini.ip("link set v0 nomaster");
    until("it is one no more", SLACK, || port.read("ctl").contains("if0 flag: up\n"));
    bed.ini.ip("link set v0 master br0");
    until("it is one again", SLACK, || port.read("ctl").contains("if0 flag: up port\n"));
    port.ctl("unbind v0").unwrap();
    port.ctl("bind v0").unwrap();
    assert!(port.read("ctl").contains("flag: up port\n"), "{}", port.read("ctl"));
    port.stop();
}
