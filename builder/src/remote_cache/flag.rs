//! What `--cache-from` and `--cache-to` ask for, understood: every option is honoured or refused.

use super::azure::Azure;
use super::export::{Compress, Mode, OnError, Target};
use super::gha::{Gha, Unknown};
use super::gha_service::{Service, Version};
use super::import::{Mounts, Source};
use super::layout::Layout;
use super::objects::{Bucket, Objects};
use super::place::Place;
use super::registry::Repository;
use super::s3::S3;
use crate::cli::cache_flags::CacheSpec;
use crate::cli::{csv, filter};
use crate::export::ExportError;
use crate::export::attributes::Attributes;
use crate::image::layers::LayerOptions;
use crate::pipeline::World;
use crate::registry::RegistryError;
use crate::registry::hosts::is_loopback;
use crate::registry::retry::RetryPolicy;
use crate::source::http::client::new_client;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cache::layer::compression::Compression;
use frontend::reference::{Reference, ReferenceError};
use reqwest::Url;
use reqwest::header::HeaderValue;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// As for BuildKit.
const GHA_TIMEOUT: Duration = Duration::from_secs(600);
/// GitHub counts requests by the minute.
const GHA_POLICY: RetryPolicy = RetryPolicy {
    attempts: 6,
    connects: 6,
    base: Duration::from_millis(500),
    longest: Duration::from_secs(120),
    budget: Duration::from_secs(300),
};

/// A flag that cannot be honoured.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    #[error("unknown cache {direction}: \"{kind}\"; kiln knows {known}")]
    Unknown { direction: &'static str, kind: String, known: &'static str },
    #[error("invalid cache reference \"{text}\"")]
    Reference { text: String, source: ReferenceError },
    #[error("the cache {name} is exported to twice")]
    Twice { name: String },
    #[error(transparent)]
    Attribute(#[from] ExportError),
    #[error(transparent)]
    Client(RegistryError),
    #[error("cannot find the working directory")]
    Path(#[source] std::io::Error),
}

/// A `--cache-from`: several, if it names several.
pub(super) fn sources(spec: &CacheSpec, world: &World) -> Result<Vec<Source>, FlagError> {
    let mut attributes = Attributes::new(format!("--cache-from type={}", spec.kind), spec.attributes.clone());
    let places = match spec.kind.as_str() {
        "registry" => vec![registry(&mut attributes, world)?],
        "s3" => s3(&mut attributes)?,
        "azblob" => azblob(&mut attributes)?,
        "gha" => vec![gha(&mut attributes)?],
        "local" => {
            let path = attributes.take("src").ok_or_else(|| attributes.missing("src"))?;
            let tag = attributes.take("tag").unwrap_or_else(|| "latest".into());
            let tag = attributes.take("digest").unwrap_or(tag);
            vec![Place::Local(Layout { path: absolute(path)?, tag, reset: false })]
        }
        "inline" => {
            let problem = "an inline cache is read with --cache-from type=registry,ref=IMAGE";
            return Err(attributes.bad("type", "inline", problem).into());
        }
        _ => {
            let known = "registry, local, s3, azblob, gha";
            return Err(FlagError::Unknown { direction: "importer", kind: spec.kind.clone(), known });
        }
    };
    let mounts = match attributes.boolean("mounts")? {
        Some(false) => Mounts::Stay,
        _ => Mounts::Travel,
    };
    attributes.finish()?;
    Ok(places.into_iter().map(|place| Source { place, mounts }).collect())
}

/// A `--cache-to`: several, if it names several.
pub(super) fn targets(spec: &CacheSpec, image: Option<LayerOptions>, world: &World) -> Result<Vec<Target>, FlagError> {
    let mut attributes = Attributes::new(format!("--cache-to type={}", spec.kind), spec.attributes.clone());
    let places = match spec.kind.as_str() {
        "inline" => {
            attributes.finish()?;
            return Ok(vec![Target {
                place: None,
                mode: Mode::Min,
                compression: Compression::Gzip { level: None },
                compress: Compress::New,
                on_error: OnError::Warn,
                mounts: Mounts::Stay,
            }]);
        }
        "registry" => vec![registry(&mut attributes, world)?],
        "s3" => s3(&mut attributes)?,
        "azblob" => azblob(&mut attributes)?,
        "gha" => vec![gha(&mut attributes)?],
        "local" => {
            let path = attributes.take("dest").ok_or_else(|| attributes.missing("dest"))?;
            let tag = attributes.take("tag").unwrap_or_else(|| "latest".into());
            let reset = attributes.boolean("reset")?.unwrap_or(false);
            vec![Place::Local(Layout { path: absolute(path)?, tag, reset })]
        }
        _ => {
            let known = "registry, inline, local, s3, azblob, gha";
            return Err(FlagError::Unknown { direction: "exporter", kind: spec.kind.clone(), known });
        }
    };
    let mode = match attributes.take("mode").as_deref() {
        None | Some("min") => Mode::Min,
        Some("max") => Mode::Max,
        Some(other) => return Err(attributes.bad("mode", other, "it must be min or max").into()),
    };
    for key in ["image-manifest", "oci-mediatypes"] {
        if attributes.boolean(key)? == Some(false) {
            let problem = "kiln's cache is an OCI image manifest; leave it out";
            return Err(attributes.bad(key, "false", problem).into());
        }
    }
    let compression = attributes.compression_if_given()?;
    let compression = compression.or(image.filter(|image| image.clamp.is_none()).map(|image| image.compression));
    let target = Target {
        place: None,
        mode,
        compression: compression.unwrap_or(Compression::Gzip { level: None }),
        compress: match attributes.boolean("force-compression")? {
            Some(true) => Compress::All,
            _ => Compress::New,
        },
        on_error: match attributes.boolean("ignore-error")? {
            Some(false) => OnError::Fail,
            _ => OnError::Warn,
        },
        mounts: match attributes.boolean("mounts")? {
            Some(true) => Mounts::Travel,
            _ => Mounts::Stay,
        },
    };
    attributes.finish()?;
    Ok(places.into_iter().map(|place| Target { place: Some(place), ..target.clone() }).collect())
}

fn s3(attributes: &mut Attributes) -> Result<Vec<Place>, FlagError> {
    let mut given = |key: &'static str, variables: &[&str]| match attributes.take(key).filter(|text| !text.is_empty()) {
        Some(value) => Some(value),
        None => variables.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty())),
    };
    let bucket = given("bucket", &["AWS_BUCKET"]);
    let region = given("region", &["AWS_REGION", "AWS_DEFAULT_REGION"]);
    let id = given("access_key_id", &["AWS_ACCESS_KEY_ID"]);
    let secret = given("secret_access_key", &["AWS_SECRET_ACCESS_KEY"]);
    let session_token = given("session_token", &["AWS_SESSION_TOKEN"]);
    let endpoint = given("endpoint_url", &[]).map(|url| url.trim_end_matches('/').to_string());
    let attempts = number(attributes, "retry_max_attempts", 3)?;
    if let Some(mode) = attributes.take("retry_mode").filter(|mode| mode != "standard") {
        return Err(attributes.bad("retry_mode", &mode, "kiln knows standard").into());
    }
    if attributes.boolean("disable_accept_encoding")? == Some(false) {
        let problem = "kiln never asks for another encoding; leave it out";
        return Err(attributes.bad("disable_accept_encoding", "false", problem).into());
    }
    if let Some(value) = attributes.take("touch_refresh") {
        let problem = "kiln does not touch what it does not use; a blob that the bucket has let go is made again";
        return Err(attributes.bad("touch_refresh", &value, problem).into());
    }
    let s3 = S3 {
        bucket: bucket.ok_or_else(|| attributes.missing("bucket"))?,
        region: region.ok_or_else(|| attributes.missing("region"))?,
        endpoint,
        path_style: attributes.boolean("use_path_style")?.unwrap_or(false),
        access_key_id: id.ok_or_else(|| attributes.missing("access_key_id"))?,
        secret_access_key: secret.ok_or_else(|| attributes.missing("secret_access_key"))?,
        session_token,
    };
    objects(attributes, Bucket::S3(Arc::new(s3)), attempts)
}

fn azblob(attributes: &mut Attributes) -> Result<Vec<Place>, FlagError> {
    let name = attributes.take("account_name");
    let url = match (attributes.take("account_url"), &name) {
        (Some(url), _) => url.trim_end_matches('/').to_string(),
        (None, Some(name)) => format!("https://{name}.blob.core.windows.net"),
        (None, None) => return Err(attributes.missing("account_url").into()),
    };
    let secret = attributes.take("secret_access_key").ok_or_else(|| attributes.missing("secret_access_key"))?;
    let key = BASE64_STANDARD
        .decode(&secret)
        .map_err(|_| attributes.bad("secret_access_key", "***", "it must be an account's key, in base64"))?;
    // `https://ACCOUNT.blob…`, or of an emulator `http://HOST:PORT/ACCOUNT`.
    let account = name.or_else(|| {
        let (_, rest) = url.split_once("://")?;
        match rest.split_once('/') {
            Some((_, account)) => Some(account.to_string()),
            None => rest.split('.').next().map(str::to_string),
        }
    });
    let azure = Azure {
        account: account.ok_or_else(|| attributes.missing("account_name"))?,
        account_url: url,
        container: attributes.take("container").unwrap_or_else(|| "buildkit-cache".into()),
        key,
    };
    objects(attributes, Bucket::Azure(Arc::new(azure)), 3)
}

fn gha(attributes: &mut Attributes) -> Result<Place, FlagError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    for key in ["repository", "ghtoken"] {
        if attributes.take(key).is_some() {
            let problem = "kiln asks the cache service itself what is there, and not GitHub's API; leave it out";
            return Err(attributes.bad(key, "***", problem).into());
        }
    }
    let mut given = |key: &str| attributes.take(key).filter(|text| !text.is_empty());
    let scope = given("scope").unwrap_or_else(|| "buildkit".into());
    let (url_v1, url_v2, token) = (given("url"), given("url_v2"), given("token"));
    let (said, timeout) = (given("version"), given("timeout"));
    let is_v2 = variable("ACTIONS_CACHE_SERVICE_V2").is_some_and(|text| csv::boolean(&text) == Some(true));
    let version = match said.as_deref() {
        Some("1") => Version::V1,
        Some("2") => Version::V2,
        Some(other) => return Err(attributes.bad("version", other, "it must be 1 or 2").into()),
        None if is_v2 => Version::V2,
        None if url_v2.is_some() && url_v1.is_none() => Version::V2,
        None if url_v1.is_some() || variable("ACTIONS_CACHE_URL").is_some() => Version::V1,
        None => Version::V2,
    };
    let timeout = match timeout.as_deref() {
        None => GHA_TIMEOUT,
        Some(text) => match filter::duration(text) {
            Some(timeout) if !timeout.is_zero() => timeout,
            _ => return Err(attributes.bad("timeout", text, "it must be a duration, such as 10m").into()),
        },
    };
    let (key, url, url_variable) = match version {
        Version::V1 => {
            let variables = || variable("ACTIONS_CACHE_URL").or_else(|| variable("ACTIONS_RESULTS_URL"));
            ("url", url_v1.or_else(variables), "ACTIONS_CACHE_URL")
        }
        Version::V2 => ("url_v2", url_v2.or_else(|| variable("ACTIONS_RESULTS_URL")), "ACTIONS_RESULTS_URL"),
    };
    let (base, token) = match (url, token.or_else(|| variable("ACTIONS_RUNTIME_TOKEN"))) {
        (Some(url), Some(token)) => (url, token),
        (url, token) => {
            let missing = [("ACTIONS_RUNTIME_TOKEN", token.is_none()), (url_variable, url.is_none())];
            let variables = missing.into_iter().filter(|(_, is_missing)| *is_missing).map(|(name, _)| name).collect();
            return Ok(Place::Gha(Gha::new(scope, Err(Unknown { variables }), timeout)));
        }
    };
    let url = Url::parse(&format!("{}/", base.trim_end_matches('/'))).ok();
    let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) else {
        return Err(attributes.bad(key, &base, "it must be a URL that begins with https:// or http://").into());
    };
    let mut authorization = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| attributes.bad("token", "***", "it has a character that no token has"))?;
    authorization.set_sensitive(true);
    let host = url.host_str().unwrap_or_default().to_string();
    let is_local = is_loopback(&host);
    // Contents may be given from elsewhere. The token does not go along to another host.
    let redirects = reqwest::redirect::Policy::limited(5);
    let client = new_client(&host, redirects, is_local).map_err(FlagError::Client)?;
    let service = Service::new(version, url, authorization, client, GHA_POLICY);
    Ok(Place::Gha(Gha::new(scope, Ok(service), timeout)))
}

/// One place for each name, with what all object stores have in common.
fn objects(attributes: &mut Attributes, bucket: Bucket, attempts: usize) -> Result<Vec<Place>, FlagError> {
    let mut prefix = |key: &str, default: &str| attributes.take(key).unwrap_or_else(|| default.to_string());
    let before = prefix("prefix", "");
    let (blobs, manifests) = (prefix("blobs_prefix", "blobs/"), prefix("manifests_prefix", "manifests/"));
    let names = prefix("name", "buildkit");
    let uploads = Arc::new(Semaphore::new(number(attributes, "upload_parallelism", 4)?.max(1)));
    let host = bucket.host();
    let is_local = is_loopback(&host);
    let client = new_client(&host, reqwest::redirect::Policy::none(), is_local).map_err(FlagError::Client)?;
    let policy = RetryPolicy { attempts: attempts.max(1) as u32, ..RetryPolicy::default() };
    let names = names.split(';').map(str::trim).filter(|name| !name.is_empty());
    // Beside what BuildKit may have under the name.
    let places = names.map(|name| Objects {
        bucket: bucket.clone(),
        blobs: format!("{before}{blobs}"),
        index: format!("{before}{manifests}{name}.kiln.v1"),
        client: client.clone(),
        policy,
        uploads: uploads.clone(),
    });
    Ok(places.map(Place::Objects).collect())
}

fn number(attributes: &mut Attributes, key: &'static str, default: usize) -> Result<usize, FlagError> {
    match attributes.take(key) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| attributes.bad(key, &text, "it must be a number").into()),
    }
}

fn registry(attributes: &mut Attributes, world: &World) -> Result<Place, FlagError> {
    let text = attributes.take("ref").ok_or_else(|| attributes.missing("ref"))?;
    let reference = Reference::parse(&text).map_err(|source| FlagError::Reference { text, source })?;
    if attributes.boolean("registry.insecure")? == Some(true) {
        let problem = "say it of the registry in kiln.toml: [registry.\"HOST\"] insecure = true";
        return Err(attributes.bad("registry.insecure", "true", problem).into());
    }
    Ok(Place::Registry(Repository::new(world.registry.clone(), reference)))
}

fn absolute(path: String) -> Result<PathBuf, FlagError> {
    std::path::absolute(path).map_err(FlagError::Path)
}
