//! TLS, HTTP/2, the PROXY protocol, the access log.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::harness::{Answer, Edge, Fpm, Place, until};
use pressroom_model::snapshot::{AccessLog, LogFormat};

fn client(place: &Place, alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(place.path("tls/chain.pem")).expect("a certificate"))
        .expect("added");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Arc::new(config)
}

async fn connect(
    edge: &Edge,
    config: Arc<rustls::ClientConfig>,
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect(edge.https).await.expect("connected");
    let name = ServerName::try_from("blog.test").expect("a name");
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.expect("a handshake")
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_and_http1_are_served_over_tls() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let mut edge = Edge::start(&place, &[(&fpm, 2)], |_| {});
    let stream = connect(&edge, client(&place, &[b"h2", b"http/1.1"])).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    tokio::spawn(connection);
    let request = |uri: &str, body: &'static str| {
        http::Request::post(uri)
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .expect("a request")
    };
    let answer = sender
        .send_request(request("https://blog.test/?do=server", "a=b"))
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    let seen: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(seen["server"]["HTTPS"], "on");
    assert_eq!(seen["server"]["SERVER_PORT"], "443");
    assert_eq!(seen["server"]["HTTP_HOST"], "blog.test");
    assert_eq!(seen["server"]["CONTENT_LENGTH"], "3");
    let answer = sender.send_request(request("https://other.test/", "")).await.expect("an answer");
    assert_eq!(answer.status(), 421, "another host on this connection");
    let many =
        (0..50).map(|_| sender.send_request(request("https://blog.test/?do=sleep&ms=1", "")));
    for answer in many.map(tokio::spawn).collect::<Vec<_>>() {
        assert_eq!(answer.await.expect("no panic").expect("an answer").status(), 200);
    }
    drop(sender);

    let stream = connect(&edge, client(&place, &[])).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    let request =
        http::Request::get("/?do=server").header("host", "blog.test").body(Full::new(Bytes::new()));
    let answer = sender.send_request(request.expect("a request")).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    drop(sender);
    tokio::task::spawn_blocking(move || edge.stop()).await.expect("no panic");
}

#[test]
fn proxies_are_believed_only_when_trusted() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let mut edge =
        Edge::start(&place, &[(&fpm, 2)], |s| s.trusted_proxies = vec!["127.0.0.1".into()]);
    let headers =
        "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-Proto: https\r\nAuthorization: x\r\n";
    let seen = edge.get_with("/?do=server", headers).json();
    assert_eq!(seen["server"]["REMOTE_ADDR"], "192.0.2.7");
    assert_eq!(seen["server"]["HTTPS"], "on");

    edge.publish(|s| s.proxy_protocol = true);
    let request = "GET /?do=server HTTP/1.1\r\nHost: blog.test\r\nAuthorization: x\r\nConnection: close\r\n\r\n";
    let seen = edge.raw(&format!("PROXY TCP4 192.0.2.9 127.0.0.1 4711 80\r\n{request}")).json();
    assert_eq!(seen["server"]["REMOTE_ADDR"], "192.0.2.9");
    let mut stream = edge.connect();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x0a\x7f\0\0\x01\xdc\x04\x01\xbb";
    stream.write_all(&v2[..10]).expect("sent");
    stream.write_all(&v2[10..]).expect("sent");
    stream.write_all(request.as_bytes()).expect("sent");
    assert_eq!(Answer::read(stream).json()["server"]["REMOTE_ADDR"], "192.0.2.10");
    assert_eq!(edge.raw(request).status, 0, "no header: hung up");
    edge.publish(|s| s.trusted_proxies.clear());
    assert_eq!(edge.get_with("/?do=server", headers).json()["server"]["REMOTE_ADDR"], "127.0.0.1");
    assert_eq!(
        edge.raw(&format!("PROXY TCP4 192.0.2.9 127.0.0.1 4711 80\r\n{request}")).status,
        400
    );
}

#[test]
fn every_answer_is_logged() {
    let place = Place::new();
    let fpm = Fpm::start(&place, 1, 2);
    let path = place.path("access.log");
    let log = AccessLog { path: path.clone(), format: LogFormat::Json };
    let edge = Edge::start(&place, &[(&fpm, 2)], |s| s.access_log = Some(log));
    let id = edge
        .get_with("/?do=big&mb=1", "User-Agent: \"tester\"\r\n")
        .header("x-request-id")
        .expect("an id")
        .to_owned();
    edge.get("/heartbeat.html");
    let lines = || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).expect("JSON"))
            .collect::<Vec<_>>()
    };
    until("both are logged", || lines().len() == 2);
    let line = lines().into_iter().find(|l| l["request"] == id.as_str()).expect("logged");
    assert_eq!((line["bytes"].as_u64(), line["status"].as_u64()), (Some(1 << 20), Some(200)));
    assert_eq!((line["site"].as_str(), line["agent"].as_str()), (Some("blog"), Some("\"tester\"")));
    assert_eq!(line["cache"], "miss");
}
