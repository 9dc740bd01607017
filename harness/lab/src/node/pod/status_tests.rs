use super::*;
use crate::testing::object_of_yaml;

fn pod(spec: &str) -> Pod {
    object_of_yaml(&format!("{{metadata: {{name: a}}, spec: {spec}}}"))
}

fn running_since() -> ContainerState {
    object_of_yaml("{running: {startedAt: '2026-01-01T00:00:00Z'}}")
}

fn exited(code: i32) -> ContainerState {
    object_of_yaml(&format!("{{terminated: {{exitCode: {code}}}}}"))
}

fn phase(
    spec: &str,
    init: &[ContainerState],
    containers: &[ContainerState],
    ended: bool,
) -> String {
    let pod = pod(spec);
    let mut state = PodState::new(pod.spec.as_ref().unwrap());
    for (status, given) in state.init.iter_mut().zip(init) {
        status.state = Some(given.clone());
    }
    for (status, given) in state.containers.iter_mut().zip(containers) {
        status.state = Some(given.clone());
    }
    state.ended = ended;
    report(&pod, &state, &[[172, 30, 0, 3].into()])
        .phase
        .unwrap()
}

#[test]
fn phases() {
    let one = "{containers: [{name: a}]}";
    let never = "{restartPolicy: Never, containers: [{name: a}, {name: b}]}";
    let on_failure = "{restartPolicy: OnFailure, containers: [{name: a}]}";
    let init = "{initContainers: [{name: i}], containers: [{name: a}]}";
    let init_never = "{restartPolicy: Never, initContainers: [{name: i}], containers: [{name: a}]}";
    let (up, ok, bad) = (running_since(), exited(0), exited(1));
    let wait = waiting("ContainerCreating", None);
    for (spec, init, containers, ended, expected) in [
        (one, vec![], vec![wait.clone()], false, "Pending"),
        (one, vec![], vec![up.clone()], false, "Running"),
        (one, vec![], vec![bad.clone()], false, "Running"),
        (one, vec![], vec![ok.clone()], true, "Succeeded"),
        (one, vec![], vec![bad.clone()], true, "Failed"),
        (
            never,
            vec![],
            vec![ok.clone(), up.clone()],
            false,
            "Running",
        ),
        (
            never,
            vec![],
            vec![ok.clone(), ok.clone()],
            false,
            "Succeeded",
        ),
        (
            never,
            vec![],
            vec![ok.clone(), bad.clone()],
            false,
            "Failed",
        ),
        (on_failure, vec![], vec![bad.clone()], false, "Running"),
        (on_failure, vec![], vec![ok.clone()], false, "Succeeded"),
        (init, vec![up.clone()], vec![wait.clone()], false, "Pending"),
        (
            init,
            vec![bad.clone()],
            vec![wait.clone()],
            false,
            "Pending",
        ),
        (init, vec![ok.clone()], vec![up.clone()], false, "Running"),
        (
            init_never,
            vec![bad.clone()],
            vec![wait.clone()],
            false,
            "Failed",
        ),
    ] {
        assert_eq!(
            phase(spec, &init, &containers, ended),
            expected,
            "{spec} {containers:?}"
        );
    }
}

#[test]
fn ready_says_which_container_is_not_and_keeps_what_others_report() {
    let mut pod =
        pod("{readinessGates: [{conditionType: x/gate}], containers: [{name: a}, {name: b}]}");
    pod.status = object_of_yaml(
        "{conditions: [{type: PodScheduled, status: 'True'}, {type: x/gate, status: 'False'}]}",
    );
    let mut state = PodState::new(pod.spec.as_ref().unwrap());
    for status in &mut state.containers {
        status.state = Some(running_since());
    }
    state.containers[0].ready = true;
    let ready = |state: &PodState| {
        let status = report(&pod, state, &[[172, 30, 0, 3].into()]);
        let conditions = status.conditions.unwrap();
        assert!(
            conditions
                .iter()
                .any(|condition| condition.type_ == "x/gate")
        );
        let ready = conditions
            .into_iter()
            .find(|condition| condition.type_ == "Ready")
            .unwrap();
        (ready.status, ready.message)
    };
    assert_eq!(
        ready(&state),
        (
            "False".to_owned(),
            Some("containers with unready status: [b]".to_owned())
        )
    );
    state.containers[1].ready = true;
    let (status, message) = ready(&state);
    assert_eq!(status, "False");
    assert!(message.unwrap().contains("x/gate"));
}

#[test]
fn quality_of_service() {
    let full = "{limits: {cpu: '1', memory: 1Gi}}";
    let half = "{requests: {cpu: '1'}}";
    for (resources, expected) in [
        ("{}", "BestEffort"),
        (half, "Burstable"),
        (full, "Guaranteed"),
    ] {
        let pod = pod(&format!(
            "{{containers: [{{name: a, resources: {resources}}}]}}"
        ));
        assert_eq!(qos_class(pod.spec.as_ref().unwrap()), expected);
    }
}
