//! Datagrams by the port alone, as UDPRoutes route them.
//!
//! Start from [`SUITE`]. What is asserted of TCPRoutes as well is in [`super::bytes`].

use serde_json::json;
use strata::wire::UdpSpec;
use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Suite};

use super::bytes::{self, Transport};
use super::{explain_gateway, many};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::udp_is_passed_on",
        claim: "A datagram to the port of a UDPRoute's listener reaches its backend whole, and the answer its sender.",
        source: "UDPRoute",
        needs: NEEDS,
        manifest: Some("gateway/bytes.yaml"),
        run: |scope| Box::pin(udp_is_passed_on(scope)),
    },
    Check {
        id: "gateway::udp_route_of_a_missing_backend",
        claim: "A UDPRoute whose backend does not exist says so, and its datagrams are not answered.",
        source: "UDPRouteInvalidBackendRefNonexistent",
        needs: NEEDS,
        manifest: Some("gateway/bytes_of_nobody.yaml"),
        run: |scope| {
            Box::pin(bytes::unresolved(
                scope,
                UDP,
                ("-in-vain", 9001),
                json!({ "name": "missing", "port": 9000 }),
                "BackendNotFound",
            ))
        },
    },
    Check {
        id: "gateway::udp_route_without_a_grant",
        claim: "A UDPRoute whose backend is in another namespace, which no ReferenceGrant allows, says so, and its datagrams are not answered.",
        source: "UDPRouteInvalidCrossNamespaceBackendRef",
        needs: NEEDS,
        manifest: Some("gateway/bytes_of_nobody.yaml"),
        run: |scope| {
            Box::pin(bytes::unresolved(
                scope,
                UDP,
                ("-foreign", 9003),
                json!({ "name": "kube-dns", "namespace": "kube-system", "port": 53 }),
                "RefNotPermitted",
            ))
        },
    },
    Check {
        id: "gateway::udp_splits_by_weight",
        claim: "Weights of 3 and 1 send three quarters and one quarter of a UDPRoute's senders to its backends.",
        source: "UDPRouteWeightedRouting",
        needs: NEEDS,
        manifest: Some("gateway/bytes_of_two.yaml"),
        run: |scope| Box::pin(bytes::splits(scope, UDP)),
    },
    Check {
        id: "gateway::udp_route_that_is_not_allowed",
        claim: "A UDPRoute of a namespace that its listener does not allow is not accepted, with reason NotAllowedByListeners.",
        source: "UDPRouteNotAllowedByListeners",
        needs: &[Need::GatewayFeature("UDPRoute")],
        manifest: Some("gateway/bytes_of_nobody.yaml"),
        run: |scope| Box::pin(bytes::not_allowed(scope, UDP, "udp-own")),
    },
    Check {
        id: "gateway::udp_routes_of_one_listener",
        claim: "Of two UDPRoutes at one listener both are accepted and counted, and the older has its datagrams.",
        source: "UDPRouteMultipleRoutesAttachment",
        needs: NEEDS,
        manifest: Some("gateway/bytes_of_two.yaml"),
        run: |scope| Box::pin(bytes::several(scope, UDP)),
    },
    Check {
        id: "gateway::udp_backend_by_grant",
        claim: "A UDPRoute's backend in another namespace is sent to once a ReferenceGrant allows it, and no longer when that is gone.",
        source: "UDPRouteReferenceGrant",
        needs: NEEDS,
        manifest: Some("gateway/bytes.yaml"),
        run: |scope| Box::pin(bytes::granted(scope, UDP)),
    },
    Check {
        id: "gateway::udp_route_by_section_and_port",
        claim: "A UDPRoute is served at the listener that it names by section, by port or by both, and at all UDP listeners if it names none.",
        source: "UDPRouteParentRefPortAndSectionName, UDPRouteParentRefAttachAllListeners",
        needs: NEEDS,
        manifest: Some("gateway/udp_route_by_section_and_port.yaml"),
        run: |scope| Box::pin(bytes::by_parent(scope, UDP)),
    },
];

const UDP: Transport = Transport::Udp;
const NEEDS: &[Need] = &[Need::Outside, Need::GatewayFeature("UDPRoute")];

async fn udp_is_passed_on(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    scope
        .apply(&UDP.attached(scope, "bytes", "", bytes::backend("web")))
        .await?;
    let spec = bytes::quick(UdpSpec {
        bytes: 1000,
        ..UdpSpec::new(entrance.port(9000))
    });
    let outcome = scope
        .eventually(Eventually {
            what: "who answers a datagram of 1000 bytes to port 9000, and how much of it arrived",
            expected: Some(("web".to_owned(), 1000)),
            observe: async || {
                let replies = entrance.outside().udp(&spec).await?;
                let answer = replies.into_iter().find_map(|reply| reply.answer);
                Ok(answer.map(|answer| (answer.pod, answer.body_length)))
            },
            likely: "the controller does not do UDPRoutes",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}
