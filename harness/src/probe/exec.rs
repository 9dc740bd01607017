//! Running a command in a container over the API, and every way in which that can fail.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{Api, AttachParams, AttachedProcess};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::pod::PodView;
use crate::provider::{Output, Outside};
use crate::verdict::NoVerdict;

/// A burst, or a connection that is held idle, takes this long at most; the check's own deadline
/// lies above.
const LIMIT: Duration = Duration::from_secs(75);

/// Why the probe could not be run. Pods are named by whoever adds what was being done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("none of its containers is of the probe's image {image}; it has {found}")]
    NotTheProbe { image: String, found: String },
    #[error("the pod is gone")]
    PodGone,
    #[error("its container {container} does not run: {state}")]
    NotRunning { container: String, state: String },
    #[error("the API refused the exec: {0}")]
    Refused(String),
    #[error("the exec's connection ended before the command did")]
    Cut,
    #[error("the command could not be started: {0}")]
    NotStarted(String),
    #[error("the command did not end within {} s", .0.as_secs())]
    Hangs(Duration),
    #[error("the probe ended with exit code {code}: {stderr}")]
    Exit { code: i32, stderr: String },
    #[error("the probe wrote what is not UTF-8")]
    NotText,
    #[error("the provider could not run it: {0}")]
    Outside(String),
}

pub(super) async fn in_pod(
    client: &kube::Client,
    pod: &PodView,
    image: &str,
    command: &[String],
) -> Result<Output, Failure> {
    let container = probe_container(&pod.pod, image)?;
    let api = Api::<Pod>::namespaced(client.clone(), &pod.namespace);
    let run = async {
        let parameters = AttachParams::default()
            .stdin(false)
            .stdout(true)
            .stderr(true)
            .container(&container);
        match api.exec(&pod.name, command, &parameters).await {
            Ok(process) => finish(process).await,
            Err(error) => Err(refusal(&api, pod, &container, error).await),
        }
    };
    timeout(LIMIT, run)
        .await
        .unwrap_or(Err(Failure::Hangs(LIMIT)))
}

pub(super) async fn outside(outside: &dyn Outside, command: &[String]) -> Result<Output, Failure> {
    match timeout(LIMIT, outside.run(command, b"")).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(Failure::Outside(
            NoVerdict::from(error).because().to_owned(),
        )),
        Err(_) => Err(Failure::Hangs(LIMIT)),
    }
}

/// The container to run in: a pod may have others, such as a sidecar that a mesh put in.
fn probe_container(pod: &Pod, image: &str) -> Result<String, Failure> {
    let containers = pod.spec.as_ref().map_or(&[][..], |spec| &spec.containers);
    let plain = |image: &str| image.trim_start_matches("docker.io/").to_owned();
    let of_the_probe = |found: &str| plain(found) == plain(image);
    let mut images = containers
        .iter()
        .map(|it| it.image.as_deref().unwrap_or(""));
    match images
        .position(of_the_probe)
        .and_then(|at| containers.get(at))
    {
        Some(container) => Ok(container.name.clone()),
        None => {
            let found: Vec<_> = containers
                .iter()
                .filter_map(|it| it.image.clone())
                .collect();
            Err(Failure::NotTheProbe {
                image: image.to_owned(),
                found: found.join(", "),
            })
        }
    }
}

/// Dropped before its end, an exec would live on.
struct Running(AttachedProcess);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn finish(process: AttachedProcess) -> Result<Output, Failure> {
    let mut running = Running(process);
    let status = running.0.take_status();
    let (stdout, stderr) = (running.0.stdout(), running.0.stderr());
    // All at once: a stream that nobody reads holds up the others.
    let (stdout, stderr, status) = tokio::join!(read(stdout), read(stderr), async {
        match status {
            Some(status) => status.await,
            None => None,
        }
    });
    let status = status.ok_or(Failure::Cut)?;
    Ok(Output {
        exit_code: exit_code(&status)?,
        stdout: stdout.map_err(|_| Failure::Cut)?,
        stderr: stderr.map_err(|_| Failure::Cut)?,
    })
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream.read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The exit code in the Status that ends an exec (`remotecommand` v4: reason `NonZeroExitCode` with
/// a cause `ExitCode`).
fn exit_code(status: &Status) -> Result<i32, Failure> {
    if status.status.as_deref() == Some("Success") {
        return Ok(0);
    }
    let details = status.details.iter();
    let mut causes = details.flat_map(|details| details.causes.iter().flatten());
    let code = causes
        .find(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .and_then(|cause| cause.message.as_deref()?.parse().ok());
    code.ok_or_else(|| {
        let message = status.message.clone().or_else(|| status.reason.clone());
        Failure::NotStarted(message.unwrap_or_else(|| "no reason given".to_owned()))
    })
}

/// Why the API did not begin an exec. The answer to an upgrade has no body that `kube` would show,
/// so the pod itself is looked at.
async fn refusal(api: &Api<Pod>, seen: &PodView, container: &str, error: kube::Error) -> Failure {
    match api.get_opt(&seen.name).await {
        Ok(None) => Failure::PodGone,
        Ok(Some(pod)) if pod.metadata.uid != seen.pod.metadata.uid => Failure::PodGone,
        Ok(Some(pod)) => match stopped(&pod, container) {
            Some(state) => Failure::NotRunning {
                container: container.to_owned(),
                state,
            },
            None => Failure::Refused(NoVerdict::from(error).because().to_owned()),
        },
        Err(_) => Failure::Refused(NoVerdict::from(error).because().to_owned()),
    }
}

/// Why a container does not run; nothing if it does.
fn stopped(pod: &Pod, container: &str) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let status = statuses.iter().find(|status| status.name == container)?;
    let state = status.state.clone().unwrap_or_default();
    if state.running.is_some() {
        return None;
    }
    if let Some(ended) = state.terminated {
        return Some(format!("it ended with exit code {}", ended.exit_code));
    }
    let waiting = state.waiting.and_then(|waiting| waiting.reason);
    Some(waiting.unwrap_or_else(|| "it has not started".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(yaml: &str) -> Result<i32, String> {
        exit_code(&serde_yaml::from_str(yaml).unwrap()).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_exit_code_is_the_status_of_remotecommand() {
        assert_eq!(code("{status: Success}"), Ok(0));
        let failed = "{status: Failure, reason: NonZeroExitCode, message: m,
            details: {causes: [{reason: ExitCode, message: '2'}]}}";
        assert_eq!(code(failed), Ok(2));
        let internal = "{status: Failure, reason: InternalError, message: no such file}";
        assert_eq!(
            code(internal).unwrap_err(),
            "the command could not be started: no such file"
        );
    }

    #[test]
    fn the_probes_container_is_found_beside_a_sidecar() {
        let pod = |images: &str| -> Pod {
            serde_yaml::from_str(&format!("{{spec: {{containers: [{images}]}}}}")).unwrap()
        };
        let both = pod("{name: proxy, image: envoy}, {name: app, image: strata.dev/probe:v1}");
        let probe = strata_probe::image::REFERENCE;
        assert_eq!(probe_container(&both, probe).unwrap(), "app");
        let pulled = pod("{name: app, image: registry.example/probe:v7}");
        let theirs = "registry.example/probe:v7";
        assert_eq!(probe_container(&pulled, theirs).unwrap(), "app");
        let other = pod("{name: web, image: nginx}");
        assert_eq!(
            probe_container(&other, probe).unwrap_err().to_string(),
            "none of its containers is of the probe's image strata.dev/probe:v1; it has nginx"
        );
    }

    #[test]
    fn a_container_that_does_not_run_is_told_from_an_exec_that_was_refused() {
        let pod = |state: &str| -> Pod {
            let yaml = format!(
                "{{status: {{containerStatuses: [{{name: app, image: i, imageID: '', ready: false,
                 restartCount: 0, state: {state}}}]}}}}"
            );
            serde_yaml::from_str(&yaml).unwrap()
        };
        let running = pod("{running: {startedAt: '2026-01-01T00:00:00Z'}}");
        assert_eq!(stopped(&running, "app"), None);
        let crashed = pod("{waiting: {reason: CrashLoopBackOff}}");
        assert_eq!(stopped(&crashed, "app").unwrap(), "CrashLoopBackOff");
        let ended = pod("{terminated: {exitCode: 137}}");
        assert_eq!(
            stopped(&ended, "app").unwrap(),
            "it ended with exit code 137"
        );
    }
}
