//! Containers that Pressroom did not start are registered as well, as registrator does
//! (<https://gliderlabs.github.io/registrator/latest/user/services/>): one service for each port, named after the image or by what
//! the container says of itself in variables or labels.
//!
//! Docker tells what happens, and everything is compared again half a minute later at the latest: a notice that was lost is
//! made up for. The records are under the lease of this node ([`super::registrations`]). A daemon that does not answer for as
//! long as that lease has lost its containers, as far as anybody can tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::config::{Dns, Registrar};
use pressroom_model::discovery::{self, Record};
use pressroom_runtime::backoff::{Backoff, roll};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_store::key::Key;

use super::docker::{self, AskError, Container, Events};
use super::registrations::{NODE, TTL};
use crate::agent::Agent;

/// Everything is compared again after this time.
const COMPARISON: Duration = Duration::from_secs(30);
/// What happens within this time is looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// Between two looks whether it is wanted.
const LOOK: Duration = Duration::from_secs(1);
/// Begins what a container says of itself.
const SERVICE: &str = "SERVICE_";
/// Our own containers have this label.
const OURS: &str = "pressroom";

/// What a container is looked at with.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The domain of names.
    pub domain: String,
    /// This node.
    pub node: String,
    /// Its address.
    pub address: IpAddr,
    /// Whether addresses of loopback mean something to whoever asks.
    pub is_alone: bool,
    /// What is registered.
    pub registrar: Registrar,
    /// Names that mean something else: our sites.
    pub taken: BTreeSet<String>,
}

/// One port of a container, and where it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Port {
    exposed: u16,
    is_udp: bool,
    host: IpAddr,
    port: u16,
}

impl Machine {
    /// What a container offers: keys and records, and names that it may not have.
    pub fn services(&self, container: &Container) -> (BTreeMap<Key, Record>, BTreeSet<String>) {
        let (mut records, mut refused) = (BTreeMap::new(), BTreeSet::new());
        let labels = container.config.labels.clone().unwrap_or_default();
        if labels.contains_key(OURS) {
            return (records, refused);
        }
        let said = Said::of(container);
        let ports = self.ports(container);
        let exposed: BTreeSet<(u16, bool)> =
            ports.iter().map(|it| (it.exposed, it.is_udp)).collect();
        for port in &ports {
            if said.of_port(port.exposed, "ignore").is_some() {
                continue;
            }
            let name = said.name(container, port, exposed.len() > 1);
            // The last label is where a site would be.
            let top = name.rsplit('.').next().unwrap_or_default();
            if top == NODE || top == "dns" || self.taken.contains(top) {
                refused.insert(name);
                continue;
            }
            let id = said.id(container, port);
            let key = discovery::place(&self.domain, &name, &self.node, &id);
            let record = Record {
                host: port.host.to_string(),
                port: port.port,
                text: said.text(port),
                ..Record::default()
            };
            if let Ok(key) = key.parse() {
                // One port on both kinds of addresses: the first counts.
                records.entry(key).or_insert(record);
            }
        }
        (records, refused)
    }

    fn ports(&self, container: &Container) -> Vec<Port> {
        let settings = &container.network_settings;
        let split = |name: &str| {
            let (number, kind) = name.split_once('/').unwrap_or((name, "tcp"));
            Some((number.parse::<u16>().ok()?, kind == "udp"))
        };
        let exposed = container.config.exposed_ports.iter().flat_map(|ports| ports.keys());
        let has_machines_network = container.host_config.network_mode == "host";
        if has_machines_network || self.registrar == Registrar::Internal {
            let host = match has_machines_network {
                true => Some(self.address),
                false => address_of(settings),
            };
            let Some(host) = host else { return Vec::new() };
            let published = settings.ports.iter().flat_map(|ports| ports.keys());
            let all: BTreeSet<(u16, bool)> =
                exposed.chain(published).filter_map(|name| split(name)).collect();
            let port = |(exposed, is_udp)| Port { exposed, is_udp, host, port: exposed };
            return all.into_iter().map(port).collect();
        }
        let mut ports = Vec::new();
        for (name, places) in settings.ports.iter().flatten() {
            let Some((exposed, is_udp)) = split(name) else { continue };
            for place in places.iter().flatten() {
                let host = match place.host_ip.parse::<IpAddr>() {
                    Ok(ip) if ip.is_loopback() && !self.is_alone => continue,
                    Ok(ip) if !ip.is_unspecified() => ip,
                    _ => self.address,
                };
                if let Ok(port) = place.host_port.parse() {
                    ports.push(Port { exposed, is_udp, host, port });
                }
            }
        }
        ports
    }
}

/// A container's own address: of its first network that has one.
fn address_of(settings: &docker::NetworkSettings) -> Option<IpAddr> {
    let networks = settings.networks.iter().flat_map(|networks| networks.values());
    let mut addresses = networks
        .flat_map(|network| [&network.address, &network.address_v6])
        .filter(|it| !it.is_empty());
    addresses.next()?.parse().ok()
}

/// What a container says of itself: `SERVICE_NAME` for all ports, `SERVICE_80_NAME` for one. Labels count before variables.
struct Said {
    general: BTreeMap<String, String>,
    by_port: BTreeMap<(u16, String), String>,
}

impl Said {
    fn of(container: &Container) -> Self {
        let variables = container.config.env.iter().flatten().filter_map(|it| it.split_once('='));
        let labels = container.config.labels.iter().flatten();
        let labels = labels.map(|(name, value)| (name.as_str(), value.as_str()));
        let mut said = Self { general: BTreeMap::new(), by_port: BTreeMap::new() };
        for (name, value) in variables.chain(labels) {
            let Some(name) = name.strip_prefix(SERVICE).filter(|name| !name.is_empty()) else {
                continue;
            };
            let word = name.to_ascii_lowercase();
            match word.split_once('_').and_then(|(port, word)| Some((port.parse().ok()?, word))) {
                Some((port, word)) => {
                    said.by_port.insert((port, word.to_owned()), value.to_owned());
                }
                None => drop(said.general.insert(word, value.to_owned())),
            }
        }
        said
    }

    /// What holds for a port; an empty value says nothing.
    fn of_port(&self, port: u16, word: &str) -> Option<&str> {
        let own = self.by_port.get(&(port, word.to_owned()));
        own.or_else(|| self.general.get(word)).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The service's name: of several ports each has its own.
    fn name(&self, container: &Container, port: &Port, is_one_of_many: bool) -> String {
        let of_port = self.by_port.get(&(port.exposed, "name".to_owned()));
        if let Some(name) = of_port.filter(|name| !name.is_empty()) {
            return clean(name);
        }
        let image = container.config.image.rsplit('/').next().unwrap_or_default();
        let image = image.split(['@', ':']).next().unwrap_or_default();
        let name = clean(self.of_port(port.exposed, "name").unwrap_or(image));
        if is_one_of_many { format!("{name}-{}", port.exposed) } else { name }
    }

    fn id(&self, container: &Container, port: &Port) -> String {
        let kind = if port.is_udp { "-udp" } else { "" };
        match self.of_port(port.exposed, "id") {
            Some(id) => format!("{}{kind}", clean(id).replace('.', "-")),
            None => {
                let name = clean(&container.name).replace('.', "-");
                format!("{name}-{}{kind}", port.exposed)
            }
        }
    }

    /// Tags and whatever else is said of a port, for TXT questions: `tags=master,backups region=us2`.
    fn text(&self, port: &Port) -> String {
        let mut words: BTreeMap<&str, String> = BTreeMap::new();
        let own = self.by_port.iter().filter(|((of, _), _)| *of == port.exposed);
        let own = own.map(|((_, word), value)| (word.as_str(), value));
        for (word, value) in
            self.general.iter().map(|(word, value)| (word.as_str(), value)).chain(own)
        {
            if !["name", "id", "ignore"].contains(&word) {
                words.insert(word, value.clone());
            }
        }
        if port.is_udp {
            let tags = words.entry("tags").or_default();
            *tags = if tags.is_empty() { "udp".into() } else { format!("{tags},udp") };
        }
        let tags = words.remove_entry("tags");
        let all = tags.into_iter().chain(words).filter(|(_, value)| !value.is_empty());
        all.map(|(word, value)| format!("{word}={value}")).collect::<Vec<_>>().join(" ")
    }
}

/// A word that can be in a name.
fn clean(word: &str) -> String {
    let small = word.to_ascii_lowercase();
    let good = |c: char| if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '-' };
    let all: String = small.chars().map(good).collect();
    all.trim_matches(['-', '.']).to_owned()
}

/// What the registrar remembers of containers.
#[derive(Debug, Default)]
struct Known {
    containers: BTreeMap<String, Container>,
    told: BTreeSet<String>,
    silence: Option<Instant>,
}

impl Agent {
    /// Whether containers are to be registered. As an ordinary user the daemon does not let us in, and that is said.
    pub(crate) fn registrar_is_wanted(&self, wanted: &Dns) -> bool {
        wanted.registrar != Registrar::Off
    }

    /// Registers containers for as long as the agent runs.
    pub(crate) async fn register_containers(self: Arc<Self>, shutdown: Shutdown) {
        let mut known = Known::default();
        let mut pause = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        while !shutdown.is_requested() {
            if !self.registrar_is_wanted(&self.names_wanted()) {
                self.names.containers.lock().clear();
                known = Known::default();
            } else if let Err(error) = self.watch_others(&mut known, &mut pause, &shutdown).await {
                let since = *known.silence.get_or_insert_with(clock::now);
                let is_lost = clock::now() >= since + TTL;
                if is_lost {
                    self.names.containers.lock().clear();
                }
                if known.told.insert(error.to_string()) {
                    self.notice(format!("containers cannot be registered: {error}"));
                }
                let pause = pause.pause(roll());
                tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(pause) => {} }
                continue;
            }
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    /// Compares everything, then after everything that happens, until it is not wanted any more.
    async fn watch_others(
        &self,
        known: &mut Known,
        pause: &mut Backoff,
        shutdown: &Shutdown,
    ) -> Result<(), AskError> {
        let socket = self.containers.lock().socket.clone();
        let mut events = Events::of(&socket).await?;
        let mut compared = None;
        let mut again = true;
        while !shutdown.is_requested() {
            let wanted = self.names_wanted();
            if !self.registrar_is_wanted(&wanted) || self.containers.lock().socket != socket {
                return Ok(());
            }
            let is_old = compared.is_none_or(|at| clock::now() >= at + COMPARISON);
            let machine = self.as_machine(&wanted);
            if again || is_old {
                if is_old {
                    // What was known of containers that run on may have changed, too.
                    known.containers.clear();
                    compared = Some(clock::now());
                }
                self.look_at_others(&socket, known, &machine).await?;
                known.silence = None;
                pause.reset();
            }
            again = tokio::select! {
                happened = events.next() => {
                    happened?;
                    known.containers.clear();
                    tokio::time::sleep(GATHER).await;
                    true
                }
                () = tokio::time::sleep(LOOK) => {
                    // A site may have come whose name a container has.
                    let now = self.names_wanted();
                    now != wanted || self.as_machine(&now).taken != machine.taken
                }
                () = shutdown.requested() => false,
            };
        }
        Ok(())
    }

    async fn look_at_others(
        &self,
        socket: &Path,
        known: &mut Known,
        machine: &Machine,
    ) -> Result<(), AskError> {
        let running = docker::list(socket).await?;
        let ids: BTreeSet<&str> = running.iter().map(|listed| listed.id.as_str()).collect();
        known.containers.retain(|id, _| ids.contains(id.as_str()));
        for id in ids {
            if !known.containers.contains_key(id) {
                match docker::inspect(socket, id).await {
                    Ok(container) => drop(known.containers.insert(id.to_owned(), container)),
                    // It ended meanwhile.
                    Err(error) if error.is_absent() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let mut records = BTreeMap::new();
        for container in known.containers.values() {
            let (of_it, refused) = machine.services(container);
            records.extend(of_it);
            for name in refused {
                if known.told.insert(name.clone()) {
                    let container = container.name.trim_start_matches('/');
                    self.notice(format!("the container `{container}` is not registered as `{name}`: that name is a site's, or ours; give it another one in SERVICE_NAME"));
                }
            }
        }
        *self.names.containers.lock() = records;
        Ok(())
    }

    fn as_machine(&self, wanted: &Dns) -> Machine {
        let config = self.config();
        let sites = config.iter().flat_map(|config| &config.sites);
        Machine {
            domain: wanted.domain.clone(),
            node: config.as_ref().map_or_else(String::new, |it| it.node.name.to_string()),
            address: self.own_address(),
            is_alone: self.cluster.is_none(),
            registrar: wanted.registrar,
            taken: sites.map(|site| site.name.to_string()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(registrar: Registrar) -> Machine {
        Machine {
            domain: "pressroom.local".into(),
            node: "n1".into(),
            address: "10.0.0.1".parse().expect("an address"),
            is_alone: false,
            registrar,
            taken: ["blog".to_owned()].into(),
        }
    }

    fn container(words: &[&str], ports: &str) -> Container {
        let env = serde_json::to_string(words).expect("words");
        let text = format!(
            r#"{{"Name":"/shop_redis.1","Config":{{"Env":{env},"Labels":{{}},"Image":"registry:5000/library/redis:7@sha256:0",
                "ExposedPorts":{{"6379/tcp":{{}}}}}},"HostConfig":{{"NetworkMode":"default"}},
                "NetworkSettings":{{"Ports":{ports},"Networks":{{"bridge":{{"IPAddress":"172.17.0.2"}}}}}}}}"#
        );
        serde_json::from_str(&text).expect("a container")
    }

    fn check(registrar: Registrar, words: &[&str], ports: &str, wanted: &[&str]) {
        let (records, _) = machine(registrar).services(&container(words, ports));
        let line = |(key, it): (&Key, &Record)| {
            let key = key.as_str().strip_prefix("skydns/local/pressroom/").expect("our domain");
            format!("{key} {}:{} {}", it.host, it.port, it.text).trim_end().to_owned()
        };
        let lines: Vec<String> = records.iter().map(line).collect();
        assert_eq!(lines, wanted, "{words:?} {ports}");
    }

    const ONE: &str = r#"{"6379/tcp":[{"HostIp":"0.0.0.0","HostPort":"49153"},{"HostIp":"::","HostPort":"49153"}]}"#;
    const TWO: &str = r#"{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"53/udp":[{"HostIp":"10.0.0.7","HostPort":"5353"}],"9/tcp":null}"#;

    #[test]
    fn a_published_port_is_a_service_named_after_the_image() {
        let on = Registrar::Published;
        check(on, &[], ONE, &["redis/n1/shop-redis-1-6379 10.0.0.1:49153"]);
        check(on, &[], "{}", &[]);
        check(on, &[], r#"{"6379/tcp":null}"#, &[]);
        check(
            on,
            &[],
            TWO,
            &[
                "redis-53/n1/shop-redis-1-53-udp 10.0.0.7:5353 tags=udp",
                "redis-80/n1/shop-redis-1-80 10.0.0.1:8080",
            ],
        );
        // Nobody else reaches loopback.
        check(on, &[], r#"{"6379/tcp":[{"HostIp":"127.0.0.1","HostPort":"49153"}]}"#, &[]);
    }

    #[test]
    fn a_container_says_what_it_is() {
        let on = Registrar::Published;
        let words = ["SERVICE_NAME=Cache_Main", "SERVICE_ID=first", "SERVICE_TAGS=master,backups"];
        check(on, &words, ONE, &["cache-main/n1/first 10.0.0.1:49153 tags=master,backups"]);
        let words = [
            "SERVICE_NAME=app",
            "SERVICE_80_NAME=web",
            "SERVICE_53_TAGS=dns",
            "SERVICE_REGION=us2",
        ];
        check(
            on,
            &words,
            TWO,
            &[
                "app-53/n1/shop-redis-1-53-udp 10.0.0.7:5353 tags=dns,udp region=us2",
                "web/n1/shop-redis-1-80 10.0.0.1:8080 region=us2",
            ],
        );
        check(on, &["SERVICE_IGNORE=true"], TWO, &[]);
        check(on, &["SERVICE_IGNORE="], ONE, &["redis/n1/shop-redis-1-6379 10.0.0.1:49153"]);
        check(
            on,
            &["SERVICE_53_IGNORE=1", "SERVICE_80_ID=x"],
            TWO,
            &["redis-80/n1/x 10.0.0.1:8080"],
        );
    }

    #[test]
    fn inside_it_has_its_own_address_and_the_machines_network_has_the_machines() {
        check(
            Registrar::Internal,
            &[],
            TWO,
            &[
                "redis-53/n1/shop-redis-1-53-udp 172.17.0.2:53 tags=udp",
                "redis-6379/n1/shop-redis-1-6379 172.17.0.2:6379",
                "redis-80/n1/shop-redis-1-80 172.17.0.2:80",
                "redis-9/n1/shop-redis-1-9 172.17.0.2:9",
            ],
        );
        let mut on_host = container(&[], "{}");
        on_host.host_config.network_mode = "host".into();
        let (records, _) = machine(Registrar::Published).services(&on_host);
        let record = records.values().next().expect("one");
        assert_eq!((record.host.as_str(), record.port), ("10.0.0.1", 6379));
    }

    #[test]
    fn the_names_of_sites_and_our_own_containers_are_left_alone() {
        let named = container(&["SERVICE_NAME=x.blog"], ONE);
        let (records, refused) = machine(Registrar::Published).services(&named);
        assert!(records.is_empty());
        assert_eq!(refused, ["x.blog".to_owned()].into());
        let mut ours = container(&[], ONE);
        ours.config.labels = Some([("pressroom".to_owned(), "x".to_owned())].into());
        assert!(machine(Registrar::Published).services(&ours).0.is_empty());
    }
}
