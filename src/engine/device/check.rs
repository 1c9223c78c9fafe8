//! The rules that hold for a target after every call, stated once. A simulator calls this after its steps.

use super::Device;
use crate::engine::flight::{Frame, Work};
use crate::engine::ids::{FrameId, PathId, ReqId};
use crate::engine::lanes::Lane;
use crate::engine::path::{Path, Place, Trust};
use crate::engine::request::{Job, Req};
use crate::engine::time::Time;

impl<R> Device<R> {
    /// Panics if the engine has broken a rule of its own; call it after [`Device::work`]. It looks at everything
    /// there is, so it does nothing in a build without debug assertions.
    pub fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        let mut frames: Vec<(Lane, FrameId)> = self.lanes.frames().collect();
        frames.sort_unstable();
        for (id, frame) in self.flight.iter() {
            self.check_frame(id, frame, &frames);
        }
        let mut requests: Vec<(Lane, ReqId)> = self.lanes.requests().collect();
        requests.sort_unstable();
        let mut busy: Vec<ReqId> = self.flight.iter().filter_map(|(_, f)| f.work.request()).collect();
        busy.sort_unstable();
        for (id, req) in &self.reqs {
            self.check_request(id, req, &requests, &busy);
        }
        assert!(self.held.iter().all(|id| self.reqs.contains(*id)), "a request is held that is over");
        let writing: usize = self.reqs.iter().filter_map(|(_, r)| r.memory.as_ref()).map(|m| m.len()).sum();
        assert_eq!(self.writing, writing, "bytes of writes");
        for (id, path) in self.paths.iter() {
            self.check_path(id, path);
        }
        if let Some(id) = self.confirming {
            let identify = |f: &Frame| matches!(f.work, Work::Identify { .. });
            assert!(self.flight.get(id).is_some_and(identify), "the IDENTIFY that confirms the disk is gone");
        }
        self.flight.check();
        self.locks.check();
        self.check_timer();
    }

    fn check_frame(&self, id: FrameId, frame: &Frame, lanes: &[(Lane, FrameId)]) {
        let request = frame.work.request();
        assert!(request.is_none_or(|req| self.reqs.contains(req)), "{id:?} outlives its request: {frame:?}");
        let flying = frame.attempts().filter(|c| c.flying).count();
        assert!(flying <= 1, "{id:?}: more than one attempt flies: {frame:?}");
        if frame.queued {
            let waits = lanes.binary_search(&(frame.work.lane(), id)).is_ok() || self.lanes.is_parked(id);
            assert!(waits, "{id:?} waits in no lane: {frame:?}");
            assert_eq!(flying, 0, "{id:?} waits to be sent while an attempt flies: {frame:?}");
        } else if flying == 0 {
            let once = frame.work.request().and_then(|req| self.reqs.get(req)).is_some_and(is_sent_once);
            assert!(once || frame.due != Time::NEVER, "{id:?} waits for nothing: {frame:?}");
        }
        for attempt in frame.attempts().filter(|c| c.flying) {
            let held = |p: &Path| p.holds(attempt.place, id);
            assert!(
                attempt.path.and_then(|p| self.paths.get(p)).is_some_and(held),
                "{id:?} has no place: {attempt:?}"
            );
        }
    }

    fn check_request(&self, id: ReqId, req: &Req<R>, lanes: &[(Lane, ReqId)], busy: &[ReqId]) {
        let queued = lanes.binary_search(&(req.lane(), id)).is_ok();
        assert!(!req.queued || queued, "request {id} waits in no lane");
        let held = self.held.iter().filter(|held| **held == id).count();
        assert_eq!(held, usize::from(req.held), "request {id} is held and not in the list, or the other way");
        assert_eq!(req.waits, self.ahead.is_waiting(id), "request {id} waits for what is read ahead, or not");
        let granted = req.lock().is_none_or(|lock| self.locks.is_granted(lock));
        assert_eq!(req.granted, granted, "request {id} has its lock, or not: {:?}", req.lock());
        // What a suspect answered is asked for anew when the disk has shown its identity.
        let later = !req.granted || req.held || req.waits || self.doubt.suspect();
        let served = req.queued || busy.binary_search(&id).is_ok();
        assert!(served || later, "request {id} waits for nothing: {:?}", req.job);
    }

    fn check_path(&self, id: PathId, path: &Path) {
        let flying = self.flight.iter().filter_map(|(_, f)| f.flying()).filter(|c| c.path == Some(id));
        let (mut window, mut ordered) = (0, 0);
        for attempt in flying {
            window += u32::from(attempt.place != Place::Outside);
            ordered += usize::from(matches!(attempt.place, Place::Ordered(_)));
        }
        assert_eq!(path.window.inflight(), window, "{id:?}: places in the window");
        assert_eq!(path.flying(), ordered, "{id:?}: places in the order of departures");
    }

    fn check_timer(&self) {
        let not_after = |due: Time, what: &dyn std::fmt::Debug| {
            assert!(self.timer <= due, "the timer is set to {:?}, after {due:?}: {what:?}", self.timer);
        };
        for (id, frame) in self.flight.iter().filter(|(_, f)| !f.queued) {
            not_after(frame.due, &(id, frame));
        }
        for (id, req) in &self.reqs {
            if let Some(patience) = self.patience(req) {
                not_after(req.submitted + patience, &("request", id));
            }
        }
        not_after(self.locks.awaited_end(), &"a quarantine ends");
        let ends = self.timer != Time::NEVER || self.locks.quarantined() == 0;
        assert!(ends, "nobody looks for the end of the quarantines");
        not_after(self.ahead.next_old(), &"what was read ahead is old");
        for (id, path) in self.paths.iter() {
            match path.trust {
                Trust::Tainted => not_after(path.probe_at, &("probe", id)),
                _ => not_after(path.ladder.climb_at, &("larger frames", id)),
            }
            not_after(path.overtaken_at().unwrap_or(Time::NEVER), &("overtaken", id));
            not_after(self.tail(id).map_or(Time::NEVER, |tail| tail.1), &("tail", id));
        }
        not_after(self.growth_due(), &"the operator's word");
        if self.paths.iter().any(|(_, p)| p.announcement_waits) {
            not_after(self.doubt.believes_next(), &"an announcement that is not believed yet");
        }
        if self.announced {
            not_after(self.identify_at, &"IDENTIFY after an announcement");
        }
    }
}

/// Is it a command that must not leave twice?
fn is_sent_once<R>(req: &Req<R>) -> bool {
    matches!(&req.job, Job::Ata(raw) if !raw.effect.repeatable)
}
