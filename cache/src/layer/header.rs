//! Headers of a tar that is written: ustar blocks, with PAX records before them for what does not fit.
//!
//! The choices where POSIX leaves some (no prefix field in PAX form, name of the PAX header, order of records) are
//! those of Go's archive/tar, so that the same tree gets the diff_id that BuildKit gives it.

use std::collections::BTreeMap;
use std::io::{self, Write};

/// Size of a block in bytes.
pub(crate) const BLOCK: usize = 512;

const NAME: usize = 100;
const PREFIX: usize = 155;

/// One entry, before its data.
pub(crate) struct Header<'a> {
    pub typeflag: u8,
    /// Ends with `/` if a directory.
    pub name: &'a [u8],
    /// Target of a link; else empty.
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    pub device: (u32, u32),
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl<'a> Header<'a> {
    /// What removes `name` from the layers below: an empty file of mode 0 and time 0.
    pub fn whiteout(name: &'a [u8]) -> Header<'a> {
        Header {
            typeflag: b'0',
            name,
            link: b"",
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            device: (0, 0),
            xattrs: &[],
        }
    }

    /// Writes the PAX records that are needed, then the header.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let records = self.records();
        if !records.is_empty() {
            write_pax(self.name, &records, out)?;
        }
        self.write_block(self.name, b"", out)
    }

    /// As [`Header::write`], but prefers ustar's prefix field to a PAX record for a long name.
    pub fn write_ustar(&self, out: &mut impl Write) -> io::Result<()> {
        match split_name(self.name) {
            Some((prefix, name)) => self.write_block(name, prefix, out),
            None => self.write(out),
        }
    }

    fn records(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut records = BTreeMap::new();
        for (key, text) in [("path", self.name), ("linkpath", self.link)] {
            if text.len() > NAME || !text.is_ascii() {
                records.insert(key.into(), text.to_vec());
            }
        }
        let numbers = [("uid", i64::from(self.uid), 7), ("gid", i64::from(self.gid), 7), ("mtime", self.mtime, 11)];
        for (key, number, digits) in numbers {
            if octal(number, digits).is_none() {
                records.insert(key.into(), number.to_string().into_bytes());
            }
        }
        if octal_u64(self.size, 11).is_none() {
            records.insert("size".into(), self.size.to_string().into_bytes());
        }
        for (name, value) in self.xattrs {
            // A record's key ends at the first `=`, so such a name cannot be written.
            if !name.contains(&b'=') {
                records.insert([b"SCHILY.xattr.", &name[..]].concat(), value.clone());
            }
        }
        records
    }

    fn write_block(&self, name: &[u8], prefix: &[u8], out: &mut impl Write) -> io::Result<()> {
        let mut block = [0u8; BLOCK];
        put_text(&mut block[..NAME], name);
        put_number(&mut block[100..108], i64::from(self.mode));
        put_number(&mut block[108..116], i64::from(self.uid));
        put_number(&mut block[116..124], i64::from(self.gid));
        put_number(&mut block[124..136], i64::try_from(self.size).unwrap_or(-1));
        put_number(&mut block[136..148], self.mtime);
        block[156] = self.typeflag;
        put_text(&mut block[157..257], self.link);
        put_number(&mut block[329..337], i64::from(self.device.0));
        put_number(&mut block[337..345], i64::from(self.device.1));
        put_text(&mut block[345..345 + PREFIX], prefix);
        finish_block(&mut block);
        out.write_all(&block)
    }
}

/// Fills up the last block of `size` bytes of data.
pub(crate) fn pad(size: u64, out: &mut impl Write) -> io::Result<()> {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { Ok(()) } else { out.write_all(&[0; BLOCK][over..]) }
}

fn write_pax(name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>, out: &mut impl Write) -> io::Result<()> {
    let mut data = Vec::new();
    for (key, value) in records {
        put_record(&mut data, key, value);
    }
    let (parent, base) = match name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => name.split_at(slash + 1),
        None => (&b""[..], name),
    };
    let mut header_name = [parent, b"PaxHeaders.0/", base].concat();
    header_name.retain(u8::is_ascii);
    header_name.truncate(NAME);
    while header_name.last() == Some(&b'/') {
        header_name.pop();
    }
    let mut block = [0u8; BLOCK];
    put_text(&mut block[..NAME], &header_name);
    for (start, end) in [(100, 108), (108, 116), (116, 124), (136, 148)] {
        put_number(&mut block[start..end], 0);
    }
    put_number(&mut block[124..136], data.len() as i64);
    block[156] = b'x';
    finish_block(&mut block);
    out.write_all(&block)?;
    out.write_all(&data)?;
    pad(data.len() as u64, out)
}

/// `<length> <key>=<value>\n`, where the length counts its own digits too.
fn put_record(data: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    length = rest + length.to_string().len();
    data.extend_from_slice(length.to_string().as_bytes());
    data.push(b' ');
    data.extend_from_slice(key);
    data.push(b'=');
    data.extend_from_slice(value);
    data.push(b'\n');
}

fn finish_block(block: &mut [u8; BLOCK]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// What does not fit or is not ASCII is in a PAX record; the field then has what is left without it.
fn put_text(field: &mut [u8], text: &[u8]) {
    let ascii: Vec<u8> = text.iter().copied().filter(|byte| byte.is_ascii() && *byte != 0).collect();
    let length = ascii.len().min(field.len());
    field[..length].copy_from_slice(&ascii[..length]);
    // Old readers take a regular file whose name field ends with a slash for a directory.
    if ascii.len() > field.len() && field[length - 1] == b'/' {
        let end = field.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        field[end] = 0;
    }
}

fn put_number(field: &mut [u8], number: i64) {
    let digits = field.len() - 1;
    let text = octal(number, digits).unwrap_or_else(|| "0".repeat(digits));
    field[..digits].copy_from_slice(text.as_bytes());
}

fn octal(number: i64, digits: usize) -> Option<String> {
    octal_u64(u64::try_from(number).ok()?, digits)
}

fn octal_u64(number: u64, digits: usize) -> Option<String> {
    Some(format!("{number:0digits$o}")).filter(|text| text.len() == digits)
}

fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME || !name.is_ascii() {
        return None;
    }
    let slash = name[..name.len().min(PREFIX + 1)].iter().rposition(|byte| *byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (!prefix.is_empty() && !rest.is_empty() && rest.len() <= NAME).then_some((prefix, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(name: &'a [u8], link: &'a [u8], uid: u32, mtime: i64) -> Header<'a> {
        Header { typeflag: b'0', link, mode: 0o644, uid, mtime, ..Header::whiteout(name) }
    }

    #[test]
    fn records_count_themselves() {
        for length in (0..120).chain(970..1010) {
            let mut data = Vec::new();
            put_record(&mut data, b"a", "x".repeat(length).as_bytes());
            let text = String::from_utf8(data).unwrap();
            assert_eq!(text.split(' ').next().unwrap().parse(), Ok(text.len()), "{text}");
        }
    }

    #[test]
    fn pax_only_where_needed() {
        let check = |header: &Header<'_>, expect: &[&str]| {
            let keys: Vec<String> = header.records().into_keys().map(|key| String::from_utf8(key).unwrap()).collect();
            assert_eq!(keys, expect);
        };
        let long = "d/".repeat(60);
        check(&header(b"a/b", b"", 2097151, 0), &[]);
        check(&header(b"a/b", b"", 2097152, 0), &["uid"]);
        check(&header(b"a/b", long.as_bytes(), 0, -1), &["linkpath", "mtime"]);
        check(&header("ä".as_bytes(), b"", 0, 8589934591), &["path"]);
        check(&header(b"a", b"", 0, 8589934592), &["mtime"]);
    }

    #[test]
    fn whiteouts_use_the_prefix() {
        let name = [b"d/".repeat(60), b".wh.x".to_vec()].concat();
        let mut out = Vec::new();
        Header::whiteout(&name).write_ustar(&mut out).unwrap();
        assert_eq!(out.len(), BLOCK);
        assert_eq!(split_name(&name).map(|(prefix, rest)| [prefix, b"/", rest].concat()), Some(name));
    }
}
