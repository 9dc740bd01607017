//! What was made of each Service, kept for as long as it and its EndpointSlices are the same.
//!
//! Start from [`Kept::update`]. Everything is looked at at every change, so that an event that was missed
//! leaves nothing wrong; but what has not changed is understood only once. Watches hand out the same
//! object until there is a newer one, so that is told by the pointer.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;

/// The label with which an EndpointSlice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Namespace and name.
pub(super) type Key = (String, String);

/// By Service, what was made of it.
pub(super) struct Kept<V> {
    services: Seen<Service>,
    slices: Seen<EndpointSlice>,
    sources: BTreeMap<Key, Source>,
    made: BTreeMap<Key, V>,
}

/// A Service that is no longer what it was.
pub(super) struct Changed<V> {
    pub(super) key: Key,
    /// What had been made of it, if it was there before.
    pub(super) before: Option<V>,
}

/// What is there of a Service.
#[derive(Default)]
struct Source {
    service: Option<Arc<Service>>,
    /// In no order.
    slices: Vec<Arc<EndpointSlice>>,
}

impl<V> Default for Kept<V> {
    fn default() -> Self {
        Self {
            services: Seen::default(),
            slices: Seen::default(),
            sources: BTreeMap::new(),
            made: BTreeMap::new(),
        }
    }
}

impl<V> Kept<V> {
    /// Has `make` make something of each Service and its EndpointSlices of addresses, in order of their names, unless
    /// they are the same as at the last call; returns those that are not.
    pub(super) fn update(
        &mut self,
        services: &[Arc<Service>],
        slices: &[Arc<EndpointSlice>],
        make: impl Fn(&Service, &[Arc<EndpointSlice>]) -> V,
    ) -> Vec<Changed<V>> {
        let mut touched = BTreeSet::new();
        let (gone, came) = self.slices.difference(slices);
        for (slices, is_there) in [(gone, Presence::Gone), (came, Presence::Came)] {
            for slice in slices {
                let Some(key) = service_of(&slice) else {
                    continue;
                };
                let source = self.sources.entry(key.clone()).or_default();
                match is_there {
                    Presence::Gone => source.slices.retain(|one| !Arc::ptr_eq(one, &slice)),
                    Presence::Came => source.slices.push(slice),
                }
                touched.insert(key);
            }
        }
        let (gone, came) = self.services.difference(services);
        for (services, is_there) in [(gone, Presence::Gone), (came, Presence::Came)] {
            for service in services {
                let key = (service.namespace().unwrap_or_default(), service.name_any());
                let source = self.sources.entry(key.clone()).or_default();
                source.service = match is_there {
                    Presence::Gone => None,
                    Presence::Came => Some(service),
                };
                touched.insert(key);
            }
        }
        let mut changed = Vec::new();
        for key in touched {
            let before = self.made.remove(&key);
            let source = self.sources.entry(key.clone()).or_default();
            if let Some(service) = &source.service {
                // Stores have no order.
                let by_name = |slice: &Arc<EndpointSlice>| slice.metadata.name.clone();
                source.slices.sort_by_cached_key(by_name);
                self.made.insert(key.clone(), make(service, &source.slices));
            } else if source.slices.is_empty() {
                self.sources.remove(&key);
            }
            if before.is_some() || self.made.contains_key(&key) {
                changed.push(Changed { key, before });
            }
        }
        changed
    }

    /// What was made of each, in order of their names.
    pub(super) fn all(&self) -> impl Iterator<Item = &V> + Clone {
        self.made.values()
    }

    /// What was made of one.
    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.made.get(key)
    }

    /// Forgets everything: what else it was made from has changed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The Service of an EndpointSlice, if it has addresses.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.labels().get(SERVICE_NAME)?;
    let namespace = || slice.namespace().unwrap_or_default();
    (slice.address_type != "FQDN").then(|| (namespace(), name.clone()))
}

/// What has become of an object.
#[derive(Clone, Copy)]
enum Presence {
    Gone,
    Came,
}

/// The objects of a store as they were last, by their addresses; as long as they are held, no other has those.
pub(super) struct Seen<K>(HashMap<usize, Arc<K>>);

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K> Seen<K> {
    /// Those that are gone since the last call, and those that came.
    pub(super) fn difference<'a>(
        &mut self,
        now: impl IntoIterator<Item = &'a Arc<K>>,
    ) -> (Vec<Arc<K>>, Vec<Arc<K>>)
    where
        K: 'a,
    {
        let address = |object: &Arc<K>| Arc::as_ptr(object).addr();
        let now = now.into_iter();
        let (there, new): (Vec<_>, Vec<_>) =
            now.partition(|object| self.0.contains_key(&address(object)));
        let mut gone = Vec::new();
        if there.len() < self.0.len() {
            let there: HashSet<_> = there.into_iter().map(address).collect();
            let left = self.0.extract_if(|address, _| !there.contains(address));
            gone.extend(left.map(|(_, object)| object));
        }
        let more = new
            .iter()
            .map(|object| (address(object), (*object).clone()));
        self.0.extend(more);
        (gone, new.into_iter().cloned().collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_looked_at_again_only_when_it_or_its_slices_change() {
        let service = |name: &str| -> Arc<Service> {
            let object = json!({"metadata": {"namespace": "ns", "name": name}});
            crate::testing::shared(object)
        };
        let slice = |service: &str, name: &str, kind: &str| -> Arc<EndpointSlice> {
            crate::testing::shared(json!({
                "metadata": {"namespace": "ns", "name": name, "labels": {SERVICE_NAME: service}},
                "addressType": kind, "endpoints": [],
            }))
        };
        let looked = Cell::new(0);
        let mut kept = Kept::<String>::default();
        let mut told = |services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]| {
            looked.set(0);
            let changed = kept.update(services, slices, |service, slices| {
                looked.set(looked.get() + 1);
                let slices = slices.iter().map(|slice| slice.name_any());
                format!("{} {}", service.name_any(), slices.collect::<String>())
            });
            let all = kept.all().cloned().collect::<Vec<_>>().join(", ");
            let before = changed.into_iter().filter_map(|changed| changed.before);
            (all, looked.get(), before.collect::<Vec<_>>().join(", "))
        };
        let (a, b) = (service("a"), service("b"));
        let [one, two] = ["1", "2"].map(|name| slice("a", name, "IPv4"));
        let other = slice("a", "6", "FQDN");
        let both = [b.clone(), a.clone()];
        for (slices, text, times, before) in [
            (vec![one.clone(), other.clone()], "a 1, b ", 2, ""),
            (vec![other.clone(), one.clone()], "a 1, b ", 0, ""),
            (vec![two.clone(), one.clone()], "a 12, b ", 1, "a 1"),
            (vec![one.clone(), two.clone()], "a 12, b ", 0, ""),
            (vec![two.clone()], "a 2, b ", 1, "a 12"),
            (vec![slice("a", "2", "IPv4")], "a 2, b ", 1, "a 2"),
        ] {
            let expected = (text.to_owned(), times, before.to_owned());
            assert_eq!(told(&both, &slices), expected);
        }
        let newer = service("a");
        assert_eq!(
            told(&[newer], std::slice::from_ref(&two)),
            ("a 2".to_owned(), 1, "a 2, b ".to_owned())
        );
        assert_eq!(
            told(&both, &[two]),
            ("a 2, b ".to_owned(), 2, "a 2".to_owned())
        );
    }

    type Versions = Vec<Option<u8>>;

    /// What becomes of the objects: of each the version that is there, if one is.
    fn states() -> impl Strategy<Value = Vec<(Versions, Versions)>> {
        let versions = |count| prop::collection::vec(prop::option::of(0_u8..2), count);
        prop::collection::vec((versions(3), versions(6)), 0..12)
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_would_be_made_anew(states in states()) {
            let service = |name: usize, version: u8| -> Arc<Service> {
                crate::testing::shared(json!({
                    "metadata": {"namespace": "ns", "name": name.to_string(), "uid": version.to_string()},
                }))
            };
            let slice = |name: usize, version: u8| -> Arc<EndpointSlice> {
                crate::testing::shared(json!({
                    "metadata": {
                        "namespace": "ns", "name": name.to_string(), "uid": version.to_string(),
                        // A slice comes to be another Service's.
                        "labels": {SERVICE_NAME: ((name + usize::from(version)) % 4).to_string()},
                    },
                    "addressType": if name == 5 { "FQDN" } else { "IPv4" }, "endpoints": [],
                }))
            };
            let services = [0, 1].map(|version| (0..3).map(|name| service(name, version)).collect::<Vec<_>>());
            let slices = [0, 1].map(|version| (0..6).map(|name| slice(name, version)).collect::<Vec<_>>());
            let make = |service: &Service, slices: &[Arc<EndpointSlice>]| {
                let slices = slices.iter().map(|slice| (slice.name_any(), slice.uid()));
                (service.name_any(), service.uid(), slices.collect::<Vec<_>>())
            };
            let mut kept = Kept::default();
            for (of_services, of_slices) in states {
                let there = of_services.iter().enumerate();
                let there = there.filter_map(|(name, version)| Some(services[usize::from((*version)?)][name].clone()));
                let now: Vec<_> = there.collect();
                let there = of_slices.iter().enumerate();
                let there = there.filter_map(|(name, version)| Some(slices[usize::from((*version)?)][name].clone()));
                let with: Vec<_> = there.collect();
                let mut before = kept.made.clone();
                for Changed { key, before: told } in kept.update(&now, &with, make) {
                    prop_assert_eq!(told, before.remove(&key));
                    before.extend(kept.get(&key).map(|made| (key, made.clone())));
                }
                prop_assert_eq!(&before, &kept.made, "what was told is all that changed");
                let mut anew = Kept::default();
                anew.update(&now, &with, make);
                prop_assert_eq!(&kept.made, &anew.made);
            }
        }
    }
}
