//! From a broken claim to its cause.
//!
//! Start from [`Scope::explain`], which hands each subject to its layer's diagnoser. Rule: a diagnosis
//! never changes a verdict, never guesses, and ends soon.

use std::time::Duration;

use super::look::Look;
use super::{Subject, cni, gateway, ingress, labels, mesh, services, workload};
use crate::budget::Budget;
use crate::scope::Scope;
use crate::verdict::{Cause, NoVerdict, NotPassed, Outcome};
use crate::wait;

/// Diagnosis is for reading; it must not hold up the check. A cause that is not found by then is not
/// named: the failure is worth reading without it.
const DIAGNOSIS: Budget = Budget {
    name: "diagnose",
    within: Duration::from_secs(10),
    ..crate::budget::REQUEST
};

impl Scope {
    /// Names the cause of a failure, if objects show it. Never changes the verdict.
    ///
    /// # Errors
    /// The outcome it is given.
    pub async fn explain(&self, outcome: Outcome, subject: Subject<'_>) -> Outcome {
        let Err(not_passed) = outcome else {
            return outcome;
        };
        // What is not judged has no cause, and what was seen may name it already.
        match &not_passed {
            NotPassed::Failed(finding) if finding.cause().is_none() => {}
            NotPassed::Failed(_) | NotPassed::NoVerdict(_) => return Err(not_passed),
        }
        let looked = diagnose(self, &subject);
        match wait::bounded("looking for the cause", DIAGNOSIS, looked).await {
            Ok(Some(cause)) => return Err(not_passed.caused_by(cause)),
            Ok(None) => {}
            Err(no_verdict) => {
                tracing::warn!(?subject, because = no_verdict.because(), "no cause");
                self.record("diagnosis", no_verdict.because());
            }
        }
        Err(not_passed)
    }
}

async fn diagnose(scope: &Scope, subject: &Subject<'_>) -> Result<Option<Cause>, NoVerdict> {
    let cause = name(Look { scope }, subject).await;
    match &cause {
        Ok(Some(cause)) => tracing::info!(kind = %cause.kind, "{}", cause.wrong),
        Ok(None) => tracing::info!(?subject, "evidence names no cause"),
        Err(error) => tracing::warn!(?subject, because = error.because(), "not diagnosed"),
    }
    cause
}

async fn name(look: Look<'_>, subject: &Subject<'_>) -> Result<Option<Cause>, NoVerdict> {
    match *subject {
        Subject::PodPath { from, to } => cni::diagnose(look, from, to).await,
        Subject::Service {
            namespace,
            name,
            port,
            from,
        } => services::diagnose(look, namespace, name, port, from).await,
        Subject::Dns { from } => services::diagnose_dns(look, from).await,
        Subject::LoadBalancer { namespace, name } => {
            services::diagnose_balancer(look, namespace, name).await
        }
        Subject::Ingress {
            namespace,
            name,
            host,
            path,
        } => ingress::diagnose(look, namespace, name, host, path).await,
        Subject::Sidecar { namespace, apps } => mesh::diagnose_sidecar(look, namespace, apps).await,
        Subject::Split {
            namespace,
            virtual_service,
            expected,
            observed,
        } => {
            let expected = expected
                .iter()
                .map(|(arm, weight)| ((*arm).to_owned(), *weight));
            let observed = observed.iter().map(|(arm, share)| (arm.clone(), *share));
            let (expected, observed) = (expected.collect(), observed.collect());
            mesh::diagnose_split(look, namespace, virtual_service, expected, observed).await
        }
        Subject::MeshHost {
            namespace,
            virtual_service,
        } => {
            let none = Vec::new;
            mesh::diagnose_split(look, namespace, virtual_service, none(), none()).await
        }
        Subject::Gateway {
            namespace,
            name,
            listener,
        } => gateway::diagnose(look, namespace, name, listener).await,
        Subject::HttpRoute {
            namespace,
            name,
            path,
        } => gateway::diagnose_route(look, namespace, name, path).await,
        Subject::Workload {
            namespace,
            selector,
        } => {
            let terms = labels::terms(selector);
            Ok(workload::cause(&look.workload(namespace, terms).await?))
        }
    }
}
