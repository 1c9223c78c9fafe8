//! A virtual machine with Linux in it on a disk of `vhost`: QEMU, the kernel of Debian's package, and a system of
//! busybox and what makes file systems, put together here.

use crate::bed::proc::{self, Daemon};
use crate::bed::{Bed, skip, until};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

crate::tests![sync_v10_a_guest_survives_a_restart_of_its_target(180)];

/// An emulated machine does in a minute what others do in seconds.
const GUEST: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(10);

/// What a disk and a file system on it take, in the order of what needs what. Some kernels have some of it built in.
const MODULES: [&str; 11] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
    "drivers/block/virtio_blk",
    "crypto/crc32c_generic",
    "lib/crc16",
    "fs/mbcache",
    "fs/jbd2/jbd2",
    "fs/ext4/ext4",
];

/// The first process of the guest. What it says of itself begins with GUEST.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in $(cat /modules/list); do insmod /modules/$m || echo "GUEST lacks $m"; done
until [ -b /dev/vda ]; do sleep 0.1; done
q=/sys/block/vda/queue
echo "GUEST disk $(cat /sys/block/vda/size) $(cat $q/write_cache), serial $(cat /sys/block/vda/serial), queues $(ls /sys/block/vda/mq | wc -l)"
echo "GUEST discards $(cat $q/discard_max_bytes), zeros $(cat $q/write_zeroes_max_bytes)"
mkfs.ext4 -q /dev/vda && mount -t ext4 -o discard /dev/vda /mnt && echo GUEST mounted
dd if=/dev/urandom of=/mnt/first bs=1M count=4 2>/dev/null
for n in $(seq 24); do cp /mnt/first /mnt/$n; sync; [ $n = 4 ] && echo GUEST writes; done
echo 3 >/proc/sys/vm/drop_caches
same=0; for n in $(seq 24); do cmp /mnt/first /mnt/$n && same=$((same + 1)); done
echo "GUEST has $same copies"
for n in $(seq 3 24); do rm /mnt/$n; done
md5sum /mnt/first | sed 's/^/GUEST sum /'
umount /mnt && echo GUEST unmounted
n=0; until [ $(cat /sys/block/vda/size) -gt 300000 ] || [ $n = 100 ]; do sleep 0.2; n=$((n + 1)); done
echo "GUEST grew to $(cat /sys/block/vda/size)"
dmesg | grep -iE "i/o error|vda.*error" | sed 's/^/GUEST error /'
poweroff -f
"#;

/// Where a kernel is that this machine may read: what `tests/run` has fetched, or the machine's own.
fn kernel() -> Option<(PathBuf, PathBuf)> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    for root in [fetched, PathBuf::from("/")] {
        for entry in std::fs::read_dir(root.join("boot")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(version) = name.strip_prefix("vmlinuz-") else { continue };
            let modules =
                ["lib/modules", "usr/lib/modules"].map(|dir| root.join(dir).join(version).join("kernel"));
            let modules = modules.into_iter().find(|dir| dir.join("drivers/block").is_dir());
            if let Some(modules) = modules.filter(|_| std::fs::File::open(entry.path()).is_ok()) {
                return Some((entry.path(), modules));
            }
        }
    }
    None
}

/// A directory of the guest's first file system, and the archive that it becomes.
struct Initrd {
    archive: Vec<u8>,
}

impl Initrd {
    /// An entry of the format "newc".
    fn put(&mut self, name: &str, mode: u32, data: &[u8]) {
        let fields = [0, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        write!(self.archive, "070701").unwrap();
        fields.iter().for_each(|field| write!(self.archive, "{field:08X}").unwrap());
        self.archive.extend_from_slice(name.as_bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }

    fn dir(&mut self, name: &str) {
        self.put(name, 0o40755, &[]);
    }

    fn file(&mut self, name: &str, from: &Path) {
        let mode = std::fs::metadata(from).unwrap().permissions().mode() & 0o777;
        self.put(name, 0o100_000 | mode, &std::fs::read(from).unwrap());
    }

    /// A program and the libraries that it is linked with.
    fn program(&mut self, path: &str) {
        self.file(path.trim_start_matches('/').trim_start_matches("usr/"), Path::new(path));
        let libraries = proc::run(SOON, &["ldd", path]).stdout;
        for word in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let mut dir = String::new();
            for part in word.split('/').skip(1).take(word.split('/').count() - 2) {
                dir = if dir.is_empty() { part.to_owned() } else { format!("{dir}/{part}") };
                self.dir(&dir);
            }
            self.file(&word[1..], Path::new(word));
        }
    }

    fn build(modules: &Path) -> Vec<u8> {
        let mut initrd = Self { archive: Vec::new() };
        for dir in ["bin", "sbin", "dev", "proc", "sys", "mnt", "modules"] {
            initrd.dir(dir);
        }
        let which =
            |program: &str| proc::ok(SOON, &["sh", "-c", &format!("command -v {program}")]).trim().to_owned();
        initrd.file("bin/busybox", Path::new(&which("busybox")));
        initrd.program(&which("mkfs.ext4"));
        let mut list = String::new();
        for module in MODULES {
            let name = module.rsplit('/').next().unwrap();
            let path = |end: &str| modules.join(format!("{module}.ko{end}"));
            let bytes = match (path("").exists(), path(".xz").exists()) {
                (true, _) => std::fs::read(path("")).unwrap(),
                (_, true) => {
                    let unpacked =
                        std::process::Command::new("xz").arg("-dc").arg(path(".xz")).output().unwrap();
                    unpacked.stdout
                }
                _ => continue,
            };
            initrd.put(&format!("modules/{name}"), 0o100_644, &bytes);
            list += &format!("{name} ");
        }
        initrd.put("modules/list", 0o100_644, list.as_bytes());
        initrd.put("init", 0o100_755, INIT.as_bytes());
        initrd.put("TRAILER!!!", 0, &[]);
        initrd.archive
    }
}

/// Starts a machine with that disk.
fn boot(bed: &mut Bed, socket: &Path) -> Arc<Daemon> {
    let Some((kernel, modules)) = kernel() else {
        skip("no kernel to boot: tests/run fetches one, or /boot has one that can be read")
    };
    let initrd = bed.images().join("initrd");
    std::fs::write(&initrd, Initrd::build(&modules)).unwrap();
    let chardev = format!("socket,id=disk,path={}", socket.display());
    let ns = bed.ini.clone();
    let [kernel, initrd] = [&kernel, &initrd].map(|path| path.to_str().unwrap());
    let memory = "memory-backend-memfd,id=ram,size=192M,share=on";
    let fixed = ["-accel", "tcg", "-m", "192M", "-smp", "2", "-nographic", "-no-reboot", "-nic", "none"];
    let mut argv = vec!["qemu-system-x86_64", "-machine", "q35,memory-backend=ram", "-object", memory];
    argv.extend(fixed);
    argv.extend(["-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet panic=-1"]);
    argv.extend(["-chardev", &chardev, "-device", "vhost-user-blk-pci,chardev=disk,num-queues=2"]);
    bed.spawn(&ns, &argv)
}

/// What the guest has said so far.
fn said(guest: &Daemon) -> Vec<String> {
    let text = guest.said();
    let lines =
        text.lines().filter_map(|line| line.split_once("GUEST ")).map(|(_, rest)| rest.trim().to_owned());
    lines.collect()
}

fn sync_v10_a_guest_survives_a_restart_of_its_target() {
    if std::env::consts::ARCH != "x86_64" {
        skip("the machine that is emulated is an x86_64");
    }
    let mut bed = Bed::cable(&["qemu-system-x86_64", "busybox", "mkfs.ext4", "e2fsck", "debugfs"], 9000);
    let image = bed.image_of("disk", 160 << 20, 0);
    let target = bed.aoefs_target("1.0", "v1", &image);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", SOON);
    let socket = bed.dir().join("disk.sock");
    // It is to grow later.
    unit.ctl_ok("setsize 134217728");
    unit.ctl_ok(&format!("vhost {}", socket.display()));
    let guest = boot(&mut bed, &socket);
    let says = |line: &str| {
        assert!(guest.alive(), "the machine has ended:\n{}", guest.said());
        said(&guest).iter().any(|said| said.starts_with(line))
    };
    until("the guest writes", GUEST, || says("writes"));
    target.kill9();
    std::thread::sleep(Duration::from_secs(2));
    let _target = bed.aoefs_target("1.0", "v1", &image);
    until("the guest has done with its file system", GUEST, || says("unmounted"));
    unit.ctl_ok("setsize");
    assert_eq!(guest.ended(GUEST), 0, "{}", guest.said());
    let lines = said(&guest);
    let said =
        |start: &str| lines.iter().find_map(|line| line.strip_prefix(start)).unwrap_or_default().trim();
    let tail = guest.said();
    assert!(lines.iter().any(|line| line == "unmounted"), "{tail}");
    let serial = unit.line("serial");
    assert_eq!(said("disk "), format!("{} write back, serial {serial}, queues 2", (128 << 20) / 512));
    assert_eq!(said("grew to "), ((160 << 20) / 512).to_string(), "{tail}");
    assert_eq!((said("has "), said("error ")), ("24 copies", ""), "{tail}");
    unit.ctl_ok(&format!("unvhost {}", socket.display()));
    mount.stop();
    // What the guest has on its disk, seen from outside.
    let disk = image.to_str().unwrap();
    let checked = proc::run(SOON, &["e2fsck", "-fn", disk]);
    assert!(checked.ok(), "{}{}", checked.stdout, checked.stderr);
    let copy = bed.images().join("copy");
    proc::ok(SOON, &["debugfs", "-R", &format!("dump /first {}", copy.display()), disk]);
    let sum = proc::ok(SOON, &["md5sum", copy.to_str().unwrap()]);
    assert_eq!(sum.split(' ').next(), said("sum ").split(' ').next(), "the first file");
    print!("[{}; discards {}] ", said("disk "), said("discards "));
}
