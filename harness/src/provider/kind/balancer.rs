//! Load balancers by cloud-provider-kind, where MetalLB is not wanted or cannot be had.
//!
//! Start from [`Wanted::by`], and [`CloudProvider::start`]. It is a program of this machine that serves *every* kind cluster there
//! is, each Service by a container with Envoy, labelled with the cluster's name; these outlive the cluster. So it is
//! started only where no cluster but ours is, and what it made is removed by that label. Rule: it ends with its run,
//! also if that is killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::process::{Child, Command};

use super::{ENGINE, NETWORK};
use crate::budget::CREATE;
use crate::group::Group;
use crate::provider::containers::{Engine, remove_labelled};
use crate::provider::tools;
use crate::settings::{BadInput, Settings};
use crate::verdict::NoVerdict;
use crate::wait;

const NAME: &str = "cloud-provider-kind";
/// On every container that it makes, with the name of the cluster.
const LABEL: &str = "io.x-k8s.cloud-provider-kind.cluster";
/// It serves Ingresses and Gateways too, unless it is told otherwise.
const ALONE: [&str; 3] = [
    "--gateway-channel",
    "disabled",
    "--enable-default-ingress=false",
];
/// What kills a program as its parent dies; util-linux has it.
const WITH_PARENT: &str = "setpriv";
const END: Duration = Duration::from_secs(15);

/// Who is to give load balancers their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// MetalLB, and cloud-provider-kind where that cannot be had.
    Either,
    MetalLb,
    CloudProvider,
}

impl Wanted {
    /// By the settings.
    ///
    /// # Errors
    /// When they name nobody.
    pub(super) fn by(settings: &Settings) -> Result<Self, BadInput> {
        match settings.load_balancer.as_deref() {
            None => Ok(Self::Either),
            Some("metallb") => Ok(Self::MetalLb),
            Some(NAME) => Ok(Self::CloudProvider),
            Some(other) => Err(BadInput(format!(
                "STRATA_LOAD_BALANCER={other} is nobody that this version installs on kind; choose metallb or {NAME}"
            ))),
        }
    }
}

/// The program that was found.
#[derive(Debug, Clone)]
pub(super) struct Program(PathBuf);

impl Program {
    /// Looks for it, and whether it may be started beside these clusters of kind.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn find(path: &std::ffi::OsStr, clusters: &[String]) -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err(format!(
                "{NAME} is started on Linux alone, where it ends with a run that is killed; take MetalLB"
            ));
        }
        if !clusters.is_empty() {
            return Err(format!(
                "{NAME} serves every cluster of kind on this machine, and {} is there; delete it (kind delete cluster), \
                 or take MetalLB",
                clusters.join(", ")
            ));
        }
        let found = tools::on_path(Path::new(NAME), path).find(|path| path.is_file());
        found.map(Self).ok_or_else(|| {
            format!("{NAME} is not installed (kind.sigs.k8s.io/docs/user/loadbalancer)")
        })
    }
}

/// The program, as long as it runs.
#[derive(Debug)]
pub(super) struct CloudProvider {
    child: Child,
    _group: Group,
    log: PathBuf,
}

impl CloudProvider {
    /// Starts it; what it says goes to a file of the reports.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(super) async fn start(
        program: &Program,
        (engine, network): (&Engine, &str),
        report_dir: &Path,
    ) -> anyhow::Result<Self> {
        let log = report_dir.join("cloud-provider-kind.log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let with_parent = tools::on_path(Path::new(WITH_PARENT), &path).find(|path| path.is_file());
        let mut command = match &with_parent {
            Some(with_parent) => {
                let mut command = Command::new(with_parent);
                command.args(["--pdeathsig", "TERM"]).arg(&program.0);
                command
            }
            None => Command::new(&program.0),
        };
        command
            .args(ALONE)
            .env(ENGINE, engine.name())
            .env(NETWORK, network)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true);
        // By a thread of the runtime, which lives as long as the run: the signal comes when the thread dies that started it.
        let child = tokio::spawn(async move { command.spawn() }).await?;
        let child = child.with_context(|| format!("{} cannot be run", program.0.display()))?;
        let _group = Group::of(&child);
        Ok(Self { child, _group, log })
    }

    /// Waits until a Service of ours has an address, which is then deleted again.
    ///
    /// # Errors
    /// When it gets none, or the program has ended.
    pub(super) async fn works(&mut self, client: &Client) -> anyhow::Result<()> {
        let services = Api::<Service>::default_namespaced(client.clone());
        let asking = serde_json::from_value(json!({
            "metadata": { "generateName": "strata-balanced-" },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }], "selector": { "app": "nobody" } },
        }))?;
        let asking = services.create(&PostParams::default(), &asking).await?;
        let name = asking.name_any();
        let addressed = |service: Option<&Service>| match service.is_some_and(has_address) {
            true => wait::Progress::Ready(()),
            false => wait::Progress::NotYet("it has no address".to_owned()),
        };
        let what = format!("a Service of type LoadBalancer has an address of {NAME}'s");
        let given = wait::object(&what, CREATE, services.clone(), &name, addressed);
        let outcome = tokio::select! {
            given = given => given.map_err(NoVerdict::into_error),
            ended = self.child.wait() => Err(anyhow::anyhow!(
                "{NAME} has ended ({}): {}", ended?, self.last_words()
            )),
        };
        services.delete(&name, &DeleteParams::default()).await?;
        outcome
    }

    /// Ends it in order, so that it takes its containers away; what went wrong.
    pub(super) async fn stop(mut self) -> Option<String> {
        if let Ok(Some(_)) = self.child.try_wait() {
            return Some(format!(
                "{NAME} ended before the run did: {}",
                self.last_words()
            ));
        }
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let asked = id.map(|id| kill(Pid::from_raw(id), Signal::SIGTERM));
        match (asked, tokio::time::timeout(END, self.child.wait()).await) {
            (Some(Ok(())), Ok(Ok(_))) => None,
            _ => Some(format!("{NAME} did not end in order, and was killed")),
        }
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rfind(|line| !line.trim().is_empty());
        last.unwrap_or("it said nothing").to_owned()
    }
}

fn has_address(service: &Service) -> bool {
    let status = service.status.iter();
    let balancers = status.flat_map(|status| &status.load_balancer);
    balancers
        .into_iter()
        .any(|it| it.ingress.iter().flatten().next().is_some())
}

/// Removes the containers that serve a cluster's Services, which outlive it.
///
/// # Errors
/// When the engine refuses that.
pub(super) async fn remove(engine: &Engine, cluster: &str) -> anyhow::Result<()> {
    remove_labelled(engine, &format!("{LABEL}={cluster}")).await
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use kube::api::{ListParams, Patch, PatchParams};
    use strata_lab::api::ApiServer;

    use super::*;
    use crate::provider::stand_in::{self, settings};

    const DOCKER: &str = r#"
echo "docker $*" >> LOG
case "$1" in
    version) echo 28.2.2 ;;
    ps) [ ! -e THERE ] || printf 'aa\nbb\n' ;;
    rm) ;;
    *) exit 1 ;;
esac
"#;

    /// Takes the flags of its documentation. (It was never run for real.)
    const PROGRAM: &str = r#"
[ "$*" = "--gateway-channel disabled --enable-default-ingress=false" ] || { echo "flag provided but not defined: $*" >&2; exit 2; }
[ ! -e FAILS ] || { echo 'F1130 main.go:120] can not connect to the container runtime' >&2; exit 1; }
echo "started for $KIND_EXPERIMENTAL_PROVIDER on $KIND_EXPERIMENTAL_DOCKER_NETWORK" >> LOG
trap 'echo ended >> LOG; exit 0' TERM
cat GATE & wait
"#;

    struct Stage {
        dir: tempfile::TempDir,
        engine: Engine,
        program: Program,
    }

    impl Stage {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let at = |name: &str| dir.path().join(name);
            stand_in::program(dir.path(), "docker", DOCKER, &["LOG", "THERE"]);
            stand_in::program(dir.path(), NAME, PROGRAM, &["LOG", "FAILS", "GATE"]);
            nix::unistd::mkfifo(&at("GATE"), nix::sys::stat::Mode::S_IRWXU).unwrap();
            let path = dir.path().as_os_str().to_owned();
            Self {
                engine: Engine::find(None, &path).await.unwrap(),
                program: Program::find(&path, &[]).unwrap(),
                dir,
            }
        }

        async fn start(&self) -> CloudProvider {
            let on = (&self.engine, "kind");
            let started = CloudProvider::start(&self.program, on, self.dir.path()).await;
            started.unwrap()
        }

        fn put(&self, name: &str) {
            std::fs::write(self.dir.path().join(name), "").unwrap();
        }

        fn log(&self) -> Vec<String> {
            let log = std::fs::read_to_string(self.dir.path().join("LOG")).unwrap();
            log.lines().map(str::to_owned).collect()
        }
    }

    /// Gives every Service an address, once there is one.
    async fn give_addresses(client: Client) {
        let services = Api::<Service>::default_namespaced(client);
        let ours = |service: &Service| service.name_any().starts_with("strata-balanced-");
        loop {
            let there = services.list(&ListParams::default()).await.unwrap();
            if let Some(service) = there.iter().find(|it| ours(it)) {
                let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "172.18.0.9" }] } } });
                let (name, params) = (service.name_any(), PatchParams::default());
                let patch = Patch::Merge(status);
                services.patch_status(&name, &params, &patch).await.unwrap();
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn it_works_once_a_service_has_an_address_and_ends_in_order() {
        let stage = Stage::new().await;
        let client = ApiServer::alone().unwrap().client("admin");
        let mut running = stage.start().await;
        let give = async {
            // Opens once the program waits there, and so can be ended in order.
            let gate = stage.dir.path().join("GATE");
            let gate = tokio::task::spawn_blocking(move || File::options().write(true).open(gate));
            let gate = gate.await.unwrap().unwrap();
            give_addresses(client.clone()).await;
            gate
        };
        let (works, _gate) = tokio::join!(running.works(&client), give);
        works.unwrap();
        let services = Api::<Service>::default_namespaced(client);
        let left = services.list(&ListParams::default()).await.unwrap();
        assert!(!left.iter().any(|it| it.name_any().starts_with("strata-")));
        assert_eq!(running.stop().await, None);
        assert_eq!(stage.log()[1..], ["started for docker on kind", "ended"]);
    }

    #[tokio::test]
    async fn one_that_ends_says_why() {
        let stage = Stage::new().await;
        stage.put("FAILS");
        let client = ApiServer::alone().unwrap().client("admin");
        let mut running = stage.start().await;
        let said = running.works(&client).await.unwrap_err().to_string();
        assert!(said.contains("has ended (exit status: 1): F1130"), "{said}");
        let said = running.stop().await.unwrap();
        assert!(said.contains("ended before the run did"), "{said}");
    }

    #[tokio::test]
    async fn what_it_made_for_a_cluster_goes_with_it() {
        let stage = Stage::new().await;
        remove(&stage.engine, "strata-abc").await.unwrap();
        stage.put("THERE");
        remove(&stage.engine, "strata-abc").await.unwrap();
        let look = "docker ps --all --filter label=io.x-k8s.cloud-provider-kind.cluster=strata-abc --format {{.Names}}";
        assert_eq!(
            stage.log()[1..],
            [look, look, "docker rm --force --volumes aa bb"]
        );
    }

    #[test]
    fn it_is_not_started_beside_clusters_of_others() {
        let why = Program::find("".as_ref(), &["dev".to_owned()]).unwrap_err();
        assert!(why.contains("and dev is there"), "{why}");
        assert!(
            Program::find("".as_ref(), &[])
                .unwrap_err()
                .contains("not installed")
        );
        let by = |name| Wanted::by(&settings(&[("STRATA_LOAD_BALANCER", name)])).map_err(|it| it.0);
        assert_eq!(by("metallb"), Ok(Wanted::MetalLb));
        assert!(
            by("elb")
                .unwrap_err()
                .contains("choose metallb or cloud-provider-kind")
        );
    }
}
