//! Who rests.

use pressroom_model::id::NodeName;

/// A node that has a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// It was drained.
    pub is_drained: bool,
    /// It does its work, as far as is known.
    pub works: bool,
}

/// Whether one of these nodes, which all have the same role, rests in it: it was drained, and another one that was not does the work.
/// Where none is left that does, those that were drained do: visitors want answers, and somebody has to be asked to wake one.
pub fn rests(name: &NodeName, nodes: &[Node]) -> bool {
    let is_drained = nodes.iter().any(|it| it.name == *name && it.is_drained);
    is_drained && nodes.iter().any(|it| !it.is_drained && it.works)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_drained_rests_while_another_one_does_the_work() {
        let check = |nodes: &[(&str, bool, bool)], expected: bool| {
            let nodes: Vec<Node> = nodes
                .iter()
                .map(|(name, is_drained, works)| Node {
                    name: name.parse().expect("a name"),
                    is_drained: *is_drained,
                    works: *works,
                })
                .collect();
            let n1 = "n1".parse().expect("a name");
            assert_eq!(rests(&n1, &nodes), expected, "{nodes:?}");
        };
        check(&[("n1", false, true), ("n2", false, true)], false);
        check(&[("n1", false, false), ("n2", true, true)], false);
        check(&[("n2", false, true)], false);
        let drained = ("n1", true, true);
        check(&[drained, ("n2", false, true)], true);
        check(&[drained], false);
        check(&[drained, ("n2", true, true)], false);
        check(&[drained, ("n2", false, false)], false);
        check(&[drained, ("n2", false, false), ("n3", false, true)], true);
    }
}
