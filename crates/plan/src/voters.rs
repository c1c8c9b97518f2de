//! Which nodes vote in the cluster's store, and the next safe step there.
//!
//! [`choose`] says who should vote: one node where there are fewer than three, three of them, or five of seven and more; spread
//! over zones; whoever votes already stays if that spreads no worse. Nodes that rest or are lost keep their votes where nobody can take
//! them: each voter is a copy of the state, and copies do not become fewer because a node is away. [`step`] changes one thing at a time,
//! and never one after which a single further loss would cost the quorum that there is.

use std::collections::{BTreeMap, BTreeSet};

use pressroom_model::id::NodeName;

/// A node that may vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub node: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// It is a member already.
    pub votes: bool,
    /// Whether to count on it.
    pub fitness: Fitness,
}

/// Whether a node is one to count on; the better comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fitness {
    /// It works.
    Fit,
    /// It was drained: it may be stopped soon.
    Rests,
    /// It votes, and has not answered for long.
    Lost,
}

impl Fitness {
    /// That of a node, by the member of the store that it is.
    pub fn of(member: Option<&Member>, is_drained: bool) -> Self {
        match (member.is_some_and(|it| it.is_lost), is_drained) {
            (true, _) => Self::Lost,
            (_, true) => Self::Rests,
            _ => Self::Fit,
        }
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
    /// Its node is heard, so that it can begin anew: its disk may have been lost.
    pub is_heard: bool,
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

/// Who should vote, of those that could.
pub fn choose(candidates: &[Candidate]) -> BTreeSet<NodeName> {
    let count = match candidates.len() {
        0..=2 => 1,
        3..MANY => 3,
        _ => 5,
    };
    let mut chosen: BTreeSet<NodeName> = BTreeSet::new();
    let mut in_zone: BTreeMap<&str, usize> = BTreeMap::new();
    while chosen.len() < count {
        let left = candidates.iter().filter(|candidate| !chosen.contains(&candidate.node));
        let next = left.min_by_key(|candidate| {
            let others = in_zone.get(candidate.zone.as_str()).copied().unwrap_or_default();
            (candidate.fitness, others, !candidate.votes, &candidate.node)
        });
        let Some(next) = next else { break };
        chosen.insert(next.node.clone());
        *in_zone.entry(next.zone.as_str()).or_default() += 1;
    }
    chosen
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
pub fn step(wanted: &BTreeSet<NodeName>, members: &[Member]) -> Option<(Step, String)> {
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
            (true, false, true) => Some((Step::Remove(learner.id), "it never came".into())),
            (false, ..) => Some((Step::Remove(learner.id), "it is not chosen any more".into())),
        };
    }
    let stays_safe = |without: &Member| may_leave(without, members).is_ok();
    // Whoever is lost makes every further loss worse: it goes first.
    let is_in_the_way = |member: &Member| member.is_heard || !is_wanted(&member);
    let lost = voters.iter().find(|member| member.is_lost && is_in_the_way(member));
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
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        text.parse().expect("a good name")
    }

    fn candidates(list: &[(&str, &str, bool)]) -> Vec<Candidate> {
        let of = |(node, zone, votes): &(&str, &str, bool)| Candidate {
            node: name(node),
            zone: (*zone).to_owned(),
            votes: *votes,
            fitness: Fitness::Fit,
        };
        list.iter().map(of).collect()
    }

    fn names(list: &[&str]) -> BTreeSet<NodeName> {
        list.iter().map(|text| name(text)).collect()
    }

    #[test]
    fn nobody_leaves_whose_vote_is_needed() {
        let member = |id, node: &str, is_well| Member {
            id,
            node: Some(name(node)),
            is_learner: false,
            is_well,
            is_lost: !is_well,
            is_heard: is_well,
        };
        let check = |wells: &[bool], leaver: usize, expected: Result<(), &str>| {
            let members: Vec<Member> = wells
                .iter()
                .zip(1..)
                .map(|(is_well, id)| member(id, &format!("n{id}"), *is_well))
                .collect();
            let said = may_leave(&members[leaver], &members);
            assert_eq!(said, expected.map_err(str::to_owned), "{wells:?} without {leaver}");
        };
        check(&[true, true, true], 2, Ok(()));
        check(&[true, true, false], 2, Ok(()));
        check(&[true, true], 1, Ok(()));
        let why = "only n1 of the others would answer, which is no majority; start n3 first";
        check(&[true, true, false], 1, Err(why));
        check(&[true, false], 0, Err("none of the others answers (n2); start them first"));
        check(&[true], 0, Err("nobody else does"));
    }

    #[test]
    fn voters_are_spread_over_zones_and_stay_who_they_are() {
        let check = |list: &[(&str, &str, bool)], expected: &[&str]| {
            assert_eq!(choose(&candidates(list)), names(expected), "{list:?}");
        };
        check(&[("n1", "a", true)], &["n1"]);
        check(&[("n1", "a", false), ("n2", "b", true)], &["n2"]);
        check(&[("n1", "a", true), ("n2", "b", false), ("n3", "c", false)], &["n1", "n2", "n3"]);
        let six = [
            ("n1", "a", false),
            ("n2", "b", true),
            ("n3", "c", false),
            ("n4", "a", true),
            ("n5", "b", false),
            ("n6", "c", true),
        ];
        check(&six, &["n2", "n4", "n6"]);
        // Two of one zone would be lost with it.
        let skewed = [("n1", "a", true), ("n4", "a", true), ("n2", "b", true), ("n3", "c", false)];
        check(&skewed, &["n1", "n2", "n3"]);
        let seven: Vec<_> = (1..=7).map(|n| (format!("n{n}"), ["a", "b", "c"][n % 3])).collect();
        let seven: Vec<_> =
            seven.iter().map(|(node, zone)| (node.as_str(), *zone, false)).collect();
        assert_eq!(choose(&candidates(&seven)).len(), 5);
    }

    #[test]
    fn who_rests_or_is_lost_keeps_a_vote_that_nobody_can_take() {
        let check = |fitnesses: &[Fitness], expected: &[&str]| {
            let all = ["n1", "n2", "n3", "n4"].into_iter().zip(["a", "b", "c", "a"]);
            let candidates: Vec<Candidate> = all
                .zip(fitnesses)
                .map(|((node, zone), fitness)| Candidate {
                    node: name(node),
                    zone: zone.to_owned(),
                    votes: node != "n4",
                    fitness: *fitness,
                })
                .collect();
            assert_eq!(choose(&candidates), names(expected), "{fitnesses:?}");
        };
        use Fitness::{Fit, Lost, Rests};
        check(&[Rests, Fit, Fit], &["n1", "n2", "n3"]);
        check(&[Fit, Fit, Lost], &["n1", "n2", "n3"]);
        check(&[Rests, Rests, Lost], &["n1", "n2", "n3"]);
        // Another one that works takes it; one that is lost goes before one that rests.
        check(&[Fit, Rests, Fit, Fit], &["n1", "n3", "n4"]);
        check(&[Fit, Rests, Lost, Fit], &["n1", "n2", "n4"]);
    }

    fn member(id: u64, node: &str, state: &str) -> Member {
        Member {
            id,
            node: (!node.is_empty()).then(|| name(node)),
            is_learner: state.contains("learner"),
            is_well: state.contains("well"),
            is_lost: state.contains("lost"),
            is_heard: state.contains("heard"),
        }
    }

    #[test]
    fn one_thing_changes_at_a_time_and_the_quorum_is_never_risked() {
        let check = |wanted: &[&str], members: &[Member], expected: Option<Step>| {
            let found = step(&names(wanted), members).map(|(step, _)| step);
            assert_eq!(found, expected, "{wanted:?} {members:?}");
        };
        let one = member(1, "n1", "well");
        let three = ["n1", "n2", "n3"];
        check(&["n1"], std::slice::from_ref(&one), None);
        check(&three, std::slice::from_ref(&one), Some(Step::Add(name("n2"))));
        let learner = |state| [one.clone(), member(2, "n2", state)];
        check(&three, &learner("learner"), None);
        check(&three, &learner("learner well"), Some(Step::Promote(2)));
        check(&three, &learner("learner lost"), Some(Step::Remove(2)));
        check(&["n1"], &learner("learner well"), Some(Step::Remove(2)));
        let all = |third: Member| [one.clone(), member(2, "n2", "well"), third];
        check(&three, &all(member(3, "n3", "well")), None);
        // One that is away for a moment is waited for; one that is lost is replaced, out first.
        check(&three, &all(member(3, "n3", "")), None);
        check(&["n1", "n2", "n4"], &all(member(3, "n3", "lost")), Some(Step::Remove(3)));
        // Whose place nobody takes keeps it, unless it runs and has nothing to go on with.
        check(&three, &all(member(3, "n3", "lost")), None);
        check(&three, &all(member(3, "n3", "lost heard")), Some(Step::Remove(3)));
        // Without a quorum nothing is touched.
        let two_lost = [one.clone(), member(2, "n2", "lost"), member(3, "n3", "lost")];
        check(&["n1", "n4", "n5"], &two_lost, None);
        // A removed node goes, and one too many.
        check(&["n1", "n2"], &all(member(3, "", "well")), Some(Step::Remove(3)));
        // Of two voters one can only go while the other is well.
        check(&["n1"], &[one.clone(), member(2, "n2", "well")], Some(Step::Remove(2)));
        check(&["n1"], &[member(1, "n1", ""), member(2, "n2", "well")], None);
    }
}
