//! What a machine does for long: fio in it, with everything behind its disk dying again and again, and the speed of
//! the ways in which a disk can be handed to it.

use super::machine::{Guest, Plan};
use super::{Restarted, SECOND, SOON, disk};
use crate::bed::{Bed, MIB, until};
use std::collections::BTreeMap;

crate::tests![
    integrity_v24_fio_in_a_guest_while_all_behind_it_dies(900, night),
    integrity_v38_a_guest_finds_another_disk(300, night),
    speed_v25_ways_to_hand_a_disk_to_a_guest(900, night)
];

/// fio needs many libraries.
const MEMORY: u32 = 768;
const MODULES: [&str; 1] = ["drivers/block/virtio_blk"];

/// Writes as the fio jobs outside do, but slowly, and reads everything back.
const VERIFY: &str = r#"
until [ -b /dev/vda ]; do sleep 0.1; done
echo GUEST begins
fio --name=verify --filename=/dev/vda --rw=randwrite --bsrange=512-256k --ioengine=libaio --direct=1 --iodepth=16 \
	--verify=crc32c --verify_fatal=1 --verify_state_save=0 --randrepeat=1 --randseed=4711 --rate=,1m --thread \
	--numjobs=2 --size=60m --offset_increment=60m --group_reporting --minimal --output=/tmp/fio
echo "GUEST ended with $?"
dmesg | grep -iE "i/o error|vda.*error" | sed 's/^/GUEST error /'
poweroff -f
"#;

fn integrity_v24_fio_in_a_guest_while_all_behind_it_dies() {
    let mut stage = Restarted::new(128 * MIB, "");
    let devices = disk(&stage.socket);
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let plan =
        Plan { script: VERIFY, modules: &MODULES, programs: &["fio"], memory: MEMORY, devices: &devices };
    let guest = Guest::start(&mut stage.bed, &plan);
    guest.until("begins");
    let ended = || guest.said().iter().any(|line| line.starts_with("ended"));
    let mut deaths = [0; 2];
    while !ended() {
        std::thread::sleep(2 * SECOND);
        stage.target.kill9();
        if deaths[0] % 2 == 1 {
            stage.kill_daemon();
            stage.start_daemon();
            deaths[1] += 1;
        }
        std::thread::sleep(SECOND / 2);
        stage.start_target();
        deaths[0] += 1;
    }
    guest.ended();
    let console = guest.console();
    assert_eq!((&*guest.told("ended"), &*guest.told("error")), ("with 0", ""), "{console}");
    assert!(deaths[1] >= 5, "it was over too soon: {deaths:?}");
    print!("[the target died {} times, the daemon {} times] ", deaths[0], deaths[1]);
    stage.mount.wait_for("1.0", SOON);
    stage.mount.stop();
}

/// Writes until that fails, and starts anew. It ends when it starts on the other disk.
const WRITES: &str = r#"
until [ -b /dev/vda ]; do sleep 0.1; done
echo "GUEST starts on $(head -c 1 /dev/vda)"
if [ "$(head -c 1 /dev/vda)" = b ]; then poweroff -f; fi
while yes | head -c 65536 | dd of=/dev/vda bs=64k seek=1 conv=notrunc,fsync 2>/dev/null; do echo GUEST wrote; sleep 0.2; done
dd if=/dev/vda of=/dev/null bs=512 skip=2048 count=1 2>/dev/null && echo GUEST error: it can read
echo GUEST fails
reboot -f
"#;

/// Another disk comes to the address while the daemon is dead, and QEMU connects again by itself.
fn integrity_v38_a_guest_finds_another_disk() {
    let mut stage = Restarted::new(16 * MIB, "");
    std::fs::write(&stage.image, vec![b'a'; 16 * MIB]).unwrap();
    let mut devices = disk(&stage.socket).to_vec();
    devices.extend(["-action".into(), "reboot=reset".into()]);
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let plan = Plan { script: WRITES, modules: &MODULES, programs: &[], memory: 192, devices: &devices };
    let guest = Guest::start(&mut stage.bed, &plan);
    guest.until("wrote");
    stage.kill_daemon();
    stage.target.kill9();
    let old = std::mem::replace(&mut stage.image, stage.bed.image_of("other", 16 * MIB, b'b'));
    stage.start_target();
    stage.start_daemon();
    guest.until("fails");
    guest.until("starts on b");
    guest.ended();
    let console = guest.console();
    assert_eq!((&*guest.told("starts"), &*guest.told("error:")), ("on a", ""), "{console}");
    assert!(
        stage.mount.read("log").contains("the front end had another disk"),
        "{}",
        stage.mount.read("log")
    );
    stage.mount.stop();
    assert!(
        std::fs::read(&stage.image).unwrap().iter().all(|byte| *byte == b'b'),
        "nothing was written there"
    );
    assert_eq!(std::fs::read(old).unwrap()[65536..65540], *b"y\ny\n");
}

/// The ways, as the end of a drive's line, in the order of the guest's disks: the first is `vhost`.
const WAYS: [&str; 5] = [
    "",
    "cache=none,aio=native",
    "cache=none,aio=io_uring",
    "cache=none,aio=threads",
    "cache=writeback,aio=threads",
];

/// Each job on each disk in turn, five times.
const JOBS: &str = r#"
until [ -b /dev/vde ]; do sleep 0.1; done
job() { # NAME and fio's options
	name=$1; shift
	for d in vda vdb vdc vdd vde; do
		fio --name=$name --filename=/dev/$d --ioengine=libaio --direct=1 --size=60m --time_based --runtime=2 --minimal "$@" |
			awk -F ';' -v "what=$name $d" '{ print "GUEST job", what, $8 + $49 }'
	done
}
for round in 1 2 3 4 5; do
	job 4k-read-1 --rw=randread --bs=4k --iodepth=1
	job 4k-read-32 --rw=randread --bs=4k --iodepth=32
	job 4k-write-32 --rw=randwrite --bs=4k --iodepth=32
	job 1m-read-4 --rw=read --bs=1m --iodepth=4
	job 1m-write-4 --rw=write --bs=1m --iodepth=4
done
poweroff -f
"#;

fn speed_v25_ways_to_hand_a_disk_to_a_guest() {
    let mut bed = Bed::cable(&["fio"], 9000);
    let image = bed.image("disk", WAYS.len() * 64 * MIB);
    bed.aoefs_target("1.0", "v1", &image);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", SOON);
    let sectors = 64 * MIB / 512;
    (0..WAYS.len()).for_each(|n| unit.ctl_ok(&format!("part p{n} {} {}", n * sectors, (n + 1) * sectors)));
    let socket = bed.dir().join("disk.sock");
    unit.ctl_ok(&format!("vhost {} p0", socket.display()));
    let mut devices = disk(&socket).to_vec();
    for (n, way) in WAYS.iter().enumerate().skip(1) {
        let path = unit.file(&format!("p{n}"));
        let drive = format!("if=none,id=p{n},file={},format=raw,{way}", path.display());
        devices.extend(["-drive".into(), drive, "-device".into(), format!("virtio-blk-pci,drive=p{n}")]);
    }
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let plan =
        Plan { script: JOBS, modules: &MODULES, programs: &["fio"], memory: MEMORY, devices: &devices };
    let guest = Guest::start(&mut bed, &plan);
    until("all jobs are done", 800 * SECOND, || !guest.is_alive());
    let mut runs: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    for line in guest.said().iter().filter_map(|line| line.strip_prefix("job ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let [job, disk, rate] = words[..] else { panic!("{line}") };
        runs.entry((job.into(), disk.into())).or_default().push(rate.parse().unwrap());
    }
    assert_eq!(runs.len(), 5 * WAYS.len(), "{}", guest.console());
    let mut medians = BTreeMap::new();
    for ((job, disk), rates) in &mut runs {
        rates.sort_by(f64::total_cmp);
        let way = usize::from(disk.as_bytes()[2] - b'a');
        println!("    {job} {}: {rates:.0?}", if way == 0 { "vhost" } else { WAYS[way] });
        medians.insert((job.as_str(), way), rates[rates.len() / 2]);
    }
    let ratio = |job| medians[&(job, 0)] / medians[&(job, 1)];
    let jobs = ["4k-read-1", "4k-read-32", "4k-write-32", "1m-read-4", "1m-write-4"];
    print!("[vhost / file: {}] ", jobs.map(|job| format!("{job} {:.2}", ratio(job))).join(", "));
    // The machine itself is emulated, and takes most of the time of everything else.
    assert!(ratio("4k-read-32") > 1.0, "FUSE in between costs nothing?");
    mount.stop();
}
