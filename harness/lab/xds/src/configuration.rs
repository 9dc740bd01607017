//! What proxies are to have, in the form that they are told it: resources by name, with versions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use serde_json::Value;

use crate::encode::{EncodeError, encode};
use crate::fingerprint;
use crate::instance::Kind;
use crate::message::Any;

/// What a group is told, as JSON; some of it may be that of an earlier time.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// `envoy.config.listener.v3.Listener`
    pub listeners: Vec<Arc<Value>>,
    /// `envoy.config.route.v3.RouteConfiguration`
    pub routes: Vec<Arc<Value>>,
    /// `envoy.config.cluster.v3.Cluster`
    pub clusters: Vec<Arc<Value>>,
}

/// One cluster, listener or route configuration.
#[derive(Debug)]
pub(crate) struct Resource {
    value: Arc<Value>,
    pub(crate) packed: Any,
    /// Names its content.
    pub(crate) version: String,
    /// The clusters that it names.
    pub(crate) clusters: BTreeSet<String>,
    /// The route configurations that it names.
    routes: BTreeSet<String>,
}

impl Resource {
    fn new(kind: Kind, value: Arc<Value>) -> Result<Self, EncodeError> {
        let mut resource = Self {
            packed: encode(kind.message(), &value)?,
            version: fingerprint(&value.to_string()),
            value: value.clone(),
            clusters: BTreeSet::new(),
            routes: BTreeSet::new(),
        };
        resource.find_names(&value);
        Ok(resource)
    }

    fn is_of(&self, value: &Arc<Value>) -> bool {
        Arc::ptr_eq(&self.value, value) || self.value == *value
    }

    fn find_names(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.find_names(item)),
            Value::Object(fields) => {
                let text = |value: &Value| value.as_str().map(str::to_owned);
                self.clusters.extend(fields.get("cluster").and_then(text));
                let weighted = fields.get("weighted_clusters");
                let weighted = weighted.and_then(|weighted| weighted["clusters"].as_array());
                let weighted = weighted.into_iter().flatten();
                self.clusters
                    .extend(weighted.filter_map(|cluster| text(&cluster["name"])));
                self.routes
                    .extend(fields.get("route_config_name").and_then(text));
                fields.values().for_each(|field| self.find_names(field));
            }
            _ => {}
        }
    }
}

/// What proxies were told of each name last: most of it is the same for all of them, and as it was.
#[derive(Default)]
pub(crate) struct Told {
    last: HashMap<(Kind, String), Weak<Resource>>,
    /// Why what cannot be told cannot be.
    refused: BTreeSet<String>,
}

impl Told {
    /// Forgets what nobody is told any longer.
    pub(crate) fn tidy(&mut self) {
        self.last.retain(|_, resource| resource.strong_count() > 0);
    }

    /// A resource of this value, made only if it was neither told this proxy before nor another last.
    fn resource(
        &mut self,
        kind: Kind,
        name: &str,
        value: Arc<Value>,
        before: Option<&Arc<Resource>>,
    ) -> Result<Arc<Resource>, EncodeError> {
        if let Some(before) = before.filter(|before| before.is_of(&value)) {
            return Ok(before.clone());
        }
        let last = self.last.entry((kind, name.to_owned())).or_default();
        if let Some(last) = last.upgrade().filter(|last| last.is_of(&value)) {
            return Ok(last);
        }
        let made = Arc::new(Resource::new(kind, value)?);
        *last = Arc::downgrade(&made);
        Ok(made)
    }

    /// Resources of a kind, by name. What is no message of Envoy's is left as it was, and said once, to `log`.
    fn resources(
        &mut self,
        kind: Kind,
        values: Vec<Arc<Value>>,
        before: &Resources,
        log: &dyn Fn(&str),
    ) -> Resources {
        let mut items = BTreeMap::new();
        for value in values {
            let name = value["name"].as_str().unwrap_or_default().to_owned();
            let known = before.0.get(&name);
            match self.resource(kind, &name, value, known) {
                Ok(resource) => {
                    items.insert(name, resource);
                }
                Err(error) => {
                    let line = format!("cannot tell proxies {name}, of {kind}: {error}");
                    if self.refused.insert(line.clone()) {
                        log(&line);
                    }
                    items.extend(known.map(|known| (name, known.clone())));
                }
            }
        }
        Resources(items)
    }
}

/// Resources of one kind, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resources(BTreeMap<String, Arc<Resource>>);

impl Resources {
    pub(crate) fn items(&self) -> &BTreeMap<String, Arc<Resource>> {
        &self.0
    }

    /// Those of these names.
    pub(crate) fn wanted(&self, names: &BTreeSet<String>) -> Self {
        let of = |name: &String| Some((name.clone(), self.0.get(name)?.clone()));
        Self(names.iter().filter_map(of).collect())
    }

    /// The same, and others.
    fn with(&self, others: Self) -> Self {
        let mut all = self.clone();
        all.0.extend(others.0);
        all
    }

    fn named_clusters(&self) -> impl Iterator<Item = &String> {
        self.0.values().flat_map(|resource| &resource.clusters)
    }

    /// The route configurations that they name.
    pub(crate) fn named_routes(&self) -> BTreeSet<&String> {
        let all = self.0.values().flat_map(|resource| &resource.routes);
        all.collect()
    }

    fn same(&self, other: &Self) -> bool {
        let same = |((name, one), (other_name, other)): ((&String, &Arc<Resource>), _)| {
            let other: &Arc<Resource> = other;
            name == other_name && (Arc::ptr_eq(one, other) || one.version == other.version)
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }
}

/// What proxies of several groups are told alike.
#[derive(Debug, Default)]
pub struct Shared(Configuration);

impl Shared {
    /// Those of parts that are often much like the ones before.
    pub(crate) fn new(
        parts: Parts,
        before: Option<&Self>,
        told: &mut Told,
        log: &dyn Fn(&str),
    ) -> Self {
        let before = before.map(|before| &before.0);
        Self(Configuration::of(parts, before, told, log))
    }
}

/// Everything that the proxies of one group are told.
#[derive(Debug, Default)]
pub(crate) struct Configuration {
    pub(crate) clusters: Resources,
    pub(crate) listeners: Resources,
    pub(crate) routes: Resources,
}

impl Configuration {
    /// What is shared and the group's own, which is often much like the one before. Of routes it has those that
    /// listeners name; the others nobody asks for.
    pub(crate) fn new(
        Shared(shared): &Shared,
        own: Parts,
        before: Option<&Self>,
        told: &mut Told,
        log: &dyn Fn(&str),
    ) -> Self {
        let own = Self::of(own, before, told, log);
        let mut all = Self {
            clusters: shared.clusters.with(own.clusters),
            listeners: shared.listeners.with(own.listeners),
            routes: shared.routes.with(own.routes),
        };
        let named = all.listeners.named_routes();
        all.routes.0.retain(|name, _| named.contains(name));
        all
    }

    /// What parts are, each as it was before where it is the same.
    fn of(parts: Parts, before: Option<&Self>, told: &mut Told, log: &dyn Fn(&str)) -> Self {
        let none = Self::default();
        let before = before.unwrap_or(&none);
        let mut made = |kind: Kind, values| told.resources(kind, values, before.of_kind(kind), log);
        Self {
            clusters: made(Kind::Clusters, parts.clusters),
            listeners: made(Kind::Listeners, parts.listeners),
            routes: made(Kind::Routes, parts.routes),
        }
    }

    /// Its resources of a kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> &Resources {
        match kind {
            Kind::Clusters => &self.clusters,
            Kind::Listeners => &self.listeners,
            Kind::Routes => &self.routes,
        }
    }

    /// The clusters that its listeners and routes name.
    pub(crate) fn named_clusters(&self) -> BTreeSet<String> {
        let routes = self.routes.named_clusters();
        routes
            .chain(self.listeners.named_clusters())
            .cloned()
            .collect()
    }

    /// Whether proxies are told the same.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let same = |kind| self.of_kind(kind).same(other.of_kind(kind));
        Kind::ALL.into_iter().all(same)
    }

    /// All of it, as JSON: clusters, listeners and routes one after the other.
    pub(crate) fn values(&self) -> Vec<Value> {
        let all = Kind::ALL.into_iter();
        all.flat_map(|kind| self.of_kind(kind).0.values())
            .map(|resource| resource.value.as_ref().clone())
            .collect()
    }
}

#[cfg(test)]
impl Resource {
    /// The route configurations that it names.
    pub(crate) fn routes(&self) -> &BTreeSet<String> {
        &self.routes
    }
}

#[cfg(test)]
impl Told {
    /// Whether everything that was told is told no longer.
    pub(crate) fn is_empty(&self) -> bool {
        self.last.is_empty()
    }
}

#[cfg(test)]
impl Resources {
    /// The names of those that are the very same in both.
    pub(crate) fn shared_with<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let same = |(name, one): &(&String, &Arc<Resource>)| {
            let other = other.0.get(*name);
            other.is_some_and(|other| Arc::ptr_eq(one, other))
        };
        self.0.iter().filter(same).map(|(name, _)| name.as_str())
    }
}
