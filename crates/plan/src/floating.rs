//! Which node holds which floating address, and who comes next when it is lost.
//!
//! [`order`] ranks the nodes for every address. Every node works it out by itself from the same members, and from who of them rests,
//! so nothing has to be agreed on; who really holds an address is settled between the nodes by VRRP (RFC 9568), and whoever holds one
//! keeps it until it gives it away: the ranks decide elections, they start none.
//!
//! Always: the first places are spread evenly over nodes, and where nodes are equal over zones; the next in line is in another zone than
//! the first, if there is one; the order of what is given changes nothing. A node that rests is in no line, because one that
//! holds an address and is not preempted gives it away only by leaving; [`crate::rest`] sees to it that somebody stands.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pressroom_model::id::NodeName;

/// A node that may hold addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// See [`crate::rest`].
    pub rests: bool,
}

/// The line of every address, the first in line first.
pub fn order(addresses: &[IpAddr], nodes: &[Node]) -> BTreeMap<IpAddr, Vec<NodeName>> {
    let nodes: Vec<&Node> = nodes.iter().filter(|node| !node.rests).collect();
    let mut lines: BTreeMap<IpAddr, Vec<&Node>> =
        addresses.iter().map(|address| (*address, Vec::new())).collect();
    for _ in 0..nodes.len() {
        let mut taken = Taken::default();
        for (address, line) in &mut lines {
            let left = nodes.iter().filter(|node| line.iter().all(|it| it.name != node.name));
            let next = left.min_by_key(|node| {
                let with_first = line.first().is_some_and(|first| first.zone == node.zone);
                (with_first, taken.of(node), lot(address, &node.name), &node.name)
            });
            let Some(next) = next else { continue };
            taken.add(next);
            line.push(next);
        }
    }
    let names = |line: Vec<&Node>| line.into_iter().map(|node| node.name.clone()).collect();
    lines.into_iter().map(|(address, line)| (address, names(line))).collect()
}

/// VRRP's number of each address on its network: all nodes work out the same, and the numbers of addresses stay when others are
/// appended. Its last byte where that is free. Of more than 255 addresses the last have none.
pub fn numbers(addresses: &[IpAddr]) -> BTreeMap<IpAddr, u8> {
    let mut numbers: BTreeMap<IpAddr, u8> = BTreeMap::new();
    for address in addresses {
        let last = match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15],
        };
        let free = (0..255).map(|step| ((u16::from(last) + 254 + step) % 255 + 1) as u8);
        let taken = |number: &u8| numbers.values().any(|other| other == number);
        if let Some(number) = free.into_iter().find(|number| !taken(number)) {
            numbers.entry(*address).or_insert(number);
        }
    }
    numbers
}

/// VRRP's priority of a place in a line, 0 is the first: 254 and less, never 0 (which says that a node leaves) nor 255 (which is the
/// owner's, who never lets go; RFC 9568, 5.2.4).
pub fn priority(place: usize) -> u8 {
    u8::try_from(place).map_or(1, |place| 254u8.saturating_sub(place).max(1))
}

/// Who has how many of the places that are being given.
#[derive(Default)]
struct Taken<'a> {
    nodes: BTreeMap<&'a NodeName, usize>,
    zones: BTreeMap<&'a str, usize>,
}

impl<'a> Taken<'a> {
    fn of(&self, node: &Node) -> (usize, usize) {
        let node_has = self.nodes.get(&node.name).copied().unwrap_or_default();
        (node_has, self.zones.get(node.zone.as_str()).copied().unwrap_or_default())
    }

    fn add(&mut self, node: &'a Node) {
        *self.nodes.entry(&node.name).or_default() += 1;
        *self.zones.entry(&node.zone).or_default() += 1;
    }
}

/// A lot that is the same everywhere and in every version (FNV-1a), so that not the same node is first in every cluster.
fn lot(address: &IpAddr, node: &NodeName) -> u64 {
    let text = format!("{address} {}", node.as_str());
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |lot, byte| {
        (lot ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(list: &[(&str, &str, bool)]) -> Vec<Node> {
        let of = |(name, zone, rests): &(&str, &str, bool)| Node {
            name: name.parse().expect("a good name"),
            zone: (*zone).to_owned(),
            rests: *rests,
        };
        list.iter().map(of).collect()
    }

    fn addresses(count: u8) -> Vec<IpAddr> {
        (1..=count).map(|n| IpAddr::from([10, 0, 0, n])).collect()
    }

    /// How many lines each node has at a place.
    fn at(lines: &BTreeMap<IpAddr, Vec<NodeName>>, place: usize) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for line in lines.values() {
            *counts.entry(line[place].as_str().to_owned()).or_default() += 1;
        }
        counts
    }

    #[test]
    fn first_places_are_spread_over_nodes_and_zones() {
        let six = [
            ("n1", "a", false),
            ("n2", "b", false),
            ("n3", "c", false),
            ("n4", "a", false),
            ("n5", "b", false),
            ("n6", "c", false),
        ];
        let zone = |name: &NodeName| six.iter().find(|it| it.0 == name.as_str()).expect("one").1;
        for count in 1..=12 {
            let lines = order(&addresses(count), &nodes(&six));
            let most = at(&lines, 0).into_values().max().expect("some");
            assert_eq!(most, usize::from(count).div_ceil(6), "{count}: {lines:?}");
            if count == 3 {
                let mut zones: Vec<_> = lines.values().map(|line| zone(&line[0])).collect();
                zones.sort_unstable();
                assert_eq!(zones, ["a", "b", "c"]);
            }
            for line in lines.values() {
                assert_eq!(line.len(), 6);
                assert_ne!(zone(&line[0]), zone(&line[1]), "a zone that is lost takes both");
            }
        }
    }

    #[test]
    fn what_a_lost_node_held_goes_to_more_than_one() {
        let three = [("n1", "a", false), ("n2", "b", false), ("n3", "c", false)];
        let lines = order(&addresses(6), &nodes(&three));
        assert_eq!(at(&lines, 1).into_values().max(), Some(2), "{lines:?}");
    }

    #[test]
    fn the_order_of_what_is_given_changes_nothing() {
        let list = [("n1", "a", false), ("n2", "b", false), ("n3", "c", false)];
        let (mut turned, mut others) = (nodes(&list), addresses(5));
        turned.reverse();
        others.reverse();
        assert_eq!(order(&others, &turned), order(&addresses(5), &nodes(&list)));
    }

    #[test]
    fn a_node_that_rests_is_in_no_line() {
        let lines = order(&addresses(4), &nodes(&[("n1", "a", true), ("n2", "b", false)]));
        assert!(lines.values().all(|line| line.len() == 1 && line[0].as_str() == "n2"));
        assert!(order(&addresses(1), &[]).values().all(Vec::is_empty));
    }

    #[test]
    fn numbers_differ_and_stay_when_addresses_are_appended() {
        let mut list: Vec<IpAddr> =
            [[10, 0, 0, 10], [10, 0, 1, 10], [10, 0, 0, 0], [10, 0, 0, 255]]
                .map(IpAddr::from)
                .to_vec();
        let before = numbers(&list);
        assert_eq!(list.iter().map(|it| before[it]).collect::<Vec<_>>(), [10, 11, 255, 1]);
        list.extend(addresses(255));
        let after = numbers(&list);
        assert!(before.iter().all(|(address, number)| after[address] == *number));
        let all: std::collections::BTreeSet<u8> = after.values().copied().collect();
        assert_eq!((all.len(), all.contains(&0)), (255, false));
    }

    #[test]
    fn priorities_are_those_that_a_node_may_have() {
        let found: Vec<u8> = [0, 1, 252, 253, 254, 255, 256, 9999].map(priority).to_vec();
        assert_eq!(found, [254, 253, 2, 1, 1, 1, 1, 1]);
    }
}
