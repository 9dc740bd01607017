//! The rules of the schema that Jenkins' xUnit plugin validates JUnit files against (`junit-10.xsd`),
//! as a table. Where its published versions differ, the narrower rule is taken.

use std::collections::BTreeMap;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

struct Element {
    name: &'static str,
    required: &'static [&'static str],
    optional: &'static [&'static str],
    children: &'static [&'static str],
    text: bool,
}

const ELEMENTS: &[Element] = &[
    Element {
        name: "testsuites",
        required: &[],
        optional: &["name", "time", "tests", "failures", "errors"],
        children: &["testsuite"],
        text: false,
    },
    Element {
        name: "testsuite",
        required: &["name", "tests", "failures", "errors"],
        optional: &[
            "group",
            "time",
            "skipped",
            "timestamp",
            "hostname",
            "id",
            "package",
            "file",
            "log",
            "url",
        ],
        children: &[
            "testsuite",
            "properties",
            "testcase",
            "system-out",
            "system-err",
        ],
        text: false,
    },
    Element {
        name: "properties",
        required: &[],
        optional: &[],
        children: &["property"],
        text: false,
    },
    Element {
        name: "property",
        required: &["name", "value"],
        optional: &[],
        children: &[],
        text: false,
    },
    Element {
        name: "testcase",
        required: &["name"],
        optional: &["time", "classname", "group"],
        children: &["skipped", "error", "failure", "system-out", "system-err"],
        text: false,
    },
    Element {
        name: "failure",
        required: &[],
        optional: &["type", "message"],
        children: &[],
        text: true,
    },
    Element {
        name: "error",
        required: &[],
        optional: &["type", "message"],
        children: &[],
        text: true,
    },
    Element {
        name: "skipped",
        required: &[],
        optional: &["type", "message"],
        children: &[],
        text: true,
    },
    Element {
        name: "system-out",
        required: &[],
        optional: &[],
        children: &[],
        text: true,
    },
    Element {
        name: "system-err",
        required: &[],
        optional: &[],
        children: &[],
        text: true,
    },
];

/// Says what is against the rules, if anything is. Where `xmllint` is installed the schema itself
/// could be asked; the table needs no network and no tool.
pub(super) fn validate(xml: &str) -> Result<(), String> {
    if let Some(bad) = xml.chars().find(|c| !allowed(*c)) {
        return Err(format!("{bad:?} is not a character of XML 1.0"));
    }
    let mut reader = Reader::from_str(xml);
    let mut open: Vec<&'static Element> = Vec::new();
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => {
                let element = enter(open.last().copied(), &start)?;
                open.push(element);
            }
            Event::Empty(start) => drop(enter(open.last().copied(), &start)?),
            Event::End(_) => drop(open.pop()),
            Event::Text(text) => {
                let blank = text.iter().all(u8::is_ascii_whitespace);
                let free = open.last().is_some_and(|element| element.text);
                if !blank && !free {
                    return Err(format!(
                        "text in {:?}",
                        open.last().map(|element| element.name)
                    ));
                }
            }
            Event::GeneralRef(reference) => {
                let free = open.last().is_some_and(|element| element.text);
                if !free {
                    return Err(format!("a reference outside text: {reference:?}"));
                }
            }
            Event::Eof if open.is_empty() => return Ok(()),
            Event::Eof => return Err("elements are left open".into()),
            Event::Decl(_) | Event::CData(_) | Event::Comment(_) => {}
            other => return Err(format!("unexpected {other:?}")),
        }
    }
}

fn enter(parent: Option<&Element>, start: &BytesStart<'_>) -> Result<&'static Element, String> {
    let name = String::from_utf8_lossy(start.name().as_ref()).into_owned();
    let element = ELEMENTS.iter().find(|element| element.name == name);
    let element = element.ok_or_else(|| format!("<{name}> is not in the schema"))?;
    match parent {
        None if name != "testsuites" => return Err(format!("the root is <{name}>")),
        Some(parent) if !parent.children.contains(&element.name) => {
            return Err(format!("<{name}> in <{}>", parent.name));
        }
        _ => {}
    }
    let mut attributes = BTreeMap::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let key = String::from_utf8_lossy(attribute.key.as_ref()).into_owned();
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|error| error.to_string())?;
        if !element.required.contains(&key.as_str()) && !element.optional.contains(&key.as_str()) {
            return Err(format!("<{name} {key}=…> is not in the schema"));
        }
        attributes.insert(key, value.into_owned());
    }
    for key in element.required {
        if !attributes.contains_key(*key) {
            return Err(format!("<{name}> without {key}"));
        }
    }
    // SUREFIRE_TIME: digits, with commas between groups of three, then perhaps a fraction.
    let time = attributes.get("time").map_or("", String::as_str);
    if !time
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '.' | ','))
    {
        return Err(format!("<{name} time={time:?}>"));
    }
    Ok(element)
}

const fn allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{fffd}' | '\u{10000}'..)
}

#[test]
fn the_rules_bite() {
    for (xml, complaint) in [
        (
            "<testsuite name='a' tests='0' failures='0' errors='0'/>",
            "the root is",
        ),
        ("<testsuites skipped='1'/>", "skipped"),
        (
            "<testsuites><testsuite name='a' tests='0' failures='0'/></testsuites>",
            "without errors",
        ),
        ("<testsuites>text</testsuites>", "text in"),
        ("<testsuites time='-1'/>", "time"),
        ("<testsuites>", "left open"),
        ("<testsuites name='\u{1b}'/>", "not a character"),
    ] {
        let error = validate(xml).unwrap_err();
        assert!(error.contains(complaint), "{xml}: {error}");
    }
}
