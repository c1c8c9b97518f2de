//! `dig`, and a server for it to ask.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use pressroom_dns::{serve, view};
use pressroom_model::discovery::{Leased, Record, View};
use pressroom_runtime::shutdown::{self, Trigger};
use pressroom_runtime::tasks::Group;
use tempfile::TempDir;

/// A server on a port of its own, with the view in `folder`. It ends with its trigger.
pub(crate) struct Server {
    pub(crate) folder: TempDir,
    pub(crate) at: SocketAddr,
    pub(crate) trigger: Trigger,
    pub(crate) tasks: Group,
}

/// A view with these records.
pub(crate) fn records(records: &[(&str, &str)]) -> View {
    let leased = |text: &str| Leased {
        record: Record::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}")),
        lease: None,
    };
    View {
        domain: "pressroom.local".into(),
        revision: 7,
        at_ms: 0,
        records: records.iter().map(|(key, text)| ((*key).to_owned(), leased(text))).collect(),
        leases: [].into(),
        forward: Vec::new(),
    }
}

pub(crate) fn publish(folder: &Path, view: &View) {
    let fresh = folder.join("fresh");
    std::fs::write(&fresh, serde_json::to_vec(view).unwrap()).unwrap();
    std::fs::rename(fresh, folder.join("dns.json")).unwrap();
}

impl Server {
    /// A server of this view; `None`: nobody published one.
    pub(crate) fn start(view: Option<&View>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Some(view) = view {
            publish(folder.path(), view);
        }
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
                break (udp, tcp);
            }
        };
        let at = udp.local_addr().unwrap();
        let (trigger, stop) = shutdown::pair();
        let tasks = Group::new("test", stop);
        let current = view::follow(folder.path().join("dns.json"), &tasks);
        let server = Arc::new(serve::Server::new(current, tasks.clone()));
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let udp = tokio::net::UdpSocket::from_std(udp).unwrap();
        let tcp = tokio::net::TcpListener::from_std(tcp).unwrap();
        let other = Arc::clone(&server);
        tasks.spawn("udp", move |stop| serve::datagrams(server, udp, stop));
        tasks.spawn("tcp", move |stop| serve::connections(other, tcp, stop));
        Self { folder, at, trigger, tasks }
    }

    /// What `dig` says to these words.
    pub(crate) async fn dig(&self, words: &str) -> Said {
        dig(self.at, words).await
    }
}

/// What `dig` prints, part by part.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) all: String,
    pub(crate) status: String,
    pub(crate) flags: String,
    pub(crate) answers: Vec<String>,
    pub(crate) authority: Vec<String>,
    pub(crate) additional: Vec<String>,
}

pub(crate) async fn dig(at: SocketAddr, words: &str) -> Said {
    let mut command = Command::new("dig");
    command.arg(format!("@{}", at.ip())).args(["-p", &at.port().to_string()]);
    command.args(["+tries=1", "+time=5", "+nocookie"]).args(words.split_whitespace());
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().expect("dig is installed (dnsutils)");
    let all = String::from_utf8(output.stdout).unwrap();
    let field = |name: &str| {
        let (_, rest) = all.split_once(name).unwrap_or_default();
        rest.split([',', ';', '\n']).next().unwrap_or_default().trim().to_owned()
    };
    let section = |name: &str| -> Vec<String> {
        let lines = all.lines().skip_while(|line| *line != format!(";; {name} SECTION:")).skip(1);
        let lines = lines.take_while(|line| !line.is_empty());
        let mut lines: Vec<String> =
            lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        lines.sort();
        lines
    };
    Said {
        status: field("status: "),
        flags: field("flags: "),
        answers: section("ANSWER"),
        authority: section("AUTHORITY"),
        additional: section("ADDITIONAL"),
        all,
    }
}
