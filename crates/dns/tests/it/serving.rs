//! Datagrams and connections, what does not fit, what has no end, and who else is asked.

use std::time::{Duration, Instant};

use pressroom_model::discovery::{Leased, Record, View};
use pressroom_runtime::clock;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::dig::{Server, publish, records};

fn many(count: u32) -> View {
    let mut view = records(&[]);
    for n in 0..count {
        let host = format!("10.9.{}.{}", n / 250, n % 250);
        let record = Record { host, port: 80, ..Record::default() };
        view.records.insert(format!("local/pressroom/many/{n}"), Leased { record, lease: None });
    }
    view
}

#[tokio::test]
async fn what_does_not_fit_is_cut_and_comes_whole_over_a_connection() {
    let server = Server::start(Some(&many(400)));
    let cut = server.dig("many.pressroom.local A +noedns +ignore").await;
    assert!(cut.flags.contains("tc"), "{}", cut.all);
    assert!((1..=30).contains(&cut.answers.len()), "{}", cut.answers.len());
    let larger = server.dig("many.pressroom.local A +bufsize=4096 +ignore").await;
    assert!(larger.flags.contains("tc") && larger.answers.len() > cut.answers.len());
    assert!(larger.answers.len() <= 77, "no datagram is larger than 1232 bytes");
    assert!(larger.all.contains("udp: 1232"), "{}", larger.all);
    let whole = server.dig("many.pressroom.local A").await;
    assert_eq!(whole.answers.len(), 400);
    assert!(!whole.flags.contains("tc"));
    // What need not be said goes before answers go.
    let server = Server::start(Some(&many(9)));
    let spared = server.dig("many.pressroom.local SRV +noedns +ignore").await;
    assert_eq!((spared.answers.len(), spared.additional.len()), (9, 0), "{}", spared.all);
    assert!(!spared.flags.contains("tc"));
}

#[tokio::test]
async fn another_one_of_equals_comes_first() {
    let server = Server::start(Some(&many(5)));
    let mut firsts = std::collections::BTreeSet::new();
    let late = Instant::now() + Duration::from_secs(20);
    while firsts.len() < 3 {
        let said = server.dig("many.pressroom.local A +short").await;
        firsts.insert(said.all.lines().next().unwrap_or_default().to_owned());
        assert!(Instant::now() < late, "{firsts:?}");
    }
}

#[tokio::test]
async fn an_answer_is_never_kept_for_longer_than_its_lease() {
    let mut view = records(&[]);
    for (name, ttl, lease) in [("a", 0, 1), ("b", 3, 1), ("c", 60, 1), ("d", 60, 2)] {
        let record = Record { host: "10.0.0.1".into(), ttl, ..Record::default() };
        view.records
            .insert(format!("local/pressroom/{name}"), Leased { record, lease: Some(lease) });
    }
    // What is left of the second lease nobody knows.
    view.leases = [(1, 10_900)].into();
    view.at_ms = clock::wall_ms();
    let server = Server::start(Some(&view));
    let ttl = async |name: &str| {
        let said = server.dig(&format!("{name}.pressroom.local A")).await;
        let words: Vec<&str> = said.answers[0].split(' ').collect();
        words[1].parse::<u32>().unwrap()
    };
    let first = ttl("a").await;
    assert!((5..=10).contains(&first), "{first}");
    assert_eq!(ttl("b").await, 3);
    assert!((5..=10).contains(&ttl("c").await));
    assert_eq!(ttl("d").await, 0);
    // Nobody says anything new: the time that is left shrinks, and the record stays until somebody says that it is gone.
    view.at_ms = clock::wall_ms() - 10_000;
    publish(server.folder.path(), &view);
    let late = Instant::now() + Duration::from_secs(10);
    while ttl("c").await > 0 {
        assert!(Instant::now() < late);
    }
    view.records.clear();
    publish(server.folder.path(), &view);
    while server.dig("c.pressroom.local A").await.status != "NXDOMAIN" {
        assert!(Instant::now() < late);
    }
}

#[tokio::test]
async fn without_a_view_it_says_that_it_cannot_answer_and_a_broken_one_changes_nothing() {
    let server = Server::start(None);
    assert_eq!(server.dig("a.pressroom.local A").await.status, "SERVFAIL");
    let view = records(&[("local/pressroom/a", r#"{"host":"10.0.0.1"}"#)]);
    publish(server.folder.path(), &view);
    let late = Instant::now() + Duration::from_secs(10);
    while server.dig("a.pressroom.local A").await.status != "NOERROR" {
        assert!(Instant::now() < late);
    }
    let path = server.folder.path().join("dns.json");
    std::fs::write(&path, "{").unwrap();
    for _ in 0..5 {
        assert_eq!(server.dig("a.pressroom.local A").await.status, "NOERROR");
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(server.dig("a.pressroom.local A").await.status, "NOERROR");
}

#[tokio::test]
async fn questions_for_other_names_go_to_the_resolvers_that_operators_named() {
    let mut others = records(&[
        ("com/example/www", r#"{"host":"192.0.2.1","ttl":60}"#),
        ("com/example/db", r#"{"host":"192.0.2.2","ttl":60}"#),
    ]);
    others.domain = "example.com".into();
    let others = Server::start(Some(&others));
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut view = records(&[
        ("local/pressroom/db", r#"{"host":"db.example.com","ttl":30}"#),
        ("com/example/mine", r#"{"host":"10.0.0.9","ttl":60}"#),
    ]);
    view.forward = vec![silent.local_addr().unwrap(), others.at];
    let server = Server::start(Some(&view));
    for way in ["+notcp", "+tcp"] {
        let said = server.dig(&format!("www.Example.com A {way}")).await;
        assert_eq!(said.answers, ["www.Example.com. 60 IN A 192.0.2.1"], "{}", said.all);
        let said = server.dig(&format!("db.pressroom.local A {way}")).await;
        let wanted = [
            "db.example.com. 60 IN A 192.0.2.2",
            "db.pressroom.local. 30 IN CNAME db.example.com.",
        ];
        assert_eq!(said.answers, wanted, "{}", said.all);
        assert!(said.flags.contains("ra"), "{}", said.flags);
        // What somebody wrote here counts, and hides nothing else of that domain.
        let said = server.dig(&format!("mine.example.com A {way}")).await;
        assert_eq!(said.answers, ["mine.example.com. 60 IN A 10.0.0.9"]);
    }
    // Who wants no recursion is not given any, and what is ours is never asked elsewhere.
    assert_eq!(server.dig("www.example.com A +norec").await.status, "REFUSED");
    assert_eq!(server.dig("www.pressroom.local A").await.status, "NXDOMAIN");
    // Nobody answers: an error, in time.
    view.forward = vec![silent.local_addr().unwrap()];
    publish(server.folder.path(), &view);
    let late = Instant::now() + Duration::from_secs(20);
    while server.dig("www.example.com A").await.status != "SERVFAIL" {
        assert!(Instant::now() < late);
    }
}

#[tokio::test]
async fn what_is_no_question_is_refused_or_not_answered() {
    let server = Server::start(Some(&many(1)));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server.at).await.unwrap();
    // Too short, an answer, a question that ends in the middle; then a good one, whose answer must be the second that comes.
    let broken = [0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 40, b'x'];
    let good = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04mAnY\x09pressroom\x05local\0\0\x01\0\x01";
    let mut answer = *good;
    answer[2] |= 0x80;
    for bytes in [&[1, 2, 3][..], &answer, &broken, good] {
        socket.send(bytes).await.unwrap();
    }
    let mut buffer = [0; 512];
    let heard = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer));
    let length = heard.await.expect("an answer").unwrap();
    assert_eq!((&buffer[..2], buffer[3] & 15, length), (&[0xab, 0xcd][..], 1, 12));
    let heard = tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut buffer));
    heard.await.expect("an answer").unwrap();
    assert_eq!(&buffer[..2], &[0x12, 0x34]);
    // The question comes back letter by letter: askers count on that against forgers.
    assert_eq!(&buffer[12..good.len()], &good[12..]);
    // Two questions on one connection, in pieces.
    let mut stream = tokio::net::TcpStream::connect(server.at).await.unwrap();
    let framed = [&[0, u8::try_from(good.len()).unwrap()][..], good].concat();
    let both = [&framed[..], &framed].concat();
    for piece in both.chunks(7) {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
    }
    for _ in 0..2 {
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes[..2], &[0x12, 0x34]);
    }
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let server = Server::start(Some(&many(1)));
    let _idle = tokio::net::TcpStream::connect(server.at).await.unwrap();
    server.trigger.fire("the test ends");
    let late = server.tasks.finish(Duration::from_secs(5)).await;
    assert!(late.is_empty(), "{late:?}");
}
