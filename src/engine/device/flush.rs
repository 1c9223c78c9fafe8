//! What a flush that the target does not do comes to.

use super::{Device, Sink};
use crate::engine::event::{Cause, Event};
use crate::engine::flight::{Attempt, Work};
use crate::engine::flushing::{Next, Refused};
use crate::engine::ids::{FrameId, ReqId};
use crate::engine::request::{Error, Job};
use crate::engine::time::Time;
use crate::wire::{FlushKind, Sector};

impl<R> Device<R> {
    /// The target did not flush: the other opcode is tried, or the request fails, or the target has none. Another flush may have
    /// found that out already.
    pub(super) fn flush_refused(
        &mut self,
        now: Time,
        id: FrameId,
        attempt: &Attempt,
        req_id: ReqId,
        (ext, why, cause): (bool, Refused, Cause),
        sink: &mut Sink<R>,
    ) {
        self.settle(id, Some(attempt.tag), now);
        let known = self.disk.flushing.kind() == FlushKind::None;
        let mut flushing = self.disk.flushing;
        let next = flushing.refused(ext, why);
        let doubtful = !self.doubt.confirmed();
        if !doubtful {
            self.disk.flushing = flushing;
        }
        let Some(Job::Flush { done, failed, .. }) = self.reqs.get_mut(req_id).map(|req| &mut req.job) else {
            return;
        };
        match next {
            Next::Old { failed: spoiled } => {
                if spoiled {
                    *failed = Some(cause);
                }
                let frame = self.flight.create(Work::Flush { req: req_id, ext: false }, Sector(0), 0);
                self.line_up(frame);
            }
            Next::Fail => self.refused(req_id, Error::Io, cause, now, sink),
            Next::None => {
                *done = true;
                // Another disk may have said it: this request is asked again where that is possible, and the next one in any case.
                if doubtful {
                    if let Some(req) = self.reqs.get_mut(req_id) {
                        req.unsure.get_or_insert(now);
                    }
                } else if !known {
                    sink.events.push(Event::NoFlush);
                }
                self.check_complete(req_id, now, sink);
            }
        }
    }
}
