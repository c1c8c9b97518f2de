//! edge

pub mod affirm;
pub mod cache;
pub mod compress;
