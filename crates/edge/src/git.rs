//! Git over HTTP, passed on to the agent, which has the repositories and knows the tokens. Nothing of it is kept or judged here.
//!
//! The request's body is sent while the answer already comes, as git's protocol needs it. With the agent away git is told so; nothing
//! else of the site depends on it.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::client::conn::http1::{self, Connection};
use hyper_util::rt::TokioIo;
use pressroom_model::id::SiteName;
use tokio::net::UnixStream;

use crate::body::{Body, Error};
use crate::handler::Asking;
use crate::notice;

/// Longest wait for the head of the agent's answer: it brings the history up to date before.
const HEAD_TIME: Duration = Duration::from_secs(60);

/// What of a request git needs. Everything else stays here.
const PASSED: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::ACCEPT,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::USER_AGENT,
    HeaderName::from_static("git-protocol"),
];

type Driver = Connection<TokioIo<UnixStream>, Incoming>;

/// Passes a request on to the agent that listens on `socket`.
pub async fn pass(
    asking: &Asking,
    site: &SiteName,
    socket: &Path,
    body: Incoming,
) -> Response<Body> {
    match tokio::time::timeout(HEAD_TIME, ask(asking, site, socket, body)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            tracing::warn!(%site, %error, "git's request did not reach the agent");
            away()
        }
        Err(_) => away(),
    }
}

fn away() -> Response<Body> {
    notice::text(StatusCode::BAD_GATEWAY, "Pressroom's agent does not answer; try again soon.\n")
}

async fn ask(
    asking: &Asking,
    site: &SiteName,
    socket: &Path,
    body: Incoming,
) -> Result<Response<Body>, Error> {
    let mut request = Request::builder()
        .method(asking.parts.method.clone())
        .uri(asking.uri())
        .header(header::HOST, "agent")
        .header("x-pressroom-site", HeaderValue::from_str(site.as_str())?);
    for name in PASSED {
        if let Some(value) = asking.parts.headers.get(&name) {
            request = request.header(name, value);
        }
    }
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = Some(Box::pin(connection));
    let mut answer = std::pin::pin!(sender.send_request(request.body(body)?));
    let answer = std::future::poll_fn(|cx| {
        drive(&mut driver, cx);
        answer.as_mut().poll(cx)
    })
    .await?;
    let (mut head, body) = answer.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::DATE] {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, Body::Git(Box::new(Relay { body, driver }))))
}

/// Moves the connection on; its end is seen by whoever waits for the answer.
fn drive(driver: &mut Option<Pin<Box<Driver>>>, cx: &mut Context<'_>) {
    if let Some(connection) = driver
        && connection.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}

/// The agent's answer, and the connection that it comes on.
pub struct Relay {
    body: Incoming,
    driver: Option<Pin<Box<Driver>>>,
}

impl Relay {
    /// The next piece.
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        drive(&mut self.driver, cx);
        Pin::new(&mut self.body).poll_frame(cx).map(|frame| frame.map(|r| r.map_err(Into::into)))
    }
}
