//! From `HOST:PORT` to a connection.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use strata_probe::{Failure, FailureKind, Stage};
use tokio::net::{TcpSocket, TcpStream};

use super::failure;
use super::resolve::Resolver;

/// Where to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// A name, or an address without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Target {
    /// Reads `HOST`, `HOST:PORT`, `ADDRESS` or `[ADDRESS]:PORT`.
    pub(crate) fn parse(text: &str, default_port: Option<u16>) -> Result<Self, String> {
        let bare = text.parse::<IpAddr>().is_ok() || text.ends_with(']');
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !bare => (host, Some(port)),
            _ => (text, None),
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let port = match port {
            Some(port) => port.parse().ok(),
            None => default_port,
        };
        match (host, port) {
            ("", _) => Err(format!("`{text}` has no host")),
            (_, None) => Err(format!(
                "`{text}` has no port: it is to be HOST:PORT, the port from 0 to 65535"
            )),
            (host, Some(port)) => Ok(Self {
                host: host.to_owned(),
                port,
            }),
        }
    }
}

/// How far a connection came, also when time runs out.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    /// What the name resolved to.
    pub(crate) resolved: Vec<IpAddr>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            stage: Stage::Local,
            resolved: Vec::new(),
        }
    }
}

/// The addresses to try, of the family of `source` if there is one.
pub(crate) async fn addresses(
    resolver: &Resolver,
    target: &Target,
    source: Option<IpAddr>,
    progress: &mut Progress,
) -> Result<Vec<SocketAddr>, Failure> {
    progress.stage = Stage::Resolve;
    let mut addresses = resolver.addresses(&target.host).await?;
    if target.host.parse::<IpAddr>().is_err() {
        progress.resolved.clone_from(&addresses);
    }
    addresses.retain(|address| source.is_none_or(|source| source.is_ipv4() == address.is_ipv4()));
    if addresses.is_empty() {
        return Err(Failure::new(
            FailureKind::NoSuchHost,
            Stage::Resolve,
            format!("{} has no address of the source's family", target.host),
        ));
    }
    let addresses = addresses.into_iter();
    Ok(addresses
        .map(|address| SocketAddr::new(address, target.port))
        .collect())
}

/// Connects to the first address that answers, each with its share of the time left. Tells which it
/// was: of a connection that has been cut since, the kernel does not know any more.
pub(crate) async fn connect(
    resolver: &Resolver,
    target: &Target,
    source: Option<IpAddr>,
    deadline: Instant,
    progress: &mut Progress,
) -> Result<(TcpStream, SocketAddr), Failure> {
    let addresses = addresses(resolver, target, source, progress).await?;
    progress.stage = Stage::Connect;
    let mut first: Option<Failure> = None;
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        match to(*address, source, share).await {
            Ok(stream) => return Ok((stream, *address)),
            // This one did answer.
            Err(failure) if failure.stage == Stage::Exchange => return Err(failure),
            Err(failure) => {
                first = Some(match first {
                    // The name's first address is what a client without patience would have tried.
                    Some(earlier) => Failure {
                        text: format!("{}; {}", earlier.text, failure.text),
                        ..earlier
                    },
                    None => failure,
                });
            }
        }
    }
    Err(first.unwrap_or_else(|| {
        Failure::new(
            FailureKind::NoSuchHost,
            Stage::Resolve,
            "there is no address",
        )
    }))
}

async fn to(
    address: SocketAddr,
    source: Option<IpAddr>,
    within: Duration,
) -> Result<TcpStream, Failure> {
    let local = |error| failure::of_io(Stage::Local, "opening a socket", &error);
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
    .map_err(|error| match error.raw_os_error() {
        // A kernel without IPv6 cannot reach it either.
        Some(libc::EAFNOSUPPORT) => Failure::new(
            FailureKind::Unreachable,
            Stage::Connect,
            format!("connecting to {address}: {error}"),
        ),
        _ => local(error),
    })?;
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0)).map_err(|error| {
            failure::of_io(Stage::Local, &format!("sending from {source}"), &error)
        })?;
    }
    let deadline = Instant::now() + within;
    match tokio::time::timeout_at(deadline.into(), socket.connect(address)).await {
        Ok(Ok(stream)) => {
            // Not to wait for more to send is part of measuring; a socket that refuses works, too.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Ok(Err(error)) => {
            // An RST in answer to a SYN is ECONNREFUSED: a reset means that the connection was there
            // and was cut before we had a look at it (RFC 9293 §3.10.7).
            let stage = match failure::kind_of_io(&error) {
                FailureKind::Reset => Stage::Exchange,
                _ => Stage::Connect,
            };
            let doing = format!("connecting to {address}");
            Err(failure::of_io(stage, &doing, &error))
        }
        Err(_) => Err(Failure::new(
            FailureKind::TimedOut,
            Stage::Connect,
            format!(
                "connecting to {address}: nothing after {} ms",
                within.as_millis()
            ),
        )
        .late_by(deadline.elapsed())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_names_or_addresses() {
        for (text, host, port) in [
            ("web:80", "web", 80),
            ("10.0.0.1:80", "10.0.0.1", 80),
            ("[fd00::1]:80", "fd00::1", 80),
            ("web", "web", 443),
            ("fd00::1", "fd00::1", 443),
            ("[fd00::1]", "fd00::1", 443),
        ] {
            let target = Target::parse(text, Some(443)).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host, port), "{text}");
        }
        for text in ["web", "web:", "web:http", ":80", "web:65536"] {
            assert!(Target::parse(text, None).is_err(), "{text}");
        }
    }
}
