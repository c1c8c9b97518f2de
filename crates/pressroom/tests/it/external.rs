//! A cluster whose state is in an etcd that operators keep, which is in the visitors' network here.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::house::wait_until;
use crate::lab::{Lab, processes_of, text};

const PATIENCE: Duration = Duration::from_secs(30);

/// An etcd with a certificate of its own.
struct Kept {
    child: Child,
    netns: String,
    address: String,
    folder: tempfile::TempDir,
}

impl Kept {
    fn start(lab: &Lab) -> Self {
        let netns = text(&lab.made["client"]["netns"]).to_owned();
        let mut asked = inside(&netns);
        asked.args(["ip", "-4", "-o", "address", "show", "scope", "global"]);
        let said = String::from_utf8(asked.output().expect("ip runs").stdout).expect("text");
        let address = said.split_whitespace().nth(3).and_then(|it| it.split('/').next());
        let address = address.expect("the client has an address").to_owned();
        // No `pressroom` in its name: what is left of a lab is looked for by that.
        let folder = tempfile::Builder::new().prefix("kept-etcd-").tempdir().expect("a folder");
        let san = format!("subjectAltName=IP:{address}");
        let made = Command::new("openssl")
            .current_dir(folder.path())
            .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes".split(' '))
            .args("-keyout e.key -out e.pem -days 2 -subj /CN=etcd".split(' '))
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", &san])
            .output();
        assert!(made.expect("openssl runs").status.success());
        let child = run(&netns, &address, folder.path());
        let kept = Self { child, netns, address, folder };
        kept.until_well();
        kept
    }

    fn url(&self) -> String {
        format!("https://{}:2379", self.address)
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn ctl(&self, words: &[&str]) -> Output {
        let mut command = inside(&self.netns);
        command.args(["etcdctl", "--endpoints", &self.url(), "--cacert", &self.file("e.pem")]);
        command.args(words).output().expect("etcdctl runs")
    }

    fn until_well(&self) {
        let is_well = || self.ctl(&["endpoint", "health"]).status.success();
        wait_until("etcd answers", PATIENCE, is_well);
    }

    fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    fn start_again(&mut self) {
        self.child = run(&self.netns, &self.address, self.folder.path());
        self.until_well();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn inside(netns: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns]).stdin(Stdio::null()).env("ETCDCTL_API", "3");
    command
}

fn run(netns: &str, address: &str, folder: &Path) -> Child {
    let url = format!("https://{address}:2379");
    let mut command = inside(netns);
    command.current_dir(folder).args(["etcd", "--data-dir", "data"]);
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--cert-file", "e.pem", "--key-file", "e.key"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("etcd starts")
}

#[test]
fn the_state_is_in_an_etcd_of_operators_and_sites_need_it_as_little_as_ours() {
    let Some(lab) = Lab::up(1, &["--standalone"]) else { return };
    let mut kept = Kept::start(&lab);
    let (url, authority) = (kept.url(), kept.file("e.pem"));
    let node = lab.node(1).clone();
    let (name, address) = (text(&node["name"]), text(&node["address"]));
    let status =
        || -> Value { serde_json::from_str(&lab.must_on(1, &["status", "--json"])).expect("JSON") };
    let label = |word: &str| lab.on(1, &["node", "label", name, word]).status.success();
    let init = ["cluster", "init", "--address", address, "--etcd", &url];
    let refused = lab.on(1, &init);
    assert_eq!(refused.status.code(), Some(1), "the system trusts no such authority");
    assert!(String::from_utf8_lossy(&refused.stderr).contains(&url), "{refused:?}");
    lab.must_on(1, &[&init[..], &["--etcd-ca", &authority, "--etcd-prefix", "/mine"]].concat());

    assert_eq!(lab.visit("client", 1, "/"), 200);
    let state = status()["state"].clone();
    assert_eq!((&state["is_external"], &state["is_heard"]), (&true.into(), &true.into()));
    assert!(text(&state["place"]).contains(&url));
    let own = processes_of(lab.folder());
    assert!(own.iter().all(|line| !line.contains("etcd ")), "{own:?}");
    wait_until("it leads", PATIENCE, || label("rack=one"));

    // Back to a copy.
    let copy = lab.must_on(1, &["cluster", "backup"]);
    assert!(label("rack=two") && label("shelf=two"));
    lab.must_on(1, &["cluster", "restore", copy.trim(), "--force", "--yes"]);
    wait_until("it leads with the copy", PATIENCE, || label("row=three"));
    // Nodes stay those that the node knew last; all else is the copy's.
    assert_eq!(lab.visit("client", 1, "/"), 200);

    kept.kill();
    wait_until("it is not heard", PATIENCE, || status()["state"]["is_heard"] == false);
    assert!(!label("rack=four"), "the state is away");
    assert_eq!(lab.visit("client", 1, "/"), 200);
    kept.start_again();
    wait_until("it is heard", PATIENCE, || label("rack=four"));

    // The same by another name of it, which the certificate is not for, and by the right one.
    let other = format!("https://localhost:{}", 2379);
    let refused = lab.on(1, &["cluster", "etcd", "--etcd", &other, "--etcd-ca", &authority]);
    assert_eq!(refused.status.code(), Some(1));
    lab.must_on(1, &["cluster", "etcd", "--etcd", &url, "--etcd-ca", &authority]);
    wait_until("it leads again", PATIENCE, || label("rack=five"));
}
