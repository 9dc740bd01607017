//! However a lab ends, nothing is left of it, and what could not be removed then is removed next.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use crate::desk::{Desk, everybody};
use crate::processes::{Tree, parent, signal};
use crate::terminal::{CTRL_C, terminal};

/// A lab in the foreground.
struct Foreground(Child);

impl Foreground {
    fn start(desk: &Desk) -> Self {
        let mut command = desk.command(&["up", "--workers", "1"]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        let last = said
            .map(Result::unwrap)
            .find(|line| line.starts_with("End it:"));
        assert_eq!(last.as_deref(), Some("End it:  ctrl-C"));
        Self(child)
    }

    fn signal(&self, number: i32) {
        signal(i64::from(self.0.id()), number);
    }
}

fn first(desk: &Desk) -> u32 {
    let pid = desk.status()["labs"][0]["pid"].as_u64().unwrap();
    u32::try_from(pid).unwrap()
}

#[test]
fn signals_end_a_lab_in_the_foreground() {
    everybody(|desk| {
        for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            let mut lab = Foreground::start(desk);
            lab.signal(number);
            assert_eq!(lab.0.wait().unwrap().code(), Some(0));
            desk.assert_nothing_left();
        }
    });
}

#[test]
fn ctrl_c_on_its_terminal_ends_a_lab_in_the_foreground() {
    everybody(|desk| {
        let mut command = desk.command(&["up", "--workers", "1"]);
        let mut keyboard = terminal(&mut command);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        drop(command);
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        said.map(Result::unwrap)
            .find(|line| line.starts_with("End it:"))
            .unwrap();
        let tree = Tree::of(child.id());
        assert!(tree.count("strata-lab:sandbox") >= 3);
        keyboard.write_all(CTRL_C).unwrap();
        assert!(child.wait().unwrap().success());
        tree.wait();
        desk.assert_nothing_left();
    });
}

#[test]
fn down_ends_a_lab_in_another_terminals_foreground() {
    everybody(|desk| {
        let lab = Foreground::start(desk);
        desk.succeeds(&["down"]);
        let output = lab.0.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(
            said.ends_with("strata-lab: lab \"lab\" has ended, as somebody asked\n"),
            "{said}"
        );
        desk.assert_nothing_left();
    });
}

#[test]
fn whatever_is_killed_only_the_record_and_the_context_are_left_and_swept() {
    type Victim = fn(&Desk, &Foreground) -> u32;
    let victims: [Victim; 3] = [
        |_, lab| lab.0.id(),
        |desk, _| first(desk),
        |desk, _| parent(first(desk)).unwrap(),
    ];
    everybody(|desk| {
        for victim in victims {
            desk.write_kubeconfig("contexts: [{name: work, context: {cluster: work}}]");
            let mut lab = Foreground::start(desk);
            let tree = Tree::of(lab.0.id());
            assert!(tree.count("strata-lab:sandbox") > 0);
            signal(i64::from(victim(desk, &lab)), libc::SIGKILL);
            tree.wait();
            // Only who saw it end otherwise has swept already.
            let swept_already = lab.0.wait().unwrap().code().is_some();
            assert_eq!(
                desk.kubeconfig().contexts.len(),
                if swept_already { 1 } else { 2 }
            );
            let output = desk.run(&["status"]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(
                said.contains("lab \"lab\" has ended without strata-lab down"),
                !swept_already,
                "{said}"
            );
            assert_eq!(
                output.stdout,
                b"There is no lab; strata-lab up starts one.\n"
            );
            let kubeconfig = desk.kubeconfig();
            assert_eq!(kubeconfig.contexts[0].name, "work");
            assert_eq!(
                (kubeconfig.contexts.len(), kubeconfig.clusters.len()),
                (1, 0)
            );
            // A log that tells why it ended was named to whoever saw it.
            let _ = fs::remove_file(desk.home().join("state/lab.log"));
            desk.assert_nothing_left();
        }
    });
}

#[test]
fn a_lab_in_the_background_that_is_killed_is_swept() {
    everybody(|desk| {
        desk.succeeds(&["up", "-d"]);
        let boot = parent(first(desk)).unwrap();
        let tree = Tree::of(boot);
        signal(i64::from(boot), libc::SIGKILL);
        tree.wait();
        // The next command may as well be one that starts it again.
        let output = desk.run(&["up", "-d"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        assert!(
            said.contains("lab \"lab\" has ended without strata-lab down"),
            "{said}"
        );
        assert_eq!(desk.kubeconfig().contexts.len(), 1);
        desk.succeeds(&["down"]);
        desk.assert_nothing_left();
    });
}
