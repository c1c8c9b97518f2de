//! What a lab is, and its file `lab.json`.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::up::Wish;
use crate::{LabError, io};

/// A lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lab {
    /// Tells its interfaces and namespaces apart from those of other labs.
    pub mark: String,
    /// What it serves.
    pub site: Site,
    /// Where visitors are.
    pub client: Client,
    /// The hosts.
    pub nodes: Vec<Node>,
    /// Floating addresses, each of which is on one host at a time.
    #[serde(default)]
    pub addresses: Vec<Ipv4Addr>,
    /// Each host is a Pressroom of its own.
    #[serde(default)]
    pub is_standalone: bool,
}

/// What is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Its name.
    pub name: String,
    /// Its host name.
    pub host: String,
}

/// Where visitors are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// The name of the network namespace.
    pub netns: String,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its failure domain.
    pub zone: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The name of its network namespace.
    pub netns: String,
    /// Its data directory.
    pub data: PathBuf,
    /// The database is there.
    #[serde(default)]
    pub database: bool,
    /// It leads.
    #[serde(default)]
    pub leader: bool,
    /// Its first process, by the machine's number and its start time.
    #[serde(default)]
    pub init: Option<(i32, u64)>,
}

/// Most hosts: floating addresses and the client's are behind them.
pub const MOST: usize = 200;
/// Most floating addresses.
pub const MOST_ADDRESSES: u8 = 40;

impl Lab {
    /// A lab in this folder, with nothing made yet.
    pub fn new(
        folder: &Path,
        count: usize,
        zones: &[String],
        site: &str,
    ) -> Result<Self, LabError> {
        if count == 0 || count > MOST {
            return Err(LabError::Wish(format!(
                "{count} nodes: between 1 and {MOST} are possible"
            )));
        }
        if zones.is_empty() {
            return Err(LabError::Wish("name at least one zone".into()));
        }
        let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
        let mark: String = digest.iter().take(3).map(|byte| format!("{byte:02x}")).collect();
        // A network of its own in 10.64.0.0/10, which few people use.
        let [second, third] = [64 + digest[3] % 64, digest[4]];
        let network = [10, second, third];
        Ok(Self {
            site: Site { name: site.to_owned(), host: format!("{site}.test") },
            client: Client { netns: format!("pr{mark}-c") },
            nodes: (1..=count).map(|n| host(folder, &mark, network, n, zones)).collect(),
            addresses: Vec::new(),
            is_standalone: false,
            mark,
        })
    }

    /// Adds hosts, up to so many, if that makes of it what is wished for: a cluster becomes a bigger one, and a host by itself the first
    /// of one. Whether it did.
    pub(crate) fn grow(&mut self, folder: &Path, wish: &Wish) -> Result<bool, LabError> {
        let there = self.nodes.len();
        let may = !wish.is_standalone && (!self.is_standalone || there == 1);
        let is_first = self.is_as_wished(there, &wish.zones, &wish.site, self.is_standalone);
        if !may || !is_first || wish.nodes <= there {
            return Ok(false);
        }
        let wanted = Self::new(folder, wish.nodes, &wish.zones, &wish.site)?;
        self.nodes.extend(wanted.nodes.into_iter().skip(there));
        self.is_standalone = false;
        Ok(true)
    }

    /// The bridge that all are on.
    pub fn bridge(&self) -> String {
        format!("pr{}", self.mark)
    }

    /// The machine's end of a host's cable; the client's is number 0.
    pub fn cable(&self, number: usize) -> String {
        format!("pv{}{number}", self.mark)
    }

    /// The client's address.
    pub fn client_address(&self) -> Ipv4Addr {
        let [a, b, c, _] = self.nodes[0].address.octets();
        Ipv4Addr::new(a, b, c, 250)
    }

    /// So many floating addresses.
    pub fn float(&mut self, count: u8) -> Result<(), LabError> {
        if count > MOST_ADDRESSES {
            let most = format!("{count} addresses: at most {MOST_ADDRESSES} are possible");
            return Err(LabError::Wish(most));
        }
        let [a, b, c, _] = self.nodes[0].address.octets();
        self.addresses = (1..=count).map(|n| Ipv4Addr::new(a, b, c, 200 + n)).collect();
        Ok(())
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join("lab.json")
    }

    /// The one in this folder.
    pub fn read(folder: &Path) -> Result<Self, LabError> {
        let path = Self::path(folder);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LabError::None(folder.display().to_string()));
            }
            read => read.map_err(io(path.display().to_string()))?,
        };
        serde_json::from_slice(&bytes)
            .map_err(|error| LabError::Wish(format!("{}: {error}", path.display())))
    }

    /// Writes it down.
    pub fn write(&self, folder: &Path) -> Result<(), LabError> {
        let (path, fresh) = (Self::path(folder), folder.join(".lab.json.new"));
        let text = serde_json::to_vec_pretty(self).expect("plain data");
        std::fs::write(&fresh, text)
            .and_then(|()| std::fs::rename(&fresh, &path))
            .map_err(io(path.display().to_string()))
    }

    /// Changes what is written down: others who change it at this moment wait, so no change is lost.
    pub fn change<T>(
        folder: &Path,
        work: impl FnOnce(&mut Self) -> Result<T, LabError>,
    ) -> Result<T, LabError> {
        let turn = Self::turn(folder)?;
        let mut lab = Self::read(folder)?;
        let done = work(&mut lab);
        // Also what was done before something failed is true.
        lab.write(folder)?;
        drop(turn);
        done
    }

    /// The right to change it, until the file is closed. It is the folder's, so nothing is left of it.
    pub(crate) fn turn(folder: &Path) -> Result<File, LabError> {
        match File::open(folder).and_then(|file| file.lock().map(|()| file)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(LabError::None(folder.display().to_string()))
            }
            turn => turn.map_err(io(folder.display().to_string())),
        }
    }

    /// Whether a lab that is wished for is this one.
    pub fn is_as_wished(&self, count: usize, zones: &[String], site: &str, alone: bool) -> bool {
        let zones = (0..count).map(|at| zones.get(at % zones.len().max(1)));
        self.nodes.iter().map(|node| Some(&node.zone)).eq(zones)
            && self.site.name == site
            && self.is_standalone == alone
    }

    /// The hosts of a name, or of `zone:NAME`.
    pub fn meant(&self, whom: &str) -> Result<Vec<usize>, LabError> {
        let is_meant = |node: &Node| match whom.strip_prefix("zone:") {
            Some(zone) => node.zone == zone,
            None => node.name == whom,
        };
        let meant: Vec<usize> =
            (0..self.nodes.len()).filter(|at| is_meant(&self.nodes[*at])).collect();
        let mut names: Vec<String> = self.nodes.iter().map(|node| node.name.clone()).collect();
        let zones: BTreeSet<&str> = self.nodes.iter().map(|node| node.zone.as_str()).collect();
        names.extend(zones.into_iter().map(|zone| format!("zone:{zone}")));
        match meant.is_empty() {
            true => Err(LabError::Unknown(whom.to_owned(), names.join(", "))),
            false => Ok(meant),
        }
    }
}

/// The host of a number.
fn host(folder: &Path, mark: &str, network: [u8; 3], n: usize, zones: &[String]) -> Node {
    let [first, second, third] = network;
    Node {
        name: format!("n{n}"),
        zone: zones[(n - 1) % zones.len()].clone(),
        address: Ipv4Addr::new(first, second, third, u8::try_from(n).unwrap_or(u8::MAX)),
        netns: format!("pr{mark}-n{n}"),
        data: folder.join(format!("n{n}")),
        database: false,
        leader: false,
        init: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_dealt_to_zones_and_two_labs_share_nothing() {
        let zones = ["a", "b"].map(str::to_owned);
        let lab = Lab::new(Path::new("/x"), 5, &zones, "blog").expect("a lab");
        let dealt: Vec<&str> = lab.nodes.iter().map(|node| node.zone.as_str()).collect();
        assert_eq!(dealt, ["a", "b", "a", "b", "a"]);
        assert_eq!(lab.meant("zone:b").expect("a zone"), [1, 3]);
        assert_eq!(lab.meant("n5").expect("a node"), [4]);
        assert!(matches!(lab.meant("n6"), Err(LabError::Unknown(..))));
        let other = Lab::new(Path::new("/y"), 5, &zones, "blog").expect("a lab");
        assert_ne!(lab.bridge(), other.bridge());
        let mut floating = lab.clone();
        floating.float(MOST_ADDRESSES).expect("addresses");
        assert!(floating.addresses.iter().all(|it| *it != lab.client_address()));
        assert!(floating.float(MOST_ADDRESSES + 1).is_err());
        assert!(lab.is_as_wished(5, &zones, "blog", false));
        assert!(!lab.is_as_wished(4, &zones, "blog", false));
        assert!(!lab.is_as_wished(5, &zones[..1], "blog", false));
        assert!(!lab.is_as_wished(5, &zones, "shop", false));
        assert!(!lab.is_as_wished(5, &zones, "blog", true));
        // Another lab is not made of it, a bigger one is.
        let wish = |nodes, is_standalone| Wish {
            nodes,
            zones: zones.to_vec(),
            site: "blog".into(),
            is_standalone,
            addresses: 0,
        };
        let mut grown = lab.clone();
        assert!(!grown.grow(Path::new("/x"), &wish(4, false)).expect("a lab"));
        assert!(!grown.grow(Path::new("/x"), &wish(6, true)).expect("a lab"));
        assert_eq!(grown, lab);
        assert!(grown.grow(Path::new("/x"), &wish(6, false)).expect("a lab"));
        assert!(grown.nodes.starts_with(&lab.nodes) && grown.nodes.len() == 6);
        // Names of interfaces have at most 15 characters.
        assert!(lab.cable(MOST).len() <= 15);
        assert!(Lab::new(Path::new("/x"), 0, &zones, "blog").is_err());
    }
}
