//! Names, modes, sizes; what a directory lists.

use std::ffi::OsStr;

use aoefs::fs::errno::Errno;

use crate::host::{Host, ROOT, SIZE};

#[test]
fn a_target_is_a_directory_of_files() {
    let host = Host::new();
    assert_eq!(host.names(""), [".", "..", "ctl", "log", "metrics", "1.0"]);
    assert_eq!(
        host.names("1.0"),
        [".", "..", "ctl", "config", "ident", "raw", "mask", "reserve", "stats", "devlink", "data"]
    );
    assert_eq!(host.names("1.0/devlink"), [".", "..", "0"]);
    let mode = |path: &str| host.core.stat(host.ino(path).unwrap()).unwrap().attr.perm;
    for (path, want) in [
        ("ctl", 0o644),
        ("log", 0o444),
        ("metrics", 0o444),
        ("1.0", 0o755),
        ("1.0/ctl", 0o644),
        ("1.0/data", 0o640),
        ("1.0/config", 0o644),
        ("1.0/ident", 0o444),
        ("1.0/raw", 0o600),
        ("1.0/mask", 0o644),
        ("1.0/reserve", 0o644),
        ("1.0/stats", 0o444),
        ("1.0/devlink/0", 0o444),
    ] {
        assert_eq!(mode(path), want, "{path}");
    }
    assert_eq!(host.size("1.0/data"), SIZE);
    assert_eq!(host.size("1.0/ident"), 512);
    assert_eq!(host.size("1.0/ctl"), 0);
    assert_eq!(host.size("log"), host.runtime.log().total());
    for name in ["1.1", "01.0", "0x1.0", "1", "x", "..", "1.0/data/x"] {
        let want = if name.contains('/') { Errno::ENOTDIR } else { Errno::ENOENT };
        assert_eq!(host.ino(name).unwrap_err(), want, "{name}");
    }
    for name in ["DATA", "devlink/1", "devlink/00", "Raw", "nothing"] {
        assert_eq!(host.ino(&format!("1.0/{name}")).unwrap_err(), Errno::ENOENT, "{name}");
    }
    host.end();
}

#[test]
fn a_listing_goes_on_where_it_stopped() {
    let host = Host::new();
    let fh = host.core.open_dir(host.ino("1.0").unwrap()).unwrap();
    let mut names = Vec::new();
    let mut offset = 0;
    loop {
        let before = names.len();
        host.core
            .read_dir(fh, offset, |entry, next| {
                if names.len() > before {
                    return true;
                }
                names.push(entry.name.clone());
                offset = next;
                false
            })
            .unwrap();
        if names.len() == before {
            break;
        }
    }
    assert_eq!(names, host.names("1.0"));
    host.core.release(fh);
    host.end();
}

#[test]
fn chmod_and_chown_stay_with_the_name() {
    let host = Host::new();
    let ino = host.ino("1.0/data").unwrap();
    host.core.set_meta(ino, Some(0o100_660), Some(5), None, None).unwrap();
    let attr = host.look_up(host.ino("1.0").unwrap(), "data").unwrap().attr;
    assert_eq!((attr.perm, attr.uid, attr.gid), (0o660, 5, 100));
    assert_eq!(host.core.set_meta(ROOT, Some(0o700), None, None, None), Err(Errno::EPERM));
    host.swap("another", 4096);
    host.eventually(|| host.size("1.0/data") == 4096 * 512);
    let attr = host.look_up(host.ino("1.0").unwrap(), "data").unwrap().attr;
    assert_ne!(attr.ino.0, ino);
    assert_eq!((attr.perm, attr.uid, attr.gid), (0o660, 5, 100));
    host.end();
}

#[test]
fn rmdir_is_remove() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    let remove = |parent, name: &str| host.core.remove_dir(parent, OsStr::new(name));
    assert_eq!(remove(ROOT, "1.0"), Err(Errno::EBUSY));
    assert_eq!(remove(ROOT, "1.1"), Err(Errno::ENOENT));
    assert_eq!(remove(ROOT, "ctl"), Err(Errno::ENOTDIR));
    let unit = host.ino("1.0").unwrap();
    assert_eq!(remove(unit, "devlink"), Err(Errno::EPERM));
    assert_eq!(remove(unit, "data"), Err(Errno::ENOTDIR));
    host.core.release(fh);
    assert_eq!(remove(ROOT, "1.0"), Ok(()));
    assert_eq!(host.names(""), [".", "..", "ctl", "log", "metrics"]);
    assert_eq!(host.core.stat(unit).unwrap_err(), Errno::ESTALE);
    // It comes back as another directory.
    host.echo("ctl", "discover").unwrap();
    host.eventually(|| host.ino("1.0").is_ok());
    assert_ne!(host.ino("1.0").unwrap(), unit);
    host.end();
}

#[test]
fn a_target_removed_by_force_leaves_stale_handles() {
    let host = Host::new();
    let fh = host.open("1.0/data");
    assert_eq!(host.echo("ctl", "remove 1.0"), Err(Errno::EBUSY));
    assert_eq!(host.echo("ctl", "remove -f 1.0"), Ok(13));
    assert_eq!(host.read_at(fh, 0, 512), Err(Errno::ESTALE));
    assert_eq!(host.write_at(fh, 0, &[1; 512]), Err(Errno::ESTALE));
    assert_eq!(host.sync(fh), Err(Errno::ESTALE));
    host.core.release(fh);
    host.end();
}

#[test]
fn who_may_open_what_for_writing() {
    let host = Host::with(|settings| settings.read_only = true);
    for path in ["log", "1.0/ident", "1.0/devlink/0"] {
        assert_eq!(host.try_open(path, libc::O_WRONLY), Err(Errno::EPERM), "{path}");
    }
    assert_eq!(host.try_open("1.0/data", libc::O_RDWR), Err(Errno::EROFS));
    assert_eq!(host.truncate(host.ino("1.0/data").unwrap(), None, 0), Err(Errno::EROFS));
    assert_eq!(host.try_open("1.0", libc::O_RDONLY), Err(Errno::EISDIR));
    assert!(host.echo("1.0/ctl", "part a 0 8").is_ok(), "ctl stays writable under ro");
    host.end();
}
