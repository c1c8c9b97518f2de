//! What operators and fate do, and when, from a seed alone.

use crate::chance::Chance;

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// A machine loses its power for so many seconds.
    Death(usize, u64),
    /// A zone is cut off from the others for so many seconds.
    Cut(usize, u64),
    /// Nobody reaches the store for so many seconds.
    StoreAway(u64),
    /// The leader's agent ends and begins again.
    LeaderEnds,
    /// A machine's clock jumps by so many milliseconds.
    Clock(usize, i64),
    /// A machine does everything so many times slower, for a while.
    Slow(usize, u64),
    /// A machine hears nothing of the store for so many seconds, though it may write.
    Deaf(usize, u64),
    /// One process of a machine dies.
    ProcessDies(usize),
    /// Operators drain a machine.
    Drain(usize),
    /// Operators let it take part again.
    Undrain(usize),
    /// Operators want another version of a site; every fourth fails its check.
    Deploy(usize),
}

impl Happening {
    /// Whether nothing that runs has a reason to end because of it.
    pub fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::StoreAway(_)
                | Self::LeaderEnds
                | Self::Clock(..)
                | Self::Slow(..)
                | Self::Deaf(..)
        )
    }

    /// Whether operators did it, who may expect that nobody notices.
    pub fn is_planned(self) -> bool {
        matches!(self, Self::Drain(_) | Self::Undrain(_) | Self::Deploy(_))
    }
}

/// What happens in which second.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Machines, in zones a, b, c in turn.
    pub machines: usize,
    /// Fewest instances of each site.
    pub min: [u16; 2],
    /// The second site conflicts with the first.
    pub is_apart: bool,
    /// Everything, in order.
    pub happenings: Vec<(u64, Happening)>,
}

/// Nothing happens before this second.
pub const BEGIN: u64 = 70;
/// The second from which on nothing more happens.
pub const END: u64 = 240;

impl Schedule {
    /// The schedule of a seed. A third of all seeds has harmless happenings alone, a third only what operators do.
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let machines = 1 + chance.below(8) as usize;
        let min = [1 + chance.below(3) as u16, 1 + chance.below(8) as u16];
        let mut happenings = Vec::new();
        let mut second = BEGIN;
        while second < END {
            let happening = happening(&mut chance, machines);
            let fits = match seed % 3 {
                0 => happening.is_harmless(),
                1 => happening.is_planned(),
                _ => true,
            };
            if fits {
                happenings.push((second, happening));
                second += 1 + chance.below(40);
            }
        }
        Self { machines, min, is_apart: seed % 4 == 3, happenings }
    }
}

fn happening(chance: &mut Chance, machines: usize) -> Happening {
    let machine = chance.below(machines as u64) as usize;
    let long = 1 + chance.below(80);
    match chance.below(14) {
        0 | 1 => Happening::Death(machine, long),
        2 => Happening::Cut(chance.below(3) as usize, long),
        3 => Happening::StoreAway(long),
        4 => Happening::LeaderEnds,
        5 => Happening::Clock(machine, chance.below(120_000) as i64 - 60_000),
        6 => Happening::Slow(machine, 2 + chance.below(6)),
        7 => Happening::Deaf(machine, 1 + chance.below(20)),
        8 => Happening::ProcessDies(machine),
        9 | 10 => Happening::Drain(machine),
        11 => Happening::Undrain(machine),
        _ => Happening::Deploy(chance.below(2) as usize),
    }
}
