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
use std::net::{IpAddr, Shutdown, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use strata_lab::net::cni::{Cni, PodNetwork};
use strata_lab::topology::OUTSIDE_IP;

use self::fixture::{Net, PATIENCE, Pod, answers, ask, at, connect, fails, serve};

fn main() -> ExitCode {
    let tests = Cni::ALL.map(|cni| -> enclosed::Test { (cni.to_string(), Box::pin(cases(cni))) });
    enclosed::main(tests.into())
}

async fn cases(cni: Cni) {
    if let Err(error) = cni.check() {
        println!("not run: {error:#}");
        return;
    }
    let net = Net::new(cni).await;
    let pods = [
        net.pod(0, "a").await,
        net.pod(1, "b").await,
        net.pod(1, "c").await,
        net.pod(2, "d").await,
    ];
    pods_reach_each_other_untranslated(&pods);
    full_sized_datagrams_pass_and_no_larger(&net, &pods);
    bulk_arrives_whole(&pods);
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

fn pods_reach_each_other_untranslated(pods: &[Pod]) {
    for from in pods {
        for to in pods {
            let (name, seen) = answers(&from.netns, at(to.ip, 8080));
            assert_eq!((name.as_str(), seen), (to.id, IpAddr::V4(from.ip)));
        }
    }
}

fn full_sized_datagrams_pass_and_no_larger(net: &Net, pods: &[Pod]) {
    // The headers of IPv4 and UDP take their part.
    let most = usize::try_from(net.cni.mtu()).unwrap() - 28;
    for to in [&pods[2], &pods[3]] {
        let socket = pods[1]
            .netns
            .run(|| UdpSocket::bind(at(pods[1].ip, 0)))
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let always: libc::c_int = libc::IP_PMTUDISC_DO;
        // SAFETY: the option is an int, and lives through the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_IP,
                libc::IP_MTU_DISCOVER,
                (&raw const always).cast(),
                libc::socklen_t::try_from(size_of_val(&always)).unwrap(),
            )
        };
        assert_eq!(set, 0);
        let datagram = vec![1; most + 1];
        socket.send_to(&datagram[..most], at(to.ip, 8080)).unwrap();
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        let said = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert_eq!(said, format!("{} {} {most}", to.id, pods[1].ip));
        let error = socket.send_to(&datagram, at(to.ip, 8080)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }
}

fn bulk_arrives_whole(pods: &[Pod]) {
    for to in [&pods[2], &pods[3]] {
        let mut stream = connect(&pods[1].netns, at(to.ip, 9000)).unwrap();
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
            let (name, _) = answers(&node.link.netns, at(pod.ip, 8080));
            assert_eq!(name, pod.id);
            let (_, seen) = answers(&pod.netns, at(node.link.ip, 8080));
            // To its own node a pod comes as itself, to another as its node.
            let own = net.nodes[pod.node].link.ip;
            let expected = if pod.node == number { pod.ip } else { own };
            assert_eq!(seen, IpAddr::V4(expected));
        }
    }
}

fn outside_sees_nodes_only(net: &Net, pods: &[Pod]) {
    serve(&net.outside, "outside");
    for pod in pods {
        let (_, seen) = answers(&pod.netns, at(OUTSIDE_IP, 8080));
        assert_eq!(seen, IpAddr::V4(net.nodes[pod.node].link.ip));
        fails(
            &net.outside,
            at(pod.ip, 8080),
            ErrorKind::NetworkUnreachable,
        );
    }
    fails(
        &net.outside,
        at([10, 96, 0, 1], 443),
        ErrorKind::NetworkUnreachable,
    );
    // What nobody has is unreachable from inside, too, and at once.
    fails(
        &pods[0].netns,
        at([192, 0, 2, 1], 80),
        ErrorKind::NetworkUnreachable,
    );
}

async fn addresses_of_the_gone_answer_nobody(net: &Net, pods: &[Pod]) {
    let gone = net.pod(1, "gone").await;
    assert_eq!(answers(&pods[3].netns, at(gone.ip, 8080)).0, "gone");
    net.nodes[1].pods.detach("gone").await.unwrap();
    net.nodes[1].pods.detach("gone").await.unwrap();
    let next = net.pod(1, "next").await;
    assert_ne!(next.ip, gone.ip);
    for from in [&pods[1], &pods[3]] {
        let error = ask(&from.netns, at(gone.ip, 8080)).unwrap_err();
        let kinds: &[_] = match net.cni {
            Cni::Vxlan => &[ErrorKind::HostUnreachable],
            // Nobody says so: not the outside, whose word would not find the pod, and no black hole.
            Cni::Kindnet | Cni::Calico => &[ErrorKind::TimedOut],
            // Nobody answers ARP, which is found out after a while.
            Cni::Flannel => &[ErrorKind::HostUnreachable, ErrorKind::TimedOut],
        };
        assert!(kinds.contains(&error.kind()), "{error}");
        assert_eq!(answers(&from.netns, at(next.ip, 8080)).0, "next");
    }
    net.nodes[1].pods.detach("next").await.unwrap();
}

async fn the_ways_follow_the_nodes(net: &Net, pods: &[Pod]) {
    net.connect(&[0, 1]).await;
    assert!(ask(&pods[1].netns, at(pods[3].ip, 8080)).is_err());
    assert_eq!(answers(&pods[1].netns, at(pods[0].ip, 8080)).0, "a");
    net.connect(&[0, 1, 2]).await;
    pods_reach_each_other_untranslated(pods);
    // What somebody breaks on a node is put back: the route, then the overlay's device itself.
    let device = match net.cni {
        Cni::Vxlan => Some("vxlan0"),
        Cni::Flannel => Some("flannel.1"),
        Cni::Kindnet | Cni::Calico => None,
    };
    let device = device.map(|device| ["link", "del", device]);
    for broken in [["route", "del", "10.244.2.0/24"]]
        .into_iter()
        .chain(device)
    {
        let mut command = tokio::process::Command::new("ip");
        command.args(broken);
        let Ok(mut ip) = net.nodes[1].link.netns.spawn(&mut command) else {
            println!("not run: there is no ip program to break things with");
            return;
        };
        assert!(ip.wait().await.unwrap().success());
        assert!(
            ask(&pods[1].netns, at(pods[3].ip, 8080)).is_err(),
            "{broken:?}"
        );
        net.connect(&[0, 1, 2]).await;
        pods_reach_each_other_untranslated(pods);
    }
}
