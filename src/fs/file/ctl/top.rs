//! The commands of the top ctl.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::fs::context::Context;
use crate::fs::ctl::{Switch, Top};
use crate::fs::errno::Errno;
use crate::runtime::By;

/// Runs one command of the top ctl.
pub fn run(context: &Context, command: &Top) -> Result<(), Errno> {
    let runtime = &context.runtime;
    let switch = |flag: &AtomicBool, to: Switch| {
        flag.store(to.apply(flag.load(Ordering::Relaxed)), Ordering::Relaxed);
        Ok(())
    };
    match command {
        Top::Bind(name) => runtime.bind(name).map_err(Errno::from),
        Top::Unbind(name) => runtime.unbind(name).map_err(Errno::from),
        Top::Discover(whom) => {
            runtime.discover(*whom);
            Ok(())
        }
        Top::Autodiscover(to) => switch(&runtime.switches.autodiscover, *to),
        Top::Rediscover(to) => switch(&runtime.switches.rediscover, *to),
        Top::Debug(to) => switch(&runtime.switches.debug, *to),
        Top::Remove { addr, force } => runtime.remove(*addr, *force).map_err(Errno::from),
        Top::RemoveDown => {
            runtime.remove_down();
            Ok(())
        }
        Top::Failio(addr) => {
            let unit = runtime.unit(*addr).ok_or(Errno::ENOENT)?;
            runtime.with_device(&unit, |device, now, sink| device.fail_all(now, sink));
            Ok(())
        }
    }
}

/// Runs one command of the configuration file that is for the top ctl: it holds for interfaces that are not there yet,
/// too.
pub fn run_config_line(context: &Context, command: &Top) -> Result<(), Errno> {
    match command {
        Top::Bind(name) => context.runtime.bind_when_there(name, By::File).map_err(Errno::from),
        command => run(context, command),
    }
}
