//! Who votes, and what leads there.

use super::*;

fn name(text: &str) -> NodeName {
    text.parse().expect("a good name")
}

fn candidates(list: &[(&str, &str, bool)]) -> Vec<Candidate> {
    let of = |(node, zone, votes): &(&str, &str, bool)| Candidate {
        node: name(node),
        zone: (*zone).to_owned(),
        seat: if *votes { Seat::Votes } else { Seat::None },
        fitness: Fitness::Fit,
        has_database: false,
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
        is_stuck: false,
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
        assert_eq!(choose(&candidates(list)).nodes, names(expected), "{list:?}");
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
    let seven: Vec<_> = seven.iter().map(|(node, zone)| (node.as_str(), *zone, false)).collect();
    assert_eq!(choose(&candidates(&seven)).nodes.len(), 5);
}

/// What becomes of a store, step by step, when nothing else happens: who has a vote in the end, and how few had one meanwhile.
fn settle(mut members: Vec<Member>, nodes: &[(&str, &str, &str)]) -> (BTreeSet<NodeName>, usize) {
    let voting = |members: &[Member]| members.iter().filter(|it| !it.is_learner).count();
    let mut fewest = voting(&members);
    for next_id in 100.. {
        assert!(next_id < 150, "it settles");
        let zones = ["a", "b", "c"].into_iter().cycle();
        let candidates: Vec<Candidate> = nodes
            .iter()
            .zip(zones)
            .map(|((node, rests, heard), zone)| {
                let member = members.iter().find(|it| it.node.as_ref() == Some(&name(node)));
                let (rests, heard) = (*rests == "rests", *heard == "heard");
                Candidate::new(name(node), zone.to_owned(), member, rests, heard)
            })
            .collect();
        match step(&choose(&candidates), &members) {
            None => break,
            Some((Step::Add(node), _)) => {
                members.push(Member { node: Some(node), ..member(next_id, "", "learner well") });
            }
            Some((Step::Promote(id), _)) => {
                members.iter_mut().filter(|it| it.id == id).for_each(|it| it.is_learner = false);
            }
            Some((Step::Remove(id), _)) => members.retain(|it| it.id != id),
        }
        fewest = fewest.min(voting(&members));
    }
    let voters = members.iter().filter(|it| !it.is_learner);
    (voters.filter_map(|it| it.node.clone()).collect(), fewest)
}

#[test]
fn who_rests_or_is_lost_keeps_a_vote_that_nobody_can_take() {
    let check = |states: &[&str], nodes: &[(&str, &str, &str)], expected: &[&str], least| {
        let members = states.iter().zip(1..);
        let members = members.map(|(state, id)| member(id, &format!("n{id}"), state));
        let found = settle(members.collect(), nodes);
        assert_eq!(found, (names(expected), least), "{states:?} {nodes:?}");
    };
    let well = ["well"; 5];
    let fit = |node| (node, "", "heard");
    let rests = |node| (node, "rests", "heard");
    let away = |node| (node, "", "");
    let (n1, n2, n3, n4) = (fit("n1"), fit("n2"), fit("n3"), fit("n4"));
    // Of two nodes one rests, or both; of three one, or all; of four one.
    check(&["well"], &[rests("n1"), n2], &["n2"], 1);
    check(&["well"], &[rests("n1"), rests("n2")], &["n1"], 1);
    check(&well[..3], &[rests("n1"), n2, n3], &["n1", "n2", "n3"], 3);
    check(&well[..3], &[rests("n1"), rests("n2"), rests("n3")], &["n1", "n2", "n3"], 3);
    check(&well[..3], &[n1, n2, rests("n3"), n4], &["n1", "n2", "n4"], 3);
    // One that is lost, with nobody for its place, and with somebody.
    check(&["well", "well", "lost"], &[n1, n2, away("n3")], &["n1", "n2", "n3"], 3);
    check(&["well", "well", "lost"], &[n1, n2, away("n3"), n4], &["n1", "n2", "n4"], 2);
    check(&["well", "well", "lost"], &[n1, rests("n2"), away("n3"), n4], &["n1", "n2", "n4"], 2);
    // One that begins anew, and one that goes away before it has.
    check(&["well", "well", "stuck"], &[n1, n2, n3], &["n1", "n2", "n3"], 2);
    check(&["well", "well"], &[n1, n2, away("n3")], &["n1", "n2"], 2);
    // One vote alone does not become two.
    check(&["well"], &[n1, n2, away("n3")], &["n1"], 1);
    check(&["well"], &[rests("n1"), n2, away("n3")], &["n1"], 1);
    let seven = [rests("n1"), n2, n3, n4, away("n5"), away("n6"), away("n7")];
    check(&well[..3], &seven, &["n1", "n2", "n3"], 3);
    // One that follows waits while another one is away.
    check(&["well", "well learner"], &[n1, n2, away("n3")], &["n1"], 1);
    check(&["well", "well learner"], &[n1, n2, n3], &["n1", "n2", "n3"], 1);
    // Two nodes that are left of three, and one that does not vote away of seven.
    check(&well[..3], &[n1, n2], &["n1"], 1);
    let seven = [n1, n2, n3, n4, fit("n5"), away("n6"), fit("n7")];
    check(&well, &seven, &["n1", "n2", "n3", "n4", "n5"], 5);
    let seven = [n1, n2, n3, n4, away("n5"), fit("n6"), fit("n7")];
    check(&["well", "well", "well", "well", "lost"], &seven, &["n1", "n2", "n3", "n4", "n6"], 4);
}

#[test]
fn of_two_nodes_the_one_with_the_database_votes() {
    let check = |rests: bool, seats: [&str; 2], expected: &str| {
        let member = |id: u64, seat: &str| (!seat.is_empty()).then(|| member(id, "n1", seat));
        let first = member(1, seats[0]);
        let second = member(2, seats[1]);
        let first = Candidate::new(name("n1"), "a".into(), first.as_ref(), rests, true);
        let second = Candidate::new(name("n2"), "b".into(), second.as_ref(), false, true);
        let first = Candidate { has_database: true, ..first };
        assert_eq!(choose(&[first, second]).nodes, names(&[expected]), "{rests} {seats:?}");
    };
    check(false, ["well", ""], "n1");
    check(true, ["well", ""], "n2");
    // It works again.
    check(false, ["", "well"], "n1");
}

#[test]
fn one_that_follows_is_not_put_off_for_another() {
    let members = [member(1, "n1", "well"), member(2, "n2", "well"), member(5, "n5", "learner")];
    let candidates: Vec<Candidate> = ["n1", "n2", "n4", "n5"]
        .map(|node| {
            let member = members.iter().find(|it| it.node.as_ref() == Some(&name(node)));
            Candidate::new(name(node), "a".into(), member, false, true)
        })
        .into();
    assert_eq!(choose(&candidates).nodes, names(&["n1", "n2", "n5"]));
}

fn member(id: u64, node: &str, state: &str) -> Member {
    Member {
        id,
        node: (!node.is_empty()).then(|| name(node)),
        is_learner: state.contains("learner"),
        is_well: state.contains("well"),
        is_lost: state.contains("lost") || state.contains("stuck"),
        is_stuck: state.contains("stuck"),
    }
}

#[test]
fn one_thing_changes_at_a_time_and_the_quorum_is_never_risked() {
    let check = |wanted: &[&str], members: &[Member], expected: Option<Step>| {
        let found =
            step(&Choice { nodes: names(wanted), is_short: false }, members).map(|(step, _)| step);
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
    check(&three, &all(member(3, "n3", "stuck")), Some(Step::Remove(3)));
    // Without a quorum nothing is touched.
    let two_lost = [one.clone(), member(2, "n2", "lost"), member(3, "n3", "lost")];
    check(&["n1", "n4", "n5"], &two_lost, None);
    // A removed node goes, and one too many.
    check(&["n1", "n2"], &all(member(3, "", "well")), Some(Step::Remove(3)));
    // Of two voters one can only go while the other is well.
    check(&["n1"], &[one.clone(), member(2, "n2", "well")], Some(Step::Remove(2)));
    check(&["n1"], &[member(1, "n1", ""), member(2, "n2", "well")], None);
}
