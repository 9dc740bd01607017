//! The provider against stand-ins for `kind` and `docker`, which take the documented arguments alone,
//! note them, and answer as the real ones do. (The real ones: see docs/measured.md.)

use super::*;
use crate::provider::Balancer;
use crate::provider::containers::subnets;
use crate::provider::stand_in::{self, settings};
use crate::stack::Layer;

/// kind 0.27's words, as far as the provider uses them.
const KIND: &str = r#"
echo "kind $*" >> LOG
case "$1 $2" in
    "version ") echo 'kind v0.27.0 go1.24.0 linux/amd64' ;;
    "create cluster")
        cat > CONFIG
        if [ -e FAILS ]; then
            echo 'Creating cluster "x" ...' >&2
            echo 'ERROR: failed to create cluster: could not find a log line that matches "Reached target"' >&2
            exit 1
        fi
        for last; do :; done
        cp GIVEN "$last" ;;
    "get clusters") echo 'No kind clusters found.' >&2 ;;
    "load image-archive" | "delete cluster" | "export logs") ;;
    *) echo "ERROR: unknown command \"$1\" for \"kind\"" >&2; exit 1 ;;
esac
"#;

const DOCKER: &str = r#"
echo "docker $*" >> LOG
case "$1" in
    version) echo 28.2.2 ;;
    load | run | rm | rmi) ;;
    ps) case "$*" in *label=*) ;; *) echo 0123456789ab ;; esac ;;
    exec) cat; exit 7 ;;
    network) echo '172.18.0.0/16 ' ;;
    *) echo "docker: unknown command: docker $1" >&2; exit 1 ;;
esac
"#;

struct Stage {
    dir: tempfile::TempDir,
    kind: Kind,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (name, text) in [("kind", KIND), ("docker", DOCKER)] {
            stand_in::program(dir.path(), name, text, &["LOG", "CONFIG", "FAILS", "GIVEN"]);
        }
        let kubeconfig = stand_in::kubeconfig(stand_in::api_server(|_| None));
        std::fs::write(at("GIVEN"), kubeconfig).unwrap();
        let kind = Kind {
            program: Some(at("kind")),
            path: dir.path().into(),
            engine: None,
            network: "kind".to_owned(),
            state: Some(at("state")),
            node_image: Some("node:v1".to_owned()),
            config: config(&settings(&[])).unwrap(),
            plugin: Plugin::Kindnet,
            assets: assets(dir.path()),
            serving: Serving::by(&settings(&[])).unwrap(),
            balancer: balancer::Wanted::Either,
            istio: istio::Wanted::by(&settings(&[])).unwrap(),
            report_dir: dir.path().to_owned(),
            made: Mutex::default(),
        };
        Self { dir, kind }
    }

    async fn create(&self) -> anyhow::Result<Arc<Cluster>> {
        let run = RunInfo {
            id: "abc".to_owned(),
            ..RunInfo::default()
        };
        self.kind.create(&run, &|_| {}).await
    }

    /// What was asked of both, with this test's own paths taken out.
    fn asked(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("LOG")).unwrap();
        let here = format!("{}/", self.dir.path().display());
        log.lines().map(|line| line.replace(&here, "")).collect()
    }

    fn left(&self) -> Vec<String> {
        let claims = std::fs::read_dir(self.dir.path().join("state")).unwrap();
        claims
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect()
    }
}

/// Assets of a folder that has none.
fn assets(empty: &std::path::Path) -> Assets {
    let empty = empty.join("assets");
    std::fs::create_dir(&empty).unwrap();
    Assets::new(&settings(&[("STRATA_ASSETS", empty.to_str().unwrap())])).unwrap()
}

#[tokio::test]
async fn a_cluster_comes_and_goes_by_kinds_documented_commands() {
    let stage = Stage::new();
    let cluster = stage.create().await.unwrap();
    assert_eq!(cluster.versions["kubernetes"], "v1.34.0");
    assert_eq!(cluster.versions["kind"], "0.27.0");
    let outside = cluster.outside.as_ref().unwrap();
    let output = outside.run(&["probe".to_owned()], b"in").await.unwrap();
    assert_eq!((output.exit_code, output.stdout), (7, b"in".to_vec()));
    assert_eq!(stage.left(), ["strata-abc"]);
    assert!(stage.kind.destroy().await.is_empty());
    assert!(stage.left().is_empty());
    let mut asked = stage.asked();
    // The two that take things away do so side by side.
    asked[7..].sort();
    assert_eq!(
        asked,
        [
            "docker version --format {{.Server.Version}}",
            "kind version",
            "kind create cluster --name strata-abc --config - --retain --wait 180s --image node:v1 --kubeconfig kubeconfig",
            "kind load image-archive --name strata-abc .probe-image.tar",
            "docker load --input .probe-image.tar",
            "docker run --detach --rm --network kind --name strata-abc-outside strata.dev/probe:v1 serve",
            "docker exec --interactive strata-abc-outside probe",
            "docker ps --all --filter label=io.x-k8s.cloud-provider-kind.cluster=strata-abc --format {{.Names}}",
            "docker ps --all --quiet --filter name=^/?strata-abc-outside$",
            "docker rm --force strata-abc-outside",
            "docker rmi strata.dev/probe:v1",
            "kind delete cluster --name strata-abc",
        ]
    );
    let given = std::fs::read_to_string(stage.dir.path().join("CONFIG")).unwrap();
    assert!(
        given.contains("apiVersion: kind.x-k8s.io/v1alpha4"),
        "{given}"
    );
}

#[tokio::test]
async fn layers_whose_controllers_cannot_be_had_say_so() {
    let stage = Stage::new();
    let planned = istio::tests::run(&[Layer::Services, Layer::Ingress, Layer::Gateway]);
    let run = RunInfo {
        id: "abc".to_owned(),
        ..planned
    };
    let cluster = stage.kind.create(&run, &|_| {}).await.unwrap();
    let why = |layer| cluster.layers.lacks(layer).unwrap_or_default();
    for (layer, asset, missing) in [
        (
            Layer::Ingress,
            "ingress-nginx controller-v1.15.1",
            "ingress-nginx-cloud",
        ),
        (
            Layer::Gateway,
            "contour v1.33.6",
            "contour-gateway-provisioner",
        ),
    ] {
        let why = why(layer);
        assert!(
            why.starts_with(&format!("{asset} cannot be had: ")),
            "{why}"
        );
        assert!(why.contains(missing), "{why}");
    }
    assert_eq!(why(Layer::Services), "");
    let Balancer::None(why) = &cluster.load_balancer else {
        panic!("{:?}", cluster.load_balancer);
    };
    assert!(why.starts_with("metallb v0.16.1 cannot be had: "), "{why}");
    assert!(stage.kind.destroy().await.is_empty());
}

#[tokio::test]
async fn a_plugin_that_a_person_chose_has_to_be_had() {
    let mut stage = Stage::new();
    stage.kind.plugin = Plugin::Calico;
    let error = format!("{:#}", stage.create().await.unwrap_err());
    let wanted = "STRATA_CNI=calico: calico v3.31.7 cannot be had: ";
    assert!(error.starts_with(wanted), "{error}");
    assert!(!stage.asked().iter().any(|line| line.contains("create")));
    assert!(stage.kind.destroy().await.is_empty());
}

#[tokio::test]
async fn a_plugin_by_its_own_program_needs_that_program() {
    let mut stage = Stage::new();
    stage.kind.plugin = Plugin::Cilium(Some(stage.dir.path().join("absent")));
    let error = format!("{:#}", stage.create().await.unwrap_err());
    assert!(
        error.starts_with("STRATA_CNI=cilium: STRATA_CILIUM names "),
        "{error}"
    );
    assert!(stage.kind.destroy().await.is_empty());
    stage.kind.plugin = Plugin::Flannel;
    let error = format!("{:#}", stage.create().await.unwrap_err());
    assert!(
        error.starts_with("STRATA_CNI=flannel: flannel v0.28.9 cannot be had: "),
        "{error}"
    );
    assert!(!stage.asked().iter().any(|line| line.contains("create")));
    assert!(stage.kind.destroy().await.is_empty());
}

#[tokio::test]
async fn load_balancers_share_the_network_that_the_engine_tells() {
    let stage = Stage::new();
    let engine = Engine::find(None, &stage.kind.path).await.unwrap();
    let subnets = subnets(&engine, "kind").await.unwrap();
    assert_eq!(subnets, ["172.18.0.0/16".parse().unwrap()]);
    assert_eq!(
        stage.asked().last().unwrap(),
        "docker network inspect --format {{range .IPAM.Config}}{{.Subnet}} {{end}} kind"
    );
}

#[tokio::test]
async fn a_cluster_that_cannot_be_made_says_why_and_still_has_logs() {
    let stage = Stage::new();
    std::fs::write(stage.dir.path().join("FAILS"), "").unwrap();
    let error = format!("{:#}", stage.create().await.unwrap_err());
    assert!(error.contains("could not find a log line"), "{error}");
    let logs = stage.kind.export_logs().await.unwrap();
    assert_eq!(logs, Some(stage.dir.path().join("evidence/nodes")));
    assert!(stage.kind.destroy().await.is_empty());
    let asked = stage.asked();
    for command in [
        "kind export logs --name strata-abc evidence/nodes",
        "kind delete cluster --name strata-abc",
    ] {
        assert!(asked.contains(&command.to_owned()), "{command}: {asked:?}");
    }
}

#[tokio::test]
async fn where_there_is_no_cluster_there_are_no_logs() {
    let stage = Stage::new();
    assert_eq!(stage.kind.export_logs().await.unwrap(), None);
    assert!(!stage.dir.path().join("LOG").exists());
}

#[tokio::test]
async fn what_a_killed_run_left_is_removed_by_the_next() {
    let stage = Stage::new();
    let state = stage.dir.path().join("state");
    drop(Claim::new(&state, "strata-old", "").unwrap());
    stage.create().await.unwrap();
    assert!(
        stage
            .asked()
            .contains(&"kind delete cluster --name strata-old".to_owned())
    );
    assert_eq!(stage.left(), ["strata-abc"]);
}

#[tokio::test]
async fn a_cluster_that_is_kept_is_nobodys_to_remove() {
    let stage = Stage::new();
    stage.create().await.unwrap();
    let said = stage.kind.keep().await;
    assert!(
        said.contains(&"end it: scripts/sweep strata-abc".to_owned()),
        "{said:?}"
    );
    assert!(stage.kind.destroy().await.is_empty());
    assert!(
        claim::abandoned(&stage.dir.path().join("state"))
            .unwrap()
            .is_empty()
    );
    assert!(!stage.asked().iter().any(|line| line.contains("delete")));
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let error = Engine::find(None, empty.path().as_os_str())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("neither docker nor podman is in PATH"),
        "{error}"
    );
    let error = Engine::find(Some((ENGINE, "podman")), empty.path().as_os_str())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("names podman, which is not in PATH"),
        "{error}"
    );
    crate::script::write(
        &empty.path().join("docker"),
        "echo 'permission denied while trying to connect' >&2; exit 1",
    );
    let error = Engine::find(None, empty.path().as_os_str())
        .await
        .unwrap_err();
    assert!(
        format!("{error:#}").contains("docker does not answer"),
        "{error:#}"
    );
    assert!(
        format!("{error:#}").contains("permission denied"),
        "{error:#}"
    );
}

#[test]
fn what_kind_cannot_be_asked_for_is_refused() {
    let refused = |vars: &[(&str, &str)]| config(&settings(vars)).unwrap_err().0;
    assert!(refused(&[("STRATA_CNI", "weave")]).contains("flannel, or none"));
    assert!(refused(&[("STRATA_IP_FAMILY", "ipv6")]).contains("neither ipv4 nor dual"));
    let asked = config(&settings(&[
        ("STRATA_CNI", "none"),
        ("STRATA_IP_FAMILY", "dual"),
    ]))
    .unwrap();
    assert!(
        asked.contains("{ipFamily: dual, disableDefaultCNI: true}"),
        "{asked}"
    );
}
