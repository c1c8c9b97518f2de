//! The console: one page, the status as JSON, and some of the operator API, for a browser on this machine.
//!
//! Always: without a session it only shows, and shows no secret. With one, which comes of a ticket that only who may connect to the
//! agent's socket gets, the page may ask for what [`may_ask`] names. A web page from elsewhere can do neither: answers are
//! for requests whose `Host` is this machine's loopback (so a name that was made to point here gets nothing), no other origin is
//! let in, it cannot be framed, and no browser sends a session by itself. It speaks plain HTTP, so it is bound to loopback only;
//! `model::file` sees to that.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use pressroom_runtime::door::Door;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use tokio::net::TcpListener;

use crate::access::Given;
use crate::failure::Failure;
use crate::server::{self, Answer, Server};

const PAGE: &str = include_str!("console.html");
/// Open connections; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// Longest time to send a request, and longest rest between two.
const REQUEST_TIME: Duration = Duration::from_secs(15);

/// Answers browsers on `listener` until shutdown; connections are tasks of `group`.
pub async fn serve(listener: TcpListener, server: Server, group: Group, shutdown: Shutdown) {
    let door = Door { name: "console", connections: CONNECTIONS, head_time: REQUEST_TIME };
    server.passes.open_at(listener.local_addr().ok());
    let answering = server.clone();
    let answer = move |request| {
        let server = answering.clone();
        async move {
            let mut response = answer(request, &server).await;
            guard(&mut response);
            response
        }
    };
    door.serve(listener, group, shutdown, |_| true, answer).await;
    server.passes.open_at(None);
}

async fn answer(request: Request<Incoming>, server: &Server) -> Response<Answer> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_this_machine) {
        return text(StatusCode::FORBIDDEN, "The console answers for localhost only.\n");
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if method == Method::POST && path == "/session" {
        return exchange(request, server).await;
    }
    if path.starts_with("/v1/") {
        return ask(request, server).await;
    }
    if !matches!(method, Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "This is only shown; use the commands to change things.\n",
        );
    }
    match path.as_str() {
        "/" => page("text/html; charset=utf-8", PAGE.to_owned()),
        "/status.json" => {
            match server.operator.status().await.map(|status| serde_json::to_string(&status)) {
                Ok(Ok(status)) => page("application/json", status),
                _ => text(StatusCode::SERVICE_UNAVAILABLE, "The status cannot be told now.\n"),
            }
        }
        "/metrics" => match server.operator.metrics().await {
            Ok(metrics) => page("text/plain; version=0.0.4; charset=utf-8", metrics),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "The edge does not answer now.\n"),
        },
        _ => text(StatusCode::NOT_FOUND, "Here are only /, /status.json and /metrics.\n"),
    }
}

/// A session for a ticket.
async fn exchange(request: Request<Incoming>, server: &Server) -> Response<Answer> {
    let given: Given = match server::body(request).await {
        Ok(given) => given,
        Err(failure) => return server::json(StatusCode::UNPROCESSABLE_ENTITY, &failure),
    };
    match server.passes.exchange(&given.ticket, Instant::now()) {
        Some(session) => server::good(&session),
        None => stranger("this ticket opens nothing: it was used, or it is too old"),
    }
}

/// What the page asks of the operator API, with its session.
async fn ask(request: Request<Incoming>, server: &Server) -> Response<Answer> {
    let sent = request.headers().get(header::AUTHORIZATION).and_then(|sent| sent.to_str().ok());
    let session = sent.and_then(|sent| sent.strip_prefix("Bearer "));
    let holder = session.and_then(|session| server.passes.holder(session, Instant::now()));
    if holder.is_none() {
        return stranger("this needs a session, and there is none or it has ended");
    }
    let parts: Vec<_> = request.uri().path().split('/').skip(1).collect();
    if !may_ask(request.method(), &parts) {
        let failure = Failure::yours("the console cannot do that").hint("use the commands");
        return server::json(StatusCode::FORBIDDEN, &failure);
    }
    server.answer(request).await
}

/// What a page with a session may ask for: looking at releases and going back, environments and their letters.
fn may_ask(method: &Method, parts: &[&str]) -> bool {
    matches!(
        (method.as_str(), parts),
        ("GET", ["v1", "environments"])
            | ("GET", ["v1", "sites", _, "releases"])
            | ("POST", ["v1", "sites", _, "release" | "rollback" | "letters" | "letter"])
    )
}

fn stranger(why: &str) -> Response<Answer> {
    let failure = Failure::yours(why).hint("`pressroom console` gives a new way in");
    server::json(StatusCode::UNAUTHORIZED, &failure)
}

/// Whether a `Host` header names this machine's loopback, with any port (a tunnel may have another).
fn is_this_machine(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((name, port)) => (name, port.strip_prefix(':')),
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let is_loopback = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    is_port && (name.eq_ignore_ascii_case("localhost") || is_loopback)
}

fn text(status: StatusCode, text: &'static str) -> Response<Answer> {
    let mut response = page("text/plain; charset=utf-8", text.to_owned());
    *response.status_mut() = status;
    response
}

fn page(kind: &'static str, body: String) -> Response<Answer> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// What keeps other pages, and caches, out of every answer.
fn guard(response: &mut Response<Answer>) {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                  connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_for_releases_and_letters_and_nothing_else() {
        let may = |method: Method, path: &str| {
            may_ask(&method, &path.split('/').skip(1).collect::<Vec<_>>())
        };
        assert!(may(Method::GET, "/v1/environments"));
        assert!(may(Method::POST, "/v1/sites/blog/rollback"));
        for path in [
            "/v1/down",
            "/v1/apply",
            "/v1/console",
            "/v1/sites/blog/initial-admin",
            "/v1/sites/blog/git",
            "/v1/sites/blog/wp-cli",
            "/v1/sites/blog/deploy",
            "/v1/sites/blog/remove",
            "/v1/sites/blog/rollback/",
            "/v1/sites//blog/rollback",
        ] {
            assert!(!may(Method::POST, path), "{path}");
            assert!(!may(Method::GET, path), "{path}");
        }
    }

    #[test]
    fn only_loopback_names_are_this_machine() {
        for good in
            ["localhost", "LOCALHOST:7070", "127.0.0.1:7070", "127.0.0.2", "[::1]:7070", "[::1]"]
        {
            assert!(is_this_machine(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com:7070",
            "10.0.0.1",
            "[::2]:1",
            "::1",
            "localhost:",
            "localhost:x",
            "a@localhost",
            "[::1",
        ] {
            assert!(!is_this_machine(bad), "{bad}");
        }
    }
}
