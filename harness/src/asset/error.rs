//! Why there is no asset.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::StatusCode;

use super::Sum;
use crate::settings::BadInput;

/// What a person without the internet can do.
const OFFLINE: &str = "on a machine without the internet set STRATA_ASSETS to what scripts/assets \
                       filled elsewhere";

/// Why there is no asset. Addresses are without their secrets.
#[derive(Debug, thiserror::Error)]
pub enum AssetError {
    /// Nobody pinned it.
    #[error("{name} is no asset of manifests/assets.yaml{}", hint(.near.as_deref()))]
    NotListed {
        /// What was asked for.
        name: String,
        /// What was probably meant.
        near: Option<String>,
    },
    /// It is for others.
    #[error("there is no {name} for {machine} in manifests/assets.yaml")]
    OtherMachine {
        /// What was asked for.
        name: String,
        /// This machine.
        machine: String,
    },
    /// There is no place for it.
    #[error(
        "neither XDG_CACHE_HOME nor HOME is set; set one, so that strata can keep what it fetches"
    )]
    NoCache,
    /// The environment does not let anything be fetched.
    #[error(transparent)]
    Way(#[from] BadInput),
    /// A file or folder of this machine cannot be used.
    #[error("{} cannot be {doing}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What was wanted of it: `written`.
        doing: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else is at it, and does not go on.
    #[error(
        "another run has {} locked and has added nothing to it for {seconds} s; end it and run this \
         again",
        path.display()
    )]
    Held {
        /// The partial file.
        path: PathBuf,
        /// For so long.
        seconds: u64,
    },
    /// The folder of assets lacks one.
    #[error(
        "STRATA_ASSETS has no {asset}: {} is not there; run scripts/assets where there is the \
         internet",
        path.display()
    )]
    Lacking {
        /// What was asked for.
        asset: String,
        /// Where it would be.
        path: PathBuf,
    },
    /// It is another file than the one that was pinned.
    #[error("{asset} is not what it should be: {place} {difference}; nothing of it was used")]
    WrongSum {
        /// What was asked for.
        asset: String,
        /// Where it came from.
        place: String,
        /// Both sums.
        difference: Box<Difference>,
    },
    /// More comes than there should be.
    #[error("{url} is {found}, and its pin says {most} bytes; nothing of it was used")]
    TooLong {
        /// Where it came from.
        url: String,
        /// `12 bytes long`, or `longer`.
        found: String,
        /// What it may be.
        most: u64,
    },
    /// What should be a publisher's sum is something else.
    #[error(
        "{place} is no SHA-256 of {file}; add sha256 and length of {asset} to manifests/assets.yaml"
    )]
    NoSum {
        /// Where it came from.
        place: String,
        /// Whose sum it should be.
        file: String,
        /// What was asked for.
        asset: String,
    },
    /// The server does not give it.
    #[error("{url} answers {status}{}", refused(*.status))]
    Status {
        /// Where it was asked for.
        url: String,
        /// What it said.
        status: StatusCode,
    },
    /// The server gives another part of it than the one that was asked for.
    #[error("{url} answers with other bytes ({range}) than those that were asked for")]
    OtherRange {
        /// Where it was asked for.
        url: String,
        /// What it said.
        range: String,
    },
    /// It came, and stopped coming.
    #[error("{url} sent less than {least} bytes in {seconds} s, after {had}")]
    Stalled {
        /// Where it was asked for.
        url: String,
        /// What would have been enough.
        least: u64,
        /// For so long.
        seconds: u64,
        /// How much there is.
        had: u64,
    },
    /// It ended early.
    #[error("{url} ended after {had} of {length} bytes")]
    Truncated {
        /// Where it was asked for.
        url: String,
        /// How much there is.
        had: u64,
        /// How much there should be.
        length: u64,
    },
    /// There was no answer, or not all of one.
    #[error("{url} cannot be fetched: {problem}{hint}")]
    Request {
        /// Where it was asked for.
        url: String,
        /// The innermost reason.
        problem: String,
        /// `; ` and what to do, if there is something.
        hint: &'static str,
    },
    /// It was tried, and tried again.
    #[error("{asset} could not be fetched in {tries} tries that brought no more of it; {OFFLINE}")]
    GaveUp {
        /// What was asked for.
        asset: String,
        /// How often.
        tries: u32,
        /// What was wrong the last time.
        source: Box<AssetError>,
    },
}

/// What a file is, and what it should be.
#[derive(Debug)]
pub struct Difference {
    /// What it is.
    pub found: Sum,
    /// What it should be.
    pub expected: Sum,
    /// Who says so.
    pub pinned_by: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            found,
            expected,
            pinned_by,
        } = self;
        write!(f, "has {found}, and {pinned_by} says {expected}")
    }
}

impl AssetError {
    /// For `map_err`: a file that cannot be used.
    pub(super) fn file(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File {
            path,
            doing,
            source,
        }
    }
}

fn hint(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

fn refused(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 | 403 | 407 => "; it wants credentials, or a proxy does",
        404 | 410 => "; its pin in manifests/assets.yaml or the mirror is out of date",
        _ => "",
    }
}
