//! Claims that hold whatever confines a site's PHP: one battery for both runtimes.

use crate::docker;
use crate::house::{House, is_root};

/// What confines the sites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    Process,
    Docker,
}

impl Runtime {
    /// Whether claims about it can be judged here; says so when they cannot.
    pub(crate) fn can_be_judged(self) -> bool {
        match self {
            Self::Docker => docker::can_be_judged(),
            Self::Process if is_root() => true,
            Self::Process => {
                println!("not judged: sites are confined only as root");
                false
            }
        }
    }

    /// An empty house that has what it needs.
    pub(crate) fn house(self) -> House {
        match self {
            Self::Process => House::empty(),
            Self::Docker => House::with_docker(),
        }
    }

    /// Its name in the configuration.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Docker => "docker",
        }
    }
}

/// The same claim about both.
macro_rules! battery {
    ($($claim:ident)*) => {
        mod process {
            $(#[test] fn $claim() { super::$claim(super::Runtime::Process); })*
        }
        mod docker_too {
            $(#[test] fn $claim() { super::$claim(super::Runtime::Docker); })*
        }
    };
}
pub(crate) use battery;
