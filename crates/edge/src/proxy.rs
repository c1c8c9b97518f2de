//! The PROXY protocol, versions 1 and 2, at the start of a connection from a trusted proxy.
//!
//! Always: exactly the header is taken from the socket, nothing of what follows. A trusted proxy that sends no good
//! header within [`PATIENCE`] is hung up on: guessing would let its clients choose their own address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(5);
/// The longest header that we read: version 2 with generous extensions.
const LONGEST: usize = 4096;

/// Reads the header; the client's address, or that of the proxy itself when it speaks for itself.
pub async fn read(stream: &mut TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
    tokio::time::timeout(PATIENCE, read_header(stream, peer))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn read_header(stream: &mut TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
    let mut buffer = vec![0; LONGEST];
    let mut seen = 0;
    loop {
        let n = stream.peek(&mut buffer).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse(&buffer[..n]) {
            Parsed::Whole(length, client) => {
                stream.read_exact(&mut buffer[..length]).await?;
                return Ok(
                    client.map_or(peer, |(ip, port)| SocketAddr::new(ip.to_canonical(), port))
                );
            }
            Parsed::Bad => return Err(io::ErrorKind::InvalidData.into()),
            Parsed::Partial if n == LONGEST => return Err(io::ErrorKind::InvalidData.into()),
            Parsed::Partial => {
                // What is peeked at stays readable, so readiness says nothing about more of it.
                if n == seen {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                seen = n;
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Parsed {
    Whole(usize, Option<(IpAddr, u16)>),
    Partial,
    Bad,
}

fn parse(bytes: &[u8]) -> Parsed {
    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let is_start = |whole: &[u8]| whole.starts_with(bytes) || bytes.starts_with(whole);
    if is_start(V2) {
        if bytes.len() < 16 {
            return Parsed::Partial;
        }
        let length = 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        if length > LONGEST {
            return Parsed::Bad;
        }
        return match bytes.get(..length) {
            None => Parsed::Partial,
            Some(header) => ppp::v2::Header::try_from(header)
                .map_or(Parsed::Bad, |h| Parsed::Whole(length, v2(&h))),
        };
    }
    if !is_start(b"PROXY ") {
        return Parsed::Bad;
    }
    match memchr::memmem::find(&bytes[..bytes.len().min(108)], b"\r\n") {
        None if bytes.len() >= 108 => Parsed::Bad,
        None => Parsed::Partial,
        Some(end) => ppp::v1::Header::try_from(&bytes[..end + 2])
            .map_or(Parsed::Bad, |h| Parsed::Whole(end + 2, v1(&h))),
    }
}

fn v1(header: &ppp::v1::Header<'_>) -> Option<(IpAddr, u16)> {
    match header.addresses {
        ppp::v1::Addresses::Tcp4(a) => Some((a.source_address.into(), a.source_port)),
        ppp::v1::Addresses::Tcp6(a) => Some((a.source_address.into(), a.source_port)),
        ppp::v1::Addresses::Unknown => None,
    }
}

fn v2(header: &ppp::v2::Header<'_>) -> Option<(IpAddr, u16)> {
    if header.command == ppp::v2::Command::Local {
        return None;
    }
    match header.addresses {
        ppp::v2::Addresses::IPv4(a) => Some((a.source_address.into(), a.source_port)),
        ppp::v2::Addresses::IPv6(a) => Some((a.source_address.into(), a.source_port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_both_versions_are_read_and_nothing_more() {
        let client = Some((IpAddr::from([1, 2, 3, 4]), 56324));
        let v1 = b"PROXY TCP4 1.2.3.4 127.0.0.1 56324 443\r\nGET / HTTP/1.1\r\n";
        assert_eq!(parse(v1), Parsed::Whole(40, client));
        let mut v2 =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x7f\0\0\x01\xdc\x04\x01\xbb"
                .to_vec();
        v2.extend(b"GET /");
        assert_eq!(parse(&v2), Parsed::Whole(28, client));
        assert_eq!(parse(b"PROXY UNKNOWN\r\nGET"), Parsed::Whole(15, None));
        for end in 1..40 {
            assert_eq!(parse(&v1[..end]), Parsed::Partial, "{end}");
        }
        for end in 3..28 {
            assert_eq!(parse(&v2[..end]), Parsed::Partial, "{end}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 1.2.3.4\r\n",
            b"PROXYTCP4",
            b"\r\n\r\nGET",
            &[b'P'; 200],
        ] {
            assert_eq!(parse(bad), Parsed::Bad, "{bad:?}");
        }
    }
}
