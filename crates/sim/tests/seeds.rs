//! Many histories. `PRESSROOM_SIM_SEEDS` says how many (500), `PRESSROOM_SIM_FIRST` from which seed on.

use std::sync::atomic::{AtomicU64, Ordering};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_history_keeps_what_is_promised() {
    let first = number("PRESSROOM_SIM_FIRST", 0);
    let end = first + number("PRESSROOM_SIM_SEEDS", 500);
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failure = std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end {
                    return None;
                }
                if let Err(failure) = pressroom_sim::run::seed(seed) {
                    next.store(end, Ordering::Relaxed);
                    return Some(failure);
                }
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().filter_map(|it| it.join().expect("a thread")).min_by_key(|it| it.seed)
    });
    if let Some(failure) = failure {
        panic!("{failure}");
    }
}
