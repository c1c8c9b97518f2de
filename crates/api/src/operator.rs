//! What may be asked of a running Pressroom, as a trait that the binary implements.
//!
//! The server owns everything that is HTTP, and the life of long operations: they go on when the asker has gone, one
//! changing operation runs at a time, and anybody may follow one from its first step. An implementer only does the
//! work and tells its steps to [`Progress`].

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use pressroom_model::affirmation::{Purge, Receipt};
use pressroom_model::cluster::Standing;
use pressroom_model::config::Config;
use pressroom_model::external::Etcd;
use pressroom_model::id::{EnvironmentName, InstanceId, SiteName};
use pressroom_model::process::ProcessSpec;
use pressroom_model::rollout::Record;
use pressroom_model::secret::Secret;
use pressroom_model::status::Status;
use pressroom_model::writes::Written;
use serde::{Deserialize, Serialize};

use crate::cluster::{self, ChangeOf, Founding};
use crate::environment::{Environment, Letter, LetterText, NewEnvironment, Promotion, TableDiff};
use crate::failure::Failure;
use crate::git::{Access, Pushed, TokenWish};
use crate::progress::Progress;
use crate::release::{Code, Damage, Deployment, Details, Diff, Which};
use crate::wp;

/// A future answer; `Box::pin(async move { … })` makes one.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// The answer of an operator that cannot do what is asked.
fn unable<T: Send + 'static>() -> Answer<'static, T> {
    Box::pin(async { Err(Failure::ours("this operator cannot do that")) })
}

/// A running Pressroom, as operators see it. Every method may be called at any time and many times at once, except
/// that of `apply`, `deploy`, `push`, `rollback`, `remove_site`, `down` and those that change environments the server runs one at a
/// time. What one cannot do it says, where the method has a body here.
pub trait Operator: Send + Sync + 'static {
    /// What is; answers from memory, at once.
    fn status(&self) -> Answer<'_, Status>;

    /// What [`Operator::apply`] would do, and why; changes nothing.
    fn plan(&self, wish: Wish) -> Answer<'_, Vec<Planned>>;

    /// Makes it so: stores the intent, does the actions, and waits until every engine and every site's readiness is
    /// healthy. Wishing for what is already there is quick and changes nothing. The future is dropped when `down` is
    /// asked for meanwhile.
    fn apply(&self, wish: Wish, progress: Progress) -> Answer<'_, ()>;

    /// Applies `wish` (a configuration without the site), writes a dump of its database and uploads below the data
    /// directory, then deletes its database, files and secrets. Answers where the dump is kept.
    fn remove_site(&self, name: SiteName, wish: Wish, progress: Progress) -> Answer<'_, PathBuf>;

    /// Makes a release of what is brought, and moves the site to it: every new request runs it, or nothing has changed.
    fn deploy(&self, name: SiteName, deployment: Deployment, progress: Progress) -> Answer<'_, ()>;

    /// What [`Operator::deploy`] would change in the code; moves nothing.
    fn compare(&self, name: SiteName, code: Code) -> Answer<'_, Diff>;

    /// What another node can deploy as well: a release in the place of files that only this machine has.
    fn make_here(&self, _name: SiteName, code: Code) -> Answer<'_, Code> {
        Box::pin(async move { Ok(code) })
    }

    /// The releases that served a site, the last one first.
    fn releases(&self, name: SiteName) -> Answer<'_, Vec<Record>>;

    /// One release of a site, looked into: what is in it, what it changed, what becomes of it.
    fn show_release(&self, name: SiteName, which: Which) -> Answer<'_, Details>;

    /// Moves a site back to a release that served it.
    fn rollback(&self, name: SiteName, which: Which, progress: Progress) -> Answer<'_, ()>;

    /// Takes what was pushed: `main` is a deploy, and the push is refused when that is.
    fn push(&self, name: SiteName, pushed: Pushed, progress: Progress) -> Answer<'_, ()>;

    /// How a site's git repository is reached; makes or revokes its token.
    fn git_access(&self, name: SiteName, wish: TokenWish) -> Answer<'_, Access>;

    /// What tells two releases of a site apart.
    fn diff(&self, _name: SiteName, _which: Which) -> Answer<'_, Diff> {
        unable()
    }

    /// Who wrote what beside the database: media, caches, drop-ins, and what was refused.
    fn writes(&self, name: SiteName) -> Answer<'_, Vec<Written>>;

    /// How wp-cli is run for a site; it holds no secret. Runs nothing.
    fn wp_cli(&self, name: SiteName, wish: wp::Wish) -> Answer<'_, ProcessSpec>;

    /// Hashes every file of a release again.
    fn verify(&self, name: SiteName, which: Which) -> Answer<'_, Vec<Damage>>;

    /// The environments of all sites.
    fn environments(&self) -> Answer<'_, Vec<Environment>> {
        unable()
    }

    /// Makes an environment of a site: a copy of its database and media, on the same code, with an address of its own.
    fn create_environment(
        &self,
        _of: SiteName,
        _new: NewEnvironment,
        _progress: Progress,
    ) -> Answer<'_, ()> {
        unable()
    }

    /// Copies database and media of the site into its environment again.
    fn refresh_environment(
        &self,
        _of: SiteName,
        _name: EnvironmentName,
        _progress: Progress,
    ) -> Answer<'_, ()> {
        unable()
    }

    /// Deletes an environment; nothing of it is kept.
    fn remove_environment(
        &self,
        _of: SiteName,
        _name: EnvironmentName,
        _progress: Progress,
    ) -> Answer<'_, ()> {
        unable()
    }

    /// The letters that an environment wanted to send, the last one first.
    fn letters(&self, _of: SiteName, _name: EnvironmentName) -> Answer<'_, Vec<Letter>> {
        unable()
    }

    /// What one of them says.
    fn letter(&self, _of: SiteName, _name: EnvironmentName, _id: String) -> Answer<'_, LetterText> {
        unable()
    }

    /// Makes an environment's release, or tables of its, those of the site.
    fn promote(&self, _of: SiteName, _promotion: Promotion, _progress: Progress) -> Answer<'_, ()> {
        unable()
    }

    /// What promoting the release of an environment would change in the site's code.
    fn promotable(&self, _of: SiteName, _name: EnvironmentName) -> Answer<'_, Diff> {
        unable()
    }

    /// What promoting tables of an environment would change in those of the site.
    fn compare_tables(&self, _of: SiteName, _promotion: Promotion) -> Answer<'_, Vec<TableDiff>> {
        unable()
    }

    /// Makes this machine the first node of a cluster; the agent starts again in between.
    fn found_cluster(&self, _founding: Founding) -> Answer<'_, ()> {
        unable()
    }

    /// Goes back to a state that was kept, on this node; the agent starts again in between.
    fn restore_cluster(&self, _wish: cluster::Restoration) -> Answer<'_, ()> {
        unable()
    }

    /// Asks for the cluster's state by other endpoints of the etcd that operators keep, or as another user, and tells all nodes; the agent
    /// starts again in between.
    fn reach_cluster(&self, _etcd: Etcd) -> Answer<'_, ()> {
        unable()
    }

    /// Copies the cluster's state now.
    fn back_up_cluster(&self) -> Answer<'_, cluster::Backup> {
        unable()
    }

    /// Goes on here after a `down` that did not come to its end, and tries at once what has failed so far.
    fn resume(&self) -> Answer<'_, ()> {
        unable()
    }

    /// The nodes of the cluster; none where this machine is in none.
    fn nodes(&self) -> Answer<'_, Vec<Standing>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// A token that lets one machine join.
    fn node_token(&self, _wish: cluster::TokenWish) -> Answer<'_, cluster::Token> {
        unable()
    }

    /// Changes what is known of a node.
    fn change_node(&self, _change: ChangeOf) -> Answer<'_, ()> {
        unable()
    }

    /// Whether another node decides for all, so that what would change something is passed on to it.
    fn is_led_elsewhere(&self) -> Answer<'_, bool> {
        Box::pin(async { Ok(false) })
    }

    /// Asks the agent of the node that decides; what it answers is passed back as it comes.
    fn pass_on(&self, _request: Request<Bytes>) -> Answer<'_, Response<Incoming>> {
        unable()
    }

    /// Drains the edge, then stops everything but the agent and the keeper, in reverse order. The intent stays.
    /// The caller asks the keeper to shut down next.
    fn down(&self, progress: Progress) -> Answer<'_, ()>;

    /// Asks the home page of a site once, over its own HTTPS listener, as a visitor would.
    fn visit(&self, name: SiteName) -> Answer<'_, Visit>;

    /// The administrator and password made at the installation of a site, if the password was generated and never
    /// shown: it is given once, then forgotten.
    fn take_initial_admin(&self, name: SiteName) -> Answer<'_, Option<InitialAdmin>>;

    /// The configuration that is applied, as it holds on this machine; `None`: there was none yet.
    fn applied(&self) -> Answer<'_, Option<Config>>;

    /// Looks for what is wrong or will be.
    fn doctor(&self) -> Answer<'_, Vec<Check>>;

    /// Purges stored pages of a site.
    fn purge(&self, name: SiteName, purge: Purge) -> Answer<'_, Receipt>;

    /// Explains one anonymous request for `url`: absolute, or a path of the first site.
    fn why(&self, url: String) -> Answer<'_, Why>;

    /// Everything that the edge counts, in Prometheus' text format.
    fn metrics(&self) -> Answer<'_, String>;
}

/// What an operator wants, with the secrets that are no part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// The whole configuration.
    pub config: Config,
    /// Administrator passwords for sites that are installed by this wish; without one a password is generated.
    /// Ignored for a site that is installed.
    #[serde(default)]
    pub admin_passwords: BTreeMap<SiteName, Secret>,
}

/// One action that would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// What.
    pub action: String,
    /// Why.
    pub because: String,
}

/// What a visitor of a home page got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Visit {
    /// What was asked.
    pub url: String,
    /// HTTP status; 0: no answer.
    pub status: u16,
    /// Whether it was the site's page, over HTTPS, whole.
    pub is_good: bool,
    /// Why not, if not.
    #[serde(default)]
    pub because: String,
    /// How long it took.
    pub ms: u64,
}

/// The administrator made at the installation of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialAdmin {
    /// Login name.
    pub user: String,
    /// The generated password.
    pub password: Secret,
}

/// One finding of the doctor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub state: CheckState,
    /// What was found.
    #[serde(default)]
    pub detail: String,
    /// What to do about it; empty when fine.
    #[serde(default)]
    pub hint: String,
}

/// How something that the doctor looked at is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    /// Fine.
    Good,
    /// It works, with a cost worth knowing.
    Warning,
    /// It does not work, or will not for long.
    Bad,
}

/// One request, explained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// What was asked.
    pub url: String,
    /// The site that answers for the host; `None`: none does (421).
    pub site: Option<SiteName>,
    /// HTTP status of the answer.
    pub status: u16,
    /// `hit`, `stale`, `miss`, `bypass`, or `none` for what is not a page (static file, heartbeat).
    pub cache: String,
    /// Why that.
    pub because: String,
    /// The cache key.
    #[serde(default)]
    pub key: Option<String>,
    /// Age of the stored page in seconds.
    #[serde(default)]
    pub age: Option<u64>,
    /// Seconds for which it is still fresh.
    #[serde(default)]
    pub fresh_for: Option<i64>,
    /// Surrogate keys of the page.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The instance that rendered it in this request.
    #[serde(default)]
    pub instance: Option<InstanceId>,
    /// Id of the request in the access log.
    #[serde(default)]
    pub request_id: Option<String>,
    /// Time spent in each step, in order.
    #[serde(default)]
    pub steps: Vec<TimedStep>,
    /// Anything else worth knowing ("parameter `utm_source` is ignored").
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Time spent in one step of a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimedStep {
    /// `route`, `cache`, `queue`, `php`, `send` …
    pub step: String,
    /// Microseconds.
    pub us: u64,
}
