//! UDP flows that the kernel remembers longer than they are right.
//!
//! Start from [`forget_stale`]. Netfilter translates a flow as it did its first packet. A TCP client
//! notices when its endpoint is gone and connects anew; a UDP client that goes on sending from the
//! same port would send to nobody for ever, or, having started before there was an endpoint, would
//! never be translated. So such entries are deleted, as kube-proxy does it, over the kernel's own
//! interface (`NFNL_SUBSYS_CTNETLINK`); there need be no `conntrack` program.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use rtnetlink::sys::{Socket, SocketAddr};

use crate::os::netns::NetNs;
use crate::topology::IpFamily;

/// Where UDP is translated, and where its flows may lead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UdpService {
    /// Of which family it is.
    pub(super) family: IpFamily,
    /// An address and a port, or a port of every address of the family.
    pub(super) front: (Option<IpAddr>, u16),
    /// The addresses and ports behind it.
    pub(super) endpoints: BTreeSet<(IpAddr, u16)>,
}

/// Deletes the entries of flows to Services that lead to none of their endpoints, where that can have become so
/// since they were as `before`: to read all entries is dear.
pub(super) fn forget_stale(
    netns: &NetNs,
    before: &BTreeSet<UdpService>,
    now: &BTreeSet<UdpService>,
) -> io::Result<()> {
    let services = unsettled(before, now);
    if services.is_empty() {
        return Ok(());
    }
    let families: BTreeSet<IpFamily> = services.iter().map(|service| service.family).collect();
    netns.run(|| {
        let mut socket = Socket::new(libc::NETLINK_NETFILTER as isize)?;
        socket.bind_auto()?;
        for family in families {
            for flow in flows(&socket, family)? {
                if flow.is_stale(&services) {
                    delete(&socket, &flow)?;
                }
            }
        }
        Ok(())
    })
}

/// Those that are new, have lost an endpoint, or have their first: of what has only more endpoints than before, no
/// flow leads elsewhere.
fn unsettled<'a>(
    before: &'a BTreeSet<UdpService>,
    now: &'a BTreeSet<UdpService>,
) -> Vec<&'a UdpService> {
    let settled = |service: &UdpService| {
        let known = before
            .iter()
            .find(|known| known.front == service.front && known.family == service.family);
        known.is_some_and(|known| {
            !known.endpoints.is_empty() && known.endpoints.is_subset(&service.endpoints)
        })
    };
    let changed = now.difference(before);
    changed.filter(|service| !settled(service)).collect()
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

impl Flow {
    fn is_stale(&self, services: &[&UdpService]) -> bool {
        self.protocol == UDP
            && services.iter().any(|service| {
                let (ip, port) = service.front;
                let meant = service.family == IpFamily::of(self.to.0)
                    && port == self.to.1
                    && ip.is_none_or(|ip| ip == self.to.0);
                meant && !service.endpoints.contains(&self.answered_by)
            })
    }
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
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
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

fn flows(socket: &Socket, family: IpFamily) -> io::Result<Vec<Flow>> {
    let all = request(IPCTNL_MSG_CT_GET, libc::NLM_F_DUMP, number(family), &[]);
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

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    const NESTED: u16 = 1 << 15;
    let length = u16::try_from(4 + value.len()).unwrap_or_default();
    let mut bytes = Vec::from(length.to_ne_bytes());
    bytes.extend((kind | NESTED).to_ne_bytes());
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
            let plain = |kind: u16, value: &[u8]| attribute(kind, value);
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

    #[test]
    fn a_flow_is_stale_when_it_leads_to_no_endpoint_of_the_service_it_was_for() {
        let ip = |last| IpAddr::from([10, 244, 1, last]);
        let service = |front, endpoints: &[u8]| UdpService {
            family: IpFamily::V4,
            front,
            endpoints: endpoints.iter().map(|last| (ip(*last), 5353)).collect(),
        };
        let cluster_ip = IpAddr::from([10, 96, 0, 10]);
        let v6 = IpAddr::from([0xfd00, 0x172, 0x30, 0, 0, 0, 0, 3]);
        let flow = |to, by| Flow {
            tuple: Vec::new(),
            protocol: UDP,
            to,
            answered_by: by,
        };
        let services = [
            service((Some(cluster_ip), 53), &[2, 3]),
            service((None, 30053), &[2]),
        ];
        let services: Vec<_> = services.iter().collect();
        for (what, to, by, stale) in [
            ("to an endpoint", (cluster_ip, 53), (ip(2), 5353), false),
            ("to one that is gone", (cluster_ip, 53), (ip(4), 5353), true),
            ("not translated", (cluster_ip, 53), (cluster_ip, 53), true),
            ("to another port", (cluster_ip, 54), (cluster_ip, 54), false),
            (
                "to a node port",
                (IpAddr::from([172, 30, 0, 3]), 30053),
                (ip(3), 5353),
                true,
            ),
            ("of the other family", (v6, 30053), (v6, 5353), false),
            ("pod to pod", (ip(9), 53), (ip(9), 53), false),
        ] {
            assert_eq!(flow(to, by).is_stale(&services), stale, "{what}");
        }
    }

    #[test]
    fn flows_are_looked_at_of_services_that_can_have_lost_one() {
        let service = |front: u16, endpoints: &[u8]| UdpService {
            family: IpFamily::V4,
            front: (None, front),
            endpoints: endpoints
                .iter()
                .map(|last| (IpAddr::from([10, 244, 1, *last]), 5353))
                .collect(),
        };
        for (what, before, now, looked_at) in [
            ("new", vec![], vec![service(1, &[])], true),
            (
                "as before",
                vec![service(1, &[2])],
                vec![service(1, &[2])],
                false,
            ),
            (
                "one more",
                vec![service(1, &[2])],
                vec![service(1, &[2, 3])],
                false,
            ),
            (
                "the first",
                vec![service(1, &[])],
                vec![service(1, &[2])],
                true,
            ),
            (
                "one less",
                vec![service(1, &[2, 3])],
                vec![service(1, &[2])],
                true,
            ),
            (
                "another",
                vec![service(1, &[2])],
                vec![service(1, &[3])],
                true,
            ),
            ("gone", vec![service(1, &[2])], vec![], false),
        ] {
            let (before, now) = (BTreeSet::from_iter(before), BTreeSet::from_iter(now));
            assert_eq!(!unsettled(&before, &now).is_empty(), looked_at, "{what}");
        }
    }
}
