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
        labels: BTreeMap::new(),
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
        rules: Rules::default(),
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

/// `n1` to `n6` in three zones, and sites `a`, `b`, … with rules as `nodes | beside | conflicts`.
fn ruled(nodes: usize, rules: &[&str]) -> Cluster {
    let names: Vec<String> = (1..=nodes).map(|n| format!("n{n}")).collect();
    let zones = ["x", "y", "z"];
    let nodes: Vec<(&str, &str)> =
        names.iter().enumerate().map(|(n, name)| (name.as_str(), zones[n % 3])).collect();
    let mut cluster = cluster(&nodes, 1, 8);
    let site = |(n, rules): (usize, &&str)| {
        let parts: Vec<Vec<&str>> =
            rules.split('|').map(|part| part.split_whitespace().collect()).collect();
        let sites = |at: usize| parts[at].iter().map(|it| it.parse().expect("a name")).collect();
        let nodes = parts[0].iter().map(|it| it.parse().expect("a rule")).collect();
        let rules = Rules { nodes, beside: sites(1), conflicts: sites(2) };
        Site { rules, ..site(&char::from(b'a' + n as u8).to_string(), 1, 8) }
    };
    cluster.sites = rules.iter().enumerate().map(site).collect();
    cluster
}

impl Cluster {
    fn label(&mut self, of: &str, label: &str) {
        let (key, value) = label.split_once('=').expect("a label");
        self.node(of).labels.insert(key.into(), value.into());
    }

    fn compromises(&self) -> Vec<String> {
        compromises(&self.nodes, &self.sites).into_keys().map(|site| site.to_string()).collect()
    }

    /// Nodes on which sites run that conflict with each other.
    fn conflicts(&self) -> Vec<&NodeName> {
        let on = |node: &Node| {
            self.sites.iter().filter(|site| site.most_on(&node.name) > 0).collect::<Vec<_>>()
        };
        let is_bad = |node: &&Node| {
            let here = on(node);
            here.iter().any(|a| here.iter().any(|b| a.rules.conflicts.contains(&b.name)))
        };
        self.nodes.iter().filter(is_bad).map(|node| &node.name).collect()
    }
}

#[test]
fn sites_that_conflict_divide_the_nodes_and_move_as_gently_as_others() {
    // It was not so before: both are everywhere.
    let mut two = ruled(3, &["||", "||"]);
    two.settle(0);
    two.sites[1].rules.conflicts.push("a".parse().expect("a name"));
    two.settle(2);
    assert_eq!((two.placed(0), two.placed(1)), (vec![1, 0, 1], vec![0, 1, 0]));
    assert_eq!(two.settle(2), 0);
    // A drain moves nobody beside the other, and the way back neither.
    two.node("n2").is_drained = true;
    two.settle(2);
    assert_eq!((two.conflicts(), two.placed(1)[1]), (vec![], 0));
    assert_eq!(two.placed(0).iter().sum::<u16>(), 2, "its share stays as large");
    two.node("n2").is_drained = false;
    two.settle(2);
    assert_eq!(two.conflicts(), Vec::<&NodeName>::new());
    let counts = [two.placed(0), two.placed(1)];
    assert_eq!(counts.map(|it| it.iter().filter(|count| **count > 0).count()), [2, 1]);
    // New sites wait until the others have made way.
    let mut new = ruled(2, &["||"]);
    new.settle(1);
    new.sites.push(Site {
        rules: Rules { conflicts: vec!["a".parse().expect("a name")], ..Rules::default() },
        ..site("b", 1, 8)
    });
    while !new.step().is_empty() {
        assert_eq!(new.conflicts(), Vec::<&NodeName>::new(), "{:?}", new.sites);
        new.answer();
    }
    assert_eq!((new.placed(0).iter().sum::<u16>(), new.placed(1).iter().sum::<u16>()), (1, 1));
}

#[test]
fn where_nodes_are_not_enough_nobody_is_left_without_and_it_is_said() {
    let mut one = ruled(1, &["||", "||a"]);
    one.settle(0);
    assert_eq!((one.placed(0), one.placed(1), one.compromises().len()), (vec![1], vec![1], 1));
    let mut two = ruled(2, &["||b c", "||c", "||"]);
    two.settle(0);
    assert!((0..3).all(|site| two.placed(site).iter().sum::<u16>() == 1), "{:?}", two.sites);
    assert_eq!((two.conflicts().len(), two.compromises().len()), (1, 1));
    // The node that one of two has is lost: it runs beside the other at once, and leaves it later.
    let mut two = ruled(2, &["||b", "||"]);
    two.settle(0);
    assert_eq!((two.placed(0), two.placed(1)), (vec![1, 0], vec![0, 1]));
    two.node("n1").is_up = false;
    two.answer();
    two.step();
    assert_eq!(two.placed(0), [1, 1], "nobody else answers for it");
    assert_eq!(two.compromises(), Vec::<String>::new(), "it may be back in a moment");
    two.node("n1").is_lost = true;
    two.settle(0);
    assert_eq!(two.compromises().len(), 1);
    let node = two.node("n1");
    (node.is_up, node.is_lost) = (true, false);
    two.settle(1);
    assert_eq!((two.conflicts(), two.compromises().len()), (vec![], 0));
}

#[test]
fn labels_say_on_which_nodes_a_site_runs() {
    let mut cluster = ruled(4, &["disk=ssd||", "!disk=ssd||", "||a"]);
    cluster.settle(0);
    // Nobody has said which nodes have it.
    assert_eq!(cluster.compromises(), ["a"]);
    for node in ["n1", "n2"] {
        cluster.label(node, "disk=ssd");
    }
    cluster.settle(1);
    assert_eq!((cluster.placed(0), cluster.placed(1)), (vec![1, 1, 0, 0], vec![0, 0, 1, 1]));
    assert_eq!((cluster.placed(2), cluster.compromises().len()), (vec![0, 0, 1, 1], 0));
    // One whose choice is small has it before one that may be anywhere.
    let mut cluster = ruled(3, &["||", "disk=ssd||a"]);
    cluster.label("n1", "disk=ssd");
    cluster.settle(0);
    assert_eq!((cluster.placed(0), cluster.placed(1)), (vec![0, 1, 1], vec![1, 0, 0]));
    for node in ["n1", "n2"] {
        cluster.node(node).is_drained = true;
    }
    cluster.settle(1);
    assert_eq!(cluster.placed(1), [0, 0, 1], "rather there than nowhere");
}

#[test]
fn company_is_sought_where_nothing_else_is_against_it() {
    let mut cluster = ruled(4, &["||", "|a|"]);
    cluster.sites.iter_mut().for_each(|site| site.max = 1);
    let on = |node: &str| Placement { nodes: [(name(node), 1)].into(), ..Placement::default() };
    cluster.sites[0].placed = Some(on("n4"));
    cluster.settle(0);
    assert_eq!(cluster.placed(1), [0, 0, 0, 1], "a new one comes there");
    cluster.sites[1].placed = Some(on("n2"));
    cluster.settle(1);
    assert_eq!(cluster.placed(0), cluster.placed(1), "one that is elsewhere comes there, once");
    // Zones come first.
    let mut cluster = ruled(4, &["||", "|a|"]);
    cluster.sites.iter_mut().for_each(|site| site.max = 2);
    cluster.sites[0].placed = Some(Placement {
        nodes: [(name("n1"), 1), (name("n4"), 1)].into(),
        ..Placement::default()
    });
    cluster.nodes.iter_mut().for_each(|node| node.room_mib = Some(200));
    cluster.settle(0);
    let zones: Vec<usize> = (0..4).filter(|n| cluster.placed(1)[*n] > 0).map(|n| n % 3).collect();
    assert!(zones.len() == 2 && zones[0] != zones[1], "{:?}", cluster.placed(1));
}

/// Whatever rules say: it comes to an end, everybody runs, and nobody is beside a rival who need not be.
#[test]
fn any_rules_come_to_rest_and_leave_nobody_without() {
    let mut seed = 0x5eed_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for _ in 0..150 {
        let (nodes, sites) = (1 + random(6) as usize, 2 + random(4));
        let names: Vec<String> =
            (0..sites).map(|n| char::from(b'a' + n as u8).to_string()).collect();
        let mut rules = Vec::new();
        for site in 0..sites {
            let (mut beside, mut conflicts) = (String::new(), String::new());
            for other in (0..sites).filter(|other| *other > site) {
                match random(5) {
                    0 => beside += &format!(" {}", names[other as usize]),
                    1 => conflicts += &format!(" {}", names[other as usize]),
                    _ => {}
                }
            }
            let label = ["", "", "", "k=1", "!k=1"][random(5) as usize];
            rules.push(format!("{label}|{beside}|{conflicts}"));
        }
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let mut cluster = ruled(nodes, &rules);
        for site in &mut cluster.sites {
            (site.min, site.max) = (1 + random(3) as u16, 3 + random(6) as u16);
        }
        for _ in 0..4 {
            let node = format!("n{}", 1 + random(nodes as u64));
            match random(4) {
                0 => cluster.label(&node, "k=1"),
                1 => cluster.node(&node).is_drained ^= true,
                2 => cluster.node(&node).labels.clear(),
                _ => {
                    let node = cluster.node(&node);
                    (node.is_up, node.is_lost) = (!node.is_up, node.is_up);
                }
            }
            cluster.settle_all(&rules);
        }
    }
}

impl Cluster {
    /// Until nothing changes any more, with every site running, if a node takes part.
    fn settle_all(&mut self, rules: &[&str]) {
        self.answer();
        for count in 0.. {
            let steps = self.step();
            if steps.is_empty() {
                break;
            }
            assert!(count < 120, "{rules:?} never end: {steps:#?}");
            self.answer();
        }
        let takes_part = |node: &&Node| node.is_up && !node.takes_none();
        let parts: Vec<&Node> = self.nodes.iter().filter(takes_part).collect();
        for site in &self.sites {
            let runs = parts.iter().any(|node| site.answering_on(&node.name) > 0);
            assert!(
                runs || parts.is_empty(),
                "{rules:?}: {} is nowhere: {:?}",
                site.name,
                self.sites
            );
        }
        if self.compromises().is_empty() && !parts.is_empty() {
            let conflicts = self.conflicts();
            let here = conflicts.iter().any(|name| parts.iter().any(|node| node.name == **name));
            assert!(!here, "{rules:?}: {conflicts:?} {:#?}", self.sites);
        }
    }
}
