//! Who the server is, and whether it is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::net::{IpAddr, SocketAddr};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{HeaderName, HeaderValue};
use strata_probe::{Answer, Protocol};
use tokio::sync::watch;

/// How many names are counted by, and released, at most: no client ends a process by its memory.
const NAMES: usize = 4096;

/// One a process.
#[derive(Debug)]
pub(crate) struct State {
    pod: String,
    namespace: String,
    node: String,
    pod_ip: Option<IpAddr>,
    hostname: String,
    pid: u32,
    ready: AtomicBool,
    draining: AtomicBool,
    counts: Mutex<BTreeMap<String, u64>>,
    released: watch::Sender<BTreeSet<String>>,
    /// Told of everything that is asked, but for health.
    asked: watch::Sender<()>,
    /// Who answers, for every HTTP answer.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl State {
    /// By the downward API's variables, else by the host name.
    pub(crate) fn from_environment(ready: bool) -> Self {
        let hostname = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let pod = variable("POD_NAME").unwrap_or_else(|| hostname.clone());
        let namespace = variable("POD_NAMESPACE").unwrap_or_default();
        let node = variable("NODE_NAME").unwrap_or_default();
        let headers = [
            (strata_probe::POD_HEADER, &pod),
            ("x-strata-namespace", &namespace),
            ("x-strata-node", &node),
        ];
        Self {
            headers: headers
                .into_iter()
                .filter_map(|(name, value)| {
                    // Kubernetes allows no name that a header does not.
                    let value = HeaderValue::from_str(value).ok()?;
                    Some((HeaderName::from_static(name), value))
                })
                .collect(),
            pod_ip: variable("POD_IP").and_then(|ip| ip.parse().ok()),
            pod,
            namespace,
            node,
            hostname,
            pid: process::id(),
            ready: AtomicBool::new(ready),
            draining: AtomicBool::new(false),
            counts: Mutex::default(),
            released: watch::Sender::default(),
            asked: watch::Sender::default(),
        }
    }

    /// Counts a request under a name, and tells how many there were. Only so many names are known: of
    /// others it is none.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= NAMES && !counts.contains_key(name) {
            return 0;
        }
        let count = counts.entry(name.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// How many requests there were under a name.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(name).copied().unwrap_or_default()
    }

    /// Lets go whatever is held under a name, now and later.
    pub(crate) fn release(&self, name: &str) {
        self.released.send_modify(|names| {
            if names.len() < NAMES {
                names.insert(name.to_owned());
            }
        });
    }

    /// Until a name is released.
    pub(crate) fn released(&self, name: &str) -> BoxFuture<'static, ()> {
        let (mut released, name) = (self.released.subscribe(), name.to_owned());
        async move {
            // A sender that is gone releases all.
            let _ = released.wait_for(|names| names.contains(&name)).await;
        }
        .boxed()
    }

    /// Whether traffic is wanted.
    pub(crate) fn ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && !self.draining.load(Ordering::Relaxed)
    }

    /// Turns readiness on or off.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Notes that something is asked.
    pub(crate) fn asked(&self) {
        self.asked.send_replace(());
    }

    /// Until nothing has been asked for so long.
    pub(crate) async fn idle(&self, quiet: Duration) {
        let mut asked = self.asked.subscribe();
        while tokio::time::timeout(quiet, asked.changed()).await.is_ok() {}
    }

    /// Not ready any more, whatever is said later.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// An answer to whoever it was.
    pub(crate) fn answer(
        &self,
        client: SocketAddr,
        local: SocketAddr,
        protocol: Protocol,
        body_length: u64,
    ) -> Answer {
        Answer {
            pod: self.pod.clone(),
            namespace: self.namespace.clone(),
            node: self.node.clone(),
            pod_ip: self.pod_ip,
            hostname: self.hostname.clone(),
            pid: self.pid,
            client: super::plain(client),
            local: super::plain(local),
            protocol,
            method: String::new(),
            path: String::new(),
            query: String::new(),
            host: String::new(),
            headers: BTreeMap::new(),
            tls: None,
            body_length,
            count: None,
        }
    }
}
