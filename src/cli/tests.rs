use super::*;

fn options(line: &str) -> Options {
    match parse(line.split_whitespace()) {
        Ok(Action::Mount(options)) => *options,
        other => panic!("{line}: {other:?}"),
    }
}

fn complaint(line: &str) -> String {
    let failure = parse(line.split_whitespace()).unwrap_err();
    assert_eq!(failure.code(), 2, "{line}");
    let text = failure.to_string();
    assert!(!text.contains('\n') && text.contains([';', '?']), "{line}: {text}");
    text
}

#[test]
fn the_definition_is_sound() {
    command().debug_assert();
}

#[test]
fn the_plain_form() {
    let options = options("aoefs /mnt/aoe");
    assert_eq!(options.mountpoint, Path::new("/mnt/aoe"));
    assert_eq!(options.network, Network::All);
    assert_eq!(options.network.source(), "aoefs");
    assert!(!options.foreground);
    assert_eq!(options.config, Config { path: DEFAULT_CONFIG.into(), named: false });
    assert_eq!(options.wait, []);
    assert_eq!(options.wait_timeout, Duration::from_secs(30));
    assert_eq!(options.metrics_listen, None);
    assert_eq!(options.verbosity, 0);
    assert_eq!(options.mount, MountOptions::default());
}

#[test]
fn every_option() {
    let options = options(
        "aoefs -i eth1,eth2 -i eth1 --interface=eth3 -f -c /x.conf -vv --wait 1.0,0x2.3 --wait 1.0 \
         --wait-timeout 5 --metrics-listen [::1]:9417 -o allow_other,ro,uid=3,gid=4,direct_io,deadline=60,stop=0,readahead=128 \
         -o max_targets=9,partscan /mnt/aoe",
    );
    assert_eq!(options.network, Network::Only(vec!["eth1".into(), "eth2".into(), "eth3".into()]));
    assert_eq!(options.network.source(), "eth1,eth2,eth3");
    assert!(options.foreground);
    assert_eq!(options.config, Config { path: "/x.conf".into(), named: true });
    assert_eq!(options.wait, [Addr::new(1, 0), Addr::new(2, 3)]);
    assert_eq!(options.wait_timeout, Duration::from_secs(5));
    assert_eq!(options.metrics_listen, Some("[::1]:9417".parse().unwrap()));
    assert_eq!(options.verbosity, 2);
    let expected = MountOptions {
        allow_other: true,
        read_only: true,
        noexec: false,
        uid: Some(3),
        gid: Some(4),
        direct_io: true,
        deadline: Some(Duration::from_secs(60)),
        stop: Duration::ZERO,
        readahead_kib: Some(128),
        max_targets: Some(9),
        partscan: true,
    };
    assert_eq!(options.mount, expected);
}

fn task(line: &str) -> Task {
    match parse(line.split_whitespace()) {
        Ok(Action::Run(task)) => task,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn commands_beside_the_mounting_form() {
    let (point, only) = (PathBuf::from("/mnt/aoe"), Via::Interfaces(vec!["eth1".into(), "eth2".into()]));
    let (addr, half, second) = (Addr::new(1, 0), Duration::from_millis(500), Duration::from_secs(1));
    let line = "part boot 0 8".to_owned();
    assert_eq!(
        task("aoefs ctl /mnt/aoe/1.0 part boot 0 8"),
        Task::Ctl { place: "/mnt/aoe/1.0".into(), line }
    );
    assert_eq!(
        task("aoefs ctl /m remove -f 1.0"),
        Task::Ctl { place: "/m".into(), line: "remove -f 1.0".into() }
    );
    assert_eq!(task("aoefs status"), Task::Status { point: None, interval: half });
    assert_eq!(
        task("aoefs status -d 0 /mnt/aoe"),
        Task::Status { point: Some(point.clone()), interval: Duration::ZERO }
    );
    assert_eq!(task("aoefs discover /mnt/aoe"), Task::Discover(Via::Mount(Some(point))));
    assert_eq!(task("aoefs check -i eth1,eth2"), Task::Check(only.clone()));
    let ping = Task::Ping { addr, via: Via::Mount(None), count: 4, interval: second };
    assert_eq!(task("aoefs ping 1.0"), ping);
    assert_eq!(
        task("aoefs ping -n 1 -d 0.5 1.0 -i eth1 -i eth2"),
        Task::Ping { addr, via: only.clone(), count: 1, interval: half }
    );
    for (option, ask) in [
        ("", Ask::Read),
        ("--set x", Ask::Set("x".into())),
        ("--force -x", Ask::Force("-x".into())),
        ("--test=", Ask::Test(String::new())),
        ("--prefix x", Ask::Prefix("x".into())),
    ] {
        let via = only.clone();
        assert_eq!(task(&format!("aoefs config 1.0 -i eth1,eth2 {option}")), Task::Config { addr, via, ask });
    }
}

#[test]
fn a_mount_point_may_have_the_name_of_a_command() {
    assert_eq!(options("aoefs ./status").mountpoint, std::env::current_dir().unwrap().join("status"));
    assert_eq!(options("aoefs -f status").mountpoint, std::env::current_dir().unwrap().join("status"));
    assert_eq!(options("aoefs check /mnt/aoe -o rw").network, Network::Only(vec!["check".into()]));
}

#[test]
fn commands_complain_in_one_line() {
    for (line, words) in [
        ("aoefs ctl", "aoefs ctl --help"),
        ("aoefs ctl /m", "WORD is missing"),
        ("aoefs ping", "SHELF.SLOT is missing; see: aoefs ping --help"),
        ("aoefs ping 1", "as in 1.0"),
        ("aoefs ping 1.255", "as in 1.0"),
        ("aoefs ping 1.0 -n 0", "--count"),
        ("aoefs ping 1.0 -d -1", "--help"),
        ("aoefs ping 1.0 --coutn 3", "did you mean --count?"),
        ("aoefs status -d soon", "not a number of seconds"),
        ("aoefs status /a /b", "aoefs status --help"),
        ("aoefs check -i none", "ip link"),
        ("aoefs check /m -i eth1", "exclude each other"),
        ("aoefs config 1.0 --set a --force b", "exclude each other"),
        ("aoefs statsu /m", "did you mean aoefs status?"),
        ("aoefs /m status", "say: aoefs status /m"),
        ("aoefs --demo 64M /m", "--demo=64M"),
        ("aoefs --demo 64M", "--demo=64M"),
        ("aoefs /m -o deadlien=3", "did you mean deadline?"),
        ("aoefs help frobnicate", "there is no command frobnicate; see: aoefs --help"),
    ] {
        let text = complaint(line);
        assert!(text.contains(words), "{line}: {text}");
    }
    let long = ["aoefs", "config", "1.0", "--set", &"x".repeat(1025)].map(String::from);
    assert!(parse(long).unwrap_err().to_string().contains("at most 1024 bytes, this one has 1025"));
    assert_eq!(meant(std::ffi::OsStr::new("statsu")), Some("status"));
}

#[test]
fn the_form_of_mount_fuse() {
    let all = options(
        "aoefs eth1,eth2 /mnt/aoe -o rw,defaults,_netdev,auto,noauto,user=joe,nofail,dev,suid,exec,x-systemd.automount,nosuid,nodev",
    );
    assert_eq!(all.network, Network::Only(vec!["eth1".into(), "eth2".into()]));
    assert_eq!(all.mount, MountOptions::default());
    let more = options(
        "aoefs none /mnt -o sync,dirsync,strictatime,lazytime,diratime,default_permissions,_rnetdev,fsname=a,subtype=b,iversion,silent",
    );
    assert_eq!(more.mount, MountOptions::default());
    assert!(complaint("aoefs none /mnt -o remount,ro").contains("unmount it and mount it again"));
    assert_eq!(options("aoefs none /mnt -o rw").network, Network::Only(vec![]));
    assert_eq!(options("aoefs aoefs /mnt -o rw").network, Network::All);
    assert_eq!(options("aoefs aoefs /mnt -o rw --demo").network, Network::Demo(64 << 20));
    assert!(complaint("aoefs eth1 /mnt").contains("no -o"));
    assert!(complaint("aoefs eth1 /mnt -i eth2 -o rw").contains("-i"));
    assert!(complaint("aoefs eth1 /mnt --demo -o rw").contains("demo"));
    assert!(complaint("aoefs eth1 /mnt third -o rw").contains("third"));
}

#[test]
fn interfaces() {
    assert_eq!(options("aoefs -i none /mnt").network, Network::Only(vec![]));
    assert_eq!(options("aoefs -i none /mnt").network.source(), "none");
    assert!(complaint("aoefs -i none,eth1 /mnt").contains("none"));
    assert!(complaint("aoefs -i eth1, /mnt").contains("\"\""));
    assert!(complaint("aoefs -i ../x /mnt").contains("../x"));
    assert!(complaint("aoefs -i a123456789012345 /mnt").contains("a123456789012345"));
}

#[test]
fn the_demo() {
    assert_eq!(options("aoefs --demo /mnt").network, Network::Demo(64 << 20));
    assert_eq!(options("aoefs --demo=1G /mnt").network, Network::Demo(1 << 30));
    assert_eq!(options("aoefs --demo=512 /mnt").network, Network::Demo(512));
    assert_eq!(options("aoefs --demo=3KiB /mnt").network, Network::Demo(3 << 10));
    assert_eq!(options("aoefs --demo-image /x /mnt").network, Network::DemoImage("/x".into()));
    let here = std::env::current_dir().unwrap().join("x");
    assert_eq!(options("aoefs --demo-image x /mnt").network, Network::DemoImage(here));
    for size in [
        "",
        "x",
        "-1",
        "0",
        "513",
        "1X",
        "1.5G",
        "99999999999999999999",
        "999999999T",
        "18446744073709551615T",
    ] {
        assert!(complaint(&format!("aoefs --demo={size} /mnt")).contains("--demo"), "{size}");
    }
    assert!(complaint("aoefs --demo -i eth1 /mnt").contains("exclude"));
    assert!(complaint("aoefs --demo --demo-image x /mnt").contains("exclude"));
    assert!(complaint("aoefs --demo-image x -i eth1 /mnt").contains("exclude"));
}

#[test]
fn mount_options_are_named_in_complaints() {
    assert!(complaint("aoefs /mnt -o frobnicate").contains("\"frobnicate\""));
    assert!(complaint("aoefs /mnt -o rw,frob=1").contains("\"frob=1\""));
    assert!(complaint("aoefs /mnt -o deadline").contains("deadline=SECS"));
    assert!(complaint("aoefs /mnt -o deadline=0").contains("from 1 to"));
    assert!(complaint("aoefs /mnt -o deadline=soon").contains("\"soon\""));
    assert!(complaint("aoefs /mnt -o stop=-1").contains("\"-1\""));
    assert!(complaint("aoefs /mnt -o max_targets=0").contains("max_targets"));
    assert!(complaint("aoefs /mnt -o ro=1").contains("takes no value"));
    assert!(complaint("aoefs /mnt -o uid=nobody-of-that-name").contains("nobody-of-that-name"));
    assert!(complaint("aoefs /mnt -o gid=4294967295").contains("4294967295"));
    assert_eq!(options("aoefs /mnt -o uid=root,,stop=3,stop=4").mount.stop, Duration::from_secs(4));
}

#[test]
fn clap_complains_in_one_line() {
    assert!(complaint("aoefs").contains("no mount point"));
    assert!(complaint("aoefs --frob /mnt").contains("--frob"));
    assert!(complaint("aoefs -Z /mnt").contains("-Z"));
    assert!(complaint("aoefs --foregroun /mnt").contains("--foreground"));
    assert!(complaint("aoefs /mnt -c").contains("--config needs a value"));
    assert!(complaint("aoefs /mnt -v -q").contains("exclude each other"));
    assert!(complaint("aoefs /mnt --wait-timeout x").contains("\"x\""));
    assert!(complaint("aoefs /mnt --wait-timeout 0").contains("--wait-timeout"));
    assert!(complaint("aoefs /mnt --wait 1").contains("\"1\""));
    assert!(complaint("aoefs /mnt --wait 65535.255").contains("65535.255"));
    assert!(complaint("aoefs /mnt --foreground=yes").contains("--foreground"));
}

#[test]
fn where_to_listen() {
    let at = |text: &str| options(&format!("aoefs --demo --metrics-listen {text} /mnt")).metrics_listen;
    // A port alone is reached from this machine only.
    for text in ["9417", ":9417", "127.0.0.1:9417"] {
        assert_eq!(at(text), Some("127.0.0.1:9417".parse().unwrap()), "{text}");
    }
    assert_eq!(at("0.0.0.0:1"), Some("0.0.0.0:1".parse().unwrap()));
    for text in ["x", "70000", "localhost:9417", "127.0.0.1", "::1:9417:", "-1"] {
        let complaint = complaint(&format!("aoefs --metrics-listen={text} /mnt"));
        assert!(
            complaint.contains("--metrics-listen") && complaint.contains("127.0.0.1:9417"),
            "{complaint}"
        );
    }
}

#[test]
fn arguments_that_are_not_text() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(b"/mnt/\xff".to_vec());
    let Ok(Action::Mount(options)) = parse([OsString::from("aoefs"), odd.clone()]) else { panic!() };
    assert_eq!(options.mountpoint, PathBuf::from(odd.clone()));
    let failure = parse([OsString::from("aoefs"), "-i".into(), odd, "/mnt".into()]).unwrap_err();
    assert_eq!(failure.code(), 2);
}

#[test]
fn checking_the_configuration_needs_no_mount_point() {
    let check = |line: &str| match parse(line.split_whitespace()) {
        Ok(Action::CheckConfig(config)) => config,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(check("aoefs --check-config"), Config { path: DEFAULT_CONFIG.into(), named: false });
    assert_eq!(check("aoefs --check-config /x"), Config { path: "/x".into(), named: true });
    assert_eq!(check("aoefs -c /x --check-config"), Config { path: "/x".into(), named: true });
}

#[test]
fn help_and_version_are_printed() {
    let Ok(Action::Print(help)) = parse(["aoefs", "--help"]) else { panic!() };
    for word in ["MOUNTPOINT", "--demo", "--wait-timeout", "max_targets=N", "x-*", "_netdev"] {
        assert!(help.contains(word), "{word}\n{help}");
    }
    assert!(!help.contains('\x1b'));
    let Ok(Action::Print(version)) = parse(["aoefs", "--version"]) else { panic!() };
    assert_eq!(version, format!("aoefs {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_help_names_the_defaults_that_hold() {
    let defaults = MountOptions::default();
    for (name, figure) in [
        ("deadline", crate::engine::DEADLINE.as_secs()),
        ("stop", defaults.stop.as_secs()),
        ("readahead", defaults.read_ahead() >> 10),
        ("max_targets", crate::runtime::TARGETS_MAX as u64),
    ] {
        let option = MOUNT_OPTIONS.iter().find(|option| option.name == name).unwrap();
        assert!(option.help.ends_with(&format!(" [{figure}]")), "{name}: {}", option.help);
    }
    for (name, figure) in
        [("wait-timeout", format!("default: {WAIT_TIMEOUT}")), ("demo", format!("default size: {DEMO_SIZE}"))]
    {
        let command = command();
        let argument = command.get_arguments().find(|argument| argument.get_id() == name).unwrap();
        let help = argument.get_help().unwrap().to_string();
        assert!(help.ends_with(&format!(" [{figure}]")), "{name}: {help}");
    }
}
