//! The CGI header block at the start of PHP's answer. Pure.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

/// Longest header block.
pub const LIMIT: usize = 64 * 1024;

/// Status and headers of an answer, without what belongs to the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
}

/// Why a header block was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No end of the headers within [`LIMIT`].
    #[error("PHP sent more than 64 KiB of headers")]
    TooLong,
    /// A line that is no header, or a bad status.
    #[error("PHP sent a header line that is none")]
    Line,
}

/// Collects STDOUT until the header block is whole.
#[derive(Debug, Default)]
pub struct Parser {
    collected: BytesMut,
}

impl Parser {
    /// Takes a piece of STDOUT. When the block is whole: the head, and what of the body came with it.
    pub fn feed(&mut self, piece: &Bytes) -> Result<Option<(Head, Bytes)>, Malformed> {
        if self.collected.is_empty()
            && let Some((end, body)) = end_of_head(piece, 0)
        {
            return Ok(Some((parse(&piece[..end])?, piece.slice(body..))));
        }
        let seen = self.collected.len().saturating_sub(3);
        self.collected.extend_from_slice(piece);
        if let Some((end, body)) = end_of_head(&self.collected, seen) {
            let mut all = std::mem::take(&mut self.collected);
            let rest = all.split_off(body).freeze();
            return Ok(Some((parse(&all[..end])?, rest)));
        }
        if self.collected.len() > LIMIT { Err(Malformed::TooLong) } else { Ok(None) }
    }
}

/// Where the block ends and where the body begins.
fn end_of_head(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    for at in memchr::memchr_iter(b'\n', &bytes[from..]).map(|at| at + from) {
        match &bytes[at + 1..] {
            [b'\n', ..] => return Some((at + 1, at + 2)),
            [b'\r', b'\n', ..] => return Some((at + 1, at + 3)),
            _ => {}
        }
    }
    None
}

fn parse(block: &[u8]) -> Result<Head, Malformed> {
    if block.len() > LIMIT {
        return Err(Malformed::TooLong);
    }
    let mut head = Head { status: StatusCode::OK, headers: HeaderMap::with_capacity(16) };
    let mut said_status = false;
    for line in block.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let colon = memchr::memchr(b':', line).ok_or(Malformed::Line)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            head.status = status(value)?;
            said_status = true;
            continue;
        }
        let name = HeaderName::from_bytes(name).map_err(|_| Malformed::Line)?;
        if !belongs_to_connection(&name) {
            head.headers.append(name, HeaderValue::from_bytes(value).map_err(|_| Malformed::Line)?);
        }
    }
    if !said_status && head.headers.contains_key(header::LOCATION) {
        head.status = StatusCode::FOUND;
    }
    // Two lengths, or one that is no number, would let the client and us disagree about where the answer ends.
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let good =
        lengths.next().is_none_or(|l| l.as_bytes().iter().all(u8::is_ascii_digit) && !l.is_empty());
    if !good || lengths.next().is_some() {
        head.headers.remove(header::CONTENT_LENGTH);
    }
    Ok(head)
}

fn status(value: &[u8]) -> Result<StatusCode, Malformed> {
    let code = value.split(|b| *b == b' ').next().unwrap_or(value);
    let status = StatusCode::from_bytes(code).map_err(|_| Malformed::Line)?;
    // An informational status cannot be the answer.
    if status.is_informational() { Err(Malformed::Line) } else { Ok(status) }
}

fn belongs_to_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "upgrade"
            | "te"
            | "trailer"
            | "x-powered-by"
            | "x-cache"
            | "x-request-id"
            | "cache-status"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(wire: &[u8], step: usize) -> Result<Option<(Head, Vec<u8>)>, Malformed> {
        let mut parser = Parser::default();
        let mut chunks = wire.chunks(step);
        while let Some(chunk) = chunks.next() {
            if let Some((head, rest)) = parser.feed(&Bytes::copy_from_slice(chunk))? {
                let body = rest.iter().copied().chain(chunks.flatten().copied()).collect();
                return Ok(Some((head, body)));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_head_is_read_the_same_however_it_is_cut() {
        for end in ["\r\n", "\n"] {
            let wire = [
                "Status: 404 Not Found",
                "Set-Cookie: a=1",
                "set-cookie: b=2",
                "X-Powered-By: PHP",
                "Content-type: text/html; charset=UTF-8",
                "",
                "a\n\nb",
            ]
            .join(end);
            for step in 1..wire.len() + 1 {
                let (head, body) = feed(wire.as_bytes(), step).expect("good").expect("whole");
                assert_eq!(head.status, 404);
                assert_eq!(head.headers.get_all("set-cookie").iter().count(), 2);
                assert_eq!(head.headers.len(), 3);
                assert_eq!(body, b"a\n\nb");
            }
        }
    }

    #[test]
    fn a_location_alone_is_a_redirect() {
        let (head, _) = feed(b"Location: /x\r\n\r\n", 100).expect("good").expect("whole");
        assert_eq!(head.status, 302);
        let (head, _) = feed(b"Status: 201 Created\r\nLocation: /x\r\n\r\n", 100)
            .expect("good")
            .expect("whole");
        assert_eq!(head.status, 201);
    }

    #[test]
    fn broken_heads_are_refused() {
        for bad in [
            "no colon here\r\n\r\n",
            "Status: abc\r\n\r\n",
            "Status: 100 Continue\r\n\r\n",
            "a b: c\r\n\r\n",
            "a: b\0c\r\n\r\n",
        ] {
            assert_eq!(feed(bad.as_bytes(), 1000), Err(Malformed::Line), "{bad}");
        }
        assert_eq!(feed(&[b'x'; LIMIT + 10], 8192), Err(Malformed::TooLong));
        assert_eq!(feed(b"Content-Type: text/html\r\n", 8192), Ok(None));
    }

    #[test]
    fn ambiguous_lengths_are_dropped() {
        for (wire, kept) in [
            ("Content-Length: 5\r\n\r\n", true),
            ("Content-Length: 5\r\nContent-Length: 5\r\n\r\n", false),
            ("Content-Length: +5\r\n\r\n", false),
            ("Content-Length: \r\n\r\n", false),
        ] {
            let (head, _) = feed(wire.as_bytes(), 1000).expect("good").expect("whole");
            assert_eq!(head.headers.contains_key("content-length"), kept, "{wire}");
        }
    }
}
