//! The parameters of a FastCGI request, in encoded form. Pure.
//!
//! Always: a client's header becomes `HTTP_…` only, so it can never forge one of the server's own parameters; a header
//! that could be taken for another one (an underscore in its name) or that PHP libraries misuse (`Proxy`) is dropped.

use bytes::{BufMut, BytesMut};
use http::HeaderName;

/// Parameters being collected.
#[derive(Debug, Default, Clone)]
pub struct Params(BytesMut);

impl Params {
    /// None yet; room for a usual request.
    pub fn new() -> Self {
        Self(BytesMut::with_capacity(2048))
    }

    /// Adds a parameter.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.length(name.len());
        self.length(value.len());
        self.0.put_slice(name.as_bytes());
        self.0.put_slice(value);
    }

    /// Adds a client's header.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        self.length(5 + name.len());
        self.length(value.len());
        self.0.put_slice(b"HTTP_");
        self.0.extend(name.bytes().map(|b| if b == b'-' { b'_' } else { b.to_ascii_uppercase() }));
        self.0.put_slice(value);
    }

    fn length(&mut self, length: usize) {
        if length < 128 {
            self.0.put_u8(length as u8);
        } else {
            self.0.put_u32(length as u32 | 1 << 31);
        }
    }

    /// The encoded parameters.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether a client's header may reach PHP under its own name.
pub fn may_pass(name: &HeaderName) -> bool {
    if name.as_str().contains('_') {
        return false;
    }
    !matches!(
        name.as_str(),
        // Hop by hop, or told to PHP in other ways.
        "connection" | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade"
        | "http2-settings" | "expect" | "content-type" | "content-length" | "host"
        // Misused or ours to set.
        | "proxy" | "forwarded" | "x-real-ip" | "client-ip" | "x-client-ip" | "true-client-ip" | "via" | "x-request-id"
    ) && !name.as_str().starts_with("x-forwarded")
        && !name.as_str().starts_with("cf-connecting")
}

/// Reads encoded parameters back, for tests and explanations.
pub fn read(mut encoded: &[u8]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    while let (Some(name), Some(value)) = (take_length(&mut encoded), take_length(&mut encoded)) {
        if encoded.len() < name + value {
            break;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        out.push((text(&encoded[..name]), text(&encoded[name..name + value])));
        encoded = &encoded[name + value..];
    }
    out
}

fn take_length(encoded: &mut &[u8]) -> Option<usize> {
    let first = *encoded.first()?;
    if first < 128 {
        *encoded = &encoded[1..];
        return Some(usize::from(first));
    }
    let (head, rest) = encoded.split_at_checked(4)?;
    *encoded = rest;
    Some((u32::from_be_bytes(head.try_into().ok()?) & !(1 << 31)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_survive_a_round_trip_at_every_length() {
        for length in [0, 1, 127, 128, 70_000] {
            let value = "v".repeat(length);
            let mut params = Params::new();
            params.set("A", &value);
            params.header("x-thing", value.as_bytes());
            assert_eq!(
                read(params.as_bytes()),
                [("A".into(), value.clone()), ("HTTP_X_THING".into(), value)]
            );
        }
    }

    #[test]
    fn no_header_can_alias_a_parameter() {
        for (name, wanted) in [
            ("accept", true),
            ("cookie", true),
            ("x-forwarded-for", false),
            ("x-forwarded-anything", false),
            ("forwarded", false),
            ("x_forwarded_for", false),
            ("proxy", false),
            ("x-real-ip", false),
            ("transfer-encoding", false),
            ("content-length", false),
        ] {
            assert_eq!(may_pass(&name.parse().expect(name)), wanted, "{name}");
        }
    }
}
