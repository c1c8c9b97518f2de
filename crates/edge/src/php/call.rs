//! A worker, a connection, and the head of PHP's answer; a second try where that is safe.
//!
//! Safe is: nothing was sent yet (whatever the method), or an idempotent request without a body died before PHP
//! answered a byte. Nothing else is ever sent twice. Such a request is sent again once, so that one that kills its worker
//! kills two and no more; deaths that came with the end of a whole instance (its socket is gone or another one) are not
//! its fault and do not count.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pressroom_model::id::InstanceId;
use pressroom_model::snapshot::Limits;
use pressroom_runtime::handover::{self, Handed};
use tokio::net::UnixStream;

use super::answer::Answer;
use crate::affirm::{Affirmations, Pending};
use crate::cache;
use crate::fastcgi::codec::Event;
use crate::fastcgi::exchange::{Exchange, Fault, Listener, Source};
use crate::fastcgi::head::{Head, Malformed, Parser};
use crate::fastcgi::params::Params;
use crate::pool::{Class, Pool, Refused, Slot};

/// Everything about one request to PHP.
pub struct Call {
    /// Whose.
    pub site: String,
    /// Hears what PHP says about the request.
    pub affirmations: Arc<Affirmations>,
    /// The site in the cache.
    pub cached: Arc<cache::Site>,
    /// The site's pool.
    pub pool: Arc<Pool>,
    /// Limits.
    pub limits: Limits,
    /// What PHP is told.
    pub params: Params,
    /// The body.
    pub source: Source,
    /// Whether its method is safe: it may be sent again when it died unanswered, and may end in silence.
    pub safe: bool,
    /// Its place in the queue.
    pub class: Class,
    /// The id in logs.
    pub request_id: String,
    /// Longest wait for a worker.
    pub patience: Duration,
    /// How the connection to PHP comes about.
    pub reach: Reach,
}

/// How a connection to PHP comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// PHP itself listens on the socket.
    Direct,
    /// The agent listens there, and hands a connection to PHP over when the request's turn has come.
    Handed,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No worker.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The exchange failed.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// PHP's headers are broken.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// How long things took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// Waiting for a worker.
    pub queue: Duration,
    /// From the first byte to PHP to the end of its headers.
    pub php: Duration,
}

/// How often, and how long apart, it is looked whether an instance has ended.
const LOOKS: u32 = 4;
const LOOK: Duration = Duration::from_millis(10);

enum Attempt {
    Answered(Box<(Answer, Pending)>),
    /// Nothing reached PHP.
    Unsent(Source),
    /// It died without a byte; sending it again changes nothing.
    Died(InstanceId, Fate),
    Failed(Failure),
}

impl Call {
    /// Asks PHP; `begin` is called whenever the request is about to be handed to it.
    pub async fn run(
        mut self,
        mut begin: impl FnMut() + Send,
    ) -> Result<(Answer, Pending), Failure> {
        let begun = Instant::now();
        let mut deadline = begun + self.patience;
        let mut source = std::mem::replace(&mut self.source, Source::Memory(Bytes::new()));
        let mut avoid = None;
        let mut deaths = 0;
        loop {
            let slot = self.pool.acquire(self.class, begun, deadline, avoid.clone()).await?;
            let queue = begun.elapsed();
            let attempted = Instant::now();
            match self.attempt(slot, source, queue, &mut begin).await {
                Attempt::Answered(answer) => return Ok(*answer),
                Attempt::Unsent(back) => {
                    source = back;
                    // A turn that was waited for is no worker's lateness.
                    deadline += attempted.elapsed();
                }
                Attempt::Died(instance, fate) => {
                    tracing::warn!(site = self.site, request = self.request_id, %instance, "PHP died unanswered; asking again");
                    avoid = Some(instance);
                    deaths += u32::from(fate == Fate::Worker);
                    if deaths > 1 || Instant::now() >= deadline {
                        return Err(Fault::Died.into());
                    }
                    source = Source::Memory(Bytes::new());
                }
                Attempt::Failed(failure) => return Err(failure),
            }
        }
    }

    async fn attempt(
        &mut self,
        mut slot: Slot,
        source: Source,
        queue: Duration,
        begin: &mut (impl FnMut() + Send),
    ) -> Attempt {
        let instance = slot.instance.id.clone();
        let stream = match self.connect(&mut slot).await {
            Ok(stream) => stream,
            Err(Unconnected::Refused(error)) => {
                tracing::debug!(site = self.site, %instance, %error, "the instance refused a connection");
                slot.refused();
                return Attempt::Unsent(source);
            }
            Err(Unconnected::Failed(fault)) => return Attempt::Failed(fault.into()),
        };
        let bodyless = matches!(&source, Source::Memory(bytes) if bytes.is_empty());
        let target = slot.instance.clone();
        let socket = Socket::of(&target.socket);
        let may_repeat = bodyless && self.safe;
        begin();
        // Only now: a request that never reached PHP has nothing to be silent about.
        let pending = self.affirmations.open(&self.cached, self.safe);
        let mut params = self.params.clone();
        params.set("PRESSROOM_TOKEN", pending.token());
        let sent = Instant::now();
        let stderr = stderr(self.site.clone(), self.request_id.clone());
        let most = self.limits.upload.get();
        let Ok(mut exchange) = Exchange::start(
            stream,
            params.as_bytes(),
            source,
            most,
            self.limits.time.get(),
            stderr,
        )
        .await
        else {
            return died(may_repeat, instance, &socket).await;
        };
        match read_head(&mut exchange).await {
            Ok((head, first)) => {
                let times = Times { queue, php: sent.elapsed() };
                let most = self.limits.answer.get();
                let answer = Answer::new(head, first, exchange, slot, most, times);
                Attempt::Answered(Box::new((answer, pending)))
            }
            Err(Failure::Fault(Fault::Died)) if !exchange.has_spoken() => {
                // The slot is free for others while we look what happened.
                drop((slot, exchange));
                died(may_repeat, instance, &socket).await
            }
            Err(failure) => Attempt::Failed(failure),
        }
    }
}

impl Call {
    async fn connect(&self, slot: &mut Slot) -> Result<UnixStream, Unconnected> {
        let stream =
            UnixStream::connect(&slot.instance.socket).await.map_err(Unconnected::Refused)?;
        if self.reach == Reach::Direct {
            return Ok(stream);
        }
        let handed = tokio::time::timeout(self.limits.time.get(), handover::take(&stream)).await;
        match handed {
            Err(_) => Err(Unconnected::Failed(Fault::TimedOut)),
            Ok(Ok(Handed::Connection(php))) => {
                slot.turn = Some(stream);
                Ok(php)
            }
            Ok(Ok(Handed::Nothing)) => Err(Unconnected::Failed(Fault::Died)),
            Ok(Ok(Handed::Gone)) => {
                Err(Unconnected::Refused(std::io::ErrorKind::ConnectionReset.into()))
            }
            Ok(Err(error)) => Err(Unconnected::Refused(error)),
        }
    }
}

/// Why there is no connection to PHP. Nothing was sent.
enum Unconnected {
    /// Nobody is there just now.
    Refused(std::io::Error),
    /// Waiting longer would not help.
    Failed(Fault),
}

/// What died with an unanswered request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The worker, perhaps because of the request.
    Worker,
    /// The whole instance.
    Instance,
}

async fn died(may_repeat: bool, instance: InstanceId, socket: &Socket<'_>) -> Attempt {
    if !may_repeat {
        return Attempt::Failed(Fault::Died.into());
    }
    // An instance that ends takes its socket away a moment after its workers.
    for _ in 0..LOOKS {
        if !socket.is_there() {
            return Attempt::Died(instance, Fate::Instance);
        }
        tokio::time::sleep(LOOK).await;
    }
    Attempt::Died(instance, Fate::Worker)
}

/// Which socket it was that a request was sent to.
struct Socket<'a> {
    path: &'a Path,
    inode: Option<u64>,
}

impl<'a> Socket<'a> {
    fn of(path: &'a Path) -> Self {
        Self { path, inode: inode(path) }
    }

    fn is_there(&self) -> bool {
        self.inode.is_some() && inode(self.path) == self.inode
    }
}

fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|m| m.ino())
}

async fn read_head(exchange: &mut Exchange) -> Result<(Head, Bytes), Failure> {
    let mut parser = Parser::default();
    loop {
        match exchange.next().await? {
            Event::Stdout(piece) => {
                if let Some(whole) = parser.feed(&piece)? {
                    return Ok(whole);
                }
            }
            Event::End { .. } => return Err(Malformed::Line.into()),
            Event::Stderr(_) => {}
        }
    }
}

/// Most bytes that one request may write to the log.
const STDERR_MOST: usize = 16 * 1024;

fn stderr(site: String, request: String) -> Listener {
    let mut room = STDERR_MOST;
    Box::new(move |text| {
        for line in text.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
            if room == 0 {
                return;
            }
            room = room.saturating_sub(line.len());
            tracing::warn!(site, request, "php: {}", String::from_utf8_lossy(line.trim_ascii()));
        }
    })
}
