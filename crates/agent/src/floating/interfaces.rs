//! This machine's addresses and its neighbours', by `ip` (iproute2).

use std::io;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use pressroom_model::floating::Floating;
use pressroom_runtime::clock;

/// Longest wait until a neighbour has answered: on a network of one's own it is a matter of a millisecond.
const ANSWER: Duration = Duration::from_millis(400);

/// Addresses of this machine with the interface of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interfaces(Vec<(IpAddr, String)>);

impl Interfaces {
    /// Asks the kernel.
    pub(super) fn look() -> io::Result<Self> {
        Ok(Self::read(&ip(&["-o", "address", "show"])?))
    }

    /// One line an address: `2: eth0    inet 10.0.0.1/24 brd …`.
    fn read(text: &str) -> Self {
        let line = |line: &str| {
            let mut words = line.split_whitespace().skip(1);
            let interface = words.next()?.split('@').next()?.to_owned();
            let address = words.nth(1)?.split('/').next()?.parse().ok()?;
            Some((address, interface))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// The interface that has an address.
    pub(super) fn of(&self, address: IpAddr) -> Option<String> {
        self.0.iter().find(|(it, _)| *it == address).map(|(_, interface)| interface.clone())
    }
}

/// The hardware address that answers for an address on a network that we are on, asked anew; `None`: nobody does, or it is beyond a router.
pub(super) fn who_answers(address: IpAddr) -> io::Result<Option<String>> {
    ip(&["neigh", "flush", "to", &address.to_string()])?;
    find(address, |is_fresh| is_fresh)
}

/// The hardware address of a neighbour, also if it was heard some time ago.
pub(super) fn hardware_of(address: IpAddr) -> io::Result<Option<String>> {
    find(address, |_| true)
}

fn find(address: IpAddr, is_good: impl Fn(bool) -> bool) -> io::Result<Option<String>> {
    // Whoever wants to send has to find out; that it arrives does not matter (port 9 is `discard`).
    let own =
        if address.is_ipv4() { IpAddr::from([0, 0, 0, 0]) } else { Ipv6Addr::UNSPECIFIED.into() };
    let until = clock::now() + ANSWER;
    loop {
        let sent = UdpSocket::bind((own, 0)).and_then(|socket| socket.send_to(b"?", (address, 9)));
        if sent.is_err() {
            return Ok(None);
        }
        match hardware(&ip(&["neigh", "show", "to", &address.to_string()])?) {
            Some((theirs, is_fresh)) if is_good(is_fresh) => return Ok(Some(theirs)),
            _ if clock::now() > until => return Ok(None),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The hardware address in `10.0.0.9 dev eth0 lladdr 02:00:00:00:00:09 REACHABLE`, and whether it answered lately.
fn hardware(said: &str) -> Option<(String, bool)> {
    let line = said.lines().find(|line| line.contains(" lladdr "))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "lladdr").skip(1);
    let theirs = words.next()?.to_owned();
    Some((theirs, words.any(|word| ["REACHABLE", "PERMANENT", "NOARP"].contains(&word))))
}

/// Takes an address off an interface.
pub(super) fn take_off(floating: &Floating, interface: &str) -> io::Result<()> {
    ip(&["address", "del", &floating.to_string(), "dev", interface]).map(drop)
}

fn ip(words: &[&str]) -> io::Result<String> {
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output();
    let output = output.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot run `ip` (package iproute2): {error}"))
    })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(io::Error::other(format!("`ip {}`: {}", words.join(" "), said.trim())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_their_interfaces() {
        let text = "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever\n\
            2: eth0    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth0\\ x\n\
            2: eth0    inet6 2001:db8::1/64 scope global \\  x\n";
        let read = Interfaces::read(text);
        let of = |address: &str| read.of(address.parse().expect("an address"));
        assert_eq!(of("10.0.0.1").as_deref(), Some("eth0"));
        assert_eq!(of("2001:db8::1").as_deref(), Some("eth0"));
        assert_eq!(of("127.0.0.1").as_deref(), Some("lo"));
        assert_eq!(of("10.0.0.2"), None);
        assert_eq!(
            Interfaces::look().expect("`ip` runs").of(IpAddr::from([127, 0, 0, 1])).as_deref(),
            Some("lo")
        );
    }

    #[test]
    fn a_neighbour_is_one_that_answered_lately() {
        let check = |said: &str, expected: Option<(&str, bool)>| {
            let expected = expected.map(|(theirs, lately)| (theirs.to_owned(), lately));
            assert_eq!(hardware(said), expected, "{said}");
        };
        check(
            "10.0.0.9 dev eth0 lladdr 02:00:00:00:00:09 REACHABLE \n",
            Some(("02:00:00:00:00:09", true)),
        );
        check(
            "10.0.0.9 dev eth0 lladdr 02:00:00:00:00:09 router STALE",
            Some(("02:00:00:00:00:09", false)),
        );
        check("10.0.0.9 dev eth0 FAILED", None);
        check("", None);
    }
}
