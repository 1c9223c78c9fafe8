//! What paths name, what they named before, and what stays when a disk is replaced.

use super::*;
use crate::engine::PartId;

const U: UnitId = UnitId(7);

fn tree() -> Tree {
    Tree::new(1000, 100, SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000), false)
}

fn data(generation: u32, size: u64) -> DiskView {
    DiskView { name: DATA.into(), place: Handle { generation, part: None }, start: 0, size }
}

fn part(generation: u32, id: u32, name: &str, start: u64, size: u64) -> DiskView {
    DiskView { name: name.into(), place: Handle { generation, part: Some(PartId(id)) }, start, size }
}

fn names(list: &[Entry]) -> Vec<&str> {
    list.iter().map(|e| e.name.as_str()).collect()
}

#[test]
fn numbers_decode_to_what_they_were_made_of() {
    let t = tree();
    let mut seen = std::collections::HashSet::new();
    let mut nodes = vec![Node::Root];
    nodes.extend(TopFile::ALL.iter().copied().map(Node::Top));
    for unit in [UnitId(0), U, UnitId(u32::MAX)] {
        nodes.extend([Node::Unit(unit), Node::Devlinks(unit), Node::Vhost(unit)]);
        nodes.extend(UnitFile::ALL.iter().map(|f| Node::File(unit, *f)));
        nodes.extend([Node::Devlink(unit, 0), Node::Devlink(unit, 127)]);
    }
    for node in nodes {
        assert!(seen.insert(node.ino()), "{node:?} shares its number");
        assert!(node.ino() < FIRST_DISK);
        assert_eq!(format!("{:?}", t.node(node.ino()).unwrap()), format!("{node:?}"));
    }
    for unknown in [0, 5, 255, 300, FIRST_DISK, u64::MAX] {
        assert!(t.node(unknown).is_none(), "{unknown}");
    }
}

#[test]
fn a_replaced_disk_has_a_new_number_and_the_old_one_keeps_its_size() {
    let t = tree();
    t.sync(U, &[data(1, 4096)]);
    let old = t.look_up(U, DATA).unwrap();
    let changes = t.sync(U, &[data(2, 8192)]);
    assert_eq!(changes.gone.len(), 1);
    let new = t.look_up(U, DATA).unwrap();
    assert_ne!(old.ino, new.ino);
    assert!(old.is_stale() && !new.is_stale());
    let attr = |disk: &Arc<Disk>| t.attr(&t.node(disk.ino).unwrap(), 0);
    assert_eq!((attr(&old).size, attr(&old).blocks), (4096, 8));
    assert_eq!((attr(&new).size, attr(&new).blksize), (8192, REQUEST_MAX as u32));
    assert_eq!(t.inner.lock().disks.len(), 2);
    t.forget(old.ino, 1);
    assert!(t.node(old.ino).is_none(), "the kernel forgot it, so do we");
    t.forget(new.ino, 1);
    assert!(t.node(new.ino).is_some(), "a current disk stays");
    assert_eq!(t.look_up(U, DATA).unwrap().ino, new.ino);
}

#[test]
fn a_partition_declared_again_is_another_file() {
    let t = tree();
    t.sync(U, &[data(1, 1 << 20), part(1, 1, "boot", 512, 1024)]);
    let old = t.look_up(U, "boot").unwrap();
    assert!(t.sync(U, &[data(1, 1 << 20)]).gone[0].is_stale());
    assert!(t.look_up(U, "boot").is_none());
    t.sync(U, &[data(1, 1 << 20), part(1, 2, "boot", 512, 1024)]);
    let new = t.look_up(U, "boot").unwrap();
    assert_ne!(old.ino, new.ino);
    assert_eq!((old.size(), new.size(), new.start), (1024, 1024, 512));
    assert!(old.is_stale());
}

#[test]
fn nobody_looked_a_retired_disk_up_then_it_is_dropped_at_once() {
    let t = tree();
    for generation in 0..100 {
        t.sync(U, &[data(generation, 512)]);
    }
    assert_eq!(t.inner.lock().disks.len(), 1);
    t.forget_unit(U);
    assert_eq!(t.inner.lock().disks.len(), 0);
}

#[test]
fn a_new_size_is_the_same_file() {
    let t = tree();
    t.sync(U, &[data(1, 4096)]);
    let disk = t.look_up(U, DATA).unwrap();
    assert!(t.sync(U, &[data(1, 4096)]).resized.is_empty());
    let changes = t.sync(U, &[data(1, 2048)]);
    assert!(changes.gone.is_empty());
    assert_eq!(changes.resized[0].ino, disk.ino);
    assert_eq!(disk.size(), 2048);
}

#[test]
fn modes_and_owners() {
    let t = tree();
    t.sync(U, &[data(1, 512), part(1, 1, "p", 0, 512)]);
    let disk = |name| Node::Disk(t.look_up(U, name).unwrap());
    let perm = |node: &Node| t.attr(node, 0).perm;
    for (node, mode) in [
        (Node::Root, 0o755),
        (Node::Unit(U), 0o755),
        (Node::Devlinks(U), 0o755),
        (Node::Top(TopFile::Ctl), 0o644),
        (Node::Top(TopFile::Log), 0o444),
        (Node::File(U, UnitFile::Ctl), 0o644),
        (Node::File(U, UnitFile::Config), 0o644),
        (Node::File(U, UnitFile::Ident), 0o444),
        (Node::Devlink(U, 0), 0o444),
        (disk(DATA), 0o640),
        (disk("p"), 0o640),
    ] {
        assert_eq!(perm(&node), mode, "{node:?}");
        let attr = t.attr(&node, 0);
        assert_eq!((attr.uid, attr.gid), (1000, 100));
        assert_eq!(attr.kind == FileType::Directory, node.default_mode().is_none());
    }
    assert!(!t.set_meta(&Node::Root, Some(0o700), None, None));
    assert!(t.set_meta(&disk(DATA), Some(0o4600), None, Some(5)));
    assert!(t.set_meta(&disk(DATA), None, Some(33), None));
    let attr = t.attr(&disk(DATA), 0);
    assert_eq!((attr.perm, attr.uid, attr.gid), (0o600, 33, 5));
    assert_eq!(perm(&disk("p")), 0o640);
    // They stay with the name when the disk is replaced, and go with the target.
    t.sync(U, &[data(2, 512)]);
    assert_eq!(perm(&disk(DATA)), 0o600);
    t.forget_unit(U);
    t.sync(U, &[data(3, 512)]);
    assert_eq!(perm(&disk(DATA)), 0o640);
    assert!(t.set_meta(&Node::Top(TopFile::Log), Some(0o400), None, None));
    assert_eq!(perm(&Node::Top(TopFile::Log)), 0o400);
}

#[test]
fn what_is_kept_is_bounded() {
    let t = tree();
    for i in 0..META_MAX + 10 {
        let name = format!("p{i}");
        t.sync(U, &[part(1, i as u32, &name, 0, 512)]);
        let kept = t.set_meta(&Node::Disk(t.look_up(U, &name).unwrap()), Some(0o600), None, None);
        assert_eq!(kept, i < META_MAX);
    }
}

#[test]
fn listings() {
    let t = tree();
    t.sync(U, &[data(1, 512), part(1, 1, "boot", 0, 512)]);
    let root = t.list_root([(U, "1.0".to_string())].into_iter());
    assert_eq!(names(&root), [".", "..", "ctl", "log", "metrics", "1.0"]);
    assert_eq!(root[5].ino, Node::Unit(U).ino());
    let unit = t.list_unit(U, false);
    assert_eq!(
        names(&unit),
        [".", "..", "ctl", "config", "ident", "raw", "mask", "reserve", "stats", "devlink", "data", "boot"]
    );
    assert_eq!((unit[1].ino, unit[9].kind), (Node::Root.ino(), FileType::Directory));
    let links = t.list_devlinks(U, 2);
    assert_eq!(names(&links), [".", "..", "0", "1"]);
    assert_eq!(
        names(&t.list_unit(UnitId(8), false)),
        [".", "..", "ctl", "config", "ident", "raw", "mask", "reserve", "stats", "devlink"]
    );
}

#[test]
fn disks_that_cannot_be_written_show_it() {
    let t = Tree::new(1, 1, SystemTime::UNIX_EPOCH, true);
    t.sync(U, &[data(1, 512)]);
    let disk = Node::Disk(t.look_up(U, DATA).unwrap());
    assert_eq!(t.attr(&disk, 0).perm, 0o440);
    assert!(t.set_meta(&disk, Some(0o666), None, None));
    assert_eq!(t.attr(&disk, 0).perm, 0o444);
    assert_eq!(t.attr(&Node::File(U, UnitFile::Ctl), 0).perm, 0o644);
}

#[test]
fn an_inode_is_forgotten_with_its_last_lookup() {
    let t = tree();
    t.sync(U, &[data(1, 512)]);
    let disk = t.look_up(U, DATA).unwrap();
    t.look_up(U, DATA).unwrap();
    assert!(t.forget(disk.ino, 1).is_none());
    assert_eq!(t.forget(disk.ino, 1).unwrap().ino, disk.ino);
    assert!(t.forget(disk.ino, 9).is_some(), "never below zero");
    assert!(t.forget(12345, 1).is_none());
}

#[test]
fn times() {
    let t = tree();
    t.sync(U, &[data(1, 512)]);
    let disk = t.look_up(U, DATA).unwrap();
    let node = Node::Disk(disk.clone());
    assert_eq!(t.attr(&node, 0).mtime, t.born);
    let later = t.born + Duration::new(5, 7);
    disk.set_mtime(later);
    assert_eq!(t.attr(&node, 0).mtime, later);
}

#[test]
fn the_same_bytes_under_other_names() {
    let t = tree();
    let views =
        [data(1, 8192), part(1, 1, "a", 512, 1024), part(1, 2, "b", 1024, 4096), part(1, 3, "c", 0, 512)];
    t.sync(U, &views);
    let [whole, a, b, c] = [DATA, "a", "b", "c"].map(|name| t.look_up(U, name).unwrap());
    assert_eq!((a.on_target(&(0..10)), b.on_target(&(5000..5001))), (512..522, 5120..5120));
    assert_eq!(whole.on_target(&(8000..u64::MAX)), 8000..8192);
    let later = t.born + Duration::from_secs(1);
    let changed = |bytes: std::ops::Range<u64>| t.changed(U, &bytes, later);
    assert_eq!(changed(0..8192), [whole.ino, a.ino, b.ino, c.ino]);
    assert_eq!(changed(1500..1540), [whole.ino, a.ino, b.ino]);
    assert_eq!(changed(6000..6001), [whole.ino]);
    assert!(changed(9000..9001).is_empty() && changed(8192..8192).is_empty());
    assert_eq!(t.attr(&Node::Disk(c), 0).mtime, later);
}
