//! What a path of a site means: a file, a PHP script, or nothing that may be had. Pure but for the [`Probe`].
//!
//! WordPress's rules as a good nginx configuration would have them: an existing file is served, an existing script is
//! run, everything else is a permalink for `index.php`.
//!
//! In a network of sub-directories the first segment may be a blog's: `/two/wp-admin/` means the file `wp-admin/`, as
//! WordPress's own rewrite rules have it. What exists under the whole path comes first, and what is left of the
//! shortened path is judged by the same rules: a prefix opens nothing that is closed without it.
//!
//! Always: no path leaves the site's folders (`..` is resolved before anything is looked up, and the probe itself does
//! not follow ways out); what lies in uploads is never run; dotfiles and the configuration are never served.

use std::borrow::Cow;

use pressroom_model::snapshot::{GIT_PATH, Network, READY_PATH};

/// What is known about a place in one of the site's folders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing is there, or it may not be followed.
    Missing,
    /// A regular file.
    File,
    /// A folder.
    Directory,
}

/// The two folders that files are served from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tree {
    /// The release.
    Root,
    /// The media folder.
    Uploads,
}

/// Looks into a site's folders. `path` has no leading slash, no `..`, no empty segment.
pub trait Probe {
    /// What is at this path.
    fn kind(&self, tree: Tree, path: &str) -> Kind;
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The edge itself is alive.
    Heartbeat,
    /// Prove PHP and the database.
    Ready,
    /// Answer 301 with this path (the query is kept).
    Redirect(String),
    /// Serve a file: its path below the tree.
    File(Tree, String),
    /// Run PHP: `script` is absolute below the root (`/index.php`).
    Php {
        /// The script.
        script: String,
        /// What follows it in the path.
        path_info: String,
        /// Whether the path named the script, rather than ending at the front controller.
        direct: bool,
    },
    /// Git asks for the site's repository.
    Git,
    /// Exists perhaps, and is nobody's business.
    Denied,
    /// The path itself is broken.
    Malformed,
}

/// URL prefix of the media folder.
pub const UPLOADS: &str = "wp-content/uploads";

/// Decides what `path` (as in the request line, without query) means in a site that may be a network.
pub fn route(path: &str, network: Option<Network>, probe: &dyn Probe) -> Target {
    match path {
        "/heartbeat.html" => return Target::Heartbeat,
        READY_PATH => return Target::Ready,
        path if path.starts_with(GIT_PATH) => return Target::Git,
        _ => {}
    }
    let Some(clean) = normalise(path) else { return Target::Malformed };
    let relative = clean.path.as_ref();
    if network == Some(Network::Subdirectories)
        && let Some((blog, rest)) = split_blog(relative)
        && !is_hidden(relative)
        && probe.kind(Tree::Root, relative) == Kind::Missing
    {
        return match place(rest, clean.slash, probe) {
            Target::Redirect(path) => Target::Redirect(format!("/{blog}{path}")),
            target => target,
        };
    }
    place(relative, clean.slash, probe)
}

/// What a resolved path means.
fn place(relative: &str, slash: bool, probe: &dyn Probe) -> Target {
    if is_hidden(relative) {
        return Target::Denied;
    }
    if let Some(media) = below_uploads(relative) {
        return uploads(media, probe);
    }
    if let Some((script, path_info)) = split_script(relative) {
        if probe.kind(Tree::Root, script) == Kind::File {
            let mut path_info = path_info.to_owned();
            if slash && !path_info.is_empty() {
                path_info.push('/');
            }
            return Target::Php { script: format!("/{script}"), path_info, direct: true };
        }
        return front_controller();
    }
    static_or_front(relative, slash, probe)
}

/// A blog's folder and what follows it, where WordPress's rewrite rules leave the folder out:
/// `([_0-9a-zA-Z-]+/)?(wp-(content|admin|includes).*)` and `([_0-9a-zA-Z-]+/)?(.*\.php)`.
fn split_blog(relative: &str) -> Option<(&str, &str)> {
    let (blog, rest) = relative.split_once('/')?;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let first = rest.split('/').next().unwrap_or(rest);
    let is_folder = |name: &str| matches!(name, "wp-content" | "wp-admin" | "wp-includes");
    let is_blog = !blog.is_empty() && blog.bytes().all(is_name) && !is_folder(blog);
    (is_blog && (is_folder(first) || rest.ends_with(".php"))).then_some((blog, rest))
}

fn front_controller() -> Target {
    Target::Php { script: "/index.php".to_owned(), path_info: String::new(), direct: false }
}

fn uploads(media: &str, probe: &dyn Probe) -> Target {
    if media.split('/').any(is_runnable) {
        return Target::Denied;
    }
    match probe.kind(Tree::Uploads, media) {
        Kind::File => Target::File(Tree::Uploads, media.to_owned()),
        Kind::Directory => Target::Denied,
        Kind::Missing => front_controller(),
    }
}

fn static_or_front(relative: &str, slash: bool, probe: &dyn Probe) -> Target {
    match probe.kind(Tree::Root, relative) {
        Kind::File if !slash => {
            if is_private(relative) {
                Target::Denied
            } else {
                Target::File(Tree::Root, relative.to_owned())
            }
        }
        Kind::Directory => directory(relative, slash, probe),
        Kind::File | Kind::Missing => front_controller(),
    }
}

fn directory(relative: &str, slash: bool, probe: &dyn Probe) -> Target {
    let inside = |name: &str| {
        if relative.is_empty() { name.to_owned() } else { format!("{relative}/{name}") }
    };
    let (php, html) = (inside("index.php"), inside("index.html"));
    let has_php = probe.kind(Tree::Root, &php) == Kind::File;
    if !has_php && probe.kind(Tree::Root, &html) != Kind::File {
        return front_controller();
    }
    if !slash && !relative.is_empty() {
        return Target::Redirect(format!("/{}/", encode(relative)));
    }
    if has_php {
        Target::Php {
            script: format!("/{php}"),
            path_info: String::new(),
            direct: !relative.is_empty(),
        }
    } else {
        Target::File(Tree::Root, html)
    }
}

/// Whether the path can only be a file, so that files are looked at before the page cache.
pub fn looks_like_file(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.contains('.') && !name.ends_with(".php")
}

fn below_uploads(relative: &str) -> Option<&str> {
    let rest = relative.strip_prefix(UPLOADS)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// Names that a PHP somewhere might run.
fn is_runnable(segment: &str) -> bool {
    let lower = segment.to_ascii_lowercase();
    let Some((_, extension)) = lower.rsplit_once('.') else { return false };
    matches!(extension, "php" | "phtml" | "phar" | "phps" | "pht" | "cgi")
        || is_numbered_php(extension)
}

fn is_numbered_php(extension: &str) -> bool {
    extension
        .strip_prefix("php")
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// Files that lie in a release and are not for visitors.
fn is_private(relative: &str) -> bool {
    let name = relative.rsplit('/').next().unwrap_or(relative).to_ascii_lowercase();
    if name.starts_with("wp-config") || name.ends_with('~') || is_runnable(&name) {
        return true;
    }
    let extension = name.rsplit_once('.').map_or("", |(_, e)| e);
    matches!(
        extension,
        "sql" | "bak" | "log" | "old" | "orig" | "save" | "swp" | "inc" | "sh" | "pem" | "key"
    )
}

/// Dotfiles anywhere but below `/.well-known/`, and the configuration itself.
fn is_hidden(relative: &str) -> bool {
    let mut segments = relative.split('/').enumerate();
    segments.any(|(at, s)| {
        (s.starts_with('.') && !(at == 0 && s == ".well-known"))
            || (at == 0 && s.eq_ignore_ascii_case("wp-config.php"))
    })
}

/// The script in a path and what follows it (`index.php`, `/2020/post`).
fn split_script(relative: &str) -> Option<(&str, &str)> {
    let at = relative.match_indices(".php").map(|(at, _)| at + 4).find(|&end| {
        let rest = &relative[end..];
        rest.is_empty() || rest.starts_with('/')
    })?;
    Some(relative.split_at(at))
}

struct Clean<'a> {
    path: Cow<'a, str>,
    slash: bool,
}

/// Decodes and resolves a path: no empty segments, no `.`, no `..`, no leading slash; `None`: it cannot be meant well.
fn normalise(path: &str) -> Option<Clean<'_>> {
    let rest = path.strip_prefix('/')?;
    let decoded = decode(rest)?;
    if decoded.contains('\0') || decoded.contains('\\') {
        return None;
    }
    let slash = decoded.is_empty() || decoded.ends_with('/');
    let plain = !decoded.split('/').any(|s| s == "." || s == "..")
        && !decoded.contains("//")
        && !decoded.starts_with('/');
    if plain {
        let path = match decoded {
            Cow::Borrowed(text) => Cow::Borrowed(text.strip_suffix('/').unwrap_or(text)),
            Cow::Owned(text) => Cow::Owned(text.strip_suffix('/').unwrap_or(&text).to_owned()),
        };
        return Some(Clean { path, slash });
    }
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop()?;
            }
            other => segments.push(other),
        }
    }
    let slash = slash || decoded.ends_with("/.") || decoded.ends_with("/..");
    Some(Clean { path: Cow::Owned(segments.join("/")), slash })
}

/// Percent-decoding; `None`: a broken escape.
pub fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let high = (bytes.next()? as char).to_digit(16)?;
            let low = (bytes.next()? as char).to_digit(16)?;
            out.push((high * 16 + low) as u8);
        } else {
            out.push(b);
        }
    }
    // What is not UTF-8 names no file of ours, and may still be a permalink.
    Some(Cow::Owned(String::from_utf8_lossy(&out).into_owned()))
}

fn encode(path: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(path.len());
    for b in path.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(b as char);
            }
            _ => {
                let _ = write!(out, "%{b:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
