//! A limit to what a compressed layer unpacks to: a few bytes can become as many as a disk has.

use std::io::{self, Read};

/// Ends with an error where more comes than may be.
pub struct Bounded<R> {
    input: R,
    /// Bytes.
    left: u64,
    bomb: Bomb,
}

impl<R> Bounded<R> {
    /// What `input` gives may be `limit` bytes long. It is unpacked of `size` bytes.
    pub fn new(input: R, size: u64, limit: u64) -> Bounded<R> {
        Bounded { input, left: limit, bomb: Bomb { size, limit } }
    }
}

/// What a blob unpacks to is absurd.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "its {size} bytes unpack to more than {limit}, so it is refused as a decompression bomb; if it is meant to be so, raise \
     `unpackedLayer` in [limits] of kiln.toml"
)]
struct Bomb {
    size: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| io::Error::other(self.bomb.clone()))?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_itself_may_come() {
        let read = |length: usize| {
            let zeros = vec![0; length];
            io::read_to_string(Bounded::new(&zeros[..], 1, 10)).map(|text| text.len())
        };
        assert_eq!(read(10).unwrap(), 10);
        let error = read(11).unwrap_err().to_string();
        assert!(error.starts_with("its 1 bytes unpack to more than 10"), "{error}");
    }
}
