//! What git runs when somebody pushes (`proc-receive`): the agent is asked for every branch, its steps become `remote:` lines.
//!
//! Git and we speak in packets: four hexadecimal digits of length, then the text; `0000` ends a list. Standard output belongs to that.

use std::io::{self, Read, Write};

use pressroom_api::failure::Failure;
use pressroom_api::git::Pushed;
use pressroom_model::id::SiteName;

use super::{Context, Done};

/// More branches than anybody pushes at a time.
const MOST: usize = 1000;

pub(super) fn run(context: &Context<'_>, site: &SiteName) -> Done {
    let broken = |error: io::Error| {
        Failure::ours("git did not say what was pushed").cause(error).state("nothing was changed")
    };
    let mut input = io::stdin().lock();
    let _greeting = packets(&mut input).map_err(broken)?;
    let mut answer = Vec::new();
    write_packet(&mut answer, "version=1\n");
    answer.extend(b"0000");
    context.talk.raw(&answer);
    let pushed: Vec<Pushed> =
        packets(&mut input).map_err(broken)?.iter().filter_map(|l| read(l)).collect();
    let mut answer = Vec::new();
    for pushed in pushed {
        let line = match context.ask(context.client.push(site, &pushed, &context.talk.progress())) {
            Ok(()) => format!("ok {}\n", pushed.name),
            Err(failure) => {
                context.talk.failed(&failure);
                format!("ng {} {}\n", pushed.name, in_short(&failure))
            }
        };
        write_packet(&mut answer, &line);
    }
    answer.extend(b"0000");
    context.talk.raw(&answer);
    Ok(0)
}

/// `OLD NEW NAME`.
fn read(line: &str) -> Option<Pushed> {
    let mut words = line.trim_end().splitn(3, ' ').map(str::to_owned);
    Some(Pushed { old: words.next()?, new: words.next()?, name: words.next()? })
}

/// What stands behind `! [remote rejected] main -> main`.
fn in_short(failure: &Failure) -> String {
    let cause = failure.cause.as_deref().unwrap_or(&failure.what);
    let line = cause.lines().find(|line| !line.trim().is_empty()).unwrap_or(&failure.what);
    line.trim().chars().filter(|c| !c.is_control()).take(300).collect()
}

/// The packets up to the next end of a list.
fn packets(input: &mut impl Read) -> io::Result<Vec<String>> {
    let mut packets = Vec::new();
    loop {
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let odd = || io::Error::new(io::ErrorKind::InvalidData, "it is no packet");
        let text = std::str::from_utf8(&length).map_err(|_| odd())?;
        let length = usize::from_str_radix(text, 16).map_err(|_| odd())?;
        match length {
            0 => return Ok(packets),
            4.. if packets.len() < MOST => {
                let mut bytes = vec![0; length - 4];
                input.read_exact(&mut bytes)?;
                packets.push(String::from_utf8_lossy(&bytes).into_owned());
            }
            _ => return Err(odd()),
        }
    }
}

fn write_packet(out: &mut Vec<u8>, text: &str) {
    let written = write!(out, "{:04x}{text}", text.len() + 4);
    written.expect("memory takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_are_written() {
        let mut bytes = Vec::new();
        write_packet(&mut bytes, "a b refs/heads/main\n");
        write_packet(&mut bytes, "ä");
        bytes.extend(b"0000rest");
        let mut input = bytes.as_slice();
        let found = packets(&mut input).expect("packets");
        assert_eq!(found, ["a b refs/heads/main\n", "ä"]);
        assert_eq!(input, b"rest");
        let pushed = read(&found[0]).expect("a push");
        assert_eq!((pushed.old.as_str(), pushed.name.as_str()), ("a", "refs/heads/main"));
        for bad in ["", "0001", "zzzz", "0009ab"] {
            assert!(packets(&mut bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_reason_of_a_refusal_is_one_line() {
        let failure =
            Failure::yours("not moved").cause("\n`/`: PHP Parse error in a.php on line 3\nmore");
        assert_eq!(in_short(&failure), "`/`: PHP Parse error in a.php on line 3");
        assert_eq!(in_short(&Failure::yours("not moved")), "not moved");
    }
}
