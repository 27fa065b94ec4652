//! The master: where everything is.

pub mod command;
pub mod state;
pub mod store;
