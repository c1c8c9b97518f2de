//! Sizes, openings, and what has no place in a file.

use super::{Findings, Text};

/// Past this a file surely holds a second concept.
const MOST_LINES: usize = 800;
/// Past this it is worth a look.
const MANY_LINES: usize = 400;

/// Traces of somebody's machine. Written in two parts, so that this file has none.
const TRACES: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("replace-", "with ="),
    concat!("_auth", "Token"),
];

pub(super) fn check(texts: &[Text], findings: &mut Findings) {
    for text in texts.iter().filter(|text| !text.path.ends_with("Cargo.lock")) {
        size(text, findings);
        opening(text, findings);
        traces(text, findings);
    }
}

fn is_code(path: &str) -> bool {
    [".rs", ".php", ".py", ".sh", ".js", ".mjs"].iter().any(|end| path.ends_with(end))
}

fn size(text: &Text, findings: &mut Findings) {
    let lines = text.text.lines().count();
    if !is_code(&text.path) || lines <= MANY_LINES {
        return;
    }
    let words = format!("`{}` has {lines} lines", text.path);
    let says_why = text.text.lines().take(60).any(|line| line.contains("Long because "));
    if lines > MOST_LINES && !says_why {
        findings.complain(format!(
            "{words}: look for a second concept, or open with a sentence `Long because …`"
        ));
    } else {
        findings.remark(words);
    }
}

fn opening(text: &Text, findings: &mut Findings) {
    let first = text.text.lines().next().unwrap_or_default();
    if text.is_rust() && (!first.starts_with("//! ") || first.len() < 12) {
        findings.complain(format!("`{}` does not open by saying what it is (`//! …`)", text.path));
    }
}

fn traces(text: &Text, findings: &mut Findings) {
    for (number, line) in (1..).zip(text.text.lines()) {
        if let Some(trace) = TRACES.iter().find(|trace| has(line, trace)) {
            findings.complain(format!(
                "`{}:{number}` has a trace of somebody's machine: `{trace}`",
                text.path
            ));
        }
    }
}

/// A trace that is a path counts at a path's beginning only: `src/work/` is none.
fn has(line: &str, trace: &str) -> bool {
    let inside =
        |before: &str| before.ends_with(|c: char| c.is_ascii_alphanumeric() || "._-}*".contains(c));
    line.match_indices(trace).any(|(at, _)| !(trace.starts_with('/') && inside(&line[..at])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, text: &str) -> usize {
        let mut findings = Findings::default();
        check(&[Text { path: path.into(), text: text.into() }], &mut findings);
        findings.complaints.len()
    }

    #[test]
    fn files_open_with_what_they_are_and_stay_small() {
        assert_eq!(complaints("crates/x/src/lib.rs", "//! The words of x.\n"), 0);
        assert_eq!(complaints("crates/x/src/lib.rs", "fn main() {}\n"), 1);
        assert_eq!(complaints("wordpress/a.php", &"\n".repeat(801)), 1);
        assert_eq!(
            complaints("wordpress/a.php", &format!("// Long because …\n{}", "\n".repeat(801))),
            0
        );
        assert_eq!(complaints("docs/long.md", &"\n".repeat(801)), 0);
    }

    #[test]
    fn traces_of_a_machine_are_found() {
        assert_eq!(complaints("a.md", &format!("see {}x", TRACES[0])), 1);
        assert_eq!(complaints("a.md", &format!("see src{}x", TRACES[0])), 0);
    }
}
