//! The pool of a site: who gets which worker of which instance, over all cores.
//!
//! Always: an instance has at most `workers` requests at a time; a slot is given back when it is dropped, wherever that
//! happens; inside a class the one who came first is served first. Classes go in order, but every eighth grant is for
//! whoever waited longest, so nobody starves. An instance that refuses connections is left alone for [`DOWN`], and
//! requests wait meanwhile: a restart of php-fpm costs time, not answers.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pressroom_model::id::InstanceId;
use pressroom_model::snapshot::Backend;
use tokio::sync::oneshot;

/// How long an instance that refused a connection is left alone.
pub const DOWN: Duration = Duration::from_millis(50);
/// Every so many grants the longest waiting goes first, whatever its class.
const FAIRNESS: u32 = 8;

/// Who goes first when all workers are busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Logged-in people, checkouts, everything that writes.
    Person = 0,
    /// Anonymous pages that are not in the cache.
    Visitor = 1,
    /// Machines that read.
    Crawler = 2,
}

/// Why no worker was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many wait as may wait.
    #[error("too many requests wait for a worker")]
    Full,
    /// None became free in time.
    #[error("no worker became free in time")]
    Late,
}

/// One instance, as long as anybody holds a slot of it.
#[derive(Debug)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its FastCGI socket.
    pub socket: PathBuf,
    workers: u32,
    busy: AtomicU32,
}

#[derive(Debug)]
struct Member {
    instance: Arc<Instance>,
    draining: bool,
    down_until: Option<Instant>,
}

struct Waiter {
    since: Instant,
    avoid: Option<InstanceId>,
    grant: oneshot::Sender<Slot>,
}

#[derive(Default)]
struct State {
    members: Vec<Member>,
    queues: [VecDeque<Waiter>; 3],
    grants: u32,
    most_waiting: u32,
}

/// The pool of one site.
#[derive(Default)]
pub struct Pool {
    state: Mutex<State>,
    waiting: AtomicU32,
}

/// The right to have one request in one instance.
pub struct Slot {
    /// Where to.
    pub instance: Arc<Instance>,
    /// Of a request to the author instance: the agent sees by it that we are there.
    pub turn: Option<tokio::net::UnixStream>,
    pool: Option<Arc<Pool>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let mut state = pool.state.lock();
            self.instance.busy.fetch_sub(1, Ordering::Relaxed);
            pool.dispatch(&mut state, Instant::now());
        }
    }
}

impl Slot {
    /// Says that the instance refused the connection, and gives the slot back.
    pub fn refused(mut self) {
        let Some(pool) = self.pool.take() else { return };
        {
            let mut state = pool.state.lock();
            self.instance.busy.fetch_sub(1, Ordering::Relaxed);
            for member in &mut state.members {
                if Arc::ptr_eq(&member.instance, &self.instance) {
                    member.down_until = Some(Instant::now() + DOWN);
                }
            }
            pool.dispatch(&mut state, Instant::now());
        }
        tokio::spawn(async move {
            tokio::time::sleep(DOWN).await;
            pool.dispatch(&mut pool.state.lock(), Instant::now());
        });
    }
}

impl Pool {
    /// Takes over a new list of backends; running requests keep their slots, and instances that stay keep their count.
    pub fn update(self: &Arc<Self>, backends: &[Backend], most_waiting: u32) {
        let mut state = self.state.lock();
        let mut old = std::mem::take(&mut state.members);
        for backend in backends {
            let known = old.iter().position(|m| {
                let i = &m.instance;
                i.id == backend.id
                    && i.socket == backend.socket
                    && i.workers == u32::from(backend.workers)
            });
            let mut member = match known {
                Some(at) => old.swap_remove(at),
                None => Member {
                    instance: Arc::new(Instance {
                        id: backend.id.clone(),
                        socket: backend.socket.clone(),
                        workers: u32::from(backend.workers),
                        busy: AtomicU32::new(0),
                    }),
                    draining: false,
                    down_until: None,
                },
            };
            member.draining = backend.draining;
            state.members.push(member);
        }
        state.most_waiting = most_waiting;
        self.dispatch(&mut state, Instant::now());
    }

    /// Waits for a worker until `deadline`, if need be; `avoid` names an instance that just failed this request.
    pub async fn acquire(
        self: &Arc<Self>,
        class: Class,
        since: Instant,
        deadline: Instant,
        avoid: Option<InstanceId>,
    ) -> Result<Slot, Refused> {
        let granted = {
            let mut state = self.state.lock();
            if state.queues.iter().all(VecDeque::is_empty)
                && let Some(slot) = self.take(&mut state, Instant::now(), avoid.as_ref())
            {
                return Ok(slot);
            }
            if self.waiting.load(Ordering::Relaxed) >= state.most_waiting {
                state.queues.iter_mut().for_each(|q| q.retain(|w| !w.grant.is_closed()));
                self.count(&state);
                if self.waiting.load(Ordering::Relaxed) >= state.most_waiting {
                    return Err(Refused::Full);
                }
            }
            let (grant, granted) = oneshot::channel();
            let waiter = Waiter { since, avoid, grant };
            // One that comes back after a refused connection keeps its place.
            let queue = &mut state.queues[class as usize];
            let place = queue.partition_point(|w| w.since <= since);
            queue.insert(place, waiter);
            self.dispatch(&mut state, Instant::now());
            granted
        };
        match tokio::time::timeout_at(deadline.into(), granted).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => {
                let mut state = self.state.lock();
                state.queues.iter_mut().for_each(|q| q.retain(|w| !w.grant.is_closed()));
                self.count(&state);
                Err(Refused::Late)
            }
        }
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether every worker that could be had has something to do.
    pub fn is_saturated(&self) -> bool {
        let state = self.state.lock();
        let is_full = |m: &Member| {
            m.down_until.is_none() && m.instance.busy.load(Ordering::Relaxed) >= m.instance.workers
        };
        state.members.iter().any(is_full) && state.members.iter().all(|m| m.draining || is_full(m))
    }

    /// Busy and all slots by instance.
    pub fn load(&self) -> Vec<(InstanceId, u32, u32)> {
        let state = self.state.lock();
        let of = |m: &Member| {
            (m.instance.id.clone(), m.instance.busy.load(Ordering::Relaxed), m.instance.workers)
        };
        state.members.iter().map(of).collect()
    }

    /// Busy and all slots of the instances that new requests may be sent to.
    pub fn usable(&self) -> (u32, u32) {
        let (state, now) = (self.state.lock(), Instant::now());
        let is_usable = |m: &&Member| !m.draining && m.down_until.is_none_or(|until| until <= now);
        state.members.iter().filter(is_usable).fold((0, 0), |(busy, workers), member| {
            let instance = &member.instance;
            (busy + instance.busy.load(Ordering::Relaxed), workers + instance.workers)
        })
    }

    fn count(&self, state: &State) {
        let waiting = state.queues.iter().map(VecDeque::len).sum::<usize>();
        self.waiting.store(u32::try_from(waiting).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Gives free slots to those who wait.
    fn dispatch(self: &Arc<Self>, state: &mut State, now: Instant) {
        while let Some(class) = next_class(state) {
            let Some(waiter) = state.queues[class].front() else { break };
            if waiter.grant.is_closed() {
                state.queues[class].pop_front();
                continue;
            }
            let avoid = waiter.avoid.clone();
            let Some(slot) = self.take(state, now, avoid.as_ref()) else { break };
            let Some(waiter) = state.queues[class].pop_front() else { break };
            if let Err(mut slot) = waiter.grant.send(slot) {
                // Its drop would want the lock that we hold.
                slot.pool = None;
                slot.instance.busy.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            state.grants = state.grants.wrapping_add(1);
        }
        self.count(state);
    }

    /// The least loaded instance with a free worker.
    fn take(
        self: &Arc<Self>,
        state: &mut State,
        now: Instant,
        avoid: Option<&InstanceId>,
    ) -> Option<Slot> {
        for member in &mut state.members {
            if member.down_until.is_some_and(|until| until <= now) {
                member.down_until = None;
            }
        }
        let load = |m: &&Member| {
            let i = &m.instance;
            let permille = i.busy.load(Ordering::Relaxed) * 1000 / i.workers.max(1);
            (Some(&i.id) == avoid, permille)
        };
        let free = |m: &&Member| {
            !m.draining
                && m.down_until.is_none()
                && m.instance.busy.load(Ordering::Relaxed) < m.instance.workers
        };
        let best = state.members.iter().filter(free).min_by_key(load)?;
        best.instance.busy.fetch_add(1, Ordering::Relaxed);
        Some(Slot { instance: best.instance.clone(), turn: None, pool: Some(self.clone()) })
    }
}

/// The class whose first waiter is next.
fn next_class(state: &State) -> Option<usize> {
    let heads = state
        .queues
        .iter()
        .enumerate()
        .filter_map(|(class, q)| q.front().map(|w| (class, w.since)));
    if state.grants % FAIRNESS == FAIRNESS - 1 {
        heads.min_by_key(|(_, since)| *since).map(|(class, _)| class)
    } else {
        heads.map(|(class, _)| class).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(n: u16, workers: u16) -> Backend {
        let site = "blog".parse().expect("a name");
        Backend {
            id: InstanceId::of(&site, n),
            socket: format!("/x/{n}").into(),
            workers,
            draining: false,
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    async fn now(pool: &Arc<Pool>, deadline: Instant) -> Result<Slot, Refused> {
        pool.acquire(Class::Visitor, Instant::now(), deadline, None).await
    }

    #[tokio::test]
    async fn an_instance_never_has_more_requests_than_workers() {
        let pool = Arc::new(Pool::default());
        pool.update(&[backend(1, 2), backend(2, 1)], 10);
        let mut slots = Vec::new();
        for _ in 0..3 {
            slots.push(now(&pool, soon()).await.expect("a free worker"));
        }
        assert_eq!(now(&pool, soon()).await.err(), Some(Refused::Late));
        assert_eq!(pool.waiting(), 0);
        assert_eq!(pool.load().iter().map(|l| l.1).collect::<Vec<_>>(), [2, 1]);
        slots.clear();
        assert_eq!(pool.load().iter().map(|l| l.1).sum::<u32>(), 0);
    }

    #[tokio::test]
    async fn classes_go_in_order_and_the_longest_waiting_is_not_forgotten() {
        let pool = Arc::new(Pool::default());
        pool.update(&[backend(1, 1)], 100);
        let first = now(&pool, soon()).await.expect("free");
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for class in
            [Class::Crawler].into_iter().chain([Class::Visitor; 2]).chain([Class::Person; 8])
        {
            let (mine, order) = (pool.clone(), order.clone());
            let waiting = pool.waiting();
            tasks.push(tokio::spawn(async move {
                let slot = mine.acquire(class, Instant::now(), far(), None).await.expect("in time");
                order.lock().push(class);
                drop(slot);
            }));
            while pool.waiting() == waiting {
                tokio::task::yield_now().await;
            }
        }
        drop(first);
        for task in tasks {
            task.await.expect("no panic");
        }
        let order = order.lock();
        assert_eq!(order[..7], [Class::Person; 7]);
        assert_eq!(order[7], Class::Crawler, "the eighth grant is for the longest waiting");
        assert_eq!(order[8..], [Class::Person, Class::Visitor, Class::Visitor]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let pool = Arc::new(Pool::default());
        pool.update(&[backend(1, 1)], 0);
        let _held = now(&pool, soon()).await.expect("free");
        assert_eq!(now(&pool, far()).await.err(), Some(Refused::Full));
    }

    #[tokio::test]
    async fn a_refusing_instance_is_left_alone_and_tried_again() {
        let pool = Arc::new(Pool::default());
        pool.update(&[backend(1, 1)], 10);
        let begun = Instant::now();
        now(&pool, far()).await.expect("free").refused();
        let slot = now(&pool, far()).await.expect("tried again");
        assert!(begun.elapsed() >= DOWN);
        drop(slot);
    }

    #[tokio::test]
    async fn another_instance_is_preferred_after_a_failure() {
        let pool = Arc::new(Pool::default());
        pool.update(&[backend(1, 4), backend(2, 4)], 10);
        let avoid = InstanceId::of(&"blog".parse().expect("a name"), 1);
        for _ in 0..4 {
            let slot = pool
                .acquire(Class::Visitor, Instant::now(), soon(), Some(avoid.clone()))
                .await
                .expect("free");
            assert_eq!(slot.instance.id.as_str(), "blog-2");
            std::mem::forget(slot);
        }
        let slot = pool
            .acquire(Class::Visitor, Instant::now(), soon(), Some(avoid.clone()))
            .await
            .expect("free");
        assert_eq!(slot.instance.id.as_str(), "blog-1", "better than waiting");
    }

    #[tokio::test]
    async fn a_new_snapshot_keeps_the_counts_and_wakes_the_waiting() {
        let pool = Arc::new(Pool::default());
        pool.update(&[backend(1, 1)], 10);
        let held = now(&pool, soon()).await.expect("free");
        let waiting = tokio::spawn({
            let pool = pool.clone();
            async move { now(&pool, far()).await.map(|s| s.instance.id.clone()) }
        });
        while pool.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        pool.update(&[backend(1, 1), backend(2, 1)], 10);
        let id = waiting.await.expect("no panic").expect("woken");
        assert_eq!(id.as_str(), "blog-2");
        assert_eq!(pool.load()[0].1, 1, "the running request is still counted");
        drop(held);
    }
}
