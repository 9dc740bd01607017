//! Names of others, over real sockets: who is asked, and what becomes of the answer.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;
use std::sync::Arc;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use hickory_server::Server;
use hickory_server::server::RequestHandler;
use tokio::sync::watch;

use super::{data, zone};
use crate::net::dns::corefile::Corefile;
use crate::net::dns::forward::{Protocol, Upstream};
use crate::net::dns::server::Handler;
use crate::net::dns::world::World;
use crate::os::netns::NetNs;

/// A name server on loopback; it goes with what is returned.
async fn start<H: RequestHandler>(handler: H) -> (SocketAddr, Server<H>) {
    let mut server = Server::new(handler);
    let (socket, listener) = loop {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        // Another program may have that port for TCP.
        if let Ok(listener) = tokio::net::TcpListener::bind(address).await {
            break (socket, listener);
        }
    };
    let address = socket.local_addr().unwrap();
    server.register_socket(socket);
    server.register_listener(listener, std::time::Duration::from_secs(5), 8);
    (address, server)
}

/// A name server that knows one machine.
async fn world(machine: &str, ips: &[&str]) -> (SocketAddr, Server<World>) {
    let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    start(World::of(&[(machine.to_owned(), ips)])).await
}

/// An address of loopback where nobody answers.
async fn nobody() -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.local_addr().unwrap()
}

#[tokio::test]
async fn questions_go_to_whom_the_corefile_names() {
    let (world, _world) = world("outside", &["172.30.0.1", "fd00:172:30::1"]).await;
    let (stub, _stub) = self::world("web.corp.example", &["192.0.2.80"]).await;
    let (example, _example) = self::world("example.com", &["192.0.2.1"]).await;
    let closed = nobody().await;
    let corefile = format!(
        ". {{\n forward . {world}\n forward example.com {closed} {example}\n}}\n\
         corp.example {{\n forward . {stub}\n}}\n\
         closed.example {{\n forward . {closed}\n}}\n\
         silent.example {{\n errors\n}}\n"
    );
    let corefile = Arc::new(Corefile::parse(&corefile, &[]).unwrap());
    let zone = Some(zone());
    let upstream = Upstream::of(NetNs::current().unwrap());
    let (_zone, zone) = watch::channel(zone);
    let (_corefile, corefile) = watch::channel(corefile);
    let handler = Handler {
        zone,
        corefile,
        upstream: upstream.clone(),
    };
    let (cluster, _cluster) = start(handler).await;
    use RecordType::{A, AAAA, CNAME, PTR};
    let (found, none) = (ResponseCode::NoError, ResponseCode::NXDomain);
    let failed = ResponseCode::ServFail;
    for (name, kind, code, expected) in [
        ("outside.", A, found, &["outside. 5 172.30.0.1"][..]),
        ("outside.", AAAA, found, &["outside. 5 fd00:172:30::1"]),
        (
            "1.0.30.172.in-addr.arpa.",
            PTR,
            found,
            &["1.0.30.172.in-addr.arpa. 5 outside."],
        ),
        ("elsewhere.", A, none, &[]),
        (
            "web.corp.example.",
            A,
            found,
            &["web.corp.example. 5 192.0.2.80"],
        ),
        ("web.corp.example.", AAAA, found, &[]),
        ("outside.corp.example.", A, none, &[]),
        // One of its two servers is not there, and the other is asked in its place.
        ("example.com.", A, found, &["example.com. 5 192.0.2.1"]),
        ("www.closed.example.", A, failed, &[]),
        ("www.silent.example.", A, failed, &[]),
        // The cluster's own alias of a name of the world's.
        (
            "out.ns.svc.cluster.local.",
            A,
            found,
            &[
                "Example.COM. 5 192.0.2.1",
                "out.ns.svc.cluster.local. 5 Example.COM.",
            ],
        ),
        (
            "out.ns.svc.cluster.local.",
            CNAME,
            found,
            &["out.ns.svc.cluster.local. 5 Example.COM."],
        ),
    ] {
        let query = Query::query(Name::from_str(name).unwrap(), kind);
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let answer = upstream.ask(&[cluster], &query, protocol).await.unwrap();
            let seen = (answer.metadata.response_code, data(&answer.answers));
            let expected: Vec<_> = expected.iter().map(|one| (*one).to_owned()).collect();
            assert_eq!(seen, (code, expected), "{name} {kind} over {protocol:?}");
        }
    }
}
