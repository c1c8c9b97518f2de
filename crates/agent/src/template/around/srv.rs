//! One question to the machine's resolvers: which services a name has (RFC 1035, RFC 2782).
//!
//! The system's own resolver answers for addresses only. Over UDP; an answer that was cut off is asked for again over TCP.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use pressroom_render::confd::Service;

const SRV: u16 = 33;
const WAIT: Duration = Duration::from_secs(2);
/// Names in an answer that point at each other, at most.
const HOPS: usize = 64;

/// The services of a name; none, when nobody knows any.
pub(super) fn look_up(name: &str) -> Vec<Service> {
    let resolvers = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolvers = resolvers
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok());
    for resolver in resolvers.take(3) {
        match ask(SocketAddr::new(resolver, 53), name) {
            Ok(found) => return found,
            Err(error) => tracing::warn!(%resolver, name, %error, "a resolver did not answer"),
        }
    }
    Vec::new()
}

/// Asks one resolver.
pub(super) fn ask(resolver: SocketAddr, name: &str) -> io::Result<Vec<Service>> {
    let id = rand::random();
    let question = question(id, name).ok_or(io::ErrorKind::InvalidInput)?;
    let local = if resolver.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local)?;
    socket.set_read_timeout(Some(WAIT))?;
    socket.connect(resolver)?;
    socket.send(&question)?;
    let mut answer = [0; 4096];
    let length = socket.recv(&mut answer)?;
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let is_cut = answer[2] & 0x02 != 0;
    if !is_cut {
        return read(&answer[..length], id).ok_or_else(bad);
    }
    let mut stream = TcpStream::connect_timeout(&resolver, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    let length = u16::try_from(question.len()).map_err(|_| bad())?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&question)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    read(&answer, id).ok_or_else(bad)
}

fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut question = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    question.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|it| (1..=63).contains(it))?;
        question.push(length);
        question.extend(label.bytes());
    }
    question.push(0);
    question.extend(SRV.to_be_bytes());
    question.extend([0, 1]);
    (question.len() <= 12 + 255 + 4).then_some(question)
}

/// The services in an answer; `None`: it is none to our question.
fn read(answer: &[u8], id: u16) -> Option<Vec<Service>> {
    let number = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let (flags, code) = (*answer.get(2)?, *answer.get(3)? & 0x0f);
    // No such name (3) is an answer as well.
    if number(0)? != id || flags & 0x80 == 0 || !matches!(code, 0 | 3) {
        return None;
    }
    let mut at = 12;
    for _ in 0..number(4)? {
        at = name(answer, at)?.1 + 4;
    }
    let mut found = Vec::new();
    for _ in 0..number(6)? {
        at = name(answer, at)?.1;
        let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
        at += 10;
        if kind == SRV {
            let target = name(answer, at + 6)?.0;
            let [priority, weight, port] = [number(at)?, number(at + 2)?, number(at + 4)?];
            found.push(Service { target, port, priority, weight });
        }
        at += length;
    }
    Some(found)
}

/// The name at a place, and where the place after it is.
fn name(answer: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut after = None;
    for _ in 0..HOPS * 2 {
        let length = usize::from(*answer.get(at)?);
        match length {
            0 => return Some((text, after.unwrap_or(at + 1))),
            0xC0.. => {
                after = after.or(Some(at + 2));
                at = (length & 0x3f) << 8 | usize::from(*answer.get(at + 1)?);
            }
            1..=63 => {
                text.push_str(&String::from_utf8_lossy(answer.get(at + 1..at + 1 + length)?));
                text.push('.');
                at += 1 + length;
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with two services, the second one's target by a pointer into the first one's.
    fn answer() -> Vec<u8> {
        let mut answer = question(7, "_web._tcp.example.com").expect("a question");
        answer[2] |= 0x80;
        answer[7] = 2;
        for (port, target) in [(80_u16, &b"\x01a\xC0\x16"[..]), (81, b"\x01b\xC0\x16")] {
            answer.extend([0xC0, 12, 0, 33, 0, 1, 0, 0, 0, 9]);
            answer.extend(u16::try_from(6 + target.len()).expect("short").to_be_bytes());
            answer.extend([0, 10, 0, 5]);
            answer.extend(port.to_be_bytes());
            answer.extend(target);
        }
        answer
    }

    #[test]
    fn services_are_read_and_names_followed() {
        let found = read(&answer(), 7).expect("an answer");
        let shown: Vec<String> = found
            .iter()
            .map(|it| format!("{}:{} {} {}", it.target, it.port, it.priority, it.weight))
            .collect();
        assert_eq!(shown, ["a.example.com.:80 10 5", "b.example.com.:81 10 5"]);
    }

    #[test]
    fn no_answer_makes_it_panic_or_turn_in_circles() {
        let whole = answer();
        assert_eq!(read(&whole, 8), None);
        for at in 0..whole.len() {
            let _any = read(&whole[..at], 7);
            for byte in [0, 12, 63, 64, 0xC0, 0xFF] {
                let mut other = whole.clone();
                other[at] = byte;
                let _any = read(&other, 7);
            }
        }
        let mut circle = whole[..12].to_vec();
        circle.extend([0xC0, 12]);
        assert_eq!(read(&circle, 7), None);
    }

    #[test]
    fn a_resolver_is_asked() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = server.local_addr().expect("an address");
        let served = std::thread::spawn(move || {
            let mut question = [0; 512];
            let (_, from) = server.recv_from(&mut question).expect("asked");
            let mut answer = answer();
            answer[..2].copy_from_slice(&question[..2]);
            server.send_to(&answer, from).expect("answered");
        });
        assert_eq!(ask(address, "_web._tcp.example.com").expect("found").len(), 2);
        served.join().expect("served");
    }
}
