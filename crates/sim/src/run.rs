//! One seed, from the first second to the last, and the shortest history of a seed that fails.

use crate::claims::{Broken, Claims};
use crate::schedule::{END, Happening, Schedule};
use crate::world::World;

/// Everything must be well so many seconds after the last happening.
const PATIENCE: u64 = 400;
/// And stay so for so many, by then.
const CALM: u64 = 20;

/// A history that broke a claim.
#[derive(Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// Which claim.
    pub broken: Broken,
    /// With so few happenings it still fails.
    pub schedule: Schedule,
    /// What happened and was done.
    pub history: Vec<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { seed, broken, schedule, history } = self;
        writeln!(f, "seed {seed}: {}", broken.0)?;
        writeln!(
            f,
            "{} machines, min {:?}, {}, {:?}",
            schedule.machines,
            schedule.min,
            if schedule.is_apart { "apart" } else { "together" },
            schedule.happenings
        )?;
        history.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Runs a seed.
pub fn seed(seed: u64) -> Result<(), Box<Failure>> {
    let schedule = Schedule::of(seed);
    run(seed, &schedule, false).map_err(|failure| shortest(seed, &schedule).unwrap_or(failure))
}

/// The failure that needs the fewest happenings, from the first on.
fn shortest(seed: u64, schedule: &Schedule) -> Option<Box<Failure>> {
    (0..=schedule.happenings.len()).find_map(|count| {
        let happenings = schedule.happenings.iter().take(count).copied().collect();
        run(seed, &Schedule { happenings, ..schedule.clone() }, true).err()
    })
}

fn run(seed: u64, schedule: &Schedule, is_told: bool) -> Result<(), Box<Failure>> {
    let mut world = World::new(schedule, seed);
    world.is_told = is_told;
    live(&mut world, schedule).map_err(|broken| {
        let (schedule, history) = (schedule.clone(), world.history);
        Box::new(Failure { seed, broken, schedule, history })
    })
}

fn live(world: &mut World, schedule: &Schedule) -> Result<(), Broken> {
    let mut claims = Claims::of(schedule);
    let mut left = schedule.happenings.as_slice();
    while world.second < END {
        let due = left.iter().take_while(|(second, _)| *second <= world.second + 1).count();
        let (now, later) = left.split_at(due);
        left = later;
        let now: Vec<Happening> = now.iter().map(|(_, happening)| *happening).collect();
        world.pass(&now, &mut claims)?;
    }
    world.calm();
    let mut well_since = None;
    while well_since.is_none_or(|since| world.second < since + CALM) {
        world.pass(&[], &mut claims)?;
        well_since = match world.lacks() {
            None => well_since.or(Some(world.second)),
            // A moment may look well before the next step is due.
            Some(_) if world.second <= END + PATIENCE => None,
            Some(lacks) => return Err(Broken(format!("it never becomes well: {lacks}"))),
        };
    }
    Ok(())
}
