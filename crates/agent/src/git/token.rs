//! The token that opens a site's repository: made by us, shown once, kept as a digest.
//!
//! It has as much randomness as a key, so a plain digest cannot be guessed back; one for each site, and a new one ends the old.

use std::io;
use std::path::PathBuf;

use pressroom_model::id::SiteName;
use pressroom_model::secret::Secret;
use sha2::{Digest, Sha256};

use crate::layout::Layout;
use crate::{files, secrets};

const LENGTH: usize = 40;
/// What tokens begin with, so that they are known for what they are wherever they turn up.
const MARK: &str = "prt_";

fn file(layout: &Layout, site: &SiteName) -> PathBuf {
    layout.secrets().join(format!("git-{site}.sha256"))
}

/// Makes a token; one from before opens nothing any more.
pub fn make(layout: &Layout, site: &SiteName) -> io::Result<Secret> {
    let token = Secret::new(format!("{MARK}{}", secrets::random(LENGTH).reveal()));
    files::write(&file(layout, site), digest(token.reveal()).as_bytes(), 0o600, None)?;
    Ok(token)
}

/// Revokes a site's token; whether there was one.
pub fn revoke(layout: &Layout, site: &SiteName) -> io::Result<bool> {
    match std::fs::remove_file(file(layout, site)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(files::naming(&file(layout, site), &error)),
    }
}

/// Whether somebody made a token.
pub fn exists(layout: &Layout, site: &SiteName) -> bool {
    file(layout, site).is_file()
}

/// Whether this token opens the site's repository.
pub(super) fn opens(layout: &Layout, site: &SiteName, token: &str) -> bool {
    let Ok(known) = std::fs::read(file(layout, site)) else { return false };
    let given = digest(token);
    // The digests are compared whole: how long that takes says nothing.
    let difference = known.iter().zip(given.as_bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    known.len() == given.len() && difference == 0
}

fn digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_site_until_it_is_replaced_or_revoked() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let layout = Layout::new(folder.path());
        files::folder(&layout.secrets(), 0o700, None).expect("made");
        let (blog, shop): (SiteName, SiteName) =
            ("blog".parse().expect("a good name"), "shop".parse().expect("a good name"));
        assert!(!opens(&layout, &blog, ""));
        let first = make(&layout, &blog).expect("made");
        assert!(opens(&layout, &blog, first.reveal()) && !opens(&layout, &shop, first.reveal()));
        let second = make(&layout, &blog).expect("made");
        assert!(!opens(&layout, &blog, first.reveal()) && opens(&layout, &blog, second.reveal()));
        let kept = std::fs::read_to_string(file(&layout, &blog)).expect("a file");
        assert!(!kept.contains(second.reveal()));
        assert!(!opens(&layout, &blog, &kept), "the digest is no token");
        assert!(
            revoke(&layout, &blog).expect("revoked") && !revoke(&layout, &blog).expect("twice")
        );
        assert!(!opens(&layout, &blog, second.reveal()));
    }
}
