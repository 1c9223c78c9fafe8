//! A machine of libvirt, from the example of contrib: QEMU runs as a user of its own, who gets at the socket by a
//! group.

use super::{SECOND, SOON};
use crate::bed::{Bed, until};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

crate::tests![return_v26_a_machine_of_libvirt_starts_from_a_target(300, night)];

const EXAMPLE: &str = include_str!("../../../contrib/examples/libvirt.xml");

/// The group of the user that QEMU runs as.
const GROUP: u32 = 64343;

/// Writes `AOE` to the serial port, and stops.
const BOOT: &[u8] = b"\xfa\xba\xf8\x03\xb0A\xee\xb0O\xee\xb0E\xee\xf4\xeb\xfd";

/// The parts of the example that are another machine's, and what stands there in this one: no KVM, and a serial port.
fn machine(socket: &str, serial: &str) -> String {
    let port = format!("<serial type='file'><source path='{serial}'/></serial>");
    let parts = [
        ("type='kvm'", "type='qemu'"),
        ("'GiB'>1<", "'MiB'>256<"),
        ("/run/aoefs-1.0.sock", socket),
        ("<console type='pty'/>", &port),
    ];
    parts.iter().fold(EXAMPLE.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the example has no {from}");
        text.replace(from, to)
    })
}

fn return_v26_a_machine_of_libvirt_starts_from_a_target() {
    let mut bed = Bed::with_fuse(&["virt-qemu-run", "qemu-system-x86_64"]);
    std::fs::set_permissions(bed.dir(), Permissions::from_mode(0o711)).unwrap();
    let name = |name: &str| bed.dir().join(name).to_str().unwrap().to_owned();
    let (image, socket, serial, root, xml) =
        (name("disk"), name("disk.sock"), name("serial"), name("libvirt"), name("machine.xml"));
    let mut sector = BOOT.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    std::fs::write(&image, sector).unwrap();
    std::fs::write(&xml, machine(&socket, &serial)).unwrap();
    std::fs::create_dir_all(format!("{root}/etc")).unwrap();
    // Without a logging daemon of libvirt.
    let own = "stdio_handler = \"file\"\nsecurity_driver = \"none\"\n";
    std::fs::write(format!("{root}/etc/qemu.conf"), own).unwrap();
    // The user as Debian's package makes it, for this machine alone; what comes first counts.
    let users = [
        ("passwd", format!("libvirt-qemu:x:64555:{GROUP}::/nonexistent:/usr/sbin/nologin\n")),
        ("group", format!("libvirt-qemu:x:64555:\nmachines:x:{GROUP}:\n")),
    ];
    let mut script = String::from("set -e; umount -l \"$0\"; ");
    for (file, line) in users {
        let all = std::fs::read_to_string(format!("/etc/{file}")).unwrap();
        std::fs::write(name(file), line + &all).unwrap();
        script += &format!("mount --bind {} /etc/{file}; ", name(file));
    }
    script += &format!("exec virt-qemu-run --root {root} {xml}");

    let ns = bed.ini.clone();
    let demo = format!("--demo-image={image}");
    let mount = bed.mount_in(&ns, &[&demo, "-o", &format!("gid={GROUP}")]);
    let unit = mount.wait_for("1.0", SOON);
    unit.ctl_ok(&format!("vhost {socket}"));
    let libvirt = bed.spawn(&ns, &["unshare", "-m", "sh", "-c", &script, mount.path().to_str().unwrap()]);
    until("the boot sector has run", 200 * SECOND, || {
        assert!(libvirt.alive(), "{}", libvirt.said());
        std::fs::read_to_string(&serial).is_ok_and(|text| text == "AOE")
    });
    assert!(unit.read("ctl").contains(&format!("vhost {socket} data 1")), "{}", unit.read("ctl"));
    libvirt.signal(nix::sys::signal::Signal::SIGTERM);
    libvirt.ended(20 * SECOND);
    until("it has let go", SOON, || unit.read("ctl").contains(&format!("vhost {socket} data 0")));
    mount.stop();
}
