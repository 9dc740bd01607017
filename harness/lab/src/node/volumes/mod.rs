//! A pod's volumes: directories on the lab's tmpfs that are mounted into its containers.
//!
//! Start from [`Volumes::start`]. Every volume is kept up to date by a task of its own for as long
//! as the pod lives: what refers to a ConfigMap or Secret follows it, and appears when it appears.
//! Mounting is the container's stage's work. Rule: files of one volume change all at once.

mod atomic;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::{pending, select_all};
use k8s_openapi::api::core::v1::{Pod, Volume, VolumeMount};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::objects::{Objects, Seen};
use super::pod::env;
use super::rootfs::Bind;
use source::{Content, Gathered};

/// Says what is wrong with a volume: a reason, and a sentence.
type Complain = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What a volume's task needs to know.
#[derive(Clone)]
pub(super) struct VolumeContext {
    pub(super) client: Client,
    pub(super) objects: Arc<Objects>,
    /// The pod, as it changes.
    pub(super) pod: watch::Receiver<Arc<Pod>>,
    /// Says why a volume is not there yet: the volume's name and the reason.
    pub(super) complain: Complain,
}

/// A pod's volumes by name.
pub(super) struct Volumes {
    directory: PathBuf,
    ready: BTreeMap<String, watch::Receiver<bool>>,
    hosts: BTreeMap<String, PathBuf>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Volumes {
    /// Begins to make the pod's volumes below `directory`.
    ///
    /// # Errors
    /// With the sentence that the pod fails with, for a kind of volume that the lab does not have.
    pub(super) fn start(context: &VolumeContext, directory: &Path) -> Result<Self, String> {
        let pod = context.pod.borrow().clone();
        let mut volumes = Self {
            directory: directory.to_owned(),
            ready: BTreeMap::new(),
            hosts: BTreeMap::new(),
            _tasks: Vec::new(),
        };
        for volume in pod
            .spec
            .iter()
            .flat_map(|spec| spec.volumes.iter().flatten())
        {
            volumes.add(context, volume)?;
        }
        Ok(volumes)
    }

    fn add(&mut self, context: &VolumeContext, volume: &Volume) -> Result<(), String> {
        let name = volume.name.clone();
        let path = self.directory.join(&name);
        let (sender, ready) = watch::channel(false);
        if volume.empty_dir.is_some() {
            fs::create_dir_all(&path).map_err(|error| format!("volume {name:?}: {error}"))?;
            sender.send_replace(true);
        } else if let Some(host) = &volume.host_path {
            if !Path::new(&host.path).exists() {
                return Err(format!(
                    "hostPath {} of volume {name:?} does not exist",
                    host.path
                ));
            }
            self.hosts.insert(name.clone(), PathBuf::from(&host.path));
            sender.send_replace(true);
        } else {
            let content = Content::of(volume).ok_or_else(|| {
                format!("volume {name:?} is of a kind that the lab does not have")
            })?;
            let task = keep(context.clone(), name.clone(), path, content, sender);
            self._tasks.push(AbortOnDropHandle::new(tokio::spawn(task)));
        }
        self.ready.insert(name, ready);
        Ok(())
    }

    /// Waits until all of them are there.
    pub(super) async fn ready(&self) {
        for ready in self.ready.values() {
            // A task ends only with the volumes.
            if ready.clone().wait_for(|ready| *ready).await.is_err() {
                return pending().await;
            }
        }
    }

    /// The mounts of one container, `env` being what `subPathExpr` is expanded with.
    ///
    /// # Errors
    /// With the reason, for a mount of no volume, or of what is not in one.
    pub(super) fn binds(
        &self,
        mounts: &[VolumeMount],
        env: &[(String, String)],
    ) -> Result<Vec<Bind>, String> {
        mounts.iter().map(|mount| self.bind(mount, env)).collect()
    }

    fn bind(&self, mount: &VolumeMount, env: &[(String, String)]) -> Result<Bind, String> {
        if !self.ready.contains_key(&mount.name) {
            return Err(format!(
                "volume mount {:?} names no volume of the pod",
                mount.name
            ));
        }
        let mut source = match self.hosts.get(&mount.name) {
            Some(host) => host.clone(),
            None => self.directory.join(&mount.name),
        };
        let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
            (Some(path), _) => path.clone(),
            (None, Some(expression)) => env::expand(expression, env),
            (None, None) => String::new(),
        };
        if !sub_path.is_empty() {
            if Path::new(&sub_path)
                .components()
                .any(|part| part.as_os_str() == "..")
            {
                return Err(format!("subPath {sub_path:?} must not contain '..'"));
            }
            let volume = source.clone();
            source.push(&sub_path);
            if !source.exists() {
                fs::create_dir_all(&source)
                    .map_err(|error| format!("subPath {sub_path:?}: {error}"))?;
            }
            source = source
                .canonicalize()
                .map_err(|error| format!("subPath {sub_path:?}: {error}"))?;
            if !volume
                .canonicalize()
                .is_ok_and(|volume| source.starts_with(volume))
            {
                return Err(format!("subPath {sub_path:?} leads out of its volume"));
            }
        }
        Ok(Bind {
            source,
            target: mount.mount_path.clone(),
            read_only: mount.read_only.unwrap_or_default(),
        })
    }
}

/// Keeps one volume as its sources are.
async fn keep(
    context: VolumeContext,
    name: String,
    path: PathBuf,
    content: Content,
    ready: watch::Sender<bool>,
) {
    let mut pod = context.pod.clone();
    let watched = content.watch(
        &context.objects,
        &pod.borrow().namespace().unwrap_or_default(),
    );
    let mut seen = watched
        .iter()
        .map(|watched| watched.seen())
        .collect::<Vec<_>>();
    let mut tokens = source::Tokens::new(context.client.clone());
    let mut written = None;
    let mut version = 0;
    let mut complained = String::new();
    loop {
        for seen in &mut seen {
            let _ = seen.wait_for(|seen| *seen != Seen::Unknown).await;
            seen.borrow_and_update();
        }
        let current = pod.borrow_and_update().clone();
        let gathered = content.gather(&current, &seen, &mut tokens).await;
        let complaint = match gathered {
            Gathered::Files(payload) if written.as_ref() == Some(&payload) => None,
            Gathered::Files(payload) => {
                version += 1;
                match atomic::write(&path, &payload, version) {
                    Ok(()) => {
                        written = Some(payload);
                        ready.send_replace(true);
                        None
                    }
                    Err(error) => Some(format!("cannot write its files: {error}")),
                }
            }
            // What is there stays, as kubelets leave it.
            Gathered::Missing(reason) => Some(reason),
        };
        if let Some(complaint) = complaint.filter(|complaint| *complaint != complained) {
            (context.complain)(&name, &complaint);
            complained = complaint;
        }
        tokio::select! {
            () = any_change(&mut seen) => {}
            changed = pod.changed(), if content.follows_pod() => if changed.is_err() { return },
            () = tokens.renewal() => {}
        }
    }
}

async fn any_change(seen: &mut [watch::Receiver<Seen>]) {
    if seen.is_empty() {
        return pending().await;
    }
    let changes = seen.iter_mut().map(|seen| Box::pin(seen.changed()));
    if select_all(changes).await.0.is_err() {
        pending::<()>().await;
    }
}
