//! AoE between a virtual machine and the machine that it runs on, over virtio-net and a tap device, both ways: vblade
//! in it as a target, and the driver of its Linux as a client.

use super::machine::{self, Guest, Plan};
use super::{SECOND, SOON, check};
use crate::bed::fio::Fio;
use crate::bed::{Bed, MIB};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

crate::tests![
    integrity_v22_vblade_in_a_guest_is_a_target(240, night),
    integrity_v23_the_driver_of_linux_is_a_client(240, night)
];

const MTU: u32 = 9000;

/// What a network card takes.
const CARD: [&str; 3] = ["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"];

/// The driver of Linux.
const DRIVER: &str = "drivers/block/aoe/aoe";

/// Bytes that tell the machine that it can stop. They stand at the very end of its target.
const STOP: &[u8] = b"STOP";

/// A target on its first card. When it is told so it says what is on it.
const TARGET: &str = r#"
ip link set eth0 up
echo "GUEST mtu $(cat /sys/class/net/eth0/mtu)"
dd if=/dev/zero of=/disk bs=1M count=32 2>/dev/null
vblade 1 0 eth0 /disk &
until [ "$(tail -c 4 /disk)" = STOP ]; do sleep 0.2; done
md5sum /disk | sed 's/^/GUEST sum /'
poweroff -f
"#;

/// A client, with a file system on what it finds.
const CLIENT: &str = r#"
ip link set eth0 up
echo "GUEST mtu $(cat /sys/class/net/eth0/mtu)"
d=/dev/etherd/e2.0
until [ -b $d ]; do echo >/dev/etherd/discover; sleep 0.5; done
echo "GUEST disk $(cat /sys/block/etherd\!e2.0/size), $(cat /sys/block/etherd\!e2.0/payload) bytes a frame"
mkfs.ext4 -q $d && mount -t ext4 $d /mnt && echo GUEST mounted
dd if=/dev/urandom of=/mnt/first bs=1M count=2 2>/dev/null
for n in $(seq 16); do cp /mnt/first /mnt/$n; sync; [ $n = 4 ] && echo GUEST writes; done
umount /mnt && mount -t ext4 $d /mnt
same=0; for n in $(seq 16); do cmp /mnt/first /mnt/$n && same=$((same + 1)); done
echo "GUEST has $same copies"
umount /mnt && echo GUEST unmounted
dmesg | grep -iE "i/o error|aoe.*(error|fail)|ext4-fs error" | sed 's/^/GUEST error /'
poweroff -f
"#;

/// A machine whose card is the tap device `t0` beside this test's programs.
fn boot(bed: &mut Bed, script: &str, program: &str) -> Guest {
    if !Path::new("/dev/net/tun").exists() {
        crate::bed::skip("there is no /dev/net/tun");
    }
    bed.ini.ip("tuntap add t0 mode tap");
    bed.ini.ip(&format!("link set t0 mtu {MTU} up"));
    let card = format!("virtio-net-pci,netdev=net,host_mtu={MTU},romfile=");
    let modules: Vec<&str> = CARD.iter().chain(&machine::DISK).chain(&[DRIVER]).copied().collect();
    let net = "tap,id=net,ifname=t0,script=no,downscript=no";
    let devices = ["-netdev", net, "-device", &card];
    let plan = Plan { script, modules: &modules, programs: &[program], memory: 192, devices: &devices };
    Guest::start(bed, &plan)
}

fn integrity_v22_vblade_in_a_guest_is_a_target() {
    let mut bed = Bed::with_fuse(&["fio"]);
    let guest = boot(&mut bed, TARGET, "vblade");
    guest.until("mtu");
    let ns = bed.ini.clone();
    let mount = bed.mount_in(&ns, &["-i", "t0"]);
    let unit = mount.wait_for("1.0", 30 * SECOND);
    assert_eq!(unit.size("data"), 32 * MIB as u64);
    let moved = Fio::verify(&unit.data(), 2, 4).run();
    // It switches itself off when it has read that, so the copy is made before.
    let end = 32 * MIB as u64 - STOP.len() as u64;
    let copy = bed.images().join("copy");
    std::fs::copy(unit.data(), &copy).unwrap();
    File::options().write(true).open(&copy).unwrap().write_all_at(STOP, end).unwrap();
    unit.open("data").write_all_at(STOP, end).unwrap();
    let sum = crate::bed::proc::ok(SOON, &["md5sum", copy.to_str().unwrap()]);
    guest.ended();
    assert_eq!(guest.told("mtu"), MTU.to_string());
    assert_eq!(guest.told("sum").split(' ').next(), sum.split(' ').next(), "{}", guest.console());
    print!("[{:.0} MiB written and verified] ", moved.written_mib);
    mount.stop();
}

fn integrity_v23_the_driver_of_linux_is_a_client() {
    let mut bed = Bed::new(&["e2fsck"]);
    if !machine::has_module(DRIVER) {
        crate::bed::skip("the kernel of the machine has no driver for AoE");
    }
    let image = bed.image_of("disk", 64 * MIB, 0);
    let guest = boot(&mut bed, CLIENT, "mkfs.ext4");
    let ns = bed.ini.clone();
    let serve =
        |bed: &mut Bed| bed.spawn(&ns, &[crate::target::PROGRAM, "2.0", "t0", image.to_str().unwrap()]);
    let target = serve(&mut bed);
    guest.until("writes");
    target.kill9();
    std::thread::sleep(SECOND);
    let _target = serve(&mut bed);
    guest.until("unmounted");
    guest.ended();
    let console = guest.console();
    assert_eq!((&*guest.told("has"), &*guest.told("error")), ("16 copies", ""), "{console}");
    check(&image);
    print!("[{}] ", guest.told("disk"));
}
