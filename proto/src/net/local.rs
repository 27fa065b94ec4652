//! The short way between two processes of one machine: beside its TCP port a listener has a Unix socket in the
//! abstract namespace, called after its address, and whoever dials that address tries it first.
//!
//! On loopback TCP costs about twice as much processor time a byte and half as much again a small question, which is
//! most of what a question to a neighbour costs. Abstract names belong to a network namespace, as addresses of the
//! loopback do, and are gone with their process. Any process may take a name: only one of the same user or of root is
//! believed, anything else is dialled by TCP as if the name were not there.

use super::BoxStream;
use rustix::net::{Shutdown, shutdown, sockopt};
use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixListener;

/// A packet and what is small beside it can be on its way without the writer's waiting; less where the system says so.
const BUFFER_BYTES: usize = 1024 * 1024;

/// The other way to the listener with this address; `None` if there is none or it is someone else's.
pub(super) async fn dial(addr: &str) -> Option<BoxStream> {
    let stream = tokio::net::UnixStream::connect(name(addr.parse().ok()?))
        .await
        .ok()?;
    let peer = stream.peer_cred().ok()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return None;
    }
    Some(Box::new(Local::new(stream).ok()?))
}

/// The other way in; `None` if the name is taken: then everybody comes by TCP.
pub(super) fn listen(local: SocketAddr) -> Option<UnixListener> {
    let bound = UnixListener::bind(name(local));
    bound
        .inspect_err(|error| tracing::debug!(%local, %error, "no local socket"))
        .ok()
}

/// Accepts from whichever comes first; an error is the TCP listener's.
pub(super) async fn accept(
    tcp: impl Future<Output = io::Result<(BoxStream, String)>>,
    local: Option<&UnixListener>,
) -> io::Result<(BoxStream, String)> {
    let Some(local) = local else {
        return tcp.await;
    };
    tokio::select! {
        accepted = tcp => accepted,
        Ok((stream, _)) = local.accept() => Ok((Box::new(Local::new(stream)?), "local".to_owned())),
    }
}

/// A connection. The kernel calls a Unix socket writable again with every message that is read from it; so this one
/// listens for that only while it waits for it, and a question and its answer wake each side once.
struct Local {
    stream: AsyncFd<UnixStream>,
    /// The same socket, while a write waits.
    full: Option<AsyncFd<UnixStream>>,
}

impl Local {
    fn new(stream: tokio::net::UnixStream) -> io::Result<Local> {
        let stream = stream.into_std()?;
        // Who may not have more has less.
        let _ = sockopt::set_socket_send_buffer_size_force(&stream, BUFFER_BYTES)
            .or_else(|_| sockopt::set_socket_send_buffer_size(&stream, BUFFER_BYTES));
        Ok(Local {
            stream: watched(stream, Interest::READABLE)?,
            full: None,
        })
    }

    fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        send: impl Fn(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        if self.full.is_none() {
            match again(|| send(self.stream.get_ref())) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let same = self.stream.get_ref().try_clone()?;
                    self.full = Some(watched(same, Interest::WRITABLE)?);
                }
                done => return Poll::Ready(done),
            }
        }
        let full = self.full.as_ref().expect("just made");
        let sent = loop {
            let mut room = ready!(full.poll_write_ready(context))?;
            if let Ok(sent) = room.try_io(|socket| again(|| send(socket.get_ref()))) {
                break sent;
            }
        };
        self.full = None;
        Poll::Ready(sent)
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe for what is no socket; a UnixStream keeps its descriptor"
)]
fn watched(socket: UnixStream, interest: Interest) -> io::Result<AsyncFd<UnixStream>> {
    AsyncFd::with_interest(socket, interest)
}

/// As often as a signal comes between.
fn again<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl AsyncRead for Local {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.stream.poll_read_ready(context))?;
            let place = into.initialize_unfilled();
            if let Ok(read) = ready.try_io(|socket| again(|| socket.get_ref().read(place))) {
                into.advance(read?);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Local {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        all: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(context, |mut socket| socket.write_vectored(all))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(shutdown(self.stream.get_ref(), Shutdown::Write)?))
    }
}

/// The abstract socket of an address; one that listens everywhere is found at the loopback address.
fn name(addr: SocketAddr) -> String {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("\0dfs/{}", SocketAddr::new(ip, addr.port()))
}

#[cfg(test)]
mod tests {
    use super::super::{Dial as _, Listen as _, Tcp};
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn greet(stream: BoxStream, listener: &mut dyn super::super::Listener) -> String {
        let mut stream = stream;
        stream.write_all(b"x").await.unwrap();
        let (mut accepted, from) = listener.accept().await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), b'x');
        from
    }

    #[tokio::test]
    async fn a_neighbour_comes_the_short_way_and_others_by_tcp() {
        for ip in ["127.0.0.1", "0.0.0.0"] {
            // One that listens everywhere is its neighbours' at the loopback address.
            let mut listener = Tcp.listen(&format!("{ip}:0")).await.unwrap();
            let port = listener.local_addr().rsplit_once(':').unwrap().1.to_owned();
            let stream = Tcp.dial(&format!("127.0.0.1:{port}")).await.unwrap();
            assert_eq!(greet(stream, &mut *listener).await, "local");
            let stream = Tcp.dial(&format!("localhost:{port}")).await.unwrap();
            assert!(greet(stream, &mut *listener).await.starts_with("127.0.0.1:"));
            drop(listener);
            assert!(dial(&format!("127.0.0.1:{port}")).await.is_none());
        }
    }

    #[tokio::test]
    async fn more_than_fits_arrives_in_order_and_an_end_is_an_end() {
        let mut listener = Tcp.listen("127.0.0.1:0").await.unwrap();
        let mut here = Tcp.dial(&listener.local_addr()).await.unwrap();
        let (mut there, from) = listener.accept().await.unwrap();
        assert_eq!(from, "local");
        let bytes: Vec<u8> = (0..3 * BUFFER_BYTES).map(|n| (n % 251) as u8).collect();
        let sent = bytes.clone();
        let sender = tokio::spawn(async move {
            here.write_all(&sent).await.unwrap();
            here.write_all(&sent).await.unwrap();
            here.shutdown().await.unwrap();
            let mut answer = Vec::new();
            here.read_to_end(&mut answer).await.unwrap();
            answer
        });
        let mut received = Vec::new();
        there.read_to_end(&mut received).await.unwrap();
        assert!(received[..bytes.len()] == bytes && received[bytes.len()..] == bytes);
        there.write_all(b"yes").await.unwrap();
        drop(there);
        assert_eq!(sender.await.unwrap(), b"yes");
    }

    #[tokio::test]
    async fn a_taken_name_leaves_tcp() {
        let addr = Tcp.listen("127.0.0.1:0").await.unwrap().local_addr();
        let taken = listen(addr.parse().unwrap()).unwrap();
        let mut listener = Tcp.listen(&addr).await.unwrap();
        drop(taken);
        let stream = Tcp.dial(&addr).await.unwrap();
        assert!(greet(stream, &mut *listener).await.starts_with("127.0.0.1:"));
    }
}
