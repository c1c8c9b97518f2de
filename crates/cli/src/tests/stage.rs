//! A machine and an operator made for tests. Nothing is installed, and the keeper is a thread that serves the API.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use pressroom_api::environment::Environment;
use pressroom_api::failure::Failure;
use pressroom_api::git::{Access, Pushed, TokenWish};
use pressroom_api::operator::{
    Answer, Check, CheckState, InitialAdmin, Operator, Planned, Visit, Why, Wish,
};
use pressroom_api::progress::Progress;
use pressroom_api::release::{Code, Damage, Deployment, Details, Diff, PartMove, Which};
use pressroom_api::server::{self, Server};
use pressroom_api::wp;
use pressroom_model::affirmation::{Purge, Receipt};
use pressroom_model::cluster;
use pressroom_model::config::Config;
use pressroom_model::file::Facts;
use pressroom_model::id::{EnvironmentName, NodeName, SiteName};
use pressroom_model::process::ProcessSpec;
use pressroom_model::rollout::{Part, PartKind, Record, Standing};
use pressroom_model::secret::Secret;
use pressroom_model::status::{Pid, Process, Site, Status};
use pressroom_model::template;
use pressroom_model::verdict::Health;
use pressroom_model::writes::{Class, Written};
use pressroom_runtime::shutdown::{self, Trigger};
use pressroom_runtime::tasks::Group;

use crate::machine::{Joined, Joining, Lab, LabSaid, Machine, Package, Role, Stopped, Templates};
use crate::place::Place;
use crate::talk::Talk;

/// What a command did.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: u8,
    pub(super) data: String,
    pub(super) talk: String,
}

/// One data directory, and the machine around it.
pub(super) struct Stage {
    folder: tempfile::TempDir,
    is_root: bool,
    node: Option<NodeName>,
    missing: Mutex<Option<&'static str>>,
    operator: Arc<Clerk>,
    running: Mutex<Option<(Trigger, JoinHandle<()>)>>,
    said: Kept,
}

impl Stage {
    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            is_root: false,
            node: None,
            missing: Mutex::default(),
            operator: Arc::default(),
            running: Mutex::default(),
            said: Kept::default(),
        }
    }

    pub(super) fn root(mut self) -> Self {
        self.is_root = true;
        self
    }

    /// Of a cluster.
    pub(super) fn node(mut self, name: &str) -> Self {
        self.node = Some(name.parse().expect("a good name"));
        self
    }

    /// Of a cluster that does not know it any more.
    pub(super) fn removed_node(self, name: &str) -> Self {
        open(&self.operator.desk).removed = Some(name.parse().expect("a good name"));
        self.node(name)
    }

    pub(super) fn missing(self, package: &'static str) -> Self {
        *open(&self.missing) = Some(package);
        self
    }

    pub(super) fn failing(self) -> Self {
        open(&self.operator.desk).is_failing = true;
        self
    }

    pub(super) fn data(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn file(&self) -> String {
        std::fs::read_to_string(self.data().join("pressroom.toml")).expect("a file")
    }

    pub(super) fn write(&self, text: &str) {
        std::fs::write(self.data().join("pressroom.toml"), text).expect("written");
    }

    pub(super) fn is_running(&self) -> bool {
        open(&self.running).is_some()
    }

    pub(super) fn given_passwords(&self) -> Vec<String> {
        open(&self.operator.desk).given.clone()
    }

    /// The agent's socket goes, the keeper stays.
    pub(super) fn lose_agent(&self) {
        std::fs::remove_file(self.data().join("run/agent.sock")).expect("it was there");
    }

    /// What the last command, perhaps still running, said.
    pub(super) fn said(&self) -> String {
        self.said.text()
    }

    pub(super) fn run(&self, line: &str) -> Outcome {
        self.run_for_lines(line, usize::MAX)
    }

    /// Runs a command whose reader goes after so many writes.
    pub(super) fn run_for_lines(&self, line: &str, most: usize) -> Outcome {
        let data = Kept::default();
        open(&self.said.0).clear();
        let mut words: Vec<OsString> = vec!["pressroom".into()];
        words.extend(line.split_whitespace().map(OsString::from));
        if !line.contains("--data") && !line.is_empty() {
            words.extend(["--data".into(), self.data().as_os_str().to_owned()]);
        }
        let reader = Reader { kept: data.clone(), left: most };
        let talk = Talk::kept(Box::new(reader), Box::new(self.said.clone()));
        let status = crate::run_with(self, words, &talk);
        Outcome { status, data: data.text(), talk: self.said.text() }
    }

    fn stop(&self) -> Stopped {
        let Some((trigger, thread)) = open(&self.running).take() else { return Stopped::Already };
        trigger.fire("stopped by the test");
        thread.join().expect("no panic");
        Stopped::Now
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Machine for Stage {
    fn is_root(&self) -> bool {
        self.is_root
    }

    fn facts(&self, place: &Place) -> Facts {
        Facts {
            hostname: "n1".to_owned(),
            is_root: self.is_root,
            cores: 2,
            php_version: "8.2".to_owned(),
            data: place.data.clone(),
            folder: place.folder().to_owned(),
        }
    }

    fn missing(&self, _config: &Config) -> Result<Vec<Package>, Failure> {
        let package = |name: &&str| Package { name: (*name).to_owned(), because: "PHP".to_owned() };
        Ok(open(&self.missing).iter().map(package).collect())
    }

    fn missing_in_cluster(&self, _is_voter: bool) -> Result<Vec<Package>, Failure> {
        Ok(Vec::new())
    }

    fn missing_in_lab(&self) -> Result<Vec<Package>, Failure> {
        Ok(Vec::new())
    }

    fn own_address(&self) -> Option<std::net::IpAddr> {
        None
    }

    fn membership(&self, _place: &Place) -> Result<Option<NodeName>, Failure> {
        Ok(self.node.clone())
    }

    fn join(&self, _place: &Place, joining: &Joining) -> Result<Joined, Failure> {
        Err(Failure::yours(format!("`{}` is no token", joining.token)))
    }

    fn lab(&self, _place: &Place, _verb: &Lab, _progress: &Progress) -> Result<LabSaid, Failure> {
        Ok(LabSaid::default())
    }

    fn render(&self, _place: &Place, wish: &Templates) -> Result<Vec<template::State>, Failure> {
        let standing =
            if wish.noop { template::Standing::Differs } else { template::Standing::Failed };
        Ok(vec![template::State {
            name: "haproxy.toml".to_owned(),
            dest: "/etc/haproxy/haproxy.cfg".into(),
            standing,
            because: format!("{:?} of {}", wish.backend, wish.folder.display()),
            since_ms: 0,
            replaced_ms: None,
            is_heard: true,
        }])
    }

    fn watch_templates(
        &self,
        _place: &Place,
        _wish: &Templates,
        _interval: Duration,
    ) -> Result<(), Failure> {
        Ok(())
    }

    fn example_templates(&self) -> Vec<(PathBuf, &'static [u8])> {
        vec![
            ("haproxy/conf.d/haproxy.toml".into(), b"[template]"),
            ("nginx/conf.d/nginx.toml".into(), b"x"),
        ]
    }

    fn install_command(&self, packages: &[Package]) -> String {
        format!("install-them {}", packages[0].name)
    }

    fn install(&self, packages: &[Package], progress: &Progress) -> Result<(), Failure> {
        progress.begin(format!("install {}", packages[0].name)).done("");
        *open(&self.missing) = None;
        Ok(())
    }

    fn keeper(&self, _place: &Place) -> Option<i32> {
        self.is_running().then_some(10)
    }

    fn start_keeper(&self, place: &Place) -> Result<i32, Failure> {
        let mut running = open(&self.running);
        if running.is_none() {
            let socket = place.agent_socket();
            std::fs::create_dir_all(socket.parent().expect("it is in `run`")).expect("made");
            let (trigger, stop) = shutdown::pair();
            let operator = Arc::clone(&self.operator);
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async {
                    let group = Group::new("test", stop.clone());
                    let listener = server::bind(&socket).expect("bound");
                    Server::new(operator, group.clone())
                        .serve(listener, stop)
                        .await
                        .expect("served");
                    group.finish(Duration::from_secs(5)).await;
                });
            });
            *running = Some((trigger, thread));
        }
        Ok(10)
    }

    fn stop_keeper(&self, _place: &Place, _progress: &Progress) -> Result<Stopped, Failure> {
        Ok(self.stop())
    }

    fn examine(&self, _place: &Place, _config: Option<&Config>) -> Vec<Check> {
        let (check, detail) = ("disk".to_owned(), "9 GiB free".to_owned());
        vec![Check { check, state: CheckState::Good, detail, hint: String::new() }]
    }

    fn local_authority(&self, place: &Place) -> Option<PathBuf> {
        Some(place.data.join("tls/ca.pem")).filter(|path| path.exists())
    }

    fn install_unit(&self, _path: &Path, _text: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn enter(&self, _place: &Place, spec: &ProcessSpec) -> Result<u8, Failure> {
        assert_eq!(spec.args, ["eval", "exit(3);"]);
        Ok(3)
    }

    fn program(&self) -> PathBuf {
        "/usr/bin/pressroom".into()
    }

    fn run(&self, _role: Role, _place: &Place) -> Result<(), Failure> {
        Ok(())
    }
}

/// Progress as people see it, and what was said so far.
pub(super) fn progress() -> (impl Fn() -> String, Progress) {
    let said = Kept::default();
    let talk = Talk::kept(Box::new(Kept::default()), Box::new(said.clone()));
    (move || said.text(), talk.progress())
}

/// The operator: it remembers what was wished for, and finds it done.
#[derive(Default)]
struct Clerk {
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    config: Option<Config>,
    given: Vec<String>,
    unshown: Vec<SiteName>,
    is_failing: bool,
    deployed: Option<Deployment>,
    removed: Option<NodeName>,
}

impl Clerk {
    fn names(&self) -> Vec<SiteName> {
        open(&self.desk)
            .config
            .iter()
            .flat_map(|config| &config.sites)
            .map(|site| site.name.clone())
            .collect()
    }
}

impl Operator for Clerk {
    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async { Ok(status(open(&self.desk).config.as_ref())) })
    }

    fn nodes(&self) -> Answer<'_, Vec<cluster::Standing>> {
        let own = open(&self.desk).removed.clone().map(|name| cluster::Standing {
            name,
            zone: "a".to_owned(),
            address: [127, 0, 0, 1].into(),
            roles: BTreeSet::new(),
            labels: BTreeMap::new(),
            leader: false,
            database: false,
            voter: false,
            is_up: true,
            is_drained: false,
            is_removed: true,
            serves: false,
            program: String::new(),
            clock_ms: 0,
            addresses: BTreeSet::new(),
            because: "it was taken out".to_owned(),
            sites: BTreeMap::new(),
        });
        Box::pin(async move { Ok(own.into_iter().collect()) })
    }

    fn plan(&self, wish: Wish) -> Answer<'_, Vec<Planned>> {
        let known = self.names();
        let new = wish.config.sites.iter().filter(|site| !known.contains(&site.name));
        let add = |name| Planned {
            action: format!("add site `{name}`"),
            because: "the configuration has it".to_owned(),
        };
        let planned: Vec<_> = new.map(|site| add(&site.name)).collect();
        Box::pin(async move { Ok(planned) })
    }

    fn apply(&self, wish: Wish, progress: Progress) -> Answer<'_, ()> {
        let known = self.names();
        Box::pin(async move {
            let mut desk = open(&self.desk);
            if desk.is_failing {
                let failure = Failure::yours("cannot listen on 127.0.0.1:8001");
                return Err(failure.cause("it is taken").hint("choose another"));
            }
            for site in wish.config.sites.iter().filter(|site| !known.contains(&site.name)) {
                match wish.admin_passwords.get(&site.name) {
                    Some(password) => desk.given.push(password.reveal().to_owned()),
                    None => desk.unshown.push(site.name.clone()),
                }
                progress.begin(format!("install site `{}`", site.name)).done("");
            }
            desk.config = Some(wish.config);
            Ok(())
        })
    }

    fn remove_site(&self, name: SiteName, wish: Wish, _progress: Progress) -> Answer<'_, PathBuf> {
        open(&self.desk).config = Some(wish.config);
        Box::pin(async move { Ok(PathBuf::from(format!("/kept/{name}"))) })
    }

    fn down(&self, progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move {
            progress.begin("stop `mariadb`").done("");
            Ok(())
        })
    }

    fn visit(&self, name: SiteName) -> Answer<'_, Visit> {
        let status = status(open(&self.desk).config.as_ref());
        Box::pin(async move {
            let site = status.sites.iter().find(|site| site.name == name);
            let url = site.map_or_else(String::new, |site| site.url.clone());
            Ok(Visit { url, status: 200, is_good: site.is_some(), because: String::new(), ms: 1 })
        })
    }

    fn take_initial_admin(&self, name: SiteName) -> Answer<'_, Option<InitialAdmin>> {
        Box::pin(async move {
            let mut desk = open(&self.desk);
            let place = desk.unshown.iter().position(|unshown| *unshown == name);
            Ok(place.map(|place| {
                desk.unshown.remove(place);
                InitialAdmin { user: "admin".to_owned(), password: Secret::new("open sesame") }
            }))
        })
    }

    fn applied(&self) -> Answer<'_, Option<Config>> {
        Box::pin(async { Ok(open(&self.desk).config.clone()) })
    }

    fn doctor(&self) -> Answer<'_, Vec<Check>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn purge(&self, _name: SiteName, _purge: Purge) -> Answer<'_, Receipt> {
        Box::pin(async { Ok(Receipt { ok: true, position: 1, pages: 7, nodes: vec![] }) })
    }

    fn deploy(&self, _name: SiteName, what: Deployment, progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move {
            let step = progress.begin("check the new version of blog");
            if what.message == "broken" {
                step.failed("no");
                return Err(Failure::yours("`blog` was not moved to release bbbbbbbbbbbb")
                    .cause("`/`: PHP Parse error: syntax error in /code/a.php on line 7")
                    .state("`blog` still serves release aaaaaaaaaaaa"));
            }
            step.done("");
            open(&self.desk).deployed = Some(what);
            Ok(())
        })
    }

    fn push(&self, _name: SiteName, pushed: Pushed, _progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move {
            match pushed.name.as_str() {
                "refs/heads/main" => Ok(()),
                name => Err(Failure::yours(format!("`{name}` is not taken"))),
            }
        })
    }

    fn git_access(&self, name: SiteName, wish: TokenWish) -> Answer<'_, Access> {
        let url = format!("https://{name}.localhost/.pressroom/git/{name}.git");
        let token = (wish == TokenWish::Make).then(|| Secret::new("open sesame"));
        Box::pin(async move { Ok(Access { url, has_token: wish != TokenWish::Revoke, token }) })
    }

    fn compare(&self, _name: SiteName, _code: Code) -> Answer<'_, Diff> {
        Box::pin(async {
            Ok(Diff {
                added: vec!["new.php".into()],
                changed: vec!["old.php".into()],
                ..Diff::default()
            })
        })
    }

    fn releases(&self, _name: SiteName) -> Answer<'_, Vec<Record>> {
        Box::pin(async {
            let record = |digit: &str, standing, message: &str| Record {
                id: digit.repeat(32).parse().expect("a good id"),
                standing,
                wordpress: "6.1.9".into(),
                files: 3,
                bytes: 100,
                served_ms: 1_769_000_000_000,
                source: "/code".into(),
                author: "ann".into(),
                message: message.into(),
            };
            Ok(match &open(&self.desk).deployed {
                None => vec![record("a", Standing::Serving, "first")],
                Some(what) => vec![
                    record("b", Standing::Serving, &what.message),
                    record("a", Standing::Parked, "first"),
                ],
            })
        })
    }

    fn wp_cli(&self, name: SiteName, wish: wp::Wish) -> Answer<'_, ProcessSpec> {
        Box::pin(async move {
            let spec = serde_json::json!({ "name": name, "program": "/php", "args": wish.arguments, "output": "/dev/null" });
            serde_json::from_value(spec).map_err(|error| Failure::ours(error.to_string()))
        })
    }

    fn writes(&self, _name: SiteName) -> Answer<'_, Vec<Written>> {
        Box::pin(async {
            Ok(vec![Written {
                class: Class::Refused,
                path: "wp-content/x.log".into(),
                by: Some("plugins/x".into()),
                files: 3,
                bytes: 0,
                at_ms: Some(1_769_000_000_000),
                because: "fopen: Read-only file system; log elsewhere".into(),
            }])
        })
    }

    fn show_release(&self, name: SiteName, which: Which) -> Answer<'_, Details> {
        Box::pin(async move {
            let records = self.releases(name).await?;
            let text = which.release.unwrap_or_default();
            let at = records.iter().position(|record| record.id.as_str().starts_with(&text));
            let at = at.ok_or_else(|| Failure::yours(format!("`blog` has no release `{text}`")))?;
            let part = |kind, name: &str, version: &str| Part {
                kind,
                name: name.into(),
                title: name.to_uppercase(),
                version: version.into(),
            };
            let before = [part(PartKind::Core, "", "6.1.9"), part(PartKind::Plugin, "shop", "1")];
            let after = [part(PartKind::Core, "", "6.1.9"), part(PartKind::Plugin, "shop", "2")];
            let predecessor = records.get(at + 1).map(|record| record.id.clone());
            Ok(Details {
                record: records[at].clone(),
                commit: None,
                back_by: None,
                parked_until_ms: (at > 0).then_some(1_769_000_600_000),
                is_collected_next: false,
                parts: after.to_vec(),
                moves: predecessor
                    .iter()
                    .flat_map(|_| PartMove::between(&before, &after))
                    .collect(),
                predecessor,
                diff: Diff { changed: vec!["a.php".into()], ..Diff::default() },
            })
        })
    }

    fn rollback(&self, _name: SiteName, which: Which, _progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move {
            match which.release.as_deref() {
                None | Some("a") => {
                    open(&self.desk).deployed = None;
                    Ok(())
                }
                Some(id) => Err(Failure::yours(format!("`blog` has no release `{id}`"))),
            }
        })
    }

    fn environments(&self) -> Answer<'_, Vec<Environment>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn refresh_environment(
        &self,
        _of: SiteName,
        _name: EnvironmentName,
        _progress: Progress,
    ) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn remove_environment(
        &self,
        _of: SiteName,
        _name: EnvironmentName,
        _progress: Progress,
    ) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn verify(&self, _name: SiteName, which: Which) -> Answer<'_, Vec<Damage>> {
        Box::pin(async move {
            let what = "its bytes or its mode changed".to_owned();
            let damage = Damage { path: "index.php".into(), what };
            Ok(which.release.map(|_| damage).into_iter().collect())
        })
    }

    fn metrics(&self) -> Answer<'_, String> {
        Box::pin(async move { Ok("pressroom_requests_total 1\n".to_owned()) })
    }

    fn why(&self, url: String) -> Answer<'_, Why> {
        let why = serde_json::json!({
            "url": url, "site": "blog", "status": 200, "cache": "hit", "because": "it is fresh",
        });
        Box::pin(async move { Ok(serde_json::from_value(why).expect("it has what is needed")) })
    }
}

fn status(config: Option<&Config>) -> Status {
    let port = config.map_or(0, |config| config.edge.https[0].port());
    let sites = config.into_iter().flat_map(|config| &config.sites).map(|site| Site {
        name: site.name.clone(),
        url: format!("https://{}:{port}/", site.domains[0]),
        domains: site.domains.clone(),
        verdict: Health::Healthy,
        because: String::new(),
        release: None,
        instances: Vec::new(),
    });
    let (name, because) = ("edge".to_owned(), String::new());
    Status {
        version: 1,
        keeper: Pid { pid: Some(10) },
        agent: Pid { pid: Some(11) },
        edge: Process { name, pid: Some(12), verdict: Health::Healthy, because, starts: 1 },
        engines: Vec::new(),
        sites: sites.collect(),
        notices: Vec::new(),
        templates: Vec::new(),
        addresses: Vec::new(),
        media_store: None,
        state: None,
        traffic: None,
    }
}

/// Bytes that were written, to be looked at.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Kept {
    fn text(&self) -> String {
        String::from_utf8(open(&self.0).clone()).expect("text")
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        open(&self.0).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A reader who goes after so many lines.
struct Reader {
    kept: Kept,
    left: usize,
}

impl Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.left -= bytes.iter().filter(|byte| **byte == b'\n').count().min(self.left);
        self.kept.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn open<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}
