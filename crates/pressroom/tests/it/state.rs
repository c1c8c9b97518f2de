//! The cluster's state when its voters are lost, and who may ask for it.

use std::time::Duration;

use serde_json::Value;

use crate::cluster::leader;
use crate::house::wait_until;
use crate::lab::{Lab, text};

/// Long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

impl Lab {
    /// How many nodes vote, and how many serve, as a node says.
    pub(crate) fn standing(&self, number: usize) -> (usize, usize) {
        let said = self.on(number, &["node", "list", "--json"]);
        let said: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        let count = |what: &str| {
            let nodes = said["nodes"].as_array().into_iter().flatten();
            nodes.filter(|node| node[what] == true).count()
        };
        (count("voter"), count("serves"))
    }

    /// Whether a node is in the cluster, as n1 says.
    pub(crate) fn has(&self, node: &str) -> bool {
        let said = self.on(1, &["node", "list", "--json"]);
        let said: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        said["nodes"].as_array().into_iter().flatten().any(|it| it["name"] == node)
    }
}

#[test]
fn one_voter_that_is_left_goes_on_with_the_state_and_the_others_follow_it() {
    let Some(lab) = Lab::up(3, &["--zones", "a,b,c"]) else { return };
    wait_until("all vote", PATIENCE, || lab.standing(1) == (3, 3));
    lab.must_on(1, &["node", "label", "n1", "rack=one"]);
    let taken: Value =
        serde_json::from_str(&lab.must_on(2, &["cluster", "backup", "--json"])).expect("JSON");
    assert!(std::path::Path::new(text(&taken["path"])).is_file());
    let refused = lab.on(1, &["cluster", "restore", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "the state works");

    lab.must(&["kill", "n2"]);
    lab.must(&["kill", "n3"]);
    wait_until("the state cannot be changed", PATIENCE, || {
        !lab.on(1, &["node", "label", "n1", "rack=two"]).status.success()
    });
    assert_eq!(lab.visit("client", 1, "/"), 200);
    lab.must_on(1, &["cluster", "restore", "--yes"]);
    assert_eq!(lab.visit("client", 1, "/"), 200);
    let node = lab.must_on(1, &["node", "show", "n1"]);
    assert!(node.contains("rack=one"), "{node}");
    lab.must_on(1, &["node", "label", "n1", "rack=three"]);

    // The former majority comes back, and is no second state.
    lab.must(&["start", "n2"]);
    lab.must(&["start", "n3"]);
    wait_until("all vote again", PATIENCE, || (1..=3).all(|node| lab.standing(node) == (3, 3)));
    let node = lab.must_on(3, &["node", "show", "n1"]);
    assert!(node.contains("rack=three"), "{node}");

    lab.must_on(2, &["node", "label", "n3", "rack=two"]);
    let label = || lab.must_on(3, &["node", "show", "n3"]).contains("rack=two");
    wait_until("it knows its label", PATIENCE, label);

    // Where every node rests sites are served, and one of them leads, also after the leader: nobody could be asked to wake one.
    let drain = |by: usize, node: usize, word: &str| {
        let words = ["node", word, &format!("n{node}")];
        wait_until(word, PATIENCE, || lab.on(by, &words).status.success());
    };
    for node in 1..=3 {
        drain(1, node, "drain");
    }
    assert_eq!(lab.visit("client", 1, "/?nobody-has-this-stored"), 200);
    let mut leads = None;
    wait_until("one of them leads", PATIENCE, || {
        leads = leader(&lab, 1);
        leads.is_some()
    });
    let leads = leads.expect("it leads");
    let other = leads % 3 + 1;
    lab.must(&["freeze", &format!("n{leads}"), "--process", "agent"]);
    drain(other, other, "undrain");
    lab.must(&["thaw", &format!("n{leads}")]);
    for node in 1..=3 {
        drain(other, node, "undrain");
    }

    // A node that was removed is answered nothing, whatever it still has.
    wait_until("it leaves", PATIENCE, || {
        lab.on(1, &["node", "remove", "n3", "--yes"]).status.success() || !lab.has("n3")
    });
    let data = lab.folder().join("n3/engines/etcd");
    let file = |name: &str| data.join(name).display().to_string();
    let (chain, key, authority) = (file("node.pem"), file("node.key"), file("authority.pem"));
    let url = format!("https://{}:7403", text(&lab.node(1)["address"]));
    let get = |words: &[&str]| {
        let tool = ["exec", "n3", "--", "etcdctl", "--endpoints", &url, "--cert", &chain];
        let keys = ["--key", &key, "--cacert", &authority, "--command-timeout", "3s"];
        lab.run(&[&tool[..], &keys, words].concat())
    };
    wait_until("it is refused", PATIENCE, || !get(&["get", "/pressroom/leader"]).status.success());

    // It says so when it is started, and comes back by a token, as what it was.
    lab.must(&["kill", "n3"]);
    let refused = lab.run(&["start", "n3"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("`n3` is no node any more"), "{said}");
    let token = lab.must_on(2, &["node", "token"]);
    lab.must_on(3, &["node", "join", token.trim(), "--yes"]);
    wait_until("it serves", PATIENCE, || (1..=3).all(|node| lab.standing(node).1 == 3));
    assert_eq!(lab.visit("client", 3, "/"), 200);
    let node = lab.must_on(1, &["node", "show", "n3"]);
    assert!(node.contains("zone     c") && node.contains("rack=two"), "{node}");
}
