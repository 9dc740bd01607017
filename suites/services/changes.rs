//! A Service that is changed while it is called: its type, ports, selector and labels.
//!
//! Start from [`SUITE`]. Rule: what is to be gone after a change has answered before it, the same way.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite, Vantage};

use super::endpoints::answers;
use super::outside::{addresses, quick};
use super::{address, arrived, client, explain, named, node_port, only};
use crate::said;

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Services,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "services::node_port_is_gone_with_its_type",
        claim: "A Service that is changed from NodePort to ClusterIP is refused at its former node port, and goes on at its cluster IP.",
        source: "sig-network: should be able to change the type and ports of a service",
        needs: &[Need::Outside],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(node_port_is_gone_with_its_type(scope)),
    },
    Check {
        id: "services::node_port_is_gone_with_its_service",
        claim: "Connections to the node port of a Service that has been deleted are refused.",
        source: "sig-network: should update nodePort: http",
        needs: &[Need::Outside],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(node_port_is_gone_with_its_service(scope)),
    },
    Check {
        id: "services::external_name_becomes_a_node_port",
        claim: "An ExternalName Service that is changed to NodePort is given a cluster IP and a node port, and serves at both.",
        source: "sig-network: should be able to change the type from ExternalName to NodePort",
        needs: &[Need::Outside],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(external_name_becomes_a_node_port(scope)),
    },
    Check {
        id: "services::cluster_ip_becomes_an_external_name",
        claim: "A ClusterIP Service that is changed to ExternalName is a CNAME, and its former cluster IP answers nobody.",
        source: "sig-network: should be able to change the type from ClusterIP to ExternalName",
        needs: &[],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(cluster_ip_becomes_an_external_name(scope)),
    },
    Check {
        id: "services::ports_come_and_go",
        claim: "A port that is added to a Service is served, and one that is removed no longer is, while another goes on.",
        source: "sig-network: should be able to change the type and ports of a service; should create and delete Endpoints and EndpointSlices for a Service with a selector specified",
        needs: &[],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(ports_come_and_go(scope)),
    },
    Check {
        id: "services::port_is_renamed",
        claim: "A port that is given another name is served as before, and has its SRV record under the new name.",
        source: "Kubernetes DNS specification, 2.3.2; Kubernetes: EndpointSlice ports, by name",
        needs: &[],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(port_is_renamed(scope)),
    },
    Check {
        id: "services::target_port_is_changed",
        claim: "Connections to a Service whose targetPort is changed arrive at the new one.",
        source: "sig-network: should be able to change the type and ports of a service",
        needs: &[],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(target_port_is_changed(scope)),
    },
    Check {
        id: "services::selector_is_changed",
        claim: "A Service whose selector is changed leads to the pods that it selects now, and to no other: blue, green, and both again.",
        source: "Kubernetes: Service spec.selector",
        needs: &[],
        manifest: Some("services/two_pods.yaml"),
        run: |scope| Box::pin(selector_is_changed(scope)),
    },
    Check {
        id: "services::pods_are_relabelled",
        claim: "A pod that loses the label of its Service's selector gets nothing more from it, and gets its share once it has it again.",
        source: "Kubernetes: Labels and Selectors",
        needs: &[],
        manifest: Some("services/two_pods.yaml"),
        run: |scope| Box::pin(pods_are_relabelled(scope)),
    },
    Check {
        id: "services::another_proxys_services_are_left_alone",
        claim: "A Service with the label service-proxy-name is not served by the cluster's own proxy, and is once it has it no more.",
        source: "sig-network: should implement service.kubernetes.io/service-proxy-name",
        needs: &[],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(another_proxys_services_are_left_alone(scope)),
    },
    Check {
        id: "services::services_labelled_headless_are_left_alone",
        claim: "A Service with the label service.kubernetes.io/headless is not served by the cluster's proxy, and is once it has it no more.",
        source: "sig-network: should implement service.kubernetes.io/headless",
        needs: &[],
        manifest: Some("services/one_pod.yaml"),
        run: |scope| Box::pin(services_labelled_headless_are_left_alone(scope)),
    },
    Check {
        id: "services::internal_traffic_policy_is_changed",
        claim: "A Service whose internalTrafficPolicy is changed to Local leads to pods of the client's node only, and to all again once it is Cluster.",
        source: "Kubernetes: Service spec.internalTrafficPolicy (KEP-2086)",
        needs: &[Need::Version(22), Need::Nodes(2)],
        manifest: Some("services/pod_on_every_node.yaml"),
        run: |scope| Box::pin(internal_traffic_policy_is_changed(scope)),
    },
    Check {
        id: "services::traffic_distribution_prefers_the_node",
        claim: "With trafficDistribution PreferSameNode a client reaches the pod of its own node, and without it those of all.",
        source: "Kubernetes: Service spec.trafficDistribution (KEP-3015, KEP-4444)",
        needs: &[Need::Version(34), Need::Nodes(2)],
        manifest: Some("services/pod_on_every_node.yaml"),
        run: |scope| Box::pin(traffic_distribution_prefers_the_node(scope)),
    },
];

/// One GET whose silence is noticed soon.
async fn get(from: &Vantage, at: &str) -> Result<String, NoVerdict> {
    told(from, at, said::said).await
}

/// [`get`] where nobody may be: refused, lost, or answered by somebody outside the cluster.
async fn served(from: &Vantage, at: &str) -> Result<String, NoVerdict> {
    told(from, at, said::unserved).await
}

async fn told(
    from: &Vantage,
    at: &str,
    word: fn(&strata::wire::Reply) -> String,
) -> Result<String, NoVerdict> {
    let answers = from.request(&quick(format!("http://{at}/"))).await?;
    Ok(answers.0.first().map(word).unwrap_or_default())
}

/// Waits for what a GET of each of these comes to, from the same vantage.
async fn come_to(
    scope: &Scope,
    from: &Vantage,
    when: &str,
    expected: &[(&str, &str)],
    look: impl AsyncFn(&str) -> Result<String, NoVerdict>,
) -> Outcome {
    let by_place = |all: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = all.iter();
        pairs
            .map(|(at, word)| ((*at).to_owned(), (*word).to_owned()))
            .collect()
    };
    let outcome = scope
        .eventually(Eventually {
            what: &format!("what GET from {} comes to {when}, by where it is sent", from.name()),
            expected: by_place(expected),
            observe: async || {
                let mut seen = BTreeMap::new();
                for (at, _) in expected {
                    seen.insert((*at).to_owned(), look(at).await?);
                }
                Ok(seen)
            },
            likely: "the node's rules, or the EndpointSlices, still follow what the Service was before",
        })
        .await;
    explain(scope, outcome, "web", 80, from).await
}

async fn change(scope: &Scope, spec: Value) -> Result<Service, NoVerdict> {
    scope.merge("web", json!({ "spec": spec })).await
}

/// Where a Service's node port is, on the first node.
async fn at_node(scope: &Scope, web: &Service) -> Result<String, NoVerdict> {
    let (_, node) = addresses(&scope.nodes().await?)?.remove(0);
    Ok(format!("{node}:{}", node_port(web)))
}

const SERVED: &str = "200 by web";

async fn node_port_is_gone_with_its_type(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let client = client(scope).await?;
    let web = change(scope, json!({ "type": "NodePort" })).await?;
    let (inside, node) = (address(&web), at_node(scope, &web).await?);
    let ask = async |at: &str| get(&outside, at).await;
    come_to(scope, &outside, "as NodePort", &[(&node, SERVED)], &ask).await?;
    change(scope, json!({ "type": "ClusterIP" })).await?;
    come_to(scope, &outside, "as ClusterIP", &[(&node, "refused")], &ask).await?;
    let ask = async |at: &str| get(&client, at).await;
    come_to(scope, &client, "as ClusterIP", &[(&inside, SERVED)], &ask).await
}

async fn node_port_is_gone_with_its_service(scope: &Scope) -> Outcome {
    let outside = scope.outside()?;
    let web = change(scope, json!({ "type": "NodePort" })).await?;
    let node = at_node(scope, &web).await?;
    let ask = async |at: &str| get(&outside, at).await;
    come_to(
        scope,
        &outside,
        "while it is there",
        &[(&node, SERVED)],
        &ask,
    )
    .await?;
    scope.delete::<Service>("web").await?;
    come_to(
        scope,
        &outside,
        "once it is deleted",
        &[(&node, "refused")],
        &ask,
    )
    .await
}

async fn external_name_becomes_a_node_port(scope: &Scope) -> Outcome {
    let (client, outside) = (client(scope).await?, scope.outside()?);
    let external = json!({ "type": "ExternalName", "externalName": "api.example.com", "clusterIP": null, "clusterIPs": null });
    let before = change(scope, external).await?;
    if address(&before) != "none" {
        return Err(NoVerdict::new("an ExternalName Service kept its cluster IP").into());
    }
    let back = json!({ "type": "NodePort", "externalName": null });
    let web = change(scope, back).await?;
    let (inside, node) = (address(&web), at_node(scope, &web).await?);
    let ask = async |at: &str| get(&client, at).await;
    come_to(
        scope,
        &client,
        "as NodePort",
        &[(&inside, SERVED), (&node, SERVED)],
        &ask,
    )
    .await?;
    let ask = async |at: &str| get(&outside, at).await;
    come_to(scope, &outside, "as NodePort", &[(&node, SERVED)], &ask).await
}

async fn cluster_ip_becomes_an_external_name(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let former = address(&scope.get("web").await?);
    let ask = async |at: &str| served(&client, at).await;
    come_to(scope, &client, "as ClusterIP", &[(&former, SERVED)], &ask).await?;
    let external = json!({ "type": "ExternalName", "externalName": "api.example.com", "clusterIP": null, "clusterIPs": null });
    change(scope, external).await?;
    come_to(
        scope,
        &client,
        "as ExternalName",
        &[(&former, "none")],
        &ask,
    )
    .await?;
    let name = named(scope, "web");
    let outcome = scope
        .eventually(Eventually {
            what: "the CNAME of Service web",
            expected: vec!["api.example.com.".to_owned()],
            observe: async || {
                let reply = client.dns(&name, "CNAME").await?;
                Ok(reply.data("CNAME").map(str::to_owned).collect())
            },
            likely: "cluster DNS still follows the former type",
        })
        .await;
    explain(scope, outcome, "web", 80, &client).await
}

async fn ports_come_and_go(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let ip = address(&scope.get("web").await?);
    let (first, second) = (format!("{ip}:80"), format!("{ip}:81"));
    let http = json!({ "name": "http", "port": 80, "targetPort": 8080 });
    let other = json!({ "name": "other", "port": 81, "targetPort": 8081 });
    let ask = async |at: &str| served(&client, at).await;
    for (ports, when, expected) in [
        (json!([http]), "with the first port", [SERVED, "none"]),
        (json!([http, other]), "with both ports", [SERVED, SERVED]),
        (json!([other]), "with the second port", ["none", SERVED]),
    ] {
        change(scope, json!({ "ports": ports })).await?;
        let expected = [(&*first, expected[0]), (&*second, expected[1])];
        come_to(scope, &client, when, &expected, &ask).await?;
    }
    Ok(())
}

async fn port_is_renamed(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let name = named(scope, "web");
    let port = |name: &str| json!({ "ports": [{ "name": name, "port": 80, "targetPort": 8080 }] });
    change(scope, port("renamed")).await?;
    let outcome = scope
        .eventually(Eventually {
            what: "GET of Service web, and how many SRV records its port has under the new name and under the old one",
            expected: (SERVED.to_owned(), 1, 0),
            observe: async || {
                let new = client.dns(format!("_renamed._tcp.{name}"), "SRV").await?;
                let old = client.dns(format!("_http._tcp.{name}"), "SRV").await?;
                let records = |reply: &strata::wire::DnsReply| reply.data("SRV").count();
                Ok((get(&client, &name).await?, records(&new), records(&old)))
            },
            likely: "the EndpointSlices keep the port's former name, by which the proxy no longer finds them",
        })
        .await;
    explain(scope, outcome, "web", 80, &client).await
}

async fn target_port_is_changed(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let url = format!("http://{}/", named(scope, "web"));
    for target in [8080, 8081] {
        let ports = json!([{ "name": "http", "port": 80, "targetPort": target }]);
        change(scope, json!({ "ports": ports })).await?;
        let outcome = scope
            .eventually(Eventually {
                what: &format!("GET {url}, and the port of the pod at which it arrives, with targetPort {target}"),
                expected: (SERVED.to_owned(), target),
                observe: async || {
                    let reply = client.get(&url).await?;
                    Ok((said::said(&reply), arrived(&reply)))
                },
                likely: "the EndpointSlices keep the former targetPort",
            })
            .await;
        explain(scope, outcome, "web", 80, &client).await?;
    }
    Ok(())
}

async fn selector_is_changed(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let blue = only(scope.ready_pods("colour=blue").await?)?;
    let green = only(scope.ready_pods("colour=green").await?)?;
    let select = async |colour: Value| {
        let selector = json!({ "app": "web", "colour": colour });
        change(scope, json!({ "selector": selector })).await
    };
    let name = named(scope, "web");
    select(json!("blue")).await?;
    let outcome = answers(scope, &client, &name, 40, [&blue]).await;
    explain(scope, outcome, "web", 80, &client).await?;
    select(json!("green")).await?;
    let outcome = answers(scope, &client, &name, 40, [&green]).await;
    explain(scope, outcome, "web", 80, &client).await?;
    select(json!(null)).await?;
    let requests = scope.enough(40, 2)?;
    let outcome = answers(scope, &client, &name, requests, [&blue, &green]).await;
    explain(scope, outcome, "web", 80, &client).await
}

async fn pods_are_relabelled(scope: &Scope) -> Outcome {
    let client = client(scope).await?;
    let blue = only(scope.ready_pods("colour=blue").await?)?;
    let green = only(scope.ready_pods("colour=green").await?)?;
    let label = async |app: &str| {
        let patch = json!({ "metadata": { "labels": { "app": app } } });
        scope.merge::<Pod>("blue", patch).await.map(drop)
    };
    let name = named(scope, "web");
    let requests = scope.enough(40, 2)?;
    answers(scope, &client, &name, requests, [&blue, &green]).await?;
    label("other").await?;
    let outcome = answers(scope, &client, &name, 40, [&green]).await;
    explain(scope, outcome, "web", 80, &client).await?;
    label("web").await?;
    let requests = scope.enough(40, 2)?;
    let outcome = answers(scope, &client, &name, requests, [&blue, &green]).await;
    explain(scope, outcome, "web", 80, &client).await
}

async fn another_proxys_services_are_left_alone(scope: &Scope) -> Outcome {
    left_alone(
        scope,
        "service.kubernetes.io/service-proxy-name",
        "somebody-else",
    )
    .await
}

async fn services_labelled_headless_are_left_alone(scope: &Scope) -> Outcome {
    left_alone(scope, "service.kubernetes.io/headless", "").await
}

/// Served without the label, nobody's with it, and served again.
async fn left_alone(scope: &Scope, label: &str, value: &str) -> Outcome {
    let client = client(scope).await?;
    let ip = address(&scope.get("web").await?);
    let ask = async |at: &str| served(&client, at).await;
    for (value, when, expected) in [
        (json!(null), "without the label", SERVED),
        (json!(value), "with the label", "none"),
        (json!(null), "without the label again", SERVED),
    ] {
        let patch = json!({ "metadata": { "labels": { label: value } } });
        scope.merge::<Service>("web", patch).await?;
        come_to(scope, &client, when, &[(&ip, expected)], &ask).await?;
    }
    Ok(())
}

async fn internal_traffic_policy_is_changed(scope: &Scope) -> Outcome {
    let spec = |policy: &str| json!({ "internalTrafficPolicy": policy });
    for (policy, by) in [
        ("Local", Where::Here),
        ("Cluster", Where::Everywhere),
        ("Local", Where::Here),
    ] {
        change(scope, spec(policy)).await?;
        called_from_each(scope, by).await?;
    }
    Ok(())
}

async fn traffic_distribution_prefers_the_node(scope: &Scope) -> Outcome {
    change(scope, json!({ "trafficDistribution": "PreferSameNode" })).await?;
    called_from_each(scope, Where::Here).await?;
    change(scope, json!({ "trafficDistribution": null })).await?;
    called_from_each(scope, Where::Everywhere).await
}

/// Which pods of a Service with one on every node answer there.
#[derive(Clone, Copy)]
enum Where {
    Here,
    Everywhere,
}

/// Waits until pods of the Service are answered by those that they should be: each by itself, or one by
/// all.
async fn called_from_each(scope: &Scope, by: Where) -> Outcome {
    let pods = scope.ready_pods("app=web").await?;
    let all = pods.len() as u64;
    let (callers, requests) = match by {
        Where::Here => (pods.as_slice(), 40),
        Where::Everywhere => (&pods[..1], scope.enough(30 * all, all)?),
    };
    for own in callers {
        let expected = match by {
            Where::Here => std::slice::from_ref(own),
            Where::Everywhere => pods.as_slice(),
        };
        let client = scope.from_pod(own);
        let outcome = answers(scope, &client, "web", requests, expected).await;
        explain(scope, outcome, "web", 80, &client).await?;
    }
    Ok(())
}
