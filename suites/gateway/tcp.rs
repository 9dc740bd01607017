//! Bytes by the port alone, as TCPRoutes route them.
//!
//! Start from [`SUITE`]. What is asserted of UDPRoutes as well is in [`super::bytes`].

use serde_json::json;
use strata::wire::TcpSpec;
use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Suite};

use super::bytes::{self, Transport};
use super::{explain_gateway, many};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::tcp_is_passed_on",
        claim: "What is sent to the port of a TCPRoute's listener reaches its backend whole, and what that sends the client.",
        source: "TCPRouteParentRefPortAndSectionName",
        needs: NEEDS,
        manifest: Some("gateway/bytes.yaml"),
        run: |scope| Box::pin(tcp_is_passed_on(scope)),
    },
    Check {
        id: "gateway::tcp_route_of_a_missing_backend",
        claim: "A TCPRoute whose backend does not exist says so, and its connections are ended without an answer.",
        source: "TCPRouteInvalidBackendRefNonexistent",
        needs: &[Need::Outside, Need::GatewayFeature("TCPRoute")],
        manifest: Some("gateway/bytes_of_nobody.yaml"),
        run: |scope| {
            Box::pin(bytes::unresolved(
                scope,
                TCP,
                ("-in-vain", 9001),
                json!({ "name": "missing", "port": 9000 }),
                "BackendNotFound",
            ))
        },
    },
    Check {
        id: "gateway::tcp_route_without_a_grant",
        claim: "A TCPRoute whose backend is in another namespace, which no ReferenceGrant allows, says so, and its connections are ended without an answer.",
        source: "TCPRouteInvalidCrossNamespaceBackendRef",
        needs: &[Need::Outside, Need::GatewayFeature("TCPRoute")],
        manifest: Some("gateway/bytes_of_nobody.yaml"),
        run: |scope| {
            Box::pin(bytes::unresolved(
                scope,
                TCP,
                ("-foreign", 9003),
                json!({ "name": "kube-dns", "namespace": "kube-system", "port": 53 }),
                "RefNotPermitted",
            ))
        },
    },
    Check {
        id: "gateway::tcp_splits_by_weight",
        claim: "Weights of 3 and 1 send three quarters and one quarter of a TCPRoute's connections to its backends.",
        source: "TCPRouteWeightedRouting",
        needs: &[Need::Outside, Need::GatewayFeature("TCPRoute")],
        manifest: Some("gateway/bytes_of_two.yaml"),
        run: |scope| Box::pin(bytes::splits(scope, TCP)),
    },
    Check {
        id: "gateway::tcp_route_at_an_http_listener",
        claim: "A TCPRoute that names a listener of another protocol is not accepted, with reason NotAllowedByListeners.",
        source: "TCPRouteInvalidNonTCPListener",
        needs: &[Need::GatewayFeature("TCPRoute")],
        manifest: Some("gateway/bytes_of_nobody.yaml"),
        run: |scope| Box::pin(bytes::not_allowed(scope, TCP, "all")),
    },
    Check {
        id: "gateway::tcp_routes_of_one_listener",
        claim: "Of two TCPRoutes at one listener both are accepted and counted, and the older has its connections.",
        source: "TCPRouteMultipleRoutesAttachment",
        needs: NEEDS,
        manifest: Some("gateway/bytes_of_two.yaml"),
        run: |scope| Box::pin(bytes::several(scope, TCP)),
    },
    Check {
        id: "gateway::tcp_backend_by_grant",
        claim: "A TCPRoute's backend in another namespace is connected to once a ReferenceGrant allows it, and no longer when that is gone.",
        source: "TCPRouteReferenceGrant",
        needs: NEEDS,
        manifest: Some("gateway/bytes.yaml"),
        run: |scope| Box::pin(bytes::granted(scope, TCP)),
    },
    Check {
        id: "gateway::tcp_route_by_section_and_port",
        claim: "A TCPRoute is served at the listener that it names by section, by port or by both, and at all TCP listeners if it names none.",
        source: "TCPRouteParentRefPortAndSectionName, TCPRouteParentRefAttachAll",
        needs: NEEDS,
        manifest: Some("gateway/tcp_route_by_section_and_port.yaml"),
        run: |scope| Box::pin(bytes::by_parent(scope, TCP)),
    },
];

const TCP: Transport = Transport::Tcp;
const NEEDS: &[Need] = &[Need::Outside, Need::GatewayFeature("TCPRoute")];

async fn tcp_is_passed_on(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    scope
        .apply(&TCP.attached(scope, "bytes", "", bytes::backend("web")))
        .await?;
    let spec = TcpSpec {
        bytes: 100_000,
        ..TcpSpec::new(entrance.port(9000))
    };
    let outcome = scope
        .eventually(Eventually {
            what: "who answers at port 9000, and how much of 100000 bytes comes back",
            expected: ("web".to_owned(), 100_000),
            observe: async || {
                let replies = entrance.outside().tcp(&spec).await?;
                let received = replies.first().map_or(0, |reply| reply.received);
                Ok((said::tcp(&replies), received))
            },
            likely: "the controller does not do TCPRoutes",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}
