//! PHP's answer as it comes.
//!
//! Always: whoever looks at [`Outcome`] knows whether PHP finished it (END_REQUEST), or it was cut. Dropping an answer
//! closes the connection and gives the worker's slot back.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};

use super::call::Times;
use crate::fastcgi::codec::Event;
use crate::fastcgi::exchange::{Exchange, Fault};
use crate::fastcgi::head::Head;
use crate::pool::Slot;

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// END_REQUEST, completed, with exit status 0.
    Finished,
    /// END_REQUEST, but the program says that it failed.
    Failed,
    /// PHP died, took too long, or said too much; or nobody wanted the rest.
    Cut,
}

/// A head, and a body to be read.
pub struct Answer {
    /// Status and headers.
    pub head: Head,
    /// How long it took so far.
    pub times: Times,
    /// The instance that answers.
    pub instance: pressroom_model::id::InstanceId,
    /// The rest.
    pub body: PhpBody,
}

impl Answer {
    pub(super) fn new(
        head: Head,
        first: Bytes,
        exchange: Exchange,
        slot: Slot,
        most: u64,
        times: Times,
    ) -> Self {
        let instance = slot.instance.id.clone();
        let body = PhpBody {
            first,
            running: Some((exchange, slot)),
            left: most,
            on_end: None,
            outcome: None,
        };
        Self { head, times, instance, body }
    }
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The exchange failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// PHP said more than it may.
    #[error("PHP's answer is longer than allowed")]
    TooLong,
}

type OnEnd = Box<dyn FnOnce(Outcome) + Send>;

/// The body of PHP's answer.
pub struct PhpBody {
    first: Bytes,
    running: Option<(Exchange, Slot)>,
    left: u64,
    on_end: Option<OnEnd>,
    outcome: Option<Outcome>,
}

impl PhpBody {
    /// Calls `f` once, when the answer has ended either way.
    pub fn on_end(&mut self, f: impl FnOnce(Outcome) + Send + 'static) {
        self.on_end = Some(Box::new(f));
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Puts back what was taken, to be read again.
    pub fn unread(&mut self, pieces: Bytes) {
        debug_assert!(self.first.is_empty());
        self.left += pieces.len() as u64;
        self.first = pieces;
    }

    /// Reads the rest for nobody, so that PHP can finish.
    pub async fn drain(mut self) {
        while let Some(Ok(_)) = self.piece().await {}
    }

    fn end(&mut self, outcome: Outcome) {
        self.running = None;
        self.outcome.get_or_insert(outcome);
        if let Some(f) = self.on_end.take() {
            f(outcome);
        }
    }

    fn take(&mut self, piece: Bytes) -> Result<Bytes, Broken> {
        let length = piece.len() as u64;
        if length > self.left {
            self.end(Outcome::Cut);
            return Err(Broken::TooLong);
        }
        self.left -= length;
        Ok(piece)
    }

    /// The next piece; `None`: PHP has finished.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if !self.first.is_empty() {
            let piece = std::mem::take(&mut self.first);
            return Poll::Ready(Some(self.take(piece)));
        }
        let Some((exchange, _)) = &mut self.running else { return Poll::Ready(None) };
        match std::task::ready!(exchange.poll_next(cx)) {
            Ok(Event::Stdout(piece)) => Poll::Ready(Some(self.take(piece))),
            Ok(Event::End { status, protocol }) => {
                self.end(match (protocol, status) {
                    (0, 0) => Outcome::Finished,
                    (0, _) => Outcome::Failed,
                    _ => Outcome::Cut,
                });
                Poll::Ready(None)
            }
            Ok(Event::Stderr(_)) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(fault) => {
                self.end(Outcome::Cut);
                Poll::Ready(Some(Err(fault.into())))
            }
        }
    }

    /// As [`PhpBody::poll_piece`].
    pub async fn piece(&mut self) -> Option<Result<Bytes, Broken>> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }
}

impl Drop for PhpBody {
    fn drop(&mut self) {
        self.end(Outcome::Cut);
    }
}

impl Body for PhpBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.poll_piece(cx).map(|piece| piece.map(|result| result.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.running.is_none()
    }
}
