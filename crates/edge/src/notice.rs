//! The pages that the edge itself says: errors and redirects. Small, clean, with the request's id, without internals.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;

/// What went wrong, as outsiders may know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// The request is broken.
    BadRequest,
    /// The site is not for everybody.
    Unauthorized,
    /// Nobody's business.
    NotFound,
    /// The body stopped coming.
    RequestTimeout,
    /// The body is too long.
    TooLarge,
    /// Nobody here has this host.
    UnknownHost,
    /// PHP failed.
    BadGateway,
    /// No worker in time.
    Overloaded,
    /// PHP did not finish in time.
    GatewayTimeout,
    /// The method has no meaning here.
    MethodNotAllowed,
    /// This edge has no snapshot yet.
    Starting,
    /// Code cannot be changed now.
    NoAuthor,
    /// This node was removed from its cluster.
    Removed,
}

impl Notice {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => {
                (StatusCode::BAD_REQUEST, "Bad request", "This request cannot be understood.")
            }
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "Password needed",
                "This site is not for everybody. Ask whoever sent you here for the password.",
            ),
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "Not found", "There is nothing at this address.")
            }
            Self::RequestTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "Request timeout", "The request stopped arriving.")
            }
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "Too large",
                "The request is larger than this site accepts.",
            ),
            Self::UnknownHost => (
                StatusCode::MISDIRECTED_REQUEST,
                "Unknown site",
                "No site of this name is served here. Check the address.",
            ),
            Self::BadGateway => (
                StatusCode::BAD_GATEWAY,
                "Something failed",
                "The site could not answer this request.",
            ),
            Self::Overloaded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Busy",
                "The site has more visitors than it can serve now. Please try again shortly.",
            ),
            Self::GatewayTimeout => {
                (StatusCode::GATEWAY_TIMEOUT, "Timeout", "The site took too long to answer.")
            }
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "Method not allowed",
                "This address can only be read.",
            ),
            Self::Starting => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Starting",
                "This server is starting. Please try again shortly.",
            ),
            Self::NoAuthor => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Code cannot be changed now",
                "Nothing was changed, and the site goes on. Please try again shortly.",
            ),
            Self::Removed => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Not served here any more",
                "This server has left the ones that serve this site. Please try again shortly.",
            ),
        }
    }

    /// The answer.
    pub fn answer(self, request_id: &str) -> Response<Body> {
        let (status, title, text) = self.parts();
        let html = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
             <title>{title}</title><style>body{{font:17px/1.5 system-ui,sans-serif;max-width:34em;margin:18vh auto 0;\
             padding:0 1.5em;color:#222}}h1{{font-size:1.5em}}small{{color:#777}}@media(prefers-color-scheme:dark)\
             {{body{{background:#181818;color:#ddd}}}}</style><h1>{title}</h1><p>{text}</p>\
             <p><small>{} · request {request_id}</small></p></html>\n",
            status.as_u16()
        );
        let mut answer = Response::new(Body::Whole(Bytes::from(html)));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if matches!(self, Self::Overloaded | Self::Starting | Self::NoAuthor | Self::Removed) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if self == Self::MethodNotAllowed {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        answer
    }
}

/// A redirect.
pub fn redirect(status: StatusCode, to: &str) -> Option<Response<Body>> {
    let mut answer = Response::new(Body::Empty);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_str(to).ok()?);
    Some(answer)
}

/// A short text.
pub fn text(status: StatusCode, words: &'static str) -> Response<Body> {
    let mut answer = Response::new(Body::Whole(Bytes::from_static(words.as_bytes())));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
