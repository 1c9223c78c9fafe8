//! The command language against its table, and against bytes that nobody would write.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::wire::{CONFIG_MAX, Mac, Verb};

fn top(line: &str) -> Result<Option<Top>, CtlError> {
    parse_top(line.as_bytes())
}

fn unit(line: &str) -> Result<Option<UnitCommand>, CtlError> {
    parse_unit(line.as_bytes())
}

/// The line is refused with EINVAL and words.
fn refused<C: std::fmt::Debug>(line: &str, got: Result<Option<C>, CtlError>) {
    match got {
        Err(e) => {
            assert_eq!(e.errno, Errno::EINVAL, "{line:?}");
            assert!(!e.words.is_empty() && !e.words.contains('\n'), "{line:?}: {:?}", e.words);
        }
        ok => panic!("{line:?} gave {ok:?}"),
    }
}

#[test]
fn every_word_of_the_top_ctl() {
    let a = Addr::new(1, 0);
    for (line, want) in [
        ("bind eth1", Top::Bind("eth1".into())),
        ("unbind\teth1 ", Top::Unbind("eth1".into())),
        ("discover", Top::Discover(Addr::ALL)),
        ("discover 7", Top::Discover(Addr::new(7, 255))),
        ("discover 0x10", Top::Discover(Addr::new(16, 255))),
        ("discover 7.254", Top::Discover(Addr::new(7, 254))),
        ("discover 65535.255", Top::Discover(Addr::ALL)),
        ("autodiscover", Top::Autodiscover(Switch::Toggle)),
        ("autodiscover on", Top::Autodiscover(Switch::On)),
        ("rediscover off", Top::Rediscover(Switch::Off)),
        ("debug on", Top::Debug(Switch::On)),
        ("remove 1.0", Top::Remove { addr: a, force: false }),
        ("remove -f 1.0", Top::Remove { addr: a, force: true }),
        ("remove 1.0 -f", Top::Remove { addr: a, force: true }),
        ("remove -a", Top::RemoveDown),
        ("failio 0x1.00", Top::Failio(a)),
    ] {
        assert_eq!(top(line), Ok(Some(want)), "{line:?}");
    }
}

#[test]
fn every_word_of_a_units_ctl() {
    use UnitCommand as C;
    let config = |verb, s: &str| C::Config { verb, string: s.into() };
    for (line, want) in [
        ("part boot 2048 1050624", C::Part { name: "boot".into(), start: 2048, end: 1050624 }),
        ("part p-1_x.y+z 0x800 010000", C::Part { name: "p-1_x.y+z".into(), start: 2048, end: 4096 }),
        ("delpart boot", C::Delpart { name: "boot".into(), force: false }),
        ("delpart -f boot", C::Delpart { name: "boot".into(), force: true }),
        ("delpart boot -f", C::Delpart { name: "boot".into(), force: true }),
        ("partscan", C::Partscan),
        ("identify", C::Identify),
        ("mtu", C::Mtu(None)),
        ("mtu 9000", C::Mtu(Some(9000))),
        ("mtu 558", C::Mtu(Some(558))),
        ("mtu 65535", C::Mtu(Some(65535))),
        ("maxbno", C::Maxbno(None)),
        ("maxbno 1", C::Maxbno(Some(1))),
        ("maxbno 0xff", C::Maxbno(Some(255))),
        ("jumbo", C::Jumbo(Switch::Toggle)),
        ("jumbo off", C::Jumbo(Switch::Off)),
        ("nofail on", C::Nofail(Switch::On)),
        ("direct_io", C::DirectIo(Switch::Toggle)),
        ("direct_io on", C::DirectIo(Switch::On)),
        ("direct_io off", C::DirectIo(Switch::Off)),
        ("deadline", C::Deadline(None)),
        ("deadline 3", C::Deadline(Some(Duration::from_secs(3)))),
        ("maxout", C::Maxout(None)),
        ("maxout 128", C::Maxout(Some(128))),
        ("setsize", C::Setsize(None)),
        ("setsize 512", C::Setsize(Some(512))),
        ("failio", C::Failio),
        ("config test shelf one", config(Verb::Test, "shelf one")),
        ("config prefix s", config(Verb::Prefix, "s")),
        ("config set  two blanks ", config(Verb::Set, " two blanks ")),
        ("config\tforce\tx\ty", config(Verb::Force, "x\ty")),
        ("config  force ", config(Verb::Force, "")),
        ("flush", C::Flush),
        ("probe", C::Probe),
    ] {
        assert_eq!(unit(line), Ok(Some(want)), "{line:?}");
    }
}

#[test]
fn blank_lines_and_comments_do_nothing() {
    for line in ["", " ", "\t\t", "#", "# bind eth1", "#bind", "  # x", "\r", "\n"] {
        assert_eq!(top(line), Ok(None), "{line:?}");
        assert_eq!(unit(line), Ok(None), "{line:?}");
        assert_eq!(parse_config_line(line.as_bytes()), Ok(None), "{line:?}");
    }
}

#[test]
fn bad_lines_of_the_top_ctl() {
    for line in [
        "bind",
        "bind eth0 eth1",
        "bind a/b",
        "bind ..",
        "bind aninterfacename16",
        "bind e\u{0}",
        "unbind",
        "discover 1.0 2.0",
        "discover x",
        "discover 65536",
        "discover 1.256",
        "discover 1.",
        "discover -1",
        "autodiscover maybe",
        "rediscover on off",
        "debug ON",
        "remove",
        "remove -a 1.0",
        "remove -x 1.0",
        "remove -f",
        "remove 1.255",
        "remove 1",
        "failio",
        "failio 65535.0",
        "failio 1.0 x",
        "Bind eth1",
        "bind# eth1",
        "reboot",
    ] {
        refused(line, top(line));
    }
}

#[test]
fn bad_lines_of_a_units_ctl() {
    for line in [
        "part",
        "part boot",
        "part boot 0",
        "part boot 0 1 2",
        "part boot 1 1",
        "part boot 2 1",
        "part boot -1 1",
        "part boot 0 18446744073709551616",
        "part . 0 1",
        "part .. 0 1",
        "part a/b 0 1",
        "part naïve 0 1",
        "part abcdefghijklmnopqrstuvwxyz01 0 1",
        "delpart",
        "delpart a b",
        "partscan x",
        "identify now",
        "mtu 557",
        "mtu 65536",
        "mtu 9000 1",
        "mtu 08",
        "mtu 0x",
        "mtu +9000",
        "mtu 9_000",
        "maxbno 0",
        "maxbno 256",
        "jumbo yes",
        "jumbo on on",
        "nofail 1",
        "direct_io yes",
        "deadline 0",
        "deadline 31536001",
        "deadline 3s",
        "maxout 0",
        "maxout 129",
        "setsize 0",
        "setsize 511",
        "setsize 99999999999999999999999",
        "failio now",
        "config",
        "config set",
        "config read x",
        "config Set x",
        "flush x",
        "probe x",
        "bind eth1",
    ] {
        refused(line, unit(line));
    }
    let long = format!("config set {}", "x".repeat(CONFIG_MAX + 1));
    refused(&long, unit(&long));
    let most = format!("config set {}", "x".repeat(CONFIG_MAX));
    assert!(unit(&most).is_ok());
}

/// Every row of a table: no arguments, too many, a huge one, bytes that are not UTF-8.
fn refuses_what_it_cannot_take<C>(
    usages: impl Iterator<Item = String>,
    parse: fn(&[u8]) -> Result<Option<C>, CtlError>,
) {
    let huge = "9".repeat(100_000);
    for usage in usages {
        let (word, args) = usage.split_once(' ').unwrap_or((&usage, ""));
        let error = |line: &[u8]| parse(line).err();
        let long = error(format!("{word} {huge}").as_bytes()).expect("huge");
        assert!(long.words.len() < 400, "{word}: the log line must stay short");
        assert!(error(&[word.as_bytes(), b" \xff\xfe"].concat()).is_some(), "{word}: not UTF-8");
        if word != "config" {
            assert!(error(format!("{word} 1 2 3 4 5").as_bytes()).is_some(), "{word}: too many");
        }
        let optional = args.is_empty() || args.starts_with('[') && !["remove", "delpart"].contains(&word);
        assert_eq!(error(word.as_bytes()).is_none(), optional, "{word} alone");
    }
}

#[test]
fn every_word_refuses_what_it_cannot_take() {
    refuses_what_it_cannot_take(top_usage(), parse_top);
    refuses_what_it_cannot_take(unit_usage(), parse_unit);
}

#[test]
fn numbers_are_strtoulls() {
    for (word, want) in [
        ("0", Some(0)),
        ("00", Some(0)),
        ("17", Some(17)),
        ("017", Some(15)),
        ("0x17", Some(23)),
        ("0Xff", Some(255)),
        ("18446744073709551615", Some(u64::MAX)),
        ("0xffffffffffffffff", Some(u64::MAX)),
        ("01777777777777777777777", Some(u64::MAX)),
        ("18446744073709551616", None),
        ("0x10000000000000000", None),
        ("02000000000000000000000", None),
        ("", None),
        ("0x", None),
        ("08", None),
        ("1e3", None),
        ("+1", None),
        ("-1", None),
        ("1 ", None),
        ("١", None),
    ] {
        assert_eq!(number(word).ok(), want, "{word:?}");
    }
}

#[test]
fn switches_apply() {
    for now in [false, true] {
        assert_eq!(Switch::Toggle.apply(now), !now);
        assert!(Switch::On.apply(now));
        assert!(!Switch::Off.apply(now));
    }
}

#[test]
fn a_part_has_a_name_that_a_file_can_have() {
    for name in ["", ".", "..", "a/b", "a b", "-", "-f", "\u{e9}", "x".repeat(PART_NAME_MAX + 1).as_str()] {
        assert!(check_part_name(name).is_err(), "{name}");
    }
    for name in ["a", "CTL", "data2", "...", "a-", "x".repeat(PART_NAME_MAX).as_str()] {
        assert!(check_part_name(name).is_ok(), "{name}");
    }
}

#[test]
fn what_needs_the_network() {
    let line = |l| needs_network(&unit(l).unwrap().unwrap());
    for local in [
        "part a 0 1",
        "delpart a",
        "mtu",
        "maxbno",
        "jumbo",
        "nofail",
        "direct_io",
        "deadline",
        "maxout",
        "setsize",
    ] {
        assert!(!line(local), "{local}");
    }
    for asks in ["partscan", "identify", "failio", "config set x", "flush", "probe"] {
        assert!(line(asks), "{asks}");
    }
}

#[test]
fn lists_of_macs() {
    let m: Mac = "52:54:00:12:34:56".parse().unwrap();
    let mask = |l: &str| parse_mask(l.as_bytes());
    assert_eq!(mask("add 52:54:00:12:34:56"), Ok(Some(MaskEdit::Add(m))));
    assert_eq!(mask("del 525400123456"), Ok(Some(MaskEdit::Del { mac: m, sure: false })));
    assert_eq!(mask("del! 525400123456"), Ok(Some(MaskEdit::Del { mac: m, sure: true })));
    for line in ["add", "add x", "add ff:ff:ff:ff:ff:ff", "add 525400123456 525400123456", "set 525400123456"]
    {
        refused(line, mask(line));
    }
    let reserve = |l: &str| parse_reserve(l.as_bytes());
    assert_eq!(reserve("take"), Ok(Some(ReserveEdit::Take)));
    assert_eq!(reserve("release"), Ok(Some(ReserveEdit::Release)));
    assert_eq!(reserve("set 525400123456"), Ok(Some(ReserveEdit::Set(vec![m]))));
    assert_eq!(reserve("force 525400123456 525400123456"), Ok(Some(ReserveEdit::Force(vec![m, m]))));
    for line in ["take x", "release x", "set", "force", "force y"] {
        refused(line, reserve(line));
    }
}

#[test]
fn a_configuration_file() {
    let text = b"bind eth1\n# partitions\n1.0 part boot 2048 1050624\n\n1.0 nofail on\nbind\n1.0\nx.y part\n1.255 flush\n";
    let (good, bad) = parse_config(text);
    let a = Addr::new(1, 0);
    assert_eq!(
        good,
        [
            (1, ConfigLine::Top(Top::Bind("eth1".into()))),
            (3, ConfigLine::Unit(a, UnitCommand::Part { name: "boot".into(), start: 2048, end: 1050624 })),
            (5, ConfigLine::Unit(a, UnitCommand::Nofail(Switch::On))),
        ]
    );
    assert_eq!(bad.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [6, 7, 8, 9]);
}

#[test]
fn a_write_is_lines() {
    let all = |d: &'static [u8]| lines(d).collect::<Vec<_>>();
    assert_eq!(all(b""), Vec::<&[u8]>::new());
    assert_eq!(all(b"\n"), [b""]);
    assert_eq!(all(b"a"), [b"a"]);
    assert_eq!(all(b"a\n\nb\n"), [&b"a"[..], b"", b"b"]);
}

/// A word of the language or bytes, so that random lines get past the table.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<Vec<u8>> = top_usage()
        .chain(unit_usage())
        .flat_map(|u| u.split([' ', '/', '[', ']']).map(|w| w.as_bytes().to_vec()).collect::<Vec<_>>())
        .chain(["1.0", "0x7f", "on", "eth1", "#", "\n", "add", "del!", "take"].map(|w| w.as_bytes().to_vec()))
        .collect();
    prop_oneof![
        4 => proptest::sample::select(words),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
        1 => any::<u64>().prop_map(|n| n.to_string().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_bytes_give_a_command_or_words(pieces in proptest::collection::vec(piece(), 0..8)) {
        let line = pieces.join(&b' ');
        for result in [
            parse_top(&line).map(|_| ()),
            parse_unit(&line).map(|_| ()),
            parse_mask(&line).map(|_| ()),
            parse_reserve(&line).map(|_| ()),
            parse_config_line(&line).map(|_| ()),
        ] {
            if let Err(e) = result {
                prop_assert_eq!(e.errno, Errno::EINVAL);
                prop_assert!(!e.words.chars().any(char::is_control), "{:?}", e.words);
            }
        }
        parse_config(&line);
    }

    #[test]
    fn random_bytes_never_panic(line in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = (parse_top(&line), parse_unit(&line), parse_mask(&line), parse_reserve(&line));
        parse_config(&line);
    }
}
