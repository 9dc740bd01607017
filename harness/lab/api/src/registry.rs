//! The kinds that are served: the built-in rows and those of CustomResourceDefinitions.
//!
//! Start from [`Kind`], the row, and [`Registry::find`].

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use serde_json::Value;

use super::proxy::Locate;
use super::schema::Schema;
use super::status::{Cause, Status};
use super::store::State;
use super::types::{Typed, Types};

/// A printed column of a kind.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// `string`, `integer`, `date`, …
    pub(crate) format: String,
    /// Shown only with `-o wide` when not 0.
    pub(crate) priority: i64,
    pub(crate) cell: Cell,
}

/// Where a column's text is from.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    /// A function of the object.
    Of(fn(&Value) -> Value),
    /// A CustomResourceDefinition's JSONPath.
    Path(String),
}

/// What is known when an object is about to be written.
pub(crate) struct Admit<'a> {
    pub(crate) state: &'a State,
    pub(crate) kind: &'a Kind,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    pub(crate) new: &'a mut Value,
    pub(crate) old: Option<&'a Value>,
}

/// What a kind does in its own way.
#[derive(Clone, Copy)]
pub(crate) struct Hooks {
    /// Fills in what was left out; before validation, at every write.
    pub(crate) default: fn(&mut Value),
    /// Finds what is wrong with the object alone, or with a change of it.
    pub(crate) validate: fn(&Value, Option<&Value>, &mut Vec<Cause>),
    /// Looks at other objects: allocation, collisions, admission.
    pub(crate) admit: fn(&mut Admit<'_>) -> Result<(), Status>,
    /// Finds where requests for `proxy` go, of kinds that have addresses.
    pub(crate) locate: Option<Locate>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            default: |_| (),
            validate: |_, _, _| (),
            admit: |_| Ok(()),
            locate: None,
        }
    }
}

/// The row of a kind.
#[derive(Clone)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) namespaced: bool,
    /// It has the `status` subresource.
    pub(crate) status: bool,
    /// It has the `scale` subresource.
    pub(crate) scale: bool,
    /// `metadata.generation` counts the changes of what is asked for.
    pub(crate) generation: bool,
    /// `metadata.generation` counts the changes of annotations too.
    pub(crate) counts_annotations: bool,
    /// `DELETE` answers with the object that is gone, not with a Status.
    pub(crate) returns_deleted: bool,
    /// A `PUT` has to say which version of the object it replaces.
    pub(crate) needs_version: bool,
    /// A `PUT` of what is not there creates it.
    pub(crate) made_by_put: bool,
    /// A write through `status` may annotate.
    pub(crate) annotated_by_status: bool,
    pub(crate) hooks: Hooks,
    /// How lists and maps merge, and for a CustomResourceDefinition what is valid.
    pub(crate) schema: Schema,
    pub(crate) columns: Vec<Column>,
    /// Other names of subresources that are served (for discovery).
    pub(crate) subresources: &'static [&'static str],
    /// Where its objects are stored: `plural.group`.
    pub(crate) table: String,
    /// A built-in kind's type, for OpenAPI.
    pub(crate) describe: Option<Describe>,
    /// The same to read values by: of what is in a [`Registry`].
    pub(crate) typed: Option<Typed>,
    /// How its shape differs from the stored one, where it does.
    pub(crate) convert: Option<Convert>,
}

/// To the shape that is stored, and from it.
#[derive(Clone, Copy)]
pub(crate) struct Convert {
    /// The `apiVersion` that is stored.
    pub(crate) version: &'static str,
    pub(crate) to_stored: fn(&mut Value),
    pub(crate) from_stored: fn(&mut Value),
}

/// Adds a type's schema, and those it refers to, to what was generated.
pub(crate) type Describe = fn(&mut schemars::SchemaGenerator) -> schemars::Schema;

/// A column of a table: its name, its priority, and what it shows of an object.
pub(crate) type ColumnRow<'a> = (&'a str, i64, fn(&Value) -> Value);

impl Kind {
    /// A built-in kind.
    pub(crate) fn builtin<T>(plural: &str, short_names: &[&str]) -> Self
    where
        T: k8s_openapi::Resource + schemars::JsonSchema,
    {
        Self {
            group: T::GROUP.to_owned(),
            version: T::VERSION.to_owned(),
            kind: T::KIND.to_owned(),
            plural: plural.to_owned(),
            singular: T::KIND.to_lowercase(),
            short_names: short_names.iter().map(|&name| name.to_owned()).collect(),
            categories: Vec::new(),
            namespaced: true,
            status: false,
            scale: false,
            generation: false,
            counts_annotations: false,
            returns_deleted: false,
            needs_version: false,
            made_by_put: false,
            annotated_by_status: false,
            hooks: Hooks::default(),
            schema: Schema::Builtin,
            columns: Vec::new(),
            subresources: &[],
            table: format!("{plural}.{}", T::GROUP),
            describe: Some(|generator| generator.subschema_for::<T>()),
            typed: None,
            convert: None,
        }
    }

    pub(crate) const fn cluster(mut self) -> Self {
        self.namespaced = false;
        self
    }

    pub(crate) const fn status(mut self) -> Self {
        self.status = true;
        self
    }

    pub(crate) const fn generation(mut self) -> Self {
        self.generation = true;
        self
    }

    /// `metadata.generation` counts the changes of annotations too.
    pub(crate) const fn counts_annotations(mut self) -> Self {
        self.counts_annotations = true;
        self
    }

    /// A `PUT` has to say which version of the object it replaces.
    pub(crate) const fn needs_version(mut self) -> Self {
        self.needs_version = true;
        self
    }

    /// A `PUT` of what is not there creates it.
    pub(crate) const fn made_by_put(mut self) -> Self {
        self.made_by_put = true;
        self
    }

    /// A write through `status` may annotate.
    pub(crate) const fn annotated_by_status(mut self) -> Self {
        self.annotated_by_status = true;
        self
    }

    /// `DELETE` answers with the object that is gone.
    pub(crate) const fn returns_deleted(mut self) -> Self {
        self.returns_deleted = true;
        self
    }

    pub(crate) const fn scale(mut self) -> Self {
        self.scale = true;
        self
    }

    /// Another version or group of a kind, whose objects are the same ones.
    pub(crate) fn stored_in(mut self, table: &str, convert: Convert) -> Self {
        table.clone_into(&mut self.table);
        self.convert = Some(convert);
        self
    }

    pub(crate) fn all(mut self) -> Self {
        self.categories = vec!["all".to_owned()];
        self
    }

    pub(crate) const fn subresources(mut self, names: &'static [&'static str]) -> Self {
        self.subresources = names;
        self
    }

    pub(crate) fn default(mut self, hook: fn(&mut Value)) -> Self {
        self.hooks.default = hook;
        self
    }

    pub(crate) fn validate(mut self, hook: fn(&Value, Option<&Value>, &mut Vec<Cause>)) -> Self {
        self.hooks.validate = hook;
        self
    }

    pub(crate) fn admit(mut self, hook: fn(&mut Admit<'_>) -> Result<(), Status>) -> Self {
        self.hooks.admit = hook;
        self
    }

    pub(crate) fn locate(mut self, hook: Locate) -> Self {
        self.hooks.locate = Some(hook);
        self
    }

    pub(crate) fn columns(mut self, columns: &[ColumnRow<'_>]) -> Self {
        self.columns = columns
            .iter()
            .map(|&(name, priority, cell)| Column {
                name: name.to_owned(),
                format: "string".to_owned(),
                priority,
                cell: Cell::Of(cell),
            })
            .collect();
        self
    }

    /// `group/version`, or the version alone.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Group, version and plural: where it is served.
    fn place(&self) -> (String, String, String) {
        (
            self.group.clone(),
            self.version.clone(),
            self.plural.clone(),
        )
    }

    /// `deployments.apps`, as messages name it.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() {
            self.plural.clone()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

type Kinds = BTreeMap<(String, String, String), Arc<Kind>>;

/// The built-in kinds, whose types take a while to read: once for all API servers of a process.
static BUILTIN: LazyLock<Kinds> = LazyLock::new(|| {
    let kinds = super::rows::all();
    let described: Vec<Describe> = kinds.iter().filter_map(|kind| kind.describe).collect();
    let mut types = Types::of(&described).into_iter();
    let kinds = kinds.into_iter().map(|kind| {
        let typed = kind.describe.and_then(|_| types.next());
        (kind.place(), Arc::new(Kind { typed, ..kind }))
    });
    kinds.collect()
});

/// The kinds that are served now.
pub(crate) struct Registry(RwLock<Kinds>);

impl Registry {
    /// The built-in kinds.
    pub(crate) fn new() -> Self {
        Self(RwLock::new(BUILTIN.clone()))
    }

    /// The kind at a path.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        let kinds = self.0.read().unwrap_or_else(PoisonError::into_inner);
        kinds
            .get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
            .cloned()
    }

    /// Every kind, in order of group, version and plural.
    pub(crate) fn all(&self) -> Vec<Arc<Kind>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Replaces the versions of a custom kind.
    pub(crate) fn replace(&self, group: &str, plural: &str, versions: Vec<Kind>) {
        let mut kinds = self.0.write().unwrap_or_else(PoisonError::into_inner);
        kinds.retain(|(found, _, name), _| found != group || name != plural);
        for kind in versions {
            kinds.insert(kind.place(), Arc::new(kind));
        }
    }
}
