//! Where a rule sends clients instead of serving them.
//!
//! Start from [`SUITE`]. What a rule leaves out is the request's own, but for the port: without one it
//! is the new scheme's, or else the listener's ("the redirect port MUST be derived").

use std::collections::BTreeMap;

use strata::wire::RequestSpec;
use strata::{Check, Layer, Need, Outcome, Scope, Suite, expect_eq};

use super::{authority, entrance, explain, many};
use crate::entrance::Entrance;
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Gateway,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "gateway::redirects",
        claim: "Redirects change scheme, host, port and path as the rule says, keep what it does not name, and never reach a backend.",
        source: "HTTPRouteRedirectHostAndStatus, HTTPRouteRedirectScheme, HTTPRouteRedirectPort, HTTPRouteRedirectPath",
        needs: &[Need::Outside],
        manifest: None,
        run: |scope| Box::pin(redirects(scope)),
    },
    Check {
        id: "gateway::redirects_with_303",
        claim: "A redirect of status 303 is answered with that status, and never reaches a backend.",
        source: "HTTPRoute303Redirect",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRoute303RedirectStatusCode"),
        ],
        manifest: None,
        run: |scope| Box::pin(redirects_with_status(scope, "303")),
    },
    Check {
        id: "gateway::redirects_with_307",
        claim: "A redirect of status 307 is answered with that status, and never reaches a backend.",
        source: "HTTPRoute307Redirect",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRoute307RedirectStatusCode"),
        ],
        manifest: None,
        run: |scope| Box::pin(redirects_with_status(scope, "307")),
    },
    Check {
        id: "gateway::redirects_with_308",
        claim: "A redirect of status 308 is answered with that status, and never reaches a backend.",
        source: "HTTPRoute308Redirect",
        needs: &[
            Need::Outside,
            Need::GatewayFeature("HTTPRoute308RedirectStatusCode"),
        ],
        manifest: None,
        run: |scope| Box::pin(redirects_with_status(scope, "308")),
    },
    Check {
        id: "gateway::redirects_from_port_80",
        claim: "From port 80 a redirect leads to the port that the rule names, else to its scheme's own, else to the same.",
        source: "HTTPRouteRedirectPortAndScheme",
        needs: PORTS,
        manifest: None,
        run: |scope| Box::pin(redirects_from_port_80(scope)),
    },
    Check {
        id: "gateway::redirects_from_port_8080",
        claim: "From port 8080 a redirect leads to the port that the rule names, else to its scheme's own, else to 8080.",
        source: "HTTPRouteRedirectPortAndScheme",
        needs: PORTS,
        manifest: None,
        run: |scope| Box::pin(redirects_from_port_8080(scope)),
    },
    Check {
        id: "gateway::redirects_from_https",
        claim: "From HTTPS a redirect stays there unless the rule names a scheme, and leads to that scheme's port unless it names one.",
        source: "HTTPRouteRedirectPortAndScheme",
        needs: PORTS,
        manifest: None,
        run: |scope| Box::pin(redirects_from_https(scope)),
    },
];

const PORTS: &[Need] = &[
    Need::Outside,
    Need::GatewayFeature("HTTPRoutePortRedirect"),
    Need::GatewayFeature("HTTPRouteSchemeRedirect"),
];

async fn redirects(scope: &Scope) -> Outcome {
    const HOST: &str = "filtered.gateway.example";
    let entrance = entrance(scope).await?;
    let cases = [
        (
            "/redirect/host",
            "301",
            "http://other.example.com/redirect/host",
        ),
        (
            "/redirect/scheme",
            "302",
            "https://filtered.gateway.example/redirect/scheme",
        ),
        (
            "/redirect/port",
            "302",
            "http://filtered.gateway.example:8443/redirect/port",
        ),
        (
            "/redirect/prefix/more?q=1",
            "302",
            "http://filtered.gateway.example/new/more?q=1",
        ),
        (
            "/redirect/full/more?q=1",
            "302",
            "http://filtered.gateway.example/whole?q=1",
        ),
    ];
    let mut seen = BTreeMap::new();
    for (path, _, _) in cases {
        let reply = entrance.get(HOST, path).await?;
        let location = reply.header("location").unwrap_or("none").to_owned();
        seen.insert(path, (said::said(&reply), without_known_port(location)));
    }
    let outcome = expect_eq(
        "status and location, by what was asked for",
        &cases
            .map(|(path, status, location)| (path, (status.to_owned(), location.to_owned())))
            .into(),
        &seen,
        "the controller fills in what the rule leaves out with something other than the request's own",
    );
    explain(scope, outcome, "filtered", "/redirect/host").await
}

async fn redirects_with_status(scope: &Scope, status: &str) -> Outcome {
    let entrance = entrance(scope).await?;
    let path = format!("/status/{status}");
    let reply = entrance.get("redirected.gateway.example", &path).await?;
    let location = reply.header("location").unwrap_or("none").to_owned();
    let outcome = expect_eq(
        format!("status and location of GET {path}"),
        &(
            status.to_owned(),
            format!("http://other.example.com/status/{status}"),
        ),
        &(said::said(&reply), without_known_port(location)),
        "the controller does redirects of 301 and 302 only",
    );
    explain(scope, outcome, "redirect-status", &path).await
}

async fn redirects_from_port_80(scope: &Scope) -> Outcome {
    let entrance = entrance(scope).await?;
    let request = |path: &str| entrance.request("redirected.gateway.example", path);
    let cases = [
        ("/to/host", "http://other.example.com"),
        ("/to/80", "http://other.example.com"),
        ("/to/8090", "http://other.example.com:8090"),
        ("/to/https", "https://other.example.com"),
        ("/to/https/443", "https://other.example.com"),
        ("/to/https/8443", "https://other.example.com:8443"),
    ];
    locations(scope, &entrance, request, &cases).await
}

async fn redirects_from_port_8080(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let request = |path: &str| entrance.request_at(8080, "redirected.gateway.example", path);
    let cases = [
        ("/to/host", "http://other.example.com:8080"),
        ("/to/80", "http://other.example.com"),
        ("/to/8090", "http://other.example.com:8090"),
        ("/to/https", "https://other.example.com"),
        ("/to/https/443", "https://other.example.com"),
        ("/to/https/8443", "https://other.example.com:8443"),
    ];
    locations(scope, &entrance, request, &cases).await
}

async fn redirects_from_https(scope: &Scope) -> Outcome {
    let entrance = many(scope).await?;
    let ca = authority(scope).await?;
    let request = |path: &str| entrance.secure("tls.gateway.example", path, &ca);
    let cases = [
        ("/to/host", "https://other.example.com"),
        ("/to/8090", "https://other.example.com:8090"),
        ("/to/https/443", "https://other.example.com"),
        ("/to/https/8443", "https://other.example.com:8443"),
        ("/to/http", "http://other.example.com"),
        ("/to/http/8090", "http://other.example.com:8090"),
    ];
    locations(scope, &entrance, request, &cases).await
}

/// Judges where the paths of a table lead to.
async fn locations(
    scope: &Scope,
    entrance: &Entrance,
    request: impl Fn(&str) -> RequestSpec,
    cases: &[(&'static str, &'static str)],
) -> Outcome {
    let mut expected = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for (path, origin) in cases {
        let reply = entrance.send(&request(path)).await?;
        let location = reply.header("location").unwrap_or("none").to_owned();
        expected.insert(*path, ("302".to_owned(), format!("{origin}{path}")));
        seen.insert(*path, (said::said(&reply), without_known_port(location)));
    }
    let outcome = expect_eq(
        "status and location, by what was asked for",
        &expected,
        &seen,
        "the controller derives the redirect's port from something other than scheme and listener",
    );
    explain(scope, outcome, "redirect-port", "/to/host").await
}

/// A location that names the scheme's own port is the same without it.
pub(super) fn without_known_port(location: String) -> String {
    for (scheme, port) in [("http://", ":80/"), ("https://", ":443/")] {
        if location.starts_with(scheme) {
            return location.replacen(port, "/", 1);
        }
    }
    location
}
