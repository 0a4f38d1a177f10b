//! The client against servers that misbehave, and against a real registry.

use super::auth::{Scopes, Slot, Tokens};
use super::credentials::Credentials;
use super::error::RegistryError;
use super::hosts::Hosts;
use super::push::{Open, PushBlob, PushImage, PushManifest, push};
use super::retry::RetryPolicy;
use super::testing::{Answer, Fake, Real, Request, registry, registry_with};
use crate::config::Config;
use crate::progress::Progress;
use cache::digest::{Descriptor, Digest};
use frontend::reference::Reference;
use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use std::path::{Path, PathBuf};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn reference(fake: &str, rest: &str) -> Reference {
    Reference::parse(&format!("{fake}/{rest}")).unwrap()
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor { media_type: MANIFEST.into(), digest: Digest::of(bytes), size: bytes.len() as u64 }
}

fn described(bytes: &[u8]) -> Answer {
    Answer::ok(bytes).header("docker-content-digest", Digest::of(bytes)).header("content-type", MANIFEST)
}

fn auths(host: &str, entry: &str) -> Credentials {
    let text = format!(r#"{{"auths":{{"{host}":{entry}}}}}"#);
    Credentials::from_environment(|name| (name == "DOCKER_AUTH_CONFIG").then(|| text.clone().into()))
}

#[tokio::test]
async fn resolve_asks_as_little_as_it_can() {
    let check = async |answer: fn(&Request) -> Answer, expect: &[&str]| {
        let fake = Fake::start(move |request, _| answer(request));
        let resolved = registry("").resolve(&reference(&fake.host, "a/b:1")).await.unwrap();
        assert_eq!(resolved.descriptor, descriptor(b"{}"));
        assert_eq!(fake.lines(), expect);
    };
    let (head, get) = ("HEAD /v2/a/b/manifests/1", "GET /v2/a/b/manifests/1");
    check(|_| described(b"{}"), &[head]).await;
    check(|_| Answer::ok("{}").header("content-type", MANIFEST), &[head, get]).await;
    for status in [403, 405] {
        let fake = Fake::start(move |request, _| match request.method.as_str() {
            "HEAD" => Answer::status(status),
            _ => described(b"{}"),
        });
        let resolved = registry("").resolve(&reference(&fake.host, "a/b:1")).await.unwrap();
        assert_eq!(resolved.document.as_deref(), Some(&b"{}"[..]));
        assert_eq!(fake.lines(), [head, get]);
    }
}

#[tokio::test]
async fn passing_faults_are_retried_and_lasting_ones_not() {
    let check = async |statuses: &'static [u16], expect: Result<usize, usize>| {
        let fake = Fake::start(move |_, before| match statuses.get(before).copied().unwrap_or(200) {
            200 => described(b"{}"),
            429 => Answer::status(429).header("retry-after", 0),
            status => Answer::status(status),
        });
        let resolved = registry("").resolve(&reference(&fake.host, "a:1")).await;
        let outcome = resolved.map(|_| fake.lines().len()).map_err(|_| fake.lines().len());
        assert_eq!(outcome, expect, "{statuses:?}");
    };
    check(&[503, 429, 500], Ok(4)).await;
    check(&[503, 503, 503, 503], Err(4)).await;
    check(&[404], Err(1)).await;
}

#[tokio::test]
async fn errors_name_what_the_registry_said() {
    let fake = Fake::start(|_, _| Answer {
        body: br#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#.to_vec(),
        ..Answer::status(403)
    });
    let error = registry("").resolve(&reference(&fake.host, "a:1")).await.unwrap_err();
    assert!(error.to_string().ends_with("403 Forbidden: denied: requested access is denied"), "{error}");
    assert!(error.help().unwrap().contains("kiln login"));
    let nowhere = reference("127.0.0.1:1", "a:1");
    let error = registry("").resolve(&nowhere).await.unwrap_err();
    assert!(matches!(error, RegistryError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn plain_http_where_tls_was_expected() {
    let fake = Fake::start(|_, _| described(b"{}"));
    let to = reference(&fake.host, "a:1");
    let error = registry(&format!("[registry.\"{}\"]\nhttp = false", fake.host)).resolve(&to).await.unwrap_err();
    assert!(matches!(error, RegistryError::PlainHttp { .. }), "{error:?}");
    assert!(error.help().unwrap().contains("http = true"));
    let insecure = format!("[registry.\"{}\"]\nhttp = false\ninsecure = true", fake.host);
    // Also what was asked before the first answer came.
    let (insecure, other) = (registry(&insecure), reference(&fake.host, "b:1"));
    futures::future::try_join(insecure.resolve(&to), insecure.resolve(&other)).await.unwrap();
}

/// A registry with a token service at `/token` for those whom `login` lets in.
fn guarded(login: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Fake {
    Fake::start(move |request, _| {
        if request.path.starts_with("/token") {
            return match login(request) {
                true => Answer::ok(r#"{"token":"t","expires_in":300}"#),
                false => Answer { body: br#"{"details":"incorrect password"}"#.to_vec(), ..Answer::status(401) },
            };
        }
        match request.headers.get("authorization").map(String::as_str) {
            Some("Bearer t") => described(b"{}"),
            _ => {
                let realm = format!("http://{}/token", request.headers["host"]);
                Answer::status(401).header("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""))
            }
        }
    })
}

#[tokio::test]
async fn tokens_are_got_once_for_each_repository() {
    let fake = guarded(|request| !request.headers.contains_key("authorization"));
    let registry = registry("");
    let (one, same) = (reference(&fake.host, "a:1"), reference(&fake.host, "a:2"));
    let (first, second) = tokio::join!(registry.resolve(&one), registry.resolve(&same));
    first.and(second).unwrap();
    registry.resolve(&one).await.unwrap();
    let tokens = |fake: &Fake| fake.lines().into_iter().filter(|line| line.contains("/token")).collect::<Vec<_>>();
    assert_eq!(tokens(&fake), ["GET /token?service=s&scope=repository%3Aa%3Apull"]);
    registry.resolve(&reference(&fake.host, "b:1")).await.unwrap();
    assert_eq!(tokens(&fake).len(), 2);
}

#[tokio::test]
async fn passwords_and_identity_tokens_are_exchanged() {
    let fake = guarded(|request| {
        let is_basic = request.headers.get("authorization").is_some_and(|header| header == "Basic dTpw");
        is_basic || (request.method == "POST" && request.body.contains("refresh_token=secret"))
    });
    let to = reference(&fake.host, "a:1");
    for entry in [r#"{"auth":"dTpw"}"#, r#"{"identitytoken":"secret"}"#, r#"{"registrytoken":"t"}"#] {
        registry_with("", auths(&fake.host, entry)).resolve(&to).await.unwrap();
    }
    let wrong = registry_with("", auths(&fake.host, r#"{"username":"u","password":"wrong"}"#));
    let error = wrong.resolve(&to).await.unwrap_err();
    assert!(error.to_string().ends_with("401 Unauthorized: incorrect password"), "{error}");
    assert!(error.help().unwrap().starts_with("`u` may not do this"));
}

#[tokio::test]
async fn services_that_only_speak_oauth_are_posted_to() {
    let fake = Fake::start(|request, _| match (request.path.as_str(), request.method.as_str()) {
        ("/token", "POST") if request.body.contains("grant_type=password&username=u&password=p") => {
            Answer::ok(r#"{"access_token":"t"}"#)
        }
        (path, _) if path.starts_with("/token") => Answer::status(405),
        _ if request.headers.get("authorization").is_some_and(|header| header == "Bearer t") => described(b"{}"),
        _ => {
            let realm = format!("Bearer realm=\"http://{}/token\"", request.headers["host"]);
            Answer::status(401).header("www-authenticate", realm)
        }
    });
    let registry = registry_with("", auths(&fake.host, r#"{"auth":"dTpw"}"#));
    registry.resolve(&reference(&fake.host, "a:1")).await.unwrap();
}

#[tokio::test]
async fn basic_challenges_are_answered() {
    let fake = Fake::start(|request, _| match request.headers.get("authorization").map(String::as_str) {
        Some("Basic dTpw") => described(b"{}"),
        _ => Answer::status(401).header("www-authenticate", "Basic realm=x"),
    });
    let to = reference(&fake.host, "a:1");
    registry_with("", auths(&fake.host, r#"{"auth":"dTpw"}"#)).resolve(&to).await.unwrap();
    let error = registry("").resolve(&to).await.unwrap_err();
    assert_eq!(error.status().map(|status| status.as_u16()), Some(401));
}

#[tokio::test]
async fn passwords_do_not_go_to_plain_token_services() {
    let fake = guarded(|_| true);
    let config = format!("[registry.\"{}\"]\nhttp = false", fake.host);
    let config = Config::parse(&config, Path::new("/etc/kiln/kiln.toml")).unwrap();
    let host = Hosts::new(&config).host(&fake.host).unwrap();
    let (scopes, slot) = (Scopes::pull("a"), Slot::default());
    let challenge = format!("Bearer realm=\"http://{}/token\"", fake.host).parse().unwrap();
    let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge)]);
    let url = Url::parse("https://registry.example/v2/a/manifests/1").unwrap();
    for (credentials, expect) in [(auths(&fake.host, r#"{"auth":"dTpw"}"#), false), (Credentials::anonymous(), true)] {
        let tokens = Tokens::new(credentials.into(), RetryPolicy::default());
        let answer = tokens.answer(&host, &scopes, &slot, None, "a", (&headers, &url)).await;
        assert_eq!(answer.is_ok(), expect);
        assert!(expect || matches!(answer, Err(RegistryError::InsecureRealm { .. })));
    }
}

async fn read(fake: &Fake, blob: &[u8]) -> Result<Vec<u8>, RegistryError> {
    registry("").small_blob(&reference(&fake.host, "a:1"), &descriptor(blob)).await
}

const BLOB: &[u8] = b"0123456789abcdef";

fn offset(request: &Request) -> Option<usize> {
    request.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

#[tokio::test]
async fn broken_streams_are_resumed() {
    let fake = Fake::start(|request, _| match offset(request) {
        None => Answer::ok(BLOB).cut_at(5),
        Some(start) => {
            let range = format!("bytes {start}-{}/{}", BLOB.len() - 1, BLOB.len());
            Answer { status: 206, ..Answer::ok(&BLOB[start..]) }.header("content-range", range).cut_at(6)
        }
    });
    assert_eq!(read(&fake, BLOB).await.unwrap(), BLOB);
    let starts = fake.requests().iter().map(offset).collect::<Vec<_>>();
    assert_eq!(starts, [None, Some(5), Some(11)]);
}

#[tokio::test]
async fn servers_without_ranges_send_all_again() {
    let fake = Fake::start(|_, before| match before {
        0 => Answer::ok(BLOB).cut_at(5),
        _ => Answer::ok(BLOB),
    });
    assert_eq!(read(&fake, BLOB).await.unwrap(), BLOB);
    let hopeless = Fake::start(|_, _| Answer::ok(BLOB).cut_at(0));
    read(&hopeless, BLOB).await.unwrap_err();
}

#[tokio::test]
async fn wrong_bytes_are_refused() {
    let flipped = Fake::start(|_, _| Answer::ok("0123456789abcdeX"));
    let error = read(&flipped, BLOB).await.unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error:?}");
    assert_eq!(flipped.lines().len(), 1);
    let longer = Fake::start(|_, _| Answer::ok("0123456789abcdefg"));
    let error = read(&longer, BLOB).await.unwrap_err();
    assert!(matches!(error, RegistryError::Size { .. }), "{error:?}");
    let digest = Digest::of(b"{}");
    let other = Fake::start(|_, _| Answer::ok("{ }"));
    let error = registry("").manifest(&reference(&other.host, "a:1"), &digest).await.unwrap_err();
    assert!(matches!(error, RegistryError::Digest { .. }), "{error:?}");
}

#[tokio::test]
async fn manifests_may_be_among_the_blobs() {
    let fake = Fake::start(|request, _| match request.path.contains("/blobs/") {
        true => Answer::ok("{}"),
        false => Answer::status(404),
    });
    let document = registry("").manifest(&reference(&fake.host, "a:1"), &Digest::of(b"{}")).await.unwrap();
    assert_eq!(document.bytes, b"{}");
}

#[tokio::test]
async fn mirrors_are_asked_first_and_for_whom() {
    let empty = Fake::start(|_, _| Answer::status(404));
    let full = Fake::start(|_, _| described(BLOB));
    let origin = Fake::start(|_, _| described(BLOB));
    let config = format!(
        "[registry.\"{}\"]\nmirrors = [\"{}\", \"{}/hub\", \"{}\"]",
        origin.host, empty.host, full.host, empty.host
    );
    let (registry, to) = (registry(&config), reference(&origin.host, "a:1"));
    registry.resolve(&to).await.unwrap();
    registry.small_blob(&to, &descriptor(BLOB)).await.unwrap();
    let ns = origin.host.replace(':', "%3A");
    let blob = Digest::of(BLOB);
    assert_eq!(empty.lines(), [format!("HEAD /v2/a/manifests/1?ns={ns}"), format!("GET /v2/a/blobs/{blob}?ns={ns}")]);
    assert_eq!(
        full.lines(),
        [format!("HEAD /v2/hub/a/manifests/1?ns={ns}"), format!("GET /v2/hub/a/blobs/{blob}?ns={ns}")]
    );
    assert_eq!(origin.lines(), [""; 0]);
}

#[tokio::test]
async fn what_a_mirror_says_counts_where_the_registry_gives_no_answer() {
    let empty = Fake::start(|_, _| Answer::status(404));
    let origin = Fake::start(|_, _| Answer::status(500));
    let resolve = async |host: &str, mirror: &str| {
        let registry = registry(&format!("[registry.\"{host}\"]\nmirrors = [\"{mirror}\"]"));
        registry.resolve(&reference(host, "a:1")).await.unwrap_err()
    };
    let nobody = "127.0.0.1:1";
    let error = resolve(nobody, &empty.host).await;
    assert_eq!(error.status().map(|status| status.as_u16()), Some(404), "{error}");
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(source.as_deref(), Some("cannot connect to http://127.0.0.1:1/v2/a/manifests/1"));
    assert_eq!(resolve(&origin.host, &empty.host).await.status().map(|status| status.as_u16()), Some(500));
    assert!(matches!(resolve(nobody, nobody).await, RegistryError::Connect { .. }));
}

/// Blobs in a folder, and the manifest that names them.
fn image(dir: &std::path::Path, contents: &[&str], origins: &[String]) -> PushImage {
    let mut blobs = vec![];
    for content in contents {
        let descriptor = descriptor(content.as_bytes());
        std::fs::write(dir.join(descriptor.digest.hex()), content).unwrap();
        blobs.push(PushBlob { descriptor, origins: origins.to_vec() });
    }
    let named = |blob: &PushBlob, media_type: &str| {
        let (digest, size) = (&blob.descriptor.digest, blob.descriptor.size);
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let layers = blobs[1..].iter().map(|blob| named(blob, "application/vnd.oci.image.layer.v1.tar"));
    let bytes = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": named(&blobs[0], "application/vnd.oci.image.config.v1+json"),
        "layers": layers.collect::<Vec<_>>(),
    });
    let manifest = PushManifest { media_type: MANIFEST.into(), bytes: bytes.to_string().into_bytes() };
    PushImage { blobs, manifests: vec![manifest] }
}

async fn push_from(dir: &std::path::Path, to: &Reference, image: &PushImage) -> Result<Digest, String> {
    let dir = dir.to_owned();
    let open = move |blob: PushBlob| -> super::push::Opened<'static, std::io::Error> {
        let path: PathBuf = dir.join(blob.descriptor.digest.hex());
        Box::pin(async move { Ok(path) })
    };
    let vertex = Progress::new(std::sync::mpsc::channel().0).task("push");
    let open: &Open<'_, std::io::Error> = &open;
    push(&registry(""), to, image, open, &vertex).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn push_to_a_real_registry_and_back() {
    let Some(real) = Real::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let large = "layer ".repeat(100_000);
    let image_one = image(dir.path(), &["{}", &large, "small"], &[]);
    let to = reference(&real.host, "org/one:1");
    let digest = push_from(dir.path(), &to, &image_one).await.unwrap();
    let client = registry("");
    assert_eq!(client.resolve(&to).await.unwrap().descriptor.digest, digest);
    assert_eq!(client.manifest(&to, &digest).await.unwrap().bytes, image_one.manifests[0].bytes);
    let blob = client.small_blob(&to, &descriptor(large.as_bytes())).await.unwrap();
    assert_eq!(blob, large.as_bytes());
    // The same again finds all of it there; without its files it can be pushed elsewhere by mounts alone.
    push_from(dir.path(), &to, &image_one).await.unwrap();
    let origins = [to.with_digest(digest.as_str()).to_string()];
    let image_two = image(dir.path(), &["{}", &large, "small"], &origins);
    let empty = tempfile::tempdir().unwrap();
    let elsewhere = reference(&real.host, "org/two:1");
    assert_eq!(push_from(empty.path(), &elsewhere, &image_two).await.unwrap(), digest);
    assert!(push_from(empty.path(), &reference(&real.host, "three:1"), &image_one).await.is_err());
    // By digest, without a tag.
    let untagged = Reference { tag: None, digest: None, ..elsewhere };
    assert_eq!(push_from(dir.path(), &untagged, &image_two).await.unwrap(), digest);
}

#[tokio::test]
async fn a_mount_that_is_not_done_is_an_upload() {
    let fake = Fake::start(|request, _| match request.method.as_str() {
        "HEAD" => Answer::status(404),
        "POST" => Answer::status(202).header("location", "/upload/7?state=x"),
        _ => Answer::status(201),
    });
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), &["{}"], &[reference(&fake.host, "org/base:1").to_string()]);
    push_from(dir.path(), &reference(&fake.host, "org/x:1"), &image).await.unwrap();
    let (blob, manifest) = (Digest::of(b"{}"), Digest::of(&image.manifests[0].bytes));
    assert_eq!(
        fake.lines(),
        [
            format!("HEAD /v2/org/x/manifests/{manifest}"),
            format!("HEAD /v2/org/x/blobs/{blob}"),
            format!("POST /v2/org/x/blobs/uploads/?mount={blob}&from=org/base"),
            format!("PUT /upload/7?state=x&digest={}", blob.as_str().replace(':', "%3A")),
            "HEAD /v2/org/x/manifests/1".to_string(),
            "PUT /v2/org/x/manifests/1".to_string(),
        ]
    );
    let upload = &fake.requests()[3];
    assert_eq!((upload.body.as_str(), upload.headers["content-length"].as_str()), ("{}", "2"));
}

#[tokio::test]
async fn failed_uploads_start_again_with_the_question() {
    let fake = Fake::start(|request, before| match request.method.as_str() {
        "HEAD" => Answer::status(404),
        "POST" => Answer::status(202).header("location", "upload"),
        "PUT" if before < 4 => Answer::status(500),
        _ => Answer::status(201),
    });
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), &["{}"], &[]);
    push_from(dir.path(), &reference(&fake.host, "x:1"), &image).await.unwrap();
    let methods = fake.requests().iter().map(|request| request.method.clone()).collect::<Vec<_>>();
    assert_eq!(methods, ["HEAD", "HEAD", "POST", "PUT", "HEAD", "POST", "PUT", "HEAD", "PUT"]);
}

/// A registry that keeps one upload, and lets `judge` refuse its requests; `judge` sees the bytes that it has.
fn uploads(
    least: Option<u64>,
    judge: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static,
) -> (Fake, std::sync::Arc<std::sync::Mutex<Vec<u8>>>) {
    let kept = std::sync::Arc::new(std::sync::Mutex::new(vec![]));
    let bytes = kept.clone();
    let fake = Fake::start(move |request, _| {
        let mut bytes = bytes.lock().unwrap();
        let at = |answer: Answer, end: usize| {
            answer.header("location", "/upload").header("range", format!("0-{}", end.saturating_sub(1)))
        };
        if let Some(answer) = judge(request, bytes.len()) {
            return answer;
        }
        match request.method.as_str() {
            "HEAD" => Answer::status(404),
            "POST" => {
                let least = least.map(|least| ("oci-chunk-min-length".to_string(), least.to_string()));
                let mut answer = at(Answer::status(202), 0);
                answer.headers.extend(least);
                answer
            }
            "GET" => at(Answer::status(204), bytes.len()),
            "PATCH" => {
                bytes.extend_from_slice(request.body.as_bytes());
                at(Answer::status(202), bytes.len())
            }
            _ if request.path.contains("/manifests/") => Answer::status(201),
            _ => {
                bytes.extend_from_slice(request.body.as_bytes());
                Answer::status(201)
            }
        }
    });
    (fake, kept)
}

async fn uploaded(fake: &Fake, content: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), &[content], &[]);
    push_from(dir.path(), &reference(&fake.host, "x:1"), &image).await.unwrap();
    let shown = |request: &Request| {
        let range = request.headers.get("content-range").map(|range| format!(" {range}")).unwrap_or_default();
        format!("{} {}{range}", request.method, request.path.split('?').next().unwrap_or_default())
    };
    fake.requests().iter().map(shown).filter(|line| line.contains("/upload")).collect()
}

#[tokio::test]
async fn what_is_too_large_for_one_request_goes_in_pieces() {
    let content = "0123456789abcdef".repeat(100_000);
    let refuse = |request: &Request, _: usize| (request.body.len() > 1_000_000).then(|| Answer::status(413));
    let (fake, kept) = uploads(None, refuse);
    let lines = uploaded(&fake, &content).await;
    assert_eq!(
        lines,
        [
            "POST /v2/x/blobs/uploads/",
            "PUT /upload",
            "PATCH /upload 0-799999",
            "PATCH /upload 800000-1599999",
            "PUT /upload"
        ]
    );
    assert!(*kept.lock().unwrap() == content.as_bytes());
    // Not smaller than the registry takes.
    let refuse = |request: &Request, _: usize| {
        let is_whole = request.method == "PUT" && request.path.contains("/upload") && !request.body.is_empty();
        is_whole.then(|| Answer::status(413))
    };
    let (fake, _) = uploads(Some(1_500_000), refuse);
    assert_eq!(uploaded(&fake, &content).await[2..4], ["PATCH /upload 0-1499999", "PATCH /upload 1500000-1599999"]);
}

#[tokio::test]
async fn an_upload_that_does_not_grow_ends() {
    let (fake, _) = uploads(None, |request, _| match request.method.as_str() {
        "PUT" if !request.body.is_empty() => Some(Answer::status(413)),
        "PATCH" => Some(Answer::status(202).header("location", "/upload").header("range", "0-0")),
        _ => None,
    });
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), &["0123456789"], &[]);
    let error = push_from(dir.path(), &reference(&fake.host, "x:1"), &image).await.unwrap_err();
    assert!(error.ends_with("an upload that does not grow"), "{error}");
}

#[tokio::test]
async fn broken_uploads_go_on_where_the_registry_has_them() {
    let content = "0123456789abcdef".repeat(100_000);
    let first = std::sync::atomic::AtomicBool::new(true);
    let (broken, kept) = uploads(None, move |request, _| {
        // It has kept what came before the server failed, as the GET will say.
        let breaks = request.method == "PUT" && request.path.contains("/upload") && !request.body.is_empty();
        let breaks = breaks && first.swap(false, std::sync::atomic::Ordering::Relaxed);
        breaks.then(|| Answer::status(500))
    });
    kept.lock().unwrap().extend_from_slice(&content.as_bytes()[..1_200_000]);
    let lines = uploaded(&broken, &content).await;
    assert_eq!(lines[2..], ["GET /upload", "PATCH /upload 1200000-1599999", "PUT /upload"]);
    assert!(*kept.lock().unwrap() == content.as_bytes());
}

#[tokio::test]
async fn the_first_format_is_refused_with_advice() {
    let schema1 = || {
        let answer = Answer::ok(r#"{"schemaVersion":1,"fsLayers":[],"signatures":[]}"#);
        answer.header("content-type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
    };
    // Its digest is of what was signed, not of what is sent.
    let fake = Fake::start(move |_, _| schema1().header("docker-content-digest", Digest::of(b"payload")));
    let error = registry("").resolve(&reference(&fake.host, "a:1")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Schema1 { .. }), "{error:?}");
    assert!(error.help().unwrap().contains("push the image again"));
    let error = registry("").manifest(&reference(&fake.host, "a:1"), &Digest::of(b"payload")).await.unwrap_err();
    assert!(matches!(error, RegistryError::Schema1 { .. }), "{error:?}");
}
