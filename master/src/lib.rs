//! The master: where everything is.

pub mod command;
pub mod live;
pub mod log;
pub mod plan;
pub mod state;
pub mod store;
