//! Reads tars of all dialects that layers come in: ustar, PAX, GNU (long names, base-256 numbers, sparse files), v7.
//!
//! Entry after entry, data as slices of the reader's own buffer. Knows nothing of what entries mean (`apply.rs`).

use super::LayerError;
use super::header::BLOCK;
use std::collections::HashMap;
use std::io::{BufRead, ErrorKind};

/// The most that a PAX header or a GNU long name may have, in bytes: it is held in memory. Linux allows an inode
/// 64 KiB of xattr names and 64 KiB a value.
const META_LIMIT: u64 = 16 << 20;

const XATTR: &[u8] = b"SCHILY.xattr.";

/// [`std::io::Read::read`] of a reader that is read through its buffer.
pub(crate) fn read_buffered(reader: &mut impl BufRead, buffer: &mut [u8]) -> std::io::Result<usize> {
    let available = reader.fill_buf()?;
    let length = available.len().min(buffer.len());
    buffer[..length].copy_from_slice(&available[..length]);
    reader.consume(length);
    Ok(length)
}

/// Offsets and lengths in bytes, in order.
pub(crate) type SparseMap = Vec<(u64, u64)>;

/// An entry, before its data.
#[derive(Debug)]
pub(crate) struct TarEntry {
    pub typeflag: u8,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Of the file as unpacked, in bytes.
    pub size: u64,
    /// The parts that the data fills, if the file has holes.
    pub sparse: Option<SparseMap>,
}

/// Reads a tar.
pub(crate) struct TarReader<R> {
    inner: R,
    offset: u64,
    /// Bytes of the current entry's data not read yet, and of the padding behind it.
    left: u64,
    padding: u64,
    /// From global PAX headers.
    global: HashMap<Vec<u8>, Vec<u8>>,
}

impl<R: BufRead> TarReader<R> {
    pub fn new(inner: R) -> TarReader<R> {
        TarReader { inner, offset: 0, left: 0, padding: 0, global: HashMap::new() }
    }

    /// The next entry, past whatever was not read of the last one; `None` at the end of the archive.
    pub fn next(&mut self) -> Result<Option<TarEntry>, LayerError> {
        let mut pax = HashMap::new();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(block) = self.header()? else { return Ok(None) };
            let size = self.number(&block[124..136])?;
            self.begin(size);
            match block[156] {
                b'x' => pax = self.pax_records(size)?,
                b'g' => {
                    let records = self.pax_records(size)?;
                    self.global.extend(records);
                }
                b'L' => long_name = Some(until_nul(&self.meta(size)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.meta(size)?).to_vec()),
                _ => {
                    // What a single header says goes before what a global one says for all.
                    for (key, value) in &self.global {
                        if !key.starts_with(XATTR) {
                            pax.entry(key.clone()).or_insert_with(|| value.clone());
                        }
                    }
                    return self.entry(&block, pax, long_name, long_link).map(Some);
                }
            }
        }
    }

    /// Bytes of the tar read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads what comes behind the end of the archive, to the end of the source.
    pub fn drain(&mut self) -> Result<(), LayerError> {
        loop {
            self.left = u64::MAX;
            match self.data() {
                Ok(data) => {
                    let length = data.len();
                    self.consume(length);
                }
                Err(LayerError::Read(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                    self.left = 0;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next slice of the current entry's data; empty at its end.
    pub fn data(&mut self) -> Result<&[u8], LayerError> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let available = loop {
            match self.inner.fill_buf() {
                Ok(buffer) => break buffer.len(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        };
        if available == 0 {
            return Err(LayerError::Read(ErrorKind::UnexpectedEof.into()));
        }
        let length = available.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        // A second look, since the borrow checker does not let the first one out of the loop. It reads nothing.
        Ok(&self.inner.fill_buf().map_err(LayerError::Read)?[..length])
    }

    /// Marks the first `length` bytes of what [`TarReader::data`] gave as used.
    pub fn consume(&mut self, length: usize) {
        self.inner.consume(length);
        self.offset += length as u64;
        self.left -= length as u64;
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<(), LayerError> {
        loop {
            while self.left > 0 {
                let length = self.data()?.len();
                self.consume(length);
            }
            if self.padding == 0 {
                return Ok(());
            }
            self.left = std::mem::take(&mut self.padding);
        }
    }

    fn exactly(&mut self, buffer: &mut [u8]) -> Result<(), LayerError> {
        self.inner.read_exact(buffer).map_err(LayerError::Read)?;
        self.offset += buffer.len() as u64;
        Ok(())
    }

    /// The next header block; `None` at the end: zeros, or nothing at all.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        self.skip()?;
        let mut block = [0; BLOCK];
        let at_end = loop {
            match self.inner.fill_buf() {
                Ok(buffer) => break buffer.is_empty(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        };
        if at_end {
            return Ok(None);
        }
        self.exactly(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum = |byte: fn(u8) -> i64| -> i64 {
            let field = |index: usize, value: u8| if (148..156).contains(&index) { b' ' } else { value };
            block.iter().enumerate().map(|(index, value)| byte(field(index, *value))).sum()
        };
        let expect = octal(&block[148..156]).map(|sum| sum as i64);
        // Some old writers summed signed bytes.
        if expect != Some(sum(i64::from)) && expect != Some(sum(|byte| i64::from(byte as i8))) {
            return Err(LayerError::Malformed { offset: self.offset - BLOCK as u64, what: "wrong header checksum" });
        }
        Ok(Some(block))
    }

    fn malformed(&self, what: &'static str) -> LayerError {
        LayerError::Malformed { offset: self.offset, what }
    }

    fn number(&self, field: &[u8]) -> Result<u64, LayerError> {
        signed(field)
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| self.malformed("bad number in header"))
    }

    fn meta(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > META_LIMIT {
            return Err(self.malformed("extended header too large"));
        }
        let mut data = Vec::new();
        while data.len() < size as usize {
            let piece = self.data()?;
            data.extend_from_slice(piece);
            let length = piece.len();
            self.consume(length);
        }
        Ok(data)
    }

    fn pax_records(&mut self, size: u64) -> Result<HashMap<Vec<u8>, Vec<u8>>, LayerError> {
        let data = self.meta(size)?;
        let mut records = HashMap::new();
        let mut rest = &data[..];
        // GNU.sparse 0.0 repeats its keys, in pairs; they become one list as in 0.1.
        let mut map = Vec::new();
        while !rest.is_empty() {
            let (key, value, after) = split_record(rest).ok_or_else(|| self.malformed("bad PAX record"))?;
            rest = after;
            if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                if !map.is_empty() {
                    map.push(b',');
                }
                map.extend_from_slice(value);
            } else {
                records.insert(key.to_vec(), value.to_vec());
            }
        }
        if !map.is_empty() {
            records.insert(b"GNU.sparse.map".to_vec(), map);
        }
        Ok(records)
    }

    fn entry(
        &mut self,
        block: &[u8; BLOCK],
        mut pax: HashMap<Vec<u8>, Vec<u8>>,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<TarEntry, LayerError> {
        let mut text = |key: &[u8]| pax.remove(key).filter(|value| !value.is_empty());
        let is_ustar = &block[257..263] == b"ustar\0";
        let is_gnu = &block[257..265] == b"ustar  \0";
        let name = until_nul(&block[..100]);
        let prefix = if is_ustar { until_nul(&block[345..500]) } else { b"" };
        let short_name = || if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() };
        let path = text(b"GNU.sparse.name").or_else(|| text(b"path")).or(long_name).unwrap_or_else(short_name);
        let link = text(b"linkpath").or(long_link).unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        let decimal = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<u64>().ok();

        let number = |field: &[u8], value: Option<Vec<u8>>| match value {
            Some(value) => decimal(&value).ok_or_else(|| self.malformed("bad number in PAX record")),
            None => self.number(field),
        };
        let uid = number(&block[108..116], text(b"uid"))?;
        let gid = number(&block[116..124], text(b"gid"))?;
        let stored = number(&block[124..136], text(b"size"))?;
        let mode = self.number(&block[100..108])? as u32 & 0o7777;
        let mtime = match text(b"mtime") {
            Some(value) => pax_time(&value).ok_or_else(|| self.malformed("bad time in PAX record"))?,
            None => (signed(&block[136..148]).ok_or_else(|| self.malformed("bad number in header"))?, 0),
        };
        let mut typeflag = if block[156] == 0 { b'0' } else { block[156] };
        let device = match typeflag {
            b'3' | b'4' => (self.number(&block[329..337])? as u32, self.number(&block[337..345])? as u32),
            _ => (0, 0),
        };
        let mut xattrs: Vec<_> = pax
            .iter()
            .filter_map(|(key, value)| key.strip_prefix(XATTR).map(|name| (name.to_vec(), value.clone())))
            .collect();
        xattrs.sort_unstable();

        // Links and directories have no data, whatever the size field says; only old writers' hard links did.
        let has_data = matches!(typeflag, b'0' | b'7' | b'S') || (!b"123456".contains(&typeflag) && stored > 0);
        self.begin(if has_data { stored } else { 0 });
        if typeflag == b'0' && path.ends_with(b"/") && !is_ustar && !is_gnu {
            // v7 has no type for directories.
            typeflag = b'5';
        }
        let (size, sparse) = self.sparse(block, typeflag, &pax, stored)?;
        if typeflag == b'S' {
            typeflag = b'0';
        }
        Ok(TarEntry { typeflag, path, link, mode, uid, gid, mtime, device, xattrs, size, sparse })
    }

    /// Real size, and where the data goes, in any of the four ways in which GNU tar has written that.
    fn sparse(
        &mut self,
        block: &[u8; BLOCK],
        typeflag: u8,
        pax: &HashMap<Vec<u8>, Vec<u8>>,
        stored: u64,
    ) -> Result<(u64, Option<SparseMap>), LayerError> {
        let value = |key: &str| pax.get(key.as_bytes()).and_then(|value| std::str::from_utf8(value).ok());
        let (size, numbers) = if typeflag == b'S' {
            (self.number(&block[483..495])?, self.old_gnu_map(block)?)
        } else if value("GNU.sparse.major") == Some("1") && value("GNU.sparse.minor") == Some("0") {
            let size = value("GNU.sparse.realsize").and_then(|text| text.parse().ok());
            (size.ok_or_else(|| self.malformed("bad sparse size"))?, self.map_in_data()?)
        } else if let Some(map) = value("GNU.sparse.map") {
            let size = value("GNU.sparse.size").and_then(|text| text.parse().ok());
            let numbers: Option<Vec<u64>> = map.split(',').map(|text| text.parse().ok()).collect();
            match (size, numbers) {
                (Some(size), Some(numbers)) => (size, numbers),
                _ => return Err(self.malformed("bad sparse map")),
            }
        } else {
            return Ok((stored, None));
        };
        let parts: SparseMap = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        let mut end = 0;
        let mut total = 0u64;
        for (offset, length) in &parts {
            let in_order = *offset >= end;
            end = offset.checked_add(*length).ok_or_else(|| self.malformed("bad sparse map"))?;
            total += length;
            if !in_order || end > size {
                return Err(self.malformed("bad sparse map"));
            }
        }
        if numbers.len() % 2 != 0 || total != self.left {
            return Err(self.malformed("sparse map does not fit the data"));
        }
        Ok((size, Some(parts)))
    }

    fn old_gnu_map(&mut self, block: &[u8; BLOCK]) -> Result<Vec<u64>, LayerError> {
        let mut numbers = Vec::new();
        let mut fields = block[386..482].to_vec();
        let mut more = block[482] != 0;
        loop {
            for pair in fields.chunks_exact(24).take_while(|pair| pair[0] != 0) {
                numbers.push(self.number(&pair[..12])?);
                numbers.push(self.number(&pair[12..])?);
            }
            if !more {
                return Ok(numbers);
            }
            if numbers.len() as u64 * 8 > META_LIMIT {
                return Err(self.malformed("sparse map too large"));
            }
            let mut extension = [0; BLOCK];
            self.exactly(&mut extension)?;
            fields = extension[..504].to_vec();
            more = extension[504] != 0;
        }
    }

    /// Lines of decimal numbers at the start of the data, the first of them the count of pairs, in whole blocks.
    fn map_in_data(&mut self) -> Result<Vec<u64>, LayerError> {
        let mut numbers = Vec::new();
        let mut wanted = None;
        let mut digits: Vec<u8> = Vec::new();
        let mut block = [0; BLOCK];
        loop {
            if self.left < BLOCK as u64 || numbers.len() as u64 * 8 > META_LIMIT {
                return Err(self.malformed("bad sparse map"));
            }
            self.exactly(&mut block)?;
            self.left -= BLOCK as u64;
            for byte in block {
                if byte != b'\n' {
                    digits.push(byte);
                    continue;
                }
                let number = std::str::from_utf8(&digits).ok().and_then(|text| text.parse::<u64>().ok());
                let number = number.ok_or_else(|| self.malformed("bad sparse map"))?;
                digits.clear();
                match wanted {
                    None => wanted = Some(number.saturating_mul(2)),
                    Some(_) => numbers.push(number),
                }
                if wanted == Some(numbers.len() as u64) {
                    return Ok(numbers);
                }
            }
            if digits.len() > 20 {
                return Err(self.malformed("bad sparse map"));
            }
        }
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

/// Octal digits between spaces and NULs; empty is zero.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(until_nul(field.trim_ascii_start())).ok()?.trim();
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// Octal, or base 256 if the first bit is set (GNU), then possibly negative.
fn signed(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 == 0 {
        return octal(field).and_then(|number| i64::try_from(number).ok());
    }
    let negative = field[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (index, byte) in field.iter().enumerate() {
        let byte = match index {
            // Without the mark; the sign bit beside it is kept by the start value.
            0 if negative => byte | 0x80,
            0 => byte & 0x7f,
            _ => *byte,
        };
        value = (value << 8) | i128::from(byte);
    }
    i64::try_from(value).ok()
}

/// Seconds with a fraction, possibly negative.
fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds - 1, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

fn split_record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let record = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &data[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let check = |field: &[u8], expect| assert_eq!(signed(field), expect, "{field:?}");
        check(b"0000644\0", Some(0o644));
        check(b"   644 \0", Some(0o644));
        check(b"\0\0\0\0\0\0\0\0", Some(0));
        check(b"00009\0\0\0", None);
        check(b"\x80\0\0\0\0\0\x01\x02", Some(258));
        check(b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2));
        check(b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", None);
    }

    #[test]
    fn times() {
        let check = |text: &str, expect| assert_eq!(pax_time(text.as_bytes()), expect, "{text}");
        check("12", Some((12, 0)));
        check("12.5", Some((12, 500_000_000)));
        check("-1.25", Some((-2, 750_000_000)));
        check("1.1234567891", Some((1, 123_456_789)));
        check("x", None);
        check("1.x", None);
    }
}
