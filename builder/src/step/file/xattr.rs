//! Extended attributes that travel with files: `security.capability`, `user.*` and `trusted.*`, but never what
//! overlayfs or kiln itself keeps there, and none of the host's own (`security.selinux`, ACLs).

use cache::owners::OWNER;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Name and value, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Whether an attribute is copied and digested.
pub fn travels(name: &[u8]) -> bool {
    if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") || name == OWNER.as_bytes() {
        return false;
    }
    name == b"security.capability" || name.starts_with(b"user.") || name.starts_with(b"trusted.")
}

/// Attributes of an opened file. Filesystems without any, and files that cannot be asked, have none.
pub fn read(file: impl AsFd) -> Xattrs {
    let file = file.as_fd();
    collect(|list| rustix::fs::flistxattr(file, list), |name, value| rustix::fs::fgetxattr(file, name, value))
}

/// Attributes of the file at `path` below `root`, which need not be opened for that.
pub fn read_at(root: BorrowedFd<'_>, path: &[u8]) -> Xattrs {
    let path = [format!("/proc/self/fd/{}/", root.as_raw_fd()).as_bytes(), path].concat();
    collect(
        |list| rustix::fs::llistxattr(path.as_slice(), list),
        |name, value| rustix::fs::lgetxattr(path.as_slice(), name, value),
    )
}

/// Gives an opened file its attributes. What the filesystem or the user namespace does not allow is left out.
pub fn write(file: impl AsFd, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Errno> {
    for (name, value) in xattrs {
        match rustix::fs::fsetxattr(file.as_fd(), name.as_slice(), value, XattrFlags::empty()) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Xattrs {
    // Most files have none: asking for the size first would be one call too many for each.
    let mut small = [0; 512];
    let names = match list(&mut small) {
        Ok(length) => small[..length].to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0; 64 << 10];
            let Ok(length) = list(&mut large) else { return Vec::new() };
            large.truncate(length);
            large
        }
        Err(_) => return Vec::new(),
    };
    let mut xattrs = Xattrs::new();
    for name in names.split(|&b| b == 0).filter(|name| travels(name)) {
        let mut value = vec![0; 256];
        let length = match get(name, &mut value) {
            Err(Errno::RANGE) => {
                value.resize(64 << 10, 0);
                get(name, &mut value)
            }
            other => other,
        };
        if let Ok(length) = length {
            value.truncate(length);
            xattrs.push((name.to_vec(), value));
        }
    }
    xattrs.sort();
    xattrs
}
