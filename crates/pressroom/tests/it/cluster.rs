//! Three nodes as one cluster: what is brought to one is on all, and losing one costs nothing but itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::house::wait_until;
use crate::lab::{Lab, text};

/// Scheduled events that write down what they did, where it outlives their node.
const EVENTS: &str = r#"<?php
function lab_note( $phase ) {
	global $wpdb;
	$wpdb->query( $wpdb->prepare( 'INSERT INTO lab_log (phase, host) VALUES (%s, %s)', $phase, gethostname() ) );
}
add_action( 'lab_event', function () {
	lab_note( 'begin' );
	sleep( 6 );
	lab_note( 'end' );
} );
add_action( 'init', function () {
	global $wpdb;
	if ( isset( $_GET['schedule'] ) ) {
		$wpdb->query( 'CREATE TABLE lab_log (id INT AUTO_INCREMENT PRIMARY KEY, phase VARCHAR(8), host VARCHAR(64))' );
		wp_schedule_single_event( time() - 1, 'lab_event' );
		exit( 'scheduled' );
	}
	if ( isset( $_GET['rename'] ) ) {
		update_option( 'blogname', $_GET['rename'] );
		exit( 'renamed' );
	}
	if ( isset( $_GET['hold'] ) ) {
		nocache_headers();
		if ( gethostname() !== $_GET['hold'] ) {
			exit( 'elsewhere' );
		}
		echo $wpdb->get_var( "SELECT GET_LOCK('lab', 0)" ) ? 'held' : 'not held';
		fastcgi_finish_request();
		sleep( 20 );
		exit;
	}
	if ( isset( $_GET['take'] ) ) {
		nocache_headers();
		exit( $wpdb->get_var( "SELECT GET_LOCK('lab', 5)" ) ? 'taken' : 'not taken' );
	}
	if ( isset( $_GET['log'] ) ) {
		nocache_headers();
		exit( implode( ' ', $wpdb->get_col( "SELECT CONCAT(phase, '@', host) FROM lab_log ORDER BY id" ) ) );
	}
} );
"#;
const MARK: &str = "/wp-content/mark.txt";

fn release(folder: &Path, mark: &str) -> String {
    let content = folder.join("content");
    for part in ["plugins", "mu-plugins"] {
        fs::create_dir_all(content.join(part)).expect("a folder");
    }
    let mut copy = Command::new("cp");
    copy.args(["-rL", "/usr/share/wordpress/wp-content/themes"]).arg(&content);
    assert!(copy.status().expect("cp runs").success(), "the `wordpress` package is installed");
    fs::write(content.join("mu-plugins/lab.php"), EVENTS).expect("written");
    fs::write(content.join("mark.txt"), mark).expect("written");
    content.display().to_string()
}

/// The node that leads, as the asked one hears it.
pub(crate) fn leader(lab: &Lab, asked: usize) -> Option<usize> {
    let list: Value =
        serde_json::from_str(&lab.must_on(asked, &["node", "list", "--json"])).ok()?;
    let nodes = list["nodes"].as_array().expect("nodes");
    let number = nodes.iter().position(|node| node["leader"] == true && node["is_up"] == true)?;
    Some(number + 1)
}

/// Where a file of the site lies on a node.
pub(crate) fn on_disk(lab: &Lab, number: usize, path: &str) -> PathBuf {
    Path::new(text(&lab.node(number)["data"])).join("sites/blog").join(path)
}

/// Signs in as the administrator and uploads a file at a node; the path of its page.
pub(crate) fn upload(lab: &Lab, number: usize, name: &str, contents: &str) -> String {
    let password = fs::read_to_string(lab.folder().join("admin-password")).expect("a password");
    let jar = lab.folder().join("jar").display().to_string();
    let file = lab.folder().join(name);
    fs::write(&file, contents).expect("written");
    let form = format!("log=admin&testcookie=1&pwd={}", password.trim());
    let cookies = ["-c", &jar, "-b", &jar];
    let sign_in = [&cookies[..], &["-b", "wordpress_test_cookie=WP+Cookie+check", "-d", &form]];
    lab.fetch("client", number, &sign_in.concat(), "/wp-login.php");
    let nonce = lab.fetch("client", number, &cookies, "/wp-admin/admin-ajax.php?action=rest-nonce");
    let headers = [
        format!("X-WP-Nonce: {nonce}"),
        format!("Content-Disposition: attachment; filename={name}"),
    ];
    let data = format!("@{}", file.display());
    let send = [
        "-H",
        &headers[0],
        "-H",
        &headers[1],
        "-H",
        "Content-Type: text/plain",
        "--data-binary",
        &data,
    ];
    let answer =
        lab.fetch("client", number, &[&cookies[..], &send].concat(), "/wp-json/wp/v2/media");
    let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
    let url = text(&answer["source_url"]);
    let (_, path) = url.split_once("blog.test").unwrap_or_else(|| panic!("{answer}"));
    path.to_owned()
}

/// Git, as a developer uses it through a node.
fn git(lab: &Lab, number: usize, words: &[&str]) -> String {
    let resolve =
        format!("http.curloptResolve=blog.test:443:{}", text(&lab.node(number)["address"]));
    let clone = lab.folder().join("clone").display().to_string();
    let settings = ["http.sslVerify=false", &resolve, "user.name=Dora", "user.email=d@e.f"];
    let settings = settings.iter().flat_map(|it| ["-c", it]);
    let git = ["exec", "client", "--", "git", "-C", &clone].into_iter().chain(settings);
    lab.must(&git.chain(words.iter().copied()).collect::<Vec<_>>())
}

/// The commit that a node's own repository has as `main`.
fn main_of(lab: &Lab, number: usize) -> String {
    let repository = Path::new(text(&lab.node(number)["data"])).join("git/blog.git");
    let mut git = Command::new("git");
    git.arg("--git-dir").arg(repository).args(["rev-parse", "main"]);
    String::from_utf8_lossy(&git.output().expect("git runs").stdout).trim().to_owned()
}

#[test]
fn three_nodes_are_one_cluster_until_they_are_one_machine_again() {
    let Some(lab) = Lab::up(3, &["--zones", "a,b,c"]) else { return };
    let get = |number: usize, path: &str| lab.fetch("client", number, &[], path);

    // Code reaches all nodes before the deploy is said to be done.
    lab.must_on(1, &["deploy", "blog", &release(lab.folder(), "one"), "-m", "one"]);
    assert_eq!([1, 2, 3].map(|number| get(number, MARK)), ["one"; 3]);

    // Git is answered by each node, from one history that all have.
    let token = lab.must_on(2, &["git", "token", "blog"]);
    let clone = lab.folder().join("clone");
    fs::create_dir(&clone).expect("made");
    let url = format!("https://dora:{}@blog.test/.pressroom/git/blog.git", token.trim());
    git(&lab, 2, &["clone", "-q", &url, "."]);
    fs::write(clone.join("wp-content/mark.txt"), "pushed").expect("written");
    git(&lab, 2, &["commit", "-q", "-a", "-m", "by hand"]);
    git(&lab, 3, &["push", "-q", "origin", "HEAD:main"]);
    assert_eq!([1, 2, 3].map(|number| get(number, MARK)), ["pushed"; 3]);
    let pushed = git(&lab, 2, &["rev-parse", "HEAD"]).trim().to_owned();
    wait_until("the history on all nodes", Duration::from_secs(60), || {
        [1, 2, 3].into_iter().all(|number| main_of(&lab, number) == pushed)
    });

    // A file that was uploaded at one node is served by the others at once, and an end of it is an end everywhere.
    let path = upload(&lab, 2, "note.txt", "what was uploaded");
    assert_eq!([1, 3, 2].map(|number| get(number, &path)), ["what was uploaded"; 3]);
    let short_lived = ["uploads/gone-there.txt", "uploads/gone-here.txt"];
    for path in short_lived {
        fs::write(on_disk(&lab, 2, path), "as a plugin writes").expect("written");
    }
    for (number, path) in [1, 2, 3].iter().flat_map(|it| short_lived.iter().map(move |p| (*it, p)))
    {
        wait_until("the upload", Duration::from_secs(10), || on_disk(&lab, number, path).exists());
    }

    // A purge is confirmed by all, so that nobody serves what was stored before.
    let is_hit = |number| {
        let headers = lab.fetch("client", number, &["-D", "-", "-o", "/dev/null"], "/");
        headers.to_ascii_lowercase().contains("x-cache: hit")
    };
    // Who is asked first has what was stored, and not yet what another edge asked it for since.
    for number in [1, 2, 3] {
        wait_until("a stored page", Duration::from_secs(10), || is_hit(number));
        let said = lab.must_on(3, &["cache", "purge", "blog", "--all", "--json"]);
        assert!(!is_hit(number), "n{number} after {said}");
        let receipt: Value = serde_json::from_str(&said).expect("JSON");
        let confirmed = |of: usize| receipt["nodes"][of]["ok"] == true;
        assert!(receipt["ok"] == true && confirmed(0) && confirmed(1), "{said}");
    }

    // From here on nobody's vote is taken.
    wait_until("all vote", Duration::from_secs(90), || lab.standing(1).0 == 3);
    let logs = || {
        [1, 2, 3].map(|number| {
            let log = Path::new(text(&lab.node(number)["data"])).join("logs/agent.log");
            fs::read_to_string(log).expect("a log")
        })
    };
    let removals = |log: &String| log.lines().filter(|line| line.contains("\"Remove(")).count();
    let removed_before = logs().each_ref().map(removals);

    // A node that was cut off shows its own visitors what it has; nobody sees that once it can be reached again.
    wait_until("a stored page", Duration::from_secs(10), || is_hit(3));
    wait_until("a lock", Duration::from_secs(20), || get(3, "/?hold=n3") == "held");
    lab.must(&["cut", "n3"]);
    // Nobody waits for long for what it held in the database.
    assert_eq!(get(1, "/?take"), "taken");
    let head = || lab.fetch("n3", 3, &["-D", "-", "-o", "/dev/null"], "/").to_ascii_lowercase();
    wait_until("it is cut off", Duration::from_secs(20), || head().contains("partitioned"));
    assert_eq!(get(1, "/?rename=Another+name"), "renamed");
    assert!(!lab.fetch("n3", 3, &[], "/").contains("Another name"), "nobody told it");
    lab.must(&["heal", "n3"]);
    let page = || lab.fetch("client", 3, &["-D", "-"], "/");
    // One whose PHP has no database yet may show what was, and says that it is stale.
    let mut old = Vec::new();
    wait_until("the new page", Duration::from_secs(20), || {
        let page = page();
        let is_new = page.contains("Another name");
        if !is_new && !page.contains("x-cache: stale") {
            old.push(page.split("\r\n\r\n").next().unwrap_or_default().to_owned());
        }
        is_new
    });
    assert!(old.is_empty(), "old pages after the cut: {old:#?}");

    // Another node than the one with the database leads, and is lost inside a scheduled event.
    // The one that was cut off may have led.
    wait_until("a leader takes it", Duration::from_secs(30), || {
        lab.on(1, &["node", "drain", "n1"]).status.success()
    });
    wait_until("another leader", Duration::from_secs(20), || {
        leader(&lab, 1).is_some_and(|number| number != 1)
    });
    wait_until("it works again", Duration::from_secs(30), || {
        lab.on(1, &["node", "undrain", "n1"]).status.success()
    });
    for number in 1..=3 {
        wait_until("a stored page", Duration::from_secs(10), || is_hit(number));
    }
    assert_eq!(get(1, "/?schedule"), "scheduled");
    let log = || get(1, "/?log");
    let mut lost = 0;
    wait_until("the event", Duration::from_secs(20), || {
        lost = log().strip_prefix("begin@n").and_then(|of| of.parse().ok()).unwrap_or(0);
        lost != 0
    });
    assert_ne!(lost, 1, "n1 has the database, and just rested");
    let others: Vec<usize> = (1..=3).filter(|number| *number != lost).collect();
    lab.must(&["kill", text(&lab.node(lost)["name"])]);
    let mut failed = Vec::new();
    wait_until("the event's second run", Duration::from_secs(60), || {
        let visits =
            others.iter().flat_map(|number| [(*number, "/"), (*number, MARK), (*number, &path)]);
        failed.extend(
            visits
                .map(|(number, path)| (number, path.to_owned(), lab.visit("client", number, path)))
                .filter(|(_, _, status)| *status != 200),
        );
        // A second leader may lose its office on a slow machine: who is cut off twice is reported.
        let is_reported = |number: &usize| {
            let status = lab.on(*number, &["status", "--json"]);
            String::from_utf8_lossy(&status.stdout).contains("was cut off; it is not run again")
        };
        log().contains("end@n") || others.iter().any(is_reported)
    });
    assert_eq!(failed, [], "other nodes have nothing to do with it");
    let events = log();
    assert_eq!(events.matches("begin@").count(), 2, "{events}");
    assert!(events.matches("end@").count() <= 1, "{events}");

    // What is deployed meanwhile is what it serves first.
    lab.must_on(others[0], &["deploy", "blog", &release(lab.folder(), "two"), "-m", "two"]);
    assert_eq!(get(others[1], MARK), "two");
    // A file that goes from its disk while it is down goes everywhere, and one that goes from another's goes from its.
    fs::remove_file(on_disk(&lab, lost, short_lived[0])).expect("removed");
    fs::remove_file(on_disk(&lab, others[0], short_lived[1])).expect("removed");
    lab.must(&["start", text(&lab.node(lost)["name"])]);
    let mut first = String::new();
    wait_until("the lost node", Duration::from_secs(60), || {
        let headed = lab.fetch("client", lost, &["-w", " %{http_code}"], MARK);
        first = headed.strip_suffix(" 200").unwrap_or_default().to_owned();
        !first.is_empty()
    });
    assert_eq!(first, "two");
    // Another leader went on with the same history.
    git(&lab, lost, &["pull", "-q", "--ff-only", "origin", "main"]);
    assert_eq!(fs::read_to_string(clone.join("wp-content/mark.txt")).expect("a file"), "two");
    assert_eq!(git(&lab, others[0], &["rev-parse", "HEAD~1"]).trim(), pushed);
    assert_eq!(get(lost, &path), "what was uploaded");
    wait_until("deletions everywhere", Duration::from_secs(30), || {
        let is_there = |number| short_lived.iter().any(|path| on_disk(&lab, number, path).exists());
        ![1, 2, 3].into_iter().any(is_there)
    });

    // Nobody's vote was taken while a node rested, was cut off or lost: the next loss would have been one too many.
    assert_eq!(logs().each_ref().map(removals), removed_before);

    // Down to one machine, which has everything.
    for gone in ["n3", "n2"] {
        wait_until("it leaves", Duration::from_secs(60), || {
            lab.on(1, &["node", "remove", gone, "--yes"]).status.success() || !lab.has(gone)
        });
    }
    wait_until("one machine", Duration::from_secs(60), || {
        let status = lab.on(1, &["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        let engines = status["engines"].as_array().cloned().unwrap_or_default();
        !engines.is_empty() && engines.iter().all(|engine| engine["name"] != "etcd")
    });
    assert_eq!(get(1, MARK), "two");
    assert_eq!(get(1, &path), "what was uploaded");
    assert_eq!(lab.visit("client", 1, "/"), 200);
}
