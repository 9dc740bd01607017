//! What is said of ListenerSets, in their status.
//!
//! Start from [`of_set`]: pure, as [`super::status`] is, whose words it uses.

use gateway_api::listenersets::{ListenerSet, ListenerSetStatus};

use super::holder::Holder;
use super::input::Problem;
use super::listener::Listener;
use super::status::{self, Observed, merge, said, unless};
use super::translate::Translated;

/// How many ListenerSets a Gateway has taken: those with a listener that can be served.
pub(super) fn taken(translated: &Translated<'_>) -> i32 {
    let sets = translated.sets.iter();
    let taken = sets.filter(|(set, refused)| {
        let served = |listener: &Listener<'_>| listener.served().is_some();
        refused.is_none() && own(translated, set).any(|(listener, _)| served(listener))
    });
    i32::try_from(taken.count()).unwrap_or(i32::MAX)
}

fn own<'t, 'a>(
    translated: &'t Translated<'a>,
    set: &'t ListenerSet,
) -> impl Iterator<Item = &'t (Listener<'a>, i32)> {
    let of_it = move |(listener, _): &&(Listener<'a>, i32)| listener.of.is(Holder::Set(set));
    translated.listeners.iter().filter(of_it)
}

/// The status of a ListenerSet at its Gateway.
///
/// | | Accepted | Programmed |
/// | --- | --- | --- |
/// | the Gateway does not allow it | False `NotAllowed` | False `NotAllowed` |
/// | the Gateway is not accepted | False `ParentNotAccepted` | False `ParentNotAccepted` |
/// | none of its listeners can be served | False `ListenersNotValid` | False `ListenersNotValid` |
/// | some cannot | True `ListenersNotValid` | as the Gateway |
/// | all can | True | as the Gateway |
pub(super) fn of_set(
    translated: &Translated<'_>,
    (set, refused): (&ListenerSet, Option<&Problem>),
    observed: &Observed,
) -> ListenerSetStatus {
    let generation = set.metadata.generation;
    let old = set.status.clone().unwrap_or_default();
    let before = old.listeners.unwrap_or_default();
    let pending = status::not_programmed(translated, observed);
    let listeners = own(translated, set).map(|(listener, attached)| {
        let before = before.iter().find(|old| old.name == listener.spec.name);
        let before = before.map(|old| old.conditions.as_slice());
        let said = status::of_listener(
            listener,
            *attached,
            before.unwrap_or_default(),
            pending.as_ref(),
            generation,
        );
        // One type in the specification, and two in the crate.
        serde_json::to_value(said).and_then(serde_json::from_value)
    });
    let listeners: Vec<_> = listeners.filter_map(Result::ok).collect();
    let invalid: Vec<&str> = own(translated, set)
        .filter(|(listener, _)| listener.served().is_none())
        .map(|(listener, _)| listener.spec.name.as_str())
        .collect();
    let not_valid = || {
        let message = format!("not served: listener {}", invalid.join(", "));
        Problem::new("ListenersNotValid", message)
    };
    let parent = translated.problem.as_ref().map(|problem| {
        let message = format!("the Gateway is not accepted: {}", problem.message);
        Problem::new("ParentNotAccepted", message)
    });
    let problem = refused.cloned().or(parent);
    let problem = problem.or_else(|| (invalid.len() == listeners.len()).then(not_valid));
    let accepted = match &problem {
        None if !invalid.is_empty() => said("Accepted", not_valid(), generation),
        problem => unless("Accepted", "Accepted", problem.clone(), generation),
    };
    let programmed = unless("Programmed", "Programmed", problem.or(pending), generation);
    ListenerSetStatus {
        conditions: Some(merge(
            &old.conditions.unwrap_or_default(),
            vec![accepted, programmed],
            &["Accepted", "Programmed"],
        )),
        listeners: Some(listeners),
    }
}
