//! The commands from outside: typed arguments in, exit status and words out, over a real agent's socket whose operator
//! and machine are made for the test.

mod stage;

use std::path::Path;
use std::time::{Duration, Instant};

use stage::Stage;

const UP: &str =
    "up --detach --http 127.0.0.1:8001 --https 127.0.0.1:8002 --console 127.0.0.1:8003 --site blog";

#[test]
fn the_first_up_writes_the_file_and_shows_the_password_once() {
    let stage = Stage::new();
    let first = stage.run(UP);
    assert_eq!(first.status, 0, "{first:?}");
    assert!(
        first.data.contains("https://localhost:8002/") && first.data.contains("open sesame"),
        "{first:?}"
    );
    assert!(
        first.talk.contains("✓ visit `blog` over HTTPS") && first.talk.contains("next:"),
        "{first:?}"
    );
    let file = stage.file();
    assert!(
        file.contains("https = [\"127.0.0.1:8002\"]") && file.contains("name = \"blog\""),
        "{file}"
    );
    let second = stage.run(UP);
    assert_eq!((second.status, second.data.contains("open sesame")), (0, false), "{second:?}");
    assert_eq!(stage.file(), file);
}

#[test]
fn other_ports_given_again_change_the_file_and_what_is_applied() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    stage.write(&format!("{}# mine\n", stage.file()));
    let again = stage.run("up --detach --https 127.0.0.1:9002");
    assert!(again.data.contains("https://localhost:9002/"), "{again:?}");
    assert!(stage.file().contains("127.0.0.1:8001") && stage.file().ends_with("# mine\n"));
}

#[test]
fn a_given_password_is_used_and_never_shown() {
    let stage = Stage::new();
    std::fs::write(stage.data().join("password"), "hunter2\n").expect("written");
    let done = stage.run(&format!(
        "{UP} --admin-user eve --admin-password-file {}/password",
        stage.data().display()
    ));
    assert_eq!(done.status, 0, "{done:?}");
    assert!(!format!("{done:?}").contains("hunter2") && done.data.contains("as `eve`"), "{done:?}");
    assert_eq!(stage.given_passwords(), ["hunter2"]);
    let absent = stage.run("up --detach --admin-password-file /nonexistent/password");
    assert_eq!(absent.status, 1);
    assert!(
        absent.talk.contains("cannot read the password from `/nonexistent/password`"),
        "{absent:?}"
    );
}

#[test]
fn up_without_detach_returns_at_once_when_it_runs_already() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    let again = stage.run("up");
    assert_eq!(again.status, 0);
    assert!(again.talk.contains("running before"), "{again:?}");
}

#[test]
fn faults_of_the_file_are_all_shown_with_their_places_and_nothing_is_started() {
    let stage = Stage::new();
    stage.write("[edge]\nhtpp = []\n\n[[site]]\nname = 'Blog'\n");
    for verb in ["up --detach", "apply", "config check"] {
        let done = stage.run(verb);
        assert_eq!(done.status, 1, "{verb}");
        assert!(
            done.talk.contains(
                "pressroom.toml:2:1: unknown key `htpp` in `[edge]` (did you mean `http`?)"
            ),
            "{done:?}"
        );
        assert!(done.talk.contains("pressroom.toml:5:8: `site.name` cannot be `Blog`"), "{done:?}");
    }
    assert!(!stage.is_running());
}

#[test]
fn flags_that_make_no_good_file_leave_the_file_as_it_is() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    let before = stage.file();
    let done = stage.run("up --detach --http 127.0.0.1:8002");
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.talk.contains("is taken by"), "{done:?}");
    assert_eq!(stage.file(), before);
}

/// It would be a file with that site alone, and the others would be served no more.
#[test]
fn a_node_that_has_no_file_begins_none_and_says_where_it_is() {
    let stage = Stage::new().node("n2");
    for verb in ["site add shop", "site remove shop --yes", "apply", "config show"] {
        let done = stage.run(verb);
        assert_eq!(done.status, 1, "{verb}");
        assert!(done.talk.contains("this machine is node `n2`"), "{done:?}");
        assert!(done.talk.contains("the node that has `pressroom.toml`"), "{done:?}");
        assert!(done.talk.contains("`pressroom config show --applied`"), "{done:?}");
    }
    assert!(!stage.data().join("pressroom.toml").exists());
    // As a redirection leaves it behind that went wrong: applied, it would take all sites away.
    stage.write("\n");
    let done = stage.run("apply");
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.talk.contains("this machine is node `n2`"), "{done:?}");
    let doctor = stage.run("doctor");
    assert!(!doctor.data.contains("configuration"), "{doctor:?}");
}

#[test]
fn a_machine_that_was_removed_from_its_cluster_says_so_instead_of_waiting_until_it_serves() {
    let stage = Stage::new().removed_node("n2");
    let done = stage.run("up --detach");
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.talk.contains("`n2` is no node any more"), "{done:?}");
    assert!(done.talk.contains("cause: it was taken out"), "{done:?}");
    let list = stage.run("node list").data;
    assert!(list.contains("removed (it was taken out)"), "{list}");
}

#[test]
fn an_old_copy_of_the_file_takes_no_site_of_a_cluster_away_and_is_replaced_by_what_is_applied() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    let stage = stage.node("n1");
    let old = stage.file();
    assert_eq!(stage.run("site add shop").status, 0);
    stage.write(&old);
    for verb in ["site add forum", "site remove blog --yes"] {
        let done = stage.run(verb);
        assert_eq!(done.status, 1, "{verb}: {done:?}");
        assert!(done.talk.contains("it lacks `shop`"), "{done:?}");
        assert_eq!(stage.file(), old, "{verb}");
    }
    let shown = stage.run("config show --applied");
    assert_eq!(shown.status, 0, "{shown:?}");
    stage.write(&shown.data);
    assert_eq!(stage.run("site add forum").status, 0);
    assert!(stage.run("config show --applied --json").data.contains("\"forum\""));
}

#[test]
fn what_is_applied_is_asked_of_the_agent_and_its_absence_is_said() {
    let stage = Stage::new();
    stage.write("[[site]]\nname = 'blog'\n");
    let done = stage.run("config show --applied");
    assert_eq!((done.status, done.data.as_str()), (1, ""), "{done:?}");
    assert!(done.talk.contains("Pressroom is not running here"), "{done:?}");
}

#[test]
fn missing_packages_without_root_are_named_with_the_command_that_installs_them() {
    let stage = Stage::new().missing("php8.2-fpm");
    let done = stage.run("up --yes --detach");
    assert_eq!(done.status, 1);
    assert!(
        done.talk.contains("php8.2-fpm (PHP)") && done.talk.contains("install-them php8.2-fpm"),
        "{done:?}"
    );
    assert!(!stage.is_running() && !stage.data().join("pressroom.toml").exists());
}

#[test]
fn missing_packages_are_installed_by_root_when_agreed_and_only_then() {
    let stage = Stage::new().missing("php8.2-fpm").root();
    assert_eq!(stage.run("up --detach").status, 1, "nobody can be asked");
    let done = stage.run("up --detach --yes");
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.talk.contains("✓ install php8.2-fpm"), "{done:?}");
}

#[test]
fn a_failure_of_the_agent_is_shown_whole_with_its_status() {
    let stage = Stage::new().failing();
    let done = stage.run(UP);
    assert_eq!(done.status, 1);
    let words = "error: cannot listen on 127.0.0.1:8001\n  cause: it is taken\n  state: what runs goes on; ";
    assert!(
        done.talk.contains(words) && done.talk.contains("\n  hint: choose another\n"),
        "{done:?}"
    );
}

#[test]
fn two_ups_at_once_take_turns() {
    let stage = Stage::new();
    let lock = std::fs::File::create(stage.data().join("up.lock")).expect("made");
    lock.lock().expect("taken");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| stage.run(UP));
        let late = Instant::now() + Duration::from_secs(10);
        while !stage.said().contains("waiting for it") {
            assert!(Instant::now() < late, "it says that it waits");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!stage.is_running());
        lock.unlock().expect("given back");
        assert_eq!(other.join().expect("no panic").status, 0);
    });
}

#[test]
fn down_stops_and_says_when_nothing_ran() {
    let stage = Stage::new();
    assert!(stage.run("down").talk.contains("Nothing was running here."));
    assert_eq!(stage.run(UP).status, 0);
    let done = stage.run("down");
    assert_eq!((done.status, stage.is_running()), (0, false), "{done:?}");
    assert!(done.talk.contains("Stopped."), "{done:?}");
}

#[test]
fn status_is_json_for_programs_also_when_nothing_runs() {
    let stage = Stage::new();
    let away = stage.run("status --json");
    assert_eq!(away.status, 1);
    let json: serde_json::Value = serde_json::from_str(&away.data).expect("JSON");
    assert_eq!((&json["version"], &json["keeper"]["pid"]), (&1.into(), &serde_json::Value::Null));
    assert!(stage.run("status").talk.contains("error: Pressroom is not running here"));
    assert_eq!(stage.run(UP).status, 0);
    let there: serde_json::Value =
        serde_json::from_str(&stage.run("status --json").data).expect("JSON");
    assert_eq!(
        (&there["sites"][0]["name"], &there["sites"][0]["verdict"]),
        (&"blog".into(), &"healthy".into())
    );
    assert!(stage.run("status").data.contains("✓ healthy"));
}

#[test]
fn a_dry_run_shows_actions_with_reasons_and_changes_nothing() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    stage.write(&format!("{}\n[[site]]\nname = \"shop\"\n", stage.file()));
    let done = stage.run("apply --dry-run");
    assert_eq!(done.data, "add site `shop`  because the configuration has it\n");
    assert!(!stage.run("status --json").data.contains("shop"));
    assert_eq!(stage.run("apply").status, 0);
    assert!(stage.run("site list").data.contains("https://shop.localhost:8002/"));
    let same = stage.run("apply --dry-run");
    assert_eq!((same.data.as_str(), same.talk.trim()), ("", "Everything is as the file says."));
}

#[test]
fn a_site_is_added_shown_and_removed_only_when_agreed() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    let added = stage.run("site add shop --domain shop.example.com --title Shop");
    assert!(added.data.contains("https://shop.example.com:8002/"), "{added:?}");
    assert_eq!(stage.run("site add shop").status, 1);
    assert!(stage.run("site show shop").data.contains("shop.example.com shop.localhost"));
    assert_eq!(stage.run("site show nope").status, 1);
    let before = stage.file();
    let refused = stage.run("site remove shop");
    assert_eq!(refused.status, 1);
    assert!(refused.talk.contains("will be kept below") && stage.file() == before, "{refused:?}");
    let removed = stage.run("site remove shop --yes");
    assert_eq!((removed.status, removed.data.trim()), (0, "/kept/shop"), "{removed:?}");
    assert!(!stage.file().contains("shop"));
}

#[test]
fn environments_are_named_in_full_and_taken_away_only_when_agreed() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    let none = stage.run("env list");
    assert!(none.talk.contains("env create SITE NAME"), "{none:?}");
    assert_eq!(stage.run("env list --json").data.trim(), "[]");
    let unknown = stage.run("env open blog staging");
    assert_eq!(unknown.status, 1, "{unknown:?}");
    assert!(unknown.talk.contains("`blog` has no environment `staging`"), "{unknown:?}");
    for verb in ["remove", "refresh"] {
        let doubtful = stage.run(&format!("env {verb} blog staging"));
        assert_eq!(doubtful.status, 1, "{doubtful:?}");
        assert!(doubtful.talk.contains("nothing was changed"), "{doubtful:?}");
        assert_eq!(stage.run(&format!("env {verb} blog staging --yes")).status, 0, "{verb}");
    }
}

#[test]
fn a_stopped_site_cannot_be_removed_but_one_can_be_added() {
    let stage = Stage::new();
    let added = stage.run("site add shop");
    assert_eq!(added.status, 0, "{added:?}");
    assert!(stage.run("site list").data.contains("· stopped"));
    assert!(stage.run("site remove shop --yes").talk.contains("cannot be dumped"));
}

#[test]
fn what_was_shown_of_the_configuration_is_a_good_configuration() {
    let stage = Stage::new();
    stage.write("[[site]]\nname = 'blog'\n");
    let shown = stage.run("config show").data;
    stage.write(&shown);
    assert_eq!(stage.run("config check").status, 0);
    assert_eq!(stage.run("config show").data, shown);
    assert!(stage.run("config reference").data.starts_with("# `pressroom.toml`"));
}

#[test]
fn a_data_directory_in_the_file_that_is_another_is_refused() {
    let stage = Stage::new();
    stage.write("[node]\ndata = '/elsewhere'\n");
    assert!(stage.run("config check").talk.contains("is for the data directory `/elsewhere`"));
}

#[test]
fn logs_are_found_by_process_site_and_instance() {
    let stage = Stage::new();
    assert_eq!(stage.run("logs").status, 1);
    let logs = stage.data().join("logs");
    std::fs::create_dir_all(&logs).expect("made");
    for name in ["mariadb", "php-blog-1", "edge"] {
        std::fs::write(logs.join(format!("{name}.log")), format!("one\n{name} \x1b[31mstarts\n"))
            .expect("written");
    }
    assert_eq!(stage.run("logs mariadb -n 1").data, "mariadb [31mstarts\n");
    assert_eq!(stage.run("logs blog -n 1").data, "php-blog-1 [31mstarts\n");
    assert!(stage.run("logs").data.contains("edge: one\n"));
    assert!(
        stage.run("logs nope").talk.contains("there are logs of `edge`, `mariadb`, `php-blog-1`")
    );
}

#[test]
fn what_goes_on_for_ever_ends_when_nobody_reads_it_any_more() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    let watched = stage.run_for_lines("status --watch --json", 2);
    assert_eq!((watched.status, watched.data.lines().count()), (0, 2), "{watched:?}");
    let logs = stage.data().join("logs");
    std::fs::create_dir_all(&logs).expect("made");
    std::fs::write(logs.join("edge.log"), "one\ntwo\n").expect("written");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| stage.run_for_lines("logs edge --follow", 3));
        let late = Instant::now() + Duration::from_secs(10);
        while !reader.is_finished() {
            assert!(Instant::now() < late, "it ends");
            std::thread::sleep(Duration::from_millis(20));
            std::fs::OpenOptions::new()
                .append(true)
                .open(logs.join("edge.log"))
                .and_then(|mut log| std::io::Write::write_all(&mut log, b"more\n"))
                .expect("written");
        }
        let followed = reader.join().expect("no panic");
        assert_eq!((followed.status, followed.data.as_str()), (0, "one\ntwo\nmore\n"));
    });
}

#[test]
fn a_wrong_command_line_is_the_typists_mistake() {
    let stage = Stage::new();
    for line in ["nonsense", "up --nonsense", "site add Bad_Name", "cache purge blog", ""] {
        let done = stage.run(line);
        assert_eq!((done.status, done.data.as_str()), (1, ""), "{line}");
    }
    assert!(stage.run("site add Bad_Name").talk.contains("lower-case letters"));
    let help = stage.run("--help");
    assert_eq!(help.status, 0);
    assert!(
        help.data.contains("Exit status: 0 done") && !help.data.contains("\n  keep"),
        "{help:?}"
    );
}

#[test]
fn why_purge_and_trust_say_what_they_found() {
    let stage = Stage::new();
    assert!(stage.run("tls trust").talk.contains("no local authority yet"));
    assert_eq!(stage.run(UP).status, 0);
    assert!(stage.run("why /a").data.contains("cache     hit: it is fresh"));
    assert!(stage.run("cache purge blog --all").talk.contains("7 pages are stale now"));
    assert_eq!(stage.run("cache purge blog").status, 1);
    std::fs::create_dir_all(stage.data().join("tls")).expect("made");
    std::fs::write(stage.data().join("tls/ca.pem"), "x").expect("written");
    assert!(stage.run("tls trust").data.trim().ends_with("tls/ca.pem"));
}

#[test]
fn the_doctor_tells_the_worst_by_its_status() {
    let stage = Stage::new();
    stage.write("[[site]]\nname = 'blog'\n");
    let done = stage.run("doctor");
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.data.contains("✓ disk") && done.data.contains("! running"), "{done:?}");
    stage.write("[[site]]\n");
    let bad: serde_json::Value =
        serde_json::from_str(&stage.run("doctor --json").data).expect("JSON");
    assert_eq!((&bad[0]["check"], &bad[0]["state"]), (&"configuration".into(), &"bad".into()));
}

#[test]
fn a_path_too_long_for_sockets_is_refused_before_anything_is_made() {
    let stage = Stage::new();
    let long = format!("{}/{}", stage.data().display(), "a".repeat(80));
    let done = stage.run(&format!("up --detach --data {long}"));
    assert_eq!(done.status, 1);
    assert!(done.talk.contains("too long") && !Path::new(&long).exists(), "{done:?}");
}

#[test]
fn the_unit_is_printed_for_anybody_and_installed_by_root() {
    let stage = Stage::new();
    assert!(stage.run("install --print").data.contains("KillMode=process"));
    assert!(stage.run("install").talk.contains("only root"));
}

#[test]
fn a_step_that_fails_again_does_not_repeat_its_words() {
    let (kept, progress) = stage::progress();
    for _ in 0..2 {
        progress.begin("initialise the database").failed("the disk is full\nand more\nof it");
    }
    let said = kept();
    assert_eq!(said.matches("the disk is full …").count(), 1, "{said}");
    assert!(said.contains("✗ initialise the database  failed again"), "{said}");
}

#[test]
fn an_agent_that_is_away_while_its_keeper_runs_is_our_failure() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    stage.lose_agent();
    for verb in ["status", "why /", "site remove blog --yes"] {
        let done = stage.run(verb);
        assert_eq!(done.status, 2, "{done:?}");
        assert!(
            done.talk.contains("the agent does not answer")
                && done.talk.contains("keeper (process 10) runs")
        );
    }
    let json: serde_json::Value =
        serde_json::from_str(&stage.run("status --json").data).expect("JSON");
    assert_eq!(
        (&json["keeper"]["pid"], &json["agent"]["pid"]),
        (&10.into(), &serde_json::Value::Null)
    );
}

#[test]
fn code_is_deployed_listed_and_taken_back() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    let code = stage.data().join("code");
    std::fs::create_dir(&code).expect("a folder");
    let compared = stage.run(&format!("deploy blog {} --dry-run", code.display()));
    assert_eq!(compared.data, "+ new.php\n~ old.php\n", "{compared:?}");
    let done = stage.run(&format!("deploy blog {} --wait -m second", code.display()));
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.data.contains("blog serves release bbbbbbbbbbbb  second"), "{done:?}");
    assert!(done.talk.contains("release rollback blog"), "{done:?}");
    let list = stage.run("release list blog");
    assert!(list.data.contains("serving") && list.data.contains("parked"), "{list:?}");
    let shown = stage.run("release show blog");
    for part in ["state            serving", "plugin           SHOP 2  (shop)", "~ SHOP 1 → 2"] {
        assert!(shown.data.contains(part), "{part}: {shown:?}");
    }
    let shown = stage.run("release show blog a");
    assert!(shown.data.contains("parked until 2026-01-21T13:03:20"), "{shown:?}");
    assert_eq!(stage.run("release show blog ffff").status, 1);
    let back = stage.run("release rollback blog --json");
    let moved: serde_json::Value = serde_json::from_str(&back.data).expect("JSON");
    assert_eq!(
        (&moved["release"], &moved["from"]),
        (&"a".repeat(32).into(), &"b".repeat(32).into())
    );
    let unknown = stage.run("release rollback blog ffff");
    assert_eq!(unknown.status, 1);
    assert!(unknown.talk.contains("`blog` has no release `ffff`"), "{unknown:?}");
}

#[test]
fn a_refused_deploy_names_file_and_line_and_what_still_serves() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    let refused = stage.run("deploy blog --message broken --wait");
    assert_eq!(refused.status, 1, "{refused:?}");
    for part in ["/code/a.php on line 7", "still serves release aaaaaaaaaaaa"] {
        assert!(refused.talk.contains(part), "{part} in {refused:?}");
    }
    let absent = stage.run("deploy blog /nonexistent/code");
    assert_eq!(absent.status, 1);
    assert!(absent.talk.contains("`/nonexistent/code` cannot be deployed"), "{absent:?}");
}

#[test]
fn wp_cli_ends_as_it_ends() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    let data = stage.data().display();
    let ended = stage.run(&format!("wp blog --data {data} -- eval exit(3);"));
    assert_eq!(ended.status, 3, "{ended:?}");
}

#[test]
fn templates_are_rendered_from_what_was_named() {
    let stage = Stage::new();
    let check = |typed: &str, status: u8, said: &str| {
        let outcome = stage.run(&format!("config render --confdir /etc/x {typed}"));
        assert_eq!(outcome.status, status, "{outcome:?}");
        assert!(format!("{}{}", outcome.data, outcome.talk).contains(said), "{said}: {outcome:?}");
    };
    check("", 1, "failed      /etc/haproxy/haproxy.cfg  Pressroom of /etc/x");
    check("--noop --backend env", 0, "differs     /etc/haproxy/haproxy.cfg  Environment");
    check("--file a.yaml", 1, "Files([\"a.yaml\"])");
    check("--backend file", 1, "needs a file");
    check(
        "--node 10.0.0.1:2379,http://b:2379 --onetime",
        1,
        r#"["http://10.0.0.1:2379", "http://b:2379"]"#,
    );
    check("--node https://b", 1, "no authority is named");
    check("--backend etcd --noop --json", 0, r#""standing": "differs""#);
}

#[test]
fn example_templates_are_copied_and_never_written_over() {
    let stage = Stage::new();
    let listed = stage.run("config examples");
    assert!(listed.data.contains("haproxy/conf.d/haproxy.toml"), "{listed:?}");
    let to = tempfile::tempdir().expect("a folder");
    let copy = format!("config examples haproxy --to {}", to.path().display());
    assert_eq!(stage.run(&copy).status, 0);
    let path = to.path().join("conf.d/haproxy.toml");
    assert_eq!(std::fs::read_to_string(&path).expect("copied"), "[template]");
    std::fs::write(&path, "mine").expect("written");
    let again = stage.run(&copy);
    assert!(again.talk.contains("stays as it is"), "{again:?}");
    assert_eq!(std::fs::read_to_string(&path).expect("there"), "mine");
    assert_eq!(stage.run("config examples nope --to /x").status, 1);
}

#[test]
fn a_damaged_release_is_our_failure() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    assert_eq!(stage.run("release verify blog").status, 0);
    let damaged = stage.run("release verify blog aa");
    assert_eq!(damaged.status, 2, "{damaged:?}");
    assert!(damaged.data.contains("index.php: its bytes or its mode changed"), "{damaged:?}");
}

#[test]
fn a_git_token_is_shown_once_and_the_address_as_often_as_wanted() {
    let stage = Stage::new();
    assert_eq!(stage.run(UP).status, 0);
    let made = stage.run("git token blog");
    assert_eq!((made.status, made.data.trim()), (0, "open sesame"));
    assert!(
        made.talk.contains("shown once") && made.talk.contains("git clone https://"),
        "{made:?}"
    );
    let url = stage.run("git url blog");
    assert_eq!(url.data.trim(), "https://blog.localhost/.pressroom/git/blog.git");
    assert!(!url.talk.contains("open sesame"));
    let gone = stage.run("git token blog --revoke");
    assert!(gone.data.is_empty() && gone.talk.contains("Nobody can clone `blog`"), "{gone:?}");
    let json: serde_json::Value =
        serde_json::from_str(&stage.run("git token blog --json").data).expect("JSON");
    assert_eq!(json["token"], "open sesame");
}
