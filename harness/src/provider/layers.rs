//! Which layers of a cluster can be judged, and why the others cannot.

use std::collections::BTreeMap;

use crate::stack::Layer;

/// What a cluster lacks of the layers: told by whoever made it, or found out by looking at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layers {
    lacking: BTreeMap<Layer, String>,
}

impl Layers {
    /// None is lacking.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The same without a layer, and why.
    #[must_use]
    pub fn without(mut self, layer: Layer, why: impl Into<String>) -> Self {
        self.lacking.insert(layer, why.into());
        self
    }

    /// Why a layer is lacking; nothing of one that is there.
    #[must_use]
    pub fn lacks(&self, layer: Layer) -> Option<&str> {
        self.lacking.get(&layer).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_says_why() {
        let layers = Layers::all().without(Layer::Mesh, "there is no istiod");
        assert_eq!(layers.lacks(Layer::Cni), None);
        assert_eq!(layers.lacks(Layer::Mesh), Some("there is no istiod"));
    }
}
