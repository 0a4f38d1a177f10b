//! What holds for any input, as functions that panic where it does not: run by the fuzz targets (`tests/fuzz`), and by
//! `cargo test` on what those have found (`tests/corpus/fuzz`). Feature `testing`.

use crate::analyze::account::Account;
use crate::analyze::rules::Rules;
use crate::attest::request;
use crate::cli::output;
use crate::config::Config;
use crate::image::config::to_bytes;
use crate::image::select;
use crate::local::load;
use crate::registry::auth::parse_challenges;
use crate::report::{self, Look, Phase};
use crate::source::oci_layout::{self, Layout};
use crate::step::user::look_up;
use cache::digest::Digest;
use cache::store::Store;
use frontend::image_config::ImageConfig;
use frontend::span::SourceText;
use frontend::stand_in;
use std::path::Path;

/// Whatever is wrong with a Dockerfile, it can be told.
pub fn report(input: &[u8]) {
    let text = String::from_utf8_lossy(input).into_owned();
    let source = SourceText { name: "Dockerfile".to_string(), text };
    let Err(errors) = stand_in::build(source.clone(), &stand_in::request()) else { return };
    for look in [Look { colour: true, width: 20 }, Look { colour: false, width: 200 }] {
        let told = report::diagnostics(&source, &errors, Phase::Parse, look);
        assert!(told.contains("failed to solve: "), "{told}");
    }
}

/// A manifest or an index of a registry.
pub fn manifest(input: &[u8]) {
    let host = stand_in::request().build_platform;
    let told = String::from_utf8_lossy(input);
    select::media_type(input, &told);
    if let Ok(select::Document::Index(index)) = select::parse(input, &Digest::of(input)) {
        let _ = index.choose(&host);
    }
}

/// An image's config that is written again says the same.
pub fn image_config(input: &[u8]) {
    let Ok(config) = serde_json::from_slice::<ImageConfig>(input) else { return };
    let written = to_bytes(&config);
    assert_eq!(serde_json::from_slice::<ImageConfig>(&written).ok(), Some(config));
}

/// `index.json` of an OCI layout: the first line is the image's name, the rest the file.
///
/// # Panics
/// Also if no temporary folder can be made.
pub fn layout(input: &[u8]) {
    let (name, index) = input.split_at(input.iter().position(|byte| *byte == b'\n').unwrap_or(0));
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("index.json"), index).expect("a file in it");
    let name = Some(String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty());
    let _ = oci_layout::resolve(&Layout { path: folder.path().to_owned(), name });
}

/// A `WWW-Authenticate` header.
pub fn challenge(input: &[u8]) {
    parse_challenges(&String::from_utf8_lossy(input));
}

/// The configuration of a git repository.
pub fn git_settings(input: &[u8]) {
    crate::source::git::work_tree::read_settings(&String::from_utf8_lossy(input));
}

/// What a gRPC server sends, cut at every byte: it is read the same in pieces as whole.
pub fn grpc(input: &[u8]) {
    crate::containerd::read_every_way(input);
}

/// A `kiln.toml`.
pub fn config(input: &[u8]) {
    let _ = Config::parse(&String::from_utf8_lossy(input), Path::new("kiln.toml"));
}

/// A user, looked up in a file that is both passwd and group: the first line is the user, the rest the file.
pub fn user(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (user, file) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(found) = look_up(user, file, file) {
        assert!(found.uid <= i32::MAX as u32 && found.groups.first() == Some(&found.gid));
    }
}

/// The value of an `--output`.
pub fn output(input: &[u8]) {
    let _ = output::parse(&String::from_utf8_lossy(input));
}

/// A database or lock file of a package manager, whichever it is.
pub fn packages(input: &[u8]) {
    crate::attest::sbom::read_every_way(input);
}

/// The values of `--attest`, `--provenance` and `--sbom`.
pub fn attest(input: &[u8]) {
    let text = String::from_utf8_lossy(input).into_owned();
    for kind in ["provenance", "sbom"] {
        let _ = request::parse(&[format!("type={kind},{text}")], None, None);
    }
    let _ = request::parse(std::slice::from_ref(&text), Some(&text), Some(&text));
}

/// A rules file of `kiln analyze`; whatever it allows, an image of nothing keeps.
pub fn rules(input: &[u8]) {
    let Ok(rules) = Rules::parse(&String::from_utf8_lossy(input)) else { return };
    let verdicts = rules.judge(&Account::default().finish());
    assert!(verdicts.iter().all(|verdict| verdict.passes), "{verdicts:?}");
}

/// An archive of images: loaded or refused, and what is loaded is whole.
pub fn image_archive(input: &[u8]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(folder.path()).expect("an empty store");
    for image in load::load(&store, input, "", &|_| {}).unwrap_or_default() {
        assert_eq!(store.missing_parts(&image.record).expect("a sound store"), []);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replay(target: &str, property: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus").join(target);
        let inputs: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "the corpus of {target} is missing");
        inputs.iter().for_each(|input| property(&std::fs::read(input).unwrap()));
    }

    #[test]
    fn corpus() {
        replay("errors", report);
        replay("fuzz/dockerfile", report);
        replay("fuzz/manifest", manifest);
        replay("fuzz/image_config", image_config);
        replay("fuzz/layout", layout);
        replay("fuzz/challenge", challenge);
        replay("fuzz/git_settings", git_settings);
        replay("fuzz/grpc", grpc);
        replay("fuzz/config", config);
        replay("fuzz/user", user);
        replay("fuzz/output", output);
        replay("fuzz/packages", packages);
        replay("fuzz/attest", attest);
        replay("fuzz/rules", rules);
        replay("fuzz/image_archive", image_archive);
    }
}
