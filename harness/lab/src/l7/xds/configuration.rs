//! A snapshot in the form that proxies are told it: resources by name, with versions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use serde_json::Value;

use crate::l7::envoy::{Parts, Snapshot, fingerprint, typed_text};

/// One cluster, listener or route configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    value: Arc<Value>,
    /// Packed as `google.protobuf.Any`.
    text: String,
    fingerprint: String,
    /// The clusters that it names.
    clusters: BTreeSet<String>,
    /// The route configurations that it names.
    routes: BTreeSet<String>,
}

impl Resource {
    fn new(kind: &str, value: Arc<Value>) -> Self {
        let text = typed_text(kind, &value);
        let mut resource = Self {
            value: value.clone(),
            fingerprint: fingerprint(&text),
            text,
            clusters: BTreeSet::new(),
            routes: BTreeSet::new(),
        };
        resource.find_names(&value);
        resource
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
pub(super) struct Told(HashMap<(&'static str, String), Weak<Resource>>);

impl Told {
    /// Forgets what nobody is told any longer.
    pub(super) fn tidy(&mut self) {
        self.0.retain(|_, resource| resource.strong_count() > 0);
    }

    /// A resource of this value, made only if it was neither told this proxy before nor another last.
    fn resource(
        &mut self,
        kind: &'static str,
        name: &str,
        value: Arc<Value>,
        before: Option<&Arc<Resource>>,
    ) -> Arc<Resource> {
        if let Some(before) = before.filter(|before| before.is_of(&value)) {
            return before.clone();
        }
        let last = self.0.entry((kind, name.to_owned())).or_default();
        if let Some(last) = last.upgrade().filter(|last| last.is_of(&value)) {
            return last;
        }
        let made = Arc::new(Resource::new(kind, value));
        *last = Arc::downgrade(&made);
        made
    }

    /// Resources of a type, by name.
    fn resources(
        &mut self,
        kind: &'static str,
        values: Vec<Arc<Value>>,
        before: Option<&BTreeMap<String, Arc<Resource>>>,
    ) -> BTreeMap<String, Arc<Resource>> {
        let named = |value: Arc<Value>| {
            let name = value["name"].as_str().unwrap_or_default().to_owned();
            let known = before.and_then(|before| before.get(&name));
            let resource = self.resource(kind, &name, value, known);
            (name, resource)
        };
        values.into_iter().map(named).collect()
    }
}

/// What proxies of several groups are told alike.
#[derive(Default)]
pub(crate) struct Shared {
    clusters: BTreeMap<String, Arc<Resource>>,
    listeners: BTreeMap<String, Arc<Resource>>,
    routes: BTreeMap<String, Arc<Resources>>,
}

impl Shared {
    /// Those of parts that are often much like the ones before.
    pub(super) fn new(parts: Parts, before: Option<&Self>, told: &mut Told) -> Self {
        let none = Self::default();
        let before = before.unwrap_or(&none);
        let routes = parts.routes.into_iter().filter_map(|route| {
            let name = route["name"].as_str()?.to_owned();
            let known = before.routes.get(&name);
            let routes = Resources::route(route, known.map(AsRef::as_ref), told);
            Some((name, routes))
        });
        Self {
            routes: routes.collect(),
            clusters: told.resources(CLUSTER, parts.clusters, Some(&before.clusters)),
            listeners: told.resources(LISTENER, parts.listeners, Some(&before.listeners)),
        }
    }
}

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "envoy.config.listener.v3.Listener";
const ROUTE: &str = "envoy.config.route.v3.RouteConfiguration";

/// Resources of one type.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Resources {
    /// Names their content.
    pub(super) version: String,
    items: BTreeMap<String, Arc<Resource>>,
}

impl Resources {
    /// One route configuration; one of an earlier time that is the same is taken as it is.
    fn route(value: Arc<Value>, before: Option<&Self>, told: &mut Told) -> Arc<Self> {
        let items = told.resources(ROUTE, vec![value], before.map(|before| &before.items));
        Arc::new(Self::from_items(items))
    }

    fn from_items(items: BTreeMap<String, Arc<Resource>>) -> Self {
        let mut text = String::new();
        for (name, resource) in &items {
            text.extend([name, " ", &resource.fingerprint, "\n"]);
        }
        Self {
            version: fingerprint(&text),
            items,
        }
    }

    /// The same, and of others those that are wanted and not among them.
    pub(super) fn and(self: &Arc<Self>, wanted: &BTreeSet<String>, others: &Self) -> Arc<Self> {
        let mut kept = wanted
            .iter()
            .filter(|name| !self.items.contains_key(*name))
            .filter_map(|name| Some((name.clone(), others.items.get(name)?.clone())))
            .peekable();
        if kept.peek().is_none() {
            return self.clone();
        }
        let mut items = self.items.clone();
        items.extend(kept);
        Arc::new(Self::from_items(items))
    }

    /// Their names.
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.items.keys().cloned().collect()
    }

    /// The clusters that they name.
    pub(super) fn named_clusters(&self) -> impl Iterator<Item = &String> {
        self.items.values().flat_map(|resource| &resource.clusters)
    }

    /// The route configurations that they name.
    pub(super) fn named_routes(&self) -> BTreeSet<&String> {
        let all = self.items.values().flat_map(|resource| &resource.routes);
        all.collect()
    }

    /// `envoy.service.discovery.v3.DiscoveryResponse`
    pub(super) fn response(&self) -> String {
        let texts: Vec<&str> = self.items.values().map(|it| it.text.as_str()).collect();
        let version = &self.version;
        format!(
            r#"{{"version_info":"{version}","resources":[{}]}}"#,
            texts.join(",")
        )
    }
}

/// Everything that the proxies of one group are told.
pub(super) struct Configuration {
    pub(super) clusters: Arc<Resources>,
    pub(super) listeners: Arc<Resources>,
    /// Those that listeners name; the others nobody asks for.
    pub(super) routes: BTreeMap<String, Arc<Resources>>,
    /// The clusters that an earlier configuration may have named besides.
    earlier: Box<dyn Fn() -> Vec<Value> + Send + Sync>,
}

impl Configuration {
    /// What is shared and the group's own, which is often much like the one before.
    pub(super) fn new(
        shared: &Shared,
        own: Snapshot,
        before: Option<&Self>,
        told: &mut Told,
        earlier: impl Fn() -> Vec<Value> + Send + Sync + 'static,
    ) -> Self {
        let own = Parts::from(own);
        let items = |of: fn(&Self) -> &Resources| before.map(|before| &of(before).items);
        let mut clusters = shared.clusters.clone();
        clusters.extend(told.resources(CLUSTER, own.clusters, items(|it| &it.clusters)));
        let mut listeners = shared.listeners.clone();
        listeners.extend(told.resources(LISTENER, own.listeners, items(|it| &it.listeners)));
        let listeners = Resources::from_items(listeners);
        let named = listeners.named_routes();
        let mut routes = shared.routes.clone();
        routes.retain(|name, _| named.contains(name));
        for route in own.routes {
            let Some(name) = route["name"].as_str().map(str::to_owned) else {
                continue;
            };
            if named.contains(&name) {
                let known = before.and_then(|before| before.routes.get(&name));
                let made = Resources::route(route, known.map(AsRef::as_ref), told);
                routes.insert(name, made);
            }
        }
        Self {
            clusters: Arc::new(Resources::from_items(clusters)),
            listeners: Arc::new(listeners),
            routes,
            earlier: Box::new(earlier),
        }
    }

    /// The clusters that a proxy may have of an earlier configuration.
    pub(super) fn earlier(&self) -> Resources {
        let earlier = (self.earlier)().into_iter().map(Arc::new);
        Resources::from_items(Told::default().resources(CLUSTER, earlier.collect(), None))
    }

    /// The clusters that its listeners and routes name.
    pub(super) fn named_clusters(&self) -> BTreeSet<String> {
        let routes = self.routes.values().flat_map(|it| it.named_clusters());
        routes
            .chain(self.listeners.named_clusters())
            .cloned()
            .collect()
    }

    /// Whether proxies are told the same.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.clusters.version == other.clusters.version
            && self.listeners.version == other.listeners.version
            && self.routes == other.routes
    }
}

#[cfg(test)]
impl Told {
    /// Whether everything that was told is told no longer.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
impl Resources {
    /// The names of those that are the very same in both.
    pub(super) fn shared_with<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let same = |(name, one): &(&String, &Arc<Resource>)| {
            let other = other.items.get(*name);
            other.is_some_and(|other| Arc::ptr_eq(one, other))
        };
        self.items
            .iter()
            .filter(same)
            .map(|(name, _)| name.as_str())
    }
}
