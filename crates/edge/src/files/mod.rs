//! Static files of a site: its release and its media.
//!
//! - [`folder`] looking into a folder without ever leaving it
//! - [`library`] what is known of files: small ones whole and coded, all of them checked at most once a second
//! - [`conditional`] If-None-Match, If-Modified-Since, If-Range, Range (pure)
//! - [`kind`] content types (pure)
//! - [`reply`] the answer for a file
//! - [`stream`] big files, read as they are sent

pub mod conditional;
pub mod folder;
pub mod kind;
pub mod library;
pub mod reply;
pub mod stream;
