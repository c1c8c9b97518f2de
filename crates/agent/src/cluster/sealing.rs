//! Secrets in the store are sealed with a key that is on the nodes' disks alone (0600) and was handed over when they joined.
//!
//! ChaCha20-Poly1305 (RFC 8439) with a random nonce; the name of the secret is authenticated as well, so that nobody who can
//! write the store can put one secret in another's place. Several keys may be known while one replaces the other.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Serialize};

/// The file of the keys, in the folder of the membership.
pub(crate) const FILE: &str = "sealing.json";

/// Why something cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed with a key that this node does not have.
    #[error("it is sealed with key `{0}`, which this node does not have")]
    UnknownKey(String),
    /// It was changed, or is no sealed secret of this name.
    #[error("it was changed, or is no sealed secret of this name")]
    Changed,
}

/// The keys that secrets are sealed with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealingKey {
    /// Which one seals.
    current: String,
    /// All, by name, base64.
    keys: BTreeMap<String, String>,
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealingKey").field("current", &self.current).finish_non_exhaustive()
    }
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    version: u32,
    key: String,
    nonce: String,
    text: String,
}

impl SealingKey {
    /// A new one.
    pub fn make() -> Self {
        let (name, key) = fresh();
        Self { current: name.clone(), keys: [(name, key)].into() }
    }

    /// The name of the one that seals.
    pub fn current(&self) -> &str {
        &self.current
    }

    /// Whether the one of this name is among them.
    pub fn has(&self, name: &str) -> bool {
        self.key(name).is_ok()
    }

    /// The same with another one, and its name: it seals nothing yet.
    pub fn and_another(mut self) -> (Self, String) {
        let (name, key) = fresh();
        self.keys.insert(name.clone(), key);
        (self, name)
    }

    /// The same with those of others; what seals stays.
    pub fn and(mut self, other: &Self) -> Self {
        let news = other.keys.iter().filter(|(name, _)| other.has(name));
        for (name, key) in news {
            self.keys.entry(name.clone()).or_insert_with(|| key.clone());
        }
        self
    }

    /// The same, sealing with the one of this name from now on; `None`: it is not among them. What the others sealed can still be opened.
    pub fn using(mut self, name: &str) -> Option<Self> {
        self.has(name).then(|| {
            name.clone_into(&mut self.current);
            self
        })
    }

    /// As text, for the file and for a node that joins.
    pub fn text(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    /// From that text.
    pub fn parse(text: &str) -> Option<Self> {
        let parsed: Self = serde_json::from_str(text).ok()?;
        parsed.key(&parsed.current).ok()?;
        Some(parsed)
    }

    /// Whether `text` was sealed with the key that seals now.
    pub fn is_current(&self, text: &[u8]) -> bool {
        serde_json::from_slice::<Sealed>(text).is_ok_and(|sealed| sealed.key == self.current)
    }

    /// Seals a secret under its name.
    pub fn seal(&self, name: &str, secret: &[u8]) -> Vec<u8> {
        let key = self.key(&self.current).expect("checked when it was made or read");
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut text = secret.to_vec();
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(name.as_bytes()),
            &mut text,
        )
        .expect("secrets are short");
        let sealed = Sealed {
            version: 1,
            key: self.current.clone(),
            nonce: BASE64.encode(nonce),
            text: BASE64.encode(text),
        };
        serde_json::to_vec(&sealed).expect("plain data")
    }

    /// Opens what was sealed under this name.
    pub fn open(&self, name: &str, text: &[u8]) -> Result<Vec<u8>, SealError> {
        let sealed: Sealed = serde_json::from_slice(text).map_err(|_| SealError::Changed)?;
        let key = self.key(&sealed.key)?;
        let nonce = BASE64.decode(&sealed.nonce).map_err(|_| SealError::Changed)?;
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(|_| SealError::Changed)?;
        let mut text = BASE64.decode(&sealed.text).map_err(|_| SealError::Changed)?;
        let opened = key.open_in_place(nonce, Aad::from(name.as_bytes()), &mut text);
        opened.map(|secret| secret.to_vec()).map_err(|_| SealError::Changed)
    }

    fn key(&self, name: &str) -> Result<LessSafeKey, SealError> {
        let unknown = || SealError::UnknownKey(name.to_owned());
        let bytes = BASE64.decode(self.keys.get(name).ok_or_else(unknown)?);
        let bytes = bytes.map_err(|_| unknown())?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, &bytes).map_err(|_| unknown())?;
        Ok(LessSafeKey::new(key))
    }
}

fn fresh() -> (String, String) {
    let (name, key): ([u8; 4], [u8; 32]) = (rand::random(), rand::random());
    (name.iter().map(|byte| format!("{byte:02x}")).collect(), BASE64.encode(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_under_its_name_alone() {
        let key = SealingKey::make();
        let sealed = key.seal("site-blog", b"secret");
        assert!(!String::from_utf8_lossy(&sealed).contains("secret"));
        assert_eq!(key.open("site-blog", &sealed), Ok(b"secret".to_vec()));
        assert_eq!(key.open("site-shop", &sealed), Err(SealError::Changed));
        let other = SealingKey::make();
        assert!(matches!(other.open("site-blog", &sealed), Err(SealError::UnknownKey(_))));
    }

    #[test]
    fn one_key_replaces_another_and_both_open() {
        let key = SealingKey::make();
        let sealed = key.seal("site-blog", b"secret");
        let (both, name) = key.clone().and_another();
        assert_eq!(both.current(), key.current(), "it seals nothing yet");
        let told = SealingKey::parse(&both.text()).expect("its own text");
        let member = key.clone().and(&told);
        assert!(member == both && !key.has(&name) && key.clone().using(&name).is_none());
        let next = member.using(&name).expect("it was told");
        assert_eq!(next.open("site-blog", &sealed), Ok(b"secret".to_vec()));
        assert!(!next.is_current(&sealed) && key.is_current(&sealed));
        let anew = next.seal("site-blog", b"secret");
        assert!(matches!(key.open("site-blog", &anew), Err(SealError::UnknownKey(_))));
        assert_eq!(next.open("site-blog", &anew), Ok(b"secret".to_vec()));
    }
}
