//! Byte sizes and durations as people write them: `256 MiB`, `1 GiB`, `500 ms`, `30 s`, `5 m`, `1 h`, `7 d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why a size or duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a {what}: write a number and one of {units}")]
pub struct BadUnit {
    what: &'static str,
    value: String,
    units: &'static str,
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

const SIZES: [(&str, u64); 5] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("TiB", 1 << 40), ("B", 1)];

impl ByteSize {
    /// So many bytes.
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }
    /// So many MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
    /// Whole MiB, rounded down.
    pub const fn whole_mib(self) -> u64 {
        self.0 >> 20
    }
}

fn split(value: &str) -> Option<(u64, &str)> {
    let value = value.trim();
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    Some((value[..end].parse().ok()?, value[end..].trim()))
}

impl FromStr for ByteSize {
    type Err = BadUnit;
    fn from_str(value: &str) -> Result<Self, BadUnit> {
        split(value)
            .and_then(|(n, unit)| {
                let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit)?;
                n.checked_mul(*factor).map(Self)
            })
            .ok_or_else(|| BadUnit {
                what: "size",
                value: value.to_owned(),
                units: "B, KiB, MiB, GiB, TiB",
            })
    }
}

impl TryFrom<String> for ByteSize {
    type Error = BadUnit;
    fn try_from(value: String) -> Result<Self, BadUnit> {
        value.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> String {
        size.to_string()
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in
            [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{} {unit}", self.0 / factor);
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// A length of time in the configuration and in stored formats; arithmetic is done on [`Duration`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

impl Span {
    /// So many seconds.
    pub const fn seconds(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    /// So many milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
    /// As a standard duration.
    pub const fn get(self) -> Duration {
        self.0
    }
}

const SPANS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl FromStr for Span {
    type Err = BadUnit;
    fn from_str(value: &str) -> Result<Self, BadUnit> {
        split(value)
            .and_then(|(n, unit)| {
                let (_, factor) = SPANS.iter().find(|(name, _)| *name == unit)?;
                n.checked_mul(*factor).map(|ms| Self(Duration::from_millis(ms)))
            })
            .ok_or_else(|| BadUnit {
                what: "duration",
                value: value.to_owned(),
                units: "ms, s, m, h, d",
            })
    }
}

impl TryFrom<String> for Span {
    type Error = BadUnit;
    fn try_from(value: String) -> Result<Self, BadUnit> {
        value.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        let (unit, factor) = SPANS
            .iter()
            .find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor))
            .unwrap_or(&("ms", 1));
        write!(f, "{} {unit}", ms / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_survive_a_round_trip() {
        for text in ["256 MiB", "1 GiB", "0 B", "1000 B", "3 TiB"] {
            assert_eq!(text.parse::<ByteSize>().expect(text).to_string(), text);
        }
        for text in ["500 ms", "30 s", "90 s", "1 h", "7 d", "0 ms"] {
            assert_eq!(text.parse::<Span>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn a_size_without_a_unit_or_too_big_is_refused() {
        for bad in ["256", "MiB", "-1 MiB", "1.5 GiB", "99999999999 TiB", "256 MB", ""] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        for bad in ["5", "s", "1 week", "99999999999999999999 s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
