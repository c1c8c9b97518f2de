//! keepalived's configuration: a VRRP instance for each floating address (RFC 9568, over unicast), so that each moves by itself.
//!
//! Always: whoever holds an address keeps it until it gives it away (`nopreempt`, which needs `state BACKUP`), so a node that comes
//! back starts no move. What holds one must be fit, by a command that keepalived runs each second: a node that is not fit takes no part.

use std::net::IpAddr;

use pressroom_model::floating::Floating;
use pressroom_model::id::NodeName;
use serde::Serialize;

use crate::template::fill;

/// A node's part in floating addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The node.
    pub node: NodeName,
    /// Its interface, which the addresses are given to.
    pub interface: String,
    /// Its own address there.
    pub own: IpAddr,
    /// The addresses of the other nodes that may have them.
    pub peers: Vec<IpAddr>,
    /// The command that ends well while the node is fit to have them.
    pub script: String,
    /// The addresses that it takes part in.
    pub addresses: Vec<Instance>,
}

/// A node's part in one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The address.
    pub floating: Floating,
    /// VRRP's number of it (`virtual_router_id`).
    pub number: u8,
    /// The node's priority for it.
    pub priority: u8,
}

#[derive(Serialize)]
struct Fields<'a> {
    node: &'a str,
    interface: &'a str,
    own: IpAddr,
    peers: Vec<IpAddr>,
    script: &'a str,
    instances: Vec<InstanceFields>,
}

#[derive(Serialize)]
struct InstanceFields {
    name: String,
    number: u8,
    priority: u8,
    address: String,
    carrier: Option<String>,
}

/// The configuration file.
pub fn configuration(facts: &Facts) -> String {
    let mut peers = facts.peers.clone();
    if peers.is_empty() {
        // Without any, keepalived would speak to everybody on the network.
        peers.push(facts.own);
    }
    let instances = facts.addresses.iter().map(|it| InstanceFields {
        name: format!("address_{}", it.number),
        number: it.number,
        priority: it.priority,
        address: it.floating.to_string(),
        carrier: carrier(facts.own, it),
    });
    fill(
        include_str!("../templates/keepalived.conf.j2"),
        Fields {
            node: facts.node.as_str(),
            interface: &facts.interface,
            own: facts.own,
            peers,
            script: &facts.script,
            instances: instances.collect(),
        },
    )
}

/// An address of the family that nodes speak with each other, which nobody asks for: an instance must have one, and IPv6's first is
/// to be link-local (RFC 9568, 5.2.9). `None`: the floating address itself will do.
fn carrier(own: IpAddr, it: &Instance) -> Option<String> {
    match (own, it.floating.address) {
        (IpAddr::V4(_), IpAddr::V4(_)) => None,
        (IpAddr::V4(_), IpAddr::V6(_)) => {
            Some(format!("169.254.112.{}/32 dev lo scope host", it.number))
        }
        (IpAddr::V6(_), _) => Some(format!("fe80::7072:{:x}/128 dev lo", it.number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(own: &str, peers: &[&str], addresses: &[&str]) -> Facts {
        let address = |text: &str| text.parse().expect("an address");
        let instance = |(n, text): (usize, &&str)| Instance {
            floating: text.parse().expect("a floating address"),
            number: n as u8 + 10,
            priority: 254,
        };
        Facts {
            node: "n1".parse().expect("a good name"),
            interface: "eth0".into(),
            own: address(own),
            peers: peers.iter().map(|peer| address(peer)).collect(),
            script: "/x fit".into(),
            addresses: addresses.iter().enumerate().map(instance).collect(),
        }
    }

    #[test]
    fn each_address_moves_by_itself_and_nobody_is_preempted() {
        let text = configuration(&facts(
            "10.0.0.1",
            &["10.0.0.2", "10.0.0.3"],
            &["10.0.0.10/24", "10.0.0.11/24"],
        ));
        assert_eq!(text.matches("vrrp_instance ").count(), 2, "{text}");
        assert_eq!(text.matches("state BACKUP\n    nopreempt").count(), 2, "{text}");
        assert!(text.contains("10.0.0.2\n        10.0.0.3\n    }"), "{text}");
        assert!(!text.contains("excluded"), "{text}");
        assert_eq!(text.matches('{').count(), text.matches('}').count(), "{text}");
    }

    #[test]
    fn an_address_of_another_family_is_carried_by_one_of_the_nodes_own() {
        let check = |own: &str, floating: &str, carrier: &str| {
            let text = configuration(&facts(own, &[], &[floating]));
            assert!(text.contains(carrier), "{text}");
            let excluded = format!("excluded {{\n        {floating} dev eth0");
            assert!(text.contains(&excluded), "{text}");
            assert!(text.contains(&format!("unicast_peer {{\n        {own}\n")), "{text}");
        };
        check("10.0.0.1", "2001:db8::10/64", "169.254.112.10/32 dev lo scope host");
        check("2001:db8::1", "2001:db8::10/64", "fe80::7072:a/128 dev lo");
        check("2001:db8::1", "10.0.0.10/24", "fe80::7072:a/128 dev lo");
    }
}
