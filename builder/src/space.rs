//! How much of a disk the store may take, as flags and `kiln.toml` say it: bytes, or a share of the disk.

use crate::cli::resources;
use cache::prune::Limits;
use cache::quota::Disk;

const GB: u64 = 1_000_000_000;

/// An amount of disk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Space {
    Bytes(u64),
    /// Of the disk that the store is on: 0 to 100.
    Percent(f64),
}

impl Space {
    /// `20GB` (powers of 1024, as docker's sizes), `512m`, `80%`, or a number of bytes. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Space, String> {
        let Some(percent) = text.trim().strip_suffix('%') else {
            return resources::bytes(text.trim())
                .map(Space::Bytes)
                .map_err(|_| "it must be a size such as 20GB, or a share of the disk such as 60%".to_string());
        };
        match percent.trim().parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Space::Percent(percent)),
            _ => Err("a share of the disk is between 0% and 100%".to_string()),
        }
    }

    /// In bytes, on that disk.
    pub fn bytes(self, disk: &Disk) -> u64 {
        match self {
            Space::Bytes(bytes) => bytes,
            Space::Percent(percent) => (disk.total as f64 * percent / 100.0) as u64,
        }
    }
}

/// `[gc]` of `kiln.toml`: how large the store may become. The keys, and what holds without them, are those of
/// `[worker.oci]` in buildkitd.toml.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GcConfig {
    /// `enabled`
    pub enabled: bool,
    /// `reservedSpace`
    pub reserved: Option<Space>,
    /// `maxUsedSpace`
    pub max_used: Option<Space>,
    /// `minFreeSpace`
    pub min_free: Option<Space>,
}

impl Default for GcConfig {
    fn default() -> GcConfig {
        GcConfig { enabled: true, reserved: None, max_used: None, min_free: None }
    }
}

impl GcConfig {
    /// The limits on that disk; `None` if there shall be none. `keep_storage` is the flag, which says `maxUsedSpace` for
    /// one build.
    pub fn limits(&self, keep_storage: Option<Space>, disk: &Disk) -> Option<Limits> {
        if !self.enabled && keep_storage.is_none() {
            return None;
        }
        let percent = |percent: u64| disk.total / 100 * percent;
        let bytes = |space: Option<Space>, default: u64| space.map_or(default, |space| space.bytes(disk));
        let max_used = bytes(keep_storage.or(self.max_used), percent(80).min(100 * GB));
        // Who gives the largest size only wants no more than that.
        let reserved = bytes(self.reserved, percent(10).min(10 * GB)).min(max_used);
        Some(Limits { reserved, max_used: Some(max_used), min_free: Some(bytes(self.min_free, percent(20))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares() {
        let check =
            |text: &str, expect: Result<Space, ()>| assert_eq!(Space::parse(text).map_err(drop), expect, "{text}");
        check("20GB", Ok(Space::Bytes(20 << 30)));
        check("1000", Ok(Space::Bytes(1000)));
        check("12.5%", Ok(Space::Percent(12.5)));
        check("101%", Err(()));
        check("-1%", Err(()));
        check("many", Err(()));
    }

    #[test]
    fn defaults_are_those_of_buildkit() {
        let disk = Disk { total: 200 * GB, free: 50 * GB };
        let limits = GcConfig::default().limits(None, &disk).unwrap();
        assert_eq!(limits, Limits { reserved: 10 * GB, max_used: Some(100 * GB), min_free: Some(40 * GB) });
        let limits = GcConfig::default().limits(Some(Space::Bytes(GB)), &disk).unwrap();
        assert_eq!((limits.reserved, limits.max_used), (GB, Some(GB)));
        assert_eq!(GcConfig { enabled: false, ..GcConfig::default() }.limits(None, &disk), None);
    }
}
