//! Why a lab did not start.

use serde::{Deserialize, Serialize};

/// Why a lab did not start, by the step that failed. Each text is one sentence that names the thing
/// and, where there is one, the remedy.
///
/// Most steps happen in the lab's own processes, so the sentence, not its source, is what is kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "step", content = "error", rename_all = "camelCase")]
pub enum StartError {
    /// What was asked for is not something a lab can be.
    #[error("{0}")]
    Config(String),
    /// The program could not be started again as the lab.
    #[error("{0}")]
    Spawn(String),
    /// The host's port of the API server could not be opened.
    #[error("{0}")]
    Listener(String),
    /// The kernel, or who configured it, does not allow namespaces.
    #[error("{0}")]
    Namespaces(String),
    /// The lab's own file systems could not be mounted.
    #[error("{0}")]
    FileSystems(String),
    /// `nft` is missing, or cannot set rules.
    #[error("{0}")]
    Nft(String),
    /// Envoy, or one of its libraries, is missing.
    #[error("{0}")]
    Envoy(String),
    /// An image archive could not be loaded.
    #[error("{0}")]
    Image(String),
    /// The nodes' network could not be made.
    #[error("{0}")]
    Network(String),
    /// The API server could not be started.
    #[error("{0}")]
    Api(String),
    /// A node could not be made, or did not become ready.
    #[error("{0}")]
    Nodes(String),
    /// A manifest of the system's components was refused.
    #[error("{0}")]
    System(String),
    /// The lab ended before it was ready, and did not say why.
    #[error("{0}")]
    Ended(String),
}
