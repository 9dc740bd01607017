//! Upstream manifests and tools: fetched once, verified always, and never from the internet if a
//! person says so.
//!
//! Start from [`Assets::get`]. What there is, and the length and SHA-256 of each, is pinned in
//! `manifests/assets.yaml` ([`catalogue`]); where it comes from is the address there, or what
//! `STRATA_ASSETS` names ([`origin`]). What an asset is good for is its user's business. Rule: no
//! file is handed out whose content was not compared with its pin in this very call.
//!
//! ```text
//! Assets ──► {catalogue, origin}
//!    └─────► store ──► partial       the cache, which other runs use as well
//!              └─────► fetch         HTTP: resumed, bounded by progress
//! ```

mod catalogue;
mod error;
mod fetch;
mod origin;
mod partial;
mod store;
mod sum;

#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};

pub use catalogue::{Asset, Catalogue, Pin};
pub use error::{AssetError, Difference};
pub use fetch::Patience;
pub use origin::Origin;
pub use sum::Sum;

use crate::settings::{BadInput, Settings, workspace};
use crate::web::Way;
use store::Store;

/// Where the pins are, below the workspace's root.
const PINS: &str = "manifests/assets.yaml";

/// Who is told how far a fetch is, in words for the person who waits.
pub type Told<'a> = &'a (dyn Fn(&str) + Sync);

/// The assets there are, and the way to them.
pub struct Assets {
    catalogue: Catalogue,
    origin: Origin,
    cache: Option<PathBuf>,
    way: Way,
    patience: Patience,
}

impl Assets {
    /// The assets of this workspace, by the settings. Nothing is fetched yet.
    ///
    /// # Errors
    /// When the pins cannot be read, or `STRATA_ASSETS` names no place.
    pub fn new(settings: &Settings) -> Result<Self, BadInput> {
        Ok(Self {
            catalogue: Catalogue::load(&workspace().join(PINS), PINS)?,
            origin: Origin::of(settings.assets.as_deref())?,
            cache: store::folder(),
            way: Way::from_env(),
            patience: Patience::default(),
        })
    }

    /// The same, with a folder in the place of the user's cache: what fills it for other machines.
    ///
    /// # Errors
    /// When `STRATA_ASSETS` names that same folder.
    pub fn into_folder(self, folder: &Path) -> Result<Self, BadInput> {
        if matches!(&self.origin, Origin::Folder(from) if same(from, folder)) {
            return Err(BadInput(format!(
                "STRATA_ASSETS names {}, which is what is to be filled; unset it",
                folder.display()
            )));
        }
        let cache = Some(folder.to_owned());
        Ok(Self { cache, ..self })
    }

    /// All that is listed, those for other machines included.
    #[must_use]
    pub fn listed(&self) -> &[Asset] {
        self.catalogue.all()
    }

    /// The file of an asset for this machine, fetched if it has to be, and verified.
    ///
    /// # Errors
    /// When there is none of that name, it cannot be got, or is not what its pin says.
    pub async fn get(&self, name: &str, told: Told<'_>) -> Result<PathBuf, AssetError> {
        self.file(self.catalogue.find(name)?, told).await
    }

    /// [`Self::get`] for one that was listed, which may be for another machine.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn file(&self, asset: &Asset, told: Told<'_>) -> Result<PathBuf, AssetError> {
        let store = Store {
            cache: self.cache.as_deref(),
            way: &self.way,
            patience: self.patience,
        };
        store.file(asset, &self.origin, told).await
    }
}

fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}
