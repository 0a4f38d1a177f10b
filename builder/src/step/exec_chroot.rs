//! RUN where namespaces or mounts are refused: on a copy of its root, by chroot(2), with what would be mounted lent to it
//! (`lend.rs`); what it changed is then found by comparing (`cache::snapshot::native`). There is no `/proc`, and the
//! network, users and processes are those that the program has itself.

use super::cache_mount::{CacheIdentity, CacheMount};
use super::exec::{self, ExecError, ExecInput, ExecOutcome};
use super::exec_log::StepLog;
use super::exec_mounts::{self, Beginning};
use super::exec_plan;
use super::exec_setup;
use super::lend::{self, Lent, Loan};
use super::mount_point;
use super::user::User;
use crate::progress::{Stream, Vertex};
use crate::sandbox::supervise::{self, Answer, Request};
use crate::sandbox::{SandboxError, devices, emulator, isolation, rootfs};
use crate::ssh::{AgentProxy, SshError};
use cache::snapshot::native::{self, How, Manifest};
use frontend::op::{Exec, Mount, MountKind, Network, Security, Sharing};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// As [`exec::run`], without cancelling; when dropped, all processes of the step are killed. `refused` is why there are
/// no namespaces, if they were not declined.
pub(super) async fn run(
    exec: &Exec,
    input: &ExecInput,
    refused: Option<&str>,
    vertex: &Vertex,
) -> Result<ExecOutcome, ExecError> {
    check(exec, refused)?;
    say_how(refused, vertex);
    if exec.shm_size_bytes.is_some() {
        vertex.warn_once("the size of /dev/shm is not limited with --isolation=chroot");
    }
    exec::say_one_id(&input.identity, vertex);
    let root = make_root(exec, input, vertex).await?;
    let fd = open_folder(&root)?;
    let user = exec_setup::find_user(exec, &fd)?;
    make_cwd(exec, &fd, &user)?;
    let (user, owner) = exec::as_only_user(user, input, vertex);
    let lent = Lent::new(&root, &input.work.join("aside"))?;
    let mut mounts = Mounts { lent, ssh_auth_sock: None, caches: vec![], proxies: vec![] };
    mounts.lend_all(exec, input, vertex).await?;
    let env = exec_setup::environment(exec, input, mounts.ssh_auth_sock.as_deref(), &user)?;
    let manifest = {
        let root = root.clone();
        tokio::task::spawn_blocking(move || Manifest::of(&root)).await.map_err(joined)??
    };
    let code = execute(exec, input, &root, user, env, vertex).await?;
    if code.code != 0 {
        return Err(exec::failed(exec, input, code.code, code.out_of_memory, code.crashed_emulated));
    }
    let elsewhere = mounts.take_back()?;
    let caches = exec.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Cache { .. }));
    let (lowers, upper) = (input.lowers.clone(), input.upper.clone());
    tokio::task::spawn_blocking(move || {
        let view = rootfs::view(&lowers)?;
        let below = view.as_ref().map(AsFd::as_fd);
        native::take_changes(&root, below, &manifest, &upper, &exec_plan::OWN_MOUNTS, &elsewhere)?;
        if caches {
            // There, unlike with mounts, a step can link files out of a cache.
            native::unshare(&upper)?;
        }
        Ok::<(), ExecError>(())
    })
    .await
    .map_err(joined)??;
    let (cpu_time_us, memory_peak_bytes) = (code.cpu_time_us, code.memory_peak_bytes);
    Ok(ExecOutcome { cpu_time_us, memory_peak_bytes, owner, root: None })
}

/// What cannot be had is refused: the step would not be what was asked for.
fn check(exec: &Exec, refused: Option<&str>) -> Result<(), ExecError> {
    let error = |what: &str| ExecError::Isolation { what: what.into(), refused: refused.map(str::to_string) };
    if exec.network == Network::None {
        return Err(error("a step without network (--network=none)"));
    }
    if exec.security == Security::Insecure {
        return Err(error("--security=insecure"));
    }
    if !isolation::may_chroot() {
        let setup = SandboxError::Setup {
            operation: "change the root".into(),
            help: Some("RUN takes namespaces or the capability SYS_CHROOT: give one of them to the container"),
            source: Errno::PERM.into(),
        };
        return Err(setup.into());
    }
    // A handler of kiln's own is in a namespace; one of the machine's serves every process.
    match emulator::find(&exec.platform) {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err(error("an emulator that the machine has not registered")),
        Err(unavailable) => Err(unavailable.into()),
    }
}

fn say_how(refused: Option<&str>, vertex: &Vertex) {
    let Some(refused) = refused else { return };
    vertex.warn_once(format!(
        "RUN is isolated by chroot alone, since namespaces or mounts are refused here ({refused}): it has no /proc, and \
         no network or processes of its own. --isolation=namespace makes this an error"
    ));
}

/// A copy of the root, with `/dev`.
async fn make_root(exec: &Exec, input: &ExecInput, vertex: &Vertex) -> Result<PathBuf, ExecError> {
    let root = input.work.join("root");
    fs::create_dir(&root).map_err(SandboxError::path("create", &root))?;
    fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .map_err(SandboxError::path("set the mode of", &root))?;
    let (lowers, to) = (input.lowers.clone(), root.clone());
    let merge = move || native::merge(&lowers, &to, How::Copy, &exec_plan::OWN_MOUNTS);
    tokio::task::spawn_blocking(merge).await.map_err(joined)??;
    for own in exec_plan::OWN_MOUNTS {
        let path = root.join(own);
        match fs::create_dir(&path) {
            Ok(()) => lend::own(&path, 0o755, (0, 0))?,
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(SandboxError::path("create", path)(error).into()),
        }
    }
    let dev = root.join("dev");
    if !fs::symlink_metadata(&dev).is_ok_and(|dev| dev.is_dir()) {
        return Err(SandboxError::path("fill", dev)(Errno::NOTDIR).into());
    }
    let missing = make_devices(&dev)?;
    if !missing.is_empty() {
        vertex.warn_once(format!(
            "{} in RUN: devices cannot be made here (that takes the capability MKNOD); /dev/null is a plain file",
            missing.iter().map(|name| format!("no /dev/{name}")).collect::<Vec<_>>().join(", ")
        ));
    }
    if let Some((name, content)) = &exec.script {
        let pipes = dev.join("pipes");
        fs::create_dir(&pipes).map_err(SandboxError::path("create", &pipes))?;
        lend::own(&pipes, 0o755, (0, 0))?;
        let path = pipes.join(name);
        fs::write(&path, content).map_err(SandboxError::path("write", &path))?;
        lend::own(&path, 0o755, (0, 0))?;
    }
    Ok(root)
}

/// The nodes that every container has; gives those that could not be made.
fn make_devices(dev: &Path) -> Result<Vec<&'static str>, ExecError> {
    let mut missing = vec![];
    for name in devices::NODES {
        let host = Path::new("/dev").join(name);
        let Ok(stat) = rustix::fs::stat(&host) else {
            missing.push(name);
            continue;
        };
        let (kind, path) = (FileType::from_raw_mode(stat.st_mode), dev.join(name));
        match rustix::fs::mknodat(CWD, &path, kind, Mode::RUSR, stat.st_rdev) {
            Ok(()) => lend::own(&path, stat.st_mode & 0o777, (0, 0))?,
            Err(Errno::PERM) => {
                missing.push(name);
                if name == "null" {
                    fs::write(&path, "").map_err(SandboxError::path("create", &path))?;
                    lend::own(&path, 0o666, (0, 0))?;
                }
            }
            Err(errno) => return Err(SandboxError::path("create", path)(errno).into()),
        }
    }
    for (name, target) in devices::LINKS {
        // Without /proc, these cannot be what the process that opens them has; see `streams`.
        let target = match name {
            "stdout" | "stderr" => continue,
            "stdin" => "null",
            _ => target,
        };
        let path = dev.join(name);
        rustix::fs::symlink(target, &path).map_err(SandboxError::path("create", &path))?;
    }
    let shm = dev.join("shm");
    fs::create_dir(&shm).map_err(SandboxError::path("create", &shm))?;
    lend::own(&shm, 0o1777, (0, 0))?;
    Ok(missing)
}

fn make_cwd(exec: &Exec, root: &OwnedFd, user: &User) -> Result<(), ExecError> {
    let cwd = mount_point::resolve(root.as_fd(), Path::new(&exec.cwd))?;
    if cwd.kind.is_none() {
        mount_point::make_folders(root.as_fd(), &cwd.path, cwd.existing, (user.uid, user.gid))?;
    }
    Ok(())
}

/// What is lent to the step, and what keeps it alive.
struct Mounts {
    lent: Lent,
    ssh_auth_sock: Option<String>,
    caches: Vec<CacheMount>,
    proxies: Vec<AgentProxy>,
}

impl Mounts {
    async fn lend_all(&mut self, exec: &Exec, input: &ExecInput, vertex: &Vertex) -> Result<(), ExecError> {
        let mut order: Vec<(usize, &Mount)> = exec.mounts.iter().enumerate().collect();
        // Parents first.
        order.sort_by_key(|(_, mount)| Path::new(&mount.target).components().count());
        for (position, mount) in order {
            self.lend_one(position, mount, input, vertex).await?;
        }
        for (path, content) in exec_setup::own_files(exec) {
            self.lent.lend(Path::new(path), Loan::File { content: content.as_bytes(), mode: 0o644, owner: (0, 0) })?;
        }
        Ok(())
    }

    async fn lend_one(
        &mut self,
        position: usize,
        mount: &Mount,
        input: &ExecInput,
        vertex: &Vertex,
    ) -> Result<(), ExecError> {
        let target = Path::new(&mount.target);
        match &mount.kind {
            MountKind::Bind { source, .. } => {
                let (lowers, source) = exec_mounts::source_of(position, source, input);
                let tree = rootfs::overlay(lowers, None)?;
                let found = exec_mounts::find(&tree, source)?;
                self.lent.lend(target, Loan::Copy { tree: tree.as_fd(), path: &found.path })
            }
            MountKind::Cache { .. } => self.lend_cache(position, mount, input).await,
            MountKind::Tmpfs { size_bytes } => {
                if size_bytes.is_some() {
                    vertex.warn_once("the size of a tmpfs is not limited with --isolation=chroot");
                }
                self.lent.lend(target, Loan::Scratch)
            }
            MountKind::Secret { id, required, mode, uid, gid } => {
                let Some(content) = input.secrets.get_for(id, *required)? else { return Ok(()) };
                self.lent.lend(target, Loan::File { content: &content, mode: *mode, owner: (*uid, *gid) })
            }
            MountKind::Ssh { id, required, .. } if !input.ssh.contains(id) => match required {
                true => Err(SshError::not_found(id).into()),
                false => Ok(()),
            },
            MountKind::Ssh { id, mode, uid, gid, .. } => {
                let mut proxy = None;
                let mut make = |path: &Path| -> Result<(), ExecError> {
                    // A socket's path is short.
                    let parent = open_folder(path.parent().unwrap_or(path))?;
                    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    let short = PathBuf::from(format!("/proc/self/fd/{}/{name}", parent.as_raw_fd()));
                    proxy = input.ssh.listen(id, &short)?;
                    lend::own(path, *mode, (*uid, *gid))
                };
                self.lent.lend(target, Loan::Made(&mut make))?;
                self.proxies.extend(proxy);
                self.ssh_auth_sock.get_or_insert_with(|| mount.target.clone());
                Ok(())
            }
        }
    }

    async fn lend_cache(&mut self, position: usize, mount: &Mount, input: &ExecInput) -> Result<(), ExecError> {
        let MountKind::Cache { id, sharing, source, mode, uid, gid, readonly, .. } = &mount.kind else {
            return Ok(());
        };
        let beginning = Beginning::find(position, source, input)?;
        let key = CacheIdentity { mode: *mode, uid: *uid, gid: *gid, ..beginning.key(id) };
        // It is moved, so it is in one place at a time.
        let sharing = if *sharing == Sharing::Private { Sharing::Private } else { Sharing::Locked };
        if sharing == Sharing::Locked && self.caches.iter().any(|cache| cache.is_of(&input.cache_root, &key)) {
            let what = format!("the cache mount {id} twice in one step");
            return Err(ExecError::Isolation { what, refused: None });
        }
        let cache = beginning.acquire(&key, sharing, input).await?;
        let target = Path::new(&mount.target);
        let lent = match readonly {
            false => self.lent.lend(target, Loan::Folder(&cache.tree)),
            true => {
                let tree = open_folder(&cache.tree)?;
                self.lent.lend(target, Loan::Copy { tree: tree.as_fd(), path: Path::new("") })
            }
        };
        self.caches.push(cache);
        lent
    }

    fn take_back(self) -> Result<std::collections::HashSet<(u64, u64)>, ExecError> {
        // Caches stay locked until they are home.
        let Mounts { lent, caches, proxies, .. } = self;
        let elsewhere = lent.take_back();
        drop((caches, proxies));
        elsewhere
    }
}

struct Ended {
    code: i32,
    out_of_memory: bool,
    crashed_emulated: bool,
    cpu_time_us: Option<u64>,
    memory_peak_bytes: Option<u64>,
}

async fn execute(
    exec: &Exec,
    input: &ExecInput,
    root: &Path,
    user: User,
    env: Vec<String>,
    vertex: &Vertex,
) -> Result<Ended, ExecError> {
    let cgroup = exec_setup::make_cgroup(exec, input, vertex);
    let [stdout, stderr] = streams(&root.join("dev"))?;
    let program = exec.args.first().map_or("", String::as_str);
    let limit = |ulimit: &(String, i64, i64)| {
        let (resource, limit) = exec_plan::limit(ulimit)?;
        Ok((resource as u32, limit.current, limit.maximum))
    };
    let request = Request {
        root: root.to_path_buf(),
        cwd: PathBuf::from(&exec.cwd),
        programs: exec_plan::programs(program, &env),
        args: exec.args.clone(),
        env,
        uid: user.uid,
        gid: user.gid,
        groups: exec_plan::may_set_groups().then_some(user.groups),
        cgroups: cgroup.processes(),
        limits: exec.ulimits.iter().map(limit).collect::<Result<_, SandboxError>>()?,
    };
    let mut process = supervise::start(request, stdout.1, stderr.1).await?;
    let mut logs = exec::logs(exec, input, vertex)?;
    let [out_log, err_log] = &mut logs;
    // The supervisor ends what else could write there before it answers.
    let (answer, _, crashed) =
        tokio::join!(process.wait(), exec::follow(stdout.0, out_log), exec::follow(stderr.0, err_log));
    let usage = cgroup.usage();
    let code = match answer? {
        Answer::Exit { code, signal } => Answer::exit(code, signal).code(),
        Answer::Execute(errno) => {
            let text = exec::cannot_execute(exec, Errno::from_raw_os_error(errno));
            vertex.log(Stream::Stderr, format!("{text}\n").as_bytes());
            1
        }
        Answer::Setup { operation, help, errno } => {
            let operation = help.map_or(operation.clone(), |help| format!("{operation} ({help})"));
            let source = std::io::Error::from_raw_os_error(errno);
            return Err(SandboxError::Setup { operation, help: None, source }.into());
        }
    };
    if code != 0 {
        logs.iter_mut().for_each(StepLog::failed);
    }
    let (cpu_time_us, memory_peak_bytes) = (usage.cpu_time_us, usage.memory_peak_bytes);
    let crashed_emulated = exec::crashed_emulated(exec, crashed, code);
    Ok(Ended { code, out_of_memory: usage.out_of_memory, crashed_emulated, cpu_time_us, memory_peak_bytes })
}

/// Output and error: our end, then the command's. They are pipes with a name, since what opens `/dev/stdout` gets the
/// file of that name.
fn streams(dev: &Path) -> Result<[(OwnedFd, OwnedFd); 2], ExecError> {
    let make = |name: &str| -> Result<(OwnedFd, OwnedFd), ExecError> {
        let path = dev.join(name);
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).map_err(SandboxError::path("create", &path))?;
        lend::own(&path, 0o622, (0, 0))?;
        let open = |flags| {
            rustix::fs::open(&path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .map_err(SandboxError::path("open", &path))
        };
        // In this order, and without waiting for somebody at the other end.
        Ok((open(OFlags::RDONLY | OFlags::NONBLOCK)?, open(OFlags::WRONLY)?))
    };
    Ok([make("stdout")?, make("stderr")?])
}

fn open_folder(path: &Path) -> Result<OwnedFd, SandboxError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(SandboxError::path("open", path))
}

fn joined(error: tokio::task::JoinError) -> ExecError {
    let source = std::io::Error::other(error);
    SandboxError::Setup { operation: "copy the root".into(), help: None, source }.into()
}
