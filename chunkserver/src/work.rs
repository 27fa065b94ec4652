//! What a chunkserver does without being asked: fsync what has been open for long, close what is idle, look at its
//! disks, forget graves. One task, one thing at a time: none of it is urgent, and all of it gives way to requests.

use crate::server::Server;
use dfs_stdx::clock::Instant;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Files kept open although their replicas are idle.
const OPEN_FILES_MAX: usize = 512;

/// When each kind of work is due next.
struct Due {
    disks: Instant,
    fsync: Instant,
    graves: Instant,
}

/// Works until `stop`.
pub(crate) async fn run(server: Arc<Server>, stop: CancellationToken) {
    let now = server.ground.world.clock.now();
    let mut due = Due {
        disks: now,
        fsync: now,
        graves: now,
    };
    loop {
        let pause = pause(&server);
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        round(&server, &mut due).await;
    }
}

/// Idle replicas are looked for this often.
fn pause(server: &Server) -> Duration {
    (server.timings().idle_before_close).max(Duration::from_millis(20))
}

async fn round(server: &Server, due: &mut Due) {
    let (now, timings) = (server.ground.world.clock.now(), server.timings());
    server.close_idle().await;
    server.ground.store.trim(OPEN_FILES_MAX);
    if now >= due.disks {
        due.disks = now + timings.heartbeat_every * 5;
        server.look_at_disks().await;
    }
    if now >= due.fsync {
        due.fsync = now + timings.background_fsync;
        server.fsync_open().await;
    }
    if now >= due.graves {
        due.graves = now + timings.read_token;
        server.forget_graves().await;
    }
}
