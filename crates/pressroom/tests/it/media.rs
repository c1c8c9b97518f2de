//! Uploads and an object store that is away at first.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::garage::{self, Garage};
use crate::house::{House, signal, wait_until};

/// Longer than the longest pause before the store is tried again.
const BACK: Duration = Duration::from_secs(60);

fn store(house: &House) -> Value {
    house.status()["media_store"].clone()
}

fn waits(house: &House, count: u64) -> bool {
    store(house)["waiting"] == count
}

/// Everything that is written for people to read.
fn talk(house: &House) -> String {
    let logs = fs::read_dir(house.data.join("logs")).expect("logs").flatten();
    let logs = logs.filter_map(|log| fs::read(log.path()).ok());
    let logs: String = logs.map(|log| String::from_utf8_lossy(&log).into_owned()).collect();
    logs + &house.must(&["status", "--json"]) + &house.must(&["config", "show"])
}

#[test]
fn uploads_are_kept_for_a_store_that_is_away_and_come_back_from_it() {
    let house = House::empty();
    let address = garage::free();
    let key = house.folder().join("store.key");
    fs::write(&key, garage::key()).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("open to all");
    house.configure(&format!(
        "[media]\nstore = \"s3://{}/site\"\nendpoint = \"http://{address}\"\nregion = \"garage\"\nkey_file = \"{}\"\n\n[[site]]\nname = \"blog\"",
        garage::BUCKET,
        key.display()
    ));
    house.up();
    let refused = || store(&house)["because"].as_str().is_some_and(|it| it.contains("chmod 600"));
    wait_until("a key that all can read is refused", Duration::from_secs(10), refused);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("closed");

    // Nobody answers there: uploads succeed, and it is seen that they wait, also by the next agent.
    house.php("blog", "is_wp_error(wp_upload_bits('a.txt', null, 'one')) && exit(1);");
    let is_told = || waits(&house, 1) && store(&house)["because"].is_string();
    wait_until("an upload waits", Duration::from_secs(15), is_told);
    let before = house.pid("/agent/pid");
    signal(before, Signal::KILL);
    wait_until("the next agent", Duration::from_secs(30), || {
        let status = house.run(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        status["agent"]["pid"].as_i64().is_some_and(|pid| pid != i64::from(before))
    });
    wait_until("it waits still", Duration::from_secs(15), is_told);
    let doctor = house.run(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("one upload or deletion waits for it, and uploads go on"), "{doctor}");

    let Some(garage) = Garage::start(address) else { return };
    wait_until("the store has it", BACK, || waits(&house, 0) && store(&house)["because"].is_null());
    house.php("blog", "is_wp_error(wp_upload_bits('b.txt', null, 'two')) && exit(1);");
    let uploads = house.data.join("sites/blog/uploads");
    let listed = house.php("blog", "echo wp_upload_dir()['subdir'];");
    let folder = uploads.join(listed.trim_matches('/'));
    fs::remove_file(folder.join("a.txt")).expect("deleted");
    let is_known = || fs::read_to_string(house.data.join("cluster/media/blog.stored"));
    wait_until("it has the second, and not the first", BACK, || {
        let stored = is_known().unwrap_or_default();
        waits(&house, 0)
            && stored.contains("b.txt")
            && stored
                .lines()
                .rfind(|line| line.contains("a.txt"))
                .is_some_and(|it| !it.contains("file"))
    });

    // The disk is lost: what there was comes back, and what was deleted does not.
    let owner = fs::metadata(&uploads).expect("seen");
    fs::rename(&uploads, house.folder().join("lost")).expect("moved");
    fs::create_dir(&uploads).expect("made");
    std::os::unix::fs::chown(&uploads, Some(owner.uid()), Some(owner.gid())).expect("owned");
    let path = folder.join("b.txt");
    wait_until("it is back", BACK, || fs::read_to_string(&path).is_ok_and(|text| text == "two"));
    assert!(!folder.join("a.txt").exists());
    assert_eq!(fs::metadata(&path).expect("seen").uid(), owner.uid());
    assert!(!talk(&house).contains(garage::SECRET), "the key is told to nobody");
    drop(garage);
}
