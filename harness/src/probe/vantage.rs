//! Where a request starts.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use strata_probe::{
    ApiReply, ApiSpec, BriefReply, DnsReply, DnsSpec, Network, Reply, RequestSpec, RequestsSpec,
    Spec, TcpReply, TcpSpec, UdpReply, UdpSpec,
};

use super::exec::{self, Failure};
use super::{Answers, Transcript};
use crate::pod::PodView;
use crate::provider::{Output, Outside};
use crate::verdict::{Doing as _, NoVerdict, Outcome};

/// A minute, and a little for the command to begin; below what an exec may take.
const SERVED_FOR: &str = "70000";

/// A place to send traffic from: a container of the probe's image, or outside the cluster.
#[derive(Clone)]
pub struct Vantage {
    at: At,
    transcript: Transcript,
}

#[derive(Clone)]
enum At {
    Pod {
        client: kube::Client,
        pod: Arc<PodView>,
        image: Arc<str>,
    },
    Outside(Arc<dyn Outside>),
}

impl fmt::Debug for Vantage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Vantage").field(&self.name()).finish()
    }
}

impl Vantage {
    /// The container of a pod that is of the probe's image, which the cluster has under this name.
    pub(crate) fn pod_of(
        client: kube::Client,
        pod: &PodView,
        image: &str,
        transcript: Transcript,
    ) -> Self {
        let at = At::Pod {
            client,
            pod: Arc::new(pod.clone()),
            image: image.into(),
        };
        Self { at, transcript }
    }

    pub(crate) fn outside_of(outside: Arc<dyn Outside>, transcript: Transcript) -> Self {
        let at = At::Outside(outside);
        Self { at, transcript }
    }

    /// The pod's name, or "outside".
    #[must_use]
    pub fn name(&self) -> String {
        match &self.at {
            At::Pod { pod, .. } => pod.name.clone(),
            At::Outside(_) => "outside".to_owned(),
        }
    }

    /// The pod, if it is one.
    #[must_use]
    pub fn pod(&self) -> Option<&PodView> {
        match &self.at {
            At::Pod { pod, .. } => Some(pod),
            At::Outside(_) => None,
        }
    }

    /// Sends what a specification says and returns everything that came of it.
    ///
    /// # Errors
    /// When the probe could not be run or understood; whatever the network did is in the replies.
    pub async fn ask<S: Spec>(&self, spec: &S) -> Result<Vec<S::Reply>, NoVerdict> {
        let output = self.run(&spec.command(), S::SUBCOMMAND).await?;
        strata_probe::replies::<S>(&output)
            .map_err(|error| {
                NoVerdict::from(error).with_likely(
                    "the probe's image on the node is older than this harness, or its output was \
                     cut off",
                )
            })
            .doing(|| self.asking(S::SUBCOMMAND))
    }

    /// Sends requests.
    ///
    /// # Errors
    /// As [`Self::ask`], and when fewer replies came than `count` requests.
    pub async fn request(&self, spec: &RequestSpec) -> Result<Answers, NoVerdict> {
        let mut replies = self.ask(spec).await?;
        let fewer = (replies.len() as u64) < spec.count;
        if spec.duration_ms.is_none() && fewer {
            let because = format!("{} requests got {} replies", spec.count, replies.len());
            return Err(NoVerdict::new(because)).doing(|| self.asking("request"));
        }
        replies.sort_by_key(|reply| reply.sequence);
        Ok(Answers(replies))
    }

    /// Sends requests that differ; what came of each, in their order.
    ///
    /// # Errors
    /// As [`Self::ask`], and when a request has no reply.
    pub async fn requests(&self, spec: &RequestsSpec) -> Result<Vec<BriefReply>, NoVerdict> {
        let mut replies = self.ask(spec).await?;
        replies.sort_by_key(|reply| reply.sequence);
        let asked = spec.requests.len();
        if !replies
            .iter()
            .map(|reply| reply.sequence)
            .eq(0..asked as u64)
        {
            let because = format!("{asked} requests got {} replies", replies.len());
            return Err(NoVerdict::new(because)).doing(|| self.asking(RequestsSpec::SUBCOMMAND));
        }
        Ok(replies)
    }

    /// One GET.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn get(&self, url: impl Into<String>) -> Result<Reply, NoVerdict> {
        self.send(&RequestSpec::get(url)).await
    }

    /// A request that is sent once.
    ///
    /// # Errors
    /// As [`Self::request`]; or when the specification asks for more than one.
    pub async fn send(&self, spec: &RequestSpec) -> Result<Reply, NoVerdict> {
        self.one(spec).await
    }

    /// So many GETs one after the other, each over a connection of its own.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn get_many(&self, url: impl Into<String>, count: u64) -> Result<Answers, NoVerdict> {
        let spec = RequestSpec {
            count,
            ..RequestSpec::get(url)
        };
        self.request(&spec).await
    }

    /// Looks a name up by the container's `resolv.conf`.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn dns(
        &self,
        name: impl Into<String>,
        record_type: impl Into<String>,
    ) -> Result<DnsReply, NoVerdict> {
        self.one(&DnsSpec::new(name, record_type)).await
    }

    /// Opens TCP connections.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn tcp(&self, spec: &TcpSpec) -> Result<Vec<TcpReply>, NoVerdict> {
        self.ask(spec).await
    }

    /// Sends datagrams.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn udp(&self, spec: &UdpSpec) -> Result<Vec<UdpReply>, NoVerdict> {
        self.ask(spec).await
    }

    /// The vantage's interfaces and routes.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn network(&self) -> Result<Network, NoVerdict> {
        let command = [strata_probe::BINARY.to_owned(), "routes".to_owned()];
        let output = self.run(&command, "routes").await?;
        serde_json::from_str(output.trim()).doing(|| self.asking("routes"))
    }

    /// Asks the API server for its version as the pod's own account, its certificate verified.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub async fn kubernetes_api(&self) -> Result<ApiReply, NoVerdict> {
        self.one(&ApiSpec::default()).await
    }

    /// Echoes what comes to a port here, by TCP and by UDP, while something is done that takes a minute at most.
    /// The server ends with that, or soon after by itself: where it runs, a command may outlive who asked for it.
    ///
    /// # Errors
    /// Those of what is done, and when the server cannot be run.
    pub async fn while_serving(&self, port: u16, work: impl Future<Output = Outcome>) -> Outcome {
        let port = port.to_string();
        let words = [
            "serve", "--tcp", &port, "--udp", &port, "--for-ms", SERVED_FOR,
        ];
        let command = [strata_probe::BINARY].into_iter().chain(words);
        let command: Vec<_> = command.map(str::to_owned).collect();
        tokio::select! {
            ended = self.run(&command, "serve") => {
                ended?;
                let name = self.name();
                Err(NoVerdict::new(format!("the server at {name} ended too early")).into())
            }
            done = work => done,
        }
    }

    /// The one reply of a specification that has one.
    async fn one<S: Spec>(&self, spec: &S) -> Result<S::Reply, NoVerdict> {
        let mut replies = self.ask(spec).await?;
        match (replies.pop(), replies.len()) {
            (Some(reply), 0) => Ok(reply),
            (last, before) => Err(NoVerdict::new(format!(
                "the probe gave {} replies where one was asked for",
                before + usize::from(last.is_some())
            )))
            .doing(|| self.asking(S::SUBCOMMAND)),
        }
    }

    async fn run(&self, command: &[String], subcommand: &str) -> Result<String, NoVerdict> {
        let name = self.name();
        self.transcript.asked(&name, command);
        let began = Instant::now();
        let output = match &self.at {
            At::Pod { client, pod, image } => exec::in_pod(client, pod, image, command).await,
            At::Outside(outside) => exec::outside(outside.as_ref(), command).await,
        };
        match output.and_then(text) {
            Ok(text) => {
                self.transcript.answered(&name, &text, began.elapsed());
                Ok(text)
            }
            Err(failure) => {
                let no_verdict = NoVerdict::from(failure);
                self.transcript.failed(&name, no_verdict.because());
                Err(no_verdict).doing(|| self.asking(subcommand))
            }
        }
    }

    fn asking(&self, subcommand: &str) -> String {
        let place = match &self.at {
            At::Pod { pod, .. } => format!("in Pod {}/{}", pod.namespace, pod.name),
            At::Outside(_) => "outside the cluster".to_owned(),
        };
        format!("running the probe's {subcommand} {place}")
    }
}

/// What the probe wrote, if it ended well: by its contract every other exit code is our mistake.
fn text(output: Output) -> Result<String, Failure> {
    if output.exit_code != 0 {
        return Err(Failure::Exit {
            code: output.exit_code,
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    String::from_utf8(output.stdout).map_err(|_| Failure::NotText)
}
