//! What is stored, and who leads and votes.

use std::collections::{BTreeMap, BTreeSet};

use pressroom_model::id::{NodeName, SiteName};
use pressroom_model::placement::Placement;
use pressroom_plan::rollout::{Candidate, Parked};
use pressroom_plan::voters::Member;

/// What is known of a site.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The version that operators want.
    pub wanted: String,
    /// The one that serves.
    pub serving: String,
    /// The one on its way.
    pub candidate: Option<Candidate>,
    /// The former one.
    pub parked: Option<Parked>,
    /// The one that failed.
    pub refused: Option<String>,
}

/// What a machine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Per site: the version that its edge sends to, and instances that answer by version.
    pub sites: BTreeMap<SiteName, (Option<String>, BTreeMap<String, u16>)>,
}

/// Everything that is stored.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// The sites.
    pub sites: BTreeMap<SiteName, Facts>,
    /// Machines that were drained.
    pub drained: BTreeSet<NodeName>,
    /// Where sites run.
    pub placements: BTreeMap<SiteName, Placement>,
    /// Who is heard.
    pub reports: BTreeMap<NodeName, Report>,
    /// Who leads, and the number of that office.
    pub leader: Option<(NodeName, u64)>,
    /// Etcd's members; whether they answer is the world's to say.
    pub members: Vec<Member>,
}

/// Seconds that a leader's lease holds.
pub const OFFICE: u64 = 4;
/// Seconds that a report holds.
pub const PRESENCE: u64 = 6;
