//! A site's repository as developers meet it: stock git over HTTPS, with a token.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::environments::encode;
use crate::house::{House, signal, tree_with, wait_until};

static MOMENT: AtomicU64 = AtomicU64::new(0);

const PLUGIN: &str = "wp-content/mu-plugins/words.php";

fn say(word: &str) -> String {
    format!("<?php\nadd_action('wp_footer', function () {{ echo '<!-- {word} -->'; }});\n")
}

/// A developer with a clone.
struct Developer {
    folder: PathBuf,
    authority: PathBuf,
}

impl Developer {
    fn git(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.folder).args(arguments);
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &self.folder);
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_SSL_CAINFO", &self.authority);
        for (role, name) in [("AUTHOR", "Dora Developer"), ("COMMITTER", "Dora Developer")] {
            command.env(format!("GIT_{role}_NAME"), name);
            command.env(format!("GIT_{role}_EMAIL"), "dora@example.com");
        }
        command.output().expect("git runs")
    }

    fn must(&self, arguments: &[&str]) -> String {
        let output = self.git(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "git {arguments:?}: {words}");
        String::from_utf8_lossy(&output.stdout).into_owned() + &words
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.git(arguments);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "git {arguments:?}: {words}");
        words
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn commit(&self, path: &str, text: &str, message: &str) {
        self.write(path, text);
        self.must(&["add", "-f", path]);
        self.must(&["commit", "-q", "-m", message]);
    }

    fn head(&self) -> String {
        self.must(&["rev-parse", "HEAD"]).trim().to_owned()
    }
}

fn furnished() -> (House, PathBuf) {
    let house = House::empty();
    let tree = tree_with(house.folder(), &[(PLUGIN, &say("one"))]);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}\n[site.php]\nworkers = 2",
        tree.display()
    ));
    house.up();
    (house, tree)
}

/// The address of the repository, with this token in it.
fn address(house: &House, token: &str) -> String {
    let url = house.must(&["git", "url", "blog"]).trim().to_owned();
    url.replacen("https://", &format!("https://dora:{token}@"), 1)
}

fn token(house: &House) -> String {
    house.must(&["git", "token", "blog"]).trim().to_owned()
}

fn cloned(house: &House, address: &str, name: &str) -> Developer {
    let folder = house.folder().join(name);
    fs::create_dir(&folder).expect("made");
    let developer = Developer { folder, authority: house.data.join("tls/ca.pem") };
    developer.must(&["clone", "-q", address, "."]);
    developer
}

fn served(house: &House, word: &str) -> bool {
    // Not a page that is stored.
    let path = format!("/?n={}", MOMENT.fetch_add(1, Ordering::Relaxed));
    house.visitor("blog").get(&path).body.contains(&format!("<!-- {word} -->"))
}

fn main_of(house: &House) -> String {
    let repository = house.data.join("git/blog.git");
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "--git-dir"])
        .arg(&repository)
        .args(["rev-parse", "main"])
        .output()
        .expect("git runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The plugin as `main` has it.
fn plugin_of(house: &House) -> String {
    let repository = house.data.join("git/blog.git");
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "--git-dir"])
        .arg(&repository)
        .arg("show")
        .arg(format!("main:{PLUGIN}"))
        .output()
        .expect("git runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_site_is_cloned_pushed_to_and_rolled_back_with_stock_git() {
    let (house, tree) = furnished();
    let secret = token(&house);
    let url = address(&house, &secret);

    // Who has no token learns nothing.
    let stranger =
        Developer { folder: house.folder().to_owned(), authority: house.data.join("tls/ca.pem") };
    for bad in ["wrong", &secret[..secret.len() - 1]] {
        let words = stranger.fails(&["ls-remote", &address(&house, bad)]);
        assert!(words.contains("Authentication failed"), "{words}");
    }
    let answer =
        house.visitor("blog").get("/.pressroom/git/blog.git/info/refs?service=git-upload-pack");
    assert_eq!(answer.status, 401, "{}", answer.body);

    // A deploy is a commit of whoever deployed.
    fs::write(tree.join(PLUGIN), say("two")).expect("written");
    house.must(&["deploy", "blog", &tree.to_string_lossy(), "-m", "say two"]);
    let start = Instant::now();
    let dora = cloned(&house, &url, "dora");
    println!("clone after {:?}", start.elapsed());
    let log = dora.must(&["log", "--format=%an|%s"]);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(lines[0].ends_with("|say two") && lines[1].starts_with("configuration|"), "{log}");
    assert_eq!(fs::read_to_string(dora.folder.join(PLUGIN)).expect("cloned"), say("two"));
    for path in [
        "wp-config.php",
        "wp-content/object-cache.php",
        "wp-content/mu-plugins/pressroom.php",
        "wp-content/uploads",
    ] {
        assert!(!dora.folder.join(path).exists(), "{path} is no code of the operator's");
    }
    assert!(dora.folder.join("wp-includes/version.php").is_file());

    // A push deploys; its commit is what `main` is.
    dora.commit(PLUGIN, &say("three"), "say three");
    // Larger than git sends in one piece, and nothing that packs well.
    let noise: String = (0..600_000_u64)
        .map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40))
        .collect();
    dora.commit("wp-content/plugins/big.txt", &noise, "big");
    dora.commit(".gitignore", "node_modules\n", "ignore");
    let start = Instant::now();
    let words = dora.must(&["push", "origin", "main"]);
    println!("push after {:?}", start.elapsed());
    assert!(words.contains("remote: ✓ check the new version of blog"), "{words}");
    assert!(served(&house, "three"));
    assert_eq!(main_of(&house), dora.head());
    let list: Value =
        serde_json::from_str(&house.must(&["release", "list", "blog", "--json"])).expect("JSON");
    assert_eq!(
        (&list[0]["author"], &list[0]["message"]),
        (&"Dora Developer".into(), &"ignore".into())
    );

    // One that is broken is refused, with file and line, and nothing is moved.
    let good = dora.head();
    dora.commit(PLUGIN, "<?php\n\nif (;\n", "break it");
    let start = Instant::now();
    let words = dora.fails(&["push", "origin", "main"]);
    println!("refused after {:?}:\n{words}", start.elapsed());
    assert!(
        words.contains("[remote rejected] main -> main (") && words.contains("words.php on line 3"),
        "{words}"
    );
    assert!(words.contains("remote:") && words.contains("still serves release"), "{words}");
    assert!(served(&house, "three"));
    assert_eq!(main_of(&house), good);
    dora.must(&["reset", "-q", "--hard", &good]);

    // What is no code is refused before anything is built.
    dora.commit("wp-config.php", "<?php define('DB_PASSWORD', 'x');", "secrets");
    let words = dora.fails(&["push", "origin", "main"]);
    assert!(words.contains("wp-config.php: Pressroom writes it"), "{words}");
    dora.must(&["reset", "-q", "--hard", &good]);

    // Other branches and tags are kept, and move nothing.
    dora.must(&["tag", "v1"]);
    let words = dora.must(&["push", "origin", "main:refs/heads/not/one", "v1"]);
    assert!(words.contains("kept as a branch without an environment"), "{words}");
    assert!(dora.must(&["ls-remote", "origin"]).contains("refs/heads/not/one"));
    assert!(!dora.must(&["ls-remote", "origin"]).contains("refs/pressroom"));
    let words = dora.fails(&["push", "origin", ":main"]);
    assert!(words.contains("it cannot be deleted"), "{words}");

    // History is never rewritten.
    let emil = cloned(&house, &url, "emil");
    emil.commit(PLUGIN, &say("four"), "say four");
    emil.must(&["push", "-q", "origin", "main"]);
    dora.commit("wp-content/mu-plugins/other.php", "<?php\n", "another");
    let words = dora.fails(&["push", "origin", "main"]);
    assert!(words.contains("rejected"), "{words}");
    let words = dora.fails(&["push", "--force", "origin", "main"]);
    assert!(words.contains("git pull") && words.contains("remote rejected"), "{words}");
    dora.must(&["pull", "-q", "--no-rebase", "--no-edit", "origin", "main"]);
    dora.must(&["push", "-q", "origin", "main"]);
    assert!(served(&house, "four"));

    // Going back goes forward in git.
    let before = main_of(&house);
    house.must(&["release", "rollback", "blog", list[0]["id"].as_str().expect("an id")]);
    dora.must(&["pull", "-q", "--ff-only", "origin", "main"]);
    assert_eq!(dora.must(&["rev-parse", "HEAD~1"]).trim(), before);
    assert_eq!(fs::read_to_string(dora.folder.join(PLUGIN)).expect("pulled"), say("three"));
    assert!(dora.must(&["log", "-1", "--format=%s"]).starts_with("Go back to release"));
    assert!(dora.must(&["diff", "--stat", &good, "HEAD"]).is_empty(), "the older tree, as it was");
    assert!(served(&house, "three"));

    // A new token ends the old one; a revoked one opens nothing.
    let other = address(&house, &token(&house));
    assert!(dora.fails(&["fetch"]).contains("Authentication failed"));
    dora.must(&["ls-remote", &other]);
    house.must(&["git", "token", "blog", "--revoke"]);
    assert!(dora.fails(&["ls-remote", &other]).contains("Authentication failed"));
    house.must(&["doctor"]);
}

/// What an environment's visitor with the password is served.
fn shown(house: &House, site: &str) -> String {
    let list: Value = serde_json::from_str(&house.must(&["env", "list", "--json"])).expect("JSON");
    let list = list.as_array().expect("a list");
    let found = list.iter().find(|one| one["site"] == site).expect("the environment");
    let file = found["admin_password_file"].as_str().expect("a file");
    let password = fs::read_to_string(file).expect("the password");
    let mut visitor = house.visitor(site);
    let basic = encode(&format!("guest:{}", password.trim_end()));
    visitor.headers.push(("Authorization".into(), format!("Basic {basic}")));
    let path = format!("/?n={}", MOMENT.fetch_add(1, Ordering::Relaxed));
    visitor.get(&path).body
}

fn environments(house: &House) -> Vec<(String, String)> {
    let list: Value = serde_json::from_str(&house.must(&["env", "list", "--json"])).expect("JSON");
    let word = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let list = list.as_array().expect("a list");
    list.iter().map(|one| (word(one, "name"), word(one, "made_by"))).collect()
}

#[test]
fn another_branch_is_an_environment_that_comes_and_goes_with_it() {
    let (house, _tree) = furnished();
    let dora = cloned(&house, &address(&house, &token(&house)), "dora");
    dora.must(&["checkout", "-q", "-b", "feature"]);

    // A first push that is refused leaves nothing.
    dora.commit("wp-content/uploads/a.jpg", "x", "data");
    let words = dora.fails(&["push", "origin", "feature"]);
    assert!(words.contains("uploads are data") && words.contains("remote rejected"), "{words}");
    dora.must(&["reset", "-q", "--hard", "main"]);
    dora.commit(PLUGIN, "<?php\n\nif (;\n", "break it");
    let words = dora.fails(&["push", "origin", "feature"]);
    assert!(words.contains("words.php on line 3"), "{words}");
    assert_eq!(environments(&house), []);
    assert!(!dora.must(&["ls-remote", "origin"]).contains("refs/heads/feature"));
    dora.must(&["reset", "-q", "--hard", "main"]);

    // The first good one makes it, with the pushed code, beside the site.
    dora.commit(PLUGIN, &say("branched"), "branch off");
    let start = Instant::now();
    let words = dora.must(&["push", "origin", "feature"]);
    println!("an environment by a push after {:?}:\n{words}", start.elapsed());
    assert!(words.contains(&format!("feature is at {}", house.home("blog--feature"))), "{words}");
    assert_eq!(environments(&house), [("feature".into(), "branch".into())]);
    assert!(shown(&house, "blog--feature").contains("<!-- branched -->"));
    assert!(served(&house, "one") && !served(&house, "branched"));

    // Later ones deploy to it, or are refused; a branch may be rewritten.
    dora.commit(PLUGIN, &say("rewritten"), "more");
    dora.must(&["push", "-q", "origin", "feature"]);
    dora.must(&["reset", "-q", "--hard", "main"]);
    dora.commit(PLUGIN, &say("otherwise"), "otherwise");
    let start = Instant::now();
    dora.must(&["push", "-q", "--force", "origin", "feature"]);
    println!("a later push after {:?}", start.elapsed());
    assert!(shown(&house, "blog--feature").contains("<!-- otherwise -->"));
    let good = dora.head();
    dora.commit(PLUGIN, "<?php\n\nif (;\n", "break it");
    let words = dora.fails(&["push", "origin", "feature"]);
    assert!(words.contains("words.php on line 3"), "{words}");
    assert!(shown(&house, "blog--feature").contains("<!-- otherwise -->"));
    assert!(dora.must(&["ls-remote", "origin", "feature"]).starts_with(&good));

    // It goes with its branch, and can be merged before.
    dora.must(&["checkout", "-q", "main"]);
    dora.must(&["merge", "-q", "--ff-only", &good]);
    dora.must(&["push", "-q", "origin", "main"]);
    assert!(served(&house, "otherwise"));
    let words = dora.must(&["push", "origin", ":feature"]);
    assert!(words.contains("gone with its branch"), "{words}");
    assert_eq!(environments(&house), []);
    assert!(!dora.must(&["ls-remote", "origin"]).contains("refs/heads/feature"));

    // One that a command made takes pushes, and outlives the branch.
    house.must(&["env", "create", "blog", "staging"]);
    dora.commit(PLUGIN, &say("staged"), "stage");
    dora.must(&["push", "-q", "origin", "main:staging"]);
    assert!(shown(&house, "blog--staging").contains("<!-- staged -->"));
    let words = dora.must(&["push", "origin", ":staging"]);
    assert!(words.contains("was made by a command and stays"), "{words}");
    assert_eq!(environments(&house), [("staging".into(), "command".into())]);
}

#[test]
fn an_agent_killed_in_a_push_leaves_main_with_what_is_served() {
    let (house, _tree) = furnished();
    let url = address(&house, &token(&house));
    let dora = cloned(&house, &url, "dora");
    // One that nobody cuts, to know how long it takes here and now.
    dora.commit(PLUGIN, &say("whole"), "whole");
    let start = Instant::now();
    dora.must(&["push", "origin", "main"]);
    let whole = u64::try_from(start.elapsed().as_millis()).expect("small");
    let rounds: u64 =
        std::env::var("PRESSROOM_TEST_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for round in 0..rounds {
        let word = format!("round {round}");
        dora.commit(PLUGIN, &say(&word), &word);
        let cutting = thread::spawn({
            let agent = house.pid("/agent/pid");
            // Spread over the whole push, each time elsewhere.
            let pause = Duration::from_millis(whole / 8 + round * whole / rounds.max(1));
            move || {
                thread::sleep(pause);
                signal(agent, Signal::KILL);
            }
        });
        let pushed = dora.git(&["push", "origin", "main"]);
        cutting.join().expect("no panic");
        wait_until("health", Duration::from_secs(60), || house.is_healthy());
        // The rollout may go on after the agent is back: then it is what is served.
        let agrees = || {
            let (plugin, is_served) = (plugin_of(&house), served(&house, &word));
            let settled = house.run(&["release", "list", "blog", "--json"]);
            settled.status.success() && (plugin == say(&word)) == is_served
        };
        wait_until("main is what is served", Duration::from_secs(30), agrees);
        println!(
            "round {round}: pushed {}, served {}",
            pushed.status.success(),
            served(&house, &word)
        );
        // The same push brings it to its end, whatever was left.
        let again = dora.git(&["push", "origin", "main"]);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert!(served(&house, &word));
        assert_eq!(main_of(&house), dora.head());
    }
    assert!(Path::new(&house.data).join("git/blog.git").is_dir());
}
