//! The `mask` and `reserve` files, with one host and with two.

use aoefs::fs::errno::Errno;

use super::host::Host;

const OTHER: &str = "02:00:00:00:00:77";

/// The address by which a host reaches the target.
fn own(host: &Host) -> String {
    host.runtime.netlinks()[0].mac.to_string()
}

#[test]
fn a_mask_lets_its_maker_in() {
    let host = Host::new();
    let other = host.beside();
    assert_eq!(host.cat("1.0/mask").unwrap(), "");
    let text = format!("# who may\n\nadd {OTHER}\n");
    assert_eq!(host.echo("1.0/mask", &text), Ok(text.len() as u32));
    let list = format!("{}\n{OTHER}\n", own(&host));
    assert_eq!(host.cat("1.0/mask").unwrap(), list);
    // Once more changes nothing.
    host.echo("1.0/mask", &format!("add {OTHER}")).unwrap();
    assert_eq!(host.cat("1.0/mask").unwrap(), list);
    // The other host is shut out: it hears nothing, and cannot tell whether the target is away.
    assert_eq!(other.cat("1.0/mask").unwrap_err(), Errno::ETIMEDOUT);
    host.echo("1.0/mask", &format!("del {OTHER}\nadd {}", own(&other))).unwrap();
    assert_eq!(other.cat("1.0/mask").unwrap(), format!("{}\n{}\n", own(&host), own(&other)));
    // It can take itself out, if it insists, and then it is out.
    assert_eq!(other.echo("1.0/mask", &format!("del {}", own(&other))), Err(Errno::EINVAL));
    assert!(other.log().contains("say del! to do it nevertheless"), "{}", other.log());
    other.echo("1.0/mask", &format!("del! {}", own(&other))).unwrap();
    assert_eq!(host.cat("1.0/mask").unwrap(), format!("{}\n", own(&host)));
    // The last one opens the target to everybody.
    host.echo("1.0/mask", &format!("del {}", own(&host))).unwrap();
    assert_eq!(other.cat("1.0/mask").unwrap(), "");
    other.end();
    host.end();
}

#[test]
fn mask_lines_that_are_refused() {
    let host = Host::new();
    for (line, errno, words) in [
        ("add", Errno::EINVAL, "usage: add MAC"),
        ("add 1.0", Errno::EINVAL, "is not a MAC address"),
        ("add ff:ff:ff:ff:ff:ff", Errno::EINVAL, "not the address of one station"),
        ("remove 02:00:00:00:00:77", Errno::EINVAL, "no such command"),
        ("del 02:00:00:00:00:77", Errno::ENOENT, "is not in the list"),
        ("\u{e9}", Errno::EINVAL, "no such command"),
    ] {
        assert_eq!(host.echo("1.0/mask", line), Err(errno), "{line}");
        assert!(host.log().contains(words), "{line}: {}", host.log());
    }
    assert_eq!(host.cat("1.0/mask").unwrap(), "");
    // What is before the line that fails is done.
    assert_eq!(
        host.echo("1.0/mask", &format!("add {OTHER}\nadd nobody\nadd {}", own(&host))),
        Err(Errno::EINVAL)
    );
    assert!(host.log().contains("mask line 2: "));
    assert_eq!(host.cat("1.0/mask").unwrap(), format!("{}\n{OTHER}\n", own(&host)));
    // A list that is full.
    let many: String = (0..253).map(|n| format!("add 02:00:00:00:01:{n:02x}\n")).collect();
    host.echo("1.0/mask", &many).unwrap();
    assert_eq!(host.echo("1.0/mask", "add 02:00:00:00:02:00"), Err(Errno::ENOSPC));
    assert!(host.log().contains("mask list full, at 02:00:00:00:02:00"), "{}", host.log());
    host.end();
}

#[test]
fn a_reservation_keeps_the_other_out_and_says_who() {
    let host = Host::new();
    let other = host.beside();
    let (mine, theirs) = (own(&host), own(&other));
    assert_eq!(host.cat("1.0/reserve").unwrap(), "");
    host.echo("1.0/reserve", "take\n").unwrap();
    assert_eq!(other.cat("1.0/reserve").unwrap(), format!("{mine}\n"));
    // I/O of the other is refused, its own attempt to take it, too; reading who it is, is not.
    let fh = other.open("1.0/data");
    assert_eq!(other.read_at(fh, 0, 512), Err(Errno::EBUSY));
    assert_eq!(other.write_at(fh, 0, b"no"), Err(Errno::EBUSY));
    assert_eq!(other.sync(fh), Err(Errno::EBUSY));
    other.eventually(|| other.log().contains(&format!("reserved for {mine}")));
    assert_eq!(other.echo("1.0/reserve", "take"), Err(Errno::EBUSY));
    assert_eq!(other.echo("1.0/reserve", &format!("set {theirs}")), Err(Errno::EBUSY));
    assert_eq!(other.echo("1.0/reserve", "release"), Err(Errno::EBUSY));
    let ours = host.open("1.0/data");
    assert_eq!(host.write_at(ours, 0, b"yes"), Ok(3));
    // By force, for both.
    other.echo("1.0/reserve", &format!("force {theirs} {mine} {theirs}")).unwrap();
    assert_eq!(host.cat("1.0/reserve").unwrap(), format!("{theirs}\n{mine}\n"));
    assert_eq!(other.read_at(fh, 0, 3).unwrap(), b"yes");
    host.echo("1.0/reserve", "take").unwrap();
    assert_eq!(other.read_at(fh, 0, 3), Err(Errno::EBUSY));
    host.echo("1.0/reserve", "release").unwrap();
    assert_eq!(other.cat("1.0/reserve").unwrap(), "");
    assert_eq!(other.read_at(fh, 0, 3).unwrap(), b"yes");
    for line in ["take me", "set", "force", "set nobody", "hold"] {
        assert_eq!(host.echo("1.0/reserve", line), Err(Errno::EINVAL), "{line}");
    }
    host.core.release(ours);
    other.core.release(fh);
    other.end();
    host.end();
}

#[test]
fn a_target_that_is_away_answers_neither() {
    let host = Host::new();
    host.silence(true);
    let start = std::time::Instant::now();
    assert_eq!(host.cat("1.0/reserve").unwrap_err(), Errno::ETIMEDOUT);
    assert_eq!(host.echo("1.0/mask", &format!("add {OTHER}")), Err(Errno::ETIMEDOUT));
    let took = start.elapsed().as_secs_f64();
    assert!((3.9..5.0).contains(&took), "{took}");
    host.silence(false);
    host.eventually(|| host.cat("1.0/reserve").is_ok());
    host.end();
}
