//! Listening sockets that the keeper holds for others.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use pressroom_model::process::{ListenAddress, ListenerSpec, ProcessSpec, Request};
use rustix::process::Signal;

use super::house::{House, ask_server, eventually, free_address, hear, role, shell, signal, tcp};

fn listen(listener: ListenerSpec) -> Request {
    Request::Listen { listener }
}

#[test]
fn sockets_are_inherited_in_order_and_named() {
    let house = House::new();
    let path = house.data().join("run/affirm.sock");
    house.tell(&listen(tcp("http", free_address(), 2)));
    house.tell(&listen(tcp("https", free_address(), 1)));
    house.tell(&listen(ListenerSpec {
        name: "affirm".into(),
        address: ListenAddress::Unix { path, mode: 0o660, owner: None },
        sockets: 1,
    }));
    let script = "echo $LISTEN_FDS $LISTEN_FDNAMES; for fd in 3 4 5 6 7; do readlink /proc/$$/fd/$fd; done; echo end";
    let listeners = vec!["affirm".to_owned(), "http".to_owned(), "https".to_owned()];
    let spec = ProcessSpec { listeners, ..shell(house.data(), "one", script) };
    house.start(&spec);
    house.ended("one");
    let text = fs::read_to_string(&spec.output).expect("its output");
    let lines: Vec<&str> = text
        .lines()
        .map(|line| if line.starts_with("socket:") { "socket" } else { line })
        .collect();
    assert_eq!(lines, ["4 affirm:http:http:https", "socket", "socket", "socket", "socket", "end"]);
}

#[test]
fn a_killed_server_refuses_nobody() {
    let house = House::new();
    let address = free_address();
    house.tell(&listen(tcp("http", address, 1)));
    let spec =
        ProcessSpec { listeners: vec!["http".into()], ..role(house.data(), "edge", "server") };
    let first = house.start(&spec);
    assert_eq!(ask_server(address), first);
    signal(first, Signal::KILL);
    house.ended("edge");
    let waiting: Vec<TcpStream> =
        (0..20).map(|_| TcpStream::connect(address).expect("nobody is refused")).collect();
    let second = house.start(&spec);
    for stream in waiting {
        assert_eq!(hear(stream), second);
    }
}

#[test]
fn listening_twice_changes_nothing_and_another_address_replaces_the_first() {
    let house = House::new();
    let (first, second) = (free_address(), free_address());
    house.tell(&listen(tcp("http", first, 1)));
    let (generation, ..) = house.list();
    house.tell(&listen(tcp("http", first, 1)));
    assert_eq!(house.list().0, generation);
    house.tell(&listen(tcp("http", first, 3)));
    TcpStream::connect(first).expect("still listens");
    house.tell(&listen(tcp("http", second, 1)));
    TcpStream::connect(second).expect("listens there now");
    TcpStream::connect(first).expect_err("and no longer here");
    house.tell(&listen(tcp(
        "http",
        format!("0.0.0.0:{}", second.port()).parse().expect("an address"),
        1,
    )));
    TcpStream::connect(second).expect("an address that includes the old one");
    assert_eq!(house.list().2.len(), 1);
    house.tell(&Request::Unlisten { name: "http".into() });
    house.tell(&Request::Unlisten { name: "http".into() });
    TcpStream::connect(second).expect_err("closed");
}

#[test]
fn a_taken_port_names_its_holder_and_keeps_what_was() {
    let house = House::new();
    let (address, own) = (free_address(), free_address());
    house.tell(&listen(tcp("http", own, 1)));
    let taken = TcpListener::bind(address).expect("binds");
    let because = house.refusal(&listen(tcp("http", address, 2)));
    let pid = format!("pid {}", std::process::id());
    assert!(because.contains(&address.to_string()) && because.contains(&pid), "{because}");
    TcpStream::connect(own).expect("the old address is kept");
    drop(taken);
    house.tell(&listen(tcp("http", address, 2)));
    let because = house.refusal(&listen(tcp("other", address, 1)));
    assert!(because.contains("`http`"), "{because}");
    assert!(
        house
            .refusal(&listen(tcp("zero", "127.0.0.1:0".parse().expect("an address"), 1)))
            .contains("port 0")
    );
    assert!(house.refusal(&listen(tcp("a:b", free_address(), 1))).contains("a:b"));
}

#[test]
fn a_unix_socket_has_its_mode_and_its_stale_file_is_replaced() {
    let house = House::new();
    let path = house.data().join("run/x.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a file that nobody serves"));
    let spec = |mode| ListenerSpec {
        name: "x".into(),
        address: ListenAddress::Unix { path: path.clone(), mode, owner: None },
        sockets: 1,
    };
    let mode = || fs::metadata(&path).expect("exists").permissions().mode() & 0o777;
    house.tell(&listen(spec(0o600)));
    assert_eq!(mode(), 0o600);
    let waiting = UnixStream::connect(&path).expect("connects");
    house.tell(&listen(spec(0o666)));
    assert_eq!(mode(), 0o666);
    assert!(waiting.peer_addr().is_ok(), "a changed mode breaks no connection");
    house.tell(&Request::Unlisten { name: "x".into() });
    assert!(!path.exists());
}

#[test]
fn a_unix_listener_moves_with_its_file_and_whoever_inherited_it_goes_on() {
    let house = House::new();
    let (spare, given) = (house.data().join("run/7.spare"), house.data().join("run/blog.sock"));
    let at = |path: &std::path::Path, mode| {
        listen(ListenerSpec {
            name: "affirm-7".into(),
            address: ListenAddress::Unix { path: path.to_owned(), mode, owner: None },
            sockets: 1,
        })
    };
    house.tell(&at(&spare, 0o600));
    let spec = ProcessSpec {
        listeners: vec!["affirm-7".into()],
        ..shell(house.data(), "one", "exec sleep 60")
    };
    let pid = house.start(&spec);
    let inode = |pid: i32| {
        eventually("it has the socket", || {
            let link = fs::read_link(format!("/proc/{pid}/fd/3")).ok()?;
            link.to_string_lossy().starts_with("socket:").then_some(link)
        })
    };
    let before = inode(pid);
    // Twice, as every action may be.
    for _ in 0..2 {
        house.tell(&at(&given, 0o666));
    }
    assert!(!spare.exists(), "the file moved");
    assert_eq!(fs::metadata(&given).expect("there").permissions().mode() & 0o777, 0o666);
    UnixStream::connect(&given).expect("the same socket listens there");
    assert_eq!(inode(pid), before);
    // The next one inherits the very socket.
    house.tell(&Request::Stop { name: "one".into(), kill: true });
    house.ended("one");
    let pid = house.start(&spec);
    assert_eq!(inode(pid), before);
    // A file that is no socket is not overwritten, and the listener stays where it was.
    let precious = house.data().join("run/precious");
    fs::write(&precious, "precious").expect("written");
    let refusal = house.refusal(&at(&precious, 0o600));
    assert!(refusal.contains("no socket"), "{refusal}");
    UnixStream::connect(&given).expect("still there");
}

#[test]
fn datagrams_wait_for_the_next_server_and_another_socket_is_refused() {
    let house = House::new();
    let address = free_address();
    let udp = |name: &str| {
        listen(ListenerSpec { name: name.into(), address: ListenAddress::Udp(address), sockets: 1 })
    };
    house.tell(&udp("dns-udp"));
    let (generation, ..) = house.list();
    house.tell(&udp("dns-udp"));
    assert_eq!(house.list().0, generation);
    // TCP at the same address is something else; a second one for UDP is not.
    house.tell(&listen(tcp("dns-tcp", address, 1)));
    assert!(house.refusal(&udp("other")).contains("`dns-udp`"));
    let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    client.send_to(b"before", address).expect("sent");
    // What came before anybody served is read by who inherits the socket.
    let listeners = vec!["dns-udp".to_owned()];
    let script = "head -c 6 <&3; echo; echo $LISTEN_FDNAMES";
    let spec = ProcessSpec { listeners, ..shell(house.data(), "one", script) };
    house.start(&spec);
    house.ended("one");
    assert_eq!(fs::read_to_string(&spec.output).expect("output"), "before\ndns-udp\n");
    house.tell(&Request::Unlisten { name: "dns-udp".into() });
    let taken = std::net::UdpSocket::bind(address).expect("it is free now");
    assert!(house.refusal(&udp("dns-udp")).contains(&address.to_string()));
    drop(taken);
    house.tell(&udp("dns-udp"));
}
