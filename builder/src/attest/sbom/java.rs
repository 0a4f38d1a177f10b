//! Jars of Java: `META-INF/maven/GROUP/ARTIFACT/pom.properties` in them. Jars within jars are not opened.

use super::package::Package;
use flate2::read::DeflateDecoder;
use std::io::{self, Read, Seek, SeekFrom};

/// The central directory ends within this from the end of the file: its fixed part, and the longest comment.
const END_MAX_BYTES: u64 = 22 + 65535;
const DIRECTORY_MAX_BYTES: u64 = 64 << 20;
const PROPERTIES_MAX_BYTES: u64 = 64 << 10;
/// What there is of them in any jar that is not made to keep readers busy.
const PROPERTIES_MAX: usize = 10_000;

/// What a jar says it was made of.
pub fn jar(mut file: impl Read + Seek) -> io::Result<Vec<Package>> {
    let bad = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(END_MAX_BYTES)))?;
    let mut tail = vec![];
    file.by_ref().take(END_MAX_BYTES).read_to_end(&mut tail)?;
    let end = tail.windows(4).rposition(|bytes| bytes == b"PK\x05\x06").ok_or(bad("it is no zip file"))?;
    let end = tail.get(end..end + 22).ok_or(bad("its directory is cut off"))?;
    let (size, offset) = (u64::from(number(end, 12, 4)), u64::from(number(end, 16, 4)));
    file.seek(SeekFrom::Start(offset))?;
    let mut directory = vec![];
    file.by_ref().take(size.min(DIRECTORY_MAX_BYTES)).read_to_end(&mut directory)?;
    let mut found = vec![];
    let mut rest = directory.as_slice();
    while let Some(entry) = rest.get(..46).filter(|entry| entry.starts_with(b"PK\x01\x02")) {
        let [name, extra, comment] = [28, 30, 32].map(|at| number(entry, at, 2) as usize);
        let path = rest.get(46..46 + name).unwrap_or_default();
        if is_properties(path) && found.len() < PROPERTIES_MAX {
            let (method, packed, at) = (number(entry, 10, 2), number(entry, 20, 4), number(entry, 42, 4));
            let text = content(&mut file, u64::from(at), u64::from(packed), method)?;
            found.extend(properties(&text));
        }
        rest = rest.get(46 + name + extra + comment..).unwrap_or_default();
    }
    Ok(found)
}

fn is_properties(path: &[u8]) -> bool {
    path.starts_with(b"META-INF/maven/") && path.ends_with(b"/pom.properties")
}

/// A file of the archive; empty if it is compressed in a way that jars are not.
fn content(file: &mut (impl Read + Seek), at: u64, packed: u64, method: u32) -> io::Result<String> {
    let mut head = [0; 30];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut head)?;
    let skip = u64::from(number(&head, 26, 2)) + u64::from(number(&head, 28, 2));
    file.seek(SeekFrom::Start(at + 30 + skip))?;
    let raw = file.take(packed);
    let mut bytes = vec![];
    match method {
        0 => raw.take(PROPERTIES_MAX_BYTES).read_to_end(&mut bytes)?,
        8 => DeflateDecoder::new(raw).take(PROPERTIES_MAX_BYTES).read_to_end(&mut bytes)?,
        _ => 0,
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn properties(text: &str) -> Option<Package> {
    let get = |wanted: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('='));
        lines.find(|(name, _)| name.trim() == wanted).map(|(_, value)| value.trim())
    };
    Some(Package::plain("maven", get("groupId")?, get("artifactId")?, get("version")?))
}

fn number(bytes: &[u8], at: usize, width: usize) -> u32 {
    bytes[at..at + width].iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A zip file with one stored entry.
    fn zip(path: &str, data: &[u8]) -> Vec<u8> {
        let mut zip = b"PK\x03\x04".to_vec();
        zip.resize(26, 0);
        zip.extend((path.len() as u16).to_le_bytes());
        zip.extend([0, 0]);
        zip.extend(path.as_bytes());
        zip.extend(data);
        let directory = zip.len() as u32;
        let mut entry = b"PK\x01\x02".to_vec();
        entry.resize(46, 0);
        entry[20..24].copy_from_slice(&(data.len() as u32).to_le_bytes());
        entry[28..30].copy_from_slice(&(path.len() as u16).to_le_bytes());
        zip.extend(&entry);
        zip.extend(path.as_bytes());
        let size = zip.len() as u32 - directory;
        zip.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
        zip.extend(size.to_le_bytes());
        zip.extend(directory.to_le_bytes());
        zip.extend([0, 0]);
        zip
    }

    #[test]
    fn jars() {
        let text = b"#made\nversion=2.17.1\ngroupId=org.apache.logging.log4j\nartifactId=log4j-core\n";
        let whole = zip("META-INF/maven/org.apache.logging.log4j/log4j-core/pom.properties", text);
        let found = jar(Cursor::new(&whole)).unwrap();
        assert_eq!(found[0].purl, "pkg:maven/org.apache.logging.log4j/log4j-core@2.17.1");
        for length in 0..whole.len() {
            let _ = jar(Cursor::new(&whole[..length]));
        }
        assert_eq!(jar(Cursor::new(zip("a/pom.properties", text))).unwrap(), []);
    }
}
