//! How often a request may be tried at another edge: so that a cluster in trouble is not given its own requests twice. Pure.

use std::time::Instant;

/// A second try costs what so many first ones earn.
const PRICE: f64 = 5.0;
/// So many are there anyway, each second.
const FLOOR: f64 = 3.0;
/// No more than so many are saved up.
const MOST: f64 = 50.0;

/// A fifth of the requests that were given to other edges, and a few a second.
#[derive(Debug)]
pub struct Budget {
    earned: f64,
    at: Instant,
}

impl Budget {
    /// With a second's worth of tries.
    pub fn new(now: Instant) -> Self {
        Self { earned: FLOOR * PRICE, at: now }
    }

    /// A request was given to another edge for the first time.
    pub fn earn(&mut self) {
        self.earned = (self.earned + 1.0).min(MOST * PRICE);
    }

    /// A cut has ended: what visitors are not to be shown any more must be made, wherever it can be.
    pub fn open(&mut self) {
        self.earned = MOST * PRICE;
    }

    /// Whether another one may be tried; takes it from the budget.
    pub fn spend(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        // What time gives is not saved up beyond a second's worth.
        let floor = (self.earned + seconds * FLOOR * PRICE).min(FLOOR * PRICE);
        self.earned = self.earned.max(floor);
        let may = self.earned >= PRICE;
        if may {
            self.earned -= PRICE;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn second_tries_are_a_fifth_of_the_requests_and_a_few_a_second() {
        let now = Instant::now();
        let mut budget = Budget::new(now);
        let spent =
            |budget: &mut Budget, at: Instant| (0..1000).filter(|_| budget.spend(at)).count();
        assert_eq!(spent(&mut budget, now), 3);
        (0..100).for_each(|_| budget.earn());
        assert_eq!(spent(&mut budget, now), 20);
        assert_eq!(spent(&mut budget, now + Duration::from_secs(1)), 3);
        assert_eq!(spent(&mut budget, now + Duration::from_secs(60)), 3, "time saves nothing up");
        (0..1000).for_each(|_| budget.earn());
        assert_eq!(spent(&mut budget, now + Duration::from_secs(60)), 50);
    }
}
