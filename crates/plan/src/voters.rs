//! Which nodes vote in the cluster's store, and the next safe step there.
//!
//! [`choose`] says who should vote: one node where there are fewer than three, three of them, or five of seven and more; spread
//! over zones; whoever votes already stays if that spreads no worse. Nodes that rest or are lost keep their votes where nobody can take
//! them: each voter is a copy of the state, and copies do not become fewer because a node is away. [`step`] changes one thing at a time,
//! and never one after which a single further loss would cost the quorum that there is.

use std::collections::{BTreeMap, BTreeSet};

use pressroom_model::id::NodeName;

/// A node of the cluster that has the role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub node: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// What it has already.
    pub seat: Seat,
    /// Whether to count on it.
    pub fitness: Fitness,
    /// It has the database: of two nodes it has the vote as well, so that the loss of the other one costs nothing.
    pub has_database: bool,
}

/// What a node has in the store; the more comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seat {
    /// A vote.
    Votes,
    /// It follows, and will have one.
    Follows,
    /// Nothing.
    None,
}

/// Whether a node is one to count on; the better comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    /// It works.
    Fit,
    /// It was drained: it may be stopped soon.
    Rests,
    /// It is a member, and has not answered for long.
    Lost,
    /// It is no member, and cannot become one now: it is not heard, or could not follow a while ago. It counts when it is decided
    /// how many vote.
    Out,
}

impl Candidate {
    /// A node, by the member of the store that it is. `may_join`: it is heard, and nothing is known against it.
    pub fn new(
        node: NodeName,
        zone: String,
        member: Option<&Member>,
        is_drained: bool,
        may_join: bool,
    ) -> Self {
        let seat = match member {
            Some(member) if member.is_learner => Seat::Follows,
            Some(_) => Seat::Votes,
            None => Seat::None,
        };
        let fitness = match (member, is_drained) {
            (Some(member), _) if member.is_lost => Fitness::Lost,
            (None, _) if !may_join => Fitness::Out,
            (_, true) => Fitness::Rests,
            _ => Fitness::Fit,
        };
        Self { node, zone, seat, fitness, has_database: false }
    }
}

/// A member of the store as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The store's number of it.
    pub id: u64,
    /// The node; `None`: of a node that is in the cluster no more.
    pub node: Option<NodeName>,
    /// It follows, and has no vote yet.
    pub is_learner: bool,
    /// It answers.
    pub is_well: bool,
    /// It has not answered for so long that it counts as lost.
    pub is_lost: bool,
    /// It is lost although its node is heard, and has been for as long: it can only begin anew.
    pub is_stuck: bool,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Let a node follow.
    Add(NodeName),
    /// Give a follower its vote.
    Promote(u64),
    /// Take a member out.
    Remove(u64),
}

/// Five vote from so many nodes on; three are enough to lose one, and each more makes every write slower.
const MANY: usize = 7;

/// How many of so many nodes vote.
pub fn count(nodes: usize) -> usize {
    match nodes {
        0..=2 => 1,
        3..MANY => 3,
        _ => 5,
    }
}

/// Who should vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// These nodes.
    pub nodes: BTreeSet<NodeName>,
    /// They are fewer than there should be, because others cannot be chosen now.
    pub is_short: bool,
}

/// Who should vote, of all nodes that have the role.
pub fn choose(candidates: &[Candidate]) -> Choice {
    let able: Vec<&Candidate> = candidates.iter().filter(|it| it.fitness != Fitness::Out).collect();
    let voting = able.iter().filter(|it| it.seat == Seat::Votes).count();
    let should = count(candidates.len());
    let mut count = should.min(able.len());
    // An even number survives no more losses than one less. Where it is so already it stays: what it has more is a copy.
    if count.is_multiple_of(2) && voting < count {
        count = count.saturating_sub(1);
    }
    let is_short = count < should;
    let mut chosen: BTreeSet<NodeName> = BTreeSet::new();
    let mut in_zone: BTreeMap<&str, usize> = BTreeMap::new();
    while chosen.len() < count {
        let left = able.iter().filter(|candidate| !chosen.contains(&candidate.node));
        let next = left.min_by_key(|candidate| {
            let others = in_zone.get(candidate.zone.as_str()).copied().unwrap_or_default();
            // While votes are short none moves: for a moment there would be one more, an even number.
            let is_lost = candidate.fitness == Fitness::Lost;
            let kept = if is_short { candidate.seat } else { Seat::None };
            let is_apart = should == 1 && !candidate.has_database;
            let place = (is_apart, others, candidate.seat, &candidate.node);
            (is_lost, kept, candidate.fitness, place)
        });
        let Some(next) = next else { break };
        chosen.insert(next.node.clone());
        *in_zone.entry(next.zone.as_str()).or_default() += 1;
    }
    Choice { nodes: chosen, is_short }
}

/// Whether a member can go, so that a majority of those that are left answers; else why not.
pub fn may_leave(member: &Member, members: &[Member]) -> Result<(), String> {
    if member.is_learner {
        return Ok(());
    }
    let left = members.iter().filter(|it| !it.is_learner && it.id != member.id);
    let (well, ill): (Vec<_>, Vec<_>) = left.partition(|it| it.is_well);
    if well.len() > ill.len() {
        return Ok(());
    }
    let names = |list: &[&Member]| {
        let names =
            list.iter().map(|it| it.node.as_ref().map_or("a removed node", |it| it.as_str()));
        names.collect::<Vec<_>>().join(", ")
    };
    Err(match (well.len(), ill.len()) {
        (0, 0) => "nobody else does".to_owned(),
        (0, _) => format!("none of the others answers ({}); start them first", names(&ill)),
        _ => format!(
            "only {} of the others would answer, which is no majority; start {} first",
            names(&well),
            names(&ill)
        ),
    })
}

/// The next step towards that and its reason, if one is safe.
pub fn step(choice: &Choice, members: &[Member]) -> Option<(Step, String)> {
    let wanted = &choice.nodes;
    let is_wanted = |member: &&Member| member.node.as_ref().is_some_and(|it| wanted.contains(it));
    let voters: Vec<&Member> = members.iter().filter(|member| !member.is_learner).collect();
    let well = voters.iter().filter(|member| member.is_well).count();
    // Without a quorum nothing can be changed, and with a bare one nothing should be.
    if well < voters.len() / 2 + 1 {
        return None;
    }
    if let Some(learner) = members.iter().find(|member| member.is_learner) {
        return match (is_wanted(&learner), learner.is_well, learner.is_lost) {
            (true, true, _) => Some((Step::Promote(learner.id), "it follows well".into())),
            (true, false, false) => None,
            (_, false, true) => Some((Step::Remove(learner.id), "it never came".into())),
            // It will be wanted when the others are back.
            (false, ..) if choice.is_short => None,
            (false, ..) => Some((Step::Remove(learner.id), "it is not chosen any more".into())),
        };
    }
    let stays_safe = |without: &Member| may_leave(without, members).is_ok();
    // Whoever is lost makes every further loss worse: it goes first.
    let lost = voters.iter().find(|it| it.is_stuck || it.is_lost && !is_wanted(it));
    if let Some(lost) = lost.filter(|lost| stays_safe(lost)) {
        return Some((Step::Remove(lost.id), "it has not answered for long".into()));
    }
    let missing =
        wanted.iter().find(|node| members.iter().all(|it| it.node.as_ref() != Some(node)));
    if let Some(missing) = missing {
        return Some((Step::Add(missing.clone()), format!("{} nodes should vote", wanted.len())));
    }
    let extra = voters.iter().find(|member| !is_wanted(member));
    let extra = extra.filter(|extra| stays_safe(extra))?;
    Some((Step::Remove(extra.id), format!("{} nodes are enough", wanted.len())))
}

#[cfg(test)]
mod tests;
