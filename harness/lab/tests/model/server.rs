//! Where the steps run: the lab's API server in this process, or a cluster's.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client};
use serde_json::{Value, json};
use strata_lab::api::ApiServer;
use tokio::runtime::Runtime;

use crate::driver::Run;
use crate::kinds::{ALL, GROUP, Kind, definition};
use crate::op::Step;
use crate::plan::Request;
use crate::wire::{PATIENCE, ask};
use crate::world::{Model, Rules};

pub(crate) struct Server {
    runtime: Runtime,
    client: Client,
    rules: Rules,
    /// The lab's, which can be told to forget its history.
    api: Option<ApiServer>,
    cases: AtomicU32,
}

impl Server {
    pub(crate) fn lab() -> Self {
        let runtime = Runtime::new().unwrap();
        let api = ApiServer::alone().unwrap();
        let client = {
            let _inside = runtime.enter();
            api.client("model")
        };
        Self::ready(runtime, client, Some(api))
    }

    /// None where no cluster is named.
    pub(crate) fn cluster() -> Option<Self> {
        let path = std::env::var_os("STRATA_MODEL_KUBECONFIG")?;
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(path).unwrap();
            let config =
                kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                    .await
                    .unwrap();
            Client::try_from(config).unwrap()
        });
        Some(Self::ready(runtime, client, None))
    }

    fn ready(runtime: Runtime, client: Client, api: Option<ApiServer>) -> Self {
        let rules = runtime.block_on(prepare(&client)).unwrap();
        Self {
            runtime,
            client,
            rules,
            api,
            cases: AtomicU32::new(0),
        }
    }

    /// Runs a sequence in a namespace of its own.
    pub(crate) fn run(&self, steps: &[Step]) -> Result<()> {
        let case = self.cases.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("model-{}-{case}", std::process::id());
        let compact = self.api.as_ref().map(|api| move || api.compact());
        let compact = compact.as_ref().map(|compact| compact as &dyn Fn());
        self.runtime.block_on(async {
            begin(&self.client, &namespace).await?;
            let mut run = Run::new(self.client.clone(), self.rules, namespace.clone(), compact);
            let outcome = run.steps(steps).await;
            end(&self.client, &namespace).await.context("clearing up")?;
            outcome
        })
    }
}

fn request(method: &'static str, path: &str, body: Value) -> Request {
    Request {
        method,
        path: path.to_owned(),
        media: "application/json",
        body,
    }
}

fn post(path: &str, body: Value) -> Request {
    request("POST", path, body)
}

fn get(path: &str) -> Request {
    request("GET", path, Value::Null)
}

/// Waits until the custom kind is served.
async fn established(client: &Client) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = format!("things.{GROUP}");
    let condition = await_condition(definitions, &name, conditions::is_crd_established());
    tokio::time::timeout(PATIENCE, condition).await??;
    // It says so a moment before it is.
    for _ in 0..10_000 {
        if ask(client, &get(&format!("/apis/{GROUP}/v1/things")))
            .await?
            .code
            == 200
        {
            return Ok(());
        }
    }
    anyhow::bail!("things are not served")
}

async fn prepare(client: &Client) -> Result<Rules> {
    let version = ask(client, &get("/version")).await?.body;
    let minor: String = version["minor"]
        .as_str()
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    // Controllers beside us tell so by the lease they lead by.
    let lease =
        "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";
    let controllers = ask(client, &get(lease)).await?.code == 200;
    let made = ask(
        client,
        &post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            definition(),
        ),
    )
    .await?;
    ensure!(
        matches!(made.code, 201 | 409),
        "the definition is refused: {}",
        made.body
    );
    established(client).await?;
    Ok(Rules {
        minor: minor.parse()?,
        controllers,
    })
}

async fn begin(client: &Client, namespace: &str) -> Result<()> {
    let made = ask(
        client,
        &post(
            "/api/v1/namespaces",
            json!({"metadata": {"name": namespace}}),
        ),
    )
    .await?;
    ensure!(made.code == 201, "no namespace: {}", made.body);
    // A controller's, where there is one; pods need it.
    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    let made = ask(
        client,
        &post(&account, json!({"metadata": {"name": "default"}})),
    )
    .await?;
    ensure!(
        matches!(made.code, 201 | 409),
        "no service account: {}",
        made.body
    );
    Ok(())
}

/// Takes the finalizers off what is left, so that the namespace can go.
async fn end(client: &Client, namespace: &str) -> Result<()> {
    let rules = Rules {
        minor: 0,
        controllers: false,
    };
    let model = Model::new(rules, namespace.to_owned());
    for kind in ALL {
        let list = ask(client, &get(&model.collection(kind))).await?.body;
        for item in list["items"].as_array().into_iter().flatten() {
            let path = format!(
                "{}/{}",
                model.collection(kind),
                item["metadata"]["name"].as_str().unwrap_or_default()
            );
            let body = json!({"metadata": {"finalizers": null}});
            let patch = Request {
                method: "PATCH",
                path: path.clone(),
                media: "application/merge-patch+json",
                body,
            };
            ask(client, &patch).await?;
            let now = if kind == Kind::Pod {
                json!({"gracePeriodSeconds": 0})
            } else {
                Value::Null
            };
            ask(client, &request("DELETE", &path, now)).await?;
        }
    }
    let path = format!("/api/v1/namespaces/{namespace}");
    ask(client, &request("DELETE", &path, Value::Null)).await?;
    Ok(())
}
