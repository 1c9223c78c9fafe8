//! Under a loop device: its partition or its interface is taken away, or memory gets short. Errors or progress, never
//! a hang.

use super::loops;
use crate::bed::cgroup::Cgroup;
use crate::bed::mount::{Mount, Unit};
use crate::bed::{Bed, MIB, proc, until};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

crate::tests![
    deadline_i3_partition_removed_under_a_loop_device(90),
    deadline_i3_interface_unbound_under_a_loop_device(90, beside),
    alive_i4_memory_pressure_on_a_loop_device(240),
    alive_i4_daemon_within_the_same_limit(240),
];

const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(2);

/// ext4 on a loop device on a partition.
struct Stack {
    bed: Bed,
    mount: Mount,
    unit: Unit,
    dev: PathBuf,
    at: PathBuf,
}

fn stack() -> Stack {
    let mut bed = Bed::cable(&["vblade", "losetup", "mkfs.ext4"], 9000);
    let image = bed.image_of("disk", 64 * MIB, 0);
    bed.vblade("1.0", "v1", &image);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", 3 * SECOND);
    unit.ctl_ok("deadline 2");
    unit.ctl_ok(&format!("part root 2048 {}", 60 * MIB / 512));
    let at = bed.dir().join("fs");
    let dev = loops::fresh("ext4", &unit.file("root"), true, &at);
    std::fs::write(at.join("before"), vec![1; MIB]).unwrap();
    proc::sh(STEP, "sync");
    Stack { bed, mount, unit, dev, at }
}

/// Writes with fsync until one fails; how long that took from now.
fn fails(at: &Path) -> Duration {
    let start = Instant::now();
    let line = format!("of={}", at.join("after").display());
    let copy = proc::run(STEP, &["dd", "if=/dev/zero", &line, "bs=64k", "count=100", "conv=fsync"]);
    assert!(!copy.timed_out, "it hangs");
    assert!(!copy.ok(), "fsync succeeded, but there is nothing to write to");
    start.elapsed()
}

impl Stack {
    /// The file system and the loop device go, and the time from `start` is bounded.
    fn dismantle(&self, start: Instant, error: Duration) {
        loops::unmount(&self.at);
        loops::detach(&self.dev);
        let all = start.elapsed();
        print!("[D = 2 s: error after {error:.1?}, unmounted and detached after {all:.1?}] ");
        assert!(all < 3 * DEADLINE + 8 * SECOND, "{all:?}");
    }
}

fn deadline_i3_partition_removed_under_a_loop_device() {
    let stack = stack();
    let start = Instant::now();
    stack.unit.ctl_ok("delpart -f root");
    assert!(!stack.unit.file("root").exists());
    let error = fails(&stack.at);
    // Nothing has to be waited for: the partition is gone for good.
    assert!(error < 5 * SECOND, "{error:?}");
    stack.dismantle(start, error);
    assert_eq!(stack.unit.state(), "up");
    // The same range under the same name is another partition, with the file system in it.
    stack.unit.ctl_ok(&format!("part root 2048 {}", 60 * MIB / 512));
    let dev = loops::attach(&stack.unit.file("root"), true);
    loops::mount(&dev, &stack.at);
    assert!(std::fs::read(stack.at.join("before")).unwrap() == vec![1; MIB]);
    loops::unmount(&stack.at);
    loops::fsck("ext4", &dev);
    loops::detach(&dev);
    stack.mount.stop();
    drop(stack.bed);
}

fn deadline_i3_interface_unbound_under_a_loop_device() {
    let stack = stack();
    let start = Instant::now();
    stack.mount.ctl("unbind v0").unwrap();
    let error = fails(&stack.at);
    stack.dismantle(start, error);
    stack.mount.ctl("bind v0").unwrap();
    stack.mount.wait_for("1.0", 3 * SECOND);
    let dev = loops::attach(&stack.unit.file("root"), true);
    loops::mount(&dev, &stack.at);
    assert!(std::fs::read(stack.at.join("before")).unwrap() == vec![1; MIB]);
    loops::unmount(&stack.at);
    loops::fsck("ext4", &dev);
    loops::detach(&dev);
    stack.mount.stop();
    drop(stack.bed);
}

/// What all writers together may have in memory, and what each of the four writes.
const LIMIT: usize = 96 * MIB;
const FILE: usize = 100 * MIB;

/// 640 MiB on a target, and a control group for the processes that write to it.
struct Tight {
    bed: Bed,
    mount: Mount,
    group: Cgroup,
    source: PathBuf,
}

fn tight() -> Tight {
    let mut bed = Bed::cable(&["vblade", "losetup", "mkfs.ext4"], 9000);
    let group = Cgroup::with_memory(LIMIT);
    let disk = bed.image_of("disk", 0, 0);
    std::fs::File::options().write(true).open(&disk).unwrap().set_len(640 * MIB as u64).unwrap();
    bed.vblade("1.0", "v1", &disk);
    let source = bed.image("source", FILE);
    let mount = bed.mount(&[]);
    mount.wait_for("1.0", 3 * SECOND);
    Tight { bed, mount, group, source }
}

impl Tight {
    /// Four writers in the group, each with fsync; then all of it is compared, and the file system checked.
    fn fill(&self, direct: bool) {
        let unit = self.mount.unit("1.0");
        let at = self.bed.dir().join("fs");
        let dev = loops::fresh("ext4", &unit.data(), direct, &at);
        let (before, start) = (self.group.waits(), Instant::now());
        let script = format!(
            "echo $$ >{}; for n in 1 2 3 4; do dd if={} of={}/$n bs=1M conv=fsync status=none & all+=\" $!\"; done; \
             for one in $all; do wait $one || exit 1; done",
            self.group.procs().display(),
            self.source.display(),
            at.display()
        );
        proc::sh(90 * SECOND, &script);
        let rate = 4.0 * FILE as f64 / start.elapsed().as_secs_f64() / 1e6;
        let waits = self.group.waits() - before;
        print!(
            "[direct {direct}: 400 MiB within 96 MiB of memory at {rate:.0} MB/s, {waits} waits at the limit] "
        );
        assert!(waits > 0, "memory never got short");
        assert!(rate > 1.0, "{rate} MB/s");
        proc::sh(STEP, "echo 3 >/proc/sys/vm/drop_caches");
        for n in 1..=4 {
            proc::sh(STEP, &format!("cmp {} {}", self.source.display(), at.join(n.to_string()).display()));
        }
        loops::unmount(&at);
        loops::fsck("ext4", &dev);
        loops::detach(&dev);
        until("nothing outstanding", 5 * SECOND, || unit.line("nout") == "0");
    }
}

fn alive_i4_memory_pressure_on_a_loop_device() {
    let tight = tight();
    tight.fill(true);
    // Without direct I/O each block is in the cache twice: under ext4 and under the loop device.
    tight.fill(false);
    tight.mount.stop();
}

fn alive_i4_daemon_within_the_same_limit() {
    let tight = tight();
    // The daemon needs memory, and what would free some is what it has to write: only the mark of an I/O flusher helps.
    if tight.mount.daemon.said().contains("not marked as an I/O flusher") {
        crate::bed::skip(
            "the kernel does not let aoefs be an I/O flusher (CAP_SYS_RESOURCE), as it has warned",
        );
    }
    std::fs::write(tight.group.procs(), tight.mount.daemon.pid().to_string()).unwrap();
    tight.fill(true);
    tight.mount.stop();
}
