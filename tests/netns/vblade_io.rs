//! Two vblades at both usual frame sizes: found at once, and every tool moves the right bytes.

use crate::bed::fio::Fio;
use crate::bed::mount::{Mount, Unit};
use crate::bed::{Bed, MIB, proc, until};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

crate::tests![
    two_targets_appear_within_a_second_mtu_1500,
    two_targets_appear_within_a_second_mtu_9000,
    integrity_whole_disk_compares_mtu_1500,
    integrity_whole_disk_compares_mtu_9000,
    integrity_sparse_copy_over_ones_mtu_1500,
    integrity_sparse_copy_over_ones_mtu_9000,
    integrity_dd_at_any_offset_mtu_1500,
    integrity_dd_at_any_offset_mtu_9000,
    integrity_fio_verify_mtu_1500(180),
    integrity_fio_verify_mtu_9000(180),
    integrity_fio_verify_through_the_page_cache(180),
];

const UNITS: [&str; 2] = ["1.0", "7.254"];
const SECOND: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(60);

/// Two targets behind one cable, mounted.
struct Pair {
    bed: Bed,
    mount: Mount,
    units: [Unit; 2],
    images: [PathBuf; 2],
}

fn pair(mtu: usize, len: usize) -> Pair {
    let mut bed = Bed::cable(&["vblade", "fio"], mtu);
    let images = UNITS.map(|unit| bed.image(unit, len));
    UNITS.iter().zip(&images).for_each(|(unit, image)| drop(bed.vblade(unit, "v1", image)));
    let mount = bed.mount(&[]);
    let units = UNITS.map(|unit| mount.wait_for(unit, 3 * SECOND));
    Pair { bed, mount, units, images }
}

impl Pair {
    /// The files must still be served and the end must be clean.
    fn done(self) {
        self.mount.stop();
        drop(self.bed);
    }
}

fn appear(mtu: usize) {
    let mut bed = Bed::cable(&["vblade"], mtu);
    let images = UNITS.map(|unit| bed.image(unit, MIB));
    let first = bed.vblade(UNITS[0], "v1", &images[0]);
    // Listening when its start-up announcement is out and nobody was there to hear it: aoefs has to ask.
    until("vblade serves", 5 * SECOND, || first.said().contains("pid"));
    let start = Instant::now();
    let mount = bed.mount(&[]);
    mount.wait_for(UNITS[0], SECOND.saturating_sub(start.elapsed()).max(SECOND / 4));
    let asked = start.elapsed();
    // The second one announces itself.
    let start = Instant::now();
    bed.vblade(UNITS[1], "v1", &images[1]);
    mount.wait_for(UNITS[1], SECOND);
    let announced = start.elapsed();
    print!("[asked: {asked:.0?} from exec, announced: {announced:.0?}] ");
    assert!(asked <= SECOND && announced <= SECOND, "{asked:?}, {announced:?}");
    for unit in UNITS {
        assert_eq!(mount.unit(unit).size("data"), MIB as u64);
    }
    mount.stop();
}

fn two_targets_appear_within_a_second_mtu_1500() {
    appear(1500);
}

fn two_targets_appear_within_a_second_mtu_9000() {
    appear(9000);
}

fn whole_disk(mtu: usize) {
    // Not a multiple of 1 MiB nor of a frame.
    let pair = pair(mtu, 48 * MIB + 3 * 512);
    for (unit, image) in pair.units.iter().zip(&pair.images) {
        let (image, data) = (image.display(), unit.data().display().to_string());
        proc::sh(STEP, &format!("cmp {image} {data}"));
        proc::sh(STEP, &format!("dd if={data} iflag=direct bs=1M status=none | cmp - {image}"));
        proc::sh(STEP, &format!("dd if={data} bs=7777 status=none | cmp - {image}"));
        // Everything written anew, and the target's own file looked at.
        let other = pair.bed.image("other", 48 * MIB + 3 * 512);
        proc::sh(STEP, &format!("cp {0} {data} && cmp {0} {image} && cmp {0} {data}", other.display()));
    }
    pair.done();
}

fn integrity_whole_disk_compares_mtu_1500() {
    whole_disk(1500);
}

fn integrity_whole_disk_compares_mtu_9000() {
    whole_disk(9000);
}

fn sparse_copy(mtu: usize) {
    const LEN: usize = 24 * MIB;
    let mut bed = Bed::cable(&["vblade"], mtu);
    let disk = bed.image_of("disk", LEN, 0xff);
    bed.vblade("1.0", "v1", &disk);
    let mount = bed.mount(&[]);
    let unit = mount.wait_for("1.0", 3 * SECOND);
    let data = unit.data().display().to_string();
    let dir = bed.dir().display().to_string();
    // Holes at the start, in the middle, at odd places and at the end; as long as the disk and shorter.
    for (name, len, pieces) in [
        ("full", LEN, vec![(5 * MIB, 300_000), (9 * MIB + 4096, 1), (20 * MIB, MIB)]),
        ("data-at-the-ends", LEN, vec![(0, 4096), (LEN - 100, 100)]),
        ("short", 10 * MIB + 512, vec![(3 * MIB, 8192)]),
        ("all-hole", LEN, vec![]),
    ] {
        let sparse = bed.dir().join(name);
        let file = std::fs::File::create(&sparse).unwrap();
        file.set_len(len as u64).unwrap();
        pieces.iter().for_each(|(at, n)| file.write_all_at(&vec![0x42; *n], *at as u64).unwrap());
        for how in ["auto", "always", "never"] {
            proc::sh(
                STEP,
                &format!(
                    "head -c {LEN} /dev/zero | tr '\\0' '\\377' >{dir}/ones; dd if={dir}/ones of={data} bs=1M status=none"
                ),
            );
            proc::sh(STEP, &format!("cp --sparse={how} {dir}/{name} {data} && sync {data}"));
            proc::sh(
                STEP,
                &format!("cmp -n {len} {dir}/{name} {data} && cmp -n {len} {dir}/{name} {}", disk.display()),
            );
            // What lies behind a shorter image is not touched.
            proc::sh(STEP, &format!("cmp -i {len} {dir}/ones {}", disk.display()));
            assert_eq!(unit.size("data"), LEN as u64);
        }
    }
    mount.stop();
}

fn integrity_sparse_copy_over_ones_mtu_1500() {
    sparse_copy(1500);
}

fn integrity_sparse_copy_over_ones_mtu_9000() {
    sparse_copy(9000);
}

fn dd_anywhere(mtu: usize) {
    let pair = pair(mtu, 8 * MIB);
    let source = pair.bed.image("source", 4 * MIB);
    let dir = pair.bed.dir().display().to_string();
    let (unit, image) = (&pair.units[1], &pair.images[1]);
    let data = unit.data().display().to_string();
    // The same dd on a plain copy says what must come out; `conv=notrunc` there, since truncation does not shrink a
    // disk.
    proc::sh(STEP, &format!("cp {} {dir}/model", image.display()));
    for words in [
        "bs=1 count=700 seek=12345 oflag=seek_bytes",
        "bs=513 count=77 seek=3",
        "bs=4097 count=100 seek=511 oflag=seek_bytes",
        "bs=1000003 count=3 seek=1",
        "bs=512 count=1000 seek=7 skip=3",
        "bs=64k count=20 seek=1048575 oflag=seek_bytes skip=1 iflag=skip_bytes",
    ] {
        for truncate in ["conv=notrunc", "conv=notrunc,fsync"] {
            proc::sh(
                STEP,
                &format!("dd if={} of={dir}/model status=none conv=notrunc {words}", source.display()),
            );
            proc::sh(STEP, &format!("dd if={} of={data} status=none {truncate} {words}", source.display()));
        }
        // Without notrunc dd truncates at the place it seeks to: the disk keeps its size, and what was before stays.
        // (With a seek in bytes it truncates at 0 instead, and means it.)
        if !words.contains("seek_bytes") {
            proc::sh(STEP, &format!("dd if={} of={data} status=none {words}", source.display()));
        }
        proc::sh(STEP, &format!("cmp {dir}/model {data}; cmp {dir}/model {}", image.display()));
    }
    proc::sh(
        STEP,
        &format!(
            "dd if={data} bs=1001 skip=77 count=999 status=none | cmp - <(dd if={dir}/model bs=1001 skip=77 count=999 status=none)"
        ),
    );
    pair.done();
}

fn integrity_dd_at_any_offset_mtu_1500() {
    dd_anywhere(1500);
}

fn integrity_dd_at_any_offset_mtu_9000() {
    dd_anywhere(9000);
}

fn fio(mtu: usize) {
    let pair = pair(mtu, 128 * MIB);
    // Both targets at once.
    let moved = std::thread::scope(|scope| {
        let runs = pair.units.each_ref().map(|unit| scope.spawn(|| Fio::verify(&unit.data(), 4, 32).run()));
        runs.map(|run| run.join().unwrap())
    });
    let written: f64 = moved.iter().map(|moved| moved.written_mib).sum();
    print!("[{written:.0} MiB written and verified] ");
    assert!(written >= 255.0, "{moved:?}");
    pair.done();
}

fn integrity_fio_verify_mtu_1500() {
    fio(1500);
}

fn integrity_fio_verify_mtu_9000() {
    fio(9000);
}

fn integrity_fio_verify_through_the_page_cache() {
    let pair = pair(9000, 64 * MIB);
    let moved = Fio::verify(&pair.units[0].data(), 4, 16)
        .with("--ioengine=psync --direct=0 --iodepth=1 --bsrange=100-256k --bs_unaligned=1")
        .run();
    assert!(moved.written_mib >= 63.0, "{moved:?}");
    pair.done();
}
