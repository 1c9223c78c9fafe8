//! The kernel's mount table, `/proc/thread-self/mountinfo`, as far as we need it. The thread's own file, since mount
//! namespaces belong to threads.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The mount id that `fdinfo` shows, too. The kernel uses it again after the mount is gone.
    pub id: u64,
    /// `major:minor` of the superblock, which is also the name of its bdi.
    pub device: String,
    /// Where it is mounted, unescaped.
    pub point: PathBuf,
    /// `fuse.aoefs` for ours.
    pub kind: String,
    /// The source, as the first column of `mount`'s output shows it.
    pub source: String,
}

/// All mounts that the calling thread sees.
pub fn read() -> io::Result<Vec<Entry>> {
    Ok(parse(&std::fs::read("/proc/thread-self/mountinfo")?))
}

/// The mount with this id.
pub fn find(id: u64) -> io::Result<Option<Entry>> {
    Ok(read()?.into_iter().find(|entry| entry.id == id))
}

/// Mounts inside of `path`, which keep it busy.
pub fn below(path: &Path) -> io::Result<Vec<Entry>> {
    Ok(read()?.into_iter().filter(|entry| entry.point != path && entry.point.starts_with(path)).collect())
}

fn parse(text: &[u8]) -> Vec<Entry> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 0:42 / /mnt/aoe rw,nosuid shared:1 - fuse.aoefs eth1 rw,user_id=0`: a variable number of fields stands
/// before the dash, three after it.
fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = text(fields.next()?).parse().ok()?;
    let device = text(fields.nth(1)?);
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    fields.find(|field| field == b"-")?;
    let kind = text(fields.next()?);
    let source = text(&unescape(fields.next()?));
    Some(Entry { id, device, point, kind, source })
}

fn text(bytes: &[u8]) -> String {
    OsStr::from_bytes(bytes).to_string_lossy().into_owned()
}

/// The kernel writes blank, tab, line feed, backslash and # as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_table() {
        let text = b"36 35 0:42 / /mnt/a\\040b\\134c rw,nosuid shared:1 master:2 - fuse.aoefs eth1,eth2 rw,user_id=0\n\
                     22 1 0:20 / /proc rw - proc proc rw\n\
                     nonsense\n\
                     37 36 8:1 / /mnt\n";
        let entries = parse(text);
        assert_eq!(entries.len(), 2);
        assert_eq!(
            entries[0],
            Entry {
                id: 36,
                device: "0:42".into(),
                point: "/mnt/a b\\c".into(),
                kind: "fuse.aoefs".into(),
                source: "eth1,eth2".into(),
            }
        );
        assert_eq!(entries[1].point, Path::new("/proc"));
    }

    #[test]
    fn a_backslash_without_three_digits_stays() {
        assert_eq!(unescape(b"a\\04"), b"a\\04");
        assert_eq!(unescape(b"\\011x\\777"), b"\tx\\777");
    }

    #[test]
    fn the_table_of_this_machine_has_a_root() {
        assert!(read().unwrap().iter().any(|entry| entry.point == Path::new("/")));
    }
}
