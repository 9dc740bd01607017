//! What the model found, each as the steps that showed it.

use crate::kinds::Kind;
use crate::op::{At, Content, Edit, Form, Guard, Propagation, Select, Start, Step, Sub, Version};
use crate::server::Server;

const EMPTY: Content = Content {
    label: 0,
    note: 0,
    finalizers: 0,
    a: 0,
    b: 0,
    items: 0,
    bad: false,
};

fn hold(steps: &[Step]) {
    if let Err(error) = Server::lab().run(steps) {
        panic!("{error:#}");
    }
}

const fn first(kind: Kind) -> At {
    At { kind, name: 0 }
}

fn create(at: At, content: Content) -> Step {
    Step::Create {
        at,
        content,
        by: 0,
        dry: false,
    }
}

fn put(at: At, content: Content, whole: bool, version: Version) -> Step {
    Step::Update {
        at,
        content,
        whole,
        version,
        by: 1,
        dry: false,
    }
}

fn edit(at: At, edit: Edit) -> Step {
    Step::Patch {
        at,
        form: Form::Merge,
        edits: vec![edit],
        version: Version::None,
        by: 1,
        dry: false,
    }
}

fn apply(at: At, content: Content, by: u8) -> Step {
    Step::Apply {
        at,
        content,
        by,
        force: false,
        dry: false,
    }
}

fn delete(at: At, propagation: Option<Propagation>) -> Step {
    Step::Delete {
        at,
        propagation,
        guard: Guard::None,
        grace: None,
        dry: false,
    }
}

fn watch(kind: Kind) -> Step {
    Step::Watch {
        kind,
        select: Select::All,
        from: Start::Now,
    }
}

#[test]
fn a_put_without_managed_fields_means_no_harm_to_them() {
    let at = first(Kind::ConfigMap);
    hold(&[
        create(
            at,
            Content {
                a: 1,
                b: 1,
                ..EMPTY
            },
        ),
        put(
            at,
            Content {
                a: 2,
                b: 1,
                ..EMPTY
            },
            false,
            Version::None,
        ),
    ]);
}

#[test]
fn a_custom_object_is_replaced_only_in_a_version_that_is_named() {
    let at = first(Kind::Thing);
    for version in [Version::None, Version::Current, Version::Stale] {
        hold(&[
            create(at, EMPTY),
            put(at, Content { a: 1, ..EMPTY }, true, version),
        ]);
    }
}

#[test]
fn a_put_makes_a_service_and_no_config_map() {
    for kind in [Kind::Service, Kind::ConfigMap] {
        hold(&[put(first(kind), EMPTY, false, Version::None)]);
    }
}

#[test]
fn no_finalizer_comes_while_an_object_goes() {
    let at = first(Kind::ConfigMap);
    hold(&[
        create(
            at,
            Content {
                finalizers: 1,
                ..EMPTY
            },
        ),
        delete(at, None),
        edit(at, Edit::Finalizers(3)),
        edit(at, Edit::Finalizers(1)),
    ]);
}

#[test]
fn the_last_finalizers_going_is_one_event() {
    let at = first(Kind::Thing);
    hold(&[
        watch(Kind::Thing),
        create(
            at,
            Content {
                finalizers: 3,
                ..EMPTY
            },
        ),
        delete(at, None),
        edit(at, Edit::Finalizers(2)),
        edit(at, Edit::Finalizers(0)),
    ]);
}

#[test]
fn a_pod_is_marked_before_it_goes() {
    let (free, bound) = (
        first(Kind::Pod),
        At {
            kind: Kind::Pod,
            name: 1,
        },
    );
    let shorter = |grace| Step::Delete {
        at: bound,
        propagation: None,
        guard: Guard::None,
        grace: Some(grace),
        dry: false,
    };
    hold(&[
        watch(Kind::Pod),
        create(free, EMPTY),
        create(bound, EMPTY),
        delete(free, None),
        delete(bound, None),
        delete(bound, None),
        shorter(2),
        shorter(0),
    ]);
}

#[test]
fn a_second_deletion_may_change_who_sees_to_dependents() {
    let at = first(Kind::ConfigMap);
    hold(&[
        create(
            at,
            Content {
                finalizers: 1,
                ..EMPTY
            },
        ),
        delete(at, Some(Propagation::Foreground)),
        delete(at, None),
        delete(at, Some(Propagation::Orphan)),
        delete(at, Some(Propagation::Background)),
    ]);
}

#[test]
fn a_dry_deletion_answers_as_one_that_is_meant() {
    for kind in [Kind::ConfigMap, Kind::Pod] {
        let dry = Step::Delete {
            at: first(kind),
            propagation: None,
            guard: Guard::Uid,
            grace: None,
            dry: true,
        };
        hold(&[create(first(kind), EMPTY), dry]);
    }
}

#[test]
fn a_deployments_annotations_are_a_new_generation_of_it() {
    let at = first(Kind::Deployment);
    hold(&[
        create(at, EMPTY),
        edit(at, Edit::Note(1)),
        edit(at, Edit::Label(1)),
    ]);
}

#[test]
fn the_pages_of_a_list_are_of_one_moment() {
    let kind = Kind::ConfigMap;
    let second = At { kind, name: 1 };
    hold(&[
        create(first(kind), EMPTY),
        create(second, EMPTY),
        Step::Page { kind },
        edit(second, Edit::A(1)),
        delete(first(kind), None),
        Step::Rest,
    ]);
}

#[test]
fn a_map_that_comes_with_its_fields_is_managed_beside_them() {
    for kind in [Kind::ConfigMap, Kind::Deployment, Kind::Thing] {
        hold(&[create(
            first(kind),
            Content {
                label: 1,
                a: 1,
                b: 3,
                items: 3,
                ..EMPTY
            },
        )]);
    }
}

#[test]
fn what_is_admitted_or_allocated_is_nobodys() {
    for kind in [Kind::Service, Kind::Pod] {
        hold(&[
            create(first(kind), EMPTY),
            put(first(kind), EMPTY, true, Version::Current),
        ]);
    }
}

#[test]
fn who_scales_manages_by_that_subresource() {
    let at = first(Kind::Deployment);
    let scale = Step::Scale {
        at,
        merge: true,
        number: 3,
        version: Version::None,
        by: 1,
    };
    hold(&[create(at, Content { a: 1, ..EMPTY }), scale]);
}

#[test]
fn a_structure_goes_with_the_last_field_that_was_applied_in_it() {
    let at = first(Kind::Thing);
    hold(&[
        apply(
            at,
            Content {
                b: 3,
                items: 3,
                label: 1,
                ..EMPTY
            },
            0,
        ),
        apply(at, Content { a: 1, ..EMPTY }, 1),
        apply(at, EMPTY, 0),
    ]);
}

#[test]
fn a_kind_without_a_status_has_no_such_path() {
    let at = first(Kind::ConfigMap);
    let status = |form| Step::Status {
        at,
        form,
        number: 1,
        version: Version::None,
        by: 0,
    };
    hold(&[
        create(at, EMPTY),
        status(Sub::Put),
        status(Sub::Merge),
        status(Sub::Apply),
    ]);
}

#[test]
fn what_was_forgotten_is_told_by_a_new_list() {
    let at = first(Kind::ConfigMap);
    let cut = Step::Cut {
        watcher: 0,
        after: 1,
    };
    hold(&[
        watch(Kind::ConfigMap),
        create(at, EMPTY),
        edit(at, Edit::A(1)),
        cut.clone(),
        edit(at, Edit::A(2)),
        Step::Compact,
        cut,
    ]);
}

#[test]
fn an_apply_that_changes_nothing_writes_nothing() {
    let at = first(Kind::Thing);
    let content = Content { label: 1, ..EMPTY };
    hold(&[
        apply(at, content, 0),
        edit(at, Edit::A(1)),
        apply(at, content, 0),
    ]);
}

#[test]
fn an_apply_leaves_metadata_alone_that_it_never_had() {
    let at = first(Kind::Pod);
    hold(&[
        apply(at, Content { note: 1, ..EMPTY }, 1),
        delete(at, Some(Propagation::Foreground)),
        apply(at, EMPTY, 1),
    ]);
}

#[test]
fn who_manages_a_map_does_so_when_an_apply_empties_it() {
    let at = first(Kind::Service);
    let forced = Step::Apply {
        at,
        content: Content { note: 2, ..EMPTY },
        by: 0,
        force: true,
        dry: false,
    };
    hold(&[
        create(at, Content { note: 1, ..EMPTY }),
        forced,
        apply(at, EMPTY, 0),
    ]);
}

#[test]
fn who_applies_nothing_manages_nothing() {
    let at = first(Kind::ConfigMap);
    hold(&[apply(at, EMPTY, 0), apply(at, EMPTY, 1)]);
}

#[test]
fn who_leaves_out_all_that_it_applied_manages_nothing_any_more() {
    let at = first(Kind::ConfigMap);
    hold(&[apply(at, Content { a: 1, ..EMPTY }, 0), apply(at, EMPTY, 0)]);
}
