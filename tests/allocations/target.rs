//! The processor promises no allocation per frame: an allocator that counts holds it to that.

use aoefs::target::{MemoryImage, Processor, Slot, TargetConfig};
use aoefs::wire::{
    Addr, Ata, Command, Config, DATA_OFFSET, HEADER_LEN, Header, Mac, SECTOR, Sector, Tag, Verb, smart,
};

use crate::COUNT;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const UNIT: Addr = Addr::new(1, 0);
const MTU: usize = 9000;

fn frame(command: Command, body: &[u8]) -> Vec<u8> {
    let header = Header {
        dst: OWN,
        src: Mac([2, 0, 0, 0, 0, 2]),
        version: 1,
        response: false,
        error: None,
        addr: UNIT,
        command,
        tag: Tag(Tag::OURS),
    };
    let mut frame = vec![0; HEADER_LEN];
    header.emit(&mut frame);
    frame.extend_from_slice(body);
    frame
}

fn ata(ata: Ata) -> Vec<u8> {
    let mut body = vec![0; DATA_OFFSET - HEADER_LEN + 16 * SECTOR];
    ata.emit(&mut body);
    frame(Command::Ata, &body)
}

fn config(verb: Verb, string: &[u8]) -> Vec<u8> {
    let config = Config::request(verb, string);
    let mut body = vec![0; config.len()];
    config.emit(&mut body);
    frame(Command::Config, &body)
}

#[test]
fn no_frame_allocates() {
    let mut target = Processor::new(TargetConfig::new(UNIT, "x"), MemoryImage::new(1 << 20));
    let add_and_delete = [0, 1, 0, 2, 0, 1, 2, 0, 0, 0, 0, 9, 0, 2, 2, 0, 0, 0, 0, 9];
    let mut frames = vec![
        ata(Ata::identify()),
        ata(Ata::flush(true)),
        ata(Ata::trim(1)),
        ata(Ata::check_power()),
        ata(Ata::smart(smart::READ_DATA, 0)),
        ata(Ata::read(Sector(1 << 20), 1, true)),
        config(Verb::Read, b""),
        config(Verb::Force, &[7; 1024]),
        config(Verb::Force, b"short"),
        config(Verb::Test, b"another"),
        frame(Command::Mask, &add_and_delete),
        frame(Command::Reserve, &[1, 1, 2, 0, 0, 0, 0, 2]),
        frame(Command::Reserve, &[1, 0]),
        frame(Command::Other(9), &[]),
        vec![0; 60],
    ];
    // Twenty of each one behind the other, so that they make a run.
    frames.extend((0..20).map(|n| ata(Ata::write(Sector(n * 16), 16, true))));
    frames.extend((0..20).map(|n| ata(Ata::read(Sector(n * 16), 16, true))));
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    let mut rooms = vec![vec![0; MTU + 14]; frames.len()];
    let mut slots: Vec<Slot<'_>> = rooms.iter_mut().map(|room| (&mut room[..], 0)).collect();
    // The first round makes the pieces of the sparse image.
    target.handle_batch(&frames, OWN, MTU, &mut slots);
    let before = COUNT.get();
    for _ in 0..10 {
        target.handle_batch(&frames, OWN, MTU, &mut slots);
    }
    for (frame, (room, _)) in frames.iter().zip(&mut slots) {
        target.handle(frame, OWN, MTU, room);
    }
    target.announcement(0, OWN, MTU, slots[0].0).unwrap();
    assert_eq!(COUNT.get() - before, 0);
    assert_eq!(target.counters().answered, 12 * (frames.len() as u64 - 2));
}
