//! Where assets come from.

use std::path::PathBuf;

use reqwest::Url;

use super::Asset;
use crate::settings::{BadInput, workspace};

/// Where assets come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The addresses that are listed with them.
    Upstream,
    /// A folder, of which the files themselves are used.
    Folder(PathBuf),
    /// A web server that has such a folder.
    Mirror(Url),
}

impl Origin {
    /// Reads `STRATA_ASSETS`.
    ///
    /// # Errors
    /// When it is neither an http(s) address nor a folder that is there.
    pub(crate) fn of(named: Option<&str>) -> Result<Self, BadInput> {
        let Some(named) = named else {
            return Ok(Self::Upstream);
        };
        if !named.contains("://") {
            let folder = workspace().join(named);
            return if folder.is_dir() {
                Ok(Self::Folder(folder))
            } else {
                Err(BadInput(format!(
                    "STRATA_ASSETS={named} is not a folder; name one that scripts/assets filled, or \
                     the http(s) address of a mirror"
                )))
            };
        }
        let url = Url::parse(named).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
        let mut url = url.ok_or_else(|| {
            // It may have a password in it, so it is not said again.
            BadInput(
                "STRATA_ASSETS is no http(s) address; name a mirror like https://HOST/PATH, or a \
                 folder"
                    .to_owned(),
            )
        })?;
        // What is put after it takes the last part's place otherwise.
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        Ok(Self::Mirror(url))
    }

    /// The address of an asset, or of what is beside it; nothing in a folder.
    pub(super) fn url(&self, asset: &Asset, suffix: &str) -> Option<Url> {
        let (mut url, path) = match self {
            Self::Folder(_) => return None,
            Self::Upstream => (asset.url.clone(), asset.url.path().to_owned()),
            Self::Mirror(url) => (url.clone(), format!("{}{}", url.path(), asset.place())),
        };
        url.set_path(&format!("{path}{suffix}"));
        Some(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asset::Catalogue;

    #[test]
    fn a_mirror_has_what_a_folder_has() {
        let entry = "[{name: a, version: v1, url: 'https://up/x/a.yaml?b', sha256: beside}]";
        let catalogue = Catalogue::parse(entry, "a.yaml").unwrap();
        let url = |named, suffix| {
            let origin = Origin::of(named).unwrap();
            let url = origin.url(&catalogue.all()[0], suffix);
            url.map(|url| url.to_string())
        };
        assert_eq!(url(None, "").unwrap(), "https://up/x/a.yaml?b");
        assert_eq!(
            url(None, ".sha256").unwrap(),
            "https://up/x/a.yaml.sha256?b"
        );
        let mirror = Some("http://m:1/files");
        assert_eq!(url(mirror, "").unwrap(), "http://m:1/files/a/v1/a.yaml");
        assert_eq!(url(Some("manifests"), ""), None);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        let said = |named| Origin::of(Some(named)).unwrap_err().0;
        assert!(said("absent/folder").starts_with("STRATA_ASSETS=absent/folder is not a folder"));
        let said = said("s3://me:hidden@bucket");
        assert!(
            said.contains("no http(s) address") && !said.contains("hidden"),
            "{said}"
        );
    }
}
