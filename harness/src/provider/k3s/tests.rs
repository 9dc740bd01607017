//! The provider against a stand-in for `docker`, which takes the documented arguments alone, notes them, and answers
//! as the real one does of nodes of k3s. (Real containers that behave as k3s' do: `scripts/prove-k3s`.)

use super::*;
use crate::provider::Balancer;
use crate::provider::stand_in::{self, settings};
use crate::stack::Layer;

const DOCKER: &str = r#"
echo "docker $*${K3S_TOKEN:+ (with a secret)}" >> LOG
said=$(cat SAYS 2>/dev/null)
case "$*" in
    "version --format {{.Server.Version}}") echo 28.2.2 ;;
    "network create --label strata.dev/cluster="*) echo 0123 ;;
    "run --detach --privileged --tmpfs /run --tmpfs /var/run --network strata-abc --label strata.dev/cluster=strata-abc --name "*)
        [ -n "$K3S_TOKEN" ] || exit 1 ;;
    "run --detach --rm --network strata-abc --name strata-abc-outside strata.dev/probe:v1 serve") ;;
    "exec strata-abc-server cat /etc/rancher/k3s/k3s.yaml")
        if [ "$said" = ended ]; then
            echo 'Error response from daemon: container 0123 is not running' >&2; exit 1
        elif [ ! -e ASKED ]; then
            : > ASKED; echo 'cat: can'"'"'t open: No such file or directory' >&2; exit 1
        fi
        cat GIVEN ;;
    "inspect --format {{.State.Running}} strata-abc-server") [ "$said" = ended ] && echo false || echo true ;;
    "logs --tail 20 strata-abc-server")
        echo 'time="2026-11-30T06:00:00Z" level=info msg="Starting k3s v1.34.1+k3s1"' >&2
        echo 'time="2026-11-30T06:00:01Z" level=fatal msg="failed to find cpuset cgroup (v2)"' >&2
        echo 'goodbye' >&2 ;;
    "logs --timestamps "*) echo "what $3 said" ;;
    "port strata-abc-server 6443/tcp") echo 127.0.0.1:PORT ;;
    "exec --interactive "*" ctr --namespace=k8s.io images import -") cat > /dev/null ;;
    "load --input "* | "rm --force "* | "rmi "* | "network rm 4567") ;;
    "ps --all --quiet --filter name="*) echo 89ab ;;
    "ps --all --filter label=strata.dev/cluster=strata-"*" --format {{.Names}}") echo strata-abc-server; echo strata-abc-agent-1 ;;
    "network ls --quiet --filter label=strata.dev/cluster=strata-"*) echo 4567 ;;
    *) echo "docker: unexpected: $*" >&2; exit 1 ;;
esac
"#;

struct Stage {
    dir: tempfile::TempDir,
    k3s: K3s,
}

/// Nodes as the API tells them, all ready but those that have no `True`.
fn nodes(ready: &[&str]) -> String {
    let each = ready.iter().enumerate().map(|(number, ready)| {
        format!(
            r#"{{"metadata":{{"name":"n{number}"}},"status":{{"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
        )
    });
    each.collect::<Vec<_>>().join(",")
}

impl Stage {
    fn new(vars: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let port = stand_in::api_server(|path| {
            match path {
            "/api/v1/nodes" => Some(nodes(&["True"; 3])),
            "/apis/networking.k8s.io/v1/ingressclasses" => {
                Some(r#"{"metadata":{"name":"traefik"},"spec":{"controller":"traefik.io/ingress-controller"}}"#.to_owned())
            }
            "/apis/apps/v1/namespaces/kube-system/deployments" => {
                Some(r#"{"metadata":{"name":"traefik"},"status":{"availableReplicas":1}}"#.to_owned())
            }
            _ => None,
        }
        });
        let text = DOCKER.replace("PORT", &port.to_string());
        stand_in::program(
            dir.path(),
            "docker",
            &text,
            &["LOG", "SAYS", "GIVEN", "ASKED"],
        );
        // As the server writes it, but for TLS, which the API server here has not.
        std::fs::write(at("GIVEN"), stand_in::kubeconfig(port)).unwrap();
        std::fs::create_dir(at("assets")).unwrap();
        let assets = at("assets");
        let vars: Vec<_> = vars
            .iter()
            .copied()
            .chain([("STRATA_ASSETS", assets.to_str().unwrap())])
            .collect();
        let settings = settings(&vars);
        let k3s = K3s {
            path: dir.path().into(),
            state: Some(at("state")),
            wanted: Wanted::by(&settings).unwrap(),
            assets: Assets::new(&settings).unwrap(),
            istio: istio::Wanted::by(&settings).unwrap(),
            serving: Serving::by(&settings).unwrap(),
            report_dir: dir.path().to_owned(),
            made: Mutex::default(),
        };
        Self { dir, k3s }
    }

    async fn create(&self) -> anyhow::Result<Arc<Cluster>> {
        let run = RunInfo {
            id: "abc".to_owned(),
            ..istio::tests::run(&[Layer::Services, Layer::Ingress, Layer::Gateway])
        };
        self.k3s.create(&run, &|_| {}).await
    }

    fn says(&self, what: &str) {
        std::fs::write(self.dir.path().join("SAYS"), what).unwrap();
    }

    /// What was asked, with this test's own paths taken out.
    fn asked(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("LOG")).unwrap();
        let here = format!("{}/", self.dir.path().display());
        log.lines().map(|line| line.replace(&here, "")).collect()
    }

    fn left(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("state"))
            .unwrap()
            .count()
    }
}

#[tokio::test]
async fn a_cluster_comes_and_goes_by_the_engines_commands() {
    let stage = Stage::new(&[("STRATA_NODE_IMAGE", "k3s:v1")]);
    let cluster = stage.create().await.unwrap();
    assert_eq!(cluster.provider, "k3s");
    assert_eq!(cluster.versions["kubernetes"], "v1.34.0");
    let Balancer::None(why) = &cluster.load_balancer else {
        panic!("{:?}", cluster.load_balancer);
    };
    assert!(why.starts_with("metallb v0.16.1 cannot be had: "), "{why}");
    assert!(cluster.layers.lacks(Layer::Ingress).is_some());
    assert!(cluster.outside.is_some());
    assert_eq!(stage.left(), 1);
    assert_eq!(stage.k3s.destroy().await, Vec::<String>::new());
    assert_eq!(stage.left(), 0);
    let node = "docker run --detach --privileged --tmpfs /run --tmpfs /var/run --network strata-abc --label strata.dev/cluster=strata-abc";
    let mut asked = stage.asked();
    // Agents, and the two that take things away, side by side.
    let agents = asked
        .iter()
        .position(|line| line.contains("-agent-"))
        .unwrap();
    asked[agents..agents + 2].sort();
    let imports = asked
        .iter()
        .position(|line| line.contains(" import "))
        .unwrap();
    asked[imports..imports + 3].sort();
    let removes = asked
        .iter()
        .position(|line| line.contains(" rm ") || line.contains("name=^"))
        .unwrap();
    let last = asked.len() - 2;
    asked[removes..last].sort();
    assert_eq!(
        asked,
        [
            "docker version --format {{.Server.Version}}".to_owned(),
            "docker network create --label strata.dev/cluster=strata-abc strata-abc".to_owned(),
            format!("{node} --name strata-abc-server --hostname strata-abc-server --env K3S_TOKEN --publish 127.0.0.1::6443 k3s:v1 server --disable=traefik --disable=servicelb (with a secret)"),
            "docker exec strata-abc-server cat /etc/rancher/k3s/k3s.yaml".to_owned(),
            "docker inspect --format {{.State.Running}} strata-abc-server".to_owned(),
            "docker exec strata-abc-server cat /etc/rancher/k3s/k3s.yaml".to_owned(),
            format!("{node} --name strata-abc-agent-1 --hostname strata-abc-agent-1 --env K3S_TOKEN --env K3S_URL=https://strata-abc-server:6443 k3s:v1 agent (with a secret)"),
            format!("{node} --name strata-abc-agent-2 --hostname strata-abc-agent-2 --env K3S_TOKEN --env K3S_URL=https://strata-abc-server:6443 k3s:v1 agent (with a secret)"),
            "docker port strata-abc-server 6443/tcp".to_owned(),
            "docker exec --interactive strata-abc-agent-1 ctr --namespace=k8s.io images import -".to_owned(),
            "docker exec --interactive strata-abc-agent-2 ctr --namespace=k8s.io images import -".to_owned(),
            "docker exec --interactive strata-abc-server ctr --namespace=k8s.io images import -".to_owned(),
            "docker load --input .probe-image.tar".to_owned(),
            "docker run --detach --rm --network strata-abc --name strata-abc-outside strata.dev/probe:v1 serve".to_owned(),
            "docker ps --all --filter label=strata.dev/cluster=strata-abc --format {{.Names}}".to_owned(),
            "docker ps --all --quiet --filter name=^/?strata-abc-outside$".to_owned(),
            "docker rm --force --volumes strata-abc-server strata-abc-agent-1".to_owned(),
            "docker rm --force strata-abc-outside".to_owned(),
            "docker rmi strata.dev/probe:v1".to_owned(),
            "docker network ls --quiet --filter label=strata.dev/cluster=strata-abc".to_owned(),
            "docker network rm 4567".to_owned(),
        ]
    );
}

#[tokio::test]
async fn both_families_are_of_the_nodes_network_the_pods_and_the_services() {
    let stage = Stage::new(&[("STRATA_IP_FAMILY", "dual"), ("STRATA_NODES", "2")]);
    stage.create().await.unwrap();
    let asked = stage.asked();
    let network = "docker network create --label strata.dev/cluster=strata-abc --ipv6 --subnet fd";
    let made = asked.iter().find(|line| line.starts_with(network));
    let subnet = made.unwrap().split(' ').rev().nth(1).unwrap();
    assert!(subnet.parse::<ipnet::Ipv6Net>().unwrap().prefix_len() == 64);
    for node in ["server", "agent-1"] {
        let node = format!("--hostname strata-abc-{node} ");
        let run = asked.iter().find(|line| line.contains(&node)).unwrap();
        let switched_on =
            "--sysctl net.ipv6.conf.all.disable_ipv6=0 --sysctl net.ipv6.conf.all.forwarding=1 ";
        assert!(run.contains(switched_on), "{run}");
    }
    let server = asked.iter().find(|line| line.contains(" server --disable"));
    let told = "--cluster-cidr=10.42.0.0/16,fd00:10:42::/56 --service-cidr=10.43.0.0/16,fd00:10:43::/112 --flannel-ipv6-masq (with a secret)";
    assert!(server.unwrap().ends_with(told), "{server:?}");
    assert!(stage.k3s.destroy().await.is_empty());
    let dual = [("STRATA_IP_FAMILY", "dual")];
    let subnets = || Wanted::by(&settings(&dual)).unwrap().subnet();
    assert_ne!(subnets(), subnets());
    let bare = Wanted::by(&settings(&[dual[0], ("STRATA_CNI", "none")])).unwrap();
    assert!(!bare.server().contains(&"--flannel-ipv6-masq"));
}

#[tokio::test]
async fn what_k3s_brings_is_used_by_choice() {
    let stage = Stage::new(&[("STRATA_K3S_BUNDLED", "1")]);
    let cluster = stage.create().await.unwrap();
    let asked = stage.asked();
    assert!(
        !asked.iter().any(|line| line.contains("--disable")),
        "{asked:?}"
    );
    assert_eq!(cluster.layers.lacks(Layer::Ingress), None);
    assert!(cluster.layers.lacks(Layer::Gateway).is_some());
    assert_eq!(
        cluster.load_balancer,
        Balancer::None(bundled::NO_BALANCER.to_owned())
    );
    cluster
        .ingress
        .as_ref()
        .unwrap()
        .enable(&|_| {})
        .await
        .unwrap();
    assert!(stage.k3s.destroy().await.is_empty());
}

#[tokio::test]
async fn a_server_that_ends_says_why_and_still_has_logs() {
    let stage = Stage::new(&[]);
    stage.says("ended");
    let error = format!("{:#}", stage.create().await.unwrap_err());
    assert!(error.contains("strata-abc-server has ended: "), "{error}");
    assert!(
        error.contains("failed to find cpuset cgroup (v2)"),
        "{error}"
    );
    let logs = stage.k3s.export_logs().await.unwrap().unwrap();
    let said = std::fs::read_to_string(logs.join("strata-abc-server.log")).unwrap();
    assert_eq!(said, "what strata-abc-server said\n");
    assert!(stage.k3s.destroy().await.is_empty());
    assert!(stage.asked().contains(&"docker network rm 4567".to_owned()));
}

#[tokio::test]
async fn what_a_killed_run_left_is_removed_by_the_next_and_what_is_kept_is_not() {
    let stage = Stage::new(&[]);
    let state = stage.dir.path().join("state");
    drop(Claim::new(&state, "strata-old", "").unwrap());
    stage.create().await.unwrap();
    let listed = "docker network ls --quiet --filter label=strata.dev/cluster=strata-old";
    assert!(stage.asked().contains(&listed.to_owned()));
    let said = stage.k3s.keep().await;
    assert!(
        said.contains(&"end it: scripts/sweep strata-abc".to_owned()),
        "{said:?}"
    );
    assert!(stage.k3s.destroy().await.is_empty());
    assert!(claim::abandoned(&state).unwrap().is_empty());
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(stage.dir.path().join("kubeconfig"))
            .unwrap()
            .permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_asked_for_is_told_in_k3s_words() {
    let wanted = |vars: &[(&str, &str)]| Wanted::by(&settings(vars));
    let refused = |vars: &[(&str, &str)]| wanted(vars).unwrap_err().0;
    for (version, image) in [
        ("v1.33.5", "rancher/k3s:v1.33.5-k3s1"),
        ("1.33.5", "rancher/k3s:v1.33.5-k3s1"),
        ("v1.33.5+k3s2", "rancher/k3s:v1.33.5-k3s2"),
        ("v1.33.5-k3s2", "rancher/k3s:v1.33.5-k3s2"),
    ] {
        let made = wanted(&[("STRATA_KUBERNETES_VERSION", version)]).unwrap();
        assert_eq!(made.image, image, "{version}");
    }
    assert!(refused(&[("STRATA_KUBERNETES_VERSION", "1.33")]).contains("has three numbers"));
    let both = [
        ("STRATA_KUBERNETES_VERSION", "v1.33.5"),
        ("STRATA_NODE_IMAGE", "x"),
    ];
    assert!(refused(&both).contains("unset one"));
    assert!(refused(&[("STRATA_CNI", "cilium")]).contains("flannel, which k3s has"));
    assert!(refused(&[("STRATA_IP_FAMILY", "ipv6")]).contains("choose ipv4 or dual"));
    let one = wanted(&[("STRATA_NODES", "1"), ("STRATA_CNI", "none")]).unwrap();
    assert_eq!(one.nodes(), 1);
    assert_eq!(
        one.server(),
        [
            "server",
            "--disable=traefik",
            "--disable=servicelb",
            "--flannel-backend=none",
            "--disable-network-policy"
        ]
    );
}
