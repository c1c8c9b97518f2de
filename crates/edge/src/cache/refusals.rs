//! Why answers were not stored lately, by key, for `pressroom why`. Bounded: the oldest are forgotten.

use std::collections::{HashMap, VecDeque};

use super::Millis;
use super::memory::ByHash;
use super::storable::Refusal;

const REMEMBERED: usize = 2048;

/// The last refusal of each key.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by_key: HashMap<u64, (Refusal, Millis), ByHash>,
    order: VecDeque<u64>,
}

impl Refusals {
    /// Notes a refusal.
    pub(super) fn note(&mut self, key: u64, refusal: &Refusal, now: Millis) {
        if self.by_key.insert(key, (refusal.clone(), now)).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }

    /// The last refusal of a key.
    pub(super) fn get(&self, key: u64) -> Option<(Refusal, Millis)> {
        self.by_key.get(&key).cloned()
    }
}
