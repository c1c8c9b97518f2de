//! What code that came in through a hole in a plugin can do to the machine and to the neighbours, and that a site has all it needs.
//!
//! One battery for both runtimes. Only as root: an ordinary user's Pressroom confines nobody, and says so.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Deserialize;

use crate::house::{House, is_root, signal, tree_with, wait_until};
use crate::runtimes::{Runtime, battery};

const SHELL: &str = "/wp-content/plugins/hole/hole.php";

#[derive(Deserialize)]
struct Report {
    seen: BTreeMap<String, Vec<String>>,
    refused: BTreeMap<String, String>,
    works: BTreeMap<String, String>,
}

battery! {
    a_hole_in_a_plugin_ends_at_the_sites_walls_and_the_site_has_all_it_needs
    a_scheduled_event_runs_within_the_same_walls
    what_a_site_takes_beyond_its_limits_ends_its_own_and_nobody_else
    a_plugin_keeps_its_cache_and_the_list_says_who_wrote_what_and_what_was_refused
}

/// Two sites of which `one` has a hole, with these further values of `[site.php]`.
fn furnished(runtime: Runtime, php: &str) -> House {
    let house = runtime.house();
    let word = runtime.word();
    let tree = tree_with(
        house.folder(),
        &[
            ("wp-content/plugins/hole/hole.php", include_str!("../probe/hole.php")),
            ("wp-content/mu-plugins/plan.php", include_str!("../probe/plan.php")),
        ],
    );
    let path = tree.display();
    let mail = house.data.join("sites/one/tmp/mail");
    let mail = mail.display();
    house.configure(&format!(
        "[[site]]\nname = \"one\"\nwordpress = {{ path = \"{path}\" }}\n[site.php]\nruntime = \"{word}\"\nworkers = 2\ninstances = {{ min = 1, max = 1 }}\n\
         ini = {{ sendmail_path = \"/usr/bin/tee {mail}\" }}\n{php}\n\
         [[site]]\nname = \"two\"\nwordpress = {{ path = \"{path}\" }}\n[site.php]\nruntime = \"{word}\"\nworkers = 2\ninstances = {{ min = 1, max = 1 }}\n"
    ));
    house.up();
    house
}

/// Runs PHP within WordPress of `one`, and answers what it printed.
fn evaluate(house: &House, code: &str) -> String {
    let answer = house.visitor("one").post(SHELL, &[("code", code)]);
    assert_eq!(answer.status, 200, "{code}: {}", answer.body);
    answer.body
}

fn instance(house: &House, site: &str) -> i32 {
    let pids = house.pids();
    let found = pids.iter().find(|(name, _)| name.starts_with(&format!("{site}-")));
    found.and_then(|(_, pid)| i32::try_from(*pid).ok()).unwrap_or_else(|| panic!("{pids:?}"))
}

/// Processes of the user who owns the site's uploads.
fn processes_of(house: &House, site: &str) -> usize {
    let uploads = house.data.join("sites").join(site).join("uploads");
    let owner = fs::metadata(uploads).expect("the uploads").uid();
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    all.filter(|entry| {
        entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
            && entry.metadata().is_ok_and(|found| found.uid() == owner)
    })
    .count()
}

fn a_hole_in_a_plugin_ends_at_the_sites_walls_and_the_site_has_all_it_needs(runtime: Runtime) {
    if !runtime.can_be_judged() {
        return;
    }
    let house = furnished(runtime, "slow = \"1 s\"");
    let (data, pid) = (house.data.to_string_lossy().into_owned(), instance(&house, "two"));
    let code = include_str!("../probe/walls.php").trim_start_matches("<?php");
    let fields = [("code", code), ("data", &*data), ("own", "one"), ("pid", &*pid.to_string())];
    let answer = house.visitor("one").post(SHELL, &fields);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let report: Report = serde_json::from_str(&answer.body)
        .unwrap_or_else(|error| panic!("{error}: {}", answer.body));
    println!("{}", answer.body);

    let seen = |what: &str| report.seen[what].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(seen("code"), ["/srv/site/"], "the same place for every release");
    assert_eq!(seen("data"), ["engines", "run", "sites"]);
    assert_eq!(seen("sites"), ["one"]);
    assert_eq!(seen("site"), ["config", "logs", "scratch", "tmp", "uploads"]);
    assert_eq!(seen("run"), ["affirm", "mariadb", "php", "redis-cache", "redis-sessions"]);
    assert_eq!(seen("engines"), ["php-one-N"]);
    let processes = seen("processes");
    assert!(processes.contains(&"1") && processes.len() < 8, "its own alone: {processes:?}");
    for hidden in ["home", "root", "sys", "boot", "opt", "mnt", "media"] {
        // Docker always has that folder; it is empty and closed.
        if (runtime, hidden) == (Runtime::Docker, "sys") {
            continue;
        }
        assert!(!seen("root").contains(&hidden), "{hidden} in {:?}", seen("root"));
    }
    let allowed = report.refused.iter().filter(|(_, outcome)| !outcome.starts_with("refused"));
    let broken = report.works.iter().filter(|(_, outcome)| !outcome.starts_with("ALLOWED"));
    let wrong: Vec<_> = allowed.chain(broken).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(report.refused.len() > 25 && report.works.len() > 15);
    // php-fpm reads its own workers' memory for that.
    assert_eq!(evaluate(&house, "usleep(2500000); echo 'slow';"), "slow");
    let slow = house.data.join("sites/one/logs/slow.log");
    wait_until("the slow log to name the file", Duration::from_secs(5), || {
        fs::read_to_string(&slow)
            .is_ok_and(|text| text.contains("/srv/site/wp-content/plugins/hole"))
    });
    assert!(house.is_healthy(), "{}", house.status());
}

fn a_scheduled_event_runs_within_the_same_walls(runtime: Runtime) {
    if !runtime.can_be_judged() {
        return;
    }
    #[derive(Deserialize)]
    struct Seen {
        sapi: String,
        code: String,
        sites: Vec<String>,
        processes: Vec<String>,
        planted: bool,
        status: String,
        group: String,
    }
    let house = furnished(runtime, "");
    evaluate(&house, "wp_schedule_single_event(time(), 'walls_probe');");
    let file = house.data.join("sites/one/uploads/seen.json");
    wait_until("the event to run", Duration::from_secs(90), || file.exists());
    let seen: Seen = serde_json::from_slice(&fs::read(file).expect("read")).expect("JSON");
    assert_eq!((&*seen.sapi, &*seen.code, seen.planted), ("cli", "/srv/site/", false));
    assert_eq!(seen.sites, ["one"]);
    assert_eq!(seen.processes, ["1"], "it sees nobody else, and nobody outlives it");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapBnd:\t0000000000000000"] {
        assert!(seen.status.contains(line), "no {line:?} in {}", seen.status);
    }
    if !lacks_limits(&house) {
        assert!(seen.group.contains("/commands-of-one\n"), "{}", seen.group);
    }
}

/// Whether the machine has no groups of control for us, which the notices say.
fn lacks_limits(house: &House) -> bool {
    let notices = house.status()["notices"].to_string();
    let lacks = notices.contains("instances have no limit of");
    if lacks {
        println!("limits are not judged: {notices}");
    }
    lacks
}

fn what_a_site_takes_beyond_its_limits_ends_its_own_and_nobody_else(runtime: Runtime) {
    if !runtime.can_be_judged() {
        return;
    }
    let house = furnished(runtime, "limits = { memory = \"320 MiB\", processes = 40 }");
    if lacks_limits(&house) {
        return;
    }
    let (own, neighbour) = (instance(&house, "one"), instance(&house, "two"));
    let mut two = house.visitor("two");

    // More memory than the site may have, in PHP itself: that worker ends, its instance lives.
    let greedy = "ini_set('memory_limit', -1); $x = str_repeat('x', 600 << 20); echo 'had it all';";
    let answer = house.visitor("one").try_post(SHELL, &[("code", greedy)]);
    let failed = answer.map(|answer| (answer.status, answer.body));
    assert!(!matches!(&failed, Ok((200, _))), "{failed:?}");
    assert_eq!(house.visitor("one").get("/?after").status, 200);
    assert_eq!(instance(&house, "one"), own, "php-fpm itself lives on");

    // A fork bomb that nobody waits for.
    let bomb = "exec(\"setsid perl -e 'while (1) { my \\$p = fork; sleep 300 if defined \\$p && !\\$p; select(undef, undef, undef, 0.01) }' >/dev/null 2>&1 &\"); echo 'lit';";
    assert_eq!(evaluate(&house, bomb), "lit");
    wait_until("the bomb to reach the limit", Duration::from_secs(30), || {
        processes_of(&house, "one") >= 40
    });
    let until = Instant::now() + Duration::from_secs(2);
    let mut most = 0;
    while Instant::now() < until {
        most = most.max(processes_of(&house, "one"));
        let start = Instant::now();
        assert_eq!(two.get(&format!("/?while={most}")).status, 200, "the neighbour");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    // Commands of the site (cron) have a limit of their own.
    assert!((40..=80).contains(&most), "{most}");
    assert_eq!(instance(&house, "two"), neighbour);

    // The whole of it ends with the instance.
    signal(own, Signal::KILL);
    wait_until("the bomb to be gone", Duration::from_secs(10), || processes_of(&house, "one") < 10);
    wait_until("the site to be back", Duration::from_secs(30), || house.is_healthy());
    assert_eq!(house.visitor("one").get("/?back").status, 200);
}

fn a_plugin_keeps_its_cache_and_the_list_says_who_wrote_what_and_what_was_refused(
    runtime: Runtime,
) {
    if !runtime.can_be_judged() {
        return;
    }
    let house = furnished(runtime, "");
    let mut visitor = house.visitor("one");
    // What a plugin keeps is served to visitors, pages excepted, and none of it ever runs by its address.
    let kept = evaluate(
        &house,
        "$d = WP_CONTENT_DIR . '/cache/autoptimize/css'; wp_mkdir_p($d); file_put_contents(\"$d/a.css\", 'a{}');
         foreach (['html', 'HTML', 'html_gzip', 'html.br', 'php'] as $e) file_put_contents(\"$d/page.$e\", '<?php echo 6*7;');
         wp_mkdir_p(wp_upload_dir()['basedir'] . '/hole'); file_put_contents(wp_upload_dir()['basedir'] . '/hole/list.csv', 'x');
         $c = WP_CONTENT_DIR . '/w3tc-config/settings.php'; $said = '';
         foreach ([1, 2] as $n) { file_put_contents($c, \"<?php return $n;\"); $said .= include $c; }
         echo $said;",
    );
    assert_eq!(kept, "12", "what it wrote a moment ago is what it reads");
    // The edge looks again within a second.
    wait_until("the style sheet to be served", Duration::from_secs(5), || {
        visitor.get("/wp-content/cache/autoptimize/css/a.css").body == "a{}"
    });
    for end in ["html", "htm%6C", "HTML", "html_gzip", "html.br", "php"] {
        let answer = visitor.get(&format!("/wp-content/cache/autoptimize/css/page.{end}"));
        let is_own = answer.body.contains("6*7") || answer.body == "42";
        assert!(!is_own && answer.body.contains("</html>"), "{}", answer.body);
    }

    // However deep a plugin nests what it keeps, it can be told of and deleted.
    let deep = evaluate(
        &house,
        "chdir(WP_CONTENT_DIR . '/cache'); for ($n = 0; $n < 200; $n++) { mkdir('d'); chdir('d'); } echo $n;",
    );
    assert_eq!(deep, "200");

    // What is neither is refused, and noted once, whether the plugin wants to hear of it or not.
    let refused = evaluate(
        &house,
        "$p = WP_PLUGIN_DIR . '/hole'; echo json_encode([@file_put_contents(\"$p/hole.log\", 'x'), @file_put_contents(\"$p/hole.log\", 'x'), @mkdir(WP_CONTENT_DIR . '/mine'), @fopen(\"$p/none.txt\", 'r')]);",
    );
    assert_eq!(refused, "[false,false,false,false]");
    let list: serde_json::Value =
        serde_json::from_str(&house.must(&["site", "writes", "one", "--json"])).expect("JSON");
    let all: Vec<(&str, &str, &str)> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            let word = |name: &str| one[name].as_str().unwrap_or_default();
            (word("class"), word("path"), word("by"))
        })
        .collect();
    for expected in [
        ("media", "wp-content/uploads/hole", "Hole"),
        ("scratch", "wp-content/cache/autoptimize", "Autoptimize"),
        ("scratch", "wp-content/w3tc-config", "W3 Total Cache"),
        ("code", "wp-content/object-cache.php", "Pressroom"),
        ("refused", "wp-content/plugins/hole/hole.log", "plugins/hole"),
        ("refused", "wp-content/mine", "plugins/hole"),
    ] {
        assert_eq!(all.iter().filter(|one| **one == expected).count(), 1, "{expected:?}: {list:#}");
    }
    assert_eq!(all.iter().filter(|one| one.0 == "refused").count(), 2, "{list:#}");
    let words = house.must(&["site", "writes", "one"]);
    assert!(words.contains("let the plugin log below wp-content/uploads"), "{words}");
    house.must(&["release", "verify", "one"]);

    // WordPress does not ask for permissions that it will never have.
    visitor.log_in("admin", crate::house::PASSWORD);
    let page = visitor.get("/wp-admin/options-permalink.php").body;
    let nonce =
        page.split("name=\"_wpnonce\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let fields = [
        ("_wpnonce", nonce.expect("a nonce")),
        ("permalink_structure", "/%postname%/"),
        ("submit", "1"),
    ];
    let mut page = visitor.post("/wp-admin/options-permalink.php", &fields);
    if page.status == 302 {
        page = visitor.get("/wp-admin/options-permalink.php?settings-updated=true");
    }
    assert!(page.body.contains("Permalink structure updated"), "{}", page.body);
    assert!(!page.body.contains("htaccess") && !page.body.contains("writable"), "{}", page.body);
}

/// What an instance says of its bytecode: tries to change it in every way, and counts what it had to compile.
const BYTECODE: &str = r"
$own = glob('/srv/bytecode/*', GLOB_ONLYDIR)[0] ?? '';
$file = $own . ABSPATH . 'wp-includes/plugin.php.bin';
$outcome = [];
foreach ([
    'write' => fn () => file_put_contents($file, 'x'),
    'touch' => fn () => touch($file),
    'remove' => fn () => unlink($file),
    'replace' => fn () => rename(__FILE__, $file),
    'add' => fn () => file_put_contents(dirname($file) . '/planted.php.bin', 'x'),
    'make a folder' => fn () => mkdir($own . '/planted'),
    'rename the folder' => fn () => rename($own, $own . '-old'),
    'remove the folder' => fn () => rmdir($own),
    'open the mode' => fn () => chmod($own, 0777),
] as $what => $attempt) {
    if (@$attempt() !== false) $outcome[] = $what;
}
$status = opcache_get_status(false);
echo json_encode(['there' => is_file($file), 'changed' => $outcome, 'scripts' => $status['opcache_statistics']['num_cached_scripts'],
    'compiled' => $status['opcache_statistics']['misses'], 'says' => require ABSPATH . 'wp-content/plugins/hole/says.php']);";

#[test]
fn a_release_is_compiled_once_and_no_site_can_change_its_bytecode() {
    if !is_root() {
        println!("not judged: only confined sites have bytecode");
        return;
    }
    #[derive(Debug, Deserialize)]
    struct Seen {
        there: bool,
        changed: Vec<String>,
        scripts: u64,
        compiled: u64,
        says: String,
    }
    let house = furnished(Runtime::Process, "");
    let tree = house.folder().join("tree");
    let deploy = |says: &str| -> Seen {
        let file = tree.join("wp-content/plugins/hole/says.php");
        fs::write(file, format!("<?php return '{says}';")).expect("written");
        house.must(&["deploy", "one", &tree.to_string_lossy(), "--wait"]);
        serde_json::from_str(&evaluate(&house, BYTECODE)).expect("JSON")
    };
    let compiled = || house.is_compiled("one");
    wait_until("the first release to be compiled", Duration::from_secs(60), compiled);
    // The same file, changed within a second, each time in a release of its own.
    for says in ["first", "second", "third"] {
        let seen = deploy(says);
        assert_eq!(seen.says, says);
        assert!(seen.there && seen.changed.is_empty(), "{seen:?}");
        assert!(seen.scripts > 200 && seen.compiled < seen.scripts / 5, "{seen:?}");
        wait_until("the release to be compiled", Duration::from_secs(60), compiled);
    }
    // A release that served before has its own, and its own alone.
    house.must(&["release", "rollback", "one"]);
    let seen: Seen = serde_json::from_str(&evaluate(&house, BYTECODE)).expect("JSON");
    assert_eq!(seen.says, "second");
    // What is damaged is compiled anew.
    let serving = house.tree("one");
    let id = serving.file_name().expect("a release").to_owned();
    for build in fs::read_dir(house.data.join("bytecode")).expect("builds").flatten() {
        for named in fs::read_dir(build.path().join(&id)).into_iter().flatten().flatten() {
            let file = named.path().join("srv/site/wp-includes/plugin.php.bin");
            let bytes = fs::read(&file).unwrap_or_default();
            fs::remove_file(&file).unwrap_or_default();
            fs::write(&file, &bytes[..bytes.len() / 2]).unwrap_or_default();
        }
    }
    let running: Vec<_> =
        house.pids().into_iter().filter(|(name, _)| name.starts_with("one-")).collect();
    let killed: Vec<_> =
        running.iter().map(|(_, pid)| *pid as i32).filter(|pid| *pid > 0).collect();
    for pid in &killed {
        signal(*pid, Signal::KILL);
    }
    wait_until("another instance", Duration::from_secs(30), || {
        killed.iter().all(|pid| house.is_healthy_without(*pid))
    });
    assert_eq!(house.visitor("one").get("/?damaged").status, 200);
    assert!(house.is_healthy(), "{}", house.status());
}
