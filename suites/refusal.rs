//! What the API refuses: objects that cannot be meant.
//!
//! Start from [`refused`]. The controls are the fixture's own objects, which differ from these in the one
//! field. Rule: a refusal counts if its code is one of those expected and its words name the field.

use strata::{Expect, Outcome, Scope, expect};

/// Creates the one object of a document, and judges that it is refused for a field.
pub(crate) async fn refused(scope: &Scope, codes: &[u16], field: &str, yaml: &str) -> Outcome {
    let refusal = scope.attempt(yaml).await?.err();
    let refusal = refusal.map(|refusal| (refusal.code, refusal.message));
    let named = refusal
        .as_ref()
        .is_some_and(|(code, message)| codes.contains(code) && message.contains(field));
    expect(named, || Expect {
        what: format!("creating {yaml}"),
        expected: format!("{codes:?}, … {field} …"),
        observed: refusal.map_or_else(
            || "accepted".to_owned(),
            |(code, message)| format!("{code}, {message}"),
        ),
        likely: "neither the API, a definition's schema nor a webhook validates this field"
            .to_owned(),
    })
}

/// A name for the object: its check's, as names of objects are written.
pub(crate) fn name(scope: &Scope) -> String {
    let (_, behaviour) = scope.id().split_once("::").unwrap_or_default();
    behaviour.replace('_', "-")
}
