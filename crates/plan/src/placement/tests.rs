//! Claims about where sites run.

use super::*;

/// Nodes and sites where every instance answers as soon as it is placed.
struct Cluster {
    nodes: Vec<Node>,
    sites: Vec<Site>,
    now_ms: u64,
}

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

/// Nodes as `name zone`, and one site that wants `min` to `max`.
fn cluster(nodes: &[(&str, &str)], min: u16, max: u16) -> Cluster {
    let node = |(name_, zone): &(&str, &str)| Node {
        name: name(name_),
        zone: (*zone).into(),
        is_up: true,
        is_lost: false,
        runs_php: true,
        is_drained: false,
        room_mib: None,
    };
    Cluster {
        nodes: nodes.iter().map(node).collect(),
        sites: vec![site("blog", min, max)],
        now_ms: 1_000_000,
    }
}

fn site(name: &str, min: u16, max: u16) -> Site {
    Site {
        name: name.parse().expect("a name"),
        min,
        max,
        instance_mib: 100,
        is_moving: false,
        placed: None,
        answering: BTreeMap::new(),
    }
}

impl Cluster {
    fn node(&mut self, of: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name(of)).expect("it is there")
    }

    /// What was placed answers on the nodes that are up.
    fn answer(&mut self) {
        for site in &mut self.sites {
            let placed = site.placed.clone().unwrap_or_default().nodes;
            let up = |of: &NodeName| self.nodes.iter().any(|node| node.name == *of && node.is_up);
            site.answering = placed.into_iter().filter(|(node, _)| up(node)).collect();
        }
    }

    fn step(&mut self) -> Vec<Step> {
        self.now_ms += 1000;
        let steps = steps(&self.nodes, &self.sites, self.now_ms);
        for step in &steps {
            let site = self.sites.iter_mut().find(|site| site.name == step.site);
            site.expect("it is there").placed = Some(step.placement.clone());
        }
        steps
    }

    /// Until nothing changes any more; never fewer answer than `floor` meanwhile.
    fn settle(&mut self, floor: u16) -> usize {
        self.answer();
        let mut count = 0;
        while !self.step().is_empty() {
            count += 1;
            assert!(count < 50, "it never ends: {:?}", self.sites);
            self.answer();
            let answering: u16 = self.sites[0].answering.values().sum();
            assert!(answering >= floor, "{answering} answer: {:?}", self.sites[0]);
        }
        count
    }

    fn placed(&self, site: usize) -> Vec<u16> {
        let placed = self.sites[site].placed.clone().unwrap_or_default();
        self.nodes.iter().map(|node| placed.on(&node.name)).collect()
    }
}

const THREE: [(&str, &str); 3] = [("n1", "a"), ("n2", "b"), ("n3", "c")];

#[test]
fn every_node_runs_one_and_extra_ones_are_spread() {
    let check = |nodes: &[(&str, &str)], min, max, expected: &[u16]| {
        let mut cluster = cluster(nodes, min, max);
        cluster.settle(0);
        assert_eq!(cluster.placed(0), expected, "{nodes:?} {min} {max}");
    };
    check(&[("n1", "a")], 1, 8, &[1]);
    check(&THREE, 1, 8, &[1, 1, 1]);
    check(&THREE, 5, 8, &[2, 2, 1]);
    // The second of zone `b` would be the third of its zone.
    check(&[("n1", "a"), ("n2", "b"), ("n3", "b")], 4, 8, &[2, 1, 1]);
    // Fewer than nodes: over zones.
    check(&[("n1", "a"), ("n2", "a"), ("n3", "b")], 1, 2, &[1, 0, 1]);
    check(&[("n1", "a"), ("n2", "a"), ("n3", "b")], 1, 1, &[1, 0, 0]);
}

#[test]
fn a_node_that_rests_is_left_once_others_answer_and_comes_back_gently() {
    let mut cluster = cluster(&THREE, 1, 8);
    cluster.settle(0);
    cluster.node("n2").is_drained = true;
    let first = cluster.step();
    assert_eq!(cluster.placed(0).iter().sum::<u16>(), 4, "more come first: {first:?}");
    // What was just placed does not answer yet.
    assert_eq!(cluster.step(), []);
    cluster.settle(3);
    assert_eq!(cluster.placed(0), [2, 0, 1]);
    cluster.node("n2").is_drained = false;
    cluster.settle(3);
    assert_eq!(cluster.placed(0), [1, 1, 1]);
}

#[test]
fn the_only_node_that_answers_is_not_left() {
    let mut one = cluster(&[("n1", "a")], 1, 8);
    one.settle(0);
    one.node("n1").is_drained = true;
    assert_eq!(one.settle(1), 0);
    let mut two = cluster(&[("n1", "a"), ("n2", "b")], 1, 8);
    two.settle(0);
    two.node("n1").is_drained = true;
    two.node("n2").is_up = false;
    assert_eq!(two.settle(1), 0);
    assert_eq!(two.placed(0), [1, 1]);
}

#[test]
fn a_node_that_is_away_is_waited_for_and_one_that_is_lost_is_not() {
    let mut cluster = cluster(&THREE, 1, 8);
    cluster.settle(0);
    cluster.node("n3").is_up = false;
    assert_eq!(cluster.settle(2), 0);
    cluster.node("n3").is_lost = true;
    cluster.settle(2);
    assert_eq!(cluster.placed(0), [2, 1, 1]);
    let node = cluster.node("n3");
    (node.is_up, node.is_lost) = (true, false);
    cluster.settle(3);
    assert_eq!(cluster.placed(0), [1, 1, 1]);
}

#[test]
fn an_instance_that_never_answers_is_not_counted_upon() {
    let mut cluster = cluster(&THREE, 1, 8);
    cluster.settle(0);
    cluster.sites[0].answering.remove(&name("n3"));
    cluster.sites[0].placed.as_mut().expect("placed").since_ms = cluster.now_ms;
    assert_eq!(cluster.step(), []);
    cluster.now_ms += PATIENCE_MS;
    assert_eq!(cluster.step().len(), 1);
    assert_eq!(cluster.placed(0), [2, 1, 1]);
    assert_eq!(cluster.step(), [], "one at a time");
    // Nobody can be counted upon: every node has been tried, and it ends there.
    cluster.sites[0].answering.clear();
    cluster.now_ms += PATIENCE_MS;
    assert_eq!(cluster.step(), []);
}

#[test]
fn nothing_moves_while_another_version_is_on_its_way() {
    let mut cluster = cluster(&THREE, 1, 8);
    cluster.settle(0);
    cluster.node("n2").is_drained = true;
    cluster.sites[0].is_moving = true;
    assert_eq!(cluster.settle(3), 0);
}

#[test]
fn where_memory_is_short_sites_are_spread_and_each_has_its_own() {
    let mut cluster = cluster(&THREE, 1, 8);
    cluster.sites = ["a", "b", "c", "d"].iter().map(|name| site(name, 1, 8)).collect();
    cluster.nodes.iter_mut().for_each(|node| node.room_mib = Some(300));
    cluster.settle(0);
    for at in 0..4 {
        assert!(cluster.placed(at).iter().sum::<u16>() >= 1, "{:?}", cluster.placed(at));
    }
    for node in 0..3 {
        let used: u16 = (0..4).map(|site| cluster.placed(site)[node]).sum();
        assert!(used <= 3, "node {node} has room for three");
    }
    // A further one makes room for itself, and the others keep one each.
    cluster.sites.push(site("e", 2, 8));
    cluster.settle(0);
    let counts: Vec<u16> = (0..5).map(|site| cluster.placed(site).iter().sum()).collect();
    assert!(counts[4] >= 2 && counts.iter().all(|count| *count >= 1), "{counts:?}");
    // The memory is not enough for a drain: as many as fit.
    cluster.node("n1").is_drained = true;
    cluster.settle(0);
    assert!((0..5).all(|site| cluster.placed(site)[0] == 0));
}

#[test]
fn a_site_is_started_even_where_memory_is_too_short() {
    let mut cluster = cluster(&THREE, 1, 8);
    cluster.nodes.iter_mut().for_each(|node| node.room_mib = Some(50));
    cluster.settle(0);
    assert_eq!(cluster.placed(0).iter().sum::<u16>(), 1);
}
