//! Namespaces: what each one begins with, and its end.
//!
//! Start from [`run_content`], which gives every namespace its ServiceAccount and the cluster's
//! certificate authority, and from [`end::run`].

mod end;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::informer::Informers;
use super::owner;
use super::owner::forgiving;
use super::world::{Cache, Controller, Next, Steps, World, drive};

pub(super) use self::end::run as run_end;

/// The ConfigMap that pods find the certificate authority in.
const ROOT_CA: &str = "kube-root-ca.crt";
/// Where the API server publishes the authority, and the key in it. It trusts the same authority
/// for clients that it is itself vouched for by.
const PUBLISHED: (&str, &str, &str) = (
    "kube-system",
    "extension-apiserver-authentication",
    "client-ca-file",
);

fn is_active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// Keeps a ServiceAccount `default` in every namespace.
pub(super) async fn run_accounts(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let named = watcher::Config::default().fields("metadata.name=default");
    let controller = Accounts {
        namespaces: world.watch(),
        accounts: world.watch_some(Api::all(client.clone()), named),
        client,
    };
    drive(world, controller).await;
}

struct Accounts {
    client: Client,
    namespaces: Cache<Namespace>,
    accounts: Cache<ServiceAccount>,
}

/// The namespaces that a mark is about: the marked one, or all, since they themselves are in none.
fn meant(namespaces: &Cache<Namespace>, marked: &str) -> Vec<Arc<Namespace>> {
    let mut found = if marked.is_empty() {
        namespaces.all()
    } else {
        namespaces.get("", marked).into_iter().collect()
    };
    found.retain(|namespace| is_active(namespace));
    found
}

impl Controller for Accounts {
    async fn reconcile(&mut self, marked: &str) -> kube::Result<Next> {
        let mut steps = Steps::default();
        for namespace in meant(&self.namespaces, marked) {
            let name = namespace.name_any();
            if self.accounts.get(&name, "default").is_none() {
                let api = Api::<ServiceAccount>::namespaced(self.client.clone(), &name);
                let mut account = ServiceAccount::default();
                account.metadata.name = Some("default".to_owned());
                let made = owner::create(&api, &self.accounts, &account).await;
                steps.take(made.map(drop).or_else(forgiving));
            }
        }
        steps.end(Next::Change)
    }
}

/// Keeps the cluster's certificate authority in a ConfigMap of every namespace.
pub(super) async fn run_root_ca(client: Client, informers: Informers) {
    let mut world = World::of(informers);
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
    let controller = RootCa {
        namespaces: world.watch(),
        published: world.watch_some(
            Api::namespaced(client.clone(), PUBLISHED.0),
            named(PUBLISHED.1),
        ),
        maps: world.watch_some(Api::all(client.clone()), named(ROOT_CA)),
        client,
    };
    drive(world, controller).await;
}

struct RootCa {
    client: Client,
    namespaces: Cache<Namespace>,
    published: Cache<ConfigMap>,
    maps: Cache<ConfigMap>,
}

impl Controller for RootCa {
    async fn reconcile(&mut self, marked: &str) -> kube::Result<Next> {
        let published = self.published.get(PUBLISHED.0, PUBLISHED.1);
        let authority = published
            .as_ref()
            .and_then(|map| map.data.as_ref()?.get(PUBLISHED.2));
        let Some(authority) = authority else {
            return Ok(Next::Change);
        };
        let mut steps = Steps::default();
        for namespace in meant(&self.namespaces, marked) {
            let name = namespace.name_any();
            let api = Api::<ConfigMap>::namespaced(self.client.clone(), &name);
            let data = Some([("ca.crt".to_owned(), authority.clone())].into());
            match self.maps.get(&name, ROOT_CA) {
                None => {
                    let map = json!({"metadata": {"name": ROOT_CA, "annotations": {
                        "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
                    }}});
                    let mut map: ConfigMap =
                        serde_json::from_value(map).map_err(kube::Error::SerdeError)?;
                    map.data = data;
                    let made = owner::create(&api, &self.maps, &map).await;
                    steps.take(made.map(drop).or_else(forgiving));
                }
                Some(found) if found.data != data => {
                    let mut map = (*found).clone();
                    map.data = data;
                    steps.take(owner::replace(&api, &self.maps, &map).await);
                }
                Some(_) => {}
            }
        }
        steps.end(Next::Change)
    }
}
