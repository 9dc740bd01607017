//! Routes of every kind, in the shape of the most expressive one.
//!
//! Start from [`Route`]. A GRPCRoute, a TLSRoute, a TCPRoute and a UDPRoute say what an HTTPRoute can say, in other words or in
//! fewer, so they are read as one. What then differs by kind (who takes it, how its backends are spoken
//! to, what a refusal looks like) is asked of [`Kind`]. Rule: a status is written in the kind it was read of.

use std::ops::Deref;
use std::sync::Arc;

use gateway_api::experimental::httproutes::HttpRoute;
use gateway_api::experimental::tcproutes::TcpRoute;
use gateway_api::experimental::udproutes::UdpRoute;
use gateway_api::grpcroutes::GrpcRoute;
use gateway_api::tlsroutes::TlsRoute;
use kube::api::ApiResource;
use serde_json::{Value, json};

/// The kinds of routes that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// HTTPRoute
    Http,
    /// GRPCRoute
    Grpc,
    /// TLSRoute
    Tls,
    /// TCPRoute
    Tcp,
    /// UDPRoute
    Udp,
}

impl Kind {
    /// As objects name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
        }
    }

    /// Where the API serves it.
    pub(super) fn resource(self) -> ApiResource {
        match self {
            Self::Http => ApiResource::erase::<HttpRoute>(&()),
            Self::Grpc => ApiResource::erase::<GrpcRoute>(&()),
            Self::Tls => ApiResource::erase::<TlsRoute>(&()),
            Self::Tcp => ApiResource::erase::<TcpRoute>(&()),
            Self::Udp => ApiResource::erase::<UdpRoute>(&()),
        }
    }

    /// What stands in for a backend that is invalid: "traffic MUST receive a 500 status code", or of
    /// gRPC "an UNAVAILABLE status", which is what Envoy makes of 503.
    pub(super) fn refusal(self) -> (u16, &'static str) {
        match self {
            Self::Http | Self::Tls | Self::Tcp | Self::Udp => (500, "INTERNAL_SERVER_ERROR"),
            Self::Grpc => (503, "SERVICE_UNAVAILABLE"),
        }
    }
}

/// A route, read as an HTTPRoute.
#[derive(Debug, Clone)]
pub(super) struct Route {
    /// What it is.
    pub(super) kind: Kind,
    read: Arc<HttpRoute>,
}

impl Deref for Route {
    type Target = HttpRoute;

    fn deref(&self) -> &HttpRoute {
        &self.read
    }
}

impl From<Arc<HttpRoute>> for Route {
    fn from(read: Arc<HttpRoute>) -> Self {
        Self {
            kind: Kind::Http,
            read,
        }
    }
}

impl Route {
    /// Of a GRPCRoute. Nothing if it is none, which the API's validation keeps from happening.
    pub(super) fn of_grpc(route: &GrpcRoute) -> Option<Self> {
        let mut value = serde_json::to_value(route).ok()?;
        let rules = value["spec"]["rules"].as_array_mut();
        for rule in rules.into_iter().flatten() {
            for one in rule["matches"].as_array_mut().into_iter().flatten() {
                let fields = one.as_object_mut()?;
                if let Some(path) = fields.remove("method").and_then(|method| path_of(&method)) {
                    fields.insert("path".to_owned(), path);
                }
            }
        }
        Self::read(Kind::Grpc, value)
    }

    /// Of a TLSRoute.
    pub(super) fn of_tls(route: &TlsRoute) -> Option<Self> {
        Self::read(Kind::Tls, serde_json::to_value(route).ok()?)
    }

    /// Of a TCPRoute.
    pub(super) fn of_tcp(route: &TcpRoute) -> Option<Self> {
        Self::read(Kind::Tcp, serde_json::to_value(route).ok()?)
    }

    /// Of a UDPRoute.
    pub(super) fn of_udp(route: &UdpRoute) -> Option<Self> {
        Self::read(Kind::Udp, serde_json::to_value(route).ok()?)
    }

    fn read(kind: Kind, value: Value) -> Option<Self> {
        let read = serde_json::from_value(value).ok()?;
        Some(Self {
            kind,
            read: Arc::new(read),
        })
    }
}

/// The path of a gRPC method: `/service/method` (gRPC over HTTP2, "Path"). Whatever is not named may be
/// anything.
///
/// | type | service | method | path |
/// | --- | --- | --- | --- |
/// | Exact | `a.B` | `Do` | exactly `/a.B/Do` |
/// | Exact | `a.B` | - | below `/a.B` |
/// | Exact | - | `Do` | by expression: `/[^/]+/Do` |
/// | RegularExpression | `a\..*` | - | by expression: `/(?:a\..*)/(?:[^/]+)` |
fn path_of(method: &Value) -> Option<Value> {
    const ANY: &str = "[^/]+";
    let text = |field: &str| method[field].as_str();
    let (kind, path) = match (text("type"), text("service"), text("method")) {
        (_, None, None) => return None,
        (Some("RegularExpression"), service, method) => {
            let (service, method) = (service.unwrap_or(ANY), method.unwrap_or(ANY));
            ("RegularExpression", format!("/(?:{service})/(?:{method})"))
        }
        (_, Some(service), Some(method)) => ("Exact", format!("/{service}/{method}")),
        (_, Some(service), None) => ("PathPrefix", format!("/{service}")),
        (_, None, Some(method)) => (
            "RegularExpression",
            format!("/{ANY}/{}", regex::escape(method)),
        ),
    };
    Some(json!({ "type": kind, "value": path }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_of_grpc_are_paths() {
        for (method, expected) in [
            (json!({}), None),
            (
                json!({ "service": "a.B", "method": "Do" }),
                Some(("Exact", "/a.B/Do")),
            ),
            (json!({ "service": "a.B" }), Some(("PathPrefix", "/a.B"))),
            (
                json!({ "type": "Exact", "method": "Do" }),
                Some(("RegularExpression", "/[^/]+/Do")),
            ),
            (
                json!({ "type": "RegularExpression", "service": "a|b" }),
                Some(("RegularExpression", "/(?:a|b)/(?:[^/]+)")),
            ),
        ] {
            let expected = expected.map(|(kind, path)| json!({ "type": kind, "value": path }));
            assert_eq!(path_of(&method), expected, "{method}");
        }
    }
}
