//! What a container needs before it can start: its image and its configuration.
//!
//! Start from [`Runner::prepare`]. Rule: what is missing is waited for, as a kubelet waits, and said.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{BACK_OFF, Launch, Runner};
use crate::builtin::Builtin;
use crate::event::Type;
use crate::node::images::Image;
use crate::node::pod::{env, security};
use crate::node::rootfs::{Bind, ContainerFile};
use crate::topology::{BUILTIN_IMAGE_PREFIX, ENVOY_IMAGE};

/// How soon a container's configuration is looked at again, at first and at most.
const RECONFIGURE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

impl Runner {
    /// Waits until there is everything that it takes to start the container.
    pub(super) async fn prepare(&self, restarts: i32) -> (Launch, Image) {
        let (image, builtin) = self.image().await;
        let mut step = RECONFIGURE.0;
        loop {
            match self.launch(&image, builtin, restarts).await {
                Ok(launch) => return (launch, image),
                Err(reason) => {
                    self.waits("CreateContainerConfigError", &reason);
                    self.event(Type::Warning, "Failed", format!("Error: {reason}"));
                    sleep(step).await;
                    step = (step * 2).min(RECONFIGURE.1);
                }
            }
        }
    }

    /// Waits until the image is there.
    async fn image(&self) -> (Image, Option<Builtin>) {
        let name = self.container.image.clone().unwrap_or_default();
        let node = &self.pod.node;
        if let Some(builtin) = node.builtins.of_image(&name) {
            let id = format!("{name}@builtin");
            return (
                Image {
                    id,
                    ..Image::default()
                },
                Some(builtin),
            );
        }
        let mut changes = node.images.changes();
        let mut back_off = BACK_OFF.0;
        loop {
            changes.borrow_and_update();
            if let Some(image) = node.images.find(&name) {
                self.event(
                    Type::Normal,
                    "Pulled",
                    format!("Container image \"{name}\" already present on machine"),
                );
                return (Image::clone(&image), None);
            }
            if self.container.image_pull_policy.as_deref() == Some("Never") {
                let reason =
                    format!("Container image \"{name}\" is not present with pull policy of Never");
                self.waits("ErrImageNeverPull", &reason);
                self.event(Type::Warning, "ErrImageNeverPull", reason);
                let _ = changes.changed().await;
                continue;
            }
            self.event(Type::Normal, "Pulling", format!("Pulling image \"{name}\""));
            let reason = format!(
                "failed to pull and unpack image \"{}\": {}",
                crate::node::images::normalised(&name),
                missing(&name)
            );
            self.waits("ErrImagePull", &reason);
            self.event(
                Type::Warning,
                "Failed",
                format!("Failed to pull image \"{name}\": {reason}"),
            );
            self.event(Type::Warning, "Failed", "Error: ErrImagePull".to_owned());
            let soon = Instant::now() + back_off;
            if timeout_at(Instant::now() + Duration::from_secs(1), changes.changed())
                .await
                .is_ok()
            {
                continue;
            }
            self.event(
                Type::Normal,
                "BackOff",
                format!("Back-off pulling image \"{name}\""),
            );
            self.event(
                Type::Warning,
                "Failed",
                "Error: ImagePullBackOff".to_owned(),
            );
            self.waits(
                "ImagePullBackOff",
                &format!("Back-off pulling image \"{name}\": ErrImagePull: {reason}"),
            );
            let _ = timeout_at(soon, changes.changed()).await;
            back_off = (back_off * 2).min(BACK_OFF.1);
        }
    }

    async fn launch(
        &self,
        image: &Image,
        builtin: Option<Builtin>,
        restarts: i32,
    ) -> Result<Launch, String> {
        if let Some(builtin) = builtin {
            return Ok(Launch::Task(builtin));
        }
        let pod = self.pod.with_address();
        let environment = env::of_container(&pod, &self.container, &self.pod.node.objects).await?;
        let expanded = |words: &Option<Vec<String>>| {
            let words = words
                .iter()
                .flatten()
                .map(|word| env::expand(word, &environment));
            Some(words.collect::<Vec<_>>()).filter(|words| !words.is_empty())
        };
        // A command takes the place of the image's arguments too.
        let command = match (
            expanded(&self.container.command),
            expanded(&self.container.args),
        ) {
            (Some(command), args) => [command, args.unwrap_or_default()].concat(),
            (None, Some(args)) => [image.entrypoint.clone(), args].concat(),
            (None, None) => [image.entrypoint.clone(), image.cmd.clone()].concat(),
        };
        let directory = self
            .pod
            .directory
            .join(format!("{}.{restarts}", self.container.name));
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let message = directory.join("termination-log");
        std::fs::write(&message, "").map_err(|error| error.to_string())?;
        let mounts = self.container.volume_mounts.clone().unwrap_or_default();
        let mut binds = image.binds.clone();
        binds.extend(self.setup.files.iter().cloned());
        binds.extend(self.setup.volumes.binds(&mounts, &environment)?);
        let path = self.container.termination_message_path.clone();
        binds.push(Bind {
            source: message.clone(),
            target: path.unwrap_or_else(|| "/dev/termination-log".to_owned()),
            read_only: false,
        });
        let mut file = ContainerFile {
            sandbox: self.setup.sandbox,
            lower: image.files.clone(),
            directory,
            binds,
            env: env::merged(image, &environment, &self.setup.hostname),
            cwd: self
                .container
                .working_dir
                .clone()
                .unwrap_or_else(|| image.working_dir.clone()),
            command,
            tty: self.container.tty.unwrap_or_default(),
            ..ContainerFile::default()
        };
        security::restrict(&mut file, &self.container);
        Ok(Launch::Process {
            file: Box::new(file),
            message,
        })
    }
}

/// Why an image that was not loaded cannot be had, and what to do.
fn missing(name: &str) -> String {
    if name == ENVOY_IMAGE {
        "the lab was started without Envoy: set STRATA_ENVOY".to_owned()
    } else if name.starts_with(BUILTIN_IMAGE_PREFIX) {
        "the lab has no such component".to_owned()
    } else {
        format!("not found: the lab pulls nothing; load it: docker save {name} | strata-lab load -")
    }
}
