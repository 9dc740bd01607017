//! The controllers, and the scheduler: clients that only list, watch and write, as anyone's would.
//!
//! Start from [`run`]. Each controller has a user, caches ([`world`]) and a task of its own; they
//! share no state but objects, so each could be replaced by the real one, and watches of whole kinds
//! ([`informer`]), as in kube-controller-manager. Rule: a controller reacts to what it sees at once,
//! and never waits for a time unless an object asks for it.
//!
//! ```text
//! Deployment ──► ReplicaSet ──► Pod ──► scheduler ──► (kubelet)
//! DaemonSet, StatefulSet, Job ──┘└──► EndpointSlice, Endpoints ◄── Service ──► load balancer
//! Namespace ──► ServiceAccount, ConfigMap          owners ──► garbage
//! ```

mod daemon_set;
mod deployment;
mod endpoints;
mod fit;
mod garbage;
mod informer;
mod job;
mod load_balancer;
mod namespace;
mod nodes;
mod owner;
mod pod_control;
mod pods;
mod replica_set;
mod scheduler;
mod stateful_set;
#[cfg(test)]
mod tests;
mod world;

use kube::Client;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::informer::Informers;

/// Runs all controllers until cancelled. `client_of` gives a user's client of the API server.
///
/// The cluster's certificate authority, which every namespace gets a copy of, is read from ConfigMap
/// `kube-system/extension-apiserver-authentication`, where API servers publish it.
pub async fn run(
    client_of: impl Fn(&str) -> Client + Clone + Send + Sync + 'static,
    cancel: CancellationToken,
) {
    let account = |name: &str| client_of(&format!("system:serviceaccount:kube-system:{name}"));
    let informers = Informers::new(client_of("system:kube-controller-manager"));
    let shared = || informers.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(namespace::run_accounts(
        account("service-account-controller"),
        shared(),
    ));
    tasks.spawn(namespace::run_root_ca(
        account("root-ca-certificate-publisher"),
        shared(),
    ));
    tasks.spawn(namespace::run_end(
        account("namespace-controller"),
        shared(),
    ));
    tasks.spawn(replica_set::run(account("replicaset-controller"), shared()));
    tasks.spawn(deployment::run(account("deployment-controller"), shared()));
    tasks.spawn(daemon_set::run(account("daemon-set-controller"), shared()));
    tasks.spawn(stateful_set::run(
        account("statefulset-controller"),
        shared(),
    ));
    tasks.spawn(job::run(account("job-controller"), shared()));
    tasks.spawn(endpoints::run_slices(
        account("endpointslice-controller"),
        shared(),
    ));
    tasks.spawn(endpoints::run_legacy(
        account("endpoint-controller"),
        shared(),
    ));
    tasks.spawn(endpoints::run_mirror(
        account("endpointslicemirroring-controller"),
        shared(),
    ));
    tasks.spawn(load_balancer::run(account("service-controller"), shared()));
    tasks.spawn(nodes::run(account("node-controller"), shared()));
    tasks.spawn(garbage::run(account("generic-garbage-collector"), shared()));
    // A process of its own, elsewhere.
    let scheduler = client_of("system:kube-scheduler");
    tasks.spawn(scheduler::run(scheduler.clone(), Informers::new(scheduler)));
    let ended = async {
        while let Some(result) = tasks.join_next().await {
            if let Err(error) = result {
                tracing::error!(%error, "a controller ended, which is a defect of the lab");
            }
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = ended => {}
    }
    tasks.shutdown().await;
}
