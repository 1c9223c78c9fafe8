//! A virtual machine with Linux in it, on a disk of `vhost`.

pub mod aoe;
pub mod libvirt;
mod machine;
pub mod night;

use crate::bed::mount::{Mount, Unit};
use crate::bed::proc::{self, Daemon};
use crate::bed::{Bed, MIB, until};
use machine::{DISK, Guest, Plan};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

crate::tests![
    sync_v10_a_guest_survives_a_restart_of_its_target(300),
    sync_v20_a_guest_survives_the_end_of_the_daemon(300)
];

const SECOND: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(10);

/// Prints that a disk came, with what its driver has learned of it.
const LOOK: &str = r#"
until [ -b /dev/vda ]; do sleep 0.1; done
q=/sys/block/vda/queue
echo "GUEST disk $(cat /sys/block/vda/size) $(cat $q/write_cache), serial $(cat /sys/block/vda/serial), queues $(ls /sys/block/vda/mq | wc -l)"
echo "GUEST discards $(cat $q/discard_max_bytes), zeros $(cat $q/write_zeroes_max_bytes)"
"#;

/// Copies while the target is restarted, and then a disk that grows. The other disk is a file of the mount.
const COPIES: &str = r#"
mkfs.ext4 -q /dev/vda && mount -t ext4 -o discard /dev/vda /mnt && echo GUEST mounted
dd if=/dev/urandom of=/mnt/first bs=1M count=4 2>/dev/null
for n in $(seq 12); do cp /mnt/first /mnt/$n; sync; [ $n = 4 ] && echo GUEST writes; done
echo 3 >/proc/sys/vm/drop_caches
same=0; for n in $(seq 12); do cmp /mnt/first /mnt/$n && same=$((same + 1)); done
echo "GUEST has $same copies"
for n in $(seq 3 12); do rm /mnt/$n; done
md5sum /mnt/first | sed 's/^/GUEST sum /'
mkfs.ext4 -q /dev/vdb && mkdir /file && mount -t ext4 -o discard /dev/vdb /file
cp /mnt/first /file/1; sync; cp /file/1 /file/2; sync; rm /file/1
umount /file && mount -t ext4 /dev/vdb /file && cmp /mnt/first /file/2 && umount /file && echo GUEST file
umount /mnt && echo GUEST unmounted
n=0; until [ $(cat /sys/block/vda/size) -gt 300000 ] || [ $n = 100 ]; do sleep 0.2; n=$((n + 1)); done
echo "GUEST grew to $(cat /sys/block/vda/size)"
dmesg | grep -iE "i/o error|vda.*error" | sed 's/^/GUEST error /'
poweroff -f
"#;

/// A disk of `vhost` as arguments of QEMU.
fn disk(socket: &Path) -> [String; 4] {
    let chardev = format!("socket,id=disk,path={},reconnect=1", socket.display());
    ["-chardev".into(), chardev, "-device".into(), "vhost-user-blk-pci,chardev=disk,num-queues=2".into()]
}

/// A file as another one. It is opened with O_DIRECT, and the guest's discards are passed on.
fn file(path: &Path) -> [String; 4] {
    let drive =
        format!("if=none,id=file,file={},format=raw,cache=none,aio=native,discard=unmap", path.display());
    ["-drive".into(), drive, "-device".into(), "virtio-blk-pci,drive=file".into()]
}

/// A machine on a disk of `vhost` that runs this.
#[track_caller]
fn boot(bed: &mut Bed, socket: &Path, more: &[String], script: &str) -> Guest {
    let devices = disk(socket);
    let devices: Vec<&str> = devices.iter().chain(more).map(String::as_str).collect();
    let script = format!("{LOOK}{script}");
    let plan =
        Plan { script: &script, modules: &DISK, programs: &["mkfs.ext4"], memory: 192, devices: &devices };
    Guest::start(bed, &plan)
}

/// Whether the file system on an image is whole, as e2fsck sees it.
#[track_caller]
fn check(image: &Path) {
    let checked = proc::run(SOON, &["e2fsck", "-fn", image.to_str().unwrap()]);
    assert!(checked.ok(), "{}{}", checked.stdout, checked.stderr);
}

fn sync_v10_a_guest_survives_a_restart_of_its_target() {
    let mut bed = Bed::cable(&["e2fsck", "debugfs"], 9000);
    let image = bed.image_of("disk", 160 << 20, 0);
    let target = bed.aoefs_target("1.0", "v1", &image);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", SOON);
    let socket = bed.dir().join("disk.sock");
    // It is to grow later.
    unit.ctl_ok("setsize 134217728");
    unit.ctl_ok(&format!("vhost {}", socket.display()));
    let other = bed.image_of("other", 64 * MIB, 0);
    let _other = bed.aoefs_target("2.0", "v1", &other);
    let file = file(&mount.wait_for("2.0", SOON).data());
    let guest = boot(&mut bed, &socket, &file, COPIES);
    guest.until("writes");
    target.kill9();
    std::thread::sleep(2 * SECOND);
    let _target = bed.aoefs_target("1.0", "v1", &image);
    guest.until("unmounted");
    unit.ctl_ok("setsize");
    guest.ended();
    let console = guest.console();
    let serial = unit.line("serial");
    assert_eq!(
        guest.told("disk"),
        format!("{} write back, serial {serial}, queues 2", (128 << 20) / 512),
        "{console}"
    );
    assert_eq!(guest.told("grew"), format!("to {}", (160 << 20) / 512), "{console}");
    assert_eq!((&*guest.told("has"), &*guest.told("error")), ("12 copies", ""), "{console}");
    unit.ctl_ok(&format!("unvhost {}", socket.display()));
    mount.stop();
    assert!(guest.said().contains(&"file".to_owned()), "{console}");
    // What the guest has on its disks, seen from outside.
    check(&image);
    check(&other);
    let copy = bed.images().join("copy");
    let dump = format!("dump /first {}", copy.display());
    proc::ok(SOON, &["debugfs", "-R", &dump, image.to_str().unwrap()]);
    let sum = proc::ok(SOON, &["md5sum", copy.to_str().unwrap()]);
    assert_eq!(sum.split(' ').next(), guest.told("sum").split(' ').next(), "the first file");
    print!("[{}; discards {}] ", guest.told("disk"), guest.told("discards"));
}

/// Writers, each with versions of its eight files, until the disk has grown. A version is acknowledged when fsync has
/// returned; then its number is written down in memory.
const VERSIONS: &str = r#"
mkfs.ext4 -q /dev/vda && mount -t ext4 /dev/vda /mnt && echo GUEST mounted
write() {
	n=0
	until [ -e /tmp/stop ]; do
		n=$((n + 1))
		yes "writer $1, version $n" | head -c 16384 >/tmp/$1
		dd if=/tmp/$1 of=/mnt/$1.$((n % 8)) bs=16k conv=notrunc,fsync 2>/dev/null || echo "GUEST error of a writer"
		echo $n >/tmp/acked.$1.$((n % 8))
		echo $n >/tmp/at.$1
	done
}
for w in 1 2 3 4; do echo 0 >/tmp/at.$w; write $w & done
until [ $(cat /sys/block/vda/size) -gt 100000 ]; do sleep 0.5; echo "GUEST at $(cat /tmp/at.* | tr '\n' ' ')"; done
echo "GUEST grew to $(cat /sys/block/vda/size)"
touch /tmp/stop
wait
umount /mnt && mount -t ext4 /dev/vda /mnt
good=0; bad=0
for w in 1 2 3 4; do for f in 0 1 2 3 4 5 6 7; do
	yes "writer $w, version $(cat /tmp/acked.$w.$f)" | head -c 16384 | cmp - /mnt/$w.$f && good=$((good + 1)) || bad=$((bad + 1))
done; done
echo "GUEST has $good good, $bad bad"
umount /mnt && echo GUEST unmounted
dmesg | grep -iE "i/o error|vda.*error|ext4-fs error" | sed 's/^/GUEST error /'
poweroff -f
"#;

/// A daemon whose configuration file has the socket, and the target behind it.
struct Restarted {
    bed: Bed,
    image: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    target: Arc<Daemon>,
    mount: Mount,
}

impl Restarted {
    /// With a disk of so many bytes, and a line before that of the socket.
    fn new(size: usize, line: &str) -> Self {
        let mut bed = Bed::cable(&["e2fsck"], 9000);
        let image = bed.image_of("disk", size, 0);
        let [config, socket] = ["aoefs.conf", "disk.sock"].map(|name| bed.dir().join(name));
        std::fs::write(&config, format!("{line}\n1.0 vhost {}\n", socket.display())).unwrap();
        let target = bed.aoefs_target("1.0", "v1", &image);
        let mount = bed.mount(&["--config", config.to_str().unwrap()]);
        mount.wait_for("1.0", SOON);
        Self { bed, image, config, socket, target, mount }
    }

    fn unit(&self) -> Unit {
        self.mount.unit("1.0")
    }

    fn kill_daemon(&self) {
        self.mount.daemon.kill9();
        until("the mount is gone", SOON, || !self.mount.mounted());
    }

    fn start_daemon(&mut self) {
        let (ns, path) = (self.bed.ini.clone(), self.mount.path().to_owned());
        let options = ["-i", "v0", "--config", self.config.to_str().unwrap()];
        self.mount = self.bed.mount_at(&ns, &path, &options);
    }

    fn start_target(&mut self) {
        self.target = self.bed.aoefs_target("1.0", "v1", &self.image);
    }
}

/// Waits until each writer of the machine has had five more versions acknowledged.
#[track_caller]
fn goes_on(guest: &Guest) {
    let now = || -> Vec<u64> {
        let lines = guest.said();
        let last = lines.iter().rev().find_map(|line| line.strip_prefix("at ")).unwrap_or_default();
        last.split(' ').filter_map(|word| word.parse().ok()).collect()
    };
    let before = now();
    until("each writer goes on", 120 * SECOND, || {
        let now = now();
        now.len() == 4 && (0..4).all(|n| now[n] >= before.get(n).unwrap_or(&0) + 5)
    });
}

fn sync_v20_a_guest_survives_the_end_of_the_daemon() {
    // It is to grow later.
    let mut stage = Restarted::new(64 * MIB, "1.0 setsize 33554432");
    let guest = boot(&mut stage.bed, &stage.socket.clone(), &[], VERSIONS);
    guest.until("at");
    goes_on(&guest);
    // The connection is cut, and the socket is another one.
    stage.unit().ctl_ok(&format!("unvhost {}", stage.socket.display()));
    std::thread::sleep(SECOND / 2);
    stage.unit().ctl_ok(&format!("vhost {}", stage.socket.display()));
    goes_on(&guest);
    // The daemon dies while the disk works.
    stage.kill_daemon();
    stage.start_daemon();
    goes_on(&guest);
    // It dies with requests under way that nobody answers.
    stage.target.kill9();
    let waits = |line: &str| line.strip_prefix("queue: ").is_some_and(|count| count != "0");
    until("requests wait", 60 * SECOND, || stage.unit().read("stats").lines().any(waits));
    stage.kill_daemon();
    stage.start_target();
    stage.start_daemon();
    goes_on(&guest);
    // The disk grows while nobody serves it.
    stage.kill_daemon();
    std::fs::write(&stage.config, format!("1.0 vhost {}\n", stage.socket.display())).unwrap();
    stage.start_daemon();
    guest.until("grew");
    guest.ended();
    let console = guest.console();
    assert_eq!((&*guest.told("has"), &*guest.told("error")), ("32 good, 0 bad", ""), "{console}");
    stage.mount.stop();
    check(&stage.image);
    let last = guest.said().into_iter().rfind(|line| line.starts_with("at "));
    print!("[{}] ", last.unwrap_or_default());
}
