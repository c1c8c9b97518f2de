//! Copies of a site for trying things: they are whole, reach nobody, change nothing of the site, and leave nothing behind.
//!
//! `PRESSROOM_TEST_POSTS` and `PRESSROOM_TEST_MEDIA` say how many posts and MiB of media are copied (200 and 20, where nothing is
//! said).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::house::{House, PASSWORD, is_root, signal, tree_with, wait_until};
use crate::visitor::Visitor;

/// Sends two letters, one past WordPress.
const MAILER: &str = "<?php require __DIR__ . '/wp-load.php'; header('Content-Type: text/plain'); \
    echo (int) wp_mail(['one@example.com', 'two@example.com'], 'Grüße', 'Body', ['Bcc: three@example.com']), \
    (int) mail('raw@example.com', 'Raw', 'Body', 'From: me@example.com', '-f me@example.com');";
/// What Site Health asks of itself.
const LOOP: &str = "<?php require __DIR__ . '/wp-load.php'; header('Content-Type: text/plain'); \
    echo wp_remote_retrieve_response_code(wp_remote_get(home_url('/'), ['sslverify' => false]));";
const EVENTS: &str =
    "<?php add_action('test_event', function () { update_option('test_ran', 1); });";

/// Everything that could be wrong with a database that was moved by replacing texts.
const CORPUS: &str = r#"
    global $wpdb;
    $home = home_url();
    $nested = (object) ['url' => "$home/a", 'deep' => [serialize(['inner' => "$home/ü€"]), json_encode(['u' => "$home/j"])], $home => true];
    update_option('test_nested', $nested);
    update_option('test_plain', "see $home/x and //" . parse_url($home, PHP_URL_HOST) . '/y');
    update_option('widget_text', [2 => ['title' => 'Ä', 'text' => "<a href=\"$home/w\">w</a>"], '_multiwidget' => 1]);
    $wpdb->insert($wpdb->options, ['option_name' => 'test_broken', 'option_value' => 's:3:"' . $home . '";', 'autoload' => 'no']);
    $id = wp_insert_post(['post_title' => 'Linked', 'post_name' => 'linked', 'post_status' => 'publish', 'post_content' => "<a href=\"$home/here\">here</a>"]);
    update_post_meta($id, '_builder', wp_slash(json_encode(['url' => "$home/b", 'html' => "<img src=\"$home/i\">"])));
    update_post_meta($id, '_settings', [['link' => ['url' => "$home/l"]]]);
"#;

/// What of a value that PHP packed cannot be unpacked, and what names the site of before.
const AUDIT: &str = r#"
    global $wpdb;
    $bad = []; $old = [];
    foreach (['options' => ['option_name', 'option_value'], 'postmeta' => ['meta_key', 'meta_value'], 'usermeta' => ['meta_key', 'meta_value'], 'posts' => ['ID', 'post_content']] as $table => [$name, $column]) {
        foreach ($wpdb->get_results("SELECT $name AS n, $column AS v FROM {$wpdb->$table}") as $row) {
            if (is_serialized($row->v) && 'b:0;' !== $row->v && false === @unserialize($row->v)) $bad[] = $row->n;
            if (strpos(stripslashes($row->v), 'FORMER') !== false) $old[] = $row->n;
        }
    }
    echo json_encode([$bad, $old]);
"#;

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A house with a site of some size.
fn furnished() -> (House, PathBuf) {
    let house = House::empty();
    let tree = tree_with(
        house.folder(),
        &[
            ("mailer.php", MAILER),
            ("loop.php", LOOP),
            ("version.txt", "one"),
            ("wp-content/mu-plugins/events.php", EVENTS),
        ],
    );
    house.configure(&format!(
        "[[site]]\nname = \"shop\"\nwordpress = {{ path = \"{}\" }}\n[site.php]\nworkers = 3",
        tree.display()
    ));
    house.up();
    house.php("shop", CORPUS);
    (house, tree)
}

fn fill(house: &House, posts: usize, media: usize) {
    house.php(
        "shop",
        &format!(
            "global $wpdb; $home = home_url(); $wpdb->query('START TRANSACTION');
             for ($n = 0; $n < {posts}; $n++) {{
                 $wpdb->insert($wpdb->posts, ['post_title' => \"Post $n\", 'post_name' => \"post-$n\", 'post_status' => 'publish', 'post_content' => str_repeat(\"<p>Words of a post with a <a href='$home/post-$n/'>link</a>.</p>\", 40), 'post_excerpt' => '', 'to_ping' => '', 'pinged' => '', 'post_content_filtered' => '']);
                 for ($m = 0; $m < 3; $m++) $wpdb->insert($wpdb->postmeta, ['post_id' => $wpdb->insert_id, 'meta_key' => \"_m$m\", 'meta_value' => serialize(['url' => \"$home/$n\", 'n' => $n])]);
             }}
             $wpdb->query('COMMIT');
             $dir = wp_upload_dir()['path']; $mib = str_repeat('0123456789abcdef', 65536);
             for ($n = 0; $n < {media}; $n++) {{ file_put_contents(\"$dir/photo-$n.jpg\", $mib); chmod(\"$dir/photo-$n.jpg\", 0644); }}
             file_put_contents(\"$dir/style.css\", 'a{{}}'); chmod(\"$dir/style.css\", 0644);"
        ),
    );
}

/// Makes the environment `staging`, and says what it is and how long that took.
fn create(house: &House) -> (Value, Duration) {
    let start = Instant::now();
    let output = house.run(&["env", "create", "shop", "staging", "--json"]);
    let took = start.elapsed();
    let steps = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{steps}");
    println!("{steps}");
    (serde_json::from_slice(&output.stdout).expect("JSON"), took)
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned()
}

fn password(made: &Value) -> String {
    let file = PathBuf::from(text(made, "admin_password_file"));
    assert_eq!(fs::metadata(&file).expect("the password file").mode() & 0o777, 0o600);
    fs::read_to_string(file).expect("the password").trim_end().to_owned()
}

/// Somebody with the password.
fn guest(house: &House, made: &Value) -> Visitor {
    let mut visitor = house.visitor("shop--staging");
    let basic = encode(&format!("guest:{}", password(made)));
    visitor.headers.push(("Authorization".into(), format!("Basic {basic}")));
    visitor
}

/// Base64.
pub(crate) fn encode(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for n in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * n)) as usize & 63];
            out.push(if n > three.len() { '=' } else { char::from(letter) });
        }
    }
    out
}

/// Everything in the data directory whose name has this in it.
fn named(folder: &Path, what: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(what) {
            found.push(entry.path());
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            named(&entry.path(), what, found);
        }
    }
}

#[test]
fn an_environment_is_a_whole_copy_that_reaches_nobody_and_leaves_nothing() {
    let (mut house, _tree) = furnished();
    let (posts, media) = (number("PRESSROOM_TEST_POSTS", 200), number("PRESSROOM_TEST_MEDIA", 20));
    fill(&house, posts, media);
    let production = house.home("shop");
    let (made, took) = create(&house);
    println!("env create of {posts} posts and {media} MiB of media: {took:?}");
    let log = fs::read_to_string(house.data.join("logs/agent.log")).unwrap_or_default();
    println!(
        "{}",
        log.lines().filter(|line| line.contains("copied")).collect::<Vec<_>>().join("\n")
    );
    assert!(took < Duration::from_secs(15), "{took:?}");
    let url = text(&made, "url");
    assert_eq!(text(&made, "name"), "staging");
    assert_eq!(url, production.replace("//", "//staging.") + "/");
    wait_until("health", Duration::from_secs(10), || house.is_healthy());

    is_whole(&house, &production, posts);
    has_a_password_in_front(&house, &made, &production);
    reaches_nobody(&house, &made);
    changes_nothing_of_the_site(&house, &made);

    // The same configuration again keeps it, and so does a new agent.
    house.must(&["apply", "--yes"]);
    let agent = house.pid("/agent/pid");
    signal(agent, rustix::process::Signal::KILL);
    wait_until("another agent", Duration::from_secs(20), || house.is_healthy());
    let list: Value =
        serde_json::from_str(&house.must(&["env", "list", "--json"])).expect("a list");
    assert_eq!(list.as_array().map(Vec::len), Some(1), "{list}");
    let refused = house.run(&["site", "remove", "shop", "--yes"]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("env remove shop staging"), "{words}");

    house.must(&["env", "remove", "shop", "staging", "--yes"]);
    leaves_nothing(&mut house);
}

fn is_whole(house: &House, production: &str, posts: usize) {
    let count = house.php("shop--staging", "global $wpdb; echo $wpdb->get_var(\"SELECT COUNT(*) FROM $wpdb->posts WHERE post_name LIKE 'post-%'\");");
    assert_eq!(count, posts.to_string());
    let host = production.strip_prefix("https://").expect("https");
    let audit = house.php("shop--staging", &AUDIT.replace("FORMER", &format!("//{host}")));
    let audit: Value = serde_json::from_str(&audit).expect("JSON");
    // What was broken is as it was: it still names the site.
    assert_eq!(audit, serde_json::json!([["test_broken"], ["test_broken"]]));
    let nested = house.php(
        "shop--staging",
        "$n = get_option('test_nested'); echo $n->url, ' ', unserialize($n->deep[0])['inner'], ' ', json_decode($n->deep[1])->u, ' ', get_option('widget_text')[2]['text'];",
    );
    let home = house.home("shop--staging");
    let wanted = format!("{home}/a {home}/ü€ {home}/j <a href=\"{home}/w\">w</a>");
    assert_eq!(nested, wanted);
    let status = house.status();
    assert!(status["notices"].to_string().contains("values were broken before"), "{status}");
}

fn has_a_password_in_front(house: &House, made: &Value, production: &str) {
    let mut stranger = house.visitor("shop--staging");
    for path in ["/", "/wp-includes/css/buttons.css", "/wp-login.php", "/?p=1"] {
        let answer = stranger.get(path);
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.header("www-authenticate").starts_with("Basic realm="), "{path}");
    }
    let mut guest = guest(house, made);
    let page = guest.get("/");
    assert_eq!(page.status, 200, "{}", page.body);
    assert_eq!(page.header("x-robots-tag"), "noindex, nofollow");
    assert!(page.header("cache-control").contains("private"), "{:?}", page.headers);
    assert!(!page.body.contains(&format!("{production}/")), "{}", page.body);
    // The page cache serves those who were let in, and nobody else.
    wait_until("a hit", Duration::from_secs(10), || guest.get("/").cache() == "hit");
    assert_eq!(stranger.get("/").status, 401);
    assert_eq!(guest.get("/wp-includes/css/buttons.css").status, 200);
    let user = text(made, "admin_user");
    guest.log_in(&user, &password(made));
    assert_eq!(guest.get("/wp-admin/").status, 200);
    let mut other = guest.clone();
    other.cookies.clear();
    other.get("/wp-login.php");
    let fields = [("log", user.as_str()), ("pwd", PASSWORD), ("testcookie", "1")];
    let refused = other.post("/wp-login.php", &fields);
    assert_eq!(refused.status, 200, "the site's own password does not work: {}", refused.body);
    let mut visitor = house.visitor("shop");
    assert_eq!(visitor.get("/").header("x-robots-tag"), "");
}

fn reaches_nobody(house: &House, made: &Value) {
    let mut guest = guest(house, made);
    assert_eq!(guest.get("/mailer.php").body, "11");
    assert_eq!(guest.get("/loop.php").body, "200", "WordPress may ask itself");
    let letters: Value =
        serde_json::from_str(&house.must(&["env", "mail", "shop", "staging", "--json"]))
            .expect("letters");
    let mut subjects: Vec<&str> =
        letters.as_array().expect("a list").iter().filter_map(|l| l["subject"].as_str()).collect();
    subjects.sort_unstable();
    assert_eq!(subjects, ["Grüße", "Raw"], "{letters}");
    let greeting = letters.as_array().and_then(|l| l.iter().find(|l| l["subject"] == "Grüße"));
    let greeting = greeting.expect("it is there");
    assert_eq!(greeting["to"], "one@example.com, two@example.com");
    let whole = fs::read_to_string(text(greeting, "file")).expect("the letter");
    assert!(whole.contains("Bcc: three@example.com"), "{whole}");

    let facts = house.php(
        "shop--staging",
        "echo wp_get_environment_type(), ' ', get_option('blog_public'), ' ', count(apply_filters('woocommerce_available_payment_gateways', ['card' => 1]));",
    );
    assert_eq!(facts, "staging 0 0");
    // The site's events run, the copy's rest.
    let schedule = "wp_schedule_single_event(time() - 5, 'test_event'); echo 'ok';";
    for site in ["shop--staging", "shop"] {
        assert_eq!(house.php(site, schedule), "ok");
    }
    let ran = |site: &str| house.php(site, "echo get_option('test_ran', 'no');");
    wait_until("the site's event", Duration::from_secs(20), || ran("shop") == "1");
    assert_eq!(ran("shop--staging"), "no");
}

fn changes_nothing_of_the_site(house: &House, made: &Value) {
    let facts = "global $wpdb; $dir = wp_upload_dir()['path']; clearstatcache(); \
        echo md5_file(\"$dir/photo-0.jpg\"), md5_file(\"$dir/photo-1.jpg\"), md5_file(\"$dir/style.css\"), ' ', count(scandir($dir)), ' ', $wpdb->get_var(\"SELECT COUNT(*) FROM $wpdb->posts WHERE post_title = 'Only here'\");";
    let before = house.php("shop", facts);
    assert_eq!(house.php("shop--staging", facts), before);
    let after = house.php(
        "shop--staging",
        "$dir = wp_upload_dir()['path']; wp_insert_post(['post_title' => 'Only here']);
         $in_place = @file_put_contents(\"$dir/photo-0.jpg\", 'changed');
         $css = file_put_contents(\"$dir/style.css\", 'changed');
         unlink(\"$dir/photo-1.jpg\"); file_put_contents(\"$dir/photo-1.jpg\", 'another');
         file_put_contents(\"$dir/new.jpg\", 'new');
         echo var_export($in_place, true), ' ', $css, ' ', file_get_contents(\"$dir/photo-1.jpg\");",
    );
    assert!(after.ends_with(" 7 another"), "{after}");
    assert_eq!(house.php("shop", facts), before, "nothing of the site changed");
    if is_root() {
        let folder = |site: &str| house.data.join("sites").join(site).join("uploads");
        let (own, copy) = (folder("shop"), folder("shop--staging"));
        let mut photos = Vec::new();
        named(&own, "photo-2.jpg", &mut photos);
        let photo = photos.first().expect("a photo");
        let same = copy.join(photo.strip_prefix(&own).expect("below"));
        let facts = |path: &Path| fs::metadata(path).map(|meta| (meta.ino(), meta.blocks()));
        let (own, copy) = (facts(photo).expect("there"), facts(&same).expect("there"));
        println!("a photo and its copy: {own:?} {copy:?} (inode and blocks)");
    }
    // An image editor writes in place: it is given files of its own.
    let image = "$dir = wp_upload_dir()['path']; $file = \"$dir/drawn.jpg\"; require_once ABSPATH . 'wp-admin/includes/image.php';";
    if house.php("shop", "echo (int) function_exists('imagejpeg');") == "1" {
        // (It was made after the copy: the copy is made again.)
        let drawn = format!(
            "{image} $i = imagecreatetruecolor(800, 600); imagejpeg($i, $file); chmod($file, 0644);
             $id = wp_insert_attachment(['post_title' => 'Drawn', 'post_mime_type' => 'image/jpeg'], $file);
             wp_update_attachment_metadata($id, wp_generate_attachment_metadata($id, $file)); foreach (glob(\"$dir/drawn*\") as $f) chmod($f, 0644); echo $id;"
        );
        let id = house.php("shop", &drawn);
        let path =
            house.php("shop--staging", "echo parse_url(wp_upload_dir()['url'], PHP_URL_PATH);");
        let style = format!("{path}/style.css?");
        let mut guest = guest(house, made);
        assert_eq!(guest.get(&style).body, "changed");
        house.must(&["env", "refresh", "shop", "staging", "--yes"]);
        // It looks at a file that it knows once a second.
        wait_until("the edge to see the new copy", Duration::from_secs(5), || {
            guest.get(&style).body == "a{}"
        });
        let sums = format!(
            "{image} foreach (glob(\"$dir/drawn*\") as $f) echo basename($f), md5_file($f), ' ';"
        );
        let before = house.php("shop", &sums);
        let again = format!(
            "{image} add_filter('jpeg_quality', function () {{ return 10; }}); $meta = wp_generate_attachment_metadata({id}, $file); echo count($meta['sizes']), ' '; {}",
            sums.trim_start_matches(image)
        );
        let made = house.php("shop--staging", &again);
        assert!(made.starts_with("3 ") || made.starts_with("2 "), "{made}");
        assert!(!made.contains(&before), "they were made again");
        assert_eq!(house.php("shop", &sums), before, "and not those of the site");
    }
}

fn leaves_nothing(house: &mut House) {
    let mut found = Vec::new();
    named(&house.data, "shop--staging", &mut found);
    assert!(found.is_empty(), "left behind: {found:?}");
    let users = fs::read_to_string("/etc/passwd").expect("the users");
    assert!(!users.contains("pr-shop--staging"));
    let databases = house.data.join("engines/mariadb/data");
    named(&databases, "staging", &mut found);
    assert!(found.is_empty(), "left behind: {found:?}");
    let snapshot = fs::read_to_string(house.data.join("snapshot/edge.json")).expect("the view");
    assert!(!snapshot.contains("staging"));
    let mut running = house.processes();
    running.retain(|(_, line)| line.contains("staging"));
    assert!(running.is_empty(), "still running: {running:?}");
    assert_eq!(house.visitor("shop").get("/").status, 200);
    assert!(house.is_healthy());
    house.must(&["release", "verify", "shop"]);
}

/// Runs a command whose agent is killed after a while.
fn cut(house: &House, arguments: &[&str], after: Duration) {
    let agent = house.pid("/agent/pid");
    let killing = std::thread::spawn(move || {
        std::thread::sleep(after);
        signal(agent, rustix::process::Signal::KILL);
    });
    // It may have been quicker, and where it was not its words are about the agent.
    let _cut = house.run(arguments);
    killing.join().expect("no panic");
    wait_until("another agent", Duration::from_secs(60), || {
        house.is_healthy() && house.pid("/agent/pid") != agent
    });
}

fn environments(house: &House) -> Vec<Value> {
    let list: Value = serde_json::from_str(&house.must(&["env", "list", "--json"])).expect("JSON");
    list.as_array().expect("a list").clone()
}

#[test]
fn an_agent_that_is_killed_over_an_environment_leaves_a_whole_one_or_nothing() {
    const CREATE: [&str; 4] = ["env", "create", "shop", "staging"];
    const REMOVE: [&str; 5] = ["env", "remove", "shop", "staging", "--yes"];
    let (mut house, _tree) = furnished();
    fill(&house, 100, 5);
    let (_, makes) = create(&house);
    let start = Instant::now();
    house.must(&REMOVE);
    let removes = start.elapsed();
    leaves_nothing(&mut house);
    let rounds = u32::try_from(number("PRESSROOM_TEST_CUTS", 3)).expect("small");
    let audit = AUDIT
        .replace("FORMER", house.home("shop").strip_prefix("https:").expect("an HTTPS address"));
    for round in 0..rounds {
        cut(&house, &CREATE, makes * (2 * round + 1) / (2 * rounds));
        // The agent after it finishes what was begun.
        match environments(&house).is_empty() {
            true => drop(create(&house)),
            false => drop(wait_until("the copy", Duration::from_secs(60), || {
                environments(&house)[0]["admin_user"].is_string() && house.is_healthy()
            })),
        }
        let count = house.php("shop--staging", "global $wpdb; echo $wpdb->get_var(\"SELECT COUNT(*) FROM $wpdb->posts WHERE post_name LIKE 'post-%'\");");
        assert_eq!(count, "100", "round {round}");
        assert_eq!(
            house.php("shop--staging", &audit),
            "[[\"test_broken\"],[\"test_broken\"]]",
            "round {round}"
        );

        cut(&house, &REMOVE, removes * (2 * round + 1) / (2 * rounds));
        if !environments(&house).is_empty() {
            println!("round {round}: cut off before it began");
            house.must(&REMOVE);
        }
        let mut found = Vec::new();
        wait_until("nothing to be left", Duration::from_secs(60), || {
            found.clear();
            named(&house.data, "shop--staging", &mut found);
            let users = fs::read_to_string("/etc/passwd").expect("the users");
            found.is_empty() && !users.contains("pr-shop--staging")
        });
        leaves_nothing(&mut house);
    }
}

#[test]
fn promoting_changes_what_its_diff_said_and_nothing_else() {
    let (house, tree) = furnished();
    let (made, _) = create(&house);
    let mut visitor = house.visitor("shop");
    let mut guest = guest(&house, &made);

    // Code.
    fs::write(tree.join("version.txt"), "two").expect("written");
    fs::write(tree.join("added.txt"), "new").expect("written");
    house.must(&["deploy", "shop--staging", &tree.to_string_lossy()]);
    assert_eq!(guest.get("/version.txt?x").body, "two");
    assert_eq!(visitor.get("/version.txt?x").body, "one");
    let diff: Value = serde_json::from_str(&house.must(&[
        "env",
        "promote",
        "shop",
        "staging",
        "--dry-run",
        "--json",
    ]))
    .expect("JSON");
    assert_eq!(diff["added"], serde_json::json!(["added.txt"]));
    assert_eq!(diff["changed"], serde_json::json!(["version.txt"]));
    assert_eq!(visitor.get("/version.txt?y").body, "one", "only looked at");
    house.must(&["env", "promote", "shop", "staging"]);
    assert_eq!(visitor.get("/version.txt?z").body, "two");
    house.must(&["release", "rollback", "shop"]);
    assert_eq!(visitor.get("/version.txt?a").body, "one");

    // Tables.
    let rows = "global $wpdb; foreach ($wpdb->get_results(\"SELECT * FROM $wpdb->posts ORDER BY ID\") as $row) echo $row->ID, md5(serialize($row)), ' ';";
    let before = house.php("shop", rows);
    house.php(
        "shop--staging",
        "global $wpdb; $home = home_url();
         $wpdb->update($wpdb->posts, ['post_title' => 'Changed'], ['post_name' => 'linked']);
         $wpdb->insert($wpdb->posts, ['ID' => 9001, 'post_title' => 'Added', 'post_status' => 'publish', 'post_content' => \"<a href='$home/new'>x</a>\", 'post_excerpt' => '', 'to_ping' => '', 'pinged' => '', 'post_content_filtered' => '']);
         $wpdb->delete($wpdb->posts, ['ID' => 1]); update_option('test_plain', 'of the environment');",
    );
    let tables = ["env", "promote", "shop", "staging", "--tables", "posts"];
    let diff: Value =
        serde_json::from_str(&house.must(&[&tables[..], &["--dry-run", "--json"]].concat()))
            .expect("JSON");
    assert_eq!(
        (&diff[0]["added"], &diff[0]["changed"], &diff[0]["removed"]),
        (&1.into(), &1.into(), &1.into()),
        "{diff}"
    );
    assert_eq!(house.php("shop", rows), before, "only looked at");
    let users = house.run(&["env", "promote", "shop", "staging", "--tables", "users", "--yes"]);
    assert_eq!(users.status.code(), Some(1), "the environment's users stay where they are");
    house.must(&[&tables[..], &["--yes"]].concat());
    let after = house.php("shop", rows);
    let (before, after): (Vec<&str>, Vec<&str>) =
        (before.split_whitespace().collect(), after.split_whitespace().collect());
    let gone = before.iter().filter(|row| !after.contains(row)).count();
    let came = after.iter().filter(|row| !before.contains(row)).count();
    assert_eq!((gone, came), (2, 2), "one was changed, one removed, one added");
    let moved = house.php("shop", "echo get_post(9001)->post_content, ' ', get_option('test_plain'), ' ', get_post(9001)->post_title;");
    assert!(
        moved.starts_with(&format!("<a href='{}/new'>x</a> see ", house.home("shop"))),
        "{moved}"
    );
    let mut dumps = Vec::new();
    named(&house.data.join("dumps/shop"), "before-promotion.sql", &mut dumps);
    let dump = fs::read_to_string(dumps.first().expect("a dump")).expect("text");
    assert!(dump.contains("Hello world!") && !dump.contains("wp_options"), "what it was before");

    // The data again, as they are now; the code stays.
    house.must(&["env", "refresh", "shop", "staging", "--yes"]);
    let plain = house.php("shop--staging", "echo get_option('test_plain');");
    assert!(plain.starts_with(&format!("see {}/x", house.home("shop--staging"))), "{plain}");
    assert_eq!(guest.get("/version.txt?r").body, "two");
    assert_eq!(guest.get("/").status, 200);
}

#[test]
fn the_blogs_of_a_network_come_along_with_addresses_of_their_own() {
    let house = House::empty();
    house.configure(
        "[[site]]\nname = \"net\"\ndomains = [\"net.localhost\", \"*.net.localhost\"]\nnetwork = \"subdomains\"",
    );
    house.up();
    let port = house.https;
    let made = house.php(
        "net",
        &format!(
            "$id = wpmu_create_blog('two.net.localhost:{port}', '/', 'The second', 1, [], 1);
             switch_to_blog($id); wp_insert_post(['post_title' => 'Of two', 'post_status' => 'publish', 'post_content' => '<a href=\"https://two.net.localhost:{port}/x\">x</a>']);
             update_option('test_nested', ['a' => serialize(['u' => 'https://two.net.localhost:{port}/y'])]); echo $id;"
        ),
    );
    assert_eq!(made, "2");
    let taken = house.run(&["env", "create", "net", "two"]);
    let words = String::from_utf8_lossy(&taken.stderr).into_owned();
    assert_eq!(taken.status.code(), Some(1), "{words}");
    assert!(words.contains("has a blog at `two.net.localhost"), "{words}");

    let said = house.must(&["env", "create", "net", "dev", "--json"]);
    let made: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(text(&made, "url"), format!("https://dev.net.localhost:{port}/"));
    let basic = encode(&format!(":{}", password(&made)));
    let home = format!("https://two.dev.net.localhost:{port}");
    let mut guest = Visitor::new(&home, &house.data.join("tls/ca.pem"));
    assert_eq!(guest.get("/").status, 401);
    guest.headers.push(("Authorization".into(), format!("Basic {basic}")));
    let page = guest.get("/");
    assert_eq!(page.status, 200, "{} {:?}", page.body, page.headers);
    assert!(page.body.contains("Of two") && page.body.contains(&home), "{}", page.body);
    assert!(!page.body.contains("//two.net.localhost"), "{}", page.body);
    let nested = house.php(
        "net--dev",
        "switch_to_blog(2); echo unserialize(get_option('test_nested')['a'])['u'], ' ', wp_get_environment_type();",
    );
    assert_eq!(nested, format!("{home}/y development"));
    let mut reader =
        Visitor::new(&format!("https://two.net.localhost:{port}"), &house.data.join("tls/ca.pem"));
    assert!(reader.get("/").body.contains("Of two"), "the site is as it was");
    house.must(&["env", "remove", "net", "dev", "--yes"]);
    assert_eq!(guest.get("/").status, 421);
}
