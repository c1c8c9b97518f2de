//! The console: one page, and the status as JSON, for a browser on this machine.
//!
//! Always: it only shows, and shows no secret. A web page from elsewhere cannot read it: answers are for requests whose
//! `Host` is this machine's loopback (so a name that was made to point here gets nothing), no other origin is let in,
//! and it cannot be framed. It has no login, so it is bound to loopback only; `model::file` sees to that.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use pressroom_runtime::door::Door;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use tokio::net::TcpListener;

use crate::operator::Operator;

const PAGE: &str = include_str!("console.html");
/// Open connections; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// Longest time to send a request, and longest rest between two.
const REQUEST_TIME: Duration = Duration::from_secs(15);

/// Answers browsers on `listener` until shutdown; connections are tasks of `group`.
pub async fn serve(
    listener: TcpListener,
    operator: Arc<dyn Operator>,
    group: Group,
    shutdown: Shutdown,
) {
    let door = Door { name: "console", connections: CONNECTIONS, head_time: REQUEST_TIME };
    let answer = move |request| {
        let operator = Arc::clone(&operator);
        async move { answer(&request, &*operator).await }
    };
    door.serve(listener, group, shutdown, |_| true, answer).await;
}

async fn answer(request: &Request<Incoming>, operator: &dyn Operator) -> Response<Full<Bytes>> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_this_machine) {
        return text(StatusCode::FORBIDDEN, "The console answers for localhost only.\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "The console only shows; use the commands to change things.\n",
        );
    }
    match request.uri().path() {
        "/" => page("text/html; charset=utf-8", PAGE.to_owned()),
        "/status.json" => {
            match operator.status().await.map(|status| serde_json::to_string(&status)) {
                Ok(Ok(status)) => page("application/json", status),
                _ => text(StatusCode::SERVICE_UNAVAILABLE, "The status cannot be told now.\n"),
            }
        }
        "/metrics" => match operator.metrics().await {
            Ok(metrics) => page("text/plain; version=0.0.4; charset=utf-8", metrics),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "The edge does not answer now.\n"),
        },
        _ => text(StatusCode::NOT_FOUND, "Here are only /, /status.json and /metrics.\n"),
    }
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

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = page("text/plain; charset=utf-8", text.to_owned());
    *response.status_mut() = status;
    response
}

fn page(kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                  connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
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
    response
}

#[cfg(test)]
mod tests {
    use super::*;

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
