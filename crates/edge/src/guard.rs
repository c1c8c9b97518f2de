//! The password in front of a site that is not for everybody.
//!
//! It is HTTP's basic authentication: every browser and tool has it, and it protects files, pages and PHP alike before
//! anything of the site is asked. Any user name will do; the password says who may come.
//!
//! Always: the site's PHP never sees this password, which WordPress would take for one of its own; and with it gone, the
//! request is one like any other to the page cache, behind the same door.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{self, HeaderValue};
use pressroom_model::snapshot::Guard;

/// What may stand before the password, with room for a long one.
const LONGEST: usize = 4096;

/// Takes the password out of a request's headers: whether it opens the door.
pub fn admits(guard: &Guard, headers: &mut HeaderMap) -> bool {
    let is_open = password(headers).is_some_and(|password| opens(guard, &password));
    if is_open {
        headers.remove(header::AUTHORIZATION);
    }
    is_open
}

/// What asks a browser for the password.
pub fn question(guard: &Guard) -> HeaderValue {
    let realm = guard.realm.replace(['"', '\\'], "");
    HeaderValue::from_str(&format!("Basic realm=\"{realm}\", charset=\"UTF-8\""))
        .unwrap_or_else(|_| HeaderValue::from_static("Basic realm=\"Environment\""))
}

fn password(headers: &HeaderMap) -> Option<Vec<u8>> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || token.len() > LONGEST {
        return None;
    }
    let bytes = STANDARD.decode(token.trim()).ok()?;
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    Some(bytes[colon + 1..].to_vec())
}

fn opens(guard: &Guard, password: &[u8]) -> bool {
    let given = blake3::hash(password);
    // Comparing digests takes the same time whatever they are.
    let known = guard.passwords.iter().filter_map(|known| blake3::Hash::from_hex(known).ok());
    known.fold(false, |is_open, known| is_open | (known == given))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authorization: &str, admitted: bool) {
        let guard = Guard {
            realm: "shop \"staging\"".into(),
            passwords: vec![
                "no digest".into(),
                blake3::hash(b"pa:ss").to_hex().to_string(),
                blake3::hash(b"other").to_hex().to_string(),
            ],
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().expect("a value"));
        assert_eq!(admits(&guard, &mut headers), admitted, "{authorization}");
        assert_eq!(headers.contains_key(header::AUTHORIZATION), !admitted, "{authorization}");
        assert_eq!(question(&guard), "Basic realm=\"shop staging\", charset=\"UTF-8\"");
    }

    #[test]
    fn the_password_opens_whoever_says_it_and_goes_no_further() {
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        check(&basic("anybody:pa:ss"), true);
        check(&basic(":other").replace("Basic", "bASIC"), true);
        check(&basic("anybody:pa"), false);
        check(&basic("pa:ss:"), false);
        check(&basic("pa"), false);
        check("Basic", false);
        check("Basic !!", false);
        check("Bearer pa:ss", false);
        check("", false);
    }
}
