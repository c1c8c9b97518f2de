//! The socket of a site: who may connect, how much he may say, and how long he may take.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pressroom_model::affirmation::Receipt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Affirmations;
use super::speech::Speech;
use crate::cache::Site;

/// Longest line.
const LONGEST_LINE: usize = 1 << 20;
/// A buffer beyond this needs one of the site's few permits.
const SMALL: usize = 64 << 10;
/// Long lines of one site at a time.
const LONG_LINES: usize = 4;
/// Connections of one site; more wait in the kernel.
const CONNECTIONS: usize = 256;
/// Bad lines after which a connection is closed.
const PATIENCE_WITH_GARBAGE: u32 = 8;
/// A line that was begun must end within this time.
const LINE_TIME: Duration = Duration::from_secs(10);
/// A connection may be silent for this long: longer than any request runs.
const SILENCE: Duration = Duration::from_secs(3600);

#[derive(Debug, Default)]
pub(super) struct Counters {
    accepted: AtomicU64,
    strangers: AtomicU64,
    garbage: AtomicU64,
    messages: AtomicU64,
}

/// What was counted on all sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Connections of the right user.
    pub accepted: u64,
    /// Connections closed because of their user.
    pub strangers: u64,
    /// Lines that were not understood, or were too long or too slow.
    pub garbage: u64,
    /// Lines understood.
    pub messages: u64,
}

impl Affirmations {
    /// What was counted on all sockets.
    pub fn counts(&self) -> Counts {
        let counters = &self.listening;
        Counts {
            accepted: counters.accepted.load(Ordering::Relaxed),
            strangers: counters.strangers.load(Ordering::Relaxed),
            garbage: counters.garbage.load(Ordering::Relaxed),
            messages: counters.messages.load(Ordering::Relaxed),
        }
    }

    /// Serves the socket of a site for as long as it is polled; dropped, its connections end.
    pub async fn serve(
        self: Arc<Self>,
        site: Arc<Site>,
        uid: u32,
        listener: StdListener,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let long_lines = Arc::new(Semaphore::new(LONG_LINES));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            while connections.len() >= CONNECTIONS {
                connections.join_next().await;
            }
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, or a peer that went away: the next try may do better.
                    tracing::warn!(site = %site.name(), %error, "the affirmation socket could not accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            if !is_allowed(&stream, uid) {
                self.listening.strangers.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(site = %site.name(), peer = ?stream.peer_cred().ok(), "a stranger on the affirmation socket was turned away");
                continue;
            }
            self.listening.accepted.fetch_add(1, Ordering::Relaxed);
            let speech = Speech::new(Arc::clone(&self), Arc::clone(&site));
            connections.spawn(converse(Arc::clone(&self), speech, stream, Arc::clone(&long_lines)));
        }
    }
}

fn is_allowed(stream: &UnixStream, uid: u32) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == uid || peer.uid() == 0)
}

async fn converse(
    all: Arc<Affirmations>,
    mut speech: Speech,
    mut stream: UnixStream,
    long_lines: Arc<Semaphore>,
) {
    let mut buffer = Vec::with_capacity(1024);
    let mut garbage = 0;
    while let Some(line) = next_line(&mut stream, &mut buffer, &long_lines).await {
        let heard = match line {
            Ok(end) => {
                let heard = speech.hear(buffer[..end].trim_ascii()).await;
                buffer.drain(..=end);
                buffer.shrink_to(SMALL);
                heard
            }
            Err(Unheard) => {
                all.listening.garbage.fetch_add(1, Ordering::Relaxed);
                return;
            }
        };
        match heard {
            Ok(receipt) => {
                all.listening.messages.fetch_add(1, Ordering::Relaxed);
                if let Some(receipt) = receipt
                    && !answer(&mut stream, &receipt).await
                {
                    return;
                }
            }
            Err(error) => {
                all.listening.garbage.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%error, "a line on the affirmation socket was not understood");
                garbage += 1;
                if garbage > PATIENCE_WITH_GARBAGE {
                    return;
                }
            }
        }
    }
}

/// A line that was too long or too slow.
struct Unheard;

/// The end of the next line in the buffer; `None` when there is no more.
async fn next_line(
    stream: &mut UnixStream,
    buffer: &mut Vec<u8>,
    long_lines: &Semaphore,
) -> Option<Result<usize, Unheard>> {
    if buffer.is_empty() {
        match timeout(SILENCE, stream.read_buf(buffer)).await {
            Ok(Ok(1..)) => {}
            _ => return None,
        }
    }
    timeout(LINE_TIME, rest_of_line(stream, buffer, long_lines)).await.unwrap_or(Some(Err(Unheard)))
}

async fn rest_of_line(
    stream: &mut UnixStream,
    buffer: &mut Vec<u8>,
    long_lines: &Semaphore,
) -> Option<Result<usize, Unheard>> {
    let mut searched = 0;
    let mut permit = None;
    loop {
        if let Some(end) = memchr::memchr(b'\n', &buffer[searched..]) {
            return Some(Ok(searched + end));
        }
        searched = buffer.len();
        if searched > LONGEST_LINE {
            return Some(Err(Unheard));
        }
        if searched > SMALL && permit.is_none() {
            permit = Some(long_lines.acquire().await.ok()?);
        }
        if buffer.len() == buffer.capacity() {
            buffer.reserve(buffer.len().max(1024));
        }
        match stream.read_buf(buffer).await {
            Ok(1..) => {}
            _ => return None,
        }
    }
}

async fn answer(stream: &mut UnixStream, receipt: &Receipt) -> bool {
    let Ok(mut line) = serde_json::to_vec(receipt) else { return false };
    line.push(b'\n');
    matches!(timeout(LINE_TIME, stream.write_all(&line)).await, Ok(Ok(())))
}
