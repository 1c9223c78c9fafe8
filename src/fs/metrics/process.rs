//! What a process says of itself, under the names that Prometheus' own libraries use. What the kernel does not show (to
//! a process with file capabilities, its own /proc/self/fd) is left out.

use std::time::{Duration, SystemTime};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeValLike;

/// Numbers of this process.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Process {
    /// Time of processors, of the program and of the kernel on its behalf.
    pub cpu: Duration,
    /// Memory that it occupies, in bytes.
    pub resident: Option<u64>,
    /// Addresses that it has mapped, in bytes.
    pub mapped: Option<u64>,
    /// Its open descriptors.
    pub descriptors: Option<u64>,
    /// How many it may have.
    pub descriptors_max: Option<u64>,
    /// When it started, since 1970.
    pub start: Duration,
}

impl Process {
    /// Asks the kernel. `start` is when the mount was made, which is when the process started.
    pub fn take(start: SystemTime) -> Process {
        let cpu = getrusage(UsageWho::RUSAGE_SELF).map(|usage| usage.user_time() + usage.system_time());
        let cpu = cpu.map_or(0, |time| u64::try_from(time.num_microseconds()).unwrap_or(0));
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        // One of them is the directory that is being read.
        let descriptors = std::fs::read_dir("/proc/self/fd").map(|entries| entries.count().saturating_sub(1));
        Process {
            cpu: Duration::from_micros(cpu),
            resident: bytes(&status, "VmRSS:"),
            mapped: bytes(&status, "VmSize:"),
            descriptors: descriptors.ok().map(|count| count as u64),
            descriptors_max: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            start: start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
        }
    }
}

/// A line of /proc/self/status, `VmRSS:     7344 kB`.
fn bytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_all_of_them() {
        let born = SystemTime::now();
        let process = Process::take(born);
        assert!(process.resident > Some(1 << 20) && process.mapped >= process.resident, "{process:?}");
        assert!(process.descriptors >= Some(3) && process.descriptors_max >= process.descriptors);
        assert!(process.start > Duration::from_secs(1_600_000_000));
        let mut now = process;
        while now.cpu == process.cpu {
            now = Process::take(born);
        }
        assert!(now.cpu > process.cpu);
    }

    #[test]
    fn lines_of_the_kernel() {
        let status = "Name:\taoefs\nVmSize:\t  171084 kB\nVmRSS:\t    7344 kB\nThreads:\t9\n";
        assert_eq!(bytes(status, "VmRSS:"), Some(7344 << 10));
        for (odd, key) in
            [(status, "VmSwap:"), (status, "Threads:"), ("VmRSS:\t99999999999999999 kB", "VmRSS:")]
        {
            assert_eq!(bytes(odd, key), None, "{odd}");
        }
    }
}
