//! The `mask` and `reserve` files, with one host and with two.

use aoefs::fs::errno::Errno;

use super::bed::Bed;

const OTHER: &str = "02:00:00:00:00:77";

/// The address by which a host reaches the target.
fn own(bed: &Bed) -> String {
    bed.runtime.netlinks()[0].mac.to_string()
}

#[test]
fn a_mask_lets_its_maker_in() {
    let bed = Bed::new();
    let other = bed.beside();
    assert_eq!(bed.cat("1.0/mask").unwrap(), "");
    let text = format!("# who may\n\nadd {OTHER}\n");
    assert_eq!(bed.echo("1.0/mask", &text), Ok(text.len() as u32));
    let list = format!("{}\n{OTHER}\n", own(&bed));
    assert_eq!(bed.cat("1.0/mask").unwrap(), list);
    // Once more changes nothing.
    bed.echo("1.0/mask", &format!("add {OTHER}")).unwrap();
    assert_eq!(bed.cat("1.0/mask").unwrap(), list);
    // The other host is shut out: it hears nothing, and cannot tell whether the target is away.
    assert_eq!(other.cat("1.0/mask").unwrap_err(), Errno::ETIMEDOUT);
    bed.echo("1.0/mask", &format!("del {OTHER}\nadd {}", own(&other))).unwrap();
    assert_eq!(other.cat("1.0/mask").unwrap(), format!("{}\n{}\n", own(&bed), own(&other)));
    // It can take itself out, if it insists, and then it is out.
    assert_eq!(other.echo("1.0/mask", &format!("del {}", own(&other))), Err(Errno::EINVAL));
    assert!(other.log().contains("say del! to do it nevertheless"), "{}", other.log());
    other.echo("1.0/mask", &format!("del! {}", own(&other))).unwrap();
    assert_eq!(bed.cat("1.0/mask").unwrap(), format!("{}\n", own(&bed)));
    // The last one opens the target to everybody.
    bed.echo("1.0/mask", &format!("del {}", own(&bed))).unwrap();
    assert_eq!(other.cat("1.0/mask").unwrap(), "");
    other.end();
    bed.end();
}

#[test]
fn mask_lines_that_are_refused() {
    let bed = Bed::new();
    for (line, errno, words) in [
        ("add", Errno::EINVAL, "usage: add MAC"),
        ("add 1.0", Errno::EINVAL, "is not a MAC address"),
        ("add ff:ff:ff:ff:ff:ff", Errno::EINVAL, "not the address of one station"),
        ("remove 02:00:00:00:00:77", Errno::EINVAL, "no such command"),
        ("del 02:00:00:00:00:77", Errno::ENOENT, "is not in the list"),
        ("\u{e9}", Errno::EINVAL, "no such command"),
    ] {
        assert_eq!(bed.echo("1.0/mask", line), Err(errno), "{line}");
        assert!(bed.log().contains(words), "{line}: {}", bed.log());
    }
    assert_eq!(bed.cat("1.0/mask").unwrap(), "");
    // What is before the line that fails is done.
    assert_eq!(
        bed.echo("1.0/mask", &format!("add {OTHER}\nadd nobody\nadd {}", own(&bed))),
        Err(Errno::EINVAL)
    );
    assert!(bed.log().contains("mask line 2: "));
    assert_eq!(bed.cat("1.0/mask").unwrap(), format!("{}\n{OTHER}\n", own(&bed)));
    // A list that is full.
    let many: String = (0..253).map(|n| format!("add 02:00:00:00:01:{n:02x}\n")).collect();
    bed.echo("1.0/mask", &many).unwrap();
    assert_eq!(bed.echo("1.0/mask", "add 02:00:00:00:02:00"), Err(Errno::ENOSPC));
    assert!(bed.log().contains("mask list full, at 02:00:00:00:02:00"), "{}", bed.log());
    bed.end();
}

#[test]
fn a_reservation_keeps_the_other_out_and_says_who() {
    let bed = Bed::new();
    let other = bed.beside();
    let (mine, theirs) = (own(&bed), own(&other));
    assert_eq!(bed.cat("1.0/reserve").unwrap(), "");
    bed.echo("1.0/reserve", "take\n").unwrap();
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
    let ours = bed.open("1.0/data");
    assert_eq!(bed.write_at(ours, 0, b"yes"), Ok(3));
    // By force, for both.
    other.echo("1.0/reserve", &format!("force {theirs} {mine} {theirs}")).unwrap();
    assert_eq!(bed.cat("1.0/reserve").unwrap(), format!("{theirs}\n{mine}\n"));
    assert_eq!(other.read_at(fh, 0, 3).unwrap(), b"yes");
    bed.echo("1.0/reserve", "take").unwrap();
    assert_eq!(other.read_at(fh, 0, 3), Err(Errno::EBUSY));
    bed.echo("1.0/reserve", "release").unwrap();
    assert_eq!(other.cat("1.0/reserve").unwrap(), "");
    assert_eq!(other.read_at(fh, 0, 3).unwrap(), b"yes");
    for line in ["take me", "set", "force", "set nobody", "hold"] {
        assert_eq!(bed.echo("1.0/reserve", line), Err(Errno::EINVAL), "{line}");
    }
    bed.core.release(ours);
    other.core.release(fh);
    other.end();
    bed.end();
}

#[test]
fn a_target_that_is_away_answers_neither() {
    let bed = Bed::new();
    bed.silence(true);
    let start = std::time::Instant::now();
    assert_eq!(bed.cat("1.0/reserve").unwrap_err(), Errno::ETIMEDOUT);
    assert_eq!(bed.echo("1.0/mask", &format!("add {OTHER}")), Err(Errno::ETIMEDOUT));
    let took = start.elapsed().as_secs_f64();
    assert!((3.9..5.0).contains(&took), "{took}");
    bed.silence(false);
    bed.eventually(|| bed.cat("1.0/reserve").is_ok());
    bed.end();
}
