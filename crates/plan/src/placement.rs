//! On which nodes how many instances of a site run, and the next safe change there.
//!
//! A site wants one instance on every node that runs PHP, because PHP of the same machine is the fastest, and never fewer than its `min`
//! nor more than its `max` in the cluster. Where that is not to be had (memory is short, `max` is lower than the number of nodes), its
//! instances are spread: first over nodes, and where nodes are equal, over zones. Nodes that rest or are lost count in what is
//! wanted, so their share moves to the others instead of vanishing.
//!
//! [`steps`] changes one thing of a site at a time and waits until that is so. More instances come before fewer: a node that rests goes
//! on until others answer in its place. While something of a site is not as it should be, nothing of it moves that need not.
//!
//! Always: no step leaves a site with fewer answering instances than it wants and had, unless memory is too short for what a node that
//! rests has run; and what a node has run that is away stays its own. Memory is an estimate: a site that nobody runs is started all
//! the same.

use std::collections::BTreeMap;

use pressroom_model::id::{NodeName, SiteName};
use pressroom_model::placement::Placement;

/// A node as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// It is heard.
    pub is_up: bool,
    /// It has not been heard for so long that others take its share.
    pub is_lost: bool,
    /// It is one of those that run PHP.
    pub runs_php: bool,
    /// It was drained.
    pub is_drained: bool,
    /// Memory for PHP, MiB; `None`: it did not say, and has enough.
    pub room_mib: Option<u64>,
}

impl Node {
    fn rests(&self) -> bool {
        self.is_drained || !self.runs_php
    }
}

/// A site as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Its name.
    pub name: SiteName,
    /// Fewest in the cluster.
    pub min: u16,
    /// Most in the cluster.
    pub max: u16,
    /// Memory of one instance, MiB.
    pub instance_mib: u64,
    /// Another version is on its way: nothing moves meanwhile.
    pub is_moving: bool,
    /// Where it is to run, as stored; `None`: nobody has said so yet.
    pub placed: Option<Placement>,
    /// Instances of the version that serves that answer, by node.
    pub answering: BTreeMap<NodeName, u16>,
}

/// One change: so many instances of a site are to run on a node from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which site.
    pub site: SiteName,
    /// Where it runs from now on.
    pub placement: Placement,
    /// What changes and why.
    pub because: String,
}

/// Two nodes, or zones, may differ by so many instances of a site.
pub const SKEW: u16 = 1;
/// An instance that does not answer so long after the last change is counted upon no more.
pub const PATIENCE_MS: u64 = 60_000;

/// The next changes, at most one for each site, whoever lacks most first.
pub fn steps(nodes: &[Node], sites: &[Site], now_ms: u64) -> Vec<Step> {
    let mut used = used(nodes, sites);
    let mut views: Vec<View<'_>> = sites.iter().map(|site| View::of(site, nodes, now_ms)).collect();
    views.sort_by_key(|view| (view.total() >= view.site.floor(), view.total(), &view.site.name));
    let are_settled = views.iter().all(View::is_all_settled);
    let mut steps: BTreeMap<SiteName, Step> = BTreeMap::new();
    for view in &views {
        if steps.contains_key(&view.site.name) {
            continue;
        }
        let step = view.step(&used, now_ms).or_else(|| {
            let lacks = view.total() < view.site.floor() && are_settled;
            let room = lacks.then(|| view.make_room(&views, &used, now_ms)).flatten();
            room.filter(|it| !steps.contains_key(&it.site)).or_else(|| {
                (lacks && view.total() == 0).then(|| view.all_the_same(&used, now_ms)).flatten()
            })
        });
        let Some(step) = step else { continue };
        // Memory that was promised to one is nobody else's.
        if step.site == view.site.name {
            used = with(used, view.site, &step);
        }
        steps.insert(step.site.clone(), step);
    }
    steps.into_values().collect()
}

/// Memory that is taken, or promised, on each node.
fn used(nodes: &[Node], sites: &[Site]) -> BTreeMap<NodeName, u64> {
    let of = |node: &Node| {
        let mib = sites.iter().map(|site| u64::from(site.most_on(&node.name)) * site.instance_mib);
        (node.name.clone(), mib.sum())
    };
    nodes.iter().map(of).collect()
}

impl Site {
    /// So many are made room for.
    fn floor(&self) -> u16 {
        self.min.max(1)
    }

    fn answering_on(&self, node: &NodeName) -> u16 {
        self.answering.get(node).copied().unwrap_or_default()
    }

    fn placed_on(&self, node: &NodeName) -> u16 {
        self.placed.as_ref().map_or(0, |placed| placed.on(node))
    }

    /// What may be taking memory on a node.
    fn most_on(&self, node: &NodeName) -> u16 {
        self.placed_on(node).max(self.answering_on(node))
    }
}

/// A site among the nodes.
struct View<'a> {
    site: &'a Site,
    nodes: &'a [Node],
    /// Where new instances may go.
    takers: Vec<&'a Node>,
    /// How many there should be.
    wanted: u16,
    /// The last change has had its time.
    is_late: bool,
}

impl<'a> View<'a> {
    fn of(site: &'a Site, nodes: &'a [Node], now_ms: u64) -> Self {
        let all = nodes.iter().filter(|node| node.runs_php).count();
        let all = u16::try_from(all).unwrap_or(u16::MAX);
        let since_ms = site.placed.as_ref().map_or(0, |placed| placed.since_ms);
        Self {
            site,
            nodes,
            takers: nodes.iter().filter(|node| node.is_up && !node.rests()).collect(),
            wanted: all.max(site.min).min(site.max).max(1),
            is_late: now_ms >= since_ms.saturating_add(PATIENCE_MS),
        }
    }

    fn placed_on(&self, node: &NodeName) -> u16 {
        self.site.placed_on(node)
    }

    /// Instances there that can be counted upon.
    fn counted(&self, node: &Node) -> u16 {
        let placed = self.placed_on(&node.name);
        match self.is_late {
            true => placed.min(self.site.answering_on(&node.name)),
            false => placed,
        }
    }

    /// Nodes that will be back in a moment.
    fn away(&self) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(|node| !node.is_up && !node.is_lost && !node.rests())
    }

    /// Instances that can be counted upon where they may stay; while none answers, those that are away are not waited for.
    fn total(&self) -> u16 {
        let here = self.takers.iter().map(|node| self.counted(node)).sum::<u16>();
        let away = self.away().map(|node| self.placed_on(&node.name)).sum::<u16>();
        if here == 0 { 0 } else { here + away }
    }

    /// Those of them that answer.
    fn answering(&self) -> u16 {
        let of = |node: &&Node| self.placed_on(&node.name).min(self.site.answering_on(&node.name));
        self.takers.iter().map(of).sum()
    }

    /// Whether everything that runs there is as it should be.
    fn is_settled(&self, node: &Node) -> bool {
        self.site.answering_on(&node.name) == self.placed_on(&node.name)
    }

    fn is_all_settled(&self) -> bool {
        self.takers.iter().all(|node| self.is_settled(node))
    }

    fn in_zone(&self, zone: &str) -> u16 {
        let nodes = self.takers.iter().filter(|node| node.zone == zone);
        nodes.map(|node| self.placed_on(&node.name)).sum()
    }

    fn load(&self, node: &Node) -> (u16, u16) {
        (self.placed_on(&node.name), self.in_zone(&node.zone))
    }

    /// Whether one more has room there.
    fn fits(&self, node: &Node, used: &BTreeMap<NodeName, u64>) -> bool {
        let used = used.get(&node.name).copied().unwrap_or_default();
        node.room_mib.is_none_or(|room| used + self.site.instance_mib <= room)
    }

    /// Where one more would run best.
    fn next(&self, used: &BTreeMap<NodeName, u64>) -> Option<&'a Node> {
        let fit = self.takers.iter().copied();
        let fit = fit.filter(|node| self.fits(node, used) && self.is_settled(node));
        fit.min_by_key(|node| (self.load(node), used.get(&node.name).copied(), &node.name))
    }

    /// Where one is missed least.
    fn fullest(&self) -> Option<&'a Node> {
        let with = self.takers.iter().copied().filter(|node| self.placed_on(&node.name) > 0);
        with.max_by_key(|node| (self.load(node), &node.name))
    }

    fn change(&self, node: &Node, count: u16, now_ms: u64, because: &str) -> Step {
        let mut nodes = self.kept();
        match count {
            0 => drop(nodes.remove(&node.name)),
            _ => drop(nodes.insert(node.name.clone(), count)),
        }
        let (site, name) = (&self.site.name, &node.name);
        let before = self.placed_on(name);
        let because = format!("`{name}` runs {count} of `{site}` instead of {before}: {because}");
        let placement = Placement { nodes, since_ms: now_ms, because: because.clone() };
        Step { site: site.clone(), placement, because }
    }

    /// What is placed, without nodes that are gone.
    fn kept(&self) -> BTreeMap<NodeName, u16> {
        let names = self.nodes.iter().map(|node| &node.name);
        let counts = names.map(|name| (name.clone(), self.placed_on(name)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    fn step(&self, used: &BTreeMap<NodeName, u64>, now_ms: u64) -> Option<Step> {
        if self.site.placed.is_none() {
            return self.begin(used, now_ms);
        }
        let is_settled = self.is_all_settled();
        // The change before this one is waited for; one that never comes to its end is counted upon no more.
        if self.site.is_moving || !is_settled && !self.is_late {
            return None;
        }
        self.more(used, now_ms)
            .or_else(|| self.empty(used, is_settled, now_ms))
            .or_else(|| is_settled.then(|| self.fewer(now_ms)).flatten())
            .or_else(|| is_settled.then(|| self.even(used, now_ms)).flatten())
    }

    /// A site that nobody has placed stays where it answers, and gets at least its `min`; more comes later, one by one, so that each
    /// site has its turn.
    fn begin(&self, used: &BTreeMap<NodeName, u64>, now_ms: u64) -> Option<Step> {
        let mut used = used.clone();
        let nodes = self.nodes.iter().filter(|node| self.site.answering_on(&node.name) > 0);
        let nodes = nodes.map(|node| (node.name.clone(), self.site.answering_on(&node.name)));
        let mut site = Site {
            placed: Some(Placement { nodes: nodes.collect(), ..Placement::default() }),
            ..self.site.clone()
        };
        loop {
            // What was just placed counts as done, so that the next one finds its place beside it.
            site.answering = site.placed.iter().flat_map(|placed| placed.nodes.clone()).collect();
            let view = View { site: &site, ..View::of(&site, self.nodes, now_ms) };
            let lacks = view.total() < site.floor();
            let Some(step) = lacks.then(|| view.more(&used, now_ms)).flatten() else { break };
            used = with(used, &site, &step);
            site.placed = Some(step.placement);
        }
        let because = "it is placed for the first time".to_owned();
        let placement = Placement { since_ms: now_ms, because: because.clone(), ..site.placed? };
        let is_any = placement.nodes.values().any(|count| *count > 0);
        is_any.then(|| Step { site: site.name.clone(), placement, because })
    }

    /// One more, where it is lacking.
    fn more(&self, used: &BTreeMap<NodeName, u64>, now_ms: u64) -> Option<Step> {
        let total = self.total();
        if total >= self.wanted {
            return None;
        }
        let node = self.next(used)?;
        let because = format!("{} are wanted, {total} can be counted upon", self.wanted);
        Some(self.change(node, self.placed_on(&node.name) + 1, now_ms, &because))
    }

    /// A node that rests is left once others answer in its place.
    fn empty(&self, used: &BTreeMap<NodeName, u64>, is_settled: bool, now_ms: u64) -> Option<Step> {
        let mut resting = self.nodes.iter().filter(|node| node.rests());
        let node = resting.find(|node| self.placed_on(&node.name) > 0)?;
        let answering = self.answering();
        let because = match () {
            () if answering >= self.wanted => format!("it rests, and {answering} answer elsewhere"),
            () if answering == 0 => return None,
            () if self.site.answering_on(&node.name) == 0 => "it rests".to_owned(),
            () if is_settled && self.next(used).is_none() => {
                format!("it rests, and memory elsewhere is enough for {answering}")
            }
            () => return None,
        };
        Some(self.change(node, 0, now_ms, &because))
    }

    /// One less, where more answer than are wanted.
    fn fewer(&self, now_ms: u64) -> Option<Step> {
        let answering = self.answering();
        if answering <= self.wanted {
            return None;
        }
        let node = self.fullest()?;
        let because = format!("{answering} answer, {} are wanted", self.wanted);
        Some(self.change(node, self.placed_on(&node.name) - 1, now_ms, &because))
    }

    /// One more where there are few, so that there can be one less where there are many.
    fn even(&self, used: &BTreeMap<NodeName, u64>, now_ms: u64) -> Option<Step> {
        if self.away().next().is_some() || self.answering() < self.total() {
            return None;
        }
        let (low, high) = (self.next(used)?, self.fullest()?);
        let ((few, zone_few), (many, zone_many)) = (self.load(low), self.load(high));
        let because = match () {
            () if many > few + SKEW => format!("`{}` runs {many}", high.name),
            () if many > few && zone_many > zone_few + SKEW => {
                format!("zone `{}` runs {zone_many}, zone `{}` {zone_few}", high.zone, low.zone)
            }
            () => return None,
        };
        Some(self.change(low, few + 1, now_ms, &because))
    }

    /// One less of another site that has more than its `min`, where that is enough for one of ours.
    fn make_room(
        &self,
        views: &[View<'_>],
        used: &BTreeMap<NodeName, u64>,
        now_ms: u64,
    ) -> Option<Step> {
        if self.site.is_moving {
            return None;
        }
        let rich = views
            .iter()
            .filter(|other| !other.site.is_moving && other.answering() > other.site.floor());
        let places = rich.flat_map(|other| {
            let frees = move |node: &&Node| {
                let used = used.get(&node.name).copied().unwrap_or_default();
                let after = (used + self.site.instance_mib).saturating_sub(other.site.instance_mib);
                other.placed_on(&node.name) > 0 && node.room_mib.is_none_or(|room| after <= room)
            };
            other.takers.iter().copied().filter(frees).map(move |node| (other, node))
        });
        let (other, node) = places
            .max_by_key(|(other, node)| (other.answering(), other.load(node), &other.site.name))?;
        let because = format!("`{}` has not enough memory otherwise", self.site.name);
        Some(other.change(node, other.placed_on(&node.name) - 1, now_ms, &because))
    }

    /// One where memory is least short.
    fn all_the_same(&self, used: &BTreeMap<NodeName, u64>, now_ms: u64) -> Option<Step> {
        let free = |node: &&Node| {
            let used = used.get(&node.name).copied().unwrap_or_default();
            node.room_mib.map_or(u64::MAX, |room| room.saturating_sub(used))
        };
        let node = self.takers.iter().copied().max_by_key(free)?;
        let because = "nobody runs it, and memory is short everywhere";
        Some(self.change(node, self.placed_on(&node.name).max(1), now_ms, because))
    }
}

/// What is used after a step.
fn with(mut used: BTreeMap<NodeName, u64>, site: &Site, step: &Step) -> BTreeMap<NodeName, u64> {
    for (node, count) in &step.placement.nodes {
        let more = u64::from(count.saturating_sub(site.most_on(node)));
        *used.entry(node.clone()).or_default() += more * site.instance_mib;
    }
    used
}

#[cfg(test)]
mod tests;
