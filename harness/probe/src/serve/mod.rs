//! The servers: HTTP, TLS, TCP and UDP, told apart only by their ports.
//!
//! Start from [`run`]. What they say about themselves is [`state`]'s. Rule: no input ends the process, only
//! a signal does, or the end of the time that was asked for; then it drains, stops accepting, finishes what is
//! in flight, and is gone within [`GRACE`].

mod control;
mod health;
mod http;
mod state;
mod tcp;
mod tls;
mod udp;
mod websocket;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use strata_probe::Listening;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Trouble;
use crate::cli::ServeFlags;
use state::State;

/// How long what is in flight may take after the end was announced.
const GRACE: Duration = Duration::from_secs(10);
/// What is served when nothing is said.
const DEFAULT_PORT: u16 = 8080;
/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;
/// When the process is out of descriptors, accepting again at once would only burn time.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Becomes true when nothing new is to be begun.
type Stopping = watch::Receiver<bool>;

/// Waits until nothing new is to be begun.
async fn stopped(stopping: &mut Stopping) {
    // A sender that is gone is an end, too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Serves until SIGTERM or SIGINT, or for as long as was asked for.
pub(crate) async fn run(flags: ServeFlags) -> Result<(), Trouble> {
    let trouble = |error: io::Error| Trouble::Other(format!("waiting for signals: {error}"));
    // First of all: as PID 1, a signal without a handler would be lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(trouble)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(trouble)?;
    let mut children = signal(SignalKind::child()).map_err(trouble)?;

    let state = Arc::new(State::from_environment(!flags.not_ready));
    let (stop, stopping) = watch::channel(false);
    let mut servers = JoinSet::new();
    let listening = start(&flags, &state, &stopping, &mut servers).await?;
    announce(&listening)?;

    let mut reaper = JoinSet::new();
    reaper.spawn(async move {
        crate::pause::reap();
        while children.recv().await.is_some() {
            crate::pause::reap();
        }
    });
    let over = async {
        match flags.for_ms {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = over => {}
    }
    state.drain();
    let finishing = async {
        let idle = async {
            match flags.drain_idle_ms {
                Some(ms) => state.idle(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
        };
        let drained = Duration::from_millis(flags.drain_ms);
        // Either way it is over.
        let _ = tokio::time::timeout(drained, idle).await;
        // Servers that are gone need not be told.
        let _ = stop.send(true);
        let all = async { while servers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, all).await;
    };
    tokio::select! {
        () = finishing => {}
        // Asked twice: at once.
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn start(
    flags: &ServeFlags,
    state: &Arc<State>,
    stopping: &Stopping,
    servers: &mut JoinSet<()>,
) -> Result<Listening, Trouble> {
    let mut listening = Listening::default();
    let others = [
        &flags.http_local,
        &flags.http_own,
        &flags.tls,
        &flags.tcp,
        &flags.tcp_first,
        &flags.udp,
    ];
    let http = match flags.http.is_empty() && others.iter().all(|ports| ports.is_empty()) {
        true => vec![DEFAULT_PORT],
        false => flags.http.clone(),
    };
    let local = flags.http_local.iter();
    let local = local.map(|port| listen_at((Ipv4Addr::LOCALHOST, *port).into()));
    let own = flags.http_own.iter().zip(flags.pod_ip.iter().cycle());
    let own = own.map(|(port, address)| listen_at((*address, *port).into()));
    for opened in http.into_iter().map(listen).chain(local).chain(own) {
        let (listener, address) = opened?;
        listening.http.push(address);
        let state = Arc::clone(state);
        servers.spawn(accept(
            listener,
            stopping.clone(),
            move |stream, stopping| http::plain(Arc::clone(&state), stream, stopping),
        ));
    }
    if !flags.tls.is_empty() {
        let acceptor = tls::acceptor(flags)?;
        for port in &flags.tls {
            let (listener, address) = listen(*port)?;
            listening.tls.push(address);
            let (state, acceptor) = (Arc::clone(state), acceptor.clone());
            servers.spawn(accept(
                listener,
                stopping.clone(),
                move |stream, stopping| {
                    http::secure(Arc::clone(&state), acceptor.clone(), stream, stopping)
                },
            ));
        }
    }
    for port in &flags.tcp {
        let (listener, address) = listen(*port)?;
        listening.tcp.push(address);
        let state = Arc::clone(state);
        servers.spawn(accept(listener, stopping.clone(), move |stream, _| {
            tcp::echo(Arc::clone(&state), stream)
        }));
    }
    for port in &flags.tcp_first {
        let (listener, address) = listen(*port)?;
        listening.tcp.push(address);
        let state = Arc::clone(state);
        servers.spawn(accept(listener, stopping.clone(), move |stream, _| {
            tcp::speak(Arc::clone(&state), stream)
        }));
    }
    for port in &flags.udp {
        let (socket, address) = udp::bind(*port).map_err(|error| no_port("UDP", *port, &error))?;
        listening.udp.push(address);
        servers.spawn(udp::answer(Arc::clone(state), socket, stopping.clone()));
    }
    Ok(listening)
}

fn announce(listening: &Listening) -> Result<(), Trouble> {
    use std::io::Write;
    let line = serde_json::to_string(listening)
        .map_err(|error| Trouble::Other(format!("telling the ports: {error}")))?;
    let mut output = io::stdout().lock();
    // Nobody needs to listen to a server: a closed standard output does not stop it.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    Ok(())
}

fn no_port(kind: &str, port: u16, error: &io::Error) -> Trouble {
    Trouble::Other(format!("listening on {kind} port {port}: {error}"))
}

/// On one address.
fn listen_at(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Trouble> {
    let open = || -> io::Result<(TcpListener, SocketAddr)> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    open().map_err(|error| no_port("TCP", address.port(), &error))
}

/// On every address of both families, or of IPv4 alone where there is no IPv6.
fn listen(port: u16) -> Result<(TcpListener, SocketAddr), Trouble> {
    let both = || -> io::Result<TcpListener> {
        let socket = TcpSocket::new_v6()?;
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv6Addr::UNSPECIFIED, port).into())?;
        socket.listen(BACKLOG)
    };
    let one = || -> io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((Ipv4Addr::UNSPECIFIED, port).into())?;
        socket.listen(BACKLOG)
    };
    let listener = both().or_else(|error| if no_ipv6(&error) { one() } else { Err(error) });
    listener
        .and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        })
        .map_err(|error| no_port("TCP", port, &error))
}

/// The kernel has no IPv6, or it is switched off here.
fn no_ipv6(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// IPv4 as IPv4, also when it came in through a socket of both families.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Accepts until told to stop, then finishes the connections there are.
async fn accept<F>(
    listener: TcpListener,
    mut stopping: Stopping,
    serve: impl Fn(TcpStream, Stopping) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let for_connections = stopping.clone();
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    connections.spawn(serve(stream, for_connections.clone()));
                }
                // The one that was waiting is gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    eprintln!("strata-probe: accepting: {error}");
                    tokio::time::sleep(BACK_OFF).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
