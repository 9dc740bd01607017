//! Kinds whose create is a question: who is asking, and what may they do?

use serde_json::{Value, json};

use super::meta::text;
use super::status::Status;
use super::{Shared, User, token};

/// What is answered rather than stored.
pub(crate) fn review_access(_: &Shared, _: &User, mut review: Value) -> Result<Value, Status> {
    // Nothing is refused to who is authenticated, and that is what the answer says.
    review["status"] =
        json!({"allowed": true, "reason": "authorization is not enforced by the lab"});
    Ok(review)
}

/// SelfSubjectRulesReview (authorization.k8s.io/v1).
pub(crate) fn review_rules(_: &Shared, _: &User, mut review: Value) -> Result<Value, Status> {
    review["status"] = json!({
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        "incomplete": false,
    });
    Ok(review)
}

/// TokenReview (authentication.k8s.io/v1).
pub(crate) fn review_token(shared: &Shared, _: &User, mut review: Value) -> Result<Value, Status> {
    let user = token::verify(shared, text(&review, "/spec/token"));
    review["status"] = match user {
        Some(user) => {
            json!({"authenticated": true, "user": {"username": user.name, "groups": user.groups}})
        }
        None => {
            json!({"authenticated": false, "error": "the token is not one of this cluster, or not valid any more"})
        }
    };
    Ok(review)
}

/// SelfSubjectReview (authentication.k8s.io/v1).
pub(crate) fn review_self(_: &Shared, user: &User, mut review: Value) -> Result<Value, Status> {
    review["status"] = json!({"userInfo": {"username": user.name, "groups": user.groups}});
    Ok(review)
}
