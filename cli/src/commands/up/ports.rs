//! Ports on loopback for the nodes: kept ones if they are free, else from below the range that the system gives to
//! outgoing connections, so that none of those sits on a dead node's port when it comes back.

use super::folder::Plan;
use crate::exit::{About as _, Failure, Result};
use crate::output::complain_line;
use dfs_client::Code;
use dfs_proto::net::{Listen as _, Listener, Tcp};
use dfs_stdx::Rng;
use std::ops::Range;

/// Where free ports are looked for.
const RANGE: Range<u16> = 20_000..32_000;
/// The same for metrics, apart from the others': a node can do without these.
const METRICS: Range<u16> = 10_000..19_000;
/// So many tries before giving up.
const TRIES: usize = 1_000;

/// Ports that are held until all are found.
#[derive(Default)]
pub(crate) struct Ports {
    held: Vec<Box<dyn Listener>>,
}

impl Ports {
    /// Gives each node a port; the master gets `master` if it is not 0.
    ///
    /// # Errors
    /// The master's is taken, or none is free.
    pub(crate) async fn assign(mut self, plan: &mut Plan, master: u16) -> Result<()> {
        if master == 0 {
            plan.master = self.keep_or_find(plan.master, RANGE).await?;
        } else {
            self.hold(master).await.about(format!("127.0.0.1:{master}"))?;
            plan.master = master;
        }
        for port in &mut plan.chunkservers {
            let kept = self.keep_or_find(*port, RANGE).await?;
            if *port != 0 && kept != *port {
                let line = format!("up: port {port} is taken: its chunkserver moves to {kept}");
                complain_line(line.as_bytes());
            }
            *port = kept;
        }
        for port in &mut plan.metrics {
            *port = self.keep_or_find(*port, METRICS).await?;
        }
        Ok(())
    }

    async fn keep_or_find(&mut self, port: u16, range: Range<u16>) -> Result<u16> {
        if port != 0 && self.hold(port).await.is_ok() {
            return Ok(port);
        }
        let rng = Rng::system();
        for _ in 0..TRIES {
            let port = range.start + (rng.below(u64::from(range.end - range.start)) as u16);
            if self.hold(port).await.is_ok() {
                return Ok(port);
            }
        }
        Err(Failure::new(Code::Unavailable, "no port is free on loopback"))
    }

    async fn hold(&mut self, port: u16) -> std::io::Result<()> {
        self.held.push(Tcp.listen(&format!("127.0.0.1:{port}")).await?);
        Ok(())
    }
}
