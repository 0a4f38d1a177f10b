//! Limits of a step's memory and processors as cgroup files: what is written where, for both versions of cgroups
//! (reference/dockerfile.md 8.3). Touches no file; `cgroup.rs` writes.

/// What `--resource` and docker's older flags ask for; `None` is unlimited. Never in a cache key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// In bytes.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together, in bytes; -1 is unlimited swap.
    pub memory_swap_bytes: Option<i64>,
    /// Relative weight, 2 to 262144, 1024 being what every cgroup has.
    pub cpu_shares: Option<u64>,
    /// Length of a period, in microseconds.
    pub cpu_period_us: Option<u64>,
    /// Time that may be used in a period, by all processors together, in microseconds; -1 is unlimited.
    pub cpu_quota_us: Option<i64>,
    /// Such as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, such as `0`.
    pub cpuset_mems: Option<String>,
}

/// The kernel's period where none is given, in microseconds (sched-bwc of the kernel's documentation).
pub const CPU_PERIOD_US: u64 = 100_000;

/// Which interface of cgroups(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Something to write into a file of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Write {
    pub file: &'static str,
    pub value: String,
}

/// A controller that limits, as cgroups(7) names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Controller {
    Memory,
    Cpu,
    Cpuset,
}

impl Controller {
    pub(crate) const ALL: [Controller; 3] = [Controller::Memory, Controller::Cpu, Controller::Cpuset];

    /// The kernel's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Controller::Memory => "memory",
            Controller::Cpu => "cpu",
            Controller::Cpuset => "cpuset",
        }
    }
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// What a controller is told, in order; nothing if it is not needed.
    pub(crate) fn writes(&self, controller: Controller, version: Version) -> Vec<Write> {
        let write = |file, value: String| Write { file, value };
        let writes: [Option<Write>; 2] = match (controller, version) {
            // The limit with swap cannot be below that without, so memory comes first.
            (Controller::Memory, Version::V1) => [
                self.memory_bytes.map(|bytes| write("memory.limit_in_bytes", bytes.to_string())),
                self.memory_swap_bytes.map(|bytes| write("memory.memsw.limit_in_bytes", bytes.to_string())),
            ],
            (Controller::Memory, Version::V2) => [
                self.memory_bytes.map(|bytes| write("memory.max", bytes.to_string())),
                self.swap_alone().map(|value| write("memory.swap.max", value)),
            ],
            (Controller::Cpu, Version::V1) => {
                let bandwidth = [
                    self.cpu_shares.map(|shares| write("cpu.shares", shares.to_string())),
                    self.cpu_period_us.map(|period| write("cpu.cfs_period_us", period.to_string())),
                ];
                let quota = self.cpu_quota_us.map(|quota| write("cpu.cfs_quota_us", quota.to_string()));
                return bandwidth.into_iter().chain([quota]).flatten().collect();
            }
            (Controller::Cpu, Version::V2) => [
                self.cpu_shares.map(|shares| write("cpu.weight", weight(shares).to_string())),
                self.bandwidth().map(|value| write("cpu.max", value)),
            ],
            (Controller::Cpuset, _) => [
                self.cpuset_cpus.clone().map(|cpus| write("cpuset.cpus", cpus)),
                self.cpuset_mems.clone().map(|mems| write("cpuset.mems", mems)),
            ],
        };
        writes.into_iter().flatten().collect()
    }

    /// Version 2 counts swap by itself.
    fn swap_alone(&self) -> Option<String> {
        match self.memory_swap_bytes? {
            -1 => Some("max".to_string()),
            both => {
                let memory = self.memory_bytes.unwrap_or(0);
                Some(u64::try_from(both).unwrap_or(0).saturating_sub(memory).to_string())
            }
        }
    }

    /// Quota and period in one file.
    fn bandwidth(&self) -> Option<String> {
        if self.cpu_quota_us.is_none() && self.cpu_period_us.is_none() {
            return None;
        }
        let quota = match self.cpu_quota_us {
            Some(quota @ 0..) => quota.to_string(),
            _ => "max".to_string(),
        };
        Some(format!("{quota} {}", self.cpu_period_us.unwrap_or(CPU_PERIOD_US)))
    }
}

/// Shares 2 to 262144 as a weight of 1 to 10000, linearly, as OCI runtimes convert it (runtime-spec config-linux.md).
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_both_versions() {
        let limits = Limits {
            memory_bytes: Some(1 << 20),
            memory_swap_bytes: Some(3 << 20),
            cpu_shares: Some(1024),
            cpu_period_us: None,
            cpu_quota_us: Some(150_000),
            cpuset_cpus: Some("0-1".into()),
            cpuset_mems: None,
        };
        let check = |limits: &Limits, controller, version, expect: &[(&str, &str)]| {
            let writes = limits.writes(controller, version);
            let found: Vec<_> = writes.iter().map(|write| (write.file, write.value.as_str())).collect();
            assert_eq!(found, expect, "{controller:?} {version:?}");
        };
        use Controller::{Cpu, Cpuset, Memory};
        use Version::{V1, V2};
        check(&limits, Memory, V1, &[("memory.limit_in_bytes", "1048576"), ("memory.memsw.limit_in_bytes", "3145728")]);
        check(&limits, Memory, V2, &[("memory.max", "1048576"), ("memory.swap.max", "2097152")]);
        check(&limits, Cpu, V1, &[("cpu.shares", "1024"), ("cpu.cfs_quota_us", "150000")]);
        check(&limits, Cpu, V2, &[("cpu.weight", "39"), ("cpu.max", "150000 100000")]);
        check(&limits, Cpuset, V2, &[("cpuset.cpus", "0-1")]);
        let unlimited = Limits { memory_swap_bytes: Some(-1), cpu_quota_us: Some(-1), ..Limits::default() };
        check(&unlimited, Memory, V2, &[("memory.swap.max", "max")]);
        check(&unlimited, Cpu, V2, &[("cpu.max", "max 100000")]);
        for controller in Controller::ALL {
            check(&Limits::default(), controller, V1, &[]);
            check(&Limits::default(), controller, V2, &[]);
        }
    }

    #[test]
    fn weights() {
        let check = |shares, expect| assert_eq!(weight(shares), expect, "{shares}");
        check(0, 1);
        check(2, 1);
        check(262_144, 10_000);
        check(u64::MAX, 10_000);
    }
}
