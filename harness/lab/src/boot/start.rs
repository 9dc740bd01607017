//! The host's side of a lab: starting it, holding its lifeline, letting go of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf, absolute};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::Ordering;

use anyhow::bail;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::report::{Ready, Report};
use super::stage::{BOOT, KEEP};
use super::{INITIALIZED, LabConfig, StartError};

/// As many as the underlay and a look at the topology allow.
const MAX_WORKERS: usize = 50;

/// A running lab. Dropping it ends the lab: it holds the lifeline. [`Lab::stop`] also waits for
/// the end.
#[derive(Debug)]
pub struct Lab {
    ready: Ready,
    child: Child,
    lifeline: Option<ChildStdin>,
}

/// A lab that lives on alone, until its first process gets SIGTERM.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The lab's first process, by its id on the host: `kill` it to end the lab.
    pub pid: u32,
    /// The API server's URL.
    pub server: String,
    /// The administrator's kubeconfig: its text.
    pub kubeconfig: String,
    /// The kubeconfig as a file, which is there as long as the lab is.
    pub kubeconfig_path: PathBuf,
}

/// Starts a lab; returns when the API server is up, every node is ready and the system's manifests
/// are applied.
///
/// # Errors
/// With the step that failed; nothing is left of the lab then.
pub async fn start(config: LabConfig) -> Result<Lab, StartError> {
    let config = checked(config)?;
    let log = Log::open(config.log.as_deref())?;
    let failed = |error: io::Error| StartError::Spawn(format!("cannot start the lab: {error}"));
    let mut child = Command::new("/proc/self/exe")
        .arg0(BOOT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log.file.try_clone().map_err(failed)?)
        .spawn()
        .map_err(failed)?;
    let mut lifeline = child.stdin.take();
    let mut line = serde_json::to_vec(&config).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    if let Some(pipe) = &mut lifeline {
        // One that ended at once has more to say than that the pipe is broken.
        let _ = pipe.write_all(&line).await;
    }
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        let read = BufReader::new(stdout).read_line(&mut said).await;
        read.map_err(failed)?;
    }
    match serde_json::from_str(&said) {
        Ok(Report::Ready(ready)) => Ok(Lab {
            ready,
            child,
            lifeline,
        }),
        Ok(Report::Failed(error)) => {
            drop(lifeline);
            let _ = child.wait().await;
            Err(error)
        }
        Err(_) => {
            drop(lifeline);
            let status = child.wait().await.map_err(failed)?;
            Err(StartError::Ended(format!(
                "the lab ended before it was ready ({status}){}",
                log.last_words()
            )))
        }
    }
}

/// Refuses what no lab can be, and makes paths mean the same wherever they are read.
fn checked(mut config: LabConfig) -> Result<LabConfig, StartError> {
    if !INITIALIZED.load(Ordering::Relaxed) {
        return Err(StartError::Config(
            "a program that starts a lab has to call strata_lab::boot::init() as the first statement of its main".to_owned(),
        ));
    }
    if !(1..=MAX_WORKERS).contains(&config.workers) {
        return Err(StartError::Config(format!(
            "a lab has 1 to {MAX_WORKERS} workers, not {}",
            config.workers
        )));
    }
    let named = config.nft.components().count() > 1;
    let paths = named.then_some(&mut config.nft).into_iter();
    for path in paths
        .chain(&mut config.envoy)
        .chain(&mut config.images)
        .chain(&mut config.log)
    {
        *path = absolute(&*path).map_err(|error| {
            StartError::Config(format!("{} is not a path: {error}", path.display()))
        })?;
    }
    Ok(config)
}

/// What the lab's processes write to their standard error.
struct Log {
    file: File,
    path: Option<PathBuf>,
}

impl Log {
    fn open(path: Option<&Path>) -> Result<Self, StartError> {
        let file = match path {
            Some(path) => OpenOptions::new().append(true).create(true).open(path),
            // Kept in memory, and only for a lab that does not start: no file is left behind.
            None => memory_file(),
        };
        let file = file.map_err(|error| {
            let name = path.map_or("in memory".into(), Path::to_string_lossy);
            StartError::Config(format!("cannot write the lab's log {name}: {error}"))
        })?;
        Ok(Self {
            file,
            path: path.map(Path::to_owned),
        })
    }

    /// What a lab that did not say why it ended has left.
    fn last_words(&self) -> String {
        if let Some(path) = &self.path {
            return format!("; its log is {}", path.display());
        }
        let mut buffer = vec![0; 4096];
        let count = self.file.read_at(&mut buffer, 0).unwrap_or_default();
        buffer.truncate(count);
        let text = String::from_utf8_lossy(&buffer).trim().replace('\n', " ");
        if text.is_empty() {
            return text;
        }
        format!(": {text}")
    }
}

fn memory_file() -> io::Result<File> {
    // SAFETY: the name is a C string; the result is checked before it is taken for a descriptor.
    unsafe {
        let fd = libc::memfd_create(c"strata-lab.log".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(File::from_raw_fd(fd))
    }
}

impl Lab {
    /// The administrator's kubeconfig: its text.
    #[must_use]
    pub fn kubeconfig(&self) -> &str {
        &self.ready.kubeconfig
    }

    /// The kubeconfig as a file, which is there as long as the lab is: it is on the lab's own tmpfs,
    /// seen through its first process.
    #[must_use]
    pub fn kubeconfig_path(&self) -> &Path {
        Path::new(&self.ready.kubeconfig_path)
    }

    /// The API server's URL, as the host reaches it.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.ready.server
    }

    /// The lab's first process, by its id on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.ready.pid
    }

    /// The command that enters the network namespace of one of the lab's processes: the process's
    /// id on the host follows, as Nodes and Pods are annotated with it, then a command.
    #[must_use]
    pub fn nsenter(&self) -> Vec<String> {
        let options: &[&str] = if self.ready.user_namespace {
            &["nsenter", "--preserve-credentials", "-U", "-n", "-t"]
        } else {
            &["nsenter", "-n", "-t"]
        };
        options.iter().map(|&word| word.to_owned()).collect()
    }

    /// Waits until the lab has ended by itself, which it does only when a part of it fails or
    /// somebody ends it.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        // `Child::wait` closes the standard input, but that was taken out of it.
        self.child.wait().await
    }

    /// Ends the lab and waits until nothing is left of it.
    ///
    /// # Errors
    /// When it had ended before, in a way that it should not have.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.lifeline.take());
        let status = self.child.wait().await?;
        if !status.success() {
            bail!("the lab had ended before ({status})");
        }
        Ok(())
    }

    /// Lets the lab live on alone.
    ///
    /// # Errors
    /// When it has ended.
    pub fn keep(mut self) -> io::Result<Kept> {
        if let Some(pipe) = self.lifeline.take() {
            let mut pipe = File::from(pipe.into_owned_fd()?);
            writeln!(pipe, "{KEEP}")?;
        }
        let Ready {
            server,
            kubeconfig,
            kubeconfig_path,
            pid,
            ..
        } = self.ready;
        Ok(Kept {
            pid,
            server,
            kubeconfig,
            kubeconfig_path: kubeconfig_path.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_lab_can_be_is_refused() {
        INITIALIZED.store(true, Ordering::Relaxed);
        for workers in [0, 51] {
            let config = LabConfig {
                workers,
                ..LabConfig::default()
            };
            let refused = checked(config).unwrap_err();
            assert_eq!(
                refused.to_string(),
                format!("a lab has 1 to 50 workers, not {workers}")
            );
        }
    }

    #[test]
    fn paths_mean_the_same_in_the_lab_but_names_stay_names() {
        INITIALIZED.store(true, Ordering::Relaxed);
        let config = checked(LabConfig {
            envoy: Some("tools/envoy".into()),
            ..LabConfig::default()
        });
        let config = config.unwrap();
        assert_eq!(config.nft, Path::new("nft"));
        assert_eq!(config.envoy, Some(absolute("tools/envoy").unwrap()));
    }
}
