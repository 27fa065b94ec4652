//! The door: messages in, messages out, no decisions. Whatever is wrong with a message is said here, typed.

mod admin;
mod convert;
mod doors;
mod kinds;
mod namespace;
mod orders;
mod sessions;
mod trash;
mod watch;

use crate::desk::Desk;
use crate::gate::Gate;
use crate::steward::Steward;
use dfs_proto::calls;
use dfs_proto::limits::MESSAGE_BYTES_MAX;
use dfs_proto::net::{self, Listener};
use dfs_proto::pb::admin_server::AdminServer;
use dfs_proto::pb::namespace_server::NamespaceServer;
use dfs_proto::pb::sessions_server::SessionsServer;
use dfs_proto::pb::watch_server::WatchServer;
use dfs_proto::{Code, Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;

/// What the services share.
#[derive(Clone, Debug)]
pub struct Door {
    pub(crate) desk: Arc<Desk>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) steward: Arc<Steward>,
    /// Where clients reach this master.
    pub(crate) addr: String,
    /// True when the master stops: streams end.
    pub(crate) stopping: Receiver<bool>,
}

/// Serves until the master stops.
///
/// # Errors
/// The transport's.
pub async fn serve(
    door: Door,
    listener: Box<dyn Listener>,
) -> std::result::Result<(), tonic::transport::Error> {
    let mut stopping = door.stopping.clone();
    let service = namespace::Service(door.clone());
    let namespace = NamespaceServer::new(service.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let sessions = SessionsServer::new(sessions::Service(door.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let watch = WatchServer::new(watch::Service(door.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let admin = AdminServer::new(admin::Service(door))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let routes = net::server()
        .add_service(namespace)
        .add_service(sessions)
        .add_service(watch)
        .add_service(admin);
    calls::port::serve_both(
        routes,
        service,
        listener,
        async move { stopped(&mut stopping).await },
    )
    .await
}

/// A call's reply, or its typed error in a status.
type Served<T> = std::result::Result<tonic::Response<T>, tonic::Status>;

/// Runs a call within its deadline.
async fn within<T>(deadline: Duration, call: impl Future<Output = Result<T>>) -> Served<T> {
    Ok(tonic::Response::new(timely(deadline, call).await?))
}

/// Bounds a call by its deadline.
async fn timely<T>(deadline: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
        Err(Error::new(
            Code::TimedOut,
            "the call took longer than its deadline",
        ))
    })
}

/// Until the master stops; that it was dropped counts too.
async fn stopped(stopping: &mut Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}
