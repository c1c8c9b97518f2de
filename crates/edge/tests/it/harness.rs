//! A php-fpm and an edge in a folder of their own, and the plainest of clients.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pressroom_edge::Options;
use pressroom_model::id::InstanceId;
use pressroom_model::snapshot::{Backend, CacheRules, Certificate, Limits, Site, Snapshot};
use pressroom_model::unit::{ByteSize, Span};
use pressroom_runtime::inherited::Inherited;

/// The script that the tests talk to.
const INDEX: &str = include_str!("index.php");

/// Waits for a condition, at most ten seconds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder that php-fpm's user may enter.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["", "root/wp-content", "uploads", "state", "run", "scratch"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(&path).expect("made");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
                .expect("opened");
        }
        std::fs::write(dir.path().join("root/index.php"), INDEX).expect("written");
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, content).expect("written");
    }
}

/// One php-fpm.
pub(crate) struct Fpm {
    child: Option<Child>,
    config: PathBuf,
    pub(crate) socket: PathBuf,
}

impl Fpm {
    pub(crate) fn start(place: &Place, number: u16, workers: u16) -> Self {
        let socket = place.path(&format!("run/{number}.sock"));
        let config = place.path(&format!("run/{number}.conf"));
        let text = format!(
            "[global]\nerror_log = {log}\ndaemonize = no\n[pool]\nuser = www-data\ngroup = www-data\n\
             listen = {socket}\nlisten.mode = 0666\npm = static\npm.max_children = {workers}\n\
             catch_workers_output = no\nclear_env = no\n\
             php_admin_value[upload_max_filesize] = 2G\nphp_admin_value[post_max_size] = 2G\n\
             php_admin_value[error_log] = \nphp_admin_flag[log_errors] = on\n\
             php_admin_value[sys_temp_dir] = {scratch}\nphp_admin_value[upload_tmp_dir] = {scratch}\n\
             env[SCRATCH] = {scratch}\nenv[AFFIRM] = {affirm}\n",
            log = place.path(&format!("run/{number}.log")).display(),
            socket = socket.display(),
            scratch = place.path("scratch").display(),
            affirm = place.path("run/affirm.sock").display(),
        );
        std::fs::write(&config, text).expect("written");
        let mut fpm = Self { child: None, config, socket };
        fpm.boot();
        fpm
    }

    pub(crate) fn boot(&mut self) {
        let child = Command::new("php-fpm8.2")
            .arg("-n")
            .args(["-d", "extension=posix.so"])
            .arg("-y")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("php-fpm8.2 is installed");
        self.child = Some(child);
        let socket = self.socket.clone();
        until("php-fpm listens", || UnixStream::connect(&socket).is_ok());
    }

    /// Ends it by a signal and waits.
    pub(crate) fn stop(&mut self, signal: &str) {
        if let Some(mut child) = self.child.take() {
            let pid = child.id().to_string();
            let _ = Command::new("kill").args([signal, &pid]).status();
            let _ = child.wait();
        }
    }
}

impl Drop for Fpm {
    fn drop(&mut self) {
        self.stop("-TERM");
    }
}

/// An edge in this process.
pub(crate) struct Edge {
    thread: Option<JoinHandle<()>>,
    pub(crate) control: PathBuf,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    snapshot: PathBuf,
    pub(crate) model: Snapshot,
}

impl Edge {
    /// Serves `place` with these php-fpm; `change` may alter the snapshot.
    pub(crate) fn start(
        place: &Place,
        pool: &[(&Fpm, u16)],
        change: impl FnOnce(&mut Snapshot),
    ) -> Self {
        Self::start_with(place, pool, Vec::new(), change)
    }

    /// The same with further sockets.
    pub(crate) fn start_with(
        place: &Place,
        pool: &[(&Fpm, u16)],
        mut sockets: Vec<Inherited>,
        change: impl FnOnce(&mut Snapshot),
    ) -> Self {
        let mut model = snapshot(place, pool);
        change(&mut model);
        let snapshot = place.path("snapshot.json");
        std::fs::write(&snapshot, serde_json::to_vec(&model).expect("JSON")).expect("written");
        let http = listen("http", &mut sockets);
        let https = listen("https", &mut sockets);
        let _ = std::fs::remove_file(place.path("run/affirm.sock"));
        let affirm = UnixListener::bind(place.path("run/affirm.sock")).expect("bound");
        open_up(&place.path("run/affirm.sock"));
        sockets.push(Inherited { name: "affirm-blog".into(), fd: affirm.into() });
        let control = place.path("run/edge.sock");
        let options = Options {
            snapshot: snapshot.clone(),
            control: control.clone(),
            state: place.path("state"),
            sockets,
            cores: Some(2),
        };
        let thread = std::thread::spawn(move || pressroom_edge::run(options).expect("it runs"));
        let edge = Self { thread: Some(thread), control, http, https, snapshot, model };
        until("the edge serves", || {
            edge.control.exists() && UnixStream::connect(&edge.control).is_ok()
        });
        edge
    }

    /// Replaces the snapshot, and waits until it is served.
    pub(crate) fn publish(&mut self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.model);
        self.model.generation += 1;
        let new = self.snapshot.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&self.model).expect("JSON")).expect("written");
        std::fs::rename(&new, &self.snapshot).expect("renamed");
        until("the new snapshot is served", || {
            self.status()["generation"] == self.model.generation
        });
    }

    pub(crate) fn snapshot_file(&self) -> &Path {
        &self.snapshot
    }

    /// Asks the control socket.
    pub(crate) fn control(&self, method: &str, path: &str, body: &str) -> Answer {
        let mut stream = UnixStream::connect(&self.control).expect("connected");
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(text.as_bytes()).expect("sent");
        Answer::read(stream)
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_slice(&self.control("GET", "/status", "").body).expect("JSON")
    }

    /// A GET of the site.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    /// A GET with further header lines, each ending in CRLF.
    pub(crate) fn get_with(&self, path: &str, headers: &str) -> Answer {
        self.raw(&format!(
            "GET {path} HTTP/1.1\r\nHost: blog.test\r\nConnection: close\r\n{headers}\r\n"
        ))
    }

    /// Sends bytes on a new connection and reads to the end.
    pub(crate) fn raw(&self, text: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(text.as_bytes()).expect("sent");
        Answer::read(stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.http).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        stream
    }

    pub(crate) fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.control("POST", "/drain", "");
            thread.join().expect("no panic");
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
        }
    }
}

fn open_up(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).expect("opened");
}

/// Two sockets on one port of the system's choice.
fn listen(name: &str, into: &mut Vec<Inherited>) -> SocketAddr {
    let mut address: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    for _ in 0..2 {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.set_reuse_port(true).expect("set");
        socket.bind(&address.into()).expect("bound");
        socket.listen(1024).expect("listening");
        let listener = TcpListener::from(socket);
        address = listener.local_addr().expect("an address");
        into.push(Inherited { name: name.to_owned(), fd: OwnedFd::from(listener) });
    }
    address
}

fn snapshot(place: &Place, pool: &[(&Fpm, u16)]) -> Snapshot {
    let name = "blog".parse().expect("a name");
    let pool = pool.iter().zip(1..).map(|((fpm, workers), n)| Backend {
        id: InstanceId::of(&name, n),
        socket: fpm.socket.clone(),
        workers: *workers,
        draining: false,
    });
    let site = Site {
        remote: vec![],
        author_node: None,
        guard: None,
        network: None,
        author: None,
        former: Vec::new(),
        pool: pool.collect(),
        name,
        domains: vec!["blog.test".into(), "*.blog.test".into()],
        release: "0123456789abcdef0123456789abcdef".parse().expect("an id"),
        root: place.path("root"),
        php_root: None,
        uploads: place.path("uploads"),
        affirm_listener: "affirm-blog".into(),
        affirm_uid: 33,
        certificate: Some(certificate(place)),
        redirect_to_https: false,
        limits: Limits {
            upload: ByteSize::mib(1024),
            time: Span::seconds(20),
            queue_time: Span::seconds(5),
            queue: 100,
            answer: ByteSize::mib(512),
        },
        cache: CacheRules {
            enabled: true,
            ttl_max: Span::seconds(3600),
            stale_while_revalidate: Span::seconds(60),
            stale_if_error: Span::seconds(3600),
            ignored_parameters: vec!["utm_*".into()],
            bypass_cookies: vec!["wordpress_logged_in_*".into()],
            vary_cookies: vec![],
        },
    };
    Snapshot {
        generation: 1,
        node: "n1".into(),
        sites: vec![site],
        trusted_proxies: vec![],
        proxy_protocol: false,
        https_port: Some(8443),
        access_log: None,
        cache_size: ByteSize::mib(64),
        git: None,
        media: None,
        cluster: None,
    }
}

fn certificate(place: &Place) -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["blog.test".to_owned()]).expect("made");
    place.write("tls/chain.pem", made.cert.pem());
    place.write("tls/key.pem", made.signing_key.serialize_pem());
    Certificate { chain: place.path("tls/chain.pem"), key: place.path("tls/key.pem") }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// Whether the body had the length that its head says.
    pub(crate) whole: bool,
}

impl Answer {
    /// Reads to the end of the connection.
    pub(crate) fn read(mut stream: impl std::io::Read) -> Self {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        Self::parse(&all)
    }

    pub(crate) fn parse(all: &[u8]) -> Self {
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(all.len());
        let head = String::from_utf8_lossy(&all[..end]).into_owned();
        let body = all.get(end + 4..).unwrap_or_default().to_vec();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let mut answer = Self { status, head, body, whole: status != 0 };
        if answer.header("transfer-encoding") == Some("chunked") {
            (answer.body, answer.whole) = dechunk(&answer.body);
        } else if let Some(length) =
            answer.header("content-length").and_then(|l| l.parse::<usize>().ok())
        {
            answer.whole = answer.body.len() == length;
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no JSON ({e}): {} {}", self.head, self.text()))
    }
}

fn dechunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|w| w == b"\r\n") else { return (body, false) };
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|t| usize::from_str_radix(t.trim(), 16).ok());
        let Some(size) = size else { return (body, false) };
        if size == 0 {
            return (body, true);
        }
        let Some(piece) = rest.get(end + 2..end + 2 + size) else { return (body, false) };
        body.extend_from_slice(piece);
        rest = rest.get(end + 4 + size..).unwrap_or_default();
    }
}
