//! An emulated machine: QEMU without any help of the processor, the kernel of Debian's package, and a system of busybox
//! and whatever programs a test needs, put together here.

use crate::bed::proc::{self, Daemon};
use crate::bed::{Bed, skip, until};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// An emulated machine does in a minute what others do in seconds.
const PATIENCE: Duration = Duration::from_secs(200);
const SOON: Duration = Duration::from_secs(10);

/// What every machine has, in the order of what needs what. Some kernels have some of it built in.
const BUS: [&str; 5] = [
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci",
];

/// What a virtio disk with ext4 on it takes.
pub const DISK: [&str; 6] = [
    "drivers/block/virtio_blk",
    "crypto/crc32c_generic",
    "lib/crc16",
    "fs/mbcache",
    "fs/jbd2/jbd2",
    "fs/ext4/ext4",
];

/// How the first process of a machine begins.
const PREAMBLE: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for m in $(cat /modules/list); do insmod /modules/$m || echo "GUEST lacks $m"; done
"#;

/// What a machine is made of.
pub struct Plan<'a> {
    /// What it does after its start, as lines of shell. What it says of itself begins with GUEST.
    pub script: &'a str,
    /// Modules of its kernel, without those that every machine needs.
    pub modules: &'a [&'a str],
    /// Programs of this machine that it has.
    pub programs: &'a [&'a str],
    /// Its memory in MiB.
    pub memory: u32,
    /// More arguments of QEMU.
    pub devices: &'a [&'a str],
}

/// A machine that was started.
pub struct Guest {
    daemon: Arc<Daemon>,
}

impl Guest {
    /// Starts it. Skips the test where that is not possible.
    #[track_caller]
    pub fn start(bed: &mut Bed, plan: &Plan) -> Self {
        if std::env::consts::ARCH != "x86_64" {
            skip("the machine that is emulated is an x86_64");
        }
        for program in ["qemu-system-x86_64", "busybox"].iter().chain(plan.programs) {
            if !proc::have(program) {
                skip(&format!("the program {program} is not installed"));
            }
        }
        let Some((kernel, modules)) = kernel() else {
            skip("no kernel to boot: tests/run fetches one, or /boot has one that can be read")
        };
        let initrd = bed.images().join("initrd");
        std::fs::write(&initrd, Initrd::build(plan, &modules)).unwrap();
        let [kernel, initrd] = [&kernel, &initrd].map(|path| path.to_str().unwrap());
        let size = format!("{}M", plan.memory);
        let memory = format!("memory-backend-memfd,id=ram,size={size},share=on");
        let mut argv = vec!["qemu-system-x86_64", "-machine", "q35,memory-backend=ram", "-object", &memory];
        // Without random numbers of its processor, mkfs waits seconds for some.
        argv.extend(["-cpu", "qemu64,+rdrand"]);
        argv.extend(["-accel", "tcg", "-m", &size, "-smp", "2", "-nographic", "-no-reboot", "-nic", "none"]);
        // On a busy machine the emulated timer may not tick while the kernel counts, which then waits for ever.
        let words = "console=ttyS0 quiet panic=-1 no_timer_check";
        argv.extend(["-kernel", kernel, "-initrd", initrd, "-append", words]);
        argv.extend(plan.devices);
        let ns = bed.ini.clone();
        Self { daemon: bed.spawn(&ns, &argv) }
    }

    /// All that came over its console.
    pub fn console(&self) -> String {
        self.daemon.said()
    }

    /// What it has said of itself so far.
    pub fn said(&self) -> Vec<String> {
        let text = self.console();
        let lines = text.lines().filter_map(|line| line.split_once("GUEST "));
        lines.map(|(_, rest)| rest.trim().to_owned()).collect()
    }

    /// What follows this word in the first line that it begins, or nothing.
    pub fn told(&self, word: &str) -> String {
        let start = format!("{word} ");
        let lines = self.said();
        lines.iter().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().to_owned()
    }

    /// Waits until it says a line that begins like this.
    #[track_caller]
    pub fn until(&self, start: &str) {
        until(&format!("the machine says `{start}`"), PATIENCE, || {
            assert!(self.daemon.alive(), "the machine has ended:\n{}", self.console());
            self.said().iter().any(|said| said.starts_with(start))
        });
    }

    pub fn is_alive(&self) -> bool {
        self.daemon.alive()
    }

    /// Waits until it has switched itself off.
    #[track_caller]
    pub fn ended(&self) {
        assert_eq!(self.daemon.ended(PATIENCE), 0, "{}", self.console());
    }
}

/// Where a kernel is that this machine may read: what `tests/run` has fetched, or the machine's own.
fn kernel() -> Option<(PathBuf, PathBuf)> {
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    for root in [fetched, PathBuf::from("/")] {
        for entry in std::fs::read_dir(root.join("boot")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(version) = name.strip_prefix("vmlinuz-") else { continue };
            let modules =
                ["lib/modules", "usr/lib/modules"].map(|dir| root.join(dir).join(version).join("kernel"));
            let modules = modules.into_iter().find(|dir| dir.join("drivers/block").is_dir());
            if let Some(modules) = modules.filter(|_| std::fs::File::open(entry.path()).is_ok()) {
                return Some((entry.path(), modules));
            }
        }
    }
    None
}

/// A module of that kernel, unpacked. None where the kernel has it built in, or has it not at all.
fn module(modules: &Path, name: &str) -> Option<Vec<u8>> {
    let path = |end: &str| modules.join(format!("{name}.ko{end}"));
    if let Ok(bytes) = std::fs::read(path("")) {
        return Some(bytes);
    }
    let packed = path(".xz");
    packed.exists().then(|| Command::new("xz").arg("-dc").arg(packed).output().unwrap().stdout)
}

/// Whether a machine's kernel has that as a module, or there is no kernel at all.
pub fn has_module(name: &str) -> bool {
    kernel().is_none_or(|(_, modules)| module(&modules, name).is_some())
}

/// A machine's first file system, as the archive that a kernel unpacks.
struct Initrd {
    archive: Vec<u8>,
}

impl Initrd {
    fn build(plan: &Plan, modules: &Path) -> Vec<u8> {
        let mut initrd = Self { archive: Vec::new() };
        for dir in ["bin", "sbin", "dev", "proc", "sys", "mnt", "modules", "tmp"] {
            initrd.dir(dir);
        }
        let which =
            |program: &str| proc::ok(SOON, &["sh", "-c", &format!("command -v {program}")]).trim().to_owned();
        initrd.file("bin/busybox", Path::new(&which("busybox")));
        for program in plan.programs {
            initrd.program(&which(program));
        }
        let mut list = String::new();
        for path in BUS.iter().chain(plan.modules) {
            let name = path.rsplit('/').next().unwrap();
            if let Some(bytes) = module(modules, path) {
                initrd.put(&format!("modules/{name}"), 0o100_644, &bytes);
                list += &format!("{name} ");
            }
        }
        initrd.put("modules/list", 0o100_644, list.as_bytes());
        initrd.put("init", 0o100_755, format!("{PREAMBLE}{}", plan.script).as_bytes());
        initrd.put("TRAILER!!!", 0, &[]);
        initrd.archive
    }

    /// An entry of the format "newc".
    fn put(&mut self, name: &str, mode: u32, data: &[u8]) {
        let fields = [0, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        write!(self.archive, "070701").unwrap();
        fields.iter().for_each(|field| write!(self.archive, "{field:08X}").unwrap());
        self.archive.extend_from_slice(name.as_bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }

    fn dir(&mut self, name: &str) {
        self.put(name, 0o40755, &[]);
    }

    fn file(&mut self, name: &str, from: &Path) {
        let mode = std::fs::metadata(from).unwrap().permissions().mode() & 0o777;
        self.put(name, 0o100_000 | mode, &std::fs::read(from).unwrap());
    }

    /// A program and the libraries that it is linked with.
    fn program(&mut self, path: &str) {
        self.file(path.trim_start_matches('/').trim_start_matches("usr/"), Path::new(path));
        let libraries = proc::run(SOON, &["ldd", path]).stdout;
        for word in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            let mut dir = String::new();
            for part in word.split('/').skip(1).take(word.split('/').count() - 2) {
                dir = if dir.is_empty() { part.to_owned() } else { format!("{dir}/{part}") };
                self.dir(&dir);
            }
            self.file(&word[1..], Path::new(word));
        }
    }
}
