//! Addresses that a Gateway asks for.
//!
//! Start from [`SUITE`]. Which addresses a cluster can give is found out by having it give one, to a Gateway
//! that is then deleted.

use gateway_api::gateways::Gateway;
use serde_json::{Value, json};
use strata::budget::PROVISION;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite};

use super::{explain_own_gateway, of};
use crate::entrance::gateway_address;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::addresses_that_are_asked_for",
        claim: "A Gateway that asks for an address of an unknown kind is not accepted, one that asks for an address that is not to be had is not programmed, and one that asks for an address that is to be had gets it.",
        source: "GatewayStaticAddresses",
        needs: &[
            Need::LoadBalancer,
            Need::GatewayFeature("GatewayStaticAddresses"),
        ],
        manifest: Some("gateway/addresses_that_are_asked_for.yaml"),
        run: |scope| Box::pin(that_are_asked_for(scope)),
    },
    Check {
        id: "gateway::address_without_a_value",
        claim: "A Gateway that asks for a kind of address without a value gets one of that kind.",
        source: "GatewayOptionalAddressValue",
        needs: &[
            Need::LoadBalancer,
            Need::GatewayFeature("GatewayAddressEmpty"),
        ],
        manifest: Some("gateway/address_without_a_value.yaml"),
        run: |scope| Box::pin(without_a_value(scope)),
    },
];

/// Kept for documentation (RFC 5737): no cluster has it to give.
const NOT_TO_BE_HAD: &str = "192.0.2.1";

/// The reason of condition Accepted, that of Programmed with its status, and the address.
type Said = ([String; 3], Option<String>);

async fn said(scope: &Scope, name: &str) -> Result<Said, NoVerdict> {
    let gateway: Gateway = scope.get(name).await?;
    let address = gateway_address(&gateway);
    let present = gateway.metadata.generation;
    let conditions = gateway.status.and_then(|status| status.conditions);
    let conditions = conditions.unwrap_or_default();
    let (programmed, why, observed) = of(&conditions, "Programmed");
    if observed != present {
        return Ok((
            ["not of this generation yet"; 3].map(str::to_owned),
            address,
        ));
    }
    Ok(([of(&conditions, "Accepted").1, programmed, why], address))
}

async fn that_are_asked_for(scope: &Scope) -> Outcome {
    let gateway = |name: &str, addresses: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": { "name": name },
            "spec": {
                "gatewayClassName": "contour",
                "addresses": addresses,
                "listeners": [{ "name": "http", "protocol": "HTTP", "port": 80 }],
            },
        })
        .to_string()
    };
    let given = lent(scope).await?;
    let unknown = json!({ "type": "example.com/unknown", "value": "somewhere" });
    let ip = |value: &str| json!({ "type": "IPAddress", "value": value });
    for (addresses, accepted, programmed, why) in [
        (
            json!([unknown, ip(&given), ip(NOT_TO_BE_HAD)]),
            "UnsupportedAddress",
            "False",
            None,
        ),
        (
            json!([ip(&given), ip(NOT_TO_BE_HAD)]),
            "Accepted",
            "False",
            Some("AddressNotUsable"),
        ),
        (json!([ip(&given)]), "Accepted", "True", Some("Programmed")),
    ] {
        scope.apply(&gateway("asking", addresses.clone())).await?;
        let outcome = scope
            .eventually_within(PROVISION, Eventually {
                what: &format!("the reason of condition Accepted of Gateway asking, and condition Programmed with its reason, with addresses {addresses}"),
                expected: [accepted, programmed, why.unwrap_or("any")].map(str::to_owned),
                observe: async || {
                    let ([accepted, programmed, reason], _) = said(scope, "asking").await?;
                    let reason = why.map_or_else(|| "any".to_owned(), |_| reason);
                    Ok([accepted, programmed, reason])
                },
                likely: "the controller ignores spec.addresses, or takes some of them for all",
            })
            .await;
        explain_own_gateway(scope, outcome, "asking").await?;
    }
    let outcome = scope
        .eventually_within(
            PROVISION,
            Eventually {
                what: "the address of Gateway asking",
                expected: Some(given),
                observe: async || Ok(said(scope, "asking").await?.1),
                likely: "the controller gives a Gateway any address but the one that it asks for",
            },
        )
        .await;
    explain_own_gateway(scope, outcome, "asking").await
}

/// An address that the cluster gives, and has again.
async fn lent(scope: &Scope) -> Result<String, NoVerdict> {
    let what = "Gateway giving has an address";
    let address = strata::wait::until(what, PROVISION, async || {
        let (_, address) = said(scope, "giving").await?;
        Ok(match address {
            Some(address) => strata::wait::Progress::Ready(address),
            None => strata::wait::Progress::NotYet("it has none".to_owned()),
        })
    })
    .await?;
    scope.delete::<Gateway>("giving").await?;
    Ok(address)
}

async fn without_a_value(scope: &Scope) -> Outcome {
    let outcome = scope
        .eventually_within(PROVISION, Eventually {
            what: "condition Programmed of Gateway valueless, and whether it has an address of IPv4 or IPv6",
            expected: ("True".to_owned(), true),
            observe: async || {
                let ([_, programmed, _], address) = said(scope, "valueless").await?;
                let address = address.is_some_and(|it| it.parse::<std::net::IpAddr>().is_ok());
                Ok((programmed, address))
            },
            likely: "the controller waits for an address that nobody named",
        })
        .await;
    explain_own_gateway(scope, outcome, "valueless").await
}
