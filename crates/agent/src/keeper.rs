//! The keeper: the tiny process that is the parent of everything else on a node.
//!
//! It starts and stops what it is told over a socket, keeps output in bounded files, remembers how processes ended and holds the
//! listening sockets, so that a server that dies refuses nobody. It decides nothing: the agent does, and the agent may die, hang or be
//! upgraded at any time. For the same reason the keeper itself is replaceable: children write into files (never pipes), everything it
//! knows is in `run/keeper.json` before a child runs its first instruction, and the next keeper adopts the children and takes the
//! listening sockets back from those that inherited them.
//!
//! One thread, one `poll` loop. Map:
//! - [`client`]: how others talk to it; `detach`: how it is started in the background
//! - `event_loop`: the loop, the requests; `connection`: one peer; `signals`: the keeper's own signals
//! - `children`: the table of processes and what is due when; `restart`: back-off and sign of life;
//!   `stop_order`: who is stopped before whom; `launch`: fork, confinement and exec; `groups`: limits (cgroups)
//! - `listeners`: the table of listening sockets; `sockets`: opening them; `port_holder`: who has a taken port
//! - `state`: the file; `takeover`: adopting what a former keeper left; `lock`: one keeper per data directory
//! - `output`: rotation; `proc_stat`, `log`: a small reader and the log
//!
//! What always holds: a child that runs is in the state file; nothing is inherited by a child but its sockets, `/dev/null` and its
//! output file; no bad request, file or exit can panic the keeper. Deliberately missing: dependencies, readiness, health.

pub mod client;

mod children;
mod connection;
mod detach;
mod event_loop;
mod groups;
mod launch;
mod listeners;
mod lock;
mod log;
mod output;
mod port_holder;
mod proc_stat;
mod restart;
mod signals;
mod sockets;
mod state;
mod stop_order;
mod takeover;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pressroom_model::confinement::Limits;
use pressroom_model::process::{ProcessSpec, Restart};

pub use client::{CallError, Client, call};
pub use detach::{DetachError, spawn_detached};
pub(crate) use launch::{LaunchError, attempt, confine};
pub use lock::running;

/// What our groups of control are called, and other things of the machine that belong to one data directory.
pub(crate) fn name_of(data: &Path) -> String {
    let digest = blake3::hash(data.as_os_str().as_encoded_bytes()).to_hex();
    format!("pressroom-{}", &digest[..8])
}

/// Kills who is in the groups of control of a data directory, and removes them: for those who ended the keeper by force and
/// keep nothing of it.
pub fn end_groups(data: &Path) {
    groups::Groups::of_machine(data).end();
}

/// The filter of system calls as Docker reads it; none on an architecture that nobody has looked at.
pub(crate) fn docker_filter() -> Option<serde_json::Value> {
    launch::filter::profile()
}

/// The most files that a process of ours may have open.
pub(crate) fn most_open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.maximum.unwrap_or(u64::MAX)
}

/// Limits a command that is no child of a keeper, together with others of this name; returns what could not be had.
pub(crate) fn limit(command: &mut Command, data: &Path, name: &str, limits: Limits) -> Vec<String> {
    let (doors, lacks) = groups::Groups::of_machine(data).doors(name, limits);
    launch::enter(command, doors);
    lacks
}

/// Kills who is in the group of that name of [`limit`], and removes it.
pub(crate) fn end_limit(data: &Path, name: &str) {
    groups::Groups::of_machine(data).close(name);
}

/// What a keeper needs to know to begin.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data directory; the lock is `run/keeper.lock` in it.
    pub data: PathBuf,
    /// The socket it answers on, at most 107 bytes.
    pub socket: PathBuf,
    /// Where it notes what runs, for the next keeper.
    pub state: PathBuf,
    /// The agent, started at once and again whenever it ends or hangs.
    pub agent: ProcessSpec,
    /// Adopt what a former keeper of this boot left running. Without it such processes are an error that names them.
    pub takeover: bool,
    /// How long the agent may be silent before it is killed and started again.
    pub silence: Duration,
}

impl Options {
    /// The usual places in a data directory, adopting, with 15 seconds of silence allowed.
    pub fn new(data: &Path, agent: ProcessSpec) -> Self {
        Self {
            data: data.to_owned(),
            socket: data.join("run/keeper.sock"),
            state: data.join("run/keeper.json"),
            agent: ProcessSpec { restart: Restart::Always, ..agent },
            takeover: true,
            silence: Duration::from_secs(15),
        }
    }
}

/// Why a keeper could not begin, or had to give up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another keeper has this data directory.
    #[error("another keeper{} already runs on {}; stop it first with `pressroom down`", of_pid(*pid), data.display())]
    AlreadyRuns {
        /// Its process id, if its lock file names one.
        pid: Option<i32>,
        /// The data directory.
        data: PathBuf,
    },
    /// A former keeper's processes still run and were not to be adopted.
    #[error(
        "processes of a former keeper still run: {names}; start the keeper so that it adopts them"
    )]
    Leftover {
        /// Names and process ids.
        names: String,
    },
    /// The first agent could not be started, and nothing else runs.
    #[error("cannot start the agent: {because}")]
    Agent {
        /// What failed.
        because: String,
    },
    /// A file or socket of the keeper's own.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A system call that has no path.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    fn file(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::File { what, path: path.to_owned(), source: source.into() }
    }

    fn system(what: &'static str, source: impl Into<io::Error>) -> Self {
        Self::System { what, source: source.into() }
    }
}

fn of_pid(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

/// Runs a keeper until it is asked to shut down; then nothing that it started is left.
pub fn run(options: Options) -> Result<(), Error> {
    let lock = lock::take(&options.data)?;
    signals::become_keeper()?;
    let wake = signals::install()?;
    let done = event_loop::Keeper::begin(options, wake)?.serve();
    drop(lock);
    done
}
