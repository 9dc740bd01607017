//! What a check's body is given: a namespace of its own, vantages, objects and expectations.
//!
//! Start from [`Scope::open`] and [`Scope::close`], between which the runner runs the body. Pods and
//! vantages are in `pods`, reading and changing objects in `objects`, what is put back in `former`, expectations in `expect`, what
//! is collected about a check that did not pass in `evidence`. Rule: whatever a scope makes, it
//! takes away, in one place; a body contains no cleanup.

mod everywhere;
mod evidence;
mod expect;
mod former;
mod objects;
mod pods;
mod sample;

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub use expect::Eventually;
pub use sample::{Sampling, Sorted};

use self::former::Former;
use rand::RngExt as _;

use crate::apply::{self, Applier, Global, Manifest, RUN_LABEL, close_namespace, open_namespace};
use crate::budget::CREATE;
use crate::probe::Transcript;
use crate::provider::Cluster;
use crate::report::Drawn;
use crate::run::RunInfo;
use crate::stack::Layer;
use crate::verdict::NoVerdict;
use crate::verdict::chance::cover::covering;
use crate::verdict::chance::fixed::FixedShare;
use crate::verdict::chance::{Ledger, Test};
use crate::verdict::split::BETA;

/// What a check's body is given.
pub struct Scope {
    cluster: Arc<Cluster>,
    id: &'static str,
    /// The check's own file below `manifests/`.
    manifest: Option<&'static str>,
    layer: Layer,
    namespace: String,
    fixture: String,
    seed: u64,
    run_seed: u64,
    random_cases: usize,
    evidence: PathBuf,
    applier: Applier,
    /// What the check made beside what its namespace takes away with it.
    globals: Mutex<Vec<Global>>,
    /// What it changed of objects that are not its own.
    formers: Mutex<Vec<Former>>,
    /// Whether the namespace is the check's own.
    own: bool,
    /// The labels of the check's namespaces.
    labels: BTreeMap<String, String>,
    /// The check's namespaces beside its own.
    neighbours: Mutex<Vec<String>>,
    records: Mutex<Vec<(String, String)>>,
    chance: Ledger,
    drawn: Mutex<Vec<Test>>,
    shares: Mutex<BTreeMap<String, f64>>,
    transcript: Transcript,
}

impl Scope {
    /// A scope that has made nothing yet, for the check with this id and manifest. `layer` is the
    /// check's own, whichever layer is coming up; `evidence` is the folder that evidence goes to.
    #[must_use]
    pub fn new(
        cluster: Arc<Cluster>,
        id: &'static str,
        manifest: Option<&'static str>,
        layer: Layer,
        run: &RunInfo,
        evidence: &Path,
    ) -> Self {
        let fixture = run.fixture_namespace(layer);
        let own = manifest.is_some();
        Self {
            applier: Applier::new(cluster.client.clone(), cluster.fit.clone(), &run.id),
            cluster,
            id,
            manifest,
            layer,
            namespace: if own { fresh(id, run) } else { fixture.clone() },
            fixture,
            seed: seed(run.seed, id),
            run_seed: run.seed,
            random_cases: run.random_cases,
            evidence: evidence.to_owned(),
            globals: Mutex::default(),
            formers: Mutex::default(),
            own,
            labels: BTreeMap::from([
                (RUN_LABEL.to_owned(), run.id.clone()),
                (CHECK_LABEL.to_owned(), label(id)),
            ]),
            neighbours: Mutex::default(),
            records: Mutex::default(),
            chance: run.chance,
            drawn: Mutex::default(),
            shares: Mutex::default(),
            transcript: Transcript::default(),
        }
    }

    /// Makes the namespace, applies the manifest and waits until its workloads are ready, if the
    /// check has one. [`Self::close`] is due however it ends.
    ///
    /// # Errors
    /// When the API refuses or cannot be reached, or a workload does not get ready.
    pub async fn open(&self, run: &RunInfo) -> Result<(), NoVerdict> {
        let Some(file) = self.manifest else {
            return Ok(());
        };
        let manifest = run.manifests.check(file);
        let manifest = manifest.ok_or_else(|| {
            NoVerdict::new(format!("manifests/{file} was not read"))
                .with_likely("the check is not part of the plan, which is a defect of strata")
        })?;
        self.open_namespace(&self.namespace, manifest).await?;
        self.apply_manifest(manifest).await?;
        apply::ready(
            self.client(),
            manifest,
            Some(&self.namespace),
            CREATE,
            &|_| {},
        )
        .await
    }

    async fn open_namespace(&self, name: &str, manifest: &Manifest) -> Result<(), NoVerdict> {
        open_namespace(&self.applier, self.client(), name, &self.labels, manifest).await
    }

    async fn apply_manifest(&self, manifest: &Manifest) -> Result<(), NoVerdict> {
        let namespace = &self.namespace;
        let globals = self.applier.apply_into(namespace, manifest).await?;
        self.remember(globals);
        Ok(())
    }

    fn remember(&self, made: impl IntoIterator<Item = Global>) {
        let mut globals = self.globals.lock().unwrap_or_else(PoisonError::into_inner);
        globals.extend(made);
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// A client of the cluster, with every right.
    #[must_use]
    pub fn client(&self) -> &kube::Client {
        &self.cluster.client
    }

    /// The check's id.
    #[must_use]
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// The layer that the check judges.
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// The check's own namespace if it has a manifest, else its layer's fixture namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The namespace of the layer's fixture: `strata-<layer>-<run id>`.
    #[must_use]
    pub fn fixture(&self) -> &str {
        &self.fixture
    }

    /// What everything random in the check derives from: the same for the same check and
    /// `STRATA_SEED`, another for another check.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// `STRATA_SEED` as it would have to be set for [`Self::seed`] to be the same again.
    #[must_use]
    pub fn run_seed(&self) -> u64 {
        self.run_seed
    }

    /// How many random requests to send, for checks that send some.
    #[must_use]
    pub fn random_cases(&self) -> usize {
        self.random_cases
    }

    /// Notes a fact for the reports (sample sizes, error rates).
    pub fn record(&self, key: &str, value: impl ToString) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.push((key.to_owned(), value.to_string()));
    }

    /// The facts noted.
    #[must_use]
    pub fn records(&self) -> Vec<(String, String)> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.clone()
    }

    /// Draws what a test of chance takes of the run's budget of false alarms: the probability with
    /// which it may complain of a cluster that is right.
    ///
    /// # Errors
    /// When the suites' ledger does not say that this check makes such a test, or as often.
    pub fn draw(&self, test: Test) -> Result<f64, NoVerdict> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let times = |tests: &[Test]| tests.iter().filter(|other| **other == test).count();
        let declared = times(self.chance.of(self.id));
        if times(&drawn) >= declared {
            return Err(NoVerdict::new(format!(
                "the suites' ledger declares {declared} {test} tests of this check, and it makes more"
            ))
            .with_likely("the check's row in suites/chance.rs is missing or short, which is a defect of strata"));
        }
        drawn.push(test);
        Ok(test.alpha())
    }

    /// So many requests, which are enough to meet each of so many endpoints that are chosen at random,
    /// but for a probability that is drawn from the budget. Half of it is for each of two looks, since
    /// what is awaited must be seen twice.
    ///
    /// # Errors
    /// As [`Self::draw`], and when they are too few.
    pub fn enough(&self, requests: u64, endpoints: u64) -> Result<u64, NoVerdict> {
        let needed = covering(endpoints, self.draw(Test::Coverage)? / 2.0);
        if requests < needed {
            return Err(NoVerdict::new(format!(
                "{requests} requests may miss one of {endpoints} endpoints by chance; it takes {needed}"
            )));
        }
        self.record(
            "coverage",
            format!("{requests} requests for {endpoints} endpoints"),
        );
        Ok(requests)
    }

    /// A test of a share of which only the total is told, at the usual α and β.
    ///
    /// # Errors
    /// As [`Self::draw`], and when there is no such test.
    pub fn fixed_share(&self, share: f64, tolerance: f64) -> Result<FixedShare, NoVerdict> {
        FixedShare::new(share, tolerance, self.draw(Test::Share)?, BETA)
    }

    pub(crate) fn drawn(&self) -> Vec<Drawn> {
        let drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.iter().copied().map(Drawn::from).collect()
    }

    pub(crate) fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// Puts back what the check changed, deletes what it made, and waits until that is gone; returns what
    /// went wrong.
    pub async fn close(self) -> Vec<String> {
        let mut troubles = Vec::new();
        let formers = self.formers.lock();
        let formers = std::mem::take(&mut *formers.unwrap_or_else(PoisonError::into_inner));
        for former in formers.iter().rev() {
            if let Err(no_verdict) = self.restore(former).await {
                troubles.push(trouble(&no_verdict));
            }
        }
        let globals = self
            .globals
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        // The latest first: what was made later may lean on what was there.
        for global in globals.iter().rev() {
            if let Err(no_verdict) = self.applier.delete(global).await {
                troubles.push(trouble(&no_verdict));
            }
        }
        let neighbours = self.neighbours.into_inner();
        let mut namespaces = neighbours.unwrap_or_else(PoisonError::into_inner);
        namespaces.extend(self.own.then_some(self.namespace));
        for namespace in namespaces {
            if let Err(no_verdict) = close_namespace(&self.cluster.client, &namespace).await {
                troubles.push(trouble(&no_verdict));
            }
        }
        troubles
    }
}

/// The label of a check's namespace, with the check's id (`.` for `::`).
pub const CHECK_LABEL: &str = "strata.dev/check";

/// A check's id as a label's value, which `:` may not be in.
fn label(id: &str) -> String {
    id.replace("::", ".")
}

fn trouble(no_verdict: &NoVerdict) -> String {
    format!("{}: {}", no_verdict.doing(), no_verdict.because())
}

/// A namespace's name is a DNS label, so at most 63 characters (RFC 1123 §2.1).
fn fresh(id: &str, run: &RunInfo) -> String {
    let suffix = suffix();
    let id = id.replace("::", "-").replace('_', "-");
    let room = 63 - "strata---".len() - run.id.len() - suffix.len();
    let id: String = id.chars().take(room).collect();
    format!("strata-{}-{}-{suffix}", id.trim_end_matches('-'), run.id)
}

/// What tells namespaces of one check apart.
fn suffix() -> String {
    let mut random = rand::rng();
    (0..4)
        .map(|_| char::from(random.sample(rand::distr::Alphanumeric)).to_ascii_lowercase())
        .collect()
}

/// Another for each check, so that two checks do not draw the same.
fn seed(run: u64, id: &str) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325 ^ run);
    hasher.write(id.as_bytes());
    hasher.finish()
}

/// FNV-1a: the standard library's hasher may change from one version to the next, and a seed in a
/// report must mean the same for ever.
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_dns_label_whatever_the_check_is_called() {
        let run = RunInfo {
            id: "abc123".into(),
            ..RunInfo::default()
        };
        let short = fresh("services::node_port", &run);
        assert!(
            short.starts_with("strata-services-node-port-abc123-"),
            "{short}"
        );
        let id = "gateway::a_very_long_name_of_a_behaviour_that_does_not_fit_into_a_label";
        let long = fresh(id, &run);
        assert!(long.len() <= 63 && long.contains("-abc123-"), "{long}");
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(long.chars().all(allowed), "{long}");
        assert_ne!(fresh(id, &run), long);
    }

    #[test]
    fn seeds_differ_by_check_and_by_run_and_stay_the_same() {
        assert_eq!(seed(7, "cni::a"), seed(7, "cni::a"));
        assert_ne!(seed(7, "cni::a"), seed(7, "cni::b"));
        assert_ne!(seed(7, "cni::a"), seed(8, "cni::a"));
    }
}
