//! From a request to PHP's answer: parameters, a worker, the exchange, and a second try where that is safe.
//!
//! - [`request`] what PHP is told (pure)
//! - [`class`] who goes first when workers are few (pure)
//! - [`call`] a worker, a connection, the head of the answer
//! - [`answer`] the body of the answer as it comes
//! - [`coded`] gzip on the way, for answers that are not stored
//! - [`spool`] bodies whose length the client does not say

pub mod answer;
pub mod call;
pub mod class;
pub mod coded;
pub mod request;
pub mod spool;
