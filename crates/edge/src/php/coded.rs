//! gzip on the way, for answers that are for one visitor only and therefore never stored.
//!
//! Always: what PHP has flushed reaches the client as soon as PHP pauses, as without coding. Answers that are coded
//! already, small, not text, or said to be left alone (`no-transform`) stay as they are.

use std::io::Write as _;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderMap, HeaderValue};

use super::answer::{Broken, PhpBody};
use crate::compress::{Accepted, Encoding, is_compressible};

/// Smaller answers are not worth it.
const FROM: u64 = 860;
/// Bytes that are collected before they are sent, unless PHP pauses.
const PIECE: usize = 16 * 1024;

/// A body of PHP's, in gzip.
pub struct Coded {
    body: PhpBody,
    encoder: Option<GzEncoder<Vec<u8>>>,
    unflushed: bool,
}

/// Whether an answer should be coded for this client; prepares its headers if so.
pub fn prepare(request: &HeaderMap, answer: &mut HeaderMap) -> bool {
    if !should_code(answer) {
        return false;
    }
    answer.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    if Accepted::of(request).weight(Encoding::Gzip) == 0 {
        return false;
    }
    answer.remove(header::CONTENT_LENGTH);
    answer.remove(header::ACCEPT_RANGES);
    answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    // Another representation is not byte for byte the same.
    if let Some(etag) = answer.get(header::ETAG).filter(|e| !e.as_bytes().starts_with(b"W/")) {
        match HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat()) {
            Ok(weak) => answer.insert(header::ETAG, weak),
            Err(_) => answer.remove(header::ETAG),
        };
    }
    true
}

fn should_code(answer: &HeaderMap) -> bool {
    let text = |name| answer.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    if answer.contains_key(header::CONTENT_ENCODING) || answer.contains_key(header::CONTENT_RANGE) {
        return false;
    }
    if text(header::CACHE_CONTROL).is_some_and(|c| c.contains("no-transform")) {
        return false;
    }
    let kind = text(header::CONTENT_TYPE);
    // Event streams are for the moment, not for their size.
    if kind.is_none_or(|k| !is_compressible(k) || k.starts_with("text/event-stream")) {
        return false;
    }
    text(header::CONTENT_LENGTH).and_then(|l| l.parse::<u64>().ok()).is_none_or(|l| l >= FROM)
}

impl Coded {
    /// Codes a body.
    pub fn new(body: PhpBody) -> Self {
        let encoder = Some(GzEncoder::new(Vec::with_capacity(PIECE), Compression::new(1)));
        Self { body, encoder, unflushed: false }
    }

    /// The next piece.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            let Some(encoder) = &mut self.encoder else { return Poll::Ready(None) };
            match self.body.poll_piece(cx) {
                Poll::Ready(Some(Ok(piece))) => {
                    // Writing into memory cannot fail.
                    let _ = encoder.write_all(&piece);
                    self.unflushed = true;
                    if encoder.get_ref().len() >= PIECE {
                        return ready(std::mem::replace(
                            encoder.get_mut(),
                            Vec::with_capacity(PIECE),
                        ));
                    }
                }
                Poll::Ready(Some(Err(broken))) => {
                    self.encoder = None;
                    return Poll::Ready(Some(Err(broken)));
                }
                Poll::Ready(None) => {
                    let rest =
                        self.encoder.take().and_then(|e| e.finish().ok()).unwrap_or_default();
                    return ready(rest);
                }
                Poll::Pending if self.unflushed => {
                    let _ = encoder.flush();
                    self.unflushed = false;
                    return ready(std::mem::take(encoder.get_mut()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

fn ready(bytes: Vec<u8>) -> Poll<Option<Result<Bytes, Broken>>> {
    Poll::Ready(Some(Ok(bytes.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: &[(&str, &str)], answer: &[(&str, &str)], coded: bool) {
        let map = |pairs: &[(&str, &str)]| -> HeaderMap {
            pairs.iter().map(|(n, v)| (n.parse().expect(n), v.parse().expect(v))).collect()
        };
        let mut headers = map(answer);
        assert_eq!(prepare(&map(request), &mut headers), coded, "{request:?} {answer:?}");
        assert_eq!(headers.get("content-encoding").is_some_and(|v| v == "gzip"), coded);
        assert!(!coded || !headers.contains_key("content-length"));
    }

    #[test]
    fn text_for_those_who_accept_it_is_coded_and_nothing_else() {
        let gzip = [("accept-encoding", "gzip, br")];
        let html = ("content-type", "text/html; charset=UTF-8");
        check(&gzip, &[html], true);
        check(&gzip, &[html, ("content-length", "5000"), ("etag", "\"a\"")], true);
        check(&gzip, &[html, ("content-length", "50")], false);
        check(&[], &[html], false);
        check(&gzip, &[("content-type", "image/png")], false);
        check(&gzip, &[("content-type", "text/event-stream")], false);
        check(&gzip, &[], false);
        check(&gzip, &[html, ("cache-control", "private, no-transform")], false);
        let mut headers = HeaderMap::new();
        headers.insert("content-encoding", HeaderValue::from_static("br"));
        headers.insert("content-type", HeaderValue::from_static("text/html"));
        let request = [("accept-encoding", "gzip")]
            .iter()
            .map(|(n, v)| (n.parse().expect(n), v.parse().expect(v)))
            .collect();
        assert!(!prepare(&request, &mut headers));
        assert_eq!(headers["content-encoding"], "br");
    }
}
