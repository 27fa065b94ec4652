//! What every `Dial` and `Listener` does. The two sides may be on different machines: one runs [`echo`], the other
//! [`conformance`] against it.

use dfs_proto::net::{BoxStream, Dial, Listener};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

/// More than any buffer between the two sides holds.
const LONG_BYTES: usize = 4 << 20;
/// Connections at a time.
const CONNECTIONS: usize = 20;
/// No part of the suite takes longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Sends back what each connection sends, until it ends; for as long as it is polled.
pub async fn echo(mut listener: Box<dyn Listener>) {
    assert!(
        dfs_proto::net::is_address(&listener.local_addr()),
        "{}",
        listener.local_addr()
    );
    loop {
        let (stream, from) = listener.accept().await.unwrap();
        assert!(!from.is_empty());
        tokio::spawn(async move {
            let (mut reader, mut writer) = tokio::io::split(stream);
            // A client that goes away in the middle is part of the suite.
            if tokio::io::copy(&mut reader, &mut writer).await.is_ok() {
                let _ = writer.shutdown().await;
            }
        });
    }
}

/// Runs the suite against an [`echo`] at `addr`; nobody listens at `closed`.
pub async fn conformance(dial: &dyn Dial, addr: &str, closed: &str) {
    within(bytes_come_back_in_order(dial, addr)).await;
    within(a_stream_is_longer_than_any_buffer(dial, addr)).await;
    within(an_end_is_seen_by_the_other_side(dial, addr)).await;
    within(connections_do_not_mix(dial, addr)).await;
    assert!(within(dial.dial(closed)).await.is_err(), "nobody listens there");
    assert!(within(dial.dial("no address")).await.is_err());
}

async fn within<T>(part: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, part)
        .await
        .expect("the network answers in time")
}

async fn back(stream: &mut BoxStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; bytes.len()];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

async fn bytes_come_back_in_order(dial: &dyn Dial, addr: &str) {
    let mut stream = dial.dial(addr).await.unwrap();
    for text in ["one", "two", "three"] {
        assert_eq!(back(&mut stream, text.as_bytes()).await, text.as_bytes());
    }
}

async fn a_stream_is_longer_than_any_buffer(dial: &dyn Dial, addr: &str) {
    let sent: Vec<u8> = (0..LONG_BYTES).map(|i| (i % 251) as u8).collect();
    let (mut reader, mut writer) = tokio::io::split(dial.dial(addr).await.unwrap());
    let mut received = vec![0; LONG_BYTES];
    let (wrote, read) = tokio::join!(writer.write_all(&sent), reader.read_exact(&mut received));
    wrote.unwrap();
    read.unwrap();
    assert!(sent == received, "the bytes came back changed");
}

async fn an_end_is_seen_by_the_other_side(dial: &dyn Dial, addr: &str) {
    let mut stream = dial.dial(addr).await.unwrap();
    assert_eq!(back(&mut stream, b"last").await, b"last");
    stream.shutdown().await.unwrap();
    assert_eq!(
        stream.read(&mut [0; 1]).await.unwrap(),
        0,
        "the echo ends when what it echoes has ended"
    );
}

async fn connections_do_not_mix(dial: &dyn Dial, addr: &str) {
    let mut tasks = JoinSet::new();
    for i in 0..CONNECTIONS {
        let mut stream = dial.dial(addr).await.unwrap();
        tasks.spawn(async move {
            let bytes = i.to_string().repeat(1000).into_bytes();
            assert_eq!(back(&mut stream, &bytes).await, bytes);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}
