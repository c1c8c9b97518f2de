//! When an instance is replaced although nothing is wrong with it: after some time, so that whatever has crept into its memory or
//! its view of the files goes; and at once when something was found that has no business there.
//!
//! Instances that were started together are not replaced together: each lives up to a tenth longer, by its name.

use pressroom_model::id::InstanceId;

/// Why it is time, for an instance that has run since `started_ms`. `most_ms`: the longest life; 0: no end.
pub fn because_of_age(
    id: &InstanceId,
    started_ms: u64,
    most_ms: u64,
    now_ms: u64,
) -> Option<String> {
    if most_ms == 0 {
        return None;
    }
    let age_ms = now_ms.saturating_sub(started_ms);
    (age_ms > most_ms + longer(id, started_ms, most_ms / 10))
        .then(|| format!("it has run for {} h", age_ms / 3_600_000))
}

/// A number below `most` that depends on the instance and its start only (FNV-1a).
fn longer(id: &InstanceId, started_ms: u64, most: u64) -> u64 {
    let bytes = id.as_str().bytes().chain(started_ms.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    if most == 0 { 0 } else { hash % most }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    fn id(n: u16) -> InstanceId {
        InstanceId::of(&"blog".parse().expect("a good name"), n)
    }

    #[test]
    fn an_instance_lives_as_long_as_it_may_and_a_tenth_longer_at_most() {
        for n in 1..50 {
            assert_eq!(because_of_age(&id(n), 1000, DAY, 1000 + DAY), None);
            assert!(because_of_age(&id(n), 1000, DAY, 1001 + DAY + DAY / 10).is_some());
        }
        assert_eq!(because_of_age(&id(1), 0, 0, u64::MAX), None, "0 is no end");
    }

    #[test]
    fn those_that_were_started_together_do_not_go_together() {
        let late: Vec<u64> = (1..20).map(|n| longer(&id(n), 1000, DAY / 10)).collect();
        let mut sorted = late.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), late.len());
    }
}
