//! The world's name server: what there is outside the cluster, as kind's Docker network names it.
//!
//! Start from [`serve`]. It knows the outside and the nodes by their bare names, and answers for every
//! other name that there is none: the lab is all the world there is.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::PTR;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::server::{IDLE, WAITING, respond};
use super::zone::{TTL, address_record};
use crate::os::netns::NetNs;

/// Where names are asked for.
const PORT: u16 = 53;

/// Answers at these addresses of a namespace, of which each is one of `outside`, until cancelled.
///
/// # Errors
/// When an address is taken, or a socket ends.
pub async fn serve(
    netns: NetNs,
    machines: Vec<(String, Vec<IpAddr>)>,
    at: Vec<IpAddr>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut server = Server::new(World::of(&machines));
    for ip in at {
        let address = SocketAddr::new(ip, PORT);
        let socket = netns.udp_socket(address)?;
        let listener = netns.tcp_listener(address)?;
        server.register_socket(tokio::net::UdpSocket::from_std(socket)?);
        server.register_listener(tokio::net::TcpListener::from_std(listener)?, IDLE, WAITING);
    }
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        ended = server.block_until_done() => Ok(ended?),
    }
}

/// The machines by their names, and their names by their addresses.
pub(super) struct World(HashMap<Name, Vec<RData>>);

impl World {
    pub(super) fn of(machines: &[(String, Vec<IpAddr>)]) -> Self {
        let mut names: HashMap<Name, Vec<RData>> = HashMap::new();
        for (machine, ips) in machines {
            let Ok(mut name) = Name::from_ascii(machine) else {
                continue;
            };
            name.set_fqdn(true);
            for ip in ips {
                names
                    .entry(name.clone())
                    .or_default()
                    .push(address_record(*ip));
                let reverse = names.entry(Name::from(*ip)).or_default();
                reverse.push(RData::PTR(PTR(name.clone())));
            }
        }
        Self(names)
    }

    fn answer(&self, query: &Query) -> Answer {
        let Some(found) = self.0.get(&query.name().to_lowercase()) else {
            return Answer::of_zone(ResponseCode::NXDomain);
        };
        let mut answer = Answer::of_zone(ResponseCode::NoError);
        let kind = query.query_type();
        let wanted = found
            .iter()
            .filter(|data| kind == RecordType::ANY || data.record_type() == kind);
        let record = |data: &RData| Record::from_rdata(query.name().clone(), TTL, data.clone());
        answer.answers = wanted.map(record).collect();
        answer
    }
}

#[async_trait::async_trait]
impl RequestHandler for World {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        response_handle: R,
    ) -> ResponseInfo {
        let answer = match request.queries.queries() {
            [query] => self.answer(query.original()),
            _ => Answer::refused(ResponseCode::FormErr),
        };
        respond(request, answer, response_handle).await
    }
}
