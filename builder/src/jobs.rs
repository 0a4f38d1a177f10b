//! How many steps run at once if nobody says: enough to keep the machine busy while some of them wait for the network or the
//! disk, not so many that compilers starve each other of memory.

use std::fs;

/// At least so many, however few processors there are.
const AT_LEAST: usize = 8;
/// For each processor.
const PER_PROCESSOR: usize = 2;
/// Memory that a step is taken to need, in bytes.
const MEMORY_BYTES: u64 = 512 << 20;

/// Steps at once on this machine as it is now.
pub fn default_count() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    count(processors, available_bytes())
}

/// At least one for each processor: whoever has that many is taken to have memory for them.
fn count(processors: usize, memory_bytes: Option<u64>) -> usize {
    let wanted = (processors * PER_PROCESSOR).max(AT_LEAST);
    let fit = memory_bytes.map_or(usize::MAX, |bytes| (bytes / MEMORY_BYTES) as usize);
    wanted.min(fit).max(processors).max(1)
}

/// Memory that can be had, in bytes: the machine's, or what is left of the limit of this process's cgroup.
fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kb| kb * 1024)
    });
    [machine, cgroup_bytes()].into_iter().flatten().min()
}

/// What is left of the limit of this process's own cgroup (cgroup v2).
fn cgroup_bytes() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let number = |file: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup{path}/{file}")).ok()?.trim().parse().ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_but_not_starved() {
        let gib = 1 << 30;
        assert_eq!(count(2, Some(24 * gib)), 8);
        assert_eq!(count(2, None), 8);
        assert_eq!(count(16, Some(64 * gib)), 32);
        assert_eq!(count(16, Some(4 * gib)), 16);
        assert_eq!(count(2, Some(2 * gib)), 4);
        assert_eq!(count(1, Some(0)), 1);
        assert!(default_count() > 0);
    }
}
