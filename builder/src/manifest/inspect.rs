//! What a name in a registry stands for, as text and as JSON.

use super::ManifestError;
use super::join::Entry;
use super::source::{Source, config, parse};
use crate::image::select;
use crate::registry::Registry;
use serde_json::{Map, Value, json};
use std::fmt::Write;

/// As `docker buildx imagetools inspect` prints it.
pub fn text(source: &Source) -> String {
    let descriptor = &source.document.descriptor;
    let mut text =
        format!("Name:      {}\nMediaType: {}\nDigest:    {}\n", source.name, descriptor.media_type, descriptor.digest);
    if !source.is_index() {
        if let Some(platform) = source.part.entries.first().and_then(Entry::platform) {
            let _ = writeln!(text, "Platform:  {platform}");
        }
        return text;
    }
    annotations(&mut text, "", &source.annotations);
    text += "\nManifests:\n";
    for entry in &source.part.entries {
        let name = source.name.with_digest(entry.digest.as_str());
        let _ = writeln!(text, "  Name:      {name}\n  MediaType: {}", entry.media_type);
        let platform = entry.platform().map_or("unknown/unknown".to_string(), |platform| platform.to_string());
        let _ = writeln!(text, "  Platform:  {platform}");
        annotations(&mut text, "  ", &entry.annotations);
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn annotations(text: &mut String, indent: &str, annotations: &std::collections::BTreeMap<String, String>) {
    if !annotations.is_empty() {
        let _ = writeln!(text, "{indent}Annotations:");
    }
    for (name, value) in annotations {
        let _ = writeln!(text, "{indent}  {name}: {value}");
    }
}

/// `name`, `manifest` (the descriptor and the document's own members) and `image`: the config, or one for each platform.
pub async fn json(registry: &Registry, source: &Source) -> Result<Value, ManifestError> {
    let descriptor = &source.document.descriptor;
    let mut manifest: Map<String, Value> = parse(&source.name, &descriptor.digest, &source.document.bytes)?;
    manifest.insert("mediaType".into(), json!(descriptor.media_type));
    manifest.insert("digest".into(), json!(descriptor.digest));
    manifest.insert("size".into(), json!(descriptor.size));
    let mut images = Map::new();
    for entry in &source.part.entries {
        let Some(platform) = entry.platform() else { continue };
        let document = match entry.digest == descriptor.digest {
            true => source.document.clone(),
            false => registry
                .manifest(&source.name, &entry.digest)
                .await
                .map_err(|error| ManifestError::Read { name: source.name.to_string(), source: error })?,
        };
        let Ok(select::Document::Manifest(found)) = select::parse(&document.bytes, &entry.digest) else { continue };
        let config = config(registry, &source.name, &found).await?;
        images.insert(platform.to_string(), parse(&source.name, &found.config.digest, &config)?);
    }
    let image = match source.is_index() {
        true => Value::Object(images),
        false => images.into_iter().next().map_or(Value::Null, |(_, config)| config),
    };
    Ok(json!({ "name": source.name.to_string(), "manifest": manifest, "image": image }))
}
