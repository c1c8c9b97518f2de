//! Moving a site from one version to another, so that visitors see the one or the other and never a broken one.
//!
//! A *version* is a release with the site's PHP settings, named by its fingerprint. One version serves. Another one that is
//! wanted becomes the *candidate*: one instance of it is started beside the serving ones and checked, then all of them, then
//! every edge is told; when all edges have switched, the former version stays *parked* for a while, so that going back is
//! instant. A candidate that fails anywhere is refused: the serving version was never touched.
//!
//! Always: requests go to instances of one version. A version that is refused is not tried again until operators ask for it.

use pressroom_model::id::{InstanceId, SiteName};
use pressroom_model::rollout::Stage;

use crate::machine::{Action, Observed, Step, instance_process, instances_of};
use crate::supervise::{self, Decision, Seen, Wanted};

/// How long a former version stays parked.
pub const PARKED_MS: u64 = 10 * 60_000;
/// How long a candidate may take for its first instance with its check, and then until all of its instances answer.
pub const PATIENCE_MS: u64 = 120_000;
/// A first instance that ended so often is not started again.
const MOST_EXITS: u32 = 2;

/// A site as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteWanted {
    /// Its name.
    pub name: SiteName,
    /// The version that visitors get; `None`: the site has served nothing yet.
    pub serving: Option<String>,
    /// The version that operators want; `None` until it was prepared and its release built.
    pub wanted: Option<String>,
    /// The version that is on its way.
    pub candidate: Option<Candidate>,
    /// The version that served before.
    pub parked: Option<Parked>,
    /// The version that failed last.
    pub refused: Option<String>,
    /// The author instance, while somebody changes code: one instance of a version of its own, which gets no visitors.
    pub author: Option<String>,
    /// How many instances of it this machine runs.
    pub instances: u16,
    /// Versions whose code is not here, so that nothing of them can be started.
    pub lacking: Vec<String>,
    /// How the candidate stands on the other nodes that serve the site.
    pub others: Vec<Other>,
}

/// How a candidate stands on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Other {
    /// As many of its instances answer there as should.
    pub is_filled: bool,
    /// The edge there sends requests to it.
    pub has_switched: bool,
}

/// A version on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub fingerprint: String,
    /// How far it is.
    pub stage: Stage,
    /// Since when at that stage, milliseconds since 1970.
    pub since_ms: u64,
}

/// A version that served until lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Which.
    pub fingerprint: String,
    /// Until when its instances are kept, milliseconds since 1970.
    pub until_ms: u64,
}

/// A node that is not so far is waited for until then, counted from the stage's begin: it serves through the others.
pub const LAGGARDS_MS: u64 = 30_000;

/// What a machine does for a site when another one decides: it runs the versions that serve or are on their way, once their
/// code is here.
pub fn follow(site: &SiteWanted, observed: &Observed, steps: &mut Vec<Step>) {
    let is_here = |fingerprint: &String| !site.lacking.contains(fingerprint);
    if let Some(serving) = site.serving.as_ref().filter(|it| is_here(it)) {
        maintain(site, serving, site.instances, observed, steps);
    }
    // Its first instance is tried by the node that decides.
    let candidate = site.candidate.as_ref().filter(|it| it.stage != Stage::Canary);
    if let Some(candidate) = candidate.filter(|it| is_here(&it.fingerprint)) {
        maintain(site, &candidate.fingerprint, site.instances, observed, steps);
    }
    leave(site, observed, steps);
}

/// Everything whose time has come for a site that has a database and code.
pub fn steps(site: &SiteWanted, observed: &Observed, steps: &mut Vec<Step>) {
    let Some(serving) = &site.serving else {
        // Nobody can be disturbed yet.
        if site.wanted.is_some() {
            let action = Action::BeginRollout(site.name.clone(), Stage::Switching);
            push(steps, action, "it has served nothing yet");
        }
        return;
    };
    if !site.lacking.contains(serving) {
        maintain(site, serving, site.instances, observed, steps);
    }
    if let Some(author) = &site.author {
        maintain(site, author, 1, observed, steps);
    }
    match &site.candidate {
        Some(candidate) => advance(site, candidate, observed, steps),
        None => begin(site, serving, observed, steps),
    }
    leave(site, observed, steps);
}

fn push(steps: &mut Vec<Step>, action: Action, because: impl Into<String>) {
    steps.push(Step { action, because: because.into() });
}

fn begin(site: &SiteWanted, serving: &str, observed: &Observed, steps: &mut Vec<Step>) {
    if let Some(wanted) = &site.wanted
        && wanted != serving
        && site.refused.as_ref() != Some(wanted)
    {
        let is_parked = site.parked.as_ref().is_some_and(|parked| parked.fingerprint == *wanted);
        // It served until lately: its instances need no check, and perhaps no start.
        let (stage, because) = match is_parked {
            true if is_whole(site, wanted, observed) => (Stage::Switching, "it is parked"),
            true => (Stage::Filling, "it served until lately"),
            false => (Stage::Canary, "its code or its settings changed"),
        };
        push(steps, Action::BeginRollout(site.name.clone(), stage), because);
    }
}

fn advance(site: &SiteWanted, candidate: &Candidate, observed: &Observed, steps: &mut Vec<Step>) {
    let name = &site.name;
    let abandon = |steps: &mut Vec<Step>, because: String| {
        push(steps, Action::AbandonRollout(name.clone()), because);
    };
    if site.wanted.as_ref().is_some_and(|wanted| *wanted != candidate.fingerprint) {
        return abandon(steps, "another version is wanted now".into());
    }
    let own: Vec<_> = of_version(site, &candidate.fingerprint, observed).collect();
    let serving = own.iter().filter(|(_, seen)| is_serving(seen)).count();
    if candidate.stage != Stage::Switching {
        if let Some((id, seen)) = own.iter().find(|(_, seen)| seen.quick_exits >= MOST_EXITS) {
            let last = seen.exit.as_ref().map(supervise::words).unwrap_or_default();
            return abandon(steps, format!("`{id}` ends as soon as it starts: {last}"));
        }
        if observed.now_ms > candidate.since_ms + PATIENCE_MS {
            let words = own.iter().map(|(id, seen)| format!("{id}: {}", seen.because));
            let words = words.collect::<Vec<_>>().join("; ");
            return abandon(
                steps,
                format!("it was not ready in {} s: {words}", PATIENCE_MS / 1000),
            );
        }
    }
    let wanted = usize::from(site.instances);
    let is_late = observed.now_ms > candidate.since_ms + LAGGARDS_MS;
    let are_filled = is_late || site.others.iter().all(|other| other.is_filled);
    let have_switched = is_late || site.others.iter().all(|other| other.has_switched);
    match candidate.stage {
        Stage::Canary if serving == 0 => maintain(site, &candidate.fingerprint, 1, observed, steps),
        Stage::Canary => {
            push(steps, Action::CheckCandidate(name.clone()), "its first instance answers");
            // They get no requests before the first one has stood its check; then nobody need wait for them.
            maintain(site, &candidate.fingerprint, site.instances, observed, steps);
        }
        Stage::Filling if serving >= wanted && are_filled => {
            push(steps, Action::Switch(name.clone()), format!("{serving} instances answer"));
        }
        Stage::Filling => maintain(site, &candidate.fingerprint, site.instances, observed, steps),
        Stage::Switching => {
            maintain(site, &candidate.fingerprint, site.instances, observed, steps);
            let view = &observed.view;
            if view.is_served && view.published.as_ref() == Some(&view.wanted) && have_switched {
                push(steps, Action::FinishRollout(name.clone()), "every edge has switched");
            }
        }
    }
}

/// Keeps `count` instances of a version running. One that is tired goes when another one answers in its place, and only one
/// at a time: there are never fewer than `count`, and never more than one too many.
fn maintain(
    site: &SiteWanted,
    fingerprint: &str,
    count: u16,
    observed: &Observed,
    steps: &mut Vec<Step>,
) {
    let start = |id: &InstanceId| Action::StartInstance(id.clone(), fingerprint.to_owned());
    let mut kept: Vec<_> =
        of_version(site, fingerprint, observed).filter(|(_, seen)| !seen.is_stopping).collect();
    // Those that run stay, those that have answered for longest before all: they are warm. One that was killed and replaced
    // meanwhile is not started again.
    kept.sort_by_key(|(_, seen)| (seen.pid.is_none(), !is_serving(seen), seen.since_ms));
    let tired = kept.iter().position(|(_, seen)| seen.tired.is_some() && seen.pid.is_some());
    let tired = tired.map(|at| kept.remove(at));
    for (id, seen) in kept.iter().take(usize::from(count)) {
        let wanted = Wanted { name: instance_process(id), fingerprint: fingerprint.to_owned() };
        match supervise::decide(&wanted, Some(seen), observed.now_ms) {
            Decision::Leave | Decision::Wait(_) => {}
            Decision::Start(because) => push(steps, start(id), because),
            Decision::Stop(because) => push(steps, Action::Stop(wanted.name), because),
            Decision::Kill(because) => push(steps, Action::Kill(wanted.name), because),
        }
    }
    for (id, seen) in kept.iter().skip(usize::from(count)) {
        let action = match seen.pid {
            Some(_) => Action::Stop(instance_process(id)),
            None => Action::Forget(instance_process(id)),
        };
        push(steps, action, format!("{count} are enough"));
    }
    if let Some((id, seen)) = &tired {
        let others = kept.iter().filter(|(_, seen)| is_serving(seen)).count();
        if others >= usize::from(count) {
            let because = seen.tired.clone().unwrap_or_default();
            push(steps, Action::Stop(instance_process(id)), because);
        }
    }
    let missing = usize::from(count).saturating_sub(kept.len());
    let mut taken: Vec<InstanceId> = instances_of(&site.name, observed).map(|(id, _)| id).collect();
    // Another version may be given its instances by the same decision.
    taken.extend(steps.iter().filter_map(|step| match &step.action {
        Action::StartInstance(id, _) => Some(id.clone()),
        _ => None,
    }));
    let free = (1..).map(|n| InstanceId::of(&site.name, n)).filter(|id| !taken.contains(id));
    for id in free.take(missing) {
        let because = match &tired {
            Some((tired, seen)) => {
                format!("`{tired}` is replaced: {}", seen.tired.as_deref().unwrap_or_default())
            }
            None => format!("{count} are wanted, {} run", kept.len()),
        };
        push(steps, start(&id), because);
    }
}

/// Instances of versions that get no more requests: the parked one's stay for a while, others stop once they have none.
fn leave(site: &SiteWanted, observed: &Observed, steps: &mut Vec<Step>) {
    let stays = |fingerprint: &str| {
        site.serving.as_deref() == Some(fingerprint)
            || site.author.as_deref() == Some(fingerprint)
            || site.candidate.as_ref().is_some_and(|candidate| candidate.fingerprint == fingerprint)
            // Where nothing of the site is to run, nothing is kept for a way back.
            || site.instances > 0
                && site.parked.as_ref().is_some_and(|parked| {
                    parked.fingerprint == fingerprint && observed.now_ms < parked.until_ms
                })
    };
    for (id, seen) in instances_of(&site.name, observed) {
        let name = instance_process(&id);
        match seen.pid {
            // A dead one of the parked version is not started again, and its number is free.
            None if stays(&seen.fingerprint) && !is_parked(site, &seen.fingerprint) => {}
            None => push(steps, Action::Forget(name), "it was replaced"),
            Some(_) if stays(&seen.fingerprint) || seen.is_stopping => {}
            // php-fpm finishes the requests that it has.
            Some(_) => push(steps, Action::Stop(name), "it was replaced"),
        }
    }
}

fn is_parked(site: &SiteWanted, fingerprint: &str) -> bool {
    site.serving.as_deref() != Some(fingerprint)
        && site.author.as_deref() != Some(fingerprint)
        && site.candidate.as_ref().is_none_or(|candidate| candidate.fingerprint != fingerprint)
}

/// Whether all instances of a version run and answer.
fn is_whole(site: &SiteWanted, fingerprint: &str, observed: &Observed) -> bool {
    let serving = of_version(site, fingerprint, observed).filter(|(_, seen)| is_serving(seen));
    serving.count() >= usize::from(site.instances)
}

/// The version that requests are sent to, and its instances.
pub fn pool(site: &SiteWanted, observed: &Observed) -> Option<(String, Vec<InstanceId>)> {
    let switching = site.candidate.as_ref().filter(|candidate| candidate.stage == Stage::Switching);
    let version = switching.map(|candidate| &candidate.fingerprint).or(site.serving.as_ref())?;
    // One that is ill or just starting stays: the edge sees for itself, and a pool is better full than empty.
    let instances = of_version(site, version, observed)
        .filter(|(_, seen)| !seen.is_stopping)
        .map(|(id, _)| id)
        .collect();
    Some((version.clone(), instances))
}

fn of_version<'a>(
    site: &'a SiteWanted,
    fingerprint: &'a str,
    observed: &'a Observed,
) -> impl Iterator<Item = (InstanceId, &'a Seen)> {
    instances_of(&site.name, observed).filter(move |(_, seen)| seen.fingerprint == fingerprint)
}

fn is_serving(seen: &Seen) -> bool {
    seen.pid.is_some() && !seen.is_stopping && seen.health.is_serving()
}

#[cfg(test)]
mod tests;
