//! SBOMs by a scanner image, by BuildKit's protocol (reference/engine.md 8.3): a step of the build's own graph, with the
//! result mounted, that leaves in-toto statements in `/run/out/`. As a step it is cached like any other.

use super::sbom;
use crate::progress::Vertex;
use crate::source::image::{ImageError, ImageSource};
use crate::step::StepOutput;
use cache::digest::Descriptor;
use cache::store::Store;
use cache::tree::Tree;
use frontend::compile::{BuildPlan, ImageInfo};
use frontend::op::{Exec, FileAction, FileOp, HOSTNAME, Mount, MountKind, Network, Op, Security, Source, Step};
use frontend::path;
use frontend::platform::Platform;
use frontend::reference::Reference;
use serde_json::Value;
use solver::graph::{Edge, VertexId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the scanner finds the result, and leaves what it found.
const SOURCE: &str = "/run/src/core/sbom";
const DESTINATION: &str = "/run/out/";
/// Where it finds what is to be scanned beside the result.
const EXTRAS: &str = "/run/src/extras/";
/// The main document; others come after it.
const MAIN_FILE: &str = "sbom.spdx.json";
const STATEMENT_MAX_BYTES: u64 = 40 << 20;

/// Why a scanner gave no SBOM.
#[derive(Debug, thiserror::Error)]
pub enum GeneratorError {
    #[error("cannot get the SBOM generator {reference}")]
    Image { reference: String, source: ImageError },
    #[error("the SBOM generator {0} has neither ENTRYPOINT nor CMD, so there is nothing to run")]
    NoCommand(String),
    #[error("the SBOM generator {0} has left nothing in {DESTINATION}")]
    Nothing(String),
    #[error("the SBOM generator has left {file}, which is larger than 40 MiB")]
    TooLarge { file: String },
    #[error("the SBOM generator has left {file}, which is no JSON object")]
    Json { file: String, source: serde_json::Error },
    #[error(
        "the SBOM generator has left {file}, which is no in-toto statement with the predicateType {}: it has {found}",
        sbom::PREDICATE_TYPE
    )]
    Predicate { file: String, found: Value },
    #[error("the SBOM generator has left {file}, whose predicate is no JSON object")]
    Document { file: String },
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

/// Adds the steps that run a scanner on each result; gives them in the order of the results. `info` is of the scanner,
/// for `host`.
pub fn add_steps(
    plan: &mut BuildPlan,
    reference: &Reference,
    parameters: &BTreeMap<String, String>,
    info: &ImageInfo,
    host: &Platform,
) -> Result<Vec<VertexId>, GeneratorError> {
    let args: Vec<String> = [&info.config.config.entrypoint, &info.config.config.cmd]
        .into_iter()
        .flat_map(|words| words.iter().flatten().cloned())
        .collect();
    if args.is_empty() {
        return Err(GeneratorError::NoCommand(reference.familiar()));
    }
    let image = Source::Image { reference: reference.clone(), digest: info.digest.clone(), platform: host.clone() };
    let name = format!("[internal] sbom generator {}", reference.with_digest(&info.top_digest));
    let image = plan.graph.add(vec![], step(Op::Source(Box::new(image)), name));
    let folder = FileAction::MkDir { path: DESTINATION.into(), mode: 0o755, owner: None, epoch: None };
    let folder = FileOp { base: Some(0), actions: vec![folder], platform: Arc::new(host.clone()) };
    let name = format!("[internal] sbom generator: make {DESTINATION}");
    let root = plan.graph.add(vec![edge(image)], step(Op::File(folder), name));
    let mut scans = vec![];
    for result in &plan.results {
        let mut inputs = vec![edge(root)];
        let mut bind = |target: String, tree: Option<Edge>| {
            let is_client =
                |edge: Edge| matches!(plan.graph.value(edge.vertex).op.source(), Some(Source::Local { .. }));
            let (from, from_client) = (tree.map(|_| inputs.len()), tree.is_some_and(is_client));
            inputs.extend(tree);
            Mount { target, kind: MountKind::Bind { from, source: "/".into(), readonly: true, from_client } }
        };
        let mut mounts = vec![bind(SOURCE.into(), result.root)];
        mounts.extend(result.scans.iter().map(|beside| bind(format!("{EXTRAS}sbom-{}", beside.name), beside.root)));
        let exec = exec(args.clone(), environment(info, parameters, mounts.len() > 1), info, host, mounts);
        let name = format!("[{}] generating sbom using {reference}", result.platform);
        scans.push(plan.graph.add(inputs, step(Op::Exec(Box::new(exec)), name)));
    }
    Ok(scans)
}

fn edge(vertex: VertexId) -> Edge {
    Edge { vertex, output: 0 }
}

fn step(op: Op, name: String) -> Step {
    Step { op, name, span: None, words: Arc::default(), ignore_cache: false }
}

fn environment(info: &ImageInfo, parameters: &BTreeMap<String, String>, has_extras: bool) -> Vec<Arc<str>> {
    let mut env = info.config.config.env.clone();
    env.push(format!("BUILDKIT_SCAN_DESTINATION={DESTINATION}"));
    env.push(format!("BUILDKIT_SCAN_SOURCE={SOURCE}"));
    if has_extras {
        env.push(format!("BUILDKIT_SCAN_SOURCE_EXTRAS={EXTRAS}"));
    }
    env.extend(parameters.iter().map(|(name, value)| format!("BUILDKIT_SCAN_{}={value}", name.to_uppercase())));
    env.into_iter().map(Arc::from).collect()
}

fn exec(args: Vec<String>, env: Vec<Arc<str>>, info: &ImageInfo, host: &Platform, mut mounts: Vec<Mount>) -> Exec {
    let config = &info.config.config;
    mounts.push(Mount { target: "/tmp".into(), kind: MountKind::Tmpfs { size_bytes: None } });
    Exec {
        root: Some(0),
        args,
        env: Arc::new(env),
        cwd: path::clean(&config.working_dir),
        user: config.user.clone(),
        platform: Arc::new(host.clone()),
        hostname: HOSTNAME.into(),
        network: Network::Default,
        security: Security::Sandbox,
        mounts,
        secret_env: vec![],
        ulimits: vec![],
        shm_size_bytes: None,
        cgroup_parent: None,
        extra_hosts: vec![],
        proxy_env: vec![],
        script: None,
    }
}

/// What a scanner has said.
#[derive(Clone, Debug)]
pub struct Given {
    /// Name of the file that it was in.
    pub file: String,
    /// As in the statement; none means the image.
    pub subjects: Vec<Value>,
    predicate: Value,
    /// Position of the layer of each file that the document names.
    layers: BTreeMap<String, usize>,
}

/// Reads what a scan has left about a result, the main document first.
pub async fn read(
    output: &StepOutput,
    result: &Tree,
    reference: &Reference,
    images: &ImageSource,
    store: &Store,
    vertex: &Vertex,
) -> Result<Vec<Given>, GeneratorError> {
    let nothing = || GeneratorError::Nothing(reference.familiar());
    let StepOutput::Tree(tree) = output else { return Err(nothing()) };
    let unpacked = images.ensure_unpacked(tree, vertex).await;
    let lowers = unpacked.map_err(|source| GeneratorError::Image { reference: reference.familiar(), source })?;
    let folder = lowers.last().ok_or_else(nothing)?.join(DESTINATION.trim_matches('/'));
    let mut given = statements(&folder)?;
    if given.is_empty() {
        return Err(nothing());
    }
    let folders = store.snapshots().lowers(result);
    given.iter_mut().for_each(|given| given.find_layers(&folders));
    Ok(given)
}

/// The regular files of a folder, each of which must be a statement.
fn statements(folder: &Path) -> Result<Vec<Given>, GeneratorError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| GeneratorError::Read { path, source }
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(failed(folder))?,
    };
    let mut given = vec![];
    for entry in entries {
        let entry = entry.map_err(failed(folder))?;
        if !entry.file_type().map_err(failed(folder))?.is_file() {
            continue;
        }
        let (path, file) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let mut bytes = vec![];
        let opened = File::open(&path).map_err(failed(&path))?;
        opened.take(STATEMENT_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed(&path))?;
        if bytes.len() as u64 > STATEMENT_MAX_BYTES {
            return Err(GeneratorError::TooLarge { file });
        }
        given.push(parse(file, &bytes)?);
    }
    given.sort_by(|a, b| (a.file != MAIN_FILE, &a.file).cmp(&(b.file != MAIN_FILE, &b.file)));
    Ok(given)
}

fn parse(file: String, bytes: &[u8]) -> Result<Given, GeneratorError> {
    let statement: serde_json::Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|source| GeneratorError::Json { file: file.clone(), source })?;
    let mut statement = Value::from(statement);
    if statement["predicateType"] != sbom::PREDICATE_TYPE {
        return Err(GeneratorError::Predicate { file, found: statement["predicateType"].take() });
    }
    let subjects = statement["subject"].as_array().cloned().unwrap_or_default();
    let predicate = statement["predicate"].take();
    if !predicate.is_object() {
        return Err(GeneratorError::Document { file });
    }
    Ok(Given { file, subjects, predicate, layers: BTreeMap::new() })
}

impl Given {
    fn find_layers(&mut self, folders: &[PathBuf]) {
        for file in self.predicate["files"].as_array().into_iter().flatten() {
            let Some(name) = file["fileName"].as_str() else { continue };
            let path = Path::new(name.trim_start_matches("./").trim_start_matches('/'));
            let is_within = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            if is_within && let Some(layer) = sbom::layer_of(folders, path) {
                self.layers.insert(name.to_string(), layer);
            }
        }
    }

    /// The document, with a word about who ran the scanner, and which layer each file and package is in. `layers` are the
    /// image's, lowest first; none if the result is no image.
    pub fn document(&self, layers: &[Descriptor]) -> Value {
        let mut document = self.predicate.clone();
        let creators = document.pointer_mut("/creationInfo/creators");
        if let Some(creators) = creators.and_then(Value::as_array_mut) {
            creators.push(sbom::TOOL.into());
        }
        let mut of_ids: BTreeMap<String, &str> = BTreeMap::new();
        for file in self.predicate["files"].as_array().into_iter().flatten() {
            let layer = file["fileName"].as_str().and_then(|name| layers.get(*self.layers.get(name)?));
            if let (Some(layer), Some(id)) = (layer, file["SPDXID"].as_str()) {
                of_ids.insert(id.to_string(), layer.digest.as_str());
            }
        }
        let mut of_packages: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for relation in self.predicate["relationships"].as_array().into_iter().flatten() {
            let end = |key: &str| relation[key].as_str().unwrap_or_default();
            if let Some(layer) = of_ids.get(end("relatedSpdxElement")) {
                of_packages.entry(end("spdxElementId").to_string()).or_default().insert(layer);
            }
        }
        for (list, of_elements) in [
            ("files", of_ids.into_iter().map(|(id, layer)| (id, BTreeSet::from([layer]))).collect()),
            ("packages", of_packages),
        ] {
            let elements = document.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
            for element in elements {
                let Some(layers) = element["SPDXID"].as_str().and_then(|id| of_elements.get(id)) else { continue };
                sbom::set_layers(element, layers);
            }
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_spdx_statements_are_taken() {
        let check = |bytes: &str, expect: &str| {
            let error = parse("a.json".into(), bytes.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("[]", "no JSON object");
        check("{} {}", "no JSON object");
        check("{}", "it has null");
        check(r#"{"spdxVersion": "SPDX-2.3"}"#, "no in-toto statement");
        check(r#"{"predicateType": "https://cyclonedx.org/bom"}"#, "cyclonedx");
        check(r#"{"predicateType": "https://spdx.dev/Document"}"#, "predicate is no JSON object");
        check(r#"{"predicateType": "https://spdx.dev/Document", "predicate": [1]}"#, "predicate is no JSON object");
    }

    #[test]
    fn documents_that_are_not_as_spdx_has_them_are_passed_on() {
        for predicate in [
            json!({ "creationInfo": "me", "files": 1, "packages": [2, "x"], "relationships": {} }),
            json!({ "creationInfo": { "creators": "me" }, "files": [{ "SPDXID": 1, "fileName": 2 }] }),
            json!({}),
        ] {
            let statement = json!({ "predicateType": sbom::PREDICATE_TYPE, "predicate": predicate });
            let given = parse("a.json".into(), statement.to_string().as_bytes()).unwrap();
            assert_eq!(given.document(&[]), predicate);
        }
    }

    #[test]
    fn files_and_packages_get_their_layer() {
        let document = json!({
            "predicateType": "https://spdx.dev/Document",
            "predicate": {
                "creationInfo": { "creators": ["Tool: x"] },
                "files": [{ "SPDXID": "SPDXRef-F", "fileName": "/d/f" }, { "SPDXID": "SPDXRef-O", "fileName": "../../out" }],
                "packages": [{ "SPDXID": "SPDXRef-P", "comment": "own" }],
                "relationships": [{ "spdxElementId": "SPDXRef-P", "relatedSpdxElement": "SPDXRef-F" }],
            },
        });
        let folder = tempfile::tempdir().unwrap();
        let folders = ["a", "b", "c"].map(|name| folder.path().join(name));
        std::fs::create_dir_all(folders[1].join("d")).unwrap();
        std::fs::write(folders[1].join("d/f"), "").unwrap();
        let mut given = parse("sbom.spdx.json".into(), document.to_string().as_bytes()).unwrap();
        given.find_layers(&folders);
        let digest = cache::digest::Digest::of(b"layer");
        let layers = vec![Descriptor { media_type: "m".into(), digest: digest.clone(), size: 1 }; 3];
        let document = given.document(&layers);
        assert_eq!(document["files"][0]["comment"], format!("layerID: {digest}"));
        assert_eq!(document["files"][1]["comment"], Value::Null);
        assert_eq!(document["packages"][0]["comment"], format!("own\nlayerID: {digest}"));
        assert_eq!(document["creationInfo"]["creators"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn the_main_document_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"predicateType": "https://spdx.dev/Document", "predicate": {}}"#;
        for name in ["a.json", MAIN_FILE, "sbom-build.spdx.json"] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        let files: Vec<_> = statements(folder.path()).unwrap().into_iter().map(|given| given.file).collect();
        assert_eq!(files, [MAIN_FILE, "a.json", "sbom-build.spdx.json"]);
        assert!(statements(&folder.path().join("none")).unwrap().is_empty());
    }
}
