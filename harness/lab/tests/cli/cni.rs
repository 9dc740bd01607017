//! `up --cni`: pods are wired as the plugin of that name does it.

use serde_json::json;

use crate::cluster::{Cluster, IMAGE};
use crate::desk::everybody;
use crate::image::shell;

#[test]
fn a_lab_has_the_pod_network_that_it_is_asked_for() {
    everybody(|desk| {
        for (cni, interface) in [("kindnet", "veth"), ("flannel", "cni0"), ("calico", "cali")] {
            desk.succeeds(&["up", "-d", "--workers", "1", "--cni", cni]);
            desk.with_input(&["load", "-"], shell(IMAGE));
            let cluster = Cluster::of(desk);
            let pod = json!({
                "metadata": { "name": "pod" },
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "nodeName": "strata-worker",
                    "containers": [{
                        "name": "shell", "image": IMAGE, "stdin": true,
                        "command": ["/bash", "-c", "read word"],
                    }],
                },
            });
            cluster.create(&serde_json::from_value(pod).unwrap());
            cluster.wait("pod", |said| said == "running");
            let there = desk.succeeds(&["exec", "strata-worker", "--", "ls", "/sys/class/net"]);
            assert!(there.contains(interface), "{cni}: {there}");
            desk.succeeds(&["down"]);
        }
    });
}

#[test]
fn a_pod_network_that_there_is_not_is_refused_with_those_that_there_are() {
    everybody(|desk| {
        let refused = desk.run(&["up", "--cni", "cilium"]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("vxlan, kindnet, flannel, calico"), "{said}");
        assert!(!desk.home().join("state").exists());
    });
}
