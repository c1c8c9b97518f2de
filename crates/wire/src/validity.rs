//! From when until when a certificate is good, and when a node's is to be renewed.
//!
//! The times are read from the certificate itself (RFC 5280, section 4.1.2.5), so that no file beside it can say something else.
//! Only what leads to them is read of the DER (ITU-T X.690): whether a certificate is sound is the verifier's question.

use rustls::pki_types::CertificateDer;

/// The share of its life that is left when a certificate is renewed: a third.
const RENEWED_AT: u64 = 3;
/// The share that is left when people are told that it was not: a quarter. Renewals have failed for days then.
const TOLD_AT: u64 = 4;

/// When a certificate is good; seconds since 1970, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From then.
    pub from: u64,
    /// Until then.
    pub until: u64,
}

impl Validity {
    /// That of a certificate; `None`: it makes no sense.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate, _) = element(certificate)?;
        let (_, mut rest, _) = element(certificate)?;
        // The version, which the oldest certificates lack; number, signature's kind, issuer.
        let (tag, _, after) = element(rest)?;
        rest = if tag == VERSION { after } else { rest };
        for _ in 0..3 {
            (_, _, rest) = element(rest)?;
        }
        let (_, times, _) = element(rest)?;
        let (tag, from, rest) = element(times)?;
        let from = moment(tag, from)?;
        let (tag, until, _) = element(rest)?;
        Some(Self { from, until: moment(tag, until)? })
    }

    /// Whether it should be replaced now: little of it is left, or it begins later, because a clock was wrong when it was made.
    pub fn is_due(&self, now: u64) -> bool {
        self.is_short(now, RENEWED_AT)
    }

    /// Whether it should have been replaced days ago.
    pub fn is_late(&self, now: u64) -> bool {
        self.is_short(now, TOLD_AT)
    }

    /// Whether it has ended.
    pub fn is_over(&self, now: u64) -> bool {
        now > self.until
    }

    fn is_short(&self, now: u64, share: u64) -> bool {
        let life = self.until.saturating_sub(self.from);
        now < self.from || self.until.saturating_sub(now) <= life / share
    }
}

const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The first element: its tag, what is in it, and what is behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // So many bytes have the length; certificates are short.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (inside, behind) = rest.split_at_checked(length)?;
    Some((tag, inside, behind))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, as seconds since 1970.
fn moment(tag: u8, text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let year_digits = match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    };
    let is_good = text.len() == year_digits + 10 && text.bytes().all(|b| b.is_ascii_digit());
    let (year, rest) = is_good.then(|| text.split_at(year_digits))?;
    let year: u64 = year.parse().ok()?;
    let year = match (tag, year) {
        (UTC_TIME, 50..) => 1900 + year,
        (UTC_TIME, _) => 2000 + year,
        _ => year,
    };
    let part = |at: usize| rest[at * 2..at * 2 + 2].parse::<u64>().ok();
    let (month, day) = (part(0)?, part(1)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year, month, day) * 86_400 + part(2)? * 3600 + part(3)? * 60 + part(4)?)
}

/// Days from 1970 to a date, counted in years that begin in March, so that the leap day is a year's last.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    // 719,468 days lie between the first of March of the year 0 and 1970.
    year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::{Authority, PublicKey};
    use crate::identity::{Identity, new_key};

    fn made(now: u64, until: u64) -> Validity {
        let (authority, _) = Authority::make(now).expect("made");
        let (key, public) = new_key().expect("a key");
        let node = "n1".parse().expect("a name");
        let address = [127, 0, 0, 1].into();
        let chain = authority
            .sign_node_until(&node, address, &PublicKey(public), now, until)
            .expect("signed");
        Identity::parse(chain.as_bytes(), key.as_bytes(), authority.pem().as_bytes())
            .expect("read")
            .validity()
    }

    #[test]
    fn a_certificates_own_times_are_read() {
        // Around leap days, and on both sides of 2050, where the form changes.
        for (now, until) in [
            (951_782_399, 951_868_800),
            (1_795_244_751, 1_803_020_751),
            (2_524_607_999, 2_524_608_000),
            (4_107_542_400, 4_107_542_401),
        ] {
            assert_eq!(made(now, until), Validity { from: now - 86_400, until });
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_times() {
        let whole = rcgen::generate_simple_self_signed(vec!["a".into()]).expect("made");
        let der = whole.cert.der();
        assert!(Validity::of(der).is_some());
        for length in 0..120.min(der.len()) {
            assert!(Validity::of(&CertificateDer::from(&der[..length])).is_none(), "{length}");
        }
    }

    #[test]
    fn it_is_renewed_when_a_third_is_left_and_missed_when_a_quarter_is() {
        let validity = Validity { from: 1000, until: 2200 };
        let check = |now, due, late, over| {
            let found = (validity.is_due(now), validity.is_late(now), validity.is_over(now));
            assert_eq!(found, (due, late, over), "{now}");
        };
        check(999, true, true, false);
        check(1000, false, false, false);
        check(1799, false, false, false);
        check(1800, true, false, false);
        check(1900, true, true, false);
        check(2200, true, true, false);
        check(2201, true, true, true);
    }
}
