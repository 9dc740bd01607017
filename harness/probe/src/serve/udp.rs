//! UDP: every datagram answered from the address it was sent to.
//!
//! A socket bound to every address would answer from whatever address the route prefers, and a client
//! behind a NAT, or one that asked a second address of ours, would not know the answer: so the
//! address is taken from IP_PKTINFO (ip(7)) and given back with the answer.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn,
    SockaddrIn6, SockaddrLike, SockaddrStorage, bind as bind_to, recvmsg, sendmsg, setsockopt,
    socket, sockopt,
};
use strata_probe::Protocol;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::state::State;
use super::{Stopping, no_ipv6, stopped};

/// On every address of both families, or of IPv4 alone where there is no IPv6.
pub(crate) fn bind(port: u16) -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = match open(Ipv6Addr::UNSPECIFIED.into(), port) {
        Err(error) if no_ipv6(&error) => open(Ipv4Addr::UNSPECIFIED.into(), port),
        result => result,
    }?;
    let socket = UdpSocket::from_std(socket)?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}

fn open(address: IpAddr, port: u16) -> io::Result<std::net::UdpSocket> {
    let family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    match SocketAddr::new(address, port) {
        SocketAddr::V4(address) => {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
            bind_to(socket.as_raw_fd(), &SockaddrIn::from(address))?;
        }
        SocketAddr::V6(address) => {
            setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
            bind_to(socket.as_raw_fd(), &SockaddrIn6::from(address))?;
        }
    }
    Ok(socket.into())
}

/// Answers until told to stop.
pub(crate) async fn answer(state: Arc<State>, socket: UdpSocket, mut stopping: Stopping) {
    let Ok(bound) = socket.local_addr() else {
        return;
    };
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let received = tokio::select! {
            () = stopped(&mut stopping) => return,
            received = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)) => received,
        };
        // An error is one that an earlier answer met on its way.
        let Ok(datagram) = received else {
            continue;
        };
        let local = SocketAddr::new(datagram.to, bound.port());
        state.asked();
        let answer = state.answer(datagram.from, local, Protocol::Udp, datagram.length);
        let text = serde_json::to_vec(&answer).unwrap_or_default();
        // Nobody waits for an answer that cannot be sent, except its client, who will say so.
        let _ = socket
            .async_io(Interest::WRITABLE, || send(&socket, &datagram, &text))
            .await;
    }
}

#[derive(Debug)]
struct Datagram {
    from: SocketAddr,
    to: IpAddr,
    /// The interface it came in by, which a link-local answer needs.
    interface: u32,
    length: u64,
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut control = cmsg_space!(libc::in6_pktinfo);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let no_address = || io::Error::other("a datagram without an address");
    let from = message
        .address
        .as_ref()
        .and_then(address)
        .ok_or_else(no_address)?;
    let (to, interface) = message
        .cmsgs()?
        .find_map(|part| match part {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some((
                IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()),
                info.ipi_ifindex.unsigned_abs(),
            )),
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                Some((IpAddr::from(info.ipi6_addr.s6_addr), info.ipi6_ifindex))
            }
            _ => None,
        })
        .ok_or_else(no_address)?;
    Ok(Datagram {
        from,
        to,
        interface,
        length: message.bytes as u64,
    })
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::V4((*v4).into())),
        (_, Some(v6)) => Some(SocketAddr::V6((*v6).into())),
        _ => None,
    }
}

fn send(socket: &UdpSocket, datagram: &Datagram, text: &[u8]) -> io::Result<usize> {
    let parts = [IoSlice::new(text)];
    let fd = socket.as_raw_fd();
    match (datagram.from, datagram.to) {
        (SocketAddr::V4(from), IpAddr::V4(to)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(to.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            transmit(fd, &parts, &control, &SockaddrIn::from(from))
        }
        (SocketAddr::V6(from), IpAddr::V6(to)) => {
            // Routing decides, save where an address means nothing without its link.
            let interface = match to.is_unicast_link_local() {
                true => datagram.interface,
                false => 0,
            };
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: to.octets(),
                },
                ipi6_ifindex: interface,
            };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            transmit(fd, &parts, &control, &SockaddrIn6::from(from))
        }
        _ => Err(io::Error::other("a datagram of two families")),
    }
}

fn transmit<A: SockaddrLike>(
    fd: i32,
    parts: &[IoSlice<'_>],
    control: &[ControlMessage<'_>],
    to: &A,
) -> io::Result<usize> {
    Ok(sendmsg(fd, parts, control, MsgFlags::empty(), Some(to))?)
}
