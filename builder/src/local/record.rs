//! A build's result as a record of the store, and back.

use crate::image::assemble::{Assembled, BuiltImage};
use crate::image::attestation::{self, AssembledAttestation};
use crate::image::config::{self, LayerFacts};
use crate::image::manifest::Entry;
use cache::images::{AttestationDocuments, Documents, ImageRecord, NamedImage, PlatformImage, Statement};
use cache::store::Store;
use cache::{FileError, StoreError};
use frontend::image_config::ImageConfig;
use frontend::platform::Platform;
use frontend::reference::{Reference, ReferenceError};

/// An image of the store that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("`{name}` is no name of an image")]
    Name { name: String, source: ReferenceError },
    #[error("kiln has no image `{0}`; `kiln image ls` lists those that it has")]
    NoImage(String),
    #[error("`{0}` is the beginning of several images' ids: write more of it, or a name")]
    Ambiguous(String),
    #[error("parts of image {name} are not in the store any more: {}", .missing.join(", "))]
    Incomplete { name: String, missing: Vec<String> },
    #[error("the record of image {name} cannot be read")]
    Record { name: String, source: serde_json::Error },
    #[error("image {name} has no {wanted}; it has {available}")]
    NoPlatform { name: String, wanted: String, available: String },
    #[error("image {name} has several platforms, which {what}")]
    SeveralPlatforms { name: String, what: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Export(#[from] crate::export::ExportError),
    #[error(transparent)]
    Image(#[from] crate::source::image::ImageError),
    #[error(transparent)]
    Layer(#[from] cache::layer::LayerError),
    #[error(transparent)]
    Daemon(#[from] crate::dockerd::DaemonError),
    #[error(transparent)]
    Load(#[from] super::load::LoadError),
}

impl From<FileError> for LocalError {
    fn from(error: FileError) -> LocalError {
        LocalError::Store(error.into())
    }
}

impl LocalError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            LocalError::Incomplete { .. } => Some("build, load or pull it again, or remove its name".into()),
            LocalError::Image(error) => error.help(),
            LocalError::Daemon(error) => error.help(),
            LocalError::SeveralPlatforms { .. } => Some("give --platform, or --type oci".into()),
            _ => None,
        }
    }
}

/// What a build made, to be named. `epoch` is its `SOURCE_DATE_EPOCH` in seconds since 1970; with documents, if there are.
pub fn of_build(
    images: &[BuiltImage],
    epoch: Option<i64>,
    documents: Option<(&Assembled, &Store)>,
) -> Result<ImageRecord, StoreError> {
    let mut platforms = vec![];
    for (number, image) in images.iter().enumerate() {
        let mut made = PlatformImage {
            platform: image.platform.to_string(),
            config: String::from_utf8_lossy(&config::to_bytes(&image.config)).into_owned(),
            base_history_len: image.base_history_len,
            epoch,
            layers: image.tree.layers().iter().map(|layer| (**layer).clone()).collect(),
            documents: None,
        };
        if let Some((assembled, store)) = documents {
            // Those that are beside the image, as referrers, are no part of what its name stands for.
            let is_in_index = assembled.index.is_some();
            let assembled = &assembled.images[number];
            let about = assembled.attestations.iter().filter(|_| is_in_index);
            let bytes = store.content().read_small(&assembled.config.digest)?;
            made.config = String::from_utf8_lossy(&bytes).into_owned();
            made.documents = Some(Documents {
                manifest: assembled.manifest.descriptor(),
                config: assembled.config.descriptor(),
                layers: assembled.layers.iter().map(|layer| layer.entry.descriptor()).collect(),
                attestations: about.map(attestation_documents).collect(),
            });
        }
        platforms.push(made);
    }
    let top = documents.map(|(assembled, _)| assembled.top().descriptor());
    Ok(ImageRecord { platforms, top, origin: "build".into() })
}

fn attestation_documents(about: &AssembledAttestation) -> AttestationDocuments {
    let statement = |entry: &Entry| Statement {
        predicate_type: entry.annotations.get(attestation::PREDICATE_TYPE).cloned().unwrap_or_default(),
        blob: entry.descriptor(),
    };
    AttestationDocuments {
        manifest: about.manifest.descriptor(),
        config: about.config.descriptor(),
        statements: about.statements.iter().map(statement).collect(),
    }
}

/// The config of an image for people and for `FROM`: with the history's times. diff_ids that are not known yet are empty.
pub fn config_of(name: &str, image: &PlatformImage) -> Result<ImageConfig, LocalError> {
    let mut config = parse_config(name, image)?;
    if image.documents.is_some() {
        return Ok(config);
    }
    let facts: Vec<LayerFacts> = image
        .layers
        .iter()
        .map(|layer| LayerFacts {
            diff_id: layer.remote.as_ref().map(|remote| remote.diff_id.to_string()).unwrap_or_default(),
            created_ms: layer.created_ms,
        })
        .collect();
    if let Some(epoch) = image.epoch {
        config::date(&mut config, image.base_history_len, epoch);
    }
    Ok(config::complete(config, &facts, image.base_history_len, image.epoch))
}

fn parse_config(name: &str, image: &PlatformImage) -> Result<ImageConfig, LocalError> {
    serde_json::from_str(&image.config).map_err(|source| LocalError::Record { name: name.into(), source })
}

/// The image as a build leaves it, to be made into documents.
pub fn as_built(name: &str, image: &PlatformImage) -> Result<BuiltImage, LocalError> {
    Ok(BuiltImage {
        platform: platform_of(image),
        tree: image.layers.iter().cloned().collect(),
        config: parse_config(name, image)?,
        base_history_len: image.base_history_len,
        attestations: vec![],
    })
}

/// The platform as it was written down.
pub fn platform_of(image: &PlatformImage) -> Platform {
    let host = crate::host_platform();
    Platform::parse(&image.platform, &host).unwrap_or(host)
}

/// The image that runs on a platform, best match first.
pub fn choose<'a>(record: &'a ImageRecord, wanted: &Platform) -> Option<&'a PlatformImage> {
    let of = |platform: &Platform| record.platforms.iter().find(|image| platform_of(image) == *platform);
    wanted.acceptable().iter().find_map(of)
}

/// As [`choose`]; without a platform the only image, else that for this machine.
pub fn chosen<'a>(
    name: &str,
    record: &'a ImageRecord,
    wanted: Option<&Platform>,
) -> Result<&'a PlatformImage, LocalError> {
    match (wanted, &record.platforms[..]) {
        (None, [only]) => Ok(only),
        (None, _) => chosen(name, record, Some(&crate::host_platform())),
        (Some(wanted), _) => choose(record, wanted).ok_or_else(|| no_platform(name, record, wanted)),
    }
}

/// An image is for other platforms than the one that was asked for.
pub fn no_platform(name: &str, record: &ImageRecord, wanted: &Platform) -> LocalError {
    LocalError::NoPlatform { name: name.into(), wanted: wanted.to_string(), available: platforms(record) }
}

/// The platforms of an image, for messages.
pub fn platforms(record: &ImageRecord) -> String {
    let platforms: Vec<&str> = record.platforms.iter().map(|image| image.platform.as_str()).collect();
    platforms.join(", ")
}

/// The name that the store knows an image by: a digest decides alone, so a tag beside it is none of the name.
pub fn stored_name(name: &Reference) -> String {
    match &name.digest {
        Some(_) => Reference { tag: None, ..name.clone() }.to_string(),
        None => name.to_string(),
    }
}

/// Whether an image may have this name: one with a digest is only for the index or manifest of that digest.
pub fn may_be_named(record: &ImageRecord, name: &Reference) -> bool {
    let top = record.top.as_ref().map(|top| top.digest.as_str());
    name.digest.is_none() || name.digest.as_deref() == top
}

/// Finds an image by name, or by the beginning of its id or of the digest of its index or manifest: 4 digits at least, after
/// `sha256:` or not.
pub fn find(store: &Store, name: &str) -> Result<NamedImage, LocalError> {
    if let Ok(reference) = Reference::parse(name)
        && let Some(image) = store.image_named(&stored_name(&reference))?
    {
        return Ok(image);
    }
    let beginning = name.strip_prefix("sha256:").unwrap_or(name);
    if beginning.len() >= 4 && beginning.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let is_meant = |image: &NamedImage| {
            let top = image.record.top.as_ref().map(|top| &top.digest);
            top.into_iter().chain([&image.id]).any(|digest| digest.hex().starts_with(beginning))
        };
        let mut found: Vec<NamedImage> = store.images()?.into_iter().filter(is_meant).collect();
        found.dedup_by(|one, other| one.id == other.id);
        match found.len() {
            0 => {}
            1 => return Ok(found.remove(0)),
            _ => return Err(LocalError::Ambiguous(name.into())),
        }
    }
    Reference::parse(name).map_err(|source| LocalError::Name { name: name.into(), source })?;
    Err(LocalError::NoImage(name.into()))
}

/// Finds an image of which all is there.
pub fn find_whole(store: &Store, name: &str) -> Result<NamedImage, LocalError> {
    let image = find(store, name)?;
    let missing = store.missing_parts(&image.record)?;
    if missing.is_empty() {
        return Ok(image);
    }
    let missing = missing.iter().map(|id| format!("{} {}", id.kind.as_str(), id.name)).collect();
    Err(LocalError::Incomplete { name: image.name, missing })
}
