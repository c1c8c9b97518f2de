//! Who the client is: its address and scheme, behind proxies that are trusted. Pure.
//!
//! Always: a header of a peer that is not a trusted proxy changes nothing. Behind trusted proxies the client is the
//! rightmost address that is not itself a trusted proxy, so nobody can choose their own address by sending a header.

use std::net::IpAddr;

use http::HeaderMap;

/// A block of addresses: `10.0.0.0/8`, `::1/128`, `192.0.2.7`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    address: IpAddr,
    prefix: u8,
}

impl Block {
    /// Reads a block; `None`: it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(most);
        (prefix <= most).then_some(Self { address, prefix })
    }

    /// Whether the address is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                a.to_bits() & mask == b.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// The addresses whose forwarding headers are believed.
#[derive(Debug, Clone, Default)]
pub struct Trusted(Vec<Block>);

impl Trusted {
    /// Reads the blocks; those that cannot be read are returned beside.
    pub fn new(blocks: &[String]) -> (Self, Vec<String>) {
        let mut bad = Vec::new();
        let good = blocks
            .iter()
            .filter_map(|text| {
                let block = Block::parse(text);
                if block.is_none() {
                    bad.push(text.clone());
                }
                block
            })
            .collect();
        (Self(good), bad)
    }

    /// Whether the address is a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|block| block.contains(address))
    }
}

/// Scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// TLS, here or at a trusted proxy.
    Https,
}

impl Scheme {
    /// As in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What is known of the client of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// How it came to the first proxy, or to us.
    pub scheme: Scheme,
}

/// Finds out who sent a request that came from `peer` over `scheme`.
pub fn identify(peer: IpAddr, scheme: Scheme, headers: &HeaderMap, trusted: &Trusted) -> Client {
    let direct = Client { address: peer, scheme };
    if trusted.0.is_empty() || !trusted.contains(peer) {
        return direct;
    }
    let (hops, protocol) = forwarded(headers).unwrap_or_else(|| x_forwarded(headers));
    let mut address = peer;
    for hop in hops.iter().rev() {
        // An address that cannot be read hides whatever stands left of it.
        let Some(hop) = hop else { break };
        address = hop.to_canonical();
        if !trusted.contains(address) {
            break;
        }
    }
    let scheme = match protocol.as_deref() {
        Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        _ => scheme,
    };
    Client { address, scheme }
}

type Hops = (Vec<Option<IpAddr>>, Option<String>);

/// RFC 7239; the protocol is the one told by the last proxy.
fn forwarded(headers: &HeaderMap) -> Option<Hops> {
    let mut hops = Vec::new();
    let mut protocol = None;
    for value in headers.get_all(http::header::FORWARDED) {
        for element in value.to_str().ok()?.split(',') {
            let mut hop = None;
            for pair in element.split(';') {
                let Some((name, value)) = pair.split_once('=') else { continue };
                let value = value.trim().trim_matches('"');
                if name.trim().eq_ignore_ascii_case("for") {
                    hop = address(value);
                } else if name.trim().eq_ignore_ascii_case("proto") {
                    protocol = Some(value.to_ascii_lowercase());
                }
            }
            hops.push(hop);
        }
    }
    (!hops.is_empty()).then_some((hops, protocol))
}

fn x_forwarded(headers: &HeaderMap) -> Hops {
    let mut hops = Vec::new();
    for value in headers.get_all("x-forwarded-for") {
        match value.to_str() {
            Ok(text) => hops.extend(text.split(',').map(|part| address(part.trim()))),
            Err(_) => hops.push(None),
        }
    }
    let protocol = headers
        .get_all("x-forwarded-proto")
        .iter()
        .next_back()
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.rsplit(',').next())
        .map(|v| v.trim().to_ascii_lowercase());
    (hops, protocol)
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn address(text: &str) -> Option<IpAddr> {
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse().ok();
    }
    text.parse()
        .ok()
        .or_else(|| text.rsplit_once(':')?.0.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, headers: &[(&str, &str)], wanted: &str, scheme: Scheme) {
        let (trusted, bad) = Trusted::new(&["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()]);
        assert!(bad.is_empty());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().expect("a name");
            map.append(name, value.parse().expect("a value"));
        }
        let client = identify(peer.parse().expect("an address"), Scheme::Http, &map, &trusted);
        assert_eq!(client.address.to_string(), wanted, "{peer} {headers:?}");
        assert_eq!(client.scheme, scheme, "{peer} {headers:?}");
    }

    #[test]
    fn a_stranger_cannot_choose_its_address_or_scheme() {
        let lies = [
            ("x-forwarded-for", "1.2.3.4"),
            ("forwarded", "for=1.2.3.4;proto=https"),
            ("x-forwarded-proto", "https"),
        ];
        check("192.0.2.1", &lies, "192.0.2.1", Scheme::Http);
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        check(
            "10.0.0.1",
            &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.9.9.9")],
            "1.2.3.4",
            Scheme::Http,
        );
        check(
            "10.0.0.1",
            &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")],
            "1.2.3.4",
            Scheme::Http,
        );
        check("10.0.0.1", &[("x-forwarded-for", "1.2.3.4:5678")], "1.2.3.4", Scheme::Http);
        check("fd00::1", &[("x-forwarded-for", "2001:db8::7")], "2001:db8::7", Scheme::Http);
        check(
            "10.0.0.1",
            &[("x-forwarded-for", "6.6.6.6, junk, 10.9.9.9")],
            "10.9.9.9",
            Scheme::Http,
        );
        check("10.0.0.1", &[], "10.0.0.1", Scheme::Http);
        let rfc =
            [("forwarded", "for=6.6.6.6, for=\"[2001:db8::7]:4711\";proto=https, for=10.2.2.2")];
        check("10.0.0.1", &rfc, "2001:db8::7", Scheme::Https);
    }

    #[test]
    fn a_trusted_proxy_tells_the_scheme() {
        check(
            "10.0.0.1",
            &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")],
            "1.2.3.4",
            Scheme::Https,
        );
        check("10.0.0.1", &[("x-forwarded-proto", "ftp")], "10.0.0.1", Scheme::Http);
    }

    #[test]
    fn blocks_are_read_and_bad_ones_named() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("::1/128", "::1", "::2"),
            ("fe80::/10", "fe80::1", "2001::1"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
        ] {
            let block = Block::parse(block).expect(block);
            assert!(block.contains(inside.parse().expect(inside)));
            assert!(!block.contains(outside.parse().expect(outside)));
        }
        let (_, bad) = Trusted::new(&["10.0.0.0/33".into(), "x".into(), "1.2.3.4/".into()]);
        assert_eq!(bad.len(), 3);
    }
}
