//! The provider against stand-ins, its failures among them.

use super::stand_in::{Stage, kubelet, settings};
use super::*;
use crate::provider::stand_in::serve;

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
        Some("this run plans no gateway")
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
        let logs = stage.minikube.export_logs().await.unwrap();
        let file = stage.dir.path().join("evidence/nodes/minikube.log");
        assert_eq!((logs.is_some(), file.is_file()), (begun, begun), "{said}");
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
        // One that is given up after a millisecond may not have come to say so.
        if says != "tunnel-hangs" {
            assert_eq!(begun, says != "password", "{asked:?}");
        }
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
