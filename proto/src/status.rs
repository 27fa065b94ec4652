//! [`Error`] on the wire: whole in messages, and in the details of a gRPC status.

use crate::code::{Code, Error};
use crate::ids::{ChunkHandle, NodeId, Version};
use crate::pb;
use prost::Message as _;

impl From<Error> for pb::Error {
    fn from(e: Error) -> pb::Error {
        let (chunk, version) = e.chunk.map_or((0, 0), |(c, v)| (c.0, v.0));
        pb::Error {
            code: e.code as u32,
            message: e.message,
            chunk,
            version,
            node: e.node.unwrap_or_default().0,
            leader: e.leader.unwrap_or_default(),
        }
    }
}

impl From<pb::Error> for Error {
    fn from(e: pb::Error) -> Error {
        Error {
            code: Code::from_wire(e.code),
            message: e.message,
            chunk: (e.chunk != 0).then_some((ChunkHandle(e.chunk), Version(e.version))),
            node: (e.node != 0).then_some(NodeId(e.node)),
            leader: (!e.leader.is_empty()).then_some(e.leader),
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(e: Error) -> tonic::Status {
        let (grpc, message) = (grpc_code(e.code), e.to_string());
        tonic::Status::with_details(grpc, message, pb::Error::from(e).encode_to_vec().into())
    }
}

impl From<tonic::Status> for Error {
    /// Ours if it carries our details; else the transport's own failure, which is [`Code::Unavailable`] or [`Code::TimedOut`].
    fn from(s: tonic::Status) -> Error {
        if let Some(e) = (!s.details().is_empty())
            .then(|| pb::Error::decode(s.details()).ok())
            .flatten()
        {
            return e.into();
        }
        let code = match s.code() {
            tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => Code::TimedOut,
            tonic::Code::Unimplemented | tonic::Code::InvalidArgument | tonic::Code::OutOfRange => {
                Code::InvalidArgument
            }
            tonic::Code::Internal
            | tonic::Code::DataLoss
            | tonic::Code::Unknown
            | tonic::Code::Unavailable => Code::Unavailable,
            tonic::Code::ResourceExhausted => Code::Busy,
            tonic::Code::NotFound => Code::NotFound,
            tonic::Code::AlreadyExists => Code::AlreadyExists,
            tonic::Code::PermissionDenied | tonic::Code::Unauthenticated => Code::PermissionDenied,
            tonic::Code::FailedPrecondition | tonic::Code::Aborted => Code::Stale,
            tonic::Code::Ok => Code::Internal,
        };
        Error::new(code, s.message())
    }
}

/// The nearest gRPC code, for people who look at the wire with other tools.
fn grpc_code(code: Code) -> tonic::Code {
    match code {
        Code::NotFound | Code::NoAttribute => tonic::Code::NotFound,
        Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::NotEmpty | Code::NotADirectory | Code::IsADirectory | Code::Stale | Code::NotYet => {
            tonic::Code::FailedPrecondition
        }
        Code::InvalidArgument | Code::NameTooLong | Code::TooManyLinks => tonic::Code::InvalidArgument,
        Code::PermissionDenied | Code::NotPermitted => tonic::Code::PermissionDenied,
        Code::NoSpace | Code::QuotaExceeded | Code::Busy => tonic::Code::ResourceExhausted,
        Code::NotLeader | Code::Unavailable => tonic::Code::Unavailable,
        Code::Corrupt | Code::Lost => tonic::Code::DataLoss,
        Code::TimedOut => tonic::Code::DeadlineExceeded,
        Code::Internal => tonic::Code::Internal,
        Code::SessionExpired => tonic::Code::Aborted,
        Code::TooLarge | Code::LinkLimit => tonic::Code::OutOfRange,
        Code::NotSupported => tonic::Code::Unimplemented,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_crosses_grpc_whole() {
        let error = Error::new(Code::Stale, "version 3 is active")
            .on_chunk(ChunkHandle(9), Version(3))
            .on_node(NodeId(2));
        assert_eq!(Error::from(tonic::Status::from(error.clone())), error);
    }

    #[test]
    fn a_transport_failure_can_be_retried_elsewhere() {
        assert_eq!(
            Error::from(tonic::Status::unavailable("reset")).code,
            Code::Unavailable
        );
    }
}
