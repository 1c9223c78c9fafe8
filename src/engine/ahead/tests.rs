use super::*;
use crate::engine::buffer::Purpose;

const K: u64 = 1 << 10;
const S: Stream = Stream(7);
const OTHER: Stream = Stream(8);
/// The end of the file that is read.
const END: u64 = 8 << 20;

/// The bookkeeping, and a disk whose bytes say where they lie.
struct Desk {
    ahead: Ahead,
    pool: Pool,
    now: Time,
    next: ReqId,
}

impl Desk {
    fn new() -> Desk {
        Desk { ahead: Ahead::default(), pool: Pool::default(), now: Time(1), next: 0 }
    }

    /// Notes a read and begins all that is planned; says what there was of its bytes, and which fetches were begun.
    fn read(&mut self, stream: Stream, from: u64, len: u64) -> (Found, Vec<(ReqId, Range<u64>)>) {
        let bytes = from..from + len;
        self.ahead.note(stream, &bytes, self.now, |_| {});
        let found = self.ahead.find(stream, &bytes, self.now, &self.pool);
        let mut begun = Vec::new();
        while let Some(bytes) = self.ahead.plan(stream, END, self.now) {
            self.next += 1;
            self.ahead.begun(stream, &bytes, self.next, self.now);
            begun.push((self.next, bytes));
        }
        (found, begun)
    }

    fn land(&mut self, stream: Stream, (req, bytes): &(ReqId, Range<u64>)) -> bool {
        let len = (bytes.end - bytes.start) as usize;
        let mut buf = self.pool.take(len);
        for (i, sector) in buf.chunks_mut(SECTOR).enumerate() {
            sector.fill(stamp(bytes.start / SECTOR as u64 + i as u64));
        }
        let lease = self.pool.lease(Purpose::Ahead, len).unwrap();
        self.ahead.ended(stream, *req, Some((Arc::new(buf), lease)), self.now)
    }

    /// Two reads in sequence from byte 0 on; what is fetched then.
    fn begin(&mut self, stream: Stream, len: u64) -> Vec<(ReqId, Range<u64>)> {
        let (found, begun) = self.read(stream, 0, len);
        assert!(matches!(found, Found::Missing) && begun.is_empty(), "one read is no sequence");
        self.read(stream, len, len).1
    }
}

fn stamp(sector: u64) -> u8 {
    (sector % 251) as u8
}

fn total(begun: &[(ReqId, Range<u64>)]) -> u64 {
    begun.iter().map(|(_, b)| b.end - b.start).sum()
}

fn bytes_of(found: Found) -> Vec<u8> {
    match found {
        Found::Here(data) => data.to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pieces_follow_the_reader_and_have_its_measure() {
    for (len, chunk) in
        [(512, 128 * K), (4 * K, 128 * K), (96 * K, 192 * K), (256 * K, 256 * K), (1024 * K, 1024 * K)]
    {
        let mut desk = Desk::new();
        let begun = desk.begin(S, len);
        assert_eq!(begun[0].1, 2 * len..2 * len + chunk, "reads of {len}");
        assert!(begun.windows(2).all(|w| w[0].1.end == w[1].1.start), "{begun:?}");
        assert!(total(&begun) <= WINDOW, "{begun:?}");
    }
}

#[test]
fn nothing_is_fetched_for_who_jumps_or_brings_a_large_buffer_or_does_not_want_it() {
    let mut desk = Desk::new();
    for i in [0, 5, 2, 7, 1, 6, 3] {
        assert!(desk.read(S, i * 1100 * K, 4 * K).1.is_empty(), "{i}");
    }
    assert!(desk.begin(OTHER, 2048 * K).is_empty(), "it keeps the wire busy by itself");
    desk.ahead.set_window(0);
    assert!(desk.begin(Stream(9), 4 * K).is_empty());
}

#[test]
fn a_large_read_that_comes_in_two_parts_has_the_next_one_on_its_way() {
    // A buffer of 1 MiB that begins 16 bytes into a page, as malloc gives it, lies in 257 pages; a request has 256.
    let mut desk = Desk::new();
    let (len, rest) = (1024 * K - 16, 16);
    desk.read(S, 0, len);
    let mut begun = desk.read(S, len, rest).1;
    for i in 1..6 {
        assert_eq!((begun.len(), &begun[0].1), (1, &(i * 1024 * K..(i + 1) * 1024 * K)));
        assert!(desk.land(S, &begun[0]));
        let (found, more) = desk.read(S, i * 1024 * K, len);
        assert_eq!(bytes_of(found).len() as u64, len);
        begun = more;
        let (found, more) = desk.read(S, i * 1024 * K + len, rest);
        assert_eq!(bytes_of(found), [stamp((i + 1) * 2048 - 1); 16]);
        assert!(more.is_empty(), "a second beside it: {more:?}");
    }
}

#[test]
fn the_reach_grows_to_the_window_for_a_quick_reader_and_shrinks_for_a_slow_one() {
    let mut desk = Desk::new();
    let mut begun = desk.begin(S, 128 * K);
    assert_eq!(total(&begun), 256 * K);
    let mut most = 0;
    for i in 2..20 {
        for piece in std::mem::take(&mut begun) {
            assert!(desk.land(S, &piece));
        }
        let (found, more) = desk.read(S, i * 128 * K, 128 * K);
        assert_eq!(bytes_of(found)[0], stamp(i * 256));
        begun = more;
        most = most.max(desk.ahead.pieces.iter().map(Piece::len).sum::<u64>());
        assert!(most <= WINDOW, "{most}");
    }
    assert_eq!(most, WINDOW);
    desk.now = desk.now + AGE;
    desk.ahead.throw_old(desk.now, |_| {});
    assert!(desk.ahead.is_empty());
    let begun = desk.read(S, 20 * 128 * K, 128 * K).1;
    assert!(total(&begun) < WINDOW, "{begun:?}");
}

#[test]
fn a_read_within_one_piece_is_a_slice_of_it_and_one_across_two_is_whole() {
    let mut desk = Desk::new();
    let begun = desk.begin(S, 4 * K);
    let at = begun[0].1.start;
    assert!(matches!(desk.read(S, at, 4 * K).0, Found::Coming));
    begun.iter().for_each(|piece| assert!(desk.land(S, piece)));
    let Found::Here(data) = desk.ahead.find(S, &(at + 100..at + 5000), desk.now, &desk.pool) else {
        panic!()
    };
    let State::Here(buf, _) = &desk.ahead.pieces[0].state else { panic!() };
    assert_eq!(data.as_ptr(), buf[100..].as_ptr(), "not copied");
    assert_eq!((data[0], data[4899], data.len()), (stamp(at / 512), stamp((at + 4999) / 512), 4900));
    let seam = begun[0].1.end;
    let found = desk.ahead.find(S, &(seam - 700..seam + 700), desk.now, &desk.pool);
    let want: Vec<u8> = (seam - 700..seam + 700).map(|byte| stamp(byte / 512)).collect();
    assert_eq!(bytes_of(found), want);
}

#[test]
fn what_is_fetched_for_one_stream_is_not_given_to_another() {
    let mut desk = Desk::new();
    let begun = desk.begin(S, 4 * K);
    desk.land(S, &begun[0]);
    let bytes = begun[0].1.start..begun[0].1.start + 512;
    assert!(matches!(desk.ahead.find(OTHER, &bytes, desk.now, &desk.pool), Found::Missing));
}

#[test]
fn nothing_is_given_from_the_second_on_in_which_it_was_asked_for() {
    let mut desk = Desk::new();
    let begun = desk.begin(S, 4 * K);
    let bytes = begun[0].1.clone();
    desk.now = desk.now + AGE / 2;
    desk.land(S, &begun[0]);
    assert_eq!(desk.ahead.next_old(), Time(1) + AGE, "from the beginning of the fetch");
    desk.now = Time((Time(1) + AGE).0 - 1);
    assert!(matches!(
        desk.ahead.find(S, &(bytes.start..bytes.start + 1), desk.now, &desk.pool),
        Found::Here(_)
    ));
    desk.now = Time(1) + AGE;
    assert!(matches!(desk.ahead.find(S, &bytes, desk.now, &desk.pool), Found::Missing));
}

#[test]
fn a_target_that_takes_too_long_is_left_alone_for_a_while() {
    let mut desk = Desk::new();
    let begun = desk.begin(S, 4 * K);
    desk.now = desk.now + AGE;
    let mut cut = Vec::new();
    desk.ahead.throw_old(desk.now, |req| cut.push(req));
    assert_eq!(cut.len(), begun.len());
    assert!(desk.read(S, 8 * K, 4 * K).1.is_empty());
    desk.now = Time((desk.now + REST).0 - 1);
    assert!(desk.read(S, 12 * K, 4 * K).1.is_empty());
    desk.now = desk.now + Duration::from_micros(1);
    assert!(!desk.read(S, 16 * K, 4 * K).1.is_empty());
}

#[test]
fn changed_sectors_take_what_overlaps_them_and_nothing_else() {
    let mut desk = Desk::new();
    let begun = desk.begin(S, 128 * K);
    let [first, second] = &begun[..] else { panic!("{begun:?}") };
    desk.land(S, first);
    let sector = |byte: u64| byte / SECTOR as u64;
    let mut cut = Vec::new();
    desk.ahead.throw_sectors(&(0..sector(first.1.start)), |req| cut.push(req));
    desk.ahead.throw_sectors(&(sector(second.1.end)..u64::MAX), |req| cut.push(req));
    assert_eq!((desk.ahead.pieces.len(), cut.len()), (2, 0), "neighbours");
    desk.ahead.throw_sectors(&(sector(first.1.end) - 1..sector(first.1.end)), |req| cut.push(req));
    assert_eq!((desk.ahead.pieces.len(), cut.len()), (1, 0));
    assert_eq!(desk.ahead.take_wasted(), 128 * K);
    desk.ahead.throw_sectors(&(sector(second.1.end) - 1..sector(second.1.end)), |req| cut.push(req));
    assert_eq!(cut, [second.0]);
    assert!(!desk.land(S, second), "what was on its way is not kept");
    assert!(desk.ahead.is_empty());
    assert_eq!(desk.pool.ahead(), 0, "and its memory is free");
}

#[test]
fn a_waiter_is_ripe_when_its_bytes_are_here_or_will_not_come() {
    let mut desk = Desk::new();
    let begun = desk.begin(S, 128 * K);
    let [first, second] = &begun[..] else { panic!("{begun:?}") };
    desk.ahead.wait(100, S, &first.1);
    desk.ahead.wait(101, S, &second.1);
    assert_eq!(desk.ahead.fetches(S, &first.1).collect::<Vec<_>>(), [first.0]);
    assert!(desk.ahead.next_ripe(desk.now, true, &desk.pool).is_none());
    desk.land(S, first);
    let ripe = desk.ahead.next_ripe(desk.now, true, &desk.pool);
    assert!(matches!(ripe, Some((100, Found::Here(_)))), "{ripe:?}");
    assert!(desk.ahead.ended(S, second.0, None, desk.now));
    let ripe = desk.ahead.next_ripe(desk.now, true, &desk.pool);
    assert!(matches!(ripe, Some((101, Found::Missing))), "{ripe:?}");
    assert!(desk.ahead.next_ripe(desk.now, true, &desk.pool).is_none());
    assert!(desk.read(S, 256 * K, 128 * K).1.is_empty(), "after a failure nothing is fetched for a while");
    desk.now = desk.now + AGE;
    assert!(!desk.read(S, 384 * K, 128 * K).1.is_empty());
}

#[test]
fn reads_that_overtake_each_other_are_a_sequence_all_the_same() {
    let mut desk = Desk::new();
    desk.read(S, 0, 64 * K);
    let mut fetched = 0;
    for i in [1, 3, 2, 5, 4, 7, 6, 8] {
        fetched += total(&desk.read(S, i * 64 * K, 64 * K).1);
    }
    assert!(fetched >= 512 * K, "{fetched}");
    let (_, begun) = desk.read(S, 4 << 20, 64 * K);
    assert!(begun.is_empty(), "far away");
    assert!(desk.ahead.is_empty(), "what was fetched elsewhere is gone");
}

#[test]
fn who_begins_again_near_where_it_was_is_read_ahead_of_again() {
    let mut desk = Desk::new();
    for piece in desk.begin(S, 64 * K) {
        desk.land(S, &piece);
    }
    desk.now = desk.now + AGE;
    desk.ahead.throw_old(desk.now, |_| {});
    let mut begun = desk.read(S, 0, 64 * K).1;
    begun.extend(desk.read(S, 64 * K, 64 * K).1);
    assert_eq!(begun[0].1.start, 128 * K);
}

#[test]
fn the_end_of_the_file_bounds_what_is_fetched() {
    let mut desk = Desk::new();
    desk.read(S, END - 12 * K, 4 * K);
    let begun = desk.read(S, END - 8 * K, 4 * K).1;
    assert_eq!((begun.len(), &begun[0].1), (1, &(END - 4 * K..END)));
    assert!(desk.read(S, END - 4 * K, 4 * K).1.is_empty());
}

#[test]
fn streams_and_memory_are_bounded() {
    let mut desk = Desk::new();
    for n in 0..STREAMS_MAX as u64 + 50 {
        desk.now = desk.now + Duration::from_micros(1);
        desk.begin(Stream(1000 + n), 4 * K);
        desk.ahead.close(Stream(1000 + n), |_| {});
        desk.read(Stream(1000 + n), 0, 4 * K);
    }
    assert_eq!(desk.ahead.flows.len(), STREAMS_MAX);
    assert!(!desk.ahead.flows.contains_key(&Stream(1000)), "the oldest went");
    let pool = Pool::default();
    let leases: Vec<_> = std::iter::from_fn(|| pool.lease(Purpose::Ahead, 1 << 20)).collect();
    assert_eq!(leases.len(), crate::engine::AHEAD_MAX >> 20);
    assert!(pool.lease(Purpose::Ahead, 1).is_none());
    drop(leases);
    assert_eq!(pool.ahead(), 0);
}

#[test]
fn a_stream_that_skips_most_of_what_it_is_given_holds_a_bounded_amount() {
    let mut desk = Desk::new();
    let mut begun = desk.begin(S, 4 * K);
    for i in 1..60 {
        for piece in std::mem::take(&mut begun) {
            desk.land(S, &piece);
        }
        begun = desk.read(S, i * 100 * K, 4 * K).1;
        begun.extend(desk.read(S, i * 100 * K + 4 * K, 4 * K).1);
        let held: u64 = desk.ahead.pieces.iter().map(Piece::len).sum();
        assert!(held <= 3 * WINDOW, "{held}");
    }
}
