//! The master: where everything is.

pub mod store;
