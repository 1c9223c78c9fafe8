//! Running what was written to a ctl file, or to another one that takes commands, line by line.
//!
//! The lines of one write run in order. One that has to ask the target takes the rest of the write along in its
//! request and goes on where the answer arrives, so that nobody waits. The first line that fails ends the write with
//! its errno, and the log says which and why.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Core;
use crate::engine::{Device, Error, Handle, Io, Output};
use crate::fs::ctl::{self, CtlError, MaskEdit, RESERVED, ReserveEdit, Switch, Top, UnitCommand};
use crate::fs::errno::{self, Errno};
use crate::runtime::{Done, Unit};
use crate::wire::Verb;

/// Lines that one write may have: more than any target has partitions, and less than a handler may take time for. A write is
/// at most 1 MiB, which would be 170,000 lines.
const LINES_MAX: usize = 4096;

/// Which file was written to: whose commands it takes.
pub(super) enum Language {
    /// The top ctl.
    Top,
    /// A target's ctl.
    Unit(Arc<Unit>),
    /// A target's mask.
    Mask(Arc<Unit>),
    /// A target's reserve.
    Reserve(Arc<Unit>),
}

impl Language {
    fn unit(&self) -> Option<&Arc<Unit>> {
        match self {
            Self::Top => None,
            Self::Unit(unit) | Self::Mask(unit) | Self::Reserve(unit) => Some(unit),
        }
    }

    fn file(&self) -> &'static str {
        match self {
            Self::Top | Self::Unit(_) => "ctl",
            Self::Mask(_) => "mask",
            Self::Reserve(_) => "reserve",
        }
    }
}

/// A write to such a file, and how far it has got.
struct Script {
    core: Arc<Core>,
    language: Language,
    text: Vec<u8>,
    /// Where the next line begins.
    at: usize,
    /// Lines begun, for the log.
    line: usize,
    /// Names or sizes may be other ones than the tree's: seen to before anybody is told that a line is done.
    changed: bool,
    answer: Answer,
}

type Answer = Box<dyn FnOnce(Result<u32, Errno>) + Send>;

/// How far a command got at once.
enum Step {
    /// It is done, or it failed.
    Done(Result<(), Errno>),
    /// It asks the target.
    Ask(Ask),
}

/// What a command asks the target for.
enum Ask {
    /// A verb of AoE's config command.
    Config(Verb, Vec<u8>),
    /// The disk's partition table.
    Scan,
    /// A change of its mask.
    Mask(MaskEdit),
    /// A change of its reservation.
    Reserve(ReserveEdit),
    /// A socket for virtual machines: its path, and the disk's name.
    Vhost(PathBuf, String),
    /// The end of such a socket.
    Unvhost(PathBuf),
}

impl Script {
    /// Runs lines until one of them has to wait, or fails, or none is left.
    fn run(mut self) {
        if self.text.iter().filter(|&&byte| byte == b'\n').count() > LINES_MAX {
            let words = format!("more than {LINES_MAX} lines in one write");
            return self.refuse(&CtlError::new(Errno::ENOSPC, words));
        }
        while self.at < self.text.len() {
            let rest = &self.text[self.at..];
            let end = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
            let line = rest[..end].to_vec();
            self.at += end;
            self.line += 1;
            match self.step(&line) {
                Ok(Step::Done(Ok(()))) => {}
                Ok(Step::Done(Err(errno))) => return self.fail(&line, errno.into()),
                Ok(Step::Ask(ask)) => return self.ask(line, ask),
                Err(error) => return self.refuse(&error),
            }
        }
        let len = self.text.len() as u32;
        self.settle();
        (self.answer)(Ok(len));
    }

    /// What the lines so far have changed is visible from here on.
    fn settle(&mut self) {
        if std::mem::take(&mut self.changed)
            && let Some(unit) = self.language.unit()
        {
            self.core.refresh(unit);
        }
    }

    fn step(&mut self, line: &[u8]) -> Result<Step, CtlError> {
        let idle = Step::Done(Ok(()));
        Ok(match &self.language {
            Language::Top => {
                ctl::parse_top(line)?.map_or(idle, |command| Step::Done(self.core.run_top(&command)))
            }
            Language::Unit(unit) => match ctl::parse_unit(line)? {
                Some(command) => {
                    self.changed = true;
                    self.core.run_unit(unit, command)
                }
                None => idle,
            },
            Language::Mask(_) => ctl::parse_mask(line)?.map_or(idle, |edit| Step::Ask(Ask::Mask(edit))),
            Language::Reserve(_) => {
                ctl::parse_reserve(line)?.map_or(idle, |edit| Step::Ask(Ask::Reserve(edit)))
            }
        })
    }

    fn ask(mut self, line: Vec<u8>, ask: Ask) {
        self.settle();
        let Some(unit) = self.language.unit().cloned() else { return self.fail(&line, Errno::EINVAL.into()) };
        let core = self.core.clone();
        core.answer_to(&unit, ask, move |done| match done {
            Ok(()) => self.run(),
            Err(error) => self.fail(&line, error),
        });
    }

    /// The line is not one.
    fn refuse(mut self, error: &CtlError) {
        self.settle();
        self.log(&error.words);
        (self.answer)(Err(error.errno));
    }

    /// The command did not succeed.
    fn fail(mut self, line: &[u8], error: CtlError) {
        self.settle();
        self.log(&format!("{}: {error}", ctl::shown(String::from_utf8_lossy(line).trim())));
        (self.answer)(Err(error.errno));
    }

    fn log(&self, words: &str) {
        let (file, addr) = (self.language.file(), self.language.unit().map(|unit| unit.addr));
        self.core.runtime.log().log(file, addr, format_args!("{file} line {}: {words}", self.line));
    }
}

/// A command that changes only what is known here: nothing is sent for it. None for the others. It is also what runs
/// on a target that nobody can see yet. `uncached`: what the mount says where the target's own switch was never set.
pub(super) fn apply_local(
    device: &mut Device<Done>,
    command: &UnitCommand,
    uncached: bool,
) -> Option<Result<(), Errno>> {
    match command {
        UnitCommand::Part { name, .. } if RESERVED.contains(&name.as_str()) => {
            return Some(Err(Errno::EEXIST));
        }
        UnitCommand::Part { name, start, end } => {
            return Some(device.add_partition(name, *start, *end).map(|_| ()).map_err(errno::of_part));
        }
        UnitCommand::Delpart { name, .. } => {
            return Some(device.delete_partition(name).map(|_| ()).map_err(errno::of_part));
        }
        UnitCommand::Setsize(bytes) => return Some(device.set_size(*bytes).map_err(errno::of)),
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

/// What the log says of a partition that shares sectors with another one, after it was declared.
pub(super) fn overlap_of(device: &Device<Done>, command: &UnitCommand) -> Option<String> {
    let UnitCommand::Part { name, .. } = command else { return None };
    let other = device.overlapping(name)?;
    Some(format!("part {name} overlaps {}, sectors {} to {}", other.name, other.start, other.end))
}

impl Core {
    /// Runs what was written to a ctl file: a target's, or the top one.
    pub(super) fn run_commands(
        self: &Arc<Self>,
        language: Language,
        text: &[u8],
        answer: impl FnOnce(Result<u32, Errno>) + Send + 'static,
    ) {
        let (core, text) = (self.clone(), text.to_vec());
        Script { core, language, text, at: 0, line: 0, changed: false, answer: Box::new(answer) }.run();
    }

    /// Runs one command of the top ctl.
    pub fn run_top(&self, command: &Top) -> Result<(), Errno> {
        let switch = |flag: &AtomicBool, to: Switch| {
            flag.store(to.apply(flag.load(Ordering::Relaxed)), Ordering::Relaxed);
            Ok(())
        };
        let switches = &self.runtime.switches;
        match command {
            Top::Bind(name) => self.runtime.bind(name).map_err(errno::of_runtime),
            Top::Unbind(name) => self.runtime.unbind(name).map_err(errno::of_runtime),
            Top::Discover(whom) => {
                self.runtime.discover(*whom);
                Ok(())
            }
            Top::Autodiscover(to) => switch(&switches.autodiscover, *to),
            Top::Rediscover(to) => switch(&switches.rediscover, *to),
            Top::Debug(to) => switch(&switches.debug, *to),
            Top::Remove { addr, force } => self.runtime.remove(*addr, *force).map_err(errno::of_runtime),
            Top::RemoveDown => {
                self.runtime.remove_down();
                Ok(())
            }
            Top::Failio(addr) => {
                let unit = self.runtime.unit(*addr).ok_or(Errno::ENOENT)?;
                self.runtime.with_device(&unit, |device, now, sink| device.fail_all(now, sink));
                Ok(())
            }
        }
    }

    /// Runs one command of the configuration file that is for the top ctl: it holds for what is not there yet, too.
    pub fn run_top_line(&self, command: &Top) -> Result<(), Errno> {
        match command {
            Top::Bind(name) => self.runtime.bind_when_there(name).map_err(errno::of_runtime),
            command => self.run_top(command),
        }
    }

    /// Runs one command of a target's ctl whose answer nobody waits for: that of a configuration file.
    pub fn run_unit_line(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        command: UnitCommand,
        answer: impl FnOnce(Result<(), CtlError>) + Send + 'static,
    ) {
        if self.is_exported(unit, &command) {
            return answer(Ok(()));
        }
        let step = self.run_unit(unit, command);
        self.refresh(unit);
        match step {
            Step::Done(done) => answer(done.map_err(CtlError::from)),
            Step::Ask(ask) => self.answer_to(unit, ask, answer),
        }
    }

    fn run_unit(self: &Arc<Self>, unit: &Arc<Unit>, command: UnitCommand) -> Step {
        let mut overlap = None;
        let local = self.runtime.with_device(unit, |device, now, sink| {
            if self.is_in_use(device, &command) {
                return Some(Err(Errno::EBUSY));
            }
            let local = apply_local(device, &command, self.settings.uncached);
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
            self.runtime.log().log("part", Some(unit.addr), overlap);
        }
        if let Some(done) = local {
            return Step::Done(done);
        }
        match command {
            UnitCommand::Config { verb, string } => return Step::Ask(Ask::Config(verb, string)),
            UnitCommand::Partscan => return Step::Ask(Ask::Scan),
            UnitCommand::Flush => self.flush_and_log(unit),
            UnitCommand::Vhost { path, name } => return Step::Ask(Ask::Vhost(path, name)),
            UnitCommand::Unvhost(path) => return Step::Ask(Ask::Unvhost(path)),
            _ => {}
        }
        Step::Done(Ok(()))
    }

    /// Whether a partition would be dropped that somebody has open.
    fn is_in_use(&self, device: &Device<Done>, command: &UnitCommand) -> bool {
        let UnitCommand::Delpart { name, force: false } = command else { return false };
        let part = device.partitions().find(|part| part.name == *name);
        part.is_some_and(|part| self.handles.is_open(device.handle(Some(part.id)), device.addr()))
    }

    fn answer_to(
        self: &Arc<Self>,
        unit: &Arc<Unit>,
        ask: Ask,
        answer: impl FnOnce(Result<(), CtlError>) + Send + 'static,
    ) {
        match ask {
            Ask::Scan => self.partscan(unit, answer),
            Ask::Mask(edit) => self.edit_mask(unit, edit, answer),
            Ask::Reserve(edit) => self.edit_reserve(unit, edit, answer),
            Ask::Vhost(path, name) => self.export(unit, path, name, answer),
            Ask::Unvhost(path) => self.unexport(unit, path, answer),
            Ask::Config(verb, string) => {
                let io = Io::Config { verb, string: string.clone() };
                self.submit(unit, self.whole(unit), false, io, move |outcome| {
                    let done = match outcome {
                        Ok(Output::Config(said)) => config_agrees(verb, &string, &said),
                        Ok(_) => Err(Errno::EIO),
                        Err(error) => Err(match (verb, errno::of(error)) {
                            // A target whose string is another keeps silent.
                            (Verb::Test | Verb::Prefix, Errno::ETIMEDOUT) => Errno::ENOENT,
                            (_, errno) => errno,
                        }),
                    };
                    answer(done.map_err(CtlError::from));
                });
            }
        }
    }

    /// A handle to the whole of the disk that is there now.
    pub(super) fn whole(&self, unit: &Unit) -> Handle {
        self.runtime.look(unit, |device| device.handle(None))
    }

    /// One at a time: however often it is asked for meanwhile, one more follows.
    fn flush_and_log(self: &Arc<Self>, unit: &Arc<Unit>) {
        if self.flushing.lock().entry(unit.id).and_modify(|again| *again = true).or_default() == &true {
            return;
        }
        let (core, own) = (self.clone(), unit.clone());
        self.submit(unit, self.whole(unit), false, Io::Flush, move |outcome| {
            if let Err(Error::Io) = outcome {
                own.failed_flushes.fetch_add(1, Ordering::SeqCst);
            }
            let said = match outcome {
                Ok(_) => "flush: done".to_string(),
                Err(error) => format!("flush: {}", errno::words(errno::of(error))),
            };
            core.runtime.log().log("flush", Some(own.addr), said);
            if core.flushing.lock().remove(&own.id) == Some(true) {
                core.flush_and_log(&own);
            }
        });
    }

    /// `remove`, or `rmdir` of the directory.
    pub(super) fn remove(&self, unit: &Unit, force: bool) -> Result<(), Errno> {
        self.runtime.remove(unit.addr, force).map_err(errno::of_runtime)
    }
}

/// Some targets answer every verb as if it were a read: what they say has to agree with what was asked.
fn config_agrees(verb: Verb, asked: &[u8], said: &[u8]) -> Result<(), Errno> {
    match verb {
        Verb::Prefix if !said.starts_with(asked) => Err(Errno::ENOENT),
        Verb::Test if said != asked => Err(Errno::ENOENT),
        Verb::Set if said != asked => Err(Errno::EEXIST),
        Verb::Force if said != asked => Err(Errno::EIO),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_does_not_agree_is_none() {
        let agrees = |verb, asked: &str, said: &str| config_agrees(verb, asked.as_bytes(), said.as_bytes());
        assert_eq!(agrees(Verb::Test, "a", "a"), Ok(()));
        assert_eq!(agrees(Verb::Test, "a", "ab"), Err(Errno::ENOENT));
        assert_eq!(agrees(Verb::Prefix, "a", "ab"), Ok(()));
        assert_eq!(agrees(Verb::Prefix, "", ""), Ok(()));
        assert_eq!(agrees(Verb::Prefix, "b", "ab"), Err(Errno::ENOENT));
        assert_eq!(agrees(Verb::Set, "mine", "mine"), Ok(()));
        assert_eq!(agrees(Verb::Set, "mine", "theirs"), Err(Errno::EEXIST));
        assert_eq!(agrees(Verb::Force, "mine", "theirs"), Err(Errno::EIO));
    }
}
