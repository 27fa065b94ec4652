//! The two doors of [`namespace`](super::namespace): calls in frames, which dfs's own clients use, and gRPC for everyone else.

use super::namespace::Service;
use super::{Served, timely, within};
use dfs_proto::calls::{self, Answer, Ask};
use dfs_proto::{Code, Error, Result, pb};
use tonic::{Request, Response};

impl calls::Service for Service {
    async fn call(&self, ask: Ask) -> Result<Answer> {
        let answer = async {
            Ok(match ask {
                Ask::Mutate(asked) => Answer::Mutate(self.mutate(asked).await?),
                Ask::Query(asked) => Answer::Query(self.query(asked).await?),
                Ask::Renew(asked) => Answer::Renew(self.renew(&asked)?),
                Ask::OpenSession(asked) => Answer::OpenSession(self.open_session(asked).await?),
                Ask::CloseSession(asked) => Answer::CloseSession(self.close_session(asked).await?),
                Ask::Describe(_) => Answer::Description(self.describe()),
                Ask::Ping(_) => return Err(Error::new(Code::Internal, "answered by the connection")),
            })
        };
        timely(self.0.desk.timings.call_deadline, answer).await
    }
}

#[tonic::async_trait]
impl pb::namespace_server::Namespace for Service {
    async fn open_session(&self, request: Request<pb::OpenSessionRequest>) -> Served<pb::OpenSessionReply> {
        let call = Service::open_session(self, request.into_inner());
        within(self.0.desk.timings.call_deadline, call).await
    }

    async fn close_session(
        &self,
        request: Request<pb::CloseSessionRequest>,
    ) -> Served<pb::CloseSessionReply> {
        let call = Service::close_session(self, request.into_inner());
        within(self.0.desk.timings.call_deadline, call).await
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Served<pb::RenewReply> {
        Ok(Response::new(Service::renew(self, request.get_ref())?))
    }

    async fn mutate(&self, request: Request<pb::MutateRequest>) -> Served<pb::MutateReply> {
        let call = Service::mutate(self, request.into_inner());
        within(self.0.desk.timings.call_deadline, call).await
    }

    async fn query(&self, request: Request<pb::QueryRequest>) -> Served<pb::QueryReply> {
        let call = Service::query(self, request.into_inner());
        within(self.0.desk.timings.call_deadline, call).await
    }
}
