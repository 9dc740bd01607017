//! What the API server asks of the kubelets: the streams behind `exec`, `attach`, `log` and
//! `portforward`.
//!
//! Start from [`Kubelet`]. The API server finds the pod and its container and speaks the streaming
//! protocol to the client; processes, logs and namespaces are the node's work.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// One pod that is bound to a node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// One container of one pod, already found to exist in the pod's specification.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerRef {
    /// The pod.
    pub pod: PodRef,
    /// The container's name.
    pub container: String,
}

/// The options of `PodExecOptions` (core/v1).
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// The command and its arguments, not run in a shell.
    pub command: Vec<String>,
    /// Whether the client sends standard input.
    pub stdin: bool,
    /// Whether a terminal is allocated.
    pub tty: bool,
}

/// The options of `PodAttachOptions` (core/v1). Whether there is a terminal is the container's.
#[derive(Debug, Clone)]
pub struct AttachRequest {
    /// Whether the client sends standard input.
    pub stdin: bool,
}

/// The options of `PodLogOptions` (core/v1) that the lab follows.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on with new lines until the container ends.
    pub follow: bool,
    /// The previous instance's log.
    pub previous: bool,
    /// The last so many lines.
    pub tail_lines: Option<usize>,
    /// Of these, the lines that were written then or later.
    pub since: Option<Timestamp>,
    /// Prefix each line with its RFC 3339 time.
    pub timestamps: bool,
}

/// The streams of a process: of an `exec`, which ends when this is dropped, or of a container that
/// was attached to, which does not.
pub struct ProcessStreams {
    /// Present when standard input was asked for and is there; dropping it ends what is sent.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output, and with a terminal standard error too.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Standard error; absent with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Terminal sizes (columns, rows); absent without a terminal.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// The exit code (128 + n when signal n ended it); 0 where only the attachment ended. It has to
    /// be awaited for the other streams to go on.
    pub exit: BoxFuture<'static, std::io::Result<i32>>,
}

/// Why a stream could not be opened; the text is shown to the user.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// The container is not running, or not yet.
    #[error("{0}")]
    BadRequest(String),
    /// No such container here.
    #[error("{0}")]
    NotFound(String),
    /// The node failed to do it.
    #[error("{0}")]
    Internal(String),
}

/// Every node's kubelet, behind one door.
#[async_trait::async_trait]
pub trait Kubelet: Send + Sync + 'static {
    /// Starts a command in a running container.
    async fn exec(
        &self,
        target: &ContainerRef,
        request: ExecRequest,
    ) -> Result<ProcessStreams, KubeletError>;

    /// What a running container writes from now on, and its standard input.
    async fn attach(
        &self,
        target: &ContainerRef,
        request: AttachRequest,
    ) -> Result<ProcessStreams, KubeletError>;

    /// A container's log, oldest line first.
    async fn logs(
        &self,
        target: &ContainerRef,
        options: LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, KubeletError>;

    /// A connection to a port of a pod's loopback interface, made inside the pod.
    async fn connect(&self, target: &PodRef, port: u16) -> Result<TcpStream, KubeletError>;
}

/// The kubelets of a cluster without nodes.
#[derive(Debug, Clone, Copy)]
pub struct NoNodes;

#[async_trait::async_trait]
impl Kubelet for NoNodes {
    async fn exec(&self, _: &ContainerRef, _: ExecRequest) -> Result<ProcessStreams, KubeletError> {
        Err(no_node())
    }

    async fn attach(
        &self,
        _: &ContainerRef,
        _: AttachRequest,
    ) -> Result<ProcessStreams, KubeletError> {
        Err(no_node())
    }

    async fn logs(
        &self,
        _: &ContainerRef,
        _: LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, KubeletError> {
        Err(no_node())
    }

    async fn connect(&self, _: &PodRef, _: u16) -> Result<tokio::net::TcpStream, KubeletError> {
        Err(no_node())
    }
}

fn no_node() -> KubeletError {
    KubeletError::NotFound("there is no node".to_owned())
}
