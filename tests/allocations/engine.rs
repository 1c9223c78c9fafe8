//! The engine promises no allocation a frame: an allocator that counts holds it to that. A request may cost a few,
//! however many frames it has.

use crate::COUNT;
use crate::drive::Drive;

/// Allocations that one request may cost: the write's shared buffer is one.
const A_REQUEST: f64 = 3.0;

const REQUESTS: usize = 200;

/// Allocations a request, and frames a request, once everything has its size.
fn measure(drive: &mut Drive, request: impl Fn(&mut Drive)) -> (f64, f64) {
    (0..REQUESTS).for_each(|_| request(drive));
    let (before, frames) = (COUNT.get(), drive.frames);
    (0..REQUESTS).for_each(|_| request(drive));
    let a_request = |n: usize| n as f64 / REQUESTS as f64;
    (a_request(COUNT.get() - before), a_request((drive.frames - frames) as usize))
}

#[test]
fn no_frame_allocates() {
    let bytes = vec![7; 1 << 20];
    for sectors in [2u8, 16] {
        for len in [usize::from(sectors) * 512, 64 << 10, 1 << 20] {
            let mut drive = Drive::new(sectors);
            let (reads, frames) = measure(&mut drive, |drive| drive.read(len));
            let (writes, _) = measure(&mut drive, |drive| drive.write(&bytes[..len]));
            let mut stream = Drive::new(sectors);
            let (ahead, _) = measure(&mut stream, |drive| drive.read_on(len));
            println!("{sectors} sectors a frame, {len} bytes read ahead: {ahead} allocations a read");
            assert!(ahead <= A_REQUEST, "{ahead} allocations a read that is read ahead");
            println!(
                "{sectors} sectors a frame, {len} bytes, {frames} frames: {reads} allocations a read, {writes} a write"
            );
            assert!(frames as usize >= len / 512 / usize::from(sectors), "{frames} frames");
            assert!(reads <= A_REQUEST, "{reads} allocations a read of {frames} frames");
            assert!(writes <= A_REQUEST, "{writes} allocations a write of {frames} frames");
        }
    }
}
