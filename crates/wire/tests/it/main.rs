//! Nodes, strangers and guests at a real door.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use pressroom_model::id::NodeName;
use pressroom_runtime::shutdown::{self, Trigger};
use pressroom_runtime::tasks::Group;
use pressroom_wire::authority::{Authority, PublicKey};
use pressroom_wire::http::{Client, any_body, call_as_guest, serve};
use pressroom_wire::identity::{Identity, Paths, Peer, new_key};
use pressroom_wire::members::{Member, Members, Register, Service};
use pressroom_wire::tls::{Guests, Knock, Wire};
use pressroom_wire::token;

fn name(node: &str) -> NodeName {
    node.parse().expect("a name")
}

fn now() -> u64 {
    pressroom_runtime::clock::wall_ms() / 1000
}

/// A node's key, with which certificates of any length can be made.
struct Key {
    node: NodeName,
    pem: String,
    public: Vec<u8>,
}

impl Key {
    fn of(node: &str) -> Self {
        let (pem, public) = new_key().expect("a key");
        Self { node: name(node), pem, public }
    }

    fn chain(&self, authority: &Authority, until: u64) -> String {
        let key = PublicKey(self.public.clone());
        let signed =
            authority.sign_node_until(&self.node, [127, 0, 0, 1].into(), &key, now(), until);
        signed.expect("signed")
    }

    fn until(&self, authority: &Authority, until: u64) -> Identity {
        let chain = self.chain(authority, until);
        Identity::parse(chain.as_bytes(), self.pem.as_bytes(), authority.pem().as_bytes())
            .expect("good")
    }
}

fn identity(authority: &Authority, node: &str) -> Identity {
    Key::of(node).until(authority, now() + 600)
}

fn member(identity: &Identity, address: SocketAddr) -> Member {
    Member {
        address: address.ip(),
        port: address.port(),
        zone: "a".into(),
        keys: BTreeSet::from([identity.fingerprint()]),
    }
}

/// A node `n1` that tells everybody whom it takes them for.
struct House {
    authority: Authority,
    members: Register,
    key: Key,
    wire: Wire,
    address: SocketAddr,
    group: Group,
    _trigger: Trigger,
}

/// Removes whoever asks for that, and never answers who asks for the end.
async fn who(members: Register, peer: Peer, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (&peer, request.uri().path()) {
        (_, "/endless") => std::future::pending().await,
        (Peer::Node(node), "/remove-me") => {
            let mut left = (*members.now()).clone();
            left.remove(node);
            members.set(left);
            // Whoever watches for it is told at the same moment, and goes first.
            tokio::task::yield_now().await;
        }
        _ => {}
    }
    Response::new(Full::new(format!("{peer:?} {}", request.uri().path()).into()))
}

async fn house(guests: Guests) -> House {
    let (authority, _) = Authority::make(now()).expect("made");
    let (trigger, stop) = shutdown::pair();
    let group = Group::new("test", stop.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("an address");
    let key = Key::of("n1");
    let own = key.until(&authority, now() + 600);
    let members = Register::new(Members::from([(name("n1"), member(&own, address))]));
    let wire = Wire::new(own, members.clone());
    let acceptor = wire.acceptor(&[b"h2"], guests).expect("an acceptor");
    let (connections, door, asked) = (group.clone(), wire.clone(), members.clone());
    let answer = move |peer, request| who(asked.clone(), peer, request);
    group.spawn("door", move |stop| serve(door, acceptor, listener, connections, stop, answer));
    House { authority, members, key, wire, address, group, _trigger: trigger }
}

impl House {
    fn admit(&self, identity: &Identity) {
        let Peer::Node(node) = &identity.peer else { panic!("a node") };
        let mut members = (*self.members.now()).clone();
        members.insert(node.clone(), member(identity, self.address));
        self.members.set(members);
    }

    async fn ask(&self, identity: Identity, to: &str) -> Result<String, String> {
        ask(&self.client(identity), to).await
    }

    fn client(&self, identity: Identity) -> Client {
        Client::new(Wire::new(identity, self.members.clone()), Service::Agent, self.group.clone())
    }
}

async fn ask(client: &Client, to: &str) -> Result<String, String> {
    let request = Request::get("/who").body(any_body(Full::default())).expect("a request");
    let answer = client.call(&name(to), request).await.map_err(|error| error.to_string())?;
    assert_eq!(answer.status(), StatusCode::OK);
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

#[tokio::test]
async fn members_know_each_other_and_nobody_else_is_answered() {
    let house = house(Guests::Refused).await;
    let second = identity(&house.authority, "n2");
    house.admit(&second);
    assert_eq!(house.ask(second, "n1").await.expect("answered"), "Node(NodeName(\"n2\")) /who");
    // Signed by the authority, and no member.
    let unknown = identity(&house.authority, "n3");
    assert!(house.ask(unknown, "n1").await.is_err());
    // A member's name with another key: somebody who had that name before.
    let former = identity(&house.authority, "n2");
    assert!(house.ask(former, "n1").await.is_err());
    // Another cluster's.
    let (other, _) = Authority::make(now()).expect("made");
    assert!(house.ask(identity(&other, "n2"), "n1").await.is_err());
    // Who calls a node wants that node.
    let second = identity(&house.authority, "n2");
    house.admit(&second);
    assert!(house.ask(second, "n2").await.is_err(), "at n2's address is n1");
}

#[tokio::test]
async fn a_removed_node_is_hung_up_on() {
    let house = house(Guests::Refused).await;
    let second = identity(&house.authority, "n2");
    house.admit(&second);
    let client = house.client(second);
    ask(&client, "n1").await.expect("answered");
    let mut members = (*house.members.now()).clone();
    members.remove(&name("n2"));
    house.members.set(members);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while ask(&client, "n1").await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "its connection is still answered");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(ask(&client, "n1").await.is_err());
}

#[tokio::test]
async fn a_removed_node_is_told_why_and_a_stranger_is_not() {
    let house = house(Guests::Refused).await;
    let second = identity(&house.authority, "n2");
    house.admit(&second);
    house.members.set_removed(BTreeSet::from([second.fingerprint()]));
    let second = Wire::new(second, house.members.clone());
    let third = Wire::new(identity(&house.authority, "n3"), house.members.clone());
    let to = name("n1");
    assert_eq!(second.knock(&to).await.expect("an answer"), Knock::LetIn, "it is a member");
    let mut left = (*house.members.now()).clone();
    left.remove(&name("n2"));
    house.members.set(left);
    assert_eq!(second.knock(&to).await.expect("an answer"), Knock::Removed);
    let error = third.knock(&to).await.expect_err("nobody knows it").to_string();
    assert!(error.contains("AccessDenied"), "{error}");
}

#[tokio::test]
async fn a_node_that_asked_to_be_removed_hears_that_it_was_and_nothing_more() {
    let house = house(Guests::Refused).await;
    let second = identity(&house.authority, "n2");
    house.admit(&second);
    let client = house.client(second);
    ask(&client, "n1").await.expect("answered");
    // It asks twice on the same connection; the second answer is never ready.
    let request = |path: &str| Request::get(path).body(any_body(Full::default())).expect("good");
    let (to, late) = (name("n1"), client.clone());
    let endless = tokio::spawn(async move { late.call(&to, request("/endless")).await });
    let answer = client.call(&name("n1"), request("/remove-me")).await.expect("answered");
    let body = answer.into_body().collect().await.expect("whole").to_bytes();
    assert_eq!(body, Bytes::from_static(b"Node(NodeName(\"n2\")) /remove-me"));
    ask(&client, "n1").await.expect_err("answered although it was removed");
    let ended = tokio::time::timeout(Duration::from_secs(10), endless).await.expect("ends");
    ended.expect("no panic").expect_err("nobody waits for ever");
}

#[tokio::test]
async fn a_join_token_opens_the_door_where_guests_are_welcome() {
    let call = async |house: &House, until: u64| {
        let text =
            token::write(&house.authority, "t1", &[house.address], now(), until).expect("written");
        assert!(text.len() < 1400 && !text.contains(char::is_whitespace), "{text}");
        let token = token::read(&format!("  {text}\n")).expect("read");
        assert_eq!((token.id.as_str(), &token.addresses[..]), ("t1", &[house.address][..]));
        let uri = format!("https://{}/join", house.address);
        let request = Request::post(uri).body(any_body(Full::default())).expect("a request");
        call_as_guest(&token.identity, house.address, request, Duration::from_secs(5)).await
    };
    let open = house(Guests::Welcome).await;
    let answer = call(&open, now() + 600).await.expect("answered");
    assert_eq!(answer.body(), &Bytes::from_static(b"Guest(\"t1\") /join"));
    assert!(call(&open, now() - 5).await.is_err(), "it has expired");
    let closed = house(Guests::Refused).await;
    assert!(call(&closed, now() + 600).await.is_err());
    for bad in ["", "pressroom1.", "pressroom1.eyJhIjpb", "x"] {
        assert!(token::read(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_by_an_acceptor_that_runs() {
    let house = house(Guests::Refused).await;
    let second = Key::of("n2");
    house.admit(&second.until(&house.authority, now() + 600));
    let ask_anew = async || house.ask(second.until(&house.authority, now() + 600), "n1").await;
    ask_anew().await.expect("answered");
    house.wire.set_identity(house.key.until(&house.authority, now() - 5));
    let error = ask_anew().await.expect_err("its certificate has ended");
    assert!(error.contains("certificate expired"), "{error}");
    house.wire.set_identity(house.key.until(&house.authority, now() + 600));
    ask_anew().await.expect("answered again");
}

#[tokio::test]
async fn a_node_whose_certificate_has_ended_is_told_the_way_back() {
    let house = house(Guests::Refused).await;
    let second = Key::of("n2");
    let over = second.until(&house.authority, now() - 5);
    house.admit(&over);
    let error = house.ask(over, "n1").await.expect_err("over");
    assert!(error.contains("pressroom node join TOKEN"), "{error}");
}

#[tokio::test]
async fn an_identity_follows_its_files() {
    let house = house(Guests::Refused).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let paths =
        Paths { chain: file("node.pem"), key: file("node.key"), authority: file("authority.pem") };
    let write = |until: u64| {
        std::fs::write(file("new"), house.key.chain(&house.authority, until)).expect("written");
        std::fs::rename(file("new"), &paths.chain).expect("replaced");
    };
    std::fs::write(&paths.key, &house.key.pem).expect("written");
    std::fs::write(&paths.authority, house.authority.pem()).expect("written");
    let wire = house.wire.clone();
    let followed = paths.clone();
    house.group.spawn("identity", move |stop| wire.follow_identity(followed, stop));
    for until in [now() + 700, now() + 800] {
        write(until);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while house.wire.identity().validity().until != until {
            assert!(tokio::time::Instant::now() < deadline, "it was not taken over");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // What cannot be read is not taken over.
    std::fs::write(file("new"), "nothing").expect("written");
    std::fs::rename(file("new"), &paths.chain).expect("replaced");
    let second = identity(&house.authority, "n2");
    house.admit(&second);
    house.ask(second, "n1").await.expect("answered");
}
