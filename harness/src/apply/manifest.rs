//! A YAML file of objects, read.

use std::path::Path;

use kube::core::GroupVersionKind;
use serde_json::Value;

/// The annotation of an object that only some clusters can have: what it needs, by the name of a
/// `Need`.
pub const NEEDS_ANNOTATION: &str = "strata.dev/needs";

/// What is wrong with a manifest. Every sentence names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not there.
    #[error("{file} does not exist, and the run needs it")]
    Missing {
        /// The file.
        file: String,
    },
    /// It cannot be read.
    #[error("{file} cannot be read")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// A document is no YAML.
    #[error("{file}:{line}: document {document} is not YAML: {problem}")]
    Malformed {
        /// The file.
        file: String,
        /// Counted from one.
        line: usize,
        /// Counted from one.
        document: usize,
        /// What the parser says.
        problem: String,
    },
    /// A document is YAML and still no object.
    #[error("{file}:{line}: document {document} {problem}")]
    NoObject {
        /// The file.
        file: String,
        /// Where the document begins, counted from one.
        line: usize,
        /// Counted from one.
        document: usize,
        /// What it lacks.
        problem: String,
    },
    /// There is nothing in it.
    #[error("{file} has no document; write one, or remove the file")]
    Empty {
        /// The file.
        file: String,
    },
}

/// One object of a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// The object as it was written.
    pub object: Value,
    /// Its group, version and kind.
    pub gvk: GroupVersionKind,
    /// Its name.
    pub name: String,
    /// Where it begins: `services/fixture.yaml:12`.
    pub at: String,
}

impl Document {
    /// What errors call it: `Deployment web (services/fixture.yaml:12)`.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{} {} ({})", self.gvk.kind, self.name, self.at)
    }

    /// Whether it stands for the namespace that the others are put into.
    #[must_use]
    pub fn is_namespace(&self) -> bool {
        self.gvk.group.is_empty() && self.gvk.kind == "Namespace"
    }

    /// The namespace that is written in it.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.object.pointer("/metadata/namespace")?.as_str()
    }
}

/// A file's objects, in its order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Manifest {
    /// The objects.
    pub documents: Vec<Document>,
}

impl Manifest {
    /// Reads a file; `shown` is what errors call it.
    ///
    /// # Errors
    /// When it is not there, or is no manifest.
    pub fn load(path: &Path, shown: &str) -> Result<Self, ManifestError> {
        let file = || shown.to_owned();
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ManifestError::Missing { file: file() },
            _ => ManifestError::Read {
                file: file(),
                source,
            },
        })?;
        Self::parse(&text, shown)
    }

    /// Reads a text; `shown` is what errors call it.
    ///
    /// # Errors
    /// When a document is no YAML or no object, or there is none.
    pub fn parse(text: &str, shown: &str) -> Result<Self, ManifestError> {
        let mut documents = Vec::new();
        for (index, (first_line, part)) in split(text).into_iter().enumerate() {
            let file = || shown.to_owned();
            let value: Value =
                serde_yaml::from_str(&part).map_err(|error| ManifestError::Malformed {
                    file: file(),
                    line: first_line + line_of(&error).saturating_sub(1),
                    document: index + 1,
                    problem: first_sentence(&error),
                })?;
            if value.is_null() {
                continue;
            }
            let line = first_line + leading_lines(&part);
            let document = object(value, format!("{shown}:{line}")).map_err(|problem| {
                ManifestError::NoObject {
                    file: file(),
                    line,
                    document: index + 1,
                    problem,
                }
            })?;
            documents.push(document);
        }
        if documents.is_empty() {
            return Err(ManifestError::Empty {
                file: shown.to_owned(),
            });
        }
        Ok(Self { documents })
    }

    /// The manifest without namespaces of its own, as fixtures and checks are.
    ///
    /// # Errors
    /// When a document names one, or more than one stands for it.
    pub fn without_namespaces(self, shown: &str) -> Result<Self, ManifestError> {
        let mut stands = false;
        for (index, document) in self.documents.iter().enumerate() {
            let problem = match document.namespace() {
                Some(namespace) => format!(
                    "({} {}) names the namespace {namespace}; leave it out, since each run and \
                     check has one of its own",
                    document.gvk.kind, document.name
                ),
                None if document.is_namespace() && stands => {
                    "is a second Namespace; one stands for the namespace of all".to_owned()
                }
                None => {
                    stands |= document.is_namespace();
                    continue;
                }
            };
            let line = document.at.rsplit(':').next();
            return Err(ManifestError::NoObject {
                file: shown.to_owned(),
                line: line.and_then(|line| line.parse().ok()).unwrap_or(1),
                document: index + 1,
                problem,
            });
        }
        Ok(self)
    }
}

/// The documents of a stream, each with the number of its first line. A line that begins with
/// `---` ends a document wherever it is, block scalars included (YAML 1.2.2, §9.1.2).
fn split(text: &str) -> Vec<(usize, String)> {
    let mut parts = vec![(1, String::new())];
    for (index, line) in text.lines().enumerate() {
        let marker = line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
        if marker {
            parts.push((index + 2, String::new()));
        } else if let Some((_, part)) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    parts
}

/// Lines of comments and nothing before the first of the object itself.
fn leading_lines(part: &str) -> usize {
    let empty = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    part.lines().take_while(empty).count()
}

fn line_of(error: &serde_yaml::Error) -> usize {
    let line = error.location().map_or(1, |location| location.line());
    usize::try_from(line).unwrap_or(1).max(1)
}

/// The parser draws the place below its sentence, and counts lines from the document's own first.
fn first_sentence(error: &serde_yaml::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or_default();
    let end = first.find(" at line ").unwrap_or(first.len());
    first.get(..end).unwrap_or(first).trim().to_owned()
}

fn object(value: Value, at: String) -> Result<Document, String> {
    let text = |pointer: &str| {
        let found = value.pointer(pointer).and_then(Value::as_str);
        found.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    if !value.is_object() {
        return Err("is not an object; write apiVersion, kind and metadata".to_owned());
    }
    let lacks = |field: &str| format!("has no {field}; add it");
    let version = text("/apiVersion").ok_or_else(|| lacks("apiVersion"))?;
    let kind = text("/kind").ok_or_else(|| lacks("kind"))?;
    let name = text("/metadata/name").ok_or_else(|| lacks("metadata.name"))?;
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let gvk = GroupVersionKind::gvk(group, version, &kind);
    Ok(Document {
        object: value,
        gvk,
        name,
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "\
# The first comment.
apiVersion: v1
kind: Service
metadata: {name: web}
---
---
# Another.

apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations:
    note: |
      a line
       --- not a marker
";

    #[test]
    fn documents_keep_their_order_and_know_their_line() {
        let manifest = Manifest::parse(TWO, "web.yaml").unwrap();
        let subjects: Vec<_> = manifest.documents.iter().map(Document::subject).collect();
        assert_eq!(
            subjects,
            ["Service web (web.yaml:2)", "Deployment web (web.yaml:9)"]
        );
        assert_eq!(manifest.documents[1].gvk.group, "apps");
    }

    #[test]
    fn what_is_wrong_is_said_with_file_line_and_document() {
        let sentence = |text: &str| Manifest::parse(text, "a.yaml").unwrap_err().to_string();
        let unbalanced = "a: 1\n---\nkind: Service\nmetadata: {name: web\nspec: 1\n";
        let said = sentence(unbalanced);
        assert!(said.starts_with("a.yaml:"), "{said}");
        assert!(!said.contains('\n'), "{said}");
        assert_eq!(
            sentence("apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\nkind: Pod\n"),
            "a.yaml:5: document 2 has no apiVersion; add it"
        );
        assert_eq!(
            sentence("- a\n"),
            "a.yaml:1: document 1 is not an object; write apiVersion, kind and metadata"
        );
        assert_eq!(
            sentence("# nothing\n---\n"),
            "a.yaml has no document; write one, or remove the file"
        );
        let said = sentence("apiVersion: v1\nkind: Pod\nkind: Pod\nmetadata: {name: a}\n");
        assert!(
            said.starts_with("a.yaml:3: document 1 is not YAML"),
            "{said}"
        );
    }

    #[test]
    fn a_namespace_of_its_own_is_refused_where_the_run_gives_one() {
        let sentence = |text: &str| {
            let manifest = Manifest::parse(text, "a.yaml").unwrap();
            manifest
                .without_namespaces("a.yaml")
                .map_err(|error| error.to_string())
        };
        let named = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\n";
        let said = sentence(named).unwrap_err();
        assert!(
            said.starts_with("a.yaml:1: document 1 (Pod a) names the namespace b"),
            "{said}"
        );
        let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: any}\n";
        sentence(namespace).unwrap();
        let said = sentence(&format!("{namespace}---\n{namespace}")).unwrap_err();
        assert!(said.contains("a second Namespace"), "{said}");
    }
}
