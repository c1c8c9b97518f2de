//! Asking every process its real question, and every site whether PHP and the database answer.
//!
//! A process that was just started is asked again and again, and so is the edge until it serves what was published; a known
//! one once a second. A process that the kernel says is
//! stopped is not asked at all.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use pressroom_model::config::{Config, Edge, Site};
use pressroom_model::snapshot::READY_PATH;
use pressroom_model::verdict::{Health, Verdict};
use pressroom_plan::health::{Answer, Memory, Patience, judge};
use pressroom_plan::machine::{DNS, DOCKER, EDGE, ETCD, KEEPALIVED, MARIADB, SQL, instance_of};
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::agent::Agent;
use crate::engine::{edge, php};
use crate::host;
use crate::observe::Engines;

/// Between two looks at the files that sites have copies of.
const ETC: Duration = Duration::from_secs(60);
const QUICK: Duration = Duration::from_millis(100);
/// Somebody waits for the answer: a rollout, an `up`.
const EAGER: Duration = Duration::from_millis(20);
/// The answer is a matter of milliseconds.
const KEEN: Duration = Duration::from_millis(2);
const CALM: Duration = Duration::from_secs(1);

/// How patient to be with a process: a database may take long to recover, and killing it makes that longer.
fn patience(name: &str) -> Patience {
    match name {
        MARIADB => Patience { failures: 5, start_ms: 600_000 },
        EDGE => Patience { failures: 2, start_ms: 10_000 },
        _ if name.starts_with("php-") => Patience { failures: 3, start_ms: 15_000 },
        _ => Patience { failures: 2, start_ms: 60_000 },
    }
}

impl Agent {
    /// Probes for as long as the agent runs.
    pub(crate) async fn probe_processes(self: Arc<Self>, shutdown: Shutdown) {
        let mut due: BTreeMap<String, (i32, std::time::Instant)> = BTreeMap::new();
        let mut workers = FrozenWorkers::default();
        while !shutdown.is_requested() {
            let now = clock::now();
            let mut is_awaited;
            let running: Vec<(String, i32)> = {
                let state = self.state.lock();
                is_awaited = state.published.is_some() && !state.is_view_served();
                if is_awaited {
                    due.remove(EDGE);
                }
                state.processes.iter().filter_map(|p| Some((p.spec.name.clone(), p.pid?))).collect()
            };
            due.retain(|name, (pid, _)| running.iter().any(|(n, p)| n == name && p == pid));
            let asked: Vec<(String, i32)> = running
                .iter()
                .filter(|(name, _)| {
                    name != "agent" && due.get(name).is_none_or(|(_, at)| now >= *at)
                })
                .cloned()
                .collect();
            if !asked.is_empty()
                && let Some(config) = self.config()
                && let Ok(engines) = self.engines(&config)
            {
                let healths = self.probe_all(&asked, &engines).await;
                for ((name, pid), health) in asked.into_iter().zip(healths) {
                    let is_starting = health == Health::Starting;
                    is_awaited |= is_starting;
                    let pause = if is_starting { EAGER } else { CALM };
                    due.insert(name, (pid, clock::now() + pause));
                }
            }
            workers.look(&running, &self);
            tokio::select! {
                () = tokio::time::sleep(if is_awaited { EAGER } else { QUICK }) => {}
                () = self.started.notified() => {}
                () = shutdown.requested() => {}
            }
        }
    }

    /// Probes these processes at the same time, and remembers the verdicts.
    async fn probe_all(&self, asked: &[(String, i32)], engines: &Engines) -> Vec<Health> {
        let mut answers = Vec::new();
        let probes = asked.iter().map(|(name, pid)| self.probe(name, *pid, engines));
        for answer in futures(probes).await {
            answers.push(answer);
        }
        let now_ms = clock::wall_ms();
        let mut healths = Vec::new();
        let mut is_news = false;
        let mut state = self.state.lock();
        for ((name, pid), answer) in asked.iter().zip(answers) {
            let known = state.verdicts.get(name).filter(|(known, _)| known == pid);
            let before = known.map_or_else(|| Memory::new(now_ms), |(_, memory)| memory.clone());
            let after = judge(&before, &answer, patience(name), now_ms);
            if before.verdict.health != after.verdict.health {
                is_news = true;
                tracing::info!(process = %name, pid, verdict = %after.verdict.health, because = %after.verdict.because, "verdict");
            }
            healths.push(after.verdict.health);
            state.verdicts.insert(name.clone(), (*pid, after));
        }
        drop(state);
        if is_news {
            self.changed.notify_one();
        }
        healths
    }

    async fn probe(&self, name: &str, pid: i32, engines: &Engines) -> Answer {
        if host::stat(pid).is_some_and(host::ProcStat::is_stopped) {
            return Answer::Frozen;
        }
        if let Some(id) = instance_of(name) {
            let (answer, busy) = php::probe(&self.layout, &id).await;
            self.state.lock().busy.insert(name.to_owned(), busy);
            return answer;
        }
        match name {
            MARIADB => engines.mariadb.probe().await,
            EDGE => self.probe_edge().await,
            SQL => match &engines.sql {
                Some(sql) => sql.probe().await,
                None => Answer::Well,
            },
            DNS => match &engines.dns {
                Some(dns) => dns.probe().await,
                None => Answer::Well,
            },
            KEEPALIVED => Answer::Well,
            ETCD => match (&engines.etcd, &self.etcd) {
                (Some(etcd), Some(store)) => etcd.probe(store).await,
                _ => Answer::Well,
            },
            DOCKER => match &engines.docker {
                Some(docker) => docker.probe().await,
                None => Answer::Well,
            },
            _ => match engines.redis.iter().find(|redis| redis.name() == name) {
                Some(redis) => redis.probe().await,
                None => Answer::Badly("nobody knows how to ask it".into()),
            },
        }
    }

    /// Gives the edge a moment to serve what was just published; later the probes tell.
    pub(crate) async fn await_edge(&self) {
        let until = clock::now() + QUICK;
        loop {
            let is_there = self.probe_edge().await == Answer::Well;
            if !is_there || self.state.lock().is_view_served() || clock::now() > until {
                return;
            }
            tokio::time::sleep(KEEN).await;
        }
    }

    async fn probe_edge(&self) -> Answer {
        match edge::status(&self.layout).await {
            Ok(traffic) => {
                let mut state = self.state.lock();
                let is_news =
                    state.traffic.as_ref().map(|old| old.generation) != Some(traffic.generation);
                state.traffic = Some(traffic);
                drop(state);
                if is_news {
                    self.changed.notify_one();
                }
                Answer::Well
            }
            Err(error) => Answer::Badly(error.to_string()),
        }
    }

    /// Asks every site, through the edge, whether it could serve a page.
    pub(crate) async fn probe_sites(self: Arc<Self>, shutdown: Shutdown) {
        let mut next_etc = clock::now();
        while !shutdown.is_requested() {
            let mut pause = QUICK;
            if let Some(config) = self.config() {
                let asked = config.sites.iter().map(|site| self.probe_site(&config, site));
                let verdicts = futures(asked).await;
                let mut is_news = false;
                let mut state = self.state.lock();
                // A verdict of a site that is gone would keep us asking in haste, and count for the next of its name.
                state.ready.retain(|name, _| config.sites.iter().any(|site| site.name == *name));
                for (site, verdict) in config.sites.iter().zip(verdicts) {
                    is_news |= state.ready.get(&site.name) != Some(&verdict);
                    state.ready.insert(site.name.clone(), verdict);
                }
                if state.ready.values().all(|verdict| verdict.health.is_serving()) {
                    pause = Duration::from_secs(2);
                }
                drop(state);
                if is_news {
                    self.changed.notify_one();
                }
                self.renew_copies(&config);
                if clock::now() >= next_etc {
                    next_etc = clock::now() + ETC;
                    self.renew_etc(&config);
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.requested() => {}
            }
        }
    }

    /// The machine may have other name servers, or another name, by now.
    fn renew_etc(&self, config: &Config) {
        for site in config.sites.iter().filter(|site| self.is_prepared(&site.name)) {
            if let Err(error) = self.keep_etc(&site.name) {
                tracing::warn!(site = %site.name, %error, "its /etc stays as it was");
            }
        }
    }

    async fn probe_site(&self, config: &Config, site: &Site) -> Verdict {
        if !self.state.lock().sites.get(&site.name).is_some_and(|facts| facts.is_installed) {
            return Verdict::new(Health::Starting, "WordPress is not installed yet");
        }
        let Some(address) = config.edge.http.first().copied() else {
            return self.judged_by_instances(site);
        };
        let address = if address.ip().is_unspecified() {
            SocketAddr::from(([127, 0, 0, 1], address.port()))
        } else {
            address
        };
        let host = site.domains[0].replace("*.", "www.");
        let ask = http_get(&config.edge, address, &host, READY_PATH);
        match tokio::time::timeout(Duration::from_secs(5), ask).await {
            Err(_) => Verdict::new(Health::Unhealthy, "no answer through the edge within 5 s"),
            Ok(Err(error)) => {
                Verdict::new(Health::Unhealthy, format!("no answer through the edge: {error}"))
            }
            Ok(Ok((200, body))) if body.starts_with(b"busy") => {
                Verdict::new(Health::Busy, "every worker has a request")
            }
            Ok(Ok((200, _))) => Verdict::new(Health::Healthy, "PHP and database answer"),
            Ok(Ok((status, body))) => {
                let text = String::from_utf8_lossy(&body);
                let first = text.lines().next().unwrap_or_default();
                Verdict::new(
                    Health::Unhealthy,
                    format!("its readiness answer was {status}: {first}"),
                )
            }
        }
    }

    /// Without plain HTTP the probe cannot pass the edge; the instances' own word counts.
    fn judged_by_instances(&self, site: &Site) -> Verdict {
        let state = self.state.lock();
        let is_up = state.verdicts.iter().any(|(name, (_, memory))| {
            instance_of(name).is_some_and(|id| id.site() == site.name)
                && memory.verdict.health.is_serving()
        });
        if is_up {
            Verdict::new(Health::Healthy, "an instance answers")
        } else {
            Verdict::new(Health::Unhealthy, "no instance answers")
        }
    }
}

/// Workers of php-fpm that were stopped by a signal: their master does not notice, and a request would wait for ever.
#[derive(Debug, Default)]
struct FrozenWorkers {
    since: BTreeMap<i32, std::time::Instant>,
}

impl FrozenWorkers {
    /// Kills workers that have been stopped for two seconds; php-fpm starts others. (Its slow log stops them for milliseconds.)
    fn look(&mut self, running: &[(String, i32)], agent: &Agent) {
        let now = clock::now();
        let mut stopped = BTreeMap::new();
        for (name, master) in running.iter().filter(|(name, _)| name.starts_with("php-")) {
            for worker in host::children(*master) {
                if host::stat(worker).is_some_and(host::ProcStat::is_stopped) {
                    stopped.insert(worker, (name, *self.since.get(&worker).unwrap_or(&now)));
                }
            }
        }
        self.since = stopped.iter().map(|(worker, (_, since))| (*worker, *since)).collect();
        for (worker, (name, since)) in stopped {
            if now < since + Duration::from_secs(2) {
                continue;
            }
            agent.notice(format!("killing worker {worker} of `{name}`, which is stopped"));
            if let Some(pid) = rustix::process::Pid::from_raw(worker) {
                // Gone already is as good.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            self.since.remove(&worker);
        }
    }
}

/// Runs futures side by side in this task; answers in their order.
pub(crate) async fn futures<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut open: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (future, answer) in &mut open {
            if answer.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *answer = Some(value),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    open.into_iter().map(|(_, answer)| answer.expect("all are ready")).collect()
}

/// Whether the edge expects the PROXY protocol from this address.
pub(crate) fn expects_proxy(edge: &Edge, from: IpAddr) -> bool {
    edge.proxy_protocol
        && edge.trusted_proxies.iter().any(|block| {
            let (base, bits) = block.split_once('/').unwrap_or((block, "128"));
            let bits: u32 = bits.parse().unwrap_or(128);
            match (base.parse(), from.to_canonical()) {
                (Ok(IpAddr::V4(base)), IpAddr::V4(from)) => {
                    let differ = u32::from(base) ^ u32::from(from);
                    differ.leading_zeros() >= bits.min(32)
                }
                (Ok(IpAddr::V6(base)), IpAddr::V6(from)) => {
                    let differ = u128::from(base) ^ u128::from(from);
                    differ.leading_zeros() >= bits.min(128)
                }
                _ => false,
            }
        })
}

/// Connects to the edge. Where we are one of its trusted proxies it waits for a PROXY header: we speak for ourselves.
pub async fn connect(edge: &Edge, address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    if expects_proxy(edge, stream.local_addr()?.ip()) {
        stream.write_all(b"PROXY UNKNOWN\r\n").await?;
    }
    Ok(stream)
}

/// One GET over plain HTTP, at most 64 KiB of answer.
pub async fn http_get(
    edge: &Edge,
    address: SocketAddr,
    host: &str,
    path: &str,
) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = connect(edge, address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let request = hyper::Request::get(path).header("host", host).body(Empty::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), 64 << 10).collect().await?.to_bytes();
        Ok((status, body))
    };
    let driven = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! { answer = exchange => answer, () = driven => unreachable!("it is pending for ever") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_says_proxy_only_where_the_edge_trusts_its_own_machine() {
        let check = |blocks: &[&str], from: &str, expected: bool| {
            let edge = Edge {
                http: vec![],
                https: vec![],
                trusted_proxies: blocks.iter().map(|block| (*block).to_owned()).collect(),
                proxy_protocol: true,
                cache_size: pressroom_model::unit::ByteSize::mib(1),
                access_log: None,
                redirect_to_https: false,
                health: Default::default(),
            };
            let from = from.parse().expect("an address");
            assert_eq!(expects_proxy(&edge, from), expected, "{blocks:?} {from}");
            assert!(!expects_proxy(&Edge { proxy_protocol: false, ..edge }, from));
        };
        check(&["127.0.0.1/32"], "127.0.0.1", true);
        check(&["10.0.0.0/8", "127.0.0.0/8"], "127.0.0.1", true);
        check(&["10.0.0.0/8"], "127.0.0.1", false);
        check(&["0.0.0.0/0"], "127.0.0.1", true);
        check(&["::1/128"], "::1", true);
        check(&["::1/128"], "127.0.0.1", false);
    }
}
