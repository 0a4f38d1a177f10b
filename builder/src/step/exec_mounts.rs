//! The mounts of a RUN, made ready: each as a detached mount, or as a part of one.

use super::cache_mount::{self, CacheIdentity, CacheMount};
use super::copy_tree::copy_tree;
use super::exec::{ExecError, ExecInput};
use super::mount_point::{self, Resolved};
use crate::sandbox::devices::{own, write_file};
use crate::sandbox::rootfs::{self, Access};
use crate::sandbox::{SandboxError, syscall};
use crate::ssh::{AgentProxy, SshError};
use frontend::op::{Exec, Mount, MountKind, Sharing};
use rustix::fs::{FileType, OFlags};
use rustix::mount::MountAttrFlags;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What is mounted on one target.
pub(super) struct Prepared {
    /// As in the op.
    pub target: PathBuf,
    /// Whether it is a folder.
    pub folder: bool,
    pub content: Content,
    /// The step goes without if it cannot be mounted.
    pub optional: bool,
}

/// Where it comes from.
pub(super) enum Content {
    /// A detached mount.
    Whole(OwnedFd),
    /// A path in a detached mount of its own, with `MOUNT_ATTR_*` to add.
    Part { of: OwnedFd, path: PathBuf, attributes: u64 },
    /// A file in [`Mounts::files`], with `MOUNT_ATTR_*` to add.
    File { name: String, attributes: u64 },
}

/// All mounts of a step, and what keeps them alive.
pub(super) struct Mounts {
    /// Detached tmpfs with the files that are mounted by themselves, and an empty folder `empty`.
    pub files: OwnedFd,
    pub prepared: Vec<Prepared>,
    /// Target of the first ssh mount.
    pub ssh_auth_sock: Option<String>,
    /// By the position in the op.
    pub caches: Vec<(usize, CacheMount)>,
    /// Detached, by the position in the op: still open when the process that they were attached for has ended.
    pub tmpfs: Vec<(usize, OwnedFd)>,
    pub proxies: Vec<AgentProxy>,
}

const FILE_ATTRIBUTES: u64 =
    syscall::MOUNT_ATTR_RDONLY | syscall::MOUNT_ATTR_NOSUID | syscall::MOUNT_ATTR_NODEV | syscall::MOUNT_ATTR_NOEXEC;

/// What a first run's mounts hand on: cache mounts stay locked in between, and tmpfs hold what was written.
type Former = (Vec<(usize, CacheMount)>, Vec<(usize, OwnedFd)>);

/// Makes the mounts of `exec` ready, and a tmpfs for the files among them. After a first run, they are made as that
/// run's processes left them.
pub(super) async fn prepare(exec: &Exec, input: &ExecInput, former: Option<Mounts>) -> Result<Mounts, ExecError> {
    let files = rootfs::tmpfs(&[("mode", "700")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    crate::sandbox::devices::make_folder(&files, "empty")?;
    let mut mounts =
        Mounts { files, prepared: vec![], ssh_auth_sock: None, caches: vec![], tmpfs: vec![], proxies: vec![] };
    let mut former = former.map(|former| (former.caches, former.tmpfs)).unwrap_or_default();
    for (position, mount) in exec.mounts.iter().enumerate() {
        let prepared = mounts.prepare_one(position, mount, input, &mut former).await?;
        mounts.prepared.extend(prepared);
    }
    Ok(mounts)
}

impl Mounts {
    /// Adds a file that the step only reads, if it can be mounted.
    pub(super) fn add_file(&mut self, name: &str, target: &str, content: &str) -> Result<(), ExecError> {
        write_file(&self.files, name, content.as_bytes(), 0o644, (0, 0))?;
        let content = Content::File { name: name.to_string(), attributes: FILE_ATTRIBUTES };
        self.prepared.push(Prepared { target: target.into(), folder: false, content, optional: true });
        Ok(())
    }

    async fn prepare_one(
        &mut self,
        position: usize,
        mount: &Mount,
        input: &ExecInput,
        (caches, tmpfs): &mut Former,
    ) -> Result<Option<Prepared>, ExecError> {
        let target = PathBuf::from(&mount.target);
        let (folder, content) = match &mount.kind {
            MountKind::Bind { source, readonly, .. } => {
                let (tree, source) = source_of(position, source, input);
                bind(tree, source, *readonly, &input.work.join(format!("bind{position}")))?
            }
            MountKind::Cache { .. } => {
                let former = caches.extract_if(.., |(at, _)| *at == position).map(|(_, cache)| cache).next();
                (true, Content::Whole(self.cache(position, &mount.kind, input, former).await?))
            }
            MountKind::Tmpfs { size_bytes } => {
                let size = size_bytes.map(|size| size.to_string());
                let options: Vec<(&str, &str)> = size.iter().map(|size| ("size", size.as_str())).collect();
                let fs = rootfs::tmpfs(&options, MountAttrFlags::MOUNT_ATTR_NOSUID)?;
                if let Some((_, former)) = tmpfs.iter().find(|(at, _)| *at == position) {
                    refill(former, &fs)?;
                }
                let kept = fs.try_clone().map_err(SandboxError::path("keep the tmpfs at", &target))?;
                self.tmpfs.push((position, kept));
                (true, Content::Whole(fs))
            }
            MountKind::Secret { id, required, mode, uid, gid } => {
                let Some(value) = input.secrets.get_for(id, *required)? else { return Ok(None) };
                let name = format!("secret{position}");
                write_file(&self.files, &name, &value, *mode, (*uid, *gid))?;
                let executable = if mode & 0o111 == 0 { 0 } else { syscall::MOUNT_ATTR_NOEXEC };
                (false, Content::File { name, attributes: FILE_ATTRIBUTES & !executable })
            }
            MountKind::Ssh { id, required, mode, uid, gid } => {
                let name = format!("ssh{position}");
                let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", self.files.as_raw_fd()));
                match input.ssh.listen(id, &path)? {
                    Some(proxy) => self.proxies.push(proxy),
                    None if *required => return Err(SshError::not_found(id).into()),
                    None => return Ok(None),
                }
                own(&self.files, &name, *mode, (*uid, *gid))?;
                self.ssh_auth_sock.get_or_insert_with(|| mount.target.clone());
                (false, Content::File { name, attributes: 0 })
            }
        };
        Ok(Some(Prepared { target, folder, content, optional: false }))
    }

    async fn cache(
        &mut self,
        position: usize,
        kind: &MountKind,
        input: &ExecInput,
        former: Option<CacheMount>,
    ) -> Result<OwnedFd, ExecError> {
        let MountKind::Cache { id, sharing, source, mode, uid, gid, readonly, .. } = kind else {
            return Ok(rootfs::overlay(&[], None)?);
        };
        let mount = match former {
            Some(mount) => mount,
            None => {
                let beginning = Beginning::find(position, source, input)?;
                let key = CacheIdentity { mode: *mode, uid: *uid, gid: *gid, ..beginning.key(id) };
                beginning.acquire(&key, *sharing, input).await?
            }
        };
        let access = if *readonly { Access::ReadOnly } else { Access::ReadWrite };
        let fd = rootfs::bind(&mount.tree, access)?;
        self.caches.push((position, mount));
        Ok(fd)
    }
}

/// What a cache mount begins with.
pub(super) struct Beginning {
    /// Identity of the tree that it is of; empty for none.
    from: String,
    /// Part of that tree.
    part: String,
    tree: Option<OwnedFd>,
}

impl Beginning {
    /// Of the mount at that position; `written` is the part that it names.
    pub(super) fn find(position: usize, written: &str, input: &ExecInput) -> Result<Beginning, ExecError> {
        let from = input.sources.iter().find(|(at, _)| *at == position);
        let from = from.map_or(String::new(), |(_, source)| source.identity.clone());
        let (lowers, written) = source_of(position, written, input);
        if lowers.is_empty() {
            return Ok(Beginning { from, part: String::new(), tree: None });
        }
        let root = rootfs::overlay(lowers, None)?;
        let found = find(&root, written)?;
        let tree = mount_point::open(root.as_fd(), &found.path, OFlags::RDONLY | OFlags::DIRECTORY)
            .map_err(SandboxError::path("open", written))?;
        Ok(Beginning { from, part: found.path.to_string_lossy().into_owned(), tree: Some(tree) })
    }

    /// Of the cache `id` that begins so, with nothing said of its root's mode and owner.
    pub(super) fn key<'a>(&'a self, id: &'a str) -> CacheIdentity<'a> {
        CacheIdentity { id, from: &self.from, source: &self.part, mode: None, uid: None, gid: None }
    }

    /// Gets the cache.
    pub(super) async fn acquire(
        &self,
        key: &CacheIdentity<'_>,
        sharing: Sharing,
        input: &ExecInput,
    ) -> Result<CacheMount, SandboxError> {
        let fill = |to: &Path| self.tree.as_ref().map_or(Ok(()), |tree| copy_tree(tree.as_fd(), to));
        cache_mount::acquire(&input.cache_root, key, sharing, input.anew.as_deref(), &input.travel, fill).await
    }
}

/// Copies what a tmpfs held that nobody has mounted any more: the kernel does not let it be attached again.
fn refill(former: &OwnedFd, fs: &OwnedFd) -> Result<(), SandboxError> {
    let from = mount_point::open(former.as_fd(), Path::new(""), OFlags::RDONLY | OFlags::DIRECTORY)
        .map_err(SandboxError::path("open", "the tmpfs of the failed command"))?;
    copy_tree(from.as_fd(), &PathBuf::from(format!("/proc/self/fd/{}", fs.as_raw_fd())))
}

/// Folders of what the mount at that position shows, and the part of it; `written` where nothing else is known.
pub(super) fn source_of<'a>(position: usize, written: &'a str, input: &'a ExecInput) -> (&'a [PathBuf], &'a str) {
    let source = input.sources.iter().find(|(at, _)| *at == position);
    source.map_or((&[], written), |(_, source)| (&source.lowers, source.part.as_deref().unwrap_or(written)))
}

/// The part `source` of a tree, for a bind mount. `scratch` takes what is written where that is allowed.
fn bind(lowers: &[PathBuf], source: &str, readonly: bool, scratch: &Path) -> Result<(bool, Content), ExecError> {
    let of = if readonly {
        rootfs::overlay(lowers, None)?
    } else {
        let upper = scratch.join("upper");
        if !upper.exists() {
            std::fs::create_dir_all(&upper).map_err(SandboxError::path("create", &upper))?;
            let view = rootfs::overlay(lowers, None)?;
            mount_point::mirror(view.as_fd(), Path::new(""), &upper)?;
        }
        let work = rootfs::work_folder(scratch)?;
        rootfs::overlay(lowers, Some((&upper, &work)))?
    };
    let found = find(&of, source)?;
    let folder = found.kind == Some(FileType::Directory);
    if found.path.as_os_str().is_empty() {
        return Ok((true, Content::Whole(of)));
    }
    let attributes = if readonly { syscall::MOUNT_ATTR_RDONLY } else { 0 };
    Ok((folder, Content::Part { of, path: found.path, attributes }))
}

/// Where `source` is in a tree.
pub(super) fn find(tree: &OwnedFd, source: &str) -> Result<Resolved, ExecError> {
    let found = mount_point::resolve(tree.as_fd(), Path::new(source))?;
    match found.kind {
        Some(_) => Ok(found),
        None => Err(ExecError::MountSource { path: source.to_string() }),
    }
}
