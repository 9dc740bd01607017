//! The server: hickory speaks the protocol, [`super::answer`] knows the answers.
//!
//! Start from [`serve`]. Over UDP an answer is cut to what the client can take (512 octets, or its
//! EDNS size) and marked as cut, so that it asks again over TCP.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hickory_proto::op::{Edns, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use rand::seq::SliceRandom as _;
use tokio::sync::watch;

use super::answer::{Answer, answer, key, leaves};
use super::corefile::{Corefile, Of};
use super::forward::{Protocol, Upstream};
use super::zone::Zone;
use crate::os::netns::{NetNs, any};

/// How long a connection may be silent (CoreDNS' idle timeout).
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// Answers of one connection that may wait to be sent.
pub(super) const WAITING: usize = 64;
/// The least that every client takes over UDP (RFC 6891 §6.2.3).
const LEAST_PAYLOAD: u16 = 512;

/// Answers on UDP and TCP until dropped.
///
/// # Errors
/// When the port is taken in the pod, or a socket ends.
pub(super) async fn serve(netns: &NetNs, port: u16, handler: Handler) -> anyhow::Result<()> {
    let taken = || format!("cannot listen on port {port} of the pod");
    let socket = netns.udp_socket(any(port)).with_context(taken)?;
    let listener = netns.tcp_listener(any(port)).with_context(taken)?;
    let mut server = Server::new(handler);
    server.register_socket(tokio::net::UdpSocket::from_std(socket)?);
    server.register_listener(tokio::net::TcpListener::from_std(listener)?, IDLE, WAITING);
    server
        .block_until_done()
        .await
        .context("the DNS server ended")
}

/// What a question is answered from.
pub(super) struct Handler {
    pub(super) zone: watch::Receiver<Option<Zone>>,
    pub(super) corefile: watch::Receiver<Arc<Corefile>>,
    pub(super) upstream: Upstream,
}

impl Handler {
    async fn answer(&self, request: &Request) -> Answer {
        let refused = |code| Answer::refused(code);
        if request.metadata.op_code != OpCode::Query {
            return refused(ResponseCode::NotImp);
        }
        let [query] = request.queries.queries() else {
            return refused(ResponseCode::FormErr);
        };
        if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
            return refused(ResponseCode::Refused);
        }
        let protocol = match request.protocol() {
            hickory_server::net::xfer::Protocol::Tcp => Protocol::Tcp,
            _ => Protocol::Udp,
        };
        let query = query.original();
        let kind = query.query_type();
        let found = match self.zone.borrow().as_ref() {
            None => return refused(ResponseCode::ServFail),
            Some(zone) => answer(zone, query.name(), kind),
        };
        let Some(mut answer) = found else {
            return self.forward(query, protocol).await;
        };
        if let Some(target) = leaves(&answer, kind).cloned() {
            // CoreDNS asks who knows, so that a client need not.
            let end = self.forward(&Query::query(target, kind), protocol).await;
            answer.answers.extend(end.answers);
        }
        shuffle(&mut answer.answers);
        answer
    }

    /// The answer of whoever else a name belongs to.
    async fn forward(&self, query: &Query, protocol: Protocol) -> Answer {
        let corefile = self.corefile.borrow().clone();
        let servers = match corefile.of(&key(query.name())) {
            Of::Upstream(servers) => servers,
            Of::Nobody => return Answer::refused(ResponseCode::ServFail),
            Of::NoBlock => return Answer::refused(ResponseCode::Refused),
        };
        match self.upstream.ask(servers, query, protocol).await {
            Ok(message) => Answer {
                truncated: message.metadata.truncation,
                answers: message.answers,
                authorities: message.authorities,
                additionals: message.additionals,
                ..Answer::refused(message.metadata.response_code)
            },
            Err(error) => {
                tracing::debug!("forwarding {query}: {error:#}");
                Answer::refused(ResponseCode::ServFail)
            }
        }
    }
}

/// Gives every address its turn to be the first (CoreDNS' `loadbalance` plugin); aliases stay ahead.
fn shuffle(records: &mut [Record]) {
    let aliases = records
        .iter()
        .take_while(|record| record.record_type() == RecordType::CNAME)
        .count();
    let addresses = &mut records[aliases..];
    if addresses
        .iter()
        .all(|record| matches!(record.record_type(), RecordType::A | RecordType::AAAA))
    {
        addresses.shuffle(&mut rand::rng());
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        response_handle: R,
    ) -> ResponseInfo {
        let answer = self.answer(request).await;
        respond(request, answer, response_handle).await
    }
}

/// Sends an answer.
pub(super) async fn respond<R: ResponseHandler>(
    request: &Request,
    answer: Answer,
    mut response_handle: R,
) -> ResponseInfo {
    let mut metadata = Metadata::response_from_request(&request.metadata);
    metadata.response_code = answer.code;
    metadata.authoritative = answer.authoritative;
    metadata.truncation = answer.truncated;
    metadata.recursion_available = true;
    let edns = request.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(asked.max_payload().max(LEAST_PAYLOAD));
        edns.set_version(0);
        edns.set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    let response = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
        metadata,
        &answer.answers,
        &answer.authorities,
        [],
        &answer.additionals,
    );
    match response_handle.send_response(response).await {
        Ok(info) => info,
        Err(error) => {
            // The client is gone, or its address is not one to answer to.
            tracing::debug!(%error, "an answer was not sent");
            let mut failed = Metadata::response_from_request(&request.metadata);
            failed.response_code = ResponseCode::ServFail;
            ResponseInfo::from(hickory_proto::op::Header {
                metadata: failed,
                counts: hickory_proto::op::HeaderCounts::default(),
            })
        }
    }
}
