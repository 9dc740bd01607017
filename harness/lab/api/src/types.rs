//! The types of built-in kinds, and what is made of a value by them.
//!
//! Start from [`Types::of`] and [`Typed::read`]. The types are those that `k8s-openapi` describes of
//! itself for OpenAPI; a value is read by walking it and its type side by side, so that nothing has to
//! be compiled for each kind. Refusals are in the words of Go's decoder, as the API server's are.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::meta::go_kind;
use super::openapi::{DEFINITIONS, generator, referred};
use super::registry::Describe;

/// A type's place among [`Types`].
type At = usize;

/// The types of all built-in kinds, and those that they refer to.
pub(crate) struct Types(Vec<Type>);

/// The type of one kind.
#[derive(Clone)]
pub(crate) struct Typed {
    types: Arc<Types>,
    root: At,
}

enum Type {
    /// Whatever JSON there is.
    Any,
    Bool,
    Integer {
        /// As Go calls it: `int32` or `int64`.
        name: &'static str,
        least: i64,
        most: i64,
    },
    Number,
    Text,
    Parsed(Parsed),
    List(At),
    Map(At),
    Struct(Struct),
    /// The one of these that takes such a value: an object, a list or a boolean.
    Either(Vec<At>),
}

/// A value that is more than its JSON: a time, a quantity.
struct Parsed {
    read: fn(&Value) -> Result<Value, String>,
    /// What stands where it is required and was left out; none if it may not be.
    blank: Option<Value>,
    /// As Go calls it, where its decoder refuses by type what is no text.
    go: Option<&'static str>,
}

struct Struct {
    /// As Go calls it, with its package: `v1.PodSpec`.
    name: String,
    fields: HashMap<String, Field>,
}

struct Field {
    of: At,
    /// It stands there even if it was left out.
    required: bool,
}

impl Types {
    /// The types that are described, in that order.
    pub(crate) fn of(describe: &[Describe]) -> Vec<Typed> {
        let mut generator = generator(DEFINITIONS);
        let roots: Vec<Value> = describe
            .iter()
            .map(|describe| describe(&mut generator).into())
            .collect();
        let mut reading = Reading {
            definitions: generator.take_definitions(false),
            known: HashMap::new(),
            types: Vec::new(),
        };
        let roots: Vec<At> = roots.iter().map(|root| reading.add(root)).collect();
        let types = Arc::new(Self(reading.types));
        let typed = roots.into_iter().map(|root| Typed {
            types: Arc::clone(&types),
            root,
        });
        typed.collect()
    }
}

/// Types as they are read from JSON Schemas.
struct Reading {
    definitions: Map<String, Value>,
    known: HashMap<String, At>,
    types: Vec<Type>,
}

impl Reading {
    fn add(&mut self, schema: &Value) -> At {
        let Some(name) = referred(schema, DEFINITIONS) else {
            let found = self.read(schema);
            self.types.push(found);
            return self.types.len() - 1;
        };
        if let Some(&at) = self.known.get(&name) {
            return at;
        }
        // It has its place before it is read: it may refer to itself.
        let at = self.types.len();
        self.types.push(Type::Any);
        self.known.insert(name.clone(), at);
        let definition = self.definitions.get(&name).cloned().unwrap_or_default();
        self.types[at] = self.named(&name, &definition);
        at
    }

    fn named(&mut self, name: &str, definition: &Value) -> Type {
        let mut parts = name.rsplit('.');
        let last = parts.next().unwrap_or_default();
        match last {
            "Quantity" => parsed::<Quantity>(Some("0".into()), None),
            "IntOrString" => parsed::<IntOrString>(Some(0.into()), None),
            "Time" => parsed::<Time>(None, None),
            "MicroTime" => parsed::<MicroTime>(None, None),
            _ => match self.read(definition) {
                Type::Struct(found) => {
                    let package = parts.next().unwrap_or_default();
                    let name = format!("{package}.{last}");
                    Type::Struct(Struct { name, ..found })
                }
                other => other,
            },
        }
    }

    fn read(&mut self, schema: &Value) -> Type {
        let text = |field: &str| schema.get(field).and_then(Value::as_str);
        if let Some(choices) = schema.get("oneOf").and_then(Value::as_array) {
            return Type::Either(choices.iter().map(|choice| self.add(choice)).collect());
        }
        match (text("type"), text("format")) {
            (Some("boolean"), _) => Type::Bool,
            (Some("integer"), Some("int32")) => Type::Integer {
                name: "int32",
                least: i32::MIN.into(),
                most: i32::MAX.into(),
            },
            (Some("integer"), _) => Type::Integer {
                name: "int64",
                least: i64::MIN,
                most: i64::MAX,
            },
            (Some("number"), _) => Type::Number,
            (Some("string"), Some("byte")) => {
                parsed::<ByteString>(Some("".into()), Some("[]uint8"))
            }
            (Some("string"), _) => Type::Text,
            (Some("array"), _) => {
                let items = schema.get("items").cloned().unwrap_or_default();
                Type::List(self.add(&items))
            }
            (Some("object"), _) => self.object(schema),
            _ => Type::Any,
        }
    }

    fn object(&mut self, schema: &Value) -> Type {
        if let Some(values) = schema.get("additionalProperties") {
            return Type::Map(self.add(&values.clone()));
        }
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return Type::Any;
        };
        let required = schema.get("required").and_then(Value::as_array);
        let fields = properties.iter().map(|(name, inner)| {
            let required = required.is_some_and(|names| names.iter().any(|one| one == name));
            let of = self.add(inner);
            (name.clone(), Field { of, required })
        });
        Type::Struct(Struct {
            name: String::new(),
            fields: fields.collect(),
        })
    }
}

fn parsed<T: DeserializeOwned + Serialize>(blank: Option<Value>, go: Option<&'static str>) -> Type {
    Type::Parsed(Parsed {
        read: |value| {
            let found = T::deserialize(value).and_then(serde_json::to_value);
            found.map_err(|error| in_go(&error.to_string()))
        },
        blank,
        go,
    })
}

/// What Go's decoder says in place of what `base64` does.
fn in_go(why: &str) -> String {
    let offset = why
        .strip_prefix("Invalid symbol ")
        .and_then(|rest| rest.split_once("offset "));
    match offset {
        Some((_, at)) => format!(
            "illegal base64 data at input byte {}",
            at.trim_end_matches('.')
        ),
        None => why.to_owned(),
    }
}

/// The way to a value from the object that it is in.
#[derive(Clone, Copy)]
struct Way<'a> {
    before: Option<&'a Way<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    /// A field, and the struct that has it.
    Field(&'a str, &'a Struct),
    Key(&'a str),
    Item(usize),
}

impl Way<'_> {
    fn then<'b>(&'b self, step: Step<'b>) -> Way<'b> {
        Way {
            before: Some(self),
            step,
        }
    }

    /// `spec.containers[0].x`.
    fn dotted(&self) -> String {
        let before = self.before.map(Self::dotted).unwrap_or_default();
        match self.step {
            Step::Root => String::new(),
            Step::Item(at) => format!("{before}[{at}]"),
            Step::Field(name, _) | Step::Key(name) if before.is_empty() => name.to_owned(),
            Step::Field(name, _) | Step::Key(name) => format!("{before}.{name}"),
        }
    }

    /// Where Go's decoder says that it is: the last struct, and the fields that led there.
    fn in_go(&self) -> Option<String> {
        let (mut fields, mut last) = (Vec::new(), None);
        let mut way = Some(self);
        while let Some(here) = way {
            if let Step::Field(name, of) = here.step {
                fields.push(name);
                last = last.or(Some(of));
            }
            way = here.before;
        }
        fields.reverse();
        let name = last?.name.rsplit('.').next().unwrap_or_default();
        Some(format!("{name}.{}", fields.join(".")))
    }
}

impl Typed {
    /// Makes of a value what its kind's Go type would hold of it: unknown fields are listed and
    /// taken out, nulls are left out, and required fields that were left out are there.
    ///
    /// # Errors
    ///
    /// The first value of a wrong type, as Go's decoder refuses it.
    pub(crate) fn read(&self, value: &mut Value, unknown: &mut Vec<String>) -> Result<(), String> {
        let root = Way {
            before: None,
            step: Step::Root,
        };
        self.types.read(value, self.root, &root, unknown)
    }
}

impl Types {
    fn read(
        &self,
        value: &mut Value,
        at: At,
        way: &Way<'_>,
        unknown: &mut Vec<String>,
    ) -> Result<(), String> {
        let found = &self.0[at];
        match (found, &mut *value) {
            (Type::Any, _)
            | (Type::Bool, Value::Bool(_))
            | (Type::Text, Value::String(_))
            | (Type::Number, Value::Number(_)) => Ok(()),
            (Type::Integer { least, most, .. }, Value::Number(number)) => {
                let fits = number.as_i64();
                match fits.is_some_and(|it| *least <= it && it <= *most) {
                    true => Ok(()),
                    // Of a number Go says which.
                    false => Err(self.refuse(&format!("number {number}"), at, way)),
                }
            }
            (Type::Parsed(Parsed { go: Some(_), .. }), it) if !it.is_string() => {
                Err(self.refuse(go_kind(it), at, way))
            }
            (Type::Parsed(parsed), it) => {
                *it = (parsed.read)(it)?;
                Ok(())
            }
            (Type::List(of), Value::Array(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.read_or_blank(item, *of, &way.then(Step::Item(index)), unknown)?;
                }
                Ok(())
            }
            (Type::Map(of), Value::Object(map)) => {
                for (key, inner) in map {
                    self.read_or_blank(inner, *of, &way.then(Step::Key(key)), unknown)?;
                }
                Ok(())
            }
            (Type::Struct(of), Value::Object(map)) => self.read_fields(map, of, way, unknown),
            (Type::Either(choices), it) => {
                let fits = choices.iter().find(|choice| self.takes(**choice, it));
                let choice = fits.ok_or_else(|| self.refuse(go_kind(it), at, way))?;
                self.read(it, *choice, way, unknown)
            }
            (_, it) => Err(self.refuse(go_kind(it), at, way)),
        }
    }

    fn read_fields(
        &self,
        map: &mut Map<String, Value>,
        of: &Struct,
        way: &Way<'_>,
        unknown: &mut Vec<String>,
    ) -> Result<(), String> {
        let mut refused = Ok(());
        map.retain(|name, inner| {
            let Some(field) = of.fields.get(name) else {
                unknown.push(way.then(Step::Key(name)).dotted());
                return false;
            };
            if inner.is_null() || refused.is_err() {
                return false;
            }
            let step = Step::Field(name, of);
            refused = self.read(inner, field.of, &way.then(step), unknown);
            true
        });
        refused?;
        for (name, field) in of.fields.iter().filter(|(_, field)| field.required) {
            if !map.contains_key(name) {
                let blank = self.blank(field.of);
                map.insert(
                    name.clone(),
                    blank.ok_or_else(|| format!("missing field `{name}`"))?,
                );
            }
        }
        Ok(())
    }

    /// A null among values is what Go makes of nothing.
    fn read_or_blank(
        &self,
        value: &mut Value,
        at: At,
        way: &Way<'_>,
        unknown: &mut Vec<String>,
    ) -> Result<(), String> {
        if value.is_null() {
            *value = self.blank(at).unwrap_or_default();
            return Ok(());
        }
        self.read(value, at, way, unknown)
    }

    /// What Go has where nothing was said; none where something has to be.
    fn blank(&self, at: At) -> Option<Value> {
        Some(match &self.0[at] {
            Type::Any => Value::Null,
            Type::Bool => false.into(),
            Type::Integer { .. } | Type::Number => 0.into(),
            Type::Text => "".into(),
            Type::Parsed(parsed) => parsed.blank.clone()?,
            Type::List(_) => Value::Array(Vec::new()),
            Type::Map(_) => Value::Object(Map::new()),
            Type::Struct(of) => {
                let required = of.fields.iter().filter(|(_, field)| field.required);
                let fields: Option<Map<_, _>> = required
                    .map(|(name, field)| Some((name.clone(), self.blank(field.of)?)))
                    .collect();
                Value::Object(fields?)
            }
            Type::Either(choices) => self.blank(*choices.first()?)?,
        })
    }

    fn takes(&self, at: At, value: &Value) -> bool {
        matches!(
            (&self.0[at], value),
            (Type::Struct(_) | Type::Map(_), Value::Object(_))
                | (Type::List(_), Value::Array(_))
                | (Type::Bool, Value::Bool(_))
                | (Type::Text, Value::String(_))
        )
    }

    fn refuse(&self, what: &str, at: At, way: &Way<'_>) -> String {
        let wanted = self.go_type(at);
        match way.in_go() {
            Some(field) => format!(
                "json: cannot unmarshal {what} into Go struct field {field} of type {wanted}"
            ),
            None => format!("json: cannot unmarshal {what} into Go value of type {wanted}"),
        }
    }

    fn go_type(&self, at: At) -> String {
        match &self.0[at] {
            Type::Any | Type::Either(_) => "interface {}".to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Integer { name, .. } => (*name).to_owned(),
            Type::Number => "float64".to_owned(),
            Type::Text => "string".to_owned(),
            Type::Parsed(parsed) => parsed.go.unwrap_or("string").to_owned(),
            Type::List(of) => format!("[]{}", self.go_type(*of)),
            Type::Map(of) => format!("map[string]{}", self.go_type(*of)),
            Type::Struct(of) => of.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
