//! The network seam over turmoil's simulated TCP.

use async_trait::async_trait;
use dfs_proto::net::{BoxStream, DIAL_DEADLINE, Dial, Listen, Listener};
use std::io;

/// Dials and listens inside a turmoil simulation.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimNet;

#[async_trait]
impl Dial for SimNet {
    async fn dial(&self, addr: &str) -> io::Result<BoxStream> {
        let stream = tokio::time::timeout(DIAL_DEADLINE, turmoil::net::TcpStream::connect(addr))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Box::new(stream))
    }
}

#[async_trait]
impl Listen for SimNet {
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn Listener>> {
        let listener = turmoil::net::TcpListener::bind(addr).await?;
        let local = listener.local_addr()?.to_string();
        Ok(Box::new(SimListener { listener, local }))
    }
}

struct SimListener {
    listener: turmoil::net::TcpListener,
    local: String,
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, String)> {
        let (stream, from) = self.listener.accept().await?;
        Ok((Box::new(stream), from.to_string()))
    }

    fn local_addr(&self) -> String {
        self.local.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suites;

    #[test]
    fn the_simulated_network_conforms() {
        let mut sim = turmoil::Builder::new()
            .simulation_duration(std::time::Duration::from_secs(120))
            .build();
        sim.host("server", || async {
            suites::net::echo(SimNet.listen("0.0.0.0:7700").await?).await;
            Ok(())
        });
        sim.client("client", async {
            suites::net::conformance(&SimNet, "server:7700", "server:7701").await;
            Ok(())
        });
        sim.run().unwrap();
    }
}
