//! Claims about one machine's steps.

use super::*;

fn site() -> SiteName {
    "blog".parse().expect("a good name")
}

fn wanted(name: &str) -> Wanted {
    Wanted { name: name.into(), fingerprint: "1".into() }
}

fn intent() -> Intent {
    Intent {
        part: Part::Leads,
        data: Data::Here,
        engines: vec![wanted(MARIADB), wanted(REDIS_CACHE), wanted(REDIS_SESSIONS)],
        edge: wanted(EDGE),
        listeners: vec![],
        sites: vec![SiteWanted {
            name: site(),
            serving: Some("r1".into()),
            wanted: Some("r1".into()),
            candidate: None,
            parked: None,
            refused: None,
            author: None,
            instances: 1,
            lacking: vec![],
            others: vec![],
        }],
    }
}

fn running(fingerprint: &str) -> Seen {
    Seen {
        fingerprint: fingerprint.into(),
        pid: Some(1),
        is_stopping: false,
        exit: None,
        quick_exits: 0,
        health: Health::Healthy,
        because: "answers".into(),
        since_ms: 0,
        busy: 0,
        tired: None,
    }
}

/// Everything as wanted.
fn settled() -> Observed {
    let mut processes: BTreeMap<String, Seen> =
        [MARIADB, REDIS_CACHE, REDIS_SESSIONS, EDGE].map(|n| (n.to_owned(), running("1"))).into();
    processes.insert("php-blog-1".into(), running("r1"));
    let seen = SiteSeen {
        is_prepared: true,
        has_release: true,
        has_database: true,
        has_redis: true,
        is_installed: true,
        is_copy: false,
        wants_upgrade: false,
        wants_network: false,
        lacks_releases: vec![],
        lacks_image: None,
    };
    Observed {
        now_ms: 100_000,
        processes,
        listeners: vec![],
        has_database: true,
        sites: [(site(), seen)].into(),
        data_answers: false,
        view: View {
            wanted: "v".into(),
            published: Some("v".into()),
            is_served: true,
            ..View::default()
        },
    }
}

fn actions(intent: &Intent, observed: &Observed) -> Vec<Action> {
    steps(intent, observed).into_iter().map(|step| step.action).collect()
}

#[test]
fn what_is_as_wanted_needs_nothing() {
    assert_eq!(actions(&intent(), &settled()), []);
}

#[test]
fn an_empty_machine_begins_with_the_engines_and_the_sites_folders() {
    let first = actions(&intent(), &Observed { view: settled().view, ..Observed::default() });
    assert_eq!(
        first,
        [
            Action::InitialiseDatabase,
            Action::Start(REDIS_CACHE.into()),
            Action::Start(REDIS_SESSIONS.into()),
            Action::PrepareSite(site()),
            Action::Start(EDGE.into())
        ]
    );
}

#[test]
fn a_dead_instance_is_started_under_its_own_name() {
    let mut observed = settled();
    let seen = observed.processes.get_mut("php-blog-1").expect("it is there");
    seen.pid = None;
    assert_eq!(
        actions(&intent(), &observed),
        [Action::StartInstance(InstanceId::of(&site(), 1), "r1".into())]
    );
}

#[test]
fn an_edge_that_runs_goes_on_and_none_starts_on_what_may_be_old() {
    let mut observed = settled();
    observed.view.may_be_old = true;
    assert_eq!(actions(&intent(), &observed), []);
    observed.processes.get_mut(EDGE).expect("it is there").pid = None;
    assert_eq!(actions(&intent(), &observed), []);
    observed.view.published = Some("former".into());
    assert_eq!(actions(&intent(), &observed), [Action::PublishView]);
    observed.view = View { may_be_old: false, ..settled().view };
    assert_eq!(actions(&intent(), &observed), [Action::Start(EDGE.into())]);
}

#[test]
fn a_removed_site_is_stopped_and_then_forgotten() {
    let mut intent = intent();
    intent.sites.clear();
    let mut observed = settled();
    assert_eq!(actions(&intent, &observed), [Action::Stop("php-blog-1".into())]);
    observed.processes.get_mut("php-blog-1").expect("it is there").pid = None;
    assert_eq!(actions(&intent, &observed), [Action::Forget("php-blog-1".into())]);
}

#[test]
fn wordpress_is_installed_only_into_a_database_that_answers() {
    let mut observed = settled();
    observed.sites.get_mut(&site()).expect("it is there").is_installed = false;
    assert_eq!(actions(&intent(), &observed), [Action::InstallWordPress(site())]);
    observed.processes.get_mut(MARIADB).expect("it is there").health = Health::Starting;
    assert_eq!(actions(&intent(), &observed), []);
}

#[test]
fn an_environment_gets_a_copy_and_no_installation() {
    let mut observed = settled();
    let seen = observed.sites.get_mut(&site()).expect("it is there");
    (seen.is_installed, seen.is_copy) = (false, true);
    assert_eq!(actions(&intent(), &observed), [Action::CopySite(site())]);
    observed.sites.get_mut(&site()).expect("it is there").is_installed = true;
    assert_eq!(actions(&intent(), &observed), []);
}

#[test]
fn instances_of_a_network_wait_until_its_tables_are_there() {
    let mut intent = intent();
    intent.sites[0].wanted = Some("r2".into());
    let mut observed = settled();
    observed.sites.get_mut(&site()).expect("it is there").wants_network = true;
    assert_eq!(actions(&intent, &observed), [Action::InstallWordPress(site())]);
    observed.sites.get_mut(&site()).expect("it is there").wants_network = false;
    assert_eq!(actions(&intent, &observed), [Action::BeginRollout(site(), Stage::Canary)]);
}

#[test]
fn a_killed_instance_that_was_replaced_meanwhile_is_forgotten() {
    let mut observed = settled();
    observed.processes.get_mut("php-blog-1").expect("it is there").is_stopping = true;
    assert_eq!(
        actions(&intent(), &observed),
        [Action::StartInstance(InstanceId::of(&site(), 2), "r1".into())]
    );
    observed.processes.insert("php-blog-2".into(), running("r1"));
    let killed = observed.processes.get_mut("php-blog-1").expect("it is there");
    (killed.is_stopping, killed.pid) = (false, None);
    assert_eq!(actions(&intent(), &observed), [Action::Forget("php-blog-1".into())]);
}

#[test]
fn a_site_that_must_be_prepared_again_is_looked_after_meanwhile() {
    let mut observed = settled();
    observed.sites.get_mut(&site()).expect("it is there").is_prepared = false;
    assert_eq!(actions(&intent(), &observed), [Action::PrepareSite(site())]);
    observed.processes.get_mut("php-blog-1").expect("it is there").pid = None;
    assert_eq!(
        actions(&intent(), &observed),
        [
            Action::PrepareSite(site()),
            Action::StartInstance(InstanceId::of(&site(), 1), "r1".into())
        ]
    );
}

#[test]
fn an_image_is_built_once_for_all_sites_and_what_serves_goes_on_meanwhile() {
    let mut intent = intent();
    let other: SiteName = "other".parse().expect("a good name");
    // Nobody knows what is wanted while its image is not there.
    intent.sites[0].wanted = None;
    intent.sites.push(SiteWanted { name: other.clone(), serving: None, ..intent.sites[0].clone() });
    let mut observed = settled();
    for name in [site(), other] {
        let lacking =
            SiteSeen { lacks_image: Some("8.2".into()), ..observed.sites[&site()].clone() };
        observed.sites.insert(name, lacking);
    }
    assert_eq!(actions(&intent, &observed), [Action::BuildImage("8.2".into())]);
}
