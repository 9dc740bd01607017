//! From a broken claim to its cause.

use super::Subject;
use crate::scope::Scope;
use crate::verdict::{Cause, NoVerdict};

/// Looks at the objects a failure is about and names the cause, if they show one.
///
/// # Errors
/// When the objects cannot be read.
pub async fn diagnose(_scope: &Scope, _subject: &Subject<'_>) -> Result<Option<Cause>, NoVerdict> {
    Ok(None)
}
