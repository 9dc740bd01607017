//! `udp`: datagrams of an exact size, and what the path makes of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt::Ipv6DontFrag};
use nix::{getsockopt_impl, setsockopt_impl};
use strata_probe::{Answer, Failure, FailureKind, Stage, UdpReply, UdpSpec};
use tokio::net::UdpSocket;

use super::connect::{Progress, Target, addresses};
use super::failure::{of_io, of_timeout};
use super::lookup::any;
use super::resolve::Resolver;
use super::{at_least_one, micros_since, write};
use crate::Trouble;

/// The largest payload that the length field of a header allows (RFC 768).
const LARGEST: u32 = 65_527;

/// ip(7), `IP_MTU_DISCOVER`: whether packets carry "don't fragment".
#[derive(Debug, Clone, Copy)]
struct Discover;
setsockopt_impl!(
    Discover,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int,
    nix::sys::socket::sockopt::SetStruct<'_, libc::c_int>
);
/// ipv6(7), the same for IPv6.
#[derive(Debug, Clone, Copy)]
struct Discover6;
setsockopt_impl!(
    Discover6,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int,
    nix::sys::socket::sockopt::SetStruct<'_, libc::c_int>
);
/// ipv6(7), `IPV6_MTU`.
#[derive(Debug, Clone, Copy)]
struct Mtu6;
getsockopt_impl!(
    Mtu6,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    libc::c_int,
    nix::sys::socket::sockopt::GetStruct<libc::c_int>
);

/// Sends the datagrams, one after the other; writes each reply when it is there.
pub(crate) async fn run(spec: UdpSpec) -> Result<(), Trouble> {
    at_least_one("count", spec.count)?;
    at_least_one("timeoutMs", spec.timeout_ms)?;
    if spec.bytes > LARGEST {
        return Err(Trouble::CommandLine(format!(
            "no datagram carries {} bytes: {LARGEST} at most",
            spec.bytes
        )));
    }
    let target = Target::parse(&spec.to, None).map_err(Trouble::CommandLine)?;
    let resolver = Resolver::from_system();
    let client = Client {
        payload: vec![b'.'; usize::try_from(spec.bytes).unwrap_or_default()],
        spec,
        target,
        resolver,
    };
    let mut kept = None;
    for sequence in 0..client.spec.count {
        if client.spec.new_socket {
            kept = None;
        }
        let reply = client.datagram(sequence, &mut kept).await;
        if reply.error.is_some() {
            // A late answer must not pass for the next one's.
            kept = None;
        }
        write(&reply)?;
    }
    Ok(())
}

struct Client {
    spec: UdpSpec,
    target: Target,
    resolver: Resolver,
    payload: Vec<u8>,
}

impl Client {
    async fn datagram(&self, sequence: u64, kept: &mut Option<UdpSocket>) -> UdpReply {
        let mut reply = UdpReply {
            sequence,
            ..UdpReply::default()
        };
        let start = Instant::now();
        let mut progress = Progress::default();
        let exchange = self.exchange(kept, &mut reply, &mut progress);
        let deadline = start + Duration::from_millis(self.spec.timeout_ms);
        let result = match tokio::time::timeout_at(deadline.into(), exchange).await {
            Ok(result) => result,
            Err(_) => Err(of_timeout(progress.stage, deadline, self.spec.timeout_ms)),
        };
        reply.error = result.err();
        reply.latency_us = micros_since(start);
        if self.spec.df {
            reply.path_mtu = kept.as_ref().and_then(path_mtu);
        }
        reply
    }

    async fn exchange(
        &self,
        kept: &mut Option<UdpSocket>,
        reply: &mut UdpReply,
        progress: &mut Progress,
    ) -> Result<(), Failure> {
        let socket = match kept.take() {
            Some(socket) => socket,
            None => self.open(progress).await?,
        };
        let socket = &*kept.insert(socket);
        reply.remote = socket.peer_addr().ok();
        reply.local = socket.local_addr().ok();
        progress.stage = Stage::Exchange;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        // An answer that came twice is not the next one's either.
        while socket.try_recv(&mut buffer).is_ok() {}
        let io = |doing: &str, error: io::Error| of_io(Stage::Exchange, doing, &error);
        socket
            .send(&self.payload)
            .await
            .map_err(|error| io("sending", error))?;
        reply.sent = self.spec.bytes;
        let length = socket
            .recv(&mut buffer)
            .await
            .map_err(|error| io("waiting for the answer", error))?;
        let answer: Answer = serde_json::from_slice(buffer.get(..length).unwrap_or_default())
            .map_err(|error| {
                Failure::new(
                    FailureKind::Protocol,
                    Stage::Exchange,
                    format!("the answer is not a probe's: {error}"),
                )
            })?;
        let arrived = answer.body_length;
        reply.answer = Some(answer);
        match arrived == u64::from(self.spec.bytes) {
            true => Ok(()),
            false => Err(Failure::new(
                FailureKind::Corrupted,
                Stage::Exchange,
                format!("{} bytes sent, {arrived} arrived", self.spec.bytes),
            )),
        }
    }

    async fn open(&self, progress: &mut Progress) -> Result<UdpSocket, Failure> {
        let addresses = addresses(&self.resolver, &self.target, self.spec.source, progress).await?;
        progress.stage = Stage::Connect;
        let mut failed = None;
        // UDP does not tell whether anybody is there: the first address with a route is the one.
        for address in addresses {
            match self.to(address).await {
                Ok(socket) => return Ok(socket),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        Err(failed.unwrap_or_else(|| {
            Failure::new(
                FailureKind::NoSuchHost,
                Stage::Resolve,
                "there is no address",
            )
        }))
    }

    async fn to(&self, address: SocketAddr) -> Result<UdpSocket, Failure> {
        let port = self.spec.source_port.unwrap_or_default();
        let from = match self.spec.source {
            Some(source) => SocketAddr::new(source, port),
            None => any(address.ip(), port),
        };
        let socket = UdpSocket::bind(from)
            .await
            .map_err(|error| of_io(Stage::Local, &format!("sending from {from}"), &error))?;
        may_fragment(&socket, address.ip(), !self.spec.df)
            .map_err(|error| of_io(Stage::Local, "setting \"don't fragment\"", &error))?;
        // Connected, so that ICMP errors reach us.
        socket
            .connect(address)
            .await
            .map_err(|error| of_io(Stage::Connect, &format!("sending to {address}"), &error))?;
        Ok(socket)
    }
}

/// `DO` tells EMSGSIZE instead of fragmenting, `DONT` never sets the bit; the default would lose the first
/// datagram that is too long and fragment the second.
fn may_fragment(socket: &UdpSocket, family_of: IpAddr, may: bool) -> io::Result<()> {
    match family_of {
        IpAddr::V4(_) => {
            let value = match may {
                true => libc::IP_PMTUDISC_DONT,
                false => libc::IP_PMTUDISC_DO,
            };
            setsockopt(socket, Discover, &value)?;
        }
        IpAddr::V6(_) => {
            let value = match may {
                true => libc::IPV6_PMTUDISC_DONT,
                false => libc::IPV6_PMTUDISC_DO,
            };
            setsockopt(socket, Discover6, &value)?;
            setsockopt(socket, Ipv6DontFrag, &!may)?;
        }
    }
    Ok(())
}

fn path_mtu(socket: &UdpSocket) -> Option<u32> {
    use nix::sys::socket::{getsockopt, sockopt::IpMtu};
    let mtu = match socket.peer_addr().ok()? {
        SocketAddr::V4(_) => getsockopt(socket, IpMtu),
        SocketAddr::V6(_) => getsockopt(socket, Mtu6),
    };
    mtu.ok().and_then(|mtu| u32::try_from(mtu).ok())
}
