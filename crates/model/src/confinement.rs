//! What a process may see of the machine, and take of it.
//!
//! Said from inside: what is not named is not there. Only a keeper that is root can confine; what of it a machine cannot do is
//! left out by whoever composes it, so that everything but the limits is required. The limits are wished:
//! the keeper says which it could not set ([`crate::process::ProcessState::lacks`]).
//!
//! Always: a confined process has no capability and can gain none. Deliberately missing: namespaces for the network and
//! for users; `docs/decisions/0011-confinement-by-namespaces.md` says why.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a process is confined to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The file system that it sees; `None`: the machine's.
    #[serde(default)]
    pub view: Option<View>,
    /// It has process ids of its own and is the first of them: it can name no other process of the machine, and whatever it
    /// started ends with it.
    #[serde(default)]
    pub own_processes: bool,
    /// Shared memory, semaphores and message queues of its own.
    #[serde(default)]
    pub own_ipc: bool,
    /// System calls that no web application needs are refused (mounting, tracing by writing, loading code into the kernel …).
    #[serde(default)]
    pub filters_calls: bool,
    /// What it may take, with everything that it starts.
    #[serde(default)]
    pub limits: Limits,
}

/// A file system for one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// An empty folder of the machine where the view is put together; nothing is ever to be seen there from outside.
    pub stage: PathBuf,
    /// What is in it, in this order: what holds others comes first. Folders above them are made; they are empty and read-only.
    pub places: Vec<Place>,
}

/// A part of a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Place {
    /// A file or folder of the machine, without the file systems that are mounted below it.
    Bind {
        /// Where it is on the machine.
        from: PathBuf,
        /// Where it is seen.
        to: PathBuf,
        /// What may be done with it.
        access: Access,
        /// Left out where the machine does not have it.
        #[serde(default)]
        if_there: bool,
    },
    /// A writable folder in memory, of this process alone, empty but for what of the view is below it.
    Memory {
        /// Where.
        to: PathBuf,
        /// Its most bytes.
        bytes: u64,
    },
    /// An empty folder in whose place the machine has something that is not to be seen.
    Hidden {
        /// Where.
        to: PathBuf,
    },
    /// `/dev` with the devices that have nothing to do with hardware.
    Devices,
    /// `/proc` with nothing but the processes that it can name, and of the same user.
    Processes,
}

impl Place {
    /// Where it is in the view.
    pub fn to(&self) -> &Path {
        match self {
            Self::Bind { to, .. } | Self::Memory { to, .. } | Self::Hidden { to } => to,
            Self::Devices => Path::new("/dev"),
            Self::Processes => Path::new("/proc"),
        }
    }
}

/// What may be done with a bound place. No device works there and no set-user-id bit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read.
    Read,
    /// Read and execute.
    Run,
    /// Read and write, never execute. Nothing else of the view may be below: its owner could put a link in the way.
    Write,
}

/// The most that a process may take, with everything that it starts; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory, files of the page cache included.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Processes and threads.
    #[serde(default)]
    pub tasks: Option<u32>,
    /// Percent of one processor.
    #[serde(default)]
    pub cpu_percent: Option<u32>,
}

impl Limits {
    /// Whether there is none.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}
