//! Servers that do not do what they should, or do it beside another kiln. What a real containerd does is tested end to end.

use super::api::{ContentWrite, ContentWritten, WriteAction};
use super::{Blob, ContainerdError, Labels, Leased, PackedLayer, Place, code};
use bytes::{BufMut, Bytes, BytesMut};
use cache::digest::{Descriptor, Digest};
use cache::store::Store;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use prost::Message;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::net::{UnixListener, UnixStream};

/// Methods and messages, as they came.
type Log = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// What is done about a message.
enum Reply {
    Message(Vec<u8>),
    Status(u32, &'static str),
    /// An answer without a body.
    Http(u16),
    Hangup,
}

fn empty() -> Reply {
    Reply::Message(vec![])
}

/// A server that answers each message by the call's method. Leases are given.
struct Fake {
    folder: TempDir,
    asked: Log,
}

impl Fake {
    fn start(answer: impl Fn(&str, &[u8]) -> Reply + Send + Sync + 'static) -> Fake {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let asked = Arc::new(Mutex::new(vec![]));
        let (log, answer) = (asked.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, log.clone(), answer.clone()));
            }
        });
        Fake { folder, asked }
    }

    async fn leased(&self) -> Leased {
        let socket = self.folder.path().join("sock");
        Leased::begin(&Place { socket, namespace: "default".into(), snapshotter: None }).await.unwrap()
    }

    /// Methods of the calls' messages, but for those of leases.
    fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let methods = asked.iter().map(|(method, _)| method.clone());
        methods.filter(|method| !method.starts_with("Leases/")).collect()
    }

    /// The messages of writes.
    fn writes(&self) -> Vec<ContentWrite> {
        let asked = self.asked.lock().unwrap();
        let writes = asked.iter().filter(|(method, _)| method == "Content/Write");
        writes.map(|(_, message)| ContentWrite::decode(message.as_slice()).unwrap()).collect()
    }
}

async fn connection(stream: UnixStream, log: Log, answer: Arc<impl Fn(&str, &[u8]) -> Reply + Send + Sync + 'static>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (hangup, mut hung_up) = tokio::sync::mpsc::channel(1);
    loop {
        let (request, respond) = tokio::select! {
            Some(Ok(accepted)) = connection.accept() => accepted,
            _ = hung_up.recv() => return,
            else => return,
        };
        let (log, answer, hangup) = (log.clone(), answer.clone(), hangup.clone());
        tokio::spawn(async move {
            if serve(request, respond, &log, &*answer).await.is_none() {
                let _ = hangup.send(()).await;
            }
        });
    }
}

/// `None` if the connection is to break.
async fn serve(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    log: &Log,
    answer: &(impl Fn(&str, &[u8]) -> Reply + Sync),
) -> Option<()> {
    let path = request.uri().path().to_string();
    let method = path.trim_start_matches("/containerd.services.").split_once(".v1.").unwrap().1.to_string();
    let is_unary = method != "Content/Write";
    let mut body = request.into_body();
    let mut received = BytesMut::new();
    let mut out = None;
    loop {
        while let Some(message) = super::grpc::tests::take(&mut received) {
            log.lock().unwrap().push((method.clone(), message.to_vec()));
            let reply = if method.starts_with("Leases/") { empty() } else { answer(&method, &message) };
            match reply {
                Reply::Message(message) => {
                    let out = out.get_or_insert_with(|| respond.send_response(Response::new(()), false).unwrap());
                    let mut framed = BytesMut::new();
                    framed.put_u8(0);
                    framed.put_u32(message.len() as u32);
                    framed.put_slice(&message);
                    out.send_data(framed.freeze(), false).unwrap();
                    if is_unary {
                        out.send_trailers(trailers(code::OK, "")).unwrap();
                        return Some(());
                    }
                }
                Reply::Status(code, message) => {
                    match &mut out {
                        Some(out) => out.send_trailers(trailers(code, message)).unwrap(),
                        None => {
                            let mut response = Response::new(());
                            *response.headers_mut() = trailers(code, message);
                            respond.send_response(response, true).unwrap();
                        }
                    }
                    return Some(());
                }
                Reply::Http(status) => {
                    respond.send_response(Response::builder().status(status).body(()).unwrap(), true).unwrap();
                    return Some(());
                }
                Reply::Hangup => return None,
            }
        }
        match body.data().await {
            Some(Ok(bytes)) => {
                body.flow_control().release_capacity(bytes.len()).unwrap();
                received.extend_from_slice(&bytes);
            }
            Some(Err(_)) => return Some(()),
            None => {
                out?.send_trailers(trailers(code::OK, "")).unwrap();
                return Some(());
            }
        }
    }
}

fn trailers(code: u32, message: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    trailers
}

/// A store with a blob of some pieces.
fn blob() -> (TempDir, Store, Blob) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    let mut writer = store.content().writer().unwrap();
    std::io::Write::write_all(&mut writer, &bytes).unwrap();
    writer.commit(None).unwrap();
    let labels = Labels::from([("containerd.io/gc.ref.content.l.0".into(), "sha256:x".into())]);
    (folder, store, Blob { digest: Digest::of(&bytes), size: bytes.len() as u64, labels })
}

/// Takes writes as containerd does, after it had `had` bytes.
fn writing(had: i64) -> impl Fn(&str, &[u8]) -> Reply {
    move |method, message| match method {
        "Content/Write" => {
            let write = ContentWrite::decode(message).unwrap();
            let offset =
                if write.action == i32::from(WriteAction::Stat) { had } else { write.offset + write.data.len() as i64 };
            Reply::Message(ContentWritten { offset }.encode_to_vec())
        }
        _ => empty(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containerd_has_of_a_blob_is_not_sent() {
    let (_folder, store, blob) = blob();
    for had in [0, 1 << 20, 2_999_999, 3_000_000] {
        let fake = Fake::start(writing(had));
        let leased = fake.leased().await;
        let sent = AtomicU64::new(0);
        let count = |bytes| {
            sent.fetch_add(bytes, Ordering::Relaxed);
        };
        leased.give(&blob, &store, &count).await.unwrap();
        assert_eq!(sent.into_inner(), 3_000_000 - had as u64);
        let writes = fake.writes();
        let data: Vec<u8> = writes.iter().flat_map(|write| write.data.to_vec()).collect();
        assert_eq!(data.len() as i64, 3_000_000 - had);
        assert!(data.iter().enumerate().all(|(at, byte)| (at as i64 + had) as u8 == *byte));
        let last = writes.last().unwrap();
        assert_eq!((last.action, last.offset), (WriteAction::Commit.into(), 3_000_000));
        assert_eq!((&last.expected, &last.labels), (&blob.digest.to_string(), &blob.labels));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_another_gave_gets_its_labels() {
    let (_folder, store, blob) = blob();
    // At once, or when the bytes are there.
    for at in [WriteAction::Stat, WriteAction::Commit] {
        let take = writing(0);
        let fake = Fake::start(move |method, message| match method {
            "Content/Write" if ContentWrite::decode(message).unwrap().action == i32::from(at) => {
                Reply::Status(code::ALREADY_EXISTS, "content exists")
            }
            method => take(method, message),
        });
        let leased = fake.leased().await;
        leased.give(&blob, &store, &|_| {}).await.unwrap();
        assert_eq!(fake.asked().last().unwrap(), "Content/Update");
        assert_eq!(leased.has(&blob).await.unwrap(), at == WriteAction::Stat);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told() {
    let (folder, store, blob) = blob();
    let check = async |reply: fn() -> Reply, expect: &str| {
        let take = writing(0);
        // With the second piece, when much is under way.
        let fake = Fake::start(move |method, message| match method {
            "Content/Write" if ContentWrite::decode(message).unwrap().offset > 0 => reply(),
            method => take(method, message),
        });
        let error = fake.leased().await.give(&blob, &store, &|_| {}).await.unwrap_err();
        let said = crate::progress::chain(&error);
        assert!(said.contains(expect), "{said}");
    };
    check(|| Reply::Status(8, "no%20space"), "refused to take a blob: no space").await;
    check(|| Reply::Hangup, "asked to take a blob and gave no answer that kiln can read: the connection broke").await;
    check(|| Reply::Message(vec![0x20]), "cannot be read").await;
    let fake = Fake::start(|_, _| Reply::Http(404));
    let said = crate::progress::chain(&fake.leased().await.has(&blob).await.unwrap_err());
    assert!(said.contains("HTTP status 404"), "{said}");

    // A blob that is damaged here is not committed there.
    let path = folder.path().join("blobs/sha256").join(blob.digest.hex());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[17] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let fake = Fake::start(writing(0));
    let error = fake.leased().await.give(&blob, &store, &|_| {}).await.unwrap_err();
    assert!(matches!(error, ContainerdError::Read { .. }), "{error}");
    assert!(fake.writes().iter().all(|write| write.action != i32::from(WriteAction::Commit)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_another_unpacked_is_taken() {
    let diff_id = Digest::of(b"tar");
    let layer = |diff_id: &Digest| PackedLayer {
        blob: Descriptor { media_type: "a/b".into(), digest: Digest::of(b"blob"), size: 4 },
        diff_id: diff_id.clone(),
    };
    let seen = Mutex::new(0);
    let applied = super::api::DiffApplied {
        applied: Some(super::api::Descriptor { digest: diff_id.to_string(), ..Default::default() }),
    };
    let applied = applied.encode_to_vec();
    let fake = Fake::start(move |method, _| match method {
        "Snapshots/Stat" => {
            *seen.lock().unwrap() += 1;
            if *seen.lock().unwrap() % 2 == 1 { Reply::Status(code::NOT_FOUND, "no") } else { empty() }
        }
        "Snapshots/Commit" => Reply::Status(code::ALREADY_EXISTS, "there"),
        "Diff/Apply" => Reply::Message(applied.clone()),
        "Namespaces/Get" => Reply::Status(code::NOT_FOUND, "no"),
        _ => empty(),
    });
    let leased = fake.leased().await;
    assert_eq!(leased.snapshotter().await.unwrap(), "overlayfs");
    leased.unpack("overlayfs", &[layer(&diff_id)], &Digest::of(b"config"), &|_| {}).await.unwrap();
    let expect = ["Stat", "Prepare", "Commit", "Remove", "Stat"].map(|name| format!("Snapshots/{name}"));
    let snapshots = fake.asked().into_iter().filter(|method| method.starts_with("Snapshots/"));
    assert_eq!(snapshots.collect::<Vec<_>>(), expect);
    assert_eq!(fake.asked().last().unwrap(), "Content/Update");

    let other = layer(&Digest::of(b"other"));
    let error = leased.unpack("overlayfs", &[other], &Digest::of(b"config"), &|_| {}).await.unwrap_err();
    assert!(matches!(error, ContainerdError::OtherLayer { .. }), "{error}");
    assert_eq!(fake.asked().last().unwrap(), "Snapshots/Remove");
}
