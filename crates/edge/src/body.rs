//! The bodies of our answers: nothing, bytes that are there, a file, PHP's words, or one of these being counted.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::files::stream::FileBody;
use crate::git::Relay;
use crate::mesh::passing::Passed;
use crate::mesh::rendering::Telling;
use crate::php::answer::PhpBody;
use crate::php::coded::Coded;

/// Why a body broke off; the connection is closed then, so that the client notices.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub enum Body {
    /// Nothing.
    Empty,
    /// Bytes that are there.
    Whole(Bytes),
    /// A file, read as it is sent.
    File(Box<FileBody>),
    /// PHP's answer, as it comes.
    Php(Box<PhpBody>),
    /// PHP's answer, coded as it comes.
    Coded(Box<Coded>),
    /// Git's answer, passed on as it comes.
    Git(Box<Relay>),
    /// Another edge's answer, passed on as it comes.
    Passed(Box<Passed>),
    /// What an edge is told of a page, once it is known, and the page.
    Telling(Box<Telling>),
    /// A body of which the length is told at its end.
    Counted(Box<Counted>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then_some(Ok(Frame::data(bytes))))
            }
            Self::File(body) => {
                body.poll_piece(cx).map(|p| p.map(|r| r.map(Frame::data).map_err(Into::into)))
            }
            Self::Php(body) => {
                Pin::new(&mut **body).poll_frame(cx).map(|f| f.map(|r| r.map_err(Into::into)))
            }
            Self::Coded(body) => {
                body.poll_piece(cx).map(|p| p.map(|r| r.map(Frame::data).map_err(Into::into)))
            }
            Self::Git(body) => body.poll_frame(cx),
            Self::Passed(body) => body.poll(cx),
            Self::Telling(body) => body.poll(cx),
            Self::Counted(body) => body.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::File(body) => body.left() == 0,
            Self::Php(body) => body.is_end_stream(),
            Self::Coded(_) | Self::Git(_) | Self::Telling(_) => false,
            Self::Passed(body) => body.is_end_stream(),
            Self::Counted(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::File(body) => SizeHint::with_exact(body.left()),
            Self::Php(_) | Self::Coded(_) | Self::Git(_) | Self::Telling(_) => SizeHint::default(),
            Self::Passed(body) => body.size_hint(),
            Self::Counted(body) => body.inner.size_hint(),
        }
    }
}

/// Counts the bytes of a body and tells them when it is gone, however that comes about.
pub struct Counted {
    inner: Body,
    bytes: u64,
    tell: Option<Box<dyn FnOnce(u64) + Send>>,
}

impl Counted {
    /// Counts `inner`.
    pub fn new(inner: Body, tell: impl FnOnce(u64) + Send + 'static) -> Self {
        Self { inner, bytes: 0, tell: Some(Box::new(tell)) }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(self.bytes);
        }
    }
}
