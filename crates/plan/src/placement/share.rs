//! Which nodes a site may use: those that its rules name, apart from the sites that it conflicts with.
//!
//! Sites that conflict with each other divide the nodes by drafting: whoever has fewest takes the next one that nobody of the others
//! has, preferably one where it runs already, so that little moves. First everybody takes one, whoever has the least choice before
//! the others. How many of all nodes a site would draft is what it wants, also while some of them rest or are lost.
//!
//! Always: a site may use a node, if there is any. One for which no node is left shares one with a site that it conflicts with, and says so.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use pressroom_model::id::{NodeName, SiteName};
use pressroom_model::placement::Rules;

use super::{Node, Site};

/// The nodes of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Where it may run now.
    pub(super) nodes: BTreeSet<NodeName>,
    /// How many it would have if all nodes were there.
    pub(super) count: u16,
    /// Sites that it conflicts with, by their places among all.
    pub(super) rivals: BTreeSet<usize>,
    /// Sites beside which it is to run.
    pub(super) kin: BTreeSet<usize>,
    /// Why it runs where it should not, for people.
    pub(super) because: Option<String>,
    /// It has to share what it has with a rival.
    pub(super) is_crowded: bool,
}

/// The nodes of every site.
pub(super) fn shares(nodes: &[Node], sites: &[Site]) -> BTreeMap<SiteName, Share> {
    let mut rivals = pairs(sites, |rules| &rules.conflicts);
    let mut kin = pairs(sites, |rules| &rules.beside);
    let all: Vec<&Node> = nodes.iter().filter(|node| node.runs_php).collect();
    let now: Vec<&Node> =
        all.iter().copied().filter(|node| !node.is_drained && !node.is_lost).collect();
    let counts = divide(&all, sites, &rivals, Aim::Fit);
    let parts = divide(&now, sites, &rivals, Aim::Stay);
    let share = |(at, (part, count)): (usize, (Part, Part))| {
        let share = Share {
            because: part.words(&sites[at]),
            is_crowded: part.is_crowded,
            nodes: part.nodes,
            count: u16::try_from(count.nodes.len()).unwrap_or(u16::MAX),
            rivals: std::mem::take(&mut rivals[at]),
            kin: std::mem::take(&mut kin[at]),
        };
        (sites[at].name.clone(), share)
    };
    parts.into_iter().zip(counts).enumerate().map(share).collect()
}

/// For each site those that it names in its rules, and those that name it.
fn pairs(sites: &[Site], named: impl Fn(&Rules) -> &Vec<SiteName>) -> Vec<BTreeSet<usize>> {
    let places: BTreeMap<&SiteName, usize> =
        sites.iter().enumerate().map(|(at, site)| (&site.name, at)).collect();
    let mut pairs = vec![BTreeSet::new(); sites.len()];
    for (at, site) in sites.iter().enumerate() {
        let others = named(&site.rules).iter().filter_map(|name| places.get(name));
        for other in others.filter(|other| **other != at) {
            pairs[at].insert(*other);
            pairs[*other].insert(at);
        }
    }
    pairs
}

/// What is minded first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// That little moves.
    Stay,
    /// That everybody has a node.
    Fit,
}

/// What a site got.
#[derive(Default)]
struct Part {
    nodes: BTreeSet<NodeName>,
    /// No node is as its rules say.
    is_astray: bool,
    /// It shares with a rival.
    is_crowded: bool,
}

impl Part {
    fn words(&self, site: &Site) -> Option<String> {
        let name = &site.name;
        let rules: Vec<String> = site.rules.nodes.iter().map(|rule| format!("`{rule}`")).collect();
        match () {
            () if self.is_crowded => Some(format!(
                "`{name}` runs beside a site that it conflicts with: there are not nodes enough to keep them apart"
            )),
            () if self.is_astray => Some(format!(
                "`{name}` runs on any node: none that takes part is as its rules say ({})",
                rules.join(", ")
            )),
            () => None,
        }
    }
}

/// Divides nodes among sites.
fn divide(nodes: &[&Node], sites: &[Site], rivals: &[BTreeSet<usize>], aim: Aim) -> Vec<Part> {
    let mut draft = Draft::new(nodes, sites, rivals, aim);
    let mut lacking = draft.run();
    if !lacking.is_empty() && aim == Aim::Stay {
        // What is there may be in the way of a division in which everybody has a node.
        let mut other = Draft::new(nodes, sites, rivals, Aim::Fit);
        let fewer = other.run();
        if fewer.len() < lacking.len() {
            (draft, lacking) = (other, fewer);
        }
    }
    for site in &lacking {
        draft.squeeze(*site);
    }
    let part = |at: usize| Part {
        nodes: draft.taken[at].iter().map(|node| nodes[*node].name.clone()).collect(),
        is_astray: draft.is_astray[at],
        is_crowded: lacking.contains(&at) && !draft.taken[at].is_empty(),
    };
    (0..sites.len()).map(part).collect()
}

/// A division under way. Sites and nodes are numbers here.
struct Draft<'a> {
    nodes: &'a [&'a Node],
    rivals: &'a [BTreeSet<usize>],
    aim: Aim,
    /// Nodes that a site may have, by its rules.
    may: Vec<Vec<bool>>,
    /// No node is as its rules say, so it may have any.
    is_astray: Vec<bool>,
    /// Nodes where it is placed.
    has: Vec<Vec<bool>>,
    /// Nodes that it can use.
    most: Vec<usize>,
    taken: Vec<BTreeSet<usize>>,
}

impl<'a> Draft<'a> {
    fn new(nodes: &'a [&'a Node], sites: &[Site], rivals: &'a [BTreeSet<usize>], aim: Aim) -> Self {
        let by_node =
            |of: &dyn Fn(&Node) -> bool| -> Vec<bool> { nodes.iter().copied().map(of).collect() };
        let mut may: Vec<Vec<bool>> = Vec::new();
        let mut is_astray = Vec::new();
        for site in sites {
            let named: Vec<bool> = by_node(&|node| site.rules.allow(&node.labels));
            let is_any = named.contains(&true);
            is_astray.push(!is_any && !nodes.is_empty());
            may.push(if is_any { named } else { vec![true; nodes.len()] });
        }
        let stays = aim == Aim::Stay;
        let has = |site: &Site| by_node(&|node| stays && site.placed_on(&node.name) > 0);
        Self {
            nodes,
            rivals,
            aim,
            may,
            is_astray,
            has: sites.iter().map(has).collect(),
            most: sites.iter().map(|site| usize::from(site.max.max(1))).collect(),
            taken: vec![BTreeSet::new(); sites.len()],
        }
    }

    /// Everybody drafts; those that got nothing.
    fn run(&mut self) -> Vec<usize> {
        let mut open = BTreeSet::new();
        for site in 0..self.taken.len() {
            match self.rivals[site].is_empty() {
                // It is in nobody's way, and may run wherever it is to.
                true => {
                    self.taken[site] =
                        (0..self.nodes.len()).filter(|n| self.may[site][*n]).collect();
                }
                false => drop(open.insert(site)),
            }
        }
        let mut lacking = Vec::new();
        while let Some(site) = open.iter().copied().min_by_key(|site| self.turn(*site)) {
            match self.pick(site) {
                Some(node) => drop(self.taken[site].insert(node)),
                None => {
                    if self.taken[site].is_empty() {
                        lacking.push(site);
                    }
                    open.remove(&site);
                }
            }
            if self.taken[site].len() >= self.most[site] {
                open.remove(&site);
            }
        }
        lacking
    }

    /// Whose turn it is: the least of these.
    fn turn(&self, site: usize) -> impl Ord + use<> {
        let count = self.taken[site].len();
        let mut open = (0..self.nodes.len()).filter(|node| self.is_open(site, *node));
        // The first one is taken by whoever has the least choice, and is in the way of most.
        let choice = match count {
            0 => (open.clone().count(), Reverse(self.rivals[site].len())),
            _ => (0, Reverse(0)),
        };
        let keeps = open.any(|node| self.has[site][node]);
        (count, choice, !keeps, site)
    }

    fn is_open(&self, site: usize, node: usize) -> bool {
        self.may[site][node]
            && !self.taken[site].contains(&node)
            && self.rivals[site].iter().all(|rival| !self.taken[*rival].contains(&node))
    }

    fn pick(&self, site: usize) -> Option<usize> {
        let open = (0..self.nodes.len()).filter(|node| self.is_open(site, *node));
        let rivals = |is: &[Vec<bool>], node: usize| {
            self.rivals[site].iter().filter(|rival| is[**rival][node]).count()
        };
        let drafted = |node: usize| {
            let by = self.taken.iter().zip(self.rivals);
            by.filter(|(taken, rivals)| !rivals.is_empty() && taken.contains(&node)).count()
        };
        let is_tight = self.aim == Aim::Fit && self.taken[site].is_empty();
        open.min_by_key(|node| {
            let zone = &self.nodes[*node].zone;
            let own = self.taken[site].iter().filter(|own| self.nodes[**own].zone == *zone).count();
            let drafted = drafted(*node);
            // Where sites are together that may be, more nodes are left for those that may not.
            let together = Reverse(if is_tight { drafted } else { 0 });
            // What others cannot use is nobody's loss.
            let (wanted, met) = (rivals(&self.may, *node), rivals(&self.has, *node));
            (wanted, !self.has[site][*node], met, own, together, drafted, *node)
        })
    }

    /// Has a site use the node on which it meets the fewest rivals.
    fn squeeze(&mut self, site: usize) {
        let may = (0..self.nodes.len()).filter(|node| self.may[site][*node]);
        let node = may.min_by_key(|node| {
            let met = self.rivals[site].iter().filter(|rival| self.taken[**rival].contains(node));
            (met.count(), !self.has[site][*node], *node)
        });
        self.taken[site].extend(node);
    }
}
