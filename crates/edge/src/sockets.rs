//! Listening sockets that were inherited, by what they are for.
//!
//! A name stands for an address and may occur several times, once per core. `http-2`, `https-2` … are further
//! addresses; `affirm-N` are the sockets on which PHP speaks, more than there are sites; the snapshot says whose each is.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use pressroom_runtime::inherited::Inherited;

use crate::client::Scheme;

/// Sockets by what they are for.
#[derive(Debug, Default)]
pub struct Sorted {
    /// Web sockets: the address' name, the scheme, the sockets of that address.
    pub web: Vec<(String, Scheme, Vec<TcpListener>)>,
    /// Affirmation sockets by name.
    pub affirm: Vec<(String, UnixListener)>,
    /// What other edges connect to.
    pub mesh: Option<TcpListener>,
}

/// Sorts sockets by their names; unknown names are logged and closed.
pub fn sort(sockets: Vec<Inherited>) -> Sorted {
    let mut sorted = Sorted::default();
    for Inherited { name, fd } in sockets {
        if name.starts_with("affirm-") {
            sorted.affirm.push((name, fd.into()));
        } else if name == crate::mesh::SOCKET {
            sorted.mesh = Some(fd.into());
        } else if let Some(scheme) = scheme(&name) {
            let listener = TcpListener::from(fd);
            match sorted.web.iter_mut().find(|(n, ..)| *n == name) {
                Some((_, _, listeners)) => listeners.push(listener),
                None => sorted.web.push((name, scheme, vec![listener])),
            }
        } else {
            tracing::warn!(name, "an inherited socket has a name that is not known");
        }
    }
    sorted
}

fn scheme(name: &str) -> Option<Scheme> {
    let base = name
        .split_once('-')
        .map_or(name, |(base, n)| if n.parse::<u16>().is_ok() { base } else { name });
    match base {
        "http" => Some(Scheme::Http),
        "https" => Some(Scheme::Https),
        _ => None,
    }
}

/// Deals the sockets of every address to `cores`: each core gets one of its own, or shares one.
pub fn deal(
    web: Vec<(String, Scheme, Vec<TcpListener>)>,
    cores: usize,
) -> std::io::Result<Vec<Vec<(Scheme, TcpListener)>>> {
    let mut dealt: Vec<Vec<(Scheme, TcpListener)>> = (0..cores).map(|_| Vec::new()).collect();
    for (_, scheme, listeners) in web {
        let count = listeners.len();
        for core in count..cores {
            dealt[core].push((scheme, listeners[core % count].try_clone()?));
        }
        for (at, listener) in listeners.into_iter().enumerate() {
            dealt[at % cores].push((scheme, listener));
        }
    }
    Ok(dealt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_a_socket_is_for() {
        for (name, wanted) in [
            ("http", Some(Scheme::Http)),
            ("https", Some(Scheme::Https)),
            ("http-2", Some(Scheme::Http)),
            ("https-3", Some(Scheme::Https)),
            ("https-x", None),
            ("console", None),
            ("", None),
        ] {
            assert_eq!(scheme(name), wanted, "{name}");
        }
    }

    #[test]
    fn every_core_gets_a_socket_of_every_address() {
        let socket = || TcpListener::bind("127.0.0.1:0").expect("a port");
        for (sockets, cores) in [(1, 1), (1, 4), (4, 2), (3, 2), (2, 2)] {
            let listeners = (0..sockets).map(|_| socket()).collect();
            let dealt = deal(vec![("http".into(), Scheme::Http, listeners)], cores).expect("dealt");
            assert!(dealt.iter().all(|mine| !mine.is_empty()), "{sockets} on {cores}");
            let total: usize = dealt.iter().map(Vec::len).sum();
            assert_eq!(total, sockets.max(cores));
        }
    }
}
