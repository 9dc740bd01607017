//! What listeners belong to: a Gateway, or a ListenerSet that brings its own to one.
//!
//! Start from [`holders`]. Listeners of both are one list, in the specification's order: the Gateway's, then
//! those of the oldest ListenerSet. What a ListenerSet's routes, certificates and statuses need is asked of
//! its own namespace and of nobody else's.

use gateway_api::experimental::httproutes::HttpRouteParentRefs;
use gateway_api::gateways::{
    Gateway, GatewayAllowedListenersNamespacesFrom as From, GatewayListeners,
};
use gateway_api::listenersets::ListenerSet;
use kube::ResourceExt;

use super::GROUP;
use super::input::{Input, Problem};
use super::route::Route;

/// A Gateway or a ListenerSet.
#[derive(Debug, Clone, Copy)]
pub(super) enum Holder<'a> {
    /// A Gateway.
    Gateway(&'a Gateway),
    /// A ListenerSet.
    Set(&'a ListenerSet),
}

impl<'a> Holder<'a> {
    /// As objects name its kind.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Gateway(_) => "Gateway",
            Self::Set(_) => "ListenerSet",
        }
    }

    /// Its namespace.
    pub(super) fn namespace(self) -> String {
        let namespace = match self {
            Self::Gateway(gateway) => gateway.namespace(),
            Self::Set(set) => set.namespace(),
        };
        namespace.unwrap_or_default()
    }

    fn name(self) -> String {
        match self {
            Self::Gateway(gateway) => gateway.name_any(),
            Self::Set(set) => set.name_any(),
        }
    }

    /// `Gateway default/web`
    pub(super) fn described(self) -> String {
        format!("{} {}/{}", self.kind(), self.namespace(), self.name())
    }

    /// A listener's name among all of a Gateway's.
    pub(super) fn unique(self, listener: &str) -> String {
        match self {
            Self::Gateway(_) => listener.to_owned(),
            Self::Set(_) => format!("{}/{}/{listener}", self.namespace(), self.name()),
        }
    }

    /// Whether this is the same one.
    pub(super) fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Gateway(one), Self::Gateway(other)) => std::ptr::eq(one, other),
            (Self::Set(one), Self::Set(other)) => std::ptr::eq(one, other),
            _ => false,
        }
    }

    /// Whether a route's parent is this.
    pub(super) fn is_named_by(self, parent: &HttpRouteParentRefs, route: &Route) -> bool {
        let namespace = parent.namespace.clone().or_else(|| route.namespace());
        parent.group.as_deref().unwrap_or(GROUP) == GROUP
            && parent.kind.as_deref().unwrap_or("Gateway") == self.kind()
            && parent.name == self.name()
            && namespace.as_deref() == Some(&self.namespace())
    }

    /// The listeners that it asks for.
    pub(super) fn asks_for(self) -> Vec<std::borrow::Cow<'a, GatewayListeners>> {
        match self {
            Self::Gateway(gateway) => {
                let own = gateway.spec.listeners.iter();
                own.map(std::borrow::Cow::Borrowed).collect()
            }
            Self::Set(set) => {
                // The two lists have one type in the specification, and two in the crate.
                let read = |entry| serde_json::from_value(serde_json::to_value(entry).ok()?).ok();
                let own = set.spec.listeners.iter();
                own.filter_map(read).map(std::borrow::Cow::Owned).collect()
            }
        }
    }
}

/// Who has listeners at a Gateway, and why it may not.
pub(super) struct Held<'a> {
    pub(super) by: Holder<'a>,
    pub(super) refused: Option<Problem>,
}

/// A Gateway, and then the ListenerSets that name it: the oldest first, then by namespace and name.
pub(super) fn holders<'a>(input: &'a Input, gateway: &'a Gateway) -> Vec<Held<'a>> {
    let mut sets: Vec<&ListenerSet> = input
        .listener_sets
        .iter()
        .map(AsRef::as_ref)
        .filter(|set| set.metadata.deletion_timestamp.is_none() && is_for(set, gateway))
        .collect();
    sets.sort_by_key(|set| {
        let created = set.metadata.creation_timestamp.as_ref();
        (created.map(|time| time.0), set.namespace(), set.name_any())
    });
    let own = Held {
        by: Holder::Gateway(gateway),
        refused: None,
    };
    let others = sets.into_iter().map(|set| Held {
        by: Holder::Set(set),
        refused: not_allowed(input, gateway, set),
    });
    std::iter::once(own).chain(others).collect()
}

fn is_for(set: &ListenerSet, gateway: &Gateway) -> bool {
    let parent = &set.spec.parent_ref;
    let namespace = parent.namespace.clone().or_else(|| set.namespace());
    parent.group.as_deref().unwrap_or(GROUP) == GROUP
        && parent.kind.as_deref().unwrap_or("Gateway") == "Gateway"
        && parent.name == gateway.name_any()
        && namespace == gateway.namespace()
}

/// Why a Gateway does not take a ListenerSet: "the default is to allow no ListenerSets".
fn not_allowed(input: &Input, gateway: &Gateway, set: &ListenerSet) -> Option<Problem> {
    let namespace = set.namespace().unwrap_or_default();
    let allowed = gateway.spec.allowed_listeners.as_ref();
    let allowed = allowed.and_then(|allowed| allowed.namespaces.as_ref());
    let takes = match allowed.and_then(|allowed| allowed.from.as_ref()) {
        None | Some(From::None) => false,
        Some(From::All) => true,
        Some(From::Same) => gateway.namespace().as_deref() == Some(&namespace),
        Some(From::Selector) => {
            let selector = allowed.and_then(|allowed| allowed.selector.as_ref());
            input.selects(selector, &namespace)
        }
    };
    (!takes).then(|| {
        let message = format!(
            "{} allows no ListenerSets of namespace {namespace} (allowedListeners)",
            Holder::Gateway(gateway).described()
        );
        Problem::new("NotAllowed", message)
    })
}
