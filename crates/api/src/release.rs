//! Releases over the operator API: bringing code, looking at what there is, going back.

use std::path::PathBuf;

use pressroom_model::config::Source;
use pressroom_model::id::ReleaseId;
use pressroom_model::rollout::{Part, PartKind, Record};
use serde::{Deserialize, Serialize};

/// Code that an operator brings to a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// What.
    pub code: Code,
    /// Who brings it, for the list of releases.
    pub author: String,
    /// What is done, for the list of releases; empty: made from the source.
    #[serde(default)]
    pub message: String,
}

/// What is brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The source of the site's configuration, as it is now.
    Configured,
    /// Another source with a whole WordPress.
    Source(Source),
    /// A folder on the machine of the agent that is asked: a whole WordPress, or a `wp-content` alone.
    Folder(PathBuf),
    /// A `.tar.gz` or `.zip` on the machine of the agent that is asked, with a whole WordPress, and its SHA-256 if it is known.
    Archive {
        /// The file.
        path: PathBuf,
        /// What it must be, 64 hexadecimal digits.
        sha256: Option<String>,
    },
    /// A release that a node of the cluster made of what was brought there: see [`crate::operator::Operator::make_here`].
    Made {
        /// The release.
        release: ReleaseId,
        /// What it was made of, in words.
        source: String,
    },
}

/// What a deployment or a return has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The release that every new request runs.
    pub release: ReleaseId,
    /// The one before.
    pub from: Option<ReleaseId>,
}

/// What tells one release from another: paths, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// The earlier one.
    pub from: Option<ReleaseId>,
    /// The later one.
    pub to: Option<ReleaseId>,
    /// Only in the later one.
    pub added: Vec<String>,
    /// In both, but different.
    pub changed: Vec<String>,
    /// Only in the earlier one.
    pub removed: Vec<String>,
}

/// One release, looked into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// What the list says of it.
    #[serde(flatten)]
    pub record: Record,
    /// The commit that it was pushed with.
    pub commit: Option<String>,
    /// Who went back to it, if it serves because of that.
    pub back_by: Option<String>,
    /// Until when its instances run on without requests, milliseconds since 1970.
    pub parked_until_ms: Option<u64>,
    /// The next release that comes takes its place.
    pub is_collected_next: bool,
    /// WordPress, plugins and themes, by kind and name.
    pub parts: Vec<Part>,
    /// The release that served before it; `None`: the first, or it is not kept any more.
    pub predecessor: Option<ReleaseId>,
    /// Which files tell it from its predecessor.
    pub diff: Diff,
    /// Which versions tell it from its predecessor.
    pub moves: Vec<PartMove>,
}

/// A part that came, went, or has another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartMove {
    /// What it is to WordPress.
    pub kind: PartKind,
    /// Its folder or file.
    pub name: String,
    /// What it calls itself.
    pub title: String,
    /// The version before; `None`: it was not there.
    pub from: Option<String>,
    /// The version after; `None`: it is gone.
    pub to: Option<String>,
}

impl PartMove {
    /// What tells two lists of parts apart.
    pub fn between(before: &[Part], after: &[Part]) -> Vec<Self> {
        let find = |list: &[Part], part: &Part| {
            list.iter().find(|one| (one.kind, &one.name) == (part.kind, &part.name)).cloned()
        };
        let step = |part: &Part, from: Option<String>, to: Option<String>| Self {
            kind: part.kind,
            name: part.name.clone(),
            title: part.title.clone(),
            from,
            to,
        };
        let gone = before.iter().filter(|part| find(after, part).is_none());
        let mut moves: Vec<Self> =
            gone.map(|part| step(part, Some(part.version.clone()), None)).collect();
        for part in after {
            let from = find(before, part).map(|before| before.version);
            if from.as_ref() != Some(&part.version) {
                moves.push(step(part, from, Some(part.version.clone())));
            }
        }
        moves.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        moves
    }
}

/// A file that is not what its release says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Its path in the release.
    pub path: String,
    /// What is wrong.
    pub what: String,
}

/// Which release is meant, in a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// The release, or the beginning of its id; `None`: the one before the serving one, or the serving one.
    #[serde(default)]
    pub release: Option<String>,
    /// The release to compare with, likewise.
    #[serde(default)]
    pub with: Option<String>,
    /// Who asks, where something changes by it.
    #[serde(default)]
    pub author: String,
    /// With the tables as they were before WordPress changed them for a later release.
    #[serde(default)]
    pub tables: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_came_went_or_moved_are_told_and_no_others() {
        let part = |kind, name: &str, version: &str| Part {
            kind,
            name: name.into(),
            title: name.to_uppercase(),
            version: version.into(),
        };
        let before = [
            part(PartKind::Core, "", "6.1"),
            part(PartKind::Plugin, "a", "1"),
            part(PartKind::Plugin, "b", "1"),
            part(PartKind::Theme, "a", "1"),
        ];
        let after = [
            part(PartKind::Core, "", "6.1"),
            part(PartKind::Plugin, "a", "2"),
            part(PartKind::Plugin, "c", ""),
            part(PartKind::Theme, "a", "1"),
        ];
        let moves = PartMove::between(&before, &after);
        let told: Vec<_> = moves
            .iter()
            .map(|one| (one.name.as_str(), one.from.as_deref(), one.to.as_deref()))
            .collect();
        assert_eq!(
            told,
            [("a", Some("1"), Some("2")), ("b", Some("1"), None), ("c", None, Some(""))]
        );
    }
}
