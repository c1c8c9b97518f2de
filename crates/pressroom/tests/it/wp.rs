//! wp-cli for a site, from the operator's terminal.
//!
//! The phar is one that begins as wp-cli does; `PRESSROOM_TEST_WP_CLI` names a real one, which then is judged as well.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::house::{House, is_root};

/// Builds the phar.
fn phar(folder: &Path) -> PathBuf {
    let (script, phar) = (folder.join("build.php"), folder.join("wp.phar"));
    std::fs::write(&script, include_str!("../probe/wp.php")).expect("written");
    let mut php = Command::new("php");
    let built = php.args(["-d", "phar.readonly=0"]).arg(&script).arg(&phar).status();
    assert!(built.expect("PHP runs").success());
    phar
}

/// Runs `pressroom wp` with this on its standard input.
fn wp(house: &House, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pressroom"))
        .arg("--data")
        .arg(&house.data)
        .arg("wp")
        .args(arguments)
        .env("PATH", "/nowhere")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("written");
    child.wait_with_output().expect("it ends")
}

fn words(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn wp_cli_runs_within_the_sites_walls_with_the_operators_terminal() {
    let house = House::empty();
    let sites = "[[site]]\nname = \"blog\"\n[site.php]\nworkers = 2";
    house.configure(sites);
    house.up();

    // Without one it is said what does the rest, and how to get it.
    let (status, _, said) = words(&wp(&house, &["blog", "--", "option", "get", "siteurl"], ""));
    assert_eq!(status, Some(1), "{said}");
    for part in ["no wp-cli", "pressroom cache purge", "--phar FILE", "wp_cli ="] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (status, _, said) = words(&wp(&house, &["blog", "--phar", "/bin/sh", "--", "x"], ""));
    assert_eq!((status, said.contains("it is no phar")), (Some(1), true), "{said}");

    // With one it is the site's own PHP that runs: its user, its code, its database.
    let phar = phar(house.folder());
    let named = phar.to_string_lossy();
    let run = |rest: &[&str], input: &str| {
        let arguments = [&["blog", "--phar", &*named, "--"], rest].concat();
        words(&wp(&house, &arguments, input))
    };
    let (status, siteurl, said) = run(&["option", "get", "siteurl"], "");
    assert_eq!((status, siteurl), (Some(0), house.home("blog")), "{said}");
    let code = "echo posix_getpwuid(posix_geteuid())['name'], '|', ABSPATH, '|', json_encode([@touch(ABSPATH . 'planted'), @file_get_contents('/etc/shadow'), getenv('PRESSROOM_CRON_KEY')]); fwrite(STDERR, 'aside'); exit(7);";
    let (status, told, aside) = run(&["eval", "code"], code);
    // On a busy machine the object cache says that it was too slow.
    assert_eq!((status, aside.ends_with("aside")), (Some(7), true), "{told}{aside}");
    if is_root() {
        assert_eq!(told, "pr-blog|/srv/site/|[false,false,false]");
    }
    let (status, _, said) = run(&["nonsense"], "");
    assert_eq!((status, said.as_str()), (Some(1), "Error: no such command"));

    // What would change code is refused before it begins.
    let (status, _, said) = run(&["plugin", "install", "akismet"], "");
    assert_eq!((status, said.contains("pressroom deploy")), (Some(1), true), "{said}");

    // The configuration names it as well, and environments have theirs.
    if is_root() {
        let closed = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&phar, closed).expect("closed");
        let (status, _, said) = run(&["option", "get", "siteurl"], "");
        assert_eq!((status, said.contains("chmod a+r")), (Some(1), true), "{said}");
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&phar, open).expect("opened");
    }
    house.configure(&format!("[wordpress]\nwp_cli = \"{named}\"\n{sites}"));
    house.must(&["apply", "--yes"]);
    house.must(&["env", "create", "blog", "staging"]);
    let rest = ["blog", "--env", "staging", "--", "option", "get", "siteurl"];
    let (status, siteurl, said) = words(&wp(&house, &rest, ""));
    assert_eq!((status, siteurl), (Some(0), house.home("blog--staging")), "{said}");

    let Ok(real) = std::env::var("PRESSROOM_TEST_WP_CLI") else {
        println!("not judged: PRESSROOM_TEST_WP_CLI names no wp-cli");
        return;
    };
    let real =
        |rest: &[&str]| words(&wp(&house, &[&["blog", "--phar", &real, "--"], rest].concat(), ""));
    let (status, siteurl, said) = real(&["option", "get", "siteurl"]);
    assert_eq!((status, siteurl), (Some(0), house.home("blog")), "{said}");
    let (status, users, said) = real(&["user", "list", "--field=user_login"]);
    assert_eq!((status, users.as_str()), (Some(0), "admin"), "{said}");
}
