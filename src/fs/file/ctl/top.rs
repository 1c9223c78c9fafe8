//! The commands of the top ctl.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::fs::context::Context;
use crate::fs::ctl::{CtlError, Switch, Top};
use crate::fs::errno::{self, Errno};
use crate::near::listed;
use crate::runtime::{By, RuntimeError};
use crate::wire::Addr;

/// Runs one command of the top ctl.
pub fn run(context: &Context, command: &Top) -> Result<(), CtlError> {
    let runtime = &context.runtime;
    let switch = |flag: &AtomicBool, to: Switch| {
        flag.store(to.apply(flag.load(Ordering::Relaxed)), Ordering::Relaxed);
        Ok(())
    };
    match command {
        Top::Bind(name) => runtime.bind(name).map_err(|error| not_bound(name, error)),
        Top::Unbind(name) => runtime.unbind(name).map_err(|error| not_unbound(context, name, error)),
        Top::Discover(whom) => {
            runtime.discover(*whom);
            Ok(())
        }
        Top::Autodiscover(to) => switch(&runtime.switches.autodiscover, *to),
        Top::Rediscover(to) => switch(&runtime.switches.rediscover, *to),
        Top::Debug(to) => switch(&runtime.switches.debug, *to),
        Top::Remove { addr, force } => {
            runtime.remove(*addr, *force).map_err(|error| not_removed(context, *addr, error))
        }
        Top::RemoveDown => {
            runtime.remove_down();
            Ok(())
        }
        Top::Failio(addr) => {
            let unit = runtime.unit(*addr).ok_or_else(|| no_target(context, *addr))?;
            runtime.with_device(&unit, |device, now, sink| device.fail_all(now, sink));
            Ok(())
        }
    }
}

/// Runs one command of the configuration file that is for the top ctl: it holds for interfaces that are not there yet,
/// too.
pub fn run_config_line(context: &Context, command: &Top) -> Result<(), CtlError> {
    match command {
        Top::Bind(name) => {
            context.runtime.bind_when_there(name, By::File).map_err(|error| not_bound(name, error))
        }
        command => run(context, command),
    }
}

fn not_bound(name: &str, error: RuntimeError) -> CtlError {
    let words = match error {
        RuntimeError::NoDevice => format!("no Ethernet interface is called {name}; see: ip link"),
        RuntimeError::Exists => format!("{name} is in use already"),
        RuntimeError::Permission => {
            "sending AoE frames needs CAP_NET_RAW; start aoefs as root, and without --demo".into()
        }
        RuntimeError::Failed => format!("cannot use {name}; log has the reason"),
        RuntimeError::NotFound | RuntimeError::Busy => errno::words(error.into()),
    };
    CtlError::new(error.into(), words)
}

fn not_unbound(context: &Context, name: &str, error: RuntimeError) -> CtlError {
    let nets = context.runtime.netlinks();
    let words = match error {
        RuntimeError::NotFound => {
            let names = listed(nets.iter().map(|net| &net.name));
            format!("{name} is not in use; in use: {names}")
        }
        error => errno::words(error.into()),
    };
    CtlError::new(error.into(), words)
}

fn not_removed(context: &Context, addr: Addr, error: RuntimeError) -> CtlError {
    let users = |nopen: u32, requests: usize| match (nopen, requests) {
        (0, 1) => format!("1 request waits; say failio {addr} first, or remove -f {addr}"),
        (0, n) => format!("{n} requests wait; say failio {addr} first, or remove -f {addr}"),
        (1, _) => format!("1 file open; close it, or remove -f {addr}"),
        (n, _) => format!("{n} files open; close them, or remove -f {addr}"),
    };
    match (error, context.runtime.unit(addr)) {
        (RuntimeError::Busy, Some(unit)) => {
            let status = context.runtime.inspect(&unit, |device| device.status());
            CtlError::new(Errno::EBUSY, users(status.nopen, status.requests))
        }
        (RuntimeError::NotFound, _) => no_target(context, addr),
        (error, _) => Errno::from(error).into(),
    }
}

fn no_target(context: &Context, addr: Addr) -> CtlError {
    let names = listed(context.runtime.units().iter().map(|unit| unit.addr));
    CtlError::new(Errno::ENOENT, format!("no target {addr} is known; known: {names}"))
}
