//! Real files, real commands, a real store.

mod balancers;
mod etcd;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pressroom_model::template::Standing;
use pressroom_render::confd::{Pairs, Surroundings};
use pressroom_runtime::shutdown::{self, Trigger};
use pressroom_runtime::tasks::Group;
use pressroom_store::Store;
use pressroom_store::embedded::EmbeddedStore;
use pressroom_store::transaction::Transaction;

use super::Board;
use super::around::Machine;
use super::confdir::{self, Loaded};
use super::hand::{Done, Options, apply};
use super::source::Source;
use super::watching::Watching;

/// A folder of confd's with one resource, and what its commands leave behind.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new(template: &str, more: &str) -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a folder") };
        for part in ["conf.d", "templates", "etc"] {
            std::fs::create_dir(desk.path(part)).expect("a folder");
        }
        let dest = desk.dest();
        let resource = format!(
            "[template]\nsrc = 'a.tmpl'\ndest = '{}'\nkeys = ['/app']\n{}\n",
            dest.display(),
            more.replace("DIR", &desk.folder.path().display().to_string()),
        );
        std::fs::write(desk.path("conf.d/a.toml"), resource).expect("written");
        desk.template(template);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn dest(&self) -> PathBuf {
        self.path("etc/a.conf")
    }

    fn template(&self, text: &str) {
        std::fs::write(self.path("templates/a.tmpl"), text).expect("written");
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.dest()).unwrap_or_default()
    }

    fn lines(&self, name: &str) -> usize {
        std::fs::read_to_string(self.path(name)).unwrap_or_default().lines().count()
    }

    fn loaded(&self) -> Loaded {
        confdir::load(self.folder.path(), None).expect("loaded").remove(0)
    }

    fn apply(&self, pairs: &[(&str, &str)], options: Options) -> Done {
        let pairs: Pairs =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let around: Arc<dyn Surroundings> = Arc::new(Machine);
        apply(&self.loaded(), &Arc::new(pairs), options, &around)
    }

    /// What is in the folder of the file beside it.
    fn beside(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("etc")).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> =
            names.map(|name| name.to_string_lossy().into_owned()).collect();
        names.retain(|name| name != "a.conf");
        names
    }
}

const COMMANDS: &str =
    "mode = '0640'\ncheck_cmd = 'grep -q good {{.src}}'\nreload_cmd = 'echo told >> DIR/told'";

#[test]
fn only_a_changed_and_checked_file_replaces_the_old_one() {
    let desk = Desk::new("{{getv `/app/x`}}\n", COMMANDS);
    let done = desk.apply(&[("/app/x", "good 1")], Options::default());
    assert_eq!((done.standing, done.is_replaced), (Standing::Current, true), "{done:?}");
    assert_eq!(desk.text(), "good 1\n");
    let mode = std::fs::metadata(desk.dest()).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);

    let done = desk.apply(&[("/app/x", "good 1")], Options::default());
    assert_eq!((done.standing, done.is_replaced), (Standing::Current, false), "{done:?}");
    assert_eq!(desk.lines("told"), 1);

    let done = desk.apply(&[("/app/x", "bad")], Options::default());
    assert_eq!((done.standing, done.is_replaced), (Standing::Failed, false), "{done:?}");
    assert!(done.because.contains("the check command refused it"), "{done:?}");
    let done = desk.apply(&[("/app/y", "no x")], Options::default());
    assert!(done.because.contains("a.tmpl:1:3: error calling getv"), "{done:?}");
    assert_eq!((desk.text().as_str(), desk.lines("told")), ("good 1\n", 1));
    assert_eq!(desk.beside(), [""; 0]);
}

#[test]
fn nothing_is_changed_when_nothing_is_to_be() {
    let desk = Desk::new("{{getv `/app/x`}}\n", COMMANDS);
    let noop = Options { noop: true, ..Options::default() };
    let done = desk.apply(&[("/app/x", "good 1")], noop);
    assert_eq!((done.standing, desk.text().as_str()), (Standing::Differs, ""), "{done:?}");
    let sync_only = Options { sync_only: true, ..Options::default() };
    let done = desk.apply(&[("/app/x", "bad")], sync_only);
    assert_eq!((done.standing, desk.text().as_str()), (Standing::Current, "bad\n"), "{done:?}");
    assert_eq!(desk.lines("told"), 0);
}

#[test]
fn an_empty_answer_takes_no_file_away() {
    let template = "servers:{{range getvs `/app/*`}} {{.}}{{end}}\n";
    let desk = Desk::new(template, "");
    desk.apply(&[("/app/1", "one")], Options::default());
    let done = desk.apply(&[], Options::default());
    assert_eq!((done.standing, desk.text().as_str()), (Standing::Held, "servers: one\n"));
    let desk = Desk::new(template, "empty = 'render'");
    desk.apply(&[("/app/1", "one")], Options::default());
    let done = desk.apply(&[], Options::default());
    assert_eq!((done.standing, desk.text().as_str()), (Standing::Current, "servers:\n"));
}

#[test]
fn a_program_that_was_not_told_is_told_later() {
    let desk = Desk::new(
        "{{getv `/app/x`}}\n",
        "reload_cmd = 'test -e DIR/well && echo told >> DIR/told'",
    );
    let done = desk.apply(&[("/app/x", "1")], Options::default());
    assert_eq!((done.standing, done.is_replaced), (Standing::Unread, true), "{done:?}");
    assert!(done.because.contains("the reload command failed"), "{done:?}");
    std::fs::write(desk.path("well"), "").expect("written");
    // Somebody else comes, for whom the file is as it should be.
    let done = desk.apply(&[("/app/x", "1")], Options::default());
    assert_eq!((done.standing, desk.lines("told")), (Standing::Current, 1), "{done:?}");
    desk.apply(&[("/app/x", "1")], Options::default());
    assert_eq!(desk.lines("told"), 1);
    assert_eq!(desk.beside(), [""; 0]);
}

#[test]
fn a_command_that_leaves_somebody_behind_is_not_waited_for() {
    let desk = Desk::new("x\n", "reload_cmd = 'sleep 300 & echo $! > DIR/left'");
    let begun = Instant::now();
    let done = desk.apply(&[("/app/x", "1")], Options::default());
    assert_eq!(done.standing, Standing::Current, "{done:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let left = std::fs::read_to_string(desk.path("left")).expect("its id");
    let pid = rustix::process::Pid::from_raw(left.trim().parse().expect("a number"));
    rustix::process::kill_process(pid.expect("an id"), rustix::process::Signal::KILL)
        .expect("killed");
}

#[test]
fn the_owner_may_be_a_name() {
    let desk = Desk::new("x\n", "owner = 'root'\ngroup = 'no-such-group'");
    let done = desk.apply(&[("/app/x", "1")], Options::default());
    assert!(done.because.contains("there is no `no-such-group` in /etc/group"), "{done:?}");
}

/// A folder that is watched.
struct Watched {
    desk: Desk,
    store: Arc<dyn Store>,
    board: Board,
    trigger: Trigger,
    tasks: Group,
}

impl Watched {
    async fn begin(desk: Desk) -> Self {
        let (trigger, stop) = shutdown::pair();
        let tasks = Group::new("test", stop);
        let path = desk.path("state.redb");
        let store = EmbeddedStore::open(&path, &tasks).await.expect("a store");
        Self::of(desk, Arc::new(store), trigger, tasks)
    }

    fn of(desk: Desk, store: Arc<dyn Store>, trigger: Trigger, tasks: Group) -> Self {
        let board = Board::default();
        let watching = Watching {
            folder: desk.folder.path().to_owned(),
            prefix: None,
            source: Source::Store(Arc::clone(&store)),
            options: Options::default(),
            interval: Duration::from_secs(600),
            around: Arc::new(Machine),
            board: board.clone(),
        };
        tasks.spawn("watching", move |stop| watching.keep(stop));
        Self { desk, store, board, trigger, tasks }
    }

    async fn put(&self, key: &str, value: &str) {
        let transaction = Transaction::new().put(key.parse().expect("a key"), value);
        assert!(self.store.commit(transaction).await.expect("committed").is_committed());
    }

    async fn until(&self, what: &str, mut is_so: impl FnMut(&Desk) -> bool) {
        let late = Instant::now() + Duration::from_secs(30);
        while !is_so(&self.desk) {
            let log = || std::fs::read_to_string(self.desk.path("log")).unwrap_or_default();
            let (text, states) = (self.desk.text(), self.board.all());
            assert!(Instant::now() < late, "{what}: `{text}`, {states:?}\n{}", log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.trigger.fire("test");
        assert_eq!(self.tasks.finish(Duration::from_secs(30)).await, [""; 0]);
    }
}

fn is_current(board: &Board) -> bool {
    board.all().iter().all(|state| state.standing == Standing::Current && state.is_heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_arrives_and_many_at_once_are_few_reloads() {
    let desk = Desk::new(
        "{{range gets `/app/*`}}{{base .Key}}={{.Value}} {{end}}",
        "reload_cmd = 'echo told >> DIR/told'",
    );
    let watched = Watched::begin(desk).await;
    for round in 0..20 {
        watched.put("app/x", &round.to_string()).await;
        let wanted = format!("x={round} ");
        watched.until("one change", |desk| desk.text() == wanted).await;
    }
    let before = watched.desk.lines("told");
    for n in 0..400 {
        watched.put(&format!("app/n{:03}", n % 50), &n.to_string()).await;
    }
    let last: String = (0..50).map(|n| format!("n{n:03}={} ", 350 + n)).collect();
    watched.until("the last one", |desk| desk.text() == format!("{last}x=19 ")).await;
    let reloads = watched.desk.lines("told") - before;
    assert!(reloads < 200, "{reloads} reloads for 400 changes");
    watched.until("all is current", |_| is_current(&watched.board)).await;
    watched.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_edited_or_mended_counts_at_once() {
    let watched = Watched::begin(Desk::new("{{nope}}", "")).await;
    watched.put("app/x", "1").await;
    let board = watched.board.clone();
    let says = |words: &str| board.all().iter().any(|state| state.because.contains(words));
    watched.until("a fault", |_| says("function \"nope\" not defined")).await;
    watched.desk.template("x is {{getv `/app/x`}}");
    watched.until("the mended one", |desk| desk.text() == "x is 1").await;
    std::fs::remove_file(watched.desk.path("conf.d/a.toml")).expect("removed");
    watched.until("nothing is left of it", |_| board.all().is_empty()).await;
    std::fs::write(watched.desk.path("conf.d/b.toml"), "[template]\nsrc = 'a'").expect("written");
    watched.until("a fault of a resource", |_| says("`dest` is ``")).await;
    watched.end().await;
}

#[test]
fn a_folder_that_is_not_there_says_so() {
    let error = confdir::load(Path::new("/no/such"), None).expect_err("none").to_string();
    assert!(error.contains("/no/such/conf.d"), "{error}");
}
