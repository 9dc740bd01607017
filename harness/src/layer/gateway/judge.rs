//! Why a Gateway does not serve.
//!
//! Start from [`cause`]. Class, then what the controller says of listeners and Gateway; that it has
//! not seen the last change comes before what it said of an earlier one. Routes are `route`'s matter.

use gateway_api::gatewayclasses::GatewayClass;
use gateway_api::gateways::Gateway;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use crate::layer::workload::sentence;
use crate::settings::nearest;
use crate::verdict::cause::{Cause, CauseKind, Object, did_you_mean};

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(in crate::layer) struct Seen {
    /// Where the Gateway should be.
    pub(in crate::layer) namespace: String,
    /// What it should be called.
    pub(in crate::layer) name: String,
    /// The listener that was used; nothing where it may be any.
    pub(in crate::layer) listener: Option<String>,
    /// Every Gateway of the cluster.
    pub(in crate::layer) gateways: Vec<Gateway>,
    /// Every GatewayClass.
    pub(in crate::layer) classes: Vec<GatewayClass>,
}

impl Seen {
    pub(super) fn find(&self, namespace: &str, name: &str) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| {
            gateway.namespace().as_deref() == Some(namespace) && gateway.name_any() == name
        })
    }

    /// The Gateway of a namespace whose name is nearest.
    pub(super) fn near(&self, namespace: &str, name: &str) -> Option<String> {
        let here = |gateway: &&Gateway| gateway.namespace().as_deref() == Some(namespace);
        let names: Vec<_> = self
            .gateways
            .iter()
            .filter(here)
            .map(ResourceExt::name_any)
            .collect();
        nearest(name, names.iter().map(String::as_str)).map(ToOwned::to_owned)
    }
}

/// The cause, if evidence names one.
pub(in crate::layer) fn cause(seen: &Seen) -> Option<Cause> {
    let object = Object::new("Gateway", &seen.namespace, &seen.name);
    let Some(gateway) = seen.find(&seen.namespace, &seen.name) else {
        let near = seen.near(&seen.namespace, &seen.name);
        return Some(Cause {
            kind: CauseKind::GatewayMissing,
            wrong: format!("there is no {object}{}", did_you_mean(near.as_deref())),
            change: format!("create {object}"),
            see: format!("kubectl -n {} get gateways", seen.namespace),
        });
    };
    class(seen, &object, gateway)
        .or_else(|| unseen(&object, gateway))
        .or_else(|| said(&object, gateway, seen.listener.as_deref()))
        .or_else(|| address(&object, gateway))
}

fn class(seen: &Seen, object: &Object<'_>, gateway: &Gateway) -> Option<Cause> {
    let name = &gateway.spec.gateway_class_name;
    let see = "kubectl get gatewayclasses".to_owned();
    let Some(class) = seen.classes.iter().find(|class| class.name_any() == *name) else {
        let names: Vec<_> = seen.classes.iter().map(ResourceExt::name_any).collect();
        let near = nearest(name, names.iter().map(String::as_str)).or_else(|| {
            names
                .first()
                .filter(|_| names.len() == 1)
                .map(String::as_str)
        });
        let there = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        return Some(Cause {
            kind: CauseKind::GatewayClassMissing,
            wrong: format!(
                "{object} is of GatewayClass {name}, and there is no such class (there is {there}){}",
                did_you_mean(near)
            ),
            change: match near {
                Some(near) => format!("set spec.gatewayClassName of {object} to {near}"),
                None => format!(
                    "create GatewayClass {name}, or change spec.gatewayClassName of {object}"
                ),
            },
            see,
        });
    };
    let conditions = class
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let accepted = find(conditions.unwrap_or_default(), "Accepted");
    if accepted.is_some_and(|accepted| accepted.status == "True") {
        return None;
    }
    let class_object = Object::of_cluster("GatewayClass", name);
    let controller = &class.spec.controller_name;
    let (what, change) = match accepted {
        Some(accepted) if accepted.status == "False" => (
            format!("{} refused it ({})", controller, words(accepted)),
            format!("what the message names, in spec of {class_object}"),
        ),
        _ => (
            format!("no controller calls itself {controller}, or it does not run"),
            format!("start the controller of {class_object}, or correct spec.controllerName"),
        ),
    };
    Some(Cause {
        kind: CauseKind::GatewayClassNotAccepted,
        wrong: format!("{class_object}, which {object} is of, is not accepted: {what}"),
        change,
        see: class_object.describe(),
    })
}

/// A condition by its type.
pub(super) fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Reason and message.
pub(super) fn words(condition: &Condition) -> String {
    sentence(&condition.reason, &condition.message)
}

/// Nobody has looked at the last change.
pub(super) fn stale(
    object: &Object<'_>,
    generation: Option<i64>,
    conditions: &[Condition],
    controller: &str,
) -> Option<Cause> {
    let generation = generation?;
    let seen = |condition: &Condition| condition.observed_generation;
    let what = match conditions.iter().filter_map(seen).min() {
        Some(observed) if observed < generation => {
            format!("its generation is {generation}, and the conditions are about {observed}")
        }
        Some(_) => return None,
        None if conditions
            .iter()
            .any(|condition| condition.status != "Unknown") =>
        {
            return None;
        }
        None => "nobody has written its conditions".to_owned(),
    };
    Some(Cause {
        kind: CauseKind::StaleGeneration,
        wrong: format!("{controller} has not seen the last change of {object}: {what}"),
        change: format!("nothing in the object: see that {controller} runs, and its log"),
        see: object.see(),
    })
}

fn unseen(object: &Object<'_>, gateway: &Gateway) -> Option<Cause> {
    let status = gateway.status.as_ref();
    let conditions = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let generation = gateway.metadata.generation;
    stale(object, generation, conditions, "the Gateway's controller")
}

/// Conditions by which a controller says what is wrong: type, and the status that is bad.
const BAD: [(&str, &str); 4] = [
    ("ResolvedRefs", "False"),
    ("Conflicted", "True"),
    ("Accepted", "False"),
    ("Programmed", "False"),
];

/// What the controller says is wrong with a Gateway, or with the listener that was used. Where that may have been any of
/// several, and the Gateway serves, what is wrong with one of them is no matter.
fn said(object: &Object<'_>, gateway: &Gateway, used: Option<&str>) -> Option<Cause> {
    let status = gateway.status.as_ref()?;
    let programmed = find(
        status.conditions.as_deref().unwrap_or_default(),
        "Programmed",
    );
    let serves = programmed.is_some_and(|programmed| programmed.status == "True");
    let listeners = status.listeners.iter().flatten();
    let others = serves && gateway.spec.listeners.len() > 1;
    let listeners = listeners.filter(|it| used.map_or(!others, |used| it.name == used));
    let of_listener = |kind: &str, bad: &str| {
        listeners.clone().find_map(|listener| {
            let condition = find(&listener.conditions, kind)?;
            let at = gateway
                .spec
                .listeners
                .iter()
                .position(|has| has.name == listener.name);
            (condition.status == bad).then(|| {
                let at = at.map_or_else(String::new, |at| at.to_string());
                (
                    format!("listener {} of {object}", listener.name),
                    format!("spec.listeners[{at}]"),
                    condition,
                )
            })
        })
    };
    let of_gateway = |kind: &str, bad: &str| {
        let condition = find(status.conditions.as_deref()?, kind)?;
        (condition.status == bad).then(|| (object.to_string(), "spec".to_owned(), condition))
    };
    // A listener's word is nearer to the field than the Gateway's.
    let (who, field, condition) = BAD
        .iter()
        .find_map(|(kind, bad)| of_listener(kind, bad).or_else(|| of_gateway(kind, bad)))?;
    Some(Cause {
        kind: CauseKind::GatewayCondition,
        wrong: format!(
            "{who} is {} {}: {}",
            condition.type_,
            condition.status,
            words(condition)
        ),
        change: format!("what the message names, in {field} of {object}"),
        see: object.describe(),
    })
}

fn address(object: &Object<'_>, gateway: &Gateway) -> Option<Cause> {
    let status = gateway.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref());
    addresses.unwrap_or_default().is_empty().then(|| Cause {
        kind: CauseKind::GatewayAddressMissing,
        wrong: format!("{object} has no address in status.addresses"),
        change: format!(
            "the Service of the Gateway's data plane: a LoadBalancer needs an implementation; or set \
             spec.addresses of {object}"
        ),
        see: "kubectl get services -A".into(),
    })
}
