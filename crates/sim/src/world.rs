//! All machines and their store, second by second.

use std::collections::BTreeMap;
use std::sync::Arc;

use pressroom_model::id::{NodeName, SiteName};
use pressroom_model::placement::Rules;
use pressroom_model::rollout::Stage;
use pressroom_plan::machine::{Action, Step};
use pressroom_plan::rollout::{Candidate, PARKED_MS, Parked};
use pressroom_plan::voters::{self, Member};
use pressroom_plan::{cron, placement, rest};

use crate::chance::Chance;
use crate::claims::{Broken, Claims};
use crate::machine::Machine;
use crate::schedule::{END, Happening, Schedule};
use crate::store::{Facts, OFFICE, PRESENCE, Stored};

/// Seconds after which a machine that was not heard counts as lost, as agents count.
const LOST: u64 = 45;
/// Most instances of a site.
pub const MOST: u16 = 8;
/// How often a site's cron has something to do, and how long that takes, seconds.
const CRON: (u64, u64) = (20, 5);

/// Everything.
pub struct World {
    /// The second that it is.
    pub second: u64,
    /// The machines.
    pub machines: Vec<Machine>,
    /// What is stored.
    pub store: Arc<Stored>,
    /// Fewest instances by site.
    pub min: BTreeMap<SiteName, u16>,
    /// The second site conflicts with the first.
    pub is_apart: bool,
    /// Whether the history is kept, which takes most of the time.
    pub is_told: bool,
    /// What happened and was done, for people.
    pub history: Vec<String>,
    cut: (usize, u64),
    away_until: u64,
    office: (u64, u64),
    present: BTreeMap<NodeName, u64>,
    silent: BTreeMap<NodeName, u64>,
    ill: BTreeMap<u64, u64>,
    heard: BTreeMap<NodeName, u64>,
    deploys: u64,
    chance: Chance,
}

impl World {
    /// A world before its first second.
    pub fn new(schedule: &Schedule, seed: u64) -> Self {
        let mut store = Stored::default();
        let mut min = BTreeMap::new();
        for (name, fewest) in ["blog", "shop"].into_iter().zip(schedule.min) {
            let name: SiteName = name.parse().expect("a good name");
            let facts = Facts { wanted: "v1".into(), serving: "v1".into(), ..Facts::default() };
            store.sites.insert(name.clone(), facts);
            min.insert(name, fewest);
        }
        let name = |n: usize| format!("n{}", n + 1).parse::<NodeName>().expect("a good name");
        store.members = vec![member(1, name(0))];
        let store = Arc::new(store);
        let machines = 0..schedule.machines;
        Self {
            second: 0,
            machines: machines.map(|n| Machine::new(name(n), n % 3, Arc::clone(&store))).collect(),
            store,
            min,
            is_apart: schedule.is_apart,
            is_told: false,
            history: Vec::new(),
            cut: (0, 0),
            away_until: 0,
            office: (0, 0),
            present: BTreeMap::new(),
            silent: BTreeMap::new(),
            ill: BTreeMap::new(),
            heard: BTreeMap::new(),
            deploys: 1,
            chance: Chance::new(seed ^ 0x5eed),
        }
    }

    fn tell(&mut self, text: impl std::fmt::Display) {
        if !self.is_told {
            return;
        }
        self.history.push(format!("{:4} s  {text}", self.second));
    }

    /// One second, with what happens in it.
    pub fn pass(&mut self, happenings: &[Happening], claims: &mut Claims) -> Result<(), Broken> {
        self.second += 1;
        for happening in happenings {
            self.tell(format_args!("{happening:?}"));
            self.happen(*happening);
        }
        self.expire();
        for at in 0..self.machines.len() {
            if self.machines[at].is_up(self.second) {
                self.machine(at, claims)?;
            }
        }
        claims.check(self)
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.second;
        let name = |at: usize| self.machines[at].name.clone();
        match happening {
            Happening::Death(at, long) => {
                self.machines[at].dark_until = now + long;
                self.machines[at].lose_power();
            }
            Happening::Cut(zone, long) => self.cut = (zone, now + long),
            Happening::StoreAway(long) => self.away_until = now + long,
            Happening::LeaderEnds => {
                self.machines.iter_mut().for_each(|machine| machine.office = None);
                Arc::make_mut(&mut self.store).leader = None;
            }
            Happening::Clock(at, by_ms) => self.machines[at].clock_ms = by_ms,
            Happening::Slow(at, times) => self.machines[at].slow = (times, now + 60),
            Happening::Deaf(at, long) => self.machines[at].deaf_until = now + long,
            Happening::ProcessDies(at) => {
                let which = self.chance.number();
                self.machines[at].kill_one(which, now);
            }
            Happening::Drain(at) => drop(Arc::make_mut(&mut self.store).drained.insert(name(at))),
            Happening::Undrain(at) => {
                let name = name(at);
                Arc::make_mut(&mut self.store).drained.remove(&name);
            }
            Happening::Deploy(site) => {
                self.deploys += 1;
                let wanted = format!("v{}", self.deploys);
                let store = Arc::make_mut(&mut self.store);
                if let Some(facts) = store.sites.values_mut().nth(site) {
                    facts.wanted = wanted;
                    facts.refused = None;
                }
            }
        }
    }

    /// Whoever is on the other side of a cut.
    fn is_cut(&self, machine: &Machine) -> bool {
        self.second < self.cut.1 && machine.zone == self.cut.0
    }

    fn side_has_quorum(&self, is_cut: bool) -> bool {
        let voters = self.store.members.iter().filter(|member| !member.is_learner);
        let here = voters.clone().filter(|member| {
            let machine = self.machines.iter().find(|it| Some(&it.name) == member.node.as_ref());
            machine.is_some_and(|it| it.has_etcd(self.second) && self.is_cut(it) == is_cut)
        });
        here.count() > voters.count() / 2
    }

    /// Whether a majority of voters answers on either side of a cut.
    pub fn has_quorum(&self) -> bool {
        self.side_has_quorum(true) || self.side_has_quorum(false)
    }

    fn reaches(&self, at: usize) -> bool {
        let machine = &self.machines[at];
        self.second >= self.away_until && self.side_has_quorum(self.is_cut(machine))
    }

    /// Leases end, except while nobody could have renewed them.
    fn expire(&mut self) {
        if self.second < self.away_until || !self.has_quorum() {
            self.present.values_mut().for_each(|until| *until += 1);
            self.office.1 += 1;
            return;
        }
        let gone = self.present.extract_if(.., |_, until| *until <= self.second);
        let gone: Vec<NodeName> = gone.map(|(name, _)| name).collect();
        if !gone.is_empty() {
            let store = Arc::make_mut(&mut self.store);
            store.reports.retain(|name, _| !gone.contains(name));
        }
        if self.office.1 <= self.second && self.store.leader.is_some() {
            Arc::make_mut(&mut self.store).leader = None;
        }
    }

    fn machine(&mut self, at: usize, claims: &mut Claims) -> Result<(), Broken> {
        let second = self.second;
        self.machines[at].pass(second);
        let reaches = self.reaches(at);
        if reaches {
            self.hear(at);
            self.stand(at);
        }
        let steps = self.machines[at].decide(&self.min, second);
        for step in &steps {
            self.machines[at].apply(&step.action, second);
            self.note(at, step, claims)?;
        }
        if reaches && self.has_office(at) {
            steps.iter().for_each(|step| self.roll(at, step));
            self.place(at);
            self.vote(at, claims)?;
        }
        self.run_cron(at, claims)?;
        if reaches {
            let report = self.machines[at].report(second);
            let name = self.machines[at].name.clone();
            self.present.insert(name.clone(), second + PRESENCE);
            if self.store.reports.get(&name) != Some(&report) {
                Arc::make_mut(&mut self.store).reports.insert(name, report);
            }
        }
        Ok(())
    }

    fn note(&mut self, at: usize, step: &Step, claims: &Claims) -> Result<(), Broken> {
        if step.action == Action::PublishView {
            return Ok(());
        }
        let name = self.machines[at].name.clone();
        self.tell(format_args!("{name}: {:?}, {}", step.action, step.because));
        claims.step(self.second, &name, step)
    }

    fn hear(&mut self, at: usize) {
        if self.second >= self.machines[at].deaf_until {
            self.machines[at].known = Arc::clone(&self.store);
        }
    }

    /// Renews its office, or takes one that is free.
    fn stand(&mut self, at: usize) {
        let second = self.second;
        let nodes: Vec<rest::Node> = self
            .machines
            .iter()
            .map(|it| rest::Node {
                name: it.name.clone(),
                is_drained: self.store.drained.contains(&it.name),
                works: self.store.reports.contains_key(&it.name),
            })
            .collect();
        let machine = &mut self.machines[at];
        let may = !rest::rests(&machine.name, &nodes);
        match (&self.store.leader, machine.office) {
            (Some((leader, number)), Some((own, _)))
                if *leader == machine.name && *number == own && may =>
            {
                machine.office = Some((own, second + OFFICE));
                self.office.1 = second + OFFICE;
            }
            (Some((leader, _)), _) if *leader == machine.name => {
                // An agent that begins again, or that may lead no more, gives its office back.
                machine.office = None;
                Arc::make_mut(&mut self.store).leader = None;
            }
            (Some(_), _) => machine.office = None,
            (None, _) if may => {
                self.office = (self.office.0 + 1, second + OFFICE);
                machine.office = Some((self.office.0, second + OFFICE));
                Arc::make_mut(&mut self.store).leader = Some((machine.name.clone(), self.office.0));
                machine.known = Arc::clone(&self.store);
                let name = machine.name.clone();
                self.silent.clear();
                self.ill.clear();
                self.heard.clear();
                self.tell(format_args!("{name} leads"));
            }
            (None, _) => {}
        }
    }

    /// What the fence of the office says.
    fn has_office(&self, at: usize) -> bool {
        let machine = &self.machines[at];
        let own = machine.office.map(|(number, _)| (machine.name.clone(), number));
        own.is_some() && self.store.leader == own
    }

    fn commit(&mut self, at: usize, change: impl Fn(&mut Stored)) {
        change(Arc::make_mut(&mut self.store));
        change(Arc::make_mut(&mut self.machines[at].known));
    }

    /// A step of a rollout.
    fn roll(&mut self, at: usize, step: &Step) {
        let now_ms = self.machines[at].now_ms(self.second);
        let Some(site) = step.action.site() else { return };
        let change: Box<dyn Fn(&mut Facts)> = match step.action {
            Action::BeginRollout(_, stage) => Box::new(move |facts| {
                let fingerprint = facts.wanted.clone();
                facts.candidate = Some(Candidate { fingerprint, stage, since_ms: now_ms });
            }),
            Action::CheckCandidate(_) => Box::new(move |facts| match &mut facts.candidate {
                Some(candidate) if is_bad(&candidate.fingerprint) => abandon(facts),
                Some(candidate) => {
                    (candidate.stage, candidate.since_ms) = (Stage::Filling, now_ms);
                }
                None => {}
            }),
            Action::Switch(_) => Box::new(move |facts| {
                if let Some(candidate) = &mut facts.candidate {
                    (candidate.stage, candidate.since_ms) = (Stage::Switching, now_ms);
                }
            }),
            Action::FinishRollout(_) => Box::new(move |facts| {
                let Some(candidate) = facts.candidate.take() else { return };
                let fingerprint = std::mem::replace(&mut facts.serving, candidate.fingerprint);
                facts.parked = Some(Parked { fingerprint, until_ms: now_ms + PARKED_MS });
            }),
            Action::AbandonRollout(_) => Box::new(abandon),
            _ => return,
        };
        self.commit(at, |stored| {
            if let Some(facts) = stored.sites.get_mut(&site) {
                change(facts);
            }
        });
    }

    fn place(&mut self, at: usize) {
        let second = self.second;
        let known = Arc::clone(&self.machines[at].known);
        self.silent.retain(|name, _| !known.reports.contains_key(name));
        let mut nodes = Vec::new();
        for machine in &self.machines {
            let is_up = known.reports.contains_key(&machine.name);
            let is_lost = !is_up
                && second >= *self.silent.entry(machine.name.clone()).or_insert(second) + LOST;
            nodes.push(placement::Node {
                name: machine.name.clone(),
                zone: machine.zone.to_string(),
                labels: BTreeMap::new(),
                is_up,
                is_lost,
                runs_php: true,
                is_drained: known.drained.contains(&machine.name),
                room_mib: None,
            });
        }
        let first = known.sites.keys().next();
        let sites = known.sites.iter().map(|(name, facts)| {
            let others = first.filter(|first| self.is_apart && *first != name);
            let answering = known.reports.iter().filter_map(|(node, report)| {
                Some((node.clone(), *report.sites.get(name)?.1.get(&facts.serving)?))
            });
            placement::Site {
                name: name.clone(),
                min: self.min.get(name).copied().unwrap_or(1),
                max: MOST,
                instance_mib: 100,
                rules: Rules {
                    conflicts: others.cloned().into_iter().collect(),
                    ..Rules::default()
                },
                is_moving: facts.candidate.is_some(),
                placed: known.placements.get(name).cloned(),
                answering: answering.collect(),
            }
        });
        let sites: Vec<_> = sites.collect();
        let now_ms = self.machines[at].now_ms(second);
        for step in placement::steps(&nodes, &sites, now_ms) {
            self.tell(&step.because);
            self.commit(at, |stored| {
                drop(stored.placements.insert(step.site.clone(), step.placement.clone()));
            });
        }
    }

    /// Etcd's members as the leader sees them.
    fn members(&mut self, at: usize) -> Vec<Member> {
        let (second, side) = (self.second, self.is_cut(&self.machines[at]));
        let mut members = self.store.members.clone();
        self.heard.retain(|name, _| self.store.reports.contains_key(name));
        for name in self.store.reports.keys() {
            self.heard.entry(name.clone()).or_insert(second);
        }
        for member in &mut members {
            let machine = self.machines.iter().find(|it| Some(&it.name) == member.node.as_ref());
            member.is_well =
                machine.is_some_and(|it| it.has_etcd(second) && self.is_cut(it) == side);
            if member.is_well {
                self.ill.remove(&member.id);
            } else {
                let is_long = |since: u64| second >= since + LOST;
                let heard = member.node.as_ref().and_then(|node| self.heard.get(node));
                member.is_lost = is_long(*self.ill.entry(member.id).or_insert(second));
                member.is_stuck = member.is_lost && heard.is_some_and(|since| is_long(*since));
            }
        }
        members
    }

    fn vote(&mut self, at: usize, claims: &Claims) -> Result<(), Broken> {
        let members = self.members(at);
        let of = |name: &NodeName| members.iter().find(|it| it.node.as_ref() == Some(name));
        let candidates = self.machines.iter().map(|machine| {
            let (name, zone) = (machine.name.clone(), machine.zone.to_string());
            let rests = self.store.drained.contains(&name);
            let may_join = self.store.reports.contains_key(&name);
            voters::Candidate::new(name, zone, of(&machine.name), rests, may_join)
        });
        let candidates: Vec<_> = candidates.collect();
        let Some((step, because)) = voters::step(&voters::choose(&candidates), &members) else {
            return Ok(());
        };
        let had_quorum = self.has_quorum();
        let is_well =
            |id: &u64| members.iter().any(|it| it.id == *id && it.is_well && !it.is_learner);
        let lets_go = matches!(&step, voters::Step::Remove(id) if is_well(id));
        let next = members.iter().map(|it| it.id).max().unwrap_or_default() + 1;
        self.tell(format_args!("voters: {step:?}, {because}"));
        self.commit(at, |stored| match &step {
            voters::Step::Add(name) => {
                stored.members.push(Member { is_learner: true, ..member(next, name.clone()) });
            }
            voters::Step::Promote(id) => {
                let learner = stored.members.iter_mut().find(|it| it.id == *id);
                learner.into_iter().for_each(|it| it.is_learner = false);
            }
            voters::Step::Remove(id) => stored.members.retain(|it| it.id != *id),
        });
        claims.voters((had_quorum, self.has_quorum()), &because)?;
        let left = self.store.members.iter().filter(|it| !it.is_learner).count();
        match lets_go {
            true => claims.copies(left, self.machines.len(), &because),
            false => Ok(()),
        }
    }

    /// Cron is run by whoever leads, and ends with the office.
    fn run_cron(&mut self, at: usize, claims: &mut Claims) -> Result<(), Broken> {
        let second = self.second;
        let machine = &mut self.machines[at];
        if !machine.leads(second) {
            machine.cron.clear();
            return Ok(());
        }
        let now_ms = machine.now_ms(second);
        for site in self.store.sites.keys() {
            let (memory, until) = machine.cron.entry(site.clone()).or_default();
            if memory.is_running && *until <= second {
                (memory.is_running, memory.ended_ms) = (false, now_ms);
            }
            // What was due is done by a run; the next one comes a while after it.
            let next = memory.ended_ms / 1000 + CRON.0;
            if cron::is_due(Some(next), memory, now_ms).is_some() {
                (memory.is_running, *until) = (true, second + CRON.1);
            }
        }
        claims.cron(self)
    }

    /// What is not as it should be when all is over; `None`: nothing.
    pub fn lacks(&self) -> Option<String> {
        if self.store.leader.is_none() {
            return Some("nobody leads".into());
        }
        self.store.sites.iter().find_map(|(name, facts)| self.site_lacks(name, facts))
    }

    fn site_lacks(&self, name: &SiteName, facts: &Facts) -> Option<String> {
        if facts.candidate.is_some()
            || facts.serving != facts.wanted && facts.refused.as_ref() != Some(&facts.wanted)
        {
            return Some(format!("{name}: a rollout is not at its end: {facts:?}"));
        }
        let placement = self.store.placements.get(name)?;
        let mut counts = Vec::new();
        for machine in &self.machines {
            let (placed, rests) =
                (placement.on(&machine.name), self.store.drained.contains(&machine.name));
            let answering = machine.answering(name);
            let answer = answering.get(&facts.serving).copied().unwrap_or_default();
            if answer != placed {
                return Some(format!("{name}: {answer} of {placed} answer on {}", machine.name));
            }
            if rests && (placed > 0 || !answering.is_empty()) {
                return Some(format!("{name}: {} rests, and runs {answering:?}", machine.name));
            }
            let shown = machine.view.as_ref().and_then(|(pools, _)| pools.get(name));
            if shown.is_none_or(|(version, _)| *version != facts.serving) {
                return Some(format!("{name}: {} shows {shown:?}", machine.name));
            }
            if !rests {
                counts.push(placed);
            }
        }
        let wanted = self.wanted(name);
        let total: u16 = counts.iter().sum();
        if self.is_apart && counts.len() > 1 {
            let used: Vec<u16> = counts.iter().copied().filter(|count| *count > 0).collect();
            if used.len() < (counts.len() / 2).min(wanted.into()) {
                return Some(format!(
                    "{name}: {counts:?} are placed, half of the machines are its own"
                ));
            }
            if let Some(both) = self.conflicts().next() {
                return Some(format!(
                    "both sites are on {both}, and there is room to keep them apart"
                ));
            }
            counts = used;
        }
        let skew = counts.iter().max()? - counts.iter().min()?;
        (total != wanted || skew > placement::SKEW)
            .then(|| format!("{name}: {counts:?} are placed, {wanted} are wanted"))
    }

    /// Machines on which both sites run.
    pub fn conflicts(&self) -> impl Iterator<Item = &NodeName> {
        let runs = |machine: &Machine, site: &SiteName| {
            let placed = self.store.placements.get(site).map_or(0, |it| it.on(&machine.name));
            placed > 0 || !machine.answering(site).is_empty()
        };
        let both = move |machine: &&Machine| {
            let mut sites = self.store.sites.keys();
            sites.all(|site| runs(machine, site))
        };
        self.machines.iter().filter(both).map(|machine| &machine.name)
    }

    /// How many instances of a site there should be.
    pub fn wanted(&self, site: &SiteName) -> u16 {
        let fewest = self.min.get(site).copied().unwrap_or(1);
        let is_first = self.store.sites.keys().next() == Some(site);
        let own = match self.machines.len() {
            all if !self.is_apart || all == 1 => all,
            all if is_first => all.div_ceil(2),
            all => all / 2,
        };
        u16::try_from(own).unwrap_or(u16::MAX).max(fewest).min(MOST)
    }

    /// The end of a history: faults are over, and not every machine rests.
    pub fn calm(&mut self) {
        let first = self.machines[0].name.clone();
        let store = Arc::make_mut(&mut self.store);
        if store.drained.len() == self.machines.len() {
            store.drained.remove(&first);
        }
        self.away_until = 0;
        self.cut.1 = 0;
        for machine in &mut self.machines {
            machine.dark_until = machine.dark_until.min(END);
            machine.deaf_until = 0;
            machine.slow.1 = 0;
        }
        self.tell("everything is well again");
    }
}

fn member(id: u64, node: NodeName) -> Member {
    Member {
        id,
        node: Some(node),
        is_learner: false,
        is_well: true,
        is_lost: false,
        is_stuck: false,
    }
}

/// Every fourth version fails its check.
fn is_bad(version: &str) -> bool {
    version.trim_start_matches('v').parse::<u64>().is_ok_and(|number| number % 4 == 0)
}

fn abandon(facts: &mut Facts) {
    facts.refused = facts.candidate.take().map(|candidate| candidate.fingerprint);
}
