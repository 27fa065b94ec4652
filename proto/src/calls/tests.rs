//! Both ends of a connection against each other, and against peers that do not keep to it.

use super::*;
use crate::net::{BoxStream, Dial};
use crate::{Code, Error, Result, pb};
use async_trait::async_trait;
use bytes::BytesMut;
use prost::Message as _;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Answers with the number asked; a change waits until it may.
#[derive(Clone, Debug)]
struct Echo {
    may_change: watch::Sender<bool>,
    given_up: Arc<AtomicU32>,
}

struct CountDrop(Arc<AtomicU32>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Echo {
    fn new() -> Echo {
        Echo {
            may_change: watch::Sender::new(false),
            given_up: Arc::default(),
        }
    }
}

impl Service for Echo {
    async fn call(&self, ask: Ask) -> Result<Answer> {
        match ask {
            Ask::Query(q) => Ok(Answer::Query(pb::QueryReply {
                result: Some(pb::query_reply::Result::Value(vec![7; q.client as usize].into())),
            })),
            Ask::Mutate(_) => {
                let dropped = CountDrop(self.given_up.clone());
                let mut may = self.may_change.subscribe();
                may.wait_for(|may| *may).await.map_err(|_| Code::Internal)?;
                std::mem::forget(dropped);
                Ok(Answer::Mutate(pb::MutateReply::default()))
            }
            Ask::Renew(_) => Err(Error::new(Code::SessionExpired, "it has ended")),
            Ask::OpenSession(_) | Ask::CloseSession(_) | Ask::Ping(_) | Ask::Describe(_) => {
                Err(Code::NotSupported.into())
            }
        }
    }
}

fn query(bytes: u64) -> Ask {
    Ask::Query(pb::QueryRequest {
        client: bytes,
        ..pb::QueryRequest::default()
    })
}

fn change() -> Ask {
    Ask::Mutate(pb::MutateRequest::default())
}

fn answered(answer: Result<Answer>) -> usize {
    match answer.unwrap() {
        Answer::Query(pb::QueryReply {
            result: Some(pb::query_reply::Result::Value(v)),
        }) => v.len(),
        other => panic!("{other:?}"),
    }
}

fn framed(message: &pb::ToMaster) -> Vec<u8> {
    let mut bytes = u32::try_from(message.encoded_len())
        .unwrap()
        .to_le_bytes()
        .to_vec();
    message.encode(&mut bytes).unwrap();
    bytes
}

/// Dials in-memory pipes that were laid before; the other ends are the test's.
#[derive(Clone, Debug, Default)]
struct Pipes(Arc<Mutex<VecDeque<tokio::io::DuplexStream>>>);

#[async_trait]
impl Dial for Pipes {
    async fn dial(&self, _: &str) -> io::Result<BoxStream> {
        let next = self.0.lock().unwrap().pop_front();
        Ok(Box::new(next.ok_or(io::ErrorKind::ConnectionRefused)?))
    }
}

impl Pipes {
    fn lay(&self, bytes: usize) -> tokio::io::DuplexStream {
        let (here, there) = tokio::io::duplex(bytes);
        self.0.lock().unwrap().push_back(here);
        there
    }

    /// A server at the other end of the next pipe.
    fn serve(
        &self,
        echo: &Echo,
        bytes: usize,
        stop: &CancellationToken,
    ) -> tokio::task::JoinHandle<io::Result<()>> {
        let (mut stream, echo, stop) = (self.lay(bytes), echo.clone(), stop.clone());
        tokio::spawn(async move {
            let mut preamble = [0; 8];
            stream.read_exact(&mut preamble).await?;
            assert_eq!(preamble, *PREAMBLE);
            serve::serve(echo, Box::new(stream), stop).await
        })
    }

    fn line(&self) -> Line {
        Line::new(Arc::new(self.clone()), "master:1")
    }
}

#[tokio::test]
async fn answers_overtake_a_call_that_waits() {
    let (pipes, echo) = (Pipes::default(), Echo::new());
    pipes.serve(&echo, 4_096, &CancellationToken::new());
    let line = pipes.line();
    let slow = tokio::spawn({
        let line = line.clone();
        async move { line.call(change()).await }
    });
    for bytes in [0, 1, 5_000, 300_000] {
        assert_eq!(answered(line.call(query(bytes)).await), bytes as usize);
    }
    assert_eq!(
        line.call(Ask::Renew(pb::RenewRequest::default()))
            .await
            .unwrap_err()
            .code,
        Code::SessionExpired
    );
    assert!(!slow.is_finished());
    echo.may_change.send_replace(true);
    slow.await.unwrap().unwrap();
}

#[tokio::test]
async fn more_calls_than_a_connection_works_on_are_all_answered() {
    let (pipes, echo) = (Pipes::default(), Echo::new());
    pipes.serve(&echo, 64, &CancellationToken::new());
    let line = pipes.line();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..3 * CALLS_MAX as u64 {
        let line = line.clone();
        calls.spawn(async move {
            if n % 2 == 0 {
                line.call(change()).await.map(drop)
            } else {
                assert_eq!(answered(line.call(query(n % 50)).await), (n % 50) as usize);
                Ok(())
            }
        });
    }
    tokio::task::yield_now().await;
    echo.may_change.send_replace(true);
    for done in calls.join_all().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_lost_connection_fails_its_calls_and_the_next_one_dials_again() {
    let (pipes, echo) = (Pipes::default(), Echo::new());
    let mut first = pipes.lay(4_096);
    pipes.serve(&echo, 4_096, &CancellationToken::new());
    let line = pipes.line();
    let asked = tokio::spawn({
        let line = line.clone();
        async move { line.call(change()).await }
    });
    first.read_exact(&mut [0; 14]).await.unwrap();
    drop(first);
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains("master:1"), "{error}");
    assert_eq!(answered(line.call(query(3)).await), 3);
    // Nobody is at the third.
    echo.may_change.send_replace(true);
}

#[tokio::test]
async fn nobody_there_is_unavailable() {
    assert_eq!(
        Pipes::default().line().call(change()).await.unwrap_err().code,
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_server_that_sends_nonsense_is_left() {
    let unanswered = pb::FromMaster {
        id: 99,
        error: None,
        body: None,
    };
    let mut stray = u32::try_from(unanswered.encoded_len())
        .unwrap()
        .to_le_bytes()
        .to_vec();
    unanswered.encode(&mut stray).unwrap();
    for (nonsense, code) in [
        (vec![255; 4], Code::Unavailable),                          // over the limit
        (vec![2, 0, 0, 0, 255, 255], Code::Unavailable),            // no message
        ([stray, vec![9, 0, 0, 0, 1]].concat(), Code::Unavailable), // an answer nobody waits for, then half a frame
        (vec![2, 0, 0, 0, 8, 1], Code::Internal),                   // an answer to call 1 without one
    ] {
        let pipes = Pipes::default();
        let mut server = pipes.lay(4_096);
        let asked = tokio::spawn({
            let line = pipes.line();
            async move { line.call(change()).await }
        });
        server.read_exact(&mut [0; 12]).await.unwrap();
        server.write_all(&nonsense).await.unwrap();
        server.shutdown().await.unwrap();
        assert_eq!(asked.await.unwrap().unwrap_err().code, code);
    }
}

#[tokio::test]
async fn a_request_over_the_limit_is_refused_before_it_is_sent() {
    let (pipes, echo) = (Pipes::default(), Echo::new());
    pipes.serve(&echo, 4_096, &CancellationToken::new());
    let line = pipes.line();
    let large = Ask::OpenSession(pb::OpenSessionRequest {
        name: "n".repeat(REQUEST_BYTES_MAX),
        ..pb::OpenSessionRequest::default()
    });
    assert_eq!(line.call(large).await.unwrap_err().code, Code::InvalidArgument);
    assert_eq!(answered(line.call(query(1)).await), 1);
}

#[tokio::test]
async fn an_answer_over_the_limit_is_an_error_and_the_connection_goes_on() {
    let (pipes, echo) = (Pipes::default(), Echo::new());
    pipes.serve(&echo, 1 << 20, &CancellationToken::new());
    let line = pipes.line();
    let large = line.call(query(ANSWER_BYTES_MAX as u64)).await;
    assert_eq!(large.unwrap_err().code, Code::TooLarge);
    assert_eq!(answered(line.call(query(1)).await), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_asked_for_a_sign_of_life_and_then_left() {
    let pipes = Pipes::default();
    let mut silent = pipes.lay(4_096);
    let line = pipes.line();
    let begun = tokio::time::Instant::now();
    assert_eq!(line.call(change()).await.unwrap_err().code, Code::Unavailable);
    assert_eq!(begun.elapsed().as_secs(), (SILENCE_MAX + PING_DEADLINE).as_secs());
    let mut all = Vec::new();
    silent.read_to_end(&mut all).await.unwrap();
    let ping = framed(&pb::ToMaster {
        id: 0,
        body: Some(Ask::Ping(pb::Ping {})),
    });
    assert!(all.ends_with(&ping));
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_comes_over_a_connection_that_shows_life() {
    let (pipes, echo) = (Pipes::default(), Echo::new());
    pipes.serve(&echo, 4_096, &CancellationToken::new());
    let line = pipes.line();
    let later = async {
        tokio::time::sleep(10 * CALLER_SILENCE_MAX).await;
        echo.may_change.send_replace(true);
    };
    let (answer, ()) = tokio::join!(line.call(change()), later);
    answer.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_silent_caller_is_left() {
    let pipes = Pipes::default();
    let served = pipes.serve(&Echo::new(), 4_096, &CancellationToken::new());
    let mut caller = pipes.dial("").await.unwrap();
    caller.write_all(PREAMBLE).await.unwrap();
    assert_eq!(served.await.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_calls_along() {
    let (pipes, echo) = (Pipes::default(), Echo::new());
    let served = pipes.serve(&echo, 4_096, &CancellationToken::new());
    let mut caller = pipes.dial("").await.unwrap();
    let ask = framed(&pb::ToMaster {
        id: 1,
        body: Some(change()),
    });
    caller.write_all(&[PREAMBLE, &ask[..]].concat()).await.unwrap();
    drop(caller);
    served.await.unwrap().unwrap();
    assert_eq!(echo.given_up.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_caller_that_sends_nonsense_is_left() {
    for nonsense in [vec![255; 4], vec![2, 0, 0, 0, 255, 255], vec![1, 0]] {
        let pipes = Pipes::default();
        let served = pipes.serve(&Echo::new(), 4_096, &CancellationToken::new());
        let mut caller = pipes.dial("").await.unwrap();
        caller
            .write_all(&[PREAMBLE, &nonsense[..]].concat())
            .await
            .unwrap();
        caller.shutdown().await.unwrap();
        assert!(served.await.unwrap().is_err());
    }
}

#[tokio::test]
async fn a_call_without_a_question_is_refused_and_the_connection_goes_on() {
    let pipes = Pipes::default();
    pipes.serve(&Echo::new(), 4_096, &CancellationToken::new());
    let mut caller = pipes.dial("").await.unwrap();
    let asks = [
        framed(&pb::ToMaster { id: 5, body: None }),
        framed(&pb::ToMaster {
            id: 6,
            body: Some(query(2)),
        }),
    ];
    // Byte by byte: frames are put together from any pieces.
    for byte in [&PREAMBLE[..], &asks.concat()].concat() {
        caller.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut reader = FramesReader::new(caller, ANSWER_BYTES_MAX);
    let mut answers = Vec::new();
    while answers.len() < 2 {
        match reader.here::<pb::FromMaster>().unwrap() {
            Some(answer) => answers.push(answer),
            None => assert!(reader.more().await.unwrap()),
        }
    }
    assert_eq!(
        answers[0].error.as_ref().unwrap().code,
        Code::InvalidArgument as u32
    );
    assert_eq!((answers[1].id, answers[1].error.is_none()), (6, true));
}

#[tokio::test]
async fn a_server_that_stops_answers_what_it_has() {
    let (pipes, echo, stop) = (Pipes::default(), Echo::new(), CancellationToken::new());
    let served = pipes.serve(&echo, 4_096, &stop);
    let line = pipes.line();
    let asked = tokio::spawn({
        let line = line.clone();
        async move { line.call(change()).await }
    });
    assert_eq!(answered(line.call(query(1)).await), 1);
    stop.cancel();
    tokio::task::yield_now().await;
    echo.may_change.send_replace(true);
    asked.await.unwrap().unwrap();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn frames_of_many_senders_stay_whole_on_a_narrow_connection() {
    let (here, mut there) = tokio::io::duplex(10);
    let (_reader, writer) = tokio::io::split(Box::new(here) as BoxStream);
    let outbox = Outbox::new(writer, b"");
    let mut expected = BytesMut::new();
    for id in 1..200 {
        let message = pb::ToMaster {
            id,
            body: Some(query(id)),
        };
        expected.extend_from_slice(&framed(&message));
        outbox.push(&message).unwrap();
        outbox.flush();
    }
    let mut got = vec![0; expected.len()];
    there.read_exact(&mut got).await.unwrap();
    assert_eq!(got, expected);
    outbox.drained().await;
    assert_eq!(outbox.queued(), 0);
    drop(there);
    while outbox.push(&pb::ToMaster::default()).is_ok() {
        outbox.flush();
        tokio::task::yield_now().await;
    }
    assert_eq!(outbox.failed().await, io::ErrorKind::BrokenPipe);
    outbox.room().await;
}

mod one_port {
    use super::*;
    use crate::net::{Listen as _, Tcp, channel, server};
    use crate::pb::namespace_client::NamespaceClient;
    use crate::pb::namespace_server::{Namespace, NamespaceServer};
    use std::time::Duration;
    use tonic::{Request, Response, Status};

    #[tonic::async_trait]
    impl Namespace for Echo {
        async fn open_session(
            &self,
            _: Request<pb::OpenSessionRequest>,
        ) -> std::result::Result<Response<pb::OpenSessionReply>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn close_session(
            &self,
            _: Request<pb::CloseSessionRequest>,
        ) -> std::result::Result<Response<pb::CloseSessionReply>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn renew(
            &self,
            _: Request<pb::RenewRequest>,
        ) -> std::result::Result<Response<pb::RenewReply>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn mutate(
            &self,
            _: Request<pb::MutateRequest>,
        ) -> std::result::Result<Response<pb::MutateReply>, Status> {
            Err(Status::unimplemented(""))
        }
        async fn query(
            &self,
            _: Request<pb::QueryRequest>,
        ) -> std::result::Result<Response<pb::QueryReply>, Status> {
            Ok(Response::new(pb::QueryReply::default()))
        }
    }

    #[tokio::test]
    async fn grpc_frames_and_garbage_share_a_port() {
        let listener = Tcp.listen("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr();
        let (echo, stop) = (Echo::new(), CancellationToken::new());
        let routes = server().add_service(NamespaceServer::new(echo.clone()));
        let served = tokio::spawn(port::serve_both(
            routes,
            echo,
            listener,
            stop.clone().cancelled_owned(),
        ));
        let mut garbage = Vec::new();
        for bytes in [&b"garbage, and more of it"[..], b"x", b""] {
            let mut stream = Tcp.dial(&addr).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            garbage.push(stream);
        }
        let line = Line::new(Arc::new(Tcp), &addr);
        assert_eq!(answered(line.call(query(9)).await), 9);
        let mut stub = NamespaceClient::new(channel(Arc::new(Tcp), &addr, Some(Duration::from_secs(5))));
        stub.query(pb::QueryRequest::default()).await.unwrap();
        // Garbage is closed by its server; the others go on.
        garbage[0]
            .read_to_end(&mut Vec::new())
            .await
            .map(drop)
            .unwrap_or(());
        assert_eq!(answered(line.call(query(9)).await), 9);
        stop.cancel();
        served.await.unwrap().unwrap();
    }
}
