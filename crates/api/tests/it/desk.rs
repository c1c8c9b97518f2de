//! An operator made for tests, with both doors open on real sockets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use pressroom_api::client::Client;
use pressroom_api::failure::Failure;
use pressroom_api::git::{Access, Pushed, TokenWish};
use pressroom_api::operator::{
    Answer, Check, CheckState, InitialAdmin, Operator, Planned, Visit, Why, Wish,
};
use pressroom_api::progress::{Progress, Step};
use pressroom_api::release::{Code, Damage, Deployment, Details, Diff, Which};
use pressroom_api::wp;
use pressroom_api::{console, server};
use pressroom_model::affirmation::{Purge, Receipt};
use pressroom_model::file::{self, Facts};
use pressroom_model::id::SiteName;
use pressroom_model::process::ProcessSpec;
use pressroom_model::rollout::Record;
use pressroom_model::secret::Secret;
use pressroom_model::status::{Pid, Process, Site, Status};
use pressroom_model::verdict::Health;
use pressroom_model::writes::{Class, Written};
use pressroom_runtime::shutdown::{self, Trigger};
use pressroom_runtime::tasks::Group;

pub(crate) struct Desk {
    pub(crate) operator: Arc<Clerk>,
    pub(crate) client: Client,
    pub(crate) socket: PathBuf,
    pub(crate) console: SocketAddr,
    pub(crate) trigger: Trigger,
    pub(crate) group: Group,
    _folder: tempfile::TempDir,
}

impl Desk {
    pub(crate) async fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("agent.sock");
        let operator = Arc::new(Clerk::default());
        let (trigger, stop) = shutdown::pair();
        let group = Group::new("test", stop);
        let door = server::Server::new(operator.clone(), group.clone());
        let listener = server::bind(&socket).expect("bound");
        let shown = door.clone();
        group.spawn("api", |stop| async move { door.serve(listener, stop).await.expect("served") });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let connections = group.clone();
        group.spawn("console", |stop| console::serve(listener, shown, connections, stop));
        let client = Client::new(&socket);
        Self { operator, client, socket, console: address, trigger, group, _folder: folder }
    }
}

/// The test's own operator.
#[derive(Default)]
pub(crate) struct Clerk {
    pub(crate) is_broken: AtomicBool,
    pub(crate) is_slow: AtomicBool,
    pub(crate) go: tokio::sync::Notify,
    pub(crate) passwords: Mutex<Vec<String>>,
    /// Another node leads; what it is asked is here.
    pub(crate) is_led: AtomicBool,
    pub(crate) passed: Mutex<Vec<String>>,
    was_shown: AtomicBool,
}

impl Operator for Clerk {
    fn is_led_elsewhere(&self) -> Answer<'_, bool> {
        Box::pin(async { Ok(self.is_led.load(Ordering::SeqCst)) })
    }

    fn make_here(&self, name: SiteName, code: Code) -> Answer<'_, Code> {
        Box::pin(async move {
            match code {
                Code::Folder(path) => Ok(Code::Made {
                    release: "5e".repeat(16).parse().expect("an id"),
                    source: format!("{} for {name}", path.display()),
                }),
                other => Ok(other),
            }
        })
    }

    fn pass_on(&self, request: Request<Bytes>) -> Answer<'_, Response<Incoming>> {
        Box::pin(async move {
            let text = String::from_utf8_lossy(request.body()).into_owned();
            self.passed.lock().expect("no panic while held").push(text);
            Err(Failure::ours("the leader is silent"))
        })
    }

    fn status(&self) -> Answer<'_, Status> {
        Box::pin(async { Ok(status()) })
    }

    fn plan(&self, _wish: Wish) -> Answer<'_, Vec<Planned>> {
        Box::pin(async {
            if self.is_broken.load(Ordering::SeqCst) {
                return Err(Failure::ours("the store is broken"));
            }
            Ok(vec![Planned {
                action: "start `mariadb`".to_owned(),
                because: "it is not there".to_owned(),
            }])
        })
    }

    fn apply(&self, wish: Wish, progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move {
            let told = wish
                .admin_passwords
                .iter()
                .map(|(site, secret)| format!("{site}: {}", secret.reveal()));
            self.passwords.lock().expect("no panic while held").extend(told);
            if self.is_broken.load(Ordering::SeqCst) {
                return Err(Failure::yours("cannot listen").hint("choose another port"));
            }
            let step = progress.begin("start `mariadb`");
            if self.is_slow.load(Ordering::SeqCst) {
                self.go.notified().await;
            }
            step.done("answers");
            Ok(())
        })
    }

    fn remove_site(&self, name: SiteName, _wish: Wish, _progress: Progress) -> Answer<'_, PathBuf> {
        Box::pin(async move { Ok(PathBuf::from(format!("/data/removed/{name}"))) })
    }

    fn down(&self, _progress: Progress) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn visit(&self, name: SiteName) -> Answer<'_, Visit> {
        let url = format!("https://{name}.localhost/");
        Box::pin(async {
            Ok(Visit { url, status: 200, is_good: true, because: String::new(), ms: 3 })
        })
    }

    fn take_initial_admin(&self, _name: SiteName) -> Answer<'_, Option<InitialAdmin>> {
        Box::pin(async {
            let is_first = !self.was_shown.swap(true, Ordering::SeqCst);
            Ok(is_first.then(|| InitialAdmin {
                user: "admin".to_owned(),
                password: Secret::new("open sesame"),
            }))
        })
    }

    fn applied(&self) -> Answer<'_, Option<pressroom_model::config::Config>> {
        Box::pin(async { Ok(Some(wish().config)) })
    }

    fn doctor(&self) -> Answer<'_, Vec<Check>> {
        Box::pin(async {
            let (check, state) = ("disk".to_owned(), CheckState::Good);
            Ok(vec![Check { check, state, detail: "9 GiB free".to_owned(), hint: String::new() }])
        })
    }

    fn purge(&self, _name: SiteName, purge: Purge) -> Answer<'_, Receipt> {
        Box::pin(async move { Ok(Receipt { ok: purge.all, position: 1, pages: 7, nodes: vec![] }) })
    }

    fn deploy(&self, _name: SiteName, _what: Deployment, progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move {
            progress.begin("build").done("1 file");
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
        Box::pin(async { Ok(Diff { added: vec!["new.php".to_owned()], ..Diff::default() }) })
    }

    fn releases(&self, _name: SiteName) -> Answer<'_, Vec<Record>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn rollback(&self, _name: SiteName, which: Which, _progress: Progress) -> Answer<'_, ()> {
        Box::pin(async move {
            match which.release {
                None => Ok(()),
                Some(id) => Err(Failure::yours(format!("`blog` has no release `{id}`"))),
            }
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

    fn show_release(&self, name: SiteName, _which: Which) -> Answer<'_, Details> {
        Box::pin(async move { Err(Failure::yours(format!("`{name}` has had no release"))) })
    }

    fn verify(&self, _name: SiteName, _which: Which) -> Answer<'_, Vec<Damage>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn metrics(&self) -> Answer<'_, String> {
        Box::pin(async move { Ok("pressroom_requests_total 1\n".to_owned()) })
    }

    fn why(&self, url: String) -> Answer<'_, Why> {
        Box::pin(async move {
            Ok(Why {
                url,
                site: None,
                status: 421,
                cache: "none".to_owned(),
                because: "no site answers for this host".to_owned(),
                key: None,
                age: None,
                fresh_for: None,
                tags: Vec::new(),
                instance: None,
                request_id: None,
                steps: Vec::new(),
                notes: Vec::new(),
            })
        })
    }
}

fn status() -> Status {
    let process = |name: &str, pid| Process {
        name: name.to_owned(),
        pid: Some(pid),
        verdict: Health::Healthy,
        because: String::new(),
        starts: 1,
    };
    Status {
        version: 1,
        keeper: Pid { pid: Some(10) },
        agent: Pid { pid: Some(11) },
        edge: process("edge", 12),
        engines: vec![process("mariadb", 13)],
        sites: vec![Site {
            name: "blog".parse().expect("a good name"),
            url: "https://localhost:8443/".to_owned(),
            domains: vec!["localhost".to_owned()],
            verdict: Health::Healthy,
            because: String::new(),
            release: None,
            instances: Vec::new(),
        }],
        notices: Vec::new(),
        templates: Vec::new(),
        addresses: Vec::new(),
        media_store: None,
        state: None,
        traffic: None,
    }
}

pub(crate) fn wish() -> Wish {
    let facts = Facts {
        hostname: "n1".to_owned(),
        is_root: false,
        cores: 2,
        php_version: "8.2".to_owned(),
        data: PathBuf::from("/data"),
        folder: PathBuf::from("/data"),
    };
    let name: SiteName = "blog".parse().expect("a good name");
    Wish {
        config: file::parse("[[site]]\nname = 'blog'", &facts).expect("a good file"),
        admin_passwords: BTreeMap::from([(name, Secret::new("hunter2"))]),
    }
}

/// Progress that is kept.
pub(crate) fn collect() -> (Progress, Arc<Mutex<Vec<Step>>>) {
    let steps = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&steps);
    (Progress::new(move |step| sink.lock().expect("no panic while held").push(step)), steps)
}

/// Waits for a condition, at most ten seconds.
pub(crate) async fn eventually(condition: impl Fn() -> bool) {
    let late = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < late, "it did not happen in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
