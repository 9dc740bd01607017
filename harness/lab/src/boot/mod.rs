//! Starting and ending a lab: the processes and namespaces around everything else.
//!
//! Start from [`start`]; a program that embeds the lab calls [`init`] before anything else, since
//! the lab is that program again, under another name. What runs in the lab is wired together in
//! `inside`, and knows nothing of how it is enclosed. Rule: whatever dies, and however, the lab's
//! first process dies with it, and the kernel removes all that it made.
//!
//! ```text
//! start ──stdin: configuration, lifeline──► stage ──► namespaces ──fork──► first ──► inside
//!   ◄──────stdout: ready or failed───────────────────────────────────────────┘
//! ```

mod error;
mod first;
mod images;
mod inside;
mod namespaces;
mod outside;
mod report;
mod stage;
mod start;
mod system;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::error::StartError;
pub use self::start::{Kept, Lab, start};
pub use crate::net::cni::Cni;
pub use crate::topology::IpFamilies;

/// Whether [`init`] was called: without it, the program started again would be itself again.
static INITIALIZED: AtomicBool = AtomicBool::new(false);

/// Runs the stage of the lab that this process was started as, and then never returns; otherwise
/// returns at once.
///
/// It has to be the first statement of `main` in every program that calls [`start`]: namespaces
/// can only be entered while there is one thread.
pub fn init() {
    INITIALIZED.store(true, Ordering::Relaxed);
    let Some(argv0) = std::env::args_os().next() else {
        return;
    };
    if let Some(argv0) = argv0.to_str() {
        stage::run(argv0);
        crate::node::stage::run(argv0);
    }
}

/// What a lab is made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabConfig {
    /// How many nodes there are beside the control plane: 1 to 50.
    pub workers: usize,
    /// What joins its pods and nodes; without it nodes stay `NotReady`, and nobody waits for them.
    pub cni: Option<Cni>,
    /// The families of their addresses.
    pub ip_families: IpFamilies,
    /// The program behind the image of the host's Envoy; without it there is no such image.
    pub envoy: Option<PathBuf>,
    /// The `nft` program: a path, or a name to look for on `PATH`.
    pub nft: PathBuf,
    /// Archives of images to load on every node.
    pub images: Vec<PathBuf>,
    /// The file that the lab adds its own log to; `RUST_LOG` selects what of it.
    pub log: Option<PathBuf>,
    /// How late the lab's components hear of each change, at most, as on a cluster that has much to do; each watch by a
    /// part of it that is drawn as it begins.
    pub watch_lag: Duration,
}

impl Default for LabConfig {
    fn default() -> Self {
        Self {
            workers: 2,
            cni: Some(Cni::default()),
            ip_families: IpFamilies::default(),
            envoy: None,
            nft: PathBuf::from("nft"),
            images: Vec::new(),
            log: None,
            watch_lag: Duration::ZERO,
        }
    }
}
