//! A multisite network is one site: its blogs have their own addresses, pages, purges and schedules.

use std::time::{Duration, Instant};

use crate::house::{House, PASSWORD, free_port, wait_until};
use crate::visitor::{Answer, Visitor};

const SOON: Duration = Duration::from_secs(10);

/// Makes a blog as the form in the network's admin does, and returns its number.
fn make_blog(editor: &mut Visitor, name: &str, title: &str) {
    let form = editor.get("/wp-admin/network/site-new.php").body;
    let nonce = form
        .split("name=\"_wpnonce_add-blog\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_else(|| panic!("no form for a new blog: {form}"));
    let fields = [
        ("_wpnonce_add-blog", nonce),
        ("blog[domain]", name),
        ("blog[title]", title),
        ("blog[email]", "admin@example.com"),
        ("WPLANG", ""),
    ];
    let answer = editor.post("/wp-admin/network/site-new.php?action=add-site", &fields);
    assert_eq!(answer.status, 302, "a new blog: {}", answer.body);
    assert!(answer.header("location").contains("update=added"), "{answer:?}");
}

/// Asks a blog's REST interface as who is logged in.
fn publish(editor: &mut Visitor, blog: &str, post: &serde_json::Value) -> serde_json::Value {
    let nonce = editor.get(&format!("{blog}wp-admin/admin-ajax.php?action=rest-nonce")).body;
    let more = [("Content-Type", "application/json".to_owned()), ("X-WP-Nonce", nonce)];
    let path = format!("{blog}index.php?rest_route=/wp/v2/posts");
    let answer = editor.ask("POST", &path, &more, post.to_string()).expect("an answer");
    assert_eq!(answer.status, 201, "{}", answer.body);
    serde_json::from_str(&answer.body).expect("JSON")
}

fn settle(reader: &mut Visitor, path: &str) -> Answer {
    let mut page = reader.get(path);
    wait_until(&format!("a hit of {path}"), SOON, || {
        page = reader.get(path);
        page.cache() == "hit"
    });
    page
}

fn sees(reader: &mut Visitor, path: &str, words: &str) {
    wait_until(&format!("`{words}` in {path}"), SOON, || reader.get(path).body.contains(words));
}

#[test]
fn a_site_becomes_a_network_of_subdirectories() {
    let mut house = House::empty();
    house.configure("[[site]]\nname = \"net\"");
    house.up();
    let url = house.php(
        "net",
        "echo get_permalink( wp_insert_post( [ 'post_title' => 'From before', 'post_status' => 'publish' ] ) );",
    );
    let before = format!("/{}", url.splitn(4, '/').nth(3).expect("a path"));
    let mut reader = house.visitor("net");
    sees(&mut reader, &before, "From before");
    settle(&mut reader, "/");

    let network = "[[site]]\nname = \"net\"\nnetwork = \"subdirectories\"";
    house.configure(network);
    let plan = house.must(&["apply", "--dry-run"]);
    assert!(plan.contains("make `net` a network"), "{plan}");
    house.must(&["apply", "--yes"]);
    wait_until("health", Duration::from_secs(30), || house.is_healthy());
    assert_eq!(house.php("net", "echo (int) is_multisite(), get_current_blog_id();"), "11");
    sees(&mut reader, &before, "From before");

    let mut editor = house.visitor("net");
    editor.log_in("admin", PASSWORD);
    make_blog(&mut editor, "two", "The second");
    sees(&mut reader, "/two/", "The second");
    serves_the_places_of_wordpress(&mut editor, &mut reader);
    keeps_purges_apart(&house, &mut editor, &mut reader);
    keeps_old_files(&house, &mut reader);
    runs_schedules_on_time(&house, &mut editor, &mut reader);
    stays_a_network(&house);

    house.https = free_port();
    house.configure(network);
    house.must(&["apply", "--yes"]);
    wait_until("health", Duration::from_secs(30), || house.is_healthy());
    let mut reader = house.visitor("net");
    sees(&mut reader, "/two/", "Renamed");
    let page = reader.get("/two/").body;
    assert!(page.contains(&format!("{}/two/", house.home("net"))), "{page}");
    assert_eq!(reader.get(&before).status, 200);
    let mut editor = house.visitor("net");
    editor.log_in("admin", PASSWORD);
    assert_eq!(editor.get("/two/wp-admin/").status, 200);
}

fn serves_the_places_of_wordpress(editor: &mut Visitor, reader: &mut Visitor) {
    let script = "wp-includes/js/jquery/jquery.min.js";
    let (theirs, ours) = (reader.get(&format!("/two/{script}")), reader.get(&format!("/{script}")));
    assert_eq!((theirs.status, &theirs.body), (200, &ours.body));
    let folder = reader.get("/two/wp-admin");
    assert_eq!((folder.status, folder.header("location")), (301, "/two/wp-admin/"));
    // The door gives a cookie to whoever looks at it.
    let door = reader.clone().get("/two/wp-login.php");
    assert_eq!((door.status, door.cache()), (200, "bypass"));
    assert_eq!(reader.get("/two/wp-admin/").status, 302);
    for path in ["/two/wp-config.php", "/two/.git/config", "/two/wp-content/uploads/a.php"] {
        assert_eq!(reader.get(path).status, 404, "{path}");
    }
    // Logged in at the main blog.
    for path in ["/two/wp-admin/", "/two/wp-admin/edit.php", "/wp-admin/network/sites.php"] {
        let page = editor.get(path);
        assert_eq!((page.status, page.cache()), (200, "bypass"), "{path}: {}", page.body);
    }
    assert!(editor.get("/wp-admin/network/sites.php").body.contains("/two/wp-admin/"));
}

fn keeps_purges_apart(house: &House, editor: &mut Visitor, reader: &mut Visitor) {
    settle(reader, "/two/");
    settle(reader, "/");
    let post = publish(
        editor,
        "/two/",
        &serde_json::json!({ "title": "Only in two", "status": "publish" }),
    );
    let link = post["link"].as_str().expect("a link");
    assert!(link.starts_with(&format!("{}/two/", house.home("net"))), "{link}");
    sees(reader, "/two/", "Only in two");
    assert_eq!(reader.get("/").cache(), "hit", "a post of one blog leaves the others' pages");
    settle(reader, "/two/");
    let file = house.php(
        "net",
        "switch_to_blog( 2 ); update_option( 'blogname', 'Renamed' ); \
         echo wp_parse_url( wp_upload_bits( 'a.pdf', null, 'a file of two' )['url'], PHP_URL_PATH );",
    );
    assert!(file.contains("/wp-content/uploads/sites/2/"), "{file}");
    sees(reader, "/two/", "Renamed");
    assert_eq!(reader.get("/").cache(), "hit", "nor does an option");
    let name = file.split("/wp-content/").nth(1).expect("a path");
    for path in [format!("/wp-content/{name}"), format!("/two/wp-content/{name}")] {
        assert_eq!(reader.get(&path).body, "a file of two", "{path}");
    }
    house.must(&["cache", "purge", "net", "--tag", "2:site"]);
    assert_eq!(reader.get("/").cache(), "hit", "nor a purge by hand");
}

/// As networks have them that were made before WordPress 3.5.
fn keeps_old_files(house: &House, reader: &mut Visitor) {
    house.php("net", "update_site_option( 'ms_files_rewriting', 1 );");
    let file = house.php(
        "net",
        "switch_to_blog( 2 ); update_option( 'upload_path', 'wp-content/blogs.dir/2/files' ); \
         echo wp_parse_url( wp_upload_bits( 'old.pdf', null, 'of old' )['url'], PHP_URL_PATH );",
    );
    let (_, name) = file.split_once("/blogs.dir/2/files/").expect("a path");
    let led = reader.get(&format!("/two/files/{name}"));
    let to = format!("{}/two/wp-content/uploads/blogs.dir/2/files/{name}", house.home("net"));
    assert_eq!((led.status, led.header("location")), (301, to.as_str()));
    assert_eq!(reader.get(&file).body, "of old");
    house.php("net", "update_site_option( 'ms_files_rewriting', 0 );");
    house.php("net", "switch_to_blog( 2 ); update_option( 'upload_path', '' );");
}

fn runs_schedules_on_time(house: &House, editor: &mut Visitor, reader: &mut Visitor) {
    // WordPress publishes at once what is less than a minute away: an hour, and then nearer behind its back.
    let at = house.php("net", "echo gmdate( 'Y-m-d\\TH:i:s', time() + 3600 );");
    let post =
        serde_json::json!({ "title": "At its time", "status": "future", "date_gmt": at.trim() });
    let post = publish(editor, "/two/", &post);
    assert_eq!(post["status"], "future");
    let id = post["id"].as_u64().expect("a number");
    house.php(
        "net",
        &format!(
            "switch_to_blog( 2 ); $at = time() + 4; $date = gmdate( 'Y-m-d H:i:s', $at ); \
             $wpdb->update( $wpdb->posts, [ 'post_date' => $date, 'post_date_gmt' => $date ], [ 'ID' => {id} ] ); \
             clean_post_cache( {id} ); wp_clear_scheduled_hook( 'publish_future_post', [ {id} ] ); \
             wp_schedule_single_event( $at, 'publish_future_post', [ {id} ] );"
        ),
    );
    let due = Instant::now() + Duration::from_secs(4);
    settle(reader, "/two/");
    assert!(!reader.get("/two/").body.contains("At its time"));
    wait_until("the post, without a visit of its blog's PHP", Duration::from_secs(15), || {
        reader.get("/two/").body.contains("At its time")
    });
    let late = due.elapsed();
    println!("published and seen {} ms after its time", late.as_millis());
    assert!(late < Duration::from_secs(4), "{late:?} too late");
}

fn stays_a_network(house: &House) {
    for (network, becomes) in [("", "a single site"), ("network = \"subdomains\"", "subdomains")] {
        let domains = "domains = [\"net.localhost\", \"*.net.localhost\"]";
        house.configure(&format!("[[site]]\nname = \"net\"\n{domains}\n{network}"));
        let output = house.run(&["apply", "--yes"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(becomes), "{said}");
        assert!(said.contains("network = \"subdirectories\""), "{said}");
    }
}

#[test]
fn a_network_of_subdomains_is_installed_at_once() {
    let house = House::empty();
    house.configure(
        "[[site]]\nname = \"net\"\ndomains = [\"net.localhost\", \"*.net.localhost\", \"mapped.localhost\"]\n\
         network = \"subdomains\"",
    );
    house.up();
    let authority = house.data.join("tls/ca.pem");
    let home = |host: &str| format!("https://{host}:{}", house.https);
    let mut editor = house.visitor("net");
    editor.log_in("admin", PASSWORD);
    make_blog(&mut editor, "two", "The second");
    // Its name is served, and the certificate is good for it.
    let mut reader = Visitor::new(&home("two.net.localhost"), &authority);
    sees(&mut reader, "/", "The second");
    assert!(reader.get("/").body.contains(&home("two.net.localhost")), "links with the port");
    assert_eq!(reader.get("/wp-includes/js/jquery/jquery.min.js").status, 200);
    settle(&mut reader, "/");
    let mut main = house.visitor("net");
    assert!(!settle(&mut main, "/").body.contains("The second"));

    // One login for all blogs of the domain: the cookie says so, without a port.
    let mut fresh = house.visitor("net");
    fresh.get("/wp-login.php");
    let fields = [("log", "admin"), ("pwd", PASSWORD), ("testcookie", "1")];
    let answer = fresh.post("/wp-login.php", &fields);
    let cookies: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "set-cookie").collect();
    let is_shared = |line: &str| line.to_lowercase().contains("domain=.net.localhost;");
    assert!(cookies.iter().any(|(_, line)| line.starts_with("wordpress_logged_in_")));
    assert!(cookies.iter().all(|(_, line)| is_shared(line)), "{cookies:?}");
    let mut second = Visitor::new(&home("two.net.localhost"), &authority);
    second.cookies = fresh.cookies.clone();
    let desk = second.get("/wp-admin/");
    assert_eq!(desk.status, 200, "{}", desk.body);

    // A blog gets a domain of its own.
    house.php(
        "net",
        "wp_update_site( 2, [ 'domain' => 'mapped.localhost:' . wp_parse_url( PRESSROOM_HOME, PHP_URL_PORT ) ] ); \
         switch_to_blog( 2 ); foreach ( [ 'home', 'siteurl' ] as $o ) { \
         update_option( $o, str_replace( 'two.net.', 'mapped.', get_option( $o ) ) ); }",
    );
    let mut mapped = Visitor::new(&home("mapped.localhost"), &authority);
    sees(&mut mapped, "/", "The second");
    mapped.get("/wp-login.php");
    let answer = mapped.post("/wp-login.php", &fields);
    let domains = answer.headers.iter().filter(|(name, _)| name == "set-cookie");
    assert!(domains.into_iter().all(|(_, line)| !line.to_lowercase().contains("domain=")));
    assert_eq!(mapped.get("/wp-admin/").status, 200);
}
