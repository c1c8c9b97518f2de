//! Engines that operators keep themselves: how they are reached. Of these there is etcd so far.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// An etcd that has a cluster's state below a prefix, and whose members and users are none of ours. Certificates and keys are
/// their contents, not their files: every node needs them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Etcd {
    /// Where it answers: `https://etcd1.example.com:2379`.
    pub endpoints: Vec<String>,
    /// What is before all keys; begins and ends with `/`.
    pub prefix: String,
    /// The authorities that its certificates may be of, PEM; `None`: those that the node's system trusts.
    #[serde(default)]
    pub authority: Option<String>,
    /// The certificate that is shown to it, then its issuers, PEM.
    #[serde(default)]
    pub certificate: Option<String>,
    /// The key of that, PEM.
    #[serde(default)]
    pub key: Option<Secret>,
    /// Its user, where a certificate does not say it.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
}

impl Etcd {
    /// What is wrong with it, as far as that can be seen without asking it.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.endpoints.iter().filter_map(|url| endpoint(url).err()).collect();
        if self.endpoints.is_empty() {
            faults.push("no endpoint is named".into());
        }
        if let Err(fault) = prefix(&self.prefix) {
            faults.push(fault);
        }
        if self.certificate.is_some() != self.key.is_some() {
            faults.push("a certificate and its key are of use only together".into());
        }
        if self.user.is_some() != self.password.is_some() {
            faults.push("a user and a password are of use only together".into());
        }
        faults
    }

    /// Where it is, in words.
    pub fn place(&self) -> String {
        format!("{} under `{}`", self.endpoints.join(", "), self.prefix)
    }
}

/// Judges an endpoint: `https` with a port; `http` only where nobody is on the way.
pub fn endpoint(url: &str) -> Result<(), String> {
    let bad = |rule: &str| Err(format!("`{url}` is no endpoint: {rule}"));
    let Some((scheme, rest)) = url.split_once("://") else {
        return bad("write it as `https://HOST:2379`");
    };
    let is_letter = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, ""));
    if host.is_empty() || !rest.chars().all(is_letter) || !port.parse::<u16>().is_ok_and(|p| p > 0)
    {
        return bad("write it as `https://HOST:2379`, with its port and nothing behind that");
    }
    let is_here = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match scheme {
        "https" => Ok(()),
        "http" if is_here => Ok(()),
        "http" => bad("without TLS everybody on the way could change the cluster; use `https`"),
        _ => bad("write it as `https://HOST:2379`"),
    }
}

/// A prefix as it is used, `/` at both ends; or why it is none.
pub fn prefix(text: &str) -> Result<String, String> {
    let inner = text.trim_matches('/');
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let is_good = |part: &str| !part.is_empty() && part.chars().all(is_letter);
    if inner.len() > 200 || !inner.split('/').all(is_good) {
        return Err(format!(
            "`{text}` is no prefix: write it as `/pressroom/NAME`, in plain letters"
        ));
    }
    match inner.split('/').next() {
        Some("skydns") => Err(format!("`{text}` is no prefix: names are kept there")),
        _ => Ok(format!("/{inner}/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_https_with_a_port_unless_it_is_on_this_machine() {
        for good in [
            "https://10.0.0.1:2379",
            "https://etcd-1.example.com:2379",
            "https://[2001:db8::1]:2379",
            "http://127.0.0.1:2379",
            "http://[::1]:2379",
            "http://localhost:1",
        ] {
            assert_eq!(endpoint(good), Ok(()), "{good}");
        }
        for bad in [
            "10.0.0.1:2379",
            "https://10.0.0.1",
            "https://:2379",
            "https://a:0",
            "https://a:99999",
            "https://me@a:2379",
            "https://a:2379/v3",
            "http://10.0.0.1:2379",
            "unix://a:1",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_is_a_path_that_is_not_that_of_names() {
        for good in ["/pressroom/shop", "pressroom/shop/", "/pressroom/shop/"] {
            assert_eq!(prefix(good), Ok("/pressroom/shop/".into()), "{good}");
        }
        for bad in ["", "/", "//", "/a//b", "/a b", "/skydns", "/skydns/x"] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_of_it_are_not_shown() {
        let secret = |text: &str| Some(Secret::new(text));
        let etcd = Etcd {
            endpoints: vec!["https://a:1".into()],
            prefix: "/a/".into(),
            authority: None,
            certificate: Some("chain".into()),
            key: secret("hidden"),
            user: Some("u".into()),
            password: secret("hidden"),
        };
        assert_eq!(etcd.faults(), Vec::<String>::new());
        assert!(!format!("{etcd:?}").contains("hidden"));
        let halves = Etcd { key: None, password: None, endpoints: vec![], ..etcd };
        assert_eq!(halves.faults().len(), 3);
    }
}
