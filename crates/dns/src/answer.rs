//! What a question is answered with: pure, by SkyDNS's rules where the standards leave room.
//!
//! A question is answered with everything at its name *and below it*; `*` or `any` in the place of a label stands for all of them.
//! Where SkyDNS breaks the standards we do not: a name has one alias at most (several names as hosts are answered with their
//! addresses), one set of records has one time to live, and `ANY` is answered as RFC 8482 asks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, MX, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::names::{Names, Path, Service, name_of, path_of};

/// Most aliases in a row.
const MOST_ALIASES: usize = 8;
/// Seconds that "there is no such name" may be kept: something new is found after that.
const NEGATIVE_TTL: u32 = 5;
/// The largest datagram that we take, and send where the asker takes as much: it is never fragmented (DNS flag day 2020).
pub const DATAGRAM: u16 = 1232;

/// What became of a question.
#[derive(Debug)]
pub enum Outcome {
    /// This is the answer.
    Reply(Message),
    /// This is the answer where no other resolver can be asked: the name is none of ours.
    Otherwise(Message),
    /// The answer ends in an alias for a name that is none of ours.
    Alias(Message, Name),
}

/// Answers a question, as things are at `now`.
pub fn answer(request: &Message, names: &Names, now: Instant) -> Outcome {
    let mut reply = blank(request);
    let query = match sensible(request) {
        Ok(query) => query,
        Err(code) => return Outcome::Reply(with_code(reply, code)),
    };
    let path = path_of(query.name());
    let Some(zone) = names.zone(&path) else {
        return Outcome::Otherwise(with_code(reply, ResponseCode::Refused));
    };
    let mut found = Asker { names, now }.find(query, &path, &zone);
    found.even_out();
    found.rotate(usize::from(request.id));
    reply.metadata.authoritative = true;
    let is_empty = found.answers.is_empty();
    let is_ours = names.is_domain(&zone) || names.exists(&path);
    if is_empty && !names.exists(&path) {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    if is_empty {
        reply.authorities.extend(soa(names, &zone));
    }
    reply.answers = found.answers;
    reply.additionals = found.additionals;
    match found.elsewhere {
        Some(target) => Outcome::Alias(reply, target),
        None if is_ours => Outcome::Reply(reply),
        None => Outcome::Otherwise(reply),
    }
}

/// An answer without an answer: the same id and question, letter by letter.
pub fn blank(request: &Message) -> Message {
    let mut reply = Message::new(request.id, MessageType::Response, request.op_code);
    reply.metadata.recursion_desired = request.recursion_desired;
    reply.metadata.checking_disabled = request.checking_disabled;
    reply.queries.clone_from(&request.queries);
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM).set_version(0);
        reply.set_edns(edns);
    }
    reply
}

/// The same with this code.
pub fn with_code(mut reply: Message, code: ResponseCode) -> Message {
    reply.metadata.response_code = code;
    reply
}

/// The one question of a request, where it is one that we answer.
fn sensible(request: &Message) -> Result<&Query, ResponseCode> {
    if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Err(ResponseCode::BADVERS);
    }
    if request.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    let [query] = request.queries.as_slice() else {
        return Err(ResponseCode::FormErr);
    };
    let is_transfer = matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR);
    match query.query_class() {
        DNSClass::IN | DNSClass::ANY if !is_transfer => Ok(query),
        _ => Err(ResponseCode::Refused),
    }
}

/// What a question found.
#[derive(Debug, Default)]
struct Found {
    answers: Vec<Record>,
    additionals: Vec<Record>,
    /// Where an alias leads out of our names.
    elsewhere: Option<Name>,
}

impl Found {
    /// One time to live for each set of records, the shortest (RFC 2181, 5.2).
    fn even_out(&mut self) {
        let mut shortest: BTreeMap<(Name, u16), u32> = BTreeMap::new();
        let all = || self.answers.iter().chain(&self.additionals);
        for record in all() {
            let of = (record.name.to_lowercase(), record.record_type().into());
            let ttl = shortest.entry(of).or_insert(record.ttl);
            *ttl = record.ttl.min(*ttl);
        }
        for record in self.answers.iter_mut().chain(&mut self.additionals) {
            let of = (record.name.to_lowercase(), record.record_type().into());
            record.ttl = shortest.get(&of).copied().unwrap_or_default();
        }
    }

    /// Another one of equals comes first every time.
    fn rotate(&mut self, turn: usize) {
        let is_alias = |record: &Record| record.record_type() == RecordType::CNAME;
        let first = self.answers.iter().position(|it| !is_alias(it)).unwrap_or_default();
        let equals = &mut self.answers[first..];
        if !equals.is_empty() {
            equals.rotate_left(turn % equals.len());
        }
    }

    fn answer(&mut self, name: &Name, ttl: u32, data: RData) {
        push(&mut self.answers, Record::from_rdata(name.clone(), ttl, data));
    }

    fn add(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            push(&mut self.additionals, record);
        }
    }
}

/// Each one once.
fn push(records: &mut Vec<Record>, record: Record) {
    let is_it = |other: &Record| other.name == record.name && other.data == record.data;
    if !records.iter().any(is_it) {
        records.push(record);
    }
}

struct Asker<'a> {
    names: &'a Names,
    now: Instant,
}

impl Asker<'_> {
    fn find(&self, query: &Query, path: &Path, zone: &Path) -> Found {
        let (name, mut found) = (query.name(), Found::default());
        let is_apex = path == zone;
        match query.query_type() {
            kind @ (RecordType::A | RecordType::AAAA | RecordType::TXT) => {
                self.follow(name, kind, &mut Vec::new(), &mut found);
            }
            RecordType::SRV => self.services(name, path, &mut found),
            RecordType::MX => self.mail(name, path, &mut found),
            RecordType::PTR => self.pointers(name, path, &mut found),
            RecordType::CNAME => self.alias(name, path, &mut found),
            RecordType::NS if is_apex => self.servers(name, zone, &mut found),
            RecordType::SOA if is_apex => found.answers.extend(soa(self.names, zone)),
            RecordType::ANY if self.names.exists(path) => {
                let hint = HINFO::new("RFC8482".into(), String::new());
                found.answer(name, NEGATIVE_TTL, RData::HINFO(hint));
            }
            _ => {}
        }
        found
    }

    /// Addresses or texts, through aliases.
    fn follow(&self, name: &Name, kind: RecordType, passed: &mut Vec<Path>, found: &mut Found) {
        let path = path_of(name);
        if passed.contains(&path) || passed.len() > MOST_ALIASES {
            return;
        }
        passed.push(path.clone());
        let services = self.names.services(&path, self.now);
        for service in &services {
            if let Some(data) = own_data(service, kind) {
                found.answer(name, service.ttl, data);
            }
        }
        match sole_host(&services) {
            Some((host, ttl)) => self.follow_alias((name, &host, ttl), kind, passed, found),
            None => self.flatten(name, &services, kind, passed, found),
        }
    }

    /// An alias is told with what it leads to, or not at all.
    fn follow_alias(
        &self,
        (name, host, ttl): (&Name, &Name, u32),
        kind: RecordType,
        passed: &mut Vec<Path>,
        found: &mut Found,
    ) {
        let alias = Record::from_rdata(name.clone(), ttl, RData::CNAME(CNAME(host.clone())));
        if !self.knows(host) {
            found.answers.push(alias);
            found.elsewhere = Some(host.clone());
            return;
        }
        let mut behind = Found::default();
        self.follow(host, kind, passed, &mut behind);
        if !behind.answers.is_empty() {
            found.answers.push(alias);
            found.answers.append(&mut behind.answers);
            found.elsewhere = behind.elsewhere;
        }
    }

    /// Several names as hosts: what they have becomes the asked name's own.
    fn flatten(
        &self,
        name: &Name,
        services: &[Service<'_>],
        kind: RecordType,
        passed: &[Path],
        found: &mut Found,
    ) {
        let mut outside = None;
        for (host, ttl) in services.iter().filter_map(|it| Some((it.host()?, it.ttl))) {
            if !self.knows(&host) {
                outside.get_or_insert((host, ttl));
                continue;
            }
            let mut behind = Found::default();
            self.follow(&host, kind, &mut passed.to_vec(), &mut behind);
            let shortest = behind.answers.iter().map(|it| it.ttl).min().unwrap_or(ttl).min(ttl);
            for record in behind.answers.into_iter().filter(|it| it.record_type() == kind) {
                found.answer(name, shortest, record.data);
            }
        }
        if let (Some((host, ttl)), true) = (outside, found.answers.is_empty()) {
            found.answer(name, ttl, RData::CNAME(CNAME(host.clone())));
            found.elsewhere = Some(host);
        }
    }

    fn knows(&self, host: &Name) -> bool {
        let path = path_of(host);
        let is_in_domain = |zone: Path| self.names.is_domain(&zone);
        self.names.zone(&path).is_some_and(is_in_domain) || self.names.exists(&path)
    }

    /// SRV: each record's weight is its part of a hundred of all that have the same priority.
    fn services(&self, name: &Name, path: &Path, found: &mut Found) {
        let services = self.names.services(path, self.now);
        let mut sums: BTreeMap<u16, u32> = BTreeMap::new();
        for service in &services {
            *sums.entry(service.priority()).or_default() += u32::from(service.weight());
        }
        let mut told: Vec<(Name, u16)> = Vec::new();
        for service in &services {
            let (Some(target), port) = (service.target(), service.record.port) else { continue };
            let sum = sums.get(&service.priority()).copied().unwrap_or(1).max(1);
            let part = u32::from(service.weight()) * 100 / sum;
            let weight = u16::try_from(part).unwrap_or(u16::MAX).max(1);
            if !told.contains(&(target.clone(), port)) {
                told.push((target.clone(), port));
                let data = SRV::new(service.priority(), weight, port, target.clone());
                found.answer(name, service.ttl, RData::SRV(data));
            }
            self.add_addresses(service, &target, found);
        }
    }

    fn mail(&self, name: &Name, path: &Path, found: &mut Found) {
        for service in self.names.services(path, self.now).iter().filter(|it| it.record.mail) {
            let Some(target) = service.target() else { continue };
            let data = MX::new(service.priority(), target.clone());
            found.answer(name, service.ttl, RData::MX(data));
            self.add_addresses(service, &target, found);
        }
    }

    /// Name servers are what is at `ns.dns` below a zone.
    fn servers(&self, name: &Name, zone: &Path, found: &mut Found) {
        let path: Path = zone.iter().cloned().chain(["dns".into(), "ns".into()]).collect();
        for service in &self.names.services(&path, self.now) {
            let Some(target) = service.target() else { continue };
            found.answer(name, service.ttl, RData::NS(NS(target.clone())));
            self.add_addresses(service, &target, found);
        }
    }

    /// PTR: of the very name, in the reverse trees.
    fn pointers(&self, name: &Name, path: &Path, found: &mut Found) {
        if path.first().is_none_or(|label| &**label != "arpa") {
            return;
        }
        for service in &self.names.services(path, self.now) {
            if let (Some(host), true) = (service.host(), path_of(service.name) == *path) {
                found.answer(name, service.ttl, RData::PTR(PTR(host)));
            }
        }
    }

    fn alias(&self, name: &Name, path: &Path, found: &mut Found) {
        if let Some((host, ttl)) = sole_host(&self.names.services(path, self.now)) {
            found.answer(name, ttl, RData::CNAME(CNAME(host)));
        }
    }

    /// What spares the asker the next question: the addresses of a target.
    fn add_addresses(&self, service: &Service<'_>, target: &Name, found: &mut Found) {
        if let Some(address) = service.address() {
            let data = address_data(address);
            found.add([Record::from_rdata(target.clone(), service.ttl, data)]);
        } else if self.knows(target) {
            for kind in [RecordType::A, RecordType::AAAA] {
                let mut behind = Found::default();
                self.follow(target, kind, &mut Vec::new(), &mut behind);
                found.add(behind.answers);
            }
        }
    }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// What a record says itself of this type.
fn own_data(service: &Service<'_>, kind: RecordType) -> Option<RData> {
    match (kind, service.address()) {
        (RecordType::A, Some(IpAddr::V4(address))) => Some(RData::A(A(address))),
        (RecordType::AAAA, Some(IpAddr::V6(address))) => Some(RData::AAAA(AAAA(address))),
        (RecordType::TXT, _) if !service.record.text.is_empty() => {
            // A string of a TXT record has 255 bytes at most; readers put them together again.
            Some(RData::TXT(TXT::from_bytes(service.record.text.as_bytes().chunks(255).collect())))
        }
        _ => None,
    }
}

/// The one host of records that have no other and no address or text beside it: only that can be an alias.
fn sole_host(services: &[Service<'_>]) -> Option<(Name, u32)> {
    let is_other = |it: &Service<'_>| it.address().is_some() || !it.record.text.is_empty();
    if services.iter().any(is_other) {
        return None;
    }
    let mut hosts = services.iter().filter_map(|it| Some((it.host()?, it.ttl)));
    let (first, ttl) = hosts.next()?;
    let mut ttl = ttl;
    for (host, other) in hosts {
        if host != first {
            return None;
        }
        ttl = ttl.min(other);
    }
    Some((first, ttl))
}

/// The SOA record of a zone.
fn soa(names: &Names, zone: &Path) -> Option<Record> {
    let below = |labels: &[&str]| {
        let labels = zone.iter().map(|label| &**label).chain(labels.iter().copied());
        name_of(&labels.collect::<Vec<_>>())
    };
    let (server, master) = (below(&["dns", "ns"])?, below(&["hostmaster"])?);
    let data = SOA::new(server, master, names.serial(), 7200, 1800, 86_400, NEGATIVE_TTL);
    Some(Record::from_rdata(below(&[])?, NEGATIVE_TTL, RData::SOA(data)))
}
