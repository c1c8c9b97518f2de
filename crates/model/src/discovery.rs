//! Who offers what, and where: records in the form that SkyDNS made and CoreDNS reads.
//!
//! A record is JSON at the key `/skydns/<reversed domain>/<service>/<id>`: `1.n1.php.blog.pressroom.local` is
//! `/skydns/local/pressroom/blog/php/n1/1`. Fields that nobody knows are passed over, since others write there as well; what a
//! record means for a question is the affair of the `dns` plane
//! (<https://github.com/skynetservices/skydns#service-announcements>, <https://coredns.io/plugins/etcd/>).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The first part of every key.
pub const ROOT: &str = "skydns";
/// The domain of our own names, where operators name no other.
pub const DOMAIN: &str = "pressroom.local";
/// Seconds that an answer may be kept where neither the record nor a lease says anything.
pub const TTL: u32 = 300;
/// The priority of a record that names none.
pub const PRIORITY: u16 = 10;
/// The weight of a record that names none.
pub const WEIGHT: u16 = 100;

/// One record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// An address, or a name that has some. Empty: the record is text alone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// The port; 0: none.
    #[serde(skip_serializing_if = "is_default")]
    pub port: u16,
    /// Of SRV and MX records: lower ones first. 0: [`PRIORITY`].
    #[serde(skip_serializing_if = "is_default")]
    pub priority: u16,
    /// Of SRV records: its part among those of the same priority. 0: [`WEIGHT`].
    #[serde(skip_serializing_if = "is_default")]
    pub weight: u16,
    /// What a TXT question is answered with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Whether it answers MX questions.
    #[serde(skip_serializing_if = "is_default")]
    pub mail: bool,
    /// Seconds that an answer may be kept, at most; 0: as long as its lease has left, without one [`TTL`].
    #[serde(skip_serializing_if = "is_default")]
    pub ttl: u32,
    /// So many labels are taken from the front of the name that an SRV or MX answer points at.
    #[serde(skip_serializing_if = "is_default")]
    pub targetstrip: u8,
    /// Of records at different depths only those of the group that is nearest to the question are answered with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why a record is none.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// It is no JSON of this form.
    #[error("it cannot be read: {0}")]
    Form(#[from] serde_json::Error),
    /// The host.
    #[error("`{0}` is neither an address nor a name")]
    Host(String),
    /// Nothing in it.
    #[error("it has neither `host` nor `text`")]
    Empty,
}

impl Record {
    /// The record in a value of the store.
    pub fn parse(value: &[u8]) -> Result<Self, BadRecord> {
        let record: Self = serde_json::from_slice(value)?;
        record.check()?;
        Ok(record)
    }

    /// Whether it means something.
    pub fn check(&self) -> Result<(), BadRecord> {
        match (self.host.as_str(), self.text.as_str()) {
            ("", "") => Err(BadRecord::Empty),
            ("", _) => Ok(()),
            (host, _) if self.address().is_some() || is_name(host) => Ok(()),
            (host, _) => Err(BadRecord::Host(host.to_owned())),
        }
    }

    /// The host, where it is an address.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// As a value of the store.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data")
    }
}

/// What the `dns` plane works by: all records, with what is left of their leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The domain that is answered for, whether there are records in it or not.
    pub domain: String,
    /// The revision of the store that it is of: the serial number of the zones.
    #[serde(default)]
    pub revision: u64,
    /// When the rests of leases were known: milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
    /// Records by their keys without [`ROOT`]: `local/pressroom/blog/php/n1/1`.
    #[serde(default)]
    pub records: BTreeMap<String, Leased>,
    /// What was left of leases then, in milliseconds.
    #[serde(default)]
    pub leases: BTreeMap<u64, u64>,
    /// Resolvers for all other names; none: such questions are refused.
    #[serde(default)]
    pub forward: Vec<SocketAddr>,
}

/// A record and the lease that it vanishes with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// The record.
    pub record: Record,
    /// The lease.
    #[serde(default)]
    pub lease: Option<u64>,
}

/// Whether something may be a name: labels of 1 to 63 characters, 253 together (RFC 1035, 2.3.4). A dot may end it.
pub fn is_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\' && byte != b'/')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

/// A key below [`ROOT`] with the labels of a name from its end on: `blog.pressroom.local` gives `skydns/local/pressroom/blog`.
/// Empty labels are left out, letters become small.
pub fn key_of(name: &str) -> String {
    let labels = name.rsplit('.').filter(|label| !label.is_empty());
    let parts: Vec<String> =
        std::iter::once(ROOT.to_owned()).chain(labels.map(str::to_ascii_lowercase)).collect();
    parts.join("/")
}

/// Where one thing is: `/skydns/<reversed domain>/<service…>/<node>/<id>`. `service` is a name below the domain (`php.blog`).
pub fn place(domain: &str, service: &str, node: &str, id: &str) -> String {
    let clean = |text: &str| -> String {
        let is_good = |c: &char| c.is_ascii_alphanumeric() || "-_.".contains(*c);
        text.chars().map(|c| if is_good(&c) { c } else { '-' }).collect()
    };
    key_of(&format!("{}.{}.{}.{domain}", clean(id), clean(node), clean(service)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_skydns_writes_it_and_written_without_what_it_lacks() {
        let text = br#"{"host":"10.0.0.1","port":8080,"priority":20,"weight":3,"text":"x","ttl":30,"targetstrip":1,"group":"g","mail":true,"key":"passed over"}"#;
        let record = Record::parse(text).expect("a record");
        assert_eq!((record.port, record.priority, record.weight, record.ttl), (8080, 20, 3, 30));
        assert_eq!(Record::parse(&record.json()).expect("itself"), record);
        let small = Record { host: "db.example".into(), ..Record::default() };
        assert_eq!(small.json(), br#"{"host":"db.example"}"#);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in [
            r#"{}"#,
            r#"{"port":80}"#,
            r#"{"host":"a b"}"#,
            r#"{"host":"a..b"}"#,
            r#"{"host":"10.0.0.1","port":70000}"#,
            r#"{"host":7}"#,
            "10.0.0.1",
        ] {
            assert!(Record::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        for good in [r#"{"host":"::1"}"#, r#"{"host":"db.example."}"#, r#"{"text":"hello"}"#] {
            assert!(Record::parse(good.as_bytes()).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_name_is_a_key_from_its_end_on() {
        assert_eq!(key_of("Blog.pressroom.local."), "skydns/local/pressroom/blog");
        let place = place("pressroom.local", "php.blog", "n1.example", "1");
        assert_eq!(place, "skydns/local/pressroom/blog/php/example/n1/1");
    }
}
