//! Daemons that do not do what they should. What a real one does is tested end to end.

use super::{Daemon, DaemonError};
use cache::digest::Digest;
use std::io::{self, Write};
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// How a request is answered: status and body, or not at all.
type Answer = Option<(u16, String)>;

/// A daemon that answers by path; the body of a request is read to its end first.
struct Fake {
    folder: TempDir,
}

impl Fake {
    fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, &answer).await;
            }
        });
        Fake { folder }
    }

    fn daemon(&self) -> Daemon {
        Daemon::at(&self.socket()).unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("sock")
    }
}

async fn serve(mut stream: UnixStream, answer: &(impl Fn(&str) -> Answer + Send + Sync)) {
    let mut read = vec![];
    let mut buffer = [0; 4096];
    let is_whole = |read: &[u8]| match read.windows(4).position(|end| end == b"\r\n\r\n") {
        None => false,
        Some(head) => !read.starts_with(b"POST") || read[head..].ends_with(b"\r\n0\r\n\r\n"),
    };
    while !is_whole(&read) {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => read.extend_from_slice(&buffer[..count]),
        }
    }
    let text = String::from_utf8_lossy(&read);
    let path = text.split(' ').nth(1).unwrap_or_default();
    if let Some((status, body)) = answer(path) {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let _ = stream.write_all((head + &body).as_bytes()).await;
    }
}

fn ok(body: &str) -> Answer {
    Some((200, body.to_string()))
}

async fn load(daemon: &Daemon, write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static) -> String {
    match daemon.load(|_| {}, write).await {
        Err(error) => crate::progress::chain(&error),
        Ok(Err(error)) => format!("write: {error}"),
        Ok(Ok(())) => String::new(),
    }
}

#[tokio::test]
async fn what_the_daemon_says_is_told() {
    let fake = Fake::start(|path| match path {
        "/images/load?quiet=1" => ok("{\"stream\":\"half\"}\n{\"error\":\"no space left on device\"}\n"),
        "/images/none/json" => Some((404, "{\"message\":\"No such image: none\"}".into())),
        "/images/odd/json" => ok("this is no JSON"),
        "/images/bad/json" => Some((500, "{\"message\":\"layer does not exist\"}".into())),
        _ => None,
    });
    let daemon = fake.daemon();
    let said = load(&daemon, |out| out.write_all(&[0; 1 << 20])).await;
    assert!(said.ends_with("refused to load the image: no space left on device"), "{said}");
    assert!(matches!(daemon.inspect("none").await, Err(DaemonError::NoImage { name, .. }) if name == "none"));
    assert!(matches!(daemon.inspect("odd").await, Err(DaemonError::Answer { .. })));
    let refused = daemon.inspect("bad").await.unwrap_err();
    assert!(refused.to_string().ends_with("refused to show an image: layer does not exist"), "{refused}");
    assert!(matches!(daemon.inspect("silent").await, Err(DaemonError::Broken { .. })));
    std::fs::remove_file(fake.socket()).unwrap();
    assert!(matches!(daemon.inspect("none").await, Err(DaemonError::Connect { .. })));
}

#[tokio::test]
async fn an_archive_that_cannot_be_written_is_no_loaded_image() {
    let fake = Fake::start(|_| ok(""));
    let daemon = fake.daemon();
    let said = load(&daemon, |out| {
        out.write_all(&[0; 1 << 20])?;
        Err(io::Error::new(io::ErrorKind::InvalidData, "the blob is damaged"))
    });
    assert_eq!(said.await, "write: the blob is damaged");
    assert_eq!(load(&daemon, |out| out.write_all(b"all of it")).await, "");
}

#[tokio::test]
async fn only_a_dockerd_with_its_own_store_is_spared_layers() {
    let diff_id = Digest::of(b"layer");
    let check = |component: &'static str, status: &'static str, expect: usize| {
        let image = format!("{{\"Id\":\"a\",\"RootFS\":{{\"Layers\":[\"{diff_id}\",\"sha256:other\"]}}}}");
        let fake = Fake::start(move |path| match path {
            "/version" => ok(&format!("{{\"Components\":[{{\"Name\":\"{component}\"}}]}}")),
            "/info" => ok(&format!("{{\"Driver\":\"overlay2\",\"DriverStatus\":{status}}}")),
            "/images/json?all=1" => ok("[{\"Id\":\"a\"},{\"Id\":\"gone\"}]"),
            "/images/a/json" => ok(&image),
            _ => Some((404, "{}".into())),
        });
        let diff_id = diff_id.clone();
        async move {
            assert_eq!(fake.daemon().known_layers(&[diff_id]).await.unwrap(), expect, "{component} {status}");
        }
    };
    check("Engine", "[[\"Backing Filesystem\",\"extfs\"]]", 1).await;
    check("Engine", "null", 1).await;
    check("Engine", "[[\"driver-type\",\"io.containerd.snapshotter.v1\"]]", 0).await;
    check("Podman Engine", "[]", 0).await;
}
