//! Two sysctls, `fs.fuse.default_request_timeout` and `max_request_timeout`, make the kernel abort a whole mount
//! when one request stays unanswered. A request of ours may take a target's deadline, so that has to be shorter.

use std::time::Duration;

/// The kernel looks for late requests this often: seconds. A request may be found late that much early or late.
const TIMER: u64 = 15;

/// The longest deadline that this kernel leaves room for, or None where it has no such limit.
pub fn longest_deadline() -> Option<Duration> {
    let sysctl = |name: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/fuse/{name}")).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    limit(sysctl("default_request_timeout"), sysctl("max_request_timeout"))
}

/// Zero means "not set". The kernel uses the default, cut to the maximum, or the maximum if there is no default; never
/// less than its timer.
fn limit(default: u64, max: u64) -> Option<Duration> {
    let timeout = match (default, max) {
        (0, 0) => return None,
        (0, only) | (only, 0) => only,
        (default, max) => default.min(max),
    };
    Some(Duration::from_secs(timeout.max(TIMER).saturating_sub(TIMER).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_stays_below_the_kernels_patience() {
        assert_eq!(limit(0, 0), None);
        assert_eq!(limit(20, 0), Some(Duration::from_secs(5)));
        assert_eq!(limit(0, 60), Some(Duration::from_secs(45)));
        assert_eq!(limit(120, 60), Some(Duration::from_secs(45)));
        assert_eq!(limit(5, 0), Some(Duration::from_secs(1)));
    }
}
