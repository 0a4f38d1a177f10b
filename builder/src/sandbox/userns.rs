//! Which rights the program has, and how an ordinary user gets those that a build needs: in a user namespace, where it
//! is root over a range of ids of its own (user_namespaces(7), subuid(5)).

use super::{SandboxError, syscall};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions};
use rustix::thread::CapabilitySet;
use std::fs;
use std::io::{self, Read, Write};
use std::process::Command;

/// As what the program runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// With `CAP_SYS_ADMIN` in the namespace it was started in, or as its user 0 where no namespace can be had.
    Root,
    /// In a user namespace with a range of ids.
    Mapped,
    /// In a user namespace with the one id 0.
    SingleId {
        /// Why there is no range, and what to install or configure.
        advice: String,
    },
}

/// Gives the program the rights that a build needs: nothing to do for root, a user and a mount namespace for everybody
/// else. To be called first, while the program has one thread.
pub fn enter_if_needed() -> Result<Identity, SandboxError> {
    let capabilities = rustix::thread::capabilities(None);
    if capabilities.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN)) {
        return Ok(Identity::Root);
    }
    if threads() != 1 {
        return Err(SandboxError::Threads);
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let ranges = own_ranges(uid);
    match &ranges {
        Ok((uids, gids)) => match enter(&Maps::new(uid, gid, uids, gids)) {
            Ok(()) => Ok(Identity::Mapped),
            // The namespace exists and has no ids yet; they cannot be set any more if the tools did it in part.
            Err(SandboxError::IdMap { program, message }) => {
                write_single(uid, gid)?;
                Ok(Identity::SingleId { advice: format!("{program} failed: {message}") })
            }
            Err(other) => Err(other),
        },
        Err(advice) => {
            unshare()?;
            write_single(uid, gid)?;
            Ok(Identity::SingleId { advice: advice.clone() })
        }
    }
}

/// Whether the program is in another user namespace than the machine's first, which has a fixed inode number
/// (`PROC_USER_INIT_INO` in the kernel's `proc_ns.h`). Also true for root who was put there by somebody else.
pub(crate) fn is_nested() -> bool {
    fs::read_link("/proc/self/ns/user").is_ok_and(|link| link.as_os_str() != "user:[4026531837]")
}

/// Whether the id has a number in the program's user namespace, as a group.
pub(crate) fn is_mapped(gid: u32) -> bool {
    let map = fs::read_to_string("/proc/self/gid_map").unwrap_or_default();
    parse_map(&map).iter().any(|(inside, _, length)| (*inside..inside + length).contains(&u64::from(gid)))
}

/// The program's own map of users or groups: inside, outside, how many.
pub(crate) fn parse_map(text: &str) -> Vec<(u64, u64, u64)> {
    let numbers = |line: &str| line.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
    text.lines()
        .filter_map(|line| match numbers(line)[..] {
            [inside, outside, length] => Some((inside, outside, length)),
            _ => None,
        })
        .collect()
}

/// A range of ids that belongs to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u32,
    length: u32,
}

/// Arguments of newuidmap(1) and newgidmap(1) after the process.
struct Maps {
    uids: Vec<String>,
    gids: Vec<String>,
}

impl Maps {
    /// 0 is the user; the ranges follow one after another from 1 on.
    fn new(uid: u32, gid: u32, uids: &[Range], gids: &[Range]) -> Maps {
        let arguments = |own: u32, ranges: &[Range]| {
            let mut arguments = vec!["0".to_string(), own.to_string(), "1".to_string()];
            let mut next = 1u32;
            for range in ranges {
                arguments.extend([next, range.first, range.length].map(|number| number.to_string()));
                next = next.saturating_add(range.length);
            }
            arguments
        };
        Maps { uids: arguments(uid, uids), gids: arguments(gid, gids) }
    }
}

/// Moves the program into new namespaces while a helper outside of them, made before, sets the ids.
fn enter(maps: &Maps) -> Result<(), SandboxError> {
    let error = |errno: Errno| SandboxError::Clone { help: None, source: errno.into() };
    let (ready_in, ready_out) = pipe_with(PipeFlags::CLOEXEC).map_err(error)?;
    let (answer_in, answer_out) = pipe_with(PipeFlags::CLOEXEC).map_err(error)?;
    let own_id = rustix::process::getpid();
    let mut ends = Some((ready_in, ready_out, answer_in, answer_out));
    let helper = syscall::fork(|| {
        let Some((ready_in, ready_out, answer_in, answer_out)) = ends.take() else { return 1 };
        drop((ready_out, answer_in));
        // The end of the pipe without a byte: the program has failed, or is gone.
        if !matches!(fs::File::from(ready_in).read(&mut [0]), Ok(1)) {
            return 1;
        }
        match set_maps(own_id, maps) {
            Ok(()) => 0,
            Err(message) => {
                let _ = fs::File::from(answer_out).write_all(message.as_bytes());
                1
            }
        }
    })
    .map_err(error)?;
    let Some((ready_in, ready_out, answer_in, answer_out)) = ends.take() else { return Err(error(Errno::INVAL)) };
    drop((ready_in, answer_out));
    let entered = unshare();
    if entered.is_ok() {
        let _ = fs::File::from(ready_out).write_all(b"x");
    } else {
        drop(ready_out);
    }
    let message = io::read_to_string(fs::File::from(answer_in)).unwrap_or_default();
    let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(helper), WaitOptions::empty()));
    entered?;
    match message.split_once(": ") {
        None if message.is_empty() => Ok(()),
        Some(("newgidmap", message)) => Err(SandboxError::IdMap { program: "newgidmap", message: message.into() }),
        Some((_, message)) => Err(SandboxError::IdMap { program: "newuidmap", message: message.into() }),
        None => Err(SandboxError::IdMap { program: "newuidmap", message }),
    }
}

/// In the helper.
fn set_maps(process: Pid, maps: &Maps) -> Result<(), String> {
    for (program, map) in [("newgidmap", &maps.gids), ("newuidmap", &maps.uids)] {
        let output = Command::new(program).arg(process.to_string()).args(map).output();
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    Ok(())
}

fn unshare() -> Result<(), SandboxError> {
    syscall::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS).map_err(|errno| {
        let sysctl = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_string()).ok();
        SandboxError::UserNamespace { help: advice(errno, sysctl), source: errno.into() }
    })
}

/// Why there is no user namespace, by the sysctls that forbid it, and what to do.
fn advice(errno: Errno, sysctl: impl Fn(&str) -> Option<String>) -> String {
    let is = |path: &str, value: &str| sysctl(path).as_deref() == Some(value);
    let causes = [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ];
    for (path, value, setting) in causes {
        if is(path, value) {
            return format!("this machine forbids them to ordinary users: run `sysctl -w {setting}` as root");
        }
    }
    match errno {
        Errno::PERM => "a seccomp filter or security module forbids it; in a container, allow it with \
                        `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`"
            .into(),
        Errno::NOSPC => "too many of them are nested or in use (user.max_user_namespaces)".into(),
        Errno::INVAL | Errno::NOSYS => "the kernel is built without them (CONFIG_USER_NS)".into(),
        _ => "the kernel refused".into(),
    }
}

/// Root inside is the user outside, and there is nobody else.
fn write_single(uid: u32, gid: u32) -> Result<(), SandboxError> {
    let write = |path: &str, content: String| fs::write(path, content).map_err(SandboxError::path("write", path));
    // A map can be set once. One of the two may have been, before the tool for the other failed.
    let unset = |path: &str| fs::read_to_string(path).is_ok_and(|map| map.is_empty());
    if unset("/proc/self/gid_map") {
        // Deny setgroups first: an unprivileged writer of gid_map gets EPERM otherwise (user_namespaces(7)).
        write("/proc/self/setgroups", "deny".into())?;
        write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    if unset("/proc/self/uid_map") {
        write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    }
    Ok(())
}

/// The ranges of the user that runs the program; the error is what to do to get some.
fn own_ranges(uid: u32) -> Result<(Vec<Range>, Vec<Range>), String> {
    for program in ["newuidmap", "newgidmap"] {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            return Err(format!("{program} is not installed; install the package uidmap (shadow-utils)"));
        }
    }
    let name = user_name(uid);
    let read = |path: &str| -> Result<Vec<Range>, String> {
        let ranges = ranges(&fs::read_to_string(path).unwrap_or_default(), &name, uid);
        if ranges.is_empty() {
            let option = if path.ends_with("uid") { "--add-subuids" } else { "--add-subgids" };
            return Err(format!("{name} has no range in {path}; run `usermod {option} 100000-165535 {name}` as root"));
        }
        Ok(ranges)
    };
    Ok((read("/etc/subuid")?, read("/etc/subgid")?))
}

/// The user's name by /etc/passwd, else the number.
fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entry.into_iter().find(|fields| fields.get(2).and_then(|id| id.parse().ok()) == Some(uid));
    entry.map_or_else(|| uid.to_string(), |fields| fields[0].to_string())
}

/// Lines `name-or-uid:first:length` of subuid(5).
fn ranges(text: &str, name: &str, uid: u32) -> Vec<Range> {
    let uid = uid.to_string();
    text.lines()
        .filter_map(|line| match line.trim().split(':').collect::<Vec<_>>()[..] {
            [owner, first, length] if owner == name || owner == uid => {
                Some(Range { first: first.parse().ok()?, length: length.parse().ok()? })
            }
            _ => None,
        })
        .filter(|range| range.length > 0)
        .collect()
}

/// Threads of the program.
fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps() {
        let text = "bob:100000:65536\n# x\n1000:300000:10\neve:1:1\nbob:5:0\n";
        let found = ranges(text, "bob", 1000);
        assert_eq!(found, [Range { first: 100000, length: 65536 }, Range { first: 300000, length: 10 }]);
        let maps = Maps::new(1000, 100, &found, &[]);
        assert_eq!(maps.uids.join(" "), "0 1000 1 1 100000 65536 65537 300000 10");
        assert_eq!(maps.gids.join(" "), "0 100 1");
        assert_eq!(parse_map("         0          0 4294967295\n"), [(0, 0, 4294967295)]);
    }

    #[test]
    fn causes() {
        let check = |errno, path: &'static str, expect: &str| {
            let advice = advice(errno, |asked| (asked.ends_with(path)).then(|| "0".to_string()));
            assert!(advice.contains(expect), "{advice}");
        };
        check(Errno::PERM, "unprivileged_userns_clone", "sysctl -w kernel.unprivileged_userns_clone=1");
        check(Errno::NOSPC, "max_user_namespaces", "sysctl -w user.max_user_namespaces=15000");
        check(Errno::PERM, "none", "seccomp");
        check(Errno::INVAL, "none", "CONFIG_USER_NS");
    }
}
