//! However a lab ends, nothing is left of it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::embed::{self, Embedding, Place};
use crate::life::{Cluster, SHELL_POD};
use crate::processes::{self, Tree, assert_no_mount, marked, signal};
use crate::terminal::{CTRL_C, terminal};
use crate::{Case, Who};

pub(crate) const CASES: &[Case] = &[
    ("ends_when_the_embedding_program_is_killed", embedder_killed),
    ("ends_when_its_boot_process_is_killed", boot_killed),
    ("ends_when_its_first_process_is_killed", first_killed),
    ("ends_when_its_handle_is_dropped", dropped),
    ("is_gone_when_stop_returns", stopped),
    ("ends_when_ctrl_c_ends_the_embedding_program", interrupted),
    (
        "takes_no_notice_of_ctrl_c_itself",
        interrupt_is_the_embedders,
    ),
    ("ends_when_its_starter_dies_during_the_start", dies_early),
    ("lives_on_when_kept_until_it_is_told_to_end", kept),
];

/// A lab with a pod in it, and all its processes.
fn lab(who: Who) -> (Embedding, Tree) {
    let embedding = Embedding::start(who);
    let tree = populate(&embedding);
    (embedding, tree)
}

fn populate(embedding: &Embedding) -> Tree {
    let mark = embedding.place.mark();
    Cluster::of(embedding).run_pod(SHELL_POD, &mark);
    let tree = Tree::of(embedding.boot());
    assert!(
        tree.count("strata-lab:boot") >= 2,
        "the boot process and the first one, and perhaps a stage that is about to start"
    );
    assert!(
        tree.count("strata-lab:sandbox") >= 4,
        "three nodes and the outside"
    );
    assert!(tree.count("/envoy") >= 1, "a container");
    assert!(!marked(&mark).is_empty());
    assert_no_mount();
    tree
}

fn assert_gone(place: &Place, tree: &Tree) {
    tree.wait();
    assert_eq!(marked(&place.mark()), Vec::<String>::new());
    assert_no_mount();
}

fn embedder_killed(who: Who) {
    let (mut embedding, tree) = lab(who);
    embedding.child.kill().unwrap();
    embedding.child.wait().unwrap();
    assert_gone(&embedding.place, &tree);
}

fn boot_killed(who: Who) {
    let (embedding, tree) = lab(who);
    signal(embedding.boot().into(), libc::SIGKILL);
    tree.wait();
    end_after(embedding, &tree);
}

fn first_killed(who: Who) {
    let (embedding, tree) = lab(who);
    signal(embedding.first().into(), libc::SIGKILL);
    tree.wait();
    end_after(embedding, &tree);
}

/// Ends an embedding program whose lab has ended already.
fn end_after(mut embedding: Embedding, tree: &Tree) {
    drop(embedding.stdin.take());
    assert!(embedding.child.wait().unwrap().success());
    assert_gone(&embedding.place, tree);
}

fn dropped(who: Who) {
    let (mut embedding, tree) = lab(who);
    embedding.tell("drop");
    tree.wait();
    end_after(embedding, &tree);
}

fn stopped(who: Who) {
    let (mut embedding, tree) = lab(who);
    embedding.tell("stop");
    tree.assert_ended();
    end_after(embedding, &tree);
}

fn interrupted(who: Who) {
    let place = Place::new();
    let mut command = Command::new(place.program());
    let mut keyboard = terminal(embed::by(who, &mut command));
    let mut embedding = Embedding::start_as(place, &mut command, &embed::config());
    // The terminal's other side is the embedding program's alone.
    drop(command);
    let tree = populate(&embedding);
    keyboard.write_all(CTRL_C).unwrap();
    let status = embedding.child.wait().unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&status),
        Some(libc::SIGINT)
    );
    assert_gone(&embedding.place, &tree);
}

fn interrupt_is_the_embedders(who: Who) {
    let place = Place::new();
    let mut command = Command::new(place.program());
    let keyboard = terminal(embed::by(who, &mut command));
    // SAFETY: the call is async-signal-safe. An ignored signal stays ignored over exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_IGN);
            Ok(())
        });
    }
    let mut embedding = Embedding::start_as(place, &mut command, &embed::config());
    drop(command);
    let tree = populate(&embedding);
    let foreground = nix::unistd::tcgetpgrp(&keyboard).unwrap();
    assert_eq!(
        foreground.as_raw(),
        i32::try_from(embedding.child.id()).unwrap()
    );
    signal(-i64::from(foreground.as_raw()), libc::SIGINT);
    // A lab that took notice would end before it could answer, or not long after: ask, and see
    // that it is told from outside only.
    assert_eq!(Cluster::of(&embedding).ready_nodes().len(), 3);
    for pid in [embedding.boot(), embedding.first()] {
        // SAFETY: takes a number only.
        let session = unsafe { libc::getsid(i32::try_from(pid).unwrap()) };
        assert_ne!(session, foreground.as_raw());
    }
    embedding.child.kill().unwrap();
    embedding.child.wait().unwrap();
    assert_gone(&embedding.place, &tree);
}

/// The lifeline ends before the configuration, with it, and after half of it.
fn dies_early(who: Who) {
    let place = Place::new();
    let config = format!("{}\n", serde_json::to_string(&embed::config()).unwrap());
    for said in ["", &config[..config.len() / 2], &config] {
        let mut command = Command::new(place.program());
        let mut child = embed::by(who, &mut command)
            .arg0("strata-lab:boot")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(said.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "after {said:?}");
        assert_eq!(
            marked(&place.mark()),
            Vec::<String>::new(),
            "after {said:?}"
        );
    }
    assert_no_mount();
}

fn kept(who: Who) {
    let (mut embedding, tree) = lab(who);
    let (boot, first) = (embedding.boot(), embedding.first());
    embedding.tell("keep");
    drop(embedding.stdin.take());
    assert!(embedding.child.wait().unwrap().success());
    assert_eq!(Cluster::of(&embedding).ready_nodes().len(), 3);
    assert_eq!(processes::parent(first), Some(boot));
    let path = embedding.lab["path"].as_str().unwrap().to_owned();
    assert!(Path::new(&path).exists());
    signal(first.into(), libc::SIGTERM);
    assert_gone(&embedding.place, &tree);
    assert!(!Path::new(&path).exists());
}
