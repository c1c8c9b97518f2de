//! This machine's store and, where it is a node of a cluster, its way to the others: opened before anything else of the agent.
//!
//! A machine that founds a cluster comes here with its membership in the stage of forming: etcd is started, the state copied and
//! compared, and only then etcd counts. What fails before is undone, and the embedded store goes on. Where operators keep etcd, none is
//! started, and the rest is the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use pressroom_agent::agent::Agent;
use pressroom_agent::cluster::membership::{self, Membership, Stage};
use pressroom_agent::cluster::{Cluster, external, founding, keys, restoring};
use pressroom_agent::engine::etcd::Etcd;
use pressroom_agent::keeper;
use pressroom_agent::layout::Layout;
use pressroom_agent::users::Users;
use pressroom_api::failure::Failure;
use pressroom_api::server;
use pressroom_model::process::{Reply, Request as Ask};
use pressroom_plan::machine::ETCD;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use pressroom_store::Store;
use pressroom_store::embedded::EmbeddedStore;
use pressroom_store::embedded::open::Replaced;
use pressroom_store::etcd::EtcdStore;
use pressroom_wire::http::{any_body, serve};
use pressroom_wire::identity::Peer;
use pressroom_wire::members::Service;
use pressroom_wire::tls::Guests;
use tokio::net::TcpListener;

/// Longest time until etcd answers for the first time.
const FIRST_ANSWER: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(50);

/// What the agent begins with.
pub(crate) struct Opened {
    /// Where the state is.
    pub(crate) store: Arc<dyn Store>,
    /// The embedded store was damaged and is a new one.
    pub(crate) replaced: Option<Replaced>,
    /// The cluster that this machine is a node of, and its store once more.
    pub(crate) cluster: Option<(Arc<Cluster>, EtcdStore)>,
    /// What people should know.
    pub(crate) note: Option<String>,
}

/// Opens the store that counts here.
pub(crate) async fn open(layout: &Layout, tasks: &Group) -> Result<Opened, Failure> {
    let unreadable = |error| {
        Failure::ours("it cannot be read whether this machine is a node of a cluster").cause(error)
    };
    let membership = Membership::read(layout).map_err(unreadable)?;
    let wanted = restoring::wanted(layout);
    match membership {
        Some(membership) if let Some(wanted) = &wanted => {
            crate::restore::restored(layout, membership, wanted, tasks).await
        }
        Some(membership) if membership.stage == Stage::Formed => {
            clustered(layout, membership, tasks)
        }
        Some(membership) if membership.stage == Stage::Dissolving => {
            dissolved(layout, membership, tasks).await
        }
        other => alone(layout, other, tasks).await,
    }
}

async fn alone(
    layout: &Layout,
    forming: Option<Membership>,
    tasks: &Group,
) -> Result<Opened, Failure> {
    let (store, replaced) = EmbeddedStore::open_or_replace(&layout.store(), tasks)
        .await
        .map_err(|error| Failure::ours("cannot open the store").cause(error))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let embedded = |note| Opened { store: Arc::clone(&store), replaced, cluster: None, note };
    let Some(membership) = forming else { return Ok(embedded(None)) };
    match form(layout, &membership, &*store, tasks).await {
        Ok(membership) => clustered(layout, membership, tasks),
        Err(error) => {
            tracing::error!(%error, "no cluster was founded");
            undo(layout).await;
            give_back(layout, &membership, tasks).await;
            Ok(embedded(Some(format!(
                "no cluster was founded: {error}; this machine goes on alone"
            ))))
        }
    }
}

pub(crate) fn clustered(
    layout: &Layout,
    membership: Membership,
    tasks: &Group,
) -> Result<Opened, Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::ours("this node's identity cannot be used").cause(error)
    };
    let store = connect(layout, &membership, tasks).map_err(|error| failed(&error))?;
    let cluster =
        Cluster::open(layout, membership, tasks.clone()).map_err(|error| failed(&error))?;
    let mut endpoints = cluster.endpoints.subscribe();
    let known = store.clone();
    tasks.spawn("endpoints", move |stop| async move {
        loop {
            tokio::select! {
                () = stop.requested() => return,
                changed = endpoints.changed() => if changed.is_err() { return },
            }
            known.set_endpoints(&endpoints.borrow_and_update().clone());
        }
    });
    let own = Some((cluster, store.clone()));
    Ok(Opened { store: Arc::new(store), replaced: None, cluster: own, note: None })
}

pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

pub(crate) fn connect(
    layout: &Layout,
    membership: &Membership,
    tasks: &Group,
) -> Result<EtcdStore, Cause> {
    Ok(EtcdStore::connect(&membership.options(layout)?, tasks)?)
}

/// Waits until etcd answers; what it said last, if it does not, at once where it answers others alone.
pub(crate) async fn first_answer(store: &EtcdStore) -> Result<(), Cause> {
    let late = clock::now() + FIRST_ANSWER;
    while let Err(error) = store.get(&pressroom_store::key::Key::literal("leader")).await {
        if clock::now() > late || error.to_string().contains("permission denied") {
            return Err(error.into());
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// Moves the state into etcd. May be done again after it was interrupted anywhere.
async fn form(
    layout: &Layout,
    membership: &Membership,
    from: &dyn Store,
    tasks: &Group,
) -> Result<Membership, Cause> {
    if membership.external.is_none() {
        start(layout, &Etcd::of(layout, &Users::new(), membership)?).await?;
    }
    let store = connect(layout, membership, tasks)?;
    first_answer(&store).await?;
    match membership.external {
        None => {
            pressroom_store::copy(from, &store).await?;
            founding::first_records(layout, membership, &store).await?;
        }
        Some(_) => external::move_in(layout, membership, from, &store).await?,
    }
    let membership = Membership { stage: Stage::Formed, ..membership.clone() };
    membership.write(layout)?;
    Ok(membership)
}

pub(crate) async fn start(layout: &Layout, etcd: &Etcd) -> Result<(), Cause> {
    let spec = etcd.prepare()?;
    let client = keeper::Client::new(&layout.keeper_socket());
    match client.call(&Ask::Start { spec: Box::new(spec) }).await? {
        Reply::Refused { because } => Err(because.into()),
        _ => Ok(()),
    }
}

/// Takes the state back from etcd, which has one member left, or is not ours. Until that is done etcd counts.
async fn dissolved(
    layout: &Layout,
    membership: Membership,
    tasks: &Group,
) -> Result<Opened, Failure> {
    match take_back(layout, &membership, tasks).await {
        Ok(()) => {
            undo(layout).await;
            give_back(layout, &membership, tasks).await;
            let opened = alone(layout, None, tasks).await?;
            Ok(Opened { note: Some("the cluster is one machine again".into()), ..opened })
        }
        Err(error) => {
            let note = format!("the cluster cannot become one machine yet: {error}");
            tracing::error!("{note}");
            let membership = Membership { stage: Stage::Formed, ..membership };
            if let Err(error) = membership.write(layout) {
                tracing::error!(%error, "the membership stays as it was");
            }
            let opened = clustered(layout, membership, tasks)?;
            Ok(Opened { note: Some(note), ..opened })
        }
    }
}

async fn take_back(layout: &Layout, membership: &Membership, tasks: &Group) -> Result<(), Cause> {
    if membership.external.is_none() {
        start(layout, &Etcd::of(layout, &Users::new(), membership)?).await?;
    }
    let from = connect(layout, membership, tasks)?;
    first_answer(&from).await?;
    if membership.external.is_some() && !external::is_ours(membership, &from).await? {
        return Err("what is in the etcd that you keep is not this cluster's state".into());
    }
    // It was closed when the cluster was founded; nobody has opened it since.
    let inner = Group::new("store for a moment", tasks.shutdown().clone());
    let (to, _) = EmbeddedStore::open_or_replace(&layout.store(), &inner).await?;
    pressroom_store::copy_some(&from, &to, |key| !keys::is_of_cluster(key)).await?;
    drop(to);
    inner.finish(Duration::from_secs(5)).await;
    Ok(())
}

/// Forgets a founding that failed, or a cluster that is one machine again.
async fn undo(layout: &Layout) {
    let client = keeper::Client::new(&layout.keeper_socket());
    for request in [Ask::Stop { name: ETCD.into(), kill: true }, Ask::Forget { name: ETCD.into() }]
    {
        // It may never have been started.
        let _ = client.call(&request).await;
    }
    let data = layout.engine(ETCD);
    if data.exists()
        && let Err(error) = pressroom_runtime::tree::remove(&data)
    {
        tracing::warn!(%error, "what etcd had stays");
    }
    if let Err(error) = membership::leave(layout, clock::wall_ms()) {
        tracing::error!(%error, "the membership cannot be taken back");
    }
}

/// Deletes what we had in an etcd that operators keep, when it counts no more: after everything else, so that it is there until then.
async fn give_back(layout: &Layout, former: &Membership, tasks: &Group) {
    let Some(etcd) = &former.external else { return };
    let inner = Group::new("store for a moment", tasks.shutdown().clone());
    let given = async {
        let store = connect(layout, former, &inner)?;
        Ok::<_, Cause>(external::give_back(former, &store).await?)
    };
    let given = given.await;
    inner.finish(Duration::from_secs(5)).await;
    if let Err(error) = given {
        tracing::warn!(%error, "what was at {} stays there; nothing asks for it", etcd.place());
    }
}

/// Answers other nodes and those that want to join, until shutdown.
pub(crate) async fn keep_door(
    agent: Arc<Agent>,
    cluster: Arc<Cluster>,
    server: server::Server,
    group: Group,
    shutdown: Shutdown,
) {
    let membership = cluster.membership();
    let address = SocketAddr::new(membership.address, membership.port + Service::Agent as u16);
    let mut told = false;
    let (acceptor, listener) = loop {
        let acceptor = cluster.wire.acceptor(&[pressroom_wire::http::PROTOCOL], Guests::Welcome);
        let bound = TcpListener::bind(address).await;
        match (acceptor, bound) {
            (Ok(acceptor), Ok(listener)) => break (acceptor, listener),
            (Err(error), _) => tell(&agent, &mut told, &error),
            (_, Err(error)) => tell(&agent, &mut told, &format!("{address}: {error}")),
        }
        tokio::select! { () = shutdown.requested() => return, () = tokio::time::sleep(LOOK * 10) => {} }
    };
    let answer = move |peer: Peer, request: Request<Incoming>| {
        let (agent, server) = (Arc::clone(&agent), server.clone());
        async move {
            match (&peer, request.uri().path().starts_with("/v1/")) {
                (Peer::Node(_), true) => server.answer(request).await.map(any_body),
                _ => agent.answer_node(peer, request).await,
            }
        }
    };
    serve(cluster.wire.clone(), acceptor, listener, group, shutdown, answer).await;
}

fn tell(agent: &Agent, told: &mut bool, error: &dyn std::fmt::Display) {
    if !std::mem::replace(told, true) {
        tracing::error!(%error, "other nodes cannot be answered");
        agent.note(format!(
            "other nodes cannot be answered: {error}; sites are served, and it is tried again"
        ));
    }
}
