//! The API and the console from outside: a real client, real sockets, and an operator made for the test.

mod desk;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pressroom_api::access::Visitor;
use pressroom_api::client::{Client, Error};
use pressroom_api::failure::{Blame, Failure};
use pressroom_api::progress::{Progress, StepState};
use pressroom_api::release::{Code, Deployment};
use pressroom_api::server;
use pressroom_model::affirmation::Purge;
use pressroom_model::id::SiteName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use desk::{Desk, collect, wish};

fn blog() -> SiteName {
    "blog".parse().expect("a good name")
}

fn failure<T: std::fmt::Debug>(answer: Result<T, Error>) -> Failure {
    answer.expect_err("it fails").into()
}

#[tokio::test]
async fn every_question_gets_its_answer() {
    let desk = Desk::open().await;
    let client = &desk.client;
    assert!(client.answers().await);
    assert_eq!(client.status().await.expect("status").sites[0].name, blog());
    assert_eq!(client.plan(&wish()).await.expect("plan")[0].because, "it is not there");
    assert!(client.visit(&blog()).await.expect("visit").is_good);
    assert_eq!(client.applied().await.expect("a configuration"), Some(wish().config));
    assert_eq!(client.doctor().await.expect("doctor").len(), 1);
    let purge = Purge { all: true, ..Purge::default() };
    assert_eq!(client.purge(&blog(), &purge).await.expect("purge").pages, 7);
    assert_eq!(
        client.why("https://localhost/?a=1&b=ü").await.expect("why").url,
        "https://localhost/?a=1&b=ü"
    );
}

#[tokio::test]
async fn the_first_password_is_shown_once() {
    let desk = Desk::open().await;
    let admin = desk.client.take_initial_admin(&blog()).await.expect("answer").expect("first time");
    assert_eq!((admin.user.as_str(), admin.password.reveal()), ("admin", "open sesame"));
    assert_eq!(desk.client.take_initial_admin(&blog()).await.expect("answer"), None);
}

#[tokio::test]
async fn steps_arrive_as_they_happen_and_the_end_is_told() {
    let desk = Desk::open().await;
    let (progress, steps) = collect();
    desk.client.apply(&wish(), &progress).await.expect("applied");
    let steps = steps.lock().expect("no panic while held");
    let seen: Vec<_> = steps.iter().map(|step| (step.step.as_str(), step.state)).collect();
    assert_eq!(
        seen,
        [("start `mariadb`", StepState::Running), ("start `mariadb`", StepState::Done)]
    );
    assert_eq!(*desk.operator.passwords.lock().expect("no panic while held"), ["blog: hunter2"]);
}

#[tokio::test]
async fn a_failure_keeps_its_words_and_its_blame() {
    let desk = Desk::open().await;
    desk.operator.is_broken.store(true, Ordering::SeqCst);
    let applied = failure(desk.client.apply(&wish(), &Progress::silent()).await);
    assert_eq!(
        (applied.blame, applied.hint.as_deref()),
        (Blame::Yours, Some("choose another port"))
    );
    let planned = failure(desk.client.plan(&wish()).await);
    assert_eq!((planned.blame, planned.exit_status()), (Blame::Ours, 2));
}

#[tokio::test]
async fn an_operation_goes_on_when_the_asker_has_gone_and_can_be_followed_later() {
    let desk = Desk::open().await;
    desk.operator.is_slow.store(true, Ordering::SeqCst);
    let (progress, steps) = collect();
    let (client, wanted) = (desk.client.clone(), wish());
    let asker = tokio::spawn(async move { client.apply(&wanted, &progress).await });
    desk::eventually(|| !steps.lock().expect("no panic while held").is_empty()).await;
    asker.abort();
    assert!(asker.await.expect_err("aborted").is_cancelled());
    desk.operator.go.notify_one();
    let (progress, steps) = collect();
    desk.client.follow("op-1", &progress).await.expect("it ended well");
    assert_eq!(steps.lock().expect("no panic while held").len(), 2);
    assert_eq!(failure(desk.client.follow("op-9", &Progress::silent()).await).blame, Blame::Yours);
}

#[tokio::test]
async fn the_leader_is_asked_for_a_release_where_files_are_on_another_nodes_disk() {
    let desk = Desk::open().await;
    desk.operator.is_led.store(true, Ordering::SeqCst);
    let (progress, _) = collect();
    let deployment = Deployment {
        code: Code::Folder("/home/me/wp-content".into()),
        author: "me".to_owned(),
        message: "new".to_owned(),
    };
    failure(desk.client.deploy(&blog(), &deployment, &progress).await);
    failure(desk.client.compare(&blog(), &Code::Configured).await);
    let passed = desk.operator.passed.lock().expect("no panic while held");
    let [deployed, compared] = passed.as_slice() else { panic!("{passed:?}") };
    let deployed: Deployment = serde_json::from_str(deployed).expect("JSON");
    let release = "5e".repeat(16).parse().expect("an id");
    let made = Code::Made { release, source: "/home/me/wp-content for blog".to_owned() };
    assert_eq!(deployed, Deployment { code: made, ..deployment });
    assert_eq!(serde_json::from_str::<Code>(compared).expect("JSON"), Code::Configured);
}

#[tokio::test]
async fn a_removed_site_says_where_its_dump_is() {
    let desk = Desk::open().await;
    let kept =
        desk.client.remove_site(&blog(), &wish(), &Progress::silent()).await.expect("removed");
    assert_eq!(kept, std::path::Path::new("/data/removed/blog"));
    desk.client.down(&Progress::silent()).await.expect("down");
}

#[tokio::test]
async fn an_absent_agent_is_told_apart_from_one_that_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let client = Client::new(folder.path().join("agent.sock"));
    let error = client.status().await.expect_err("nobody is there");
    assert!(matches!(error, Error::Away { .. }), "{error}");
    assert_eq!(Failure::from(error).exit_status(), 1);
}

#[tokio::test]
async fn the_socket_is_its_owners_and_a_stale_one_is_replaced() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("agent.sock");
    let first = server::bind(&path).expect("bound");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(server::bind(&path).expect_err("taken").kind(), std::io::ErrorKind::AddrInUse);
    drop(first);
    server::bind(&path).expect("a stale socket is replaced");
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").expect("written");
    assert!(server::bind(&file).is_err());
    assert_eq!(std::fs::read(&file).expect("still there"), b"precious");
}

#[tokio::test]
async fn nonsense_is_refused_and_the_next_question_answered() {
    let desk = Desk::open().await;
    for request in [
        "\0\0\0",
        "GET / HTTP/1.1\r\n\r\n",
        "POST /v1/apply HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n{{{",
    ] {
        let mut stream = tokio::net::UnixStream::connect(&desk.socket).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer[9..10], b"4", "{request:?}");
    }
    assert!(desk.client.answers().await);
}

async fn browse(desk: &Desk, request: &str) -> String {
    let mut stream = TcpStream::connect(desk.console).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("in time").expect("text");
    answer
}

#[tokio::test]
async fn the_console_shows_the_page_and_the_status() {
    let desk = Desk::open().await;
    let page =
        browse(&desk, "GET / HTTP/1.1\r\nhost: localhost:1\r\nconnection: close\r\n\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("frame-ancestors 'none'"), "{page}");
    let status =
        browse(&desk, "GET /status.json HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
            .await;
    assert!(status.contains("\"version\":1") && !status.contains("access-control"), "{status}");
}

#[tokio::test]
async fn the_console_gives_nothing_to_other_names_and_changes_nothing() {
    let desk = Desk::open().await;
    for host in ["host: evil.example", "host: evil.example\r\norigin: http://evil.example", "x: y"]
    {
        let answer = browse(
            &desk,
            &format!("GET /status.json HTTP/1.1\r\n{host}\r\nconnection: close\r\n\r\n"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 403") && !answer.contains("blog"), "{answer}");
    }
    let answer =
        browse(&desk, "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
}

#[tokio::test]
async fn a_ticket_lets_a_page_go_back_to_a_release_and_do_nothing_more() {
    let desk = Desk::open().await;
    let post = |path: &str, more: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n{body}"
        )
    };
    let stranger = browse(&desk, &post("/v1/sites/blog/rollback", "", "{}")).await;
    assert!(stranger.starts_with("HTTP/1.1 401") && stranger.contains("pressroom console"));
    let forged =
        browse(&desk, &post("/v1/sites/blog/rollback", "authorization: Bearer x\r\n", "{}")).await;
    assert!(forged.starts_with("HTTP/1.1 401"), "{forged}");

    let visitor = Visitor { author: "ada".into() };
    let ticket = desk.client.console(&visitor).await.expect("a ticket");
    let (address, ticket) = ticket.url.reveal().split_once("#ticket=").expect("a ticket");
    assert_eq!(address, format!("http://{}/", desk.console));
    let given = format!("{{\"ticket\":\"{ticket}\"}}");
    let answer = browse(&desk, &post("/session", "", &given)).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("set-cookie"), "{answer}");
    let (_, told) = answer.split_once("\r\n\r\n").expect("a body");
    let told: serde_json::Value = serde_json::from_str(told).expect("JSON");
    assert_eq!(told["author"], "ada");
    let again = browse(&desk, &post("/session", "", &given)).await;
    assert!(again.starts_with("HTTP/1.1 401") && again.contains("frame-ancestors"), "{again}");

    let session = told["session"].as_str().expect("a session");
    let bearer = format!("authorization: Bearer {session}\r\n");
    let back = browse(&desk, &post("/v1/sites/blog/rollback", &bearer, "{}")).await;
    assert!(back.starts_with("HTTP/1.1 200") && back.contains("\"event\":\"end\""), "{back}");
    for path in ["/v1/down", "/v1/console", "/v1/sites/blog/initial-admin"] {
        let answer = browse(&desk, &post(path, &bearer, "{}")).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    let elsewhere = format!(
        "GET /v1/sites/blog/releases HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n{bearer}\r\n"
    );
    let answer = browse(&desk, &elsewhere).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("localhost only"), "{answer}");
}

#[tokio::test]
async fn shutdown_ends_the_doors() {
    let desk = Desk::open().await;
    let Desk { trigger, group, client, .. } = &desk;
    trigger.fire("test");
    assert_eq!(group.finish(Duration::from_secs(10)).await, Vec::<String>::new());
    assert!(!client.answers().await);
    assert_eq!(Arc::strong_count(&desk.operator), 1);
}
