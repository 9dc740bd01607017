//! Ports of nodes that lead to pods.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use strata_lab::net::cni::{HostPort, PodNetwork as _};
use strata_lab::os::netns::NetNs;
use strata_lab::topology::{IpFamily, OUTSIDE_IP};

use crate::fixture::{Net, PATIENCE, Pod, answers, fails};

const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

pub(super) async fn cases(net: &Net, pods: &[Pod]) {
    everybody_reaches_a_pod_at_its_nodes_addresses(net, pods).await;
    addresses_and_protocols_are_told_apart(net).await;
    a_udp_client_follows_to_the_next_pod(net).await;
}

fn port(ip: Option<IpAddr>, protocol: &str, port: u16) -> HostPort {
    HostPort {
        ip,
        protocol: protocol.to_owned(),
        port,
        container_port: 8080,
    }
}

async fn everybody_reaches_a_pod_at_its_nodes_addresses(net: &Net, pods: &[Pod]) {
    let pod = net.pod_at(1, "e", &[port(None, "tcp", 8081)]).await;
    let node = net.nodes[1].ip;
    let to = net.at(node, 8081);
    let name = |netns: &NetNs, to| answers(netns, to).0;
    for other in pods {
        assert_eq!(name(&other.netns, to), "e", "from {}", other.id);
    }
    assert_eq!(name(&pod.netns, to), "e", "from itself");
    for other in &net.nodes {
        assert_eq!(name(&other.link.netns, to), "e", "from {}", other.link.name);
    }
    // No loopback of IPv6 leads anywhere else.
    if net.family == IpFamily::V4 {
        assert_eq!(name(&net.nodes[1].link.netns, net.at(LOOPBACK, 8081)), "e");
    }
    // Nobody is translated who need not be.
    assert_eq!(
        answers(&net.outside, to),
        ("e".to_owned(), net.like(OUTSIDE_IP))
    );
    let elsewhere = net.at(net.nodes[2].ip, 8081);
    fails(&net.outside, elsewhere, ErrorKind::ConnectionRefused);
    // What only passes through the node is none of it.
    let through = net.at(pods[3].ip, 8081);
    fails(&pods[1].netns, through, ErrorKind::ConnectionRefused);

    net.nodes[1].pods.detach("e").await.unwrap();
    fails(&net.outside, to, ErrorKind::ConnectionRefused);
}

/// sig-network: there is no conflict between pods with the same hostPort but different hostIP and
/// protocol.
async fn addresses_and_protocols_are_told_apart(net: &Net) {
    let node = &net.nodes[1];
    let ports = [
        ("f", port(Some(IpAddr::V4(LOOPBACK)), "tcp", 8082)),
        ("g", port(Some(node.ip), "tcp", 8082)),
        ("h", port(Some(node.ip), "udp", 8082)),
    ];
    let netns = &node.link.netns;
    let mut pods = Vec::new();
    for (id, port) in ports {
        pods.push(net.pod_at(1, id, &[port]).await);
    }
    let loopback = SocketAddr::from((LOOPBACK, 8082));
    assert_eq!(answers(netns, loopback).0, "f");
    assert_eq!(answers(netns, net.at(node.ip, 8082)).0, "g");
    assert_eq!(answers(&net.outside, net.at(node.ip, 8082)).0, "g");
    let socket = client(net);
    assert_eq!(said(&socket, net.at(node.ip, 8082)), "h");
    for id in ["f", "g", "h"] {
        net.nodes[1].pods.detach(id).await.unwrap();
    }
}

async fn a_udp_client_follows_to_the_next_pod(net: &Net) {
    let node = net.at(net.nodes[1].ip, 8083);
    let socket = client(net);
    for id in ["i", "j"] {
        let _pod = net.pod_at(1, id, &[port(None, "udp", 8083)]).await;
        assert_eq!(said(&socket, node), id);
        net.nodes[1].pods.detach(id).await.unwrap();
    }
}

fn client(net: &Net) -> UdpSocket {
    let socket = net
        .outside
        .run(|| UdpSocket::bind(net.at(Ipv4Addr::UNSPECIFIED, 0)));
    let socket = socket.unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Who answers a datagram.
fn said(socket: &UdpSocket, to: SocketAddr) -> String {
    socket.send_to(b"who", to).unwrap();
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    text.split(' ').next().unwrap().to_owned()
}
