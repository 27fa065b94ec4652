//! Being watched: `GET /metrics` (Prometheus's text format) and `GET /healthz` over HTTP/1.1, one request a connection.
//!
//! Whoever can connect may read, and nothing can be changed by it: listen on loopback, or on a network of your own.

use crate::net::{BoxStream, Listen, Listener};
use dfs_stdx::metrics::Source;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A scraper sends its request and takes its answer within it.
const DEADLINE: Duration = Duration::from_secs(5);
/// A request's head is shorter.
const HEAD_BYTES_MAX: usize = 8 * 1024;
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Shows `source` on `addr` for as long as the process lives; returns once it listens, with the address.
///
/// # Errors
/// It cannot listen there.
pub async fn serve(listen: &dyn Listen, addr: &str, source: Arc<dyn Source>) -> io::Result<String> {
    let listener = listen.listen(addr).await?;
    let local = listener.local_addr();
    tokio::spawn(accept(listener, source));
    Ok(local)
}

async fn accept(mut listener: Box<dyn Listener>, source: Arc<dyn Source>) {
    loop {
        match listener.accept().await {
            // One after the other: a scrape is short, and nobody gains by many.
            Ok((stream, from)) => match tokio::time::timeout(DEADLINE, answer(stream, &*source)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, from, "a scrape failed"),
                Err(_) => tracing::debug!(from, "a scrape took too long"),
            },
            Err(error) => {
                tracing::warn!(%error, "metrics cannot be asked for");
                tokio::time::sleep(DEADLINE).await;
            }
        }
    }
}

async fn answer(mut stream: BoxStream, source: &dyn Source) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let (status, body) = match path(&head) {
        Some("/metrics") => ("200 OK", source.page()),
        Some("/healthz") => match source.health() {
            Ok(()) => ("200 OK", "ok\n".to_owned()),
            Err(why) => ("503 Service Unavailable", format!("{why}\n")),
        },
        Some(_) | None => ("404 Not Found", "GET /metrics or /healthz\n".to_owned()),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {TEXT}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// What is asked for by GET, without its query.
fn path(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    (words.next()? == "GET").then_some(())?;
    words.next()?.split('?').next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Dial as _, Tcp};

    struct Sick;

    impl Source for Sick {
        fn page(&self) -> String {
            "dfs_test_up 1\n".to_owned()
        }

        fn health(&self) -> Result<(), String> {
            Err("no session with the master".to_owned())
        }
    }

    #[tokio::test]
    async fn each_path_has_its_answer() {
        let addr = serve(&Tcp, "127.0.0.1:0", Arc::new(Sick)).await.unwrap();
        for (asked, status, body) in [
            ("GET /metrics", "HTTP/1.1 200 OK", "dfs_test_up 1\n"),
            ("GET /metrics?x=1", "HTTP/1.1 200 OK", "dfs_test_up 1\n"),
            ("GET /healthz", "HTTP/1.1 503 ", "no session with the master\n"),
            ("GET /", "HTTP/1.1 404 Not Found", "\n"),
            ("POST /metrics", "HTTP/1.1 404 Not Found", "\n"),
        ] {
            let mut stream = Tcp.dial(&addr).await.unwrap();
            let request = format!("{asked} HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(
                answer.starts_with(status) && answer.ends_with(body),
                "{asked}: {answer}"
            );
        }
    }
}
