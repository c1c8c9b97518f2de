//! What the keeper is asked to run, and what it says of it.
//!
//! The agent and the keeper may be of different versions of Pressroom: fields are only ever added, with defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::confinement::Confinement;

/// Everything needed to start one process. Two equal specs mean the same running process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Unique among the keeper's children: `mariadb`, `redis-cache`, `php-blog-1`, `edge`, `agent`.
    pub name: String,
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments, without the program; never a secret.
    #[serde(default)]
    pub args: Vec<String>,
    /// The whole environment: nothing is inherited.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The working directory.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Whom it runs as; `None`: whoever the keeper is.
    #[serde(default)]
    pub user: Option<UserIds>,
    /// What it may see and take; `None`: what its user may. Only a keeper that is root can confine.
    #[serde(default)]
    pub confinement: Option<Confinement>,
    /// Names of the keeper's listening sockets that it inherits, in this order from descriptor 3 on
    /// (each name may stand for several sockets). The keeper sets `LISTEN_FDS`, and `LISTEN_FDNAMES` with one name a descriptor.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// File creation mask.
    #[serde(default = "default_umask")]
    pub umask: u32,
    /// Most open files (soft and hard limit, lowered to what is allowed); `None`: inherited.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// Where standard output and error go (appended; the keeper rotates it at `output_limit`).
    pub output: PathBuf,
    /// Bytes of output kept in the current file before it is rotated to `FILE.1`.
    #[serde(default = "default_output_limit")]
    pub output_limit: u64,
    /// How it is asked to stop, and how long it may take before it is killed with its whole process group.
    #[serde(default)]
    pub stop: Stop,
    /// How the keeper itself treats an exit. Only the agent is restarted by the keeper; the agent decides for all others.
    #[serde(default)]
    pub restart: Restart,
}

fn default_umask() -> u32 {
    0o022
}

fn default_output_limit() -> u64 {
    16 << 20
}

/// User, group and supplementary groups of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups; all others are dropped.
    #[serde(default)]
    pub groups: Vec<u32>,
}

/// How a process is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The signal that asks it: `SIGTERM` is 15, `SIGQUIT` is 3.
    pub signal: i32,
    /// Milliseconds until SIGKILL.
    pub grace_ms: u64,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: 15, grace_ms: 10_000 }
    }
}

/// What the keeper does by itself after an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Remember the exit and tell the agent.
    #[default]
    Never,
    /// Start it again with back-off (100 ms doubling to 5 s; back to 100 ms after 10 s of life).
    Always,
}

/// Listening sockets that the keeper holds open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerSpec {
    /// Unique name: `http`, `https`, `affirm-0`.
    pub name: String,
    /// Where it listens.
    pub address: ListenAddress,
    /// How many sockets (TCP only, with SO_REUSEPORT): one per core of the edge. At least 1.
    #[serde(default = "one")]
    pub sockets: u16,
}

fn one() -> u16 {
    1
}

/// The address of a listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListenAddress {
    /// TCP, numeric `ip:port`.
    Tcp(std::net::SocketAddr),
    /// UDP, numeric `ip:port`.
    Udp(std::net::SocketAddr),
    /// A unix stream socket: path, mode and owner of the file.
    Unix {
        /// The path, at most 107 bytes.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
        /// Owner and group, where the keeper may change them.
        #[serde(default)]
        owner: Option<(u32, u32)>,
    },
}

/// A process as the keeper sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessState {
    /// The spec that it was started with.
    pub spec: ProcessSpec,
    /// Its process id while it runs.
    pub pid: Option<i32>,
    /// Wall-clock start, milliseconds since 1970.
    pub started_ms: u64,
    /// How often it was started since the keeper first heard of it.
    pub starts: u64,
    /// The last exit, if there was one.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// Asked to stop, and not gone yet.
    #[serde(default)]
    pub is_stopping: bool,
    /// Limits of its confinement that could not be set, each with the reason.
    #[serde(default)]
    pub lacks: Vec<String>,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status, if it exited; `None` for an adopted process whose status nobody could read.
    #[serde(default)]
    pub code: Option<i32>,
    /// Signal, if one killed it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Whether it had been asked to stop.
    pub was_asked: bool,
}

/// What may be asked of the keeper: one JSON object per line on its socket, one [`Reply`] line each, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Request {
    /// Hold these listening sockets (idempotent: one with the same spec is kept as it is).
    Listen {
        /// What to listen on.
        listener: ListenerSpec,
    },
    /// Close these listening sockets.
    Unlisten {
        /// The listener's name.
        name: String,
    },
    /// Start a process. One of that name which runs is left alone (`Reply::Started` with its pid).
    Start {
        /// What to start.
        spec: Box<ProcessSpec>,
    },
    /// Ask a process to stop; answers at once.
    Stop {
        /// The process's name.
        name: String,
        /// Kill it and its group with SIGKILL instead of asking.
        #[serde(default)]
        kill: bool,
    },
    /// Send a signal to the process (not its group).
    Signal {
        /// The process's name.
        name: String,
        /// Signal number.
        signal: i32,
    },
    /// Forget a process that has ended.
    Forget {
        /// The process's name.
        name: String,
    },
    /// All processes and listeners. Also the agent's sign of life.
    List,
    /// Like `List`, answered when something started or ended after `seen` (see [`Reply::Listed`]), at the latest after `wait_ms`.
    Watch {
        /// The generation already seen.
        seen: u64,
        /// Longest wait in milliseconds.
        wait_ms: u64,
    },
    /// The agent's sign of life: without one for 15 s an agent that runs is killed and started again.
    Alive,
    /// Stop every process (the agent last), close the sockets, exit 0.
    Shutdown,
}

/// The keeper's answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "reply")]
pub enum Reply {
    /// Done, or under way.
    Done,
    /// It runs.
    Started {
        /// Its process id.
        pid: i32,
    },
    /// What there is.
    Listed {
        /// Raised by every start, exit, listen and unlisten.
        generation: u64,
        /// The keeper's own process id.
        keeper: i32,
        /// All processes that are not forgotten.
        processes: Vec<ProcessState>,
        /// All listeners.
        listeners: Vec<ListenerSpec>,
        /// It knows what a confinement is: an older keeper would start a process without it.
        #[serde(default)]
        confines: bool,
    },
    /// It cannot be done.
    Refused {
        /// What, which value, why.
        because: String,
    },
}
