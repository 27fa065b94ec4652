//! One port for both: a connection that begins with the preamble carries calls in frames, any other one is HTTP/2.

use super::{PREAMBLE, PREAMBLE_DEADLINE, Service, serve};
use crate::net::{Accepted, BoxStream, Listener};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;

/// Connections with calls at once: mounts, gateways and programs.
const CONNECTIONS_MAX: usize = 8_192;
/// HTTP/2 connections that may wait for their server.
const WAITING_MAX: usize = 16;
/// Pause after an accept that failed: usually too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves gRPC and calls until `stop` completes and what is under way then is answered.
///
/// # Errors
/// The transport's.
pub async fn serve_both<S: Service>(
    routes: Router,
    service: S,
    listener: Box<dyn Listener>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let (web, accepted) = mpsc::channel(WAITING_MAX);
    let ending = CancellationToken::new();
    let stopping = ending.clone();
    let stop = async move {
        stop.await;
        stopping.cancel();
    };
    let grpc = routes.serve_with_incoming_shutdown(ReceiverStream::new(accepted), stop);
    let sorted = async {
        sort(service, listener, web, ending).await;
        Ok(())
    };
    tokio::try_join!(grpc, sorted).map(|_| ())
}

type Web = mpsc::Sender<io::Result<Accepted>>;

/// Accepts, and hands each connection to whom it is for.
async fn sort<S: Service>(service: S, mut listener: Box<dyn Listener>, web: Web, ending: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = ending.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!(from, "too many connections: one more was refused");
            continue;
        };
        let (service, web, ending) = (service.clone(), web.clone(), ending.clone());
        connections.spawn(async move {
            if let Err(error) = hand_on(service, stream, web, ending).await {
                tracing::debug!(%error, from, "connection ended");
            }
            drop(place);
        });
    }
    drop(web);
    while connections.join_next().await.is_some() {}
}

async fn hand_on<S: Service>(
    service: S,
    mut stream: BoxStream,
    web: Web,
    ending: CancellationToken,
) -> io::Result<()> {
    let mut first = [0; PREAMBLE.len()];
    tokio::select! {
        biased;
        () = ending.cancelled() => return Ok(()),
        read = tokio::time::timeout(PREAMBLE_DEADLINE, stream.read_exact(&mut first)) => drop(read??),
    }
    if first == *PREAMBLE {
        return serve::serve(service, stream, ending).await;
    }
    let accepted = Accepted::new(stream, Bytes::copy_from_slice(&first));
    web.send(Ok(accepted))
        .await
        .map_err(|_| io::ErrorKind::ConnectionAborted.into())
}
