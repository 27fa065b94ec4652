//! What a change of configuration starts from, and what it asks for.

use crate::plan::members::Word;
use crate::plan::order::Order;
use dfs_proto::{NodeId, Version};
use std::collections::{BTreeMap, BTreeSet};

/// A proposal and what it starts from.
#[derive(Clone, Debug, Default)]
pub struct Proposal {
    /// The proposed version.
    pub version: Version,
    /// Its members in chain order.
    pub members: Vec<NodeId>,
    /// The length everything is cut to.
    pub truncate: Option<u64>,
    /// The active version.
    pub active: Version,
    /// The active members.
    pub active_members: Vec<NodeId>,
    /// Committed bytes: so many were acknowledged.
    pub length: u64,
    /// Bytes that were fsynced by every member once.
    pub durable_length: u64,
    /// Members of the active configuration and of all proposed since.
    pub holders: BTreeSet<NodeId>,
    /// Joiners that may pull everything: they were copied, or stand in for a suspect.
    pub based: BTreeSet<NodeId>,
    /// Members with a bad block: never the source while another one is whole.
    pub ailing: BTreeSet<NodeId>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send an order.
    Send(NodeId, Order),
    /// Log that the version is active.
    Activate {
        /// Of the source.
        length: u64,
        /// The newest version whose source had lost power.
        loss: Version,
    },
    /// This proposal is over: propose the next one.
    Supersede(Supersede),
    /// Nothing can be done until another holder returns.
    Blocked(Blocked),
    /// A replica has promised more than the master ever proposed: leave the chunk alone.
    Freeze(NodeId, Version),
}

/// Why the next version is proposed, and with whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supersede {
    /// Members against whom something speaks.
    pub without: BTreeMap<NodeId, Word>,
    /// Members that could not do it just now: if that goes on, it speaks against them.
    pub unwell: BTreeSet<NodeId>,
    /// Holders that are to come in: they have what no member has.
    pub with: Vec<NodeId>,
    /// For the log.
    pub why: &'static str,
}

/// What is awaited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// These may hold what was acknowledged and have not answered.
    Holders(Vec<NodeId>),
    /// All have answered and nobody has the fsynced bytes: an operator must decide.
    NoCopy,
}
