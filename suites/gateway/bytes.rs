//! What TCPRoutes and UDPRoutes have in common: they take what comes to a port, and look at nothing in it.
//!
//! Start from [`Transport`], a kind of route with its traffic; a row of `tcp` or `udp` names one, and a
//! function here. Listeners of Gateway `many` whose names begin with its word take such routes; each check
//! has one of them to itself, unless a Gateway of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gateway_api::experimental::tcproutes::TcpRoute;
use gateway_api::experimental::udproutes::UdpRoute;
use gateway_api::gateways::Gateway;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};
use strata::budget::PROVISION;
use strata::wire::{TcpSpec, UdpReply, UdpSpec};
use strata::{Eventually, NoVerdict, Outcome, Scope, expect_eq};

use super::{explain_gateway, explain_own_gateway, many, of};
use crate::entrance::{Entrance, gateway_address};
use crate::load::datagrams;
use crate::said;

/// What is sent, and the kind of route that takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// Connections, of TCPRoutes.
    Tcp,
    /// Datagrams, of UDPRoutes.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl Transport {
    fn kind(self) -> &'static str {
        match self {
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
        }
    }

    /// The name of one of the listeners for it.
    fn listener(self, name: &str) -> String {
        match self {
            Self::Tcp => format!("tcp{name}"),
            Self::Udp => format!("udp{name}"),
        }
    }

    /// Who answers at a port, once.
    async fn who(self, entrance: &Entrance, port: u16) -> Result<String, NoVerdict> {
        let to = entrance.port(port);
        let outside = entrance.outside();
        Ok(match self {
            Self::Tcp => said::tcp(&outside.tcp(&TcpSpec::new(to)).await?),
            Self::Udp => said::udp(&outside.udp(&quick(UdpSpec::new(to))).await?),
        })
    }

    /// Who answers how many of so many senders of their own.
    async fn counts(
        self,
        entrance: &Entrance,
        port: u16,
        count: u64,
    ) -> Result<BTreeMap<String, u64>, NoVerdict> {
        let to = entrance.port(port);
        let outside = entrance.outside();
        let answered: Vec<String> = match self {
            Self::Tcp => {
                let spec = TcpSpec {
                    count,
                    concurrency: 8,
                    ..TcpSpec::new(to)
                };
                let replies = outside.tcp(&spec).await?.into_iter();
                let who = |reply: strata::wire::TcpReply| {
                    said::who(reply.error.as_ref(), reply.answer.as_ref())
                };
                replies.map(who).collect()
            }
            Self::Udp => {
                let spec = UdpSpec {
                    count,
                    new_socket: true,
                    ..UdpSpec::new(to)
                };
                let replies = datagrams(outside, &spec).await?.into_iter();
                let who = |reply: UdpReply| said::who(reply.error.as_ref(), reply.answer.as_ref());
                replies.map(who).collect()
            }
        };
        let mut counts = BTreeMap::new();
        for who in answered {
            *counts.entry(who).or_default() += 1;
        }
        Ok(counts)
    }

    /// What the first parent of a route of the check's says.
    async fn conditions(self, scope: &Scope, name: &str) -> Result<Vec<Condition>, NoVerdict> {
        let mut parents: Vec<Vec<Condition>> = match self {
            Self::Tcp => {
                let route: TcpRoute = scope.get(name).await?;
                let parents = route.status.into_iter().flat_map(|status| status.parents);
                parents.map(|parent| parent.conditions).collect()
            }
            Self::Udp => {
                let route: UdpRoute = scope.get(name).await?;
                let parents = route.status.into_iter().flat_map(|status| status.parents);
                parents.map(|parent| parent.conditions).collect()
            }
        };
        Ok(match parents.is_empty() {
            true => Vec::new(),
            false => parents.remove(0),
        })
    }

    /// The reasons of conditions Accepted and ResolvedRefs of a route of the check's.
    async fn reasons(self, scope: &Scope, name: &str) -> Result<[String; 2], NoVerdict> {
        let conditions = self.conditions(scope, name).await?;
        Ok(["Accepted", "ResolvedRefs"].map(|kind| of(&conditions, kind).1))
    }

    /// A route of the check's own namespace.
    fn route(self, name: &str, parent: &Value, backends: Value) -> String {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1alpha2",
            "kind": self.kind(),
            "metadata": { "name": name },
            "spec": { "parentRefs": [parent], "rules": [{ "backendRefs": backends }] },
        })
        .to_string()
    }

    /// The same at a listener of the fixture's Gateway `many`.
    pub(super) fn attached(
        self,
        scope: &Scope,
        name: &str,
        listener: &str,
        backends: Value,
    ) -> String {
        let section = self.listener(listener);
        let parent =
            json!({ "name": "many", "namespace": scope.fixture(), "sectionName": section });
        self.route(name, &parent, backends)
    }
}

/// A datagram whose loss is noticed soon.
pub(super) fn quick(spec: UdpSpec) -> UdpSpec {
    UdpSpec {
        timeout_ms: 500,
        ..spec
    }
}

/// The only backend of a route.
pub(super) fn backend(name: &str) -> Value {
    json!([{ "name": name, "port": 9000 }])
}

/// A backend that cannot be had: the route says why, and nobody answers.
pub(super) async fn unresolved(
    scope: &Scope,
    transport: Transport,
    (listener, port): (&str, u16),
    backend: Value,
    reason: &str,
) -> Outcome {
    let entrance = many(scope).await?;
    scope
        .apply(&transport.attached(scope, "bytes", listener, json!([backend])))
        .await?;
    let outcome = scope
        .eventually(Eventually {
            what: "the reasons of conditions Accepted and ResolvedRefs, and whether anybody answers at the listener's port",
            expected: (["Accepted", reason].map(str::to_owned), false),
            observe: async || {
                let counts = transport.counts(&entrance, port, 1).await?;
                let answered = counts.keys().any(|who| who == "web" || who == "other");
                Ok((transport.reasons(scope, "bytes").await?, answered))
            },
            likely: &format!("the controller does not check where a {transport} leads to"),
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

/// Weights of 3 and 1.
pub(super) async fn splits(scope: &Scope, transport: Transport) -> Outcome {
    const PORT: u16 = 9002;
    let entrance = many(scope).await?;
    let backends = json!([
        { "name": "web", "port": 9000, "weight": 3 },
        { "name": "other", "port": 9000, "weight": 1 },
    ]);
    let route = transport.attached(scope, "bytes", "-shared", backends);
    scope.apply(&route).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "who answers at port 9002, of forty times",
            expected: BTreeSet::from(["web".to_owned(), "other".to_owned()]),
            observe: async || {
                Ok(transport
                    .counts(&entrance, PORT, 40)
                    .await?
                    .into_keys()
                    .collect())
            },
            likely: &format!("the controller does not do {transport}s"),
        })
        .await;
    explain_gateway(scope, outcome, "many").await?;
    // All, or none, or a half: fifteen points tell these from a quarter.
    let share = scope.fixed_share(0.25, 0.15)?;
    let mut counts = transport.counts(&entrance, PORT, share.requests()).await?;
    let other = counts.remove("other").unwrap_or_default();
    let web = counts.remove("web").unwrap_or_default();
    for (key, value) in share.records(other) {
        scope.record(key, value);
    }
    let outcome = expect_eq(
        "what else comes of what is sent to port 9002 than answers of web and other, and all of them",
        &(BTreeMap::new(), share.requests()),
        &(counts, web + other),
        "the proxy loses some of it",
    );
    explain_gateway(scope, outcome, "many").await?;
    let outcome = share.judge(
        "what of all that is sent to port 9002 other answers, of weight 1 beside 3",
        other,
        &format!("the controller ignores the weights of {transport}s"),
    );
    explain_gateway(scope, outcome, "many").await
}

/// A listener that does not take the route.
pub(super) async fn not_allowed(scope: &Scope, transport: Transport, section: &str) -> Outcome {
    let parent = json!({ "name": "many", "namespace": scope.fixture(), "sectionName": section });
    scope
        .apply(&transport.route("bytes", &parent, backend("web")))
        .await?;
    let outcome = scope
        .eventually(Eventually {
            what: &format!(
                "the reason of condition Accepted of a {transport} at listener {section}"
            ),
            expected: "NotAllowedByListeners".to_owned(),
            observe: async || {
                let [accepted, _] = transport.reasons(scope, "bytes").await?;
                Ok(accepted)
            },
            likely: &format!("the controller attaches a {transport} to any listener that is named"),
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

/// Two routes of one listener: the older has it, the other is told the same.
pub(super) async fn several(scope: &Scope, transport: Transport) -> Outcome {
    let entrance = many(scope).await?;
    // Where both are made within a second, their names decide as their age would.
    for (name, backend_name) in [("a-first", "web"), ("b-second", "other")] {
        let route = transport.attached(scope, name, "-several", backend(backend_name));
        scope.apply(&route).await?;
        let outcome = scope
            .eventually(Eventually {
                what: &format!("the reason of condition Accepted of {transport} {name}"),
                expected: "Accepted".to_owned(),
                observe: async || {
                    let [accepted, _] = transport.reasons(scope, name).await?;
                    Ok(accepted)
                },
                likely: "the controller refuses a route whose listener another has",
            })
            .await;
        explain_gateway(scope, outcome, "many").await?;
    }
    let section = transport.listener("-several");
    let outcome = scope
        .eventually(Eventually {
            what: &format!("who answers at port 9004, and attachedRoutes of listener {section}"),
            expected: (BTreeMap::from([("web".to_owned(), 20)]), Some(2)),
            observe: async || {
                let counts = transport.counts(&entrance, 9004, 20).await?;
                let gateway: Gateway = scope.get_in(scope.fixture(), "many").await?;
                let listeners = gateway.status.and_then(|status| status.listeners);
                let mut listeners = listeners.into_iter().flatten();
                let attached = listeners.find(|it| it.name == section);
                Ok((counts, attached.map(|it| it.attached_routes)))
            },
            likely: "the controller gives the listener to the newer route, or to both",
        })
        .await;
    explain_gateway(scope, outcome, "many").await
}

/// A backend of another namespace, before a ReferenceGrant, with it, and after it.
pub(super) async fn granted(scope: &Scope, transport: Transport) -> Outcome {
    const PORT: u16 = 9005;
    let entrance = many(scope).await?;
    let parent = json!({ "name": "many", "namespace": scope.fixture(), "sectionName": transport.listener("-granted") });
    let backends = json!([{ "name": "web", "namespace": scope.namespace(), "port": 9000 }]);
    let guest = scope
        .neighbour(&transport.route("bytes", &parent, backends))
        .await?;
    let settled = async |served: bool| {
        let outcome = scope
            .eventually(Eventually {
                what: "whether web answers at port 9005",
                expected: served,
                observe: async || Ok(transport.who(&entrance, PORT).await? == "web"),
                likely: "the controller does not look at ReferenceGrants, or does not see them go",
            })
            .await;
        explain_gateway(scope, outcome, "many").await
    };
    let grant = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": { "name": "given" },
        "spec": {
            "from": [{ "group": "gateway.networking.k8s.io", "kind": transport.kind(), "namespace": guest }],
            "to": [{ "group": "", "kind": "Service", "name": "web" }],
        },
    });
    scope.apply(&grant.to_string()).await?;
    settled(true).await?;
    let version = "gateway.networking.k8s.io/v1beta1";
    scope
        .delete_kind(version, "ReferenceGrant", "given")
        .await?;
    settled(false).await
}

/// By which listeners of a Gateway of three ports a route is served: by its section, by its port, by both, or
/// by all of them.
pub(super) async fn by_parent(scope: &Scope, transport: Transport) -> Outcome {
    let parent = |more: Value| {
        let mut parent = json!({ "name": "ports" });
        if let (Value::Object(parent), Value::Object(more)) = (&mut parent, more) {
            parent.extend(more);
        }
        parent
    };
    for (more, served) in [
        (json!({ "sectionName": "one" }), [true, false, false]),
        (json!({ "port": 9011 }), [false, true, false]),
        (
            json!({ "sectionName": "three", "port": 9012 }),
            [false, false, true],
        ),
        (json!({}), [true, true, true]),
    ] {
        let parent = parent(more);
        scope
            .apply(&transport.route("bytes", &parent, backend("web")))
            .await?;
        let outcome = scope
            .eventually_within(PROVISION, Eventually {
                what: &format!("whether web answers at ports 9010, 9011 and 9012 of Gateway ports, by a {transport} of parent {parent}"),
                expected: served,
                observe: async || {
                    let gateway: Gateway = scope.get("ports").await?;
                    let Some(address) = gateway_address(&gateway) else {
                        return Ok([false; 3]);
                    };
                    let entrance = Entrance::at(scope, address)?;
                    let at = async |port| Ok::<_, NoVerdict>(transport.who(&entrance, port).await? == "web");
                    Ok([at(9010).await?, at(9011).await?, at(9012).await?])
                },
                likely: "the controller ignores sectionName or port of parentRefs",
            })
            .await;
        explain_own_gateway(scope, outcome, "ports").await?;
    }
    Ok(())
}
