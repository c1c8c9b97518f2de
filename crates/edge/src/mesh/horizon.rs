//! How far an edge has come in everybody's stream of purges. Pure.
//!
//! An edge that asks another one for a page says how far it has come itself. A page from one that knows less could be older than a
//! purge that the asker has confirmed already, so such a one does not answer.

use std::collections::BTreeMap;

use pressroom_model::id::NodeName;
use serde::{Deserialize, Serialize};

/// Where a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The stream: another one means that its edge forgot where it was.
    pub epoch: u64,
    /// The number of the next purge.
    pub next: u64,
}

/// The place in each stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Horizon(pub BTreeMap<NodeName, Place>);

impl Horizon {
    /// As it is written in a header: `n1=epoch.next,n2=epoch.next`.
    pub fn written(&self) -> String {
        let one =
            |(node, place): (&NodeName, &Place)| format!("{node}={:x}.{}", place.epoch, place.next);
        self.0.iter().map(one).collect::<Vec<_>>().join(",")
    }

    /// As it was written.
    pub fn of(text: &str) -> Option<Self> {
        let one = |word: &str| {
            let (node, place) = word.split_once('=')?;
            let (epoch, next) = place.split_once('.')?;
            let epoch = u64::from_str_radix(epoch, 16).ok()?;
            Some((node.parse().ok()?, Place { epoch, next: next.parse().ok()? }))
        };
        text.split(',').filter(|word| !word.is_empty()).map(one).collect::<Option<_>>().map(Self)
    }

    /// Whether all that `wanted` knows is known here; `own` is the node whose horizon this is, which knows its own purges.
    pub fn reaches(&self, wanted: &Self, own: &NodeName) -> bool {
        wanted.0.iter().filter(|(node, _)| *node != own).all(|(node, wanted)| {
            self.0.get(node).is_some_and(|it| it.epoch == wanted.epoch && it.next >= wanted.next)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_less_does_not_reach() {
        let own: NodeName = "n1".parse().expect("a name");
        let check = |known: &str, wanted: &str, expected: bool| {
            let [known, wanted] = [known, wanted].map(|text| Horizon::of(text).expect("good"));
            assert_eq!(known.reaches(&wanted, &own), expected, "{known:?} {wanted:?}");
        };
        check("n2=a.5,n3=b.1", "n2=a.5", true);
        check("n2=a.6", "n2=a.5", true);
        check("n2=a.4", "n2=a.5", false);
        check("n2=c.9", "n2=a.5", false);
        check("", "n2=a.5", false);
        check("", "n1=a.5", true);
        check("n2=a.5", "", true);
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let horizon = Horizon::of("n1=ffffffffffffffff.18,n2=0.1").expect("good");
        assert_eq!(Horizon::of(&horizon.written()), Some(horizon));
        for bad in ["n1", "n1=5", "n1=x.1", "n1=1.y", "N 1=1.1"] {
            assert_eq!(Horizon::of(bad), None, "{bad}");
        }
    }
}
