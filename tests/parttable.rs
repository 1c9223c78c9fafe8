//! Partition tables as the tools of the world make them: what sfdisk, sgdisk and parted write must be found with the
//! numbers and ranges that sfdisk, libblkid (through partx) and the kernel say.
//!
//! Tables that those tools made once are kept in `samples/parttable`, so that they are read where no tool is
//! installed too. `AOEFS_WRITE_SAMPLES=1 cargo test --test parttable` makes them anew.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use aoefs::parttable::{Kind, Scan, Verdict, Want};
use tempfile::NamedTempFile;

/// 64 MiB: every tool aligns to 1 MiB.
const SECTORS: u64 = 131_072;

/// A table: the file of its sample, the tool that makes it, its arguments before the image's name, and its input.
struct Made {
    name: &'static str,
    tool: &'static str,
    args: &'static [&'static str],
    input: &'static str,
}

const MADE: [Made; 11] = [
    Made {
        name: "sfdisk-gpt",
        tool: "sfdisk",
        args: &[],
        input: "label: gpt\n1: size=2048,type=U,name=\"EFI system\"\n2: size=4096,name=bär\n5: size=8192,type=S\n128: size=+\n",
    },
    Made {
        name: "sfdisk-mbr",
        tool: "sfdisk",
        args: &[],
        input: "label: dos\n1: start=63,size=2000,type=c,bootable\n3: start=4096,size=9000\n4: size=+,type=82\n",
    },
    Made {
        name: "sfdisk-logical",
        tool: "sfdisk",
        args: &[],
        input: "label: dos\n1: size=2048\n2: size=60000,type=f\n4: size=4096\n5: size=2048\n6: size=4096,type=82\n7: size=8192\n8: size=1000\n",
    },
    Made { name: "sfdisk-empty-gpt", tool: "sfdisk", args: &[], input: "label: gpt\n" },
    Made {
        name: "sgdisk",
        tool: "sgdisk",
        args: &["-n2:0:+1M", "-n1:0:+2M", "-n7:0:0", "-c1:second slot first", "-t7:fd00"],
        input: "",
    },
    Made {
        name: "sgdisk-512-entries-moved",
        tool: "sgdisk",
        args: &["-S512", "-j4096", "-n1:8192:+1M", "-n250:0:+1M"],
        input: "",
    },
    Made {
        name: "sgdisk-hybrid",
        tool: "sgdisk",
        args: &["-n1:0:+1M", "-n2:0:+1M", "-n3:0:0", "-h2:3"],
        input: "",
    },
    Made {
        name: "parted-gpt",
        tool: "parted",
        args: &["-s"],
        input: "mklabel gpt mkpart one ext4 1MiB 5MiB mkpart two linux-swap 5MiB 12MiB mkpart three 20MiB 100% rm 2",
    },
    Made {
        name: "parted-logical",
        tool: "parted",
        args: &["-s"],
        input: "mklabel msdos mkpart primary 1MiB 5MiB mkpart extended 5MiB 100% mkpart logical 6MiB 9MiB mkpart logical 20MiB 30MiB mkpart logical 10MiB 19MiB rm 6",
    },
    Made {
        name: "parted-empty-extended",
        tool: "parted",
        args: &["-s"],
        input: "mklabel msdos mkpart primary 1MiB 5MiB mkpart extended 5MiB 100%",
    },
    Made { name: "parted-empty-mbr", tool: "parted", args: &["-s"], input: "mklabel msdos" },
];

/// Number, start, end.
type Range = (u32, u64, u64);

#[test]
fn tables_of_real_tools_are_found_as_sfdisk_and_libblkid_see_them() {
    let mut tools = Tools::default();
    for made in &MADE {
        let Some(image) = tools.make(made) else { continue };
        let found = ranges(&scan(image.path()));
        let Some((dumped, extended)) = tools.dumped(image.path()) else { continue };
        assert_eq!(found, dumped, "{}: sfdisk", made.name);
        if let Some(seen) = tools.partx(image.path(), &extended) {
            assert_eq!(found, seen, "{}: partx", made.name);
        }
        if std::env::var_os("AOEFS_WRITE_SAMPLES").is_some() {
            fs::create_dir_all(samples()).unwrap();
            fs::write(samples().join(made.name), sample(made, image.path(), &found)).unwrap();
        }
    }
}

#[test]
fn tables_of_real_tools_are_found_as_the_kernel_sees_them() {
    let mut tools = Tools::default();
    let mut reads = false;
    for made in &MADE {
        let Some(image) = tools.make(made) else { continue };
        let found = ranges(&scan(image.path()));
        let Some((_, extended)) = tools.dumped(image.path()) else { continue };
        let Some(device) = tools.output("losetup", &["--partscan", "--find", "--show"], image.path()) else {
            println!("skipped: parttable: no loop device can be had here");
            return;
        };
        let device = PathBuf::from(device.trim());
        let seen = in_sysfs(&device, &extended);
        tools.output("losetup", &["--detach"], &device);
        // The first table has partitions.
        if seen.is_empty() && !reads {
            println!("skipped: parttable: this kernel reads no partition tables");
            return;
        }
        reads = true;
        assert_eq!(found, seen, "{}", made.name);
    }
}

#[test]
fn tables_of_real_tools_survive_a_broken_primary() {
    let mut tools = Tools::default();
    for made in MADE.iter().filter(|made| made.name.contains("gpt") || made.tool == "sgdisk") {
        let Some(image) = tools.make(made) else { continue };
        let whole = scan(image.path());
        let entries = if made.name.ends_with("moved") { 4096 } else { 2 };
        for offset in [512 + 40, entries * 512 + 36] {
            let mut byte = [0];
            image.as_file().read_exact_at(&mut byte, offset).unwrap();
            image.as_file().write_all_at(&[byte[0] ^ 1], offset).unwrap();
            assert_eq!(scan(image.path()), whole, "{} at {offset}", made.name);
            image.as_file().write_all_at(&byte, offset).unwrap();
        }
    }
}

#[test]
fn a_file_system_without_a_table_is_nothing() {
    let mut tools = Tools::default();
    for (tool, args) in [
        ("mkfs.ext4", &["-q", "-F"][..]),
        ("mkfs.vfat", &[]),
        ("mkfs.vfat", &["-F32"]),
        ("mkfs.xfs", &["-q", "-f"]),
    ] {
        // mkfs.xfs wants 300 MiB; hardly any of it is written.
        let image = blank(1 << 20);
        if tools.run(Command::new(tool).args(args).arg(image.path()), "") {
            assert_eq!(scan(image.path()), Verdict::Nothing, "{tool} {args:?}");
        }
    }
}

#[test]
fn samples_are_found_as_their_tool_said() {
    let mut seen = 0;
    for entry in fs::read_dir(samples()).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let image = blank(0);
        let mut expected = Vec::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |n: usize| words[n].trim_start_matches('p').parse::<u64>().unwrap();
            match words[0] {
                "sectors" => image.as_file().set_len(number(1) * 512).unwrap(),
                p if p.starts_with('p') => expected.push((number(0) as u32, number(1), number(2))),
                _ => image.as_file().write_all_at(&from_hex(words[1]), number(0)).unwrap(),
            }
        }
        assert_eq!(ranges(&scan(image.path())), expected, "{}", path.display());
        seen += 1;
    }
    assert_eq!(seen, MADE.len());
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples/parttable")
}

/// Scans an image as the file system does a target.
fn scan(image: &Path) -> Verdict {
    let file = File::open(image).unwrap();
    let mut scan = Scan::new(file.metadata().unwrap().len() / 512);
    loop {
        match scan.want() {
            Want::End(verdict) => return verdict.clone(),
            Want::Read { at, count } => {
                let mut data = vec![0; count as usize * 512];
                file.read_exact_at(&mut data, at.bytes().unwrap()).unwrap();
                scan.feed(&data);
            }
        }
    }
}

fn ranges(verdict: &Verdict) -> Vec<Range> {
    match verdict {
        Verdict::Found(entries) => entries.iter().map(|e| (e.number, e.start.0, e.end.0)).collect(),
        Verdict::Nothing => Vec::new(),
        Verdict::Refused(reason) => panic!("{reason}"),
    }
}

fn blank(sectors: u64) -> NamedTempFile {
    let image = NamedTempFile::new().unwrap();
    image.as_file().set_len(sectors * 512).unwrap();
    image
}

/// Runs what is installed, and says at the end what was not.
#[derive(Default)]
struct Tools {
    missing: BTreeSet<String>,
}

impl Tools {
    /// The program, to be found in sbin too, which an ordinary user's PATH does not have.
    fn start(&mut self, command: &mut Command) -> Option<Child> {
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        command.env("PATH", path).env("LC_ALL", "C.UTF-8");
        match command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(child) => Some(child),
            Err(_) => {
                self.missing.insert(command.get_program().to_string_lossy().into_owned());
                None
            }
        }
    }

    /// Runs it to its good end; false if it is not installed.
    fn run(&mut self, command: &mut Command, input: &str) -> bool {
        let Some(mut child) = self.start(command) else { return false };
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        true
    }

    /// What it prints about an image; none if it is not installed or has nothing to say.
    fn output(&mut self, program: &str, args: &[&str], image: &Path) -> Option<String> {
        let output = self.start(Command::new(program).args(args).arg(image))?.wait_with_output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// An image with this table.
    fn make(&mut self, made: &Made) -> Option<NamedTempFile> {
        let image = blank(SECTORS);
        let mut command = Command::new(made.tool);
        command.args(made.args).arg(image.path());
        // parted has its commands behind the image, the others read them or have them before it.
        let done = if made.tool == "parted" {
            self.run(command.args(made.input.split(' ')), "")
        } else {
            self.run(&mut command, made.input)
        };
        done.then_some(image)
    }

    /// What sfdisk says of an image: its partitions, and the numbers of the extended ones, which are not among them.
    fn dumped(&mut self, image: &Path) -> Option<(Vec<Range>, Vec<u32>)> {
        let text = self.output("sfdisk", &["--dump"], image)?;
        let (mut found, mut extended) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let Some((name, fields)) = line.split_once(" : ") else { continue };
            let number = name.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
            let field = |key: &str| {
                let (_, rest) = fields.split_once(key).unwrap();
                rest.split(',').next().unwrap().trim()
            };
            let (start, size): (u64, u64) =
                (field("start=").parse().unwrap(), field("size=").parse().unwrap());
            match field("type=") {
                "5" | "f" | "85" => extended.push(number),
                _ => found.push((number, start, start + size)),
            }
        }
        found.sort_unstable();
        Some((found, extended))
    }

    /// What libblkid says.
    fn partx(&mut self, image: &Path, extended: &[u32]) -> Option<Vec<Range>> {
        let args = ["--raw", "--noheadings", "--output", "NR,START,SECTORS"];
        let text = self.output("partx", &args, image)?;
        let mut found: Vec<Range> = text
            .lines()
            .map(|line| line.split(' ').map(|word| word.parse().unwrap()).collect::<Vec<u64>>())
            .map(|n| (n[0] as u32, n[1], n[1] + n[2]))
            .filter(|range| !extended.contains(&range.0))
            .collect();
        found.sort_unstable();
        Some(found)
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        if !self.missing.is_empty() {
            let missing: Vec<&str> = self.missing.iter().map(String::as_str).collect();
            println!("skipped: parttable: without {}", missing.join(", "));
        }
    }
}

fn in_sysfs(device: &Path, extended: &[u32]) -> Vec<Range> {
    let name = device.file_name().unwrap().to_str().unwrap();
    let folder = Path::new("/sys/block").join(name);
    let mut seen = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        let part = entry.file_name().to_string_lossy().into_owned();
        let Some(number) = part.strip_prefix(name).and_then(|rest| rest.strip_prefix('p')) else { continue };
        let value = |file: &str| -> u64 {
            fs::read_to_string(entry.path().join(file)).unwrap().trim().parse().unwrap()
        };
        let number = number.parse().unwrap();
        if !extended.contains(&number) {
            seen.push((number, value("start"), value("start") + value("size")));
        }
    }
    seen.sort_unstable();
    seen
}

/// The image as text: what must be found, then every 16 bytes that are not zero with their offset.
fn sample(made: &Made, image: &Path, found: &[Range]) -> String {
    let bytes = fs::read(image).unwrap();
    let mut text = format!("# {} {} {:?}\nsectors {SECTORS}\n", made.tool, made.args.join(" "), made.input);
    for (number, start, end) in found {
        text += &format!("p{number} {start} {end}\n");
    }
    for (row, chunk) in bytes.chunks(16).enumerate().filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0))
    {
        let hex: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        text += &format!("{} {hex}\n", row * 16);
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_type_of_a_partition_is_shown_as_tools_show_it() {
    let guid = [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
    assert_eq!(Kind::Gpt(guid).to_string(), "C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
    assert_eq!(Kind::Mbr(5).to_string(), "0x05");
}
