//! What is done to an API server: the steps that proptest makes up, and shrinks.
//!
//! Start from [`steps`]. A step names objects by small numbers and versions by what they are to the
//! object at that moment (`Current`, `Stale`), so any part of a sequence is a sequence.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::kinds::{ALL, Kind};

/// An object: one of two names of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) kind: Kind,
    pub(crate) name: u8,
}

/// What is in an object; what the numbers mean is the kind's to say. 0 is always "left out".
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Content {
    pub(crate) label: u8,
    pub(crate) note: u8,
    /// Two bits: finalizer `a`, finalizer `b`.
    pub(crate) finalizers: u8,
    pub(crate) a: u8,
    pub(crate) b: u8,
    /// Two bits: the first and the second item of the kind's list.
    pub(crate) items: u8,
    /// Breaks a rule of the kind.
    pub(crate) bad: bool,
}

/// One field of [`Content`], and its new number.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edit {
    Label(u8),
    Note(u8),
    Finalizers(u8),
    A(u8),
    B(u8),
    Items(u8),
}

/// The `resourceVersion` that a write carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    None,
    Current,
    Stale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Merge,
    Json,
    Strategic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sub {
    Put,
    Merge,
    Apply,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// A precondition of a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    None,
    Uid,
    OtherUid,
    Version(Version),
}

/// What a list or watch is narrowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Select {
    All,
    Label(u8),
    NotLabel(u8),
    AnyLabel,
    NoLabel,
    Name(u8),
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    /// The version of a list made now.
    Now,
    /// No version: what is there comes first.
    Zero,
    /// The version of an event of the past, counted from the newest.
    Past(u8),
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Create {
        at: At,
        content: Content,
        by: u8,
        dry: bool,
    },
    /// `whole`: the object as it was read, changed; else nothing but the content.
    Update {
        at: At,
        content: Content,
        whole: bool,
        version: Version,
        by: u8,
        dry: bool,
    },
    Patch {
        at: At,
        form: Form,
        edits: Vec<Edit>,
        version: Version,
        by: u8,
        dry: bool,
    },
    Apply {
        at: At,
        content: Content,
        by: u8,
        force: bool,
        dry: bool,
    },
    Status {
        at: At,
        form: Sub,
        number: u8,
        version: Version,
        by: u8,
    },
    Scale {
        at: At,
        merge: bool,
        number: u8,
        version: Version,
        by: u8,
    },
    Delete {
        at: At,
        propagation: Option<Propagation>,
        guard: Guard,
        grace: Option<u8>,
        dry: bool,
    },
    DeleteAll {
        kind: Kind,
        select: Select,
    },
    List {
        kind: Kind,
        select: Select,
    },
    /// The first page of a list; the rest is read at `Rest`, whatever happens in between.
    Page {
        kind: Kind,
    },
    Rest,
    Watch {
        kind: Kind,
        select: Select,
        from: Start,
    },
    /// A watcher reads so many events, loses its connection, and resumes.
    Cut {
        watcher: u8,
        after: u8,
    },
    /// The server forgets its history.
    Compact,
}

fn at() -> impl Strategy<Value = At> {
    (0..ALL.len(), 0u8..2).prop_map(|(kind, name)| At {
        kind: ALL[kind],
        name,
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    (0..ALL.len()).prop_map(|kind| ALL[kind])
}

fn content() -> impl Strategy<Value = Content> {
    let finalizers = prop_oneof![5 => Just(0u8), 1 => 0u8..4];
    let bad = prop::bool::weighted(0.05);
    (0u8..3, 0u8..3, finalizers, 0u8..4, 0u8..4, 0u8..4, bad).prop_map(
        |(label, note, finalizers, a, b, items, bad)| Content {
            label,
            note,
            finalizers,
            a,
            b,
            items,
            bad,
        },
    )
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (0u8..3).prop_map(Edit::Label),
        (0u8..3).prop_map(Edit::Note),
        (0u8..4).prop_map(Edit::Finalizers),
        (0u8..4).prop_map(Edit::A),
        (0u8..4).prop_map(Edit::B),
        (0u8..4).prop_map(Edit::Items),
    ]
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![
        4 => Just(Version::None),
        3 => Just(Version::Current),
        1 => Just(Version::Stale),
    ]
}

fn select() -> impl Strategy<Value = Select> {
    prop_oneof![
        3 => Just(Select::All),
        2 => (1u8..3).prop_map(Select::Label),
        1 => (1u8..3).prop_map(Select::NotLabel),
        1 => Just(Select::AnyLabel),
        1 => Just(Select::NoLabel),
        1 => (0u8..2).prop_map(Select::Name),
    ]
}

fn dry() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.1)
}

fn by() -> impl Strategy<Value = u8> {
    0u8..3
}

fn writes() -> impl Strategy<Value = Step> {
    let form = prop_oneof![Just(Form::Merge), Just(Form::Json), Just(Form::Strategic)];
    let sub = prop_oneof![Just(Sub::Put), Just(Sub::Merge), Just(Sub::Apply)];
    prop_oneof![
        4 => (at(), content(), by(), dry())
            .prop_map(|(at, content, by, dry)| Step::Create { at, content, by, dry }),
        3 => (at(), content(), any::<bool>(), version(), by(), dry())
            .prop_map(|(at, content, whole, version, by, dry)| Step::Update { at, content, whole, version, by, dry }),
        5 => (at(), form, vec(edit(), 1..3), version(), by(), dry())
            .prop_map(|(at, form, edits, version, by, dry)| Step::Patch { at, form, edits, version, by, dry }),
        6 => (at(), content(), by(), any::<bool>(), dry())
            .prop_map(|(at, content, by, force, dry)| Step::Apply { at, content, by, force, dry }),
        2 => (at(), sub, 1u8..4, version(), by())
            .prop_map(|(at, form, number, version, by)| Step::Status { at, form, number, version, by }),
        1 => (at(), any::<bool>(), 1u8..4, version(), by())
            .prop_map(|(at, merge, number, version, by)| Step::Scale { at, merge, number, version, by }),
    ]
}

fn deletes() -> impl Strategy<Value = Step> {
    let propagation = option::of(prop_oneof![
        2 => Just(Propagation::Background),
        1 => Just(Propagation::Foreground),
        1 => Just(Propagation::Orphan),
    ]);
    let guard = prop_oneof![
        4 => Just(Guard::None),
        1 => Just(Guard::Uid),
        1 => Just(Guard::OtherUid),
        1 => version().prop_map(Guard::Version),
    ];
    let grace = option::weighted(0.3, 0u8..3);
    prop_oneof![
        5 => (at(), propagation, guard, grace, dry())
            .prop_map(|(at, propagation, guard, grace, dry)| Step::Delete { at, propagation, guard, grace, dry }),
        1 => (kind(), select()).prop_map(|(kind, select)| Step::DeleteAll { kind, select }),
    ]
}

fn reads() -> impl Strategy<Value = Step> {
    let from = prop_oneof![
        Just(Start::Now),
        Just(Start::Zero),
        (0u8..12).prop_map(Start::Past)
    ];
    prop_oneof![
        2 => (kind(), select()).prop_map(|(kind, select)| Step::List { kind, select }),
        1 => kind().prop_map(|kind| Step::Page { kind }),
        1 => Just(Step::Rest),
        2 => (kind(), select(), from).prop_map(|(kind, select, from)| Step::Watch { kind, select, from }),
        3 => (0u8..4, 0u8..6).prop_map(|(watcher, after)| Step::Cut { watcher, after }),
        1 => Just(Step::Compact),
    ]
}

/// A sequence of steps.
pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(
        prop_oneof![6 => writes(), 2 => deletes(), 2 => reads()],
        1..40,
    )
}
