//! A page under way: asked of its owner, made by PHP of this node, or by that of another one, and stored if PHP affirms it.
//!
//! Always: it runs as its own task, so it does not end with the client who caused it; what may not be stored is shown to nobody but
//! its asker. An error is shown when no other node had better: PHP of one may lack what others have, such as the database right after
//! a cut.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use tokio::sync::oneshot;

use super::{Outlook, Own, call, count, facts, learn};
use crate::affirm::Pending;
use crate::body::Body;
use crate::cache::{self, Lead, Refusal, Rendered};
use crate::core::Core;
use crate::fastcgi::exchange::Fault;
use crate::fastcgi::head::Head;
use crate::handler::{Asking, Script};
use crate::mesh::Mesh;
use crate::mesh::choice::Place;
use crate::mesh::passing::{Canonical, Kind};
use crate::mesh::rendering::{self, Brought};
use crate::php::answer::{Answer, Outcome, PhpBody};
use crate::php::call::{Call, Failure, Times};
use crate::php::request::{self, Facts};
use crate::pool::Refused;
use crate::view::Site;

/// Begins a render as a task of its own. `last_word`: how long its asker waits for PHP's.
pub(super) fn start(
    core: &Arc<Core>,
    site: &Arc<Site>,
    asking: &Asking,
    script: &Script,
    lead: Lead,
    last_word: Duration,
) -> oneshot::Receiver<Outlook> {
    // All that PHP is told is in the key, or the same for everybody.
    let key = lead.key();
    let facts = Facts {
        uri: key.path_and_query(),
        host: key.host(),
        authority: key.authority(),
        method: &Method::GET,
        protocol: "HTTP/1.1",
        ..facts(site, asking, script)
    };
    let params = request::canonical(&facts, key.cookies());
    let mut call = call(core, site, asking, params);
    call.safe = true;
    let elsewhere = core.shared.mesh.get().map(|mesh| {
        // A page that is not stored has no owner: it is made where there is room.
        let page = lead.is_shared().then(|| key.text());
        let places = mesh.places(site, asking.passed, page);
        lead.abroad(matches!(places.first(), Some(Place::Owner(_))));
        (Arc::clone(mesh), places, rendering::canonical(site, asking, key))
    });
    let (tell, told) = oneshot::channel();
    let making = Making { core: core.clone(), site: site.clone(), last_word, tell };
    tokio::spawn(async move {
        match elsewhere {
            Some((mesh, places, what)) if *places != [Place::Here] => {
                making.anywhere(&mesh, places, &what, call, lead).await;
            }
            _ => making.here(call, lead).await,
        }
    });
    told
}

/// A render under way. Nobody may be there to be told any more; the page is stored all the same.
struct Making {
    core: Arc<Core>,
    site: Arc<Site>,
    last_word: Duration,
    tell: oneshot::Sender<Outlook>,
}

impl Making {
    /// Asks one place after the other.
    async fn anywhere(
        mut self,
        mesh: &Arc<Mesh>,
        places: Vec<Place>,
        what: &Canonical,
        call: Call,
        mut lead: Lead,
    ) {
        let most = self.core.shared.cache.page_limit();
        let (mut call, mut older, mut said) = (Some(call), None, None);
        let mut failure = Failure::Refused(Refused::Late);
        let mut tries = 0;
        let mut places = places.into_iter().peekable();
        while let Some(place) = places.next() {
            let kind = if matches!(place, Place::Owner(_)) { Kind::Render } else { Kind::Help };
            lead.abroad(kind == Kind::Render);
            let Some(node) = place.node() else {
                let Some(call) = call.take() else { continue };
                match self.answered_here(call, lead, places.peek().is_none()).await {
                    Ok(()) => return,
                    Err(Unmade::Failed(this, back, why)) => {
                        (self, lead, failure) = (this, back, why);
                    }
                    Err(Unmade::Error(this, back, own)) => {
                        (self, lead, said) = (this, back, Some(own));
                        // The next one is one more, and not the first.
                        tries += 1;
                    }
                }
                continue;
            };
            tries += 1;
            match tries {
                1 => mesh.peers.earn(),
                _ if mesh.peers.may_retry() => {}
                _ => continue,
            }
            // In this order: what was purged before must be known to whoever is asked.
            lead.begin(cache::now());
            match rendering::ask(mesh, &node, &self.site, (kind, what), most).await {
                Brought::Page(page) => return self.borrowed(page, lead),
                // It may lack what this node has.
                Brought::Own(head, body, refusal)
                    if head.status.is_server_error() && places.peek().is_some() =>
                {
                    let (times, refusal) = (Times::default(), Some(refusal));
                    said = Some(Box::new(Own { head, body, times, refusal }));
                }
                Brought::Own(head, body, refusal) => return self.own(head, body, refusal, lead),
                Brought::Stale(head, body) => older = Some((head, body)),
                Brought::Nothing => {}
            }
        }
        let outlook = match (older, said) {
            (None, Some(own)) => refuse_own(lead, *own),
            (Some((head, body)), _) => match fall_back(lead, failure) {
                Outlook::Failed(_) => Outlook::Own(Box::new(Own {
                    head,
                    body: Body::Whole(body),
                    times: Times::default(),
                    refusal: Some(Refusal::NoAnswer),
                })),
                outlook => outlook,
            },
            (None, None) => fall_back(lead, failure),
        };
        let _ = self.tell.send(outlook);
    }

    fn borrowed(self, page: cache::Borrowed, lead: Lead) {
        let own = Own {
            head: Head { status: page.status, headers: page.headers.clone() },
            body: Body::Whole(page.body.clone()),
            times: Times::default(),
            refusal: None,
        };
        let outlook = match lead.borrow(page, cache::now()) {
            Ok(hit) => Outlook::Page(hit),
            Err(refusal) => Outlook::Own(Box::new(Own { refusal: Some(refusal), ..own })),
        };
        let _ = self.tell.send(outlook);
    }

    fn own(self, head: Head, body: Body, refusal: Refusal, lead: Lead) {
        learn(&self.core, &self.site, &head.headers);
        let judged = lead.judge(head.status, &head.headers).err().unwrap_or(refusal);
        let _ = self.tell.send(refuse(lead, &judged, head, body, Times::default()));
    }

    /// By PHP of this node alone.
    async fn here(self, call: Call, lead: Lead) {
        let (this, outlook) = match self.answered_here(call, lead, true).await {
            Ok(()) => return,
            Err(Unmade::Failed(this, lead, failure)) => (this, fall_back(lead, failure)),
            Err(Unmade::Error(this, lead, own)) => (this, refuse_own(lead, *own)),
        };
        let _ = this.tell.send(outlook);
    }

    /// By PHP of this node, if that answers. Where it `is_last` its errors are answers as well.
    async fn answered_here(self, call: Call, mut lead: Lead, is_last: bool) -> Result<(), Unmade> {
        let (answer, pending) = match call.run(|| lead.begin(cache::now())).await {
            Ok(answered) => answered,
            Err(failure) => return Err(Unmade::Failed(self, lead, failure)),
        };
        count(&self.core, &answer.times);
        learn(&self.core, &self.site, &answer.head.headers);
        if let Err(refusal) = lead.judge(answer.head.status, &answer.head.headers) {
            if answer.head.status.is_server_error() && !is_last {
                return self.erred(lead, pending, answer, refusal).await;
            }
            self.shows(lead, pending, answer, &refusal);
            return Ok(());
        }
        let Answer { head, times, mut body, instance } = answer;
        match collect(&mut body, self.core.shared.cache.page_limit()).await {
            Collected::Whole(bytes) => {
                let whole = Whole { head, bytes, times, outcome: body.outcome() };
                store(lead, pending, whole, self.tell, self.last_word).await;
                Ok(())
            }
            Collected::TooMuch(bytes) => {
                let refusal = Refusal::TooLarge(bytes.len());
                body.unread(bytes);
                self.shows(lead, pending, Answer { head, times, body, instance }, &refusal);
                Ok(())
            }
            Collected::Broken(fault) => Err(Unmade::Failed(self, lead, fault.into())),
        }
    }

    /// Shows to its asker what is not stored, as it comes.
    fn shows(self, lead: Lead, pending: Pending, answer: Answer, refusal: &Refusal) {
        let Answer { head, times, mut body, .. } = answer;
        body.on_end(move |outcome| spawn_closing(pending, outcome));
        let body = Body::Php(Box::new(body));
        let _ = self.tell.send(refuse(lead, refusal, head, body, times));
    }

    /// PHP of this node says an error, perhaps for want of what it has elsewhere: it is kept until others were asked.
    async fn erred(
        self,
        lead: Lead,
        pending: Pending,
        mut answer: Answer,
        refusal: Refusal,
    ) -> Result<(), Unmade> {
        match collect(&mut answer.body, self.core.shared.cache.page_limit()).await {
            Collected::Whole(bytes) => {
                spawn_closing(pending, answer.body.outcome().unwrap_or(Outcome::Cut));
                let Answer { head, times, .. } = answer;
                let (body, refusal) = (Body::Whole(bytes), Some(refusal));
                Err(Unmade::Error(self, lead, Box::new(Own { head, body, times, refusal })))
            }
            Collected::TooMuch(bytes) => {
                answer.body.unread(bytes);
                self.shows(lead, pending, answer, &refusal);
                Ok(())
            }
            Collected::Broken(fault) => Err(Unmade::Failed(self, lead, fault.into())),
        }
    }
}

/// What PHP of this node did not make.
enum Unmade {
    /// There is no answer.
    Failed(Making, Lead, Failure),
    /// There is an error page.
    Error(Making, Lead, Box<Own>),
}

/// A whole answer to a canonical request.
struct Whole {
    head: Head,
    bytes: Bytes,
    times: Times,
    outcome: Option<Outcome>,
}

/// Stores an answer if PHP affirms it. An asker does not wait long for PHP's last word; those who wait for the page do.
async fn store(
    lead: Lead,
    pending: Pending,
    whole: Whole,
    tell: oneshot::Sender<Outlook>,
    last_word: Duration,
) {
    let Whole { head, bytes, times, outcome } = whole;
    let own = |head, bytes, refusal| {
        Outlook::Own(Box::new(Own { head, body: Body::Whole(bytes), times, refusal }))
    };
    let mut closing = std::pin::pin!(pending.finished(outcome.is_some_and(|o| o != Outcome::Cut)));
    let (closing, tell) = match tokio::time::timeout(last_word, &mut closing).await {
        Ok(closing) => (closing, Some(tell)),
        Err(_) => {
            let _ = tell.send(own(head.clone(), bytes.clone(), None));
            (closing.await, None)
        }
    };
    let answer = Rendered {
        status: head.status,
        headers: head.headers.clone(),
        body: bytes.clone(),
        complete: outcome == Some(Outcome::Finished),
        affirmation: closing.affirmation.as_ref(),
        because: closing.because.as_deref(),
    };
    let outlook = match lead.store(answer, cache::now()) {
        Ok(hit) => Outlook::Page(hit),
        Err(refusal) => own(head, bytes, Some(refusal)),
    };
    if let Some(tell) = tell {
        let _ = tell.send(outlook);
    }
}

/// An answer that may not be stored: for its asker, or, when it is an error of the moment, the stale page instead.
fn refuse(lead: Lead, refusal: &Refusal, head: Head, body: Body, times: Times) -> Outlook {
    let now = cache::now();
    let stale = lead.fallback(now).filter(|_| head.status.is_server_error());
    lead.refuse(refusal, now);
    match stale {
        Some(hit) => {
            if let Body::Php(body) = body {
                tokio::spawn(body.drain());
            }
            Outlook::Page(hit)
        }
        None => Outlook::Own(Box::new(Own { head, body, times, refusal: Some(refusal.clone()) })),
    }
}

fn refuse_own(lead: Lead, own: Own) -> Outlook {
    let Own { head, body, times, refusal } = own;
    refuse(lead, &refusal.unwrap_or(Refusal::NoAnswer), head, body, times)
}

fn fall_back(lead: Lead, failure: Failure) -> Outlook {
    let now = cache::now();
    let stale = lead.fallback(now);
    lead.refuse(&Refusal::NoAnswer, now);
    stale.map_or(Outlook::Failed(failure), Outlook::Page)
}

enum Collected {
    Whole(Bytes),
    TooMuch(Bytes),
    Broken(Fault),
}

async fn collect(body: &mut PhpBody, most: usize) -> Collected {
    let mut all = BytesMut::new();
    loop {
        match body.piece().await {
            None => return Collected::Whole(all.freeze()),
            Some(Ok(piece)) => {
                all.extend_from_slice(&piece);
                if all.len() > most {
                    return Collected::TooMuch(all.freeze());
                }
            }
            Some(Err(crate::php::answer::Broken::Fault(fault))) => return Collected::Broken(fault),
            Some(Err(crate::php::answer::Broken::TooLong)) => {
                return Collected::Broken(Fault::Died);
            }
        }
    }
}

pub(super) fn spawn_closing(pending: Pending, outcome: Outcome) {
    // Outside of a runtime the process is ending, and dropping it says the same.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            match outcome {
                Outcome::Cut => pending.abandoned().await,
                Outcome::Finished | Outcome::Failed => pending.finished(true).await,
            }
        });
    }
}
