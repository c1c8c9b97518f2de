//! Single flight: of all who ask for an absent page, on whatever core, one renders and the others wait.
//!
//! A flight is led by at most one request. When its leader vanishes, the next who waits leads. When its answer may not
//! be stored it is not shown to anybody else: all who wait render by themselves, and so does everybody for a while
//! (*pass*), so that pages which are never stored are not rendered one after the other. When a refresh fails the stale
//! page is served on, and the next try waits (*rest*), longer each time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Millis;
use super::memory::ByHash;
use super::page::Page;

const SHARDS: usize = 64;
/// A shard with more slots than this drops those whose time is over.
const CROWDED: usize = 512;
/// Failures after which those who wait no longer try one after the other.
const PATIENCE: u32 = 2;

const PASS_FIRST: Millis = 10_000;
const PASS_MOST: Millis = 120_000;
const REST_FIRST: Millis = 1_000;
const REST_MOST: Millis = 60_000;

/// All flights, and what is remembered of former ones.
#[derive(Debug)]
pub(super) struct Flights {
    shards: Box<[Mutex<HashMap<u64, Slot, ByHash>>]>,
}

#[derive(Debug)]
enum Slot {
    Flying(Arc<Flight>),
    Pass { until: Millis, times: u32 },
    Rest { until: Millis, times: u32 },
}

/// One flight.
#[derive(Debug)]
pub(super) struct Flight {
    state: Mutex<State>,
    changed: Notify,
    abroad: AtomicBool,
}

#[derive(Debug)]
struct State {
    led: bool,
    waiting: usize,
    failures: u32,
    refusals: u32,
    landed: Option<Landing>,
}

/// How a flight ended for those who wait.
#[derive(Debug, Clone)]
pub(super) enum Landing {
    /// This page was stored.
    Stored(Arc<Page>),
    /// Render by yourselves.
    Pass,
    /// Use the stale page that you know.
    Failed,
}

/// How a leader's render ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// This page was stored.
    Stored(Arc<Page>),
    /// It may not be stored.
    Refused,
    /// It failed, and a stale page can be served on.
    FailedWithFallback,
    /// It failed, and there is nothing to serve.
    Failed,
    /// The leader went away.
    Vanished,
}

/// The part that a request plays.
#[derive(Debug)]
pub(super) enum Part {
    /// It renders, for all.
    Lead(Arc<Flight>),
    /// It waits.
    Follow(Arc<Flight>),
    /// It renders by itself.
    Pass,
    /// The last try failed a moment ago.
    Rest,
}

impl Flights {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, hash: u64) -> &Mutex<HashMap<u64, Slot, ByHash>> {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// Takes a part in the flight of a key. A follower must [`Self::leave`].
    pub(super) fn join(&self, hash: u64, now: Millis) -> Part {
        let mut shard = self.shard(hash).lock();
        if shard.len() > CROWDED {
            shard.retain(|_, slot| match slot {
                Slot::Flying(_) => true,
                Slot::Pass { until, .. } | Slot::Rest { until, .. } => *until + PASS_MOST > now,
            });
        }
        let (failures, refusals) = match shard.get(&hash) {
            Some(Slot::Flying(flight)) => return flight.join(),
            // A clock that stepped back must not make these last.
            Some(Slot::Pass { until, .. }) if now < *until && until - now <= PASS_MOST => {
                return Part::Pass;
            }
            Some(Slot::Rest { until, .. }) if now < *until && until - now <= REST_MOST => {
                return Part::Rest;
            }
            Some(Slot::Pass { times, .. }) => (0, *times),
            Some(Slot::Rest { times, .. }) => (*times, 0),
            None => (0, 0),
        };
        let state = State { led: true, waiting: 0, failures, refusals, landed: None };
        let flight = Arc::new(Flight {
            state: Mutex::new(state),
            changed: Notify::new(),
            abroad: AtomicBool::new(false),
        });
        shard.insert(hash, Slot::Flying(Arc::clone(&flight)));
        Part::Lead(flight)
    }

    /// Ends a leader's part.
    pub(super) fn end(&self, hash: u64, flight: &Arc<Flight>, ending: Ending, now: Millis) {
        let mut shard = self.shard(hash).lock();
        let mut state = flight.state.lock();
        state.led = false;
        let slot = match ending {
            Ending::Stored(page) => {
                state.landed = Some(Landing::Stored(page));
                None
            }
            Ending::Refused => {
                state.landed = Some(Landing::Pass);
                Some(pass(now, state.refusals))
            }
            Ending::FailedWithFallback => {
                state.landed = Some(Landing::Failed);
                let pause = (REST_FIRST << state.failures.min(6)).min(REST_MOST);
                Some(Slot::Rest { until: now + pause, times: state.failures + 1 })
            }
            Ending::Failed if state.failures + 1 >= PATIENCE && state.waiting > 0 => {
                state.landed = Some(Landing::Pass);
                None
            }
            Ending::Failed | Ending::Vanished => {
                state.failures += u32::from(matches!(ending, Ending::Failed));
                if state.waiting > 0 {
                    flight.changed.notify_one();
                    return;
                }
                None
            }
        };
        flight.changed.notify_waiters();
        if is_flying(&shard, hash, flight) {
            match slot {
                Some(slot) => shard.insert(hash, slot),
                None => shard.remove(&hash),
            };
        }
    }

    /// Forgets that a key was passed: somebody could store it.
    pub(super) fn clear_pass(&self, hash: u64) {
        let mut shard = self.shard(hash).lock();
        if matches!(shard.get(&hash), Some(Slot::Pass { .. })) {
            shard.remove(&hash);
        }
    }

    /// Forgets failures of these keys, or of all: what they show has changed, so the next request tries at once.
    pub(super) fn rouse(&self, keys: Option<&[u64]>) {
        let is_rest = |slot: &Slot| matches!(slot, Slot::Rest { .. });
        match keys {
            None => {
                self.shards.iter().for_each(|shard| shard.lock().retain(|_, slot| !is_rest(slot)));
            }
            Some(keys) => {
                for key in keys {
                    let mut shard = self.shard(*key).lock();
                    if shard.get(key).is_some_and(is_rest) {
                        shard.remove(key);
                    }
                }
            }
        }
    }

    /// Waits until the flight has landed, or has no leader any more and this one leads.
    pub(super) async fn wait(&self, flight: &Arc<Flight>) -> Option<Landing> {
        loop {
            let changed = flight.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = flight.state.lock();
                if let Some(landing) = &state.landed {
                    return Some(landing.clone());
                }
                if !state.led {
                    state.led = true;
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Ends a follower's wait, however it ended.
    pub(super) fn leave(&self, hash: u64, flight: &Arc<Flight>) {
        let mut shard = self.shard(hash).lock();
        let mut state = flight.state.lock();
        state.waiting -= 1;
        let deserted = state.waiting == 0 && !state.led && state.landed.is_none();
        if deserted && is_flying(&shard, hash, flight) {
            shard.remove(&hash);
        } else if !state.led && state.landed.is_none() {
            flight.changed.notify_one();
        }
    }
}

fn pass(now: Millis, times: u32) -> Slot {
    Slot::Pass { until: now + (PASS_FIRST << times.min(6)).min(PASS_MOST), times: times + 1 }
}

fn is_flying(shard: &HashMap<u64, Slot, ByHash>, hash: u64, flight: &Arc<Flight>) -> bool {
    matches!(shard.get(&hash), Some(Slot::Flying(flying)) if Arc::ptr_eq(flying, flight))
}

impl Flight {
    /// Notes whether its leader waits for another edge's flight.
    pub(super) fn abroad(&self, is_abroad: bool) {
        self.abroad.store(is_abroad, Ordering::Release);
    }

    /// Whether its leader waits for another edge's flight: that edge must not wait for this one, or nobody would ever land.
    pub(super) fn is_abroad(&self) -> bool {
        self.abroad.load(Ordering::Acquire)
    }

    fn join(self: &Arc<Self>) -> Part {
        let mut state = self.state.lock();
        if state.led {
            state.waiting += 1;
            Part::Follow(Arc::clone(self))
        } else {
            state.led = true;
            Part::Lead(Arc::clone(self))
        }
    }
}
