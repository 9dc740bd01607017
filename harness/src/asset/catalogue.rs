//! What there is to fetch, and how each is known again: `manifests/assets.yaml`.

use std::path::Path;

use reqwest::Url;
use serde::Deserialize;

use super::{AssetError, Sum};
use crate::settings::{BadInput, nearest};

/// One file of another project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// What it is asked for by.
    pub name: String,
    /// Its project's version.
    pub version: String,
    /// The machine that it is for, as `uname -m` has it; nothing if it is for any.
    pub machine: Option<String>,
    /// Where its project offers it.
    pub url: Url,
    /// What it is known by.
    pub pin: Pin,
}

/// What an asset is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// It was recorded when the asset was listed.
    Known(Sum),
    /// Not yet: by what its publisher puts beside it, the first time.
    Beside,
    /// Not yet, and its publisher puts nothing beside it: by what comes over HTTPS, the first time.
    First,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct Catalogue(Vec<Asset>);

/// An entry as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    version: String,
    machine: Option<String>,
    url: String,
    length: Option<u64>,
    sha256: String,
}

impl Asset {
    /// What errors and progress call it: `contour v1.33.6`.
    #[must_use]
    pub fn shown(&self) -> String {
        let machine = self.machine.iter().map(|machine| format!(" for {machine}"));
        let machine: String = machine.collect();
        format!("{} {}{machine}", self.name, self.version)
    }

    /// The name of its file, which is its address's last part.
    #[must_use]
    pub fn file(&self) -> &str {
        last(&self.url)
    }

    /// Where it is in a cache, a folder and a mirror: `contour/v1.33.6/contour.yaml`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}/{}", self.name, self.version, self.file())
    }
}

impl Catalogue {
    /// Reads the pins from a file; `shown` is what errors call it.
    ///
    /// # Errors
    /// When it cannot be read, or an entry is of no use.
    pub(super) fn load(path: &Path, shown: &str) -> Result<Self, BadInput> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| BadInput(format!("{shown} cannot be read ({error})")))?;
        Self::parse(&text, shown)
    }

    /// Reads the pins from a text; `shown` is what errors call it.
    ///
    /// # Errors
    /// When an entry is of no use.
    pub(super) fn parse(text: &str, shown: &str) -> Result<Self, BadInput> {
        let written: Vec<Written> = serde_yaml::from_str(text).map_err(|error| {
            let error = error.without_snippet().to_string();
            let first = error.lines().next().unwrap_or_default().to_owned();
            BadInput(format!("{shown} is no list of assets: {first}"))
        })?;
        let mut all: Vec<Asset> = Vec::new();
        for entry in written {
            let name = entry.name.clone();
            let bad = |problem: &str| BadInput(format!("{shown}: {name} {problem}"));
            let asset = asset(entry).map_err(bad)?;
            let taken = |it: &&Asset| it.name == asset.name && overlap(it, &asset);
            if all.iter().any(|it| taken(&it)) {
                return Err(bad("is listed twice for the same machine; remove one"));
            }
            all.push(asset);
        }
        Ok(Self(all))
    }

    pub(super) fn all(&self) -> &[Asset] {
        &self.0
    }

    /// The asset of a name, for this machine.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn find(&self, name: &str) -> Result<&Asset, AssetError> {
        self.find_for(name, std::env::consts::ARCH)
    }

    fn find_for(&self, name: &str, machine: &str) -> Result<&Asset, AssetError> {
        let for_it = |it: &&Asset| it.machine.as_deref().is_none_or(|of| of == machine);
        let mut named = self.0.iter().filter(|asset| asset.name == name).peekable();
        if named.peek().is_none() {
            let names = self.0.iter().map(|asset| asset.name.as_str());
            return Err(AssetError::NotListed {
                name: name.to_owned(),
                near: nearest(name, names).map(str::to_owned),
            });
        }
        named.find(for_it).ok_or_else(|| AssetError::OtherMachine {
            name: name.to_owned(),
            machine: machine.to_owned(),
        })
    }
}

fn overlap(one: &Asset, other: &Asset) -> bool {
    one.machine.is_none() || other.machine.is_none() || one.machine == other.machine
}

fn asset(written: Written) -> Result<Asset, &'static str> {
    if !is_plain(&written.name) || !is_plain(&written.version) {
        return Err("has a name or version that no folder can have; use letters, digits and .-_+");
    }
    let url = Url::parse(&written.url).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or("has a url that is no http(s) address")?;
    if !is_plain(last(&url)) {
        return Err("has a url that does not end in the name of a file");
    }
    let pin = match (written.sha256.as_str(), written.length) {
        ("beside", None) => Pin::Beside,
        ("first", None) if url.scheme() == "https" => Pin::First,
        ("first", None) => return Err("is to be believed the first time, and its url is no https"),
        ("beside" | "first", Some(_)) => {
            return Err("has a length though it has no sum; leave it out");
        }
        (sum, Some(length)) if Sum::is_sha256(sum) && length > 0 => Pin::Known(Sum {
            sha256: written.sha256,
            length: Some(length),
        }),
        (sum, _) if !Sum::is_sha256(sum) => {
            return Err(
                "has a sha256 that is neither 64 small hexadecimal digits nor beside nor first",
            );
        }
        _ => return Err("has a sum and no length; add it, in bytes"),
    };
    Ok(Asset {
        name: written.name,
        version: written.version,
        machine: written.machine,
        url,
        pin,
    })
}

fn last(url: &Url) -> &str {
    url.path().rsplit('/').next().unwrap_or_default()
}

/// Whether a text may be a part of a path, wherever that is.
fn is_plain(text: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset::PINS;
    use crate::settings::workspace;

    const SUM: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn what_is_pinned_here_is_of_use() {
        let catalogue = Catalogue::load(&workspace().join(PINS), PINS).unwrap();
        let contour = catalogue.find("contour-gateway-provisioner").unwrap();
        assert_eq!(
            contour.place(),
            "contour-gateway-provisioner/v1.33.6/contour-gateway-provisioner.yaml"
        );
        // One of another project's branch would be another file tomorrow.
        for asset in catalogue.all() {
            let commit =
                |part: &str| part.len() == 40 && !part.contains(|c: char| c.is_uppercase());
            let parts = || asset.url.path().split('/');
            let released = parts().any(|part| part == asset.version);
            assert!(parts().any(commit) || released, "{}", asset.url);
            assert_eq!(asset.url.scheme(), "https", "{}", asset.url);
        }
    }

    #[test]
    fn a_machine_gets_its_own() {
        let entry = |machine: &str, file: &str| {
            format!(
                "- {{name: tool, version: '1', machine: {machine}, url: 'https://a/{file}', sha256: beside}}\n"
            )
        };
        let both = entry("x86_64", "amd64") + &entry("aarch64", "arm64");
        let catalogue = Catalogue::parse(&both, "a.yaml").unwrap();
        let file = |machine| catalogue.find_for("tool", machine).map(Asset::file);
        assert_eq!(file("x86_64").unwrap(), "amd64");
        assert_eq!(file("aarch64").unwrap(), "arm64");
        assert_eq!(
            file("riscv64").unwrap_err().to_string(),
            "there is no tool for riscv64 in manifests/assets.yaml"
        );
        let near = catalogue.find("tol").unwrap_err().to_string();
        assert!(near.ends_with("did you mean tool?"), "{near}");
        let twice = both.clone() + &entry("x86_64", "other");
        let said = Catalogue::parse(&twice, "a.yaml").unwrap_err().0;
        assert!(said.contains("tool is listed twice"), "{said}");
    }

    #[test]
    fn an_entry_of_no_use_is_named() {
        let said = |name: &str, url: &str, rest: &str| {
            let entry = format!("- {{name: {name}, version: v1, url: '{url}', {rest}}}");
            match Catalogue::parse(&entry, "a.yaml") {
                Ok(_) => String::new(),
                Err(bad) => bad.0,
            }
        };
        let sum = &format!("sha256: {SUM}, length: 1");
        assert_eq!(said("a", "https://h/f", sum), "");
        for (name, url, rest, expected) in [
            ("../a", "https://h/f", sum.as_str(), "no folder can have"),
            ("a", "ftp://h/f", sum, "no http(s) address"),
            ("a", "https://h/", sum, "the name of a file"),
            ("a", "https://h/%2e%2e", sum, "the name of a file"),
            ("a", "https://h/f", "sha256: abc", "64 small hexadecimal"),
            (
                "a",
                "https://h/f",
                "sha256: beside, length: 1",
                "though it has no sum",
            ),
            (
                "a",
                "https://h/f",
                "sha256: beside, sha512: x",
                "unknown field",
            ),
            ("a", "https://h/f", &format!("sha256: {SUM}"), "no length"),
        ] {
            let said = said(name, url, rest);
            assert!(said.contains(expected), "{said}");
            assert!(said.starts_with("a.yaml"), "{said}");
        }
    }
}
