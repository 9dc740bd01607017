//! What has been fetched: the user's cache, which several runs use at once.
//!
//! Start from [`Store::file`]. The layout is that of a folder for `STRATA_ASSETS`, so a cache of one
//! machine is such a folder for another. Rule: a file is at its place only if it was whole and right
//! once, and is compared again each time all the same.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Client;
use tokio::time::Instant;

use super::error::Difference;
use super::fetch::{Patience, Wanted, whole};
use super::origin::Origin;
use super::partial::{Partial, beside};
use super::{Asset, AssetError, PINS, Pin, Sum, Told};
use crate::wait;
use crate::web::{Way, shown};

/// More than any asset without a pinned length has.
const LARGEST: u64 = 1 << 30;
/// More than any publisher writes beside a file.
const LARGEST_SUM: u64 = 64 << 10;
/// What publishers' and our own sums are called.
const SUFFIX: &str = ".sha256";
/// How often we look whether another run is done.
const LOOK: Duration = Duration::from_millis(100);

/// The cache, and the way to what it lacks.
pub(super) struct Store<'a> {
    pub(super) cache: Option<&'a Path>,
    pub(super) way: &'a Way,
    pub(super) patience: Patience,
}

/// What an asset has to be, and who says so.
struct Expected {
    sum: Sum,
    by: String,
}

impl Store<'_> {
    /// The file of an asset, whole and right.
    ///
    /// # Errors
    /// When it is not there and cannot be fetched, or is another one.
    pub(super) async fn file(
        &self,
        asset: &Asset,
        origin: &Origin,
        told: Told<'_>,
    ) -> Result<PathBuf, AssetError> {
        if let Origin::Folder(folder) = origin {
            return in_folder(folder, asset).await;
        }
        let target = self.cache.ok_or(AssetError::NoCache)?.join(asset.place());
        if is_there(asset, &target).await? {
            return Ok(target);
        }
        let client = self.way.client()?;
        if let Some(folder) = target.parent() {
            let made = std::fs::create_dir_all(folder);
            made.map_err(AssetError::file(folder, "made"))?;
        }
        if let Some(partial) = self.claim(asset, &target, told).await? {
            self.fetch(&client, asset, origin, partial, &target, told)
                .await?;
        }
        Ok(target)
    }

    /// The right to fetch; nothing if another run has just done it.
    async fn claim(
        &self,
        asset: &Asset,
        target: &Path,
        told: Told<'_>,
    ) -> Result<Option<Partial>, AssetError> {
        let path = Partial::path_of(target);
        let patience = self.patience.quiet * (self.patience.tries + 1);
        let mut seen = None;
        let mut since = Instant::now();
        loop {
            if let Some(partial) = Partial::open(target)? {
                return Ok((!is_there(asset, target).await?).then_some(partial));
            }
            let length = std::fs::metadata(&path).map(|it| it.len()).ok();
            if seen != Some(length) {
                if seen.is_none() {
                    told(&format!(
                        "waiting for another run, which fetches {}",
                        asset.shown()
                    ));
                }
                (seen, since) = (Some(length), Instant::now());
            }
            if since.elapsed() > patience {
                let seconds = patience.as_secs();
                return Err(AssetError::Held { path, seconds });
            }
            wait::pause(LOOK).await;
        }
    }

    async fn fetch(
        &self,
        client: &Client,
        asset: &Asset,
        origin: &Origin,
        mut partial: Partial,
        target: &Path,
        told: Told<'_>,
    ) -> Result<(), AssetError> {
        let expected = self.expected(client, asset, origin, target, told).await?;
        let Some(url) = origin.url(asset, "") else {
            return Ok(());
        };
        let name = asset.shown();
        let wanted = Wanted {
            shown: &name,
            url: &url,
            length: expected.as_ref().and_then(|expected| expected.sum.length),
            most: LARGEST,
        };
        told(&format!("fetching {name} from {}", shown(&url)));
        for last in [false, true] {
            whole(client, &wanted, &mut partial, self.patience, told).await?;
            let found = sum(partial.path()).await?;
            let pieced = partial.pieced();
            let right = match &expected {
                Some(expected) => found.is(&expected.sum),
                // With nothing to hold it against, it has to come from one answer.
                None => last || !pieced,
            };
            if right {
                self.record(asset, &found, target)?;
                return partial.finish(target);
            }
            partial.begin(None)?;
            // Pieces of two files make none; the second time it comes from one answer, if it can.
            if let Some(expected) = &expected
                && (last || !pieced)
            {
                return Err(wrong(asset, shown(&url), found, expected));
            }
            tracing::info!("{name}: the pieces do not fit together; fetching it as a whole");
        }
        Ok(())
    }

    /// What the asset has to be. Without a pin: what was recorded, else what its publisher says, or whoever keeps a
    /// mirror of it; nothing of what is believed the first time.
    async fn expected(
        &self,
        client: &Client,
        asset: &Asset,
        origin: &Origin,
        target: &Path,
        told: Told<'_>,
    ) -> Result<Option<Expected>, AssetError> {
        if let Some(expected) = pinned(asset, target)? {
            return Ok(Some(expected));
        }
        if asset.pin == Pin::First && matches!(origin, Origin::Upstream) {
            return Ok(None);
        }
        let path = beside(target, SUFFIX);
        let (Some(url), Some(mut partial)) = (origin.url(asset, SUFFIX), Partial::open(&path)?)
        else {
            return Err(AssetError::Held { path, seconds: 0 });
        };
        let name = format!("the sum of {}", asset.shown());
        let wanted = Wanted {
            shown: &name,
            url: &url,
            length: None,
            most: LARGEST_SUM,
        };
        // Of something this short no part is worth keeping.
        partial.begin(None)?;
        whole(client, &wanted, &mut partial, self.patience, told).await?;
        let read = std::fs::read(partial.path());
        let text = read.map_err(AssetError::file(partial.path(), "read"))?;
        partial.discard();
        let by = shown(&url);
        let sum = Sum::beside(&String::from_utf8_lossy(&text), asset.file());
        let sum = sum.ok_or_else(|| no_sum(asset, by.clone()))?;
        Ok(Some(Expected { sum, by }))
    }

    /// Records the sum of an asset that had no pin, so that it is held against it ever after.
    fn record(&self, asset: &Asset, found: &Sum, target: &Path) -> Result<(), AssetError> {
        if matches!(asset.pin, Pin::Known(_)) {
            return Ok(());
        }
        let path = beside(target, SUFFIX);
        let line = found.line(asset.file());
        if std::fs::read_to_string(&path).is_ok_and(|text| text == line) {
            return Ok(());
        }
        tracing::info!("{found} is recorded in {}", path.display());
        let new = beside(&path, ".new");
        let written = std::fs::write(&new, line).and_then(|()| std::fs::rename(&new, &path));
        written.map_err(AssetError::file(&path, "written"))
    }
}

/// An asset in a folder that a person named, which nothing is written to.
async fn in_folder(folder: &Path, asset: &Asset) -> Result<PathBuf, AssetError> {
    let path = folder.join(asset.place());
    if !path.is_file() {
        let asset = asset.shown();
        return Err(AssetError::Lacking { asset, path });
    }
    let Some(expected) = pinned(asset, &path)? else {
        let path = beside(&path, SUFFIX);
        let asset = format!("sum of {}", asset.shown());
        return Err(AssetError::Lacking { asset, path });
    };
    let found = sum(&path).await?;
    if found.is(&expected.sum) {
        Ok(path)
    } else {
        Err(wrong(asset, path.display().to_string(), found, &expected))
    }
}

/// Whether the whole file is at its place, and the right one.
async fn is_there(asset: &Asset, target: &Path) -> Result<bool, AssetError> {
    if !target.is_file() {
        return Ok(false);
    }
    let Some(expected) = pinned(asset, target)? else {
        return Ok(false);
    };
    let right = sum(target).await?.is(&expected.sum);
    if !right {
        tracing::warn!(
            "{} is not {} and is fetched again",
            target.display(),
            expected.sum
        );
    }
    Ok(right)
}

/// What is known of an asset without asking anybody.
fn pinned(asset: &Asset, file: &Path) -> Result<Option<Expected>, AssetError> {
    if let Pin::Known(sum) = &asset.pin {
        let (sum, by) = (sum.clone(), PINS.to_owned());
        return Ok(Some(Expected { sum, by }));
    }
    let path = beside(file, SUFFIX);
    let by = path.display().to_string();
    match std::fs::read_to_string(&path) {
        Ok(text) => match Sum::beside(&text, asset.file()) {
            Some(sum) => Ok(Some(Expected { sum, by })),
            None => Err(no_sum(asset, by)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(AssetError::file(&path, "read")(error)),
    }
}

fn no_sum(asset: &Asset, place: String) -> AssetError {
    AssetError::NoSum {
        place,
        file: asset.file().to_owned(),
        asset: asset.shown(),
    }
}

fn wrong(asset: &Asset, place: String, found: Sum, expected: &Expected) -> AssetError {
    AssetError::WrongSum {
        asset: asset.shown(),
        place,
        difference: Box::new(Difference {
            found,
            expected: expected.sum.clone(),
            pinned_by: expected.by.clone(),
        }),
    }
}

/// What a file holds, read where that keeps nobody waiting.
async fn sum(path: &Path) -> Result<Sum, AssetError> {
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || Sum::of(&owned)).await;
    let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
    read.map_err(AssetError::file(path, "read"))
}

/// Where what this user's runs fetched is; nothing without a home. A relative path counts as none,
/// as the XDG Base Directory Specification has it.
pub(super) fn folder() -> Option<PathBuf> {
    let set = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from)?;
        path.is_absolute().then_some(path)
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(cache.join("strata/assets"))
}
