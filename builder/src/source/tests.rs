//! Images from registries and layouts into a store.

use super::image::{ImageError, ImageSource};
use super::oci_layout::Layout;
use crate::progress::{Progress, Vertex};
use crate::registry::Trust;
use crate::registry::push::PushImage;
use crate::registry::testing::{Answer, Fake, registry};
use cache::Store;
use cache::digest::Digest;
use cache::tree::Tree;
use flate2::Compression;
use flate2::write::GzEncoder;
use frontend::compile::{ImageLocation, ImageRequest};
use frontend::platform::Platform;
use frontend::reference::Reference;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::sync::{Arc, Mutex};

/// Blobs and documents by digest, and tags.
#[derive(Clone, Default)]
struct Content {
    bytes: HashMap<String, Vec<u8>>,
    tags: HashMap<String, String>,
}

impl Content {
    fn add(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::of(&bytes).to_string();
        let descriptor = json!({"mediaType": media_type, "digest": digest, "size": bytes.len()});
        self.bytes.insert(digest, bytes);
        descriptor
    }

    /// An image with a layer for each of `layers`, each with files of these names and contents.
    fn image(&mut self, architecture: &str, layers: &[&[(&str, &str)]]) -> Value {
        let mut descriptors = vec![];
        let mut diff_ids = vec![];
        for files in layers {
            let tar = tar(files);
            diff_ids.push(Digest::of(&tar).to_string());
            descriptors.push(self.add("application/vnd.oci.image.layer.v1.tar+gzip", gzip(&tar)));
        }
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = self.add("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": descriptors});
        self.add("application/vnd.oci.image.manifest.v1+json", manifest.to_string().into_bytes())
    }

    fn index(&mut self, images: &[(&str, Value)]) -> Value {
        let entries = images.iter().map(|(architecture, descriptor)| {
            let mut descriptor = descriptor.clone();
            descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
            descriptor
        });
        let index = json!({"schemaVersion": 2, "manifests": entries.collect::<Vec<_>>()});
        self.add("application/vnd.oci.image.index.v1+json", index.to_string().into_bytes())
    }

    fn tag(&mut self, tag: &str, descriptor: &Value) {
        self.tags.insert(tag.to_string(), text(&descriptor["digest"]));
    }

    fn answer(&self, path: &str) -> Answer {
        let name = path.rsplit('/').next().unwrap_or_default();
        let digest = self.tags.get(name).map_or(name, String::as_str);
        match self.bytes.get(digest) {
            Some(bytes) => Answer::ok(bytes.clone())
                .header("docker-content-digest", digest)
                .header("content-type", "application/vnd.oci.image.manifest.v1+json"),
            None => Answer::status(404),
        }
    }
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(vec![]);
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_string()
}

struct Setup {
    fake: Fake,
    content: Arc<Mutex<Content>>,
    store: Store,
    _dir: tempfile::TempDir,
}

impl Setup {
    fn new(content: Content) -> Setup {
        let content = Arc::new(Mutex::new(content));
        let served = content.clone();
        let fake = Fake::start(move |request, _| served.lock().unwrap().answer(&request.path));
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        Setup { fake, content, store, _dir: dir }
    }

    /// As another build would have it.
    fn source(&self) -> ImageSource {
        ImageSource::new(registry(""), self.store.clone(), BTreeMap::new())
    }

    fn location(&self, name: &str) -> ImageLocation {
        ImageLocation::Registry(Reference::parse(&format!("{}/{name}", self.fake.host)).unwrap())
    }

    /// How many requests were about this.
    fn count(&self, part: &str) -> usize {
        self.fake.lines().iter().filter(|line| line.contains(part)).count()
    }
}

fn request(source: ImageLocation, architecture: &str) -> ImageRequest {
    let platform = Platform::from_parts("linux", architecture, "", "");
    ImageRequest { source, platform, span: None, word: None, name: String::new() }
}

fn vertex() -> Vertex {
    Progress::new(std::sync::mpsc::channel().0).task("test")
}

fn two_layers() -> (Content, Value) {
    let mut content = Content::default();
    let manifest = content.image("amd64", &[&[("a/one", "1"), ("a/two", "2")], &[("a/two", "3")]]);
    content.tag("1", &manifest);
    (content, manifest)
}

/// The solver runs steps as tasks of a runtime with many threads.
#[test]
fn futures_can_be_spawned() {
    fn check<T: Send>(_: impl FnOnce() -> T) {}
    let (source, tree, vertex): (Option<ImageSource>, Tree, Vertex) = (None, Tree::default(), vertex());
    let Some(source) = source else { return };
    let request = request(ImageLocation::OciLayout(String::new()), "");
    check(|| source.info(&request));
    check(|| source.tree(&request.source, ""));
    check(|| source.ensure_unpacked(&tree, &vertex));
    check(|| source.ensure_blobs(&tree, &vertex));
    let (to, image) = (Reference::parse("a").unwrap(), PushImage::default());
    check(|| source.push(&to, Trust::AsConfigured, &image, &vertex));
}

#[tokio::test]
async fn an_index_is_resolved_once_for_all_platforms() {
    let mut content = Content::default();
    let (amd, arm) = (content.image("amd64", &[]), content.image("arm64", &[&[("x", "")]]));
    let index = content.index(&[("amd64", amd.clone()), ("arm64", arm.clone())]);
    content.tag("1", &index);
    let setup = Setup::new(content);
    let (source, at) = (setup.source(), setup.location("a:1"));
    for _ in 0..2 {
        let (one, two) = (request(at.clone(), "amd64"), request(at.clone(), "arm64"));
        let (one, two) = tokio::join!(source.info(&one), source.info(&two));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!((one.digest, two.digest), (text(&amd["digest"]), text(&arm["digest"])));
        assert_eq!((one.top_digest, two.config.architecture.as_str()), (text(&index["digest"]), "arm64"));
    }
    assert_eq!(setup.count("HEAD"), 1);
    let error = source.info(&request(at, "s390x")).await.unwrap_err();
    assert!(crate::progress::chain(&error).contains("no match for platform in manifest: not found"), "{error}");
}

#[tokio::test]
async fn layers_are_fetched_when_they_are_needed_and_once() {
    let (content, manifest) = two_layers();
    let setup = Setup::new(content);
    let (source, at) = (setup.source(), setup.location("a:1"));
    let info = source.info(&request(at.clone(), "amd64")).await.unwrap();
    assert_eq!(info.digest, text(&manifest["digest"]));
    let tree = source.tree(&at, &info.digest).await.unwrap();
    assert_eq!(tree.layers().len(), 2);
    assert_eq!(tree.layers()[1].snapshot.0, tree.content().to_string());
    assert_eq!(setup.count("/blobs/"), 1, "the config");
    let (other, vertex) = (setup.source(), vertex());
    let (one, two) = tokio::join!(source.ensure_unpacked(&tree, &vertex), other.ensure_unpacked(&tree, &vertex));
    let lowers = one.unwrap();
    assert_eq!(two.unwrap(), lowers);
    let read = |layer: usize, name: &str| std::fs::read_to_string(lowers[layer].join(name)).unwrap();
    assert_eq!((read(0, "a/one"), read(0, "a/two"), read(1, "a/two")), ("1".into(), "2".into(), "3".into()));
    assert_eq!(setup.count("/blobs/"), 3);
    source.ensure_blobs(&tree, &vertex).await.unwrap();
    assert_eq!(setup.count("/blobs/"), 3);
}

#[tokio::test]
async fn pinned_images_need_no_network_again() {
    let (content, manifest) = two_layers();
    let setup = Setup::new(content);
    let name = format!("a@{}", text(&manifest["digest"]));
    let at = setup.location(&name);
    setup.source().info(&request(at.clone(), "amd64")).await.unwrap();
    let asked = setup.fake.lines().len();
    setup.content.lock().unwrap().bytes.clear();
    let info = setup.source().info(&request(at.clone(), "amd64")).await.unwrap();
    setup.source().tree(&at, &info.digest).await.unwrap();
    assert_eq!(setup.fake.lines().len(), asked);
}

#[tokio::test]
async fn damaged_layers_leave_nothing_behind() {
    let (content, _) = two_layers();
    let setup = Setup::new(content);
    let (source, at) = (setup.source(), setup.location("a:1"));
    let info = source.info(&request(at.clone(), "amd64")).await.unwrap();
    let tree = source.tree(&at, &info.digest).await.unwrap();
    let digest = tree.layers()[1].remote.as_ref().unwrap().descriptor.digest.clone();
    let flip = |bytes: &mut Vec<u8>| bytes[20] ^= 0x40;
    flip(setup.content.lock().unwrap().bytes.get_mut(digest.as_str()).unwrap());
    let error = source.ensure_unpacked(&tree, &vertex()).await.unwrap_err();
    assert!(matches!(error, ImageError::Pull { .. }), "{error:?}");
    assert!(!setup.store.snapshots().exists(&tree.layers()[1].snapshot));
    assert_eq!(setup.store.content().has(&digest).unwrap(), None);
    flip(setup.content.lock().unwrap().bytes.get_mut(digest.as_str()).unwrap());
    source.ensure_unpacked(&tree, &vertex()).await.unwrap();
}

#[tokio::test]
async fn blobs_damaged_in_the_store_are_fetched_again() {
    let (content, _) = two_layers();
    let setup = Setup::new(content);
    let (source, at) = (setup.source(), setup.location("a:1"));
    let info = source.info(&request(at.clone(), "amd64")).await.unwrap();
    let tree = source.tree(&at, &info.digest).await.unwrap();
    source.ensure_blobs(&tree, &vertex()).await.unwrap();
    let path = setup.store.content().path(&tree.layers()[0].remote.as_ref().unwrap().descriptor.digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, gzip(&tar(&[("evil", "")]))).unwrap();
    let lowers = source.ensure_unpacked(&tree, &vertex()).await.unwrap();
    assert!(lowers[0].join("a/one").exists() && !lowers[0].join("evil").exists());
}

#[tokio::test]
async fn configs_that_lie_about_layers_are_refused() {
    let (mut content, _) = two_layers();
    let layer = content.add("application/vnd.oci.image.layer.v1.tar", tar(&[("x", "y")]));
    let mut build = |tag: &str, diff_ids: Value| {
        let config =
            json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = content.add("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer.clone()]});
        let manifest = content.add("application/vnd.oci.image.manifest.v1+json", manifest.to_string().into_bytes());
        content.tag(tag, &manifest);
    };
    build("few", json!(null));
    build("other", json!([Digest::of(b"other")]));
    let setup = Setup::new(content);
    let source = setup.source();
    let error = source.info(&request(setup.location("a:few"), "amd64")).await.unwrap_err();
    assert!(crate::progress::chain(&error).contains("has 1 layers, but its config has 0 diff_ids"), "{error}");
    let at = setup.location("a:other");
    let info = source.info(&request(at.clone(), "amd64")).await.unwrap();
    let tree = source.tree(&at, &info.digest).await.unwrap();
    let error = source.ensure_unpacked(&tree, &vertex()).await.unwrap_err();
    assert!(matches!(error, ImageError::DiffId { .. }), "{error:?}");
}

#[tokio::test]
async fn missing_images_are_said_to_be_missing() {
    let setup = Setup::new(Content::default());
    let error = setup.source().info(&request(setup.location("a:1"), "amd64")).await.unwrap_err();
    assert!(error.to_string().ends_with("/a:1: not found"), "{error}");
}

#[tokio::test]
async fn layouts_are_images_too() {
    let (content, manifest) = two_layers();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
    for (digest, bytes) in &content.bytes {
        let hex = digest.strip_prefix("sha256:").unwrap();
        std::fs::write(dir.path().join("blobs/sha256").join(hex), bytes).unwrap();
    }
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(dir.path().join("index.json"), index.to_string()).unwrap();
    let setup = Setup::new(Content::default());
    let layout = Layout { path: dir.path().to_owned(), name: None };
    let source = ImageSource::new(registry(""), setup.store.clone(), [("base".to_string(), layout)].into());
    let at = ImageLocation::OciLayout("base".into());
    let info = source.info(&request(at.clone(), "amd64")).await.unwrap();
    assert_eq!(info.digest, text(&manifest["digest"]));
    let tree = source.tree(&at, &info.digest).await.unwrap();
    let lowers = source.ensure_unpacked(&tree, &vertex()).await.unwrap();
    assert_eq!(std::fs::read_to_string(lowers[1].join("a/two")).unwrap(), "3");
    source.ensure_blobs(&tree, &vertex()).await.unwrap();
    let unknown = ImageLocation::OciLayout("none".into());
    assert!(source.info(&request(unknown, "amd64")).await.is_err());
}

#[tokio::test]
async fn indexes_in_indexes_end_somewhere() {
    let nested = |levels: usize| {
        let mut content = Content::default();
        let mut top = content.image("amd64", &[&[("a", "A")]]);
        for _ in 0..levels {
            top = content.index(&[("amd64", top)]);
        }
        content.tag("1", &top);
        Setup::new(content)
    };
    let setup = nested(7);
    setup.source().info(&request(setup.location("a:1"), "amd64")).await.unwrap();
    let setup = nested(8);
    let error = setup.source().info(&request(setup.location("a:1"), "amd64")).await.unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(source.contains("is not an image"), "{error}: {source}");
}
