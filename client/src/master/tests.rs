//! Replies that are lost, sessions that are forgotten, masters that are away.

use crate::fake::{Cluster, MASTER, Net};
use crate::{Client, Code, Settings};
use dfs_stdx::{Clock, Rng};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_change_whose_reply_is_lost_happens_once() {
    let cluster = Cluster::start(0).await;
    let client = cluster.client().await;
    for name in ["/a", "/b", "/c"] {
        cluster.state().lose_replies = 2;
        client.mkdir(name).await.unwrap();
        cluster.state().lose_replies = 1;
        client.remove_dir(name).await.unwrap();
    }
    assert!(cluster.state().names.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_session_is_replaced_before_the_next_change() {
    let cluster = Cluster::start(0).await;
    let client = cluster.client().await;
    client.mkdir("/a").await.unwrap();
    cluster.state().session = 2;
    client.mkdir("/b").await.unwrap();
    assert!(client.exists("/b").await.unwrap());
    assert!(cluster.state().answered.keys().any(|(session, _)| *session == 2));
}

#[tokio::test(start_paused = true)]
async fn a_question_under_a_forgotten_session_is_answered() {
    let cluster = Cluster::start(0).await;
    let client = cluster.client().await;
    cluster.state().session = 2;
    assert!(client.stat("/").await.unwrap().is_dir());
}

#[tokio::test(start_paused = true)]
async fn a_change_that_may_have_happened_is_not_made_again_under_a_new_session() {
    let cluster = Cluster::start(0).await;
    let client = cluster.client().await;
    client.mkdir("/before").await.unwrap();
    cluster.state().master_away = true;
    let later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut state = cluster.state();
        (state.master_away, state.session) = (false, 2);
    };
    let (made, ()) = tokio::join!(client.mkdir("/a"), later);
    assert_eq!(made.unwrap_err().code, Code::SessionExpired);
    client.mkdir("/a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_session_is_kept_alive_while_nothing_is_asked() {
    let cluster = Cluster::start(0).await;
    let client = cluster.client().await;
    client.mkdir("/a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.state().renewed, 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_only_asks_has_no_session() {
    let cluster = Cluster::start(0).await;
    let client = cluster.client().await;
    client.stat("/").await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.state().opened, 0);
    assert_eq!(cluster.state().renewed, 0);
    client.mkdir("/a").await.unwrap();
    assert_eq!(cluster.state().opened, 1);
    client.disconnect().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_mount_has_its_session_at_once() {
    let cluster = Cluster::start(0).await;
    let _client = cluster.client_with(|s| s.mount = true).await;
    assert_eq!(cluster.state().opened, 1);
}

#[tokio::test(start_paused = true)]
async fn a_master_that_is_away_ends_in_an_error_at_the_deadline() {
    let cluster = Cluster::start(0).await;
    let client = cluster
        .client_with(|s| s.call_deadline = Duration::from_secs(2))
        .await;
    cluster.state().master_away = true;
    let begun = tokio::time::Instant::now();
    assert_eq!(client.stat("/").await.unwrap_err().code, Code::Unavailable);
    assert_eq!(client.mkdir("/a").await.unwrap_err().code, Code::Unavailable);
    assert!(begun.elapsed() <= Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn the_master_that_answers_is_found_among_several() {
    let cluster = Cluster::start(0).await;
    let settings = Settings::new(&format!("nobody:1,{MASTER}")).unwrap();
    let clock = Clock::simulated(1_700_000_000_000_000_000);
    let client = Client::connect_with(settings, Arc::new(cluster.net.clone()), clock, Rng::seeded(1))
        .await
        .unwrap();
    client.mkdir("/a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nobody_there_is_an_error_at_the_deadline() {
    let mut settings = Settings::new("nobody:1").unwrap();
    settings.call_deadline = Duration::from_secs(1);
    let clock = Clock::simulated(1_700_000_000_000_000_000);
    let client = Client::connect_with(settings, Arc::new(Net::default()), clock, Rng::seeded(1)).await;
    assert_eq!(client.unwrap_err().code, Code::Unavailable);
}
