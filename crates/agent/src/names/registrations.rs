//! What this node registers: its edge and instances for each site, its engines, its name server, all under one lease.
//!
//! What stopped is removed at once; what crashed with the whole node goes with its lease. An agent that ends alone leaves its lease
//! behind: what runs goes on without it, and the next agent is there before the lease ends. The decision is [`difference`], pure;
//! it heals what somebody else removed or changed, too.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::cluster::Role;
use pressroom_model::discovery::{self, Record};
use pressroom_model::id::SiteName;
use pressroom_model::verdict::Health;
use pressroom_plan::machine::{DNS, EDGE, ETCD, MARIADB, REDIS_CACHE, REDIS_SESSIONS, instance_of};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::entry::{Entry, Revision};
use pressroom_store::key::Key;
use pressroom_store::transaction::{Transaction, Write};
use pressroom_store::{LeaseId, Store, StoreError};
use pressroom_wire::members::Service;

use crate::agent::{Agent, State};
use crate::cluster::membership::Membership;
use crate::engine::FINGERPRINT;

/// What nobody renewed for so long is gone.
pub const TTL: Duration = Duration::from_secs(10);
/// The lease is renewed so often.
const RENEWAL: Duration = Duration::from_secs(3);
/// Between two looks whether something changed.
const LOOK: Duration = Duration::from_millis(100);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Most writes of one transaction.
const MOST_WRITES: usize = 64;
/// What is of no site is named as if it were of this one: `mariadb.node.pressroom.local`.
pub const NODE: &str = "node";

/// What runs here.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// The domain of names.
    pub domain: String,
    /// This node.
    pub node: String,
    /// Its address; `None`: it has none that others reach.
    pub address: Option<IpAddr>,
    /// Whether addresses of loopback mean something to whoever asks: all are on this machine.
    pub is_alone: bool,
    /// Listeners of the edge, if it answers and takes requests: `http` or `https`, address.
    pub edge: Vec<(&'static str, SocketAddr)>,
    /// Sites that the edge serves: numbers of their instances that answer, workers of each.
    pub sites: BTreeMap<SiteName, (Vec<String>, u16)>,
    /// Engines that answer: name, port for nodes, socket here.
    pub engines: Vec<(&'static str, Option<u16>, Option<PathBuf>)>,
    /// Where names are answered.
    pub dns: Vec<SocketAddr>,
}

impl Here {
    /// How others reach a listener.
    fn reached(&self, listener: &SocketAddr) -> Option<IpAddr> {
        match listener.ip() {
            ip if ip.is_unspecified() => self.address,
            ip if ip.is_loopback() && !self.is_alone => None,
            ip => Some(ip),
        }
    }

    fn key(&self, service: &str, id: &str) -> Option<Key> {
        discovery::place(&self.domain, service, &self.node, id).parse().ok()
    }

    /// Everything that is to be registered.
    pub fn records(&self) -> BTreeMap<Key, Record> {
        let mut records = BTreeMap::new();
        let mut add = |service: &str, id: &str, record: Record| {
            if let Some(key) = self.key(service, id) {
                records.insert(key, record);
            }
        };
        let sites = self.sites.keys().map(SiteName::as_str);
        for (service, id, record) in self.edges() {
            for site in sites.clone().chain([NODE]) {
                add(&format!("{service}.{site}"), &id, record.clone());
            }
        }
        let http = self.edges().find(|(_, id, _)| id == "http").map(|(.., record)| record);
        for (site, (instances, workers)) in &self.sites {
            for number in instances {
                // An instance is reached through its node's edge.
                let through = http.clone().or_else(|| Some(at(self.address?, 0)));
                let Some(through) = through else { continue };
                let text = format!("{site}-{number}");
                let record = Record { weight: *workers, text, ..through };
                add(&format!("php.{site}"), number, record);
            }
        }
        for (name, port, socket) in &self.engines {
            let Some(host) = self.address else { continue };
            let text = socket.as_ref().map(|path| format!("unix:{}", path.display()));
            let record = Record { text: text.unwrap_or_default(), ..at(host, port.unwrap_or(0)) };
            add(&format!("{name}.{NODE}"), "1", record);
        }
        for (n, address) in self.dns.iter().enumerate() {
            if let Some(host) = self.reached(address) {
                add("ns.dns", &(n + 1).to_string(), at(host, address.port()));
            }
        }
        records
    }

    fn edges(&self) -> impl Iterator<Item = (&'static str, String, Record)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        self.edge.iter().filter_map(move |(kind, address)| {
            let host = self.reached(address)?;
            let count = counts.entry(kind).or_default();
            *count += 1;
            let id = if *count == 1 { (*kind).to_owned() } else { format!("{kind}-{count}") };
            Some((EDGE, id, at(host, address.port())))
        })
    }
}

fn at(host: IpAddr, port: u16) -> Record {
    Record { host: host.to_string(), port, ..Record::default() }
}

/// What to write so that the store has under `lease` what is wanted, and nothing else of ours.
pub fn difference(
    wanted: &BTreeMap<Key, Record>,
    seen: &BTreeMap<Key, Entry>,
    lease: LeaseId,
) -> Vec<Write> {
    let is_there = |key: &Key, value: &[u8]| {
        seen.get(key).is_some_and(|entry| entry.lease == Some(lease) && entry.value == value)
    };
    let puts = wanted.iter().filter_map(|(key, record)| {
        let value = record.json();
        let put = Write::Put { key: key.clone(), value: value.clone(), lease: Some(lease) };
        (!is_there(key, &value)).then_some(put)
    });
    let ours = seen.values().filter(|entry| entry.lease == Some(lease));
    let gone = ours.filter(|entry| !wanted.contains_key(&entry.key));
    puts.chain(gone.map(|entry| Write::Delete(entry.key.clone()))).collect()
}

impl Agent {
    /// Registers for as long as the agent runs.
    pub(crate) async fn register(self: Arc<Self>, shutdown: Shutdown) {
        let store = self.names_store();
        let mut held = None;
        while !shutdown.is_requested() {
            if let Err(error) = self.register_for_a_lease(&*store, &mut held, &shutdown).await {
                tracing::debug!(%error, "what runs cannot be registered");
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(PAUSE) => {} }
        }
        let ends_with_all = self.state.lock().is_stopping;
        if let Some(lease) = held.filter(|_| ends_with_all) {
            let _ = tokio::time::timeout(PAUSE, store.revoke(lease)).await;
        }
    }

    async fn register_for_a_lease(
        &self,
        store: &dyn Store,
        held: &mut Option<LeaseId>,
        shutdown: &Shutdown,
    ) -> Result<(), StoreError> {
        if !self.registers_something() {
            return Ok(());
        }
        // After a failure everything may still be there.
        let lease = match *held {
            Some(lease) if store.keep_alive(lease).await.is_ok() => lease,
            _ => store.grant(TTL).await?.id,
        };
        *held = Some(lease);
        let (mut renewed, mut written) = (clock::now(), Revision::ZERO);
        while !shutdown.is_requested() && self.registers_something() {
            renew(store, lease, &mut renewed).await?;
            let writes = {
                let seen = self.names.seen.borrow();
                // What we wrote last must have come back before it is compared.
                match seen.is_heard && seen.revision >= written {
                    true => difference(&self.registered(), &seen.entries, lease),
                    false => Vec::new(),
                }
            };
            for writes in writes.chunks(MOST_WRITES) {
                let mut transaction = Transaction::new();
                transaction.writes = writes.to_vec();
                if let pressroom_store::transaction::Outcome::Committed(at) =
                    store.commit(transaction).await?
                {
                    written = at;
                }
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
        if !shutdown.is_requested() {
            *held = None;
            store.revoke(lease).await?;
        }
        Ok(())
    }

    fn registers_something(&self) -> bool {
        let wanted = self.names_wanted();
        self.registers(&wanted) || self.registrar_is_wanted(&wanted)
    }

    /// Everything that is to be registered by this node.
    fn registered(&self) -> BTreeMap<Key, Record> {
        let mut records = self.names.containers.lock().clone();
        if self.registers(&self.names_wanted()) {
            records.extend(self.here().records());
        }
        records
    }

    /// What runs here.
    pub(crate) fn here(&self) -> Here {
        let membership = self.cluster.as_ref().map(|cluster| cluster.membership());
        let (wanted, has_data) = (self.names_wanted(), self.has_data());
        let address = self.own_address();
        let engines = self.engines_here(membership.as_ref(), has_data);
        let state = self.state.lock();
        let config = state.config.as_ref();
        let rests = membership.as_ref().is_some_and(|own| state.known.rests(&own.node, Role::Edge));
        let takes = answers(&state, EDGE) && !rests;
        let listeners = config.filter(|_| takes).into_iter().flat_map(|config| {
            let http = config.edge.http.iter().map(|address| ("http", *address));
            http.chain(config.edge.https.iter().map(|address| ("https", *address)))
        });
        let dns = match answers(&state, DNS) {
            true => super::addresses(&wanted.listen, address),
            false => Vec::new(),
        };
        Here {
            domain: wanted.domain,
            node: config.map_or_else(String::new, |config| config.node.name.to_string()),
            address: Some(address),
            is_alone: membership.is_none(),
            edge: listeners.collect(),
            sites: if takes { sites(&state) } else { BTreeMap::new() },
            engines: engines.into_iter().filter(|(name, ..)| answers(&state, name)).collect(),
            dns,
        }
    }

    /// The engines that may run here: of a cluster they are reached over their node's ports, else by their sockets alone.
    fn engines_here(
        &self,
        own: Option<&Membership>,
        has_data: bool,
    ) -> Vec<(&'static str, Option<u16>, Option<PathBuf>)> {
        let port = |service: Service| own.map(|own| own.port + service as u16);
        let alone = |path: PathBuf| own.is_none().then_some(path);
        let mut engines = Vec::new();
        if has_data {
            let sql = port(Service::Sql);
            engines.push((MARIADB, sql, alone(self.layout.writer())));
            engines.extend(
                [REDIS_CACHE, REDIS_SESSIONS]
                    .map(|name| (name, sql, alone(self.layout.redis(name)))),
            );
        }
        if own.is_some() {
            engines.push((ETCD, port(Service::Etcd), None));
        }
        engines
    }
}

async fn renew(store: &dyn Store, lease: LeaseId, renewed: &mut Instant) -> Result<(), StoreError> {
    if clock::now() >= *renewed + RENEWAL {
        store.keep_alive(lease).await?;
        *renewed = clock::now();
    }
    Ok(())
}

/// Whether a process runs and answers.
fn answers(state: &State, name: &str) -> bool {
    let process = state.processes.iter().find(|process| process.spec.name == name);
    let Some(process) = process.filter(|process| !process.is_stopping) else { return false };
    let judged = state.verdicts.get(name).filter(|(pid, _)| process.pid == Some(*pid));
    judged.is_some_and(|(_, memory)| Health::is_serving(memory.verdict.health))
}

/// The sites that the edge serves, with the instances that it sends to.
fn sites(state: &State) -> BTreeMap<SiteName, (Vec<String>, u16)> {
    let config = state.config.iter().flat_map(|config| &config.sites);
    let ready = config.filter(|site| {
        state.ready.get(&site.name).is_some_and(|verdict| verdict.health.is_serving())
    });
    ready
        .filter_map(|site| {
            let (fingerprint, _) = state.shown.get(&site.name)?;
            let instances = state.processes.iter().filter_map(|process| {
                let id = instance_of(&process.spec.name).filter(|id| id.site() == site.name)?;
                let is_shown = process.spec.env.get(FINGERPRINT) == Some(fingerprint);
                let number = id.as_str().rsplit('-').next()?.to_owned();
                (is_shown && answers(state, &process.spec.name)).then_some(number)
            });
            Some((site.name.clone(), (instances.collect(), site.php.workers)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Here {
        Here {
            domain: "pressroom.local".into(),
            node: "n1.example".into(),
            address: Some("10.0.0.1".parse().expect("an address")),
            is_alone: false,
            edge: vec![
                ("http", "0.0.0.0:80".parse().expect("an address")),
                ("http", "10.0.0.9:8080".parse().expect("an address")),
                ("https", "0.0.0.0:443".parse().expect("an address")),
                ("https", "127.0.0.1:8443".parse().expect("an address")),
            ],
            sites: [("blog".parse().expect("a name"), (vec!["1".into(), "2".into()], 4))].into(),
            engines: vec![(MARIADB, Some(7402), None)],
            dns: vec!["10.0.0.1:53".parse().expect("an address")],
        }
    }

    #[test]
    fn everything_that_runs_has_a_name() {
        let records = here().records();
        let lines: Vec<String> = records
            .iter()
            .map(|(key, record)| {
                format!("{key} {}:{} {} {}", record.host, record.port, record.weight, record.text)
            })
            .collect();
        assert_eq!(
            lines,
            [
                "skydns/local/pressroom/blog/edge/example/n1/http 10.0.0.1:80 0 ",
                "skydns/local/pressroom/blog/edge/example/n1/http-2 10.0.0.9:8080 0 ",
                "skydns/local/pressroom/blog/edge/example/n1/https 10.0.0.1:443 0 ",
                "skydns/local/pressroom/blog/php/example/n1/1 10.0.0.1:80 4 blog-1",
                "skydns/local/pressroom/blog/php/example/n1/2 10.0.0.1:80 4 blog-2",
                "skydns/local/pressroom/dns/ns/example/n1/1 10.0.0.1:53 0 ",
                "skydns/local/pressroom/node/edge/example/n1/http 10.0.0.1:80 0 ",
                "skydns/local/pressroom/node/edge/example/n1/http-2 10.0.0.9:8080 0 ",
                "skydns/local/pressroom/node/edge/example/n1/https 10.0.0.1:443 0 ",
                "skydns/local/pressroom/node/mariadb/example/n1/1 10.0.0.1:7402 0 ",
            ]
        );
        // On a single machine loopback is where everybody is.
        let alone = Here { is_alone: true, ..here() }.records();
        assert!(alone.keys().any(|key| key.as_str().ends_with("blog/edge/example/n1/https-2")));
    }

    #[test]
    fn only_what_differs_is_written_and_only_what_is_ours_is_removed() {
        let key = |text: &str| text.parse::<Key>().expect("a key");
        let record = |host: &str| Record { host: host.into(), ..Record::default() };
        let entry = |name: &str, host: &str, lease: u64| {
            let entry = Entry {
                key: key(name),
                value: record(host).json(),
                created: Revision(1),
                modified: Revision(1),
                lease: (lease > 0).then_some(LeaseId(lease)),
            };
            (key(name), entry)
        };
        let own = LeaseId(7);
        let wanted: BTreeMap<Key, Record> = [
            (key("same"), record("10.0.0.1")),
            (key("changed"), record("10.0.0.2")),
            (key("former"), record("10.0.0.3")),
            (key("new"), record("10.0.0.4")),
        ]
        .into();
        let seen: BTreeMap<Key, Entry> = [
            entry("same", "10.0.0.1", 7),
            entry("changed", "10.9.9.9", 7),
            // Of the agent before this one.
            entry("former", "10.0.0.3", 6),
            entry("stopped", "10.0.0.5", 7),
            entry("others", "10.0.0.6", 5),
            entry("static", "10.0.0.7", 0),
        ]
        .into();
        let writes = difference(&wanted, &seen, own);
        let told: Vec<String> = writes
            .iter()
            .map(|write| match write {
                Write::Put { key, lease, .. } => {
                    assert_eq!(*lease, Some(own));
                    format!("put {key}")
                }
                Write::Delete(key) => format!("delete {key}"),
            })
            .collect();
        assert_eq!(told, ["put changed", "put former", "put new", "delete stopped"]);
    }
}
