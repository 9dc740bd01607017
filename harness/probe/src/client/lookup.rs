//! One question to the name servers, and every exchange told.
//!
//! Start from [`Servers::ask`]. Where the servers come from and which full names a name may mean is
//! `resolve`'s work. The order is that of the C library: every server once, then all again
//! (resolv.conf(5)); a truncated answer is asked for again over TCP (RFC 7766 §5).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use strata_probe::{DnsExchange, Failure, FailureKind, Rcode, Stage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::{failure, micros_since};

/// Length of a message's header (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// Whom to ask, and how.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) addresses: Vec<SocketAddr>,
    /// Over TCP from the start.
    pub(crate) tcp: bool,
    /// Take a truncated answer as it is.
    pub(crate) keep_truncated: bool,
    /// For each exchange.
    pub(crate) timeout: Duration,
    /// How often each server is asked.
    pub(crate) attempts: u32,
}

/// What came of one question.
#[derive(Debug)]
pub(crate) enum Asked {
    /// NOERROR or NXDOMAIN: this settles it.
    Settled(Message),
    /// No server settled it; the last one's answer, if it gave one, and what was wrong.
    Unsettled(Option<Message>, Failure),
}

impl Servers {
    /// Asks until a server settles the question; tells every exchange.
    pub(crate) async fn ask(
        &self,
        name: &Name,
        record_type: RecordType,
        told: &mut Vec<DnsExchange>,
    ) -> Asked {
        let mut answer = None;
        let mut failed = Failure::new(
            FailureKind::Other,
            Stage::Local,
            "there is no name server to ask",
        );
        for server in (0..self.attempts).flat_map(|_| &self.addresses) {
            let mut result = tell(*server, name, record_type, self.tcp, self.timeout, told).await;
            if matches!(&result, Ok(message) if message.metadata.truncation)
                && !self.tcp
                && !self.keep_truncated
            {
                result = tell(*server, name, record_type, true, self.timeout, told).await;
            }
            match result {
                Ok(message) if settles(message.metadata.response_code) => {
                    return Asked::Settled(message);
                }
                Ok(message) => {
                    failed = Failure::new(
                        FailureKind::NameServerFailed,
                        Stage::Resolve,
                        format!(
                            "{server} answers {} to {name} {record_type}",
                            rcode(message.metadata.response_code)
                        ),
                    );
                    answer = Some(message);
                }
                Err(failure) => failed = failure,
            }
        }
        Asked::Unsettled(answer, failed)
    }
}

fn settles(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

/// The name of the IANA registry.
pub(crate) fn rcode(code: ResponseCode) -> Rcode {
    match code {
        ResponseCode::NoError => Rcode::NoError,
        ResponseCode::NXDomain => Rcode::NxDomain,
        ResponseCode::ServFail => Rcode::ServFail,
        ResponseCode::Refused => Rcode::Refused,
        ResponseCode::Unknown(code) => Rcode::Other(format!("RCODE{code}")),
        other => Rcode::Other(format!("{other:?}").to_uppercase()),
    }
}

async fn tell(
    server: SocketAddr,
    name: &Name,
    record_type: RecordType,
    tcp: bool,
    within: Duration,
    told: &mut Vec<DnsExchange>,
) -> Result<Message, Failure> {
    let start = Instant::now();
    let question = Question::new(name, record_type);
    let exchange = async {
        match tcp {
            true => question.over_tcp(server).await,
            false => question.over_udp(server).await,
        }
    };
    let deadline = start + within;
    let result = tokio::time::timeout_at(deadline.into(), exchange)
        .await
        .unwrap_or_else(|_| {
            Err(Failure::new(
                FailureKind::NameServerTimedOut,
                Stage::Resolve,
                format!(
                    "{server} does not answer {name} {record_type} in {} ms",
                    within.as_millis()
                ),
            )
            .late_by(deadline.elapsed()))
        });
    let head = result.as_ref().ok();
    told.push(DnsExchange {
        question: name.to_string(),
        server,
        tcp,
        rcode: head.map(|message| rcode(message.metadata.response_code)),
        authoritative: head.is_some_and(|message| message.metadata.authoritative),
        truncated: head.is_some_and(|message| message.metadata.truncation),
        answers: head.map_or(0, |message| message.answers.len()),
        error: result.as_ref().err().cloned(),
        latency_us: micros_since(start),
    });
    result
}

struct Question(Message);

impl Question {
    fn new(name: &Name, record_type: RecordType) -> Self {
        let mut message = Message::query();
        message.metadata.message_type = MessageType::Query;
        message.metadata.op_code = OpCode::Query;
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.clone(), record_type));
        Self(message)
    }

    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        self.0.to_vec().map_err(|error| {
            Failure::new(
                FailureKind::Other,
                Stage::Local,
                format!("writing the question: {error}"),
            )
        })
    }

    async fn over_udp(&self, server: SocketAddr) -> Result<Message, Failure> {
        let io = |error: io::Error| {
            failure::of_io(Stage::Resolve, &format!("asking {server} over UDP"), &error)
        };
        let socket = UdpSocket::bind(any(server.ip(), 0)).await.map_err(io)?;
        // Connected: only the server's packets, and its refusals, reach us.
        socket.connect(server).await.map_err(io)?;
        socket.send(&self.bytes()?).await.map_err(io)?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            let length = socket.recv(&mut buffer).await.map_err(io)?;
            // What is not an answer to this very question is a stray or a forgery: go on waiting.
            if let Some(answer) = self.answer(buffer.get(..length).unwrap_or_default(), server) {
                return answer;
            }
        }
    }

    async fn over_tcp(&self, server: SocketAddr) -> Result<Message, Failure> {
        let io = |error: io::Error| {
            failure::of_io(Stage::Resolve, &format!("asking {server} over TCP"), &error)
        };
        let mut stream = TcpStream::connect(server).await.map_err(io)?;
        let bytes = self.bytes()?;
        let mut framed = u16::try_from(bytes.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes()
            .to_vec();
        framed.extend(bytes);
        stream.write_all(&framed).await.map_err(io)?;
        let length = stream.read_u16().await.map_err(io)?;
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await.map_err(io)?;
        self.answer(&buffer, server).unwrap_or_else(|| {
            Err(Failure::new(
                FailureKind::Protocol,
                Stage::Resolve,
                format!("{server} answers another question over TCP"),
            ))
        })
    }

    /// The answer in a message, if it is one to this question.
    fn answer(&self, bytes: &[u8], server: SocketAddr) -> Option<Result<Message, Failure>> {
        if bytes.get(..2)? != self.0.metadata.id.to_be_bytes() {
            return None;
        }
        let message = match Message::from_vec(bytes) {
            Ok(message) => message,
            Err(error) => match cut_short(bytes) {
                Some(message) => message,
                None => {
                    return Some(Err(Failure::new(
                        FailureKind::Protocol,
                        Stage::Resolve,
                        format!("the answer of {server} is no DNS message: {error}"),
                    )));
                }
            },
        };
        let ours = self.0.queries.first()?;
        let same = message.queries.first().is_none_or(|query| {
            query.name().eq_ignore_root(ours.name()) && query.query_type() == ours.query_type()
        });
        (message.metadata.message_type == MessageType::Response && same).then_some(Ok(message))
    }
}

/// The header of a message with the TC bit, which may end in the middle of a record.
fn cut_short(bytes: &[u8]) -> Option<Message> {
    let mut header = bytes.get(..HEADER)?.to_vec();
    // The four counts.
    header.get_mut(4..)?.fill(0);
    Message::from_vec(&header)
        .ok()
        .filter(|message| message.metadata.truncation && message.metadata.op_code == OpCode::Query)
}

/// The unspecified address of a family.
pub(crate) fn any(family_of: IpAddr, port: u16) -> SocketAddr {
    match family_of {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_codes_have_the_names_of_the_registry() {
        for (code, name) in [
            (0, "NOERROR"),
            (1, "FORMERR"),
            (2, "SERVFAIL"),
            (3, "NXDOMAIN"),
            (4, "NOTIMP"),
            (5, "REFUSED"),
            (11, "RCODE11"),
        ] {
            assert_eq!(rcode(ResponseCode::from(0, code)).to_string(), name);
        }
    }

    #[test]
    fn a_message_cut_in_a_record_is_truncated_not_broken() {
        let name = Name::from_ascii("web.").unwrap();
        let question = Question::new(&name, RecordType::A);
        let mut answer = question.0.clone();
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.truncation = true;
        let mut bytes = answer.to_vec().unwrap();
        bytes[7] = 3;
        let server = "127.0.0.1:53".parse().unwrap();
        let read = question.answer(&bytes, server).unwrap().unwrap();
        assert!(read.metadata.truncation);
        bytes[2] &= !0x02;
        let failure = question.answer(&bytes, server).unwrap().unwrap_err();
        assert_eq!(failure.kind, FailureKind::Protocol);
        bytes[0] ^= 1;
        assert!(question.answer(&bytes, server).is_none());
    }
}
