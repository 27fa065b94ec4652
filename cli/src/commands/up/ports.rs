//! Ports on loopback for the nodes: kept ones if they are free, else from below the range that the system gives to
//! outgoing connections, so that none of those sits on a dead node's port when it comes back.

use super::folder::Plan;
use crate::exit::{About as _, Failure, Result};
use crate::output::complain_line;
use dfs_client::Code;
use std::net::TcpListener;

/// Where free ports are looked for.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// So many tries before giving up.
const TRIES: usize = 1_000;

/// Ports that are held until all are found.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    held: Vec<TcpListener>,
}

impl Ports {
    /// Gives each node a port; the master gets `master` if it is not 0.
    ///
    /// # Errors
    /// The master's is taken, or none is free.
    pub(crate) fn assign(mut self, plan: &mut Plan, master: u16) -> Result<()> {
        if master == 0 {
            plan.master = self.keep_or_find(plan.master)?;
        } else {
            self.hold(master).about(format!("127.0.0.1:{master}"))?;
            plan.master = master;
        }
        for port in &mut plan.chunkservers {
            let kept = self.keep_or_find(*port)?;
            if *port != 0 && kept != *port {
                let line = format!("up: port {port} is taken: its chunkserver moves to {kept}");
                complain_line(line.as_bytes());
            }
            *port = kept;
        }
        Ok(())
    }

    fn keep_or_find(&mut self, port: u16) -> Result<u16> {
        if port != 0 && self.hold(port).is_ok() {
            return Ok(port);
        }
        for _ in 0..TRIES {
            let port = fastrand::u16(RANGE);
            if self.hold(port).is_ok() {
                return Ok(port);
            }
        }
        Err(Failure::new(Code::Unavailable, "no port is free on loopback"))
    }

    fn hold(&mut self, port: u16) -> std::io::Result<()> {
        self.held.push(TcpListener::bind(("127.0.0.1", port))?);
        Ok(())
    }
}
