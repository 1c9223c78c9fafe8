//! The declared use: a loop device on `data` or on a partition, a file system on that, a tree of files, and a clean
//! fsck.

use crate::bed::mount::{Mount, Unit};
use crate::bed::{Bed, MIB, Rng, proc, sweep, until};
use std::path::{Path, PathBuf};
use std::time::Duration;

crate::tests![
    integrity_ext4_on_a_loop_device(180),
    integrity_ext4_on_a_loop_device_with_direct_io(180),
    integrity_xfs_on_a_loop_device(180),
    integrity_xfs_on_a_loop_device_with_direct_io(180),
    integrity_ext4_on_a_partition(180),
    integrity_xfs_on_a_partition_with_direct_io(180),
    identity_vblade_disk_that_grew_under_a_file_system(120),
    identity_aoefs_target_disk_that_grew_under_a_file_system(120),
];

/// mkfs.xfs refuses less than 300 MiB.
const DISK: usize = 384 * MIB;
/// The partition: not at a round place, and with neighbours.
const START: u64 = 2048 + 3 * 8;
const END: u64 = START + (320 * MIB / 512) as u64;
const STEP: Duration = Duration::from_secs(60);

/// A tree: directories, small and large files, holes, links.
fn tree(root: &Path) {
    let mut rng = Rng::new(99);
    for dir in 0..20 {
        let dir = root.join(format!("d{}/e{dir}", dir % 5));
        std::fs::create_dir_all(&dir).unwrap();
        for file in 0..20 {
            let len = if file == 0 { 900_000 } else { 1 + rng.below(20_000) as usize };
            let mut bytes = vec![0; len];
            rng.fill(&mut bytes);
            std::fs::write(dir.join(format!("f{file}")), bytes).unwrap();
        }
        std::os::unix::fs::symlink("f0", dir.join("link")).unwrap();
        std::fs::hard_link(dir.join("f1"), dir.join("hard")).unwrap();
    }
    std::fs::File::create(root.join("hole")).unwrap().set_len(8 << 20).unwrap();
}

/// Attaches a loop device; the bed detaches it if the test does not.
pub fn attach(file: &Path, direct: bool) -> PathBuf {
    let mode = if direct { "on" } else { "off" };
    let dev = proc::sh(STEP, &format!("losetup --find --show --direct-io={mode} {}", file.display()));
    let dev = dev.trim().to_string();
    sweep::register(sweep::Mess::Loop(dev.clone()));
    let got = proc::sh(STEP, &format!("losetup -n -l -O DIO {dev}"));
    assert_eq!(got.trim(), if direct { "1" } else { "0" }, "direct I/O of {dev}");
    PathBuf::from(dev)
}

pub fn detach(dev: &Path) {
    proc::sh(STEP, &format!("losetup -d {}", dev.display()));
    sweep::forget(dev);
}

/// Mounts a device; the bed unmounts it if the test does not.
pub fn mount(dev: &Path, at: &Path) {
    std::fs::create_dir_all(at).unwrap();
    sweep::register(sweep::Mess::Mount(at.to_path_buf()));
    proc::sh(STEP, &format!("mount {} {}", dev.display(), at.display()));
}

/// A loop device with a new file system of this kind, mounted.
pub fn fresh(kind: &str, file: &Path, direct: bool, at: &Path) -> PathBuf {
    let dev = attach(file, direct);
    proc::sh(STEP, &format!("mkfs.{kind} -q {}", dev.display()));
    mount(&dev, at);
    dev
}

pub fn unmount(at: &Path) {
    proc::sh(STEP, &format!("umount {}", at.display()));
    sweep::forget(at);
}

/// The check for each file system: reports, changes nothing, fails on any finding.
pub fn fsck(kind: &str, dev: &Path) {
    let dev = dev.display();
    proc::sh(STEP, &if kind == "xfs" { format!("xfs_repair -n {dev}") } else { format!("e2fsck -fn {dev}") });
}

fn served(bed: &mut Bed) -> (Mount, Unit) {
    let disk = bed.image_of("disk", 0, 0);
    std::fs::File::options().write(true).open(&disk).unwrap().set_len(DISK as u64).unwrap();
    bed.vblade("1.0", "v1", &disk);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", Duration::from_secs(3));
    (mount, unit)
}

fn whole_life(kind: &str, file: &str, direct: bool) {
    let mkfs = format!("mkfs.{kind}");
    let mut bed = Bed::cable(&["vblade", "losetup", "mount", &mkfs], 9000);
    let (mounted, unit) = served(&mut bed);
    if file != "data" {
        unit.ctl_ok(&format!("part {file} {START} {END}"));
    }
    let (files, at) = (bed.dir().join("tree"), bed.dir().join("fs"));
    tree(&files);
    let dev = fresh(kind, &unit.file(file), direct, &at);
    proc::sh(
        STEP,
        &format!("cp -a {0} {1}/tree && sync && diff -r {0} {1}/tree", files.display(), at.display()),
    );
    unmount(&at);
    fsck(kind, &dev);
    detach(&dev);
    // Once more from the wire: another loop device, nothing in any cache.
    proc::sh(STEP, "echo 3 >/proc/sys/vm/drop_caches");
    let dev = attach(&unit.file(file), !direct);
    mount(&dev, &at);
    proc::sh(STEP, &format!("diff -r {} {}/tree && rm -r {1}/tree", files.display(), at.display()));
    unmount(&at);
    fsck(kind, &dev);
    detach(&dev);
    mounted.stop();
}

fn integrity_ext4_on_a_loop_device() {
    whole_life("ext4", "data", false);
}

fn integrity_ext4_on_a_loop_device_with_direct_io() {
    whole_life("ext4", "data", true);
}

fn integrity_xfs_on_a_loop_device() {
    whole_life("xfs", "data", false);
}

fn integrity_xfs_on_a_loop_device_with_direct_io() {
    whole_life("xfs", "data", true);
}

fn integrity_ext4_on_a_partition() {
    whole_life("ext4", "root", false);
}

fn integrity_xfs_on_a_partition_with_direct_io() {
    whole_life("xfs", "root", true);
}

/// The commands of the manual for a disk that has grown, with the loop device in their place: what its list says
/// between "has grown" and the file system's own tool.
fn recipe(dev: &Path) -> (String, String) {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/aoefs.8")).unwrap();
    let text = page.split_once("When a disk has grown:\n").expect("the recipe").1;
    let text = text.split_once(".It\n").unwrap().0;
    let word = text.lines().find_map(|line| line.strip_prefix(".Ic ")).expect("a word for the ctl");
    let quoted = text.lines().find_map(|line| line.strip_prefix(".Ql ")).expect("a command");
    let command = quoted.trim_end_matches(" ,").replace("/dev/loopN", &dev.display().to_string());
    (word.to_string(), command)
}

/// The target comes back with a larger file while ext4 is mounted over a loop device: what is written waits, the
/// recipe of the manual takes the new size over, and the file system goes on and grows.
fn grown(serve: impl Fn(&mut Bed, &Path) -> std::sync::Arc<proc::Daemon>) {
    const BEFORE: u64 = 48 << 20;
    const AFTER: u64 = 96 << 20;
    let mut bed = Bed::cable(&["vblade", "losetup", "mount", "mkfs.ext4", "resize2fs", "blockdev"], 9000);
    let disk = bed.image_of("disk", 0, 0);
    let size = |bytes| std::fs::File::options().write(true).open(&disk).unwrap().set_len(bytes).unwrap();
    size(BEFORE);
    let target = serve(&mut bed, &disk);
    let mounted = bed.mount(&[]);
    let unit = mounted.wait_for("1.0", Duration::from_secs(3));
    let at = bed.dir().join("fs");
    let dev = fresh("ext4", &unit.data(), true, &at);
    let write = |name: &str| {
        proc::sh(STEP, &format!("dd if=/dev/zero of={}/{name} bs=64k count=32 conv=fsync 2>&1", at.display()))
    };
    write("before");
    target.kill9();
    size(AFTER);
    let _target = serve(&mut bed, &disk);
    until("the log says what to do", Duration::from_secs(20), || {
        mounted.read("log").contains("waits for `identify`")
    });
    assert_eq!(unit.size("data"), BEFORE);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| write("meanwhile"));
        std::thread::sleep(Duration::from_secs(2));
        assert!(!waits.is_finished(), "nothing is written before the operator's word");
        let (word, command) = recipe(&dev);
        unit.ctl_ok(&word);
        until("the size is taken over", Duration::from_secs(10), || unit.size("data") == AFTER);
        waits.join().unwrap();
        proc::sh(STEP, &command);
    });
    let bytes = proc::sh(STEP, &format!("blockdev --getsize64 {}", dev.display()));
    assert_eq!(bytes.trim(), AFTER.to_string());
    write("after");
    unmount(&at);
    // Growing it while it is mounted takes CAP_SYS_RESOURCE, which a test may not have.
    proc::sh(STEP, &format!("e2fsck -fp {0} && resize2fs {0} 2>&1", dev.display()));
    mount(&dev, &at);
    // More than there was room for.
    proc::sh(STEP, &format!("dd if=/dev/zero of={}/large bs=1M count=60 conv=fsync 2>&1", at.display()));
    unmount(&at);
    fsck("ext4", &dev);
    detach(&dev);
    mounted.stop();
}

fn identity_vblade_disk_that_grew_under_a_file_system() {
    grown(|bed, disk| bed.vblade("1.0", "v1", disk));
}

fn identity_aoefs_target_disk_that_grew_under_a_file_system() {
    grown(|bed, disk| bed.aoefs_target("1.0", "v1", disk));
}
