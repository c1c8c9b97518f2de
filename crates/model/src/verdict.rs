//! Healthy or not, and why.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What is thought of a process, instance or site at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It answered its real question in time.
    Healthy,
    /// It is alive, and every worker has something to do: not a fault.
    Busy,
    /// It was started and has not answered for the first time yet.
    Starting,
    /// It does not answer, or answers wrongly.
    Unhealthy,
    /// It ended again and again; the next start waits.
    CrashLoop,
    /// It is not running, and should not be.
    Stopped,
    /// Nobody has asked it yet.
    Unknown,
}

impl Health {
    /// The word used in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Busy => "busy",
            Self::Starting => "starting",
            Self::Unhealthy => "unhealthy",
            Self::CrashLoop => "crash-loop",
            Self::Stopped => "stopped",
            Self::Unknown => "unknown",
        }
    }

    /// Whether it can be given work now (perhaps after a wait).
    pub fn is_serving(self) -> bool {
        matches!(self, Self::Healthy | Self::Busy)
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Healthy or not, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The judgement.
    pub health: Health,
    /// The reason, for people.
    pub because: String,
}

impl Verdict {
    /// A verdict with its reason.
    pub fn new(health: Health, because: impl Into<String>) -> Self {
        Self { health, because: because.into() }
    }
}
