//! Links between pages lead somewhere.

use std::path::Path;

use super::{Findings, Text};

pub(super) fn check(root: &Path, texts: &[Text], findings: &mut Findings) {
    for text in texts.iter().filter(|text| text.path.ends_with(".md")) {
        let folder = Path::new(&text.path).parent().unwrap_or(Path::new(""));
        for target in targets(&text.text) {
            if !root.join(folder).join(target).exists() {
                findings
                    .complain(format!("`{}` links to `{target}`, which is not there", text.path));
            }
        }
    }
}

/// The files that a page links to; addresses and places within the page are none.
fn targets(page: &str) -> impl Iterator<Item = &str> {
    let prose = page.split("```").step_by(2);
    let links =
        prose.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
    links
        .filter(|target| {
            !target.contains("://") && !target.starts_with('#') && !target.starts_with("mailto:")
        })
        .map(|target| target.split('#').next().unwrap_or(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_looked_for() {
        let page = "[a](b.md) [c](d/e.md#f) [g](https://h.example) [i](#j)\n```text\n[k](l.md)\n```\n[m](n)";
        assert_eq!(targets(page).collect::<Vec<_>>(), ["b.md", "d/e.md", "n"]);
    }
}
