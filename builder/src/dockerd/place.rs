//! Which daemon the program docker would speak to: $DOCKER_HOST, the chosen context, else the usual sockets.

use super::DaemonError;
use std::ffi::OsString;
use std::path::PathBuf;

/// Where a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A unix socket of this machine.
    Socket(PathBuf),
    /// Elsewhere: `tcp://…`, `ssh://…`, or a context. Only the program docker knows how to get there.
    Other(String),
}

/// Looks for it. `environment` gives variables.
pub fn find(environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Place, DaemonError> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(host) = set("DOCKER_HOST") {
        let host = host.to_string_lossy().into_owned();
        return match host.strip_prefix("unix://").map(PathBuf::from) {
            Some(socket) if socket.exists() => Ok(Place::Socket(socket)),
            Some(socket) => Err(DaemonError::NoSocket { sockets: vec![socket.display().to_string()] }),
            None => Ok(Place::Other(host)),
        };
    }
    let context = set("DOCKER_CONTEXT").map(|context| context.to_string_lossy().into_owned());
    if let Some(context) = context.or_else(|| configured_context(&set)).filter(|context| context != "default") {
        return Ok(Place::Other(context));
    }
    let rootless = set("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("docker.sock"));
    let sockets: Vec<PathBuf> = ["/var/run/docker.sock".into()].into_iter().chain(rootless).collect();
    match sockets.iter().find(|socket| socket.exists()) {
        Some(socket) => Ok(Place::Socket(socket.clone())),
        None => {
            Err(DaemonError::NoSocket { sockets: sockets.iter().map(|socket| socket.display().to_string()).collect() })
        }
    }
}

/// `currentContext` of the program's configuration.
fn configured_context(set: &dyn Fn(&str) -> Option<OsString>) -> Option<String> {
    let folder = match set("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(set("HOME")?).join(".docker"),
    };
    let text = std::fs::read(folder.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    config["currentContext"].as_str().filter(|context| !context.is_empty()).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_program_docker_looks() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_string_lossy().into_owned();
        let check = |variables: &[(&str, &str)], expect: Option<Place>| {
            let get = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
                found.or_else(|| (name == "HOME").then(|| OsString::from(&home)))
            };
            let found = find(&get);
            match expect {
                Some(place) => assert_eq!(found.unwrap(), place, "{variables:?}"),
                None => assert!(!matches!(found, Ok(Place::Other(_))), "{variables:?}"),
            }
        };
        let socket = dir.path().join("s");
        std::fs::write(&socket, "").unwrap();
        check(&[("DOCKER_HOST", &format!("unix://{}", socket.display()))], Some(Place::Socket(socket)));
        check(&[("DOCKER_HOST", "unix:///there/is/none")], None);
        check(&[("DOCKER_HOST", "ssh://h")], Some(Place::Other("ssh://h".into())));
        check(&[("DOCKER_HOST", ""), ("DOCKER_CONTEXT", "far")], Some(Place::Other("far".into())));
        check(&[("DOCKER_CONTEXT", "default")], None);
        check(&[], None);
        std::fs::create_dir(dir.path().join(".docker")).unwrap();
        std::fs::write(dir.path().join(".docker/config.json"), r#"{"currentContext":"lima"}"#).unwrap();
        check(&[], Some(Place::Other("lima".into())));
    }
}
