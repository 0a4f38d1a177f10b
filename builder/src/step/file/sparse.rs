//! Files with holes as GNU tar writes them into PAX archives (tar manual, "Sparse Formats": versions 0.0, 0.1, 1.0).
//! Knows what the extended headers say; writes data where they say it belongs.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// More parts than this in one file are not read: each costs memory before anything is written.
const MAX_PARTS: u64 = 1 << 20;

/// What the extended headers tell about a file with holes.
#[derive(Debug, Default, PartialEq)]
pub struct Sparse {
    /// Name of the file, where the header's own is made up.
    pub name: Option<Vec<u8>>,
    size: Option<u64>,
    /// Offset and length of the parts that the archive has.
    parts: Vec<(u64, u64)>,
    /// The parts are listed at the start of the data.
    listed_in_data: bool,
    offset: Option<u64>,
}

impl Sparse {
    /// Takes in one extended header, if it is about holes.
    pub fn read(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let Some(key) = key.strip_prefix(b"GNU.sparse.") else { return Ok(()) };
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number(value)?),
            b"major" => self.listed_in_data = number(value)? == 1,
            b"offset" => self.offset = Some(number(value)?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or_else(malformed)?;
                self.parts.push((offset, number(value)?));
            }
            b"map" => {
                let numbers: Vec<u64> = value.split(|&byte| byte == b',').map(number).collect::<io::Result<_>>()?;
                self.parts = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the file has holes at all.
    pub fn is_sparse(&self) -> bool {
        self.size.is_some()
    }

    /// Writes the data to an empty file. What cannot be read is an error of kind `InvalidData` or the reader's own; what
    /// cannot be written is given to `on_write`.
    pub fn write<E>(
        mut self,
        data: &mut impl Read,
        output: &mut File,
        on_read: impl Fn(io::Error) -> E,
        on_write: impl Fn(io::Error) -> E,
    ) -> Result<(), E> {
        if self.listed_in_data {
            self.parts = read_list(data).map_err(&on_read)?;
        }
        let size = self.size.unwrap_or(0);
        let mut buffer = vec![0; 64 << 10];
        let mut end = 0;
        for (offset, length) in self.parts {
            let after = offset.checked_add(length).filter(|after| offset >= end && *after <= size);
            end = after.ok_or_else(|| on_read(malformed()))?;
            output.seek(SeekFrom::Start(offset)).map_err(&on_write)?;
            let mut left = length;
            while left > 0 {
                let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let read = match data.read(&mut buffer[..most]) {
                    Ok(0) => return Err(on_read(io::ErrorKind::UnexpectedEof.into())),
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => return Err(on_read(error)),
                };
                output.write_all(&buffer[..read]).map_err(&on_write)?;
                left -= read as u64;
            }
        }
        output.set_len(size).map_err(&on_write)
    }
}

/// Version 1.0: decimal numbers, each on a line, first how many parts there are; then padding to a block of 512.
fn read_list(data: &mut impl Read) -> io::Result<Vec<(u64, u64)>> {
    let mut block = [0; 512];
    let mut at = block.len();
    let mut next = || -> io::Result<u64> {
        let mut digits = Vec::new();
        loop {
            if at == block.len() {
                data.read_exact(&mut block)?;
                at = 0;
            }
            at += 1;
            match block[at - 1] {
                b'\n' => return number(&digits),
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(malformed()),
            }
        }
    };
    let count = next()?;
    if count > MAX_PARTS {
        return Err(malformed());
    }
    (0..count).map(|_| Ok((next()?, next()?))).collect()
}

fn number(digits: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the list of a sparse file's parts is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written for these headers and data; `None` for an error.
    #[track_caller]
    fn check(headers: &[(&str, &str)], data: &[u8], expect: Option<&[u8]>) {
        let mut sparse = Sparse::default();
        let read = headers
            .iter()
            .try_for_each(|(key, value)| sparse.read(format!("GNU.sparse.{key}").as_bytes(), value.as_bytes()));
        let mut file = tempfile::tempfile().unwrap();
        let result = read.and_then(|()| sparse.write(&mut &data[..], &mut file, |error| error, |error| error));
        let mut written = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut written).unwrap();
        assert_eq!(result.ok().map(|()| written.as_slice()), expect);
    }

    #[test]
    fn versions() {
        let expect = Some(b"\0ab\0\0c\0".as_slice());
        check(&[("size", "7"), ("map", "1,2,5,1")], b"abc", expect);
        let pairs = [("size", "7"), ("offset", "1"), ("numbytes", "2"), ("offset", "5"), ("numbytes", "1")];
        check(&pairs, b"abc", expect);
        let mut data = b"2\n1\n2\n5\n1\n".to_vec();
        data.resize(512, 0);
        data.extend(b"abc");
        check(&[("major", "1"), ("minor", "0"), ("realsize", "7")], &data, expect);
        check(&[("size", "3"), ("map", "")], b"", None);
        check(&[("size", "3")], b"", Some(b"\0\0\0"));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        check(&[("size", "7"), ("map", "1,2,1,1")], b"abc", None);
        check(&[("size", "7"), ("map", "6,2")], b"ab", None);
        check(&[("size", "7"), ("map", "18446744073709551615,2")], b"ab", None);
        check(&[("size", "7"), ("numbytes", "2")], b"ab", None);
        check(&[("size", "-7")], b"", None);
        check(&[("major", "1"), ("realsize", "7")], b"2\n1\n2\n", None);
        check(&[("major", "1"), ("realsize", "7")], &[b'9'; 1024], None);
        let mut many = b"9999999999\n".to_vec();
        many.resize(512, 0);
        check(&[("major", "1"), ("realsize", "7")], &many, None);
    }
}
