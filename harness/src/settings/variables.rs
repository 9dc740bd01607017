//! The variables that a person may set, as a table.
//!
//! Start from [`VARIABLES`]. README has the same table for people; a test holds them against each other.

/// A variable that a person may set.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// What happens without it.
    pub default: &'static str,
}

/// All of them.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "STRATA_PROVIDER",
        meaning: "where the cluster comes from",
        default: "lab, the embedded cluster; none on other systems than Linux",
    },
    Variable {
        name: "STRATA_CNI",
        meaning: "the lab's CNI: vxlan, kindnet, flannel, calico or none; kind's: kindnet, calico, cilium, flannel or none; \
                  minikube's: bridge, calico, cilium, flannel, kindnet, none, or the path of a manifest; \
                  k3s': flannel or none",
        default: "vxlan; on kind kindnet; on k3s flannel; minikube's own choice",
    },
    Variable {
        name: "STRATA_IP_FAMILY",
        meaning: "the cluster's address families: ipv4, or dual, which is both",
        default: "dual, unless this kernel has no IPv6; on kind and k3s ipv4",
    },
    Variable {
        name: "STRATA_NODE_IMAGE",
        meaning: "the image of kind's or k3s' nodes, which decides Kubernetes' version",
        default: "the kind program's own; rancher/k3s:v1.34.1-k3s1",
    },
    Variable {
        name: "STRATA_NODES",
        meaning: "how many nodes minikube and k3s have, 1 to 5",
        default: "3",
    },
    Variable {
        name: "STRATA_KUBERNETES_VERSION",
        meaning: "the version of Kubernetes that minikube starts, as its --kubernetes-version takes it, or \
                  that k3s is a release of",
        default: "the minikube program's own; v1.34.1 on k3s",
    },
    Variable {
        name: "STRATA_K3S_BUNDLED",
        meaning: "1 takes k3s' own Traefik and ServiceLB, rather than MetalLB, ingress-nginx and Contour",
        default: "0",
    },
    Variable {
        name: "STRATA_CONTEXT",
        meaning: "the kubeconfig context of the existing cluster, which is never the current one by itself",
        default: "none; STRATA_PROVIDER=existing refuses",
    },
    Variable {
        name: "STRATA_ALLOW",
        meaning: "the same context once more, by whoever allows the run to make things in it",
        default: "none; STRATA_PROVIDER=existing says what it would make, and refuses",
    },
    Variable {
        name: "STRATA_PROBE_IMAGE",
        meaning: "the probe's image in a registry that the existing cluster's nodes pull from",
        default: "strata.dev/probe:v1, loaded into the nodes beforehand",
    },
    Variable {
        name: "STRATA_PROBE_BINARY",
        meaning: "a static probe for Linux that was built elsewhere, and is embedded as strata is built",
        default: "it is built with strata",
    },
    Variable {
        name: "STRATA_PROBE_PULL",
        meaning: "when the existing cluster's nodes pull it: IfNotPresent, Always or Never",
        default: "IfNotPresent",
    },
    Variable {
        name: "STRATA_OUTSIDE",
        meaning: "the vantage outside the existing cluster: local, which is this machine, or none",
        default: "local where this machine runs Linux and reaches the kubelet of every node",
    },
    Variable {
        name: "STRATA_INGRESS_CLASS",
        meaning: "the existing cluster's IngressClass that is judged",
        default: "the default one, or the only one",
    },
    Variable {
        name: "STRATA_GATEWAY_CLASS",
        meaning: "the existing cluster's GatewayClass that is judged",
        default: "contour, or the only accepted one",
    },
    Variable {
        name: "STRATA_INGRESS",
        meaning: "who serves Ingresses: lab or traefik in a lab",
        default: "lab",
    },
    Variable {
        name: "STRATA_GATEWAY",
        meaning: "who serves Gateways: lab or traefik in a lab",
        default: "lab",
    },
    Variable {
        name: "STRATA_TRAEFIK",
        meaning: "the traefik program, for STRATA_INGRESS and STRATA_GATEWAY in a lab",
        default: "traefik in PATH, or .tools/traefik",
    },
    Variable {
        name: "STRATA_LOAD_BALANCER",
        meaning: "who gives load balancers their addresses on kind: metallb or cloud-provider-kind",
        default: "metallb, and cloud-provider-kind in PATH where that cannot be had",
    },
    Variable {
        name: "STRATA_KEEP",
        meaning: "1 leaves the cluster running after the run and prints how to reach it",
        default: "0",
    },
    Variable {
        name: "STRATA_KEEP_GOING",
        meaning: "1 runs checks though a gate that they stand on has fallen",
        default: "0: they are blocked",
    },
    Variable {
        name: "STRATA_DEVIATIONS",
        meaning: "0 takes a failure for one, also where an implementation is known for it (suites/deviations)",
        default: "1",
    },
    Variable {
        name: "STRATA_SLOW",
        meaning: "1 runs checks that take half a minute and more, too",
        default: "0: they are skipped",
    },
    Variable {
        name: "STRATA_AFTER_LAYER",
        meaning: "a program run after each layer's bring-up and before its checks; a relative path \
                  is taken from the workspace's root",
        default: "none",
    },
    Variable {
        name: "STRATA_REPORT_DIR",
        meaning: "where reports and evidence go; a relative path is taken from the workspace's root",
        default: "target/strata",
    },
    Variable {
        name: "STRATA_ENVOY",
        meaning: "the envoy program of the lab",
        default: "envoy in PATH, else .tools/envoy at the workspace's root",
    },
    Variable {
        name: "STRATA_WATCH_LAG_MS",
        meaning: "how many milliseconds late the lab's components hear of each change at most, 1 to 10000, as where there is much to do",
        default: "they hear of it at once",
    },
    Variable {
        name: "STRATA_NFT",
        meaning: "the nft program of the lab",
        default: "nft in PATH, else in /usr/sbin or /sbin",
    },
    Variable {
        name: "STRATA_KIND",
        meaning: "the kind program",
        default: "kind in PATH",
    },
    Variable {
        name: "STRATA_ASSETS",
        meaning: "where upstream manifests and tools are taken from instead of the internet: a \
                  folder, or the http(s) address of a mirror, as scripts/assets fills it",
        default: "the addresses of manifests/assets.yaml",
    },
    Variable {
        name: "STRATA_REGISTRY",
        meaning: "the registry that the probe's image is pushed to: HOST[:PORT][/PATH], with http:// \
                  or https:// before it if need be",
        default: "none; without a scheme loopback is spoken to in plain HTTP, all else by TLS",
    },
    Variable {
        name: "STRATA_REGISTRY_USERNAME",
        meaning: "who pushes to it",
        default: "as docker's config.json says",
    },
    Variable {
        name: "STRATA_REGISTRY_PASSWORD",
        meaning: "the password or access token of who pushes",
        default: "as docker's config.json says",
    },
    Variable {
        name: "STRATA_MINIKUBE",
        meaning: "the minikube program",
        default: "minikube in PATH",
    },
    Variable {
        name: "STRATA_CILIUM",
        meaning: "the cilium program, which installs the CNI of that name on kind",
        default: "cilium in PATH",
    },
    Variable {
        name: "STRATA_ISTIOCTL",
        meaning: "the istioctl program, which installs Istio on clusters of kind, minikube and k3s",
        default: "istioctl in PATH; without it the mesh is skipped there",
    },
    Variable {
        name: "STRATA_ISTIO_PROFILE",
        meaning: "what istioctl installs: minimal or ambient",
        default: "minimal",
    },
    Variable {
        name: "STRATA_SEED",
        meaning: "a number that everything random in the checks derives from",
        default: "a new one each run; the reports name it",
    },
    Variable {
        name: "STRATA_RANDOM_CASES",
        meaning: "how many random requests each agrees_with_the_reference sends: 1 to 20000",
        default: "1000",
    },
    Variable {
        name: "STRATA_LOG",
        meaning: "what strata.log in the report directory holds, as a tracing filter",
        default: "info,strata=debug",
    },
];
