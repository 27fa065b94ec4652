//! Client sessions: when each was last heard of. After a restart of the master all have a fresh lease.

use dfs_proto::ClientId;
use dfs_stdx::clock::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// A client session's soft side.
#[derive(Clone, Debug)]
struct Client {
    heard: Instant,
    host: String,
}

/// Live client sessions.
#[derive(Debug)]
pub struct Clients {
    lease: Duration,
    known: BTreeMap<ClientId, Client>,
}

impl Clients {
    pub(super) fn new(lease: Duration) -> Clients {
        Clients {
            lease,
            known: BTreeMap::new(),
        }
    }

    /// A session of the hard state, with a fresh lease.
    pub fn learn(&mut self, client: ClientId, host: &str, now: Instant) {
        self.known.insert(
            client,
            Client {
                heard: now,
                host: host.to_owned(),
            },
        );
    }

    /// A call came in. False: there is no such session.
    pub fn heard(&mut self, client: ClientId, now: Instant) -> bool {
        let known = self.known.get_mut(&client);
        known.map(|c| c.heard = c.heard.max(now)).is_some()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// The locality label it gave.
    #[must_use]
    pub fn host(&self, client: ClientId) -> &str {
        self.known.get(&client).map_or("", |c| &c.host)
    }

    /// True if it is known.
    #[must_use]
    pub fn is_known(&self, client: ClientId) -> bool {
        self.known.contains_key(&client)
    }

    /// True if it was heard of after this.
    #[must_use]
    pub fn was_heard_since(&self, client: ClientId, then: Instant) -> bool {
        self.known.get(&client).is_some_and(|c| c.heard > then)
    }

    /// It has ended.
    pub fn forget(&mut self, client: ClientId) {
        self.known.remove(&client);
    }

    /// Those not heard of for a lease.
    #[must_use]
    pub fn expired(&self, now: Instant) -> Vec<ClientId> {
        self.known
            .iter()
            .filter(|(_, c)| now >= c.heard + self.lease)
            .map(|(id, _)| *id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_expires_a_lease_after_its_last_call() {
        let lease = Duration::from_secs(30);
        let (mut c, t) = (Clients::new(lease), Instant::now());
        c.learn(ClientId(1), "h", t);
        assert!(c.heard(ClientId(1), t + lease / 2) && !c.heard(ClientId(2), t));
        assert!(c.expired(t + lease).is_empty());
        assert_eq!(c.expired(t + lease * 2), [ClientId(1)]);
        c.forget(ClientId(1));
        assert!(!c.is_known(ClientId(1)) && c.expired(t + lease * 2).is_empty());
    }
}
