//! Layer tar to snapshot, in upper form (image-spec layer.md, "Applying changesets").
//!
//! A layer is unpacked without those below it, so that all layers of an image can be unpacked at once. What depends
//! on them is little, and left for [`finish_deferred`]. One thread reads (and decompresses, if the reader does), another
//! hashes and makes files. Read `unpack.rs` next.

use super::LayerError;
use super::reader::{TarReader, read_buffered};
use super::unpack::Unpacker;
use crate::digest::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

pub use super::deferred::finish_deferred;

/// Size of the pieces that go from one thread to the other, in bytes.
const CHUNK: usize = 256 << 10;
/// How many of them there are at most: where files are large the one thread is ahead, where they are small the other.
const CHUNKS: usize = 16;

/// What unpacking a layer gave.
#[derive(Debug)]
pub struct Applied {
    /// Digest of the tar that was read, to its last byte; the caller compares it with the image's.
    pub diff_id: Digest,
    /// Length of the tar in bytes.
    pub size: u64,
    /// What needs the layers below.
    pub deferred: Deferred,
    /// Device nodes that this process may not make, relative to the root: not fatal, but worth a warning.
    pub skipped_devices: Vec<PathBuf>,
}

/// What of a layer can only be finished when those below it are there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// Hard links, in the tar's order: name, and the target that is not in this layer.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Directories that the tar has no entry for, sorted; the root is the empty path.
    pub parents: Vec<PathBuf>,
    /// The layer hides all below it, which overlayfs has no mark for on a root.
    pub opaque_root: bool,
}

/// Unpacks one layer's uncompressed tar into `upper`, an existing empty directory. Never writes outside of it.
/// After it comes [`finish_deferred`], for the lowest layer too.
pub fn apply(tar: impl Read + Send, upper: &Path) -> Result<Applied, LayerError> {
    let (full, from_pump) = sync_channel(CHUNKS);
    let (to_pump, empty) = channel();
    std::thread::scope(|scope| {
        let pump = scope.spawn(move || pump(tar, &full, &empty));
        let reader = ChunkReader {
            from_pump,
            to_pump,
            chunk: Chunk { bytes: Vec::new(), length: 0 },
            position: 0,
            hasher: Sha256::new(),
            size: 0,
        };
        let unpacked = unpack(reader, upper);
        let pumped = pump.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let applied = unpacked?;
        pumped.map_err(LayerError::Read)?;
        Ok(applied)
    })
}

/// The reader ends with this, so that [`pump`] ends too if this fails.
fn unpack(mut reader: ChunkReader, upper: &Path) -> Result<Applied, LayerError> {
    let mut tar = TarReader::new(&mut reader);
    let mut unpacker = Unpacker::new(upper)?;
    while let Some(entry) = tar.next()? {
        unpacker.entry(&entry, &mut tar)?;
    }
    // Bytes behind the end of the archive count for the digest.
    tar.drain()?;
    let (deferred, skipped_devices) = unpacker.finish()?;
    let ChunkReader { hasher, size, .. } = reader;
    Ok(Applied { diff_id: Digest::from_sha256(hasher.finalize().into()), size, deferred, skipped_devices })
}

struct Chunk {
    bytes: Vec<u8>,
    length: usize,
}

/// Reads to the end, or until the other side is gone.
fn pump(mut tar: impl Read, full: &SyncSender<io::Result<Chunk>>, empty: &Receiver<Chunk>) -> io::Result<()> {
    let mut made = 0;
    loop {
        let mut chunk = if made < CHUNKS {
            made += 1;
            Chunk { bytes: vec![0; CHUNK], length: 0 }
        } else {
            match empty.recv() {
                Ok(chunk) => chunk,
                Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
            }
        };
        chunk.length = 0;
        while chunk.length < CHUNK {
            match tar.read(&mut chunk.bytes[chunk.length..]) {
                Ok(0) => break,
                Ok(length) => chunk.length += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let _ = full.send(Err(error));
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
        }
        if chunk.length == 0 {
            return Ok(());
        }
        if full.send(Ok(chunk)).is_err() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
}

/// The other end of [`pump`].
struct ChunkReader {
    from_pump: Receiver<io::Result<Chunk>>,
    to_pump: Sender<Chunk>,
    chunk: Chunk,
    position: usize,
    /// Of all chunks that came, to this one's end.
    hasher: Sha256,
    size: u64,
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.chunk.length {
            // No more of them: the end, or an error that came before.
            if let Ok(next) = self.from_pump.recv() {
                let old = std::mem::replace(&mut self.chunk, next?);
                self.position = 0;
                self.hasher.update(&self.chunk.bytes[..self.chunk.length]);
                self.size += self.chunk.length as u64;
                if !old.bytes.is_empty() {
                    let _ = self.to_pump.send(old);
                }
            }
        }
        Ok(&self.chunk.bytes[self.position..self.chunk.length])
    }

    fn consume(&mut self, length: usize) {
        self.position += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::header::{Header, pad};
    use crate::test_tree::{is_root, list, list_with_times, make, overlay};
    use std::os::fd::AsFd;
    use std::process::Command;

    /// A tar of entries, one a line: `d name [mode]`, `f name content`, `l name target`, `h name target`, `c name`
    /// (device 1:3), `? name` (a type that tar does not know). Time 7, owner 3.
    fn tar(lines: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let rest = words.get(2).copied().unwrap_or_default();
            let typeflag = match words[0] {
                "d" => b'5',
                "f" => b'0',
                "l" => b'2',
                "h" => b'1',
                "c" => b'3',
                _ => b'?',
            };
            let data = if typeflag == b'0' { rest } else { "" };
            let mode = if typeflag == b'5' { u32::from_str_radix(rest, 8).unwrap_or(0o700) } else { 0o640 };
            let header = Header {
                typeflag,
                name: words[1].as_bytes(),
                link: if matches!(typeflag, b'1' | b'2') { rest.as_bytes() } else { b"" },
                mode,
                uid: 3,
                gid: 3,
                size: data.len() as u64,
                mtime: 7,
                device: if typeflag == b'3' { (1, 3) } else { (0, 0) },
                xattrs: &[],
            };
            header.write(&mut out).unwrap();
            out.extend(data.as_bytes());
            pad(data.len() as u64, &mut out).unwrap();
        }
        out.extend([0; 1024]);
        out
    }

    /// What `entries` become on top of `below`, seen in upper form, without times.
    fn check(below: &[&str], entries: &[&str], expect: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["below", "empty", "outside", "outside/upper"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        make(&path("below"), below);
        let lower = overlay(&[&path("empty"), &path("below")], None);
        let upper = path("outside/upper");
        let applied = apply(&tar(entries)[..], &upper).unwrap();
        finish_deferred(&upper, &applied.deferred, Some(lower.as_fd()), None).unwrap();
        let actual: Vec<String> = list(&upper).into_iter().map(|(name, what)| format!("{name}: {what}")).collect();
        assert_eq!(actual, expect, "{entries:?}");
        assert_eq!(std::fs::read_dir(path("outside")).unwrap().count(), 1, "{entries:?}");
        let again = list_with_times(&upper);
        finish_deferred(&upper, &applied.deferred, Some(lower.as_fd()), None).unwrap();
        assert_eq!(list_with_times(&upper), again, "finished twice: {entries:?}");
    }

    #[test]
    fn entries_become_files() {
        if !is_root() {
            return;
        }
        check(&[], &["d ./", "d ./a/", "f ./a/f x"], &["a: dir 700 3:3", "a/f: file \"x\" 640 3:3"]);
        // In a user namespace there are no devices to be made.
        let dir = tempfile::tempdir().unwrap();
        let applied = apply(&tar(&["c null", "f f x"])[..], dir.path()).unwrap();
        let made = list(dir.path()).get("null").is_some_and(|what| what == "node 20000 259 640 3:3");
        assert_eq!(applied.skipped_devices.is_empty(), made);
        assert!(dir.path().join("f").exists());
        // The last entry of a name wins; directories keep what is in them.
        check(
            &[],
            &["f a x", "d a", "f a/f y", "d a 711", "f b 1", "l b c"],
            &["a: dir 711 3:3", "a/f: file \"y\" 640 3:3", "b: -> c 777 3:3"],
        );
        check(&[], &["d a", "f a/f x", "f a y", "h b a"], &["a: file \"y\" 640 3:3 = a", "b: file \"y\" 640 3:3 = a"]);
        check(&[], &["h a a"], &[]);
    }

    #[test]
    fn nothing_leaves_the_root() {
        if !is_root() {
            return;
        }
        check(&[], &["f ../../x 1", "f /y 2"], &["x: file \"1\" 640 3:3", "y: file \"2\" 640 3:3"]);
        check(
            &[],
            &["l up ../..", "f up/x 1", "l abs /", "f abs/y 2", "h z up/../../x"],
            &[
                "abs: -> / 777 3:3",
                "up: -> ../.. 777 3:3",
                "x: file \"1\" 640 3:3 = x",
                "y: file \"2\" 640 3:3",
                "z: file \"1\" 640 3:3 = x",
            ],
        );
        // A symlink in the last place is replaced, never written through.
        check(&[], &["l x /outside", "f x 1", "l d ..", "d d"], &["d: dir 700 3:3", "x: file \"1\" 640 3:3"]);
        check(&[], &["l a b", "f a/f x"], &["a: -> b 777 3:3", "b: dir 755 0:0", "b/f: file \"x\" 640 3:3"]);
    }

    #[test]
    fn deletions() {
        if !is_root() {
            return;
        }
        check(
            &["d d 711", "f d/x 1", "f f 1"],
            &["f .wh.f ", "f d/.wh.x ", "f d/.wh..wh.plnk ", "f .wh..wh.aufs "],
            &["d: dir 711 0:0", "d/x: whiteout 0 0:0", "f: whiteout 0 0:0"],
        );
        check(
            &["d d 711", "f d/x 1"],
            &["f d/.wh..wh..opq ", "f d/y 2"],
            &["d: dir 711 0:0 user.overlay.opaque=y", "d/y: file \"2\" 640 3:3"],
        );
        check(&["d d", "f d/x 1"], &["f .wh.d ", "d d"], &["d: dir 700 3:3 user.overlay.opaque=y"]);
        check(
            &["d d 711", "f d/x 1"],
            &["f .wh.d ", "f d/y 2"],
            &["d: dir 755 0:0 user.overlay.opaque=y", "d/y: file \"2\" 640 3:3"],
        );
        check(&[], &["d d", "f d/y 2", "f .wh.d "], &["d: whiteout 0 0:0"]);
        check(
            &["d a", "d b", "f c 1"],
            &["f .wh..wh..opq ", "d b"],
            &["a: whiteout 0 0:0", "b: dir 700 3:3 user.overlay.opaque=y", "c: whiteout 0 0:0"],
        );
    }

    #[test]
    fn what_is_below_shows_through() {
        if !is_root() {
            return;
        }
        check(
            &["d d 711", "d d/e 2755"],
            &["f d/e/f x", "f n/f y"],
            &[
                "d: dir 711 0:0",
                "d/e: dir 2755 0:0",
                "d/e/f: file \"x\" 640 3:3",
                "n: dir 755 0:0",
                "n/f: file \"y\" 640 3:3",
            ],
        );
        // Files that the tar has by way of a symlink below go where that points to.
        check(
            &["d usr/lib 711", "l lib usr/lib"],
            &["f lib/sub/f x"],
            &[
                "usr: dir 755 0:0",
                "usr/lib: dir 711 0:0",
                "usr/lib/sub: dir 755 0:0",
                "usr/lib/sub/f: file \"x\" 640 3:3",
            ],
        );
        check(
            &["d usr/lib", "l lib usr/lib"],
            &["d usr", "d usr/lib 700", "f usr/lib/a 1", "f lib/b 2", "f lib/a 3"],
            &[
                "usr: dir 700 3:3",
                "usr/lib: dir 700 3:3",
                "usr/lib/a: file \"3\" 640 3:3",
                "usr/lib/b: file \"2\" 640 3:3",
            ],
        );
        check(&["l lib usr/lib"], &["d lib", "f lib/f x"], &["lib: dir 700 3:3", "lib/f: file \"x\" 640 3:3"]);
        check(&["l loop loop"], &["f loop/f x"], &["loop: dir 755 0:0", "loop/f: file \"x\" 640 3:3"]);
        check(
            &["l dangling no/where"],
            &["f dangling/f x"],
            &["no: dir 755 0:0", "no/where: dir 755 0:0", "no/where/f: file \"x\" 640 3:3"],
        );
    }

    #[test]
    fn links_to_what_is_below() {
        if !is_root() {
            return;
        }
        check(
            &["d d 711", "f d/f x 600"],
            &["h n d/f", "h m n"],
            &[
                "d: dir 711 0:0",
                "d/f: file \"x\" 600 0:0 = d/f",
                "m: file \"x\" 600 0:0 = d/f",
                "n: file \"x\" 600 0:0 = d/f",
            ],
        );
        check(&["f f x"], &["h n f", "f .wh.f "], &["f: whiteout 0 0:0", "n: file \"x\" 644 0:0"]);
        check(&["f f x"], &["f n y", "h n f", "f .wh.f "], &["f: whiteout 0 0:0", "n: file \"x\" 644 0:0"]);
        check(&["f f x"], &["h n f", "f n y"], &["n: file \"y\" 640 3:3"]);
        let dir = tempfile::tempdir().unwrap();
        let applied = apply(&tar(&["h n f"])[..], dir.path()).unwrap();
        let result = finish_deferred(dir.path(), &applied.deferred, None, None);
        assert!(matches!(result, Err(LayerError::DanglingLink { .. })), "{result:?}");
    }

    #[test]
    fn damage_is_told() {
        let check = |tar: &[u8], expect: &str| {
            let dir = tempfile::tempdir().unwrap();
            let error = apply(tar, dir.path()).unwrap_err();
            assert!(format!("{error:?}").contains(expect), "{error:?}");
        };
        let good = tar(&["f a 12345"]);
        check(&good[..700], "UnexpectedEof");
        check(&good[..300], "UnexpectedEof");
        let mut flipped = good.clone();
        flipped[100] ^= 1;
        check(&flipped, "wrong header checksum");
        check(&tar(&["? a"]), "UnknownType");
        check(&tar(&["f .wh... "]), "whiteout of no name");
        let dir = tempfile::tempdir().unwrap();
        apply(&good[..1024], dir.path()).unwrap();
        let trailing = [&good[..], b"more"].concat();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(apply(&trailing[..], dir.path()).unwrap().diff_id, Digest::of(&trailing));
    }

    #[test]
    fn dialects_of_gnu_tar() {
        let dir = tempfile::tempdir().unwrap();
        let long = "n".repeat(150);
        let from = dir.path().join("from");
        std::fs::create_dir(&from).unwrap();
        make(&from, &[&format!("f {long} x"), &format!("l link {long}"), "f plain data"]);
        let mut holes = std::fs::File::create(from.join("holes")).unwrap();
        for part in 0..30u64 {
            use std::io::{Seek, Write};
            holes.seek(io::SeekFrom::Start(part * 100_000)).unwrap();
            holes.write_all(b"island").unwrap();
        }
        holes.set_len(5_000_000).unwrap();
        let options: [&[&str]; 6] = [
            &["--format=gnu"],
            &["--format=gnu", "--sparse"],
            &["--format=posix"],
            &["--format=posix", "--sparse", "--sparse-version=0.0"],
            &["--format=posix", "--sparse", "--sparse-version=0.1"],
            &["--format=posix", "--sparse", "--sparse-version=1.0"],
        ];
        for (index, options) in options.into_iter().enumerate() {
            let made = Command::new("tar").args(options).arg("-C").arg(&from).args(["-c", "."]).output();
            let Ok(made) = made else {
                println!("skipped: there is no tar program");
                return;
            };
            let upper = dir.path().join(index.to_string());
            std::fs::create_dir(&upper).unwrap();
            let applied = apply(&made.stdout[..], &upper).unwrap();
            assert!(applied.deferred.parents.is_empty(), "{options:?}");
            assert!(list(&upper) == list(&from), "{options:?}");
        }
    }
}
