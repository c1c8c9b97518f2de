//! Uploads on every node: which files a media folder has, what changed in it, and what two folders need of each other.
//!
//! - [`tree`] a media folder: list, read, put, delete, always beneath it
//! - [`watch`] what changes in it, as it changes
//! - [`exchange`] what is offered and what is wanted, pure
//! - [`ledger`] what a folder had and what was deleted in it, pure; [`journal`] the same on disk
//! - [`folder`] all of them together: a folder that hears what others offer
//! - [`bucket`] an object store that gets a copy of all of them; [`object`] which version is which there, pure
//! - [`stored`] what it is known to have; [`waiting`] what it lacks; [`settle`] a path made equal on both sides
//! - [`kept`] versions that lost against newer ones, where nothing serves or runs them
//!
//! Always: a media folder belongs to somebody who may be hostile and quick, and we are root. Nothing is opened through a link,
//! nothing outside of the folder is touched, and a file is there whole or not at all.

pub mod bucket;
pub mod exchange;
pub mod folder;
pub mod journal;
pub mod kept;
pub mod ledger;
pub mod object;
pub mod settle;
pub mod stored;
pub mod tree;
pub mod waiting;
pub mod watch;
