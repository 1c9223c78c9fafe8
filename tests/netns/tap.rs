//! A virtual machine as the target: its network card is a tap device, and a program answers what arrives there.

use crate::bed::fake::{self, Fake};
use crate::bed::fio::Fio;
use crate::bed::tap::Card;
use crate::bed::{Bed, MIB, Ns, until};
use crate::tools::fsx::Aligned;
use aoefs::target::{MemoryImage, Processor};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

crate::tests![
    integrity_tap_netlink_of_a_virtual_machine(120),
    return_n3_tap_closed_and_made_again(120, beside)
];

const SECOND: Duration = Duration::from_secs(1);
const DISK: usize = 32 * MIB;
const MTU: usize = 9000;
/// As hypervisors give them out.
const CARD: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

/// A machine that exports 1.0 with this content behind the tap device `t0`.
fn machine(ns: &Ns, content: &[u8]) -> Fake {
    let card = Arc::new(Card::plug(ns, "t0", MTU, CARD));
    Fake::on(card, MTU, vec![Processor::new(fake::config("1.0", "guest"), MemoryImage::from_bytes(content))])
}

fn bed() -> Bed {
    if !Path::new("/dev/net/tun").exists() {
        crate::bed::skip("there is no /dev/net/tun");
    }
    Bed::with_fuse(&["fio"])
}

fn integrity_tap_netlink_of_a_virtual_machine() {
    let mut bed = bed();
    let image = bed.image("disk", DISK);
    let content = std::fs::read(&image).unwrap();
    let guest = machine(&bed.ini, &content);
    let ns = bed.ini.clone();
    let mount = bed.mount_in(&ns, &["-i", "t0"]);
    let unit = mount.wait_for("1.0", 3 * SECOND);
    assert!(std::fs::read(unit.data()).unwrap() == content, "what the machine has is not what is read");
    let start = Instant::now();
    let moved = Fio::verify(&unit.data(), 4, 8).run();
    print!("[{:.0} MiB written and verified in {:.1?}] ", moved.written_mib, start.elapsed());
    // Where fio did not write, and where it did: the same bytes on both sides.
    assert!(std::fs::read(unit.data()).unwrap() == guest.content(), "the machine has something else");
    let jumbo = guest.log().iter().filter(|request| request.is_write() && request.len > 4096).count();
    assert!(jumbo > 100, "{jumbo} large frames over an MTU of {MTU}");
    mount.stop();
    drop(guest);
}

fn return_n3_tap_closed_and_made_again() {
    let mut bed = bed();
    let mut guest = Some(machine(&bed.ini, &vec![0; DISK]));
    let ns = bed.ini.clone();
    let mount = bed.mount_in(&ns, &["-i", "t0"]);
    let unit = mount.wait_for("1.0", 3 * SECOND);
    let fio = Fio::verify(&unit.data(), 4, 8).with("--rate=,2m").within(80 * SECOND);
    let file = unit.open_with("data", libc::O_DIRECT);
    std::thread::scope(|scope| {
        let run = scope.spawn(move || fio.run());
        for round in 0..3 {
            std::thread::sleep(SECOND / 2);
            // The machine is switched off, and on again with the disk that it had.
            let content = guest.take().map(|guest| {
                guest.die();
                guest.content()
            });
            until("the interface is gone", 2 * SECOND, || !bed.ini.has("t0"));
            std::thread::sleep(SECOND / 2);
            guest = content.map(|content| machine(&bed.ini, &content));
            let start = Instant::now();
            file.read_exact_at(Aligned::new(4096).bytes(), 31 << 20).unwrap();
            let took = start.elapsed();
            print!("[{round}: read answered {took:.0?} after the tap was made again] ");
            assert!(took < 5 * SECOND, "{took:?}");
            assert!(!run.is_finished(), "it ended before the last round");
        }
        run.join().unwrap();
    });
    drop(file);
    assert!(
        std::fs::read(unit.data()).unwrap() == guest.unwrap().content(),
        "the machine has something else"
    );
    mount.stop();
}
