//! The header of an rpm package, as rpm's databases keep it: an index of tags, and their data behind it, all numbers big
//! endian.

use super::package::{Distribution, Package};
use crate::attest::purl;

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const LICENSE: u32 = 1014;
const ARCH: u32 = 1022;
const SOURCE: u32 = 1044;
/// Size of an index entry: tag, type, offset, count.
const ENTRY: usize = 16;
/// Keys that packages are signed with are entered like packages.
const KEY: &str = "gpg-pubkey";

/// The package that a header is of; `None` for a key. `Err` says what is wrong.
pub fn package(header: &[u8], distribution: &Distribution) -> Result<Option<Package>, String> {
    let header = Header::read(header).ok_or("a header is cut off")?;
    let name = header.text(NAME).ok_or("a header without a name")?;
    if name == KEY {
        return Ok(None);
    }
    let text = |tag| header.text(tag).unwrap_or_default();
    let (version, release) = (text(VERSION), text(RELEASE));
    let version = if release.is_empty() { version } else { format!("{version}-{release}") };
    let epoch = header.number(EPOCH).filter(|epoch| *epoch != 0).map(|epoch| epoch.to_string());
    let qualifiers = [
        ("arch", text(ARCH)),
        ("distro", distribution.qualifier()),
        ("epoch", epoch.unwrap_or_default()),
        ("upstream", text(SOURCE)),
    ];
    let purl = purl::package("rpm", distribution.namespace("redhat"), &name, &version, &qualifiers);
    Ok(Some(Package { name, version, purl, license: text(LICENSE) }))
}

struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(bytes: &'a [u8]) -> Option<Header<'a>> {
        let entries = usize::try_from(number(bytes, 0)?).ok()?;
        let (index, data) = bytes.get(8..)?.split_at_checked(entries.checked_mul(ENTRY)?)?;
        Some(Header { index, data })
    }

    /// Where the data of a tag begins.
    fn data(&self, tag: u32) -> Option<&'a [u8]> {
        let entry = self.index.chunks_exact(ENTRY).find(|entry| number(entry, 0) == Some(tag))?;
        self.data.get(usize::try_from(number(entry, 8)?).ok()?..)
    }

    /// A string, or the first of several.
    fn text(&self, tag: u32) -> Option<String> {
        let data = self.data(tag)?;
        let end = data.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&data[..end]).into_owned())
    }

    fn number(&self, tag: u32) -> Option<u32> {
        number(self.data(tag)?, 0)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header with strings, and an epoch.
    pub(in super::super) fn header(texts: &[(u32, &str)], epoch: Option<u32>) -> Vec<u8> {
        let (mut index, mut data) = (vec![], vec![]);
        for (tag, text) in texts {
            for number in [*tag, 6, data.len() as u32, 1] {
                index.extend(number.to_be_bytes());
            }
            data.extend(text.as_bytes());
            data.push(0);
        }
        if let Some(epoch) = epoch {
            for number in [EPOCH, 4, data.len() as u32, 1] {
                index.extend(number.to_be_bytes());
            }
            data.extend(epoch.to_be_bytes());
        }
        let mut header = vec![];
        header.extend((index.len() as u32 / ENTRY as u32).to_be_bytes());
        header.extend((data.len() as u32).to_be_bytes());
        header.extend(index);
        header.extend(data);
        header
    }

    #[test]
    fn headers() {
        let distribution = Distribution { id: "fedora".into(), version: "41".into() };
        let bash = header(
            &[(NAME, "bash"), (VERSION, "5.2"), (RELEASE, "3.fc41"), (LICENSE, "GPL-3.0-or-later"), (ARCH, "x86_64")],
            Some(1),
        );
        let found = package(&bash, &distribution).unwrap().unwrap();
        assert_eq!(found.purl, "pkg:rpm/fedora/bash@5.2-3.fc41?arch=x86_64&distro=fedora-41&epoch=1");
        assert_eq!((found.version.as_str(), found.license.as_str()), ("5.2-3.fc41", "GPL-3.0-or-later"));
        assert_eq!(package(&header(&[(NAME, KEY)], None), &distribution), Ok(None));
        for length in 0..bash.len() {
            let _ = package(&bash[..length], &distribution);
        }
        assert!(package(&[0xff; 40], &distribution).is_err());
    }
}
