//! Content codings: which one a client gets, which types are worth it, and how bodies are coded.
//!
//! Pages and files are coded once and kept, so the levels are those of a background job, and a choice among the stored
//! variants is a look at one header. A client that names no coding gets the plain bytes; one that forbids even those
//! gets them all the same, because a page is more use than a 406.

use std::io::{self, Write};

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

/// A content coding. The number of a variant is its place in arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// Plain bytes.
    Identity = 0,
    /// gzip.
    Gzip = 1,
    /// Zstandard.
    Zstd = 2,
    /// Brotli.
    Brotli = 3,
}

impl Encoding {
    /// All of them, by number.
    pub const ALL: [Self; 4] = [Self::Identity, Self::Gzip, Self::Zstd, Self::Brotli];

    /// The word in `Content-Encoding`; `None` for plain bytes, which have no such header.
    pub fn token(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
            Self::Brotli => Some("br"),
        }
    }

    /// Codes a body as a background job would: slowly enough to be small, quickly enough for thousands of pages.
    pub fn encode(self, body: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Identity => Ok(body.to_vec()),
            Self::Gzip => gzip(body, 6),
            Self::Zstd => zstd::bulk::compress(body, 9),
            Self::Brotli => brotli(body, 5),
        }
    }
}

/// Codes with gzip; level 1 is quick enough for the way of an answer, 6 is for what is kept.
pub fn gzip(body: &[u8], level: u32) -> io::Result<Vec<u8>> {
    let room = Vec::with_capacity(body.len() / 3 + 64);
    let mut writer = flate2::write::GzEncoder::new(room, flate2::Compression::new(level));
    writer.write_all(body)?;
    writer.finish()
}

fn brotli(body: &[u8], quality: i32) -> io::Result<Vec<u8>> {
    let parameters = brotli::enc::BrotliEncoderParams {
        quality,
        lgwin: 20,
        size_hint: body.len(),
        ..Default::default()
    };
    let mut coded = Vec::with_capacity(body.len() / 3 + 64);
    brotli::BrotliCompress(&mut &*body, &mut coded, &parameters)?;
    Ok(coded)
}

/// What a client accepts: a weight from 0 (refused) to 1000 by coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted([u16; 4]);

impl Accepted {
    /// Reads the `Accept-Encoding` headers of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        match headers.get(ACCEPT_ENCODING).map(http::HeaderValue::as_bytes) {
            None => return Self([1, 0, 0, 0]),
            // What nearly all browsers say.
            Some(b"gzip, deflate, br, zstd") => return Self([1, 1000, 1000, 1000]),
            Some(b"gzip, deflate, br") => return Self([1, 1000, 0, 1000]),
            Some(_) => {}
        }
        let mut weights = [None; 4];
        let mut rest = None;
        for value in headers.get_all(ACCEPT_ENCODING) {
            for item in value.as_bytes().split(|b| *b == b',') {
                read_item(item, &mut weights, &mut rest);
            }
        }
        let [plain, coded @ ..] = weights;
        let [gzip, zstd, brotli] = coded.map(|weight| weight.or(rest).unwrap_or(0));
        // Plain bytes are acceptable unless refused, but come last when nobody asked for them.
        let plain = plain.or(rest.filter(|weight| *weight == 0)).unwrap_or(1);
        Self([plain, gzip, zstd, brotli])
    }

    /// The weight of a coding.
    pub fn weight(&self, encoding: Encoding) -> u16 {
        self.0[encoding as usize]
    }

    /// The best of what is there: the highest weight, among equals the smallest.
    pub fn choose(&self, there: impl IntoIterator<Item = (Encoding, usize)>) -> Encoding {
        there
            .into_iter()
            .filter(|(encoding, _)| self.weight(*encoding) > 0)
            .max_by_key(|(encoding, size)| (self.weight(*encoding), std::cmp::Reverse(*size)))
            .map_or(Encoding::Identity, |(encoding, _)| encoding)
    }
}

fn read_item(item: &[u8], weights: &mut [Option<u16>; 4], rest: &mut Option<u16>) {
    let mut parts = item.split(|b| *b == b';');
    let name = parts.next().unwrap_or_default().trim_ascii();
    let weight = parts
        .find_map(|part| {
            part.trim_ascii().strip_prefix(b"q=").or(part.trim_ascii().strip_prefix(b"Q="))
        })
        .map_or(1000, thousandths);
    let slot = match name {
        b"gzip" | b"x-gzip" => &mut weights[Encoding::Gzip as usize],
        b"br" => &mut weights[Encoding::Brotli as usize],
        b"zstd" => &mut weights[Encoding::Zstd as usize],
        b"identity" => &mut weights[Encoding::Identity as usize],
        b"*" => rest,
        _ => return,
    };
    *slot = Some(weight);
}

/// `0.8` → 800; what is no weight counts as 0.
fn thousandths(text: &[u8]) -> u16 {
    let (whole, part) = match text.split_first() {
        Some((b'1', _)) => return 1000,
        Some((b'0', part)) => (0u16, part),
        _ => return 0,
    };
    let digits = part.strip_prefix(b".").unwrap_or_default();
    let mut value = whole;
    for place in 0..3 {
        let digit =
            digits.get(place).filter(|d| d.is_ascii_digit()).map_or(0, |d| u16::from(d - b'0'));
        value = value * 10 + digit;
    }
    value
}

/// Whether bodies of a type become smaller by coding.
pub fn is_compressible(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.starts_with("text/")
        || essence.ends_with("+xml")
        || essence.ends_with("+json")
        || matches!(
            essence.as_str(),
            "application/json"
                | "application/javascript"
                | "application/x-javascript"
                | "application/xml"
                | "application/wasm"
                | "application/vnd.ms-fontobject"
                | "font/ttf"
                | "font/otf"
                | "image/bmp"
                | "image/x-icon"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(header: &str) -> Encoding {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, header.parse().expect("a header"));
        Accepted::of(&headers).choose(sizes())
    }

    fn sizes() -> [(Encoding, usize); 4] {
        [
            (Encoding::Identity, 100),
            (Encoding::Gzip, 30),
            (Encoding::Zstd, 28),
            (Encoding::Brotli, 25),
        ]
    }

    #[test]
    fn the_smallest_of_the_most_wanted_codings_is_chosen() {
        for (header, wanted) in [
            ("gzip, deflate, br, zstd", Encoding::Brotli),
            ("gzip, deflate", Encoding::Gzip),
            ("zstd, gzip", Encoding::Zstd),
            ("br;q=0.5, gzip;q=0.8", Encoding::Gzip),
            ("br;q=0, gzip", Encoding::Gzip),
            ("*", Encoding::Brotli),
            ("*;q=0", Encoding::Identity),
            ("gzip;q=0", Encoding::Identity),
            ("identity, gzip;q=0.5", Encoding::Identity),
            ("identity;q=0", Encoding::Identity),
            ("identity;q=0, gzip;q=0.001", Encoding::Gzip),
            ("br;q=banana, gzip", Encoding::Gzip),
            ("", Encoding::Identity),
            (";;;,,q=1", Encoding::Identity),
        ] {
            assert_eq!(chosen(header), wanted, "{header}");
        }
        assert_eq!(Accepted::of(&HeaderMap::new()).choose(sizes()), Encoding::Identity);
    }

    #[test]
    fn what_is_not_there_is_not_chosen() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, "br, gzip".parse().expect("a header"));
        let accepted = Accepted::of(&headers);
        assert_eq!(accepted.choose([(Encoding::Identity, 9)]), Encoding::Identity);
        assert_eq!(
            accepted.choose([(Encoding::Identity, 9), (Encoding::Gzip, 12)]),
            Encoding::Gzip
        );
    }

    #[test]
    fn every_coding_can_be_read_back() {
        use std::io::Read;
        let body = "Hello, world of pages. ".repeat(500);
        let mut read = String::new();
        let coded = Encoding::Gzip.encode(body.as_bytes()).expect("coded");
        flate2::read::GzDecoder::new(&*coded).read_to_string(&mut read).expect("decoded");
        assert_eq!(read, body);
        let coded = Encoding::Zstd.encode(body.as_bytes()).expect("coded");
        assert_eq!(zstd::bulk::decompress(&coded, body.len()).expect("decoded"), body.as_bytes());
        let coded = Encoding::Brotli.encode(body.as_bytes()).expect("coded");
        let mut plain = Vec::new();
        brotli::BrotliDecompress(&mut &*coded, &mut plain).expect("decoded");
        assert_eq!(plain, body.as_bytes());
    }

    #[test]
    fn text_is_worth_coding_and_pictures_are_not() {
        for good in
            ["text/html; charset=UTF-8", "application/rss+xml", "application/json", "image/svg+xml"]
        {
            assert!(is_compressible(good), "{good}");
        }
        for bad in ["image/png", "video/mp4", "application/zip", "", "font/woff2"] {
            assert!(!is_compressible(bad), "{bad}");
        }
    }
}
