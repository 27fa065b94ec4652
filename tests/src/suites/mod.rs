//! Conformance suites: one for each seam, run against every implementation, the real and the fake.
//!
//! A suite takes a function that makes a fresh instance, and asserts what callers may rely on, no more.

pub mod blocking;
pub mod disk;
pub mod net;
pub mod store;
pub mod time;
