//! The trait through which commands touch the machine; the binary implements it with the agent's hands.
//!
//! All methods block, and are called outside of any async runtime, so an implementer may start its own. Failures
//! carry whose fault they are, which decides the exit status.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pressroom_api::failure::Failure;
use pressroom_api::operator::Check;
use pressroom_api::progress::Progress;
use pressroom_model::cluster::Role as ClusterRole;
use pressroom_model::config::Config;
use pressroom_model::file::Facts;
use pressroom_model::id::NodeName;
use pressroom_model::process::ProcessSpec;
use pressroom_model::template::State;

use crate::place::Place;

/// The machine that a command runs on.
pub trait Machine {
    /// Whether we are root.
    fn is_root(&self) -> bool;

    /// What the defaults of the configuration depend on (`data` and `folder` from `place`).
    fn facts(&self, place: &Place) -> Facts;

    /// Packages that `config` needs and that are not here, in a good order. Quick when nothing is missing.
    fn missing(&self, config: &Config) -> Result<Vec<Package>, Failure>;

    /// The same for a machine that is to be a node of a cluster; `is_voter`: one that runs etcd.
    fn missing_in_cluster(&self, is_voter: bool) -> Result<Vec<Package>, Failure>;

    /// The same for a machine that is to have a lab.
    fn missing_in_lab(&self) -> Result<Vec<Package>, Failure>;

    /// The address by which this machine reaches others, if it has one.
    fn own_address(&self) -> Option<IpAddr>;

    /// The name of the node that this machine is; `None`: it is in no cluster.
    fn membership(&self, place: &Place) -> Result<Option<NodeName>, Failure>;

    /// Makes this machine a node of the cluster that the token is of; nothing is started. Once more is no failure.
    fn join(&self, place: &Place, joining: &Joining) -> Result<Joined, Failure>;

    /// The exact command that installs `packages`, for people to copy.
    fn install_command(&self, packages: &[Package]) -> String;

    /// Installs packages (root only), leaves their own services stopped and disabled.
    fn install(&self, packages: &[Package], progress: &Progress) -> Result<(), Failure>;

    /// The process id of the running keeper of this place, if one answers.
    fn keeper(&self, place: &Place) -> Option<i32>;

    /// Makes the data directory if it is not there, refuses one of a newer layout (`layout.json`), and starts a keeper
    /// in its own session, which starts the agent. Returns once the keeper answers. With a keeper running: its id.
    fn start_keeper(&self, place: &Place) -> Result<i32, Failure>;

    /// Asks the keeper to stop everything and waits until all of it is gone. Works without an agent, and also when
    /// the keeper has died and left children. Nothing running is no failure.
    fn stop_keeper(&self, place: &Place, progress: &Progress) -> Result<Stopped, Failure>;

    /// Looks for what is wrong with the machine: packages, ports, disk space, permissions, processes of this place.
    /// Works with nothing running; `config` is `None` when the file cannot be read.
    fn examine(&self, place: &Place, config: Option<&Config>) -> Vec<Check>;

    /// The certificate of the local authority, if it was made.
    fn local_authority(&self, place: &Place) -> Option<PathBuf>;

    /// Writes the systemd unit to `path`, reloads systemd and enables it; starting is left to the operator.
    fn install_unit(&self, path: &Path, text: &str) -> Result<(), Failure>;

    /// Runs a command of a site's as the agent says, with our own standard input and output; its exit status.
    fn enter(&self, place: &Place, spec: &ProcessSpec) -> Result<u8, Failure>;

    /// Does something with the lab in the data directory; what is to be shown, and the exit status.
    fn lab(&self, place: &Place, verb: &Lab, progress: &Progress) -> Result<LabSaid, Failure>;

    /// Brings the files of the templates to what they should be, once; how each stands then.
    fn render(&self, place: &Place, wish: &Templates) -> Result<Vec<State>, Failure>;

    /// Keeps them so until a signal comes.
    fn watch_templates(
        &self,
        place: &Place,
        wish: &Templates,
        interval: Duration,
    ) -> Result<(), Failure>;

    /// The templates that come with us: paths below a folder of the program's name, and contents.
    fn example_templates(&self) -> Vec<(PathBuf, &'static [u8])>;

    /// The path of this program, for unit files and hints.
    fn program(&self) -> PathBuf;

    /// Becomes one of our own long-running processes; returns when it has ended well.
    fn run(&self, role: Role, place: &Place) -> Result<(), Failure>;
}

/// Which templates, and where their values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    /// confd's folder.
    pub folder: PathBuf,
    /// Where values come from.
    pub backend: Backend,
    /// Before all keys, instead of what the resources say.
    pub prefix: Option<String>,
    /// Change nothing.
    pub noop: bool,
    /// Run neither check nor reload commands.
    pub sync_only: bool,
    /// Keep rendered files that did not pass their check.
    pub keep_stage: bool,
}

/// Where values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// The etcd of the cluster that this machine is a node of.
    Pressroom,
    /// Some etcd.
    Etcd {
        /// Where it answers.
        endpoints: Vec<String>,
        /// The authorities that its certificate may be of.
        authority: Option<PathBuf>,
        /// Our certificate and its key.
        identity: Option<(PathBuf, PathBuf)>,
    },
    /// This process's environment.
    Environment,
    /// Files, or folders of them.
    Files(Vec<PathBuf>),
}

/// What is done with a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lab {
    /// Make hosts that serve.
    Up {
        /// How many.
        nodes: usize,
        /// Their zones, dealt in turn.
        zones: Vec<String>,
        /// The site's name.
        site: String,
        /// Each host a Pressroom of its own.
        is_standalone: bool,
        /// How many floating addresses.
        addresses: u8,
    },
    /// Cut off.
    Cut(String),
    /// End a cut, or slowness.
    Heal(String),
    /// Let it send so many kilobits a second.
    Slow(String, u64),
    /// Kill everything at once.
    Kill(String),
    /// Start again.
    Start(String),
    /// Stop all processes, or one.
    Freeze(String, Option<String>),
    /// Let them go on.
    Thaw(String),
    /// Run a command in a host.
    Exec(String, Vec<String>),
    /// Show the hosts.
    Status,
    /// End it.
    Down,
    /// Be the first process of a host.
    Host(String),
}

/// What became of that.
#[derive(Debug, Clone, Default)]
pub struct LabSaid {
    /// The lab as JSON, where there is one to show.
    pub lab: Option<serde_json::Value>,
    /// The exit status of a command in a host.
    pub status: u8,
}

/// A machine that wants to be a node.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The join token.
    pub token: String,
    /// The name that it wants; `None`: what it was before, else the host's.
    pub name: Option<NodeName>,
    /// Its failure domain; `None`: what it was before, else `a`.
    pub zone: Option<String>,
    /// Its address; `None`: what it was before, if the machine has that still, else the one that leads to the cluster.
    pub address: Option<IpAddr>,
    /// The first of its ports for other nodes; `None`: what it was before, else 7400.
    pub port: Option<u16>,
    /// What it is to do; empty: what it did before, else everything.
    pub roles: Vec<ClusterRole>,
}

/// A machine that is a node now.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its name.
    pub node: NodeName,
    /// It was none before, or none any more.
    pub is_new: bool,
    /// What it will serve.
    pub config: Option<Config>,
}

/// One of our own processes, started as `pressroom ROLE --data DIR --config FILE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `pressroom keep`: parent of everything else.
    Keeper,
    /// `pressroom agent`.
    Agent,
    /// `pressroom edge`.
    Edge,
    /// `pressroom sql`.
    Sql,
    /// `pressroom dns`.
    Dns,
}

/// A package of the distribution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Its name: `php8.2-fpm`.
    pub name: String,
    /// What needs it: ``PHP of site `blog` ``.
    pub because: String,
}

/// What was found when everything was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// It ran, and is gone now.
    Now,
    /// Nothing ran.
    Already,
}
