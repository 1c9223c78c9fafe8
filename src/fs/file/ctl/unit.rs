//! The commands of a target's ctl.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{ask, export, partscan};
use crate::engine::{Device, Error, Io, PARTITIONS_MAX, PartError};
use crate::fs::answer::Answer;
use crate::fs::context::Context;
use crate::fs::ctl::{CtlError, UnitCommand};
use crate::fs::errno::{self, Errno};
use crate::fs::file::script::Progress;
use crate::fs::tree;
use crate::near;
use crate::runtime::{Done, Unit};
use crate::wire::SECTOR;

/// Runs a command that changes only settings here, and sends no frame. None: it is another command. This is all that
/// runs on a target that is in no directory yet. `uncached`: what the mount says where the target's own switch was
/// never set.
pub fn apply_local(
    device: &mut Device<Done>,
    command: &UnitCommand,
    uncached: bool,
) -> Option<Result<(), CtlError>> {
    match command {
        UnitCommand::Part { name, start, end } => return Some(part(device, name, *start, *end)),
        UnitCommand::Delpart { name, .. } => {
            let deleted = device.delete_partition(name).map(|_| ());
            return Some(deleted.map_err(|error| CtlError::new(error.into(), no_partition(device, name))));
        }
        UnitCommand::Setsize(bytes) => {
            let set = device.set_size(*bytes);
            let bytes = u128::from(device.status().sectors) * SECTOR as u128;
            let words = format!("past the end: the disk has {bytes} bytes");
            return Some(set.map_err(|error| CtlError::new(error.into(), words)));
        }
        UnitCommand::Mtu(mtu) => device.set_mtu(mtu.map(usize::from)),
        UnitCommand::Maxbno(sectors) => device.set_maxbno(*sectors),
        UnitCommand::Jumbo(switch) => device.set_jumbo(switch.apply(device.jumbo())),
        UnitCommand::Nofail(switch) => device.set_nofail(switch.apply(device.nofail())),
        UnitCommand::DirectIo(switch) => {
            device.set_uncached(switch.apply(device.uncached().unwrap_or(uncached)));
        }
        UnitCommand::Deadline(time) => device.set_deadline(*time),
        UnitCommand::Maxout(frames) => device.set_maxout(frames.map(u32::from)),
        UnitCommand::Partscan
        | UnitCommand::Identify
        | UnitCommand::Failio
        | UnitCommand::Config { .. }
        | UnitCommand::Flush
        | UnitCommand::Probe
        | UnitCommand::Vhost { .. }
        | UnitCommand::Unvhost(_) => return None,
    }
    Some(Ok(()))
}

fn part(device: &mut Device<Done>, name: &str, start: u64, end: u64) -> Result<(), CtlError> {
    if tree::is_reserved(name) {
        let words = format!("every target has a file {name}; choose another name");
        return Err(CtlError::new(Errno::EEXIST, words));
    }
    let Err(error) = device.add_partition(name, start, end) else { return Ok(()) };
    let old = device.partitions().find(|part| part.name == name);
    let words = match (error, old) {
        (PartError::Exists, Some(old)) => {
            format!("{name} is {} {}; delpart {name} first, or choose another name", old.start, old.end)
        }
        (PartError::Range, _) => {
            format!("past the end: the disk has {} sectors", device.size() / SECTOR as u64)
        }
        (PartError::TooMany, _) => format!("a target has at most {PARTITIONS_MAX} partitions; delpart some"),
        (error, _) => errno::words(error.into()),
    };
    Err(CtlError::new(error.into(), words))
}

fn no_partition(device: &Device<Done>, name: &str) -> String {
    let names: Vec<&str> = device.partitions().map(|part| part.name.as_str()).collect();
    match names.is_empty() {
        true => format!("no partition {name}: there is none"),
        false => {
            let hint = near::hint(name, names, "ctl shows them: cat ctl");
            format!("no partition {name}{hint}")
        }
    }
}

/// A line for the log, if the partition that was just declared shares sectors with another one.
pub fn overlap_of(device: &Device<Done>, command: &UnitCommand) -> Option<String> {
    let UnitCommand::Part { name, .. } = command else { return None };
    let other = device.overlapping(name)?;
    Some(format!("part {name} overlaps {}, sectors {} to {}", other.name, other.start, other.end))
}

/// Runs one command of the configuration file. No program waits for its answer.
pub fn run_config_line(
    context: &Arc<Context>,
    unit: &Arc<Unit>,
    command: UnitCommand,
    answer: impl Answer<(), CtlError>,
) {
    if export::is_done(context, unit, &command) {
        return answer(Ok(()));
    }
    let step = run(context, unit, command);
    context.refresh(unit);
    match step {
        Progress::Done(done) => answer(done),
        Progress::Ask(question) => question(Box::new(answer)),
    }
}

/// Runs one command. The caller then refreshes the names.
pub fn run(context: &Arc<Context>, unit: &Arc<Unit>, command: UnitCommand) -> Progress {
    let mut overlap = None;
    let local = context.runtime.with_device(unit, |device, now, sink| {
        if let Some(error) = in_use(context, unit, device, &command) {
            return Some(Err(error));
        }
        let local = apply_local(device, &command, context.settings.uncached);
        if let Some(Ok(())) = local {
            overlap = overlap_of(device, &command);
        }
        match command {
            UnitCommand::Identify => device.identify(now, sink),
            UnitCommand::Failio => device.fail_all(now, sink),
            UnitCommand::Probe => device.probe(now, sink),
            _ => {}
        }
        local
    });
    if let Some(overlap) = overlap {
        context.runtime.log().warn("part", Some(unit.addr), overlap);
    }
    if let Some(done) = local {
        return Progress::Done(done);
    }
    let (context, unit) = (context.clone(), unit.clone());
    match command {
        UnitCommand::Config { verb, string } => {
            return Progress::Ask(Box::new(move |ended| ask::config(&context, &unit, verb, string, ended)));
        }
        UnitCommand::Partscan => {
            return Progress::Ask(Box::new(move |ended| partscan::scan(&context, &unit, ended)));
        }
        UnitCommand::Flush => flush_and_log(&context, &unit),
        UnitCommand::Vhost { path, name } => {
            return Progress::Ask(Box::new(move |ended| export::begin(&context, &unit, &path, name, ended)));
        }
        UnitCommand::Unvhost(path) => {
            return Progress::Ask(Box::new(move |ended| export::end(&context, &unit, &path, ended)));
        }
        _ => {}
    }
    Progress::Done(Ok(()))
}

/// Why the command may not drop its partition: it is open.
fn in_use(context: &Context, unit: &Unit, device: &Device<Done>, command: &UnitCommand) -> Option<CtlError> {
    let UnitCommand::Delpart { name, force: false } = command else { return None };
    let part = device.partitions().find(|part| part.name == *name)?;
    let words = match context.tree.opens(unit.id, device.handle(Some(part.id))) {
        0 => return None,
        1 => format!("1 file open; close it, or delpart -f {name}"),
        n => format!("{n} files open; close them, or delpart -f {name}"),
    };
    Some(CtlError::new(Errno::EBUSY, words))
}

/// Asks for one flush at a time: if `flush` is written again meanwhile, however often, one more follows.
fn flush_and_log(context: &Arc<Context>, unit: &Arc<Unit>) {
    if context.flushing.lock().entry(unit.id).and_modify(|again| *again = true).or_default() == &true {
        return;
    }
    let (own, target) = (context.clone(), unit.clone());
    context.submit(unit, context.whole(unit), false, Io::Flush, move |outcome| {
        if let Err(Error::Io) = outcome {
            target.failed_flushes.fetch_add(1, Ordering::SeqCst);
        }
        let (log, addr) = (own.runtime.log(), Some(target.addr));
        match outcome {
            Ok(_) => log.log("flush", addr, "flush: done"),
            Err(error) => {
                log.warn("flush", addr, format_args!("flush: {}", errno::words(Errno::from(error))));
            }
        }
        if own.flushing.lock().remove(&target.id) == Some(true) {
            flush_and_log(&own, &target);
        }
    });
}
