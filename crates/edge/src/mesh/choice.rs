//! Where a request for PHP goes: here while the queue is short, then to the least loaded of the other edges, near ones first. Pure.

use pressroom_model::id::NodeName;

/// This node's PHP of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here {
    /// All workers.
    pub workers: u32,
    /// Those with a request.
    pub busy: u32,
    /// Requests that wait for one.
    pub waiting: u32,
}

/// Another edge with PHP of the site.
#[derive(Debug, Clone, PartialEq)]
pub struct There {
    /// The node.
    pub node: NodeName,
    /// Whether it is in our zone.
    pub is_near: bool,
    /// Whether it is asked at all.
    pub is_up: bool,
    /// The share of its capacity that it may have now.
    pub warmth: f64,
    /// Its workers of the site, as it said lately; at least one.
    pub workers: u32,
    /// Those with a request, as it said, or as we know from our own.
    pub busy: u32,
    /// Requests that wait there.
    pub waiting: u32,
}

impl There {
    /// How full it is; below 1 there is a free worker.
    fn load(&self) -> f64 {
        let capacity = f64::from(self.workers.max(1)) * self.warmth.max(0.01);
        f64::from(self.busy + self.waiting) / capacity
    }

    /// Whether a worker is likely to be free.
    pub fn is_free(&self) -> bool {
        self.is_up && self.load() < 1.0
    }
}

/// One place to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// PHP of this node.
    Here,
    /// The edge that owns the page: it has it, or has it made once for all.
    Owner(NodeName),
    /// Another edge, because it has time.
    There(NodeName),
}

impl Place {
    /// The other node.
    pub fn node(self) -> Option<NodeName> {
        match self {
            Self::Here => None,
            Self::Owner(node) | Self::There(node) => Some(node),
        }
    }
}

/// The places to try, the best first. `here` without workers is no place.
pub fn places(here: Here, there: &[There]) -> Vec<Place> {
    let has_php = here.workers > 0;
    let is_short = has_php && here.waiting < here.workers.div_ceil(2).max(1);
    let mut others: Vec<&There> = there.iter().filter(|it| it.is_up || !has_php).collect();
    others.sort_by(|a, b| {
        let key = |it: &There| (!it.is_up, !it.is_free(), it.is_free() && !it.is_near);
        key(a).cmp(&key(b)).then(a.load().total_cmp(&b.load())).then(a.node.cmp(&b.node))
    });
    let free = others.iter().filter(|it| it.is_free()).count();
    let mut places: Vec<Place> = others.iter().map(|it| Place::There(it.node.clone())).collect();
    if has_php {
        places.insert(if is_short { 0 } else { free }, Place::Here);
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(text: &str) -> There {
        // NODE zone busy/workers+waiting [ejected]
        let mut words = text.split(' ');
        let node = words.next().expect("a node").parse().expect("a name");
        let is_near = words.next() == Some("near");
        let (busy, rest) = words.next().and_then(|w| w.split_once('/')).expect("a load");
        let (workers, waiting) = rest.split_once('+').unwrap_or((rest, "0"));
        let number = |text: &str| text.parse().expect("a number");
        There {
            node,
            is_near,
            is_up: words.next().is_none(),
            warmth: 1.0,
            workers: number(workers),
            busy: number(busy),
            waiting: number(waiting),
        }
    }

    #[track_caller]
    fn check(here: (u32, u32, u32), others: &[&str], expected: &str) {
        let (busy, workers, waiting) = here;
        let others: Vec<_> = others.iter().map(|text| there(text)).collect();
        let places = places(Here { workers, busy, waiting }, &others);
        let words: Vec<_> = places
            .iter()
            .map(|place| match place {
                Place::Here => "here",
                Place::Owner(node) | Place::There(node) => node.as_str(),
            })
            .collect();
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn local_workers_come_first_while_their_queue_is_short() {
        check((0, 4, 0), &["n2 near 0/4", "n3 far 0/4"], "here n2 n3");
        check((4, 4, 1), &["n2 near 0/4"], "here n2");
        check((4, 4, 2), &["n2 near 0/4"], "n2 here");
        check((4, 4, 2), &["n2 near 4/4"], "here n2");
    }

    #[test]
    fn then_the_least_loaded_near_one_then_others() {
        let others = ["n2 far 0/4", "n3 near 3/4", "n4 near 1/4", "n5 near 4/4+2", "n6 far 4/4"];
        check((4, 4, 9), &others, "n4 n3 n2 here n6 n5");
        check((0, 0, 0), &others, "n4 n3 n2 n6 n5");
    }

    #[test]
    fn an_ejected_one_is_the_last_resort_of_a_node_without_php() {
        check((4, 4, 9), &["n2 near 0/4 ejected", "n3 far 9/4+9"], "here n3");
        check((0, 0, 0), &["n2 near 0/4 ejected", "n3 far 9/4+9"], "n3 n2");
        check((0, 0, 0), &[], "");
    }

    #[test]
    fn one_that_came_back_lately_gets_less() {
        let mut cold = there("n2 near 1/10");
        cold.warmth = 0.1;
        assert!(!cold.is_free());
        cold.busy = 0;
        assert!(cold.is_free());
    }
}
