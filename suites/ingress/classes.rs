//! Which class an Ingress is given that names none, where there is no default one and where there are two.
//!
//! Start from [`SUITE`]. Classes are everybody's: so the checks are alone, and on clusters of their own only.

use k8s_openapi::api::networking::v1::IngressClass;
use strata::{Check, Eventually, Layer, Need, NoVerdict, Outcome, Scope, Suite};

pub(crate) const SUITE: Suite = Suite {
    layer: Layer::Ingress,
    gates: &[],
    checks: CHECKS,
};

const CHECKS: &[Check] = &[
    Check {
        id: "ingress::no_default_class_is_none",
        claim: "An Ingress that names no class, where no class is the default one, is left without.",
        source: "sig-network: should not set default value if no default IngressClass",
        needs: &[Need::Ours, Need::Alone],
        manifest: Some("ingress/classes.yaml"),
        run: |scope| Box::pin(no_default_class_is_none(scope)),
    },
    Check {
        id: "ingress::newest_default_class_is_taken",
        claim: "Of two classes that are both the default one, an Ingress that names none is given the newer.",
        source: "Kubernetes: admission plugin DefaultIngressClass, since 1.26; sig-network: should prevent Ingress creation if more than 1 IngressClass marked as default",
        needs: &[Need::Ours, Need::Alone, Need::Version(26)],
        manifest: Some("ingress/classes.yaml"),
        run: |scope| Box::pin(newest_default_class_is_taken(scope)),
    },
];

const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
/// A class that nobody serves, newer than any that was there. By its name it comes last: who takes the first
/// by name does not take it.
const ANOTHER: &str = r#"
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata:
  name: the-newer
  annotations: {ingressclass.kubernetes.io/is-default-class: "true"}
spec: {controller: strata.dev/nobody}
"#;

async fn no_default_class_is_none(scope: &Scope) -> Outcome {
    for class in defaults(scope).await? {
        scope
            .annotate::<IngressClass>(&class, DEFAULT, None)
            .await?;
    }
    let likely = "the admission plugin takes a class that is not marked, or goes by what classes were before";
    given(scope, "while no class is the default one", "none", likely).await
}

async fn newest_default_class_is_taken(scope: &Scope) -> Outcome {
    let before = defaults(scope).await?;
    if before.is_empty() {
        return Err(NoVerdict::new(
            "no IngressClass is the default one, so one more would be the only one",
        )
        .into());
    }
    scope.apply(ANOTHER).await?;
    let likely = "the admission plugin takes the first class that it finds, or refuses to choose, as before Kubernetes 1.26";
    let when = format!(
        "while the-newer is the default one beside {}",
        before.join(", ")
    );
    given(scope, &when, "the-newer", likely).await
}

/// The classes that are marked as the default one.
async fn defaults(scope: &Scope) -> Result<Vec<String>, NoVerdict> {
    let classes = scope
        .list_kind("", "networking.k8s.io/v1", "IngressClass")
        .await?;
    let marked = classes.into_iter().filter(|class| {
        let annotations = class.metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get(DEFAULT))
            .map(String::as_str)
            == Some("true")
    });
    Ok(marked.filter_map(|class| class.metadata.name).collect())
}

/// Waits until a new Ingress that names no class is given this one. The admission plugin hears of classes
/// by a watch, so an Ingress is made for each look.
async fn given(scope: &Scope, when: &str, class: &str, likely: &str) -> Outcome {
    let mut made = 0;
    scope
        .eventually(Eventually {
            what: &format!("the class of an Ingress that is made without one, {when}"),
            expected: class.to_owned(),
            observe: async || {
                made += 1;
                let yaml = format!(
                    "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: unclassed-{made}}}, spec: {{rules: [{{host: unclassed.example.local, http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: web, port: {{number: 80}}}}}}}}]}}}}]}}}}"
                );
                Ok(match scope.attempt(&yaml).await? {
                    Ok(ingress) => {
                        let class = ingress.data.pointer("/spec/ingressClassName");
                        let class = class.and_then(|class| class.as_str());
                        class.unwrap_or("none").to_owned()
                    }
                    Err(refusal) => format!("refused: {}, {}", refusal.code, refusal.message),
                })
            },
            likely,
        })
        .await
}
