//! A leader that never had a site's history goes on with that of a node that has one.

use pressroom_model::config::Source;
use pressroom_model::id::SiteName;
use pressroom_release::overlay::Overlay;
use pressroom_release::releases::Releases;
use pressroom_release::wordpress;

use super::*;
use crate::facts::{Kept, Origin, Release, SiteFacts};
use crate::git::repository::{GIT, GitError, is_installed};

fn blog() -> SiteName {
    "blog".parse().expect("a name")
}

impl Machine {
    /// Has a release of `blog` that served at that time.
    fn served(&self, at_ms: u64) -> SiteFacts {
        let tree = self.layout.data().join("tree");
        for path in wordpress::missing(|_| false) {
            let path = tree.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            std::fs::write(path, "<?php\n$wp_version = '6.1.9';\n").expect("written");
        }
        let overlay = Overlay::new([("wp-config.php", "<?php // ours")]).expect("good paths");
        let releases = Releases::at(self.layout.releases());
        let built = releases.build(&Source::Path(tree), &overlay, &|_| {}).expect("built");
        let release = Release {
            id: built.id,
            setting: String::new(),
            ours: String::new(),
            origin: Origin { author: "ann".into(), message: "one".into(), ..Origin::default() },
            source: String::new(),
            wordpress: "6.1.9".into(),
            files: 0,
            bytes: 0,
            back_by: None,
        };
        let kept = Kept { release, served_ms: at_ms, first_ms: at_ms, own_bytes: None };
        SiteFacts { releases: vec![kept], ..SiteFacts::default() }
    }

    fn main(&self) -> String {
        let mut git = std::process::Command::new(GIT);
        git.arg("--git-dir").arg(self.layout.history(&blog())).args([
            "rev-parse",
            "--verify",
            "-q",
            "main",
        ]);
        String::from_utf8_lossy(&git.output().expect("git runs").stdout).trim().to_owned()
    }

    fn root(&self) -> Option<String> {
        self.agent.state.lock().sites.get(&blog())?.history.clone()
    }

    async fn rest(&self, house: &House, node: &str, rests: bool) {
        let key = keys::node(&name(node));
        let entry = house.store.get(&key).await.expect("an answer").expect("a record");
        let mut record: Node = serde_json::from_slice(&entry.value).expect("a record");
        record.is_drained = rests;
        let text = serde_json::to_vec(&record).expect("plain data");
        house.store.commit(Transaction::new().put(key, text)).await.expect("stored");
        until("it leads still", || !rests || !self.agent.leads()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_history_goes_on_with_that_of_another_node() {
    if !is_installed() {
        eprintln!("no claim: git is not installed");
        return;
    }
    let house = House::new().await;
    let first = house.first().await;
    first.lead().await;
    let second = house.start(house.join(&first, "n2", Role::Manager).await).await;
    let facts = first.served(1_769_000_000_000);
    first.agent.state.lock().sites.insert(blog(), facts.clone());
    first.agent.history(&blog()).await.expect("a history");
    let (main, root) = (first.main(), first.root());
    assert!(root.is_some() && root.as_deref() == Some(main.as_str()));

    first.rest(&house, "n1", true).await;
    second.lead().await;
    assert_eq!(second.root(), root, "it has heard that there is one");
    second.agent.history(&blog()).await.expect("that of the other node");
    assert_eq!(second.main(), main);

    // What a site of that name has left here before is not this one's.
    tree::remove(&second.layout.history(&blog())).expect("removed");
    let other = second.served(1_770_000_000_000);
    let known = second.agent.state.lock().sites.insert(blog(), other.clone());
    let known = known.expect("known");
    second.agent.history(&blog()).await.expect("another history");
    assert_ne!(second.main(), main);
    let known = SiteFacts { releases: other.releases, ..known };
    second.agent.state.lock().sites.insert(blog(), known);
    second.agent.remember(&blog()).await.expect("stored");
    second.agent.history(&blog()).await.expect("that of the other node");
    assert_eq!(second.main(), main);

    // Nobody who answers has it, and one that may have it does not answer.
    tree::remove(&second.layout.history(&blog())).expect("removed");
    let layout = first.end().await;
    let waits = second.agent.history(&blog()).await.map(drop).expect_err("it may be there");
    assert!(matches!(&waits, GitError::Elsewhere { nodes } if nodes == "`n1`"), "{waits}");
    assert_eq!(second.main(), "", "nothing was made");

    // Every node says that it has none: what is kept is all that there is.
    tree::remove(&layout.history(&blog())).expect("removed");
    let first = house.start(layout).await;
    second.agent.history(&blog()).await.expect("a new one");
    let root = second.root().expect("stored");
    assert!(second.main() == root && root != main);
    until("the other node does not hear of it", || first.root().as_ref() == Some(&root)).await;
    first.end().await;
    second.end().await;
}
