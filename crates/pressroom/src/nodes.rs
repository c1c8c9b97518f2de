//! What operators may ask about the cluster's nodes, and the way to the one that leads.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use pressroom_agent::cluster::Cluster;
use pressroom_agent::cluster::backups::{self, BackupError};
use pressroom_agent::cluster::external::{self, Contents, ExternalError};
use pressroom_agent::cluster::founding::{self, Founder, FoundingError};
use pressroom_agent::cluster::joining::JoiningError;
use pressroom_agent::cluster::nodes::NodeError;
use pressroom_agent::cluster::removed::Removal;
use pressroom_agent::cluster::restoring::{self, Wanted};
use pressroom_api::cluster::{self, ChangeOf, Founding, NodeChange};
use pressroom_api::failure::Failure;
use pressroom_api::server::leaderless;
use pressroom_model::external::Etcd;
use pressroom_model::id::NodeName;
use pressroom_runtime::clock;
use pressroom_wire::http::any_body;

use crate::operator::ThisOperator;

/// A leader that does not begin to answer in this time is away.
const LEADER: Duration = Duration::from_secs(60);

/// So long it takes at most, in the ordinary, until another node leads. Twice as much is less than commands wait for an answer.
const OFFICE: Duration = Duration::from_secs(13);
const LOOK: Duration = Duration::from_millis(100);
/// A node to which no connection comes about in this time is away.
const REACH: Duration = Duration::from_secs(2);
/// What to do about an address, or a port, that a node cannot have.
pub(crate) const ADDRESS_HINT: &str = "name this machine's own address (`ip -brief address`) with `--address`, or the first of eight free ports with `--port`";
/// So long a store that works is silent at most, while its voters agree on who leads them.
const ELECTION: Duration = Duration::from_secs(6);

impl ThisOperator {
    pub(crate) async fn found(&self, wish: Founding) -> Result<(), Failure> {
        let config = self.config()?;
        if let (Some(etcd), None) = (&wish.etcd, &self.agent.cluster) {
            // No token is its yet: what is there must be nobody's.
            unfit(etcd, external::check(etcd, Contents::FreeFor("")).await)?;
        }
        let founder = Founder {
            node: config.node.name,
            zone: config.node.zone,
            address: wish.address,
            port: wish.port,
            external: wish.etcd,
        };
        founding::found(&self.agent.layout, &founder, clock::wall_ms()).map_err(|error| {
            let is_address = matches!(error, FoundingError::Address { .. });
            let failure =
                Failure::yours("no cluster was founded").cause(error).state("nothing was changed");
            if is_address { failure.hint(ADDRESS_HINT) } else { failure }
        })?;
        self.restart.fire("it goes on as a node of a cluster");
        Ok(())
    }

    pub(crate) async fn restore(&self, mut wish: cluster::Restoration) -> Result<(), Failure> {
        if !wish.force && self.agent.store_answers(ELECTION).await {
            return Err(Failure::yours("the cluster's state works: nothing was restored")
                .state("nothing was changed")
                .hint("`--force` goes back to the copy all the same; what was changed since then is lost"));
        }
        if let (Some(etcd), Some(cluster)) = (&mut wish.etcd, &self.agent.cluster) {
            let own = cluster.membership();
            fill(etcd, own.external.as_ref().ok_or_else(not_external)?);
            unfit(etcd, external::check(etcd, Contents::FreeFor(&own.token)).await)?;
        }
        let wanted = Wanted { from: wish.from, at_ms: clock::wall_ms(), external: wish.etcd };
        restoring::begin(&self.agent.layout, &wanted).map_err(|error| {
            let mut failure = Failure::yours("nothing was restored").state("nothing was changed");
            let copies = backups::list(&self.agent.layout).unwrap_or_default();
            if let Some((_, path)) = copies.last() {
                failure = failure.hint(format!("the last copy here is `{}`", path.display()));
            }
            failure.cause(error)
        })?;
        self.restart.fire("it goes back to a state that was kept");
        Ok(())
    }

    /// Asks for the state at other endpoints of the etcd that operators keep, or as another user, and tells the other nodes.
    pub(crate) async fn reach_by(&self, mut etcd: Etcd) -> Result<(), Failure> {
        let own = self.agent.cluster.as_ref().map(|cluster| cluster.membership());
        let own = own.ok_or_else(not_external)?;
        fill(&mut etcd, own.external.as_ref().ok_or_else(not_external)?);
        unfit(&etcd, external::check(&etcd, Contents::StateOf(&own.token)).await)?;
        self.agent
            .reach_by(etcd)
            .map_err(|error| Failure::ours("this node asks where it asked before").cause(error))
    }

    pub(crate) async fn back_up(&self) -> Result<cluster::Backup, Failure> {
        let taken = self.agent.back_up().await;
        taken.map(|path| cluster::Backup { path }).map_err(|error| {
            let failure = match error {
                BackupError::Alone(_) => Failure::yours,
                _ => Failure::ours,
            };
            failure("the state was not copied".to_owned()).cause(error)
        })
    }

    pub(crate) async fn token(&self, wish: &cluster::TokenWish) -> Result<cluster::Token, Failure> {
        if let Some(removal) = self.agent.removal() {
            return Err(Failure::yours("no token was made").cause(removal).hint(Removal::HINT));
        }
        let made = self.agent.make_token(Duration::from_secs(wish.life)).await;
        let token = made.map_err(|error| {
            let failure = match error {
                JoiningError::Alone => Failure::yours("no token was made").hint(
                    "`pressroom cluster init` makes this machine the first node of a cluster",
                ),
                JoiningError::NoManager(_) => Failure::yours("no token was made")
                    .hint("type it on one of them: `pressroom node token`"),
                _ => Failure::ours("no token was made")
                    .hint("a token is kept in the cluster's state: try again when etcd answers (`pressroom node list`)"),
            };
            failure.cause(error)
        })?;
        Ok(cluster::Token { token })
    }

    pub(crate) async fn change(&self, wish: ChangeOf) -> Result<(), Failure> {
        if wish.change == NodeChange::Remove && self.is_own(&wish.node) {
            return Err(Failure::yours(format!("node `{}` was not changed", wish.node))
                .cause("it leads, and cannot end its own vote and membership")
                .hint("let it rest first (`pressroom node drain`), then ask another node"));
        }
        let (agent, node) = (&self.agent, &wish.node);
        let changed = match wish.change {
            NodeChange::Drain => agent.change_node(node, |node| node.is_drained = true).await,
            NodeChange::Undrain => agent.change_node(node, |node| node.is_drained = false).await,
            NodeChange::Label { key, value: Some(value) } => {
                agent.change_node(node, |node| drop(node.labels.insert(key, value))).await
            }
            NodeChange::Label { key, value: None } => {
                agent.change_node(node, |node| drop(node.labels.remove(&key))).await
            }
            NodeChange::Remove => agent.remove_node(node).await,
        };
        changed.map_err(|error| {
            let failure = match error {
                NodeError::Store(_) | NodeError::Damaged(_) => Failure::ours,
                NodeError::Unknown(_) | NodeError::HasData(_) | NodeError::Votes { .. } => {
                    Failure::yours
                }
            };
            failure(format!("node `{node}` was not changed"))
                .cause(error)
                .state("sites are served as before")
        })
    }

    /// Whether another node leads. Between two leaders there is none for some seconds, and one that has just been chosen reads first
    /// what the last one stored: that is waited for.
    pub(crate) async fn another_leads(&self) -> bool {
        let Some(cluster) = &self.agent.cluster else { return false };
        if self.agent.removal().is_some() {
            return true;
        }
        let late = clock::now() + OFFICE;
        loop {
            match self.agent.leader() {
                _ if self.agent.leads() => return false,
                Some(leader) if leader != cluster.node() => return true,
                _ if clock::now() >= late => return true,
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn is_own(&self, node: &NodeName) -> bool {
        self.agent.cluster.as_ref().is_some_and(|cluster| cluster.node() == *node)
    }

    /// Has the leader answer; where it is away, the one after it, as long as nothing has begun.
    pub(crate) async fn ask_leader(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<Incoming>, Failure> {
        if let Some(removal) = self.agent.removal() {
            return Err(Failure::yours("nothing was changed").cause(removal).hint(Removal::HINT));
        }
        let Some(cluster) = &self.agent.cluster else { return Err(leaderless()) };
        let late = clock::now() + OFFICE;
        loop {
            let failure = match self.agent.leader() {
                Some(leader) if leader != cluster.node() => {
                    match self.ask(cluster, &leader, request.clone()).await? {
                        Asked::Answered(answer) => return Ok(answer),
                        Asked::Not(because) => leaderless().cause(because),
                    }
                }
                _ => leaderless(),
            };
            if clock::now() >= late {
                return Err(failure);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ask(
        &self,
        cluster: &Cluster,
        leader: &NodeName,
        request: Request<Bytes>,
    ) -> Result<Asked, Failure> {
        match tokio::time::timeout(REACH, cluster.client.reach(leader)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ok(Asked::Not(error.to_string())),
            Err(_) => return Ok(Asked::Not(format!("`{leader}` is not reached"))),
        }
        let unknown = |cause: String| {
            Failure::ours(format!("the leader, `{leader}`, was lost while it answered"))
                .cause(cause)
                .state("what runs goes on, and sites are served; what was asked for may have been done")
                .hint("look with `pressroom status`, then ask again")
        };
        let request = request.map(|body| any_body(Full::new(body)));
        let answer = cluster.client.call(leader, request);
        match tokio::time::timeout(LEADER, answer).await {
            Ok(Ok(answer)) if answer.status() == StatusCode::MISDIRECTED_REQUEST => {
                Ok(Asked::Not(format!("`{leader}` leads no more")))
            }
            Ok(Ok(answer)) => Ok(Asked::Answered(answer)),
            Ok(Err(error)) => Err(unknown(error.to_string())),
            Err(_) => Err(unknown(format!("it did not answer in {LEADER:?}"))),
        }
    }
}

/// What became of a question.
enum Asked {
    Answered(Response<Incoming>),
    /// Nothing has begun; why.
    Not(String),
}

/// What is not said anew stays: the prefix.
fn fill(etcd: &mut Etcd, former: &Etcd) {
    if etcd.prefix.is_empty() {
        etcd.prefix.clone_from(&former.prefix);
    }
}

fn not_external() -> Failure {
    Failure::yours("this cluster's state is not in an etcd of yours")
        .state("nothing was changed")
        .hint("`pressroom cluster init --etcd URL` founds a cluster whose state is there")
}

/// What an etcd of operators' lacks, as they are told.
fn unfit(etcd: &Etcd, checked: Result<(), ExternalError>) -> Result<(), Failure> {
    checked.map_err(|error| {
        let failure = Failure::yours(format!("the state cannot be in etcd, {}", etcd.place()))
            .state("nothing was changed, there and here; what runs goes on");
        let failure = match &error {
            ExternalError::Denied { prefix, .. } => failure.hint(format!(
                "its user has to read and write there: `etcdctl role grant-permission ROLE --prefix=true readwrite {prefix}`"
            )),
            ExternalError::Endpoints(_) => failure.hint(
                "look at the addresses, the authority (`--etcd-ca`), the certificate and the password",
            ),
            _ => failure,
        };
        failure.cause(error)
    })
}
