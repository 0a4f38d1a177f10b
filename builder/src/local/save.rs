//! Named images -> one archive.

use super::documents::{Extent, Maker};
use super::record::{self, LocalError};
use crate::export::archive::{self, Extra};
use crate::export::docker::{self, Tagged};
use crate::export::target::Target;
use cache::digest::Digest;
use cache::images::NamedImage;
use frontend::platform::Platform;
use frontend::reference::Reference;
use std::collections::BTreeMap;

/// Kinds of archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveType {
    /// For `docker load`: one platform. An OCI layout, too.
    Docker,
    /// An OCI layout, with what is attested of the images.
    Oci,
}

/// Writes images under the names they were asked for by; names of the same image share what they have.
pub async fn save(
    images: &[NamedImage],
    kind: ArchiveType,
    platform: Option<&Platform>,
    target: &Target,
    maker: &Maker<'_>,
) -> Result<(), LocalError> {
    // By their ids alone, images that differ in what is attested of them would be the same.
    let is_same = |one: &NamedImage, other: &NamedImage| one.id == other.id && one.record.top == other.record.top;
    let mut by_id: Vec<(&NamedImage, Vec<Reference>)> = vec![];
    for image in images {
        let name =
            Reference::parse(&image.name).map_err(|source| LocalError::Name { name: image.name.clone(), source })?;
        match by_id.iter_mut().find(|(known, _)| is_same(known, image)) {
            Some((_, names)) => names.push(name),
            None => by_id.push((image, vec![name])),
        }
    }
    // `docker load` takes no index.
    let extent = if kind == ArchiveType::Docker { Extent::Images } else { Extent::All };
    let (mut blobs, mut entries, mut tagged) = (BTreeMap::<Digest, u64>::new(), vec![], vec![]);
    for (image, names) in by_id {
        if kind == ArchiveType::Docker && platform.is_none() && image.record.platforms.len() > 1 {
            let what = format!("an archive for docker cannot hold: {}", record::platforms(&image.record));
            return Err(LocalError::SeveralPlatforms { name: image.name.clone(), what });
        }
        let (made, assembled) = maker.documents(&image.name, &image.record, platform, extent).await?;
        archive::fetch_blobs(&assembled, &maker.export(&made)).await?;
        blobs.extend(archive::blobs(&assembled));
        entries.extend(archive::index_entries(&assembled, &names));
        tagged.push((assembled, names));
    }
    let mut extras: Vec<Extra> = vec![archive::index_file(&entries)];
    if kind == ArchiveType::Docker {
        let tagged: Vec<Tagged<'_>> =
            tagged.iter().map(|(assembled, names)| Tagged { image: &assembled.images[0], names }).collect();
        extras.push(docker::manifest_file(&tagged));
    }
    extras.push(archive::oci_layout_file());
    let (store, target) = (maker.store.clone(), target.clone());
    let write = move || target.write(|out| archive::write(out, &store, &blobs, &extras));
    Ok(crate::source::image::blocking(write).await?)
}
