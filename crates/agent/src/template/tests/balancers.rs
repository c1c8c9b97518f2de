//! The templates that come with us, in the programs that they are for.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::*;
use crate::template::examples;

/// The records of backends, as discovery writes them.
fn record(address: SocketAddr) -> String {
    format!(r#"{{"host":"{}","port":{},"ttl":10}}"#, address.ip(), address.port())
}

/// A folder with the templates of one program, which goes where the test wants.
fn desk_of(program: &str, edit: impl Fn(&Desk, &str) -> String) -> Desk {
    let desk = Desk { folder: tempfile::tempdir().expect("a folder") };
    std::fs::create_dir(desk.path("etc")).expect("a folder");
    for (path, contents) in examples::all() {
        let Ok(path) = path.strip_prefix(program) else { continue };
        let path = desk.folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let text = std::str::from_utf8(contents).expect("text");
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.split_once(" = ") {
                Some(("dest", _)) => format!("dest = \"{}\"", desk.dest().display()),
                Some(("reload_cmd", command)) => {
                    // Nobody runs before the first file is there.
                    let pid = desk.path("pid").display().to_string();
                    let own = format!("'test -e {pid} || exit 0; ");
                    let command = command.replace("'systemctl start haproxy; ", &own);
                    let command = if program == "haproxy" { &command } else { "'true'" };
                    format!("reload_cmd = {}", command.replace("/run/haproxy.pid", &pid))
                }
                _ => edit(&desk, line),
            })
            .collect();
        std::fs::write(path, lines.join("\n") + "\n").expect("written");
    }
    desk
}

#[test]
fn every_shipped_template_passes_the_check_of_its_program() {
    let one = ("/skydns/local/pressroom/edge/n1/1", r#"{"host":"10.0.0.1","port":80}"#);
    let six = ("/skydns/local/pressroom/edge/n2/1", r#"{"host":"fd00::2","port":8080}"#);
    let no_port = ("/skydns/local/pressroom/edge/n3/1", r#"{"text":"only words"}"#);
    for (program, wanted) in [
        ("haproxy", ["server n1.1 10.0.0.1:80", "server n2.1 [fd00::2]:8080"]),
        ("nginx", ["server 10.0.0.1:80 max_fails", "server [fd00::2]:8080 max_fails"]),
        ("varnish", [".host = \"10.0.0.1\";", ".host = \"fd00::2\";"]),
    ] {
        let desk = desk_of(program, |desk, line| {
            let socket = format!("listen unix:{};", desk.path("sock").display());
            line.replace("listen 80;", &socket)
        });
        for pairs in [&[one, six, no_port][..], &[]] {
            let _absent = std::fs::remove_file(desk.dest());
            let done = desk.apply(pairs, Options::default());
            assert_eq!(done.standing, Standing::Current, "{program}: {done:?}\n{}", desk.text());
            let has = wanted.iter().all(|wanted| desk.text().contains(wanted));
            assert_eq!(has, !pairs.is_empty(), "{program}: {}", desk.text());
        }
        std::fs::write(desk.path("broken"), "").expect("written");
        let template = std::fs::read_dir(desk.path("templates")).expect("a folder");
        let template = template.map(|entry| entry.expect("an entry").path()).next();
        std::fs::write(template.expect("a template"), "this is nothing {\n").expect("written");
        let done = desk.apply(&[one], Options::default());
        assert_eq!(done.standing, Standing::Failed, "{program} took a broken file: {done:?}");
    }
}

/// Something that answers requests until it is stopped; then it finishes what it has begun.
struct Instance {
    address: SocketAddr,
    answered: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Instance {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("set");
        let (answered, is_over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counter, over) = (Arc::clone(&answered), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        let (counter, over) = (Arc::clone(&counter), Arc::clone(&over));
                        open.push(std::thread::spawn(move || answer(stream, &counter, &over)));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(1)),
                }
            }
            // What waits to be accepted is answered as well.
            while let Ok((stream, _)) = listener.accept() {
                answer(stream, &counter, &over);
            }
            drop(listener);
            open.into_iter().for_each(|one| one.join().expect("answered"));
        });
        Self { address, answered, is_over, thread: Some(thread) }
    }

    fn count(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

const HALF: Duration = Duration::from_secs(2);

/// Answers the requests of one connection; health checks are not counted.
fn answer(mut stream: TcpStream, counter: &AtomicU64, over: &AtomicBool) {
    stream.set_nonblocking(false).expect("set");
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
    let mut read = Vec::new();
    let mut bytes = [0; 4096];
    let mut idle = Instant::now();
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(length) => {
                read.extend(&bytes[..length]);
                idle = Instant::now();
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                // Half a request that never becomes a whole one is nobody's.
                if over.load(Ordering::Relaxed) && (read.is_empty() || idle.elapsed() > HALF) {
                    return;
                }
            }
            Err(_) => return,
        }
        if !read.ends_with(b"\r\n\r\n") {
            continue;
        }
        if !read.starts_with(b"GET /.pressroom/ready") {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        read.clear();
        let last = if over.load(Ordering::Relaxed) { "Connection: close\r\n" } else { "" };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{last}\r\nok");
        if stream.write_all(answer.as_bytes()).is_err() || !last.is_empty() {
            return;
        }
    }
}

/// One request; what went wrong.
fn ask(address: SocketAddr) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(failed)?;
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    if answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok") {
        Ok(())
    } else {
        Err(format!("`{answer}`"))
    }
}

/// A HAProxy with a master, in a process group that is ended with it.
struct Balancer(Child);

impl Drop for Balancer {
    /// A master that reloads just now may lose a signal, so it is told again; in the end nobody is asked.
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process, kill_process_group};
        let pid = Pid::from_child(&self.0);
        let late = Instant::now() + Duration::from_secs(10);
        while Instant::now() < late && matches!(self.0.try_wait(), Ok(None)) {
            let _ended_already = kill_process(pid, Signal::TERM);
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ended_already = kill_process_group(pid, Signal::KILL);
        let _reaped = self.0.wait();
    }
}

impl Watched {
    async fn register(&self, n: usize, instance: &Instance) {
        let key = format!("skydns/local/pressroom/blog/http/n1/{n}");
        self.put(&key, &record(instance.address)).await;
    }

    async fn deregister(&self, n: usize) {
        let key = format!("skydns/local/pressroom/blog/http/n1/{n}");
        let transaction = Transaction::new().delete(key.parse().expect("a key"));
        assert!(self.store.commit(transaction).await.expect("committed").is_committed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_follows_one_to_five_to_two_instances_without_a_failed_request() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let front = free.local_addr().expect("an address");
    drop(free);
    let desk = desk_of("haproxy", |desk, line| {
        line.replace("bind :80", &format!("bind {front}"))
            .replace("/run/haproxy/admin.sock", &desk.path("admin.sock").display().to_string())
            .replace("pressroom/edge", "pressroom/blog/http")
    });
    let (config, pid) = (desk.dest(), desk.path("pid"));
    let watched = Watched::begin(desk).await;
    let mut instances = vec![Instance::start()];
    watched.register(0, &instances[0]).await;
    watched.until("the first file", |desk| desk.text().contains("server n1.0 ")).await;
    let log = std::fs::File::create(watched.desk.path("log")).expect("a file");
    let balancer = Command::new("haproxy")
        .args(["-W", "-f"])
        .arg(&config)
        .arg("-p")
        .arg(&pid)
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .process_group(0)
        .spawn()
        .map(Balancer)
        .expect("haproxy is installed");
    watched.until("haproxy answers", |_| ask(front).is_ok()).await;

    let is_over = Arc::<AtomicBool>::default();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let over = Arc::clone(&is_over);
            std::thread::spawn(move || {
                let (mut good, mut bad) = (0, Vec::new());
                while !over.load(Ordering::Relaxed) {
                    match ask(front) {
                        Ok(()) => good += 1,
                        Err(what) => bad.push(what),
                    }
                }
                (good, bad)
            })
        })
        .collect();

    for n in 1..5 {
        instances.push(Instance::start());
        watched.register(n, &instances[n]).await;
    }
    watched.until("all five are asked", |_| instances.iter().all(|one| one.count() > 20)).await;
    for n in (2..5).rev() {
        watched.deregister(n).await;
        // Its record is gone, and it ends: what HAProxy still sends there is sent elsewhere.
        drop(instances.remove(n));
    }
    watched.until("three are gone", |desk| desk.text().matches("server n1.").count() == 2).await;
    let before: Vec<u64> = instances.iter().map(Instance::count).collect();
    let is_used = |(one, before): (&Instance, &u64)| one.count() > before + 50;
    watched.until("two are asked", |_| instances.iter().zip(&before).all(is_used)).await;

    is_over.store(true, Ordering::Relaxed);
    let (mut good, mut bad) = (0, Vec::new());
    for client in clients {
        let (answered, failed) = client.join().expect("asked");
        good += answered;
        bad.extend(failed);
    }
    drop(balancer);
    let log = std::fs::read_to_string(watched.desk.path("log")).unwrap_or_default();
    let all = good + bad.len();
    assert!(bad.is_empty(), "{} of {all} failed, the first: {}\n{log}", bad.len(), bad[0]);
    assert!(good > 200, "only {good} requests");
    watched.end().await;
}
