//! What follows if the target does not do a flush.

use super::receive::Arrival;
use super::{Device, Sink};
use crate::engine::event::{Cause, Event};
use crate::engine::flight::Work;
use crate::engine::flushing::{Next, Refused};
use crate::engine::ids::ReqId;
use crate::engine::request::{Error, Job};
use crate::wire::{FlushKind, Sector};

impl<R> Device<R> {
    /// The target did not flush: the other opcode is tried, or the request fails, or the target has no flush.
    /// Another request may have found that out already.
    pub(super) fn flush_refused(
        &mut self,
        arrival: Arrival,
        req_id: ReqId,
        (ext, why, cause): (bool, Refused, Cause),
        sink: &mut Sink<R>,
    ) {
        let Arrival { now, id, attempt, .. } = arrival;
        self.settle(id, Some(attempt.tag), now);
        let known = self.disk.flushing.kind() == FlushKind::None;
        let mut flushing = self.disk.flushing;
        let next = flushing.refused(ext, why);
        let doubtful = !self.doubt.confirmed();
        if !doubtful {
            self.disk.flushing = flushing;
        }
        let Job::Flush { done, failed, .. } = &mut self.reqs[req_id].job else {
            return;
        };
        match next {
            Next::OldOpcode { failed: spoiled } => {
                if spoiled {
                    *failed = Some(cause);
                }
                let frame = self.flight.create(Work::Flush { req: req_id, ext: false }, Sector(0), 0);
                self.line_up(frame);
            }
            Next::Fail => self.refused(req_id, Error::Io, cause, now, sink),
            Next::Succeed => {
                *done = true;
                // Another disk may have said it: this request is asked again where that is possible, and the next
                // one in any case.
                if doubtful {
                    self.reqs[req_id].unsure.get_or_insert(now);
                } else if !known {
                    sink.events.push(Event::NoFlush);
                }
                self.check_complete(req_id, now, sink);
            }
        }
    }
}
