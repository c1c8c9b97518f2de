//! The edges of other nodes as this one knows them: their health, how busy they are, what we have asked of them.
//!
//! Probes and requests tell of health ([`super::health`]); how busy their PHP is they say with every confirmation of purges, four
//! times a second. Who is asked next is decided by [`super::choice`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use parking_lot::Mutex;
use pressroom_model::id::{NodeName, SiteName};
use pressroom_model::snapshot::HealthRules;
use pressroom_model::status;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_wire::http::{AnyBody, any_body};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Mesh;
use super::budget::Budget;
use super::choice::{Here, There};
use super::health::{By, Health, Sign};
use crate::Shared;

/// Where an edge is asked whether it is there.
pub(crate) const PROBE: &str = "/.pressroom/mesh/alive";
/// It is looked at least so often whether somebody is to be probed.
const LOOK: Duration = Duration::from_millis(500);

/// How busy PHP of a site is at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// All workers.
    pub workers: u32,
    /// Those with a request.
    pub busy: u32,
    /// Requests that wait for one.
    pub waiting: u32,
}

/// The same of all sites.
pub type Loads = BTreeMap<SiteName, Load>;

/// How busy PHP of this node is.
pub(crate) fn loads(shared: &Shared) -> Loads {
    let view = shared.view.load();
    let of = |site: &Arc<crate::view::Site>| {
        let here = here(&site.pool);
        let load = Load { workers: here.workers, busy: here.busy, waiting: here.waiting };
        (site.model.name.clone(), load)
    };
    view.sites.iter().map(of).collect()
}

/// How busy a pool of this node is.
pub(crate) fn here(pool: &crate::pool::Pool) -> Here {
    let (busy, workers) = pool.usable();
    Here { workers, busy, waiting: pool.waiting() }
}

/// All other edges.
pub struct Peers {
    rules: Mutex<HealthRules>,
    known: Mutex<BTreeMap<NodeName, Known>>,
    budget: Mutex<Budget>,
    look: Notify,
}

struct Known {
    health: Health,
    loads: Loads,
    /// Our own requests that are with it now.
    ours: u32,
    is_being_probed: bool,
}

impl Known {
    fn new(now: Instant) -> Self {
        Self { health: Health::new(now), loads: Loads::new(), ours: 0, is_being_probed: false }
    }
}

/// One request for PHP that is with another edge, until it is dropped.
pub struct Errand {
    mesh: Arc<Mesh>,
    node: NodeName,
}

impl Drop for Errand {
    fn drop(&mut self) {
        if let Some(known) = self.mesh.peers.known.lock().get_mut(&self.node) {
            known.ours = known.ours.saturating_sub(1);
        }
    }
}

/// Why there is no answer of another edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// Nothing was sent.
    Unreached,
    /// It may have begun.
    Unanswered,
}

impl Peers {
    pub(super) fn new(rules: HealthRules) -> Self {
        Self {
            rules: Mutex::new(rules),
            known: Mutex::default(),
            budget: Mutex::new(Budget::new(clock::now())),
            look: Notify::new(),
        }
    }

    /// Takes over who the others are, and the rules for their health.
    pub(super) fn update(&self, others: &[NodeName], rules: &HealthRules) {
        *self.rules.lock() = rules.clone();
        let now = clock::now();
        let mut known = self.known.lock();
        known.retain(|node, _| others.contains(node));
        for node in others {
            known.entry(node.clone()).or_insert_with(|| Known::new(now));
        }
        self.look.notify_one();
    }

    /// Whether a node is asked.
    pub fn is_up(&self, node: &NodeName) -> bool {
        self.known.lock().get(node).is_some_and(|known| known.health.is_up())
    }

    pub(super) fn note_loads(&self, node: &NodeName, loads: Loads) {
        if let Some(known) = self.known.lock().get_mut(node) {
            known.loads = loads;
        }
    }

    /// Forgets what was seen of a node while this edge was cut off from it and most others: it told of the cut, and not of the node.
    pub(super) fn forgive(&self, node: &NodeName) {
        let now = clock::now();
        if let Some(known) = self.known.lock().get_mut(node).filter(|it| !it.health.is_up()) {
            known.health = Health::new(now);
            tracing::info!(%node, "the edge is asked again: this one had been cut off");
        }
    }

    /// Takes a sign of health in.
    pub(super) fn see(&self, node: &NodeName, sign: Sign, by: By) {
        let rules = self.rules.lock().clone();
        let mut all = self.known.lock();
        let Some(known) = all.get_mut(node) else { return };
        match known.health.see(sign, by, &rules, clock::now()) {
            Some(true) => tracing::info!(%node, "the edge is asked again"),
            Some(false) => {
                let cause = known.health.cause().map_or("", |cause| cause.words());
                tracing::warn!(%node, cause, "the edge is asked no more until it answers probes");
                self.look.notify_one();
            }
            None => {}
        }
    }

    /// Those of these nodes that we know, as [`super::choice`] wants them.
    pub(super) fn there(
        &self,
        site: &SiteName,
        nodes: &[NodeName],
        is_near: impl Fn(&NodeName) -> bool,
    ) -> Vec<There> {
        let now = clock::now();
        let all = self.known.lock();
        let of = |node: &NodeName| {
            let known = all.get(node)?;
            let load = known.loads.get(site).copied().unwrap_or_default();
            Some(There {
                node: node.clone(),
                is_near: is_near(node),
                is_up: known.health.is_up(),
                warmth: known.health.warmth(now),
                workers: load.workers.max(1),
                busy: load.busy.max(known.ours),
                waiting: load.waiting,
            })
        };
        nodes.iter().filter_map(of).collect()
    }

    /// A request was given to another edge for the first time.
    pub(crate) fn earn(&self) {
        self.budget.lock().earn();
    }

    /// A cut has ended: many pages may have to be made elsewhere, until PHP has its database again.
    pub(super) fn expect_retries(&self) {
        self.budget.lock().open();
    }

    /// Whether it may be tried once more.
    pub(crate) fn may_retry(&self) -> bool {
        self.budget.lock().spend(clock::now())
    }

    /// For `status`.
    pub(crate) fn told(&self, mesh: &Mesh) -> BTreeMap<NodeName, status::Peer> {
        let all = self.known.lock();
        let of = |(node, known): (&NodeName, &Known)| {
            let peer = status::Peer {
                up: known.health.is_up(),
                because: known.health.cause().map(|cause| cause.words().to_owned()),
                heard: mesh.company.hears(node),
                hears_us: mesh.company.is_with(node),
                asked: known.ours,
            };
            (node.clone(), peer)
        };
        all.iter().map(of).collect()
    }

    /// Those who are to be probed by now; and when the next one is.
    fn due(&self) -> (Vec<NodeName>, Instant) {
        let now = clock::now();
        let mut all = self.known.lock();
        let mut due = Vec::new();
        let mut next = now + LOOK;
        for (node, known) in all.iter_mut().filter(|(_, known)| !known.is_being_probed) {
            if known.health.next_probe() <= now {
                known.is_being_probed = true;
                due.push(node.clone());
            } else {
                next = next.min(known.health.next_probe());
            }
        }
        (due, next)
    }

    fn probed(&self, node: &NodeName, sign: Sign) {
        self.see(node, sign, By::Probe);
        if let Some(known) = self.known.lock().get_mut(node) {
            known.is_being_probed = false;
        }
        self.look.notify_one();
    }
}

/// Probes every other edge, for as long as the process runs.
pub(super) async fn probe(mesh: Arc<Mesh>, stop: Shutdown) {
    while !stop.is_requested() {
        let (due, next) = mesh.peers.due();
        for node in due {
            let mesh = Arc::clone(&mesh);
            let group = mesh.group.clone();
            group.spawn(format!("probe of {node}"), move |_| async move {
                let limit = mesh.peers.rules.lock().timeout.get();
                let sign = tokio::time::timeout(limit, probe_one(&mesh, &node)).await;
                mesh.peers.probed(&node, sign.unwrap_or(Sign::Silent));
            });
        }
        tokio::select! {
            () = stop.requested() => {}
            () = mesh.peers.look.notified() => {}
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

async fn probe_one(mesh: &Mesh, node: &NodeName) -> Sign {
    if mesh.client.reach(node).await.is_err() {
        return Sign::Unreachable;
    }
    let Ok(request) = Request::get(PROBE).body(any_body(Empty::<Bytes>::new())) else {
        return Sign::Silent;
    };
    match mesh.client.call(node, request).await {
        Ok(answer) if answer.status().is_success() => Sign::Answered,
        Ok(_) | Err(_) => Sign::Silent,
    }
}

/// How long another edge may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// To the head of its answer.
    pub head: Duration,
}

/// Sends a request to another edge and waits for the head of its answer; what comes of it is a sign of its health.
pub(super) async fn ask(
    mesh: &Arc<Mesh>,
    node: &NodeName,
    request: Request<AnyBody>,
    patience: Patience,
) -> Result<Response<Incoming>, Unasked> {
    let sees = |sign| mesh.peers.see(node, sign, By::Request);
    match tokio::time::timeout(patience.connect, mesh.client.reach(node)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(%node, %error, "another edge was not reached");
            sees(Sign::Unreachable);
            return Err(Unasked::Unreached);
        }
        Err(_) => {
            sees(Sign::Silent);
            return Err(Unasked::Unreached);
        }
    }
    match tokio::time::timeout(patience.head, mesh.client.call(node, request)).await {
        Ok(Ok(answer)) => {
            sees(Sign::Answered);
            Ok(answer)
        }
        failed => {
            let error = failed.map(|answer| answer.err().map(|error| error.to_string()));
            tracing::debug!(%node, ?error, "another edge did not answer");
            sees(Sign::Silent);
            Err(Unasked::Unanswered)
        }
    }
}

impl Errand {
    /// Counts a request for PHP as being with a node from now on.
    pub(super) fn begin(mesh: &Arc<Mesh>, node: &NodeName) -> Self {
        if let Some(known) = mesh.peers.known.lock().get_mut(node) {
            known.ours += 1;
        }
        Self { mesh: Arc::clone(mesh), node: node.clone() }
    }

    /// The answer broke off.
    pub(super) fn broke_off(&self) {
        self.mesh.peers.see(&self.node, Sign::Silent, By::Request);
    }
}
