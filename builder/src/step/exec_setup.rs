//! What the process of a step finds: root, mounts, user, environment, cgroup. Made for the command, and made again, on
//! what that left, for a shell that looks into a failed step.

use super::exec::{self, ExecError, ExecInput};
use super::exec_files;
use super::exec_mounts::{self, Mounts};
use super::exec_plan::{self, StreamsAre, Target};
use super::mount_point;
use super::user::{self, User};
use crate::progress::Vertex;
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::plan::Plan;
use crate::sandbox::{SandboxError, devices, emulator, rootfs};
use crate::terminal::Pty;
use frontend::op::{Exec, Security};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Largest `/etc/passwd` or `/etc/group`, in bytes.
const IDS_MAX: u64 = 10 * 1024 * 1024;

/// See the module's head.
pub(super) struct Setup {
    mounts: Mounts,
    /// Of the command; also of what follows it.
    pub user: User,
    /// Whose the step's new files are, if not on the disk.
    pub owner: Option<(u32, u32)>,
    /// The whole environment.
    pub env: Vec<String>,
    pub cgroup: Cgroup,
    /// The root, until a plan takes it.
    root: Option<OwnedFd>,
    /// Where each mount goes.
    targets: Vec<Target>,
    /// The image's layers, and one of mount points.
    lowers: Vec<PathBuf>,
    /// The root as the image has it.
    view: OwnedFd,
}

/// What the process talks to.
pub(super) enum Streams<'a> {
    /// Input, output, error.
    Files([OwnedFd; 3]),
    /// A terminal.
    Terminal(&'a Pty),
}

impl Setup {
    /// For the command.
    pub(super) async fn new(exec: &Exec, input: &ExecInput, vertex: &Vertex) -> Result<Setup, ExecError> {
        let mut mounts = exec_mounts::prepare(exec, input, None).await?;
        add_own_files(exec, &mut mounts)?;
        let view = rootfs::overlay(&input.lowers, None)?;
        let user = find_user(exec, &view)?;
        let env = environment(exec, input, mounts.ssh_auth_sock.as_deref(), &user)?;
        let (targets, stubs) = exec_plan::locate(view.as_fd(), &mut mounts.prepared)?;
        let mut lowers = input.lowers.clone();
        let stub_layer = input.work.join("mount-points");
        if mount_point::make_layer(view.as_fd(), &stub_layer, &stubs)? {
            lowers.push(stub_layer);
        }
        let root = Some(make_root(exec, input, &view, &lowers, &user)?);
        let (user, owner) = exec::as_only_user(user, input, vertex);
        let cgroup = make_cgroup(exec, input, vertex);
        Ok(Setup { mounts, user, owner, env, cgroup, root, targets, lowers, view })
    }

    /// After the command has ended: the same again, with all that it wrote.
    pub(super) async fn again(self, exec: &Exec, input: &ExecInput) -> Result<Setup, ExecError> {
        let mut mounts = exec_mounts::prepare(exec, input, Some(self.mounts)).await?;
        add_own_files(exec, &mut mounts)?;
        let (targets, _) = exec_plan::locate(self.view.as_fd(), &mut mounts.prepared)?;
        let work = rootfs::work_folder(&input.work)?;
        let root = Some(rootfs::overlay(&self.lowers, Some((&input.upper, &work)))?);
        Ok(Setup { mounts, root, targets, ..self })
    }

    /// The root once more: who holds it keeps the kernel from unmounting it while the step's last process waits for that.
    pub(super) fn another_root(&self) -> Result<Option<OwnedFd>, SandboxError> {
        self.root.as_ref().map(OwnedFd::try_clone).transpose().map_err(SandboxError::path("duplicate", "/"))
    }

    /// Whether the root has a file there that may be a program.
    pub(super) fn has_file(&self, path: &str) -> bool {
        let root = self.root.as_ref().unwrap_or(&self.view);
        mount_point::resolve(root.as_fd(), Path::new(path))
            .is_ok_and(|found| found.kind == Some(rustix::fs::FileType::RegularFile))
    }

    /// The plan for one process. Takes the mounts: another one needs [`Setup::again`].
    pub(super) fn plan(&mut self, exec: &Exec, input: &ExecInput, streams: Streams<'_>) -> Result<Plan, ExecError> {
        let mut devices = devices::make(exec.security == Security::Insecure)?;
        if let Some((name, content)) = &exec.script {
            devices::make_folder(&devices.dev, "pipes")?;
            devices::write_file(&devices.dev, &format!("pipes/{name}"), content.as_bytes(), 0o755, (0, 0))?;
        }
        let (streams, streams_are) = match streams {
            Streams::Files(files) => (files, StreamsAre::Files),
            Streams::Terminal(pty) => {
                devices.add_console(&pty.path)?;
                let copy = || pty.slave.try_clone().map_err(SandboxError::path("duplicate", &pty.path));
                ([copy()?, copy()?, copy()?], StreamsAre::Terminal)
            }
        };
        let gone = || SandboxError::Setup {
            operation: "use the root twice".into(),
            help: None,
            source: std::io::ErrorKind::Other.into(),
        };
        let parts = exec_plan::Parts {
            root: self.root.take().ok_or_else(gone)?,
            anchor: &input.work,
            mounts: &mut self.mounts,
            targets: std::mem::take(&mut self.targets),
            devices,
            user: &self.user,
            env: self.env.clone(),
            streams,
            streams_are,
            nested: crate::sandbox::userns::is_nested(),
            emulator: emulator::find(&exec.platform)?,
            cgroups: self.cgroup.open_legacy().map_err(SandboxError::path("open", "the step's cgroup"))?,
        };
        Ok(exec_plan::plan(exec, parts)?)
    }
}

/// The step's cgroup. A limit that cannot be set is said once; the step runs all the same, as without the option.
pub(super) fn make_cgroup(exec: &Exec, input: &ExecInput, vertex: &Vertex) -> Cgroup {
    let (cgroup, unmet) = Cgroup::create(exec.cgroup_parent.as_deref(), &input.id, &input.limits);
    if !unmet.is_empty() {
        vertex.warn_once(format!(
            "limits of {} are not applied: no cgroup with that controller can be made or set here; as an ordinary \
             user, run kiln where one is delegated: `systemd-run --user --scope -p Delegate=yes kiln build …`",
            unmet.join(" and ")
        ));
    }
    cgroup
}

/// `/etc/hosts` and `/etc/resolv.conf`.
fn add_own_files(exec: &Exec, mounts: &mut Mounts) -> Result<(), ExecError> {
    let [(hosts_path, hosts), (resolv_path, resolv)] = own_files(exec);
    mounts.add_file("hosts", hosts_path, &hosts)?;
    mounts.add_file("resolv.conf", resolv_path, &resolv)
}

/// Paths and contents of the files that every step is given.
pub(super) fn own_files(exec: &Exec) -> [(&'static str, String); 2] {
    // A host without the file has no names to resolve.
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let upstream = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    [
        ("/etc/hosts", exec_files::hosts(&exec.hostname, &exec.extra_hosts)),
        ("/etc/resolv.conf", exec_files::resolv_conf(&host, upstream.as_deref(), exec.network)),
    ]
}

/// The user of the op, by the files of the image.
pub(super) fn find_user(exec: &Exec, view: &OwnedFd) -> Result<User, ExecError> {
    let passwd = read_ids(view, "etc/passwd")?;
    let group = read_ids(view, "etc/group")?;
    user::look_up(&exec.user, &passwd, &group).map_err(ExecError::User)
}

/// A file of the image that names users or groups; empty if there is none.
fn read_ids(view: &OwnedFd, path: &str) -> Result<String, ExecError> {
    let file = match mount_point::open(view.as_fd(), Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(fd) => std::fs::File::from(fd),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(SandboxError::path("open", path)(errno).into()),
    };
    let stat = file.metadata().map_err(SandboxError::path("stat", path))?;
    if !stat.is_file() || stat.len() > IDS_MAX {
        return Err(ExecError::User(format!("/{path} of the image is not a regular file of at most 10 MiB")));
    }
    let mut content = vec![];
    std::io::Read::read_to_end(&mut &file, &mut content).map_err(SandboxError::path("read", path))?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// The environment: what the op says, what it implies, and secrets last.
pub(super) fn environment(
    exec: &Exec,
    input: &ExecInput,
    ssh_auth_sock: Option<&str>,
    user: &User,
) -> Result<Vec<String>, ExecError> {
    let mut env: Vec<String> = vec![];
    let mut set = |name: &str, value: &str, replace: bool| {
        let prefix = format!("{name}=");
        match env.iter().position(|entry| entry.starts_with(&prefix)) {
            Some(at) if replace => env[at] = format!("{prefix}{value}"),
            Some(_) => {}
            None => env.push(format!("{prefix}{value}")),
        }
    };
    for entry in exec.env.iter() {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, value, true);
    }
    set("PATH", exec_plan::DEFAULT_PATH, false);
    for entry in &exec.proxy_env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        // What the client says goes before what the image says, as in BuildKit.
        set(name, value, true);
    }
    set("HOME", &user.home, false);
    if let Some(socket) = ssh_auth_sock {
        set("SSH_AUTH_SOCK", socket, false);
    }
    for secret in &exec.secret_env {
        let value = input.secrets.get_for(&secret.id, secret.required)?.unwrap_or_default();
        set(&secret.name, &String::from_utf8_lossy(&value), true);
    }
    Ok(env)
}

/// The root, with all that has to be there before the command starts.
fn make_root(
    exec: &Exec,
    input: &ExecInput,
    view: &OwnedFd,
    lowers: &[PathBuf],
    user: &User,
) -> Result<OwnedFd, ExecError> {
    // The root folder's own attributes are those of the highest layer.
    mount_point::mirror(view.as_fd(), Path::new(""), &input.upper)?;
    let cwd = mount_point::resolve(view.as_fd(), Path::new(&exec.cwd))?;
    let root = rootfs::overlay(lowers, Some((&input.upper, &rootfs::work_folder(&input.work)?)))?;
    for own in exec_plan::OWN_MOUNTS {
        let at = mount_point::resolve(root.as_fd(), Path::new(own))?;
        if at.kind.is_none() {
            mount_point::make_folders(root.as_fd(), &at.path, at.existing, (0, 0))?;
        }
    }
    let on_own_mount = exec_plan::OWN_MOUNTS.iter().any(|own| cwd.path.starts_with(own));
    if cwd.kind.is_none() && !on_own_mount {
        mount_point::make_folders(root.as_fd(), &cwd.path, cwd.existing, (user.uid, user.gid))?;
    }
    Ok(root)
}
