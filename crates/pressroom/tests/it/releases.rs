//! Code that changes under visitors: what they see of it, what never reaches them, and the way back.
//!
//! `PRESSROOM_TEST_DEPLOYS` says how many deploys run under load (5, where nothing is said).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::house::{House, signal, tree_with, wait_until};
use crate::visitor::Visitor;

/// Two files that must be of one version: each says its own.
const PAIR: &str = "<?php header('Content-Type: text/plain'); echo (require __DIR__ . '/one.php') . ' ' . (usleep(2000) ?? '') . (require __DIR__ . '/two.php');";

fn version(tree: &Path, n: usize) {
    for file in ["one.php", "two.php"] {
        fs::write(tree.join(file), format!("<?php return {n};")).expect("written");
    }
}

/// A house whose site comes from a folder, with two instances.
fn furnished() -> (House, PathBuf) {
    let house = House::empty();
    let tree = tree_with(house.folder(), &[("pair.php", PAIR)]);
    version(&tree, 0);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}\n[site.php]\nworkers = 2\ninstances = {{ min = 2, max = 2 }}",
        tree.display()
    ));
    house.up();
    (house, tree)
}

fn deploy(house: &House, tree: &Path) -> (Output, Duration) {
    let start = Instant::now();
    let output = house.run(&["deploy", "blog", &tree.to_string_lossy(), "--wait"]);
    (output, start.elapsed())
}

fn serving(house: &House) -> String {
    let list: Value =
        serde_json::from_str(&house.must(&["release", "list", "blog", "--json"])).expect("JSON");
    let serving = list.as_array().expect("a list").iter().find(|r| r["standing"] == "serving");
    serving.and_then(|record| record["id"].as_str()).expect("one serves").to_owned()
}

/// Somebody who asks for the pair without a pause.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: usize,
    failed: Vec<String>,
    mixed: Vec<String>,
}

impl Watcher {
    fn start(visitor: &Visitor) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut visitor, told) = (visitor.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            while !told.load(Ordering::Relaxed) {
                seen.requests += 1;
                match visitor.try_get(&format!("/pair.php?n={}", seen.requests)) {
                    Ok(page) if page.status == 200 => match page.body.split_once(' ') {
                        Some((one, two)) if one == two => {}
                        _ => seen.mixed.push(page.body),
                    },
                    Ok(page) => seen.failed.push(format!("{}: {}", page.status, page.body)),
                    Err(error) => seen.failed.push(error.to_string()),
                }
            }
            seen
        });
        Self { stop, thread }
    }

    fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic")
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_deploy_under_load_fails_nobody_and_mixes_nothing() {
    let (house, tree) = furnished();
    let mut visitor = house.visitor("blog");
    fs::write(tree.join("before.css"), "a{}").expect("written");
    assert!(deploy(&house, &tree).0.status.success());
    assert_eq!(visitor.get("/before.css").body, "a{}");
    fs::remove_file(tree.join("before.css")).expect("removed");
    let count: usize =
        std::env::var("PRESSROOM_TEST_DEPLOYS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let watchers: Vec<_> = (0..2).map(|_| Watcher::start(&visitor)).collect();
    let mut times = Vec::new();
    let mut releases = BTreeSet::from([serving(&house)]);
    for n in 1..=count {
        version(&tree, n);
        let (output, took) = deploy(&house, &tree);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let page = visitor.get(&format!("/pair.php?after={n}"));
        assert_eq!(page.body, format!("{n} {n}"), "every new request runs it");
        times.push(took);
        releases.insert(serving(&house));
        // Whatever was deployed since: it was today.
        if n == count.min(30) {
            let former = visitor.get("/before.css?ver=1");
            assert_eq!((former.status, former.body.as_str()), (200, "a{}"), "pages still name it");
        }
    }
    assert_eq!(releases.len(), count + 1, "each is a release of its own");
    assert_eq!(visitor.get("/never.css").status, 404);
    let start = Instant::now();
    house.must(&["release", "rollback", "blog"]);
    let parked = start.elapsed();
    assert_eq!(visitor.get("/pair.php?back").body, format!("{} {}", count - 1, count - 1));
    let list: Value =
        serde_json::from_str(&house.must(&["release", "list", "blog", "--json"])).expect("JSON");
    let oldest = list.as_array().and_then(|list| list.last()).expect("one is the oldest").clone();
    let start = Instant::now();
    house.must(&["release", "rollback", "blog", oldest["id"].as_str().expect("an id")]);
    let older = start.elapsed();
    let seen: Vec<Seen> = watchers.into_iter().map(Watcher::end).collect();
    let requests: usize = seen.iter().map(|seen| seen.requests).sum();
    println!(
        "{count} deploys under load, {requests} requests: median {:?}; back to the parked one {parked:?}, to an older one {older:?}",
        median(&mut times)
    );
    for seen in seen {
        assert!(seen.failed.is_empty(), "failed: {:?}", seen.failed);
        assert!(seen.mixed.is_empty(), "mixed: {:?}", seen.mixed);
    }
    house.must(&["release", "verify", "blog"]);
}

#[test]
fn a_broken_release_gets_no_visitor_and_the_report_names_the_line() {
    let (house, tree) = furnished();
    let mut visitor = house.visitor("blog");
    let before = serving(&house);
    let plugin = tree.join("wp-content/mu-plugins/broken.php");
    fs::create_dir_all(plugin.parent().expect("a folder")).expect("made");
    let watcher = Watcher::start(&visitor);
    for (code, expected) in [
        ("<?php\n\nif (;", "mu-plugins/broken.php on line 3"),
        ("<?php\nadd_action('init', function () {\n  not_there();\n});", "mu-plugins/broken.php:3"),
        (
            "<?php\nadd_action('template_redirect', function () { exit; });",
            "is a white page: nothing was printed",
        ),
        (
            "<?php\nadd_action('init', function () { usleep(2500000); });",
            "times as long as with the serving version",
        ),
        (
            "<?php\nadd_action('template_redirect', function () { status_header(503); echo 'away'; exit; });",
            "was answered with the status 503",
        ),
    ] {
        fs::write(&plugin, code).expect("written");
        let (output, took) = deploy(&house, &tree);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{code}: {words}");
        assert!(words.contains(expected), "{expected}, after {took:?}: {words}");
        assert!(words.contains("still serves release"), "{words}");
        assert_eq!(serving(&house), before);
        assert_eq!(visitor.get("/pair.php?x").body, "0 0");
        println!("refused after {took:?}: {expected}");
    }
    let seen = watcher.end();
    assert!(seen.failed.is_empty() && seen.mixed.is_empty(), "{:?} {:?}", seen.failed, seen.mixed);

    // PHP settings take the same road. (`apply` looks at the configured folder as well.)
    fs::remove_file(&plugin).expect("removed");
    let file = house.data.join("pressroom.toml");
    let text = fs::read_to_string(&file).expect("the configuration");
    fs::write(&file, format!("{text}\n[site.php.ini]\n\"disable_functions\" = \"define\"\n"))
        .expect("written");
    let applied = house.run(&["apply"]);
    let words = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert_eq!(applied.status.code(), Some(1), "{words}");
    assert!(words.contains("define()"), "{words}");
    assert_eq!(visitor.get("/").status, 200);
    fs::write(&file, text).expect("written");
    house.must(&["apply"]);

    // One release is shown with what is in it and what it changed.
    let shop = |version: u8| {
        let code = format!("<?php\n/*\nPlugin Name: The Shop\nVersion: {version}.1\n*/");
        fs::create_dir_all(tree.join("wp-content/plugins/shop")).expect("made");
        fs::write(tree.join("wp-content/plugins/shop/main.php"), code).expect("written");
        house.must(&["deploy", "blog", &tree.to_string_lossy(), "-m", "the shop"]);
        let shown = house.must(&["release", "show", "blog", "--json"]);
        serde_json::from_str::<Value>(&shown).expect("JSON")
    };
    let (first, second) = (shop(1), shop(2));
    let moved = |from: Value| {
        let (kind, name, title) = ("plugin", "shop", "The Shop");
        let to = if from.is_null() { "1.1" } else { "2.1" };
        serde_json::json!([{ "kind": kind, "name": name, "title": title, "from": from, "to": to }])
    };
    assert_eq!(first["moves"], moved(Value::Null), "{first}");
    assert_eq!(second["moves"], moved("1.1".into()), "{second}");
    assert_eq!(second["diff"]["changed"], serde_json::json!(["wp-content/plugins/shop/main.php"]));
    assert_eq!((&second["message"], &second["standing"]), (&"the shop".into(), &"serving".into()));
    assert_eq!(second["predecessor"], first["id"]);
    let names: Vec<&str> = second["parts"]
        .as_array()
        .expect("parts")
        .iter()
        .filter_map(|p| p["title"].as_str())
        .collect();
    assert!(names.contains(&"WordPress") && !names.contains(&"Pressroom"), "{names:?}");
    let words =
        house.must(&["release", "show", "blog", &first["id"].as_str().expect("an id")[..8]]);
    assert!(words.contains("parked until") && words.contains("+ The Shop 1.1"), "{words}");

    // A wp-content alone brings plugins and themes, on the core that serves.
    fs::write(&plugin, "<?php add_action('wp_footer', function () { echo 'brought'; });")
        .expect("written");
    fs::remove_file(tree.join("pair.php")).expect("removed");
    house.must(&["deploy", "blog", &tree.join("wp-content").to_string_lossy()]);
    wait_until("the new footer", Duration::from_secs(5), || {
        visitor.get("/").body.contains("brought")
    });
    assert_eq!(visitor.get("/pair.php?x").body, "0 0", "the core is the one that served");
}

#[test]
fn a_deploy_that_is_cut_off_anywhere_leaves_one_whole_release() {
    let (house, tree) = furnished();
    let visitor = house.visitor("blog");
    let rounds: u64 =
        std::env::var("PRESSROOM_TEST_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for round in 0..rounds {
        let n = usize::try_from(round).expect("small") + 1;
        version(&tree, n);
        let is_power_cut = round % 2 == 1;
        let pids = house.pids();
        let cutting = thread::spawn({
            let agent = house.pid("/agent/pid");
            // Spread over the whole deploy, each time elsewhere.
            let pause = Duration::from_millis(40 + round * 1700 / rounds.max(1));
            move || {
                thread::sleep(pause);
                if is_power_cut {
                    // What was just about to begin or end has none.
                    for (_, pid) in pids.into_iter().filter(|(_, pid)| *pid != 0) {
                        signal(i32::try_from(pid).expect("a process id"), Signal::KILL);
                    }
                } else {
                    signal(agent, Signal::KILL);
                }
            }
        });
        // It may fail, and it may have been quicker than the cut.
        let (_output, _) = deploy(&house, &tree);
        cutting.join().expect("no panic");
        if is_power_cut {
            house.up();
        }
        wait_until("health", Duration::from_secs(60), || house.is_healthy());
        let mut visitor = visitor.clone();
        let page = visitor.get("/pair.php?settled");
        let (old, new) = (format!("{} {}", n - 1, n - 1), format!("{n} {n}"));
        assert!(page.body == old || page.body == new, "{}", page.body);
        house.must(&["release", "verify", "blog"]);
        // Whatever was left, the same deploy brings it to its end.
        let (output, _) = deploy(&house, &tree);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(visitor.get("/pair.php?again").body, new);
    }
}

#[test]
fn what_never_served_does_not_stay() {
    let (house, tree) = furnished();
    let releases = || -> BTreeSet<String> {
        let entries = fs::read_dir(house.data.join("releases")).expect("the releases").flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| Some(name.strip_suffix(".manifest")?.to_owned())).collect()
    };
    let before = releases();
    // Made to be compared, and made and refused.
    fs::write(tree.join("compared.txt"), "x").expect("written");
    house.must(&["deploy", "blog", &tree.to_string_lossy(), "--dry-run"]);
    fs::write(tree.join("pair.php"), "<?php if (;").expect("written");
    let plugin = tree.join("wp-content/mu-plugins/broken.php");
    fs::create_dir_all(plugin.parent().expect("a folder")).expect("made");
    fs::write(&plugin, "<?php if (;").expect("written");
    assert!(!deploy(&house, &tree).0.status.success());
    let strays: Vec<String> = releases().difference(&before).cloned().collect();
    assert_eq!(strays.len(), 2);
    // Two hours later.
    let then = std::time::SystemTime::now() - Duration::from_secs(7200);
    let stores = [house.data.join("releases"), house.data.join("sites/blog/releases")];
    for id in &strays {
        for path in [stores[0].join(format!("{id}.manifest")), stores[1].join(id)] {
            if path.exists() {
                fs::File::open(&path).and_then(|file| file.set_modified(then)).expect("set");
            }
        }
    }
    fs::remove_file(&plugin).expect("removed");
    fs::write(tree.join("pair.php"), PAIR).expect("written");
    version(&tree, 1);
    assert!(deploy(&house, &tree).0.status.success());
    wait_until("the strays to be gone", Duration::from_secs(10), || {
        releases().is_disjoint(&strays.iter().cloned().collect())
    });
    assert!(strays.iter().all(|id| !stores[1].join(id).exists()));
    assert!(before.is_subset(&releases()));
    house.must(&["release", "verify", "blog"]);
}

#[test]
fn who_deploys_at_the_same_moment_waits_or_is_told() {
    let (house, tree) = furnished();
    let other = house.folder().join("other");
    let copied = std::process::Command::new("cp").arg("-r").arg(&tree).arg(&other).status();
    assert!(copied.expect("cp runs").success());
    version(&tree, 1);
    version(&other, 2);
    let mut visitor = house.visitor("blog");
    let watcher = Watcher::start(&visitor);
    let outputs: Vec<Output> = thread::scope(|scope| {
        let deploys: Vec<_> = [&tree, &other, &tree]
            .map(|tree| scope.spawn(|| deploy(&house, tree).0))
            .into_iter()
            .collect();
        deploys.into_iter().map(|deploy| deploy.join().expect("no panic")).collect()
    });
    let seen = watcher.end();
    assert!(seen.failed.is_empty() && seen.mixed.is_empty(), "{:?} {:?}", seen.failed, seen.mixed);
    let mut served = 0;
    for output in outputs {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{}: {words}", output.status);
        match output.status.code() {
            Some(0) => served += 1,
            Some(1) => assert!(words.contains("another"), "{words}"),
            _ => panic!("{words}"),
        }
    }
    assert!(served > 0);
    let page = visitor.get("/pair.php?settled").body;
    assert!(page == "1 1" || page == "2 2", "{page}");
    house.must(&["release", "verify", "blog"]);
}

#[test]
fn a_later_wordpress_changes_the_tables_after_a_dump_and_going_back_offers_that() {
    let house = House::empty();
    let tree = tree_with(house.folder(), &[]);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}",
        tree.display()
    ));
    house.up();
    let schema = || house.php("blog", "echo get_option('db_version');");
    let before = schema();
    let options = "add_option('lab_before', 'kept');";
    house.php("blog", options);
    let file = tree.join("wp-includes/version.php");
    let words = fs::read_to_string(&file).expect("WordPress's version");
    let later: String = words
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some(("$wp_db_version", _)) => "$wp_db_version = 99999;\n".to_owned(),
            Some(("$wp_version", _)) => "$wp_version = '6.1.99';\n".to_owned(),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_ne!(words, later);
    fs::remove_file(&file).expect("removed");
    fs::write(&file, later).expect("written");
    let (output, _) = deploy(&house, &tree);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait_until("the tables follow", Duration::from_secs(60), || schema() == "99999");
    let dumps = house.data.join("dumps/blog");
    wait_until("the dump is told of", Duration::from_secs(20), || {
        house.status()["notices"].to_string().contains("before-wordpress-6.1.99.sql")
    });
    assert_eq!(fs::read_dir(&dumps).expect("dumps").count(), 1);
    house.php("blog", "add_option('lab_since', 'kept'); delete_option('lab_before');");

    // The code alone: WordPress 6.1 on later tables, and what could be done about them.
    let output = house.run(&["release", "rollback", "blog"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("from schema {before} to 99999")), "{said}");
    assert!(said.contains("--tables") && said.contains("before-wordpress-6.1.99.sql"), "{said}");
    wait_until("WordPress takes the tables", Duration::from_secs(60), || schema() == before);
    assert_eq!(house.php("blog", "echo get_option('lab_since');"), "kept");

    // With the tables, which takes back what was written since.
    let records: Value =
        serde_json::from_str(&house.must(&["release", "list", "blog", "--json"])).expect("JSON");
    let serving = records[0]["id"].as_str().expect("an id");
    let back = ["release", "rollback", "blog", serving, "--tables"];
    house.must(&back);
    assert_eq!(schema(), before);
    let words = "echo get_option('lab_before'), '+', get_option('lab_since');";
    assert_eq!(house.php("blog", words), "kept+");
    assert_eq!(fs::read_dir(&dumps).expect("dumps").count(), 3, "what was there until now");
    let said = house.run(&back);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("has not changed the tables since"), "{said}");

    // Forward once more: the tables follow again.
    house.must(&["release", "rollback", "blog"]);
    wait_until("the tables follow", Duration::from_secs(60), || schema() == "99999");
}
