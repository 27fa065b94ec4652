//! Client sessions with their results, and servers: indexes exact, numbers unused.

use dfs_proto::limits::REQUESTS_OUTSTANDING_MAX;
use dfs_proto::{ClientId, NodeId};

use super::super::{clients, servers, tables};
use super::Problems;
use crate::command::outcome_from_bytes;
use crate::store::{Read, keys};

pub(super) fn check(read: &dyn Read, problems: &mut Problems) {
    check_clients(read, problems);
    check_results(read, problems);
    check_servers(read, problems);
}

fn check_clients(read: &dyn Read, problems: &mut Problems) {
    let all = clients(read);
    for (id, client) in &all {
        problems.expect_equal(
            &format!("nonce of client {id}"),
            clients::client_by_nonce(read, client.nonce),
            Some(*id),
        );
        problems.expect(id.0 < tables::counters(read).next_client, || {
            format!("client {id}'s number will be given again")
        });
    }
    problems.expect_equal("nonces", read.scan_prefix(&[keys::NONCE]).count(), all.len());
}

fn check_results(read: &dyn Read, problems: &mut Problems) {
    for (key, value) in read.scan_prefix(&[keys::RESULT]) {
        let (client, sequence) = (ClientId(keys::number(&key[1..9])), keys::last_number(&key));
        let fits = clients::client(read, client)
            .is_some_and(|c| sequence >= c.lowest && sequence - c.lowest < REQUESTS_OUTSTANDING_MAX);
        problems.expect(fits, || {
            format!("result {sequence} of client {client} is kept in vain")
        });
        problems.expect(outcome_from_bytes(&value).is_ok(), || {
            format!("result {sequence} of client {client} cannot be read")
        });
    }
}

fn check_servers(read: &dyn Read, problems: &mut Problems) {
    let all = servers(read);
    let mut disks = 0;
    for (node, server) in &all {
        problems.expect(node.0 < tables::counters(read).next_node, || {
            format!("server {node}'s number will be given again")
        });
        problems.expect_equal(
            &format!("identity of server {node}"),
            servers::server_by_identity(read, &server.identity),
            Some(*node),
        );
        for disk in &server.disks {
            disks += 1;
            problems.expect_equal::<Option<NodeId>>(
                &format!("disk {} of server {node}", disk.path),
                servers::server_by_disk(read, &disk.id),
                Some(*node),
            );
        }
    }
    problems.expect_equal("disks", read.scan_prefix(&[keys::DISK]).count(), disks);
    problems.expect_equal(
        "identities",
        read.scan_prefix(&[keys::IDENTITY]).count(),
        all.len(),
    );
}
