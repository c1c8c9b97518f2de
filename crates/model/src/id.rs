//! Names of things. A value of these types holds a good name, or it does not exist.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a good {what}: {why}")]
pub struct BadName {
    /// What was being named ("site name", ...).
    pub what: &'static str,
    /// The value given.
    pub value: String,
    /// The rule it breaks.
    pub why: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = BadName;
            fn from_str(value: &str) -> Result<Self, BadName> {
                let check: fn(&str) -> Result<(), &'static str> = $check;
                match check(value) {
                    Ok(()) => Ok(Self(value.to_owned())),
                    Err(why) => Err(BadName { what: $what, value: value.to_owned(), why }),
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(value: String) -> Result<Self, BadName> {
                value.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

fn label(value: &str, most: usize) -> Result<(), &'static str> {
    if value.is_empty() || value.len() > most {
        return Err("it must have between 1 and 24 characters");
    }
    if !value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        return Err("use lower-case letters, digits and `-`");
    }
    if !value.starts_with(|c: char| c.is_ascii_lowercase()) || value.ends_with('-') {
        return Err("it must start with a letter and not end with `-`");
    }
    Ok(())
}

name!(
    /// A site's name: also part of its system user, database and folders, hence short and plain.
    SiteName,
    "site name",
    |v| label(v, 24)
);
name!(
    /// An environment's name: the first label of its address.
    EnvironmentName,
    "environment name",
    |v| match label(v, 20) {
        Ok(()) if v.contains("--") => Err("it must not contain `--`"),
        Ok(()) if v == "production" || v == "www" => Err("that name means the site itself"),
        Ok(()) => Ok(()),
        Err("it must have between 1 and 24 characters") =>
            Err("it must have between 1 and 20 characters"),
        Err(why) => Err(why),
    }
);
name!(
    /// A machine's name.
    NodeName,
    "node name",
    |v| if v.is_empty() || v.len() > 63 {
        Err("it must have between 1 and 63 characters")
    } else if v.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_') {
        Ok(())
    } else {
        Err("use letters, digits, `-`, `.` and `_`")
    }
);
name!(
    /// A release: the first 32 hexadecimal digits of the BLAKE3 digest of its manifest.
    ReleaseId,
    "release id",
    |v| if v.len() == 32 && v.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        Ok(())
    } else {
        Err("it has 32 hexadecimal digits")
    }
);
name!(
    /// One running php-fpm of a site: `SITE-N`.
    InstanceId,
    "instance id",
    |v| match v.rsplit_once('-') {
        Some((site, n)) if label(site, 24).is_ok() && n.parse::<u16>().is_ok() => Ok(()),
        _ => Err("it is a site name, `-` and a number"),
    }
);

impl InstanceId {
    /// The instance number `n` of a site.
    pub fn of(site: &SiteName, n: u16) -> Self {
        Self(format!("{site}-{n}"))
    }

    /// The site that the instance belongs to.
    pub fn site(&self) -> SiteName {
        let (site, _) = self.0.rsplit_once('-').expect("checked when the id was made");
        SiteName(site.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_name_is_short_and_plain() {
        for good in ["blog", "a", "my-shop-2", "abcdefghijklmnopqrstuvwx"] {
            assert!(good.parse::<SiteName>().is_ok(), "{good}");
        }
        for bad in ["", "Blog", "1blog", "blog-", "a_b", "a/b", "..", "abcdefghijklmnopqrstuvwxy"] {
            assert!(bad.parse::<SiteName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_instance_knows_its_site() {
        let site: SiteName = "my-shop".parse().expect("a good name");
        let id = InstanceId::of(&site, 3);
        assert_eq!(id.as_str(), "my-shop-3");
        assert_eq!(id.site(), site);
    }
}
