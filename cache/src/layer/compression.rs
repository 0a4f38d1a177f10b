//! Layer blobs: compressed, with digest and diff_id from one pass.
//!
//! A tar is cut into blocks of a fixed size, each compressed on its own: to a gzip member (RFC 1952 2.2 lets members
//! follow one another) or a zstd frame. So the bytes depend on the tar and the level, never on the number of threads.
//! The writer hashes the tar, workers compress, the writer collects their blocks in order; the buffers go round.

use super::gzip::{self, SampledGzip};
use super::pipe::{self, PipeWriter};
use super::{LayerError, estargz};
use crate::content::local::{BlobWriter, LocalContent};
use crate::digest::{Descriptor, Digest};
use libdeflater::Compressor;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Bytes of tar in a gzip member. Part of what a blob's bytes depend on, as are the versions of the compressors.
const GZIP_BLOCK: usize = 1 << 20;
/// Bytes of tar in a zstd frame: as much as zstd's window at its default level reaches back, twice.
const ZSTD_BLOCK: usize = 4 << 20;

const ZSTD_LEVEL: i32 = 3;

/// Memory for the blocks of one layer, in bytes; so many threads as have two blocks each, before and after.
const MEMORY: usize = 64 << 20;

/// How a layer's blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compression {
    /// The tar itself.
    Uncompressed,
    /// gzip.
    Gzip {
        /// 0 to 9; what is above counts as 9. By default 4, 1 or 0 for each block, as a sample of it tells.
        level: Option<u32>,
    },
    /// gzip with a table of contents; see `estargz.rs`.
    Estargz {
        /// As for gzip.
        level: Option<u32>,
    },
    /// zstd; the default level is 3.
    Zstd {
        /// 1 to 22; what is outside counts as the nearest.
        level: Option<i32>,
    },
}

/// Two families of media types that name the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaTypes {
    /// `application/vnd.oci.image.*`
    Oci,
    /// `application/vnd.docker.*`, schema 2.
    Docker,
}

/// A layer's blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// Of the blob, with the OCI media type.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// For the descriptor in the image's manifest.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl LayerBlob {
    /// One that is not annotated.
    pub fn plain(descriptor: Descriptor, diff_id: Digest) -> LayerBlob {
        LayerBlob { descriptor, diff_id, annotations: BTreeMap::new() }
    }
}

impl Compression {
    /// Of what begins with these bytes, four at least if there are so many; the level is not known.
    pub fn of_start(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip { level: None },
            // A frame, or a skippable frame before one (RFC 8878 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd { level: None },
            _ => Compression::Uncompressed,
        }
    }

    /// Media type of a layer so compressed.
    pub fn media_type(&self, family: MediaTypes) -> &'static str {
        match (family, self) {
            (MediaTypes::Oci, Compression::Uncompressed) => "application/vnd.oci.image.layer.v1.tar",
            (MediaTypes::Oci, Compression::Gzip { .. } | Compression::Estargz { .. }) => {
                "application/vnd.oci.image.layer.v1.tar+gzip"
            }
            (MediaTypes::Oci, Compression::Zstd { .. }) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (MediaTypes::Docker, Compression::Uncompressed) => "application/vnd.docker.image.rootfs.diff.tar",
            (MediaTypes::Docker, Compression::Gzip { .. } | Compression::Estargz { .. }) => {
                "application/vnd.docker.image.rootfs.diff.tar.gzip"
            }
            (MediaTypes::Docker, Compression::Zstd { .. }) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }

    fn block_size(&self) -> usize {
        match self {
            Compression::Uncompressed => 256 << 10,
            Compression::Gzip { .. } => GZIP_BLOCK,
            // A chunk and the headers behind it.
            Compression::Estargz { .. } => estargz::CHUNK + (1 << 20),
            Compression::Zstd { .. } => ZSTD_BLOCK,
        }
    }

    fn encoder(&self) -> io::Result<Encoder> {
        match self {
            Compression::Uncompressed => Ok(Encoder::None),
            Compression::Gzip { level: Some(level) } | Compression::Estargz { level: Some(level) } => {
                Ok(Encoder::Gzip(gzip::compressor((*level).min(9))?))
            }
            Compression::Gzip { level: None } | Compression::Estargz { level: None } => {
                Ok(Encoder::SampledGzip(Box::new(SampledGzip::new()?)))
            }
            Compression::Zstd { level } => {
                let mut compressor = zstd::bulk::Compressor::new(level.unwrap_or(ZSTD_LEVEL).clamp(1, 22))?;
                compressor.include_checksum(true)?;
                Ok(Encoder::Zstd(compressor))
            }
        }
    }
}

/// Algorithm and level, such as `gzip-4`: equal for settings that give equal bytes.
impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::Uncompressed => f.write_str("uncompressed"),
            Compression::Gzip { level: None } => f.write_str("gzip-sampled"),
            Compression::Estargz { level: None } => f.write_str("estargz-sampled"),
            Compression::Estargz { level: Some(level) } => write!(f, "estargz-{}", (*level).min(9)),
            Compression::Gzip { level: Some(level) } => write!(f, "gzip-{}", (*level).min(9)),
            Compression::Zstd { level } => write!(f, "zstd-{}", level.unwrap_or(ZSTD_LEVEL).clamp(1, 22)),
        }
    }
}

/// Stores the tar that `write` writes, compressed on `threads` threads (one at least) beside the caller's. A tar of
/// one block is compressed on the caller's.
pub fn write_blob(
    content: &LocalContent,
    compression: Compression,
    threads: usize,
    write: impl FnOnce(&mut LayerSink) -> Result<(), LayerError>,
) -> Result<LayerBlob, LayerError> {
    let most = MEMORY / (4 * compression.block_size());
    let mut members = Members {
        compression,
        threads: threads.clamp(1, most),
        blob: content.writer()?,
        diff_id: Sha256::new(),
        block: Vec::with_capacity(compression.block_size()),
        spare: Vec::new(),
        running: VecDeque::new(),
        workers: None,
        sizes: Vec::new(),
        started: 0,
        tar_size: 0,
    };
    if let Compression::Estargz { .. } = compression {
        let (sink, tar) = pipe::new();
        return std::thread::scope(|scope| {
            let writer = scope.spawn(move || estargz::write(members, tar));
            let mut sink = LayerSink(Target::Pipe(sink));
            let written = write(&mut sink).and_then(|()| sink.flush().map_err(LayerError::Write));
            drop(sink);
            let blob = writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            // If it failed, the sink only broke after that.
            blob.and_then(|blob| written.map(|()| blob))
        });
    }
    let mut sink = LayerSink(Target::Members(&mut members));
    write(&mut sink)?;
    members.finish(&[])
}

/// What a layer's tar is written into. Holds some blocks for each thread, whatever the tar's size.
pub struct LayerSink<'a>(Target<'a>);

enum Target<'a> {
    Members(&'a mut Members),
    Pipe(PipeWriter),
}

impl Write for LayerSink<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Target::Members(members) => members.write(buf),
            Target::Pipe(pipe) => pipe.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Target::Members(members) => members.flush(),
            Target::Pipe(pipe) => pipe.flush(),
        }
    }
}

/// The members of a blob, as the tar goes into them.
pub(super) struct Members {
    compression: Compression,
    threads: usize,
    blob: BlobWriter,
    diff_id: Sha256,
    block: Vec<u8>,
    spare: Vec<Job>,
    running: VecDeque<Receiver<io::Result<Job>>>,
    workers: Option<Workers>,
    /// Of those that are written, in bytes.
    sizes: Vec<u64>,
    /// How many were begun and are full.
    started: usize,
    tar_size: u64,
}

/// A block and what it is compressed to.
#[derive(Default)]
struct Job {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Write for Members {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let block_size = self.compression.block_size();
        if self.block.len() == block_size {
            self.start_block()?;
        }
        let length = buf.len().min(block_size - self.block.len());
        self.block.extend_from_slice(&buf[..length]);
        self.tar_size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Members {
    /// Ends the member; the number of the next one, from 0.
    pub(super) fn cut(&mut self) -> io::Result<usize> {
        if !self.block.is_empty() {
            self.start_block()?;
        }
        Ok(self.started)
    }

    /// Bytes of each member, when all are written.
    pub(super) fn sizes(&mut self) -> io::Result<&[u64]> {
        while !self.running.is_empty() {
            self.collect_block()?;
        }
        Ok(&self.sizes)
    }

    /// Bytes of the tar so far.
    pub(super) fn tar_size(&self) -> u64 {
        self.tar_size
    }

    /// Hands a full block to the workers, more of the tar being to come.
    fn start_block(&mut self) -> io::Result<()> {
        if self.compression == Compression::Uncompressed {
            // The blob is the tar, and its writer hashes it.
            self.blob.write_all(&self.block)?;
            self.block.clear();
            return Ok(());
        }
        self.diff_id.update(&self.block);
        if self.running.len() >= 2 * self.threads {
            self.collect_block()?;
        }
        let mut job = self.spare.pop().unwrap_or_default();
        std::mem::swap(&mut job.input, &mut self.block);
        self.block.clear();
        self.block.reserve(self.compression.block_size());
        if self.workers.is_none() {
            self.workers = Some(Workers::start(self.compression, self.threads)?);
        }
        let (done, result) = channel();
        let workers = self.workers.as_ref().expect("started just now");
        workers.jobs.send((job, done)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.running.push_back(result);
        self.started += 1;
        Ok(())
    }

    /// Waits for the oldest block and writes it.
    fn collect_block(&mut self) -> io::Result<()> {
        if let Some(result) = self.running.pop_front() {
            let job = result.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
            self.blob.write_all(&job.output)?;
            self.sizes.push(job.output.len() as u64);
            self.spare.push(job);
        }
        Ok(())
    }

    /// Writes what is left, and `footer` as it is, which is no part of the tar.
    pub(super) fn finish(mut self, footer: &[u8]) -> Result<LayerBlob, LayerError> {
        let mut last = || -> io::Result<()> {
            while !self.running.is_empty() {
                self.collect_block()?;
            }
            if self.compression != Compression::Uncompressed {
                self.diff_id.update(&self.block);
            }
            let mut job = self.spare.pop().unwrap_or_default();
            std::mem::swap(&mut job.input, &mut self.block);
            self.compression.encoder()?.encode(&mut job)?;
            self.blob.write_all(&job.output)?;
            self.blob.write_all(footer)
        };
        last().map_err(LayerError::Write)?;
        let media_type = self.compression.media_type(MediaTypes::Oci).to_string();
        let (digest, size) = self.blob.commit(None)?;
        let diff_id = match self.compression {
            Compression::Uncompressed => digest.clone(),
            _ => Digest::from_sha256(self.diff_id.finalize().into()),
        };
        Ok(LayerBlob::plain(Descriptor { media_type, digest, size }, diff_id))
    }
}

enum Encoder {
    None,
    Gzip(Compressor),
    SampledGzip(Box<SampledGzip>),
    Zstd(zstd::bulk::Compressor<'static>),
}

impl Encoder {
    fn encode(&mut self, job: &mut Job) -> io::Result<()> {
        match self {
            Encoder::None => std::mem::swap(&mut job.input, &mut job.output),
            Encoder::Gzip(compressor) => gzip::member(compressor, &job.input, &mut job.output)?,
            Encoder::SampledGzip(sampled) => gzip::member(sampled.choose(&job.input)?, &job.input, &mut job.output)?,
            Encoder::Zstd(compressor) => {
                job.output.clear();
                job.output.reserve(zstd::zstd_safe::compress_bound(job.input.len()));
                compressor.compress_to_buffer(&job.input, &mut job.output)?;
            }
        }
        Ok(())
    }
}

type Task = (Job, Sender<io::Result<Job>>);

struct Workers {
    jobs: Sender<Task>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(compression: Compression, count: usize) -> io::Result<Workers> {
        let (jobs, queue) = channel::<Task>();
        let queue = Arc::new(Mutex::new(queue));
        let mut workers = Workers { jobs, threads: Vec::new() };
        for _ in 0..count {
            let (queue, mut encoder) = (queue.clone(), compression.encoder()?);
            let work = move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((mut job, done)) = next else { return };
                    let result = encoder.encode(&mut job).map(|()| job);
                    // Nobody waits for it any more if the layer failed.
                    let _ = done.send(result);
                }
            };
            workers.threads.push(std::thread::Builder::new().name("compress".into()).spawn(work)?);
        }
        Ok(workers)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // Workers leave when the queue has no sender.
        self.jobs = channel().0;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Reads what is gzip (of any number of members), zstd (of any number of frames) or plain, told by its first bytes.
pub fn decompressor<'a>(mut reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = Vec::with_capacity(4);
    reader.by_ref().take(4).read_to_end(&mut magic)?;
    let compression = Compression::of_start(&magic);
    let whole = BufReader::with_capacity(128 << 10, Cursor::new(magic).chain(reader));
    Ok(match compression {
        Compression::Uncompressed => Box::new(whole),
        Compression::Gzip { .. } | Compression::Estargz { .. } => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Compression::Zstd { .. } => Box::new(zstd::Decoder::with_buffer(whole)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                // Five bits, so that there is something to gain.
                b'a' + (state >> 59) as u8
            })
            .collect()
    }

    #[test]
    fn blobs_read_back_and_do_not_depend_on_threads() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let check = |compression: Compression, data: &[u8]| {
            let write = |threads| {
                write_blob(store.content(), compression, threads, |sink| {
                    data.chunks(70_000).try_for_each(|piece| sink.write_all(piece)).map_err(LayerError::Write)
                })
                .unwrap()
            };
            let blob = write(1);
            assert_eq!(blob, write(3), "{compression}");
            assert_eq!(blob.diff_id, Digest::of(data));
            assert_eq!(store.content().has(&blob.descriptor.digest).unwrap(), Some(blob.descriptor.size));
            let mut back = Vec::new();
            let file = store.content().open(&blob.descriptor.digest).unwrap();
            decompressor(file).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == data, "{compression}: {} bytes became {}", data.len(), back.len());
            if compression != Compression::Uncompressed && data.len() > 10_000 {
                assert!(blob.descriptor.size < data.len() as u64 * 3 / 4, "{compression}");
            }
        };
        let levels = [
            Compression::Uncompressed,
            Compression::Gzip { level: None },
            Compression::Gzip { level: Some(1) },
            Compression::Zstd { level: None },
        ];
        let data = noise((5 << 20) + 17);
        for compression in levels {
            for length in [1024, 1 << 20, data.len()] {
                check(compression, &data[..length]);
            }
        }
    }

    #[test]
    fn what_others_compress_is_read() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(b"one").unwrap();
        let one = encoder.finish().unwrap();
        let frame = zstd::encode_all(&b"one"[..], 0).unwrap();
        let skippable = [&b"\x50\x2a\x4d\x18\x02\0\0\0xx"[..], &frame].concat();
        for (bytes, expect) in [
            ([&one[..], &one].concat(), &b"oneone"[..]),
            ([&frame[..], &frame].concat(), b"oneone"),
            (skippable, b"one"),
            (b"plain".to_vec(), b"plain"),
            (b"pl".to_vec(), b"pl"),
            (Vec::new(), b""),
        ] {
            let mut back = Vec::new();
            decompressor(&bytes[..]).unwrap().read_to_end(&mut back).unwrap();
            assert_eq!(back, expect);
        }
        let mut damaged = one.clone();
        let middle = damaged.len() - 6;
        damaged[middle] ^= 1;
        assert!(decompressor(&damaged[..]).unwrap().read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn a_failing_layer_leaves_no_blob() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let result = write_blob(store.content(), Compression::Gzip { level: None }, 2, |sink| {
            sink.write_all(&noise(3 << 20)).map_err(LayerError::Write)?;
            Err(LayerError::Malformed { offset: 0, what: "a test" })
        });
        assert!(result.is_err());
        assert_eq!(std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
    }
}
