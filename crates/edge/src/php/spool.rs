//! Bodies before a worker is taken for them, so that slow clients do not hold workers.
//!
//! Small ones are collected in memory. The first part of a big one tells how fast its client is: a fast one is then
//! streamed to PHP as it comes, a slow one is collected in an unlinked file first. A body whose length the client does not
//! say is always collected, because PHP must know it before the first byte.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};

use crate::fastcgi::exchange::{Fault, Source};

const MEMORY: usize = 256 * 1024;
const STALL: Duration = Duration::from_secs(60);

/// A client that sends the first part within this time is fast.
const FAST: Duration = Duration::from_millis(250);

/// Collects a body of at most `largest` bytes; `folder` takes the file of a big one. One that is `kept` is collected whole,
/// so that it can be sent a second time.
pub async fn spool(
    mut body: Incoming,
    said: Option<u64>,
    largest: u64,
    folder: &Path,
    kept: bool,
) -> Result<(Source, u64), Fault> {
    let mut memory = BytesMut::new();
    let mut file: Option<tokio::fs::File> = None;
    let mut length = 0u64;
    let begun = Instant::now();
    while let Some(frame) =
        tokio::time::timeout(STALL, body.frame()).await.map_err(|_| Fault::ClientGone)?
    {
        let Ok(data) = frame.map_err(|_| Fault::ClientGone)?.into_data() else { continue };
        length += data.len() as u64;
        if length > largest {
            return Err(Fault::TooLarge);
        }
        if let Some(said) = said
            && !kept
            && file.is_none()
            && memory.len() + data.len() > MEMORY
            && begun.elapsed() < FAST
        {
            memory.extend_from_slice(&data);
            return Ok((Source::Client(memory.freeze(), body), said));
        }
        if file.is_none() && memory.len() + data.len() > MEMORY {
            file = Some(
                begin(folder, &std::mem::take(&mut memory)).await.map_err(|error| full(&error))?,
            );
        }
        match &mut file {
            Some(file) => file.write_all(&data).await.map_err(|error| full(&error))?,
            None => memory.extend_from_slice(&data),
        }
    }
    let Some(mut file) = file else { return Ok((Source::Memory(memory.freeze()), length)) };
    file.flush().await.map_err(|error| full(&error))?;
    file.seek(io::SeekFrom::Start(0)).await.map_err(|error| full(&error))?;
    Ok((Source::File(file), length))
}

async fn begin(folder: &Path, so_far: &[u8]) -> io::Result<tokio::fs::File> {
    use rustix::fs::{Mode, OFlags};
    let fd = rustix::fs::open(
        folder,
        OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
        Mode::from(0o600),
    )?;
    let mut file = tokio::fs::File::from_std(fd.into());
    file.write_all(so_far).await?;
    Ok(file)
}

/// A full disk is our fault, but the client learns the same: this body is too big to be taken now.
fn full(error: &io::Error) -> Fault {
    tracing::error!(%error, "a request's body could not be spooled");
    Fault::TooLarge
}
