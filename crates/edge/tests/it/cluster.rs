//! Several nodes in this process: each with an edge, its own folder and perhaps a php-fpm, and a way to every other one that can be cut.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use pressroom_model::id::NodeName;
use pressroom_model::snapshot::{self, HealthRules, Snapshot};
use pressroom_model::unit::Span;
use pressroom_runtime::inherited::Inherited;
use pressroom_wire::authority::{Authority, PublicKey};
use pressroom_wire::identity::{Identity, new_key};
use socket2::{Domain, Socket, Type};

use crate::harness::{Answer, Edge, Fpm, Place, until};

const OPEN: u8 = 0;
const SILENT: u8 = 1;
const DEAD: u8 = 2;

/// The way from one node to another.
struct Way {
    state: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    port: u16,
    /// Told when the way is gone, and when it is back; answers when it is so.
    gate: mpsc::SyncSender<mpsc::SyncSender<()>>,
}

impl Way {
    fn to(target: SocketAddr) -> Self {
        // Bound for as long as the way is there, so that its port is nobody else's while nobody listens.
        let kept = bound(0);
        let address = kept.local_addr().expect("an address").as_socket().expect("of the internet");
        let port = address.port();
        let state = Arc::new(AtomicU8::new(OPEN));
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let (gate, told) = mpsc::sync_channel(1);
        let way = Self { state, open, port, gate };
        let mut ear = listening(port);
        let (state, open) = (way.state.clone(), way.open.clone());
        std::thread::spawn(move || {
            let _kept = kept;
            while let Some(done) = lead(&ear, target, &state, &open, &told) {
                drop(ear);
                // Nobody listens: connections are refused.
                let _ = done.send(());
                let Ok(back) = told.recv() else { return };
                ear = listening(port);
                let _ = back.send(());
            }
        });
        way
    }

    fn set(&self, state: u8) {
        let before = self.state.swap(state, Ordering::SeqCst);
        if (before == DEAD) != (state == DEAD) {
            let (done, is_done) = mpsc::sync_channel(1);
            self.gate.send(done).expect("it listens");
            if state == DEAD {
                // It waits for a connection.
                let _ = TcpStream::connect(("127.0.0.1", self.port));
            }
            is_done.recv().expect("it does so");
        }
        if state == DEAD {
            for stream in self.open.lock().expect("whole").drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn bound(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("set");
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).expect("bound");
    socket
}

fn listening(port: u16) -> TcpListener {
    let socket = bound(port);
    socket.listen(64).expect("it listens");
    socket.into()
}

/// Carries connections until the way is gone.
fn lead(
    listener: &TcpListener,
    target: SocketAddr,
    state: &Arc<AtomicU8>,
    open: &Mutex<Vec<TcpStream>>,
    told: &mpsc::Receiver<mpsc::SyncSender<()>>,
) -> Option<mpsc::SyncSender<()>> {
    for near in listener.incoming().flatten() {
        if state.load(Ordering::SeqCst) == DEAD {
            return told.recv().ok();
        }
        let Ok(far) = TcpStream::connect(target) else { continue };
        let ends = [near, far];
        let copies = ends.each_ref().map(|end| end.try_clone().expect("a copy"));
        open.lock().expect("whole").extend(copies);
        for (from, to) in [(0, 1), (1, 0)] {
            let [from, to] = [from, to].map(|n: usize| ends[n].try_clone().expect("a copy"));
            let state = state.clone();
            std::thread::spawn(move || carry(from, to, &state));
        }
    }
    None
}

/// Carries bytes; those of a silent way are late until it is open again.
fn carry(mut from: TcpStream, mut to: TcpStream, state: &AtomicU8) {
    let mut buffer = [0; 1 << 16];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        while state.load(Ordering::SeqCst) == SILENT {
            std::thread::sleep(Duration::from_millis(5));
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A node.
pub(crate) struct Node {
    // In the order in which they end.
    pub(crate) edge: Option<Edge>,
    fpm: Option<Fpm>,
    pub(crate) place: Place,
    pub(crate) name: NodeName,
    zone: &'static str,
    workers: u16,
    mesh: TcpListener,
    key: String,
}

impl Node {
    pub(crate) fn edge(&self) -> &Edge {
        self.edge.as_ref().expect("it runs")
    }

    fn identity(&self) -> [PathBuf; 3] {
        ["tls/node.pem", "tls/node.key", "tls/authority.pem"].map(|name| self.place.path(name))
    }

    /// How often its PHP made a page.
    pub(crate) fn renders(&self) -> u32 {
        let text = std::fs::read_to_string(self.place.path("scratch/renders"));
        text.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// `x-cache` of a page.
    pub(crate) fn cache(&self, path: &str) -> String {
        let answer = self.edge().get(path);
        assert_eq!(answer.status, 200, "{}", answer.head);
        answer.header("x-cache").unwrap_or_default().to_owned()
    }

    pub(crate) fn purge(&self, what: &str) -> Answer {
        self.edge().control("POST", "/purge", &format!(r#"{{"site":"blog","purge":{what}}}"#))
    }

    /// Whether it hears, and asks, another node.
    pub(crate) fn knows(&self, other: &str) -> (bool, bool) {
        let status = self.edge().status();
        let peer = &status["peers"][other];
        (peer["heard"] == true, peer["up"] == true)
    }
}

/// Nodes `n1`, `n2` …
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    ways: Vec<Vec<Option<Way>>>,
}

impl Cluster {
    /// Nodes of these zones with so many workers each.
    pub(crate) fn start(nodes: &[(&'static str, u16)]) -> Self {
        let now = pressroom_runtime::clock::wall_ms() / 1000;
        let (authority, _) = Authority::make(now).expect("made");
        let nodes: Vec<Node> =
            nodes.iter().zip(1..).map(|(node, n)| make(node, n, &authority, now)).collect();
        let ways = nodes.iter().map(|from| {
            let way = |to: &Node| {
                let target = to.mesh.local_addr().expect("an address");
                (from.name != to.name).then(|| Way::to(target))
            };
            nodes.iter().map(way).collect()
        });
        let ways = ways.collect();
        let mut cluster = Self { nodes, ways };
        for n in 0..cluster.nodes.len() {
            cluster.boot(n);
        }
        cluster.settle();
        cluster
    }

    /// Waits until everybody hears and asks everybody.
    pub(crate) fn settle(&self) {
        for node in &self.nodes {
            for other in self.nodes.iter().filter(|other| other.name != node.name) {
                until("the nodes hear each other", || {
                    node.knows(other.name.as_str()) == (true, true)
                });
            }
            until("all count on each other", || node.edge().status()["partitioned"] == false);
        }
    }

    /// Starts the edge of a node.
    pub(crate) fn boot(&mut self, n: usize) {
        self.boot_with(n, |_| {});
    }

    pub(crate) fn boot_with(&mut self, n: usize, change: impl FnOnce(&mut Snapshot)) {
        let peers: Vec<_> = (0..self.nodes.len()).map(|to| self.peer(n, to)).collect();
        let remote = self.nodes.iter().filter(|it| it.workers > 0 && it.name != self.nodes[n].name);
        let remote = remote.map(|node| node.name.clone()).collect();
        let node = &self.nodes[n];
        let socket = OwnedFd::from(node.mesh.try_clone().expect("a copy"));
        let sockets = vec![Inherited { name: "mesh".into(), fd: socket }];
        let pool: Vec<_> = node.fpm.iter().map(|fpm| (fpm, node.workers)).collect();
        let edge = Edge::start_with(&node.place, &pool, sockets, |snapshot| {
            snapshot.node = node.name.to_string();
            snapshot.sites[0].remote = remote;
            snapshot.sites[0].limits.queue_time = Span::seconds(2);
            let health = HealthRules {
                interval: Span::millis(300),
                timeout: Span::millis(300),
                ..HealthRules::default()
            };
            let (identity, own) = (node.identity(), node.name.clone());
            snapshot.cluster = Some(snapshot::Cluster {
                node: own,
                identity,
                peers,
                health,
                is_drained: false,
                is_removed: false,
            });
            change(snapshot);
        });
        self.nodes[n].edge = Some(edge);
    }

    /// Ends the edge of a node in order.
    pub(crate) fn stop(&mut self, n: usize) {
        self.nodes[n].edge = None;
    }

    fn peer(&self, from: usize, to: usize) -> snapshot::Peer {
        let node = &self.nodes[to];
        // Edges are at the port behind the first one.
        let port = self.ways[from][to].as_ref().map_or(2, |way| way.port) - 1;
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (node, zone, keys) = (node.name.clone(), node.zone.to_owned(), vec![node.key.clone()]);
        snapshot::Peer { node, zone, address, port, keys }
    }

    fn ways_of(&self, n: usize) -> impl Iterator<Item = &Way> {
        let from = self.ways[n].iter().flatten();
        from.chain(self.ways.iter().filter_map(move |ways| ways[n].as_ref()))
    }

    /// Nothing comes to a node or from it; connections stay.
    pub(crate) fn cut(&self, n: usize) {
        self.ways_of(n).for_each(|way| way.set(SILENT));
    }

    /// A node is gone for others: its connections end, and none comes about.
    pub(crate) fn kill(&self, n: usize) {
        self.ways_of(n).for_each(|way| way.set(DEAD));
    }

    /// A node is gone for others, and still reaches them.
    pub(crate) fn bar(&self, n: usize) {
        let ways = self.ways.iter().filter_map(|ways| ways[n].as_ref());
        ways.for_each(|way| way.set(DEAD));
    }

    /// Nodes of different zones are gone for each other.
    pub(crate) fn part(&self) {
        self.ways_between_zones().for_each(|way| way.set(DEAD));
    }

    pub(crate) fn unite(&self) {
        self.ways_between_zones().for_each(|way| way.set(OPEN));
    }

    fn ways_between_zones(&self) -> impl Iterator<Item = &Way> {
        let ways = self.nodes.iter().zip(&self.ways);
        ways.flat_map(|(from, ways)| {
            let others = self.nodes.iter().filter(move |to| to.zone != from.zone);
            others.zip(std::iter::repeat(ways)).filter_map(|(to, ways)| {
                let n = self.nodes.iter().position(|it| it.name == to.name)?;
                ways[n].as_ref()
            })
        })
    }

    pub(crate) fn heal(&self, n: usize) {
        self.ways_of(n).for_each(|way| way.set(OPEN));
    }
}

fn make((zone, workers): &(&'static str, u16), n: usize, authority: &Authority, now: u64) -> Node {
    let (name, place): (NodeName, _) = (format!("n{n}").parse().expect("a name"), Place::new());
    let (key, public) = new_key().expect("a key");
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let chain = authority.sign_node(&name, address, &PublicKey(public), now).expect("signed");
    place.write("tls/node.pem", &chain);
    place.write("tls/node.key", &key);
    place.write("tls/authority.pem", authority.pem());
    let identity = Identity::parse(chain.as_bytes(), key.as_bytes(), authority.pem().as_bytes());
    Node {
        name,
        zone,
        workers: *workers,
        fpm: (*workers > 0).then(|| Fpm::start(&place, 1, *workers)),
        place,
        mesh: TcpListener::bind("127.0.0.1:0").expect("bound"),
        key: identity.expect("good").fingerprint().to_string(),
        edge: None,
    }
}
