//! The headers of a page's hits, kept by each thread for the second in which they hold.
//!
//! A header list is copied for every answer, and each of its values counts its copies. Were the counts shared between the
//! cores, every hit of a much wanted page would fetch a dozen lines of memory from the other core; so each thread has
//! values of its own.

use std::cell::RefCell;

use http::{HeaderMap, HeaderValue};

/// How many pages a thread remembers, each in a place of its own by number.
const PLACES: u64 = 128;

#[derive(Debug, Default)]
struct Moment {
    page: u64,
    second: u64,
    headers: HeaderMap,
}

thread_local! {
    static MOMENTS: RefCell<Vec<Moment>> = RefCell::new((0..PLACES).map(|_| Moment::default()).collect());
}

/// The headers of a page (a number that no other page or coding has) in a second, made when they are not at hand.
pub(super) fn headers(page: u64, second: u64, make: impl FnOnce() -> HeaderMap) -> HeaderMap {
    MOMENTS.with_borrow_mut(|moments| {
        let moment = &mut moments[(page % PLACES) as usize];
        if moment.page != page || moment.second != second {
            *moment = Moment { page, second, headers: own(&make()) };
        }
        moment.headers.clone()
    })
}

/// A copy that shares no count with the original.
fn own(headers: &HeaderMap) -> HeaderMap {
    let mut copy = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        copy.append(name.clone(), value);
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_made_once_for_a_page_and_a_second() {
        let made = |page, second, text: &'static str| {
            let make =
                || HeaderMap::from_iter([(http::header::AGE, HeaderValue::from_static(text))]);
            headers(page, second, make)["age"].to_str().expect("text").to_owned()
        };
        assert_eq!(made(1, 1, "a"), "a");
        assert_eq!(made(1, 1, "b"), "a");
        assert_eq!(made(1, 2, "b"), "b");
        assert_eq!(made(1 + PLACES, 2, "c"), "c");
        assert_eq!(made(1, 2, "d"), "d");
    }
}
