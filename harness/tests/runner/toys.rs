//! Suites of toy checks and a provider that makes nothing: what a run is made of, but for a cluster.

#![expect(clippy::panic, reason = "toys that fall are what is tested")]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kube::client::Body;
use strata::RunInfo;
use strata::apply::Fit;
use strata::provider::{Balancer, Cluster, Layers, Progress, Provider};
use strata::runner::Runner;
use strata::verdict::chance::{Ledger, Test};
use strata::{Check, Layer, Need, NoVerdict, Outcome, Scope, Suite, expect_eq};

/// Set in a run, and only there.
pub(crate) const TOY: &str = "TOY";
/// The file that a run tells what is done to its provider.
pub(crate) const TOY_LOG: &str = "TOY_LOG";
/// The folder of manifests.
pub(crate) const TOY_MANIFESTS: &str = "TOY_MANIFESTS";
/// What goes wrong: `create`, `up`, `up-panic`; `lacks`, a layer that the provider has not.
pub(crate) const TOY_WRONG: &str = "TOY_WRONG";

const fn check(id: &'static str, run: BodyOf) -> Check {
    Check {
        id,
        claim: "A toy is what it is.",
        source: "",
        needs: &[],
        manifest: None,
        run,
    }
}
type BodyOf = for<'a> fn(&'a Scope) -> futures::future::LocalBoxFuture<'a, Outcome>;

const HOLDS: BodyOf = |scope| {
    Box::pin(async {
        scope.record("sample", 7);
        Ok(())
    })
};
const BROKEN: BodyOf = |_| Box::pin(async { expect_eq("a number", &1, &2, "arithmetic") });
const CANNOT_TELL: BodyOf = |_| Box::pin(async { Err(NoVerdict::new("no idea").into()) });
const HANGS: BodyOf = |_| {
    Box::pin(async {
        eprintln!("hanging");
        std::future::pending().await
    })
};
const PANICS: BodyOf = |_| Box::pin(async { panic!("a toy fell") });
const BLOCKS: BodyOf = |_| {
    Box::pin(async {
        loop {
            std::thread::park();
        }
    })
};

const DRAWS_TWICE: BodyOf = |scope| {
    Box::pin(async {
        scope.draw(Test::Coverage)?;
        scope.draw(Test::Coverage)?;
        Ok(())
    })
};

static SUITES: &[Suite] = &[
    Suite {
        layer: Layer::Cni,
        gates: &[check("cni::gate", HOLDS)],
        checks: &[
            check("cni::holds", HOLDS),
            check("cni::broken", BROKEN),
            check("cni::cannot_tell", CANNOT_TELL),
            check("cni::hangs", HANGS),
            check("cni::panics", PANICS),
            check("cni::blocks_its_thread", BLOCKS),
            check("cni::lucky", DRAWS_TWICE),
            check("cni::greedy", DRAWS_TWICE),
            Check {
                needs: &[Need::Nodes(9)],
                ..check("cni::needs_nine_nodes", HOLDS)
            },
            Check {
                manifest: Some("cni/with_manifest.yaml"),
                ..check("cni::with_manifest", HOLDS)
            },
        ],
    },
    Suite {
        layer: Layer::Services,
        gates: &[check("services::gate_broken", BROKEN)],
        checks: &[check("services::never_runs", HOLDS)],
    },
    Suite {
        layer: Layer::Ingress,
        gates: &[check("ingress::gate", HOLDS)],
        checks: &[],
    },
];

/// One is lucky as often as it may be; another draws what it may not.
const CHANCE: Ledger = Ledger(&[("cni::lucky", &[Test::Coverage, Test::Coverage])]);

/// The `main` of a run.
pub(crate) fn main() -> ExitCode {
    let folder = std::env::var(TOY_MANIFESTS).unwrap_or_default();
    Runner {
        suites: SUITES,
        chance: CHANCE,
        longest: &[],
        manifests: folder.leak(),
        deviations: "no-such-folder",
        provider: |_| Ok(Box::new(Toy)),
        bring_up: |layer, _, _, progress| {
            Box::pin(async move {
                progress("pretending");
                match wrong().as_str() {
                    "up" if layer == Layer::Cni => Err(NoVerdict::new("no way up").into()),
                    "up-panic" if layer == Layer::Cni => panic!("the stairs broke"),
                    _ => Ok(()),
                }
            })
        },
        // Nothing here takes long but what hangs for ever; with a signal to come, nothing ends first.
        deadline: Duration::from_millis(if wrong() == "signal" { 600_000 } else { 3_000 }),
    }
    .main()
}

fn wrong() -> String {
    std::env::var(TOY_WRONG).unwrap_or_default()
}

struct Toy;

fn note(line: &str) {
    let path = std::env::var(TOY_LOG).unwrap_or_default();
    let file = OpenOptions::new().append(true).create(true).open(path);
    if let Ok(mut file) = file {
        let _ = writeln!(file, "{line}");
    }
}

#[async_trait(?Send)]
impl Provider for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    async fn create(&self, _: &RunInfo, _: Progress<'_>) -> anyhow::Result<Arc<Cluster>> {
        note("create");
        anyhow::ensure!(wrong() != "create", "no clay to make a cluster of");
        // An API that has nothing and takes nothing.
        let api = tower::service_fn(|request: http::Request<Body>| async move {
            let list = request.uri().path().ends_with("/nodes");
            let (status, body) = if list {
                (
                    200,
                    r#"{"kind":"NodeList","apiVersion":"v1","metadata":{},"items":[]}"#,
                )
            } else {
                (
                    404,
                    r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":404,"message":"there is nothing here","reason":"NotFound"}"#,
                )
            };
            let response = http::Response::builder().status(status);
            response.body(Body::from(body.as_bytes().to_vec()))
        });
        Ok(Arc::new(Cluster {
            client: kube::Client::new(api, "default"),
            kubeconfig: "/dev/null".into(),
            provider: "toy",
            versions: BTreeMap::from([("toy".to_owned(), "1".to_owned())]),
            outside: None,
            load_balancer: Balancer::none(),
            ingress: None,
            gateway: None,
            istio: None,
            ours: true,
            layers: match wrong().as_str() {
                "lacks" => {
                    let above = [Layer::Ingress, Layer::Mesh, Layer::Gateway].into_iter();
                    above.fold(Layers::all(), |all, layer| {
                        all.without(layer, format!("there is no {layer} on toy"))
                    })
                }
                _ => Layers::all(),
            },
            fit: Fit::default(),
            node_network: Ok(()),
            pid_annotation: None,
            nsenter: Vec::new(),
        }))
    }

    async fn export_logs(&self) -> anyhow::Result<Option<PathBuf>> {
        note("export-logs");
        Ok(Some("toy-box".into()))
    }

    async fn keep(&self) -> Vec<String> {
        note("keep");
        vec!["the toy is kept".to_owned()]
    }

    async fn destroy(&self) -> Vec<String> {
        note("destroy");
        Vec::new()
    }
}
