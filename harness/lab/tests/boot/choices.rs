//! What a lab can be told to be, without a CNI plugin or of two address families; and that its pods know the
//! names of what is outside of it.

use std::process::{Command, Stdio};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, LogParams, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::wait::await_condition;
use kube::runtime::watcher::{self, watcher};
use serde_json::json;
use strata_lab::boot::{IpFamilies, LabConfig};
use strata_lab::topology::ENVOY_IMAGE;

use crate::embed::{self, Embedding, Place};
use crate::life::{Cluster, SHELL_POD};
use crate::{Case, Who};

pub(crate) const CASES: &[Case] = &[
    (
        "without_a_plugin_nodes_are_not_ready_and_pods_wait",
        no_plugin,
    ),
    (
        "nodes_and_pods_have_addresses_of_both_families",
        both_families,
    ),
    ("pods_are_told_the_names_of_the_outside", names_outside),
];

/// A question over TCP for the address of `outside`, and what of the answer is not zero, in hexadecimal: as
/// much as a shell can do without another program.
const ASK: &str = r#"
export LC_ALL=C
exec 3<>/dev/tcp/10.96.0.10/53
printf '\0\31\0\7\1\0\0\1\0\0\0\0\0\0\7outside\0\0\1\0\1' >&3
seen=
while IFS= read -r -t 10 -N 1 -u 3 byte; do
    printf -v hex %02x "'$byte"
    seen=$seen${hex: -2}
    case $seen in *ac1e01) echo "found $seen"; exit ;; esac
done
echo "none $seen"
"#;

fn start(who: Who, config: &LabConfig) -> Embedding {
    let place = Place::new();
    let mut command = Command::new(place.program());
    command.stdin(Stdio::piped());
    Embedding::start_as(place, embed::by(who, &mut command), config)
}

fn nodes(cluster: &Cluster) -> Vec<Node> {
    let nodes = Api::<Node>::all(cluster.client.clone());
    let listed = cluster.runtime.block_on(nodes.list(&ListParams::default()));
    listed.unwrap().items
}

fn no_plugin(who: Who) {
    let config = LabConfig {
        cni: None,
        ..embed::config()
    };
    let embedding = start(who, &config);
    let cluster = Cluster::of(&embedding);
    for node in nodes(&cluster) {
        let conditions = node.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let ready = conditions.iter().find(|one| one.type_ == "Ready").unwrap();
        assert_eq!(ready.status, "False", "{}", node.name_any());
        let message = ready.message.as_deref().unwrap();
        assert!(message.contains("cni plugin not initialized"), "{message}");
    }
    // What is in its node's network needs no plugin.
    cluster.run_pod(SHELL_POD, &embedding.place.mark());
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), "default");
    let events = Api::<Event>::namespaced(cluster.client.clone(), "default");
    let waits = serde_json::from_value::<Pod>(json!({
        "metadata": {"name": "waits"},
        "spec": {
            "nodeName": "strata-worker",
            "automountServiceAccountToken": false,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "shell", "image": ENVOY_IMAGE, "command": ["/envoy"]}],
        },
    }));
    cluster.runtime.block_on(async {
        pods.create(&PostParams::default(), &waits.unwrap())
            .await
            .unwrap();
        let told = watcher(events, watcher::Config::default()).applied_objects();
        let told = told.try_filter(|event| {
            let of_pod = event.involved_object.name.as_deref() == Some("waits");
            let waiting = event.reason.as_deref() == Some("NetworkNotReady");
            futures::future::ready(of_pod && waiting)
        });
        let mut told = std::pin::pin!(told);
        let event = told.next().await.unwrap().unwrap();
        let message = event.message.unwrap();
        assert!(message.starts_with("network is not ready: "), "{message}");
        let status = pods.get("waits").await.unwrap().status.unwrap();
        assert_eq!(status.pod_ip, None);
    });
    embedding.end();
}

fn both_families(who: Who) {
    let config = LabConfig {
        ip_families: IpFamilies::Dual,
        ..embed::config()
    };
    let embedding = start(who, &config);
    let cluster = Cluster::of(&embedding);
    assert_eq!(cluster.ready_nodes().len(), 3);
    let worker = nodes(&cluster);
    let worker = worker
        .iter()
        .find(|node| node.name_any() == "strata-worker");
    let worker = worker.unwrap();
    let cidrs = worker.spec.as_ref().unwrap().pod_cidrs.clone().unwrap();
    assert_eq!(cidrs, ["10.244.1.0/24", "fd00:10:244:1::/64"]);
    let pod = cluster.run_pod(SHELL_POD, &embedding.place.mark());
    let ips = pod.status.unwrap().pod_ips.unwrap().into_iter();
    let ips: Vec<_> = ips.map(|one| one.ip).collect();
    assert_eq!(ips, ["172.30.0.3", "fd00:172:30::3"]);
    embedding.end();
}

fn names_outside(who: Who) {
    let embedding = Embedding::start(who);
    let cluster = Cluster::of(&embedding);
    let pod = serde_json::from_value::<Pod>(json!({
        "metadata": {"name": "asks"},
        "spec": {
            "restartPolicy": "OnFailure",
            "automountServiceAccountToken": false,
            "containers": [
                {"name": "shell", "image": ENVOY_IMAGE, "command": ["/envoy", "-ec", ASK]},
            ],
        },
    }));
    let pods = Api::<Pod>::namespaced(cluster.client.clone(), "default");
    let said = cluster.runtime.block_on(async {
        pods.create(&PostParams::default(), &pod.unwrap())
            .await
            .unwrap();
        let succeeded = |pod: Option<&Pod>| {
            let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
            phase == Some("Succeeded")
        };
        await_condition(pods.clone(), "asks", succeeded)
            .await
            .unwrap();
        pods.logs("asks", &LogParams::default()).await.unwrap()
    });
    // 172.30.0.1
    assert!(
        said.starts_with("found ") && said.ends_with("ac1e01\n"),
        "{said}"
    );
    embedding.end();
}
