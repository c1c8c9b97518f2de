//! Claims about a site on its way from one version to another.

use std::collections::BTreeMap;

use pressroom_model::verdict::Health;

use super::*;
use crate::machine::View;

fn name() -> SiteName {
    "blog".parse().expect("a good name")
}

fn blog(n: u16) -> InstanceId {
    InstanceId::of(&name(), n)
}

fn site() -> SiteWanted {
    SiteWanted {
        name: name(),
        serving: Some("old".into()),
        wanted: Some("old".into()),
        candidate: None,
        parked: None,
        refused: None,
        author: None,
        instances: 2,
        lacking: vec![],
        others: vec![],
    }
}

fn candidate(stage: Stage) -> Option<Candidate> {
    Some(Candidate { fingerprint: "new".into(), stage, since_ms: 100_000 })
}

fn on_its_way(stage: Stage) -> SiteWanted {
    SiteWanted { wanted: Some("new".into()), candidate: candidate(stage), ..site() }
}

fn process(fingerprint: &str, health: Health) -> Seen {
    Seen {
        fingerprint: fingerprint.into(),
        pid: Some(1),
        is_stopping: false,
        exit: None,
        quick_exits: 0,
        health,
        because: "its words".into(),
        since_ms: 0,
        busy: 0,
        tired: None,
    }
}

/// What runs: number, version, health.
fn seen(instances: &[(u16, &str, Health)]) -> Observed {
    let processes: BTreeMap<_, _> = instances
        .iter()
        .map(|(n, version, health)| (instance_process(&blog(*n)), process(version, *health)))
        .collect();
    let view = View {
        wanted: "v".into(),
        published: Some("v".into()),
        is_served: true,
        ..View::default()
    };
    Observed { now_ms: 101_000, processes, view, ..Observed::default() }
}

const UP: Health = Health::Healthy;
const OLD: [(u16, &str, Health); 2] = [(1, "old", UP), (2, "old", UP)];

fn check(site: &SiteWanted, observed: &Observed, expected: &[Action]) {
    let mut found = Vec::new();
    steps(site, observed, &mut found);
    let found: Vec<Action> = found.into_iter().map(|step| step.action).collect();
    assert_eq!(found, expected, "{site:?}\n{observed:?}");
}

fn with(more: &[(u16, &'static str, Health)]) -> Observed {
    seen(&[&OLD, more].concat())
}

fn start(n: u16, version: &str) -> Action {
    Action::StartInstance(blog(n), version.into())
}

#[test]
fn what_is_wanted_and_serves_needs_nothing() {
    check(&site(), &seen(&OLD), &[]);
}

#[test]
fn of_too_many_those_stay_that_have_answered_for_longest() {
    let one = SiteWanted { instances: 1, ..site() };
    let mut observed = seen(&OLD);
    observed.processes.get_mut("php-blog-1").expect("one").since_ms = 100_000;
    check(&one, &observed, &[Action::Stop("php-blog-1".into())]);
    observed.processes.get_mut("php-blog-2").expect("one").health = Health::Starting;
    check(&one, &observed, &[Action::Stop("php-blog-2".into())]);
}

#[test]
fn the_first_version_serves_at_once() {
    let first = SiteWanted { serving: None, ..site() };
    check(&first, &seen(&[]), &[Action::BeginRollout(name(), Stage::Switching)]);
    check(&SiteWanted { wanted: None, ..first }, &seen(&[]), &[]);
}

#[test]
fn a_new_version_is_tried_in_one_instance_then_in_all_and_then_switched_to() {
    let new = SiteWanted { wanted: Some("new".into()), ..site() };
    check(&new, &seen(&OLD), &[Action::BeginRollout(name(), Stage::Canary)]);
    let canary = on_its_way(Stage::Canary);
    check(&canary, &seen(&OLD), &[start(3, "new")]);
    check(&canary, &with(&[(3, "new", Health::Starting)]), &[]);
    let all_but_one = [Action::CheckCandidate(name()), start(4, "new")];
    check(&canary, &with(&[(3, "new", UP)]), &all_but_one);
    let filling = on_its_way(Stage::Filling);
    check(&filling, &with(&[(3, "new", UP)]), &[start(4, "new")]);
    check(&filling, &with(&[(3, "new", UP), (4, "new", Health::Starting)]), &[]);
    let whole = with(&[(3, "new", UP), (4, "new", UP)]);
    check(&filling, &whole, &[Action::Switch(name())]);
    assert_eq!(pool(&filling, &whole), Some(("old".into(), vec![blog(1), blog(2)])));
    let switching = on_its_way(Stage::Switching);
    assert_eq!(pool(&switching, &whole), Some(("new".into(), vec![blog(3), blog(4)])));
    check(&switching, &whole, &[Action::FinishRollout(name())]);
    let mut unaware = whole;
    unaware.view.is_served = false;
    check(&switching, &unaware, &[]);
}

#[test]
fn the_former_version_is_parked_for_a_while_and_not_brought_back_to_life() {
    let parked = Some(Parked { fingerprint: "old".into(), until_ms: 200_000 });
    let after =
        SiteWanted { serving: Some("new".into()), wanted: Some("new".into()), parked, ..site() };
    let mut observed = with(&[(3, "new", UP), (4, "new", UP)]);
    check(&after, &observed, &[]);
    observed.processes.get_mut("php-blog-1").expect("there").pid = None;
    check(&after, &observed, &[Action::Forget("php-blog-1".into())]);
    observed = with(&[(3, "new", UP), (4, "new", UP)]);
    observed.now_ms = 200_000;
    let stops = ["php-blog-1", "php-blog-2"].map(|name| Action::Stop(name.into()));
    check(&after, &observed, &stops);
}

#[test]
fn going_back_to_the_parked_version_needs_neither_check_nor_start() {
    let parked = Some(Parked { fingerprint: "new".into(), until_ms: 200_000 });
    let back = SiteWanted { wanted: Some("new".into()), parked, ..site() };
    let whole = with(&[(3, "new", UP), (4, "new", UP)]);
    check(&back, &whole, &[Action::BeginRollout(name(), Stage::Switching)]);
    let half = with(&[(3, "new", UP)]);
    check(&back, &half, &[Action::BeginRollout(name(), Stage::Filling)]);
}

#[test]
fn a_candidate_that_fails_is_given_up_and_not_tried_again() {
    let canary = on_its_way(Stage::Canary);
    let mut observed = with(&[(3, "new", Health::Starting)]);
    let canary_process = observed.processes.get_mut("php-blog-3").expect("there");
    (canary_process.pid, canary_process.quick_exits) = (None, 2);
    check(&canary, &observed, &[Action::AbandonRollout(name())]);
    let mut late = with(&[(3, "new", Health::Starting)]);
    late.now_ms = 100_000 + PATIENCE_MS + 1;
    check(&canary, &late, &[Action::AbandonRollout(name())]);
    let refused = SiteWanted { wanted: Some("new".into()), refused: Some("new".into()), ..site() };
    check(&refused, &with(&[(3, "new", UP)]), &[Action::Stop("php-blog-3".into())]);
    check(&refused, &seen(&OLD), &[]);
}

#[test]
fn another_wish_in_between_ends_the_candidate() {
    let canary = SiteWanted { wanted: Some("newer".into()), ..on_its_way(Stage::Canary) };
    check(&canary, &with(&[(3, "new", UP)]), &[Action::AbandonRollout(name())]);
}

#[test]
fn the_serving_version_is_looked_after_all_the_while() {
    let canary = on_its_way(Stage::Canary);
    let mut observed = with(&[(3, "new", Health::Starting)]);
    observed.processes.get_mut("php-blog-2").expect("there").pid = None;
    check(&canary, &observed, &[start(2, "old")]);
    observed.processes.remove("php-blog-2");
    check(&canary, &observed, &[start(2, "old")]);
    // Both versions need one: they get different numbers.
    check(&canary, &seen(&OLD[..1]), &[start(2, "old"), start(3, "new")]);
}

#[test]
fn tired_instances_are_replaced_one_by_one_and_never_before_another_answers() {
    let tire = |observed: &mut Observed, n: u16| {
        let name = instance_process(&blog(n));
        observed.processes.get_mut(&name).expect("there").tired = Some("old".into());
    };
    let mut observed = seen(&OLD);
    tire(&mut observed, 1);
    tire(&mut observed, 2);
    check(&site(), &observed, &[start(3, "old")]);
    let mut begun = with(&[(3, "old", Health::Starting)]);
    tire(&mut begun, 1);
    tire(&mut begun, 2);
    check(&site(), &begun, &[]);
    let mut there = with(&[(3, "old", UP)]);
    tire(&mut there, 1);
    tire(&mut there, 2);
    check(&site(), &there, &[Action::Stop("php-blog-1".into())]);
    let mut last = seen(&[(2, "old", UP), (3, "old", UP)]);
    tire(&mut last, 2);
    check(&site(), &last, &[start(1, "old")]);
}
