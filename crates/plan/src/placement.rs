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
//! Rules of a site narrow that ([`share`]): the nodes that it may use, and sites with which it conflicts, which divide the nodes between
//! them. A node that is no longer a site's is left as one that rests is. Where sites are equal otherwise, they run on the nodes of those
//! beside which they are to be. No rule leaves a site without instances: where its own nodes do not answer, others do.
//!
//! Always: no step leaves a site with fewer answering instances than it wants and had, unless memory is too short for what a node that
//! rests has run; and what a node has run that is away stays its own. Memory is an estimate: a site that nobody runs is started all
//! the same.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use pressroom_model::id::{NodeName, SiteName};
use pressroom_model::placement::{Placement, Rules};

use self::share::{Share, shares};

/// A node as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// Words of operators about it.
    pub labels: BTreeMap<String, String>,
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
    fn takes_none(&self) -> bool {
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
    /// Where it may run, beside whom and apart from whom.
    pub rules: Rules,
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
    let nodes = &at_work(nodes)[..];
    let mut used = used(nodes, sites);
    let shares = shares(nodes, sites);
    let mut views: Vec<View<'_>> = sites
        .iter()
        .map(|site| View::of(site, nodes, &shares[&site.name], sites, now_ms))
        .collect();
    views.sort_by_key(|view| (view.total() >= view.site.floor(), view.total(), &view.site.name));
    let are_settled = views.iter().all(View::is_all_settled);
    let mut steps: BTreeMap<SiteName, Step> = BTreeMap::new();
    for view in &views {
        if steps.contains_key(&view.site.name) {
            continue;
        }
        let board = Board { views: &views, used: &used };
        let step = view.step(board, now_ms).or_else(|| {
            let lacks = view.total() < view.site.floor() && are_settled;
            let room = lacks.then(|| view.make_room(board, now_ms)).flatten();
            room.filter(|it| !steps.contains_key(&it.site)).or_else(|| {
                (lacks && view.total() == 0).then(|| view.all_the_same(board, now_ms)).flatten()
            })
        });
        let Some(step) = step else { continue };
        // Memory that was promised to one is nobody else's.
        if step.site == view.site.name {
            used = with(used, view.site, &step);
        }
        steps.insert(step.site.clone(), step);
    }
    if steps.is_empty() && are_settled {
        // One at a time, or two would go after each other.
        let board = Board { views: &views, used: &used };
        return views.iter().find_map(|view| view.nearer(board, now_ms)).into_iter().collect();
    }
    steps.into_values().collect()
}

/// The nodes as they are counted upon: where nobody else is left who runs PHP, those that were drained do.
fn at_work(nodes: &[Node]) -> Vec<Node> {
    let is_left = nodes.iter().any(|node| !node.takes_none() && !node.is_lost);
    let at_work = nodes.iter().cloned();
    at_work.map(|node| Node { is_drained: node.is_drained && is_left, ..node }).collect()
}

/// Sites that do not run as their rules say, and why.
pub fn compromises(nodes: &[Node], sites: &[Site]) -> BTreeMap<SiteName, String> {
    let shares = shares(&at_work(nodes), sites);
    shares.into_iter().filter_map(|(site, share)| Some((site, share.because?))).collect()
}

/// What a site's step depends on beside itself.
#[derive(Clone, Copy)]
struct Board<'a> {
    views: &'a [View<'a>],
    used: &'a BTreeMap<NodeName, u64>,
}

impl Board<'_> {
    fn used_on(&self, node: &Node) -> u64 {
        self.used.get(&node.name).copied().unwrap_or_default()
    }
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
    share: &'a Share,
    /// All sites.
    sites: &'a [Site],
    /// No node of its share answers, so it may use all others.
    is_astray: bool,
    /// Where new instances may go.
    takers: Vec<&'a Node>,
    /// How many there should be.
    wanted: u16,
    /// The last change has had its time.
    is_late: bool,
}

impl<'a> View<'a> {
    fn of(
        site: &'a Site,
        nodes: &'a [Node],
        share: &'a Share,
        sites: &'a [Site],
        now_ms: u64,
    ) -> Self {
        let since_ms = site.placed.as_ref().map_or(0, |placed| placed.since_ms);
        let up: Vec<&Node> = nodes.iter().filter(|node| node.is_up && !node.takes_none()).collect();
        let own = |node: &&Node| share.nodes.contains(&node.name);
        let is_astray = !up.iter().any(own);
        Self {
            site,
            nodes,
            share,
            sites,
            is_astray,
            takers: up.into_iter().filter(|node| is_astray || own(node)).collect(),
            wanted: share.count.max(site.min).min(site.max).max(1),
            is_late: now_ms >= since_ms.saturating_add(PATIENCE_MS),
        }
    }

    /// Whether a node is to be left.
    fn leaves(&self, node: &Node) -> bool {
        let is_others = !self.is_astray && !self.share.nodes.contains(&node.name);
        // What a node has run that is lost stays its own.
        node.takes_none() || is_others && !node.is_lost
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
        self.nodes.iter().filter(|node| !node.is_up && !node.is_lost && !self.leaves(node))
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
    fn fits(&self, node: &Node, board: Board<'_>) -> bool {
        node.room_mib.is_none_or(|room| board.used_on(node) + self.site.instance_mib <= room)
    }

    /// Sites with which it conflicts that are on a node, or were just now.
    fn met<'b>(&'b self, node: &'b Node, board: Board<'b>) -> impl Iterator<Item = &'b View<'b>> {
        let is_rival = move |other: &&View<'_>| {
            self.share.rivals.iter().any(|rival| self.sites[*rival].name == other.site.name)
        };
        let views: &'b [View<'b>] = if self.share.rivals.is_empty() { &[] } else { board.views };
        views.iter().filter(is_rival).filter(move |other| other.site.most_on(&node.name) > 0)
    }

    /// How many of those sites are on a node beside which it is to run.
    fn company(&self, node: &Node) -> usize {
        let kin = self.share.kin.iter().map(|at| &self.sites[*at]);
        kin.filter(|other| other.placed_on(&node.name) > 0).count()
    }

    /// Whether it may come to a node: those with which it conflicts and that are leaving it have done so, unless they cannot.
    fn may_enter(&self, node: &Node, board: Board<'_>) -> bool {
        if self.is_astray || self.share.is_crowded || self.placed_on(&node.name) > 0 {
            return true;
        }
        let is_nowhere = self.site.answering.values().all(|count| *count == 0);
        self.met(node, board).all(|other| {
            let can_leave = !other.site.is_moving && other.answering() >= other.wanted;
            let has_left = other.placed_on(&node.name) == 0;
            match () {
                // It has nowhere else to be.
                () if !other.leaves(node) => true,
                () if has_left && other.is_late => true,
                () if is_nowhere => !can_leave && !has_left,
                () => {
                    let is_busy = other.site.is_moving || !other.is_late;
                    !is_busy && !can_leave && !other.can_grow(board)
                }
            }
        })
    }

    /// Whether one more can come where none of those is with which it conflicts.
    fn can_grow(&self, board: Board<'_>) -> bool {
        self.takers.iter().any(|node| {
            let is_free = self.placed_on(&node.name) > 0 || self.met(node, board).count() == 0;
            is_free && self.fits(node, board) && self.is_settled(node)
        })
    }

    /// Where one more would run best.
    fn next(&self, board: Board<'_>) -> Option<&'a Node> {
        let fit = self.takers.iter().copied();
        let fit = fit.filter(|node| self.fits(node, board) && self.is_settled(node));
        let fit = fit.filter(|node| self.may_enter(node, board));
        fit.min_by_key(|node| {
            let company = Reverse(self.company(node));
            (
                self.met(node, board).count(),
                self.load(node),
                company,
                board.used_on(node),
                &node.name,
            )
        })
    }

    /// Where one is missed least.
    fn fullest(&self) -> Option<&'a Node> {
        let with = self.takers.iter().copied().filter(|node| self.placed_on(&node.name) > 0);
        with.max_by_key(|node| (self.load(node), Reverse(self.company(node)), &node.name))
    }

    fn change(&self, node: &Node, count: u16, now_ms: u64, because: &str) -> Step {
        let mut nodes = self.kept();
        match count {
            0 => drop(nodes.remove(&node.name)),
            _ => drop(nodes.insert(node.name.clone(), count)),
        }
        let (site, name) = (&self.site.name, &node.name);
        let before = self.placed_on(name);
        let mut because =
            format!("`{name}` runs {count} of `{site}` instead of {before}: {because}");
        if let Some(compromise) = self.share.because.as_ref().filter(|_| count > before) {
            because = format!("{because}; {compromise}");
        }
        let placement = Placement { nodes, since_ms: now_ms, because: because.clone() };
        Step { site: site.clone(), placement, because }
    }

    /// What is placed, without nodes that are gone.
    fn kept(&self) -> BTreeMap<NodeName, u16> {
        let names = self.nodes.iter().map(|node| &node.name);
        let counts = names.map(|name| (name.clone(), self.placed_on(name)));
        counts.filter(|(_, count)| *count > 0).collect()
    }

    fn step(&self, board: Board<'_>, now_ms: u64) -> Option<Step> {
        if self.site.placed.is_none() {
            return self.begin(board, now_ms);
        }
        let is_settled = self.is_all_settled();
        // The change before this one is waited for; one that never comes to its end is counted upon no more.
        if self.site.is_moving || !is_settled && !self.is_late {
            return None;
        }
        self.more(board, now_ms)
            .or_else(|| self.empty(board, is_settled, now_ms))
            .or_else(|| is_settled.then(|| self.fewer(now_ms)).flatten())
            .or_else(|| is_settled.then(|| self.even(board, now_ms)).flatten())
    }

    /// A site that nobody has placed stays where it answers, and gets at least its `min`; more comes later, one by one, so that each
    /// site has its turn.
    fn begin(&self, board: Board<'_>, now_ms: u64) -> Option<Step> {
        let mut used = board.used.clone();
        let nodes = self.nodes.iter().filter(|node| self.site.answering_on(&node.name) > 0);
        let nodes = nodes.map(|node| (node.name.clone(), self.site.answering_on(&node.name)));
        let mut site = Site {
            placed: Some(Placement { nodes: nodes.collect(), ..Placement::default() }),
            ..self.site.clone()
        };
        loop {
            // What was just placed counts as done, so that the next one finds its place beside it.
            site.answering = site.placed.iter().flat_map(|placed| placed.nodes.clone()).collect();
            let view = View::of(&site, self.nodes, self.share, self.sites, now_ms);
            let lacks = view.total() < site.floor();
            let board = Board { used: &used, ..board };
            let Some(step) = lacks.then(|| view.more(board, now_ms)).flatten() else { break };
            used = with(used, &site, &step);
            site.placed = Some(step.placement);
        }
        let because = "it is placed for the first time".to_owned();
        let placement = Placement { since_ms: now_ms, because: because.clone(), ..site.placed? };
        let is_any = placement.nodes.values().any(|count| *count > 0);
        is_any.then(|| Step { site: site.name.clone(), placement, because })
    }

    /// One more, where it is lacking.
    fn more(&self, board: Board<'_>, now_ms: u64) -> Option<Step> {
        let total = self.total();
        if total >= self.wanted {
            return None;
        }
        let node = self.next(board)?;
        let because = format!("{} are wanted, {total} can be counted upon", self.wanted);
        Some(self.change(node, self.placed_on(&node.name) + 1, now_ms, &because))
    }

    /// A node that rests, or is others', is left once as many answer elsewhere.
    fn empty(&self, board: Board<'_>, is_settled: bool, now_ms: u64) -> Option<Step> {
        let mut left = self.nodes.iter().filter(|node| self.leaves(node));
        let node = left.find(|node| self.placed_on(&node.name) > 0)?;
        let why = match () {
            () if node.takes_none() => "it rests",
            () if self.site.rules.allow(&node.labels) => {
                "a site that conflicts with it has the node"
            }
            () => "its rules name other nodes",
        };
        let answering = self.answering();
        let has_room = |node: &&Node| self.fits(node, board) && self.is_settled(node);
        let because = match () {
            () if answering >= self.wanted => format!("{why}, and {answering} answer elsewhere"),
            () if answering == 0 => return None,
            () if self.site.answering_on(&node.name) == 0 => why.to_owned(),
            () if is_settled && !self.takers.iter().any(has_room) => {
                format!("{why}, and memory elsewhere is enough for {answering}")
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
    fn even(&self, board: Board<'_>, now_ms: u64) -> Option<Step> {
        if self.away().next().is_some() || self.answering() < self.total() {
            return None;
        }
        let (low, high) = (self.next(board)?, self.fullest()?);
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

    /// One more where those are beside which it is to run, so that there can be one less elsewhere: zones stay as even as they are.
    fn nearer(&self, board: Board<'_>, now_ms: u64) -> Option<Step> {
        let is_calm = self.answering() == self.total() && self.away().next().is_none();
        if self.site.is_moving || self.site.placed.is_none() || !is_calm {
            return None;
        }
        let high = self.fullest()?;
        let ((many, zone_many), company) = (self.load(high), self.company(high));
        let is_better = |low: &&Node| {
            let (few, zone_few) = self.load(low);
            few < many
                && (low.zone == high.zone || zone_few < zone_many)
                && self.company(low) > company
                && self.fits(low, board)
                && self.may_enter(low, board)
                && self.met(low, board).count() == 0
        };
        let low = self.takers.iter().copied().filter(is_better);
        let low = low.max_by_key(|node| (self.company(node), Reverse(&node.name)))?;
        let because = format!("it is nearer to its company there than on `{}`", high.name);
        Some(self.change(low, self.placed_on(&low.name) + 1, now_ms, &because))
    }

    /// One less of another site that has more than its `min`, where that is enough for one of ours.
    fn make_room(&self, board: Board<'_>, now_ms: u64) -> Option<Step> {
        if self.site.is_moving {
            return None;
        }
        let rich = board
            .views
            .iter()
            .filter(|other| !other.site.is_moving && other.answering() > other.site.floor());
        let places = rich.flat_map(|other| {
            let frees = move |node: &&Node| {
                let after = (board.used_on(node) + self.site.instance_mib)
                    .saturating_sub(other.site.instance_mib);
                let is_ours = self.takers.iter().any(|taker| taker.name == node.name);
                is_ours
                    && other.placed_on(&node.name) > 0
                    && node.room_mib.is_none_or(|room| after <= room)
            };
            other.takers.iter().copied().filter(frees).map(move |node| (other, node))
        });
        let (other, node) = places
            .max_by_key(|(other, node)| (other.answering(), other.load(node), &other.site.name))?;
        let because = format!("`{}` has not enough memory otherwise", self.site.name);
        Some(other.change(node, other.placed_on(&node.name) - 1, now_ms, &because))
    }

    /// One where memory is least short.
    fn all_the_same(&self, board: Board<'_>, now_ms: u64) -> Option<Step> {
        let free = |node: &&Node| {
            node.room_mib.map_or(u64::MAX, |room| room.saturating_sub(board.used_on(node)))
        };
        let may = self.takers.iter().copied().filter(|node| self.may_enter(node, board));
        let node = may.max_by_key(free)?;
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

mod share;
#[cfg(test)]
mod tests;
