//! The client's ssh agents, as steps and git sources may use them: to list keys and to sign. Rules:
//! reference/engine.md 11; wire form: the ssh agent protocol (draft-ietf-sshm-ssh-agent).

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// `SSH_AGENTC_REQUEST_IDENTITIES`.
const REQUEST_IDENTITIES: u8 = 11;
/// `SSH_AGENTC_SIGN_REQUEST`.
const SIGN_REQUEST: u8 = 13;
/// `SSH_AGENT_FAILURE`, as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];
/// Longest message that is passed on, in bytes; OpenSSH's own limit.
const MESSAGE_MAX: u32 = 256 * 1024;

/// A `--ssh` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// `default` without a path, and no agent runs.
    #[error("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")]
    NoAgent,
    /// An id without a path other than `default`.
    #[error("invalid ssh {id:?}: a path to an agent's socket is needed, as in {id}=/path/to/socket")]
    NoPath { id: String },
    /// The same id twice.
    #[error("invalid duplicate ssh id {0}")]
    Duplicate(String),
    /// More than one path where one of them is a socket.
    #[error("ssh {id}: only one socket is possible, and no keys beside it")]
    Several { id: String },
    /// A key file.
    #[error("ssh {id}: {} is not a socket; load the key into an agent (ssh-add) and give its socket", path.display())]
    KeyFile { id: String, path: PathBuf },
    /// The path cannot be looked at.
    #[error("failed to stat {}", path.display())]
    Stat { path: PathBuf, source: io::Error },
    /// The socket of a step cannot be made.
    #[error("listen on {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    /// `required=true` and there is none.
    #[error("no SSH key {0:?} forwarded from the client")]
    NotFound(String),
}

impl SshError {
    /// No agent `id`. BuildKit names the default one by nothing.
    pub fn not_found(id: &str) -> SshError {
        SshError::NotFound(if id == "default" { String::new() } else { id.to_string() })
    }
}

/// The agents that the client offers: sockets, by id.
#[derive(Clone, Debug, Default)]
pub struct SshAgents {
    sockets: HashMap<String, PathBuf>,
}

impl SshAgents {
    /// Adds an agent as `--ssh` describes it: `default`, or `id=/path/to/socket`.
    pub fn add(&mut self, flag: &str) -> Result<(), SshError> {
        let (id, paths) = flag.split_once('=').unwrap_or((flag, ""));
        let id = if id.is_empty() { "default" } else { id };
        let paths: Vec<PathBuf> = match paths {
            "" if id == "default" => vec![std::env::var_os("SSH_AUTH_SOCK").ok_or(SshError::NoAgent)?.into()],
            "" => return Err(SshError::NoPath { id: id.into() }),
            paths => paths.split(',').map(PathBuf::from).collect(),
        };
        for path in &paths {
            let stat = std::fs::metadata(path).map_err(|source| SshError::Stat { path: path.clone(), source })?;
            if !stat.file_type().is_socket() {
                return Err(SshError::KeyFile { id: id.into(), path: path.clone() });
            }
        }
        let [path] = <[PathBuf; 1]>::try_from(paths).map_err(|_| SshError::Several { id: id.into() })?;
        match self.sockets.insert(id.to_string(), path) {
            None => Ok(()),
            Some(_) => Err(SshError::Duplicate(id.into())),
        }
    }

    /// Whether there is an agent of this id.
    pub fn contains(&self, id: &str) -> bool {
        self.sockets.contains_key(id)
    }

    /// The client's own socket of this id, for programs that run outside of a sandbox.
    pub fn socket(&self, id: &str) -> Option<&Path> {
        self.sockets.get(id).map(PathBuf::as_path)
    }

    /// Makes a socket at `path` through which the agent may be asked to list keys and to sign, and nothing else.
    /// It works until the proxy is dropped. Must be called in a tokio runtime. `None`: no agent of this id.
    pub fn listen(&self, id: &str, path: &Path) -> Result<Option<AgentProxy>, SshError> {
        let Some(agent) = self.sockets.get(id).cloned() else { return Ok(None) };
        let listener = UnixListener::bind(path).map_err(|source| SshError::Listen { path: path.into(), source })?;
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            // A connection's errors end that connection; its peer sees the end of the stream.
            while let Ok((client, _)) = listener.accept().await {
                let agent = agent.clone();
                connections.spawn(async move { relay(client, &agent).await });
            }
        });
        Ok(Some(AgentProxy { task }))
    }
}

/// A socket in use; ends with its connections when it is dropped.
#[derive(Debug)]
pub struct AgentProxy {
    task: tokio::task::JoinHandle<()>,
}

impl Drop for AgentProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes on requests one by one until one of the two ends.
async fn relay(mut client: UnixStream, agent: &Path) -> io::Result<()> {
    let mut agent = UnixStream::connect(agent).await?;
    loop {
        let request = read_message(&mut client).await?;
        match request.get(4) {
            Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => {
                agent.write_all(&request).await?;
                let answer = read_message(&mut agent).await?;
                client.write_all(&answer).await?;
            }
            _ => client.write_all(&FAILURE).await?,
        }
    }
}

/// A message with its length in front.
async fn read_message(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    if length > MESSAGE_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; 4 + length as usize];
    message[..4].copy_from_slice(&length.to_be_bytes());
    stream.read_exact(&mut message[4..]).await?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "k").unwrap();
        let (socket, key) = (socket.display(), key.display());
        let check = |flags: &[String], expect: Result<(), String>| {
            let mut agents = SshAgents::default();
            let result = flags.iter().try_for_each(|flag| agents.add(flag)).map_err(|error| error.to_string());
            assert_eq!(result, expect, "{flags:?}");
        };
        check(&[format!("default={socket}"), format!("b={socket}")], Ok(()));
        check(&[format!("b={socket}"), format!("b={socket}")], Err("invalid duplicate ssh id b".into()));
        check(
            &[format!("b={socket},{socket}")],
            Err("ssh b: only one socket is possible, and no keys beside it".into()),
        );
        let advice = "is not a socket; load the key into an agent (ssh-add) and give its socket";
        check(&[format!("b={key}")], Err(format!("ssh b: {key} {advice}")));
        check(&["b=/no/such".into()], Err("failed to stat /no/such".into()));
    }

    #[tokio::test]
    async fn relays_listing_and_refuses_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let (agent, proxy) = (dir.path().join("agent"), dir.path().join("proxy"));
        let listener = UnixListener::bind(&agent).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while let Ok(request) = read_message(&mut stream).await {
                stream.write_all(&[0, 0, 0, 2, 12, request[4]]).await.unwrap();
            }
        });
        let mut agents = SshAgents::default();
        agents.add(&format!("default={}", agent.display())).unwrap();
        let _proxy = agents.listen("default", &proxy).unwrap().unwrap();
        let mut client = UnixStream::connect(&proxy).await.unwrap();
        for (request, answer) in [(REQUEST_IDENTITIES, vec![0, 0, 0, 2, 12, 11]), (17, FAILURE.to_vec())] {
            client.write_all(&[0, 0, 0, 1, request]).await.unwrap();
            assert_eq!(read_message(&mut client).await.unwrap(), answer);
        }
        assert!(agents.listen("other", &proxy).unwrap().is_none());
    }
}
