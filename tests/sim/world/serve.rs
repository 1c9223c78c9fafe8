//! What a target does with a request that reached it, and whose disk the request was meant for.

use super::*;
use crate::target::Origin;

impl World {
    pub(super) fn begin_service(&mut self, t: usize) {
        let target = &mut self.targets[t];
        target.busy = false;
        if let Some(next) = target.queue.front() {
            let time = target.service_time(&mut self.rng, &next.frame);
            target.busy = true;
            let life = target.life;
            self.at(self.now.0 + time, Happening::Serve { target: t, life });
        }
    }

    pub(super) fn serve(&mut self, t: usize, life: u32) {
        if !self.targets[t].alive || self.targets[t].life != life {
            return;
        }
        let Some(mut arrived) = self.targets[t].queue.pop_front() else { return };
        for _ in 0..arrived.copies {
            let meant = self.meant_for_another(t, &arrived);
            let target = &mut self.targets[t];
            let mac = target.macs[self.wires[arrived.wire].port];
            let mut frame = arrived.frame.clone();
            let disk = meant.and_then(|disk| self.shelf.iter_mut().find(|d| d.identity() == disk));
            let (answer, problem) = match (meant, disk) {
                (Some(_), Some(disk)) => {
                    let answer = target.execute_on(disk, self.tick, &mut self.rng, &mut frame, mac);
                    (answer, disk.problem.take())
                }
                // The disk changed its size since, or is nowhere: nobody can answer for it.
                (Some(_), None) => break,
                (None, _) => {
                    let answer = target.execute(self.tick, &mut self.rng, &mut frame, mac);
                    (answer, target.disk().problem.take())
                }
            };
            if let Some(problem) = problem {
                self.violate(|| problem);
            }
            let Some(answer) = answer else { continue };
            self.answer(arrived.wire, answer);
        }
        arrived.frame.clear();
        self.begin_service(t);
    }

    /// IDENTITY: is this request one that the initiator had for another disk? A violation if the initiator could have
    /// known. If it could not, this is the disk that was meant: it gets the request, so that each disk's book stays
    /// true, and the initiator gets an answer, as it would from the disk that is there: a request that is dropped
    /// would be a loss, after which the initiator asks who is there.
    fn meant_for_another(&mut self, t: usize, arrived: &Arrived) -> Option<(usize, u64)> {
        let Origin { unit: Some(u), disk, sent, heard, blind_repeat, tick, unconfirmed } = arrived.origin
        else {
            return None;
        };
        let target = &self.targets[t];
        let is = target.look().identity();
        if is == disk || (is.0 == disk.0 && target.resized) || !touches_data(&arrived.frame) {
            return None;
        }
        let told = |since| {
            self.units[u].announced.iter().any(|a| a.at >= since && a.tick < tick && a.counts_from <= sent)
        };
        let told = target.restarted.is_some_and(told);
        let excused = target.restarted.is_some()
            && sent.saturating_sub(heard) <= SILENCE
            && !told
            && !blind_repeat
            && !unconfirmed;
        if excused {
            self.figures.shielded += 1;
            return Some(disk);
        }
        if modifies(&arrived.frame) {
            self.violate(|| {
                format!("IDENTITY: a write for disk {disk:?} that left at {sent} (heard {heard}, told {told}, blind {blind_repeat}) reached disk {is:?}")
            });
        }
        None
    }
}
