//! What is watched of a connection: whether its client is alive, without a timer per request.
//!
//! Every core looks over its connections once a second. Closed are those whose request head takes longer than
//! [`HEAD`], that were idle for [`IDLE`], or that took nothing of their answer for [`BLOCKED`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

/// Seconds for the head of a request.
pub const HEAD: u32 = 15;
/// Seconds without a request.
pub const IDLE: u32 = 75;
/// Seconds in which a client takes nothing of its answer.
pub const BLOCKED: u32 = 60;

/// The state of one connection; times are seconds of the core's clock, 0: not.
#[derive(Debug, Default)]
pub struct Watched {
    active: AtomicU32,
    head_since: AtomicU32,
    idle_since: AtomicU32,
    blocked_since: AtomicU32,
    multiplexed: AtomicU32,
    asked: AtomicU32,
    clock: Arc<AtomicU32>,
}

impl Watched {
    /// A new connection on a core.
    pub fn new(clock: Arc<AtomicU32>) -> Arc<Self> {
        let now = clock.load(Ordering::Relaxed);
        Arc::new(Self {
            clock,
            idle_since: AtomicU32::new(now),
            head_since: AtomicU32::new(now),
            ..Self::default()
        })
    }

    /// It carries several requests at a time, so bytes are no sign of a head.
    pub fn multiplex(&self) {
        self.multiplexed.store(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// Whether a request has come. Until then one is on its way, for all we know.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) != 0
    }

    /// A request's head is there.
    fn begin(&self) {
        self.asked.store(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// Its answer is made.
    fn end(&self) {
        self.idle_since.store(self.now(), Ordering::Relaxed);
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    fn now(&self) -> u32 {
        self.clock.load(Ordering::Relaxed)
    }

    fn has_read(&self) {
        if self.active.load(Ordering::Relaxed) == 0
            && self.multiplexed.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn has_written(&self) {
        self.idle_since.store(self.now(), Ordering::Relaxed);
        if self.blocked_since.load(Ordering::Relaxed) != 0 {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }

    fn is_blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn is_overdue(&self, now: u32) -> bool {
        let passed = |since: &AtomicU32, most: u32| {
            let since = since.load(Ordering::Relaxed);
            since != 0 && now.saturating_sub(since) > most
        };
        if passed(&self.blocked_since, BLOCKED) {
            return true;
        }
        self.active.load(Ordering::Relaxed) == 0
            && (passed(&self.head_since, HEAD) || passed(&self.idle_since, IDLE))
    }

    fn is_idle(&self) -> bool {
        self.is_asked()
            && self.active.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0
            && self.blocked_since.load(Ordering::Relaxed) == 0
    }
}

/// A request in progress on a connection; dropped, its answer is made.
pub struct Busy(Arc<Watched>);

impl Busy {
    /// A request's head is there.
    pub fn new(watched: &Arc<Watched>) -> Self {
        watched.begin();
        Self(watched.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The connections of a core.
#[derive(Debug, Default)]
pub struct Connections {
    /// Seconds since the core started, from 1.
    pub clock: Arc<AtomicU32>,
    all: Mutex<Vec<(Arc<Watched>, AbortHandle)>>,
}

impl Connections {
    /// Watches a connection.
    pub fn add(&self, watched: Arc<Watched>, task: AbortHandle) {
        self.all.lock().push((watched, task));
    }

    /// Closes what is overdue; how many these were.
    pub fn sweep(&self, now: u32) -> u64 {
        self.clock.store(now, Ordering::Relaxed);
        let mut closed = 0;
        self.all.lock().retain(|(watched, task)| {
            if task.is_finished() {
                return false;
            }
            let overdue = watched.is_overdue(now);
            if overdue {
                task.abort();
                closed += 1;
            }
            !overdue
        });
        closed
    }

    /// Closes what has nothing to do; how many are left.
    pub fn close_idle(&self) -> usize {
        let mut all = self.all.lock();
        all.retain(|(watched, task)| {
            let idle = watched.is_idle();
            if idle {
                task.abort();
            }
            !idle && !task.is_finished()
        });
        all.len()
    }

    /// Open connections.
    pub fn count(&self) -> usize {
        self.all.lock().len()
    }
}

/// A stream that tells its [`Watched`] what happens on it.
pub struct Stream<S> {
    inner: S,
    watched: Arc<Watched>,
}

impl<S> Stream<S> {
    /// Watches a stream.
    pub fn new(inner: S, watched: Arc<Watched>) -> Self {
        Self { inner, watched }
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &result {
            Poll::Ready(_) => self.watched.has_written(),
            Poll::Pending => self.watched.is_blocked(),
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if result.is_ready() {
            self.watched.has_read();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slowness_is_seen_and_work_is_not_mistaken_for_it() {
        let clock = Arc::new(AtomicU32::new(1));
        let c = Watched::new(clock.clone());
        assert!(c.is_overdue(1 + HEAD + 1), "a client that sends nothing at all");
        assert!(!c.is_idle(), "its first request is on its way");
        c.begin();
        assert!(!c.is_overdue(1 + 10 * IDLE), "a long request");
        clock.store(100, Ordering::Relaxed);
        c.end();
        assert!(c.is_idle());
        assert!(!c.is_overdue(100 + IDLE));
        assert!(c.is_overdue(100 + IDLE + 1));
        clock.store(110, Ordering::Relaxed);
        c.has_read();
        clock.store(120, Ordering::Relaxed);
        c.has_read();
        assert!(c.is_overdue(110 + HEAD + 1), "a head that comes byte by byte");
        c.begin();
        c.is_blocked();
        assert!(c.is_overdue(120 + BLOCKED + 1), "a client that takes nothing");
        c.has_written();
        assert!(!c.is_overdue(120 + BLOCKED + 1));
    }

    #[test]
    fn a_multiplexed_connection_has_no_heads() {
        let clock = Arc::new(AtomicU32::new(1));
        let c = Watched::new(clock);
        c.multiplex();
        c.has_read();
        assert!(!c.is_overdue(1 + HEAD + 1));
        assert!(c.is_overdue(1 + IDLE + 1));
    }
}
