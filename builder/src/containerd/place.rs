//! Which containerd, and what in it: `$CONTAINERD_ADDRESS`, `$CONTAINERD_NAMESPACE` and `$CONTAINERD_SNAPSHOTTER`, as its
//! program `ctr` reads them.

use super::ContainerdError;
use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Where containerd listens if nothing else is said.
const DEFAULT_SOCKET: &str = "/run/containerd/containerd.sock";
/// The namespace of `ctr`.
const DEFAULT_NAMESPACE: &str = "default";

/// A containerd, and what of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub socket: PathBuf,
    pub namespace: String,
    /// `None`: the namespace's.
    pub snapshotter: Option<String>,
}

/// Looks for one that answers at its socket. `environment` gives variables.
///
/// # Errors
/// [`ContainerdError::Absent`].
pub fn find(environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Place, ContainerdError> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
    let address = text("CONTAINERD_ADDRESS");
    let is_set = address.is_some();
    let socket = address.unwrap_or_else(|| DEFAULT_SOCKET.into());
    let socket = PathBuf::from(socket.strip_prefix("unix://").unwrap_or(&socket));
    // A socket that nobody listens at, or that this user may not open, is there like any other.
    match UnixStream::connect(&socket) {
        Ok(_) => Ok(Place {
            socket,
            namespace: text("CONTAINERD_NAMESPACE").unwrap_or_else(|| DEFAULT_NAMESPACE.into()),
            snapshotter: text("CONTAINERD_SNAPSHOTTER"),
        }),
        Err(source) => Err(ContainerdError::Absent { socket, is_set, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn as_ctr_looks() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let address = socket.display().to_string();
        let look = |variables: &[(&str, &str)]| {
            find(&|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value)))
        };
        let absent = look(&[("CONTAINERD_ADDRESS", &address)]).unwrap_err();
        assert!(matches!(absent, ContainerdError::Absent { is_set: true, .. }), "{absent}");
        let listener = UnixListener::bind(&socket).unwrap();
        let place = look(&[("CONTAINERD_ADDRESS", &address), ("CONTAINERD_SNAPSHOTTER", "")]).unwrap();
        assert_eq!(place, Place { socket: socket.clone(), namespace: "default".into(), snapshotter: None });
        let unix = format!("unix://{address}");
        let variables = [("CONTAINERD_ADDRESS", &*unix), ("CONTAINERD_NAMESPACE", "k8s.io")];
        let place = look(&[variables.as_slice(), &[("CONTAINERD_SNAPSHOTTER", "native")]].concat()).unwrap();
        let snapshotter = Some("native".into());
        assert_eq!(place, Place { socket: socket.clone(), namespace: "k8s.io".into(), snapshotter });
        // It died and left its socket.
        drop(listener);
        let absent = look(&[("CONTAINERD_ADDRESS", &address)]).unwrap_err();
        assert!(matches!(absent, ContainerdError::Absent { .. }), "{absent}");
    }
}
