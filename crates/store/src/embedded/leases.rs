//! Who is late. Deadlines are kept in memory on the monotonic clock; the file knows only how long each lease lasts.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pressroom_runtime::clock;
use pressroom_runtime::shutdown::Shutdown;
use tokio::sync::Notify;

use super::{Inner, blocking};
use crate::{LeaseId, StoreError};

/// The running leases.
pub(super) struct Leases {
    running: Mutex<BTreeMap<LeaseId, Running>>,
    changed: Notify,
}

struct Running {
    ttl: Duration,
    deadline: Instant,
    is_ending: bool,
}

/// Which leases may be ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// This one, whatever its deadline.
    Now,
    /// Only if it is late.
    Late,
}

impl Leases {
    /// Gives leases from the file their full time.
    pub(super) fn new(known: Vec<(LeaseId, Duration)>) -> Self {
        let running = known.into_iter().map(|(id, ttl)| (id, Running::new(ttl))).collect();
        Self { running: Mutex::new(running), changed: Notify::new() }
    }

    pub(super) fn add(&self, id: LeaseId, ttl: Duration) {
        self.running.lock().insert(id, Running::new(ttl));
        self.changed.notify_one();
    }

    /// Wakes [`expire`] to look again.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    pub(super) fn renew(&self, id: LeaseId) -> Result<(), StoreError> {
        let now = clock::now();
        match self
            .running
            .lock()
            .get_mut(&id)
            .filter(|lease| now < lease.deadline && !lease.is_ending)
        {
            Some(lease) => {
                lease.deadline = now + lease.ttl;
                Ok(())
            }
            None => Err(StoreError::LeaseGone(id)),
        }
    }

    /// The time that is left; `None`: it is gone.
    pub(super) fn rest(&self, id: LeaseId) -> Option<Duration> {
        let now = clock::now();
        let running = self.running.lock();
        let lease = running.get(&id).filter(|lease| now < lease.deadline && !lease.is_ending)?;
        Some(lease.deadline - now)
    }

    /// Marks a lease as ending if it may be ended; nobody can renew it from then on.
    pub(super) fn take(&self, id: LeaseId, when: When) -> bool {
        let mut running = self.running.lock();
        match running.get_mut(&id) {
            Some(lease) => {
                lease.is_ending |= when == When::Now || lease.deadline <= clock::now();
                lease.is_ending
            }
            None => false,
        }
    }

    /// Forgets a lease that is no longer in the file.
    pub(super) fn forget(&self, id: LeaseId) {
        self.running.lock().remove(&id);
    }

    /// Those that are late, and when the next will be.
    fn late(&self, now: Instant) -> (Vec<LeaseId>, Option<Instant>) {
        let running = self.running.lock();
        let late = running
            .iter()
            .filter(|(_, l)| l.deadline <= now || l.is_ending)
            .map(|(id, _)| *id)
            .collect();
        (late, running.values().map(|l| l.deadline).filter(|deadline| *deadline > now).min())
    }
}

impl Running {
    fn new(ttl: Duration) -> Self {
        Self { ttl, deadline: clock::now() + ttl, is_ending: false }
    }
}

/// How soon a lease that could not be ended (a full disk) is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Ends leases that are late, until the store is gone or the process stops.
pub(super) async fn expire(leases: Arc<Leases>, store: Weak<Inner>, shutdown: Shutdown) {
    loop {
        let (late, next) = leases.late(clock::now());
        let mut again = None;
        for id in late {
            let Some(inner) = store.upgrade() else { return };
            let ended =
                blocking(move || inner.end_lease(id, When::Late)).await.and_then(|ended| ended);
            if let Err(error) = ended {
                tracing::warn!(lease = id.0, %error, "a late lease could not be ended; trying again");
                again = Some(clock::now() + AGAIN);
            }
        }
        let wake = again.or(next);
        let due = async {
            match wake {
                Some(wake) => tokio::time::sleep_until(wake.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.requested() => return,
            () = leases.changed.notified() => {}
            () = due => {}
        }
        if store.strong_count() == 0 {
            return;
        }
    }
}
