//! The identity of a disk: the same disk keeps its serial number over a reboot, and another one does not get it.
//!
//! A regular file is known by its inode (number, generation and time of birth) and by the identifier that its file
//! system carries on the disk. The number of the device below does not count: the kernel gives these numbers out anew
//! at every start. A block device is known by the words of sysfs for the hardware, the volume or the file behind it,
//! and a partition by its place on such a disk. If there are no such words, the number of the device and its size
//! remain, and [`Identity::is_sure`] is false.
//!
//! Only properties are asked for that every kernel tells in the same way, so that an upgrade of the kernel changes
//! nothing.

use std::fmt::Write;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use nix::libc::{c_long, major, minor};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, fstatfs};
use nix::sys::statvfs::fstatvfs;

/// XFS's number in linux/magic.h, which libc does not have for every C library.
const XFS_SUPER_MAGIC: FsType = FsType(0x5846_5342);
/// Bytes of the kernel's struct xfs_fsop_geom_v1, and where in it the identifier of the file system is.
const XFS_GEOMETRY: usize = 112;
const XFS_UUID: std::ops::Range<usize> = 64..80;

mod ioctl {
    nix::ioctl_read!(generation, b'v', 1, super::c_long);
    nix::ioctl_read!(xfs_geometry, b'X', 100, [u8; super::XFS_GEOMETRY]);
}

/// The name that a disk is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: String,
    sure: bool,
}

impl Identity {
    /// The identity of a regular file, or of a block device with so many sectors.
    pub fn of_file(file: &File, sectors: u64) -> io::Result<Identity> {
        let meta = file.metadata()?;
        if !meta.file_type().is_block_device() {
            return Ok(Identity { name: name_of_file(file, &meta), sure: true });
        }
        let number = (major(meta.rdev()), minor(meta.rdev()));
        Ok(System::new("/sys", "/run/udev/data").identity(number, sectors))
    }

    /// Whether it names the disk. If not, another disk of the same size at the same place looks the same.
    pub fn is_sure(&self) -> bool {
        self.sure
    }

    /// The identity as a number. `salt` is another property that tells disks apart.
    pub fn number(&self, salt: &str) -> u64 {
        // FNV-1a, 64 bits: stable for ever, which std's hasher does not promise.
        salt.bytes()
            .chain(self.name.bytes())
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

fn name_of_file(file: &File, meta: &Metadata) -> String {
    let born = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let mut generation = 0;
    // SAFETY: the kernel stores one int, which fits into the long that it declares; the file is open. A file system
    // that keeps no generation says so, and it stays 0.
    let _ = unsafe { ioctl::generation(std::os::fd::AsRawFd::as_raw_fd(file), &mut generation) };
    format!(
        "file {} {} {generation:x} {}",
        name_of_file_system(file).unwrap_or_default(),
        meta.ino(),
        born.map_or(0, |time| time.as_nanos())
    )
}

/// The identifier that a file system has written on its disk. Other kinds of file systems are known by the number of
/// their device, which does not last, or older kernels do not tell their identifier.
fn name_of_file_system(file: &File) -> Option<String> {
    /// Not in the list of nix.
    const ZFS_SUPER_MAGIC: i64 = 0x2fc1_2fc1;

    let kind = fstatfs(file).ok()?.filesystem_type();
    if kind == XFS_SUPER_MAGIC {
        // The f_fsid of XFS is the number of the device.
        let mut geometry = [0; XFS_GEOMETRY];
        // SAFETY: the kernel fills a structure of exactly this size; the file is open, and lies on XFS.
        unsafe { ioctl::xfs_geometry(std::os::fd::AsRawFd::as_raw_fd(file), &mut geometry) }.ok()?;
        let mut uuid = String::new();
        for byte in &geometry[XFS_UUID] {
            // Into a string it cannot fail.
            let _ = write!(uuid, "{byte:02x}");
        }
        return Some(uuid);
    }
    // In these file systems f_fsid is made of the identifier.
    let lasts = kind == EXT4_SUPER_MAGIC || kind == BTRFS_SUPER_MAGIC || kind.0 as i64 == ZFS_SUPER_MAGIC;
    lasts.then(|| fstatvfs(file).ok().map(|stat| format!("{:x}", stat.filesystem_id())))?
}

/// The major and the minor number of a device.
type Number = (u32, u32);

/// The places where the system tells about its block devices.
struct System {
    sys: PathBuf,
    udev: PathBuf,
}

impl System {
    fn new(sys: impl Into<PathBuf>, udev: impl Into<PathBuf>) -> System {
        System { sys: sys.into(), udev: udev.into() }
    }

    fn identity(&self, number: Number, sectors: u64) -> Identity {
        let dir = self.dir(number);
        if let Some(name) = self.name(&dir, number) {
            return Identity { name, sure: true };
        }
        // The minor numbers of volumes are given out as they are opened; their names are the administrator's.
        let place = read(&dir, "dm/name").unwrap_or_else(|| format!("{}:{}", number.0, number.1));
        Identity { name: format!("device {place} {sectors}"), sure: false }
    }

    fn dir(&self, (major, minor): Number) -> PathBuf {
        self.sys.join(format!("dev/block/{major}:{minor}"))
    }

    fn name(&self, dir: &Path, number: Number) -> Option<String> {
        if read(dir, "partition").is_none() {
            return self.name_of_whole(dir, number);
        }
        let disk = dir.canonicalize().ok()?.parent()?.to_owned();
        let number = number_of(&disk)?;
        match self.name_of_whole(&disk, number) {
            Some(disk) => Some(format!("from {} of {disk}", read(dir, "start")?)),
            None => self.property(number_of(dir)?, "ID_PART_ENTRY_UUID").map(|id| format!("partition {id}")),
        }
    }

    fn name_of_whole(&self, dir: &Path, number: Number) -> Option<String> {
        if let Some(backing) = read(dir, "loop/backing_file") {
            let offset = read(dir, "loop/offset").unwrap_or_default();
            // A file that is deleted or hidden has only a path.
            return Some(format!("loop {offset} {}", file_at(&backing).unwrap_or(backing)));
        }
        // NVMe, SCSI, volumes, RAID, virtio, NVMe of older kernels, MMC.
        const NAMES: [&str; 7] =
            ["wwid", "device/wwid", "dm/uuid", "md/uuid", "serial", "device/serial", "device/cid"];
        let told = NAMES.iter().find_map(|name| {
            let text = read(dir, name)?;
            let part =
                if *name == "device/serial" { read(dir, "nsid").unwrap_or_default() } else { String::new() };
            Some(format!("{name} {text} {part}"))
        });
        let known = || {
            ["MD_UUID", "ID_SERIAL"]
                .iter()
                .find_map(|key| Some(format!("{key} {}", self.property(number, key)?)))
        };
        told.or_else(known)
    }

    /// A property of a device that udev has found.
    fn property(&self, (major, minor): Number, key: &str) -> Option<String> {
        let text = fs::read_to_string(self.udev.join(format!("b{major}:{minor}"))).ok()?;
        let value =
            |line: &str| line.strip_prefix("E:")?.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
        text.lines().find_map(value).filter(|value| is_a_name(value))
    }
}

fn number_of(dir: &Path) -> Option<Number> {
    let text = read(dir, "dev")?;
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn read(dir: &Path, name: &str) -> Option<String> {
    let bytes = fs::read(dir.join(name)).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim_matches(['\0', ' ', '\n', '\t']).to_owned();
    is_a_name(&text).then_some(text).or_else(|| (name == "loop/offset").then(|| "0".into()))
}

/// Firmware without a serial number gives an empty one, or zeros.
fn is_a_name(text: &str) -> bool {
    text.chars().any(|c| c != '0')
}

fn file_at(path: &str) -> Option<String> {
    // Its kind first: opening something else could wait.
    fs::metadata(path).ok().filter(Metadata::is_file)?;
    let file = File::open(path).ok()?;
    let meta = file.metadata().ok()?;
    Some(name_of_file(&file, &meta))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A system with what the tests put into it.
    struct Bed {
        dir: tempfile::TempDir,
        system: System,
    }

    impl Bed {
        fn new() -> Bed {
            let dir = tempfile::tempdir().unwrap();
            let system = System::new(dir.path().join("sys"), dir.path().join("udev"));
            fs::create_dir_all(dir.path().join("sys/dev/block")).unwrap();
            fs::create_dir_all(dir.path().join("udev")).unwrap();
            Bed { dir, system }
        }

        /// A device with these attributes at a place in the tree of devices.
        fn device(&self, place: &str, number: Number, attributes: &[(&str, &str)]) {
            let dir = self.dir.path().join("sys/devices").join(place);
            let link = self.system.dir(number);
            let _ = fs::remove_file(&link);
            let dev = format!("{}:{}\n", number.0, number.1);
            for (name, text) in attributes.iter().chain(&[("dev", dev.as_str())]) {
                let file = dir.join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            symlink(dir, link).unwrap();
        }

        fn identity(&self, number: Number) -> Identity {
            self.system.identity(number, 1000)
        }
    }

    #[test]
    fn a_disk_is_what_its_hardware_says_whatever_its_number() {
        for attribute in
            ["wwid", "device/wwid", "dm/uuid", "md/uuid", "serial", "device/serial", "device/cid"]
        {
            let bed = Bed::new();
            bed.device("a", (8, 0), &[(attribute, "naa.5000c500\n")]);
            bed.device("b", (8, 16), &[(attribute, "naa.5000c500\n")]);
            bed.device("c", (8, 32), &[(attribute, "naa.5000c501\n")]);
            let (a, b, c) = (bed.identity((8, 0)), bed.identity((8, 16)), bed.identity((8, 32)));
            assert!(a.is_sure() && c.is_sure(), "{attribute}");
            assert_eq!(a.number("host"), b.number("host"), "{attribute}");
            assert_ne!(a.number("host"), c.number("host"), "{attribute}");
            assert_ne!(a.number("host"), a.number("guest"));
            // A disk that grew is the same one.
            assert_eq!(bed.system.identity((8, 0), 2000), a);
        }
    }

    #[test]
    fn a_partition_is_where_it_begins_on_its_disk() {
        let bed = Bed::new();
        let part = |disk: &str, serial: &str, number: u32, start: &str| {
            bed.device(disk, (8, number), &[("device/wwid", serial)]);
            let attributes = [("partition", "1\n"), ("start", start)];
            bed.device(&format!("{disk}/{disk}1"), (8, number + 1), &attributes);
            bed.identity((8, number + 1))
        };
        let one = part("sda", "naa.1\n", 0, "2048\n");
        assert!(one.is_sure() && one != bed.identity((8, 0)));
        assert_eq!(part("sdb", "naa.1\n", 16, "2048\n"), one);
        assert_ne!(part("sdc", "naa.2\n", 32, "2048\n"), one);
        assert_ne!(part("sdd", "naa.1\n", 48, "4096\n"), one);
        // Of a disk without a name: what udev read from the table.
        let nameless = part("vda", "", 64, "2048\n");
        assert!(!nameless.is_sure());
        fs::write(bed.dir.path().join("udev/b8:65"), "S:x\nE:ID_PART_ENTRY_UUID=0011-22\n").unwrap();
        let named = bed.identity((8, 65));
        assert!(named.is_sure() && named != nameless);
    }

    #[test]
    fn a_loop_device_is_the_file_behind_it() {
        let bed = Bed::new();
        let file = |name: &str| {
            let path = bed.dir.path().join(name);
            fs::write(&path, name).unwrap();
            format!("{}\n", path.display())
        };
        let (one, two) = (file("one"), file("two"));
        let attached = |number, file: &str, offset: &str| {
            let attributes = [("loop/backing_file", file), ("loop/offset", offset)];
            bed.device(&format!("loop{number}"), (7, number), &attributes);
            bed.identity((7, number))
        };
        let first = attached(0, &one, "0\n");
        assert!(first.is_sure());
        assert_eq!(attached(1, &one, "0\n"), first);
        assert_ne!(attached(0, &two, "0\n"), first);
        assert_ne!(attached(0, &one, "1048576\n"), first);
        assert!(attached(0, "/nowhere (deleted)\n", "0\n").is_sure());
    }

    #[test]
    fn a_device_that_nothing_names_is_its_number_and_its_size() {
        let bed = Bed::new();
        bed.device("vda", (253, 0), &[("serial", "00000\n"), ("wwid", "\n")]);
        let nameless = bed.identity((253, 0));
        assert!(!nameless.is_sure());
        assert_ne!(bed.system.identity((253, 0), 2000), nameless);
        assert_ne!(bed.identity((253, 16)), nameless);
        bed.device("dm-0", (252, 0), &[("dm/name", "vol\n")]);
        bed.device("dm-7", (252, 7), &[("dm/name", "vol\n")]);
        assert_eq!(bed.identity((252, 0)), bed.identity((252, 7)));
    }

    #[test]
    fn the_number_of_the_device_below_is_not_in_the_name_of_a_file() {
        let file = tempfile::tempfile().unwrap();
        let meta = file.metadata().unwrap();
        let name = name_of_file(&file, &meta);
        let words: Vec<&str> = name.split(' ').collect();
        assert_eq!((words.len(), words[0], words[2]), (5, "file", meta.ino().to_string().as_str()), "{name}");
        assert!(!words.contains(&meta.dev().to_string().as_str()));
    }
}
