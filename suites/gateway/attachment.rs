//! Who may attach to what, and what happens when that changes.
//!
//! Start from [`SUITE`]. Checks with a namespace of their own attach to the fixture's Gateway `many`,
//! whose listeners allow routes from everywhere, from labelled namespaces, or from its own only.

use futures::future::try_join;
use gateway_api::gateways::Gateway;
use gateway_api::httproutes::HttpRoute;
use serde_json::json;
use strata::budget::PROVISION;
use strata::wire::RequestSpec;
use strata::{Check, Eventually, Layer, Need, Outcome, Scope, Suite};

use super::{
    attached, authority, explain, explain_listener, explain_own_gateway, many, of, parent_of,
};
use crate::entrance::{Entrance, gateway_address};
use crate::load::{none_failed, under_load};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::https_listener",
        claim: "An HTTPS listener shows the certificate that it refers to, and serves the routes attached to it.",
        source: "HTTPRouteHTTPSListener",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(https_listener(scope)),
    },
    Check {
        id: "gateway::routes_from_other_namespaces",
        claim: "A route of another namespace attaches to listeners that allow all namespaces or its own by label, and to no other.",
        source: "HTTPRouteCrossNamespace, HTTPRouteInvalidCrossNamespaceParentRef",
        needs: &[Need::Outside],
        manifest: Some("gateway/routes_from_other_namespaces.yaml"),
        run: |scope| Box::pin(routes_from_other_namespaces(scope)),
    },
    Check {
        id: "gateway::changes_take_effect",
        claim: "A route that is moved under load to a backend that no other route has takes effect, its conditions follow its generation, and no request fails.",
        source: "HTTPRouteObservedGenerationBump",
        needs: &[Need::Outside],
        manifest: Some("gateway/changes_take_effect.yaml"),
        run: |scope| Box::pin(changes_take_effect(scope)),
    },
    Check {
        id: "gateway::listeners_come_and_go",
        claim: "A listener that is added to a Gateway is served, and one that is removed is no longer.",
        source: "GatewayModifyListeners, GatewayObservedGenerationBump",
        needs: &[Need::Outside],
        manifest: Some("gateway/listeners_come_and_go.yaml"),
        run: |scope| Box::pin(listeners_come_and_go(scope)),
    },
];

async fn https_listener(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let ca = authority(scope).await?;
    let secure = entrance.secure("tls.gateway.example", "/", &ca);
    let plain = entrance.request("tls.gateway.example", "/");
    let outcome = scope
        .eventually(Eventually {
            what: "GET of tls.gateway.example over HTTPS, its certificate verified, and over HTTP, where it has no route",
            expected: ("200 by alpha".to_owned(), "404".to_owned()),
            observe: async || {
                let secure = said::said(&entrance.send(&secure).await?);
                Ok((secure, said::said(&entrance.send(&plain).await?)))
            },
            likely: "the Secret that certificateRefs names is not the one that is shown",
        })
        .await;
    explain_listener(scope, outcome, "tls").await
}

async fn routes_from_other_namespaces(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    // Listener, host, and what becomes of the route.
    let cases = [
        ("all", "web.all.gateway.example", "Accepted", "200 by web"),
        (
            "selected",
            "web.selected.gateway.example",
            "Accepted",
            "200 by web",
        ),
        (
            "own",
            "own.gateway.example",
            "NotAllowedByListeners",
            "200 by alpha",
        ),
    ];
    for (listener, host, _, _) in cases {
        scope
            .apply(&attached(scope, listener, listener, host, "web"))
            .await?;
    }
    let outcome = scope
        .eventually(Eventually {
            what: "the reason of condition Accepted, and who answers, for routes at the listeners all, selected and own",
            expected: cases.map(|(_, _, why, who)| (why.to_owned(), who.to_owned())).to_vec(),
            observe: async || {
                let mut seen = Vec::new();
                for (listener, host, _, _) in cases {
                    let route: HttpRoute = scope.get(listener).await?;
                    let (_, why, _) = of(&parent_of(&route).conditions, "Accepted");
                    seen.push((why, said::said(&entrance.get(host, "/").await?)));
                }
                Ok(seen)
            },
            likely: "the controller does not look at allowedRoutes.namespaces, or at the labels of namespaces",
        })
        .await;
    explain(scope, outcome, "all", "/").await
}

async fn changes_take_effect(scope: &Scope) -> Outcome {
    const HOST: &str = "moving.all.gateway.example";
    let entrance = many(scope).await?;
    scope
        .apply(&attached(scope, "moving", "all", HOST, "before"))
        .await?;
    let settled = async |who: &str| {
        let outcome = scope
            .eventually(Eventually {
                what: "who answers, and whether the route's conditions are of its present generation",
                expected: (format!("200 by {who}"), true),
                observe: async || {
                    let route: HttpRoute = scope.get("moving").await?;
                    let (_, _, observed) = of(&parent_of(&route).conditions, "Accepted");
                    let present = observed == route.metadata.generation;
                    Ok((said::said(&entrance.get(HOST, "/").await?), present))
                },
                likely: "the controller does not hear of the change, or its proxy does not take it",
            })
            .await;
        explain(scope, outcome, "moving", "/").await
    };
    settled("before").await?;
    let change = attached(scope, "moving", "all", HOST, "after");
    let answers = under_load(
        entrance.outside(),
        entrance.request(HOST, "/"),
        scope.apply(&change),
    )
    .await?;
    settled("after").await?;
    none_failed(
        scope,
        &answers,
        "the proxy drops requests when it takes a new route",
    )
}

async fn listeners_come_and_go(scope: &Scope) -> Outcome {
    let listener =
        |name: &str, port: u16| json!({ "name": name, "protocol": "HTTP", "port": port });
    let first = [listener("first", 80)];
    let both = [listener("first", 80), listener("second", 8080)];
    let second = [listener("second", 8080)];
    for (listeners, expected) in [
        (json!(first), ["200 by web", "none"]),
        (json!(both), ["200 by web", "200 by web"]),
        (json!(second), ["none", "200 by web"]),
    ] {
        let patch = json!({ "spec": { "listeners": listeners } });
        scope.merge::<Gateway>("changing", patch).await?;
        let outcome = scope
            .eventually_within(
                PROVISION,
                Eventually {
                    what: "who answers at ports 80 and 8080",
                    expected: expected.map(str::to_owned),
                    observe: async || {
                        let gateway: Gateway = scope.get("changing").await?;
                        let Some(address) = gateway_address(&gateway) else {
                            return Ok(["no address yet"; 2].map(str::to_owned));
                        };
                        // Before that there is nothing to be judged.
                        let conditions = gateway.status.and_then(|status| status.conditions);
                        let (programmed, _, observed) =
                            of(&conditions.unwrap_or_default(), "Programmed");
                        if programmed != "True" || observed != gateway.metadata.generation {
                            return Ok(["not programmed yet"; 2].map(str::to_owned));
                        }
                        let entrance = Entrance::at(scope, address)?;
                        let at = async |port| {
                            entrance
                                .send(&quick(entrance.request_at(
                                    port,
                                    "changing.gateway.example",
                                    "/",
                                )))
                                .await
                        };
                        // Side by side, since silence takes its time.
                        let (first, second) = try_join(at(80), at(8080)).await?;
                        Ok([first, second].map(|reply| said::unserved(&reply)))
                    },
                    likely: "the Gateway's Service does not follow its listeners' ports",
                },
            )
            .await;
        explain_own_gateway(scope, outcome, "changing").await?;
    }
    Ok(())
}

/// A request whose silence is noticed soon: what answers does in a tenth of the time.
fn quick(spec: RequestSpec) -> RequestSpec {
    RequestSpec {
        timeout_ms: 500,
        ..spec
    }
}
