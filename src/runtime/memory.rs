//! How much memory this machine has, and how much of it writes that wait may hold.

/// Bytes that the machine is assumed to have where /proc/meminfo cannot be read.
const UNKNOWN: usize = 512 << 20;

/// Bytes of writes that may wait in all: half the machine's memory. So targets that are away leave the other half to
/// the programs that wait for them.
pub fn for_writes() -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total(&text).unwrap_or(UNKNOWN) / 2
}

/// The machine's memory in bytes, as /proc/meminfo has it.
fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_understood() {
        let text = "MemTotal:        8123456 kB\nMemFree:          123456 kB\n";
        assert_eq!(total(text), Some(8_123_456 * 1024));
        for bad in ["", "MemTotal: 5 MB\n", "MemTotal: kB\n", "MemFree: 1 kB\n"] {
            assert_eq!(total(bad), None, "{bad}");
        }
        assert!(for_writes() >= 64 << 20, "{}", for_writes());
    }
}
