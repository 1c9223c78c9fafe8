//! Tables that no driver would make.

use super::*;

/// Numbers that look random (SplitMix64).
pub(super) struct Dice(pub u64);

impl Dice {
    pub(super) fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.roll(list.len() as u64) as usize]
    }

    fn descriptor(&mut self) -> (u64, u32, u16, u16) {
        let at = match self.roll(4) {
            0 => self.of(&[0, 1, MEMORY - 1, MEMORY, MEMORY - 512, u64::MAX, u64::MAX - 511, 1 << 63]),
            1 => 0x8000,
            _ => 0x1000 + self.roll(0x20000),
        };
        let len = match self.roll(3) {
            0 => self.of(&[0, 1, 15, 16, 17, 31, 32, 48, 512, 513, 4096, 1 << 20, u32::MAX]),
            1 => 16,
            _ => self.of(&[512, 1024, 1]),
        };
        let flags =
            self.of(&[NEXT, NEXT, NEXT | WRITE, NEXT | WRITE, WRITE, 0, INDIRECT, INDIRECT | NEXT, 0xffff]);
        (at, len, flags, self.roll(u64::from(ENTRIES) + 2) as u16)
    }
}

#[test]
fn no_table_whatever_is_in_it_does_harm() {
    let mut dice = Dice(16);
    let mut guest = Guest::new(Fake::new(|_| ()));
    let (mut answered, mut stopped) = (0, 0);
    for round in 0..20_000 {
        guest.fake.hold.store(dice.roll(4) == 0, Ordering::SeqCst);
        // Either all of it is anything, or one or two descriptors of a good request are.
        let good = dice.roll(2) == 0;
        let (data, flags) = (dice.of(&[16, 512, 1024, 4096]), dice.of(&[READ, WRITE]));
        let request = [(0x1000, 16, NEXT, 1), (0x3000, data, flags | NEXT, 2), (0x2000, 1, WRITE, 3)];
        for index in 0..ENTRIES {
            let row = request.get(usize::from(index)).filter(|_| good && dice.roll(4) > 0);
            let row = row.copied().unwrap_or_else(|| dice.descriptor());
            guest.describe(index, row);
            let row = dice.descriptor();
            let descriptor = RawDescriptor::from(Descriptor::new(row.0, row.1, row.2, row.3));
            guest.memory.write_obj(descriptor, GuestAddress(0x8000 + u64::from(index) * 16)).unwrap();
        }
        for place in 0..32 {
            let (kind, sector) = (dice.of(&[0, 1, 4, 8, 11, 13, 7]), dice.of(&[0, 1, 127, 128, u64::MAX]));
            let beside = if place == 0 { 0 } else { dice.roll(2) };
            guest.header(0x1000 + place * 0x1000 + beside, kind, sector);
        }
        for _ in 0..1 + dice.roll(4) {
            let head = if good { 0 } else { dice.roll(u64::from(ENTRIES) + 1) as u16 };
            guest.offer(head);
        }
        let offered = usize::from(guest.given);
        guest.turn();
        guest.fake.release();
        guest.turn();
        let used = guest.used();
        let said = guest.said();
        assert!(used.iter().all(|(head, _)| *head < u32::from(ENTRIES)), "round {round}: {used:?}");
        assert!(used.len() == offered || said.len() == 1, "round {round}: {used:?} of {offered}, {said:?}");
        (answered, stopped) = (answered + used.len(), stopped + said.len());
        guest.fake.asked.lock().clear();
        guest.set_up();
        if round % 100 == 0 {
            guest.fake.hold.store(false, Ordering::SeqCst);
            guest.works();
            guest.set_up();
        }
    }
    assert!(answered > 5_000 && stopped > 5_000, "it tries both: {answered} {stopped}");
    assert!(guest.fake.open.load(Ordering::SeqCst));
}
