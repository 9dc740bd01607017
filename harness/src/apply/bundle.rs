//! What a project installs by one file, applied in an order in which it can work.
//!
//! Start from [`install`]. Upstream bundles are written for `kubectl apply`, which tries until it
//! works: here definitions are established before an object of theirs is applied, and webhooks answer
//! before an object that they judge is. Within a stage the file's order holds. Rule: everything is
//! applied server-side, so no annotation has to hold a copy of what is larger than annotations may be.

use kube::Client;

use super::webhook::is_configuration;
use super::{Applier, Document, Manifest, ready};
use crate::budget::Budget;
use crate::verdict::NoVerdict;

/// Applies a manifest stage by stage and waits until all of it works: definitions established,
/// workloads and webhooks ready, each stage within the budget. `progress` is told what is waited for.
///
/// # Errors
/// When the API refuses a document, or something never gets ready.
pub(crate) async fn install(
    applier: &Applier,
    client: &Client,
    manifest: &Manifest,
    budget: Budget,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(), NoVerdict> {
    for stage in stages(manifest) {
        applier.apply(&stage).await?;
        ready(client, &stage, None, budget, progress).await?;
    }
    Ok(())
}

/// Namespaces and definitions; what works by itself, with the webhooks; objects of the kinds that the
/// manifest defines itself. Stages without a document are left out.
fn stages(manifest: &Manifest) -> Vec<Manifest> {
    let defined: Vec<_> = manifest.documents.iter().filter_map(defines).collect();
    let stage = |document: &Document| {
        let gvk = &document.gvk;
        if document.is_namespace() {
            0
        } else if is_definition(document) {
            1
        } else if defined.contains(&(gvk.group.as_str(), gvk.kind.as_str())) {
            4
        } else if is_configuration(document) {
            // What they judge is made before they do: they are served by it.
            3
        } else {
            2
        }
    };
    let of = |ranks: &[u8]| {
        let documents = ranks.iter().flat_map(|rank| {
            let all = manifest.documents.iter();
            all.filter(move |document| stage(document) == *rank)
        });
        let documents = documents.cloned().collect();
        Manifest { documents }
    };
    let stages = [of(&[0, 1]), of(&[2, 3]), of(&[4])];
    let lasting = stages
        .into_iter()
        .filter(|stage| !stage.documents.is_empty());
    lasting.collect()
}

fn is_definition(document: &Document) -> bool {
    let gvk = &document.gvk;
    gvk.group == "apiextensions.k8s.io" && gvk.kind == "CustomResourceDefinition"
}

/// The group and kind of a definition.
fn defines(document: &Document) -> Option<(&str, &str)> {
    let text = |pointer| document.object.pointer(pointer)?.as_str();
    is_definition(document).then_some(())?;
    Some((text("/spec/group")?, text("/spec/names/kind")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_need_comes_first_and_the_files_order_holds_otherwise() {
        let kinds = [
            ("a.example/v1", "Thing", "mine"),
            ("b.example/v1", "Thing", "anothers"),
            (
                "admissionregistration.k8s.io/v1",
                "ValidatingWebhookConfiguration",
                "judge",
            ),
            ("apps/v1", "Deployment", "server"),
            ("v1", "Service", "server"),
            (
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                "things.a.example",
            ),
            ("v1", "Namespace", "system"),
        ];
        let document = |(version, kind, name): &(&str, &str, &str)| {
            let spec = "{group: a.example, names: {kind: Thing}}";
            format!(
                "{{apiVersion: {version}, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}"
            )
        };
        let text: Vec<_> = kinds.iter().map(document).collect();
        let manifest = Manifest::parse(&text.join("\n---\n"), "a.yaml").unwrap();
        let names = |stage: &Manifest| {
            let names = stage.documents.iter().map(|document| document.name.clone());
            names.collect::<Vec<_>>()
        };
        let stages: Vec<_> = stages(&manifest).iter().map(names).collect();
        assert_eq!(
            stages,
            [
                vec!["system", "things.a.example"],
                vec!["anothers", "server", "server", "judge"],
                vec!["mine"],
            ]
        );
    }
}
