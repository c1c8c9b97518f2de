//! One request explained: from the edge's words to the operator's.

use std::collections::BTreeMap;

use pressroom_api::operator::{TimedStep, Why};
use serde::Deserialize;

/// What the edge's `/why` tells, as far as operators are shown it.
#[derive(Debug, Deserialize)]
pub(crate) struct Told {
    site: Option<String>,
    #[serde(default)]
    target: String,
    key: Option<String>,
    decision: String,
    because: String,
    age: Option<u64>,
    ttl: Option<u64>,
    tags: Option<usize>,
    #[serde(default)]
    instances: BTreeMap<String, (u32, u32)>,
    #[serde(default)]
    waiting: u32,
    #[serde(default)]
    way: Vec<String>,
    executed: Option<Executed>,
}

#[derive(Debug, Deserialize)]
struct Executed {
    status: Option<u16>,
    instance: Option<String>,
    queue_ms: f64,
    php_ms: f64,
    stored: String,
    #[serde(default)]
    tags: Vec<String>,
}

impl Told {
    /// The answer for operators.
    pub(crate) fn into_why(self, url: String) -> Why {
        let mut notes = vec![self.target];
        for (instance, (busy, workers)) in &self.instances {
            notes.push(format!("instance {instance}: {busy} of {workers} workers busy"));
        }
        if self.waiting > 0 {
            notes.push(format!("{} requests wait for a worker", self.waiting));
        }
        if self.way.len() > 1 {
            notes.push(format!("PHP is asked: {}", self.way.join(", then ")));
        }
        notes.extend(self.tags.map(|tags| format!("found by {tags} tags and addresses")));
        notes.extend(
            self.executed.iter().map(|executed| format!("PHP was asked: {}", executed.stored)),
        );
        notes.retain(|note| !note.is_empty());
        let steps = self.executed.iter().flat_map(|executed| {
            [("queue", executed.queue_ms), ("php", executed.php_ms)]
                .map(|(step, ms)| TimedStep { step: step.into(), us: (ms * 1000.0) as u64 })
        });
        let status = match (&self.executed, self.site.is_some()) {
            (Some(executed), _) => executed.status.unwrap_or(502),
            (None, false) => 421,
            (None, true) => 200,
        };
        Why {
            url,
            site: self.site.and_then(|site| site.parse().ok()),
            status,
            // A purged page is not fresh, whatever its time says.
            fresh_for: (self.decision == "hit")
                .then(|| self.ttl.zip(self.age).map(|(ttl, age)| ttl as i64 - age as i64))
                .flatten(),
            cache: self.decision,
            because: self.because,
            key: self.key,
            age: self.age,
            tags: self.executed.iter().flat_map(|executed| executed.tags.clone()).collect(),
            instance: self
                .executed
                .as_ref()
                .and_then(|executed| executed.instance.as_ref()?.parse().ok()),
            request_id: None,
            steps: steps.collect(),
            notes,
        }
    }
}
