//! A cgroup for each step, where the machine lets us make one (cgroups(7)): what it used, whether it was short of memory,
//! and what limits it. Without one a step runs in the program's own.
//!
//! Version 2 is used for what it has. Controllers that the machine keeps in version 1 get a cgroup there, and only when
//! a limit needs them; the child enters those by itself, since clone3(2) can only put it into one of version 2.

use super::limits::{Controller, Limits, Version, Write};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A step's cgroups; removed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Cgroup {
    /// Of version 2.
    unified: Option<PathBuf>,
    /// Of version 1.
    legacy: Vec<PathBuf>,
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
    /// Makes `<parent>/<id>` and limits it. Without a parent: below `kiln` at the top for one who may, else below the
    /// program's own. Gives also the names of the controllers whose limits cannot be set here.
    pub(crate) fn create(parent: Option<&str>, id: &str, limits: &Limits) -> (Cgroup, Vec<&'static str>) {
        let mut cgroup = Cgroup::default();
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        if let Some(hierarchy) = Hierarchy::unified(&mountinfo, &own) {
            cgroup.unified = hierarchy.make(parent, id, |folder| {
                // Counting is asked of the controllers for as far as they are to be had; it works partly without.
                for controller in ["+memory", "+pids", "+cpu", "+cpuset"] {
                    let _ = fs::write(folder.join("cgroup.subtree_control"), controller);
                }
            });
        }
        let unmet = Controller::ALL.into_iter().filter(|controller| {
            let needed = !limits.writes(*controller, Version::V2).is_empty();
            needed
                && !cgroup.limit(*controller, limits, || {
                    Hierarchy::legacy(&mountinfo, &own, *controller)?.make(parent, id, |_| {})
                })
        });
        let unmet = unmet.map(Controller::name).collect();
        (cgroup, unmet)
    }

    /// Sets what one controller limits, in the cgroup that has it; false if there is none or the kernel refuses.
    fn limit(&mut self, controller: Controller, limits: &Limits, legacy: impl FnOnce() -> Option<PathBuf>) -> bool {
        let in_unified = self.unified.as_ref().filter(|path| {
            let controllers = fs::read_to_string(path.join("cgroup.controllers")).unwrap_or_default();
            controllers.split_whitespace().any(|name| name == controller.name())
        });
        if let Some(path) = in_unified {
            return write_all(path, &limits.writes(controller, Version::V2));
        }
        let Some(path) = legacy() else { return false };
        if controller == Controller::Cpuset {
            inherit_cpuset(&path);
        }
        let written = write_all(&path, &limits.writes(controller, Version::V1));
        self.legacy.push(path);
        written
    }

    /// That of version 2, for clone3(2).
    pub(crate) fn open(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(self.unified.as_ref()?, flags, Mode::empty()).ok()
    }

    /// The lists of processes of those of version 1: whoever writes `0` there enters.
    pub(crate) fn open_legacy(&self) -> std::io::Result<Vec<OwnedFd>> {
        let open = |path: &PathBuf| fs::File::options().write(true).open(path.join("cgroup.procs")).map(OwnedFd::from);
        self.legacy.iter().map(open).collect()
    }

    /// The lists of processes of all of them.
    pub(crate) fn processes(&self) -> Vec<PathBuf> {
        self.unified.iter().chain(&self.legacy).map(|path| path.join("cgroup.procs")).collect()
    }

    /// Counts so far.
    pub(crate) fn usage(&self) -> Usage {
        let value = |file: &str, key: &str| {
            self.unified.iter().chain(&self.legacy).find_map(|path| {
                let text = fs::read_to_string(path.join(file)).ok()?;
                let number = match key {
                    "" => text.trim(),
                    key => text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?,
                };
                number.parse::<u64>().ok()
            })
        };
        let killed = value("memory.events", "oom_kill").or_else(|| value("memory.oom_control", "oom_kill"));
        Usage {
            cpu_time_us: value("cpu.stat", "usage_usec"),
            memory_peak_bytes: value("memory.peak", "").or_else(|| value("memory.max_usage_in_bytes", "")),
            out_of_memory: killed.is_some_and(|count| count > 0),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.unified.iter().chain(&self.legacy).for_each(|path| remove(path));
    }
}

/// Processes that have just died may still be counted; a folder left behind is empty and costs nothing.
fn remove(path: &Path) {
    for _ in 0..20 {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            _ => return,
        }
    }
}

fn write_all(path: &Path, writes: &[Write]) -> bool {
    writes.iter().all(|write| fs::write(path.join(write.file), &write.value).is_ok())
}

/// A new cpuset of version 1 is empty, and takes no process until it has processors and memory nodes (cpuset(7)).
fn inherit_cpuset(path: &Path) {
    let Some(parent) = path.parent() else { return };
    for (from, to) in [(parent.parent(), parent), (Some(parent), path)] {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let is_empty = fs::read_to_string(to.join(file)).is_ok_and(|text| text.trim().is_empty());
            if let (true, Some(Ok(value))) = (is_empty, from.map(|from| fs::read_to_string(from.join(file)))) {
                let _ = fs::write(to.join(file), value);
            }
        }
    }
}

/// A mounted tree of cgroups, and the program's place in it.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    mount: PathBuf,
    /// Relative to `mount`.
    own: PathBuf,
}

impl Hierarchy {
    /// That of version 2, by the texts of /proc/self/mountinfo and /proc/self/cgroup.
    fn unified(mountinfo: &str, own: &str) -> Option<Hierarchy> {
        let place = own.lines().find_map(|line| line.strip_prefix("0::"))?;
        Hierarchy::find(mountinfo, place, |fs, _| fs == "cgroup2")
    }

    /// That of version 1 with a controller.
    fn legacy(mountinfo: &str, own: &str, controller: Controller) -> Option<Hierarchy> {
        let has = |list: &str| list.split(',').any(|name| name == controller.name());
        let place = own.lines().find_map(|line| {
            let (controllers, place) = line.split_once(':')?.1.split_once(':')?;
            has(controllers).then_some(place)
        })?;
        Hierarchy::find(mountinfo, place, |fs, options| fs == "cgroup" && has(options))
    }

    /// By the lines of mountinfo (proc_pid_mountinfo(5)); `wanted` is asked about file system and its options.
    fn find(mountinfo: &str, place: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<Hierarchy> {
        mountinfo.lines().find_map(|line| {
            let (mount, fs) = line.split_once(" - ")?;
            let mut fs = fs.split(' ');
            let (kind, options) = (fs.next()?, fs.nth(1).unwrap_or_default());
            let mut fields = mount.split(' ').skip(3);
            let (root, mount) = (fields.next()?, fields.next()?);
            let own = place.strip_prefix(root.trim_end_matches('/')).unwrap_or_default().trim_start_matches('/');
            wanted(kind, options).then(|| Hierarchy { mount: mount.into(), own: own.into() })
        })
    }

    /// Makes `id` below the first parent that lets us; `prepare` is called on what is above.
    fn make(&self, parent: Option<&str>, id: &str, prepare: impl Fn(&Path)) -> Option<PathBuf> {
        let parents = match parent {
            Some(parent) => vec![self.mount.join(inside(parent))],
            None => vec![self.mount.join("kiln"), self.mount.join(&self.own).join("kiln")],
        };
        parents.into_iter().find_map(|parent| {
            fs::create_dir_all(&parent).ok()?;
            prepare(parent.parent()?);
            prepare(&parent);
            let path = parent.join(id);
            fs::create_dir(&path).ok()?;
            Some(path)
        })
    }
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
    }

    #[test]
    fn hierarchies() {
        let mountinfo = "30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                         31 30 0:27 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n\
                         32 30 0:28 /box /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let own = "4:cpu,cpuacct:/box/a\n3:memory:/m\n0::/init.scope\n";
        let hierarchy = |mount: &str, own: &str| Some(Hierarchy { mount: mount.into(), own: own.into() });
        assert_eq!(Hierarchy::unified(mountinfo, own), hierarchy("/sys/fs/cgroup/unified", "init.scope"));
        let legacy = |controller| Hierarchy::legacy(mountinfo, own, controller);
        assert_eq!(legacy(Controller::Cpu), hierarchy("/sys/fs/cgroup/cpu,cpuacct", "a"));
        assert_eq!(legacy(Controller::Memory), None, "it is not mounted");
        assert_eq!(legacy(Controller::Cpuset), None);
    }
}
