//! What lies where it has no business: found, reported, kept as evidence, and the instances replaced, while visitors see nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::time::Duration;

use crate::house::{House, is_root, wait_until};
use crate::runtimes::{Runtime, battery};

/// A hole as many plugins have had it: it stores what it is sent, by the name that it is given.
const HOLE: &str = "<?php require __DIR__ . '/wp-load.php'; $dir = wp_upload_dir()['basedir']; \
                    echo (int) file_put_contents($dir . '/' . $_GET['name'], $_GET['text']), ' ', \
                    (int) @touch(__DIR__ . '/wp-content/here'), ' ', (int) @file_put_contents(__FILE__, 'x');";

fn instances(house: &House) -> BTreeSet<i64> {
    let pids = house.pids().into_iter().filter(|(name, _)| name.starts_with("blog-"));
    pids.map(|(_, pid)| pid).collect()
}

fn is_told(house: &House, parts: &[&str]) -> bool {
    let status = house.status();
    let notices = status["notices"].as_array().expect("notices");
    let mut texts = notices.iter().filter_map(|notice| notice.as_str());
    texts.any(|text| parts.iter().all(|part| text.contains(part)))
}

battery! { a_planted_file_is_kept_as_evidence_and_the_instances_are_replaced }

fn a_planted_file_is_kept_as_evidence_and_the_instances_are_replaced(runtime: Runtime) {
    if runtime == Runtime::Docker && !runtime.can_be_judged() {
        return;
    }
    let house = runtime.house();
    let tree = crate::house::tree_with(house.folder(), &[("hole.php", HOLE)]);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}\n[site.php]\nruntime = \"{}\"\nworkers = 2\ninstances = {{ min = 2, max = 2 }}",
        tree.display(),
        runtime.word()
    ));
    house.up();
    let mut visitor = house.visitor("blog");
    let uploads = house.data.join("sites/blog/uploads");
    let before = instances(&house);
    assert_eq!(before.len(), 2);

    // What says nothing may stay: many plugins put such files into every folder.
    let stub = visitor.get("/hole.php?name=index.php&text=%3C%3Fphp%20%2F%2F%20Silence").body;
    let answer = visitor.get("/hole.php?name=shell.php&text=%3C%3Fphp%20echo%206*7%3B").body;
    assert!(stub.starts_with("16 "), "{stub}");
    let code_is_closed = if is_root() { "0 0" } else { answer.split_once(' ').expect("parts").1 };
    assert_eq!(answer, format!("15 {code_is_closed}"), "uploads can be written, code cannot");
    assert_ne!(visitor.get("/wp-content/uploads/shell.php").status, 200, "it does not run");
    let took = wait_until("the file to be taken out", Duration::from_secs(5), || {
        !uploads.join("shell.php").exists()
            && is_told(&house, &["`shell.php` among the uploads can run", "evidence"])
    });
    println!("found and told after {took:?}");
    assert!(uploads.join("index.php").exists());
    let evidence: Vec<_> = fs::read_dir(house.data.join("evidence/blog"))
        .expect("the evidence")
        .map(|entry| entry.expect("an entry"))
        .collect();
    assert_eq!(evidence.len(), 1);
    assert_eq!(fs::read_to_string(evidence[0].path()).expect("read"), "<?php echo 6*7;");
    assert_eq!(evidence[0].metadata().expect("its mode").mode() & 0o777, 0o400);
    wait_until("two others in their place", Duration::from_secs(30), || {
        assert_eq!(visitor.get("/hole.php?name=a.txt&text=a").status, 200);
        let now = instances(&house);
        now.len() == 2 && now.is_disjoint(&before) && house.is_healthy()
    });

    // Nobody but root can do this, and root's own hand is found as well.
    let planted = house.tree("blog").join("wp-content/planted.php");
    fs::write(&planted, "<?php echo 'planted';").expect("written");
    if is_root() {
        chown(&planted, Some(0), Some(0)).expect("root's");
    }
    wait_until("the report", Duration::from_secs(5), || {
        is_told(&house, &["its code is not what release", "wp-content/planted.php"])
    });
    let verified = house.run(&["release", "verify", "blog"]);
    assert_eq!(verified.status.code(), Some(2));
    fs::remove_file(&planted).expect("removed");
    house.must(&["release", "verify", "blog"]);
}

#[test]
fn an_old_instance_is_replaced_without_an_outage() {
    let house = House::empty();
    house.configure(
        "[[site]]\nname = \"blog\"\n[site.php]\nworkers = 2\nmax_age = \"5 s\"\ninstances = { min = 2, max = 2 }",
    );
    house.up();
    let mut visitor = house.visitor("blog");
    let before = instances(&house);
    wait_until("others in their place", Duration::from_secs(60), || {
        assert_eq!(visitor.get("/?nobody-has-this=1").status, 200);
        let now = instances(&house);
        assert!(now.len() >= 2, "never fewer than wanted");
        now.is_disjoint(&before)
    });
}
