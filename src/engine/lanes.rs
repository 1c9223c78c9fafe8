//! Where work waits until it may leave: two lanes, so that neither reads nor writes starve, and a third one for what
//! is read ahead, which no program waits for.
//!
//! A lane may name a frame or a request that does not wait any more: the caller checks whether the first of a lane
//! still does ([`Frame::queued`](super::flight::Frame::queued) and its like). To search the lane whenever one ends
//! would cost more.

use std::collections::VecDeque;

use super::ids::{FrameId, ReqId};

/// Frames of one request before the next request in its lane has its turn, so that a small request does not wait for
/// the whole of a large one.
const STREAK: u32 = 16;

/// A request or a frame knows in which lane it waits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Lane {
    /// What changes nothing.
    Reads,
    /// Writes, and everything else that needs to know which disk is there.
    Writes,
    /// What is read ahead.
    Behind,
}

/// What waits in one lane.
#[derive(Debug, Default)]
struct Queue {
    /// Frames to send (again), before anything new.
    again: VecDeque<FrameId>,
    /// Requests with frames that have not been issued.
    ready: VecDeque<ReqId>,
    /// Frames that were issued for the request at the front since it came there.
    streak: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Lanes {
    queues: [Queue; 3],
    turn: Lane,
    /// Frames that may not be sent a second time until a quarantine ends.
    parked: Vec<FrameId>,
}

impl Default for Lanes {
    fn default() -> Lanes {
        Lanes { queues: Default::default(), turn: Lane::Reads, parked: Vec::new() }
    }
}

impl Lanes {
    fn queue(&mut self, lane: Lane) -> &mut Queue {
        &mut self.queues[lane as usize]
    }

    /// Does anything wait, in any lane? What is parked does not count.
    pub fn any(&self) -> bool {
        self.queues.iter().any(|queue| !queue.again.is_empty() || !queue.ready.is_empty())
    }

    /// The lane that may send now: reads and writes take turns.
    pub fn next_turn(&mut self) -> Lane {
        let lane = self.turn;
        self.turn = if lane == Lane::Reads { Lane::Writes } else { Lane::Reads };
        lane
    }

    /// A frame waits to be sent (again).
    pub fn push_frame(&mut self, lane: Lane, frame: FrameId) {
        self.queue(lane).again.push_back(frame);
    }

    /// The frame that is sent next, before any request has its turn.
    pub fn first_frame(&self, lane: Lane) -> Option<FrameId> {
        self.queues[lane as usize].again.front().copied()
    }

    /// The first frame of the lane waits there no more.
    pub fn pop_frame(&mut self, lane: Lane) {
        self.queue(lane).again.pop_front();
    }

    /// The first frame of the lane waits aside, until [`Lanes::unpark`].
    pub fn park_frame(&mut self, lane: Lane) {
        let frame = self.queue(lane).again.pop_front();
        self.parked.extend(frame);
    }

    /// Takes out what waits aside.
    pub fn unpark(&mut self) -> Vec<FrameId> {
        std::mem::take(&mut self.parked)
    }

    /// A request has frames to issue.
    pub fn push_request(&mut self, lane: Lane, request: ReqId) {
        self.queue(lane).ready.push_back(request);
    }

    /// The request whose frames are issued next.
    pub fn first_request(&self, lane: Lane) -> Option<ReqId> {
        self.queues[lane as usize].ready.front().copied()
    }

    /// The first request of the lane is not there any more.
    pub fn pop_request(&mut self, lane: Lane) {
        self.queue(lane).ready.pop_front();
    }

    fn all(&self) -> impl Iterator<Item = (Lane, &Queue)> {
        [Lane::Reads, Lane::Writes, Lane::Behind].into_iter().zip(&self.queues)
    }

    /// Every frame that a lane names.
    pub fn frames(&self) -> impl Iterator<Item = (Lane, FrameId)> {
        self.all().flat_map(|(lane, queue)| queue.again.iter().map(move |id| (lane, *id)))
    }

    /// Every request that a lane names.
    pub fn requests(&self) -> impl Iterator<Item = (Lane, ReqId)> {
        self.all().flat_map(|(lane, queue)| queue.ready.iter().map(move |id| (lane, *id)))
    }

    /// Does the frame wait aside?
    pub fn is_parked(&self, frame: FrameId) -> bool {
        self.parked.contains(&frame)
    }

    /// A frame of the first request was issued, or was to be; `over`: the request has no more of them.
    pub fn issued(&mut self, lane: Lane, over: bool) {
        let queue = self.queue(lane);
        queue.streak += 1;
        if over {
            queue.ready.pop_front();
            queue.streak = 0;
        } else if queue.streak >= STREAK && lane != Lane::Behind {
            // What is read ahead is wanted in the order in which it was begun.
            queue.ready.rotate_left(1);
            queue.streak = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issues `frames` frames of endless requests, and returns the request of each.
    fn issue(lanes: &mut Lanes, lane: Lane, frames: usize) -> Vec<ReqId> {
        let one = |_| {
            let request = lanes.first_request(lane).unwrap();
            lanes.issued(lane, false);
            request
        };
        (0..frames).map(one).collect()
    }

    #[test]
    fn reads_and_writes_take_turns() {
        let mut lanes = Lanes::default();
        let turns = [(); 4].map(|()| lanes.next_turn());
        assert_eq!(turns, [Lane::Reads, Lane::Writes, Lane::Reads, Lane::Writes]);
    }

    #[test]
    fn a_large_request_does_not_keep_a_small_one_waiting() {
        let mut lanes = Lanes::default();
        for request in [7, 8] {
            lanes.push_request(Lane::Writes, request);
        }
        let issued = issue(&mut lanes, Lane::Writes, 2 * STREAK as usize);
        let (first, second) = issued.split_at(STREAK as usize);
        assert!(first.iter().all(|request| *request == 7), "{issued:?}");
        assert!(second.iter().all(|request| *request == 8), "{issued:?}");
        assert_eq!(lanes.first_request(Lane::Writes), Some(7));
        lanes.issued(Lane::Writes, true);
        lanes.issued(Lane::Writes, true);
        assert!(!lanes.any());
    }

    #[test]
    fn a_request_that_follows_one_that_is_over_has_a_whole_turn() {
        let mut lanes = Lanes::default();
        for request in [1, 2, 3] {
            lanes.push_request(Lane::Reads, request);
        }
        issue(&mut lanes, Lane::Reads, STREAK as usize - 1);
        lanes.issued(Lane::Reads, true);
        let issued = issue(&mut lanes, Lane::Reads, STREAK as usize + 1);
        assert!(issued[..STREAK as usize].iter().all(|request| *request == 2), "{issued:?}");
        assert_eq!(issued[STREAK as usize], 3);
    }

    #[test]
    fn what_is_read_ahead_keeps_its_order() {
        let mut lanes = Lanes::default();
        for request in [1, 2] {
            lanes.push_request(Lane::Behind, request);
        }
        let issued = issue(&mut lanes, Lane::Behind, 3 * STREAK as usize);
        assert!(issued.iter().all(|request| *request == 1), "{issued:?}");
    }

    #[test]
    fn what_is_parked_waits_in_no_lane() {
        let mut lanes = Lanes::default();
        for frame in [4, 5] {
            lanes.push_frame(Lane::Writes, FrameId(frame));
        }
        lanes.park_frame(Lane::Writes);
        assert_eq!(lanes.first_frame(Lane::Writes), Some(FrameId(5)));
        lanes.pop_frame(Lane::Writes);
        assert!(!lanes.any());
        assert_eq!(lanes.unpark(), [FrameId(4)]);
        assert!(lanes.unpark().is_empty());
    }
}
