//! The smallest FastCGI client: one GET without a body, for php-fpm's status page.
//!
//! (FastCGI specification 1.0, section 3; the edge has the real one. Planes and hands do not share code.)

use std::io;
use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const MOST: usize = 1 << 20;

/// Asks, and returns the body of the answer.
pub async fn get(socket: PathBuf, params: &[(&str, &str)]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(&socket)
        .await
        .map_err(|error| crate::files::naming(&socket, &error))?;
    stream.write_all(&request(params)).await?;
    let mut answer = Vec::new();
    loop {
        let mut header = [0u8; 8];
        stream.read_exact(&mut header).await?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let mut content = vec![0; length + usize::from(header[6])];
        stream.read_exact(&mut content).await?;
        match header[1] {
            STDOUT => answer.extend_from_slice(&content[..length]),
            END_REQUEST => break,
            _ => {}
        }
        if answer.len() > MOST {
            return Err(io::Error::other("the answer is larger than 1 MiB"));
        }
    }
    let head = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let start = head.ok_or_else(|| io::Error::other("the answer has no end of headers"))? + 4;
    Ok(answer.split_off(start))
}

fn request(params: &[(&str, &str)]) -> Vec<u8> {
    let mut pairs = Vec::new();
    for (name, value) in params {
        for length in [name.len(), value.len()] {
            pairs.push(u8::try_from(length).expect("our own names and values are short"));
        }
        pairs.extend_from_slice(name.as_bytes());
        pairs.extend_from_slice(value.as_bytes());
    }
    let mut bytes = Vec::new();
    // Role 1: responder; flags 0: close the connection afterwards.
    record(&mut bytes, BEGIN_REQUEST, &[0, 1, 0, 0, 0, 0, 0, 0]);
    record(&mut bytes, PARAMS, &pairs);
    record(&mut bytes, PARAMS, &[]);
    record(&mut bytes, STDIN, &[]);
    bytes
}

fn record(bytes: &mut Vec<u8>, kind: u8, content: &[u8]) {
    let length = u16::try_from(content.len()).expect("our own requests are short");
    bytes.extend_from_slice(&[1, kind, 0, 1]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(content);
}
