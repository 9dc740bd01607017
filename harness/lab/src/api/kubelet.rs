//! What the API server asks of the kubelets: the streams behind `exec` and `log`.
//!
//! Start from [`Kubelet`]. The API server finds the pod and its container and speaks the streaming
//! protocol to the client; starting processes and keeping logs is the node's work.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// One container of one pod, already found to exist in the pod's specification.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerRef {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub uid: String,
    /// The node it is bound to.
    pub node: String,
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

/// The options of `PodLogOptions` (core/v1) that the lab follows.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on with new lines until the container ends.
    pub follow: bool,
    /// The previous instance's log.
    pub previous: bool,
    /// The last so many lines.
    pub tail_lines: Option<usize>,
    /// Prefix each line with its RFC 3339 time.
    pub timestamps: bool,
}

/// A running `exec`. Dropping it ends the process.
pub struct ExecSession {
    /// Present when standard input was asked for; dropping it is end of file.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Standard output, and with a terminal standard error too.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Standard error; absent with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Terminal sizes (columns, rows); absent without a terminal.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// The process's exit code (128 + n when signal n ended it).
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
    ) -> Result<ExecSession, KubeletError>;

    /// A container's log, oldest line first.
    async fn logs(
        &self,
        target: &ContainerRef,
        options: LogOptions,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, KubeletError>;
}
