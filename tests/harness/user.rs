//! Ordinary users to build as: with ranges of subordinate ids (subuid(5)) as distributions give them, and without.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

const NAME: &str = "kiln-test";
/// No distribution gives this id to anybody: those for accounts end at 60000, and 65534 is nobody.
const LONE: u32 = 64_321;

/// An ordinary user of this machine.
#[derive(Clone, Debug)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group's id.
    pub gid: u32,
    /// Login name.
    pub name: String,
}

impl User {
    /// `kiln-test`, made if this process is root; `Err` says why there is none.
    pub fn ordinary() -> Result<User, String> {
        static USER: OnceLock<Result<User, String>> = OnceLock::new();
        USER.get_or_init(make).clone()
    }

    /// One without an account, and so without subordinate ids: in a user namespace it is the only user. `Err` says why
    /// there is none.
    pub fn lone() -> Result<User, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root can start builds as another user".into());
        }
        Ok(User { uid: LONE, gid: LONE, name: LONE.to_string() })
    }
}

fn make() -> Result<User, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can start builds as another user".into());
    }
    if look_up().is_none() {
        let made = Command::new("useradd").args(["--create-home", "--shell", "/bin/sh", NAME]).output();
        made.map_err(|error| format!("useradd: {error}"))?;
    }
    let user = look_up().ok_or_else(|| format!("cannot make user {NAME}"))?;
    for file in ["/etc/subuid", "/etc/subgid"] {
        let ranges = fs::read_to_string(file).unwrap_or_default();
        if !ranges.lines().any(|line| line.starts_with(&format!("{NAME}:"))) {
            return Err(format!("{file} has no range for {NAME}"));
        }
    }
    if !crate::installed("newuidmap") {
        return Err("newuidmap is missing: install uidmap".into());
    }
    Ok(user)
}

fn look_up() -> Option<User> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let line = passwd.lines().find(|line| line.starts_with(&format!("{NAME}:")))?;
    let fields: Vec<&str> = line.split(':').collect();
    Some(User { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()?, name: NAME.into() })
}
