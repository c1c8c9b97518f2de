//! Which edge owns a page: the one that is asked for it first, so that one render serves the cluster. Pure.
//!
//! Rendezvous hashing: every edge gives every pair of page and node a number, and the highest one owns the page. All edges that see
//! the same nodes agree without a word; when one goes, its pages alone move, and to all of the others alike.

use pressroom_model::id::NodeName;

/// The owner of a page among these nodes; `None`: there are none.
pub fn owner<'a>(
    page: &str,
    nodes: impl IntoIterator<Item = &'a NodeName>,
) -> Option<&'a NodeName> {
    nodes.into_iter().max_by_key(|node| (weight(page, node), *node))
}

fn weight(page: &str, node: &NodeName) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(node.as_str().as_bytes()).update(&[0]).update(page.as_bytes());
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("it has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn nodes(count: usize) -> Vec<NodeName> {
        (1..=count).map(|n| format!("n{n}").parse().expect("a name")).collect()
    }

    fn pages() -> impl Iterator<Item = String> {
        (0..6000).map(|n| format!("blog\nhttps://example.com\n/a-post-{n}/\n"))
    }

    #[test]
    fn pages_are_spread_evenly_and_in_any_order_of_nodes() {
        let all = nodes(6);
        let mut shares = BTreeMap::new();
        for page in pages() {
            let one = owner(&page, &all).expect("there are nodes");
            assert_eq!(Some(one), owner(&page, all.iter().rev()));
            *shares.entry(one).or_insert(0) += 1;
        }
        assert!(
            shares.len() == 6 && shares.values().all(|n| (850..1150).contains(n)),
            "{shares:?}"
        );
        assert_eq!(owner("page", &[]), None);
    }

    #[test]
    fn when_a_node_goes_its_pages_alone_move() {
        let all = nodes(6);
        for page in pages() {
            let before = owner(&page, &all).expect("there are nodes");
            let after = owner(&page, &all[1..]).expect("there are nodes");
            assert!(before == after || *before == all[0]);
        }
    }
}
