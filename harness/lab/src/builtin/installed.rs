//! Whether a node's plugin is there yet.

use tokio::sync::watch;

/// What a plugin's agent tells the kubelet of its node, as others do by writing a file into
/// `/etc/cni/net.d`: once it is said, it stays so. Clones tell and hear of the same node.
#[derive(Debug, Clone)]
pub struct Installed(watch::Sender<bool>);

impl Default for Installed {
    /// Not yet.
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Installed {
    /// Of a node that needs no agent.
    #[must_use]
    pub fn already() -> Self {
        Self(watch::Sender::new(true))
    }

    /// Says that it is.
    pub(crate) fn set(&self) {
        self.0.send_replace(true);
    }

    /// Whether it is.
    pub(crate) fn is(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is.
    pub(crate) async fn wait(&self) {
        // Whoever waits has a sender, so the channel is open.
        let _ = self.0.subscribe().wait_for(|installed| *installed).await;
    }
}
