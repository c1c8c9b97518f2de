//! Code that is changed in wp-admin: it becomes a release, or nothing of it stays; and who may not change it.

use std::fs;
use std::io::{Cursor, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::house::{House, PASSWORD, is_root, signal, tree_with, wait_until};
use crate::runtimes::{Runtime, battery};
use crate::visitor::{Answer, Visitor};

/// A plugin as it is uploaded: it writes its version below each page, and does what its code says.
pub(crate) fn plugin(version: &str, code: &str) -> Vec<u8> {
    let text = format!(
        "<?php\n/*\nPlugin Name: Greeter\nVersion: {version}\n*/\n\
         add_action('wp_footer', function () {{ echo 'greeter {version} of {version}'; }});\n{code}"
    );
    zip(&[("greeter/greeter.php", &text), ("greeter/readme.txt", "Greets.")])
}

fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (path, text) in files {
        archive.start_file(*path, options).expect("a file");
        archive.write_all(text.as_bytes()).expect("written");
    }
    archive.finish().expect("an archive").into_inner()
}

battery! { nobody_without_a_session_changes_code }

fn furnished(
    runtime: Runtime,
    instances: u16,
    files: &[(&str, &str)],
) -> (House, Visitor, Visitor) {
    let house = runtime.house();
    let tree = tree_with(house.folder(), files);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}\n[site.php]\nruntime = \"{}\"\nworkers = 2\ninstances = {{ min = {instances}, max = {instances} }}",
        tree.display(),
        runtime.word()
    ));
    house.up();
    let visitor = house.visitor("blog");
    let mut admin = house.visitor("blog");
    admin.log_in("admin", PASSWORD);
    (house, visitor, admin)
}

/// The value of a hidden field or of a parameter in a link.
fn nonce(page: &str, before: &str) -> String {
    let start = page.find(before).unwrap_or_else(|| panic!("no {before} in {page}")) + before.len();
    page[start..].chars().take_while(char::is_ascii_alphanumeric).collect()
}

const UPLOAD_NONCE: &str = "name=\"_wpnonce\" value=\"";

fn upload(admin: &mut Visitor, zip: &[u8]) -> Answer {
    let page = admin.get("/wp-admin/plugin-install.php?tab=upload").body;
    let nonce = nonce(&page, UPLOAD_NONCE);
    admin.upload(
        "/wp-admin/update.php?action=upload-plugin",
        &[("_wpnonce", &nonce), ("_wp_http_referer", "/wp-admin/plugin-install.php")],
        ("pluginzip", "greeter.zip", zip),
    )
}

pub(crate) fn list(house: &House) -> Vec<Value> {
    let list: Value =
        serde_json::from_str(&house.must(&["release", "list", "blog", "--json"])).expect("JSON");
    list.as_array().expect("a list").clone()
}

fn serving(house: &House) -> Value {
    let found = list(house).into_iter().find(|record| record["standing"] == "serving");
    found.expect("one serves")
}

/// Every instance says so: pages that nobody has asked for before are rendered, each by the next one.
fn everywhere(visitor: &mut Visitor, words: &str) -> bool {
    (0..12).all(|n| {
        let salt = format!("{:?}", Instant::now()).len() + n;
        visitor.get(&format!("/?nobody={n}-{salt}-{words}").replace(' ', "_")).body.contains(words)
    })
}

#[test]
fn what_is_changed_in_wp_admin_becomes_a_release() {
    let (house, mut visitor, mut admin) = furnished(Runtime::Process, 3, &[]);
    let first = serving(&house);

    // Install.
    let begun = Instant::now();
    let page = upload(&mut admin, &plugin("1.0", ""));
    assert!(page.body.contains("Plugin installed successfully"), "{}", page.body);
    println!("installed after {:?}", begun.elapsed());
    let record = serving(&house);
    assert_ne!(record["id"], first["id"]);
    assert_eq!(record["message"], "Install the plugin Greeter 1.0");
    assert!(record["author"].as_str().expect("an author").starts_with("admin <admin@"), "{record}");
    assert_eq!(record["source"], "wp-admin");

    // Activate: the database names what every instance has.
    let link = nonce(
        &page.body,
        "plugins.php?action=activate&amp;plugin=greeter%2Fgreeter.php&amp;_wpnonce=",
    );
    let path = format!(
        "/wp-admin/plugins.php?action=activate&plugin=greeter%2Fgreeter.php&_wpnonce={link}"
    );
    assert_eq!(admin.get(&path).status, 302);
    assert!(everywhere(&mut visitor, "greeter 1.0"));

    // Update, by an upload over it, while it is active: no visitor is without it.
    let page = upload(&mut admin, &plugin("2.0", ""));
    assert!(page.body.contains("This plugin is already installed"), "{}", page.body);
    let start = page.body.find("overwrite=update-plugin").expect("the link");
    let from = page.body[..start].rfind("update.php?").expect("the link");
    let link = page.body[from..].split('"').next().expect("its end").replace("&amp;", "&");
    let begun = Instant::now();
    let page = admin.get(&format!("/wp-admin/{link}"));
    assert!(page.body.contains("Plugin updated successfully"), "{}", page.body);
    println!("updated after {:?}", begun.elapsed());
    assert!(everywhere(&mut visitor, "greeter 2.0"));
    assert_eq!(serving(&house)["message"], "Update the plugin Greeter 2.0");

    // Edit a file of the theme.
    let theme = admin.get("/wp-admin/theme-editor.php?file=style.css").body;
    let field = "name=\"nonce\" value=\"";
    let stylesheet = {
        let start = theme.find("name=\"theme\" value=\"").expect("the theme") + 20;
        theme[start..].split('"').next().expect("its end").to_owned()
    };
    let begun = Instant::now();
    let answer = admin.post(
        "/wp-admin/admin-ajax.php",
        &[
            ("action", "edit-theme-plugin-file"),
            ("nonce", &nonce(&theme, field)),
            ("theme", &stylesheet),
            ("file", "style.css"),
            ("newcontent", "/* edited in wp-admin */"),
        ],
    );
    assert!(answer.body.contains("\"success\":true"), "{}", answer.body);
    println!("edited after {:?}", begun.elapsed());
    let css = format!("/wp-content/themes/{stylesheet}/style.css");
    assert!(visitor.get(&css).body.contains("edited in wp-admin"));

    // Break a plugin in the editor: WordPress asks its own site, on the author instance, and puts it back.
    let editor = admin
        .get("/wp-admin/plugin-editor.php?file=greeter%2Fgreeter.php&plugin=greeter%2Fgreeter.php")
        .body;
    let fields = |content: &'static str, nonce: &str| {
        vec![
            ("action".to_owned(), "edit-theme-plugin-file".to_owned()),
            ("nonce".to_owned(), nonce.to_owned()),
            ("plugin".to_owned(), "greeter/greeter.php".to_owned()),
            ("file".to_owned(), "greeter/greeter.php".to_owned()),
            ("newcontent".to_owned(), content.to_owned()),
        ]
    };
    let send = |admin: &mut Visitor, content: &'static str| {
        let fields = fields(content, &nonce(&editor, field));
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        admin.post("/wp-admin/admin-ajax.php", &fields).body
    };
    let before = serving(&house)["id"].clone();
    let answer = send(&mut admin, "<?php\n/* Plugin Name: Greeter */\nif (;");
    assert!(answer.contains("\"success\":false") && answer.contains("syntax error"), "{answer}");
    assert_eq!(serving(&house)["id"], before);
    // What WordPress's own questions do not find, the check of the candidate does.
    let answer = send(
        &mut admin,
        "<?php\n/* Plugin Name: Greeter */\nadd_action('template_redirect', function () { if (!is_user_logged_in()) { not_there(); } });",
    );
    assert!(answer.contains("not_there") && answer.contains("goes on with the code"), "{answer}");
    assert_eq!(serving(&house)["id"], before);
    assert!(everywhere(&mut visitor, "greeter 2.0"));

    // Delete: deactivate first, as WordPress wants it.
    let plugins = admin.get("/wp-admin/plugins.php").body;
    let link = nonce(
        &plugins,
        "plugins.php?action=deactivate&amp;plugin=greeter%2Fgreeter.php&amp;plugin_status=all&amp;paged=1&amp;s&amp;_wpnonce=",
    );
    admin.get(&format!("/wp-admin/plugins.php?action=deactivate&plugin=greeter%2Fgreeter.php&plugin_status=all&paged=1&s&_wpnonce={link}"));
    let updates = nonce(&plugins, "\"ajax_nonce\":\"");
    let answer = admin.post(
        "/wp-admin/admin-ajax.php",
        &[
            ("action", "delete-plugin"),
            ("_ajax_nonce", &updates),
            ("plugin", "greeter/greeter.php"),
            ("slug", "greeter"),
        ],
    );
    assert!(answer.body.contains("\"success\":true"), "{}", answer.body);
    assert!(!house.tree("blog").join("wp-content/plugins/greeter").exists());
    assert_eq!(serving(&house)["message"], "Delete the plugin greeter/greeter.php");
    house.must(&["release", "verify", "blog"]);

    // And back.
    house.must(&["release", "rollback", "blog"]);
    assert!(house.tree("blog").join("wp-content/plugins/greeter").exists());
    assert_eq!(list(&house).len(), 5, "each change is a release: {:?}", list(&house));
}

/// Whoever has unpacked a plugin says so, and waits until it may go on; it prints meanwhile, as somebody who is not heard.
const GATE: &str = "<?php add_filter('upgrader_install_package_result', function ($result) {\n\
    $dir = wp_upload_dir()['basedir'];\n\
    file_put_contents(\"$dir/begun.txt\", 'x', FILE_APPEND);\n\
    for ($n = 0; $n < 600 && !file_exists(\"$dir/go.txt\"); $n++) { echo str_repeat(' ', 9000); wp_ob_end_flush_all(); flush(); usleep(50000); clearstatcache(); }\n\
    return $result; }, 1);";

#[test]
fn a_change_whose_client_has_left_is_published_whole_before_the_next_one() {
    let (house, mut visitor, mut admin) = furnished(
        Runtime::Process,
        1,
        &[
            ("wp-content/mu-plugins/gate.php", GATE),
            ("wp-content/plugins/notes/notes.php", "<?php\n/* Plugin Name: Notes */"),
            ("wp-content/plugins/notes/notes.txt", "note 0"),
        ],
    );
    let uploads = house.data.join("sites/blog/uploads");
    let page = admin.get("/wp-admin/plugin-install.php?tab=upload").body;
    let nonce = nonce(&page, UPLOAD_NONCE);
    let client = admin.begin_upload(
        "/wp-admin/update.php?action=upload-plugin",
        &[("_wpnonce", &nonce), ("_wp_http_referer", "/wp-admin/plugin-install.php")],
        ("pluginzip", "greeter.zip", &plugin("1.0", "")),
    );
    wait_until("the plugin to be unpacked", Duration::from_secs(30), || {
        uploads.join("begun.txt").exists()
    });
    drop(client);
    // Who comes next waits: for as long as the first has not ended.
    let next = std::thread::spawn({
        let mut admin = admin.clone();
        move || edit_note(&mut admin, "note 1").expect("an answer").body
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert!(!next.is_finished(), "the turn has ended with the client");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(list(&house).len(), 1);
    fs::write(uploads.join("go.txt"), "").expect("written");
    let answer = next.join().expect("no panic");
    assert!(answer.contains("\"success\":true"), "{answer}");
    let messages: Vec<Value> =
        list(&house).iter().take(2).map(|record| record["message"].clone()).collect();
    assert_eq!(
        messages,
        ["Edit wp-content/plugins/notes/notes.txt", "Install the plugin Greeter 1.0"]
    );
    assert_eq!(visitor.get("/wp-content/plugins/notes/notes.txt").body, "note 1");
    assert!(house.tree("blog").join("wp-content/plugins/greeter/greeter.php").exists());
    house.must(&["release", "verify", "blog"]);
}

#[test]
fn a_deploy_waits_for_a_change_and_keeps_nothing_of_it_back() {
    let (house, mut visitor, mut admin) = furnished(
        Runtime::Process,
        1,
        &[
            ("wp-content/mu-plugins/gate.php", GATE),
            ("wp-content/plugins/notes/notes.php", "<?php\n/* Plugin Name: Notes */"),
            ("wp-content/plugins/notes/notes.txt", "note 0"),
        ],
    );
    let uploads = house.data.join("sites/blog/uploads");
    let tree = house.folder().join("tree");
    fs::write(tree.join("deployed.txt"), "deployed").expect("written");
    let installing = std::thread::spawn({
        let mut admin = admin.clone();
        move || upload(&mut admin, &plugin("1.0", "")).body
    });
    wait_until("the plugin to be unpacked", Duration::from_secs(30), || {
        uploads.join("begun.txt").exists()
    });
    let deployed = std::thread::scope(|scope| {
        let deploying =
            scope.spawn(|| house.run(&["deploy", "blog", &tree.to_string_lossy(), "--wait"]));
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(1) {
            assert!(!deploying.is_finished(), "it has not waited");
            std::thread::sleep(Duration::from_millis(50));
        }
        fs::write(uploads.join("go.txt"), "").expect("written");
        deploying.join().expect("no panic")
    });
    let page = installing.join().expect("no panic");
    assert!(page.contains("Plugin installed successfully"), "{page}");
    let words = String::from_utf8_lossy(&deployed.stderr).into_owned();
    assert!(deployed.status.success(), "{words}");
    // What is deployed is all there is: the plugin is in the release before, which says so.
    assert_eq!(visitor.get("/deployed.txt").body, "deployed");
    assert_eq!(list(&house)[1]["message"], "Install the plugin Greeter 1.0");
    let answer = edit_note(&mut admin, "note 1").expect("an answer").body;
    assert!(answer.contains("\"success\":true"), "{answer}");
    assert_eq!(visitor.get("/deployed.txt?again").body, "deployed");
    house.must(&["release", "verify", "blog"]);
}

/// Takes what is left of a disk, but for some bytes.
fn fill(file: &std::path::Path, but: u64) {
    let free = || {
        let stat = rustix::fs::statvfs(file.parent().expect("a folder")).expect("a file system");
        stat.f_bavail * stat.f_frsize
    };
    let mut filler = fs::File::create(file).expect("made");
    while free() > but {
        let piece = usize::try_from((free() - but).min(1 << 20)).expect("small");
        if filler.write_all(&vec![0; piece]).is_err() {
            break;
        }
    }
}

#[test]
fn a_full_disk_refuses_new_code_and_leaves_what_serves() {
    if !is_root() {
        return;
    }
    let house = House::on_a_small_disk(1500);
    let files = [
        ("wp-content/plugins/notes/notes.php", "<?php\n/* Plugin Name: Notes */"),
        ("wp-content/plugins/notes/notes.txt", "note 0"),
    ];
    let tree = tree_with(house.folder(), &files);
    house.configure(&format!(
        "[[site]]\nname = \"blog\"\nwordpress = {{ path = \"{}\" }}\n[site.php]\nworkers = 2",
        tree.display()
    ));
    house.up();
    let mut visitor = house.visitor("blog");
    let mut admin = house.visitor("blog");
    admin.log_in("admin", PASSWORD);
    let answer = edit_note(&mut admin, "note 1").expect("an answer").body;
    assert!(answer.contains("\"success\":true"), "{answer}");
    let before = serving(&house)["id"].clone();
    // What is being compiled takes room, and gives it back.
    wait_until("the release to be compiled", Duration::from_secs(60), || house.is_compiled("blog"));

    fs::write(tree.join("big.bin"), vec![1; 16 << 20]).expect("written");
    let filler = house.data.join("filler");
    for but in [4 << 20, 0] {
        fill(&filler, but);
        let output = house.run(&["deploy", "blog", &tree.to_string_lossy(), "--wait"]);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{but} bytes are left: {}: {words}", output.status);
        assert!(!output.status.success(), "{words}");
        assert!(words.contains("No space left"), "{words}");
        assert!(words.contains("still serves"), "{words}");
        assert_eq!(serving(&house)["id"], before);
        // Whatever is said to it (by the edge, that it is too big): what is not written whole is no code.
        for (times, fits) in [(1 << 20, false), (12_000, but > 0)] {
            let answer = edit_note(&mut admin, &"note 2 ".repeat(times));
            let body = answer.map(|answer| answer.body).unwrap_or_default();
            println!("an edit: {}", body.chars().take(300).collect::<String>());
            assert!(fits || !body.contains("\"success\":true"), "{body}");
        }
        if but > 0 {
            let answer = edit_note(&mut admin, "note 1").expect("an answer").body;
            assert!(answer.contains("\"success\":true"), "{answer}");
        }
        assert_eq!(visitor.get("/wp-content/plugins/notes/notes.txt").body, "note 1");
        house.must(&["release", "verify", "blog"]);
        fs::remove_file(&filler).expect("removed");
    }
    wait_until("health", Duration::from_secs(60), || house.is_healthy());
    let answer = edit_note(&mut admin, "note 3").expect("an answer").body;
    assert!(answer.contains("\"success\":true"), "{answer}");
    house.must(&["deploy", "blog", &tree.to_string_lossy(), "--wait"]);
    assert_eq!(visitor.get("/big.bin").body.len(), 16 << 20);
    house.must(&["release", "verify", "blog"]);
    // How much of what served meanwhile is a commit of its own depends on when there was room for it.
    let id = serving(&house)["id"].as_str().expect("an id").to_owned();
    wait_until("the history to catch up", Duration::from_secs(45), || {
        let there = std::process::Command::new("git")
            .args(["-c", "safe.directory=*", "--git-dir"])
            .arg(house.data.join("git/blog.git"))
            .args(["for-each-ref", "--points-at", "main", "refs/pressroom/releases"])
            .output();
        there.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains(&id))
    });
}

/// Edits a file of the plugin `notes`.
fn edit_note(admin: &mut Visitor, text: &str) -> std::io::Result<Answer> {
    let path = "/wp-admin/plugin-editor.php?file=notes%2Fnotes.txt&plugin=notes%2Fnotes.php";
    let page = admin.try_get(path)?.body;
    let found = page.contains("name=\"nonce\" value=\"");
    let nonce = if found { nonce(&page, "name=\"nonce\" value=\"") } else { String::new() };
    admin.try_post(
        "/wp-admin/admin-ajax.php",
        &[
            ("action", "edit-theme-plugin-file"),
            ("nonce", &nonce),
            ("plugin", "notes/notes.php"),
            ("file", "notes/notes.txt"),
            ("newcontent", text),
        ],
    )
}

/// Offers a version of the plugin, and has it updated automatically.
const OFFER: &str = "<?php add_filter('site_transient_update_plugins', function ($known) {\n\
    $known = is_object($known) ? $known : new stdClass();\n\
    $file = WP_PLUGIN_DIR . '/greeter/greeter.php';\n\
    if (file_exists($file) && !str_contains(file_get_contents($file), 'Version: 3.0')) {\n\
    $known->response['greeter/greeter.php'] = (object) ['id' => 'greeter', 'slug' => 'greeter', 'plugin' => 'greeter/greeter.php', \
        'new_version' => '3.0', 'package' => wp_upload_dir()['basedir'] . '/greeter-3.zip', 'url' => 'http://localhost/', 'autoupdate' => true];\n}\nreturn $known; });";

#[test]
fn wordpress_updates_itself_when_it_wants_to() {
    let (house, mut visitor, mut admin) =
        furnished(Runtime::Process, 2, &[("wp-content/mu-plugins/offer.php", OFFER)]);
    upload(&mut admin, &plugin("1.0", ""));
    fs::write(house.data.join("sites/blog/uploads/greeter-3.zip"), plugin("3.0", ""))
        .expect("written");
    house.php(
        "blog",
        "require_once ABSPATH . 'wp-admin/includes/plugin.php'; activate_plugin('greeter/greeter.php'); \
         wp_schedule_single_event(time() - 1, 'wp_maybe_auto_update');",
    );
    assert!(everywhere(&mut visitor, "greeter 1.0"));
    wait_until("the update", Duration::from_secs(60), || {
        serving(&house)["message"] == "Update the plugin Greeter 3.0"
    });
    assert_eq!(serving(&house)["author"], "WordPress");
    wait_until("the new version", Duration::from_secs(10), || {
        everywhere(&mut visitor, "greeter 3.0")
    });
    house.must(&["release", "verify", "blog"]);
}

/// A plugin with holes: it writes where it is told to, and runs what it is sent.
const HOLES: &str = "<?php\n/* Plugin Name: Holes */\nadd_action('init', function () {\n\
    if (isset($_GET['hole'])) { header('X-Pressroom-Author: change'); \
    echo 'hole ', getenv('PRESSROOM_AUTHOR') ?: 'none', ' ', (int) @file_put_contents(ABSPATH . $_GET['hole'], '<?php'); exit; }\n});";

fn nobody_without_a_session_changes_code(runtime: Runtime) {
    if runtime == Runtime::Docker && !runtime.can_be_judged() {
        return;
    }
    let (house, mut visitor, mut admin) =
        furnished(runtime, 1, &[("wp-content/mu-plugins/holes.php", HOLES)]);
    let before = serving(&house)["id"].clone();
    // Wake the author instance: somebody installs something.
    let page = upload(&mut admin, &plugin("1.0", ""));
    assert!(page.body.contains("Plugin installed successfully"), "{}", page.body);
    let after = serving(&house)["id"].clone();
    assert_ne!(before, after);
    if let Some(docker) = &house.docker {
        let containers = docker.containers();
        assert_eq!(containers.len(), 3, "serving, parked, and the author's: {containers:?}");
    }

    // A hole on an ordinary instance cannot write, and when it has the edge send the request on, nothing of it is run there.
    let answer =
        visitor.ask("POST", "/wp-admin/admin-ajax.php?hole=x.php", &[], "a=b").expect("an answer");
    assert_eq!((answer.status, answer.body.as_str()), (403, "This request may not change code.\n"));
    assert_eq!(visitor.get("/?hole=wp-content/x.php").body, "hole none 0");
    // No session, no nonce, another capability: WordPress refuses, where nothing can be written.
    for (path, method) in [
        ("/wp-admin/update.php?action=install-plugin&plugin=x&_wpnonce=0123456789", "GET"),
        (
            "/wp-admin/admin-ajax.php?action=delete-plugin&plugin=greeter/greeter.php&slug=greeter&_ajax_nonce=0123456789",
            "POST",
        ),
        ("/wp-json/wp/v2/plugins?slug=x", "POST"),
        ("/?wp_scrape_key=a&wp_scrape_nonce=b", "GET"),
    ] {
        for who in [&mut visitor, &mut admin] {
            who.ask(method, path, &[], "").expect("an answer");
        }
    }
    // A forged nonce of somebody who may not.
    house.php(
        "blog",
        "wp_insert_user(['user_login' => 'ed', 'user_pass' => 'ed-ed-ed', 'role' => 'editor']);",
    );
    let mut editor = house.visitor("blog");
    editor.log_in("ed", "ed-ed-ed");
    let answer = editor.post(
        "/wp-admin/admin-ajax.php",
        &[
            ("action", "delete-plugin"),
            ("plugin", "greeter/greeter.php"),
            ("slug", "greeter"),
            ("_ajax_nonce", "0123456789"),
        ],
    );
    assert!(!answer.body.contains("\"success\":true"), "{}", answer.body);
    assert_eq!(serving(&house)["id"], after, "nothing of this is a release");

    if is_root() {
        // The site's own PHP reaches neither the author's files nor its sockets.
        let (tree, run) = (house.data.join("authors/blog/tree"), house.data.join("run"));
        let author: PathBuf = fs::read_dir(run.join("php"))
            .expect("the sockets")
            .flatten()
            .map(|entry| entry.path())
            .find(|path| {
                use std::os::unix::fs::MetadataExt;
                path.metadata().is_ok_and(|meta| meta.uid() == 0)
            })
            .expect("the author's folder");
        let seen = house.php(
            "blog",
            &format!(
                "echo json_encode([@scandir('{}'), @stream_socket_client('unix://{}/fpm.sock'), @stream_socket_client('unix://{}/author/blog.change'), @stream_socket_client('unix://{}/../authors/blog/desk.sock')]);",
                tree.display(), author.display(), run.display(), run.display()
            ),
        );
        assert_eq!(seen, "[false,false,false,false]");
    }
    wait_until("health", Duration::from_secs(10), || house.is_healthy());
    house.must(&["release", "verify", "blog"]);
}

#[test]
fn a_change_in_wp_admin_that_is_cut_off_anywhere_leaves_one_whole_release() {
    let (house, mut visitor, mut admin) = furnished(
        Runtime::Process,
        2,
        &[
            ("wp-content/plugins/notes/notes.php", "<?php\n/* Plugin Name: Notes */"),
            ("wp-content/plugins/notes/notes.txt", "note 0"),
        ],
    );
    let rounds: u64 =
        std::env::var("PRESSROOM_TEST_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let note = "/wp-content/plugins/notes/notes.txt";
    for round in 0..rounds {
        let is_power_cut = round % 2 == 1;
        let (pids, agent) = (house.pids(), house.pid("/agent/pid"));
        let cutting = std::thread::spawn(move || {
            // Spread over the whole change, each time elsewhere.
            std::thread::sleep(Duration::from_millis(100 + round * 2500 / rounds.max(1)));
            let all = pids.into_iter().filter_map(|(_, pid)| i32::try_from(pid).ok());
            let killed: Vec<i32> = if is_power_cut { all.collect() } else { vec![agent] };
            for pid in killed.into_iter().filter(|pid| *pid > 0) {
                signal(pid, rustix::process::Signal::KILL);
            }
        });
        // It may have been quicker than the cut.
        let cut = edit_note(&mut admin, &format!("note {}", round + 1));
        cutting.join().expect("no panic");
        if is_power_cut {
            house.up();
        } else {
            // PHP waits for the next agent, and hears from it how the publication ended.
            let answer = cut.expect("the edge and PHP are there").body;
            assert!(answer.contains("\"success\":true"), "round {round}: {answer}");
        }
        wait_until("health", Duration::from_secs(60), || house.is_healthy());
        let text = visitor.get(note).body;
        let (old, new) = (format!("note {round}"), format!("note {}", round + 1));
        assert!(text == old || text == new, "{text}");
        house.must(&["release", "verify", "blog"]);
        // Whatever was left, the same change is made again.
        let answer = edit_note(&mut admin, &new).expect("an answer").body;
        assert!(answer.contains("\"success\":true"), "{answer}");
        assert_eq!(visitor.get(note).body, new);
        house.must(&["release", "verify", "blog"]);
    }
}
