//! Uploads are answered once another node has them, too.
//!
//! The agent copies media to other nodes; it is asked whether it has. An agent that is away, or no other node in reach, delays an
//! answer for a moment and refuses nothing: the upload is on this disk, and the others get it later.

use std::path::Path;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{Method, Response};
use pressroom_model::id::SiteName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::body::Body;
use crate::core::Core;
use crate::handler::Asking;

/// Longest wait for the agent's word.
const PATIENCE: Duration = Duration::from_secs(3);
/// Says where an upload is: on another node as well, or here alone.
const HELD: HeaderName = HeaderName::from_static("x-pressroom-upload");

/// Whether a request brings media, by its path: WordPress's own ways in, and that of image editing.
fn brings_media(asking: &Asking) -> bool {
    let path = asking.parts.uri.path();
    let query = asking.parts.uri.query().unwrap_or("");
    let is_rest = path.contains("/wp/v2/media") || query.contains("/wp/v2/media");
    let script = path.rsplit('/').next().unwrap_or(path);
    matches!(asking.parts.method, Method::POST | Method::PUT)
        && (is_rest
            || matches!(script, "async-upload.php" | "media-new.php" | "xmlrpc.php")
            || path.ends_with("/wp-admin/admin-ajax.php") && query.contains("image-editor"))
}

/// Waits until an upload is on another node, and says so in the answer.
pub async fn committed(core: &Core, asking: &Asking, mut answer: Response<Body>) -> Response<Body> {
    if !brings_media(asking) || !answer.status().is_success() {
        return answer;
    }
    let view = core.shared.view.load_full();
    let socket = view.snapshot.as_ref().and_then(|snapshot| snapshot.media.as_ref());
    if let (Some(socket), Some(site)) = (socket, &asking.site) {
        let asked = tokio::time::timeout(PATIENCE, ask(socket, &site.model.name)).await;
        let word = match asked {
            Ok(Ok(true)) => "replicated",
            _ => "local",
        };
        answer.headers_mut().insert(HELD, HeaderValue::from_static(word));
    }
    answer
}

async fn ask(socket: &Path, site: &SiteName) -> std::io::Result<bool> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("{site}\n").as_bytes()).await?;
    Ok(stream.read_u8().await? == b'1')
}
