//! The protocol over real sockets.

use std::str::FromStr as _;
use std::sync::Arc;

use hickory_proto::op::{DnsResponse, Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use hickory_server::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;

use super::zone;
use crate::net::dns::corefile::Corefile;
use crate::net::dns::forward::Upstream;
use crate::net::dns::server::Handler;
use crate::net::dns::zone::Zone;
use crate::os::netns::NetNs;

/// A handler with nobody else to ask.
fn handler(zone: watch::Receiver<Option<Zone>>) -> Handler {
    let (_, corefile) = watch::channel(Arc::<Corefile>::default());
    let upstream = Upstream::of(NetNs::current().unwrap());
    Handler {
        zone,
        corefile,
        upstream,
    }
}

fn question(name: &str, payload: Option<u16>) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::A));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message
}

#[tokio::test]
async fn long_answers_are_cut_over_udp_and_whole_over_tcp() {
    let (_sender, zone) = watch::channel(Some(zone()));
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (udp, tcp) = (socket.local_addr().unwrap(), listener.local_addr().unwrap());
    let mut server = Server::new(handler(zone));
    server.register_socket(socket);
    server.register_listener(listener, std::time::Duration::from_secs(5), 8);
    let client = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(udp).await.unwrap();
    let mut buffer = vec![0; 65535];
    for (payload, whole) in [(None, false), (Some(700), false), (Some(4096), true)] {
        let message = question("many.ns.svc.cluster.local.", payload);
        client.send(&message.to_vec().unwrap()).await.unwrap();
        let length = client.recv(&mut buffer).await.unwrap();
        let answer = DnsResponse::from_buffer(buffer[..length].to_vec()).unwrap();
        assert_eq!(answer.truncation, !whole, "{payload:?}");
        assert_eq!(answer.answers.len() == 60, whole, "{payload:?}");
        assert!(answer.authoritative, "{payload:?}");
        assert!(
            length <= usize::from(payload.unwrap_or(512)),
            "{payload:?}: {length}"
        );
        assert_eq!(answer.edns.is_some(), payload.is_some());
    }
    let mut stream = tokio::net::TcpStream::connect(tcp).await.unwrap();
    let message = question("many.ns.svc.cluster.local.", None)
        .to_vec()
        .unwrap();
    stream
        .write_u16(u16::try_from(message.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(&message).await.unwrap();
    let length = usize::from(stream.read_u16().await.unwrap());
    stream.read_exact(&mut buffer[..length]).await.unwrap();
    let answer = DnsResponse::from_buffer(buffer[..length].to_vec()).unwrap();
    assert_eq!((answer.truncation, answer.answers.len()), (false, 60));
}
