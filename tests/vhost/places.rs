//! Where sockets are, what leads to them, and whose words end them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use aoefs::export::server::Server;
use aoefs::link::loopback::pair;
use aoefs::target::{MemoryImage, Processor, TargetConfig};
use aoefs::wire::Addr;
use nix::unistd::{Uid, geteuid, setfsuid};
use parking_lot::Mutex;

use super::*;

#[test]
fn the_link_leads_to_a_socket_of_the_whole_disk_only() {
    let stage = Stage::new();
    stage.ctl("part boot 8 16").unwrap();
    let link = || stage.host.ino("1.0/vhost").and_then(|ino| stage.host.core.read_link(ino));
    let listed = || stage.host.names("1.0").contains(&"vhost".to_string());
    stage.export("boot", "boot");
    assert_eq!((link(), listed()), (Err(Errno::ENOENT), false), "a partition is another disk");
    let [first, second] = ["disk", "again"].map(|name| stage.export(name, ""));
    assert_eq!((link(), listed()), (Ok(first.clone()), true));
    stage.ctl(&format!("unvhost {}", first.display())).unwrap();
    assert_eq!(link(), Ok(second.clone()));
    stage.ctl(&format!("unvhost {}", second.display())).unwrap();
    assert_eq!((link(), listed()), (Err(Errno::ENOENT), false));
    stage.end();
}

/// A partition of another range is another partition, so the size of one never changes.
#[test]
fn a_partition_keeps_its_size_whatever_size_the_disk_is_shown_with() {
    let stage = Stage::new();
    stage.ctl("part home 8 4096").unwrap();
    let [disk, home] = [("disk", "data"), ("home", "home")].map(|(socket, name)| stage.export(socket, name));
    let (mut whole, mut part) = (Listener::connect(&disk), Listener::connect(&home));
    assert_eq!((whole.capacity() * 512, part.capacity()), (SIZE, 4096 - 8));
    stage.ctl("setsize 1048576").unwrap();
    whole.wait_for_change();
    assert_eq!((whole.capacity(), part.capacity()), (2048, 4096 - 8));
    drop((whole, part));
    stage.end();
}

#[test]
fn a_target_does_not_end_the_sockets_of_another() {
    let stage = Stage::new();
    let (near, far) = pair("other near", "other far", 9000);
    let config = TargetConfig::new(Addr::new(2, 0), "two");
    let silent = || false.into();
    let other = host::Target {
        processor: Mutex::new(Processor::new(config, MemoryImage::new(8))),
        silent: silent(),
        unflushed: silent(),
        identity: Mutex::new(|_| ()),
    };
    let server = Server::start(far, Arc::new(other)).unwrap();
    stage.host.runtime.attach(near).unwrap();
    stage.host.eventually(|| stage.host.look_up(host::ROOT, "2.0").is_ok());
    let path = stage.export("disk", "");
    let front = Front::connect(&path, 1);
    let word = format!("unvhost {}", path.display());
    assert_eq!(stage.host.echo("2.0/ctl", &word), Err(Errno::ENOENT));
    assert!(is_socket(&path));
    assert_eq!(stage.lines(), ["vhost disk data 1"]);
    stage.ctl(&word).unwrap();
    assert!(!path.exists());
    drop(front);
    stage.end();
    drop(server);
}

#[test]
fn where_the_daemon_may_make_no_files_there_is_no_socket() {
    let stage = Stage::new();
    let closed = stage.path("closed");
    std::fs::create_dir(&closed).unwrap();
    // Root may make files everywhere, so it is somebody else, on this thread and those that it starts.
    std::fs::set_permissions(stage.dir.path(), Permissions::from_mode(0o711)).unwrap();
    std::fs::set_permissions(&closed, Permissions::from_mode(0o555)).unwrap();
    let line = format!("vhost {}", closed.join("disk").display());
    let refused = std::thread::scope(|scope| {
        let as_nobody = || {
            if geteuid().is_root() {
                setfsuid(Uid::from_raw(65534));
            }
            stage.ctl(&line)
        };
        scope.spawn(as_nobody).join().unwrap()
    });
    assert_eq!(refused, Err(Errno::EACCES));
    assert_eq!((stage.lines().len(), std::fs::read_dir(&closed).unwrap().count()), (0, 0));
    std::fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    stage.ctl(&line).unwrap();
    stage.ctl(&format!("un{line}")).unwrap();
    std::fs::remove_dir(&closed).unwrap();
    stage.end();
}
