//! Uploads on every node: which files a media folder has, what changed in it, and what two folders need of each other.
//!
//! - [`tree`] a media folder: list, read, put, delete, always beneath it
//! - [`watch`] what changes in it, as it changes
//! - [`exchange`] what is offered and what is wanted, pure
//!
//! Always: a media folder belongs to somebody who may be hostile and quick, and we are root. Nothing is opened through a link,
//! nothing outside of the folder is touched, and a file is there whole or not at all.

pub mod exchange;
pub mod tree;
pub mod watch;
