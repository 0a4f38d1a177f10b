//! A cgroup for each step, where the machine lets us make one (cgroup v2; cgroups(7)): what it used, and whether it was
//! short of memory. Without one a step runs in the program's own.

use rustix::fs::{Mode, OFlags};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A step's cgroup; removed when dropped.
pub(crate) struct Cgroup {
    path: PathBuf,
}

/// What the processes of a cgroup have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system, in microseconds.
    pub cpu_time_us: Option<u64>,
    /// In bytes.
    pub memory_peak_bytes: Option<u64>,
    /// The kernel has killed one of them for want of memory.
    pub out_of_memory: bool,
}

impl Cgroup {
    /// Makes `<parent>/<id>`. Without a parent: below `kiln` at the top for one who may, else below the program's own.
    /// `None` if none of them can be made.
    pub(crate) fn create(parent: Option<&str>, id: &str) -> Option<Cgroup> {
        let root = mount_point(&fs::read_to_string("/proc/self/mountinfo").ok()?)?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
        let parents = match parent {
            Some(parent) => vec![root.join(inside(parent))],
            None => vec![root.join("kiln"), root.join(own).join("kiln")],
        };
        parents.into_iter().find_map(|parent| {
            fs::create_dir_all(&parent).ok()?;
            // Counting is asked of the controllers for as far as they are to be had; it works partly without.
            for folder in [parent.parent()?, &parent] {
                for controller in ["+memory", "+pids", "+cpu"] {
                    let _ = fs::write(folder.join("cgroup.subtree_control"), controller);
                }
            }
            let path = parent.join(id);
            fs::create_dir(&path).ok()?;
            Some(Cgroup { path })
        })
    }

    /// For clone3(2).
    pub(crate) fn open(&self) -> Option<OwnedFd> {
        rustix::fs::open(&self.path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
    }

    /// Counts so far.
    pub(crate) fn usage(&self) -> Usage {
        let value = |file: &str, key: &str| {
            let text = fs::read_to_string(self.path.join(file)).ok()?;
            let number = match key {
                "" => text.trim(),
                key => text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?,
            };
            number.parse().ok()
        };
        Usage {
            cpu_time_us: value("cpu.stat", "usage_usec"),
            memory_peak_bytes: value("memory.peak", ""),
            out_of_memory: value("memory.events", "oom_kill").is_some_and(|count: u64| count > 0),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Processes that have just died may still be counted; a folder left behind is empty and costs nothing.
        for _ in 0..20 {
            match fs::remove_dir(&self.path) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                _ => return,
            }
        }
    }
}

/// Where cgroup v2 is mounted, by the lines of mountinfo (proc_pid_mountinfo(5)).
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        (fs.split(' ').next() == Some("cgroup2")).then(|| mount.split(' ').nth(4).map(PathBuf::from)).flatten()
    })
}

/// A path that stays below where it is joined. The form of systemd, `a-b.slice`, stands for `a.slice/a-b.slice`.
fn inside(parent: &str) -> PathBuf {
    let path: PathBuf = Path::new(parent)
        .components()
        .filter(|component| matches!(component, std::path::Component::Normal(_)))
        .collect();
    let Some(name) = path.to_str().filter(|name| !name.contains('/')).and_then(|name| name.strip_suffix(".slice"))
    else {
        return path;
    };
    let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
    ends.map(|end| format!("{}.slice", &name[..end])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |parent: &str, expect: &str| assert_eq!(inside(parent), Path::new(expect), "{parent}");
        check("/a/b", "a/b");
        check("../../a", "a");
        check("system-kiln.slice", "system.slice/system-kiln.slice");
        let mountinfo = "30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n31 30 0:27 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(mountinfo), Some("/sys/fs/cgroup/unified".into()));
    }
}
