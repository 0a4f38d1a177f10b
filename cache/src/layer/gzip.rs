//! gzip members. Without a level given, each block gets the effort that pays for it.

use libdeflater::{CompressionLvl, Compressor};
use std::io;

/// libdeflate's 4 is as fast as zlib's 1 or 2 and smaller than Go's default.
const LEVEL: u32 = 4;
/// Half as fast again: for blocks of which [`LEVEL`] would save next to nothing more.
const QUICK_LEVEL: u32 = 1;
/// Slices of a block that are tried on, and bytes of each.
const SLICES: usize = 4;
const SLICE: usize = 4 << 10;
/// Less than one part in so many is next to nothing.
const WORTH: usize = 200;
/// Of a level from 0 to 9.
pub(super) fn compressor(level: u32) -> io::Result<Compressor> {
    let level = CompressionLvl::new(level as i32).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(Compressor::new(level))
}

/// Makes one gzip member of `block` in place of what is in `out`. Its header has no name and no time.
pub(super) fn member(compressor: &mut Compressor, block: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.resize(compressor.gzip_compress_bound(block.len()), 0);
    let length = compressor.gzip_compress(block, out).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    out.truncate(length);
    Ok(())
}

/// Compressors of several levels. Which one takes a block, a sample of the block decides and nothing else, so equal
/// blocks give equal bytes.
pub(super) struct SampledGzip {
    best: Compressor,
    quick: Compressor,
    stored: Compressor,
    sample: Vec<u8>,
    tried: Vec<u8>,
}

impl SampledGzip {
    pub(super) fn new() -> io::Result<SampledGzip> {
        let [best, quick, stored] = [LEVEL, QUICK_LEVEL, 0].map(compressor);
        Ok(SampledGzip { best: best?, quick: quick?, stored: stored?, sample: Vec::new(), tried: Vec::new() })
    }

    /// Many files were compressed before, and text of few words is as small at any level.
    pub(super) fn choose(&mut self, block: &[u8]) -> io::Result<&mut Compressor> {
        // What is small is not worth a look.
        if block.len() < 4 * SLICES * SLICE {
            return Ok(&mut self.best);
        }
        self.sample.clear();
        for part in block.chunks(block.len() / SLICES).take(SLICES) {
            let start = (part.len() - SLICE) / 2;
            self.sample.extend_from_slice(&part[start..start + SLICE]);
        }
        member(&mut self.quick, &self.sample, &mut self.tried)?;
        let (size, quick) = (self.sample.len(), self.tried.len());
        if quick > size - size / WORTH {
            return Ok(&mut self.stored);
        }
        member(&mut self.best, &self.sample, &mut self.tried)?;
        let best = self.tried.len();
        Ok(if quick < best + best / WORTH { &mut self.quick } else { &mut self.best })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_get_the_level_that_pays() {
        let mut sampled = SampledGzip::new().unwrap();
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        let length = 1 << 20;
        let random: Vec<u8> = (0..length).map(|_| noise()).collect();
        let letters: Vec<u8> = (0..length).map(|_| b'a' + (noise() >> 3)).collect();
        let words = ["the ", "layer ", "of ", "an ", "image ", "is ", "a ", "tar ", "archive, ", "which ", "holds "];
        let text: Vec<u8> = std::iter::repeat_with(|| words[usize::from(noise()) % words.len()].bytes())
            .flatten()
            .take(length)
            .collect();
        let mut check = |block: &[u8], level: u32| {
            let (mut expect, mut out) = (Vec::new(), Vec::new());
            member(&mut compressor(level).unwrap(), block, &mut expect).unwrap();
            member(sampled.choose(block).unwrap(), block, &mut out).unwrap();
            assert!(out == expect, "level {level}");
        };
        check(&random, 0);
        check(&letters, QUICK_LEVEL);
        check(&text, LEVEL);
        // Too little to be worth a look.
        check(&random[..10_000], LEVEL);
    }
}
