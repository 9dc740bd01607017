//! Stand-ins for `minikube` and `sudo`, which take the documented arguments alone, note them, and answer as the real
//! ones do: minikube 1.38's words, by its sources. (It was never run for real; see README, "What was run for real".)

use super::*;
pub(super) use crate::provider::stand_in::settings;
use crate::provider::stand_in::{self as shared, serve};

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

/// A provider whose programs are the stand-ins.
pub(super) struct Stage {
    pub(super) dir: tempfile::TempDir,
    pub(super) minikube: Minikube,
}

/// A kubelet, as far as it is asked: it complains of plain HTTP, as Go does.
pub(super) fn kubelet() -> u16 {
    serve(|_| {
        "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
            .to_owned()
    })
}

/// An API server of one node, whose kubelet is at a port of this machine, and of the Jobs of the addon.
fn api_server(kubelet: u16) -> u16 {
    let job = |name: &str| {
        format!(
            r#"{{"metadata":{{"name":"ingress-nginx-admission-{name}"}},"status":{{"succeeded":1}}}}"#
        )
    };
    let jobs = format!("{},{}", job("create"), job("patch"));
    let node = format!(
        r#"{{"metadata":{{"name":"strata-abc"}},"status":{{"addresses":[{{"type":"InternalIP","address":"127.0.0.1"}}],"daemonEndpoints":{{"kubeletEndpoint":{{"Port":{kubelet}}}}}}}}}"#
    );
    let pod = r#"{"metadata":{"name":"ingress-nginx-controller-5f9c"},"status":{"phase":"Pending","containerStatuses":[{"name":"controller","image":"i","imageID":"","ready":false,"restartCount":0,"state":{"waiting":{"reason":"ErrImagePull","message":"pulling registry.k8s.io/ingress-nginx/controller: i/o timeout"}}}]}}"#;
    shared::api_server(move |path| match path {
        "/api/v1/nodes" => Some(node.clone()),
        "/api/v1/namespaces/ingress-nginx/pods" => Some(pod.to_owned()),
        "/apis/batch/v1/namespaces/ingress-nginx/jobs" => Some(jobs.clone()),
        _ => None,
    })
}

impl Stage {
    pub(super) fn new() -> Self {
        Self::with(&[], kubelet())
    }

    pub(super) fn with(vars: &[(&str, &str)], kubelet: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        take_interrupts();
        for (name, text) in [("minikube", MINIKUBE), ("sudo", SUDO)] {
            shared::program(dir.path(), name, text, &["LOG", "SAYS", "GIVEN", "GATE"]);
        }
        // Who reads it waits for ever, since nobody writes to it.
        nix::unistd::mkfifo(&at("GATE"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let kubeconfig = shared::kubeconfig(api_server(kubelet));
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
    pub(super) fn says(&self, what: &str) {
        std::fs::write(self.dir.path().join("SAYS"), what).unwrap();
    }

    pub(super) async fn create(&self) -> anyhow::Result<Arc<Cluster>> {
        let run = RunInfo {
            id: "abc".to_owned(),
            ..RunInfo::default()
        };
        self.minikube.create(&run, &|_| {}).await
    }

    /// Why there is no cluster, in one line.
    pub(super) async fn refused(&self) -> String {
        let error = self.create().await.err().unwrap();
        let said = NoVerdict::from(error).because().to_owned();
        assert!(!said.contains('\n'), "{said}");
        said
    }

    /// What was asked of minikube, with this test's own paths taken out.
    pub(super) fn asked(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("LOG")).unwrap();
        let here = format!("{}/", self.dir.path().display());
        log.lines().map(|line| line.replace(&here, "")).collect()
    }

    pub(super) fn left(&self) -> Vec<String> {
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
