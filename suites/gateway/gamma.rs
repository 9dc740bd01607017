//! Routes whose parents are Services: what a mesh does with them (the Gateway API's mesh profile, GAMMA).
//!
//! Start from [`SUITE`]. Each check has a namespace of its own in which only `client` has a sidecar: what a
//! route says is done where a request starts. Requests that no rule of Service `echo` names are answered with
//! 404, so nothing here passes where routes are ignored.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use gateway_api::httproutes::HttpRoute;
use serde_json::json;
use strata::wire::{HttpVersion, RequestSpec};
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, Vantage};

use super::of;
use crate::said;
use crate::shares::{Shares, shares};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::meshed_requests_are_matched",
        claim: "A pod's requests for a Service that is a route's parent go where the first rule says that their path, headers, query or method fit, and are answered with 404 if none do.",
        source: "MeshHTTPRouteMatching, MeshHTTPRouteQueryParamMatching, MeshHTTPRouteNamedRule, MeshHTTPRouteSimpleSameNamespace",
        needs: &[
            MESH,
            Need::GatewayFeature("MeshHTTPRouteQueryParamMatching"),
            Need::GatewayFeature("MeshHTTPRouteNamedRouteRule"),
        ],
        manifest: MANIFEST,
        run: |scope| Box::pin(are_matched(scope)),
    },
    Check {
        id: "gateway::meshed_requests_are_redirected",
        claim: "Redirects of a route whose parent is a Service change host, scheme, port, path and status as they say, and nothing else.",
        source: "MeshHTTPRoute303Redirect, MeshHTTPRoute307Redirect, MeshHTTPRoute308Redirect, MeshHTTPRouteRedirectHostAndStatus, MeshHTTPRouteRedirectPath, MeshHTTPRouteRedirectPort, MeshHTTPRouteSchemeRedirect",
        needs: &[
            MESH,
            Need::GatewayFeature("MeshHTTPRouteRedirectPath"),
            Need::GatewayFeature("MeshHTTPRouteRedirectPort"),
            Need::GatewayFeature("MeshHTTPRouteSchemeRedirect"),
        ],
        manifest: MANIFEST,
        run: |scope| Box::pin(are_redirected(scope)),
    },
    Check {
        id: "gateway::meshed_requests_are_changed",
        claim: "A route whose parent is a Service changes the headers and the paths of requests and calls, for a rule and for a backend.",
        source: "MeshHTTPRouteRequestHeaderModifier, MeshHTTPRouteBackendRequestHeaderModifier, MeshHTTPRouteRewritePath, MeshGRPCRouteRequestHeaderModifier",
        needs: &[
            MESH,
            Need::GatewayFeature("MeshHTTPRouteRewritePath"),
            Need::GatewayFeature("MeshHTTPRouteBackendRequestHeaderModification"),
        ],
        manifest: MANIFEST,
        run: |scope| Box::pin(are_changed(scope)),
    },
    Check {
        id: "gateway::meshed_requests_split_by_weight",
        claim: "Weights of 70 and 30 of a route whose parent is a Service send 70 % and 30 % of a pod's requests to its backends.",
        source: "MeshHTTPRouteWeight, MeshTrafficSplit",
        needs: &[MESH],
        manifest: MANIFEST,
        run: |scope| {
            let spec = RequestSpec::get("http://echo/split");
            let stranger = RequestSpec::get("http://echo/nobodys");
            Box::pin(split(scope, spec, (stranger, "404")))
        },
    },
    Check {
        id: "gateway::meshed_calls_split_by_weight",
        claim: "Weights of 70 and 30 of a GRPCRoute whose parent is a Service send 70 % and 30 % of a pod's calls to its backends.",
        source: "MeshGRPCRouteWeight",
        needs: &[MESH],
        manifest: MANIFEST,
        run: |scope| {
            // Refused with a status of gRPC, by nobody.
            let stranger = call("/strata.Nobodys/Do");
            Box::pin(split(scope, call("/strata.Split/Do"), (stranger, "200")))
        },
    },
    Check {
        id: "gateway::meshed_routes_are_of_their_port",
        claim: "A route whose parent is a port of a Service does nothing to requests for its other ports, for another Service or for the pods behind it.",
        source: "MeshPorts, MeshFrontend",
        needs: &[MESH],
        manifest: MANIFEST,
        run: |scope| Box::pin(are_of_their_port(scope)),
    },
    Check {
        id: "gateway::meshed_routes_of_a_consumer",
        claim: "A route in another namespace than the Service that is its parent is for requests of its own namespace's pods only.",
        source: "MeshConsumerRoute",
        needs: &[MESH, Need::GatewayFeature("MeshConsumerRoute")],
        manifest: MANIFEST,
        run: |scope| Box::pin(of_a_consumer(scope)),
    },
];

const MESH: Need = Need::GatewayFeature("Mesh");
const MANIFEST: Option<&str> = Some("gateway/meshed.yaml");
const V1: &str = "200 by v1";
const V2: &str = "200 by v2";

async fn client(scope: &Scope) -> Result<Vantage, NoVerdict> {
    scope.pod("app=client").await
}

/// A call of gRPC, as far as a proxy looks at it.
fn call(method: &str) -> RequestSpec {
    RequestSpec {
        method: "POST".to_owned(),
        headers: vec![
            "content-type: application/grpc".to_owned(),
            "te: trailers".to_owned(),
        ],
        http: HttpVersion::H2,
        ..RequestSpec::get(format!("http://echo:9000{method}"))
    }
}

async fn are_matched(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let cases = [
        ("GET", "/exact", "", V2),
        ("GET", "/exact/more", "", "404"),
        ("GET", "/prefix/more", "", V2),
        ("GET", "/prefixed", "", "404"),
        ("GET", "/match", "", V1),
        ("GET", "/match", "version: two", V2),
        ("GET", "/match", "version: three", V1),
        ("GET", "/match?version=two", "", V2),
        ("GET", "/match?version=three", "", V1),
        ("DELETE", "/match", "", V2),
        ("GET", "/named", "", V2),
        ("GET", "/missing", "", "500"),
        ("GET", "/", "", "404"),
    ];
    let case =
        |(method, path, header, _): &(&str, &str, &str, &str)| format!("{method} {path} {header}");
    scope
        .eventually(Eventually {
            what: "who answers requests for echo, and the reasons of conditions Accepted and ResolvedRefs of its route",
            expected: (
                cases.iter().map(|it| (case(it), it.3.to_owned())).collect(),
                ["Accepted", "BackendNotFound"].map(str::to_owned),
            ),
            observe: async || {
                let seen = try_join_all(cases.iter().map(async |it| {
                    let (method, path, header, _) = it;
                    let spec = RequestSpec {
                        method: (*method).to_owned(),
                        headers: Some((*header).to_owned()).filter(|it| !it.is_empty()).into_iter().collect(),
                        ..RequestSpec::get(format!("http://echo{path}"))
                    };
                    Ok::<_, NoVerdict>((case(it), said::said(&client.send(&spec).await?)))
                }));
                let seen: BTreeMap<_, _> = seen.await?.into_iter().collect();
                Ok((seen, reasons(scope, "echoed").await?))
            },
            likely: "the mesh does not do routes whose parents are Services",
        })
        .await
}

/// The reasons of conditions Accepted and ResolvedRefs that a route's first parent gives.
async fn reasons(scope: &Scope, route: &str) -> Result<[String; 2], NoVerdict> {
    let route: HttpRoute = scope.get(route).await?;
    let conditions = super::parent_of(&route).conditions;
    Ok(["Accepted", "ResolvedRefs"].map(|kind| of(&conditions, kind).1))
}

async fn are_redirected(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let cases = [
        ("/host", "301", "http://other.example.com/host"),
        ("/scheme", "302", "https://other.example.com/scheme"),
        ("/port", "302", "http://other.example.com:8083/port"),
        ("/full/more", "302", "http://other.example.com/whole"),
        ("/start/more", "302", "http://other.example.com/new/more"),
        ("/303", "303", "http://other.example.com/303"),
        ("/307", "307", "http://other.example.com/307"),
        ("/308", "308", "http://other.example.com/308"),
    ];
    scope
        .eventually(Eventually {
            what: "status and location of requests for echo, by path",
            expected: cases.map(|it| [it.0, it.1, it.2].map(str::to_owned)).to_vec(),
            observe: async || {
                try_join_all(cases.iter().map(async |(path, _, _)| {
                    let spec = RequestSpec::get(format!("http://echo{path}"));
                    let reply = client.send(&spec).await?;
                    let location = reply.header("location").unwrap_or("none").to_owned();
                    let location = super::redirects::without_known_port(location);
                    Ok([(*path).to_owned(), said::said(&reply), location])
                }))
                .await
            },
            likely: "the mesh fills in what a redirect leaves out with something other than the request's own",
        })
        .await
}

async fn are_changed(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let headers = |spec: RequestSpec| {
        let own = ["X-Set: client", "X-Added: client", "X-Removed: client"].map(str::to_owned);
        RequestSpec {
            headers: spec.headers.iter().cloned().chain(own).collect(),
            ..spec
        }
    };
    let get = |path: &str| headers(RequestSpec::get(format!("http://echo{path}")));
    let cases = [
        (get("/headers"), "/headers", "rule", "client rule", ""),
        (get("/backend"), "/backend", "backend", "client backend", ""),
        (get("/old/more"), "/new/more", "client", "client", "client"),
        (get("/any/more"), "/rewritten", "client", "client", "client"),
        (
            headers(call("/strata.Changed/Do")),
            "/strata.Changed/Do",
            "rule",
            "client rule",
            "",
        ),
    ];
    let expected = cases
        .iter()
        .map(|(_, path, set, added, removed)| ["v1", path, set, added, removed].map(str::to_owned));
    scope
        .eventually(Eventually {
            what: "who answers, and the path and the headers X-Set, X-Added and X-Removed that arrive, of three requests that have each, of value client",
            expected: expected.collect::<Vec<_>>(),
            observe: async || {
                let mut seen = Vec::new();
                for (spec, ..) in &cases {
                    let reply = client.send(spec).await?;
                    let Some(answer) = reply.answer.clone() else {
                        seen.push([said::said(&reply), String::new(), String::new(), String::new(), String::new()]);
                        continue;
                    };
                    let header = |name: &str| answer.headers.get(name).map(|all| all.join(" ").replace(',', " ")).unwrap_or_default();
                    seen.push([answer.pod.clone(), answer.path.clone(), header("x-set"), header("x-added"), header("x-removed")]);
                }
                Ok(seen)
            },
            likely: "the mesh does not do the filters of routes whose parents are Services",
        })
        .await
}

/// Judges who answers, once what no rule names is nobody's, as `stranger` is: the Service itself would answer it.
async fn split(scope: &Scope, spec: RequestSpec, stranger: (RequestSpec, &str)) -> Outcome {
    let client = client(scope).await?;
    let (stranger, refused) = stranger;
    scope
        .eventually(Eventually {
            what: "the answers to what no rule names, which shows that the route is in force, and of each backend by its own name",
            expected: [refused, V1, V2].map(str::to_owned),
            observe: async || {
                let own = |name: &str| RequestSpec::get(format!("http://{name}/"));
                let said = async |spec| Ok::<_, NoVerdict>(said::said(&client.send(spec).await?));
                Ok([
                    said(&stranger).await?,
                    said(&own("echo-v1")).await?,
                    said(&own("echo-v2")).await?,
                ])
            },
            likely: "the mesh does not do routes whose parents are Services",
        })
        .await?;
    // The Service itself would send halves: ten points tell these from the weights.
    shares(
        scope,
        &client,
        &spec,
        Shares {
            what: "who answers a rule of weights 70 and 30",
            arms: &[(V1, 70.0), (V2, 30.0)],
            arm_of: said::said,
            tolerance: 0.1,
            likely: "the mesh ignores the weights of routes whose parents are Services",
        },
    )
    .await
}

async fn are_of_their_port(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let pods = scope.ready_pods("version=v2").await?;
    let pod = pods
        .first()
        .ok_or_else(|| NoVerdict::new("v2 is not ready"))?
        .ip;
    let cases = [
        ("http://echo-v2/".to_owned(), V2, "of-a-port"),
        ("http://echo-v2:8080/".to_owned(), V2, "none"),
        ("http://echo-v1/".to_owned(), V1, "none"),
        (format!("http://{pod}:8080/"), V2, "none"),
    ];
    scope
        .eventually(Eventually {
            what: "who answers, and the header that the route of port 80 of echo-v2 sets",
            expected: cases
                .clone()
                .map(|(url, who, header)| [url, who.to_owned(), header.to_owned()])
                .to_vec(),
            observe: async || {
                let mut seen = Vec::new();
                for (url, ..) in &cases {
                    let reply = client.get(url.clone()).await?;
                    let header = reply.header("x-route").unwrap_or("none").to_owned();
                    seen.push([url.clone(), said::said(&reply), header]);
                }
                Ok(seen)
            },
            likely: "the mesh ignores the port of a parent, or takes a backend for the parent",
        })
        .await
}

async fn of_a_consumer(scope: &Scope) -> Outcome {
    let own = client(scope).await?;
    let namespace = scope.namespace();
    let guest = scope.neighbour(&consumer(scope).await?).await?;
    let grant = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": { "name": "consumer" },
        "spec": {
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": guest }],
            "to": [{ "group": "", "kind": "Service" }],
        },
    });
    scope.apply(&grant.to_string()).await?;
    let pods = scope.ready_pods_in(&guest, "app=client").await?;
    let pod = pods
        .first()
        .ok_or_else(|| NoVerdict::new("the guest's client is not ready"))?;
    let guests = scope.from_pod(pod);
    let spec = RequestSpec::get(format!("http://echo-v1.{namespace}/"));
    scope
        .eventually(Eventually {
            what: "who answers, and the header that the route of another namespace sets, for a client of that namespace and for one of the Service's",
            expected: [[V1, "consumer"], [V1, "none"]].map(|it| it.map(str::to_owned)),
            observe: async || {
                let seen = async |from: &Vantage| {
                    let reply = from.send(&spec).await?;
                    let header = reply.header("x-route").unwrap_or("none").to_owned();
                    Ok::<_, NoVerdict>([said::said(&reply), header])
                };
                Ok([seen(&guests).await?, seen(&own).await?])
            },
            likely: "the mesh takes a consumer's route for one for everybody, or for nobody",
        })
        .await
}

/// A client as in the check's namespace, and a route of its own for a Service there.
async fn consumer(scope: &Scope) -> Result<String, NoVerdict> {
    let client: k8s_openapi::api::core::v1::Pod = scope.get("client").await?;
    let container = client
        .spec
        .and_then(|spec| spec.containers.into_iter().find(|it| it.name == "probe"));
    let mut container = serde_json::to_value(&container)?;
    if let Some(fields) = container.as_object_mut() {
        // What the cluster adds is of the pod that it was added to.
        fields.retain(|name, _| {
            [
                "name",
                "image",
                "imagePullPolicy",
                "args",
                "env",
                "securityContext",
            ]
            .contains(&name.as_str())
        });
    }
    container["readinessProbe"] =
        json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 });
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": "strata-gateway", "labels": { "istio-injection": "enabled" } },
    });
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "client", "labels": { "app": "client" } },
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [container],
        },
    });
    let parent = json!({ "group": "", "kind": "Service", "name": "echo-v1", "namespace": scope.namespace() });
    let filter = json!({
        "type": "ResponseHeaderModifier",
        "responseHeaderModifier": { "set": [{ "name": "X-Route", "value": "consumer" }] },
    });
    let backend = json!({ "name": "echo-v1", "namespace": scope.namespace(), "port": 80 });
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": "consumer" },
        "spec": { "parentRefs": [parent], "rules": [{ "filters": [filter], "backendRefs": [backend] }] },
    });
    Ok(format!("{namespace}\n---\n{pod}\n---\n{route}"))
}
