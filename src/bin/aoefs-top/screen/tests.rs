use std::fmt::Write;
use std::path::Path;

use aoefs::top::Sample;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;

/// A mount with so many targets; the higher the address, the busier.
fn report(targets: u32) -> Report {
    let page = |seconds: u32| {
        let mut page = "aoefs_info{version=\"0.1.0\"} 1\naoefs_netlink_up{netlink=\"eth1\"} 1\n\
            aoefs_netlink_up{netlink=\"eth2\"} 0\naoefs_netlink_mtu_bytes{netlink=\"eth1\"} 9000\n"
            .to_owned();
        for slot in 0..targets {
            let up = u32::from(slot != 1);
            let requests = seconds * slot * 10;
            let _ = write!(
                page,
                "aoefs_target_up{{target=\"1.{slot}\"}} {up}\n\
                 aoefs_target_errors_total{{target=\"1.{slot}\",op=\"read\"}} {requests}\n\
                 aoefs_path_up{{target=\"1.{slot}\",path=\"02:00:00:00:00:01\",netlink=\"eth1\"}} {up}\n\
                 aoefs_path_state{{target=\"1.{slot}\",path=\"02:00:00:00:00:01\",netlink=\"eth1\",state=\"active\"}} 1\n"
            );
        }
        Sample::parse(&(page + "# EOF\n")).unwrap()
    };
    let mut report = Report::new(&page(3), Some((&page(2), 1.0)));
    report.log = (0..30).map(|n| format!("2026-11-20T07:00:{n:02}.000Z 1.0 line {n}")).collect();
    report
}

fn app(targets: u32, colour: bool) -> App {
    let mut app = App::new(Path::new("/mnt/a\noe"), Duration::from_secs(1), (Sort::Target, false), colour);
    app.reading(Ok(report(targets)));
    app
}

fn drawn(app: &mut App, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| app.draw(frame)).unwrap();
    terminal
}

fn lines(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let terminal = drawn(app, width, height);
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

#[test]
fn eighty_by_twenty_four() {
    let seen = lines(&mut app(3, true), 80, 24);
    let wanted = [
        "aoefs 0.1.0 on /mnt/a\\noe                  every 1 s  sort: target, lowest first",
        "3 targets, 2 up, 1 down; 30 IOPS, 0.00 MB/s read, 0.00 MB/s written, 0 retx/s",
        "eth1 up, in 0 out 0 frames/s | eth2 down",
        "TARGET    STATE   IOPS RD MB/s WR MB/s    LAT    P99 QUEUE RETX/s ERR/s PATHS",
        "1.0       up         0    0.00    0.00      -      -     0      0     0   1/1",
        "1.1       down       -       -       -      -      -     0      0    10   0/1",
        "1.2       up        20    0.00    0.00      -      -     0      0    20   1/1",
    ];
    assert_eq!(seen[..7], wanted);
    assert_eq!((seen[16].as_str(), seen[17].as_str()), ("", "LOG"));
    assert_eq!(seen[18], "2026-11-20T07:00:25.000Z 1.0 line 25");
    assert_eq!(seen[22], "2026-11-20T07:00:29.000Z 1.0 line 29");
    assert_eq!(seen[23], "q quit  h help  / filter  Enter details  s sort  r reverse  p paths  l log …");
}

/// Every word on a screen of 80 columns is one on a screen of 400.
#[test]
fn nothing_is_cut_in_the_middle_of_a_word() {
    let mut app = app(3, true);
    let mut long = report(3);
    long.log =
        vec![format!("2026-11-20T07:00:00.000Z 1.0 {}", "read failed at sector 12345 because ".repeat(4))];
    for (n, net) in long.netlinks.iter_mut().enumerate() {
        net.netlink = format!("enp{n}s0f1np1");
        net.dropped_frames = 123_456.0;
    }
    for target in &mut long.targets {
        target.model = "A model with a name that nobody will ever read to its end".into();
        target.paths[0].netlink = "enp129s0f1np1".into();
        target.paths[0].bytes_per_second = Some(123e6);
    }
    app.reading(Ok(long));
    app.key(Key::Char('p'));
    let check = |app: &mut App, what: &str| {
        let plain = |word: &str| word.trim_end_matches([',', ';']).to_owned();
        let wide: Vec<String> = lines(app, 400, 24)
            .iter()
            .flat_map(|line| line.split(' ').map(plain).collect::<Vec<_>>())
            .collect();
        for line in lines(app, 80, 24) {
            for word in line.split(' ').filter(|word| *word != "…") {
                assert!(wide.contains(&plain(word)), "{what}: {word:?} in {line:?}");
            }
        }
    };
    check(&mut app, "table");
    app.key(Key::Enter);
    for line in lines(&mut app, 80, 24) {
        assert!(line.chars().count() <= 80 && !line.ends_with('…'), "one target: {line:?}");
    }
    app.key(Key::Escape);
    app.key(Key::Char('h'));
    assert!(help::HELP.lines().all(|line| line.chars().count() <= 80));
    check(&mut app, "help");
    app.key(Key::Escape);
    app.reading(Err(format!("/mnt/aoe: {}", "it went away, and ".repeat(9))));
    check(&mut app, "trouble");
}

#[test]
fn keys_change_what_is_seen() {
    let mut app = app(3, false);
    let first = |app: &mut App| lines(app, 80, 24)[4].split(' ').next().unwrap().to_owned();
    let title = |app: &mut App| lines(app, 80, 24)[0].clone();
    assert_eq!(first(&mut app), "1.0");
    app.key(Key::Char('s'));
    assert_eq!(first(&mut app), "1.2");
    assert!(title(&mut app).ends_with("sort: iops, largest first"));
    app.key(Key::Char('r'));
    assert_eq!(first(&mut app), "1.0");
    assert!(title(&mut app).ends_with("sort: iops, smallest first"));
    app.key(Key::Char('<'));
    assert_eq!(first(&mut app), "1.2");
    assert!(title(&mut app).ends_with("sort: target, highest first"));
    app.key(Key::Char('p'));
    assert!(lines(&mut app, 80, 24)[5].starts_with("  eth1 02:00:00:00:00:01 active  rtt - "));
    app.key(Key::Char('l'));
    assert!(!lines(&mut app, 80, 24).contains(&"LOG".to_owned()));
    app.key(Key::Char('h'));
    assert_eq!(lines(&mut app, 80, 24)[0], "Keys of the table");
    app.key(Key::Char('r'));
    assert!(title(&mut app).ends_with("highest first"), "leaving help does nothing else");
    for (key, seconds) in
        [('+', 0.5), ('+', 0.2), ('+', 0.1), ('+', 0.1), ('-', 0.2), ('-', 0.5), ('-', 1.0), ('-', 2.0)]
    {
        assert!(app.key(Key::Char(key)));
        assert_eq!(app.interval().as_secs_f64(), seconds);
    }
    assert!(app.key(Key::Char('%')) && app.key(Key::Escape));
    assert!(!app.key(Key::Char('q')), "the end");
}

#[test]
fn help_can_be_read_to_its_end() {
    let mut app = app(3, false);
    app.key(Key::Char('?'));
    let last = help::HELP.lines().last().unwrap();
    let seen = lines(&mut app, 80, 24);
    assert!(!seen.contains(&last.to_owned()) && seen[23].ends_with("there is more"), "{seen:?}");
    app.key(Key::Down);
    assert_eq!(lines(&mut app, 80, 24)[0], "", "the second line of help");
    app.key(Key::End);
    assert_eq!(lines(&mut app, 80, 24)[22], last);
    app.key(Key::Home);
    assert_eq!(lines(&mut app, 80, 24)[0], "Keys of the table");
    assert_eq!(lines(&mut app, 80, 60)[59], "any key goes back");
    app.key(Key::Escape);
    assert!(lines(&mut app, 80, 24)[3].starts_with("TARGET"));
}

#[test]
fn one_target_with_all_that_is_known() {
    let mut app = app(3, false);
    app.key(Key::Down);
    app.key(Key::Down);
    app.key(Key::Enter);
    let seen = lines(&mut app, 80, 40);
    assert_eq!(seen[4], "Target 1.2 is up: model not known, 0B");
    for line in [
        "  requests   20 a second: 20 reads, 0 writes; 0 wait for an answer",
        "  data       0.00 MB/s read, 0.00 MB/s written",
        "  latency    - mean, - or less for 99 of 100",
        "  errors     20 a second, 60 since it was found",
        "  window     0 frames on their way, of 0 that may be",
        "  eth1 02:00:00:00:00:01 active  rtt -  0/0 frames  0.00 MB/s  0 retx/s",
        "The log has nothing of it",
    ] {
        assert!(seen.iter().any(|seen| seen.starts_with(line)), "{line} is not in {seen:#?}");
    }
    assert!(seen[39].starts_with("Esc back"));
    // The next reading is of the same target, also while it is not there.
    app.reading(Ok(report(1)));
    assert_eq!(lines(&mut app, 80, 24)[4], "Target 1.2 is known no more");
    app.reading(Ok(report(3)));
    app.key(Key::Escape);
    assert!(lines(&mut app, 80, 24)[3].starts_with("TARGET"));
    // A target that is down, and its lines of the log, which can be scrolled to.
    app.key(Key::Home);
    app.key(Key::Down);
    app.key(Key::Enter);
    let seen = lines(&mut app, 80, 24);
    assert!(seen[4].starts_with("Target 1.1 is down"), "{seen:#?}");
    assert!(seen.contains(&"  requests   down; 0 wait for an answer".to_owned()), "{seen:#?}");
    assert!(seen.iter().any(|line| line.starts_with("  eth1 02:00:00:00:00:01 down")), "{seen:#?}");
    app.key(Key::Enter);
    app.key(Key::Home);
    app.key(Key::Enter);
    assert!(lines(&mut app, 80, 24)[0].contains("-19 of "), "{:#?}", lines(&mut app, 80, 24));
    app.key(Key::End);
    assert_eq!(lines(&mut app, 80, 24)[22], "  2026-11-20T07:00:00.000Z 1.0 line 0");
}

#[test]
fn a_filter_while_it_is_typed_and_after() {
    let mut app = app(30, false);
    let rows = |app: &mut App| {
        let seen = lines(app, 80, 60);
        (seen[4..40].iter().filter(|line| line.starts_with("1.")).count(), seen[59].clone())
    };
    app.key(Key::Char('/'));
    for (key, count) in [('1', 30), ('.', 30), ('2', 11), ('q', 0)] {
        assert!(app.key(Key::Char(key)), "q is a letter here");
        assert_eq!(rows(&mut app).0, count, "{key}");
    }
    app.key(Key::Backspace);
    assert_eq!(rows(&mut app), (11, "filter: 1.2_  Enter keeps it, Esc ends it".to_owned()));
    app.key(Key::Enter);
    assert_eq!(rows(&mut app), (11, "filter \"1.2\": 11 of 30 targets; Esc shows all of them".to_owned()));
    app.key(Key::End);
    app.key(Key::Enter);
    assert!(lines(&mut app, 80, 24)[4].starts_with("Target 1.29 "));
    app.key(Key::Escape);
    assert_eq!(rows(&mut app).0, 11);
    // Begun again and given up, it is as it was; then it ends.
    app.key(Key::Char('/'));
    app.key(Key::Char('7'));
    app.key(Key::Escape);
    assert_eq!(rows(&mut app).0, 11);
    app.key(Key::Escape);
    assert_eq!(rows(&mut app).0, 30);
    app.filter("down".into());
    assert_eq!(rows(&mut app).0, 1);
}

#[test]
fn a_pause_keeps_the_picture() {
    let mut app = app(2, false);
    app.key(Key::Char(' '));
    app.reading(Ok(report(5)));
    let seen = lines(&mut app, 80, 24);
    assert!(seen[0].contains("PAUSED") && seen[1].starts_with("2 targets"), "{seen:?}");
    app.key(Key::Char(' '));
    app.reading(Ok(report(5)));
    let seen = lines(&mut app, 80, 24);
    assert!(!seen[0].contains("PAUSED") && seen[1].starts_with("5 targets"), "{seen:?}");
}

/// The first row that is seen, and the row that is chosen.
fn first_and_chosen(app: &mut App) -> (String, String) {
    let terminal = drawn(app, 80, 24);
    let buffer = terminal.backend().buffer();
    let name = |y: u16| (0..9).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim().to_owned();
    let chosen = (4..17).find(|y| buffer[(0, *y)].modifier.contains(Modifier::UNDERLINED));
    (name(4), chosen.map(name).unwrap_or_default())
}

#[test]
fn more_targets_than_lines() {
    let mut app = app(200, false);
    let place = |app: &mut App| lines(app, 80, 24)[0].clone();
    let at = |first: &str, chosen: &str| (first.to_owned(), chosen.to_owned());
    assert!(place(&mut app).contains("1-13 of 200"));
    app.key(Key::Down);
    assert_eq!(first_and_chosen(&mut app), at("1.0", "1.1"));
    app.key(Key::PageDown);
    assert_eq!(first_and_chosen(&mut app), at("1.2", "1.14"));
    app.key(Key::End);
    assert_eq!(first_and_chosen(&mut app), at("1.187", "1.199"));
    assert!(place(&mut app).contains("188-200 of 200"));
    app.key(Key::Up);
    assert_eq!(first_and_chosen(&mut app), at("1.187", "1.198"));
    app.key(Key::PageUp);
    assert_eq!(first_and_chosen(&mut app), at("1.185", "1.185"));
    // The chosen target stays the same one where the order changes.
    app.key(Key::Char('r'));
    assert_eq!(first_and_chosen(&mut app).1, "1.185");
    app.key(Key::Home);
    assert_eq!(first_and_chosen(&mut app), at("1.199", "1.199"));
    app.reading(Ok(report(0)));
    assert_eq!(first_and_chosen(&mut app), at("", ""));
    app.key(Key::Enter);
    app.key(Key::Down);
    assert!(lines(&mut app, 80, 24)[3].starts_with("TARGET"), "nothing to show");
}

#[test]
fn trouble_is_said_and_what_is_known_stays() {
    let mut app = app(3, true);
    app.reading(Err("/mnt/aoe: no aoefs is mounted here\n".into()));
    let seen = lines(&mut app, 80, 24);
    assert_eq!(seen[1], "/mnt/aoe: no aoefs is mounted here");
    assert_eq!(seen[2], "trying again every 1 s; below is what was known last");
    assert!(seen[4].starts_with("1.0 "));
    app.reading(Ok(report(3)));
    assert!(lines(&mut app, 80, 24)[1].starts_with("3 targets"));
    app.silent_for(Duration::from_secs(2));
    assert!(lines(&mut app, 80, 24)[1].starts_with("3 targets"));
    app.silent_for(Duration::from_secs(4));
    assert_eq!(lines(&mut app, 80, 24)[1], "no answer from /mnt/a\\noe for 4 s");
}

#[test]
fn without_colour_there_is_none() {
    let mut app = app(3, false);
    app.key(Key::Char('p'));
    app.reading(Err("gone".into()));
    for trouble in [false, true] {
        if !trouble {
            app.reading(Ok(report(3)));
        }
        let terminal = drawn(&mut app, 80, 24);
        let plain = |cell: &ratatui::buffer::Cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset);
        assert!(terminal.backend().buffer().content.iter().all(plain));
    }
    let mut app = self::app(3, true);
    let terminal = drawn(&mut app, 80, 24);
    assert_eq!(terminal.backend().buffer()[(10, 5)].fg, Color::Red, "down is red");
}

#[test]
fn any_size_can_be_drawn() {
    let mut app = app(30, true);
    app.key(Key::Char('p'));
    for width in [1, 2, 10, 37, 79, 80, 81, 300] {
        for height in [1, 2, 3, 4, 5, 6, 15, 16, 17, 100] {
            drawn(&mut app, width, height);
        }
    }
    assert_eq!(lines(&mut app, 40, 6)[3], "TARGET    STATE   IOPS RD MB/s WR MB/s");
    assert!(lines(&mut app, 130, 20)[3].ends_with("ERR/s PATHS MODEL"));
    for view in [Key::Enter, Key::Char('h')] {
        app.key(view);
        for (width, height) in [(1, 1), (3, 30), (10, 3), (300, 100)] {
            drawn(&mut app, width, height);
        }
        app.key(Key::Escape);
    }
}
