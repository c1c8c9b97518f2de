//! Containers that somebody started beside us, under a real Docker daemon in a network of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use pressroom_agent::names::docker::{Events, inspect, list};
use pressroom_agent::names::registrar::Machine;
use pressroom_model::config::Registrar;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A daemon; with it ends everything in its network.
struct Daemon {
    folder: TempDir,
    process: Child,
}

impl Daemon {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::write(at("daemon.json"), "{}").expect("written");
        let log = File::create(at("log")).expect("a log");
        let script = "ip link set lo up && exec /usr/sbin/dockerd \"$@\"";
        let process = Command::new("unshare")
            .args(["--net", "sh", "-c", script, "dockerd", "--iptables=false", "--ip6tables=false"])
            .args([
                format!("--config-file={}", at("daemon.json")),
                format!("--data-root={}", at("root")),
            ])
            .args([format!("--exec-root={}", at("exec")), format!("--pidfile={}", at("pid"))])
            .arg(format!("--host=unix://{}", at("docker.sock")))
            .args(["--ip-masq=false", "--ip-forward=false", "--bip=172.31.255.1/24"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("unshare");
        let daemon = Self { folder, process };
        let late = Instant::now() + Duration::from_secs(60);
        while !daemon.client(&["version"]).status.success() {
            let said = fs::read_to_string(daemon.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < late, "dockerd does not answer: {said}");
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("docker.sock")
    }

    fn client(&self, words: &[&str]) -> Output {
        let host = format!("unix://{}", self.socket().display());
        Command::new("docker")
            .args(["--host", &host])
            .args(words)
            .output()
            .expect("docker's client")
    }

    fn docker(&self, words: &[&str]) {
        let output = self.client(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// An image with nothing in it but a program that waits.
    fn import(&self) {
        let root = self.folder.path().join("image");
        let libraries = Command::new("ldd").arg("/bin/sleep").output().expect("ldd").stdout;
        let libraries = String::from_utf8(libraries).expect("text");
        let files = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        for file in files.chain(["/bin/sleep"]) {
            let copy = root.join(file.trim_start_matches('/'));
            fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
            fs::copy(fs::canonicalize(file).expect("there"), copy).expect("copied");
        }
        let archive = self.folder.path().join("image.tar");
        let tar =
            Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status();
        assert!(tar.expect("tar").success());
        self.docker(&["import", &archive.display().to_string(), "example.org/shop/sleeper:1"]);
    }

    fn run(&self, words: &[&str]) {
        let fixed = ["run", "--detach", "--init=false"];
        let command = ["example.org/shop/sleeper:1", "/bin/sleep", "1000"];
        self.docker(&[&fixed[..], words, &command].concat());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ids = self.client(&["ps", "--all", "--quiet"]).stdout;
        for id in String::from_utf8_lossy(&ids).split_whitespace() {
            self.client(&["rm", "--force", id]);
        }
        if let Some(pid) = Pid::from_raw(self.process.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.process.wait();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for path in places.filter(|path| Path::new(path).starts_with(self.folder.path())) {
            let _ = Command::new("umount").arg(path).status();
        }
    }
}

/// What is registered now: names with hosts, ports and texts.
async fn registered(
    daemon: &Daemon,
    registrar: Registrar,
) -> BTreeMap<String, (String, u16, String)> {
    let machine = Machine {
        domain: "pressroom.local".into(),
        node: "n1".into(),
        address: "10.0.0.1".parse().expect("an address"),
        is_alone: true,
        registrar,
        taken: ["blog".to_owned()].into(),
    };
    let mut all = BTreeMap::new();
    for listed in list(&daemon.socket()).await.expect("a list") {
        let container = inspect(&daemon.socket(), &listed.id).await.expect("a container");
        let (records, _) = machine.services(&container);
        all.extend(records.into_iter().map(|(key, it)| {
            let key = key.as_str().trim_start_matches("skydns/local/pressroom/").to_owned();
            (key, (it.host, it.port, it.text))
        }));
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_others_are_registered_by_what_they_publish_and_say() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/sbin/dockerd").exists() {
        println!("not judged: containers need root and Docker's daemon (package docker.io)");
        return;
    }
    let daemon = Daemon::start();
    daemon.import();
    let mut events = Events::of(&daemon.socket()).await.expect("events");
    daemon.run(&["--name=plain", "--publish=127.0.0.1:18080:80", "--expose=9"]);
    let heard = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
    heard.expect("Docker tells of it").expect("an event");
    daemon.run(&[
        "--name=said",
        "--publish=0.0.0.0:18081:80",
        "--publish=0.0.0.0:18082:53/udp",
        "--env=SERVICE_NAME=app",
        "--env=SERVICE_TAGS=one,two",
        "--label=SERVICE_80_NAME=web",
        "--label=SERVICE_80_ID=first",
    ]);
    daemon.run(&["--name=ignored", "--publish=127.0.0.1:18083:80", "--env=SERVICE_IGNORE=1"]);
    daemon.run(&["--name=of-a-site", "--publish=127.0.0.1:18084:80", "--env=SERVICE_NAME=blog"]);
    daemon.run(&["--name=ours", "--publish=127.0.0.1:18085:80", "--label=pressroom=x"]);
    let record = |host: &str, port, text: &str| (host.to_owned(), port, text.to_owned());
    let found = registered(&daemon, Registrar::Published).await;
    let wanted: BTreeMap<String, _> = [
        ("app-53/n1/said-53-udp".into(), record("10.0.0.1", 18082, "tags=one,two,udp")),
        ("sleeper/n1/plain-80".into(), record("127.0.0.1", 18080, "")),
        ("web/n1/first".into(), record("10.0.0.1", 18081, "tags=one,two")),
    ]
    .into();
    assert_eq!(found, wanted);
    let inside = registered(&daemon, Registrar::Internal).await;
    let (host, port, _) = &inside["sleeper-9/n1/plain-9"];
    assert!(host.starts_with("172.31.255.") && *port == 9, "{inside:?}");
    // What is killed is told, and gone.
    let mut events = Events::of(&daemon.socket()).await.expect("events");
    daemon.docker(&["kill", "plain"]);
    let heard = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
    heard.expect("Docker tells of it").expect("an event");
    let late = Instant::now() + Duration::from_secs(20);
    while registered(&daemon, Registrar::Published).await.contains_key("sleeper/n1/plain-80") {
        assert!(Instant::now() < late);
    }
}
