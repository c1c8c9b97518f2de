//! The records as a tree of labels from the end of names on, and what SkyDNS does to a set of them before it answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use hickory_proto::rr::Name;
use hickory_proto::rr::domain::Label;
use pressroom_model::discovery::{Leased, PRIORITY, Record, TTL, WEIGHT, key_of};

/// The labels of a name from its end on, in small letters.
pub type Path = Vec<Box<str>>;

/// All records, as they were at one revision.
#[derive(Debug, Clone, Default)]
pub struct Names {
    domain: Path,
    serial: u32,
    records: BTreeMap<Path, Held>,
    leases: BTreeMap<u64, Instant>,
}

#[derive(Debug, Clone)]
struct Held {
    name: Name,
    record: Record,
    lease: Option<u64>,
}

/// A record that a question is answered with.
#[derive(Debug, Clone)]
pub struct Service<'a> {
    /// The name of the record itself.
    pub name: &'a Name,
    /// How many labels that has.
    depth: usize,
    /// The record.
    pub record: &'a Record,
    /// Seconds that an answer may be kept.
    pub ttl: u32,
}

impl Service<'_> {
    /// The priority, as SkyDNS fills it in.
    pub fn priority(&self) -> u16 {
        if self.record.priority == 0 { PRIORITY } else { self.record.priority }
    }

    /// The weight, as SkyDNS fills it in.
    pub fn weight(&self) -> u16 {
        if self.record.weight == 0 { WEIGHT } else { self.record.weight }
    }

    /// The address, where the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.record.address()
    }

    /// The name that the host is, where it is one.
    pub fn host(&self) -> Option<Name> {
        if self.record.host.is_empty() || self.address().is_some() {
            return None;
        }
        let mut name = Name::from_ascii(&self.record.host).ok()?;
        name.set_fqdn(true);
        Some(name)
    }

    /// The name that SRV and MX answers point at: the host, or the record's own where the host is an address.
    pub fn target(&self) -> Option<Name> {
        let target = self.host().or_else(|| self.address().map(|_| self.name.clone()))?;
        let left = usize::from(target.num_labels()).saturating_sub(self.record.targetstrip.into());
        Some(target.trim_to(left.max(1)))
    }
}

impl Names {
    /// The tree of these records; `leases` says when they end. A key that is no name is passed over.
    pub fn new<'a>(
        domain: &str,
        serial: u32,
        records: impl IntoIterator<Item = (&'a str, Leased)>,
        leases: BTreeMap<u64, Instant>,
    ) -> Self {
        let records = records.into_iter().filter_map(|(key, leased)| {
            let labels: Vec<&str> = key.split('/').filter(|label| !label.is_empty()).collect();
            if labels.iter().any(|label| label.contains('.')) {
                return None;
            }
            let name = name_of(&labels)?;
            let path = labels.iter().map(|label| label.to_ascii_lowercase().into()).collect();
            Some((path, Held { name, record: leased.record, lease: leased.lease }))
        });
        let records = records.collect();
        let domain = key_of(domain).split('/').skip(1).map(Into::into).collect();
        Self { domain, serial, records, leases }
    }

    /// The serial number of our zones.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// The zone that a name is in, if it is one of ours: the domain; where others wrote records, the two last labels of
    /// those (`example.com`, `in-addr.arpa`).
    pub fn zone(&self, path: &[Box<str>]) -> Option<Path> {
        if path.starts_with(&self.domain) {
            return Some(self.domain.clone());
        }
        let zone = path.get(..2).filter(|zone| self.any_under(zone))?;
        Some(zone.to_vec())
    }

    /// Whether a zone is the domain of our own names.
    pub fn is_domain(&self, zone: &[Box<str>]) -> bool {
        zone == self.domain
    }

    /// Whether there is something at this name or below it.
    pub fn exists(&self, path: &[Box<str>]) -> bool {
        match path.iter().any(|label| is_wild(label)) {
            true => self.matching(path).next().is_some(),
            // The domain itself, and what is above it.
            false => self.domain.starts_with(path) || self.any_under(path),
        }
    }

    fn any_under(&self, path: &[Box<str>]) -> bool {
        self.under(path).next().is_some()
    }

    fn under<'a, 'p>(
        &'a self,
        path: &'p [Box<str>],
    ) -> impl Iterator<Item = (&'a Path, &'a Held)> + use<'a, 'p> {
        let from = std::ops::Bound::Included(path);
        let range = self.records.range::<[Box<str>], _>((from, std::ops::Bound::Unbounded));
        range.take_while(move |(key, _)| key.starts_with(path))
    }

    /// Everything at a name and below it, where `*` and `any` stand for every label.
    fn matching<'a, 'p>(
        &'a self,
        path: &'p [Box<str>],
    ) -> impl Iterator<Item = (&'a Path, &'a Held)> + use<'a, 'p> {
        let plain = path.iter().position(|label| is_wild(label)).unwrap_or(path.len());
        self.under(&path[..plain]).filter(move |(key, _)| {
            key.len() >= path.len()
                && path
                    .iter()
                    .zip(key.iter())
                    .all(|(asked, label)| is_wild(asked) || asked == label)
        })
    }

    /// The records that a question for this name is answered with, in the order of their keys.
    pub fn services(&self, path: &[Box<str>], now: Instant) -> Vec<Service<'_>> {
        let mut seen = BTreeSet::new();
        let found = self.matching(path).filter(|(_, held)| {
            let it = &held.record;
            seen.insert((&it.host, it.port, it.priority, it.weight, &it.text))
        });
        let services = found.map(|(path, held)| Service {
            name: &held.name,
            depth: path.len(),
            record: &held.record,
            ttl: self.ttl(held, now),
        });
        of_one_group(services.collect())
    }

    /// Never more than what is left of the lease; a lease that nothing is known of has nothing left.
    fn ttl(&self, held: &Held, now: Instant) -> u32 {
        let rest = held.lease.map(|lease| {
            let ends = self.leases.get(&lease).copied().unwrap_or(now);
            u32::try_from(ends.saturating_duration_since(now).as_secs()).unwrap_or(u32::MAX)
        });
        match (held.record.ttl, rest) {
            (0, None) => TTL,
            (0, Some(rest)) => rest,
            (ttl, rest) => ttl.min(rest.unwrap_or(u32::MAX)),
        }
    }
}

/// `*` and `any` stand for every label.
fn is_wild(label: &str) -> bool {
    label == "*" || label == "any"
}

/// SkyDNS's groups: the records nearest to the question name the group, and others of another group are left out. Where those
/// disagree, or name none, everything is answered.
fn of_one_group(services: Vec<Service<'_>>) -> Vec<Service<'_>> {
    let nearest = services.iter().map(|it| it.depth).min().unwrap_or_default();
    let named: BTreeSet<&str> = services
        .iter()
        .filter(|it| it.depth == nearest)
        .map(|it| it.record.group.as_str())
        .filter(|group| !group.is_empty())
        .collect();
    let mut named = named.into_iter();
    match (named.next(), named.next()) {
        (Some(group), None) => {
            let group = group.to_owned();
            let is_in = |it: &Service<'_>| [&*group, ""].contains(&it.record.group.as_str());
            services.into_iter().filter(is_in).collect()
        }
        _ => services,
    }
}

/// The labels of a name from its end on, in small letters.
pub fn path_of(name: &Name) -> Path {
    let label = |label: &[u8]| String::from_utf8_lossy(label).to_ascii_lowercase().into();
    name.iter().rev().map(label).collect()
}

/// The name with these labels from its end on; `None`: it would be too long.
pub fn name_of(labels: &[impl AsRef<str>]) -> Option<Name> {
    let label = |label: &str| Label::from_raw_bytes(label.as_bytes()).ok();
    let labels: Option<Vec<Label>> = labels.iter().rev().map(|it| label(it.as_ref())).collect();
    let mut name = Name::from_labels(labels?).ok()?;
    name.set_fqdn(true);
    Some(name)
}
