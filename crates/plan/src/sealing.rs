//! Replacing the key that the secrets in the store are sealed with, one step at a time.
//!
//! The store says which key seals (by its name, never the key itself), whether another one is wanted, and whether everything is
//! sealed with it. Whoever leads makes a key, hands it to the others, names it in the store, and seals anew; all others get what they
//! lack from each other. A step that was interrupted anywhere is found and gone on with by whoever leads next.
//!
//! Missing on purpose: forgetting former keys. Copies of the state from before can be opened with them alone.

use pressroom_model::cluster::Sealing;

/// What one node sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen<'a> {
    /// It leads.
    pub leads: bool,
    /// What the store says.
    pub stored: Option<&'a Sealing>,
    /// The key with which this node seals.
    pub current: Option<&'a str>,
    /// It has the key that the store names.
    pub has_stored: bool,
    /// All others were asked for the key that the store names, and none has it.
    pub in_vain: bool,
}

/// What it should do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Say in the store which key seals.
    Name,
    /// Make a key, hand it out, and name it in the store.
    Make,
    /// Ask the others for the key that the store names.
    Ask,
    /// Seal with the key that the store names.
    Use,
    /// Seal with it what is not yet.
    SealAnew,
}

/// The next step; `None`: all is as it should be.
pub fn step(seen: &Seen<'_>) -> Option<Step> {
    let Some(stored) = seen.stored else {
        let first = if seen.current.is_some() { Step::Name } else { Step::Make };
        return seen.leads.then_some(first);
    };
    match () {
        // What is sealed with a lost key is on the leader's own disk as well.
        () if !seen.has_stored && seen.leads && seen.in_vain => Some(Step::Make),
        () if !seen.has_stored => Some(Step::Ask),
        () if seen.leads && stored.wants_another => Some(Step::Make),
        () if seen.current != Some(stored.key.as_str()) => Some(Step::Use),
        () => (seen.leads && !stored.is_done).then_some(Step::SealAnew),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster with keys `0`, `1`, … on its nodes, and what the store has.
    struct House {
        nodes: Vec<(Option<u8>, Vec<u8>)>,
        stored: Option<Sealing>,
        /// The key with which the only secret is sealed.
        secret: u8,
        next: u8,
    }

    impl House {
        fn key(&self) -> Option<u8> {
            self.stored.as_ref().and_then(|stored| stored.key.parse().ok())
        }

        fn step(&self, node: usize, leader: usize, up: &[bool]) -> Option<Step> {
            let (current, known) = &self.nodes[node];
            let current = current.map(|key| key.to_string());
            let named = self.key();
            let has = |known: &[u8]| named.is_some_and(|key| known.contains(&key));
            let somebody = self.nodes.iter().zip(up).any(|((_, known), up)| *up && has(known));
            step(&Seen {
                leads: node == leader,
                stored: self.stored.as_ref(),
                current: current.as_deref(),
                has_stored: has(known),
                in_vain: !somebody,
            })
        }

        /// Does a step, of which only so many parts are done before the node dies.
        fn act(&mut self, node: usize, step: Step, parts: u8, up: &[bool]) {
            let named = self.key();
            match step {
                Step::Name => {
                    let key = self.nodes[node].0.expect("it has one").to_string();
                    self.stored = Some(Sealing { key, wants_another: false, is_done: false });
                }
                Step::Make => {
                    let fresh = self.next;
                    self.next += 1;
                    let reached = up.iter().enumerate().filter(|(at, up)| **up && *at != node);
                    let reached: Vec<usize> = reached.map(|(at, _)| at).collect();
                    let all = [vec![node], reached].concat();
                    for at in all.iter().take(usize::from(parts)) {
                        self.nodes[*at].1.push(fresh);
                    }
                    if usize::from(parts) > all.len() {
                        let key = fresh.to_string();
                        self.stored = Some(Sealing { key, wants_another: false, is_done: false });
                    }
                }
                Step::Ask => {
                    let named = named.expect("it asks for one");
                    let has = self.nodes.iter().zip(up);
                    if has.into_iter().any(|((_, known), up)| *up && known.contains(&named)) {
                        self.nodes[node].1.push(named);
                    }
                }
                Step::Use => self.nodes[node].0 = named,
                Step::SealAnew => {
                    assert!(self.nodes[node].1.contains(&named.expect("named")));
                    self.secret = named.expect("named");
                    if parts > 1 {
                        self.stored.as_mut().expect("named").is_done = true;
                    }
                }
            }
        }
    }

    /// Small and repeatable.
    fn random(state: &mut u64, below: u64) -> u64 {
        *state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below
    }

    #[test]
    fn whoever_dies_wherever_all_nodes_end_with_the_new_key() {
        for seed in 0..3000u64 {
            let mut state = seed;
            let mut house =
                House { nodes: vec![(Some(0), vec![0]); 3], stored: None, secret: 0, next: 1 };
            for turn in 0..60 {
                // Some are away, others lead, and now and then another key is wanted.
                let up: Vec<bool> = (0..3).map(|_| random(&mut state, 4) > 0).collect();
                let leader = random(&mut state, 3) as usize;
                if turn % 20 == 7
                    && let Some(stored) = &mut house.stored
                {
                    stored.wants_another = true;
                }
                for node in (0..3).filter(|node| up[*node]) {
                    if let Some(step) = house.step(node, leader, &up) {
                        let parts = random(&mut state, 6) as u8;
                        house.act(node, step, parts, &up);
                    }
                }
            }
            let wanted = house.stored.as_ref().is_some_and(|stored| stored.wants_another);
            let before = house.key();
            for _ in 0..20 {
                for node in 0..3 {
                    if let Some(step) = house.step(node, 0, &[true; 3]) {
                        house.act(node, step, u8::MAX, &[true; 3]);
                    }
                }
            }
            let key = house.key().expect("named");
            assert!(!wanted || Some(key) != before, "seed {seed}: no other key");
            assert_eq!(house.secret, key, "seed {seed}");
            for (current, known) in &house.nodes {
                assert_eq!(*current, Some(key), "seed {seed}");
                assert!(known.contains(&key), "seed {seed}");
            }
        }
    }
}
