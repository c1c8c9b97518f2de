//! What other nodes may ask of this agent, over mutual TLS. What operators ask goes the same way, to the leader: the binary
//! answers that.
//!
//! | request | who | answer |
//! |---|---|---|
//! | `POST /join` | guests | [`super::joining::Admission`] |
//! | `POST /certificate` | nodes | their public key → their certificate, renewed |
//! | `GET /sealing` | nodes | the keys of the cluster's secrets |
//! | `POST /sealing` | nodes | such keys → 204 |
//! | `GET /releases/ID` | nodes | the manifest |
//! | `GET`, `POST` below `/.pressroom/git/` | nodes | git's, as the leader |
//! | `POST /histories/SITE` | nodes | commits that are had, one a line → a line of JSON with names, then a pack of what is lacking |
//! | `GET /histories/SITE/ROOT` | nodes | how many commits are here of the history that begins with that one |
//! | `POST /histories/SITE/ROOT` | nodes | the same as the leader's, of what is here |
//! | `POST /heard` | nodes | up to where the store is heard → what is heard here behind that ([`super::hearsay`]) |
//! | `POST /restored` | nodes | [`super::restoring::Restored`] → 204, and this node goes on with that store |
//! | `POST /media/SITE/offer` | nodes | [`pressroom_media::exchange::Offer`] → what is wanted of it |
//! | `POST /media/SITE/put` | nodes | a line of JSON, then a file's bytes |
//! | `POST /media/SITE/stored` | nodes | [`super::media_news::Told`] |
//! | `POST /releases/ID` | nodes | digests, one a line → files, each with its digest and length before it |

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use pressroom_model::snapshot::GIT_PATH;
use pressroom_wire::http::{AnyBody, any_body};
use pressroom_wire::identity::Peer;

use crate::agent::Agent;

/// Largest question: the digests of a large release.
const QUESTION: usize = 16 << 20;

/// A short answer.
pub fn short(status: StatusCode, text: impl Into<Bytes>) -> Response<AnyBody> {
    let mut answer = Response::new(any_body(Full::new(text.into())));
    *answer.status_mut() = status;
    answer
}

/// A body, whole.
pub(crate) async fn whole(request: Request<Incoming>) -> Result<Bytes, String> {
    let body = Limited::new(request.into_body(), QUESTION).collect();
    let body = tokio::time::timeout(std::time::Duration::from_secs(30), body).await;
    match body {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it did not arrive in 30 s".into()),
    }
}

impl Agent {
    /// Answers another node, or a guest.
    pub async fn answer_node(
        self: Arc<Self>,
        peer: Peer,
        request: Request<Incoming>,
    ) -> Response<AnyBody> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match (&peer, &method, parts.as_slice()) {
            (Peer::Guest(id), &Method::POST, ["join"]) => self.answer_guest(id, request).await,
            (Peer::Node(node), &Method::POST, ["certificate"]) => {
                self.answer_certificate(node, request).await
            }
            (Peer::Node(node), &Method::GET | &Method::POST, ["sealing"]) => {
                self.answer_sealing(node, request).await
            }
            (Peer::Node(_), &Method::GET, ["releases", id]) => self.answer_manifest(id),
            (Peer::Node(_), &Method::POST, ["releases", id]) => {
                self.answer_files(id, request).await
            }
            (Peer::Node(_), _, [_, "git", ..]) if path.starts_with(GIT_PATH) => {
                self.answer_git(request).await
            }
            (Peer::Node(_), &Method::POST, ["histories", site]) => match site.parse() {
                Ok(site) => self.answer_history(&site, request).await,
                Err(_) => short(StatusCode::NOT_FOUND, "no such site"),
            },
            (Peer::Node(_), &Method::GET | &Method::POST, ["histories", site, root]) => {
                match site.parse() {
                    Ok(site) if method == Method::GET => self.answer_copy(&site, root).await,
                    Ok(site) => self.give_copy(&site, root, request).await,
                    Err(_) => short(StatusCode::NOT_FOUND, "no such site"),
                }
            }
            (Peer::Node(node), &Method::POST, ["heard"]) => self.answer_heard(node, request).await,
            (Peer::Node(_), &Method::POST, ["restored"]) => self.answer_restored(request).await,
            (Peer::Node(_), &Method::POST, ["media", site, verb]) => match site.parse() {
                Ok(site) if *verb == "offer" => self.answer_offer(&site, request).await,
                Ok(site) if *verb == "put" => self.answer_put(&site, request).await,
                Ok(site) if *verb == "stored" => self.answer_stored(&site, request).await,
                _ => short(StatusCode::NOT_FOUND, "no such site or verb"),
            },
            (Peer::Guest(_), ..) => {
                short(StatusCode::FORBIDDEN, "a join token is good for joining alone")
            }
            _ => short(StatusCode::NOT_FOUND, format!("this node does not know `{method} {path}`")),
        }
    }

    async fn answer_guest(&self, id: &str, request: Request<Incoming>) -> Response<AnyBody> {
        let asking = match whole(request).await {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        let asking = match asking {
            Ok(asking) => asking,
            Err(error) => return short(StatusCode::BAD_REQUEST, error),
        };
        match self.admit(id, asking).await {
            Ok(admission) => {
                short(StatusCode::OK, serde_json::to_vec(&admission).expect("plain data"))
            }
            Err(error) => {
                tracing::warn!(token = id, %error, "a machine was not admitted");
                short(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
            }
        }
    }
}
