//! Namespaces of our own and the links between them. No frame ever leaves them.

use super::proc::{self, Output};
use super::sweep::{self, Mess};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// For one `ip` command.
const STEP: Duration = Duration::from_secs(10);

/// One network namespace: one of our own, which goes away with the bed, or the one that this process was started in.
#[derive(Clone)]
pub struct Ns {
    name: Option<String>,
}

impl Ns {
    /// A new one with nothing in it but `lo`, and no IPv6 chatter on what comes later.
    pub fn new() -> Self {
        let name = sweep::unique();
        proc::ok(STEP, &["ip", "netns", "add", &name]);
        sweep::register(Mess::Netns(name.clone()));
        let ns = Self { name: Some(name) };
        ns.enter(|| {
            // /proc/sys/net is that of the thread which opens it. A kernel without IPv6 has no such file.
            for which in ["all", "default"] {
                let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1");
            }
        });
        ns.ip("link set lo up");
        ns
    }

    /// Where this process is.
    pub fn here() -> Self {
        Self { name: None }
    }

    /// The start of a command line that runs inside. `ip netns exec` would hide mounts from everybody else.
    pub fn prefix(&self) -> Vec<String> {
        self.name.iter().flat_map(|name| ["nsenter".into(), format!("--net=/run/netns/{name}")]).collect()
    }

    fn argv(&self, argv: &[&str]) -> Vec<String> {
        self.prefix().into_iter().chain(argv.iter().map(ToString::to_string)).collect()
    }

    /// Ids of the processes that live in it.
    pub fn pids(&self) -> Vec<u32> {
        let name = self.name.as_deref().expect("a namespace of our own");
        let pids = proc::run(STEP, &["ip", "netns", "pids", name]).stdout;
        pids.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    }

    pub fn run(&self, limit: Duration, argv: &[&str]) -> Output {
        proc::run(limit, &self.argv(argv))
    }

    /// `ip WORDS…` inside; must succeed.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        let argv: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
        proc::ok(STEP, &self.argv(&argv))
    }

    /// Runs a closure on a thread that has joined the namespace: sockets opened there stay in it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let Some(name) = &self.name else { return work() };
        let path = format!("/run/netns/{name}");
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                    nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    work()
                })
                .join()
                .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
        })
    }

    /// A veth pair: `here` in this namespace, `there` in the other one, both up.
    #[track_caller]
    pub fn veth(&self, here: &str, other: &Ns, there: &str, mtu: usize) {
        let place = other.name.as_deref().expect("a namespace of our own");
        self.ip(&format!("link add {here} type veth peer name {there} netns {place}"));
        for (ns, port) in [(self, here), (other, there)] {
            ns.ip(&format!("link set {port} mtu {mtu} up"));
        }
    }

    /// A bridge with these ports, up, as wide as its narrowest port.
    #[track_caller]
    pub fn bridge(&self, name: &str, ports: &[&str]) {
        self.ip(&format!("link add {name} type bridge"));
        ports.iter().for_each(|port| drop(self.ip(&format!("link set {port} master {name}"))));
        self.ip(&format!("link set {name} up"));
    }

    /// A tap device, up: what is written to the file arrives on the interface, and the other way round.
    pub fn tap(&self, name: &str, mtu: usize) -> OwnedFd {
        let fd = self.enter(|| open_tap(name));
        self.ip(&format!("link set {name} mtu {mtu} up"));
        fd
    }

    /// Whether there is an interface of this name.
    pub fn has(&self, port: &str) -> bool {
        self.run(STEP, &["ip", "link", "show", port]).ok()
    }

    /// The hardware address of an interface, as `ip` prints it.
    pub fn mac(&self, port: &str) -> String {
        self.shown(port, "link/ether")
    }

    pub fn mtu(&self, port: &str) -> usize {
        self.shown(port, "mtu").parse().unwrap()
    }

    /// The word after `key` in what `ip` says of an interface.
    fn shown(&self, port: &str, key: &str) -> String {
        let text = self.ip(&format!("-o link show {port}"));
        let mut words = text.split_whitespace().skip_while(|word| *word != key);
        words.nth(1).unwrap_or_else(|| panic!("no {key} of {port}: {text}")).to_string()
    }
}

/// TUNSETIFF with a name, IFF_TAP and IFF_NO_PI (frames as they are, nothing in front).
fn open_tap(name: &str) -> OwnedFd {
    let file = File::options().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    // SAFETY: an all-zero ifreq is a valid one, and the union's flag member is written before the kernel reads it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads and writes one ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    assert_eq!(result, 0, "TUNSETIFF {name}: {}", std::io::Error::last_os_error());
    file.into()
}
