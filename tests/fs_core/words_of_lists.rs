//! The rows of the table of words for `mask` and `reserve`.

use std::sync::LazyLock;

use super::{EINVAL, ENOENT, Errno, Host, ROW, Row};

/// Of `mask`. The first address that is added brings this machine's own along.
pub(super) fn mask_rows() -> Vec<Row> {
    let listed = |host: &Host| assert_eq!(host.echo("1.0/mask", "add 02:00:00:00:00:77"), Ok(21));
    vec![
        Row {
            word: "add",
            alone: Some((EINVAL, "usage: add MAC")),
            good: &["add 02:00:00:00:00:77", "add 02:00:00:00:00:77", "add\t020000000078\r"],
            wrong: &[
                ("add 1.0", EINVAL, "add: 1.0 is not a MAC address; usage: add MAC"),
                ("add 02:00:00:00:00", EINVAL, "add: 02:00:00:00:00 is not a MAC address; usage: add MAC"),
                (
                    "add ff:ff:ff:ff:ff:ff",
                    EINVAL,
                    "add: ff:ff:ff:ff:ff:ff is not the address of one station; usage: add MAC",
                ),
            ],
            huge: ("", "… is not a MAC address; usage: add MAC"),
            ..ROW
        },
        Row {
            word: "del",
            alone: Some((EINVAL, "usage: del MAC")),
            good: &["del 02:00:00:00:00:77"],
            wrong: &[
                ("del 02:00:00:00:00:77", ENOENT, "02:00:00:00:00:77 is not in the list"),
                ("del me", EINVAL, "del: me is not a MAC address; usage: del MAC"),
            ],
            huge: ("", "… is not a MAC address; usage: del MAC"),
            prepare: listed,
            ..ROW
        },
        Row {
            word: "del!",
            alone: Some((EINVAL, "usage: del! MAC")),
            good: &["del! 02:00:00:00:00:77"],
            wrong: &[
                ("del! 02:00:00:00:00:77", ENOENT, "02:00:00:00:00:77 is not in the list"),
                ("del! me", EINVAL, "del!: me is not a MAC address; usage: del! MAC"),
            ],
            huge: ("", "… is not a MAC address; usage: del! MAC"),
            prepare: listed,
            ..ROW
        },
    ]
}

/// One address more than `set` and `force` take.
static HOLDERS: LazyLock<String> = LazyLock::new(|| "02:00:00:00:00:01 ".repeat(241));

/// Of `reserve`.
pub(super) fn reserve_rows() -> Vec<Row> {
    let held = |host: &Host| assert_eq!(host.echo("1.0/reserve", "force 02:00:00:00:00:77"), Ok(23));
    vec![
        Row {
            word: "take",
            good: &["take", "take\r"],
            wrong: &[("take 02:00:00:00:00:77", EINVAL, "usage: take")],
            ..ROW
        },
        Row {
            word: "release",
            good: &["release", "release"],
            wrong: &[("release 02:00:00:00:00:77", EINVAL, "usage: release")],
            ..ROW
        },
        Row {
            word: "set",
            alone: Some((EINVAL, "usage: set MAC...")),
            good: &["set 02:00:00:00:00:77"],
            wrong: &[
                ("set 02:00:00:00:00:78", Errno::EBUSY, "set 02:00:00:00:00:78: Device or resource busy"),
                ("set 02:00:00:00:00:77 1.0", EINVAL, "set: 1.0 is not a MAC address; usage: set MAC..."),
                (
                    "set 01:00:5e:00:00:01",
                    EINVAL,
                    "set: 01:00:5e:00:00:01 is not the address of one station; usage: set MAC...",
                ),
            ],
            many: Some(&HOLDERS),
            huge: ("02:00:00:00:00:01", "… is not a MAC address; usage: set MAC..."),
            ..ROW
        },
        Row {
            word: "force",
            alone: Some((EINVAL, "usage: force MAC...")),
            good: &["force 02:00:00:00:00:78 02:00:00:00:00:79", "force 020000000077"],
            wrong: &[("force nobody", EINVAL, "force: nobody is not a MAC address; usage: force MAC...")],
            many: Some(&HOLDERS),
            huge: ("", "… is not a MAC address; usage: force MAC..."),
            prepare: held,
        },
    ]
}
