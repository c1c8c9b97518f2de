//! Floating addresses: they are on one node at a time, and on another one when that is lost.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address that is on one node at a time, as it is written: `10.0.0.10/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Floating {
    /// The address.
    pub address: IpAddr,
    /// Leading bits of its network; by default all of them.
    pub prefix: u8,
}

/// Why a text is no floating address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFloating(&'static str);

impl FromStr for Floating {
    type Err = BadFloating;

    fn from_str(text: &str) -> Result<Self, BadFloating> {
        let rule = BadFloating("write an address with its network's length, as `10.0.0.10/24`");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| rule.clone())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| rule.clone())?,
            None => most,
        };
        if prefix == 0 || prefix > most {
            return Err(rule);
        }
        let is_local = match address {
            IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
            IpAddr::V6(address) => {
                address.is_unicast_link_local() || address.to_ipv4_mapped().is_some()
            }
        };
        if is_local || address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Err(BadFloating(
                "visitors must be able to reach it: not loopback, link-local or multicast",
            ));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Floating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Floating> for String {
    fn from(floating: Floating) -> Self {
        floating.to_string()
    }
}

impl TryFrom<String> for Floating {
    type Error = BadFloating;

    fn try_from(text: String) -> Result<Self, BadFloating> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floating_address_is_one_that_visitors_can_reach() {
        let check = |text: &str, expected: Option<&str>| {
            let read = text.parse::<Floating>().ok().map(|it| it.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        check("10.0.0.10/24", Some("10.0.0.10/24"));
        check("10.0.0.10", Some("10.0.0.10/32"));
        check("2001:db8::10/64", Some("2001:db8::10/64"));
        check("2001:db8::10", Some("2001:db8::10/128"));
        for bad in [
            "",
            "10.0.0.10/0",
            "10.0.0.10/33",
            "10.0.0.10/x",
            "0.0.0.0/24",
            "127.0.0.2",
            "224.0.0.18",
            "169.254.1.1/16",
            "fe80::1/64",
            "::1",
            "::ffff:10.0.0.1",
            "blog.test",
        ] {
            check(bad, None);
        }
    }
}
