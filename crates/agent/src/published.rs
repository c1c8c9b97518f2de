//! Versions of WordPress from wordpress.org or a mirror, by stock curl, which knows proxies and the machine's authorities.
//!
//! What was downloaded and believed once stays in `downloads/`, so that a version needs the network once. Always: a file there
//! has its final name only after it was believed, and its SHA-256 beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use pressroom_release::ReleaseError;
use pressroom_release::archive;
use pressroom_release::published::{believe, checksums, sha1};

use crate::files;
use crate::layout::Layout;

/// The program.
pub const CURL: &str = "/usr/bin/curl";
/// No WordPress is larger.
const MOST_BYTES: &str = "268435456";
/// What curl ends with when the server answers with an error; its words have the status.
const REFUSED: i32 = 22;

/// Why there is no archive of a version.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// It cannot be had.
    #[error(
        "WordPress {version} cannot be had from `{url}`: {said}; `source = \"debian\"`, a folder or an archive with its `sha256` need no network, and `mirror` in `[wordpress]` names another host"
    )]
    Unreachable {
        /// The version.
        version: String,
        /// What was asked.
        url: String,
        /// Curl's own words.
        said: String,
    },
    /// Something else came.
    #[error("`{url}` answers something else than the digest of WordPress {version}")]
    Odd {
        /// The version.
        version: String,
        /// What was asked.
        url: String,
    },
    /// It is not what is published.
    #[error("what came from `{url}` is refused: {source}")]
    Refused {
        /// Where it came from.
        url: String,
        /// Why.
        source: ReleaseError,
    },
    /// A file.
    #[error("the folder for downloads: {0}")]
    Io(#[from] std::io::Error),
}

/// An archive that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    pub(crate) path: PathBuf,
    pub(crate) sha256: String,
}

/// The archive of a version: one that is here, or from `mirror`, or from wordpress.org.
pub(crate) fn fetch(
    layout: &Layout,
    mirror: Option<&str>,
    version: &str,
) -> Result<Archive, PublishedError> {
    let folder = layout.downloads();
    let path = folder.join(format!("wordpress-{version}.tar.gz"));
    let digest = folder.join(format!("wordpress-{version}.sha256"));
    if let Ok(sha256) = std::fs::read_to_string(&digest)
        && archive::digest(&path).is_ok_and(|found| found == sha256)
    {
        return Ok(Archive { path, sha256 });
    }
    files::folder(&folder, 0o700, None)?;
    // Gone with everything in it, however this ends.
    let scratch = tempfile::Builder::new().prefix(".coming-").tempdir_in(&folder)?;
    let fetched = scratch.path().join(format!("wordpress-{version}.tar.gz"));
    let from = |host: &str| mirror.map_or_else(|| format!("https://{host}"), str::to_owned);
    let url = format!("{}/wordpress-{version}.tar.gz", from("wordpress.org"));
    let ask = Ask { version, mirror };
    ask.get(&url, &fetched)?.map_err(|lack| ask.unreachable(&url, lack))?;
    let beside = format!("{url}.sha1");
    let text = scratch.path().join("sha1");
    ask.get(&beside, &text)?.map_err(|lack| ask.unreachable(&beside, lack))?;
    let expected = sha1(&String::from_utf8_lossy(&std::fs::read(&text)?));
    let odd = |url: &str| PublishedError::Odd { version: version.to_owned(), url: url.to_owned() };
    let expected = expected.ok_or_else(|| odd(&beside))?;
    let list =
        format!("{}/core/checksums/1.0/?version={version}&locale=en_US", from("api.wordpress.org"));
    let json = scratch.path().join("checksums");
    let listed = match ask.get(&list, &json)? {
        Ok(()) => checksums(&std::fs::read(&json)?),
        // A mirror need not have them.
        Err(Lack { is_absent: true, .. }) if mirror.is_some() => None,
        Err(lack) => return Err(ask.unreachable(&list, lack)),
    };
    if listed.is_none() && mirror.is_none() {
        return Err(odd(&list));
    }
    let unpacked = scratch.path().join("unpacked");
    files::folder(&unpacked, 0o700, None)?;
    let sha256 = believe(&fetched, &expected, listed.as_ref(), &unpacked)
        .map_err(|source| PublishedError::Refused { url, source })?;
    std::fs::rename(&fetched, &path)?;
    files::write(&digest, sha256.as_bytes(), 0o600, None)?;
    Ok(Archive { path, sha256 })
}

/// Why a file did not come.
#[derive(Debug)]
struct Lack {
    /// The server has none.
    is_absent: bool,
    /// Curl's own words.
    said: String,
}

struct Ask<'a> {
    version: &'a str,
    mirror: Option<&'a str>,
}

impl Ask<'_> {
    /// Gets one file, or says why it did not come.
    fn get(&self, url: &str, to: &Path) -> Result<Result<(), Lack>, PublishedError> {
        let is_plain = self.mirror.is_some_and(|mirror| mirror.starts_with("http://"));
        let schemes = if is_plain { "=http,https" } else { "=https" };
        let mut command = Command::new(CURL);
        // First of all: no settings of somebody's own.
        command.args([
            "--disable",
            "--fail",
            "--silent",
            "--show-error",
            "--location",
            "--max-redirs",
            "5",
        ]);
        command.args(["--proto", schemes, "--proto-redir", schemes, "--globoff"]);
        command.args(["--connect-timeout", "10", "--max-time", "300", "--retry", "1"]);
        command.args(["--max-filesize", MOST_BYTES, "--output"]).arg(to).arg("--url").arg(url);
        let output = match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let said = "the package `curl` is not installed".to_owned();
                return Ok(Err(Lack { is_absent: false, said }));
            }
            output => output?,
        };
        if output.status.success() && to.is_file() {
            return Ok(Ok(()));
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let is_absent = output.status.code() == Some(REFUSED) && said.contains("404");
        Ok(Err(Lack { is_absent, said }))
    }

    fn unreachable(&self, url: &str, Lack { is_absent, said }: Lack) -> PublishedError {
        let question = if is_absent { " (is there such a version?)" } else { "" };
        let said = format!("{said}{question}");
        PublishedError::Unreachable { version: self.version.to_owned(), url: url.to_owned(), said }
    }
}
