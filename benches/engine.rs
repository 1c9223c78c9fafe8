//! What the engine adds to a frame: nanoseconds from submit over frames and answers to the reply, a frame of a
//! request of 1 MiB and a request of one frame. The copy of the data is included: one each way.
//!
//! `cargo bench --bench engine`. `tests/allocations` holds the same loop to its promise of no allocation a frame.

#[path = "engine/drive.rs"]
mod drive;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use drive::Drive;

const MIB: usize = 1 << 20;

fn frames(c: &mut Criterion) {
    for sectors in [2u8, 16] {
        let frame = usize::from(sectors) * 512;
        let mut group = c.benchmark_group(format!("{sectors} sectors a frame"));
        let bytes = vec![7; MIB];
        for (name, len) in [("1 MiB", MIB), ("one frame", frame)] {
            // Elements are frames: the figure in elements a second is frames a second.
            group.throughput(Throughput::Elements((len / frame) as u64));
            let mut drive = Drive::new(sectors);
            group.bench_function(format!("read, {name}"), |b| b.iter(|| drive.read(len)));
            let mut stream = Drive::new(sectors);
            group.bench_function(format!("read ahead, {name}"), |b| b.iter(|| stream.read_on(len)));
            let mut drive = Drive::new(sectors);
            group.bench_function(format!("write, {name}"), |b| b.iter(|| drive.write(&bytes[..len])));
        }
        group.finish();
    }
}

criterion_group!(benches, frames);
criterion_main!(benches);
