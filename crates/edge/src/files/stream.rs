//! A file, or a part of it, read as it is sent: one piece in memory, reading off the serving threads.

use std::fs::File;
use std::future::Future as _;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::task::JoinHandle;

const PIECE: u64 = 256 * 1024;

/// The body.
pub struct FileBody {
    file: Arc<File>,
    at: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    /// `length` bytes from `at`.
    pub fn new(file: File, at: u64, length: u64) -> Self {
        Self { file: Arc::new(file), at, left: length, reading: None }
    }

    /// Bytes not sent yet.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let reading = self.reading.get_or_insert_with(|| {
            let (file, at, want) = (self.file.clone(), self.at, self.left.min(PIECE));
            tokio::task::spawn_blocking(move || read(&file, at, want))
        });
        let result = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let piece = result.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()));
        if let Ok(piece) = &piece {
            self.at += piece.len() as u64;
            self.left -= piece.len() as u64;
        }
        Poll::Ready(Some(piece))
    }
}

/// Reads up to `want` bytes; a file that has become shorter is an error, as its length has been promised.
fn read(file: &File, at: u64, want: u64) -> io::Result<Bytes> {
    let mut piece = vec![0; want as usize];
    let n = file.read_at(&mut piece, at)?;
    if n == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    piece.truncate(n);
    Ok(piece.into())
}
