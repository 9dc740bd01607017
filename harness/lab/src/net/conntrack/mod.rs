//! UDP flows that the kernel remembers longer than they are right.
//!
//! Start from [`Memory::forget_stale`]. Netfilter translates a flow as it did its first packet. A TCP client
//! notices when its endpoint is gone and connects anew; a UDP client that goes on sending from the
//! same port would send to nobody for ever, or, having started before there was an endpoint, would
//! never be translated. So such entries are deleted, as kube-proxy does it, over the kernel's own
//! interface (`NFNL_SUBSYS_CTNETLINK`); there need be no `conntrack` program. To find them is dear, so it is done
//! only where the [`memory`] says that there can be any.

mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use rtnetlink::sys::{Socket, SocketAddr};

pub(super) use self::memory::Memory;
use self::memory::Suspects;
use crate::os::netns::NetNs;
use crate::topology::IpFamily;

/// Where UDP is translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Front {
    /// Of which family it is.
    pub(super) family: IpFamily,
    /// An address; none where it is every address of the family.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

/// Where UDP is translated, and the addresses and ports behind it.
pub(super) type UdpServices = BTreeMap<Front, BTreeSet<(IpAddr, u16)>>;

/// Deletes the entries of flows to Services that lead to none of their endpoints.
pub(super) fn forget_stale(netns: &NetNs, services: UdpServices) -> io::Result<()> {
    forget(netns, &Suspects::all(services))
}

impl Memory {
    /// The same, where that can have become so since these were last said.
    pub(super) fn forget_stale(&mut self, netns: &NetNs, now: UdpServices) -> io::Result<()> {
        let suspects = self.suspects(&now);
        let outcome = forget(netns, &suspects);
        match outcome {
            Ok(()) => self.learn(now),
            Err(_) => self.distrust(),
        }
        outcome
    }
}

/// Deletes the entries of the flows that are stale.
fn forget(netns: &NetNs, suspects: &Suspects) -> io::Result<()> {
    let families = suspects.families();
    if families.is_empty() {
        return Ok(());
    }
    netns.run(|| {
        let mut socket = Socket::new(libc::NETLINK_NETFILTER as isize)?;
        socket.bind_auto()?;
        for family in families {
            for flow in udp_flows(&socket, family)? {
                if suspects.is_stale(&flow) {
                    delete(&socket, &flow)?;
                }
            }
        }
        Ok(())
    })
}

/// What is needed of an entry: the first packet's direction and the answer's.
#[derive(Debug, PartialEq, Eq)]
struct Flow {
    /// The attribute `CTA_TUPLE_ORIG` as it came, which names the entry.
    tuple: Vec<u8>,
    protocol: u8,
    to: (IpAddr, u16),
    answered_by: (IpAddr, u16),
}

const UDP: u8 = 17;
/// `struct nlmsghdr` and `struct nfgenmsg`.
const HEADER: usize = 16;
const GENERIC: usize = 4;
// linux/netfilter/nfnetlink_conntrack.h
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
/// Of an entry's own direction the protocol is looked at (`CTA_FILTER_F_CTA_PROTO_NUM`).
const BY_PROTOCOL: u32 = 1 << 3;
/// The bits of an attribute's type that say how it is to be read.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// The kernel's number of a family.
const fn number(family: IpFamily) -> i32 {
    match family {
        IpFamily::V4 => libc::AF_INET,
        IpFamily::V6 => libc::AF_INET6,
    }
}

/// A message about entries of a family.
fn request(kind: u16, flags: i32, family: i32, attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + GENERIC + attributes.len()).unwrap_or_default();
    let flags = u16::try_from(libc::NLM_F_REQUEST | flags).unwrap_or_default();
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend((NFNL_SUBSYS_CTNETLINK << 8 | kind).to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([u8::try_from(family).unwrap_or_default(), 0, 0, 0]);
    message.extend(attributes);
    message
}

fn send(socket: &Socket, message: &[u8]) -> io::Result<()> {
    socket.send_to(message, &SocketAddr::new(0, 0), 0).map(drop)
}

/// The flows of UDP, and, where the kernel cannot tell them apart, others.
fn udp_flows(socket: &Socket, family: IpFamily) -> io::Result<Vec<Flow>> {
    match flows(socket, family, &only_udp()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
            flows(socket, family, &[])
        }
        outcome => outcome,
    }
}

/// What a kernel older than Linux 5.8 does not look at.
fn only_udp() -> Vec<u8> {
    let protocol = attribute(CTA_TUPLE_PROTO, &plain(CTA_PROTO_NUM, &[UDP]));
    let flags = plain(CTA_FILTER_ORIG_FLAGS, &BY_PROTOCOL.to_ne_bytes());
    [
        attribute(CTA_TUPLE_ORIG, &protocol),
        attribute(CTA_FILTER, &flags),
    ]
    .concat()
}

fn flows(socket: &Socket, family: IpFamily, filter: &[u8]) -> io::Result<Vec<Flow>> {
    let all = request(IPCTNL_MSG_CT_GET, libc::NLM_F_DUMP, number(family), filter);
    send(socket, &all)?;
    let mut flows = Vec::new();
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        for (kind, body) in messages(&datagram) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(flows),
                libc::NLMSG_ERROR => acknowledged(body)?,
                _ => flows.extend(body.get(GENERIC..).and_then(flow)),
            }
        }
    }
}

fn delete(socket: &Socket, flow: &Flow) -> io::Result<()> {
    let tuple = attribute(CTA_TUPLE_ORIG, &flow.tuple);
    let family = IpFamily::of(flow.to.0);
    let this = request(
        IPCTNL_MSG_CT_DELETE,
        libc::NLM_F_ACK,
        number(family),
        &tuple,
    );
    send(socket, &this)?;
    let (datagram, _) = socket.recv_from_full()?;
    for (kind, body) in messages(&datagram) {
        if i32::from(kind) == libc::NLMSG_ERROR
            && let Err(error) = acknowledged(body)
            // Timed out meanwhile.
            && error.raw_os_error() != Some(libc::ENOENT)
        {
            return Err(error);
        }
    }
    Ok(())
}

/// An error message, which with number 0 is none.
fn acknowledged(body: &[u8]) -> io::Result<()> {
    let code = body
        .first_chunk::<4>()
        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    match code {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// The netlink messages of a datagram: their types and what follows their headers.
fn messages(mut datagram: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (
        datagram.first_chunk::<4>().copied(),
        datagram
            .get(4..6)
            .and_then(|kind| kind.first_chunk::<2>().copied()),
    ) {
        let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or_default();
        let Some(body) = datagram.get(HEADER..length) else {
            break;
        };
        found.push((u16::from_ne_bytes(kind), body));
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    found
}

/// An attribute made of others.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    const NESTED: u16 = 1 << 15;
    plain(kind | NESTED, value)
}

/// An attribute with a value of its own.
fn plain(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut bytes = Vec::from(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The value of the attribute of a kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let length = u16::from_ne_bytes(*attributes.first_chunk::<2>()?);
        let length = usize::from(length);
        let found = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk::<2>()?);
        let value = attributes.get(4..length)?;
        if found & NLA_TYPE_MASK == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn flow(attributes: &[u8]) -> Option<Flow> {
    let original = find(attributes, CTA_TUPLE_ORIG)?;
    let reply = find(attributes, CTA_TUPLE_REPLY)?;
    let protocol = find(find(original, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?;
    Some(Flow {
        tuple: original.to_vec(),
        protocol: *protocol.first()?,
        to: end(original, [CTA_IP_V4_DST, CTA_IP_V6_DST], CTA_PROTO_DST_PORT)?,
        answered_by: end(reply, [CTA_IP_V4_SRC, CTA_IP_V6_SRC], CTA_PROTO_SRC_PORT)?,
    })
}

/// An address, by its attribute in either family, and a port.
fn end(tuple: &[u8], [v4, v6]: [u16; 2], port: u16) -> Option<(IpAddr, u16)> {
    let addresses = find(tuple, CTA_TUPLE_IP)?;
    let address = match find(addresses, v4) {
        Some(address) => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        None => IpAddr::from(<[u8; 16]>::try_from(find(addresses, v6)?).ok()?),
    };
    let port = find(find(tuple, CTA_TUPLE_PROTO)?, port)?;
    Some((address, u16::from_be_bytes(<[u8; 2]>::try_from(port).ok()?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_read_from_its_attributes() {
        let side = |source: [u8; 4], target: [u8; 4], from: u16, to: u16| {
            let ip = [plain(CTA_IP_V4_SRC, &source), plain(CTA_IP_V4_DST, &target)].concat();
            let proto = [
                plain(CTA_PROTO_NUM, &[UDP]),
                plain(CTA_PROTO_SRC_PORT, &from.to_be_bytes()),
                plain(CTA_PROTO_DST_PORT, &to.to_be_bytes()),
            ]
            .concat();
            [
                attribute(CTA_TUPLE_IP, &ip),
                attribute(CTA_TUPLE_PROTO, &proto),
            ]
            .concat()
        };
        let entry = [
            attribute(
                CTA_TUPLE_ORIG,
                &side([10, 244, 1, 2], [10, 96, 0, 10], 4000, 53),
            ),
            attribute(
                CTA_TUPLE_REPLY,
                &side([10, 244, 2, 9], [10, 244, 1, 2], 5353, 4000),
            ),
        ]
        .concat();
        let flow = flow(&entry).unwrap();
        assert_eq!(flow.to, (IpAddr::from([10, 96, 0, 10]), 53));
        assert_eq!(flow.answered_by, (IpAddr::from([10, 244, 2, 9]), 5353));
    }
}
