//! Links, addresses and routes of one namespace, over rtnetlink.
//!
//! Start from [`Links::of`]. Everything here says what it wants rather than what to do: doing it a
//! second time changes nothing.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::{StreamExt as _, TryStreamExt as _};
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::neighbour_table::{
    NeighbourTableAttribute, NeighbourTableMessage, NeighbourTableParameter,
};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::rule::RuleAction;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkUnspec, LinkVeth};

use super::route::Route;
use crate::os::netns::NetNs;
use crate::topology::IpFamily;

/// The name of the one interface that a pod or node has beside its loopback.
pub(super) const ETH0: &str = "eth0";

/// How long an address may take until it answers; as long as the CNI project's plugins wait.
const SETTLES: Duration = Duration::from_secs(10);
/// How soon an address is looked at again.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// One namespace's links.
#[derive(Clone)]
pub(super) struct Links(rtnetlink::Handle);

/// The far end of a pair of virtual Ethernet interfaces.
pub(super) struct Peer<'a> {
    /// Whose end it is.
    pub(super) netns: &'a NetNs,
    /// What it is called there.
    pub(super) name: &'a str,
}

impl Links {
    /// The links of a namespace.
    pub(super) fn of(netns: &NetNs) -> anyhow::Result<Self> {
        let handle = netns.netlink().context("cannot open rtnetlink")?;
        Ok(Self(handle))
    }

    /// The connection, for what has no word of its own here.
    pub(super) fn handle(&self) -> &rtnetlink::Handle {
        &self.0
    }

    /// The interface of a name, if there is one.
    pub(super) async fn find(&self, name: &str) -> anyhow::Result<Option<LinkMessage>> {
        let mut found = self.0.link().get().match_name(name).execute();
        match found.try_next().await {
            Ok(link) => Ok(link),
            Err(error) if errno(&error) == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(failed("look for interface", name, error)),
        }
    }

    /// The number of the interface of a name.
    pub(super) async fn index(&self, name: &str) -> anyhow::Result<u32> {
        let link = self.find(name).await?;
        Ok(link
            .with_context(|| format!("there is no interface {name}"))?
            .header
            .index)
    }

    /// Makes a pair of virtual Ethernet interfaces, one end here and the other at the peer.
    pub(super) async fn veth(&self, name: &str, peer: Peer<'_>, mtu: u32) -> anyhow::Result<()> {
        let far = LinkUnspec::new_with_name(peer.name)
            .mtu(mtu)
            .setns_by_fd(peer.netns.as_fd().as_raw_fd())
            .build();
        let message = LinkVeth::new(name, peer.name)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far)))
            .mtu(mtu)
            .build();
        self.add(name, message).await
    }

    /// Makes an interface.
    pub(super) async fn add(&self, name: &str, message: LinkMessage) -> anyhow::Result<()> {
        let added = self.0.link().add(message).execute().await;
        added.map_err(|error| failed("make interface", name, error))
    }

    /// Takes an interface away, if there is one of this name.
    pub(super) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        let message = LinkUnspec::new_with_name(name).build();
        match self.0.link().del_with_message(message).execute().await {
            Err(error) if errno(&error) != Some(libc::ENODEV) => {
                Err(failed("delete interface", name, error))
            }
            _ => Ok(()),
        }
    }

    /// Brings an interface up.
    pub(super) async fn up(&self, index: u32) -> anyhow::Result<()> {
        self.set(LinkUnspec::new_with_index(index).up().build())
            .await
    }

    /// Changes an interface.
    pub(super) async fn set(&self, message: LinkMessage) -> anyhow::Result<()> {
        let index = message.header.index;
        let set = self.0.link().set(message).execute().await;
        set.map_err(|error| failed("change interface", index, error))
    }

    /// Changes what an interface is as a port of its bridge.
    pub(super) async fn set_port(&self, message: LinkMessage) -> anyhow::Result<()> {
        let index = message.header.index;
        let set = self.0.link().set_port(message).execute().await;
        set.map_err(|error| failed("change the bridge's port of interface", index, error))
    }

    /// Has an interface answer at once for those that it answers for by `proxy_arp`, rather than after a
    /// moment chosen at random. Older kernels show the parameter `proxy_delay` in no user namespace, but
    /// take it over netlink.
    pub(super) async fn no_proxy_delay(&self, index: u32) -> anyhow::Result<()> {
        let mut table = NeighbourTableMessage::default();
        table.header.family = AddressFamily::Inet;
        let parameters = vec![
            NeighbourTableParameter::Ifindex(index),
            NeighbourTableParameter::ProxyDelay(0),
        ];
        table.attributes = vec![
            NeighbourTableAttribute::Name("arp_cache".to_owned()),
            NeighbourTableAttribute::Parms(parameters),
        ];
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::SetNeighbourTable(table));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
        let mut answers = self.0.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                let error = rtnetlink::Error::NetlinkError(error);
                return Err(failed("set proxy_delay of interface", index, error));
            }
        }
        Ok(())
    }

    /// Gives an interface an address, and waits until it answers there: the kernel joins the group in which an
    /// address of IPv6 is looked for (RFC 4861 §7.2.1) a moment later, in a queue of its own, and on a busy
    /// machine neighbours gave up before it had. Until then the address is tentative, though nobody is asked
    /// whether they have it: `accept_dad` is off wherever this is used.
    ///
    /// # Errors
    /// When the kernel refuses it, or it is not ready within [`SETTLES`].
    pub(super) async fn address(
        &self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> anyhow::Result<()> {
        let request = self.0.address().add(index, address, prefix);
        let added = request.replace().execute().await;
        added.map_err(|error| failed("add address", address, error))?;
        if address.is_ipv4() {
            return Ok(());
        }
        let settles = async {
            while self.is_tentative(index, address).await? {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(SETTLES, settles)
            .await
            .with_context(|| format!("address {address} is still tentative after {SETTLES:?}"))?
    }

    async fn is_tentative(&self, index: u32, address: IpAddr) -> anyhow::Result<bool> {
        let request = self.0.address().get();
        let request = request
            .set_link_index_filter(index)
            .set_address_filter(address);
        let found = request.execute().try_collect::<Vec<_>>().await;
        let found = match found {
            // Another of this socket's lists is being told, and it tells one at a time: look again.
            Err(error) if errno(&error) == Some(libc::EBUSY) => return Ok(true),
            found => found.map_err(|error| failed("look at address", address, error))?,
        };
        let tentative = AddressHeaderFlags::Tentative;
        let mut flags = found.iter().map(|found| found.header.flags);
        Ok(flags.any(|flags| flags.contains(tentative)))
    }

    /// Takes a route away, if it is there.
    pub(super) async fn delete_route(&self, route: RouteMessage) -> anyhow::Result<()> {
        let deleted = self.0.route().del(route.clone()).execute().await;
        match deleted {
            Err(error) if errno(&error) != Some(libc::ESRCH) => Err(failed(
                "delete route",
                format!("{:?}", route.attributes),
                error,
            )),
            _ => Ok(()),
        }
    }

    /// Has packets of a mark routed by the table of the same number.
    pub(super) async fn rule(&self, family: IpFamily, mark: u32) -> anyhow::Result<()> {
        let rule = self.0.rule().add().fw_mark(mark).table_id(mark);
        let rule = rule.action(RuleAction::ToTable).priority(mark);
        let added = match family {
            IpFamily::V4 => rule.v4().execute().await,
            IpFamily::V6 => rule.v6().execute().await,
        };
        match added {
            Err(error) if errno(&error) != Some(libc::EEXIST) => {
                Err(failed("add a routing rule for mark", mark, error))
            }
            _ => Ok(()),
        }
    }

    /// Puts a route in place of whatever led to the same destination.
    pub(super) async fn route(&self, route: Route) -> anyhow::Result<()> {
        let message = route.message()?;
        let added = self.0.route().add(message).replace().execute().await;
        added.map_err(|error| failed("add route", route, error))
    }
}

/// A link's hardware address.
pub(super) fn hardware_address(link: &LinkMessage) -> Option<&[u8]> {
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Address(address) => Some(address.as_slice()),
            _ => None,
        })
}

/// Writes kernel parameters of a namespace, by their names as `sysctl` takes them with slashes.
pub(super) fn sysctl(netns: &NetNs, parameters: &[(&str, &str)]) -> anyhow::Result<()> {
    let write = || {
        for (name, value) in parameters {
            std::fs::write(format!("/proc/sys/{name}"), value).map_err(|error| {
                let text = format!("cannot set sysctl {name} to {value}: {error}");
                io::Error::new(error.kind(), text)
            })?;
        }
        Ok(())
    };
    Ok(netns.run(write)?)
}

/// The kernel's error number.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(-message.raw_code()),
        _ => None,
    }
}

fn failed(what: &str, which: impl std::fmt::Display, error: rtnetlink::Error) -> anyhow::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => {
            anyhow!(message.to_io()).context(format!("cannot {what} {which}"))
        }
        other => anyhow!(other).context(format!("cannot {what} {which}")),
    }
}
