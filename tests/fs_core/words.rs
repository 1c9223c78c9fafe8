//! Every word of the two ctl languages, and of `mask` and `reserve`, against every sort of argument, and writes of
//! random lines: what each answers, what the log says of it, and that a refused line has changed nothing.

use std::collections::BTreeSet;
use std::time::Instant;

use aoefs::fs::ctl::{self, Top, UnitCommand};
use aoefs::fs::errno::Errno;
use aoefs::wire::{Addr, Verb};

use crate::host::Host;
use crate::rng::Rng;

#[path = "words_of_lists.rs"]
mod lists;

use lists::{mask_rows, reserve_rows};

/// An argument line that is refused: the line, the errno, and what the log says behind `FILE line 1: `.
type Refused = (&'static str, Errno, &'static str);

/// What one word answers to each sort of argument.
struct Row {
    word: &'static str,
    /// Without arguments: nothing, or how that is refused.
    alone: Option<(Errno, &'static str)>,
    /// Lines that succeed, in order.
    good: &'static [&'static str],
    wrong: &'static [Refused],
    /// More words than it takes; none is too many for a config string.
    many: Option<&'static str>,
    /// What stands before a number of 100,000 digits, and what the log says of it.
    huge: (&'static str, &'static str),
    /// After `alone`, before `good`.
    prepare: fn(&Host),
}

const ROW: Row = Row {
    word: "",
    alone: None,
    good: &[],
    wrong: &[],
    many: Some("1 2 3 4 5"),
    huge: ("", "usage: "),
    prepare: |_| (),
};
const EINVAL: Errno = Errno::EINVAL;
const ENOENT: Errno = Errno::ENOENT;
const EEXIST: Errno = Errno::EEXIST;

fn unit_rows() -> Vec<Row> {
    vec![
        // Those that succeed leave a socket behind: tests/vhost has them.
        Row {
            word: "vhost",
            alone: Some((EINVAL, "usage: vhost PATH [NAME]")),
            wrong: &[
                ("vhost disk", EINVAL, "vhost: disk is not an absolute path; usage: vhost PATH [NAME]"),
                ("vhost /nowhere/disk a/b", EINVAL, "vhost: a/b: a name is made of"),
                ("vhost /nowhere/disk gone", ENOENT, "vhost /nowhere/disk gone: there is no partition gone"),
                ("vhost /nowhere/disk", ENOENT, "vhost /nowhere/disk: no directory for /nowhere/disk"),
                ("vhost /dev/null", EEXIST, "vhost /dev/null: /dev/null is there already"),
            ],
            huge: ("", "… is not an absolute path; usage: vhost PATH [NAME]"),
            ..ROW
        },
        Row {
            word: "unvhost",
            alone: Some((EINVAL, "usage: unvhost PATH")),
            wrong: &[("unvhost /nowhere/disk", ENOENT, "unvhost /nowhere/disk: /nowhere/disk is no socket")],
            huge: ("", "… is not an absolute path; usage: unvhost PATH"),
            ..ROW
        },
        Row {
            word: "part",
            alone: Some((EINVAL, "usage: part NAME START END")),
            good: &["part a 0 8", "part a 0 8", "part b-1._+ 0x8 020"],
            wrong: &[
                ("part c 8 8", EINVAL, "part: 8 to 8 holds no sector; usage: part NAME START END"),
                ("part c 0 9000", EINVAL, "part c 0 9000: past the end: the disk has 8192 sectors"),
                ("part a 0 9", EEXIST, "part a 0 9: a is 0 8; delpart a first"),
                ("part ctl 0 8", EEXIST, "part ctl 0 8: every target has a file ctl"),
                ("part a/b 0 8", EINVAL, "part: a/b: a name is made of A-Z a-z 0-9 . _ + -"),
                ("part .. 0 8", EINVAL, "part: .. is no name for a file"),
                ("part abcdefghijklmnopqrstuvwxyz01 0 8", EINVAL, "part: a name has 1…27 bytes"),
                ("part c x 8", EINVAL, "part: x is not a number"),
                ("part c 0 -1", EINVAL, "part: -1 is not a number"),
                ("part c 0", EINVAL, "usage: part NAME START END"),
            ],
            huge: ("c 0", "part: 9999999999999999999999999999999999999999… is too large; usage: part"),
            ..ROW
        },
        Row {
            word: "delpart",
            alone: Some((EINVAL, "usage: delpart [-f] NAME")),
            good: &["delpart gone"],
            wrong: &[
                ("delpart gone", ENOENT, "delpart gone: no partition gone"),
                ("delpart a/b", EINVAL, "delpart: a/b: a name is made of"),
            ],
            huge: ("", "delpart: a name has 1…27 bytes; usage: delpart [-f] NAME"),
            prepare: |host| assert_eq!(host.echo("1.0/ctl", "part gone 0 1"), Ok(13)),
            ..ROW
        },
        Row {
            word: "partscan",
            alone: Some((ENOENT, "partscan: no partition table")),
            good: &["partscan", "partscan"],
            wrong: &[("partscan now", EINVAL, "usage: partscan")],
            prepare: |host| super::partscan::write_table(host, (200, 56)),
            ..ROW
        },
        Row { word: "identify", wrong: &[("identify now", EINVAL, "usage: identify")], ..ROW },
        Row {
            word: "mtu",
            good: &["mtu 558", "mtu 65535", "mtu 0x5dc", "mtu"],
            wrong: &[
                ("mtu 557", EINVAL, "mtu: 557 is not within 558…65535; usage: mtu [N]"),
                ("mtu 65536", EINVAL, "mtu: 65536 is not within 558…65535; usage: mtu [N]"),
                ("mtu auto", EINVAL, "mtu: auto is not a number; usage: mtu [N]"),
            ],
            huge: ("", "… is too large; usage: mtu [N]"),
            ..ROW
        },
        Row {
            word: "maxbno",
            good: &["maxbno 1", "maxbno 255"],
            wrong: &[
                ("maxbno 0", EINVAL, "maxbno: 0 is not within 1…255; usage: maxbno [N]"),
                ("maxbno 256", EINVAL, "maxbno: 256 is not within 1…255; usage: maxbno [N]"),
            ],
            huge: ("", "… is too large; usage: maxbno [N]"),
            ..ROW
        },
        Row {
            word: "jumbo",
            good: &["jumbo on", "jumbo off", "jumbo"],
            wrong: &[("jumbo ON", EINVAL, "jumbo: ON is neither on nor off; usage: jumbo [on/off]")],
            huge: ("", "… is neither on nor off; usage: jumbo [on/off]"),
            ..ROW
        },
        Row {
            word: "nofail",
            good: &["nofail on", "nofail\toff\r"],
            wrong: &[("nofail 1", EINVAL, "nofail: 1 is neither on nor off; usage: nofail [on/off]")],
            huge: ("", "… is neither on nor off; usage: nofail [on/off]"),
            ..ROW
        },
        Row {
            word: "direct_io",
            good: &["direct_io on", "direct_io on", "direct_io off"],
            wrong: &[
                (
                    "direct_io true",
                    EINVAL,
                    "direct_io: true is neither on nor off; usage: direct_io [on/off]",
                ),
                ("direct_io on off", EINVAL, "usage: direct_io [on/off]"),
                ("directio on", EINVAL, "directio: no such command; did you mean direct_io?"),
            ],
            huge: ("", "… is neither on nor off; usage: direct_io [on/off]"),
            ..ROW
        },
        Row {
            word: "deadline",
            good: &["deadline 1", "deadline 31536000"],
            wrong: &[
                ("deadline 0", EINVAL, "deadline: 0 is not within 1…31536000; usage: deadline [SECS]"),
                ("deadline 1.5", EINVAL, "deadline: 1.5 is not a number; usage: deadline [SECS]"),
            ],
            huge: ("", "… is too large; usage: deadline [SECS]"),
            ..ROW
        },
        Row {
            word: "maxout",
            good: &["maxout 1", "maxout 128"],
            wrong: &[
                ("maxout 0", EINVAL, "maxout: 0 is not within 1…128; usage: maxout [N]"),
                ("maxout 129", EINVAL, "maxout: 129 is not within 1…128; usage: maxout [N]"),
            ],
            huge: ("", "… is too large; usage: maxout [N]"),
            ..ROW
        },
        Row {
            word: "setsize",
            good: &["setsize 512", "setsize 4194304", "setsize 1048576"],
            wrong: &[
                ("setsize 0", EINVAL, "setsize: 0 is not a size in whole sectors; usage: setsize [BYTES]"),
                (
                    "setsize 513",
                    EINVAL,
                    "setsize: 513 is not a size in whole sectors; usage: setsize [BYTES]",
                ),
                ("setsize 4194816", EINVAL, "setsize 4194816: past the end: the disk has 4194304 bytes"),
            ],
            huge: ("", "… is too large; usage: setsize [BYTES]"),
            ..ROW
        },
        Row { word: "failio", wrong: &[("failio 1.0", EINVAL, "usage: failio")], ..ROW },
        Row {
            word: "config",
            alone: Some((EINVAL, "config: no verb; usage: config test/prefix/set/force STRING")),
            good: &[
                "config set mine",
                "config set mine",
                "config test mine",
                "config prefix mi",
                "config prefix ",
            ],
            wrong: &[
                ("config set theirs", EEXIST, "config set theirs: the target has another string already"),
                ("config test theirs", ENOENT, "config test theirs: the target has another string"),
                ("config prefix ine", ENOENT, "config prefix ine: the target has another string"),
                (
                    "config read x",
                    EINVAL,
                    "config: read: no such verb; to read it: cat config; usage: config",
                ),
                ("config force", EINVAL, "config: no string; usage: config"),
            ],
            many: None,
            huge: ("force", "config: a string has at most 1024 bytes; usage: config"),
            ..ROW
        },
        Row { word: "flush", wrong: &[("flush all", EINVAL, "usage: flush")], ..ROW },
        Row { word: "probe", wrong: &[("probe 0", EINVAL, "usage: probe")], ..ROW },
    ]
}

fn top_rows() -> Vec<Row> {
    vec![
        Row {
            word: "bind",
            alone: Some((EINVAL, "usage: bind IF")),
            // That it binds is the namespace bed's to show: here is no interface that could be bound.
            wrong: &[
                ("bind near", EEXIST, "bind near: near is in use already"),
                (
                    "bind nosuchif0",
                    Errno::ENODEV,
                    "bind nosuchif0: no Ethernet interface is called nosuchif0",
                ),
                ("bind sixteen-letters.", EINVAL, "bind: sixteen-letters. is not the name of an interface"),
                ("bind ../x", EINVAL, "bind: ../x is not the name of an interface"),
            ],
            huge: ("", "… is not the name of an interface; usage: bind IF"),
            ..ROW
        },
        Row {
            word: "unbind",
            alone: Some((EINVAL, "usage: unbind IF")),
            good: &["unbind near"],
            wrong: &[
                ("unbind near", ENOENT, "unbind near: near is not in use; in use: none"),
                ("unbind .", EINVAL, "unbind: . is not the name of an interface"),
            ],
            huge: ("", "… is not the name of an interface; usage: unbind IF"),
            ..ROW
        },
        Row {
            word: "discover",
            good: &["discover 1", "discover 1.0", "discover 65535.255", "discover 65535"],
            wrong: &[
                ("discover 65536", EINVAL, "discover: 65536 is not within 0…65535; usage: discover"),
                ("discover 1.256", EINVAL, "discover: 1.256 is not SHELF[.SLOT]; usage: discover"),
            ],
            huge: ("", "… is too large; usage: discover [SHELF[.SLOT]]"),
            ..ROW
        },
        Row {
            word: "autodiscover",
            good: &["autodiscover off", "autodiscover on"],
            wrong: &[(
                "autodiscover 0",
                EINVAL,
                "autodiscover: 0 is neither on nor off; usage: autodiscover",
            )],
            huge: ("", "… is neither on nor off; usage: autodiscover [on/off]"),
            ..ROW
        },
        Row {
            word: "rediscover",
            good: &["rediscover off", "rediscover on"],
            wrong: &[("rediscover 0", EINVAL, "rediscover: 0 is neither on nor off; usage: rediscover")],
            huge: ("", "… is neither on nor off; usage: rediscover [on/off]"),
            ..ROW
        },
        Row {
            word: "debug",
            good: &["debug on", "debug off"],
            wrong: &[("debug 2", EINVAL, "debug: 2 is neither on nor off; usage: debug [on/off]")],
            huge: ("", "… is neither on nor off; usage: debug [on/off]"),
            ..ROW
        },
        Row {
            word: "remove",
            alone: Some((EINVAL, "usage: remove [-f] SHELF.SLOT | -a")),
            good: &["remove -a", "remove 1.0"],
            wrong: &[
                ("remove 1.0", ENOENT, "remove 1.0: no target 1.0 is known; known: none"),
                ("remove -f 7.7", ENOENT, "remove -f 7.7: no target 7.7 is known"),
                ("remove -x 1.0", EINVAL, "remove: wrong arguments; usage: remove"),
                ("remove 65535.255", EINVAL, "remove: 65535.255 is an address of all targets; usage: remove"),
                ("remove 1", EINVAL, "remove: 1 is not SHELF.SLOT; usage: remove"),
            ],
            huge: ("", "… is not SHELF.SLOT; usage: remove [-f] SHELF.SLOT | -a"),
            ..ROW
        },
        Row {
            word: "failio",
            alone: Some((EINVAL, "usage: failio SHELF.SLOT")),
            good: &["failio 1.0"],
            wrong: &[
                ("failio 7.7", ENOENT, "failio 7.7: no target 7.7 is known"),
                ("failio 1.255", EINVAL, "failio: 1.255 is an address of all targets; usage: failio"),
            ],
            huge: ("", "… is not SHELF.SLOT; usage: failio SHELF.SLOT"),
            ..ROW
        },
    ]
}

/// One write of any bytes to a file of lines, and what the log got of it.
fn write(host: &Host, file: &str, bytes: &[u8]) -> (Result<u32, Errno>, Vec<String>) {
    let before = host.log().len();
    let fh = host.try_open(file, libc::O_WRONLY).unwrap();
    let answer = host.write_at(fh, 0, bytes);
    host.core.release(fh);
    let log = host.log();
    let mark = format!(" {} line ", file.rsplit('/').next().unwrap());
    let lines = log[before..].lines().filter_map(|line| line.split_once(&mark));
    (answer, lines.map(|(_, words)| words.to_string()).collect())
}

/// Waits for what `flush` and its like began and did not wait for.
fn settle(host: &Host) {
    host.eventually(|| {
        let units = host.runtime.units();
        units.iter().all(|unit| host.runtime.inspect(unit, |device| device.requests() == 0))
    });
}

/// Every row with a host of its own: one word's mess is not another's, and the log's rate limit is far.
fn check(file: &str, usages: &[String], rows: Vec<Row>) {
    let name = |usage: &String| usage.split(' ').next().unwrap().to_string();
    let words: BTreeSet<String> = usages.iter().map(name).collect();
    let rowed: BTreeSet<String> = rows.iter().map(|row| row.word.to_string()).collect();
    assert_eq!(words, rowed, "the words of the language and the rows of this table");
    for row in rows {
        let host = Host::new();
        let done = |line: &str| {
            let got = write(&host, file, line.as_bytes());
            assert_eq!(got, (Ok(line.len() as u32), vec![]), "{line}");
        };
        let refused = |line: &[u8], errno: Errno, why: &str| {
            let shown = String::from_utf8_lossy(&line[..line.len().min(60)]);
            let (answer, log) = write(&host, file, line);
            assert_eq!(answer, Err(errno), "{shown}; log: {log:?}");
            let [said] = log.as_slice() else { panic!("{shown}: not one line: {log:?}") };
            assert!(said.starts_with("1: ") && said.contains(why), "{shown}: {said}");
            assert!(said.len() < 400, "{shown}: a long line: {said}");
        };
        let word = row.word;
        match row.alone {
            None => done(word),
            Some((errno, why)) => refused(word.as_bytes(), errno, why),
        }
        (row.prepare)(&host);
        row.good.iter().for_each(|line| done(line));
        row.wrong.iter().for_each(|(line, errno, why)| refused(line.as_bytes(), *errno, why));
        if let Some(many) = row.many {
            let usage = usages.iter().find(|usage| name(usage) == word).unwrap();
            refused(format!("{word} {many}").as_bytes(), EINVAL, &format!("usage: {usage}"));
        }
        let (before, why) = row.huge;
        refused(format!("{word} {before} {}", "9".repeat(100_000)).as_bytes(), EINVAL, why);
        for bytes in [&b" \xff\xfe"[..], b" on\xc3", b"\x80"] {
            refused(&[word.as_bytes(), bytes].concat(), EINVAL, "not UTF-8");
        }
        settle(&host);
        host.end();
    }
}

#[test]
fn every_word_of_a_targets_ctl_answers_every_sort_of_argument() {
    check("1.0/ctl", &ctl::unit_usage().collect::<Vec<_>>(), unit_rows());
}

#[test]
fn every_word_of_the_top_ctl_answers_every_sort_of_argument() {
    check("ctl", &ctl::top_usage().collect::<Vec<_>>(), top_rows());
}

#[test]
fn every_word_of_the_lists_answers_every_sort_of_argument() {
    check("1.0/mask", &ctl::mask_usage().collect::<Vec<_>>(), mask_rows());
    check("1.0/reserve", &ctl::reserve_usage().collect::<Vec<_>>(), reserve_rows());
}

/// Lines to begin with: each word as it is meant, and some that nothing takes.
const SEEDS: [&str; 42] = [
    "part a 0 8",
    "part b 8 16",
    "part c 0x10 8192",
    "part d 100 101",
    "part data 0 8",
    "delpart a",
    "delpart b",
    "delpart c",
    "delpart d",
    "partscan",
    "identify",
    "mtu 1500",
    "mtu",
    "maxbno 2",
    "maxbno",
    "jumbo",
    "jumbo off",
    "nofail on",
    "nofail off",
    "direct_io",
    "direct_io on",
    "deadline 7",
    "deadline",
    "maxout 3",
    "maxout",
    "setsize 1048576",
    "setsize",
    "setsize 512",
    "config set mine",
    "config force theirs",
    "config force ",
    "flush",
    "probe",
    "# said",
    "",
    "frobnicate 1",
    "discover",
    "debug",
    "autodiscover off",
    "rediscover on",
    "remove 7.7",
    "failio 7.7",
];

/// Numbers at which something ends.
const EDGES: [&str; 10] = [
    "0",
    "-1",
    "8192",
    "8193",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "0x",
    "007",
];

/// A line, as it is meant or changed a little.
fn line(rng: &mut Rng) -> Vec<u8> {
    let pick = |rng: &mut Rng, of: &[&str]| of[rng.below(of.len() as u64) as usize].to_string();
    let mut text = pick(rng, &SEEDS);
    if rng.chance(0.2) {
        let mut words: Vec<String> = text.split(' ').map(str::to_string).collect();
        let at = rng.below(words.len() as u64) as usize;
        words[at] = if rng.chance(0.5) { pick(rng, &EDGES) } else { pick(rng, &SEEDS) };
        text = words.join(" ");
    }
    let mut bytes = text.into_bytes();
    for _ in 0..if rng.chance(0.5) { rng.below(4) } else { 0 } {
        let at = rng.below(bytes.len() as u64 + 1) as usize;
        match rng.below(4) {
            0 => bytes.insert(at, rng.next() as u8),
            1 => bytes.truncate(at),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ => bytes.extend(b" on"),
        }
    }
    bytes
}

/// Whether a line may run here: it takes no interface of this machine, none away from the host, and does not wait two
/// seconds for a target that keeps silent.
fn harmless(top: bool, line: &[u8]) -> bool {
    if top {
        return !matches!(ctl::parse_top(line), Ok(Some(Top::Bind(_) | Top::Unbind(_))));
    }
    !matches!(ctl::parse_unit(line), Ok(Some(UnitCommand::Config { verb: Verb::Test | Verb::Prefix, .. })))
}

/// All that a line can change for good: settings, partitions, size, config string, switches. What the wire changes by
/// itself (state, window) is left out.
fn state(host: &Host) -> String {
    let moving = [
        "state: ",
        "nopen: ",
        "nout: ",
        "nmaxout: ",
        "nframes: ",
        "maxbcnt: ",
        "candidates: ",
        "requests: ",
        "if0 ",
        "1.0 ",
    ];
    let pages = [host.cat("ctl").unwrap(), host.cat("1.0/ctl").unwrap()].concat();
    let settled = pages.lines().filter(|line| moving.iter().all(|key| !line.starts_with(key)));
    let settled: Vec<String> = settled.map(|line| line.replace(" up", "")).collect();
    format!("{settled:?} {:?}", host.target.processor.lock().string())
}

/// `AOEFS_TEST_WRITES` and `AOEFS_TEST_SEED` say how many, and which.
#[test]
fn random_writes_change_nothing_where_they_are_refused() {
    let setting = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (writes, seed) = (setting("AOEFS_TEST_WRITES", 100_000), setting("AOEFS_TEST_SEED", 20));
    println!("{writes} writes, seed {seed}");
    let (host, mut rng, start) = (Host::new(), Rng::new(seed), Instant::now());
    let [top, unit] = ["ctl", "1.0/ctl"].map(|file| host.open(file));
    let (mut refusals, mut single, mut before) = (0, 0, state(&host));
    for n in 0..writes {
        let is_top = rng.chance(0.2);
        let lines: Vec<Vec<u8>> = (0..1 + rng.below(8).saturating_sub(4)).map(|_| line(&mut rng)).collect();
        // A mutation may have put a line's end anywhere.
        let text = lines.join(&b'\n');
        if !ctl::lines(&text).all(|line| harmless(is_top, line)) {
            continue;
        }
        let answer = host.write_at(if is_top { top } else { unit }, rng.below(3), &text);
        let shown = || format!("write {n} of seed {seed}: {:?}", String::from_utf8_lossy(&text));
        let alone = ctl::lines(&text).count() == 1;
        match answer {
            Ok(len) => assert_eq!(len as usize, text.len(), "{}", shown()),
            Err(_) => refusals += 1,
        }
        assert!(host.runtime.unit(Addr::new(1, 0)).is_some(), "{}", shown());
        let after = state(&host);
        if answer.is_err() && alone {
            single += 1;
            assert_eq!(after, before, "{} was refused: {answer:?}", shown());
        }
        before = after;
    }
    println!("{refusals} refused, {single} of them alone, in {:?}", start.elapsed());
    assert!(refusals > writes / 10 && refusals < writes, "{refusals} refused: not a good mixture");
    [top, unit].into_iter().for_each(|fh| host.core.release(fh));
    // Nothing has come to grief: it works as before.
    host.echo("1.0/ctl", "setsize\ndeadline\nmtu\nmaxbno\nmaxout\njumbo on\nnofail off").unwrap();
    host.fill(7);
    assert!(host.disk().iter().all(|byte| *byte == 7));
    settle(&host);
    host.end();
}
