//! Asking other name servers, from the pod's own network (CoreDNS' plugin `forward`).
//!
//! Start from [`Upstream::ask`]. A question goes on by the protocol that it came by, and its answer
//! comes back as it is, cut or whole.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use rand::seq::SliceRandom as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::os::dial;
use crate::os::netns::{NetNs, any};

/// How long a server has to answer (CoreDNS' `defaultTimeout`, of which each has its part).
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest datagram that a server may answer with (CoreDNS' default).
const PAYLOAD: u16 = 1232;
/// The largest message.
const LONGEST: usize = 65_535;

/// By which protocol somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Udp,
    Tcp,
}

/// The other name servers, as they are seen from a pod.
#[derive(Clone)]
pub(super) struct Upstream {
    netns: NetNs,
}

impl Upstream {
    /// As seen from this namespace.
    pub(super) fn of(netns: NetNs) -> Self {
        Self { netns }
    }

    /// Asks one of these servers after the other, in an order by chance, until one answers.
    ///
    /// # Errors
    /// When none of them does; what kept the last.
    pub(super) async fn ask(
        &self,
        servers: &[SocketAddr],
        query: &Query,
        protocol: Protocol,
    ) -> anyhow::Result<Message> {
        let mut servers = servers.to_vec();
        servers.shuffle(&mut rand::rng());
        let mut why = anyhow::anyhow!("there is no server to ask");
        for server in servers {
            let asked = tokio::time::timeout(PATIENCE, self.ask_one(server, query, protocol));
            match asked.await.unwrap_or_else(|late| Err(late.into())) {
                Ok(answer) => return Ok(answer),
                Err(error) => why = error.context(format!("asking {server}")),
            }
        }
        Err(why)
    }

    async fn ask_one(
        &self,
        server: SocketAddr,
        query: &Query,
        protocol: Protocol,
    ) -> anyhow::Result<Message> {
        let question = question(query);
        let bytes = question.to_vec()?;
        let answer = match protocol {
            Protocol::Udp => self.over_udp(server, &bytes).await?,
            Protocol::Tcp => self.over_tcp(server, &bytes).await?,
        };
        let answer = Message::from_vec(&answer).context("what came is no DNS message")?;
        let same = answer.metadata.id == question.metadata.id && answer.queries == question.queries;
        anyhow::ensure!(same, "what came answers another question");
        Ok(answer)
    }

    async fn over_udp(&self, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let socket = tokio::net::UdpSocket::from_std(self.netns.udp_socket(any(0))?)?;
        // Connected, it hears of a refusal, and of nobody else.
        socket.connect(mapped(server, socket.local_addr()?)).await?;
        socket.send(question).await?;
        let mut answer = vec![0; LONGEST];
        let length = socket.recv(&mut answer).await?;
        answer.truncate(length);
        Ok(answer)
    }

    async fn over_tcp(&self, server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
        let connected = dial::tcp(&self.netns, server).await;
        let mut stream = connected.map_err(io::Error::other)?;
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(question).await?;
        let length = stream.read_u16().await?;
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await?;
        Ok(answer)
    }
}

/// An address as a socket of the other family has it.
fn mapped(server: SocketAddr, own: SocketAddr) -> SocketAddr {
    match server {
        SocketAddr::V4(v4) if own.is_ipv6() => {
            SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
        }
        other => other,
    }
}

fn question(query: &Query) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD);
    message.set_edns(edns);
    message
}
