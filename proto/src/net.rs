//! The network seam: who dials, who listens, and every setting of a connection, in one place.
//!
//! The control plane is gRPC over a [`Dial`], and calls in frames (see [`crate::calls`]) where they are many; the data
//! plane is frames (see [`crate::frame`]) over the same.
//! A default tonic channel never comes back after a partition: HTTP/2 keepalive and deadlines are set here.

mod local;

use crate::limits::MESSAGE_BYTES_MAX;
use async_trait::async_trait;
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, Endpoint, Server, Uri, server::Connected};

/// How long a dialled host may take to accept.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(2);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(3);
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// A connection: bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// Any connection.
pub type BoxStream = Box<dyn Stream>;

/// Opens connections.
#[async_trait]
pub trait Dial: Send + Sync + Debug + 'static {
    /// Connects to "host:port" within [`DIAL_DEADLINE`].
    async fn dial(&self, addr: &str) -> io::Result<BoxStream>;
}

/// Accepts connections.
#[async_trait]
pub trait Listener: Send + 'static {
    /// The next one, and who it is from.
    async fn accept(&mut self) -> io::Result<(BoxStream, String)>;
    /// Where it listens: "host:port".
    fn local_addr(&self) -> String;
}

/// Opens listeners.
#[async_trait]
pub trait Listen: Send + Sync + Debug + 'static {
    /// Listens on "host:port"; port 0 takes a free one.
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn Listener>>;
}

/// The machine's TCP, with Nagle's algorithm off; within one machine a shorter way, see [`local`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

#[async_trait]
impl Dial for Tcp {
    async fn dial(&self, addr: &str) -> io::Result<BoxStream> {
        if let Some(stream) = local::dial(addr).await {
            return Ok(stream);
        }
        #[expect(clippy::disallowed_methods, reason = "this is the seam")]
        let stream = tokio::time::timeout(DIAL_DEADLINE, tokio::net::TcpStream::connect(addr))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{addr} does not accept")))??;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

#[async_trait]
impl Listen for Tcp {
    async fn listen(&self, addr: &str) -> io::Result<Box<dyn Listener>> {
        #[expect(clippy::disallowed_methods, reason = "this is the seam")]
        let listener = tokio::net::TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        Ok(Box::new(TcpListener {
            addr: addr.to_string(),
            local: local::listen(addr),
            listener,
        }))
    }
}

struct TcpListener {
    listener: tokio::net::TcpListener,
    local: Option<tokio::net::UnixListener>,
    addr: String,
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, String)> {
        let tcp = async {
            let (stream, from) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Box::new(stream) as BoxStream, from.to_string()))
        };
        local::accept(tcp, self.local.as_ref()).await
    }

    fn local_addr(&self) -> String {
        self.addr.clone()
    }
}

/// A gRPC channel to "host:port" that connects when first used and again after every failure.
/// Every call on it fails within `deadline`; wrap clients with `max_decoding_message_size(`[`MESSAGE_BYTES_MAX`]`)`.
///
/// # Panics
/// If `addr` cannot be part of a URI: check it where it is typed.
#[must_use]
pub fn channel(dial: Arc<dyn Dial>, addr: &str, deadline: Option<Duration>) -> Channel {
    let mut endpoint =
        Endpoint::from_shared(format!("http://{addr}")).expect("an address was checked where it was typed");
    endpoint = endpoint
        .connect_timeout(DIAL_DEADLINE)
        .http2_keep_alive_interval(KEEPALIVE_EVERY)
        .keep_alive_timeout(KEEPALIVE_DEADLINE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES);
    if let Some(deadline) = deadline {
        endpoint = endpoint.timeout(deadline);
    }
    let addr: Arc<str> = addr.into();
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let (dial, addr) = (dial.clone(), addr.clone());
        async move { dial.dial(&addr).await.map(TokioIo::new) }
    }))
}

/// True if `addr` looks like "host:port".
#[must_use]
pub fn is_address(addr: &str) -> bool {
    let Some((host, port)) = addr.rsplit_once(':') else {
        return false;
    };
    !host.is_empty() && port.parse::<u16>().is_ok() && format!("http://{addr}").parse::<Uri>().is_ok()
}

/// A gRPC server with this house's settings; add services, then [`serve`] it.
#[must_use]
pub fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_DEADLINE))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .max_frame_size(1024 * 1024)
}

/// Serves until `stop` completes.
///
/// # Errors
/// The transport's.
pub async fn serve(
    routes: tonic::transport::server::Router,
    listener: Box<dyn Listener>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    routes
        .serve_with_incoming_shutdown(incoming(listener), stop)
        .await
}

/// Accepted connections as a stream; an accept that fails (too many files) is tried again a little later.
fn incoming(listener: Box<dyn Listener>) -> impl futures::Stream<Item = io::Result<Accepted>> {
    futures::stream::unfold(listener, |mut listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(Accepted::new(stream, Bytes::new())), listener)),
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    })
}

/// An accepted connection, as tonic wants it.
pub(crate) struct Accepted {
    stream: BoxStream,
    /// What was read of it already.
    read: Bytes,
}

impl Accepted {
    pub(crate) fn new(stream: BoxStream, read: Bytes) -> Accepted {
        Accepted { stream, read }
    }
}

impl Connected for Accepted {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let count = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The limit every generated client and server is given.
pub const DECODED_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn an_address_is_host_and_port() {
        assert!(is_address("127.0.0.1:7700") && is_address("[::1]:1") && is_address("host.example:80"));
        assert!(!is_address("host") && !is_address(":7700") && !is_address("a:b") && !is_address("a b:1"));
    }

    #[tokio::test]
    async fn tcp_carries_bytes_both_ways() {
        let mut listener = Tcp.listen("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
        });
        let mut stream = Tcp.dial(&addr).await.unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_port_is_an_error_at_once() {
        let addr = Tcp.listen("127.0.0.1:0").await.unwrap().local_addr();
        assert!(Tcp.dial(&addr).await.is_err());
    }
}
