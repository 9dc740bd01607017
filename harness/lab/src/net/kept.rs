//! What was made of each Service, kept for as long as it and its EndpointSlices are the same.
//!
//! Start from [`Kept::of`]. Everything is looked at at every change, so that an event that was missed
//! leaves nothing wrong; but what has not changed is understood only once. Watches hand out the same
//! object until there is a newer one, so that is told by the pointer.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

/// The label with which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name.
type Key = (String, String);

/// By Service, what was made of it.
pub(super) struct Kept<V>(BTreeMap<Key, Made<V>>);

struct Made<V> {
    service: Arc<Service>,
    slices: Vec<Arc<EndpointSlice>>,
    value: V,
}

impl<V> Default for Kept<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Kept<V> {
    /// What `make` makes of each Service and its EndpointSlices of addresses, in order of their names.
    pub(super) fn of(
        &mut self,
        services: &[Arc<Service>],
        slices: &[Arc<EndpointSlice>],
        make: impl Fn(&Service, &[Arc<EndpointSlice>]) -> V,
    ) -> impl Iterator<Item = &V> + Clone {
        let mut by_service: BTreeMap<Key, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
        for slice in slices.iter().filter(|slice| slice.address_type != "FQDN") {
            if let Some(name) = slice.labels().get(SERVICE_NAME) {
                let key = (slice.namespace().unwrap_or_default(), name.clone());
                by_service.entry(key).or_default().push(slice.clone());
            }
        }
        let mut before = std::mem::take(&mut self.0);
        for service in services {
            let key = (service.namespace().unwrap_or_default(), service.name_any());
            let mut slices = by_service.remove(&key).unwrap_or_default();
            // Stores have no order.
            slices.sort_by(|one, two| one.metadata.name.cmp(&two.metadata.name));
            let known = before.remove(&key).filter(|known| {
                let mut pairs = known.slices.iter().zip(&slices);
                Arc::ptr_eq(&known.service, service)
                    && known.slices.len() == slices.len()
                    && pairs.all(|(one, two)| Arc::ptr_eq(one, two))
            });
            let made = known.unwrap_or_else(|| Made {
                service: service.clone(),
                value: make(service, &slices),
                slices,
            });
            self.0.insert(key, made);
        }
        self.0.values().map(|made| &made.value)
    }

    /// Forgets everything: what else it was made from has changed.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_looked_at_again_only_when_it_or_its_slices_change() {
        let service = |name: &str| -> Arc<Service> {
            let object = json!({"metadata": {"namespace": "ns", "name": name}});
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let slice = |service: &str, name: &str, kind: &str| -> Arc<EndpointSlice> {
            Arc::new(
                serde_json::from_value(json!({
                    "metadata": {"namespace": "ns", "name": name, "labels": {SERVICE_NAME: service}},
                    "addressType": kind, "endpoints": [],
                }))
                .unwrap(),
            )
        };
        let looked = Cell::new(0);
        let mut kept = Kept::<String>::default();
        let mut told = |services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]| {
            looked.set(0);
            let made = kept.of(services, slices, |service, slices| {
                looked.set(looked.get() + 1);
                let slices = slices.iter().map(|slice| slice.name_any());
                format!("{} {}", service.name_any(), slices.collect::<String>())
            });
            (made.cloned().collect::<Vec<_>>().join(", "), looked.get())
        };
        let (a, b) = (service("a"), service("b"));
        let [one, two] = ["1", "2"].map(|name| slice("a", name, "IPv4"));
        let other = slice("a", "6", "FQDN");
        let both = [b.clone(), a.clone()];
        for (slices, text, times) in [
            (vec![one.clone(), other.clone()], "a 1, b ", 2),
            (vec![other.clone(), one.clone()], "a 1, b ", 0),
            (vec![two.clone(), one.clone()], "a 12, b ", 1),
            (vec![one.clone(), two.clone()], "a 12, b ", 0),
            (vec![two.clone()], "a 2, b ", 1),
            (vec![slice("a", "2", "IPv4")], "a 2, b ", 1),
        ] {
            assert_eq!(told(&both, &slices), (text.to_owned(), times));
        }
        let newer = service("a");
        assert_eq!(
            told(&[newer], std::slice::from_ref(&two)),
            ("a 2".to_owned(), 1)
        );
        assert_eq!(told(&both, &[two]), ("a 2, b ".to_owned(), 2));
    }
}
