//! A worker, a connection, and the head of PHP's answer; a second try where that is safe.
//!
//! Safe is: nothing was sent yet (whatever the method), or an idempotent request without a body died before PHP
//! answered a byte. Nothing else is ever sent twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pressroom_model::id::InstanceId;
use pressroom_model::snapshot::Limits;
use tokio::net::UnixStream;

use super::answer::Answer;
use crate::affirm::{Affirmations, Pending};
use crate::cache;
use crate::fastcgi::codec::Event;
use crate::fastcgi::exchange::{Exchange, Fault, Source};
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

enum Attempt {
    Answered(Box<(Answer, Pending)>),
    /// Nothing reached PHP.
    Unsent(Source),
    /// It died without a byte; sending it again changes nothing.
    Died(InstanceId),
    Failed(Failure),
}

impl Call {
    /// Asks PHP; `begin` is called whenever the request is about to be handed to it.
    pub async fn run(
        mut self,
        mut begin: impl FnMut() + Send,
    ) -> Result<(Answer, Pending), Failure> {
        let begun = Instant::now();
        let deadline = begun + self.patience;
        let mut source = std::mem::replace(&mut self.source, Source::Memory(Bytes::new()));
        let mut avoid = None;
        let mut died = false;
        loop {
            let slot = self.pool.acquire(self.class, begun, deadline, avoid.clone()).await?;
            let queue = begun.elapsed();
            match self.attempt(slot, source, queue, !died, &mut begin).await {
                Attempt::Answered(answer) => return Ok(*answer),
                Attempt::Unsent(back) => source = back,
                Attempt::Died(instance) => {
                    tracing::warn!(site = self.site, request = self.request_id, %instance, "PHP died unanswered; asking again");
                    avoid = Some(instance);
                    died = true;
                    source = Source::Memory(Bytes::new());
                }
                Attempt::Failed(failure) => return Err(failure),
            }
        }
    }

    async fn attempt(
        &mut self,
        slot: Slot,
        source: Source,
        queue: Duration,
        may_repeat: bool,
        begin: &mut (impl FnMut() + Send),
    ) -> Attempt {
        let instance = slot.instance.id.clone();
        let stream = match UnixStream::connect(&slot.instance.socket).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(site = self.site, %instance, %error, "the instance refused a connection");
                slot.refused();
                return Attempt::Unsent(source);
            }
        };
        let bodyless = matches!(&source, Source::Memory(bytes) if bytes.is_empty());
        let died = || match may_repeat && bodyless && self.safe {
            true => Attempt::Died(instance.clone()),
            false => Attempt::Failed(Fault::Died.into()),
        };
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
            return died();
        };
        match read_head(&mut exchange).await {
            Ok((head, first)) => {
                let times = Times { queue, php: sent.elapsed() };
                let most = self.limits.answer.get();
                let answer = Answer::new(head, first, exchange, slot, most, times);
                Attempt::Answered(Box::new((answer, pending)))
            }
            Err(Failure::Fault(Fault::Died)) if !exchange.has_spoken() => died(),
            Err(failure) => Attempt::Failed(failure),
        }
    }
}

async fn read_head(exchange: &mut Exchange) -> Result<(Head, Bytes), Failure> {
    let mut parser = Parser::default();
    loop {
        match exchange.next().await? {
            Event::Stdout(piece) => {
                if let Some(whole) = parser.feed(piece)? {
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

fn stderr(site: String, request: String) -> Box<dyn FnMut(&[u8]) + Send> {
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
