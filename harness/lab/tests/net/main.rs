//! The data path: three nodes, pods and Services, all of it real packets in namespaces of this
//! program's own, as root or as anybody.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod agents;
mod bridges;
#[path = "../support/enclosed.rs"]
mod enclosed;
mod fixture;
mod host_ports;
mod policies;
mod services;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use strata_lab::net::cni::{Cni, PodNetwork};
use strata_lab::topology::{IpFamily, OUTSIDE_IP};

use self::fixture::{
    FAMILIES, Net, PATIENCE, Pod, answers, connect, connects, fails, refusal, serve,
};

fn main() -> ExitCode {
    let of_cni = |cni: Cni| {
        let each = FAMILIES.each().iter();
        each.map(move |family| -> enclosed::Test {
            (format!("{cni}, {family}"), Box::pin(cases(cni, *family)))
        })
    };
    enclosed::main(Cni::ALL.into_iter().flat_map(of_cni).collect())
}

async fn cases(cni: Cni, family: IpFamily) {
    if let Err(error) = cni.check().and_then(|()| FAMILIES.check()) {
        println!("not run: {error:#}");
        return;
    }
    let net = Net::new(cni, family).await;
    let pods = [
        net.pod(0, "a").await,
        net.pod(1, "b").await,
        net.pod(1, "c").await,
        net.pod(2, "d").await,
    ];
    pods_reach_each_other_untranslated(&net, &pods);
    full_sized_datagrams_pass_and_no_larger(&net, &pods);
    bulk_arrives_whole(&net, &pods);
    nodes_and_pods_reach_each_other(&net, &pods);
    outside_sees_nodes_only(&net, &pods);
    addresses_of_the_gone_answer_nobody(&net, &pods).await;
    the_ways_follow_the_nodes(&net, &pods).await;
    host_ports::cases(&net, &pods).await;
    services::cases(&net, &pods).await;
    match cni {
        // What else there is does not depend on it.
        Cni::Vxlan => agents::cases(&net, &pods).await,
        Cni::Flannel => bridges::cases(&net, &pods).await,
        Cni::Calico => policies::cases(&net, &pods).await,
        Cni::Kindnet => {}
    }
}

fn pods_reach_each_other_untranslated(net: &Net, pods: &[Pod]) {
    for from in pods {
        for to in pods {
            let (name, seen) = answers(&from.netns, net.at(to.ip, 8080));
            assert_eq!((name.as_str(), seen), (to.id, from.ip));
        }
    }
}

fn full_sized_datagrams_pass_and_no_larger(net: &Net, pods: &[Pod]) {
    // The headers of IP and UDP take their part.
    let (headers, protocol, option) = match net.family {
        IpFamily::V4 => (28, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        IpFamily::V6 => (48, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    };
    let most = usize::try_from(net.cni.pod_mtu(FAMILIES)).unwrap() - headers;
    for to in [&pods[2], &pods[3]] {
        let socket = pods[1]
            .netns
            .run(|| UdpSocket::bind(net.at(pods[1].ip, 0)))
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let always: libc::c_int = libc::IP_PMTUDISC_DO;
        // SAFETY: the option is an int, and lives through the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                protocol,
                option,
                (&raw const always).cast(),
                libc::socklen_t::try_from(size_of_val(&always)).unwrap(),
            )
        };
        assert_eq!(set, 0);
        let datagram = vec![1; most + 1];
        socket
            .send_to(&datagram[..most], net.at(to.ip, 8080))
            .unwrap();
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert_eq!(said, format!("{} {} {most}", to.id, pods[1].ip));
        let error = socket.send_to(&datagram, net.at(to.ip, 8080)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }
}

fn bulk_arrives_whole(net: &Net, pods: &[Pod]) {
    for to in [&pods[2], &pods[3]] {
        let mut stream = connect(&pods[1].netns, net.at(to.ip, 9000)).unwrap();
        stream.write_all(&vec![7; 1 << 20]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "1048576");
    }
}

fn nodes_and_pods_reach_each_other(net: &Net, pods: &[Pod]) {
    for node in &net.nodes {
        serve(&node.link.netns, "node");
    }
    for (number, node) in net.nodes.iter().enumerate() {
        for pod in pods {
            let (name, _) = answers(&node.link.netns, net.at(pod.ip, 8080));
            assert_eq!(name, pod.id);
            let (_, seen) = answers(&pod.netns, net.at(node.ip, 8080));
            // To its own node a pod comes as itself, to another as its node.
            let own = net.nodes[pod.node].ip;
            let expected = if pod.node == number { pod.ip } else { own };
            assert_eq!(seen, expected);
        }
    }
}

fn outside_sees_nodes_only(net: &Net, pods: &[Pod]) {
    serve(&net.outside, "outside");
    for pod in pods {
        let (_, seen) = answers(&pod.netns, net.at(OUTSIDE_IP, 8080));
        assert_eq!(seen, net.nodes[pod.node].ip);
        fails(
            &net.outside,
            net.at(pod.ip, 8080),
            ErrorKind::NetworkUnreachable,
        );
    }
    fails(
        &net.outside,
        net.at([10, 96, 0, 1], 443),
        ErrorKind::NetworkUnreachable,
    );
    // What nobody has is unreachable from inside, too, and at once.
    fails(
        &pods[0].netns,
        net.at([192, 0, 2, 1], 80),
        ErrorKind::NetworkUnreachable,
    );
}

async fn addresses_of_the_gone_answer_nobody(net: &Net, pods: &[Pod]) {
    let gone = net.pod(1, "gone").await;
    assert_eq!(answers(&pods[3].netns, net.at(gone.ip, 8080)).0, "gone");
    net.nodes[1].pods.detach("gone").await.unwrap();
    net.nodes[1].pods.detach("gone").await.unwrap();
    let next = net.pod(1, "next").await;
    assert_ne!(next.ip, gone.ip);
    for from in [&pods[1], &pods[3]] {
        let error = refusal(&from.netns, net.at(gone.ip, 8080));
        let kinds: &[_] = match net.cni {
            // The same route, of which each family has its own word (RFC 1812 §5.2.7.1, RFC 4443 §3.1).
            Cni::Vxlan => match net.family {
                IpFamily::V4 => &[ErrorKind::HostUnreachable],
                IpFamily::V6 => &[ErrorKind::NetworkUnreachable],
            },
            // Nobody says so: not the outside, whose word would not find the pod, and no black hole.
            Cni::Kindnet | Cni::Calico => &[ErrorKind::TimedOut],
            // Nobody answers ARP, which is found out after a while.
            Cni::Flannel => &[ErrorKind::HostUnreachable, ErrorKind::TimedOut],
        };
        assert!(kinds.contains(&error.kind()), "{error}");
        assert_eq!(answers(&from.netns, net.at(next.ip, 8080)).0, "next");
    }
    net.nodes[1].pods.detach("next").await.unwrap();
}

async fn the_ways_follow_the_nodes(net: &Net, pods: &[Pod]) {
    net.connect(&[0, 1]).await;
    assert!(!connects(&pods[1].netns, net.at(pods[3].ip, 8080)));
    assert_eq!(answers(&pods[1].netns, net.at(pods[0].ip, 8080)).0, "a");
    net.connect(&[0, 1, 2]).await;
    pods_reach_each_other_untranslated(net, pods);
    // What somebody breaks on a node is put back: the route, then the overlay's device itself.
    let device = match (net.cni, net.family) {
        (Cni::Vxlan, IpFamily::V4) => Some("vxlan0"),
        (Cni::Vxlan, IpFamily::V6) => Some("vxlan0-v6"),
        (Cni::Flannel, IpFamily::V4) => Some("flannel.1"),
        (Cni::Flannel, IpFamily::V6) => Some("flannel-v6.1"),
        (Cni::Kindnet | Cni::Calico, _) => None,
    };
    let device = device.map(|device| vec!["link", "del", device]);
    let route = match net.family {
        IpFamily::V4 => vec!["route", "del", "10.244.2.0/24"],
        IpFamily::V6 => vec!["-6", "route", "del", "fd00:10:244:2::/64"],
    };
    for broken in [route].into_iter().chain(device) {
        let mut command = tokio::process::Command::new("ip");
        command.args(&broken);
        let Ok(mut ip) = net.nodes[1].link.netns.spawn(&mut command) else {
            println!("not run: there is no ip program to break things with");
            return;
        };
        assert!(ip.wait().await.unwrap().success());
        let to = net.at(pods[3].ip, 8080);
        assert!(!connects(&pods[1].netns, to), "{broken:?}");
        net.connect(&[0, 1, 2]).await;
        pods_reach_each_other_untranslated(net, pods);
    }
}
