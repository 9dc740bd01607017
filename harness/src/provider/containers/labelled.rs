//! Containers by the label that they carry, whatever became of whoever made them.

use std::time::Duration;

use super::engine::Engine;

const LIST: Duration = Duration::from_secs(20);
const REMOVE: Duration = Duration::from_secs(50);

/// The names of the containers with a label, running or not.
///
/// # Errors
/// When the engine does not tell.
pub(in crate::provider) async fn labelled(
    engine: &Engine,
    label: &str,
) -> anyhow::Result<Vec<String>> {
    let filter = format!("label={label}");
    let list = ["ps", "--all", "--filter", &filter, "--format", "{{.Names}}"];
    let told = engine.step("looking for the cluster's containers", LIST, &list);
    let told = told.run().await?;
    Ok(told.split_whitespace().map(str::to_owned).collect())
}

/// Removes the containers with a label, and the volumes that are theirs alone.
///
/// # Errors
/// When the engine refuses that.
pub(in crate::provider) async fn remove_labelled(
    engine: &Engine,
    label: &str,
) -> anyhow::Result<()> {
    let containers = labelled(engine, label).await?;
    if containers.is_empty() {
        return Ok(());
    }
    let mut remove = vec!["rm", "--force", "--volumes"];
    remove.extend(containers.iter().map(String::as_str));
    let removed = engine.step("removing the cluster's containers", REMOVE, &remove);
    removed.run().await.map(drop)
}
