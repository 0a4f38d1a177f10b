//! Provenance predicates, SLSA v1 and v0.2, with the members that BuildKit has (reference/engine.md 8.2). Only what kiln
//! knows is said; a member about which it knows nothing is left out.

use super::facts::{Facts, Material, StepFact};
use super::request::{Mode, ProvenanceRequest, SlsaVersion};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cache::digest::Descriptor;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The form of the parameters and of the steps is BuildKit's, so the type is.
const BUILD_TYPE_V1: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";
const FRONTEND: &str = "dockerfile.v0";

/// Provenance of one platform's result.
#[derive(Clone, Debug)]
pub struct Provenance {
    pub request: ProvenanceRequest,
    pub facts: Arc<Facts>,
}

impl Provenance {
    /// URL of the predicate's form.
    pub fn predicate_type(&self) -> &'static str {
        match self.request.version {
            SlsaVersion::V1 => "https://slsa.dev/provenance/v1",
            SlsaVersion::V02 => "https://slsa.dev/provenance/v0.2",
        }
    }

    /// The predicate. `layers` are the image's, lowest first; none if the result is no image.
    pub fn predicate(&self, layers: &[Descriptor]) -> Value {
        match self.request.version {
            SlsaVersion::V1 => self.v1(layers),
            SlsaVersion::V02 => self.v02(layers),
        }
    }

    fn v1(&self, layers: &[Descriptor]) -> Value {
        let facts = &self.facts;
        let mut config = digest_of("uri", facts.config.uri.as_deref(), &facts.config.digest);
        config.insert("path".into(), facts.config.path.clone().into());
        let mut internal = json!({
            "builderPlatform": facts.builder_platform,
            "kilnVersion": env!("CARGO_PKG_VERSION"),
        });
        if self.request.mode == Mode::Max {
            internal["buildConfig"] = self.build_config();
        }
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE_V1,
                "externalParameters": { "configSource": config, "request": self.parameters() },
                "internalParameters": internal,
                "resolvedDependencies": materials(&facts.materials),
            },
            "runDetails": {
                "builder": { "id": self.request.builder_id },
                "metadata": {
                    "invocationID": facts.invocation_id,
                    "startedOn": facts.started,
                    "finishedOn": facts.finished,
                    "buildkit_hermetic": self.is_hermetic(),
                    "buildkit_completeness": {
                        "request": self.are_parameters_complete(),
                        "resolvedDependencies": facts.is_complete,
                    },
                    "buildkit_reproducible": self.request.reproducible,
                    "buildkit_metadata": self.metadata(layers),
                },
            },
        })
    }

    fn v02(&self, layers: &[Descriptor]) -> Value {
        let facts = &self.facts;
        let mut config = digest_of("uri", facts.config.uri.as_deref(), &facts.config.digest);
        config.insert("entryPoint".into(), facts.config.path.clone().into());
        let mut predicate = json!({
            "builder": { "id": self.request.builder_id },
            "buildType": BUILD_TYPE_V02,
            "materials": materials(&facts.materials),
            "invocation": {
                "configSource": config,
                "parameters": self.parameters(),
                "environment": { "platform": facts.builder_platform },
            },
            "metadata": {
                "buildInvocationID": facts.invocation_id,
                "buildStartedOn": facts.started,
                "buildFinishedOn": facts.finished,
                "completeness": {
                    "parameters": self.are_parameters_complete(),
                    "environment": true,
                    "materials": facts.is_complete,
                },
                "reproducible": self.request.reproducible,
                "https://mobyproject.org/buildkit@v1#hermetic": self.is_hermetic(),
                "https://mobyproject.org/buildkit@v1#metadata": self.metadata(layers),
            },
        });
        if self.request.mode == Mode::Max {
            predicate["buildConfig"] = self.build_config();
        }
        predicate
    }

    /// No step could reach a network, and nothing came from the client.
    fn is_hermetic(&self) -> bool {
        !self.facts.has_network && self.facts.is_complete
    }

    fn are_parameters_complete(&self) -> bool {
        self.request.mode == Mode::Max || !self.facts.args.keys().any(|name| is_private(name))
    }

    /// What was asked for. Values of arguments and names of secrets only where all is said.
    fn parameters(&self) -> Value {
        let facts = &self.facts;
        let says = |name: &str| self.request.mode == Mode::Max || !is_private(name);
        let args: BTreeMap<_, _> = facts.args.iter().filter(|(name, _)| says(name)).collect();
        let mut parameters = json!({ "frontend": FRONTEND, "args": args });
        let named = |ids: &BTreeMap<String, bool>| -> Value {
            ids.iter()
                .map(
                    |(id, optional)| {
                        if *optional { json!({ "id": id, "optional": true }) } else { json!({ "id": id }) }
                    },
                )
                .collect()
        };
        if self.request.mode == Mode::Max && !facts.secrets.is_empty() {
            parameters["secrets"] = named(&facts.secrets);
        }
        if self.request.mode == Mode::Max && !facts.ssh.is_empty() {
            parameters["ssh"] = named(&facts.ssh);
        }
        if !facts.locals.is_empty() {
            parameters["locals"] = facts.locals.iter().map(|name| json!({ "name": name })).collect();
        }
        parameters["compatibilityVersion"] = facts.compatibility_version.into();
        parameters
    }

    /// The steps, and which vertex of the progress each is.
    fn build_config(&self) -> Value {
        let step = |step: &StepFact| {
            let mut said = json!({ "id": step.id, "op": step.op });
            if !step.inputs.is_empty() {
                said["inputs"] = step.inputs.clone().into();
            }
            said
        };
        let steps: Vec<Value> = self.facts.steps.iter().map(step).collect();
        let digests: BTreeMap<_, _> = self.facts.steps.iter().map(|step| (&step.digest, &step.id)).collect();
        json!({ "llbDefinition": steps, "digestMapping": digests })
    }

    /// What the client says of its repository, where each step stands in the Dockerfile, and which layers it gave.
    fn metadata(&self, layers: &[Descriptor]) -> Value {
        let facts = &self.facts;
        let mut metadata = json!({});
        if !facts.vcs.is_empty() {
            metadata["vcs"] = json!(facts.vcs);
        }
        if self.request.mode == Mode::Min {
            return metadata;
        }
        let mut locations = Map::new();
        for step in &facts.steps {
            if let Some((first, last)) = step.lines {
                let range = json!({ "start": { "line": first }, "end": { "line": last } });
                locations.insert(step.id.clone(), json!({ "locations": [{ "ranges": [range] }] }));
            }
        }
        let info = json!({
            "filename": facts.source.name,
            "language": "Dockerfile",
            "data": BASE64_STANDARD.encode(&facts.source.text),
        });
        metadata["source"] = json!({ "locations": locations, "infos": [info] });
        if !layers.is_empty() {
            let mut of_steps = Map::new();
            for step in &facts.steps {
                if let Some(chain) = step.layers.and_then(|count| layers.get(..count)) {
                    of_steps.insert(format!("{}:0", step.id), json!([chain]));
                }
            }
            metadata["layers"] = of_steps.into();
        }
        metadata
    }
}

/// Whether an argument's value may be nobody else's business.
fn is_private(name: &str) -> bool {
    name.starts_with("build-arg:") || name.starts_with("label:")
}

fn materials(materials: &[Material]) -> Value {
    materials.iter().map(|material| Value::from(digest_of("uri", Some(&material.uri), &material.digest))).collect()
}

/// A name and digests, each only if there is one.
fn digest_of(key: &str, name: Option<&str>, digest: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut said = Map::new();
    if let Some(name) = name {
        said.insert(key.into(), name.into());
    }
    if !digest.is_empty() {
        said.insert("digest".into(), json!(digest));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attest::facts::ConfigSource;
    use frontend::span::SourceText;

    fn provenance(mode: Mode, version: SlsaVersion) -> Provenance {
        let step = |id: &str, inputs: &[&str], lines, layers| StepFact {
            id: id.into(),
            op: json!({ "Op": {} }),
            inputs: inputs.iter().map(|input| input.to_string()).collect(),
            digest: format!("sha256:{id}"),
            lines,
            layers,
        };
        let facts = Facts {
            invocation_id: "id".into(),
            started: "2026-01-01T00:00:00Z".into(),
            finished: "2026-01-01T00:00:01Z".into(),
            builder_platform: "linux/amd64".into(),
            args: [("build-arg:A", "secret-ish"), ("target", "x")].map(|(k, v)| (k.into(), v.into())).into(),
            config: ConfigSource { path: "Dockerfile".into(), ..ConfigSource::default() },
            materials: vec![Material {
                uri: "pkg:docker/alpine@3".into(),
                digest: BTreeMap::from([("sha256".into(), "00".into())]),
            }],
            secrets: BTreeMap::from([("token".into(), false)]),
            ssh: BTreeMap::from([("default".into(), true)]),
            locals: ["context".to_string()].into(),
            compatibility_version: 30,
            vcs: [("revision".to_string(), "0123".to_string())].into(),
            steps: vec![step("step0", &[], Some((1, 1)), Some(1)), step("step1", &["step0:0"], Some((2, 3)), Some(2))],
            source: Arc::new(SourceText { name: "Dockerfile".into(), text: "FROM alpine:3\n".into() }),
            has_network: true,
            is_complete: false,
        };
        let request = ProvenanceRequest {
            mode,
            version,
            builder_id: "b".into(),
            filename: "provenance.json".into(),
            reproducible: false,
            inline_only: false,
        };
        Provenance { request, facts: Arc::new(facts) }
    }

    fn layers() -> Vec<Descriptor> {
        let layer = |name: &str| Descriptor {
            media_type: "m".into(),
            digest: cache::digest::Digest::of(name.as_bytes()),
            size: 1,
        };
        vec![layer("a"), layer("b")]
    }

    #[test]
    fn min_tells_nothing_private() {
        for version in [SlsaVersion::V1, SlsaVersion::V02] {
            let text = provenance(Mode::Min, version).predicate(&layers()).to_string();
            for private in ["secret-ish", "token", "build-arg:A", "llbDefinition", "infos", "step0", "ssh"] {
                assert!(!text.contains(private), "{private}: {text}");
            }
            assert!(text.contains(r#""vcs":{"revision":"0123"}"#), "{text}");
            assert!(text.contains("pkg:docker/alpine@3") && text.contains("\"target\":\"x\""), "{text}");
        }
    }

    #[test]
    fn max_tells_all() {
        let v1 = provenance(Mode::Max, SlsaVersion::V1).predicate(&layers());
        let request = &v1["buildDefinition"]["externalParameters"]["request"];
        assert_eq!(request["args"]["build-arg:A"], "secret-ish");
        assert_eq!(request["secrets"], json!([{ "id": "token" }]));
        assert_eq!(request["ssh"], json!([{ "id": "default", "optional": true }]));
        let metadata = &v1["runDetails"]["metadata"];
        assert_eq!(metadata["buildkit_completeness"], json!({ "request": true, "resolvedDependencies": false }));
        assert_eq!(metadata["buildkit_metadata"]["layers"]["step1:0"][0].as_array().unwrap().len(), 2);
        let locations = &metadata["buildkit_metadata"]["source"]["locations"];
        assert_eq!(locations["step1"]["locations"][0]["ranges"][0]["end"]["line"], 3);

        let v02 = provenance(Mode::Max, SlsaVersion::V02).predicate(&[]);
        assert_eq!(v02["buildConfig"]["llbDefinition"][1]["inputs"], json!(["step0:0"]));
        assert_eq!(v02["invocation"]["configSource"]["entryPoint"], "Dockerfile");
        assert_eq!(v02["materials"][0]["digest"]["sha256"], "00");
    }
}
