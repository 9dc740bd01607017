//! Where pods and nodes are: in which region, which of its zones, and which part of that.
//!
//! Start from [`Locality`]. A pod says it itself, by a label of Istio's, or its node does.

use std::collections::BTreeMap;

use kube::ResourceExt;

/// The label with which a pod says where it is: `REGION.ZONE.SUBZONE`.
const OF_POD: &str = "istio-locality";
/// The labels with which a node does.
const OF_NODE: [&str; 3] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
];

/// Region, zone and part of a zone; empty where it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Locality([String; 3]);

impl Locality {
    /// `REGION/ZONE/SUBZONE`, of which the last may be absent.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        Self(std::array::from_fn(|_| parts.next().unwrap_or_default()))
    }

    /// What a pod's labels say.
    pub(crate) fn of_pod(labels: &BTreeMap<String, String>) -> Option<Self> {
        // Values of labels have no slashes.
        let label = labels.get(OF_POD).filter(|label| !label.is_empty())?;
        Some(Self::parse(&label.replace('.', "/")))
    }

    /// What a node's labels say.
    pub(crate) fn of_node(node: &impl ResourceExt) -> Option<Self> {
        let label = |name| node.labels().get(name).cloned().unwrap_or_default();
        Some(Self(OF_NODE.map(label))).filter(Self::is_known)
    }

    /// Whether anything of it is known.
    pub(crate) fn is_known(&self) -> bool {
        self.0.iter().any(|part| !part.is_empty())
    }

    /// Its largest part.
    pub(crate) fn region(&self) -> &str {
        &self.0[0]
    }

    /// How many parts of a place differ from another's, from the first that does.
    pub(crate) fn distance(&self, other: &Self) -> usize {
        let same = self
            .0
            .iter()
            .zip(&other.0)
            .take_while(|(one, two)| one == two);
        3 - same.count()
    }

    /// Whether it is in a place that may be told in part: `region/zone/*`.
    pub(crate) fn is_in(&self, place: &str) -> bool {
        let mut asked = place.split('/');
        self.0.iter().all(|own| match asked.next() {
            Some("*") | None => true,
            Some(asked) => asked == own,
        })
    }
}

impl std::fmt::Display for Locality {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_in_part() {
        let own = Locality::parse("r1/z1/a");
        for (place, expected) in [
            ("*", true),
            ("r1", true),
            ("r1/*", true),
            ("r1/z1", true),
            ("r1/z1/a", true),
            ("r1/z1/b", false),
            ("r1/z2/*", false),
            ("r2", false),
        ] {
            assert_eq!(own.is_in(place), expected, "{place}");
        }
    }
}
