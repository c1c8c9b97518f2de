//! What must hold in every history.

use pressroom_model::id::{NodeName, SiteName};
use pressroom_plan::machine::{Action, Step, instance_process};
use pressroom_plan::voters;

use crate::machine::Machine;
use crate::schedule::{BEGIN, Schedule};
use crate::world::World;

/// A claim that did not hold, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(pub String);

/// The claims that a schedule allows.
#[derive(Debug)]
pub struct Claims {
    is_harmless: bool,
    is_planned: bool,
}

impl Claims {
    /// The claims of a schedule.
    pub fn of(schedule: &Schedule) -> Self {
        let all = || schedule.happenings.iter().map(|(_, happening)| happening);
        Self {
            is_harmless: all().all(|it| it.is_harmless()),
            is_planned: all().all(|it| it.is_planned()),
        }
    }

    /// After every second.
    pub fn check(&self, world: &World) -> Result<(), Broken> {
        for machine in &world.machines {
            one_version(machine, world.second)?;
        }
        // Nothing that moves sites has happened: those that conflict are apart.
        if self.is_harmless
            && world.second >= BEGIN
            && world.is_apart
            && world.machines.len() > 1
            && let Some(both) = world.conflicts().next()
        {
            return Err(Broken(format!("both sites are on {both}, and they conflict")));
        }
        // What operators do is noticed by nobody.
        if self.is_planned && world.second >= BEGIN {
            for site in world.store.sites.keys() {
                let (serving, wanted) = (serving(world, site), world.wanted(site));
                if serving < wanted {
                    return Err(Broken(format!(
                        "{serving} instances of {site} serve, {wanted} did"
                    )));
                }
            }
        }
        Ok(())
    }

    /// A step of a machine: neither an election nor a store that is away ends, or begins, anything.
    pub fn step(&self, second: u64, node: &NodeName, step: &Step) -> Result<(), Broken> {
        let touches = matches!(
            step.action,
            Action::StartInstance(..) | Action::Stop(_) | Action::Kill(_) | Action::Start(_)
        );
        match self.is_harmless && touches && second >= BEGIN {
            true => Err(Broken(format!("{node} touches what is well: {step:?}"))),
            false => Ok(()),
        }
    }

    /// A change of who votes.
    pub fn voters(&self, (had, has): (bool, bool), because: &str) -> Result<(), Broken> {
        match had && !has {
            true => Err(Broken(format!("a change of voters cost the quorum: {because}"))),
            false => Ok(()),
        }
    }

    /// A voter that is well was taken out, and so many are left: whoever rests or is away is no reason to have fewer copies.
    pub fn copies(&self, left: usize, machines: usize, because: &str) -> Result<(), Broken> {
        match left < voters::count(machines) {
            true => Err(Broken(format!("{left} voters are left: {because}"))),
            false => Ok(()),
        }
    }

    /// A site's cron is run once at a time.
    pub fn cron(&self, world: &World) -> Result<(), Broken> {
        for site in world.store.sites.keys() {
            let runs = world.machines.iter().filter(|machine| {
                let run = machine.cron.get(site);
                machine.leads(world.second) && run.is_some_and(|(memory, _)| memory.is_running)
            });
            if runs.count() > 1 {
                return Err(Broken(format!("the cron of {site} is run twice at once")));
            }
        }
        Ok(())
    }
}

/// An edge sends requests of a site to instances of one version.
fn one_version(machine: &Machine, second: u64) -> Result<(), Broken> {
    let Some((pools, since)) = &machine.view else { return Ok(()) };
    for (site, (version, pool)) in pools.iter().filter(|_| *since <= second) {
        for id in pool {
            let process = machine.processes.get(&instance_process(id));
            let other =
                process.filter(|it| it.seen.pid.is_some() && it.seen.fingerprint != *version);
            if let Some(other) = other {
                let (name, seen) = (&machine.name, &other.seen);
                return Err(Broken(format!(
                    "{name} answers for {site} with {version} and {}",
                    seen.fingerprint
                )));
            }
        }
    }
    Ok(())
}

/// Instances that visitors are answered by.
fn serving(world: &World, site: &SiteName) -> u16 {
    let machines = world.machines.iter().filter_map(|machine| {
        let (pools, _) = machine.view.as_ref()?;
        let (version, _) = pools.get(site)?;
        machine.answering(site).get(version).copied()
    });
    machines.sum()
}
