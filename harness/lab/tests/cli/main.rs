//! `strata-lab` as people use it: the program itself, from a copy at a path that no other process
//! has, so that what is left of its labs can be found. As root, every case is run as an ordinary
//! user as well. There is no environment but a home.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

mod cluster;
mod cni;
mod desk;
mod end;
#[path = "../support/image.rs"]
mod image;
mod load;
#[path = "../support/processes.rs"]
mod processes;
mod streams;
#[path = "../support/terminal.rs"]
mod terminal;

use serde_json::json;

use self::desk::everybody;

#[test]
fn a_lab_in_the_background_can_be_used_and_ended() {
    everybody(|desk| {
        let said = desk.succeeds(&["up", "-d"]);
        assert!(said.starts_with("Lab \"lab\" is up in "), "{said}");
        assert!(
            said.contains("context strata-lab in ~/.kube/config"),
            "{said}"
        );
        assert!(said.ends_with("End it:  strata-lab down\n"), "{said}");
        let kubeconfig = desk.kubeconfig();
        assert_eq!(kubeconfig.current_context.as_deref(), Some("strata-lab"));

        let status = desk.status();
        let lab = &status["labs"][0];
        assert_eq!(
            (&lab["name"], &lab["state"]),
            (&json!("lab"), &json!("ready"))
        );
        let nodes = lab["nodes"].as_array().unwrap();
        let nodes = nodes
            .iter()
            .map(|node| (node["name"].as_str().unwrap(), node["ready"] == true));
        let expected = ["strata-control-plane", "strata-worker", "strata-worker2"];
        assert_eq!(nodes.collect::<Vec<_>>(), expected.map(|name| (name, true)));
        assert!(lab["memory"]["pss"].as_u64().unwrap() > 1 << 20, "{lab}");
        let table = desk.succeeds(&["status"]);
        assert!(table.starts_with("LAB   STATE   NODES"), "{table}");
        assert!(
            table.contains("strata-worker2         Ready   172.30.0.4"),
            "{table}"
        );

        let log = desk.succeeds(&["logs", "--tail", "1"]);
        assert!(log.contains(" ready took="), "{log}");
        let refused = desk.fails(&["up", "-d"]);
        assert!(
            refused.contains("lab \"lab\" is up already, at https://127.0.0.1:"),
            "{refused}"
        );

        let ended = desk.succeeds(&["down"]);
        assert!(ended.starts_with("Lab \"lab\" has ended ("), "{ended}");
        desk.assert_nothing_left();
        assert!(!desk.home().join(".kube/config").exists());
        let again = desk.succeeds(&["down"]);
        assert_eq!(again, "There is no lab \"lab\"; nothing to end.\n");
        assert_eq!(
            desk.succeeds(&["status"]),
            "There is no lab; strata-lab up starts one.\n"
        );
    });
}

#[test]
fn labs_are_there_side_by_side() {
    everybody(|desk| {
        desk.succeeds(&["up", "-d", "one", "--workers", "1"]);
        desk.succeeds(&["up", "-d", "--name", "two", "--workers", "3"]);
        let status = desk.status();
        let labs = status["labs"].as_array().unwrap().iter();
        let labs = labs.map(|lab| {
            let nodes = lab["nodes"].as_array().unwrap().len();
            (
                lab["name"].as_str().unwrap(),
                lab["context"].as_str().unwrap(),
                nodes,
            )
        });
        assert_eq!(
            labs.collect::<Vec<_>>(),
            [("one", "strata-one", 2), ("two", "strata-two", 4)]
        );
        let contexts = desk.kubeconfig().contexts;
        let contexts = contexts.iter().map(|context| context.name.as_str());
        assert_eq!(contexts.collect::<Vec<_>>(), ["strata-one", "strata-two"]);
        let refused = desk.fails(&["logs"]);
        assert_eq!(
            refused,
            "strata-lab: there is no lab \"lab\", but there is \"one\", \"two\"; choose with --name\n"
        );
        desk.succeeds(&["down", "one"]);
        let kubeconfig = desk.kubeconfig();
        assert_eq!(kubeconfig.current_context.as_deref(), Some("strata-two"));
        assert_eq!(kubeconfig.contexts.len(), 1);
        let status = desk.status();
        assert_eq!(status["labs"][0]["state"], "ready");
        desk.succeeds(&["down", "--all"]);
        desk.assert_nothing_left();
    });
}

#[test]
fn commands_run_in_a_nodes_network_with_the_hosts_files() {
    everybody(|desk| {
        desk.succeeds(&["up", "-d", "--workers", "1"]);
        let inside = |script: &str| {
            let command = ["exec", "strata-worker", "--", "sh", "-c", script];
            desk.succeeds(&command)
        };
        assert_eq!(inside("cat /proc/sys/kernel/hostname"), "strata-worker\n");
        assert!(inside("ip -br address show eth0").contains("172.30.0.3/24"));
        assert!(inside("nft list tables").contains("kube-proxy"));
        // Which network /sys shows.
        let address = inside("cat /sys/class/net/eth0/address");
        assert!(inside("ip -o link show eth0").contains(address.trim_end()));
        // Its processes are the lab's, and no other.
        assert!(inside("cat /proc/1/cmdline").starts_with("strata-lab:boot"));
        assert_eq!(
            desk.with_input(&["exec", "node/strata-worker", "--", "cat"], "in"),
            "in"
        );
        let code = |script: &str| {
            let command = ["exec", "strata-worker", "--", "sh", "-c", script];
            desk.run(&command).status.code()
        };
        assert_eq!(code("exit 7"), Some(7));
        assert_eq!(code("kill -9 $$"), Some(137));
        let missing = desk.run(&["exec", "strata-worker", "--", "no-such-program"]);
        assert_eq!(missing.status.code(), Some(127));
        let refused = desk.fails(&["exec", "node/nope", "--", "true"]);
        assert_eq!(
            refused,
            "strata-lab: there is no node nope in lab \"lab\"\n"
        );
        desk.succeeds(&["down"]);
    });
}

#[test]
fn shells_are_told_what_there_is() {
    everybody(|desk| {
        for shell in ["bash", "zsh", "fish"] {
            let script = desk.succeeds(&["completion", shell]);
            assert!(script.contains("kubeconfig"), "{script}");
        }
    });
}

#[test]
fn what_is_wrong_is_said_before_anything_is_started() {
    everybody(|desk| {
        for (arguments, code, expected) in [
            (&["up", "-d", "Lab"][..], 2, "a lab's name has 1 to 63"),
            (
                &["up", "-d", "--nft", "/nope"],
                1,
                "/nope, given as nft, is not a file",
            ),
            (
                &["up", "-d", "--workers", "51"],
                1,
                "a lab has 1 to 50 workers, not 51",
            ),
            (
                &["up", "-d", "--image", "/nope"],
                1,
                "cannot load image archive /nope",
            ),
            (&["exec", "x", "--", "y"], 1, "there is no lab \"lab\""),
        ] {
            let output = desk.run(arguments);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert!(said.contains(expected), "{said}");
        }
        let config = desk.home().join(".kube/config");
        desk.write_kubeconfig("clusters: [");
        let refused = desk.fails(&["up", "-d"]);
        assert!(
            refused.contains("is not a kubeconfig, and is left as it is"),
            "{refused}"
        );
        assert_eq!(std::fs::read_to_string(&config).unwrap(), "clusters: [");
        desk.assert_nothing_left();
    });
}
