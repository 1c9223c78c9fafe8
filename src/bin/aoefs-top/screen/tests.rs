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
        "aoefs 0.1.0 on /mnt/a\\noe                                every 1 s  sort: target",
        "3 targets, 2 up, 1 down; 30 IOPS, 0.00 MB/s read, 0.00 MB/s written, 0 retx/s",
        "eth1 up mtu 9000 in 0/s out 0/s | eth2 down mtu 0 in 0/s out 0/s",
        "TARGET    STATE   SIZE   IOPS RD MB/s WR MB/s    LAT    P99 QUEUE RETX/s PATHS",
        "1.0       up         0      0    0.00    0.00      -      -     0      0   1/1",
        "1.1       down       0     10    0.00    0.00      -      -     0      0   0/1",
        "1.2       up         0     20    0.00    0.00      -      -     0      0   1/1",
    ];
    assert_eq!(seen[..7], wanted);
    assert_eq!((seen[16].as_str(), seen[17].as_str()), ("", "LOG"));
    assert_eq!(seen[18], "2026-11-20T07:00:25.000Z 1.0 line 25");
    assert_eq!(seen[22], "2026-11-20T07:00:29.000Z 1.0 line 29");
    assert_eq!(seen[23], "q quit  s sort  r reverse  p paths  l log  + - interval  space pause  h help");
}

#[test]
fn keys_change_what_is_seen() {
    let mut app = app(3, false);
    let first = |app: &mut App| lines(app, 80, 24)[4].split(' ').next().unwrap().to_owned();
    assert_eq!(first(&mut app), "1.0");
    app.key(Key::Char('s'));
    assert_eq!(first(&mut app), "1.2");
    assert!(lines(&mut app, 80, 24)[0].ends_with("sort: iops"));
    app.key(Key::Char('r'));
    assert_eq!(first(&mut app), "1.0");
    assert!(lines(&mut app, 80, 24)[0].ends_with("sort: iops reversed"));
    app.key(Key::Char('<'));
    assert_eq!(first(&mut app), "1.2");
    app.key(Key::Char('p'));
    assert!(lines(&mut app, 80, 24)[5].starts_with("  eth1 02:00:00:00:00:01 active  rtt - "));
    app.key(Key::Char('l'));
    assert!(!lines(&mut app, 80, 24).contains(&"LOG".to_owned()));
    app.key(Key::Char('h'));
    assert_eq!(lines(&mut app, 80, 24)[0], "Keys");
    app.key(Key::Char('r'));
    assert!(lines(&mut app, 80, 24)[0].ends_with("sort: target reversed"), "leaving help does nothing else");
    for (key, seconds) in
        [('+', 0.5), ('+', 0.2), ('+', 0.1), ('+', 0.1), ('-', 0.2), ('-', 0.5), ('-', 1.0), ('-', 2.0)]
    {
        app.key(Key::Char(key));
        assert_eq!(app.interval().as_secs_f64(), seconds);
    }
    app.key(Key::Char('%'));
    app.key(Key::Escape);
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

#[test]
fn more_targets_than_lines() {
    let mut app = app(200, false);
    let seen = |app: &mut App| {
        let seen = lines(app, 80, 24);
        (seen[4].split(' ').next().unwrap().to_owned(), seen[0].clone())
    };
    assert!(seen(&mut app).1.contains("1-13 of 200"));
    app.key(Key::Down);
    assert_eq!(seen(&mut app).0, "1.1");
    app.key(Key::PageDown);
    assert_eq!(seen(&mut app).0, "1.14");
    app.key(Key::End);
    let (first, title) = seen(&mut app);
    assert!(first == "1.187" && title.contains("188-200 of 200"), "{first} {title}");
    app.key(Key::Up);
    assert_eq!(seen(&mut app).0, "1.186");
    app.key(Key::PageUp);
    app.key(Key::Home);
    assert_eq!(seen(&mut app).0, "1.0");
    app.reading(Ok(report(0)));
    assert_eq!(seen(&mut app).0, "");
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
}
