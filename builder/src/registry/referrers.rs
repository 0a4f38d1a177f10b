//! What refers to a manifest (distribution-spec "Listing Referrers"): registries list manifests by their `subject`. For
//! those that do not, whoever pushes keeps the list, under a tag made of the subject's digest.

use super::auth::Scopes;
use super::client::Effort;
use super::push::PushManifest;
use super::settle::settle;
use super::{Registry, RegistryError};
use crate::image::manifest::index_type;
use crate::progress::Vertex;
use cache::digest::{Descriptor, Digest};
use cache::layer::compression::MediaTypes;
use frontend::reference::Reference;
use serde_json::{Value, json};
use std::time::Instant;

/// How often a list is written that others write too.
const ATTEMPTS: u32 = 10;

/// A manifest with a subject.
#[derive(Clone, Debug)]
pub struct Referrer {
    /// What was pushed to the subject's repository.
    pub descriptor: Descriptor,
    pub artifact_type: String,
    pub subject: Digest,
}

impl Registry {
    /// Makes a manifest that was pushed be found through its subject: that is so already where the registry lists
    /// referrers itself.
    pub async fn list_referrer(
        &self,
        to: &Reference,
        referrer: &Referrer,
        vertex: &Vertex,
    ) -> Result<(), RegistryError> {
        if self.lists(to, referrer).await? {
            return Ok(());
        }
        let tag = referrer.subject.as_str().replace(':', "-");
        let to = Reference { tag: Some(tag), digest: None, ..to.clone() };
        for _ in 0..ATTEMPTS {
            let listed = self.tagged(&to).await?.map(|document| document.bytes);
            let Some(bytes) = with_referrer(listed.as_deref(), referrer) else { return Ok(()) };
            let index = PushManifest { media_type: index_type(MediaTypes::Oci).into(), bytes };
            let began = Instant::now();
            self.put_tag(&to, &index, vertex).await?;
            settle(began).await;
        }
        vertex.warn(format!(
            "{} may not be found through {}: others changed {to} each time that it was listed there",
            referrer.descriptor.digest, referrer.subject
        ));
        Ok(())
    }

    /// Whether the registry itself lists a manifest that it has.
    async fn lists(&self, to: &Reference, referrer: &Referrer) -> Result<bool, RegistryError> {
        let endpoint = self.client.hosts.for_push(&to.domain, &to.path)?;
        let path = format!("referrers/{}", referrer.subject);
        let scopes = Scopes::pull(&endpoint.repository);
        match self.document_at(&endpoint, &scopes, &path, Effort::Retry(self.policy)).await {
            Ok((document, _)) => {
                let index: Value = serde_json::from_slice(&document.bytes).unwrap_or_default();
                Ok(names(&index, &referrer.descriptor.digest))
            }
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn names(index: &Value, digest: &Digest) -> bool {
    index["manifests"].as_array().into_iter().flatten().any(|entry| entry["digest"] == digest.as_str())
}

/// The list with one more entry; `None` if it has it. What is no list is replaced by one.
fn with_referrer(listed: Option<&[u8]>, referrer: &Referrer) -> Option<Vec<u8>> {
    let Descriptor { media_type, digest, size } = &referrer.descriptor;
    let listed = listed.and_then(|bytes| serde_json::from_slice::<Value>(bytes).ok());
    let mut index = listed
        .filter(|index| index["manifests"].is_array())
        .unwrap_or_else(|| json!({ "schemaVersion": 2, "mediaType": index_type(MediaTypes::Oci), "manifests": [] }));
    if names(&index, digest) {
        return None;
    }
    let entry = json!({
        "mediaType": media_type, "digest": digest, "size": size, "artifactType": referrer.artifact_type,
    });
    index["manifests"].as_array_mut()?.push(entry);
    Some(index.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_grows_by_what_it_does_not_have() {
        let referrer = |name: &str| Referrer {
            descriptor: Descriptor { media_type: "m".into(), digest: Digest::of(name.as_bytes()), size: 1 },
            artifact_type: "a".into(),
            subject: Digest::of(b"subject"),
        };
        let one = with_referrer(None, &referrer("1")).unwrap();
        assert_eq!(with_referrer(Some(&one), &referrer("1")), None);
        let two: Value = serde_json::from_slice(&with_referrer(Some(&one), &referrer("2")).unwrap()).unwrap();
        assert!(names(&two, &Digest::of(b"1")) && names(&two, &Digest::of(b"2")));
        assert_eq!(two["manifests"][1]["artifactType"], "a");
        assert!(with_referrer(Some(b"no list"), &referrer("1")).is_some());
    }
}
