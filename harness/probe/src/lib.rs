//! The probe: the static binary that serves and sends traffic inside pods.
//!
//! Start from the specifications, [`RequestSpec`], [`RequestsSpec`], [`WebSocketSpec`], [`DnsSpec`], [`TcpSpec`],
//! [`UdpSpec`] and [`ApiSpec`]: each makes the command to run in a pod ([`Spec::command`]), whose output
//! [`replies`] reads. [`image`] packs the binary as an OCI image. Judging what comes back is the
//! harness' work. Rule: whatever the network did is a reply with its error by kind; the exit code
//! speaks only of the command line.

pub mod image;
mod wire;

pub use wire::answer::{Answer, POD_HEADER, Protocol, Tls};
pub use wire::batch::{BriefReply, OneRequest, RequestsSpec};
pub use wire::dns::{DnsExchange, DnsRecord, DnsReply, DnsSpec, Rcode};
pub use wire::failure::{Failure, FailureKind, Stage};
pub use wire::http::{
    ApiReply, ApiSpec, Body, Connections, HttpVersion, PeerTls, Reply, RequestSpec,
};
pub use wire::network::{Interface, Network, Route};
pub use wire::serve::Listening;
pub use wire::stream::{TcpReply, TcpSpec, UdpReply, UdpSpec};
pub use wire::websocket::{WebSocketReply, WebSocketSpec};
pub use wire::{BINARY, Spec, UnreadableReply, replies};
