//! What a run would do in somebody's cluster, told before it may.
//!
//! Start from [`told`]. It is made of the manifests that were read and of what the cluster was seen to
//! have. Rule: what is not in these lines is not made.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Chosen;
use super::look::{Found, Sight};
use super::namespaces;
use crate::apply::{Document, Manifest, ProbeImage, RUN_LABEL};
use crate::provider::Planned;
use crate::stack::Layer;

/// As many namespaces of others are named.
const NAMED: usize = 5;

/// The lines that a person reads before allowing a run.
pub(super) fn told(
    chosen: &Chosen,
    planned: &Planned<'_>,
    probe: &ProbeImage,
    sight: &Sight,
    found: &Found,
) -> Vec<String> {
    let run = &planned.run.id;
    let fixtures = layers(planned)
        .into_iter()
        .filter(|layer| found.layers.lacks(*layer).is_none());
    let fixtures: Vec<_> = fixtures
        .map(|layer| planned.run.fixture_namespace(layer))
        .collect();
    let of_checks = own(planned, found).map(|(_, count)| count).sum::<usize>();
    let mut lines = vec![
        format!(
            "context {} is {}: Kubernetes {}, {}",
            chosen.name,
            chosen.server(),
            sight.version,
            some(sight.nodes.len(), "node")
        ),
        format!(
            "the run would make the namespaces {} and {}, and for at most {} one each while it runs, all \
             labelled {RUN_LABEL}={run}; they go with the run",
            namespaces::first(run),
            fixtures.join(", "),
            some(of_checks, "check"),
        ),
        format!("in them {}", counted(planned, found)),
        format!(
            "of the whole cluster it would make {}; what is there it would not change",
            match fixtures.iter().any(|it| it.contains("-gateway-")) {
                true => "a GatewayClass named like its check's namespace",
                false => "nothing",
            }
        ),
        format!(
            "the probe's image is {}, pull policy {}",
            probe.reference, probe.pull_policy
        ),
    ];
    if probe == &ProbeImage::default() {
        let has = sight
            .nodes
            .iter()
            .filter(|node| has_image(node, &probe.reference))
            .count();
        lines.push(format!(
            "{has} of {} say that they have it; load it into the others, or push it and set \
             STRATA_PROBE_IMAGE",
            some(sight.nodes.len(), "node")
        ));
        if has == sight.nodes.len() {
            lines.pop();
        }
    }
    lines.extend(
        layers(planned)
            .into_iter()
            .map(|layer| match found.layers.lacks(layer) {
                Some(why) => format!("{layer} would be skipped: {why}"),
                None => format!("{layer} would be judged{}", by(layer, found)),
            }),
    );
    lines.push(match &found.balanced {
        Some(service) => format!(
            "load balancers are given addresses, as Service {service} shows: the run would ask for {}, \
             and its Gateways may ask for more",
            balancers(planned, found)
        ),
        None => "no Service has the address of a load balancer: what needs one would be skipped"
            .to_owned(),
    });
    lines.push(match &found.outside {
        Ok(()) => "requests from outside would start on this machine".to_owned(),
        Err(why) => format!("nothing would be asked from outside: {why}"),
    });
    lines.extend(others(&sight.others));
    lines
}

/// What other runs have there, which stays.
fn others(names: &[String]) -> Option<String> {
    let few = names.iter().take(NAMED).map(String::as_str);
    let few = few.collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    (!names.is_empty()).then(|| {
        format!("other runs have {few}{more} there, which stay; scripts/sweep removes those that were killed")
    })
}

fn layers(planned: &Planned<'_>) -> BTreeSet<Layer> {
    planned
        .run
        .manifests
        .layers()
        .map(|(layer, _)| layer)
        .collect()
}

/// The class by which a layer would be judged, where it is not the one that manifests name.
fn by(layer: Layer, found: &Found) -> String {
    let class = match layer {
        Layer::Ingress => found
            .ingress_class
            .as_ref()
            .map(|class| ("IngressClass", class)),
        Layer::Gateway => found
            .gateway_class
            .as_ref()
            .map(|class| ("GatewayClass", class)),
        _ => None,
    };
    class.map_or_else(String::new, |(kind, class)| format!(", by {kind} {class}"))
}

/// The manifests of checks whose layers are there, and how often each is applied.
fn own<'a>(
    planned: &'a Planned<'_>,
    found: &'a Found,
) -> impl Iterator<Item = (&'a Manifest, usize)> {
    let there = |file: &str| {
        let mut layers = Layer::ALL.into_iter();
        let of = layers.find(|layer| file.split('/').next() == Some(layer.name()));
        of.is_none_or(|layer| found.layers.lacks(layer).is_none())
    };
    let checks = planned.checks.iter().filter(move |(file, _)| there(file));
    checks.filter_map(|(file, count)| Some((planned.run.manifests.check(file)?, *count)))
}

/// How many load balancers the manifests ask for, which may cost.
fn balancers(planned: &Planned<'_>, found: &Found) -> usize {
    let count = |manifest: &Manifest| {
        let documents = manifest.documents.iter();
        let types = documents.filter_map(|document| document.object.pointer("/spec/type"));
        types.filter(|kind| *kind == "LoadBalancer").count()
    };
    all(planned, found)
        .map(|(manifest, times)| times * count(manifest))
        .sum()
}

/// The manifests of everything whose layer is there, and how often each is applied.
fn all<'a>(
    planned: &'a Planned<'_>,
    found: &'a Found,
) -> impl Iterator<Item = (&'a Manifest, usize)> {
    let fixtures = planned.run.manifests.layers();
    let there = fixtures.filter(|(layer, _)| found.layers.lacks(*layer).is_none());
    there
        .map(|(_, of)| (&of.fixture, 1))
        .chain(own(planned, found))
}

/// The objects of all manifests by kind: `3 DaemonSets, 12 Services`.
fn counted(planned: &Planned<'_>, found: &Found) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (manifest, times) in all(planned, found) {
        let documents = manifest.documents.iter();
        for document in documents.filter(|it| !Document::is_namespace(it)) {
            *counts.entry(&document.gvk.kind).or_default() += times;
        }
    }
    let each: Vec<_> = counts
        .iter()
        .map(|(kind, count)| some(*count, kind))
        .collect();
    match each.as_slice() {
        [] => "nothing".to_owned(),
        each => format!("{}, and what checks write themselves", each.join(", ")),
    }
}

fn some(count: usize, what: &str) -> String {
    let plural = match (count, what.strip_suffix('y')) {
        (1, _) => what.to_owned(),
        (_, Some(stem)) if !what.ends_with("ay") => format!("{stem}ies"),
        _ if what.ends_with('s') => format!("{what}es"),
        _ => format!("{what}s"),
    };
    format!("{count} {plural}")
}

/// Whether a node says that it has an image. It tells of a few dozen only.
fn has_image(node: &k8s_openapi::api::core::v1::Node, reference: &str) -> bool {
    let images = node
        .status
        .iter()
        .flat_map(|status| status.images.iter().flatten());
    let mut names = images.flat_map(|image| image.names.iter().flatten());
    names.any(|name| name.trim_start_matches("docker.io/") == reference)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::apply::{Variant, load_planned};
    use crate::provider::existing::look::Choice;
    use crate::run::RunInfo;
    use crate::settings::{Settings, workspace};
    use kube::config::Kubeconfig;

    fn lines(layers: &[Layer], sight: &Sight) -> Vec<String> {
        let checks = BTreeMap::from([
            ("services/one_pod.yaml", 3),
            ("ingress/rolling_update.yaml", 1),
        ]);
        let manifests = load_planned(
            &workspace().join("manifests"),
            |_| Variant::of("existing"),
            layers.iter().copied(),
            checks.keys().copied(),
        );
        let run = RunInfo {
            id: "abc123".to_owned(),
            manifests: Arc::new(manifests.unwrap()),
            ..RunInfo::default()
        };
        let planned = Planned { run: &run, checks };
        let vars = [("STRATA_CONTEXT".into(), "test".into())];
        let chosen = Chosen::by(&Settings::from_vars(vars).unwrap(), || {
            Kubeconfig::from_yaml(
                "{clusters: [{name: c, cluster: {server: 'https://api:6443'}}],
                  contexts: [{name: test, context: {cluster: c}}]}",
            )
        });
        let found = sight.judged(&Choice::default());
        told(
            &chosen.unwrap(),
            &planned,
            &ProbeImage::default(),
            sight,
            &found,
        )
    }

    #[test]
    fn everything_that_would_be_made_is_told() {
        let sight = Sight {
            version: "v1.34.1".to_owned(),
            nodes: vec![Default::default(); 2],
            others: vec!["strata-cni-zzzzzz".to_owned()],
            unreached: Some("node a is far away".to_owned()),
            ..Sight::default()
        };
        let layers = [Layer::Cni, Layer::Services, Layer::Ingress];
        let lines = lines(&layers, &sight);
        let text = lines.join("\n");
        assert_eq!(
            lines[0],
            "context test is https://api:6443: Kubernetes v1.34.1, 2 nodes"
        );
        assert!(
            lines[1].contains(
                "strata-abc123 and strata-cni-abc123, strata-services-abc123, and for at most 3 checks"
            ),
            "{text}"
        );
        assert!(
            lines[1].contains("labelled strata.dev/run=abc123"),
            "{text}"
        );
        // The fixtures' and three times the checks' own; nothing of a layer that is not there.
        assert!(
            lines[2].contains("DaemonSets") && lines[2].contains("Services"),
            "{text}"
        );
        assert!(!lines[2].contains("Ingress"), "{text}");
        assert!(
            lines[3].starts_with("of the whole cluster it would make nothing"),
            "{text}"
        );
        assert!(
            text.contains("0 of 2 nodes say that they have it"),
            "{text}"
        );
        assert!(
            text.contains("ingress would be skipped: there is no IngressClass"),
            "{text}"
        );
        assert!(
            text.contains("nothing would be asked from outside: node a is far away"),
            "{text}"
        );
        assert!(
            text.contains("other runs have strata-cni-zzzzzz there, which stay"),
            "{text}"
        );
    }

    #[test]
    fn numbers_agree_with_their_words() {
        for (count, what, expected) in [
            (1, "Pod", "1 Pod"),
            (2, "Pod", "2 Pods"),
            (2, "NetworkPolicy", "2 NetworkPolicies"),
            (2, "Ingress", "2 Ingresses"),
            (2, "Gateway", "2 Gateways"),
        ] {
            assert_eq!(some(count, what), expected);
        }
    }
}
