//! Uploads and an object store: away at first, and shared by the nodes of a cluster.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::cluster::{on_disk, upload};
use crate::garage::{self, Garage};
use crate::house::{House, signal, wait_until};
use crate::lab::{Lab, text};

/// Longer than the longest pause before the store is tried again.
const BACK: Duration = Duration::from_secs(60);

fn settings(address: SocketAddr, key: &Path) -> String {
    format!(
        "[media]\nstore = \"s3://{}/site\"\nendpoint = \"http://{address}\"\nregion = \"garage\"\nkey_file = \"{}\"\n",
        garage::BUCKET,
        key.display()
    )
}

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
    house.configure(&format!("{}\n[[site]]\nname = \"blog\"", settings(address, &key)));
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

    let Some(garage) = Garage::start(address, &[]) else { return };
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

/// What a request without a body says of it, and `curl` does not.
const EMPTY: &str =
    "X-Amz-Content-Sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What a cluster says of its store, as one of its nodes knows it.
fn store_of(lab: &Lab, number: usize) -> Value {
    let status = lab.on(number, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
    status["media_store"].clone()
}

/// The keys in the bucket, as the store itself lists them.
fn listed(lab: &Lab, address: SocketAddr) -> String {
    let user = format!("{}:{}", garage::ID, garage::SECRET);
    let url = format!("http://{address}/{}?list-type=2", garage::BUCKET);
    let signed = [
        "curl",
        "-s",
        "-m",
        "10",
        "--aws-sigv4",
        "aws:amz:garage:s3",
        "--user",
        &user,
        "-H",
        EMPTY,
    ];
    let output = lab.run(&[&["exec", "client", "--"], &signed[..], &[&url]].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn nothing_is_lost_with_the_node_that_took_an_upload_while_the_store_was_away() {
    if garage::program().is_none() {
        return;
    }
    let Some(lab) = Lab::up(3, &["--zones", "a,b,c"]) else { return };
    let host: Value =
        serde_json::from_str(&lab.must(&["exec", "client", "--", "ip", "-json", "-4", "address"]))
            .expect("JSON");
    let links = host.as_array().expect("links");
    let outer = links.iter().find(|link| link["ifname"] != "lo").expect("an interface");
    let local = text(&outer["addr_info"][0]["local"]);
    let address = SocketAddr::new(local.parse().expect("an address"), garage::free().port());
    let namespace = format!("--net=/run/netns/{}", text(&lab.made["client"]["netns"]));
    let mut garage = Garage::start(address, &["nsenter", &namespace]).expect("it is installed");
    let key = lab.folder().join("store.key");
    fs::write(&key, garage::key()).expect("written");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("closed");
    let file = Path::new(text(&lab.node(1)["data"])).join("pressroom.toml");
    let mut file = OpenOptions::new().append(true).open(file).expect("opened");
    write!(file, "\n{}", settings(address, &key)).expect("written");
    lab.must_on(1, &["apply", "--yes"]);

    // Each upload is brought there by one node, and the others hear of that: they need not ask.
    let names: Vec<String> = (0..6).map(|number| format!("all-{number}.txt")).collect();
    let paths: Vec<String> = names.iter().map(|name| upload(&lab, 2, name, name)).collect();
    let has_all = || names.iter().all(|name| listed(&lab, address).contains(name.as_str()));
    wait_until("the store has them", BACK, has_all);
    let knows_all = |number: usize| {
        let known = Path::new(text(&lab.node(number)["data"])).join("cluster/media/blog.stored");
        let known = fs::read_to_string(known).unwrap_or_default();
        let store = store_of(&lab, number);
        store["waiting"] == 0
            && store["because"].is_null()
            && names.iter().all(|name| known.contains(name.as_str()))
    };
    wait_until("all nodes know", BACK, || [1, 2, 3].into_iter().all(knows_all));
    let asked = |number: usize| {
        let from = format!(" {}:", text(&lab.node(number)["address"]));
        let of = |line: &&str| line.contains(&from) && line.contains("all-");
        garage.log().lines().filter(of).count()
    };
    assert!(asked(2) > 0, "{}", garage.log());
    // Who is not told for long asks by itself; one that is told of nothing would ask for all.
    for number in [1, 3] {
        assert!(asked(number) < names.len(), "n{number}: {}\n{}", asked(number), garage.log());
    }

    // It is away: uploads go on, and each node has them.
    garage.stop();
    let path = upload(&lab, 2, "late.txt", "brought late");
    let get = |number: usize, path: &str| lab.fetch("client", number, &[], path);
    let (_, below) = path.split_once("uploads/").expect("a path of uploads");
    for number in [1, 3] {
        let file = on_disk(&lab, number, "uploads").join(below);
        wait_until("each node has it", BACK, || file.exists());
    }
    wait_until("it is said that it waits", BACK, || {
        [1, 3].into_iter().all(|number| store_of(&lab, number)["because"].is_string())
    });
    lab.must(&["kill", "n2"]);
    fs::remove_dir_all(on_disk(&lab, 2, "uploads")).expect("its disk is lost");
    garage.run();
    wait_until("the store has it from another", BACK, || {
        listed(&lab, address).contains("late.txt")
    });
    assert_eq!([1, 3].map(|number| get(number, &path)), ["brought late"; 2]);
    assert_eq!([1, 3].map(|number| get(number, &paths[0])), [names[0].as_str(); 2]);
    wait_until("nothing waits", BACK, || {
        let rests = |store: Value| store["waiting"] == 0 && store["because"].is_null();
        [1, 3].into_iter().all(|number| rests(store_of(&lab, number)))
    });
    fs::remove_file(on_disk(&lab, 1, "uploads").join(below)).expect("deleted");
    wait_until("what is deleted goes", BACK, || {
        let listed = listed(&lab, address);
        listed.contains(names[0].as_str()) && !listed.contains("late.txt")
    });
}
