//! What holds for any input, as functions that panic where it does not: run by the fuzz targets (`tests/fuzz`), and by
//! `cargo test` on what those have found (`tests/corpus/fuzz`). Feature `testing`.

use crate::digest::Digest;
use crate::layer::apply::apply;
use crate::layer::compression::decompressor;
use crate::layer::reader::TarReader;
use crate::remote::Index;
use std::io::{BufReader, Read};

/// Most that is read of what a compressed input decompresses to, in bytes.
const MOST: u64 = 1 << 22;

/// A layer's tar is read without a panic, and unpacked without touching anything outside of the folder.
///
/// # Panics
/// Also if no temporary folder can be made.
pub fn layer(input: &[u8]) {
    let mut tar = TarReader::new(BufReader::new(input));
    while let Ok(Some(_)) = tar.next() {}
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (upper, outside) = (folder.path().join("upper"), folder.path().join("outside"));
    std::fs::create_dir(&upper).and_then(|()| std::fs::write(&outside, "untouched")).expect("files in it");
    if let Ok(applied) = apply(input, &upper) {
        assert_eq!(applied.size, input.len() as u64);
        assert_eq!(applied.diff_id, Digest::of(input));
    }
    assert_eq!(std::fs::read(&outside).ok().as_deref(), Some(b"untouched".as_slice()));
    assert_eq!(std::fs::read_dir(folder.path()).map(Iterator::count).ok(), Some(2), "something appeared outside");
}

/// A compressed layer decompresses to something or fails.
pub fn compressed(input: &[u8]) {
    if let Ok(reader) = decompressor(input) {
        let _ = std::io::copy(&mut reader.take(MOST), &mut std::io::sink());
    }
}

/// A digest reads as itself when printed.
pub fn digest(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.as_str(), text);
        assert!(!digest.hex().contains('/'), "a digest names a file");
    }
}

/// The index of a remote cache: what can be read is written and read again as the same, and merging it into itself
/// changes nothing.
pub fn cache_index(input: &[u8]) {
    let Ok(index) = Index::parse(input) else { return };
    let again = Index::parse(&index.to_bytes()).expect("what was written can be read");
    assert_eq!(again, index);
    let mut merged = index.clone();
    merged.merge(again);
    assert_eq!(merged, index);
    assert!(index.covers(&merged, 0));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn replay(target: &str, property: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/fuzz").join(target);
        let inputs: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "the corpus of {target} is missing");
        inputs.iter().for_each(|input| property(&std::fs::read(input).unwrap()));
    }

    #[test]
    fn corpus() {
        replay("layer", layer);
        replay("compressed", compressed);
        replay("digest", digest);
        replay("cache_index", cache_index);
    }
}
