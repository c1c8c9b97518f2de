//! Floating addresses: this node's part in who has them.
//!
//! `plan::floating` ranks the nodes, keepalived settles between them who has an address ([`crate::engine::keepalived`]), [`fit`] tells it
//! whether this node may have one. Here is the rest: what keepalived is to do, and the observation of what is.
//!
//! Always: an address that somebody outside the cluster answers for is taken part in only once that has ended; what a keepalived that is
//! gone has left on an interface is taken off again; an agent that begins changes nothing of what runs.

pub mod fit;
mod interfaces;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pressroom_model::cluster::Role;
use pressroom_model::config::Config;
use pressroom_model::floating::Floating;
use pressroom_model::id::NodeName;
use pressroom_model::status::Address;
use pressroom_plan::floating::{Node, numbers, order, priority};
use pressroom_plan::machine::KEEPALIVED;
use pressroom_render::keepalived::{Facts, Instance};
use pressroom_runtime::shutdown::Shutdown;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::agent::{Agent, State};
use crate::apply::{Error, off_the_loop};
use crate::files;
use crate::host;
use crate::layout::Layout;
use crate::probe::expects_proxy;
use interfaces::Interfaces;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// So many looks until strangers are looked for again.
const STRANGERS: u64 = 10;

/// What the agent knows of floating addresses here.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What keepalived was given.
    given: Given,
    /// Addresses that are here.
    held: BTreeSet<IpAddr>,
    /// Addresses that somebody outside the cluster has, and who.
    refused: BTreeMap<IpAddr, String>,
    /// Whether this agent has looked already: what an agent before it has found free may be somebody's by now.
    has_looked: bool,
    /// keepalived's own child stood still at the last look.
    stood_still: Option<i32>,
}

/// What keepalived was given, kept for the next agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Given {
    /// The interface with the node's own address.
    interface: String,
    /// Addresses of which no stranger was found.
    addresses: BTreeSet<Floating>,
    /// Addresses that may be on an interface.
    left: BTreeSet<Floating>,
}

impl Given {
    fn path(layout: &Layout) -> PathBuf {
        layout.engine(KEEPALIVED).join("given.json")
    }

    fn read(layout: &Layout) -> Self {
        let read = std::fs::read(Self::path(layout)).ok();
        read.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    fn write(&self, layout: &Layout) -> io::Result<()> {
        files::folder(&layout.engine(KEEPALIVED), 0o755, None)?;
        let text = serde_json::to_vec(self).expect("plain data");
        files::write(&Self::path(layout), &text, 0o644, None).map(drop)
    }
}

impl Seen {
    /// As the agent before left it.
    pub(crate) fn read(layout: &Layout) -> Self {
        Self { given: Given::read(layout), ..Self::default() }
    }

    /// Floating addresses that are here.
    pub(crate) fn held(&self) -> BTreeSet<IpAddr> {
        self.held.clone()
    }

    /// Those that are not taken part in, and why.
    pub(crate) fn refused(&self) -> BTreeMap<IpAddr, String> {
        self.refused.clone()
    }
}

impl Agent {
    /// This node's part in floating addresses; `None`: it has none.
    pub(crate) fn part_in_addresses(&self, config: &Config, state: &State) -> Option<Facts> {
        let own = self.cluster.as_ref()?.membership();
        let given = &state.floating.given;
        // Visitors of an address are for who serves.
        if own.removed_ms > 0 || !self.users.are_separate() || given.interface.is_empty() {
            return None;
        }
        let edges =
            || state.known.nodes.iter().filter(|(_, node)| node.roles.contains(&Role::Edge));
        let nodes: Vec<Node> = edges()
            .map(|(name, node)| Node {
                name: name.clone(),
                zone: node.zone.clone(),
                rests: state.known.rests(name, Role::Edge),
            })
            .collect();
        let wanted = &config.cluster.addresses;
        let all: Vec<IpAddr> = wanted.iter().map(|it| it.address).collect();
        let (lines, numbers) = (order(&all, &nodes), numbers(&all));
        let instance = |floating: &Floating| {
            let place = lines.get(&floating.address)?.iter().position(|name| *name == own.node)?;
            let number = *numbers.get(&floating.address)?;
            Some(Instance { floating: *floating, number, priority: priority(place) })
        };
        let addresses: Vec<Instance> =
            wanted.iter().filter(|it| given.addresses.contains(it)).filter_map(instance).collect();
        if addresses.is_empty() {
            return None;
        }
        Some(Facts {
            // One that was drained says that it leaves: it is heard, too.
            peers: edges()
                .filter(|(name, _)| **name != own.node)
                .map(|(_, it)| it.address)
                .collect(),
            node: own.node,
            interface: given.interface.clone(),
            own: own.address,
            script: self.fitness(config)?,
            addresses,
        })
    }

    fn fitness(&self, config: &Config) -> Option<String> {
        let http = config.edge.http.first().map(|address| {
            let mut address = *address;
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => {
                    address.set_ip(IpAddr::from([127, 0, 0, 1]));
                }
                IpAddr::V6(ip) if ip.is_unspecified() => {
                    address.set_ip(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));
                }
                _ => {}
            }
            (address, expects_proxy(&config.edge, address.ip()))
        });
        let program = host::own_program().ok()?.display().to_string();
        let words = fit::arguments(&self.layout.edge_socket(), &self.sign_of_life(), http);
        Some([vec![program], words].concat().join(" "))
    }

    fn sign_of_life(&self) -> PathBuf {
        self.layout.engine(KEEPALIVED).join("alive")
    }

    /// Looks after floating addresses for as long as the agent runs.
    pub(crate) async fn keep_addresses(self: Arc<Self>, shutdown: Shutdown) {
        let mut told = String::new();
        for turn in 0.. {
            if shutdown.is_requested() {
                return;
            }
            let agent = Arc::clone(&self);
            let looked = off_the_loop(move || agent.look_after_addresses(turn)).await;
            let error = looked.err().map(|error| error.to_string()).unwrap_or_default();
            if !error.is_empty() && error != told {
                self.notice(format!("floating addresses: {error}"));
            }
            told = error;
            tokio::select! { () = shutdown.requested() => {}, () = tokio::time::sleep(LOOK) => {} }
        }
    }

    fn look_after_addresses(&self, turn: u64) -> Result<(), Error> {
        let Some(config) = self.config() else { return Ok(()) };
        let is_node = self.cluster.is_some();
        let wanted = if is_node { config.cluster.addresses.clone() } else { Vec::new() };
        let (mut given, has_looked) = {
            let mut state = self.state.lock();
            // Nobody knows yet whether keepalived runs.
            if state.keeper.is_none() {
                return Ok(());
            }
            let has_looked = std::mem::replace(&mut state.floating.has_looked, true);
            (state.floating.given.clone(), has_looked)
        };
        if (wanted.is_empty() && given == Given::default()) || !self.users.are_separate() {
            return Ok(());
        }
        if !wanted.is_empty() {
            self.give_sign_of_life()?;
        }
        let here = Interfaces::look()?;
        let running = self.running_keepalived();
        if running.is_none() {
            clear_up(&given, &here)?;
            given.left.clear();
            if !has_looked {
                given.addresses.clear();
            }
        }
        let given = self.judge(&wanted, &given, &here, turn)?;
        self.remember_addresses(&wanted, given, &here)?;
        self.wake_keepalived();
        self.tell_keepalived(&config, running)
    }

    fn give_sign_of_life(&self) -> Result<(), Error> {
        files::folder(&self.layout.engine(KEEPALIVED), 0o755, None)?;
        Ok(std::fs::write(self.sign_of_life(), b"")?)
    }

    /// Its process, also while it ends: its addresses are its own affair until then.
    fn running_keepalived(&self) -> Option<i32> {
        let state = self.state.lock();
        let process = state.processes.iter().find(|process| process.spec.name == KEEPALIVED)?;
        process.pid
    }

    /// Which addresses may be given, from what was: an address that is new must be nobody's.
    fn judge(
        &self,
        wanted: &[Floating],
        given: &Given,
        here: &Interfaces,
        turn: u64,
    ) -> Result<Given, Error> {
        let own = self.cluster.as_ref().filter(|_| !wanted.is_empty());
        let own = own.map(|cluster| cluster.membership().address);
        let interface = own.and_then(|own| here.of(own)).unwrap_or_default();
        let mut next = Given { interface, left: given.left.clone(), ..Given::default() };
        let mut refused = BTreeMap::new();
        let known = self.state.lock().floating.refused.clone();
        for floating in wanted {
            let address = floating.address;
            if given.addresses.contains(floating) || here.of(address).is_some() {
                next.addresses.insert(*floating);
            } else if known.contains_key(&address) && !turn.is_multiple_of(STRANGERS) {
                refused.extend(known.get_key_value(&address).map(|(of, who)| (*of, who.clone())));
            } else {
                // Looking takes its time.
                self.give_sign_of_life()?;
                match self.stranger_at(address)? {
                    None => drop(next.addresses.insert(*floating)),
                    Some(who) => drop(refused.insert(address, who)),
                }
            }
        }
        for (address, who) in refused.iter().filter(|(address, _)| !known.contains_key(address)) {
            self.notice(format!("the floating address {address} is not taken: {who}"));
        }
        self.state.lock().floating.refused = refused;
        next.left.extend(next.addresses.iter().copied());
        Ok(next)
    }

    /// Who answers for an address, if it is none of us.
    fn stranger_at(&self, address: IpAddr) -> Result<Option<String>, Error> {
        let members: Vec<IpAddr> = {
            let state = self.state.lock();
            state.known.nodes.values().map(|node| node.address).collect()
        };
        Ok(stranger(address, &members)?)
    }

    fn remember_addresses(
        &self,
        wanted: &[Floating],
        given: Given,
        here: &Interfaces,
    ) -> Result<(), Error> {
        let held: BTreeSet<IpAddr> =
            wanted.iter().map(|it| it.address).filter(|it| here.of(*it).is_some()).collect();
        let (is_news, is_other) = {
            let floating = &self.state.lock().floating;
            (floating.held != held || floating.given != given, floating.given != given)
        };
        if is_other {
            // Written first: whoever clears up must find it.
            given.write(&self.layout)?;
        }
        if is_news {
            let mut state = self.state.lock();
            state.floating.held = held;
            state.floating.given = given;
            drop(state);
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Ends keepalived's child that was stopped: it does not let go of what others have taken over, and its parent starts another one.
    fn wake_keepalived(&self) {
        let file = self.layout.engine(KEEPALIVED).join("vrrp.pid");
        let child = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
        let stopped = child.filter(|pid| host::stat(*pid).is_some_and(host::ProcStat::is_stopped));
        let before = std::mem::replace(&mut self.state.lock().floating.stood_still, stopped);
        if let Some(pid) = stopped.filter(|_| before == stopped) {
            self.notice(format!("killing keepalived's process {pid}, which is stopped"));
            // Gone already is as good.
            let _ = Pid::from_raw(pid).map(|pid| kill_process(pid, Signal::KILL));
        }
    }

    /// Has a running keepalived take up what changed.
    fn tell_keepalived(&self, config: &Config, running: Option<i32>) -> Result<(), Error> {
        let engines = self.engines(config)?;
        let (Some(keepalived), Some(pid)) = (&engines.keepalived, running) else { return Ok(()) };
        let is_same = self.state.lock().processes.iter().any(|process| {
            process.spec.name == KEEPALIVED
                && !process.is_stopping
                && process.spec.env.get(crate::engine::FINGERPRINT)
                    == Some(&keepalived.fingerprint())
        });
        if !is_same || keepalived.is_written() {
            return Ok(());
        }
        keepalived.write()?;
        tracing::info!("telling keepalived of its new part");
        match Pid::from_raw(pid) {
            Some(pid) => Ok(kill_process(pid, Signal::HUP).map_err(io::Error::from)?),
            None => Ok(()),
        }
    }

    /// Floating addresses as people are shown them.
    pub(crate) fn shown_addresses(&self, state: &State) -> Vec<Address> {
        let wanted = state.config.iter().flat_map(|config| &config.cluster.addresses);
        let own = self.own_name();
        let who = |address: &IpAddr| -> Vec<NodeName> {
            let others = state.known.reports.iter().filter(|(name, _)| Some(*name) != own.as_ref());
            let others = others.filter(|(_, (report, _))| report.addresses.contains(address));
            let ours = own.iter().filter(|_| state.floating.held.contains(address)).cloned();
            ours.chain(others.map(|(name, _)| name.clone())).collect()
        };
        let shown = |floating: &Floating| {
            let nodes = who(&floating.address);
            let refused = state.floating.refused.get(&floating.address);
            let because = match refused {
                Some(why) => why.clone(),
                None if own.is_none() => "this machine is in no cluster".to_owned(),
                None if !self.users.are_separate() => {
                    "only root gives a machine addresses".to_owned()
                }
                None if nodes.is_empty() => "no node has it".to_owned(),
                None => String::new(),
            };
            Address { address: floating.address, nodes, because }
        };
        wanted.map(shown).collect()
    }
}

/// Who answers for an address on our network, if it is none of these.
pub(crate) fn stranger(address: IpAddr, members: &[IpAddr]) -> io::Result<Option<String>> {
    let Some(theirs) = interfaces::who_answers(address)? else { return Ok(None) };
    for member in members {
        if interfaces::hardware_of(*member)?.as_ref() == Some(&theirs) {
            return Ok(None);
        }
    }
    Ok(Some(format!(
        "{theirs} answers for it, which is no node of this cluster; take it off that machine, or out of `cluster.addresses`"
    )))
}

/// Takes off what a keepalived that is gone has left.
fn clear_up(given: &Given, here: &Interfaces) -> Result<(), Error> {
    for floating in &given.left {
        if let Some(interface) = here.of(floating.address) {
            tracing::warn!(address = %floating.address, "it was left behind; taking it off");
            interfaces::take_off(floating, &interface)?;
        }
    }
    Ok(())
}
