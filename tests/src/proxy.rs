//! A TCP proxy inside the test: what a network does to two processes that only know each other's address.
//!
//! Each direction has a fault of its own, which holds for connections that are open and for new ones. Bytes that a
//! fault stopped are delivered when it ends, as a network's retransmissions would; a connection that was reset is gone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const BUFFER_BYTES: usize = 64 * 1024;

/// What happens to bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// They arrive so much later.
    Delay(Duration),
    /// They stay on the way: a partition, as long as it lasts.
    Hold,
    /// The receiver is told that no more will come, though the sender goes on.
    HalfClose,
    /// The connection ends with a reset, and so does every new one.
    Reset,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From who dialled.
    Up,
    /// To who dialled.
    Down,
}

/// A proxy; it ends when dropped, with all its connections.
#[derive(Debug)]
pub struct Proxy {
    addr: String,
    faults: [watch::Sender<Fault>; 2],
    moved: Arc<[AtomicU64; 2]>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on `listen` ("host:port", port 0 takes a free one) and passes everything on to `target`.
    ///
    /// # Errors
    /// The address is taken.
    pub async fn start(listen: &str, target: &str) -> io::Result<Proxy> {
        #[expect(clippy::disallowed_methods, reason = "a proxy is network, not a user of it")]
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?.to_string();
        let faults = [watch::Sender::new(Fault::None), watch::Sender::new(Fault::None)];
        let moved = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let wires = Wires {
            faults: faults.each_ref().map(watch::Sender::subscribe),
            moved: moved.clone(),
        };
        let task = tokio::spawn(serve(listener, target.to_owned(), wires));
        Ok(Proxy {
            addr,
            faults,
            moved,
            task,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// From now on this happens to bytes of that direction.
    pub fn set(&self, direction: Direction, fault: Fault) {
        self.faults[direction as usize].send_replace(fault);
    }

    /// The same both ways.
    pub fn set_both(&self, fault: Fault) {
        self.set(Direction::Up, fault);
        self.set(Direction::Down, fault);
    }

    /// Bytes delivered so far in that direction.
    #[must_use]
    pub fn moved(&self, direction: Direction) -> u64 {
        self.moved[direction as usize].load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Wires {
    faults: [watch::Receiver<Fault>; 2],
    moved: Arc<[AtomicU64; 2]>,
}

async fn serve(listener: TcpListener, target: String, wires: Wires) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((near, _)) => drop(connections.spawn(connection(near, target.clone(), wires.clone()))),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(mut near: TcpStream, target: String, wires: Wires) {
    let [mut up, mut down] = wires.faults;
    // Of a held connection the other side does not even know.
    let passed = up.wait_for(|fault| *fault != Fault::Hold).await.is_ok();
    if !passed || *up.borrow() == Fault::Reset || *down.borrow() == Fault::Reset {
        let _ = near.set_zero_linger();
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "a proxy is network, not a user of it")]
    let Ok(mut far) = TcpStream::connect(&target).await else {
        let _ = near.set_zero_linger();
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let reset = {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let upward = pump(near_read, far_write, up.clone(), &wires.moved[0]);
        let downward = pump(far_read, near_write, down.clone(), &wires.moved[1]);
        tokio::select! {
            _ = futures::future::join(upward, downward) => false,
            _ = up.wait_for(|fault| *fault == Fault::Reset) => true,
            _ = down.wait_for(|fault| *fault == Fault::Reset) => true,
        }
    };
    if reset {
        let _ = (near.set_zero_linger(), far.set_zero_linger());
    }
}

/// Moves one direction's bytes until its sender ends, and passes that on.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut fault: watch::Receiver<Fault>,
    moved: &AtomicU64,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut half_closed = *fault.borrow_and_update() == Fault::HalfClose && to.shutdown().await.is_ok();
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read.unwrap_or(0),
            changed = fault.changed() => match changed {
                Ok(()) => {
                    half_closed |= *fault.borrow() == Fault::HalfClose && to.shutdown().await.is_ok();
                    continue;
                }
                Err(_) => 0,
            },
        };
        if fault.wait_for(|fault| *fault != Fault::Hold).await.is_err() || read == 0 {
            break;
        }
        let now = *fault.borrow();
        if let Fault::Delay(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if half_closed {
            continue;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
        moved.fetch_add(read as u64, Ordering::Relaxed);
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::net::{BoxStream, Dial as _, Listen as _, Tcp};

    async fn pair() -> (Proxy, BoxStream, BoxStream) {
        let mut listener = Tcp.listen("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start("127.0.0.1:0", &listener.local_addr()).await.unwrap();
        let (near, far) = tokio::join!(Tcp.dial(proxy.addr()), listener.accept());
        (proxy, near.unwrap(), far.unwrap().0)
    }

    async fn arrives(from: &mut BoxStream, to: &mut BoxStream) -> bool {
        from.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        let read = tokio::time::timeout(Duration::from_millis(100), to.read_exact(&mut bytes)).await;
        matches!(read, Ok(Ok(_)))
    }

    #[tokio::test]
    async fn held_bytes_arrive_when_the_partition_ends() {
        let (proxy, mut near, mut far) = pair().await;
        assert!(arrives(&mut near, &mut far).await && arrives(&mut far, &mut near).await);
        proxy.set(Direction::Up, Fault::Hold);
        assert!(!arrives(&mut near, &mut far).await, "one way is cut");
        assert!(arrives(&mut far, &mut near).await, "the other is not");
        proxy.set(Direction::Up, Fault::None);
        let mut bytes = [0; 4];
        far.read_exact(&mut bytes).await.unwrap();
        assert_eq!((&bytes, proxy.moved(Direction::Up)), (b"ping", 8));
    }

    #[tokio::test]
    async fn a_reset_ends_both_sides_and_refuses_new_ones() {
        let (proxy, mut near, mut far) = pair().await;
        proxy.set_both(Fault::Reset);
        assert_eq!(
            near.read(&mut [0; 4]).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        assert_eq!(
            far.read(&mut [0; 4]).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        let mut late = Tcp.dial(proxy.addr()).await.unwrap();
        assert!(late.read(&mut [0; 4]).await.is_err());
    }

    #[tokio::test]
    async fn a_half_closed_connection_carries_the_other_way() {
        let (proxy, mut near, mut far) = pair().await;
        proxy.set(Direction::Up, Fault::HalfClose);
        assert_eq!(far.read(&mut [0; 4]).await.unwrap(), 0);
        assert!(arrives(&mut far, &mut near).await);
    }

    #[tokio::test]
    async fn a_delay_delays() {
        let (proxy, mut near, mut far) = pair().await;
        proxy.set_both(Fault::Delay(Duration::from_millis(300)));
        assert!(!arrives(&mut near, &mut far).await);
        let mut bytes = [0; 4];
        far.read_exact(&mut bytes).await.unwrap();
    }
}
