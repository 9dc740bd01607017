//! What may be behind a rule: Services of every type, their protocols, and what is done for one share.
//!
//! Start from [`SUITE`]. The rules are those of the fixture's routes `services`, `filtered` and
//! `filtered-backends`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use strata::wire::{Protocol, Reply, RequestSpec, WebSocketSpec};
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

use super::{attached, entrance, explain, many, reasons};
use crate::said;
use crate::shares::{Shares, shares};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::backend_of_h2c",
        claim: "A backend whose port has appProtocol kubernetes.io/h2c is spoken to in HTTP/2, and one without in HTTP/1.1.",
        source: "HTTPRouteBackendProtocolH2C",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteBackendProtocolH2C"),
        ],
        manifest: None,
        run: |scope| Box::pin(backend_of_h2c(scope)),
    },
    Check {
        id: "gateway::backend_of_websockets",
        claim: "A WebSocket is opened to a backend whose port has appProtocol kubernetes.io/ws, and its messages come back.",
        source: "HTTPRouteBackendProtocolWebSocket",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteBackendProtocolWebSocket"),
        ],
        manifest: None,
        run: |scope| Box::pin(backend_of_websockets(scope)),
    },
    Check {
        id: "gateway::backend_that_is_headless",
        claim: "A headless Service is a backend like any other.",
        source: "HTTPRouteServiceTypes",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(backend_that_is_headless(scope)),
    },
    Check {
        id: "gateway::backend_without_a_selector",
        claim: "A Service without selector is a backend by the EndpointSlice that somebody made for it, and follows it.",
        source: "HTTPRouteServiceTypes",
        needs: &[Need::Outside],
        manifest: Some("gateway/backend_without_a_selector.yaml"),
        run: |scope| Box::pin(backend_without_a_selector(scope)),
    },
    Check {
        id: "gateway::backend_of_an_external_name",
        claim: "A Service of type ExternalName is no backend: its requests are answered with 500, and the reference is not resolved.",
        source: "Gateway API: BackendRef, \"implementations SHOULD NOT support ExternalName Services\"; CVE-2021-25740",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(backend_of_an_external_name(scope)),
    },
    Check {
        id: "gateway::each_share_has_headers_of_its_own",
        claim: "Of a rule's backends each is sent the headers that its own filter sets.",
        source: "HTTPRouteRequestHeaderModifierBackendWeights",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteBackendRequestHeaderModification"),
        ],
        manifest: None,
        run: |scope| Box::pin(each_share_has_headers_of_its_own(scope)),
    },
    Check {
        id: "gateway::backend_filter_redirects",
        claim: "A redirect of a backend's own is answered as the rule's would be, and the backend never sees the request.",
        source: "HTTPRouteBackendRequestRedirect",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteBackendRequestRedirect"),
        ],
        manifest: None,
        run: |scope| Box::pin(backend_filter_redirects(scope)),
    },
    Check {
        id: "gateway::backend_filter_rewrites_urls",
        claim: "A backend is asked for the host and path that its own filter makes of the request's.",
        source: "HTTPRouteBackendURLRewrite",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteBackendURLRewrite"),
        ],
        manifest: None,
        run: |scope| Box::pin(backend_filter_rewrites_urls(scope)),
    },
    Check {
        id: "gateway::each_share_has_a_path_of_its_own",
        claim: "Of two backends with filters of their own each is asked for its own path, and either receives its half of the requests.",
        source: "HTTPRouteBackendURLRewrite",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRouteBackendURLRewrite"),
        ],
        manifest: None,
        run: |scope| Box::pin(each_share_has_a_path_of_its_own(scope)),
    },
];

const HOST: &str = "services.gateway.example";
const FILTERED: &str = "backends.gateway.example";

async fn backend_of_h2c(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let mut seen = Vec::new();
    for path in ["/h2c", "/plain"] {
        let answer = entrance.get(HOST, path).await?.answer;
        seen.push(answer.map(|answer| (answer.pod, answer.protocol)));
    }
    let by_alpha = |protocol| Some(("alpha".to_owned(), protocol));
    let outcome = expect_eq(
        "the backend and what it was spoken to in, with appProtocol kubernetes.io/h2c and without",
        &vec![by_alpha(Protocol::H2), by_alpha(Protocol::H1)],
        &seen,
        "the controller ignores appProtocol",
    );
    explain(scope, outcome, "services", "/h2c").await
}

async fn backend_of_websockets(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let spec = WebSocketSpec::new(entrance.request(HOST, "/socket"));
    let reply = entrance.outside().ask(&spec).await?.pop();
    let reply = reply.ok_or_else(|| NoVerdict::new("a WebSocket without a reply"))?;
    let outcome = expect_eq(
        "opening a WebSocket at /socket: the status, who answers, messages of 3 that came back, and what went wrong",
        &(Some(101), Some("alpha"), 3, None),
        &(
            reply.status,
            reply.pod(),
            reply.echoed,
            reply.error.as_ref().map(ToString::to_string),
        ),
        "the proxy does not pass the upgrade on, or not both ways",
    );
    explain(scope, outcome, "services", "/socket").await
}

async fn backend_that_is_headless(scope: &Scope) -> Outcome {
    let service: Service = scope.get("headless").await?;
    let address = service.spec.and_then(|spec| spec.cluster_ip);
    let reply = entrance(scope).await?.get(HOST, "/headless").await?;
    let outcome = expect_eq(
        "the address of Service headless, and who answers /headless",
        &(Some("None".to_owned()), "200 by alpha".to_owned()),
        &(address, said::said(&reply)),
        "the controller sends requests to a Service's address instead of its endpoints, and this one has none",
    );
    explain(scope, outcome, "services", "/headless").await
}

async fn backend_without_a_selector(scope: &Scope) -> Outcome {
    const LISTED: &str = "by-hand.all.gateway.example";
    let entrance = many(scope).await?;
    scope
        .apply(&attached(scope, "by-hand", "all", LISTED, "by-hand"))
        .await?;
    for pod in ["one", "other"] {
        let pods = scope.ready_pods(&format!("app={pod}")).await?;
        let addresses: Vec<_> = pods.iter().map(|pod| pod.ip).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "name": "by-hand", "labels": { "kubernetes.io/service-name": "by-hand" } },
            "addressType": "IPv4",
            "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
            "endpoints": [{ "addresses": addresses, "conditions": { "ready": true } }],
        });
        scope.apply(&slice.to_string()).await?;
        let outcome = scope
            .eventually(Eventually {
                what: "who answers for a Service whose only endpoint was listed by hand",
                expected: format!("200 by {pod}"),
                observe: async || Ok(said::said(&entrance.get(LISTED, "/").await?)),
                likely: "the controller looks for a Service's pods instead of its EndpointSlices",
            })
            .await;
        explain(scope, outcome, "by-hand", "/").await?;
    }
    Ok(())
}

async fn backend_of_an_external_name(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let answer = said::said(&entrance.get(HOST, "/elsewhere").await?);
    let control = said::said(&entrance.get(HOST, "/plain").await?);
    let [accepted, resolved] = reasons(scope, "external-name").await?;
    let outcome = expect_eq(
        "the answers of /elsewhere and /plain, the reason of condition Accepted, and whether ResolvedRefs has another than ResolvedRefs",
        &(["500", "200 by alpha", "Accepted"].map(str::to_owned), true),
        &([answer, control, accepted], resolved != "ResolvedRefs"),
        "the controller follows names that whoever writes a Service can choose",
    );
    explain(scope, outcome, "external-name", "/elsewhere").await
}

async fn each_share_has_headers_of_its_own(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let spec = RequestSpec {
        count: scope.enough(40, 2)?,
        concurrency: 4,
        ..entrance.request("filtered.gateway.example", "/shares")
    };
    let answers = entrance.outside().request(&spec).await?;
    let told = answers.0.iter().map(|reply| {
        let answer = reply.answer.as_ref();
        let share = answer.and_then(|answer| answer.header("x-share"));
        format!("{}, {}", said::said(reply), share.unwrap_or("absent"))
    });
    let outcome = expect_eq(
        "who answers, and X-Share at that backend",
        &BTreeSet::from(["200 by alpha, of-alpha", "200 by beta, of-beta"].map(str::to_owned)),
        &told.collect(),
        "the controller does a backend's filters for the whole rule, or not at all",
    );
    explain(scope, outcome, "filtered", "/shares").await
}

async fn backend_filter_redirects(scope: &Scope) -> Outcome {
    let reply = entrance(scope).await?.get(FILTERED, "/redirect").await?;
    let location = reply.header("location").unwrap_or("none");
    let outcome = expect_eq(
        "the answer and location of GET /redirect",
        &("301".to_owned(), "http://other.example.com/redirect"),
        &(said::said(&reply), location.trim_end_matches(":80")),
        "the controller does RequestRedirect for whole rules only",
    );
    explain(scope, outcome, "filtered-backends", "/redirect").await
}

async fn backend_filter_rewrites_urls(scope: &Scope) -> Outcome {
    let path = "/rewrite/more?q=1";
    let answer = entrance(scope).await?.get(FILTERED, path).await?.answer;
    let outcome = expect_eq(
        format!("host, path and query at the backend of GET {path}"),
        &Some(["inner.example.com", "/new/more", "q=1"].map(str::to_owned)),
        &answer.map(|answer| [answer.host, answer.path, answer.query]),
        "the controller does URLRewrite for whole rules only",
    );
    explain(scope, outcome, "filtered-backends", "/rewrite").await
}

async fn each_share_has_a_path_of_its_own(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let asked = |reply: &Reply| {
        let path = reply.answer.as_ref().map(|answer| answer.path.as_str());
        format!("{} for {}", said::said(reply), path.unwrap_or("nothing"))
    };
    let outcome = shares(
        scope,
        entrance.outside(),
        &entrance.request(FILTERED, "/paths"),
        Shares {
            what: "who answers GET /paths, and the path that it was asked for",
            arms: &[
                ("200 by alpha for /of-alpha", 50.0),
                ("200 by beta for /of-beta", 50.0),
            ],
            arm_of: asked,
            // A half is told from all and from nothing.
            tolerance: 0.15,
            likely: "the controller does a backend's filters for the whole rule, or shares out in another way where backends have filters",
        },
    )
    .await;
    explain(scope, outcome, "filtered-backends", "/paths").await
}
