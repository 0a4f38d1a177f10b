//! A tar on its way from the thread that writes it to one that reads it.

use std::io::{self, Cursor, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Bytes that go over at once.
const PIECE: usize = 256 << 10;

/// A pipe: what is written at one end, buffered, is read at the other.
pub(super) fn new() -> (PipeWriter, PipeReader) {
    let (sender, receiver) = sync_channel(2);
    let reader = PipeReader { pieces: receiver, piece: Cursor::new(Vec::new()) };
    (PipeWriter { pieces: sender, piece: Vec::with_capacity(PIECE) }, reader)
}

/// Flushed when all is written.
pub(super) struct PipeWriter {
    pieces: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
}

impl Write for PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let length = buf.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&buf[..length]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.pieces.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Ends when the writer is gone.
pub(super) struct PipeReader {
    pieces: Receiver<Vec<u8>>,
    piece: Cursor<Vec<u8>>,
}

impl Read for PipeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.position() == self.piece.get_ref().len() as u64 {
            match self.pieces.recv() {
                Ok(piece) => self.piece = Cursor::new(piece),
                Err(_) => return Ok(0),
            }
        }
        self.piece.read(buffer)
    }
}
