//! A small FastCGI client: one GET without a body, for php-fpm's status page and for the check of a release.
//!
//! (FastCGI specification 1.0, section 3; the edge has the real one. Planes and hands do not share code.)

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;
/// Longest body that is kept; what comes after it is counted only.
const MOST_BODY: usize = 1 << 20;
/// Longest error output that is kept: its beginning.
const MOST_ERRORS: usize = 64 << 10;

/// What PHP answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body, at most a mebibyte of it.
    pub body: Vec<u8>,
    /// What PHP wrote to its error stream.
    pub errors: String,
}

/// Asks, and returns the answer.
pub async fn get(socket: &Path, params: &[(&str, &str)]) -> io::Result<Answer> {
    let mut stream =
        UnixStream::connect(socket).await.map_err(|error| crate::files::naming(socket, &error))?;
    stream.write_all(&request(params)).await?;
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    loop {
        let mut header = [0u8; 8];
        stream.read_exact(&mut header).await?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut content = vec![0; length + usize::from(header[6])];
        stream.read_exact(&mut content).await?;
        let content = &content[..length];
        match header[1] {
            STDOUT if output.len() < MOST_BODY => output.extend_from_slice(content),
            STDERR if errors.len() < MOST_ERRORS => errors.extend_from_slice(content),
            END_REQUEST => break,
            _ => {}
        }
    }
    let head = output.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let head = head.ok_or_else(|| io::Error::other("the answer has no end of headers"))?;
    let body = output.split_off(head + 4);
    Ok(Answer {
        status: status(&String::from_utf8_lossy(&output)),
        body,
        errors: String::from_utf8_lossy(&errors).into_owned(),
    })
}

/// The status in CGI headers; none means 200 (RFC 3875, section 6.3.3).
fn status(head: &str) -> u16 {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("status:"));
    let digits = line.and_then(|line| line[7..].split_whitespace().next()?.parse().ok());
    digits.unwrap_or(200)
}

fn request(params: &[(&str, &str)]) -> Vec<u8> {
    let mut pairs = Vec::new();
    for (name, value) in params {
        length(&mut pairs, name.len());
        length(&mut pairs, value.len());
        pairs.extend_from_slice(name.as_bytes());
        pairs.extend_from_slice(value.as_bytes());
    }
    let mut bytes = Vec::new();
    // Role 1: responder; flags 0: close the connection afterwards.
    record(&mut bytes, BEGIN_REQUEST, &[0, 1, 0, 0, 0, 0, 0, 0]);
    for part in pairs.chunks(usize::from(u16::MAX)) {
        record(&mut bytes, PARAMS, part);
    }
    record(&mut bytes, PARAMS, &[]);
    record(&mut bytes, STDIN, &[]);
    bytes
}

/// One byte, or four with the first bit set.
fn length(bytes: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < 128 => bytes.push(short),
        _ => bytes.extend_from_slice(&((length as u32) | 1 << 31).to_be_bytes()),
    }
}

fn record(bytes: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let length = u16::try_from(content.len()).expect("parts are at most 65,535 bytes long");
    bytes.extend_from_slice(&[1, kind, 0, 1]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_from_cgi_headers() {
        for (head, expected) in [
            ("Content-Type: text/html", 200),
            ("Status: 404 Not Found\r\nX: y", 404),
            ("X-Powered-By: z\r\nstatus: 503", 503),
        ] {
            assert_eq!(status(head), expected, "{head}");
        }
    }

    #[test]
    fn long_values_have_long_lengths() {
        let mut bytes = Vec::new();
        length(&mut bytes, 127);
        length(&mut bytes, 300);
        assert_eq!(bytes, [127, 0x80, 0, 1, 44]);
    }
}
