//! Into the background: the word that the shell gets, and what becomes of the two processes. `--background HOW` is the
//! process under test; it mounts nothing.

use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::time::Duration;

use aoefs::daemon::background::{self, Side};
use aoefs::daemon::signals::Signals;
use aoefs::failure::Failure;
use nix::sys::signal::Signal;

use crate::bed::room::{SOON, running, this_program};
use crate::bed::{Daemon, proc, until};

crate::tests![
    the_shell_gets_one_line_and_0,
    the_shell_gets_the_reason_and_the_code,
    a_daemon_that_dies_is_reported,
    an_interrupt_goes_on_to_the_daemon,
    systemd_is_told,
];

/// `--background ready|fail|die|slow`
pub fn main(args: &[String]) -> ExitCode {
    let signals = Signals::block().unwrap();
    let mut ready = match background::detach(&signals) {
        Ok(Side::Daemon(ready)) => ready,
        Ok(Side::Parent(code)) => return code,
        Err(failure) => return background::report(&failure),
    };
    match args.first().map(String::as_str) {
        Some("ready") => {
            ready.ready(&format!("pid {}\nand more", std::process::id()));
            // Whatever it says now is for nobody, and must not end it.
            println!("unheard");
            eprintln!("unheard");
            signals.next(None).unwrap();
            ExitCode::SUCCESS
        }
        Some("fail") => ready.failed(&Failure::with_code(2, "it is\nbroken; mend it")),
        Some("slow") => match signals.next(Some(Duration::from_secs(20))).unwrap() {
            Some(wish) => ready.failed(&Failure::start(format!("{wish:?} while starting; start again"))),
            None => ExitCode::SUCCESS,
        },
        _ => std::process::abort(),
    }
}

fn run(how: &str) -> proc::Output {
    proc::run(SOON, &[&this_program(), "--background", how])
}

/// The daemon that printed its process id is told to stop, and does.
fn stop(stdout: &str) {
    let pid: u32 = stdout.strip_prefix("pid ").unwrap().split('\\').next().unwrap().parse().unwrap();
    assert!(running(pid));
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/fd/2")).unwrap().to_str(), Some("/dev/null"));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap();
    assert_eq!(session, pid.to_string(), "it leads a session of its own");
    proc::signal(pid, Signal::SIGTERM);
    until("it is gone", SOON, || !running(pid));
}

fn the_shell_gets_one_line_and_0() {
    let output = run("ready");
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{}", output.stdout);
    assert!(output.stdout.ends_with("\\nand more\n"), "{}", output.stdout);
    assert_eq!(output.stdout.lines().count(), 1);
    stop(&output.stdout);
}

fn the_shell_gets_the_reason_and_the_code() {
    let output = run("fail");
    assert_eq!(output.code, Some(2));
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", "aoefs: it is\\nbroken; mend it\n"));
}

fn a_daemon_that_dies_is_reported() {
    let output = run("die");
    assert_eq!(output.code, Some(1));
    assert_eq!(
        output.stderr,
        "aoefs: the daemon was ended by SIGABRT while it started; run it with -f -v to see why\n"
    );
}

fn an_interrupt_goes_on_to_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let shell = Daemon::spawn(dir.path(), "slow", &[&this_program(), "--background", "slow"]);
    // Both block the signal from their first step on; before that it would just end the one that is there.
    let children = format!("/proc/{0}/task/{0}/children", shell.pid());
    until("there are two", SOON, || std::fs::read_to_string(&children).is_ok_and(|text| !text.is_empty()));
    shell.signal(Signal::SIGINT);
    assert_eq!(shell.ended(SOON), 1);
    assert_eq!(shell.said(), "aoefs: Stop while starting; start again\n");
}

fn systemd_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let notify = format!("NOTIFY_SOCKET={}", path.to_str().unwrap());
    let output = proc::run(SOON, &["env", &notify, &this_program(), "--background", "ready"]);
    assert!(output.ok(), "{}", output.stderr);
    let mut text = [0; 256];
    let length = socket.recv(&mut text).unwrap();
    let text = std::str::from_utf8(&text[..length]).unwrap();
    let pid = output.stdout.strip_prefix("pid ").unwrap().split('\\').next().unwrap();
    assert_eq!(text, format!("READY=1\nMAINPID={pid}\nSTATUS=pid {pid}\\nand more\n"));
    stop(&output.stdout);
}
