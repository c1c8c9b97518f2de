//! Secrets: made once from the system's randomness, kept in files that only we can read.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pressroom_model::config::SiteSecrets;
use pressroom_model::id::SiteName;
use pressroom_model::secret::Secret;
use rand::RngExt;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::files;
use crate::layout::Layout;

/// Why secrets could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("secrets: {0}")]
    Io(#[from] io::Error),
    /// The file is there and makes no sense. It is not replaced: new secrets would lock the old data out.
    #[error("the secrets in {path} cannot be read: {source}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Secrets of the engines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineSecrets {
    /// Our own database account.
    pub database: Secret,
    /// Our own Redis account.
    pub redis: Secret,
}

/// The administrator's generated password, until it was shown once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialAdmin {
    /// Login name.
    pub user: String,
    /// The generated password.
    pub password: Secret,
}

/// Held while a secret is read or made.
static MAKING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

const SALTS: [&str; 8] = [
    "AUTH_KEY",
    "SECURE_AUTH_KEY",
    "LOGGED_IN_KEY",
    "NONCE_KEY",
    "AUTH_SALT",
    "SECURE_AUTH_SALT",
    "LOGGED_IN_SALT",
    "NONCE_SALT",
];

/// Letters and digits: safe in every file format that we render.
pub fn random(length: usize) -> Secret {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    Secret::new(
        (0..length)
            .map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]))
            .collect::<String>(),
    )
}

/// The engines' secrets, made where they are missing.
pub fn engines(layout: &Layout) -> Result<EngineSecrets, Error> {
    read_or_make(&layout.secrets().join("engines.json"), || EngineSecrets {
        database: random(40),
        redis: random(40),
    })
}

/// A site's secrets, made where they are missing.
pub fn site(layout: &Layout, site: &SiteName) -> Result<SiteSecrets, Error> {
    read_or_make(&site_file(layout, site), || SiteSecrets {
        database: random(40),
        redis: random(40),
        salts: SALTS
            .iter()
            .map(|name| ((*name).to_owned(), random(64)))
            .collect::<BTreeMap<_, _>>(),
        cron: random(40),
    })
}

fn site_file(layout: &Layout, site: &SiteName) -> PathBuf {
    layout.secrets().join(format!("site-{site}.json"))
}

/// Deletes a site's secrets, and passwords that nobody came to see; no file is no failure.
pub fn forget_site(layout: &Layout, site: &SiteName) -> io::Result<()> {
    remove(&admin_file(layout, site))?;
    remove(&given_file(layout, site))?;
    remove(&layout.environment_password(site))?;
    remove(&site_file(layout, site))
}

fn admin_file(layout: &Layout, site: &SiteName) -> PathBuf {
    layout.secrets().join(format!("admin-{site}.json"))
}

/// Keeps a generated administrator password until it is shown.
pub fn keep_initial_admin(
    layout: &Layout,
    site: &SiteName,
    admin: &InitialAdmin,
) -> Result<(), Error> {
    let text = serde_json::to_vec(admin).expect("a struct of strings");
    files::write(&admin_file(layout, site), &text, 0o600, None)?;
    Ok(())
}

/// Gives a generated administrator password once, and forgets it.
pub fn take_initial_admin(layout: &Layout, site: &SiteName) -> Result<Option<InitialAdmin>, Error> {
    let path = admin_file(layout, site);
    let admin = read(&path)?;
    if admin.is_some() {
        std::fs::remove_file(&path)?;
    }
    Ok(admin)
}

fn given_file(layout: &Layout, site: &SiteName) -> PathBuf {
    layout.secrets().join(format!("given-{site}.json"))
}

/// Keeps an administrator's password that the operator gave, until WordPress is installed.
pub fn keep_given(layout: &Layout, site: &SiteName, password: &Secret) -> Result<(), Error> {
    let text = serde_json::to_vec(password).expect("a string");
    files::write(&given_file(layout, site), &text, 0o600, None)?;
    Ok(())
}

/// The password that the operator gave.
pub fn given(layout: &Layout, site: &SiteName) -> Result<Option<Secret>, Error> {
    read(&given_file(layout, site))
}

/// Forgets it; no file is no failure.
pub fn forget_given(layout: &Layout, site: &SiteName) -> io::Result<()> {
    remove(&given_file(layout, site))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| Error::Damaged { path: path.to_owned(), source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(files::naming(path, &error).into()),
    }
}

fn read_or_make<T: Serialize + DeserializeOwned>(
    path: &Path,
    make: impl FnOnce() -> T,
) -> Result<T, Error> {
    // Two who find none must not make two.
    let _alone = MAKING.lock();
    if let Some(found) = read(path)? {
        return Ok(found);
    }
    let made = make();
    files::write(
        path,
        &serde_json::to_vec_pretty(&made).expect("a struct of strings"),
        0o600,
        None,
    )?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_made_once_and_a_damaged_file_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let layout = Layout::new(folder.path());
        files::folder(&layout.secrets(), 0o700, None).expect("made");
        let name: SiteName = "blog".parse().expect("a good name");
        let first = site(&layout, &name).expect("made");
        assert_eq!(site(&layout, &name).expect("read"), first);
        assert_eq!(first.salts.len(), 8);
        std::fs::write(site_file(&layout, &name), b"{").expect("damaged");
        assert!(matches!(site(&layout, &name), Err(Error::Damaged { .. })));
    }
}
