//! What is written to `ctl` and `config`, and what they show.

use aoefs::fs::errno::Errno;
use aoefs::wire::Addr;

use crate::host::{Host, SIZE};

#[test]
fn a_targets_ctl_shows_devaoes_lines_then_devsds() {
    let host = Host::new();
    host.echo("1.0/ctl", "part boot 2048 4096").unwrap();
    let text = host.cat("1.0/ctl").unwrap();
    let keys: Vec<&str> = text.lines().map(|line| line.split([':', ' ']).next().unwrap()).collect();
    let want = [
        "state", "nopen", "nout", "nmaxout", "nframes", "maxbcnt", "fw", "model", "serial", "firmware",
        "flag", "inquiry", "geometry", "part", "part",
    ];
    assert_eq!(keys[..want.len()], want);
    for line in [
        "state: up",
        "nopen: 0",
        "maxbcnt: 8192 [maxmtu 9000]",
        "fw: 0a01",
        "model: aoefs target",
        "serial: one",
        "flag: llba smart flush trim up jumbo",
        "geometry 8192 512",
        "part data 0 8192",
        "part boot 2048 4096",
        "flush: ext",
        "deadline: 180",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    host.end();
}

#[test]
fn the_top_ctl_shows_switches_netlinks_and_targets() {
    let host = Host::new();
    let text = host.cat("ctl").unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["debug: 0", "autodiscover: 1", "rediscover: 1", "if0 path: near"]);
    assert!(lines[4].starts_with("if0 ea: "));
    assert_eq!(
        lines[5..],
        [
            "if0 flag: up",
            "if0 lostjumbo: 0",
            "if0 datamtu: 9000",
            "1.0 0.004GB near 8192 up",
            "candidates: 0",
            "if0 drops: 0"
        ]
    );
    host.echo("ctl", "debug\nautodiscover off\nrediscover").unwrap();
    assert!(host.cat("ctl").unwrap().starts_with("debug: 1\nautodiscover: 0\nrediscover: 0\n"));
    let link = host.cat("1.0/devlink/0").unwrap();
    assert!(link.starts_with("addr: ") && link.contains("\nnl path: near\n"), "{link}");
    host.end();
}

#[test]
fn lines_run_in_order_and_the_first_that_fails_ends_the_write() {
    let host = Host::new();
    let text = "# partitions\n\npart a 0 8\nnofail on\npart b 8 9000\npart c 8 16\n";
    assert_eq!(host.echo("1.0/ctl", text), Err(Errno::EINVAL), "beyond the disk");
    assert_eq!(host.disks(), ["data", "a"]);
    assert!(host.cat("1.0/ctl").unwrap().contains("nofail"));
    assert!(
        host.log().contains("ctl line 5: part b 8 9000: past the end: the disk has 8192 sectors"),
        "{}",
        host.log()
    );
    for (line, errno) in [
        ("part a 0 9", Errno::EEXIST),
        ("delpart zz", Errno::ENOENT),
        ("part ctl 0 8", Errno::EEXIST),
        ("setsize 513", Errno::EINVAL),
        ("setsize 99999999999744", Errno::EINVAL),
        ("frobnicate", Errno::EINVAL),
        ("mtu \u{7f}", Errno::EINVAL),
    ] {
        assert_eq!(host.echo("1.0/ctl", line), Err(errno), "{line}");
    }
    assert_eq!(host.echo("1.0/ctl", "part a 0 8"), Ok(10), "the same again is done");
    assert_eq!(host.echo("ctl", "bind nosuchif0"), Err(Errno::ENODEV));
    assert_eq!(host.echo("ctl", "bind near"), Err(Errno::EEXIST));
    assert_eq!(host.echo("ctl", "unbind nosuchif0"), Err(Errno::ENOENT));
    assert_eq!(host.echo("ctl", "remove 7.7"), Err(Errno::ENOENT));
    assert_eq!(host.echo("ctl", "failio 7.7"), Err(Errno::ENOENT));
    assert!(host.log().contains("frobnicate: no such command"));
    host.end();
}

#[test]
fn whoever_wrote_can_read_why_it_was_refused() {
    let host = Host::new();
    let (top, unit) = (host.open("ctl"), host.open("1.0/ctl"));
    let said = |fh| String::from_utf8(host.read_at(fh, 0, 4096).unwrap()).unwrap();
    let refused = |fh, line: &str| {
        assert!(host.write_at(fh, 0, line.as_bytes()).is_err(), "{line}");
        said(fh)
    };
    assert_eq!(
        refused(unit, "part b 0 9000"),
        "error: part b 0 9000: past the end: the disk has 8192 sectors\n"
    );
    assert_eq!(String::from_utf8(host.read_at(unit, 7, 4).unwrap()).unwrap(), "part", "in pieces");
    assert!(host.cat("1.0/ctl").unwrap().starts_with("state: up\n"), "others read the status");
    assert_eq!(refused(unit, "idnetify"), "error: idnetify: no such command; did you mean identify?\n");
    assert_eq!(
        refused(unit, "nofail on\nmtu 1\n"),
        "error: line 2: mtu: 1 is not within 558…65535; usage: mtu [N]\n"
    );
    host.write_at(unit, 0, b"part boot 0 8").unwrap();
    assert!(said(unit).starts_with("state: up\n"), "{}", said(unit));
    assert!(refused(unit, "part boot 0 9").contains("boot is 0 8; delpart boot first"));
    assert!(refused(unit, "remove 1.0").contains("for the ctl at the top"));
    assert!(refused(top, "part a 0 8").contains("is for a target's ctl; write it to SHELF.SLOT/ctl"));
    assert!(refused(unit, "delpart bot").contains("no partition bot; did you mean boot?"));
    let open = host.open("1.0/boot");
    assert!(refused(unit, "delpart boot").contains("1 file open; close it, or delpart -f boot"));
    assert!(refused(top, "remove 1.0").contains("1 file open; close it, or remove -f 1.0"));
    let second = host.open("1.0/data");
    assert!(refused(top, "remove 1.0").contains("2 files open; close them, or remove -f 1.0"));
    assert!(refused(top, "remove 1.1").contains("no target 1.1 is known; known: 1.0"));
    assert!(refused(top, "unbind nera").contains("in use: near"));
    for fh in [top, unit, open, second] {
        host.core.release(fh);
    }
    host.end();
}

#[test]
fn too_many_partitions() {
    let host = Host::new();
    let lines: String = (0..1300).map(|n| format!("part p{n} {n} {}\n", n + 1)).collect();
    assert_eq!(host.echo("1.0/ctl", &lines), Err(Errno::ENOSPC));
    assert_eq!(host.disks().len(), 1 + 1280);
    host.end();
}

#[test]
fn setsize_is_seen_at_once_and_the_kernel_is_told() {
    let host = Host::new();
    let ino = host.ino("1.0/data").unwrap();
    host.echo("1.0/ctl", "setsize 1048576").unwrap();
    assert_eq!(host.size("1.0/data"), 1 << 20);
    assert_eq!(host.ino("1.0/data").unwrap(), ino, "the same file");
    host.eventually(|| host.told.0.lock().contains(&(ino, None)));
    let fh = host.open("1.0/data");
    assert_eq!(host.write_at(fh, 1 << 20, b"x"), Err(Errno::ENOSPC));
    assert_eq!(host.read_at(fh, 1 << 20, 1), Ok(Vec::new()));
    host.core.release(fh);
    host.echo("1.0/ctl", "setsize").unwrap();
    assert_eq!(host.size("1.0/data"), SIZE);
    host.end();
}

#[test]
fn settings_show() {
    let host = Host::new();
    host.echo("1.0/ctl", "deadline 7\nmtu 1500\nmaxbno 2\nmaxout 3\njumbo off\nnofail").unwrap();
    let text = host.cat("1.0/ctl").unwrap();
    for line in ["deadline: 7", "mtu: 1500", "maxbno: 2", "maxout: 3"] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    assert!(
        text.contains("maxbcnt: 1024 ") && text.contains(" nofail\n") && !text.contains("jumbo"),
        "{text}"
    );
    host.echo("1.0/ctl", "deadline\nmtu\nmaxbno\nmaxout\njumbo on\nnofail").unwrap();
    assert!(host.cat("1.0/ctl").unwrap().contains("deadline: 180\nmtu: auto\nmaxbno: auto\nmaxout: auto\n"));
    host.end();
}

#[test]
fn words_whose_result_is_in_the_log() {
    let host = Host::new();
    host.echo("1.0/ctl", "flush\nidentify\nprobe").unwrap();
    host.eventually(|| host.log().contains("1.0 flush: done") && host.log().contains("1.0 identified: "));
    host.eventually(|| !host.cat("1.0/devlink/0").unwrap().contains("probed: -"));
    host.end();
}

#[test]
fn the_four_verbs_of_config() {
    let host = Host::new();
    assert_eq!(host.echo("1.0/ctl", "config set mine"), Ok(15));
    assert_eq!(host.cat("1.0/config").unwrap(), "mine");
    assert_eq!(host.echo("1.0/ctl", "config set theirs"), Err(Errno::EEXIST));
    assert_eq!(host.echo("1.0/ctl", "config test mine\nconfig prefix mi"), Ok(33));
    assert_eq!(host.echo("1.0/ctl", "config test theirs"), Err(Errno::ENOENT));
    assert_eq!(host.echo("1.0/ctl", "config force a  b\nconfig test a  b\n"), Ok(35));
    assert_eq!(host.target.processor.lock().string(), b"a  b");
    host.end();
}

#[test]
fn config_is_a_file() {
    let host = Host::new();
    let now = || host.target.processor.lock().string().to_vec();
    assert_eq!(host.cat("1.0/config").unwrap(), "");
    assert_eq!(host.echo("1.0/config", "shelf one\n"), Ok(10));
    assert_eq!(now(), b"shelf one\n");
    assert_eq!((host.cat("1.0/config").unwrap().as_str(), host.size("1.0/config")), ("shelf one\n", 10));
    let fh = host.open("1.0/config");
    assert_eq!(host.write_at(fh, 6, b"two"), Ok(3));
    assert_eq!(now(), b"shelf two", "from its offset on");
    assert_eq!(host.write_at(fh, 12, b"x"), Ok(1));
    assert_eq!(now(), b"shelf two\0\0\0x");
    assert_eq!(host.write_at(fh, 1000, &[1; 25]), Err(Errno::EFBIG));
    assert_eq!(now(), b"shelf two\0\0\0x", "nothing was sent");
    assert_eq!(host.write_at(fh, 0, &[7; 1024]), Ok(1024));
    assert_eq!(now(), [7; 1024]);
    host.core.release(fh);
    host.end();
}

#[test]
fn a_shells_redirection_is_one_change() {
    let host = Host::new();
    let now = || host.target.processor.lock().string().to_vec();
    let ino = host.ino("1.0/config").unwrap();
    host.echo("1.0/config", "a long string").unwrap();
    let fh = host.open("1.0/config");
    assert_eq!(host.truncate(ino, None, 0), Ok(()));
    assert_eq!(now(), b"a long string", "not sent yet");
    assert_eq!((host.cat("1.0/config").unwrap().as_str(), host.size("1.0/config")), ("", 0), "but shown");
    assert_eq!(host.write_at(fh, 0, b"short"), Ok(5));
    assert_eq!(now(), b"short");
    host.core.release(fh);
    // `: > config` writes nothing: the truncation is sent when the file is closed.
    let fh = host.open("1.0/config");
    assert_eq!(host.truncate(ino, None, 2), Ok(()), "by name: at once");
    assert_eq!(now(), b"sh");
    assert_eq!(host.truncate(ino, Some(fh), 0), Ok(()));
    assert_eq!(now(), b"sh");
    host.core.release(fh);
    host.eventually(|| now().is_empty());
    host.eventually(|| host.size("1.0/config") == 0);
    // A write that is refused takes the truncation back.
    host.echo("1.0/config", "kept").unwrap();
    let fh = host.open("1.0/config");
    assert_eq!(host.truncate(ino, None, 0), Ok(()));
    assert_eq!(host.write_at(fh, 0, &[1; 1025]), Err(Errno::EFBIG));
    host.core.release(fh);
    assert_eq!((host.cat("1.0/config").unwrap().as_str(), now().as_slice()), ("kept", &b"kept"[..]));
    host.end();
}

#[test]
fn a_page_stays_as_it_was_read_from_its_beginning() {
    let host = Host::new();
    let fh = host.open("1.0/ctl");
    let first = host.read_at(fh, 0, 4096).unwrap();
    host.echo("1.0/ctl", "part new 0 8").unwrap();
    assert_eq!(host.read_at(fh, 10, 4096).unwrap(), first[10..]);
    assert!(String::from_utf8(host.read_at(fh, 0, 4096).unwrap()).unwrap().contains("part new 0 8"));
    host.core.release(fh);
    let ident = host.try_open("1.0/ident", libc::O_RDONLY).unwrap();
    let bytes = host.read_at(ident, 0, 4096).unwrap();
    assert_eq!(bytes.len(), 512);
    assert_eq!(host.read_at(ident, 500, 4096).unwrap(), bytes[500..]);
    assert_eq!(host.read_at(ident, 512, 4096), Ok(Vec::new()));
    host.core.release(ident);
    host.end();
}

#[test]
fn the_log_is_a_file_that_grows() {
    let host = Host::new();
    let size = host.size("log");
    let tail = host.try_open("log", libc::O_RDONLY).unwrap();
    assert_eq!(host.read_at(tail, size, 4096), Ok(Vec::new()));
    host.runtime.log().log("test", Some(Addr::new(1, 0)), "news");
    let more = String::from_utf8(host.read_at(tail, size, 4096).unwrap()).unwrap();
    assert!(more.ends_with(" 1.0 news\n"), "{more}");
    assert_eq!(host.size("log"), size + more.len() as u64);
    host.core.release(tail);
    assert!(host.cat("log").unwrap().contains("found: "));
    host.end();
}

/// What a handler does for one write is bounded, whatever is in it.
#[test]
fn a_write_of_too_many_lines_is_refused_whole() {
    let host = Host::new();
    let lines = format!("part a 0 8\n{}", "flush\n".repeat(4096));
    assert_eq!(host.echo("1.0/ctl", &lines), Err(Errno::ENOSPC));
    assert!(host.log().contains("ctl line 0: more than 4096 lines in one write"), "{}", host.log());
    assert_eq!(host.disks(), ["data"], "nothing of it was done");
    host.end();
}

/// However often `flush` is said to a target that is silent, one flush waits, and one more follows it.
#[test]
fn flushes_that_nobody_waits_for_are_two_at_most() {
    let host = Host::new();
    host.silence(true);
    host.echo("1.0/ctl", &"flush\n".repeat(4000)).unwrap();
    let waiting = host
        .runtime
        .unit(Addr::new(1, 0))
        .map(|unit| host.runtime.inspect(&unit, |device| device.requests()));
    assert_eq!(waiting, Some(1));
    host.silence(false);
    host.eventually(|| host.log().matches("1.0 flush: done").count() == 2);
    host.echo("1.0/ctl", "flush").unwrap();
    host.eventually(|| host.log().matches("1.0 flush: done").count() == 3);
    host.end();
}
