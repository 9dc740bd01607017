//! The provider against stand-ins for `minikube` and `sudo`, which take the documented arguments alone, note them,
//! and answer as the real ones do: minikube 1.38's words, by its sources. (It was never run for real; see README,
//! "What was run for real".)

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::*;

/// As `minikube start --output json` tells that a driver is missing, and as other commands tell errors.
const MINIKUBE: &str = r#"
echo "minikube $*" >> LOG
event() {
    printf '{"specversion":"1.0","id":"1","source":"https://minikube.sigs.k8s.io/","type":"io.k8s.sigs.minikube.%s","datacontenttype":"application/json","data":%s}\n' "$1" "$2"
}
exits() { printf '\nX Exiting due to %s: %s\n* \n* If the above advice does not help, please let us know:\n' "$1" "$2" >&2; exit "$3"; }
profile() { for last; do :; done; case "$last" in strata-*) ;; *) exits MK_USAGE "no profile" 14 ;; esac; }
said=$(cat SAYS 2>/dev/null)
case "$*" in
    version) [ "$said" = old ] && echo 'minikube version: v1.20.0' || printf 'minikube version: v1.38.1\ncommit: c93a4cb\n' ;;
    "start --output=json --interactive=false --embed-certs --wait-timeout=4m0s --nodes="*" --profile strata-"*)
        event step '{"currentstep":"0","message":"minikube v1.38.1 on Debian","name":"Initial Minikube Setup","totalsteps":"19"}'
        case "$said" in
            no-driver) event error '{"advice":"Install Docker","exitcode":"65","issues":"","message":"The '"'docker'"' provider was not found: exec: \"docker\": executable file not found in $PATH","name":"PROVIDER_DOCKER_NOT_FOUND","url":""}'; exit 65 ;;
            unhealthy) event error '{"advice":"","exitcode":"55","issues":"","message":"Found driver(s) but none were healthy. See above for suggestions how to fix installed drivers.","name":"DRV_NOT_HEALTHY","url":""}'; exit 55 ;;
            no-image) event error '{"advice":"","exitcode":"40","issues":"","message":"Failed to cache images: pulling gcr.io/k8s-minikube/kicbase: dial tcp: i/o timeout","name":"INET_CACHE_BINARIES","url":""}'; exit 40 ;;
            hangs) cat GATE ;;
        esac
        cp GIVEN "$KUBECONFIG" ;;
    "image load "*" --profile strata-"*) ;; # Also of what it cannot load.
    "image ls --format=short --profile strata-"*) [ "$said" = not-loaded ] || echo strata.dev/probe:v1; echo registry.k8s.io/pause:3.10 ;;
    "addons enable ingress --profile strata-"*)
        [ "$said" != no-addon ] || exits MK_ADDON_ENABLE "enable failed: run callbacks: running callbacks: [waiting for app.kubernetes.io/name=ingress-nginx pods: context deadline exceeded]" 10
        echo "* The 'ingress' addon is enabled" ;;
    "tunnel --profile strata-"*)
        case "$said" in
            tunnel-hangs) cat GATE ;;
            tunnel-ends) exits SVC_TUNNEL_START "error starting tunnel: error creating tunnel: another tunnel is already running, shut it down first" 110 ;;
        esac
        trap 'echo "sudo ip route delete 10.96.0.0/12" >> LOG; exit 0' INT
        printf 'Status:\t\n\tmachine: strata-abc\n\tpid: 1\n\troute: 10.96.0.0/12 -> 192.168.49.2\n\tminikube: Running\n\tservices: []\n    errors: \n\t\tminikube: no errors\n\t\trouter: no errors\n\t\tloadbalancer emulator: no errors\n'
        cat GATE & wait ;;
    "ip --profile strata-"*) echo 192.168.49.2 ;;
    "logs --file "*" --profile strata-"*)
        case "$said" in
            no-driver | unhealthy) echo '* Profile "strata-abc" not found. Run "minikube profile list" to view all profiles.'; exit 85 ;;
        esac
        echo '==> Audit <==' > "$3" ;;
    "delete --profile strata-"*)
        [ -z "$MINIKUBE_HOME" ] || echo "of $MINIKUBE_HOME" >> LOG ;;
    *) exits MK_USAGE "unknown command or flag: $*" 14 ;;
esac
"#;

const SUDO: &str = r#"
[ "$*" = "-n ip route" ] || { echo "sudo: unexpected: $*" >&2; exit 1; }
if [ "$(cat SAYS 2>/dev/null)" = password ]; then
    echo 'sudo: a password is required' >&2
    exit 1
fi
echo 'default via 192.0.2.1 dev eth0'
"#;

struct Stage {
    dir: tempfile::TempDir,
    minikube: Minikube,
}

/// A kubelet, as far as it is asked: it complains of plain HTTP, as Go does.
fn kubelet() -> u16 {
    serve(|_| {
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
            .to_owned()
    })
}

fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = request.split_whitespace().nth(1).unwrap_or_default();
            let _ = stream.write_all(answer(path).as_bytes());
        }
    });
    port
}

/// An API server of one node, whose kubelet is at a port of this machine, and of the Jobs of the addon.
fn api_server(kubelet: u16) -> u16 {
    serve(move |path| {
        let list = |kind: &str, items: &str| {
            format!(
                r#"{{"kind":"{kind}","apiVersion":"v1","metadata":{{"resourceVersion":"1"}},"items":[{items}]}}"#
            )
        };
        let path = path.split('?').next().unwrap_or_default();
        let body = match path {
            "/version" => r#"{"major":"1","minor":"34","gitVersion":"v1.34.0","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#.to_owned(),
            "/apis" => r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#.to_owned(),
            "/api/v1/nodes" => list("NodeList", &format!(r#"{{"metadata":{{"name":"strata-abc"}},"status":{{"addresses":[{{"type":"InternalIP","address":"127.0.0.1"}}],"daemonEndpoints":{{"kubeletEndpoint":{{"Port":{kubelet}}}}}}}}}"#)),
            "/api/v1/namespaces/ingress-nginx/pods" => list("PodList", r#"{"metadata":{"name":"ingress-nginx-controller-5f9c"},"status":{"phase":"Pending","containerStatuses":[{"name":"controller","image":"i","imageID":"","ready":false,"restartCount":0,"state":{"waiting":{"reason":"ErrImagePull","message":"pulling registry.k8s.io/ingress-nginx/controller: i/o timeout"}}}]}}"#),
            "/apis/batch/v1/namespaces/ingress-nginx/jobs" => {
                let job = |name: &str| format!(r#"{{"metadata":{{"name":"ingress-nginx-admission-{name}"}},"status":{{"succeeded":1}}}}"#);
                list("JobList", &format!("{},{}", job("create"), job("patch")))
            }
            _ => list("PodList", ""),
        };
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    })
}

impl Stage {
    fn new() -> Self {
        Self::with(&[], kubelet())
    }

    fn with(vars: &[(&str, &str)], kubelet: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let put = |name: &str, text: &str| {
            let text = ["LOG", "SAYS", "GIVEN", "GATE"]
                .iter()
                .fold(text.to_owned(), |text, name| {
                    text.replace(name, at(name).to_str().unwrap())
                });
            crate::script::write(&at(name), &text);
        };
        take_interrupts();
        put("minikube", MINIKUBE);
        put("sudo", SUDO);
        // Who reads it waits for ever, since nobody writes to it.
        nix::unistd::mkfifo(&at("GATE"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{}'}}}}], users: [{{name: u, user: {{}}}}], contexts: [{{name: c, context: {{cluster: c, user: u}}}}]}}",
            api_server(kubelet)
        );
        std::fs::write(at("GIVEN"), kubeconfig).unwrap();
        let settings = settings(vars);
        let minikube = Minikube {
            program: Some(at("minikube")),
            path: dir.path().into(),
            state: Some(at("state")),
            home: None,
            report_dir: dir.path().to_owned(),
            ..Minikube::new(&settings).unwrap()
        };
        Self { dir, minikube }
    }

    /// Lets the stand-ins do something else than well.
    fn says(&self, what: &str) {
        std::fs::write(self.dir.path().join("SAYS"), what).unwrap();
    }

    async fn create(&self) -> anyhow::Result<Arc<Cluster>> {
        let run = RunInfo {
            id: "abc".to_owned(),
            ..RunInfo::default()
        };
        self.minikube.create(&run, &|_| {}).await
    }

    /// Why there is no cluster, in one line.
    async fn refused(&self) -> String {
        let error = self.create().await.err().unwrap();
        let said = NoVerdict::from(error).because().to_owned();
        assert!(!said.contains('\n'), "{said}");
        said
    }

    /// What was asked of minikube, with this test's own paths taken out.
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

/// A program that is started with SIGINT ignored, as a shell starts what goes on in the background, hands that down to
/// whatever it starts, and a shell cannot trap it then. minikube can.
fn take_interrupts() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    if ignored & (1 << (nix::libc::SIGINT - 1)) != 0 {
        let default = nix::sys::signal::SigHandler::SigDfl;
        // SAFETY: the default is no handler, so none is run.
        unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGINT, default) }.unwrap();
    }
}

fn settings(vars: &[(&str, &str)]) -> Settings {
    let vars = vars
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    Settings::from_vars(vars).unwrap()
}

#[tokio::test]
async fn a_cluster_comes_and_goes_by_minikubes_documented_commands() {
    let stage = Stage::with(
        &[
            ("STRATA_CNI", "calico"),
            ("STRATA_KUBERNETES_VERSION", "v1.34.0"),
        ],
        kubelet(),
    );
    let cluster = stage.create().await.unwrap();
    assert_eq!(cluster.versions["kubernetes"], "v1.34.0");
    assert_eq!(cluster.versions["minikube"], "1.38.1");
    assert_eq!(cluster.load_balancer, Balancer::ClusterIps);
    assert!(cluster.outside.is_some());
    assert_eq!(cluster.layers.lacks(Layer::Ingress), None);
    assert_eq!(
        cluster.layers.lacks(Layer::Gateway),
        Some("this version does not bring up gateway on minikube")
    );
    cluster
        .ingress
        .as_ref()
        .unwrap()
        .enable(&|_| {})
        .await
        .unwrap();
    assert_eq!(stage.left(), ["strata-abc"]);
    assert_eq!(stage.minikube.destroy().await, Vec::<String>::new());
    assert!(stage.left().is_empty());
    assert_eq!(
        stage.asked(),
        [
            "minikube version",
            "minikube start --output=json --interactive=false --embed-certs --wait-timeout=4m0s --nodes=3 --cni=calico --wait=all --kubernetes-version=v1.34.0 --profile strata-abc",
            "minikube image load .probe-image.tar --profile strata-abc",
            "minikube image ls --format=short --profile strata-abc",
            "minikube tunnel --profile strata-abc",
            "minikube addons enable ingress --profile strata-abc",
            "sudo ip route delete 10.96.0.0/12",
            "minikube delete --profile strata-abc",
        ]
    );
}

#[tokio::test]
async fn a_cluster_that_cannot_be_made_says_why_and_what_to_do() {
    for (says, begun, parts) in [
        (
            "no-driver",
            false,
            [
                "PROVIDER_DOCKER_NOT_FOUND (exit code 65)",
                "install docker, or choose another driver by MINIKUBE_DRIVER",
            ],
        ),
        (
            "unhealthy",
            false,
            ["DRV_NOT_HEALTHY (exit code 55)", "install or mend a driver"],
        ),
        (
            "no-image",
            true,
            [
                "pulling gcr.io/k8s-minikube/kicbase",
                "minikube start --download-only",
            ],
        ),
        (
            "not-loaded",
            true,
            [
                "the nodes have no image strata.dev/probe:v1",
                "minikube logs --profile strata-abc",
            ],
        ),
    ] {
        let stage = Stage::new();
        stage.says(says);
        let said = stage.refused().await;
        for part in parts {
            assert!(said.contains(part), "{said}");
        }
        // Of what was not even begun there are no logs.
        let log = stage.dir.path().join("minikube.log");
        let named = said.contains(&format!("minikube's logs are in {}", log.display()));
        assert_eq!((named, log.is_file()), (begun, begun), "{said}");
        assert!(stage.minikube.destroy().await.is_empty());
        assert!(
            stage
                .asked()
                .contains(&"minikube delete --profile strata-abc".to_owned())
        );
        assert!(stage.left().is_empty());
    }
}

#[tokio::test]
async fn a_start_that_hangs_is_ended_and_what_it_began_is_removed() {
    let mut stage = Stage::new();
    stage.minikube.limits.start = Duration::from_millis(1);
    stage.says("hangs");
    let said = stage.refused().await;
    assert!(
        said.contains("creating a cluster did not end within 0 s: minikube start"),
        "{said}"
    );
    assert!(stage.minikube.destroy().await.is_empty());
    assert!(stage.left().is_empty());
}

#[tokio::test]
async fn a_program_that_is_missing_or_too_old_is_said_before_anything_is_begun() {
    let stage = Stage::new();
    stage.says("old");
    let said = stage.refused().await;
    assert!(
        said.contains("is minikube 1.20.0, and strata needs 1.30.0 or newer"),
        "{said}"
    );
    assert!(
        said.contains("install it (minikube.sigs.k8s.io/docs/start), or set STRATA_MINIKUBE"),
        "{said}"
    );
    assert_eq!(stage.asked(), ["minikube version"]);
    std::fs::remove_file(stage.dir.path().join("minikube")).unwrap();
    let said = stage.refused().await;
    assert!(
        said.contains("which is not a file; give the path of minikube"),
        "{said}"
    );
    assert!(stage.minikube.destroy().await.is_empty());
}

#[tokio::test]
async fn without_a_right_to_add_routes_there_are_no_load_balancers_and_the_reason_is_told() {
    for (says, part) in [
        (
            "password",
            "which wants a password (sudo: a password is required); let sudo know it beforehand (sudo -v)",
        ),
        (
            "tunnel-ends",
            "another tunnel is already running, shut it down first; end the other tunnel",
        ),
        (
            "tunnel-hangs",
            "it said nothing within 0 s, as if it waited for a password",
        ),
    ] {
        let mut stage = Stage::new();
        if says == "tunnel-hangs" {
            stage.minikube.limits.tunnel = Duration::from_millis(1);
        }
        stage.says(says);
        let cluster = stage.create().await.unwrap();
        let Balancer::None(why) = &cluster.load_balancer else {
            panic!("{:?}", cluster.load_balancer)
        };
        assert!(why.contains(part), "{why}");
        let lacks = cluster
            .lacks(crate::Need::LoadBalancer)
            .await
            .unwrap()
            .unwrap();
        assert!(lacks.ends_with(why), "{lacks}");
        let asked = stage.asked();
        let begun = asked.iter().any(|line| line.starts_with("minikube tunnel"));
        assert_eq!(begun, says != "password", "{asked:?}");
        assert!(stage.minikube.destroy().await.is_empty());
    }
    let stage = Stage::new();
    std::fs::remove_file(stage.dir.path().join("sudo")).unwrap();
    let cluster = stage.create().await.unwrap();
    let Balancer::None(why) = &cluster.load_balancer else {
        panic!("{:?}", cluster.load_balancer)
    };
    assert!(why.contains("sudo is not in PATH; install it"), "{why}");
}

#[tokio::test]
async fn where_this_machine_does_not_reach_the_nodes_there_is_no_tunnel() {
    let proxy = serve(|_| "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned());
    let stage = Stage::with(&[("STRATA_NODES", "1")], proxy);
    let cluster = stage.create().await.unwrap();
    assert!(cluster.outside.is_none());
    assert!(
        matches!(&cluster.load_balancer, Balancer::None(why) if why.contains("does not reach the kubelet"))
    );
    let asked = stage.asked();
    assert!(
        asked[1].contains("--nodes=1 --wait=all --profile"),
        "{asked:?}"
    );
    assert!(
        !asked.iter().any(|line| line.starts_with("minikube tunnel")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_addon_whose_image_cannot_be_pulled_names_the_pod() {
    let stage = Stage::new();
    let cluster = stage.create().await.unwrap();
    stage.says("no-addon");
    let error = cluster
        .ingress
        .as_ref()
        .unwrap()
        .enable(&|_| {})
        .await
        .unwrap_err();
    let said = NoVerdict::from(error).because().to_owned();
    for part in [
        "Pod ingress-nginx-controller-5f9c: container controller is waiting: ErrImagePull",
        "MK_ADDON_ENABLE (exit code 10)",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(stage.minikube.destroy().await.is_empty());
}

#[tokio::test]
async fn what_a_killed_run_left_is_removed_by_the_next_where_it_was_made() {
    let stage = Stage::new();
    let state = stage.dir.path().join("state");
    drop(Claim::new(&state, "strata-old", "home /elsewhere\n").unwrap());
    stage.create().await.unwrap();
    let asked = stage.asked();
    let at = asked
        .iter()
        .position(|line| line == "minikube delete --profile strata-old")
        .unwrap();
    assert_eq!(asked[at + 1], "of /elsewhere");
    assert_eq!(stage.left(), ["strata-abc"]);
}

#[tokio::test]
async fn a_cluster_that_is_kept_is_nobodys_to_remove_and_its_tunnel_ends() {
    let stage = Stage::new();
    stage.create().await.unwrap();
    let said = stage.minikube.keep().await;
    for line in [
        "end it: scripts/sweep strata-abc",
        "its first node, where the addon ingress serves: 192.168.49.2",
        "its tunnel has ended; start it again: minikube tunnel -p strata-abc",
    ] {
        assert!(said.contains(&line.to_owned()), "{said:?}");
    }
    assert!(stage.minikube.destroy().await.is_empty());
    assert!(
        claim::abandoned(&stage.dir.path().join("state"))
            .unwrap()
            .is_empty()
    );
    let asked = stage.asked();
    assert!(
        asked.contains(&"sudo ip route delete 10.96.0.0/12".to_owned()),
        "{asked:?}"
    );
    assert!(
        !asked.iter().any(|line| line.contains("minikube delete")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_load_balancer_of_cluster_ips_has_no_address_of_its_own() {
    let stage = Stage::new();
    let cluster = stage.create().await.unwrap();
    assert_eq!(
        cluster.lacks(crate::Need::LoadBalancer).await.unwrap(),
        None
    );
    let lacks = cluster
        .lacks(crate::Need::BalancerAddress)
        .await
        .unwrap()
        .unwrap();
    assert!(
        lacks.contains("here they have their Services' cluster IPs"),
        "{lacks}"
    );
    assert!(stage.minikube.destroy().await.is_empty());
}

#[test]
fn what_minikube_cannot_be_asked_for_is_refused() {
    let refused = |vars: &[(&str, &str)]| wanted(&settings(vars)).unwrap_err().0;
    assert!(refused(&[("STRATA_CNI", "vxlan")]).contains("choose one of bridge, calico"));
    assert!(refused(&[("STRATA_CNI", "bridge")]).contains("or STRATA_NODES=1"));
    assert!(refused(&[("STRATA_CNI", "./no.yaml")]).contains("no.yaml, which is not a file"));
    assert!(refused(&[("STRATA_IP_FAMILY", "dual")]).contains("choose ipv4"));
    let asked = |vars: &[(&str, &str)]| wanted(&settings(vars)).unwrap().join(" ");
    assert_eq!(asked(&[]), "--nodes=3 --wait=all");
    assert_eq!(
        asked(&[("STRATA_CNI", "none")]),
        "--nodes=3 --cni=false --wait=apiserver"
    );
    assert_eq!(
        asked(&[("STRATA_CNI", "bridge"), ("STRATA_NODES", "1")]),
        "--nodes=1 --cni=bridge --wait=all"
    );
}
