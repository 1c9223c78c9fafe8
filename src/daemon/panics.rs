//! A panic is a bug, and a process with one thread less is not the program that was written: it would hold a mount or a
//! target that answers nothing. So a panic on any thread is written to the log and ends the process at once.

use std::any::Any;
use std::panic::{self, PanicHookInfo};

use super::logging;

/// The exit code after a panic: EX_SOFTWARE of sysexits(3). The process ends with it for no other reason.
pub const EXIT_CODE: i32 = 70;

/// From now on a panic on any thread ends the process with [`EXIT_CODE`], after one line that says which thread, where
/// and why. A log that takes no line holds this up for a moment only ([`logging::PATIENCE`]).
pub fn install() {
    panic::set_hook(Box::new(|info| {
        logging::last_words(&line(info));
        // SAFETY: it takes an integer and does not return. exit(3) would run destructors of state that is broken.
        unsafe { libc::_exit(EXIT_CODE) }
    }));
}

fn line(info: &PanicHookInfo<'_>) -> String {
    let thread = std::thread::current();
    let place = info.location().map_or_else(|| "an unknown place".into(), ToString::to_string);
    format!(
        "bug: thread {} panicked at {place}: {}; please report this line",
        thread.name().unwrap_or("without a name"),
        message(info.payload())
    )
}

fn message(payload: &(dyn Any + Send)) -> &str {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "no message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_either_kind_is_text() {
        assert_eq!(message(&"a"), "a");
        assert_eq!(message(&String::from("b")), "b");
        assert_eq!(message(&7u8), "no message");
    }
}
