//! The master: where everything is.

pub mod command;
pub mod log;
pub mod plan;
pub mod state;
pub mod store;
