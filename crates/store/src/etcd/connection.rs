//! The way to etcd: one endpoint at a time, another one when it does not answer.
//!
//! A task asks the endpoint in use a question that needs the quorum, once a second, and others when it fails; whoever met a
//! failure wakes it. So a member that is dead, frozen or cut off is left within two seconds, also by watches, which otherwise
//! would wait for ever.
//!
//! Where a password says who we are, each endpoint that comes into use is told it once, for a token that goes with every
//! question; a token that counts no more is as an endpoint that does not answer.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use parking_lot::Mutex;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use pressroom_runtime::tasks::Group;
use rand::seq::SliceRandom as _;
use tokio::sync::{Notify, watch};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{
    Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TonicIdentity,
};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::proto::{AuthenticateRequest, AuthenticateResponse, RangeRequest, RangeResponse};
use super::{Options, Tls, User};
use crate::StoreError;

/// Longest wait for one answer to a question that may be asked again.
const ONE_TRY: Duration = Duration::from_millis(1200);
/// Longest wait for the answer to a transaction.
const COMMIT: Duration = Duration::from_secs(4);
/// Longest time until a question is given up.
const PATIENCE: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(1);
/// Between two looks at the endpoint in use.
const LOOK: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);
/// Largest answer: a listing of everything.
const LARGEST: usize = 512 << 20;

/// The endpoint in use.
#[derive(Clone)]
pub(super) struct InUse {
    pub(super) url: String,
    pub(super) channel: Line,
}

/// The way to an endpoint, with what says there who we are.
#[derive(Clone)]
pub(super) struct Line {
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Line {
    fn request<Q>(&self, question: Q) -> Request<Q> {
        let mut request = Request::new(question);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }
}

/// Whether a question may be asked twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Asking twice does what asking once does.
    Harmless,
    /// Only when it certainly was not heard.
    Unheard,
}

/// Connections to the endpoints.
pub(super) struct Connection {
    tls: Mutex<Option<Tls>>,
    endpoints: Mutex<Vec<String>>,
    in_use: watch::Sender<Option<InUse>>,
    trouble: Notify,
    probe: Vec<u8>,
    user: Option<User>,
    /// Why the endpoint that was asked last was not taken.
    silence: Mutex<String>,
}

impl Connection {
    pub(super) fn open(options: &Options, tasks: &Group) -> Result<Arc<Self>, StoreError> {
        let connection = Arc::new(Self {
            tls: Mutex::new(options.tls.clone()),
            endpoints: Mutex::new(options.endpoints.clone()),
            in_use: watch::Sender::new(None),
            trouble: Notify::new(),
            probe: format!("{}leader", options.prefix).into_bytes(),
            user: options.user.clone(),
            silence: Mutex::default(),
        });
        for url in &options.endpoints {
            connection.endpoint(url)?;
        }
        let kept = Arc::downgrade(&connection);
        tasks.spawn("etcd endpoints", move |stop| keep(kept, stop));
        Ok(connection)
    }

    pub(super) fn set_endpoints(&self, endpoints: &[String]) {
        let mut known = self.endpoints.lock();
        if *known == endpoints {
            return;
        }
        known.clear();
        known.extend_from_slice(endpoints);
        drop(known);
        let is_left = |used: &InUse| !endpoints.contains(&used.url);
        self.in_use.send_if_modified(|used| used.take_if(|used| is_left(used)).is_some());
        self.trouble.notify_one();
    }

    pub(super) fn set_tls(&self, tls: Option<Tls>) {
        *self.tls.lock() = tls;
        self.in_use.send_replace(None);
        self.trouble.notify_one();
    }

    /// Follows which endpoint is in use.
    pub(super) fn follow(&self) -> watch::Receiver<Option<InUse>> {
        self.in_use.subscribe()
    }

    /// The way to an endpoint, without a user.
    pub(super) fn endpoint(&self, url: &str) -> Result<Line, StoreError> {
        let bad = |cause: String| StoreError::Failed { doing: "connecting to etcd", cause };
        let endpoint = Endpoint::from_shared(url.to_owned())
            .map_err(|error| bad(format!("{url}: {error}")))?
            .connect_timeout(CONNECT)
            .tcp_nodelay(true);
        let endpoint = match &*self.tls.lock() {
            None => endpoint,
            Some(tls) => {
                let mut config =
                    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.authority));
                if let Some(identity) = &tls.identity {
                    let identity = TonicIdentity::from_pem(&identity.chain, &identity.key);
                    config = config.identity(identity);
                }
                endpoint.tls_config(config).map_err(|error| bad(words(&error)))?
            }
        };
        Ok(Line { channel: endpoint.connect_lazy(), token: None })
    }

    /// The same as our user, where there is one.
    pub(super) async fn line(&self, url: &str) -> Result<Line, StoreError> {
        let line = self.endpoint(url)?;
        let Some(User { name, password }) = &self.user else { return Ok(line) };
        let failed = |cause: String| StoreError::Failed {
            doing: "showing etcd the password",
            cause: format!("{url}: {cause}"),
        };
        let question =
            AuthenticateRequest { name: name.clone(), password: password.reveal().to_owned() };
        let path = "/etcdserverpb.Auth/Authenticate";
        let asked = unary::<_, AuthenticateResponse>(line.clone(), path, question);
        match tokio::time::timeout(ONE_TRY, asked).await {
            Ok(Ok(answer)) => {
                let token = MetadataValue::try_from(answer.token);
                let token = token.map_err(|error| failed(error.to_string()))?;
                Ok(Line { token: Some(token), ..line })
            }
            // Then nobody is asked who he is.
            Ok(Err(status)) if status.message().contains("authentication is not enabled") => {
                Ok(line)
            }
            Ok(Err(status)) => Err(failed(words(&status))),
            Err(_) => Err(failed(format!("no answer within {ONE_TRY:?}"))),
        }
    }

    /// Nobody answers, and why.
    pub(super) fn nobody(&self) -> String {
        let silence = self.silence.lock();
        match silence.is_empty() {
            true => "no endpoint of etcd answers".into(),
            false => format!("no endpoint of etcd answers ({silence})"),
        }
    }

    /// Asks one question, of another endpoint when one does not answer.
    pub(super) async fn ask<Q, A>(
        &self,
        doing: &'static str,
        path: &'static str,
        question: Q,
        again: Again,
    ) -> Result<A, CallError>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        let late = clock::now() + PATIENCE;
        let mut last = None;
        loop {
            let Some(in_use) = self.an_endpoint(late).await else {
                let cause = last.unwrap_or_else(|| self.nobody());
                return Err(CallError::Away { doing, cause });
            };
            let limit = match again {
                Again::Harmless => ONE_TRY,
                Again::Unheard => COMMIT,
            };
            let asked = unary(in_use.channel.clone(), path, question.clone());
            let status = match tokio::time::timeout(limit, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {limit:?}")),
            };
            if is_other_access(&status) && clock::now() < late {
                if self.user.is_some() {
                    // Its token is of the time before.
                    self.left(&in_use);
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            if !is_trouble(&status) {
                return Err(CallError::Answered(status));
            }
            self.left(&in_use);
            let cause = format!("{}: {}", in_use.url, words(&status));
            if again == Again::Unheard && !is_unheard(&status) || clock::now() >= late {
                return Err(CallError::Away { doing, cause });
            }
            last = Some(cause);
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks one question where etcd has a stream of them: a lease is kept alive so.
    pub(super) async fn ask_stream<Q, A>(
        &self,
        doing: &'static str,
        question: Q,
    ) -> Result<A, StoreError>
    where
        Q: prost::Message + Clone + Unpin + 'static,
        A: prost::Message + Default + 'static,
    {
        let late = clock::now() + PATIENCE;
        let mut last = None;
        while let Some(in_use) = self.an_endpoint(late).await {
            let path = "/etcdserverpb.Lease/LeaseKeepAlive";
            let asked = async {
                let mut answers =
                    streaming(in_use.channel.clone(), path, Once(Some(question.clone()))).await?;
                let answer = answers.message().await?;
                answer.ok_or_else(|| Status::unavailable("the stream ended at once"))
            };
            match tokio::time::timeout(ONE_TRY, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => last = Some(format!("{}: {}", in_use.url, words(&status))),
                Err(_) => last = Some(format!("{}: no answer within {ONE_TRY:?}", in_use.url)),
            }
            self.left(&in_use);
            if clock::now() >= late {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(StoreError::Failed { doing, cause: last.unwrap_or_else(|| self.nobody()) })
    }

    /// The endpoint in use, once there is one.
    async fn an_endpoint(&self, late: Instant) -> Option<InUse> {
        let mut follower = self.follow();
        let found = follower.wait_for(Option::is_some);
        let found = tokio::time::timeout_at(late.into(), found).await.ok()?.ok()?;
        found.clone()
    }

    /// Somebody met a failure of it.
    pub(super) fn left(&self, endpoint: &InUse) {
        self.in_use.send_if_modified(|in_use| {
            let is_it = in_use.as_ref().is_some_and(|it| it.url == endpoint.url);
            if is_it {
                *in_use = None;
            }
            is_it
        });
        self.trouble.notify_one();
    }

    /// Looks at the endpoint in use, and for another one where it fails.
    async fn look(&self) {
        let in_use = self.in_use.borrow().clone();
        let mut urls = self.endpoints.lock().clone();
        if let Some(in_use) = &in_use
            && urls.contains(&in_use.url)
            && self.answers(in_use.channel.clone()).await.is_ok()
        {
            return;
        }
        urls.shuffle(&mut rand::rng());
        // The one that failed just now comes last.
        urls.sort_by_key(|url| in_use.as_ref().is_some_and(|in_use| in_use.url == *url));
        for url in urls {
            let asked = async {
                let channel = self.line(&url).await.map_err(|error| error.to_string())?;
                self.answers(channel.clone()).await.map_err(|cause| format!("{url}: {cause}"))?;
                Ok::<_, String>(channel)
            };
            match asked.await {
                Ok(channel) => {
                    tracing::debug!(url, "uses this endpoint of etcd");
                    self.in_use.send_replace(Some(InUse { url, channel }));
                    return;
                }
                Err(because) => *self.silence.lock() = because,
            }
        }
        self.in_use.send_if_modified(|in_use| in_use.take().is_some());
    }

    /// Whether a member answers that has the quorum behind it.
    async fn answers(&self, channel: Line) -> Result<(), String> {
        let question =
            RangeRequest { key: self.probe.clone(), count_only: true, ..RangeRequest::default() };
        let asked = unary::<_, RangeResponse>(channel, "/etcdserverpb.KV/Range", question);
        match tokio::time::timeout(ONE_TRY, asked).await {
            // Whoever may not ask here may not ask elsewhere: that is to be said, not waited out.
            Ok(Err(status)) if status.code() == Code::PermissionDenied => Ok(()),
            Ok(Err(status)) => Err(words(&status)),
            Ok(Ok(_)) => Ok(()),
            Err(_) => Err(format!("no answer within {ONE_TRY:?}")),
        }
    }
}

async fn keep(connection: std::sync::Weak<Connection>, stop: Shutdown) {
    while !stop.is_requested() {
        let Some(connection) = connection.upgrade() else { return };
        connection.look().await;
        let is_found = connection.in_use.borrow().is_some();
        let pause = match (is_found, &connection.user) {
            (true, _) => LOOK,
            (false, None) => PAUSE,
            // A password costs etcd much to look at.
            (false, Some(_)) => LOOK / 2,
        };
        tokio::select! {
            () = stop.requested() => {}
            () = connection.trouble.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// etcd said no.
    Answered(Status),
    /// No endpoint answers; whether it was heard is not known.
    Away {
        /// What was being done.
        doing: &'static str,
        /// What happened last.
        cause: String,
    },
}

impl CallError {
    /// As the store's error.
    pub(super) fn of(self, doing: &'static str) -> StoreError {
        match self {
            Self::Answered(status) => StoreError::Failed { doing, cause: words(&status) },
            Self::Away { doing, cause } => StoreError::Failed { doing, cause },
        }
    }
}

/// One question, one answer.
pub(super) async fn unary<Q, A>(line: Line, path: &'static str, question: Q) -> Result<A, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc =
        tonic::client::Grpc::new(line.channel.clone()).max_decoding_message_size(LARGEST);
    ready(&mut grpc).await?;
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let answer = grpc.unary(line.request(question), PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}

/// One question, a stream of answers.
pub(super) async fn server_stream<Q, A>(
    line: Line,
    path: &'static str,
    question: Q,
) -> Result<Streaming<A>, Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc =
        tonic::client::Grpc::new(line.channel.clone()).max_decoding_message_size(LARGEST);
    ready(&mut grpc).await?;
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let path = PathAndQuery::from_static(path);
    Ok(grpc.server_streaming(line.request(question), path, codec).await?.into_inner())
}

/// A stream of one question.
struct Once<Q>(Option<Q>);

impl<Q: Unpin> futures_core::Stream for Once<Q> {
    type Item = Q;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Q>> {
        std::task::Poll::Ready(self.0.take())
    }
}

/// A stream of questions, a stream of answers.
pub(super) async fn streaming<S, A>(
    line: Line,
    path: &'static str,
    questions: S,
) -> Result<Streaming<A>, Status>
where
    S: futures_core::Stream + Send + 'static,
    S::Item: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc =
        tonic::client::Grpc::new(line.channel.clone()).max_decoding_message_size(LARGEST);
    ready(&mut grpc).await?;
    let codec: ProstCodec<S::Item, A> = ProstCodec::default();
    let answer =
        grpc.streaming(line.request(questions), PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}

async fn ready(grpc: &mut tonic::client::Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))
}

/// Whether another endpoint may answer better.
fn is_trouble(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Cancelled
            | Code::Internal
            // A token that counts no more: the member has started again.
            | Code::Unauthenticated
    )
}

/// Whether etcd did nothing because somebody changed at the same moment who may ask.
fn is_other_access(status: &Status) -> bool {
    let said = status.message();
    said.contains("revision of auth store is old")
        || said.contains("auth: revision in header is old")
}

/// Whether the question certainly did not reach etcd.
fn is_unheard(status: &Status) -> bool {
    if status.code() == Code::Unauthenticated {
        return true;
    }
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    status.message().contains("etcdserver: no leader")
}

/// An error with everything behind it.
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
