//! A real sessions server with two sites: what one does must not stop the other.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pressroom_agent::engine::redis::{Redis, held_back};
use pressroom_agent::layout::Layout;
use pressroom_agent::sessions::look;
use pressroom_model::config::Config;
use pressroom_model::file::{Facts, parse};
use pressroom_model::id::SiteName;
use pressroom_model::secret::Secret;
use pressroom_model::unit::ByteSize;
use pressroom_plan::machine::REDIS_SESSIONS;
use pressroom_plan::sessions::Decision;
use pressroom_render::redis::{Purpose, Rights};
use redis::{Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisError};
use tempfile::TempDir;

/// A running sessions server.
struct Server {
    layout: Layout,
    process: Child,
    sites: Vec<SiteName>,
    _folder: TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = Layout::new(folder.path());
        let sites = ["greedy", "modest"].map(|name| name.parse().expect("a good name")).to_vec();
        for path in [layout.engines(), layout.run(), layout.logs()] {
            std::fs::create_dir_all(path).expect("a folder");
        }
        let redis = engine(&layout, &sites, &BTreeSet::new());
        let spec = redis.prepare().expect("prepared");
        let mut command = Command::new(&spec.program);
        command.args(&spec.args).stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().expect("redis-server");
        let deadline = Instant::now() + Duration::from_secs(20);
        while redis.memory().await.is_err() {
            assert!(Instant::now() < deadline, "Redis did not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Self { layout, process, sites, _folder: folder }
    }

    /// What the agent does: looks, and tells Redis the rights that follow.
    async fn look_and_grant(&self) -> Decision {
        let before = held_back(&self.layout);
        let redis = engine(&self.layout, &self.sites, &before);
        let (_, decision) = look(&redis, &self.sites, &before).await.expect("a look");
        let names = decision.held_back.keys().cloned().collect();
        let redis = engine(&self.layout, &self.sites, &names);
        for _ in 0..2 {
            redis.grant().await.expect("granted");
        }
        decision
    }

    fn connect(&self, site: &str) -> Connection {
        let info = ConnectionAddr::Unix(self.layout.redis(REDIS_SESSIONS))
            .into_connection_info()
            .expect("an address")
            .set_redis_settings(
                RedisConnectionInfo::default()
                    .set_username(format!("site-{site}"))
                    .set_password(password(site).reveal())
                    .set_skip_set_lib_name(),
            );
        redis::Client::open(info).and_then(|client| client.get_connection()).expect("connected")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn password(site: &str) -> Secret {
    Secret::new(format!("password-of-{site}"))
}

fn config() -> Config {
    let facts = Facts {
        hostname: "lab".into(),
        is_root: false,
        cores: 1,
        php_version: "8.2".into(),
        data: "/nowhere".into(),
        folder: "/nowhere".into(),
    };
    parse("", &facts).expect("a configuration")
}

/// The server with these sites' rights; with so little memory it has 64 MiB for sessions.
fn engine(layout: &Layout, sites: &[SiteName], held_back: &BTreeSet<SiteName>) -> Redis {
    let sites: Vec<_> = sites
        .iter()
        .map(|site| {
            let is_held_back = held_back.contains(site);
            let rights = if is_held_back { Rights::NothingNew } else { Rights::All };
            (site.clone(), password(site.as_str()), rights)
        })
        .collect();
    let machine = ByteSize::mib(1024);
    Redis::new(layout, Purpose::Sessions, &config(), machine, None, &Secret::new("ours"), &sites)
}

fn set(connection: &mut Connection, key: &str, value: &[u8]) -> Result<(), RedisError> {
    redis::cmd("SET").arg(key).arg(value).arg("EX").arg(600).query(connection)
}

const LARGE: usize = 64 << 10;

/// Fills the server until it refuses even the smallest; how many large keys that took.
fn fill(connection: &mut Connection) -> usize {
    let mut until_full = |name: &str, size: usize| {
        (0..100_000)
            .find(|n| {
                set(connection, &format!("greedy:session:{name}{n}"), &vec![b'x'; size]).is_err()
            })
            .expect("it is full some day")
    };
    let keys = until_full("", LARGE);
    until_full("small", 100);
    keys
}

#[tokio::test]
async fn a_site_that_fills_the_server_stops_no_other() {
    let server = Server::start().await;
    let mut modest = server.connect("modest");
    set(&mut modest, "modest:session:a", b"cart").expect("there is room");
    assert_eq!(server.look_and_grant().await.held_back.len(), 0, "there is plenty");

    // Loading users ends their connections.
    let (mut greedy, mut modest) = (server.connect("greedy"), server.connect("modest"));
    let keys = fill(&mut greedy);
    let refusal = set(&mut modest, "modest:session:b", &[b'x'; LARGE]).expect_err("it is full");
    assert!(refusal.to_string().contains("OOM"), "{refusal}");

    let decision = server.look_and_grant().await;
    let names: Vec<_> = decision.held_back.keys().map(SiteName::as_str).collect();
    assert_eq!(names, ["greedy"]);
    let mut modest = server.connect("modest");
    set(&mut modest, "modest:session:b", &vec![b'x'; 8 << 20]).expect("the other one goes on");
    let mut greedy = server.connect("greedy");
    let refusal = set(&mut greedy, "greedy:session:0", b"more").expect_err("it is held back");
    assert!(refusal.to_string().contains("permission"), "{refusal}");
    let kept: Vec<u8> =
        redis::cmd("GET").arg("greedy:session:0").query(&mut greedy).expect("it may read");
    assert_eq!(kept.len(), LARGE, "nothing was deleted");
    let seconds: i32 = redis::cmd("EXPIRE")
        .arg("greedy:session:0")
        .arg(900)
        .query(&mut greedy)
        .expect("it may keep alive");
    assert_eq!(seconds, 1);

    assert_eq!(server.look_and_grant().await.held_back.len(), 1, "and so it stays");
    let mut greedy = server.connect("greedy");
    for n in 0..keys * 3 / 4 {
        let key = format!("greedy:session:{n}");
        redis::cmd("DEL").arg(key).exec(&mut greedy).expect("it may remove");
    }
    let decision = server.look_and_grant().await;
    assert_eq!(decision.held_back.len(), 0, "it holds less than its share again");
    assert_eq!(decision.room, ByteSize::mib(64), "the room is what it was");
    let mut greedy = server.connect("greedy");
    set(&mut greedy, "greedy:session:0", b"more").expect("it may make sessions again");
}

/// A script would stop everybody: no site may run one.
#[tokio::test]
async fn no_site_may_run_a_script() {
    let server = Server::start().await;
    let mut site = server.connect("greedy");
    for command in ["EVAL", "EVALSHA", "EVAL_RO", "FCALL", "SCRIPT", "FUNCTION"] {
        let mut asked = redis::cmd(command);
        asked.arg(if command == "SCRIPT" || command == "FUNCTION" { "FLUSH" } else { "return 1" });
        let answer = asked.arg(0).query::<redis::Value>(&mut site);
        let refusal = answer.expect_err(command).to_string();
        assert!(refusal.contains("permission"), "{command}: {refusal}");
    }
}
